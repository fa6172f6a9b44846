//! `kill-matrix`: kills the real product at every named point and at any moment, under load, and shows that nothing is lost, nothing
//! double and nothing left over. What is killed are processes of `spawnpoint-faults`, the command built with the feature `faults`, on
//! the process runtime with SQLite; players speak to it as any player does. Nothing of this ships.

mod api;
mod clock;
mod course;
mod crowd;
mod machine;
mod proof;
mod report;
mod row;
mod site;
mod trouble;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use course::Plan;
use report::Score;
use row::{Row, Trouble};
use site::Programs;

/// Kills the real product wherever and whenever, and looks what is left.
#[derive(Debug, Parser)]
#[command(name = "kill-matrix", version, about)]
struct Args {
    /// How often each row is run.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Only rows with these words in their names, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Places used at the same time.
    #[arg(long, default_value_t = 4)]
    at_once: u16,
    /// Seconds for which everything stands still.
    #[arg(long, default_value_t = 60)]
    still: u64,
    /// Chance begins here: which pass, which moment, which victim.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the table into this document, between its markers.
    #[arg(long)]
    write: Option<PathBuf>,
    /// The command with fault points; by default `spawnpoint-faults` beside this program.
    #[arg(long)]
    command: Option<PathBuf>,
    /// Where logs of failed runs are kept; by default beside this program.
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let here = std::env::current_exe()?;
    let programs = programs(&args, &here)?;
    let logs = args
        .logs
        .clone()
        .unwrap_or_else(|| here.with_file_name("kill-matrix-logs"));
    std::fs::create_dir_all(&logs)?;
    let wanted = |row: &Row| {
        args.only.is_empty() || args.only.iter().any(|w| row.name().contains(w.as_str()))
    };
    let rows: Vec<Row> = Row::all().into_iter().filter(wanted).collect();
    if rows.is_empty() {
        bail!("no row has these words in its name");
    }
    let (rows, left_out) = possible(rows);
    clock::heed_signals().context("cannot handle signals")?;
    let scores = all(&args, &programs, &logs, &rows);
    if clock::interrupted() {
        say("interrupted: nothing is left behind, and nothing was written");
        return Ok(ExitCode::from(130));
    }
    say(&report::table(&scores, &left_out, &args.heading()));
    for score in &scores {
        for failure in &score.failures {
            say(&format!("\n{}: {failure}", score.row.name()));
        }
    }
    if let Some(path) = &args.write {
        let page = std::fs::read_to_string(path)?;
        let table = report::table(&scores, &left_out, &args.heading());
        std::fs::write(path, report::put(&page, &table)?)?;
    }
    let (runs, failed) = scores
        .iter()
        .fold((0, 0), |(r, f), s| (r + s.runs, f + s.failures.len()));
    say(&format!(
        "kill matrix: {} rows, {runs} runs, {failed} failed",
        scores.len()
    ));
    for (row, why) in &left_out {
        say(&format!("left out: {}: {why}", row.name()));
    }
    let strict = std::env::var_os("CI").is_some() && !left_out.is_empty();
    Ok(if failed > 0 || strict {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Args {
    fn heading(&self) -> String {
        format!(
            "Written by `make kill-matrix TIMES={}`: each row {} times.",
            self.times, self.times
        )
    }
}

fn say(line: &str) {
    // Whoever closed the pipe does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn programs(args: &Args, here: &std::path::Path) -> Result<Programs> {
    let beside = |name: &str| here.with_file_name(name);
    let programs = Programs {
        command: args
            .command
            .clone()
            .unwrap_or_else(|| beside("spawnpoint-faults")),
        spice: beside("spice"),
        arena: beside("arena-tcp"),
    };
    for path in [&programs.command, &programs.spice, &programs.arena] {
        path.metadata().with_context(|| {
            format!(
                "{} is not there: `make kill-matrix` builds what is needed",
                path.display()
            )
        })?;
    }
    Ok(programs)
}

/// Rows that this machine lets us run, and those it does not, with why.
fn possible(rows: Vec<Row>) -> (Vec<Row>, Vec<(Row, String)>) {
    let (mut run, mut left_out) = (Vec::new(), Vec::new());
    for row in rows {
        let allowed = match row {
            Row::Trouble(Trouble::DiskFull) => trouble::can_mount(),
            Row::Trouble(Trouble::RecordsReadOnly) => trouble::can_lock(),
            _ => Ok(()),
        };
        match allowed {
            Ok(()) => run.push(row),
            Err(why) => left_out.push((row, why)),
        }
    }
    (run, left_out)
}

fn all(args: &Args, programs: &Programs, logs: &std::path::Path, rows: &[Row]) -> Vec<Score> {
    let mut work: Vec<(usize, u64)> = Vec::new();
    for time in 0..args.times {
        work.extend((0..rows.len()).map(|row| (row, args.seed + u64::from(time))));
    }
    // The longest first: everything standing still takes a minute by itself.
    work.sort_by_key(|(row, _)| rows.get(*row) != Some(&Row::Trouble(Trouble::StandStill)));
    let bar = ProgressBar::new(work.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left {msg}") {
        bar.set_style(style);
    }
    let scores = rows.iter().map(|row| Score::new(*row)).collect();
    let scores: Mutex<Vec<Score>> = Mutex::new(scores);
    let next = AtomicUsize::new(0);
    let worker = |slot: u16| {
        while let Some(&(at, seed)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            if clock::interrupted() {
                return;
            }
            let Some(&row) = rows.get(at) else {
                continue;
            };
            let plan = Plan {
                programs,
                row,
                slot,
                seed: seed.wrapping_mul(1_000).wrapping_add(at as u64),
                still: Duration::from_secs(args.still),
                logs,
            };
            let done = course::run(&plan);
            if clock::interrupted() {
                return;
            }
            bar.inc(1);
            if let Err(e) = &done {
                bar.suspend(|| say(&format!("{}: {e}", row.name())));
            }
            let mut scores = scores.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(score) = scores.get_mut(at) {
                score.add(done);
            }
        }
    };
    std::thread::scope(|s| {
        for slot in 0..args.at_once.clamp(1, 10) {
            s.spawn(move || worker(slot));
        }
    });
    bar.finish_and_clear();
    scores.into_inner().unwrap_or_else(PoisonError::into_inner)
}
