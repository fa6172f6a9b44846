//! What Spawnpoint costs, measured beside what cannot be avoided.
//!
//! One file for each measurement; each compares things done in turn in one run, so that a slow or busy machine moves both sides. No
//! test asserts a speed: the promises are checked here, shown with what was measured, and a miss is said and not hidden.

mod audit;
mod claims;
mod clone;
mod culls;
mod floor;
mod gateway;
mod inside;
mod journal;
mod latency;
mod matching;
mod memory;
mod platform;
mod plot;
mod proc;
mod rate;
mod report;
mod restart;
mod sharing;
mod soak;
mod stats;
mod stopwatch;
mod wire;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::claims::Load;
use crate::platform::Binaries;
use crate::rate::Size;
use crate::report::{Section, replace_measured};

/// Measure Spawnpoint: ratios to what cannot be avoided, side by side in one run.
///
/// The binaries that are measured are looked for beside this one (or in SPAWNPOINT_BIN): build them with
/// `cargo build --release -p spawnpoint -p spice`.
#[derive(Debug, Parser)]
#[command(name = "spawnpoint-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Fewer samples: to see that everything works. Its figures are noise.
    #[arg(long, global = true)]
    quick: bool,
    /// How results are shown.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Also write the results into DIR/benchmarks.md and the pictures into DIR/images.
    #[arg(long, global = true, value_name = "DIR")]
    docs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Subcommand)]
enum What {
    /// Everything but the clone, which takes minutes and the network.
    All {
        /// The clone too.
        #[arg(long)]
        clone: bool,
    },
    /// Click to first byte: warm and cold, beside the bare game.
    Start,
    /// Session starts per second with 1 and 64 callers, with CPU time.
    Rate,
    /// Instructions per claim with 0, 1,000 and 10,000 sessions live (needs valgrind).
    Claims,
    /// Memory of the server, of a session and of a player.
    Memory,
    /// The gateway beside haproxy and nginx: round trips, CPU time, memory, handshakes.
    Gateway,
    /// A game server for each player, or one for several: latency, CPU time, memory.
    Sharing,
    /// One look at a match queue of 1,000 to 100,000 tickets, and how close the matches are.
    Matching,
    /// An audit of 10,000 live sessions and 1,000,000 records, and the claims made meanwhile.
    Audit,
    /// Claims with and without a log of decisions: rate, latency, CPU time for each decision.
    Journal,
    /// How late culls are: simulated and real sessions, also over a restart.
    Culls,
    /// What is noticed of a `kill -9` of the server and its start after it.
    Restart,
    /// Real churn for a long time: what grows, and what is left over. Not among `all`.
    Soak {
        #[arg(long, default_value_t = 20.0)]
        minutes: f64,
    },
    /// `git clone` to two players in one game, with empty caches.
    Clone,
    /// One process of a measurement.
    #[command(hide = true)]
    Part {
        #[command(subcommand)]
        part: gateway::Part,
    },
    /// The loop whose instructions are counted.
    #[command(hide = true)]
    ClaimLoop {
        #[arg(long)]
        live: usize,
        #[arg(long)]
        claims: usize,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let What::ClaimLoop { live, claims } = cli.what {
        let answer = claims::claim_loop(Load { live, claims })?;
        return say(&answer.to_string());
    }
    if let What::Part { part } = cli.what {
        return part.run();
    }
    let wanted: Vec<What> = match cli.what {
        What::All { clone } => {
            let mut all = vec![
                What::Start,
                What::Rate,
                What::Claims,
                What::Memory,
                What::Gateway,
                What::Sharing,
                What::Matching,
                What::Audit,
                What::Journal,
                What::Culls,
                What::Restart,
            ];
            all.extend(clone.then_some(What::Clone));
            all
        }
        one => vec![one],
    };
    let before = proc::load();
    let mut sections = Vec::new();
    for what in wanted {
        let section = measure(what, cli.quick)?;
        if cli.output == Format::Table {
            say(&section.text())?;
        }
        sections.push(section);
    }
    let about = About {
        quick: cli.quick,
        load: (before, proc::load()),
    };
    match cli.output {
        Format::Table => say(&about.text())?,
        Format::Json => {
            let all: Vec<_> = sections.iter().map(Section::json).collect();
            let (load_before, load_after) = &about.load;
            say(&json!({"machine": proc::machine(), "quick": cli.quick, "load_before": load_before, "load_after": load_after, "measurements": all}).to_string())?;
        }
    }
    if let Some(dir) = &cli.docs {
        write_docs(dir, &sections, &about)?;
    }
    Ok(())
}

fn measure(what: What, quick: bool) -> Result<Section> {
    let pick = |small: usize, full: usize| if quick { small } else { full };
    let bar = |name: &'static str| progress(name);
    let (name, section) = match what {
        What::Start => (
            "start",
            latency::run(&Binaries::find()?, pick(20, 300), &bar("start")),
        ),
        What::Rate => (
            "rate",
            rate::run(
                &Binaries::find()?,
                Size {
                    runs: pick(1, 5),
                    batch: pick(32, 128),
                },
                &bar("rate"),
            ),
        ),
        What::Claims => ("claims", claims::run(quick, &bar("claims"))),
        What::Memory => (
            "memory",
            memory::run(&Binaries::find()?, pick(20, 200), &bar("memory")),
        ),
        What::Gateway => (
            "gateway",
            gateway::run(gateway::Size::of(quick), &bar("gateway")),
        ),
        What::Sharing => (
            "sharing",
            sharing::run(
                &Binaries::find()?,
                sharing::Size::of(quick),
                &bar("sharing"),
            ),
        ),
        What::Matching => ("matching", matching::run(quick, &bar("matching"))),
        What::Audit => ("audit", audit::run(audit::Size::of(quick), &bar("audit"))),
        What::Journal => (
            "journal",
            journal::run(journal::Size::of(quick), &bar("journal")),
        ),
        What::Culls => (
            "culls",
            culls::run(&Binaries::find()?, culls::Size::of(quick), &bar("culls")),
        ),
        What::Restart => (
            "restart",
            restart::run(
                &Binaries::find()?,
                restart::Size::of(quick),
                &bar("restart"),
            ),
        ),
        What::Soak { minutes } => ("soak", soak::run(&Binaries::find()?, minutes, &bar("soak"))),
        What::Clone => ("clone", clone::run(&bar("clone"))),
        What::All { .. } | What::Part { .. } | What::ClaimLoop { .. } => {
            anyhow::bail!("not one measurement")
        }
    };
    section.with_context(|| format!("the measurement {name:?} failed"))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(name: &'static str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix:8} {bar:40} {pos}/{len} {msg} {elapsed}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(name);
    bar
}

/// Where and how it was measured.
struct About {
    quick: bool,
    load: (String, String),
}

impl About {
    fn text(&self) -> String {
        let (before, after) = &self.load;
        let quick = if self.quick {
            " A quick run: its figures are noise."
        } else {
            ""
        };
        format!(
            "Measured on {}, {}, load averages {before} before and {after} after.{quick}",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            proc::machine()
        )
    }
}

fn write_docs(dir: &Path, sections: &[Section], about: &About) -> Result<()> {
    let page = dir.join("benchmarks.md");
    let mut text =
        fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    for s in sections {
        let mut measured = format!("{}\n{}\n", s.markdown(), about.text());
        for p in &s.pictures {
            let name = format!("images/{}.svg", p.name);
            let picture = dir.join(&name);
            fs::create_dir_all(dir.join("images"))?;
            fs::write(&picture, &p.svg)
                .with_context(|| format!("writing {}", picture.display()))?;
            measured.push_str(&format!("\n![{}]({name})\n", p.alt));
        }
        text = replace_measured(&text, s.name, &measured);
    }
    fs::write(&page, text).with_context(|| format!("writing {}", page.display()))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
