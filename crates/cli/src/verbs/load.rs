//! `spawnpoint load`: flags to a plan, a progress bar while it runs, the report at its end. What is measured, and how, is the load
//! tester's own affair (`spawnpoint-load`).

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use spawnpoint_load::{LoadError, Mode, Plan, Progress, Report, TokenLine};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::args::{Format, Global, LoadArgs, LoadMode, LoadTokenLine};
use crate::client::key;
use crate::exit::Failure;
use crate::output::{json, line, note, printable};
use crate::signals::Signals;

/// Between two looks at the clients for the bar.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the load test and shows its report.
pub(crate) fn run(args: &LoadArgs, global: &Global) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start", &e))?;
    let report = executor.block_on(watched(plan(args)))?;
    if let Some(path) = &args.report {
        write_page(path, &report)?;
    }
    match global.output {
        Format::Table => line(&printable(&spawnpoint_load::text(&report)))?,
        Format::Json => {
            json(&serde_json::to_value(&report).map_err(|e| Failure::Failed(e.to_string()))?)?;
        }
    }
    if report.verdict.passed {
        return Ok(());
    }
    if global.output == Format::Json {
        for cause in &report.verdict.causes {
            note(&printable(cause));
        }
    }
    Err(Failure::Said)
}

fn plan(args: &LoadArgs) -> Plan {
    Plan {
        clients: args.clients,
        match_duration: args.match_duration,
        spawn_rate: args.spawn_rate,
        host_override: args
            .game_server_host_override
            .clone()
            .filter(|h| !h.is_empty()),
        // A guest is somebody without a key.
        key: key().filter(|_| !args.guests),
        fleet: args.fleet.clone(),
        queue: args.queue.clone(),
        mode: match args.mode {
            LoadMode::Tcp => Mode::Tcp,
            LoadMode::Websocket => Mode::WebSocket,
        },
        guests: args.guests,
        seed: args.seed,
        wait_only: args.wait_only,
        margin: args.margin,
        timeout: args.timeout,
        poll: args.poll,
        reconnect: args.reconnect,
        token_line: match args.token_line {
            LoadTokenLine::Auto => TokenLine::Auto,
            LoadTokenLine::Always => TokenLine::Always,
            LoadTokenLine::Never => TokenLine::Never,
        },
        ..Plan::against(args.target_url.clone())
    }
}

/// Runs, draws and listens: the first Ctrl-C ends the run early, the second everything at once.
async fn watched(plan: Plan) -> Result<Report, Failure> {
    let mut signals = Signals::listen()?;
    let progress = Progress::default();
    let cancel = CancellationToken::new();
    let bar = bar(plan.clients);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let running = spawnpoint_load::run(plan, progress.clone(), cancel.clone());
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            _ = look.tick() => draw(&bar, &progress),
            signal = signals.next() => {
                if cancel.is_cancelled() {
                    bar.finish_and_clear();
                    return Err(Failure::Failed(format!("{signal} twice: given up; tickets and sessions may be left behind")));
                }
                bar.println(format!("{signal}: ending early; once more to give up at once"));
                cancel.cancel();
            }
        }
    };
    bar.finish_and_clear();
    outcome.map_err(failure)
}

fn failure(error: LoadError) -> Failure {
    let text = error.to_string();
    match error {
        LoadError::Unreachable { .. } => Failure::Unreachable(format!(
            "{text}. Start one with `spawnpoint up` (or `make play` in the repository), or name another with TARGET_URL"
        )),
        LoadError::Unfit(_) | LoadError::Descriptors { .. } => Failure::Usage(text),
        LoadError::Stranger { .. } | LoadError::Machine { .. } => Failure::Failed(text),
    }
}

/// On a terminal only: a log has no use for a line that moves.
fn bar(clients: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(clients as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    let now = progress.snapshot();
    bar.set_position((now.good + now.failed + now.interrupted) as u64);
    let mut text = format!(
        "waiting {}, starting {}, playing {}, ending {}",
        now.queue,
        now.start + now.connect,
        now.play,
        now.end
    );
    if now.failed > 0 {
        text.push_str(&format!(", failed {}", now.failed));
    }
    bar.set_message(text);
}

fn write_page(path: &Path, report: &Report) -> Result<(), Failure> {
    std::fs::write(path, spawnpoint_load::html(report))
        .map_err(|e| Failure::because(format!("cannot write {}", path.display()), &e))
}
