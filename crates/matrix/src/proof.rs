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

/// Every acknowledged start is live or has exactly one record, and not both.
pub(crate) fn promises(site: &Site, ledger: &Ledger, limit: Duration) -> Result<(), String> {
    let told = ledger.starts();
    eventually("every promise is kept", limit, || {
        let live = live(site)?;
        let records = records(site)?;
        let broken: Vec<String> = told
            .iter()
            .filter_map(|(id, told)| {
                let (lives, recorded) =
                    (live.contains_key(id), records.get(id).copied().unwrap_or(0));
                let kept = matches!((lives, recorded), (true, 0) | (false, 1));
                (!kept).then(|| {
                    format!(
                        "session {id} of {} in {}: live {lives}, records {recorded}",
                        told.player, told.fleet
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

/// How many records each session has.
fn records(site: &Site) -> Result<BTreeMap<String, usize>, String> {
    let mut all = BTreeMap::new();
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
            *all.entry(id.to_owned()).or_default() += 1;
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
