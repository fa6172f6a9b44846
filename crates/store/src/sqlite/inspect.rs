//! What an audit asks: which sessions have a record, and whether what is stored can be right. Everything is answered from an index;
//! no row of `matches` itself is read but those that are named.

use std::collections::HashSet;

use spawnpoint_core::SessionId;
use spawnpoint_core::audit::{Flaw, RecordFlaw};
use spawnpoint_core::lifecycle::Reason;
use sqlx::sqlite::SqlitePool;
use sqlx::{QueryBuilder, Sqlite};

use crate::contract::{Inspection, MAX_FLAWS};

type Query = QueryBuilder<Sqlite>;

/// Sessions looked up by one statement: a reader is back with its pool within a millisecond or two.
const LOOKED_UP_AT_ONCE: usize = 500;
/// Length of an id in its one spelling.
const ID_LENGTH: i64 = 36;

fn limit() -> i64 {
    i64::try_from(MAX_FLAWS).unwrap_or(i64::MAX)
}

/// Those of some sessions that have a match.
fn recorded(sessions: &[SessionId]) -> Query {
    let mut q = Query::new("SELECT session_id FROM matches WHERE session_id IN (");
    let mut v = q.separated(", ");
    for s in sessions {
        v.push_bind(s.to_string());
    }
    q.push(")");
    q
}

/// How many matches there are.
fn total() -> Query {
    Query::new("SELECT count(*) FROM matches")
}

/// Ids that are none, or that come more than once (which only a damaged index allows).
fn ids() -> Query {
    let mut q = Query::new(
        "SELECT session_id, count(*) FROM matches GROUP BY session_id HAVING count(*) > 1 OR length(session_id) <> ",
    );
    q.push_bind(ID_LENGTH).push(" LIMIT ").push_bind(limit());
    q
}

/// Matches that ended never, or before there were computers of this kind.
fn endless() -> Query {
    let mut q = Query::new("SELECT session_id FROM matches WHERE ended_at <= 0 LIMIT ");
    q.push_bind(limit());
    q
}

/// Every reason there is, each found by one search and not by a walk over all matches.
fn reasons() -> Query {
    Query::new(
        "WITH RECURSIVE each (reason) AS (SELECT min(reason) FROM matches UNION ALL \
         SELECT (SELECT min(m.reason) FROM matches AS m WHERE m.reason > each.reason) FROM each WHERE each.reason IS NOT NULL) \
         SELECT reason FROM each WHERE reason IS NOT NULL",
    )
}

/// Matches of one reason.
fn of_reason(reason: &str) -> Query {
    let mut q = Query::new("SELECT session_id FROM matches WHERE reason = ");
    q.push_bind(reason.to_owned())
        .push(" LIMIT ")
        .push_bind(limit());
    q
}

pub(super) async fn look_up(
    pool: &SqlitePool,
    sessions: &[SessionId],
) -> Result<HashSet<SessionId>, sqlx::Error> {
    let mut found = HashSet::new();
    for some in sessions.chunks(LOOKED_UP_AT_ONCE) {
        let rows: Vec<String> = recorded(some)
            .build_query_scalar()
            .persistent(some.len() == LOOKED_UP_AT_ONCE)
            .fetch_all(pool)
            .await?;
        found.extend(rows.iter().filter_map(|r| r.parse::<SessionId>().ok()));
    }
    Ok(found)
}

pub(super) async fn inspect(pool: &SqlitePool) -> Result<Inspection, sqlx::Error> {
    let total: i64 = total().build_query_scalar().fetch_one(pool).await?;
    let mut flaws = Vec::new();
    let mut add = |session: String, what| {
        if flaws.len() < MAX_FLAWS {
            flaws.push(RecordFlaw { session, what });
        }
    };
    let wrong: Vec<(String, i64)> = ids().build_query_as().fetch_all(pool).await?;
    for (session, times) in wrong {
        if times > 1 {
            add(session.clone(), Flaw::Twice);
        }
        if session.parse::<SessionId>().is_err() {
            add(session, Flaw::NoSession);
        }
    }
    let endless: Vec<String> = endless().build_query_scalar().fetch_all(pool).await?;
    for session in endless {
        add(session, Flaw::NoEnd);
    }
    let reasons: Vec<String> = reasons().build_query_scalar().fetch_all(pool).await?;
    for reason in reasons.iter().filter(|r| Reason::parse(r).is_none()) {
        let of: Vec<String> = of_reason(reason)
            .build_query_scalar()
            .fetch_all(pool)
            .await?;
        for session in of {
            add(session, Flaw::NoReason);
        }
    }
    Ok(Inspection {
        total: u64::try_from(total).unwrap_or(0),
        flaws,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

    #[tokio::test]
    async fn everything_is_answered_from_an_index() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        super::super::schema::prepare(&mut conn, std::path::Path::new(":memory:"))
            .await
            .unwrap();
        let id = SessionId::new(uuid::Uuid::from_u128(1));
        for q in [
            recorded(&[id, id]),
            total(),
            ids(),
            endless(),
            reasons(),
            of_reason("x"),
        ] {
            let sql = q.into_string();
            let plan: Vec<String> = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                .fetch_all(&mut conn)
                .await
                .unwrap()
                .iter()
                .map(|r| r.get::<String, _>("detail"))
                .collect();
            for step in &plan {
                assert!(!step.contains("TEMP B-TREE"), "{sql}\n{plan:#?}");
                let rows = step.starts_with("SCAN matches") || step.starts_with("SCAN m");
                assert!(!rows || step.contains("COVERING INDEX"), "{sql}\n{plan:#?}");
            }
        }
    }
}
