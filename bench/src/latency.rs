//! From the click to the first byte of a game of one's own, beside the same game without Spawnpoint.
//!
//! Four things are done in turn, in an order drawn anew each round, so that whatever else the machine does meets all of them alike:
//! a cold start, a warm start, the bare game from spawn to first byte, and the first byte of a bare game that runs already.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::floor::Bare;
use crate::platform::{Binaries, FleetSpec, UNTIL_ENDED, Up, new_game, text};
use crate::plot::{Words, distributions};
use crate::report::{Picture, Section, Verdict, ms, ratio};
use crate::stats::{Order, Samples};
use crate::stopwatch::Mark;
use crate::wire::{Http, Player};

/// Warm instances kept ready: more than the one in use, so that its replacement starts beside the next step as in daily use.
const WARM: u32 = 4;
/// Rounds that are thrown away: first runs read binaries from disk and fill caches.
const WARM_UP: usize = 5;
/// What is promised of a warm start, median milliseconds.
const WARM_TARGET: f64 = 3.0;
/// What is promised of a cold start: at most so many milliseconds more than the bare game, medians.
const COLD_TARGET: f64 = 5.0;
/// Quantiles that are shown.
const SHOWN: [(f64, &str); 3] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")];

const PICTURE: Words<'_> = Words {
    caption: "click to first byte of the game",
    x: "milliseconds (logarithmic)",
    y: "% of starts done",
};

/// What is done in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Cold,
    Warm,
    BareCold,
    BareWarm,
}

/// The parts of one start as seen from outside.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Call to answer.
    answer: Duration,
    /// Answer to 101.
    handshake: Duration,
    /// 101 to the game's first byte.
    first: Duration,
    total: Duration,
}

#[derive(Default)]
struct Seen {
    cold: Vec<Start>,
    warm: Vec<Start>,
    bare_cold: Vec<Duration>,
    bare_warm: Vec<Duration>,
    cold_receipts: Vec<Value>,
    warm_receipts: Vec<Value>,
}

pub(crate) fn run(binaries: &Binaries, rounds: usize, progress: &ProgressBar) -> Result<Section> {
    let fleets = [
        FleetSpec {
            name: "cold",
            warm: 0,
            max_instances: None,
            rules: UNTIL_ENDED,
        },
        FleetSpec {
            name: "warm",
            warm: WARM,
            max_instances: None,
            rules: UNTIL_ENDED,
        },
    ];
    let up = Up::start(binaries, &fleets)?;
    let mut seen = Seen::default();
    let mut bench = Bench {
        up: &up,
        binaries,
        public: Http::connect(up.public)?,
        admin: Http::connect(up.admin)?,
        number: 0,
    };
    let mut order = Order::new(0x5eed);
    let mut steps = [Step::Cold, Step::Warm, Step::BareCold, Step::BareWarm];
    progress.set_length((rounds + WARM_UP) as u64);
    for round in 0..rounds + WARM_UP {
        order.shuffle(&mut steps);
        for step in steps {
            let mut thrown_away = Seen::default();
            bench.step(
                step,
                if round < WARM_UP {
                    &mut thrown_away
                } else {
                    &mut seen
                },
            )?;
        }
        progress.inc(1);
    }
    drop(bench);
    up.stop()?;
    section(&seen)
}

struct Bench<'a> {
    up: &'a Up,
    binaries: &'a Binaries,
    public: Http,
    admin: Http,
    number: u64,
}

impl Bench<'_> {
    fn step(&mut self, step: Step, seen: &mut Seen) -> Result<()> {
        match step {
            Step::Cold => {
                let (start, receipt) = self.start("cold")?;
                seen.cold.push(start);
                seen.cold_receipts.push(receipt);
            }
            Step::Warm => {
                let (start, receipt) = self.start("warm")?;
                seen.warm.push(start);
                seen.warm_receipts.push(receipt);
            }
            Step::BareCold => {
                let game = Bare::spawn(&self.binaries.spice)?;
                let player = game.join()?;
                seen.bare_cold.push(player.first.since(game.began()));
            }
            Step::BareWarm => {
                let game = Bare::spawn(&self.binaries.spice)?;
                let began = Mark::now();
                let player = game.join()?;
                seen.bare_warm.push(player.first.since(began));
            }
        }
        Ok(())
    }

    /// One start through Spawnpoint, ended again; nothing of it is left when this returns.
    fn start(&mut self, fleet: &str) -> Result<(Start, Value)> {
        self.number += 1;
        let body = new_game(fleet, self.number);
        let began = Mark::now();
        let reply = self.public.call("POST", "/api/new-game", Some(&body))?;
        let answered = Mark::now();
        let reply = reply.expect(&[201])?;
        let path = format!("/api/sessions/{}", text(&reply, "session_id")?);
        let player = match Player::follow(self.up.public, text(&reply, "wsUrl")?) {
            Ok(player) => player,
            Err(e) => {
                let why = self.admin.get(&format!("{path}/why"))?;
                let pool = self.admin.get(&format!("/api/fleets/{fleet}"))?;
                return Err(e.context(format!(
                    "connecting to a {fleet} start; the server says {why:#}\n{pool:#}"
                )));
            }
        };
        let start = Start {
            answer: answered.since(began),
            handshake: player.upgraded.since(answered),
            first: player.first.since(player.upgraded),
            total: player.first.since(began),
        };
        let receipt = self.admin.get(&path)?["receipt"].take();
        drop(player);
        self.public
            .call("DELETE", &path, None)?
            .expect(&[200, 202, 204])
            .context("ending a session")?;
        self.up.settled(&mut self.admin, fleet)?;
        Ok((start, receipt))
    }
}

fn section(seen: &Seen) -> Result<Section> {
    let totals = |starts: &[Start]| Samples::millis(starts.iter().map(|s| s.total));
    let (cold, warm) = (totals(&seen.cold), totals(&seen.warm));
    let (bare_cold, bare_warm) = (
        Samples::millis(seen.bare_cold.iter().copied()),
        Samples::millis(seen.bare_warm.iter().copied()),
    );
    let mut s = Section::new(
        "start",
        "Click to first byte",
        &["ms", "p50", "p90", "p99", "p50, 95 % interval"],
    );
    s.method = format!(
        "`POST /api/new-game`, then the WebSocket of the answer through the gateway, until the first byte of the game's first message. \
         {} rounds; in each, in an order drawn anew, one cold start, one warm start ({WARM} kept ready), the bare game from spawn to \
         first byte, and the first byte of a bare game that already listens. The bare game is the same binary, spawned directly; that it \
         listens is read from its log, without polling. Each session is ended, and its process gone, before the next step.",
        cold.len()
    );
    for (name, samples) in [
        ("cold start", &cold),
        (
            "bare game: spawn, connect, handshake, first byte",
            &bare_cold,
        ),
        ("warm start", &warm),
        (
            "bare game already running: connect, handshake, first byte",
            &bare_warm,
        ),
    ] {
        let (from, to) = samples.interval(0.5);
        let mut row = vec![name.to_owned()];
        row.extend(SHOWN.iter().map(|(q, _)| ms(samples.quantile(*q))));
        row.push(format!("{} to {}", ms(from), ms(to)));
        s.rows.push(row);
    }
    for (name, ours, bare) in [
        ("cold, added", &cold, &bare_cold),
        ("warm, added", &warm, &bare_warm),
    ] {
        let mut row = vec![name.to_owned()];
        row.extend(SHOWN.iter().map(|(q, _)| {
            let (a, b) = (ours.quantile(*q), bare.quantile(*q));
            format!("{} ({})", ms(a - b), ratio(a / b))
        }));
        row.push(String::new());
        s.rows.push(row);
    }
    s.verdicts.push(Verdict::at_most(
        "warm start, median ms",
        warm.median(),
        WARM_TARGET,
    ));
    s.verdicts.push(Verdict::at_most(
        "cold start over the bare game, median ms",
        cold.median() - bare_cold.median(),
        COLD_TARGET,
    ));
    s.notes.push(parts("cold", &seen.cold, &seen.cold_receipts));
    s.notes.push(parts("warm", &seen.warm, &seen.warm_receipts));
    let curves = [
        ("cold start", &cold),
        ("bare game, cold", &bare_cold),
        ("warm start", &warm),
        ("bare game, running", &bare_warm),
    ]
    .map(|(name, samples)| (name.to_owned(), samples.sorted().to_vec()));
    s.pictures.push(Picture {
        name: "bench-start",
        alt: "share of starts done, by milliseconds",
        svg: distributions(PICTURE, &curves)?,
    });
    s.data = json!({
        "rounds": cold.len(),
        "cold_ms": quantiles(&cold), "warm_ms": quantiles(&warm),
        "bare_cold_ms": quantiles(&bare_cold), "bare_warm_ms": quantiles(&bare_warm),
        "cold_receipt_ms": receipts(&seen.cold_receipts), "warm_receipt_ms": receipts(&seen.warm_receipts),
    });
    Ok(s)
}

fn quantiles(s: &Samples) -> Value {
    SHOWN
        .iter()
        .map(|(q, name)| ((*name).to_owned(), json!(s.quantile(*q))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Where the time went: by the outside's clock, and by the receipt.
fn parts(kind: &str, starts: &[Start], all: &[Value]) -> String {
    let median = |f: fn(&Start) -> Duration| ms(Samples::millis(starts.iter().map(f)).median());
    let words: Vec<String> = receipts(all)
        .as_object()
        .map(|o| {
            o.iter()
                .map(|(k, v)| format!("{} {}", k.trim_end_matches("_ms"), v))
                .collect()
        })
        .unwrap_or_default();
    format!(
        "{kind}, seen from outside (medians): call to answer {}, answer to 101 {}, 101 to first byte {} ms. Its receipts (means of whole ms): {}.",
        median(|s| s.answer),
        median(|s| s.handshake),
        median(|s| s.first),
        words.join(", ")
    )
}

/// Mean of each phase of the receipts, rounded to a hundredth.
fn receipts(all: &[Value]) -> Value {
    let mut out = serde_json::Map::new();
    for phase in [
        "queue_ms",
        "claim_ms",
        "schedule_ms",
        "pull_ms",
        "boot_ms",
        "dial_ms",
        "total_ms",
    ] {
        let mean = Samples::new(all.iter().filter_map(|r| r[phase].as_f64())).mean();
        out.insert(phase.to_owned(), json!((mean * 100.0).round() / 100.0));
    }
    out.into()
}
