//! What has to hold after every run: a clean audit, everything that was promised, and nothing left.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::eventually;
use crate::crowd::{Anchor, Ledger, bare};
use crate::site::{PATIENCE, Site};

/// What those who stayed may have noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stayed {
    /// Only a connection that broke: their game is the same process.
    OnTheSameProcess,
    /// Their game may have been killed: the session and its address are the same.
    UnderTheSameAddress,
}

/// Waits until the audit is clean.
pub(crate) fn audit(site: &Site) -> Result<(), String> {
    eventually("the audit is clean", PATIENCE, || site.audit())
}

/// With the server running and no player left who does anything.
pub(crate) fn all(site: &mut Site, ledger: &Ledger) -> Result<(), String> {
    audit(site)?;
    promises(site, ledger, PATIENCE)?;
    end_everything(site)?;
    promises(site, ledger, PATIENCE)?;
    audit(site)?;
    site.stop()?;
    let log = site.log();
    match log.lines().find(|l| l.contains("panicked")) {
        Some(line) => Err(format!("a panic: {line}")),
        None => Ok(()),
    }
}

/// Those who stayed are where they were. While they still play: some would soon be idle.
pub(crate) fn stayed(site: &Site, ledger: &Ledger, how: Stayed) -> Result<(), String> {
    let anchors = ledger.anchors();
    anchors.iter().try_for_each(|a| anchor(site, a, how))
}

/// Every acknowledged start is live or has exactly one record, and not both; what was told to end is recorded with the reason that was
/// told.
pub(crate) fn promises(site: &Site, ledger: &Ledger, limit: Duration) -> Result<(), String> {
    let told = ledger.starts();
    eventually("every promise is kept", limit, || {
        let live = live(site)?;
        let records = records(site)?;
        let broken: Vec<String> = told
            .iter()
            .filter_map(|(id, told)| {
                let recorded = records.get(id).map_or(&[][..], Vec::as_slice);
                let lives = live.contains_key(id);
                let kept = match (&told.ended, recorded) {
                    (None, []) => lives,
                    (None, [_]) => !lives,
                    // The reason that a player was told is the reason that is recorded.
                    (Some(told), [reason]) => !lives && reason == told,
                    _ => false,
                };
                (!kept).then(|| {
                    format!(
                        "session {id} of {} in {}: live {lives}, records {recorded:?}, told that it ends: {:?}",
                        told.player, told.fleet, told.ended
                    )
                })
            })
            .collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(broken.join("; "))
        }
    })
}

/// Live sessions with their phases.
fn live(site: &Site) -> Result<BTreeMap<String, String>, String> {
    let answer = site.admin.get("/api/sessions?limit=500")?;
    let list = answer.body["sessions"]
        .as_array()
        .ok_or("no list of sessions")?;
    Ok(list
        .iter()
        .filter(|s| s["phase"] != "ended")
        .filter_map(|s| {
            Some((
                s["session_id"].as_str()?.to_owned(),
                s["phase"].as_str()?.to_owned(),
            ))
        })
        .collect())
}

/// The reasons of all records of each session.
fn records(site: &Site) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let answer = site.admin.get(&format!("/api/matches?limit=500{cursor}"))?;
        let list = answer.body["matches"]
            .as_array()
            .ok_or("no list of records")?;
        for record in list {
            let id = record["session_id"]
                .as_str()
                .ok_or("a record of no session")?;
            let reason = record["reason"]
                .as_str()
                .ok_or("a record without a reason")?;
            all.entry(id.to_owned())
                .or_default()
                .push(reason.to_owned());
        }
        match answer.text("next_cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// Who stayed is in the same session under the same address.
fn anchor(site: &Site, anchor: &Anchor, stayed: Stayed) -> Result<(), String> {
    let ask = serde_json::json!({ "playerId": anchor.player, "fleet": "stay" });
    let answer = site.public.post("/api/new-game?wait=20", &ask)?;
    let (id, url) = (
        answer.text("session_id"),
        answer.text("wsUrl").map(|u| bare(&u)),
    );
    if (id.as_deref(), url.as_deref()) != (Some(&anchor.session), Some(&anchor.url)) {
        return Err(format!(
            "{anchor:?} was not kept: session {id:?} at {url:?}"
        ));
    }
    if stayed == Stayed::UnderTheSameAddress {
        return Ok(());
    }
    let session = site
        .admin
        .get(&format!("/api/sessions/{}", anchor.session))?;
    let same = session.body["instance"]["label"] == anchor.label.as_str()
        && session.body["generation"] == 1;
    if same {
        Ok(())
    } else {
        Err(format!("{anchor:?} has another game: {}", session.body))
    }
}

fn end_everything(site: &Site) -> Result<(), String> {
    eventually("every session ends", PATIENCE, || {
        let live = live(site)?;
        for (id, phase) in &live {
            if phase != "ending" {
                site.admin.delete(&format!("/api/sessions/{id}"))?;
            }
        }
        if live.is_empty() {
            Ok(())
        } else {
            Err(format!("{live:?}"))
        }
    })
}
