//! What players and callers notice of a `kill -9` of the server and its start after it: with sessions live and with none, in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;

use crate::platform::{Binaries, FleetSpec, UNTIL_ENDED, Up, new_game, text};
use crate::report::{Section, ms, ratio, thousands};
use crate::stats::Samples;
use crate::stopwatch::Mark;
use crate::wire::{Http, Player};

/// Pause of a client before it tries again.
const AGAIN: Duration = Duration::from_millis(2);
/// One that is not served in this time will not be.
const BACK: Duration = Duration::from_secs(60);
/// Warm games that wait meanwhile.
const WARM: u32 = 4;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    live: usize,
    rounds: usize,
}

impl Size {
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                live: 20,
                rounds: 1,
            }
        } else {
            Self {
                live: 500,
                rounds: 10,
            }
        }
    }
}

/// One restart, as it was noticed; from the moment the new process was started.
#[derive(Clone, Copy, Debug)]
struct Noticed {
    /// A new session was answered.
    claim: Duration,
    /// The first player who had been connected heard their game again.
    first: Option<Duration>,
    /// All had.
    all: Option<Duration>,
}

pub(crate) fn run(binaries: &Binaries, size: Size, progress: &ProgressBar) -> Result<Section> {
    progress.set_length(2 * size.rounds as u64 + 1);
    let fleet = [FleetSpec {
        name: "warm",
        warm: WARM,
        max_instances: None,
        rules: UNTIL_ENDED,
    }];
    // Two servers, so that a restart with sessions live and one without are made in turn.
    let mut with = Up::start(binaries, &fleet)?;
    let mut without = Up::start(binaries, &fleet)?;
    let mut urls = Vec::with_capacity(size.live);
    let mut public = Http::connect(with.public)?;
    for n in 0..size.live {
        let reply = public
            .call(
                "POST",
                "/api/new-game?wait=50",
                Some(&new_game("warm", n as u64)),
            )?
            .expect(&[201])?;
        urls.push(text(&reply, "wsUrl")?.to_owned());
    }
    drop(public);
    progress.inc(1);
    let (mut live, mut none) = (Vec::new(), Vec::new());
    for round in 0..size.rounds {
        live.push(restart(binaries, &mut with, &urls, round as u64)?);
        progress.inc(1);
        none.push(restart(binaries, &mut without, &[], round as u64)?);
        progress.inc(1);
    }
    with.stop()?;
    without.stop()?;
    Ok(section(size, &live, &none))
}

/// Connects everybody, kills the server, starts it, and everybody comes back.
fn restart(binaries: &Binaries, up: &mut Up, urls: &[String], round: u64) -> Result<Noticed> {
    let mut admin = Http::connect(up.admin)?;
    up.wait_for(&mut admin, "/api/fleets/warm", |f| {
        f["warm"] == f["warm_target"] && f["starting"] == 0
    })?;
    drop(admin);
    let public = up.public;
    let heard = Arc::new(AtomicUsize::new(0));
    let mut players = Vec::with_capacity(urls.len());
    for url in urls {
        players.push(Player::follow(public, url)?);
    }
    let noticed = std::thread::scope(|s| -> Result<Noticed> {
        let all: Vec<_> = players
            .into_iter()
            .zip(urls)
            .map(|(mut player, url)| {
                let heard = Arc::clone(&heard);
                s.spawn(move || -> Result<Mark> {
                    let lost = player.closed();
                    loop {
                        // Its first byte is what is waited for.
                        if let Ok(back) = Player::follow(public, url) {
                            heard.fetch_add(1, Ordering::Relaxed);
                            return Ok(back.first);
                        }
                        ensure!(lost.elapsed() < BACK, "a player cannot come back");
                        std::thread::sleep(AGAIN);
                    }
                })
            })
            .collect();
        up.kill()?;
        let began = Mark::now();
        let caller = s.spawn(move || -> Result<Mark> {
            let body = new_game("warm", 1_000_000 + round);
            loop {
                let answer = Http::connect(public)
                    .and_then(|mut h| h.call("POST", "/api/new-game", Some(&body)));
                if let Ok(answer) = answer {
                    let claimed = Mark::now();
                    let reply = answer.expect(&[201])?;
                    let path = format!("/api/sessions/{}", text(&reply, "session_id")?);
                    Http::connect(public)?
                        .call("DELETE", &path, None)?
                        .expect(&[200, 202, 204])?;
                    return Ok(claimed);
                }
                ensure!(began.elapsed() < BACK, "no session can be started");
                std::thread::sleep(AGAIN);
            }
        });
        up.again(binaries)?;
        let thread = |r: std::thread::Result<Result<Mark>>| {
            r.map_err(|_| anyhow::anyhow!("a caller panicked"))?
        };
        let claimed = thread(caller.join())?;
        let mut back = Vec::with_capacity(all.len());
        for player in all {
            back.push(thread(player.join())?);
        }
        Ok(Noticed {
            claim: claimed.since(began),
            first: back.iter().min().map(|m| m.since(began)),
            all: back.iter().max().map(|m| m.since(began)),
        })
    })?;
    let back = heard.load(Ordering::Relaxed);
    ensure!(back == urls.len(), "{back} of {} came back", urls.len());
    Ok(noticed)
}

fn section(size: Size, live: &[Noticed], none: &[Noticed]) -> Section {
    let of = |all: &[Noticed], what: fn(&Noticed) -> Option<Duration>| {
        Samples::millis(all.iter().filter_map(what))
    };
    let live_name = format!("{} sessions live", thousands(size.live as f64));
    let rows = [
        (
            live_name.as_str(),
            "a new session is answered",
            of(live, |n| Some(n.claim)),
        ),
        (
            "none live",
            "a new session is answered",
            of(none, |n| Some(n.claim)),
        ),
        (
            live_name.as_str(),
            "the first player hears their game again",
            of(live, |n| n.first),
        ),
        (
            live_name.as_str(),
            "the last player does",
            of(live, |n| n.all),
        ),
    ];
    let mut s = Section::new(
        "restart",
        "A restart, as it is noticed",
        &[
            "",
            "from the new process's start until",
            "median ms",
            "most ms",
        ],
    );
    s.method = format!(
        "`spawnpoint up` is killed (`kill -9`) and started again at once over what it left, {} times: with {} real sessions live and a \
         player connected to each, and in turn with none live. The games go on meanwhile. One caller asks for a new session and every \
         player comes back as quickly as they can, with a pause of {} ms after each refusal; all share the two cores with the server.",
        size.rounds,
        thousands(size.live as f64),
        AGAIN.as_millis()
    );
    for (with, what, samples) in &rows {
        s.rows.push(vec![
            (*with).to_owned(),
            (*what).to_owned(),
            ms(samples.median()),
            ms(samples.quantile(1.0)),
        ]);
    }
    s.notes.push(format!(
        "A new session with {live_name}, as a multiple of one with none: {}.",
        ratio(rows[0].2.median() / rows[1].2.median())
    ));
    s.data = json!({
        "live": size.live, "rounds": size.rounds,
        "claim_ms": {"live": rows[0].2.median(), "none": rows[1].2.median()},
        "first_byte_ms": {"first": rows[2].2.median(), "last": rows[3].2.median()},
    });
    s
}
