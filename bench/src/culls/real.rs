//! Real sessions: each is watched by a thread of its own, as a player and a backend would.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

use super::Cull;
use crate::platform::{Binaries, FleetSpec, Up, new_game, text};
use crate::stopwatch::Mark;
use crate::wire::{Http, Player};

/// Between two starts.
const EVERY: Duration = Duration::from_millis(40);
/// Pause before a server that is not there is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// One that is not back in this time will not be.
const BACK: Duration = Duration::from_secs(30);

/// The idle timeout and the reconnect grace below.
const IDLE: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(10);
/// From the first start to the kill: all have started, and no deadline (45 s) has come.
const KILL_AT: Duration = Duration::from_secs(30);

/// Why a session is to end, each a fleet of its own; and what lasts longer than the measurement.
const FLEETS: [FleetSpec; 4] = [
    spec(
        "idle",
        "idle_timeout = \"15s\"\nmax_duration = \"none\"\njoin_timeout = \"none\"\nreconnect_grace = \"10m\"\n",
    ),
    spec(
        "empty",
        "idle_timeout = \"none\"\nmax_duration = \"none\"\njoin_timeout = \"none\"\nreconnect_grace = \"10s\"\n",
    ),
    spec(
        "max-duration",
        "idle_timeout = \"none\"\nmax_duration = \"45s\"\njoin_timeout = \"none\"\nreconnect_grace = \"10m\"\n",
    ),
    spec(
        "never-joined",
        "idle_timeout = \"none\"\nmax_duration = \"none\"\njoin_timeout = \"45s\"\n",
    ),
];

const fn spec(name: &'static str, rules: &'static str) -> FleetSpec {
    FleetSpec {
        name,
        warm: 0,
        max_instances: None,
        rules,
    }
}

/// So many sessions under one server, and how late each was ended.
pub(super) fn run(
    binaries: &Binaries,
    sessions: usize,
    restart: bool,
    progress: &ProgressBar,
) -> Result<Vec<Cull>> {
    let mut up = Up::start(binaries, &FLEETS)?;
    // Whoever comes back has done something: only what no return moves can be measured over a restart.
    let kinds = if restart { &FLEETS[2..] } else { &FLEETS[..] };
    let public = up.public;
    let culls = Mutex::new(Vec::with_capacity(sessions));
    let failed = Mutex::new(None);
    let started = AtomicUsize::new(0);
    let one = |n: usize| {
        let fleet = kinds[n % kinds.len()].name;
        match session(public, fleet, n as u64, &started) {
            Ok(cull) => lock(&culls).push(cull),
            Err(e) => *lock(&failed) = Some(e.context(format!("session {n}, {fleet}"))),
        }
        progress.inc(1);
    };
    std::thread::scope(|s| {
        let began = Mark::now();
        for n in 0..sessions {
            let due = EVERY * u32::try_from(n).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let one = &one;
            s.spawn(move || one(n));
        }
        if restart {
            std::thread::sleep(KILL_AT.saturating_sub(began.elapsed()));
            let there = started.load(Ordering::Relaxed);
            ensure!(
                there == sessions,
                "only {there} had started before the kill"
            );
            up.kill()?;
            up.again(binaries)?;
        }
        Ok(())
    })?;
    up.stop()?;
    if let Some(e) = lock(&failed).take() {
        return Err(e);
    }
    Ok(std::mem::take(&mut *lock(&culls)))
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One session from its start to its cull.
fn session(public: SocketAddr, fleet: &'static str, n: u64, started: &AtomicUsize) -> Result<Cull> {
    // A name has no underscores.
    let why = match fleet {
        "max-duration" => "max_duration",
        "never-joined" => "never_joined",
        other => other,
    };
    let mut http = Http::connect(public)?;
    let reply = http
        .call("POST", "/api/new-game?wait=50", Some(&new_game(fleet, n)))?
        .expect(&[201])?;
    let (id, url) = (text(&reply, "session_id")?, text(&reply, "wsUrl")?);
    let path = format!("/api/sessions/{id}");
    started.fetch_add(1, Ordering::Relaxed);
    let late_ms = match fleet {
        "idle" => {
            let mut player = Player::follow(public, url)?;
            let said = Mark::now();
            player.say(r#"{"t":"ping","c":1}"#)?;
            drop(http);
            signed_ms(player.closed(), said, IDLE)
        }
        "empty" => {
            let mut player = Player::follow(public, url)?;
            player.next_text()?;
            let left = Mark::now();
            drop(player);
            let (over, _) = outlive(http, public, &path)?;
            signed_ms(over, left, GRACE)
        }
        _ => {
            let mut player = match fleet {
                "max-duration" => Some(Player::follow(public, url)?),
                _ => None,
            };
            let seen = http.get(&path)?;
            ensure!(seen["cull_reason"] == why, "it would end for {seen}");
            let due: jiff::Timestamp = text(&seen, "cull_at")?.parse()?;
            let (_, wall) = if let Some(player) = &mut player {
                drop(http);
                closed_for_good(player, public, url, &path)?
            } else {
                outlive(http, public, &path)?
            };
            wall.duration_since(due).as_secs_f64() * 1e3
        }
    };
    let mut http = Http::connect(public)?;
    let end = http.get(&path)?;
    ensure!(
        end["end"]["reason"] == why,
        "it ended for something else: {end}"
    );
    Ok(Cull { why, late_ms })
}

fn signed_ms(seen: Mark, from: Mark, after: Duration) -> f64 {
    (seen.since(from).as_secs_f64() - after.as_secs_f64()) * 1e3
}

/// Waits at the API until the session is over, whatever becomes of the server meanwhile.
fn outlive(mut http: Http, public: SocketAddr, path: &str) -> Result<(Mark, jiff::Timestamp)> {
    let wait = format!("{path}?wait=50");
    loop {
        if let Ok(answer) = http.call("GET", &wait, None) {
            let now = (Mark::now(), jiff::Timestamp::now());
            if is_over(&answer.expect(&[200])?) {
                return Ok(now);
            }
        } else {
            http = reconnected(public)?;
        }
    }
}

/// Stays connected until the session is over, coming back as often as it takes.
fn closed_for_good(
    player: &mut Player,
    public: SocketAddr,
    url: &str,
    path: &str,
) -> Result<(Mark, jiff::Timestamp)> {
    loop {
        let closed = (player.closed(), jiff::Timestamp::now());
        let began = Mark::now();
        loop {
            let seen = reconnected(public)?.get(path)?;
            if is_over(&seen) {
                return Ok(closed);
            }
            match Player::follow(public, url) {
                Ok(back) => {
                    *player = back;
                    break;
                }
                Err(e) if began.elapsed() > BACK => return Err(e),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }
}

fn is_over(session: &Value) -> bool {
    session["end"].is_object()
}

fn reconnected(public: SocketAddr) -> Result<Http> {
    let began = Mark::now();
    loop {
        match Http::connect(public) {
            Ok(mut http) => {
                if http.get("/healthz").is_ok() {
                    return Ok(http);
                }
            }
            Err(e) if began.elapsed() > BACK => return Err(e).context("the server is not back"),
            Err(_) => {}
        }
        if began.elapsed() > BACK {
            bail!("the server is not back");
        }
        std::thread::sleep(AGAIN);
    }
}
