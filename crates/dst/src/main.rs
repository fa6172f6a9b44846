//! `dst`: runs seeded worlds, many or one, and shows that each injected bug is found.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use spawnpoint_dst::day::{Sample, run_hours};
use spawnpoint_dst::{Cut, Outcome, Trouble, mutants, run_seed, shrink};

/// Seeded worlds: the whole product in virtual time, with everything going wrong, watched by checkers.
#[derive(Debug, Parser)]
#[command(name = "dst", version, about)]
pub(crate) struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// One world only, with its history.
    #[arg(long)]
    seed: Option<u64>,
    /// Worlds at the same time, each on a thread of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Kinds of trouble to leave out, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// So many players at most.
    #[arg(long)]
    players: Option<usize>,
    /// Troubles and new games for so many seconds at most.
    #[arg(long)]
    seconds: Option<u64>,
    /// One world that goes on for so many hours (seed 1, or --seed), and what its memory does.
    #[arg(long, value_name = "HOURS")]
    day: Option<u64>,
    /// With --day: write what was seen into this file, a JSON line every five minutes of the day.
    #[arg(long)]
    samples: Option<std::path::PathBuf>,
    /// Inject each bug in turn and show at which seed it is found.
    #[arg(long)]
    mutants: bool,
    /// With --mutants: write the table into this document, between its markers.
    #[arg(long)]
    write: Option<std::path::PathBuf>,
    /// Inject this bug (by its name) into the worlds that are run.
    #[arg(long)]
    mutant: Option<String>,
    /// Go on after a finding, and list them all.
    #[arg(long)]
    keep_going: bool,
    /// Show only these bugs, by words of their names.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if let Some(hours) = args.day {
        day(hours, &args)
    } else if args.mutants {
        mutants::all(
            args.seeds,
            args.threads,
            args.only.as_deref(),
            args.write.as_deref(),
        )
    } else {
        worlds(&args)
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            say(&format!("dst: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // Whoever closed the pipe does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn cut(args: &Args) -> std::io::Result<Cut> {
    let mut cut = Cut {
        players: args.players,
        seconds: args.seconds,
        ..Cut::default()
    };
    for name in &args.without {
        let unknown = || std::io::Error::other(format!("there is no kind of trouble `{name}`"));
        cut.without
            .insert(Trouble::parse(name).ok_or_else(unknown)?);
    }
    Ok(cut)
}

fn worlds(args: &Args) -> std::io::Result<ExitCode> {
    let cut = cut(args)?;
    if let Some(name) = &args.mutant {
        mutants::switch_by_name(name)?;
    }
    if let Some(seed) = args.seed {
        let outcome = run_seed(seed, &cut)?;
        for line in &outcome.history {
            say(line);
        }
        return Ok(show(&outcome, &cut, None));
    }
    let bar = ProgressBar::new(args.seeds);
    let style = "{bar:40} {pos}/{len} worlds, {per_sec}, {eta} left {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let next = AtomicU64::new(args.from);
    let stop = AtomicBool::new(false);
    let (checks, sessions, runs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Outcome>> = Mutex::new(None);
    let found = AtomicU64::new(0);
    let end = args.from + args.seeds;
    let work = || -> std::io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = run_seed(seed, &cut)?;
            checks.fetch_add(outcome.checks, Ordering::Relaxed);
            sessions.fetch_add(outcome.sessions as u64, Ordering::Relaxed);
            runs.fetch_add(u64::from(outcome.runs), Ordering::Relaxed);
            bar.inc(1);
            if let Some(finding) = outcome.finding.as_ref().filter(|_| args.keep_going) {
                found.fetch_add(1, Ordering::Relaxed);
                bar.suspend(|| {
                    say(&format!(
                        "seed {seed}: {}: {}",
                        finding.checker, finding.what
                    ));
                });
                continue;
            }
            if outcome.finding.is_some() {
                stop.store(true, Ordering::Relaxed);
                if let Ok(mut first) = failed.lock()
                    && first.as_ref().is_none_or(|f| f.seed > outcome.seed)
                {
                    *first = Some(outcome);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..args.threads.max(1)).map(|_| s.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| {
            t.join().unwrap_or_else(|_| {
                Err(std::io::Error::other(
                    "a world panicked; its seed is among the last",
                ))
            })
        })
    })?;
    bar.finish_and_clear();
    let failed = failed.into_inner().ok().flatten();
    let Some(failed) = failed else {
        let found = found.into_inner();
        let (code, found) = match found {
            0 => (ExitCode::SUCCESS, "nothing found".to_owned()),
            n => (ExitCode::FAILURE, format!("something found in {n}")),
        };
        say(&format!(
            "{} worlds: {} sessions, {} runs of the server, {} checks, {found}",
            args.seeds,
            sessions.into_inner(),
            runs.into_inner(),
            checks.into_inner()
        ));
        return Ok(code);
    };
    say(&format!(
        "seed {}: something was found; making it smaller",
        failed.seed
    ));
    let (cut, smaller) = shrink::shrink(failed, cut)?;
    for line in shrink::short_history(&smaller) {
        say(&line);
    }
    Ok(show(&smaller, &cut, None))
}

/// A long world: how its memory goes on is shown, and what was found.
fn day(hours: u64, args: &Args) -> std::io::Result<ExitCode> {
    let (seed, cut) = (args.seed.unwrap_or(1), cut(args)?);
    let (tell, samples) = std::sync::mpsc::channel();
    let bar = ProgressBar::new(hours * 3_600);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {percent} % of the day, {eta} left {msg}")
    {
        bar.set_style(style);
    }
    let mut out = args
        .samples
        .as_ref()
        .map(std::fs::File::create)
        .transpose()?;
    let mut seen: Vec<Sample> = Vec::new();
    let outcome = std::thread::scope(|s| {
        let world = s.spawn(|| run_hours(seed, hours, &cut, tell));
        for sample in samples {
            bar.set_position(sample.at.as_secs());
            bar.set_message(format!("{} sessions", sample.sessions));
            if let Some(out) = &mut out {
                writeln!(out, "{}", line(&sample))?;
            }
            seen.push(sample);
        }
        world
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the world panicked")))
    })?;
    bar.finish_and_clear();
    // The first hours fill what has a size.
    let memory = |of: &[Sample]| of.iter().map(|s| s.resident >> 20).max().unwrap_or(0);
    let (first, rest) = seen.split_at(seen.len().min(24));
    say(&format!(
        "{hours} h of virtual time; memory at most {} MiB in the first two hours and {} MiB in the last two",
        memory(first),
        memory(&rest[rest.len().saturating_sub(24)..]),
    ));
    if outcome.finding.is_some() {
        for line in shrink::short_history(&outcome) {
            say(&line);
        }
    }
    Ok(show(&outcome, &cut, Some(hours)))
}

fn line(s: &Sample) -> serde_json::Value {
    serde_json::json!({
        "minutes": s.at.as_secs() / 60, "live": s.live, "instances": s.instances, "sessions": s.sessions,
        "runs": s.runs, "checks": s.checks, "resident_bytes": s.resident,
    })
}

fn show(outcome: &Outcome, cut: &Cut, hours: Option<u64>) -> ExitCode {
    let Some(finding) = &outcome.finding else {
        say(&format!(
            "seed {}: {} sessions, {} runs of the server, {} checks, nothing found",
            outcome.seed, outcome.sessions, outcome.runs, outcome.checks
        ));
        return ExitCode::SUCCESS;
    };
    say(&format!(
        "\nseed {}: {}: {}",
        outcome.seed, finding.checker, finding.what
    ));
    say(&format!("replay: {}", replay(outcome.seed, cut, hours)));
    ExitCode::FAILURE
}

/// The one command that runs this world again.
fn replay(seed: u64, cut: &Cut, hours: Option<u64>) -> String {
    let mut out = format!("make dst SEED={seed}");
    let mut more: Vec<String> = hours.map(|h| format!("--day {h}")).into_iter().collect();
    if !cut.without.is_empty() {
        let names: Vec<_> = cut.without.iter().map(|t| t.name()).collect();
        more.push(format!("--without {}", names.join(",")));
    }
    if let Some(n) = cut.players {
        more.push(format!("--players {n}"));
    }
    if let Some(n) = cut.seconds {
        more.push(format!("--seconds {n}"));
    }
    if !more.is_empty() {
        out.push_str(&format!(" ARGS=\"{}\"", more.join(" ")));
    }
    out
}
