//! Twenty minutes of real churn: does anything grow that should not, and is anything left over?
//!
//! Games start at a fixed rate whatever becomes of those before them; their players play a few seconds and then end them, leave, stay
//! until their time is up, or have their game killed under them. Beside that the server is looked at from outside, and audits itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::platform::{Binaries, FleetSpec, Up, new_game, text};
use crate::plot::{Series, Words, over_time};
use crate::proc::{family, memory};
use crate::report::{Picture, Section, Verdict, bytes, ratio, thousands};
use crate::stats::{Order, Samples};
use crate::stopwatch::Mark;
use crate::wire::{Http, Player};

/// Starts in a second.
const RATE: u32 = 20;
/// Between two looks at the server.
const LOOK: Duration = Duration::from_secs(5);
/// Looks between two audits.
const AUDIT_EVERY: usize = 12;
/// What fills up by design (pools, caches, the first connections) has done so after this share of the time.
const WARM_UP: f64 = 0.2;
/// What is promised: what the server holds at the end of the time is at most so many times what it held when it was warm.
const TARGET: f64 = 1.1;
/// Between two inputs of a player.
const INPUT: Duration = Duration::from_millis(500);
/// How long a player plays before it is over one way or another.
const SHORTEST_MS: u64 = 2_000;
const LONGEST_MS: u64 = 8_000;
/// A player whose game was killed is back in it within this.
const BACK: Duration = Duration::from_secs(20);

/// One for most ends, one whose sessions get too old.
const FLEETS: [FleetSpec; 2] = [
    FleetSpec {
        name: "play",
        warm: 8,
        max_instances: None,
        rules: "on_crash = \"replace\"\nidle_timeout = \"none\"\nmax_duration = \"2m\"\nreconnect_grace = \"3s\"\n",
    },
    FleetSpec {
        name: "old",
        warm: 2,
        max_instances: None,
        rules: "on_crash = \"end\"\nidle_timeout = \"none\"\nmax_duration = \"6s\"\nreconnect_grace = \"3s\"\n",
    },
];

const PICTURE: Words<'_> = Words {
    caption: "what the server holds, as a multiple of what it held when it was warm",
    x: "minutes",
    y: "multiple",
};

/// What is counted at each look, in the order of the table.
const KEPT: [&str; 5] = [
    "memory (own data)",
    "file descriptors",
    "sockets",
    "threads",
    "files in the state directory",
];

/// How a player's game is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Ended,
    Left,
    TooOld,
    Killed,
}

impl Way {
    const fn of(draw: u64) -> Self {
        match draw {
            0..6 => Self::Ended,
            6..8 => Self::Left,
            8 => Self::TooOld,
            _ => Self::Killed,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended by their player",
            Self::Left => "left by their player",
            Self::TooOld => "too old",
            Self::Killed => "game killed, replaced, then ended",
        }
    }
}

/// One look at the server.
struct Look {
    minutes: f64,
    live: u64,
    kept: [f64; KEPT.len()],
}

/// What became of the players.
#[derive(Default)]
struct Tally {
    ways: BTreeMap<Way, u64>,
    failed: Vec<String>,
}

pub(crate) fn run(binaries: &Binaries, minutes: f64, progress: &ProgressBar) -> Result<Section> {
    let length = Duration::from_secs_f64(minutes * 60.0);
    let starts = (length.as_secs_f64() * f64::from(RATE)) as u64;
    progress.set_length(starts);
    let up = Up::start(binaries, &FLEETS)?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let began = Mark::now();
    let looks = std::thread::scope(|s| -> Result<Vec<Look>> {
        let (public, admin) = (up.public, up.admin);
        let players = s.spawn({
            let tally = Arc::clone(&tally);
            move || churn(public, admin, starts, &tally, progress)
        });
        let mut looks = Vec::new();
        let mut admin = Http::connect(admin)?;
        while began.elapsed() < length {
            let next = LOOK * u32::try_from(looks.len() + 1)?;
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            looks.push(look(&up, &mut admin, began.elapsed())?);
            if looks.len().is_multiple_of(AUDIT_EVERY) {
                audited(&mut admin)?;
            }
        }
        players
            .join()
            .map_err(|_| anyhow::anyhow!("a player panicked"))?;
        Ok(looks)
    })?;
    let mut admin = Http::connect(up.admin)?;
    up.wait_for(&mut admin, "/api/sessions?limit=1", |s| s["total"] == 0)?;
    for fleet in &FLEETS {
        up.settled(&mut admin, fleet.name)?;
    }
    let last = audited(&mut admin)?;
    let left = family(up.pid())?.len();
    drop(admin);
    up.stop()?;
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(
        tally.failed.is_empty(),
        "{} of {starts} players failed, the first: {}",
        tally.failed.len(),
        tally.failed[0]
    );
    let recorded = last["counts"]["records"].as_u64().unwrap_or(0);
    ensure!(
        recorded == starts,
        "{starts} were started and {recorded} are recorded"
    );
    Ok(section(minutes, starts, &looks, &tally, &last, left))
}

/// Starts players at the rate, and waits for the last of them.
fn churn(
    public: SocketAddr,
    admin: SocketAddr,
    starts: u64,
    tally: &Mutex<Tally>,
    progress: &ProgressBar,
) {
    let began = Mark::now();
    std::thread::scope(|s| {
        for n in 0..starts {
            let due = Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / RATE;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            s.spawn(move || {
                let mut order = Order::new(n);
                let way = Way::of(order.below(10));
                let stays =
                    Duration::from_millis(SHORTEST_MS + order.below(LONGEST_MS - SHORTEST_MS));
                let lived = live(public, admin, n, way, stays);
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                match lived {
                    Ok(()) => *tally.ways.entry(way).or_default() += 1,
                    Err(e) => tally
                        .failed
                        .push(format!("player {n}, {}: {e:#}", way.name())),
                }
                progress.inc(1);
            });
        }
    });
}

/// One player from the call to the end.
fn live(public: SocketAddr, admin: SocketAddr, n: u64, way: Way, stays: Duration) -> Result<()> {
    let fleet = if way == Way::TooOld { "old" } else { "play" };
    let reply = Http::connect(public)?
        .call("POST", "/api/new-game?wait=50", Some(&new_game(fleet, n)))?
        .expect(&[201])?;
    let (session, url) = (text(&reply, "session_id")?, text(&reply, "wsUrl")?);
    let mut player = Player::follow(public, url)?;
    let path = format!("/api/sessions/{session}");
    match way {
        Way::TooOld => {
            player.closed();
            return reason(public, &path, "max_duration");
        }
        Way::Left => {
            play(&mut player, stays)?;
            return Ok(());
        }
        Way::Ended => play(&mut player, stays)?,
        Way::Killed => {
            play(&mut player, stays / 2)?;
            kill_game(admin, &path)?;
            let lost = player.closed();
            player = loop {
                match Player::follow(public, url) {
                    Ok(player) => break player,
                    Err(e) if lost.elapsed() > BACK => return Err(e),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            };
            play(&mut player, stays / 2)?;
        }
    }
    Http::connect(public)?
        .call("DELETE", &path, None)?
        .expect(&[200, 202, 204])?;
    player.closed();
    Ok(())
}

/// Plays for a while: listens, and does something now and then.
fn play(player: &mut Player, stays: Duration) -> Result<()> {
    let began = Mark::now();
    let mut said = 0;
    while began.elapsed() < stays {
        player.next_text()?;
        if began.elapsed() >= INPUT * said {
            player.say(r#"{"t":"ping","c":1}"#)?;
            said += 1;
        }
    }
    Ok(())
}

/// The game's process dies, its shim does not.
fn kill_game(admin: SocketAddr, path: &str) -> Result<()> {
    let seen = Http::connect(admin)?.get(path)?;
    let label = text(&seen["instance"], "label")?;
    let digits = label.trim_start_matches(|c: char| !c.is_ascii_digit());
    let pid = digits.parse().ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("no process in {seen}"))?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// Whether it ended for this.
fn reason(public: SocketAddr, path: &str, want: &str) -> Result<()> {
    let seen = Http::connect(public)?.get(path)?;
    ensure!(
        seen["end"]["reason"] == want,
        "it ended for {}",
        seen["end"]
    );
    Ok(())
}

fn audited(admin: &mut Http) -> Result<Value> {
    let report = admin.get("/debug/audit")?;
    ensure!(report["clean"] == json!(true), "the audit found {report}");
    Ok(report)
}

fn look(up: &Up, admin: &mut Http, at: Duration) -> Result<Look> {
    let sessions = admin.get("/api/sessions?limit=1")?;
    let pid = up.pid();
    let (mut descriptors, mut sockets) = (0_u64, 0_u64);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        descriptors += 1;
        // One that was closed meanwhile is no socket.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
    Ok(Look {
        minutes: at.as_secs_f64() / 60.0,
        live: sessions["total"].as_u64().unwrap_or(0),
        kept: [
            memory(pid)?.own as f64,
            descriptors as f64,
            sockets as f64,
            threads as f64,
            files(&up.state())? as f64,
        ],
    })
}

/// Files below a directory. Those that go meanwhile are not there.
fn files(dir: &Path) -> Result<u64> {
    let mut count = 0;
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(_) => count += 1,
                Err(_) => {}
            }
        }
    }
    if count == 0 {
        bail!("{} has no files", dir.display());
    }
    Ok(count)
}

fn section(
    minutes: f64,
    starts: u64,
    looks: &[Look],
    tally: &Tally,
    last: &Value,
    left: usize,
) -> Section {
    let mut s = Section::new(
        "soak",
        "Soak",
        &[
            "what the server holds",
            "when it was warm",
            "in the last third",
            "ratio",
        ],
    );
    let ways: Vec<String> = tally
        .ways
        .iter()
        .map(|(way, n)| format!("{} {}", thousands(*n as f64), way.name()))
        .collect();
    s.method = format!(
        "`spawnpoint up` with real games for {minutes:.0} minutes, {RATE} starts a second whatever becomes of those before, each with a \
         player over WebSocket who plays for {} to {} s: {}. Looked at every {} s from outside; an audit every minute and one at the end \
         have to be clean. Warm is the third of the looks after the first {:.0} %.",
        SHORTEST_MS / 1_000,
        LONGEST_MS / 1_000,
        ways.join(", "),
        LOOK.as_secs(),
        WARM_UP * 100.0
    );
    let warm = &looks[(looks.len() as f64 * WARM_UP) as usize..];
    let third = (warm.len() / 3).max(1);
    let of = |looks: &[Look], at: usize| Samples::new(looks.iter().map(|l| l.kept[at])).median();
    let show = |at: usize, x: f64| if at == 0 { bytes(x) } else { thousands(x) };
    let mut series: Vec<Series> = Vec::new();
    for (at, name) in KEPT.iter().enumerate() {
        let (first, end) = (
            of(&warm[..third.min(warm.len())], at),
            of(&warm[warm.len() - third.min(warm.len())..], at),
        );
        s.rows.push(vec![
            (*name).to_owned(),
            show(at, first),
            show(at, end),
            ratio(end / first),
        ]);
        s.verdicts.push(Verdict::at_most(
            &format!("{name}, at the end"),
            end / first,
            TARGET,
        ));
        let points = looks.iter().map(|l| (l.minutes, l.kept[at] / first));
        series.push(((*name).to_owned(), points.collect()));
    }
    let live = Samples::new(looks.iter().map(|l| l.live as f64));
    s.notes.push(format!(
        "{} sessions were started, {} live at a time (median; at most {}), every one recorded once; no player failed. At the end: no \
         session, {left} processes of the server and its warm games, and an audit that is clean.",
        thousands(starts as f64),
        thousands(live.median()),
        thousands(live.quantile(1.0)),
    ));
    s.data = json!({
        "minutes": minutes, "starts": starts, "audit": last,
        "looks": looks.iter().map(|l| json!({"minutes": l.minutes, "live": l.live, "kept": l.kept})).collect::<Vec<_>>(),
    });
    if let Ok(svg) = over_time(PICTURE, &series) {
        s.pictures.push(Picture {
            name: "bench-soak",
            alt: "What the server holds over the time of the soak: memory, file descriptors, sockets, threads and files, each as a multiple of what it was when warm",
            svg,
        });
    }
    s
}
