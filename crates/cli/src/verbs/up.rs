//! `spawnpoint up`: everything in one process, and the life of that process from start to drain.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use spawnpoint_core::Clock;
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_server::DrainMode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Format, Global, ServeArgs, UpArgs};
use crate::config_file::{Source, misspelled_variables};
use crate::exit::Failure;
use crate::listen::Listeners;
use crate::output::{Progress, bold, json_line, line, note, rough};
use crate::roles::Roles;
use crate::signals::Signals;
use crate::{banner, logging, reload, roles};

/// Unix milliseconds at which the repository was cloned, set by `make play` on the first build.
const CLONE_STARTED: &str = "SPAWNPOINT_CLONE_STARTED";
/// How often it is looked at whether somebody plays yet, for the line that says how long that took.
const LOOK_FOR_PLAYERS: Duration = Duration::from_millis(250);
/// How often the drain's progress line is renewed.
const DRAIN_LINE: Duration = Duration::from_millis(200);
/// Once all is stopped, work of others' libraries that will not end is left behind after this.
const LEAVE_BEHIND: Duration = Duration::from_millis(500);

/// Runs until a signal.
pub(crate) fn run(args: &UpArgs, global: &Global) -> Result<(), Failure> {
    let source = Source::locate(args.config.as_deref())?;
    execute(serve(
        source,
        args.serve.clone(),
        global.output,
        |_, _| async { Ok(()) },
    ))
}

/// Runs a future on an executor of its own.
pub(crate) fn execute(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the executor", &e))?;
    let outcome = executor.block_on(work);
    executor.shutdown_timeout(LEAVE_BEHIND);
    outcome
}

/// Starts the roles, says so, does `then` beside them, and stops them when a signal comes or `then` fails.
pub(crate) async fn serve<F, W>(
    source: Source,
    args: ServeArgs,
    format: Format,
    then: F,
) -> Result<(), Failure>
where
    F: FnOnce(Arc<Roles>, CancellationToken) -> W,
    W: Future<Output = Result<(), Failure>>,
{
    let loaded = source.load(&args)?;
    logging::start(args.log_format)?;
    for words in misspelled_variables(&loaded.config) {
        note(&format!("warning: {words}"));
    }
    raise_descriptor_limit();
    let clock = Arc::new(SystemClock::new());
    let began = clock.now();
    // From here on a signal drains; before, there was nothing to drain.
    let mut signals = Signals::listen()?;
    let listeners = Listeners::bind(&loaded.config.server).await?;
    let config = loaded.config;
    let roles = tokio::select! {
        started = roles::start(config, listeners, clock.clone()) => Arc::new(started?),
        signal = signals.next() => return Err(Failure::Failed(format!("{signal} while starting"))),
    };
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(reload::follow(
        source,
        args.clone(),
        roles.config.clone(),
        roles.server.clone(),
        stop.clone(),
    ));
    tasks.spawn(say_when_played(roles.clone(), clock.clone(), stop.clone()));
    tasks.close();
    announce(&roles, format, clock.now().since(began), args.detach)?;
    if args.open {
        open_browser(&roles);
    }
    let work = async {
        // A `then` that is done leaves the roles running; one that fails stops them.
        then(roles.clone(), stop.clone()).await?;
        std::future::pending::<Result<(), Failure>>().await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        signal = signals.next() => {
            note("");
            tracing::info!(signal, "stopping");
            Ok(())
        }
    };
    stop.cancel();
    let stopped = tokio::select! {
        stopped = drain(&roles, args.detach) => stopped,
        _ = signals.next_wish() => Err(Failure::Failed(format!(
            "stopped at once; {} games were told to end and had not finished: the next start writes their records", roles.server.live()
        ))),
    };
    tasks.wait().await;
    outcome.and(stopped)
}

fn announce(roles: &Roles, format: Format, took: Duration, detach: bool) -> Result<(), Failure> {
    let live = roles.server.live();
    match format {
        Format::Json => json_line(&banner::ready(&roles.config, live)),
        Format::Table => {
            line(&banner::text(&roles.config, live))?;
            let end = if detach {
                "Ctrl-C stops it and leaves the games running"
            } else {
                "Ctrl-C ends all games and stops"
            };
            line(&format!("ready in {}. {end}.", rough(took)))
        }
    }
}

/// With games to end a line that counts down; then all is closed.
async fn drain(roles: &Roles, detach: bool) -> Result<(), Failure> {
    let mode = if detach {
        DrainMode::LeaveGames
    } else {
        DrainMode::EndGames
    };
    let live = roles.server.live();
    let mut progress = Progress::new();
    match (detach, live) {
        (_, 0) => {}
        (true, n) => note(&format!(
            "leaving {n} games running: the next start takes them over"
        )),
        (false, n) => note(&format!("ending {n} games (again to stop at once)")),
    }
    let stopping = roles.stop(mode);
    tokio::pin!(stopping);
    let left = loop {
        tokio::select! {
            left = &mut stopping => break left,
            () = tokio::time::sleep(DRAIN_LINE) => {
                let live = roles.server.live();
                if !detach && live > 0 {
                    progress.show(&format!("{live} games are ending"));
                }
            }
        }
    };
    progress.end();
    if left > 0 {
        return Err(Failure::Failed(format!(
            "{left} games did not end in time; the next start writes their records"
        )));
    }
    note("stopped");
    Ok(())
}

/// The time from clone to the first player, once: it is the promise of `make play`.
async fn say_when_played(roles: Arc<Roles>, clock: Arc<SystemClock>, stop: CancellationToken) {
    let Some(started) = std::env::var(CLONE_STARTED)
        .ok()
        .and_then(|v| v.trim().parse::<i64>().ok())
    else {
        return;
    };
    let since = |now: i64| {
        u64::try_from(now.saturating_sub(started))
            .ok()
            .map(Duration::from_millis)
            .map(rough)
    };
    let wall = || clock.wall(clock.now());
    if let Some(took) = since(wall()) {
        note(&format!("clone -> ready: {took}"));
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_FOR_PLAYERS) => {}
        }
        if roles.gateway.metrics().tunnels > 0 {
            if let Some(took) = since(wall()) {
                note(&bold(&format!("clone -> playing: {took}")));
            }
            return;
        }
    }
}

/// A tunnel takes two descriptors and a game's log and state a few more; many systems begin with 1,024.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(error = %e, "the limit of open files stays as it is");
        }
    }
}

fn open_browser(roles: &Roles) {
    let path = if banner::has_page(&roles.config) {
        "/play"
    } else {
        "/api/docs"
    };
    let url = format!("{}{path}", banner::public_url(&roles.config));
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let Some(program) = crate::config_file::in_path(opener) else {
        note(&format!(
            "there is no {opener} to open a browser with; the page is {url}"
        ));
        return;
    };
    if let Err(e) = start_detached(&program, &url) {
        note(&format!("cannot open a browser ({e}); the page is {url}"));
    }
}

fn start_detached(program: &Path, url: &str) -> std::io::Result<()> {
    use std::process::{Command, Stdio};
    Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}
