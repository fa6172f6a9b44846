//! `arena-tcp`: the smallest honest TCP game server. One match over newline-terminated text, `open -> running -> stop`.
//!
//! Nothing of Spawnpoint is linked in. The server reads the documented environment of any game server (`PORT`, `SESSION_ID`, the
//! session and results files), stops on SIGTERM, exits 0 when its match is over, and runs just as well alone.
//!
//! `game`, `command`, `lines`, `proxy` and `results` are pure; `house`, `connection` and this file are the thin driver.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a game server's log is its output

mod command;
mod config;
mod connection;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod game;
mod house;
mod lines;
mod proxy;
mod results;
mod session_file;
mod token;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use command::Refusal;
use config::Config;
use game::State;
use house::House;

/// Answers are words: a client that reads none of them has this much of the kernel's memory and no more.
const SEND_BUFFER: u32 = 16 * 1024;
const BACKLOG: u32 = 4096;
/// Descriptors that are not connections: the listener, the log, the results file, the executor's own.
const SPARE_DESCRIPTORS: u64 = 32;
/// After `accept` failed: neither spin nor stop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For the connections' last words; well inside any termination grace.
const FAREWELL: Duration = Duration::from_secs(1);
/// A client whose machine vanished is noticed after about a minute; else its match would never be left by all.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

const USAGE: &str = "\
arena-tcp: a match over TCP, as newline-terminated text

  GET_STATE                 answers open, running or stop
  REQUEST_MATCH <seconds>   the first one fixes the duration and starts the match;
                            every one is answered with the present state
  anything else             answers ERROR <code>: <advice>; the connection stays usable

The match stops when its time is up or all clients (connections that sent a valid
line) have left; the server then exits 0.

  $ PORT=9000 arena-tcp &
  $ printf 'GET_STATE\\nREQUEST_MATCH 1.5\\n' | nc 127.0.0.1 9000

Environment (seconds may have fractions):
  PORT                      port to listen on (8080; 0 for any free one)
  EMPTY_GRACE               seconds the match outlives its last client (0)
  SESSION_ID                session this server is for, where known at start
  SPAWNPOINT_SESSION_FILE   JSON with session_id, where it is known later
  SPAWNPOINT_RESULTS_FILE   gets the match as JSON when it stops
  SPAWNPOINT_PUBLIC_KEYS    keys for ARENA_TOKENS
  ARENA_HOST                address to listen on (0.0.0.0)
  ARENA_MAX_SECONDS         longest match that may be asked for (3600)
  ARENA_MAX_CLIENTS         clients at once (100)
  ARENA_MAX_CONNECTIONS     connections at once, clients or not (16384)
  ARENA_LINGER              seconds a stopped match still answers stop (0.5)
  ARENA_PROXY               1: each connection begins with a PROXY protocol header (0)
  ARENA_TOKENS              1: each connection begins with SPAWNPOINT <token> (0)
  ARENA_BOOT_DELAY_MS       listen this much later (0)

Exit status: 0 the match is over or the server was told to stop; 1 it cannot listen;
2 the environment is wrong.";

/// The whole command: reads arguments and environment, serves, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            println!("arena-tcp {}", env!("CARGO_PKG_VERSION"));
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
    // One thread answers words to thousands, and starts in well under a millisecond.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(run(config))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("arena-tcp: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Stops {
    term: Signal,
    interrupt: Signal,
}

impl Stops {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn run(config: Config) -> std::io::Result<()> {
    // First of all: a SIGTERM during boot is a stop like any other.
    let mut stops = Stops {
        term: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let house = Arc::new(House::new(&config));
    tokio::select! {
        () = tokio::time::sleep(config.boot_delay) => {}
        () = stops.next() => return Ok(()),
    }
    let listener = bind(config.listen)?;
    log(&format!(
        "arena-tcp listening on {}",
        listener.local_addr()?
    ));
    let mut connections = JoinSet::new();
    conduct(&config, &house, &listener, &mut connections, &mut stops).await;
    drop(listener);
    house.closing.send_replace(true);
    let farewell = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Lets connections in and time pass, until the match is over.
async fn conduct(
    config: &Config,
    house: &Arc<House>,
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    stops: &mut Stops,
) {
    let limit = config.max_connections.min(descriptors());
    let mut number = 0u64;
    let mut told = false;
    loop {
        let (state, wakes_at, over) = house.act(|inner, now| {
            inner.game.tick(now);
            let game = &inner.game;
            (game.state(), game.wakes_at(), game.is_over(now))
        });
        if state == State::Stop && !told {
            told = true;
            tell(house, config.results_file.as_deref()).await;
        }
        if over {
            return;
        }
        let wake = async {
            match wakes_at {
                Some(at) => tokio::time::sleep_until(house.moment(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {}
            () = house.changed.notified() => {}
            () = stops.next() => house.act(|inner, now| inner.game.terminate(now)),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) if connections.len() >= limit => refuse(&tcp),
                Ok((tcp, _)) => {
                    number += 1;
                    prepare(&tcp);
                    house.act(|inner, _| inner.tally.connections += 1);
                    connections.spawn(connection::serve(tcp, number, Arc::clone(house)));
                }
                Err(error) => {
                    log(&format!("accept: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
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

/// How many connections the kernel lets this process have, after asking for as many as it may.
fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    match getrlimit(Resource::Nofile).current {
        Some(most) => usize::try_from(most.saturating_sub(SPARE_DESCRIPTORS).max(1)),
        None => Ok(usize::MAX),
    }
    .unwrap_or(usize::MAX)
}

/// Without these a connection still works.
fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(3);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

/// One connection too many; a fresh socket has room for the word.
fn refuse(tcp: &TcpStream) {
    let _ = tcp.try_write(Refusal::TooManyConnections.line().as_bytes());
}

/// The match has stopped: says so and writes the results. In place, not by rename: on Kubernetes the file is a mount.
async fn tell(house: &House, file: Option<&Path>) {
    let session = house.session_id_now().await;
    let (why, text) = house.act(|inner, _| {
        let why = inner.game.stopped().map_or("", |(_, why)| why.word());
        (why, inner.tally.to_json(&inner.game, session))
    });
    log(&format!("the match has stopped: {why}"));
    if let Some(file) = file
        && let Err(error) = tokio::fs::write(file, text).await
    {
        log(&format!("cannot write the results: {error}"));
    }
}

/// One line of log. Unlike `println!` it survives a reader that went away.
pub(crate) fn log(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
