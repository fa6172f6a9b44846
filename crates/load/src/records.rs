//! What the server wrote down, against what the clients saw: every session of theirs has exactly one record, with the right players and
//! a reason that fits. The comparing is pure; asking is below it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::api::{Api, Record};
use crate::fault::Fault;
use crate::report::{ClientRow, Outcome};

/// Between two looks while records are still being written.
const LOOK: Duration = Duration::from_millis(200);
/// Most pages of 500 read in one look: more than the largest run fills.
const MAX_PAGES: usize = 400;
/// Mismatches told one by one.
const MAX_TOLD: usize = 20;

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mismatch {
    /// `missing`, `twice`, `reason`, `players` or `unknown`.
    pub kind: &'static str,
    /// The session.
    pub session_id: String,
    /// In words.
    pub detail: String,
}

/// The comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordsCheck {
    /// Why it was not made; none if it was.
    pub unchecked: Option<String>,
    /// Sessions the clients were matched into.
    pub expected: usize,
    /// Of those, how many have a record.
    pub found: usize,
    /// Records by reason.
    pub reasons: BTreeMap<String, usize>,
    /// How many things do not fit.
    pub mismatched: usize,
    /// The first of them.
    pub mismatches: Vec<Mismatch>,
}

impl RecordsCheck {
    pub(crate) fn unchecked(why: impl Into<String>, expected: usize) -> Self {
        Self {
            unchecked: Some(why.into()),
            expected,
            ..Self::default()
        }
    }

    /// Why the run is not good, a sentence for each kind.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut kinds: BTreeMap<&str, (usize, &Mismatch)> = BTreeMap::new();
        for mismatch in &self.mismatches {
            kinds.entry(mismatch.kind).or_insert((0, mismatch)).0 += 1;
        }
        kinds
            .into_iter()
            .map(|(kind, (count, first))| {
                let at_least = if self.mismatched > self.mismatches.len() {
                    "at least "
                } else {
                    ""
                };
                format!(
                    "the server's records do not fit ({kind}, {at_least}{count}): session {}: {}",
                    first.session_id, first.detail
                )
            })
            .collect()
    }
}

/// What the clients know of one session.
#[derive(Debug, Default)]
struct Seen<'a> {
    players: BTreeSet<&'a str>,
    /// Somebody of ours failed or gave up in it: then its reason is a consequence, not a finding, and it may live on.
    troubled: bool,
}

/// Compares. `strangers` are records that name players of this run in sessions none of its clients was told of.
pub(crate) fn compare(rows: &[ClientRow], records: &[Record], wait_only: bool) -> RecordsCheck {
    let mut seen: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for row in rows {
        names.extend(row.player_id.as_deref());
        let Some(session) = row.session_id.as_deref() else {
            continue;
        };
        let entry = seen.entry(session).or_default();
        entry.players.extend(row.player_id.as_deref());
        entry.troubled |= !row.is_good();
    }
    let mut by_session: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_session
            .entry(record.session_id.as_str())
            .or_default()
            .push(record);
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = vec![];
    let mut found = 0;
    for (session, seen) in &seen {
        match by_session.get(session).map(Vec::as_slice) {
            None | Some([]) if seen.troubled => {}
            None | Some([]) => wrong.push(mismatch("missing", session, "it has no record")),
            Some([record, rest @ ..]) => {
                found += 1;
                *reasons.entry(record.reason.clone()).or_default() += 1;
                if !rest.is_empty() {
                    let detail = format!("it has {} records", rest.len() + 1);
                    wrong.push(mismatch("twice", session, &detail));
                }
                wrong.extend(unfit(session, seen, record, wait_only));
            }
        }
    }
    for (session, records) in &by_session {
        let ours = records
            .iter()
            .flat_map(|r| &r.players)
            .find(|p| names.contains(p.player_id.as_str()));
        if let (false, Some(player)) = (seen.contains_key(session), ours) {
            let detail = format!("{} played in it and was never told", player.player_id);
            wrong.push(mismatch("unknown", session, &detail));
        }
    }
    // What is missing comes first: that is what is waited for.
    wrong.sort_by(|a, b| (a.kind != "missing", a).cmp(&(b.kind != "missing", b)));
    RecordsCheck {
        unchecked: None,
        expected: seen.len(),
        found,
        reasons,
        mismatched: wrong.len(),
        mismatches: wrong.into_iter().take(MAX_TOLD).collect(),
    }
}

fn unfit(session: &str, seen: &Seen<'_>, record: &Record, wait_only: bool) -> Vec<Mismatch> {
    let mut wrong = vec![];
    // Who calls end while the game is already exiting may come first: both are the match's own end.
    let fits: &[&str] = if wait_only {
        &["ended_by_server"]
    } else {
        &["ended_by_server", "ended_by_client"]
    };
    if !seen.troubled && !fits.contains(&record.reason.as_str()) {
        let detail = format!("it ended for {}, not {}", record.reason, fits.join(" or "));
        wrong.push(mismatch("reason", session, &detail));
    }
    let recorded: BTreeSet<&str> = record
        .players
        .iter()
        .map(|p| p.player_id.as_str())
        .collect();
    if let Some(lost) = seen.players.difference(&recorded).next() {
        let detail = format!("the record does not name {lost}");
        wrong.push(mismatch("players", session, &detail));
    }
    wrong
}

fn mismatch(kind: &'static str, session: &str, detail: &str) -> Mismatch {
    Mismatch {
        kind,
        session_id: session.to_owned(),
        detail: detail.to_owned(),
    }
}

/// Asks until every session has its record or `limit` is over, and compares. `from` is the server's time at the beginning.
pub(crate) async fn check(
    api: &mut Api,
    rows: &[ClientRow],
    from: Option<&str>,
    wait_only: bool,
    limit: Duration,
) -> RecordsCheck {
    let sessions: BTreeSet<&str> = rows
        .iter()
        .filter_map(|r| r.session_id.as_deref())
        .collect();
    if sessions.is_empty() {
        return RecordsCheck::default();
    }
    let deadline = Instant::now() + limit;
    loop {
        let asked = match all(api, rows, from).await {
            Err(fault) if forbidden(&fault) => own(api, rows).await,
            other => other,
        };
        match asked {
            Ok(records) => {
                let check = compare(rows, &records, wait_only);
                let missing = check.mismatches.iter().any(|m| m.kind == "missing");
                if !missing || Instant::now() >= deadline {
                    return check;
                }
            }
            Err(fault) if fault.transient && Instant::now() < deadline => {}
            Err(fault) => return RecordsCheck::unchecked(fault.to_string(), sessions.len()),
        }
        sleep(LOOK).await;
    }
}

fn forbidden(fault: &Fault) -> bool {
    ["forbidden", "unauthenticated", "http_401", "http_403"].contains(&fault.class.as_str())
}

/// A backend's way: the fleet's latest records.
async fn all(api: &mut Api, rows: &[ClientRow], from: Option<&str>) -> Result<Vec<Record>, Fault> {
    let fleets: BTreeSet<Option<&str>> = rows
        .iter()
        .filter(|r| r.session_id.is_some())
        .map(|r| r.fleet.as_deref())
        .collect();
    let mut records = vec![];
    for fleet in fleets {
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = api.records(fleet, from, cursor.as_deref()).await?;
            records.extend(page.matches);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(records)
}

/// A player's way: each asks for their own. The same record comes from each of its players.
async fn own(api: &mut Api, rows: &[ClientRow]) -> Result<Vec<Record>, Fault> {
    let mut records: BTreeMap<(String, usize), Record> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.outcome != Outcome::Interrupted) {
        let (Some(player), Some(token)) = (&row.player_id, &row.token) else {
            continue;
        };
        api.credentials.token = Some(token.clone());
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for record in api.own_records(player).await?.matches {
            let nth = times.entry(record.session_id.clone()).or_default();
            records.insert((record.session_id.clone(), *nth), record);
            *nth += 1;
        }
    }
    Ok(records.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RecordedPlayer;
    use crate::report::tests::row;

    fn record(session: &str, players: &[&str], reason: &str) -> Record {
        Record {
            session_id: session.into(),
            players: players
                .iter()
                .map(|p| RecordedPlayer {
                    player_id: (*p).into(),
                })
                .collect(),
            reason: reason.into(),
        }
    }

    fn kinds(check: &RecordsCheck) -> Vec<&str> {
        check.mismatches.iter().map(|m| m.kind).collect()
    }

    #[test]
    fn one_record_each_with_everybody_in_it() {
        let rows = [0, 1, 2, 3].map(|n| row(n, Outcome::Done));
        let good = [
            record("s0", &["p0", "p1"], "ended_by_server"),
            record("s1", &["p3", "p2"], "ended_by_client"),
            record("other", &["somebody"], "idle"),
        ];
        let check = compare(&rows, &good, false);
        assert_eq!((check.expected, check.found, check.mismatched), (2, 2, 0));
        assert_eq!(kinds(&compare(&rows, &good, true)), ["reason"]);
        assert_eq!(kinds(&compare(&rows, &good[..1], false)), ["missing"]);
        let twice = [&good[..], &good[..1]].concat();
        assert_eq!(kinds(&compare(&rows, &twice, false)), ["twice"]);
    }

    #[test]
    fn wrong_reasons_lost_players_and_games_nobody_was_told_of() {
        let rows = [0, 1].map(|n| row(n, Outcome::Done));
        let culled = [record("s0", &["p0", "p1"], "idle")];
        assert_eq!(kinds(&compare(&rows, &culled, false)), ["reason"]);
        let lost = [record("s0", &["p0", "p11"], "ended_by_server")];
        assert_eq!(kinds(&compare(&rows, &lost, false)), ["players"]);
        let more = [
            record("s0", &["p0", "p1"], "ended_by_server"),
            record("s9", &["p1"], "never_joined"),
        ];
        let check = compare(&rows, &more, false);
        assert_eq!(kinds(&check), ["unknown"]);
        assert!(check.causes()[0].contains("p1 played in it and was never told"));
    }

    #[test]
    fn what_a_failure_caused_is_not_a_second_finding() {
        let mut rows = [0, 1].map(|n| row(n, Outcome::Done));
        rows[1].failed(crate::Phase::Connect, Fault::new("connection_refused", ""));
        let record = [record("s0", &["p0", "p1"], "never_joined")];
        assert_eq!(compare(&rows, &record, false).mismatched, 0);
        // Nor is it one that the session has not ended yet.
        assert_eq!(compare(&rows, &[], false).mismatched, 0);
    }
}
