//! `spawnpoint matches`.

use spawnpoint_wire::api::{MatchPage, MatchView};

use super::{or_dash, read};
use crate::args::{Global, MatchesVerb};
use crate::client::{Client, encode};
use crate::exit::Failure;
use crate::output::{distance, facts, now, raw, show, table};

/// Lists records, shows one or prints its log.
pub(crate) fn run(verb: &MatchesVerb, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match verb {
        MatchesVerb::Ls {
            fleet,
            player,
            reason,
            limit,
        } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            let filters = [("fleet", fleet), ("player_id", player), ("reason", reason)];
            query.extend(
                filters
                    .iter()
                    .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
            );
            let answer = client.get("/api/matches", &query)?;
            let page: MatchPage = read(&answer)?;
            show(global.output, &answer, || {
                let now = now();
                let mut text = table(
                    &[
                        "SESSION", "FLEET", "ENDED", "REASON", "BY", "EXIT", "PLAYERS", "LASTED",
                    ],
                    page.matches.iter().map(|m| row(m, now)).collect(),
                );
                if page.next_cursor.is_some() {
                    text.push_str("\n(there are more: --limit, up to 500)");
                }
                text
            })
        }
        MatchesVerb::Get { id } => {
            let answer = client.get(&format!("/api/matches/{}", encode(id)), &[])?;
            let record: MatchView = read(&answer)?;
            show(global.output, &answer, || details(&record))
        }
        MatchesVerb::Logs { id } => {
            let record: MatchView =
                read(&client.get(&format!("/api/matches/{}", encode(id)), &[])?)?;
            raw(record.log_tail.unwrap_or_default().as_bytes())
        }
    }
}

fn exit(m: &MatchView) -> String {
    match (m.exit_code, m.exit_signal) {
        _ if m.oom => "out of memory".to_owned(),
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "-".to_owned(),
    }
}

fn row(m: &MatchView, now: jiff::Timestamp) -> Vec<String> {
    vec![
        m.session_id.clone(),
        m.fleet.clone(),
        distance(Some(&m.ended_at), now),
        m.reason.clone(),
        m.ended_by.clone(),
        exit(m),
        m.players.len().to_string(),
        or_dash(m.duration_s.map(|s| format!("{s:.1}s"))),
    ]
}

fn details(m: &MatchView) -> String {
    let players: Vec<&str> = m.players.iter().map(|p| p.player_id.as_str()).collect();
    let now = now();
    facts(&[
        ("session", m.session_id.clone()),
        ("fleet", m.fleet.clone()),
        ("players", players.join(", ")),
        ("reason", format!("{}, by {}", m.reason, m.ended_by)),
        ("code", m.code.clone().unwrap_or_default()),
        ("exit", exit(m)),
        ("created", m.created_at.clone()),
        ("started", m.started_at.clone().unwrap_or_default()),
        (
            "ended",
            format!("{} ({})", m.ended_at, distance(Some(&m.ended_at), now)),
        ),
        (
            "lasted",
            m.duration_s
                .map(|s| format!("{s:.1} s"))
                .unwrap_or_default(),
        ),
        ("generations", m.generation.to_string()),
        (
            "start",
            m.receipt
                .as_ref()
                .map(super::sessions::receipt)
                .unwrap_or_default(),
        ),
        (
            "results",
            m.results
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        ("no results", m.results_error.clone().unwrap_or_default()),
        (
            "log",
            m.log_tail
                .as_ref()
                .map(|l| {
                    format!(
                        "{} bytes kept: spawnpoint matches logs {}",
                        l.len(),
                        m.session_id
                    )
                })
                .unwrap_or_default(),
        ),
    ])
}
