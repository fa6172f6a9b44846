//! `spice`: a small multiplayer arcade game as one WebSocket server.
//!
//! Collect spice, keep the combo, and mind the noise: the sandworm hunts whoever is loudest.
//! Nothing of Spawnpoint is linked in. The server reads the documented environment of any game
//! server (`PORT`, `SESSION_ID`, the session and results files), trusts the gateway's `X-Player-Id`
//! and `X-Session-Id`, and exits 0 on SIGTERM; it runs just as well alone.
//!
//! `sim` and `room` are pure; `hub` and `connection` are the thin drivers.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a game server's log is its output

mod config;
mod connection;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http_head;
mod hub;
mod protocol;
mod results;
mod room;
mod session_file;
mod sim;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use config::Config;
use connection::Doors;
use hub::Hub;
use sim::{Settings, TICK_HZ};

/// Sockets at once: the players, their reconnecting selves, probes, and room to refuse politely.
const MAX_CONNECTIONS: usize = 256;
/// Newest-state-wins ends at the kernel: what lies in a socket's buffer can no longer be replaced. The
/// default grows to megabytes, minutes of stale states for a slow player; this is about a second.
const SEND_BUFFER: u32 = 32 * 1024;
const BACKLOG: u32 = 128;
/// After a stop, for close frames to leave; well inside any termination grace.
const FAREWELL: Duration = Duration::from_secs(1);
/// After `accept` failed (no descriptors left): neither spin nor stop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const USAGE: &str = "\
spice: a multiplayer arcade game server over WebSocket

Environment:
  PORT                      port to listen on (8080)
  SESSION_ID                session this server is for, where known at start
  SPAWNPOINT_SESSION_FILE   JSON: session_id, payload {round_seconds, seed}
  SPAWNPOINT_RESULTS_FILE   gets the scores as JSON after each round and at the end
  SPICE_HOST                address to listen on (0.0.0.0)
  SPICE_ROUND_SECONDS       length of a round (120)
  SPICE_GRACE_SECONDS       how long a disconnected player sleeps in the arena (30)
  SPICE_SEED                fixed desert (random)
  SPICE_BOOT_DELAY_MS       listen this much later (0)";

/// The whole command: reads arguments and environment, serves, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            println!("spice {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("unknown argument {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    let config = match config::parse(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(2);
        }
    };
    // One thread serves sixteen players with room to spare, and starts in well under a millisecond.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(run(config))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("spice: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> std::io::Result<()> {
    // First of all: a SIGTERM during boot is a stop like any other.
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    let (results, results_out) = watch::channel(None);
    let settings = Settings {
        seed: seed(&config),
        round_ticks: config.round_seconds.saturating_mul(TICK_HZ),
        grace_ticks: config.grace_seconds.saturating_mul(TICK_HZ),
    };
    let (hub, to_hub, feeds) = Hub::new(settings, config.session_id.as_deref(), results);
    let doors = Doors {
        hub: to_hub,
        feeds,
        stop: stopped.clone(),
        session_file: config.session_file.clone().map(Arc::new),
    };
    let signals = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    };
    let (listened, (), (), ()) = tokio::join!(
        async {
            let outcome = listen(&config, doors).await;
            // Without a listener there is nothing to wait for.
            stop.send_replace(true);
            outcome
        },
        hub.run(stopped.clone()),
        write_results(config.results_file.clone(), results_out),
        async {
            let mut stopped = stopped.clone();
            tokio::select! {
                () = signals => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        },
    );
    listened
}

fn seed(config: &Config) -> u64 {
    // Without chance the desert is always the same one; no reason not to start.
    config
        .seed
        .unwrap_or_else(|| getrandom::u64().unwrap_or(0x5b1c_e5ee))
}

async fn listen(config: &Config, mut doors: Doors) -> std::io::Result<()> {
    if !config.boot_delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(config.boot_delay) => {}
            _ = doors.stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
    let listener = bind(config.listen)?;
    log(&format!("spice listening on {}", listener.local_addr()?));
    accept(listener, doors).await;
    Ok(())
}

/// As `TcpListener::bind`, with a small send buffer that accepted sockets inherit.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, mut doors: Doors) {
    let mut connections = JoinSet::new();
    let mut stop = doors.stop.clone();
    let mut number = 0u64;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                match accepted {
                    Ok((tcp, _)) => {
                        number += 1;
                        connections.spawn(connection::serve(tcp, number, doors.clone()));
                    }
                    Err(error) => {
                        log(&format!("accept: {error}"));
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
    drop(listener);
    doors.session_file = None;
    let farewell = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        connections.shutdown().await;
    }
}

/// Writes each newest results text; ends with the last one when the hub is gone. In place, not by
/// rename: on Kubernetes the file is a mount.
async fn write_results(path: Option<PathBuf>, mut results: watch::Receiver<Option<String>>) {
    while results.changed().await.is_ok() {
        let newest = results.borrow_and_update().clone();
        if let (Some(path), Some(text)) = (&path, newest)
            && let Err(error) = tokio::fs::write(path, text).await
        {
            log(&format!("cannot write the results: {error}"));
        }
    }
}

/// One line of log. Unlike `println!` it survives a reader that went away.
fn log(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
