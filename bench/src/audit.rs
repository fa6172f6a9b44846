//! What an audit costs, and what it costs the claims made meanwhile.
//!
//! The real server, a real gateway and a real SQLite file in one process, over simulated instances. Claims come at a fixed rate the
//! whole time; those made while an audit runs are compared with those made while none does, in turn, in one run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use spawnpoint_core::Clock;
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_store::sqlite::SqliteRecords;
use sqlx::Connection as _;

use crate::inside::{EVERY, Inside};
use crate::report::{Section, Verdict, ms, ratio, thousands};
use crate::stats::Samples;
use crate::stopwatch::Mark;

/// What is promised: an audit takes at most this long, seconds ...
const TARGET_SECONDS: f64 = 2.0;
/// ... and a claim made meanwhile takes at most so many times one made while there is none.
const TARGET_RATIO: f64 = 1.1;
/// Claims without an audit, before each with one.
const QUIET: Duration = Duration::from_secs(1);
/// Rows written by one statement while the file is filled.
const ROWS: u64 = 50_000;
/// How long ago the oldest record ended: well within the retention.
const AGE: Duration = Duration::from_secs(86_400);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    live: usize,
    records: u64,
    rounds: usize,
}

impl Size {
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                live: 500,
                records: 20_000,
                rounds: 2,
            }
        } else {
            Self {
                live: 10_000,
                records: 1_000_000,
                rounds: 30,
            }
        }
    }
}

/// What was measured.
#[derive(Default)]
struct Found {
    audits: Vec<Duration>,
    quiet: Vec<Duration>,
    meanwhile: Vec<Duration>,
}

pub(crate) fn run(size: Size, progress: &ProgressBar) -> Result<Section> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let found = runtime.block_on(measure(size, dir.path(), progress))?;
    Ok(section(size, &found))
}

async fn measure(size: Size, dir: &Path, progress: &ProgressBar) -> Result<Found> {
    progress.set_length(size.records / ROWS.min(size.records) + size.rounds as u64 + 1);
    let path = dir.join("records.db");
    let records = SqliteRecords::open(&path).await?;
    fill(&path, size.records, progress).await?;
    let bench = Inside::start(Arc::new(records.clone()), None).await?;
    bench.start_sessions(size.live).await?;
    progress.inc(1);
    let mut found = Found::default();
    for _ in 0..size.rounds {
        let (quiet, mut claimed) = bench.claims(tokio::time::sleep(QUIET)).await?;
        found.quiet.extend(quiet);
        let began = Mark::now();
        let mut report = None;
        let (meanwhile, more) = bench
            .claims(async { report = Some(bench.server.audit().await) })
            .await?;
        found.audits.push(began.elapsed());
        found.meanwhile.extend(meanwhile);
        let report = report.context("the audit did not end")?;
        ensure!(
            report.is_clean(),
            "the audit is not clean: {:?} {:?}",
            report.findings,
            report.unseen
        );
        ensure!(report.counts.sessions >= size.live && report.counts.records >= size.records);
        claimed.extend(more);
        bench.end(claimed, size.live).await?;
        progress.inc(1);
    }
    bench.stop().await;
    records.close().await;
    Ok(found)
}

/// Fills the file with ended matches of one player each, as quickly as SQLite takes them.
async fn fill(path: &Path, records: u64, progress: &ProgressBar) -> Result<()> {
    let url = format!("sqlite://{}", path.display());
    let mut conn = sqlx::SqliteConnection::connect(&url).await?;
    sqlx::query("PRAGMA synchronous = OFF")
        .execute(&mut conn)
        .await?;
    let clock = SystemClock::new();
    // Younger than what is pruned.
    let first = clock.wall(clock.now().before(AGE));
    let mut from = 0;
    while from < records {
        let to = (from + ROWS).min(records);
        let mut tx = conn.begin().await?;
        for sql in [
            "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) \
             INSERT INTO matches (session_id, fleet, server, generation, created_at, started_at, ended_at, reason, ended_by, oom) \
             SELECT printf('01890a5d-ac96-774b-bcce-%012x', i), 'bench', 'bench', 1, ?3 + i, ?3 + i, ?3 + 1000 + i, CASE i % 3 WHEN 0 THEN 'idle' WHEN 1 THEN 'ended_by_client' ELSE 'ended_by_server' END, 'system', 0 FROM n",
            "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) \
             INSERT INTO match_players (session_id, position, player_id, joined_at, ended_at, again) \
             SELECT printf('01890a5d-ac96-774b-bcce-%012x', i), 0, 'player-' || (i % 100000), ?3 + i, ?3 + 1000 + i, 0 FROM n",
        ] {
            sqlx::query(sql)
                .bind(i64::try_from(from)?)
                .bind(i64::try_from(to)?)
                .bind(first)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        from = to;
        progress.inc(1);
    }
    Ok(conn.close().await?)
}

fn section(size: Size, found: &Found) -> Section {
    let mut s = Section::new(
        "audit",
        "What an audit costs",
        &["", "times", "median ms", "p99 ms", "most ms"],
    );
    let (live, records) = (thousands(size.live as f64), thousands(size.records as f64));
    s.method = format!(
        "The server and a gateway in one process over simulated instances and one SQLite file: {live} sessions live, {records} records of \
         ended ones. `POST /api/new-game` comes every {} ms the whole time, timed from when it was due; {} times in turn a second of it \
         without an audit and as long with one as that audit takes. An audit that suspects something because it was just changing takes \
         two or three looks, and its pauses count. Every audit has to be clean. Claims of a round are ended after it.",
        EVERY.as_millis(),
        size.rounds
    );
    let audits = Samples::millis(found.audits.iter().copied());
    let quiet = Samples::millis(found.quiet.iter().copied());
    let meanwhile = Samples::millis(found.meanwhile.iter().copied());
    for (name, samples) in [
        ("an audit", &audits),
        ("a claim while there is none", &quiet),
        ("a claim while one runs", &meanwhile),
    ] {
        s.rows.push(vec![
            name.to_owned(),
            thousands(samples.len() as f64),
            ms(samples.median()),
            ms(samples.quantile(0.99)),
            ms(samples.quantile(1.0)),
        ]);
    }
    let medians = meanwhile.median() / quiet.median();
    let tails = meanwhile.quantile(0.99) / quiet.quantile(0.99);
    s.rows.push(vec![
        "a claim while one runs, as a multiple".to_owned(),
        String::new(),
        ratio(medians),
        ratio(tails),
        String::new(),
    ]);
    let slowest = audits.quantile(1.0) / 1e3;
    s.verdicts.push(Verdict::at_most(
        &format!("seconds of the slowest audit of {live} live sessions and {records} records"),
        slowest,
        TARGET_SECONDS,
    ));
    s.verdicts.push(Verdict::at_most(
        "a claim while an audit runs, as a multiple of one while none does (medians)",
        medians,
        TARGET_RATIO,
    ));
    s.data = json!({
        "live": size.live, "records": size.records, "audits": audits.len(),
        "audit_ms": {"median": audits.median(), "most": audits.quantile(1.0)},
        "claim_ms": {"quiet": {"median": quiet.median(), "p99": quiet.quantile(0.99)},
            "meanwhile": {"median": meanwhile.median(), "p99": meanwhile.quantile(0.99)}},
        "ratio": {"median": medians, "p99": tails},
    });
    s
}
