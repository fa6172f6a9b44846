//! Every statement, each built by a function of its arguments, so that a test can ask the planner about all of them.

use spawnpoint_core::SessionId;
use spawnpoint_core::record::{MatchPlayer, MatchRecord, Receipt};
use sqlx::{QueryBuilder, Sqlite};

use crate::Filter;
use crate::cursor::Position;

type Query = QueryBuilder<Sqlite>;

/// Players written by one statement: well under SQLite's bound on parameters (32,766) at six a row.
const PLAYERS_PER_INSERT: usize = 500;

const COLUMNS: &str = "m.session_id, m.fleet, m.server, m.instance_id, m.generation, m.created_at, m.started_at, m.ended_at, \
     m.reason, m.ended_by, m.code, m.exit_code, m.exit_signal, m.oom, m.results, m.results_error, m.queue_ms, m.schedule_ms, \
     m.pull_ms, m.boot_ms, m.claim_ms, m.dial_ms, m.total_ms, m.idempotency_key, m.idempotency_body";

/// SQLite's integers are signed; a duration beyond 292 million years reads as that.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Writes the row of a match unless its session has one.
pub(super) fn insert_match(r: &MatchRecord) -> Query {
    let mut q = Query::new(
        "INSERT INTO matches (session_id, fleet, server, instance_id, generation, created_at, started_at, ended_at, reason, \
         ended_by, code, exit_code, exit_signal, oom, results, results_error, queue_ms, schedule_ms, pull_ms, boot_ms, \
         claim_ms, dial_ms, total_ms, idempotency_key, idempotency_body) VALUES (",
    );
    let receipt = |part: fn(&Receipt) -> u64| r.receipt.as_ref().map(|x| signed(part(x)));
    let mark = r.idempotency.as_ref();
    let mut v = q.separated(", ");
    v.push_bind(r.session.to_string())
        .push_bind(r.fleet.as_str().to_owned())
        .push_bind(r.server.clone())
        .push_bind(r.instance.map(|i| i.to_string()))
        .push_bind(i64::from(r.generation.0))
        .push_bind(r.created_at)
        .push_bind(r.started_at)
        .push_bind(r.ended_at)
        .push_bind(r.reason.as_str())
        .push_bind(r.ended_by.as_str())
        .push_bind(r.code.clone())
        .push_bind(r.exit_code)
        .push_bind(r.exit_signal)
        .push_bind(r.oom)
        .push_bind(r.results.clone())
        .push_bind(r.results_error.clone())
        .push_bind(receipt(|x| x.queue_ms))
        .push_bind(receipt(|x| x.schedule_ms))
        .push_bind(receipt(|x| x.pull_ms))
        .push_bind(receipt(|x| x.boot_ms))
        .push_bind(receipt(|x| x.claim_ms))
        .push_bind(receipt(|x| x.dial_ms))
        .push_bind(receipt(|x| x.total_ms))
        .push_bind(mark.map(|m| m.key_hash.clone()))
        .push_bind(mark.map(|m| m.body_hash.clone()));
    q.push(") ON CONFLICT (session_id) DO NOTHING");
    q
}

/// Writes the players of a match, in as few statements as fit.
pub(super) fn insert_players(r: &MatchRecord) -> Vec<Query> {
    let mut seen = std::collections::HashSet::new();
    let rows: Vec<(i64, &MatchPlayer, bool)> = (0..)
        .zip(&r.players)
        .map(|(i, p)| (i, p, !seen.insert(&p.player)))
        .collect();
    rows.chunks(PLAYERS_PER_INSERT)
        .map(|chunk| {
            let mut q = Query::new(
                "INSERT INTO match_players (session_id, position, player_id, joined_at, ended_at, again) ",
            );
            q.push_values(chunk, |mut v, (position, p, again)| {
                v.push_bind(r.session.to_string())
                    .push_bind(*position)
                    .push_bind(p.player.as_str().to_owned())
                    .push_bind(p.joined_at)
                    .push_bind(r.ended_at)
                    .push_bind(*again);
            });
            q
        })
        .collect()
}

/// Writes the log of a match.
pub(super) fn insert_log(r: &MatchRecord) -> Query {
    let mut q = Query::new("INSERT INTO match_logs (session_id, tail) VALUES (");
    q.separated(", ")
        .push_bind(r.session.to_string())
        .push_bind(r.log_tail.clone());
    q.push(")");
    q
}

/// One match, without players and log.
pub(super) fn get(session: SessionId) -> Query {
    let mut q = Query::new(format!(
        "SELECT {COLUMNS} FROM matches AS m WHERE m.session_id = "
    ));
    q.push_bind(session.to_string());
    q
}

/// Its log.
pub(super) fn log(session: SessionId) -> Query {
    let mut q = Query::new("SELECT tail FROM match_logs WHERE session_id = ");
    q.push_bind(session.to_string());
    q
}

/// The players of some matches, by match and in order of joining.
pub(super) fn players(sessions: impl Iterator<Item = SessionId>) -> Query {
    let mut q = Query::new(
        "SELECT session_id, player_id, joined_at FROM match_players WHERE session_id IN (",
    );
    let mut v = q.separated(", ");
    for s in sessions {
        v.push_bind(s.to_string());
    }
    q.push(") ORDER BY session_id, position");
    q
}

/// At most `limit` matches after a position, newest end first.
pub(super) fn list(filter: &Filter, after: Option<Position>, limit: usize) -> Query {
    let mut q = Query::new(format!("SELECT {COLUMNS} FROM "));
    // The table that gives the order. A player's matches come from the player's rows: `CROSS JOIN` keeps it so whatever the
    // planner thinks of the sizes.
    let by = match &filter.player {
        Some(player) => {
            q.push(
                "match_players AS p CROSS JOIN matches AS m ON m.session_id = p.session_id WHERE p.again = 0 AND p.player_id = ",
            );
            q.push_bind(player.as_str().to_owned());
            "p"
        }
        None => {
            q.push("matches AS m WHERE 1");
            "m"
        }
    };
    if let Some(fleet) = &filter.fleet {
        q.push(" AND m.fleet = ")
            .push_bind(fleet.as_str().to_owned());
    }
    if let Some(reason) = filter.reason {
        q.push(" AND m.reason = ").push_bind(reason.as_str());
    }
    if let Some(from) = filter.ended_from {
        q.push(format_args!(" AND {by}.ended_at >= "))
            .push_bind(from);
    }
    // One upper bound, the tighter one: given both, the planner may start a deep page from the wider.
    match (after, filter.ended_until) {
        (Some(p), until) if until.is_none_or(|u| p.ended_at < u) => {
            q.push(format_args!(" AND ({by}.ended_at, {by}.session_id) < ("))
                .push_bind(p.ended_at)
                .push(", ")
                .push_bind(p.session.to_string())
                .push(")");
        }
        (_, Some(until)) => {
            q.push(format_args!(" AND {by}.ended_at < "))
                .push_bind(until);
        }
        (_, None) => {}
    }
    q.push(format_args!(
        " ORDER BY {by}.ended_at DESC, {by}.session_id DESC LIMIT "
    ))
    .push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    q
}

/// The last session that a key led to.
pub(super) fn by_idempotency(key_hash: &str, not_before: i64) -> Query {
    let mut q = Query::new(
        "SELECT session_id, idempotency_key, idempotency_body FROM matches WHERE idempotency_key = ",
    );
    q.push_bind(key_hash.to_owned())
        .push(" AND ended_at >= ")
        .push_bind(not_before)
        .push(" ORDER BY ended_at DESC, session_id DESC LIMIT 1");
    q
}

/// Deletes the oldest matches; players and logs go with them.
pub(super) fn prune(ended_before: i64, limit: usize) -> Query {
    let mut q = Query::new(
        "DELETE FROM matches WHERE session_id IN (SELECT session_id FROM matches WHERE ended_at < ",
    );
    q.push_bind(ended_before)
        .push(" ORDER BY ended_at, session_id LIMIT ")
        .push_bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .push(")");
    q
}

/// Writes a page, to see whether one can be written.
pub(super) fn probe() -> Query {
    Query::new("UPDATE store_state SET probes = probes + 1 WHERE id = 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_core::lifecycle::Reason;
    use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

    /// Every combination of conditions that a listing can have.
    fn listings() -> Vec<(String, Query)> {
        let after = Position {
            ended_at: 5,
            session: SessionId::new(uuid::Uuid::from_u128(1)),
        };
        let mut all = Vec::new();
        for bits in 0..64u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let filter = Filter {
                fleet: on(0).then(|| "f".parse().unwrap()),
                player: on(1).then(|| "p".parse().unwrap()),
                reason: on(2).then_some(Reason::Idle),
                ended_from: on(3).then_some(1),
                ended_until: on(4).then_some(9),
            };
            let after = on(5).then_some(after);
            all.push((format!("{filter:?} {after:?}"), list(&filter, after, 50)));
        }
        all
    }

    async fn plan(conn: &mut SqliteConnection, sql: &str) -> Vec<String> {
        sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(conn)
            .await
            .unwrap()
            .iter()
            .map(|r| r.get::<String, _>("detail"))
            .collect()
    }

    #[tokio::test]
    async fn every_query_has_an_index_and_none_sorts() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        super::super::schema::prepare(&mut conn, std::path::Path::new(":memory:"))
            .await
            .unwrap();
        let id = SessionId::new(uuid::Uuid::from_u128(1));
        let mut all = listings();
        all.push(("get".into(), get(id)));
        all.push(("log".into(), log(id)));
        all.push(("players".into(), players([id, id, id].into_iter())));
        all.push(("by_idempotency".into(), by_idempotency("k", 1)));
        all.push(("prune".into(), prune(1, 10)));
        all.push(("probe".into(), probe()));
        for (name, q) in all {
            let sql = q.into_string();
            let plan = plan(&mut conn, &sql).await;
            assert!(!plan.is_empty(), "{name}");
            for step in &plan {
                // Only the listing of everything reads an index from its end, which is no search.
                let whole = step == "SCAN m USING INDEX matches_by_end" && !sql.contains(" AND ");
                let fine = whole
                    || step.starts_with("SEARCH ")
                    || step.starts_with("LIST SUBQUERY")
                    || step.starts_with("CREATE BLOOM FILTER");
                assert!(fine, "{name}\n{sql}\n{plan:#?}");
            }
        }
    }

    #[tokio::test]
    async fn each_filter_uses_the_index_made_for_it() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        super::super::schema::prepare(&mut conn, std::path::Path::new(":memory:"))
            .await
            .unwrap();
        let fleet = Some("f".parse().unwrap());
        let reason = Some(Reason::Idle);
        let player = Some("p".parse().unwrap());
        let with = |fleet, reason, player| Filter {
            fleet,
            reason,
            player,
            ..Filter::default()
        };
        for (filter, index) in [
            (with(fleet.clone(), None, None), "matches_by_fleet "),
            (with(None, reason, None), "matches_by_reason "),
            (
                with(fleet.clone(), reason, None),
                "matches_by_fleet_reason ",
            ),
            (with(None, None, player.clone()), "match_players_by_player "),
            (with(fleet, reason, player), "match_players_by_player "),
        ] {
            let sql = list(&filter, None, 50).into_string();
            let plan = plan(&mut conn, &sql).await;
            assert!(plan[0].contains(index), "{filter:?}: {plan:?}");
        }
    }

    #[tokio::test]
    async fn a_player_is_an_exact_look_up_whatever_the_name() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        super::super::schema::prepare(&mut conn, std::path::Path::new(":memory:"))
            .await
            .unwrap();
        // Sizes that would tempt a planner to begin elsewhere: many matches, all of them with player `1`.
        sqlx::raw_sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO matches (session_id, fleet, server, generation, created_at, ended_at, reason, ended_by, oom)
             SELECT printf('%08x', i), 'f', 's', 1, i, i, 'idle', 'system', 0 FROM n;
             INSERT INTO match_players (session_id, position, player_id, joined_at, ended_at, again)
             SELECT session_id, 0, '1', 0, ended_at, 0 FROM matches;
             ANALYZE;",
        )
        .execute(&mut conn)
        .await
        .unwrap();
        let of = |name: &str| Filter {
            player: Some(name.parse().unwrap()),
            ..Filter::default()
        };
        let statement = list(&of("1"), None, 50).into_string();
        for name in ["11", "1%", "_", "a,b", "'", "\"", "\u{1f9c2}"] {
            let other = list(&of(name), None, 50).into_string();
            assert_eq!(other, statement, "the name is a parameter, never text");
        }
        assert!(statement.contains("p.player_id = ?"), "{statement}");
        assert!(!statement.contains("LIKE"), "{statement}");
        assert_eq!(
            plan(&mut conn, &statement).await,
            [
                "SEARCH p USING COVERING INDEX match_players_by_player (player_id=?)",
                "SEARCH m USING INDEX sqlite_autoindex_matches_1 (session_id=?)",
            ]
        );
    }
}
