//! What a log of decisions costs: the claims made meanwhile, and each decision.
//!
//! Two servers in one process, one with a log and one without, each over simulated instances and records in memory: of a claim only what the
//! server itself does is left, so that the log's part in it is as large as it can be. They are asked in turn, in an order drawn anew each
//! round.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use spawnpoint_core::session::table::walk;
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_server::journal::{Counts, FileJournal, Journal, Made, StepMade, files};
use spawnpoint_store::memory::MemoryRecords;

use crate::inside::{AT_ONCE, EVERY, Inside, LOOK, PATIENCE};
use crate::proc::{cpu, thread_cpu};
use crate::report::{Section, Verdict, ms, ratio, thousands};
use crate::stats::{Order, Samples};
use crate::stopwatch::Mark;

/// What is promised: with a log at least this share of the claims per second ...
const TARGET_RATE: f64 = 0.9;
/// ... and a claim that takes at most so many times as long.
const TARGET_RATIO: f64 = 1.1;
/// What the log keeps: more than is written here, so that nothing is removed meanwhile.
const KEEP: u64 = 4 * 1024 * 1024 * 1024;
/// Claims at a fixed rate, for each server in each round.
const STEADY: Duration = Duration::from_secs(1);
/// Decisions handed over one by one, timed ...
const NOTES: usize = 20_000;
/// ... of which so many may wait: the writer must never be the one who is measured.
const WAITING: u64 = 4_000;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    rounds: usize,
    claims: usize,
}

impl Size {
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                rounds: 2,
                claims: 200,
            }
        } else {
            Self {
                rounds: 20,
                claims: 1_000,
            }
        }
    }
}

/// A journal that also counts what it is given, so that it can be waited for.
struct Counted {
    journal: FileJournal,
    noted: AtomicU64,
}

impl Counted {
    fn open(directory: &Path) -> Result<Self> {
        let clock = Arc::new(SystemClock::new());
        Ok(Self {
            journal: FileJournal::open(directory.to_owned(), KEEP, clock)?,
            noted: AtomicU64::new(0),
        })
    }

    /// Waits until all that was noted so far is written or left out.
    async fn settled(&self) -> Result<Counts> {
        let done = async {
            loop {
                let counts = self.journal.counts();
                if counts.written + counts.lost >= self.noted.load(Ordering::Acquire) {
                    return counts;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, done).await;
        waited.map_err(|_| anyhow!("the log is never written"))
    }
}

impl Journal for Counted {
    fn note(&self, made: Made) {
        self.noted.fetch_add(1, Ordering::AcqRel);
        self.journal.note(made);
    }

    fn counts(&self) -> Counts {
        self.journal.counts()
    }
}

/// What was measured of one of the two.
#[derive(Default)]
struct Side {
    /// Claims per second, of each round.
    rates: Vec<f64>,
    /// Claims at the fixed rate.
    steady: Vec<Duration>,
    /// CPU time of a round's claims and their ends, seconds.
    cpu: Vec<f64>,
}

/// What was measured.
#[derive(Default)]
struct Found {
    without: Side,
    with: Side,
    /// Decisions of the claims as fast as they come, and their ends.
    decisions: u64,
    /// Those at any time, and those that were left out.
    written: u64,
    lost: u64,
    /// Of the whole log.
    bytes: u64,
    /// CPU time of whoever notes a decision, nanoseconds each.
    note_ns: f64,
}

pub(crate) fn run(size: Size, progress: &ProgressBar) -> Result<Section> {
    progress.set_length(size.rounds as u64 + 1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let found = runtime.block_on(measure(size, dir.path(), progress))?;
    Ok(section(size, &found))
}

async fn measure(size: Size, dir: &Path, progress: &ProgressBar) -> Result<Found> {
    let mut found = Found {
        note_ns: notes(&dir.join("notes")).await?,
        ..Found::default()
    };
    progress.inc(1);
    let log = dir.join("log");
    let journal = Arc::new(Counted::open(&log)?);
    let without = Inside::start(Arc::new(MemoryRecords::new()), None).await?;
    let with = Arc::clone(&journal) as Arc<dyn Journal>;
    let with = Inside::start(Arc::new(MemoryRecords::new()), Some(with)).await?;
    let mut order = Order::new(1);
    for _ in 0..size.rounds {
        let mut turns = [false, true];
        order.shuffle(&mut turns);
        for logged in turns {
            let (bench, side) = if logged {
                (&with, &mut found.with)
            } else {
                (&without, &mut found.without)
            };
            let before = journal.settled().await?;
            let spent = cpu(std::process::id())?;
            let began = Mark::now();
            let sessions = bench.start_sessions(size.claims).await?;
            let took = began.elapsed();
            bench.end(sessions, 0).await?;
            let after = journal.settled().await?;
            let spent = cpu(std::process::id())?.since(spent).own;
            side.rates.push(size.claims as f64 / took.as_secs_f64());
            side.cpu.push(spent.as_secs_f64());
            found.decisions += after.written - before.written;
            let (steady, sessions) = bench.claims(tokio::time::sleep(STEADY)).await?;
            side.steady.extend(steady);
            bench.end(sessions, 0).await?;
        }
        progress.inc(1);
    }
    for bench in [without, with] {
        bench.stop().await;
    }
    let counts = journal.settled().await?;
    (found.written, found.lost) = (counts.written, counts.lost);
    found.bytes = files(&log)?.iter().map(|f| f.length).sum();
    ensure!(
        found.written > 0 && found.decisions > 0,
        "nothing was logged"
    );
    Ok(found)
}

/// What it costs whoever decides to note it: to copy what went in, and to hand it over. No slower than it can be written.
async fn notes(directory: &Path) -> Result<f64> {
    let journal = Counted::open(directory)?;
    let rows = walk();
    let mut spent = Duration::ZERO;
    for (n, row) in rows.iter().cycle().take(NOTES).enumerate() {
        if (n as u64).is_multiple_of(WAITING) {
            journal.settled().await?;
        }
        let began = thread_cpu()?;
        journal.note(Made::Step(Box::new(StepMade {
            before: row.before.clone(),
            event: row.event.clone(),
            now: row.now,
            result: row.outcome.clone(),
        })));
        spent += thread_cpu()?.saturating_sub(began);
    }
    let counts = journal.settled().await?;
    ensure!(counts.lost == 0, "{} were left out", counts.lost);
    let clock = overhead()?;
    let each = spent.as_secs_f64() / NOTES as f64 - clock;
    Ok(each.max(0.0) * 1e9)
}

/// What it takes to look at the clock twice, seconds.
fn overhead() -> Result<f64> {
    let mut spent = Duration::ZERO;
    for _ in 0..NOTES {
        let began = thread_cpu()?;
        spent += thread_cpu()?.saturating_sub(began);
    }
    Ok(spent.as_secs_f64() / NOTES as f64)
}

fn section(size: Size, found: &Found) -> Section {
    let mut s = Section::new(
        "journal",
        "What a log of decisions costs",
        &["", "without", "with", "with, as a multiple"],
    );
    s.method = format!(
        "Two servers in one process, one with `decision_log`, over simulated instances and records in memory, so that of a claim only the \
         server's own work is left. {} rounds; in each, in an order drawn anew, each of them answers {} `POST /api/new-game` of {AT_ONCE} callers as \
         fast as it can, ends those sessions, then answers one every {} ms for {} s, timed from when it was due. CPU time is the \
         process's, the caller's and the writing thread's included, until everything is ended and written.",
        size.rounds,
        thousands(size.claims as f64),
        EVERY.as_millis(),
        STEADY.as_secs(),
    );
    let sides = [&found.without, &found.with];
    let row = |name: &str, of: &dyn Fn(&Side) -> f64, show: &dyn Fn(f64) -> String| {
        let [without, with] = sides.map(of);
        let cells = [
            name.to_owned(),
            show(without),
            show(with),
            ratio(with / without),
        ];
        (cells.to_vec(), with / without)
    };
    let steady = |side: &Side| Samples::millis(side.steady.iter().copied());
    let claims = size.claims as f64;
    let cpu_us = |side: &Side| Samples::new(side.cpu.iter().map(|c| c * 1e6 / claims)).median();
    let (rates, rate) = row(
        "claims per second (median of rounds)",
        &|side| Samples::new(side.rates.iter().copied()).median(),
        &thousands,
    );
    let (medians, median) = row("a claim, median ms", &|side| steady(side).median(), &ms);
    let (tails, p99) = row("a claim, p99 ms", &|side| steady(side).quantile(0.99), &ms);
    let (cpus, _) = row("CPU time of a claim and its end, us", &cpu_us, &|us| {
        format!("{us:.0}")
    });
    s.rows = vec![rates, medians, tails, cpus];
    let per_claim = found.decisions as f64 / (claims * size.rounds as f64);
    let per_decision = (cpu_us(&found.with) - cpu_us(&found.without)) / per_claim;
    let length = found.bytes as f64 / found.written as f64;
    s.verdicts.push(Verdict::at_least(
        "claims per second with a log, as a multiple of those without",
        rate,
        TARGET_RATE,
    ));
    s.verdicts.push(Verdict::at_most(
        "a claim with a log, as a multiple of one without (medians)",
        median,
        TARGET_RATIO,
    ));
    s.notes.push(format!(
        "A claim and its end are {per_claim:.1} decisions. One costs {per_decision:.1} us of CPU time in all, {:.2} us of it where it is \
         made (a step, copied and handed over), and {length:.0} bytes.",
        found.note_ns / 1e3
    ));
    s.notes.push(format!(
        "{} decisions were written and {} left out.",
        thousands(found.written as f64),
        thousands(found.lost as f64)
    ));
    s.data = json!({
        "rounds": size.rounds, "claims": size.claims,
        "ratio": {"rate": rate, "median": median, "p99": p99},
        "decisions_per_claim": per_claim, "cpu_us_per_decision": per_decision,
        "note_us": found.note_ns / 1e3, "bytes_per_decision": length,
        "written": found.written, "lost": found.lost,
    });
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_claims_are_logged() {
        let size = Size {
            rounds: 1,
            claims: 30,
        };
        let section = run(size, &ProgressBar::hidden()).unwrap();
        let written = section.data["written"].as_u64();
        assert!(written > Some(60), "{}", section.data);
        assert_eq!(section.data["lost"], 0, "{}", section.data);
        assert_eq!(section.rows.len(), 4);
    }
}
