//! Session starts per second, and what each costs in CPU time.
//!
//! Every kind is run a few times, in turn with the others; the medians of the runs are shown.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use serde_json::json;

use crate::floor::Bare;
use crate::platform::{Binaries, FleetSpec, UNTIL_ENDED, Up, new_game, text};
use crate::proc::{Cpu, cpu};
use crate::report::{Section, ms};
use crate::stats::Samples;
use crate::stopwatch::Mark;
use crate::wire::Http;

/// Callers at once.
const CALLERS: [usize; 2] = [1, 64];

/// What is started, and until when a start counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The game alone: spawned, listening, killed.
    Bare,
    /// A session, started and ended in a loop; the reply is held until the game accepts.
    ColdReady,
    /// Sessions until the reply, which does not wait for the game; ended afterwards.
    ColdReply,
    /// The same from a pool that is as large as the batch and not refilled meanwhile.
    WarmReply,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Bare, "bare game: spawned until it listens, killed"),
    (Kind::ColdReady, "cold: reply once the game accepts, ended"),
    (Kind::ColdReply, "cold: reply at once"),
    (Kind::WarmReply, "warm: reply at once"),
];

/// One run.
struct Run {
    per_second: f64,
    waits: Vec<Duration>,
    cpu: Cpu,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Runs of each kind.
    pub(crate) runs: usize,
    /// Starts in a run.
    pub(crate) batch: usize,
}

pub(crate) fn run(binaries: &Binaries, size: Size, progress: &ProgressBar) -> Result<Section> {
    let pool = u32::try_from(size.batch)?;
    let fleets = [
        FleetSpec {
            name: "cold",
            warm: 0,
            max_instances: None,
            rules: UNTIL_ENDED,
        },
        FleetSpec {
            name: "warm",
            warm: pool,
            max_instances: Some(pool),
            rules: UNTIL_ENDED,
        },
    ];
    let mut runs: Vec<(Kind, &str, usize, Vec<Run>)> = KINDS
        .iter()
        .flat_map(|(kind, name)| CALLERS.map(|callers| (*kind, *name, callers, Vec::new())))
        .collect();
    progress.set_length((size.runs * runs.len()) as u64);
    // One server for the warm pool and one without, so that the pool's processes stand idle beside the warm runs only.
    for warm in [false, true] {
        let up = Up::start(binaries, if warm { &fleets[1..] } else { &fleets[..1] })?;
        let bench = Bench {
            up: &up,
            binaries,
            batch: size.batch,
            number: AtomicU64::new(0),
        };
        for _ in 0..size.runs {
            for (kind, _, callers, done) in
                runs.iter_mut().filter(|r| (r.0 == Kind::WarmReply) == warm)
            {
                done.push(
                    bench
                        .run(*kind, *callers)
                        .with_context(|| format!("{kind:?} with {callers} callers"))?,
                );
                progress.inc(1);
            }
        }
        up.stop()?;
    }
    Ok(section(&runs, size))
}

struct Bench<'a> {
    up: &'a Up,
    binaries: &'a Binaries,
    batch: usize,
    number: AtomicU64,
}

impl Bench<'_> {
    fn run(&self, kind: Kind, callers: usize) -> Result<Run> {
        let fleet = if kind == Kind::WarmReply {
            "warm"
        } else {
            "cold"
        };
        let mut admin = Http::connect(self.up.admin)?;
        self.up.settled(&mut admin, fleet)?;
        let watched = if kind == Kind::Bare {
            std::process::id()
        } else {
            self.up.pid()
        };
        let before = cpu(watched)?;
        let (took, done) = self.all(kind, fleet, callers)?;
        let mut public = Http::connect(self.up.public)?;
        for id in done.iter().filter_map(|one| one.left.as_ref()) {
            public
                .call("DELETE", &format!("/api/sessions/{id}"), None)?
                .expect(&[200, 202, 204])?;
        }
        if kind != Kind::Bare {
            self.up
                .wait_for(&mut admin, &format!("/api/fleets/{fleet}"), |f| {
                    f["sessions"] == json!(0) && f["stopping"] == json!(0)
                })?;
        }
        let cpu = cpu(watched)?.since(before);
        Ok(Run {
            per_second: self.batch as f64 / took.as_secs_f64(),
            waits: done.iter().map(|one| one.wait).collect(),
            cpu,
        })
    }

    /// Starts the whole batch. How long that took, from the first call to the last answer, and each start.
    fn all(&self, kind: Kind, fleet: &str, callers: usize) -> Result<(Duration, Vec<One>)> {
        let taken = AtomicUsize::new(0);
        let barrier = Barrier::new(callers);
        let mut all = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..callers)
                .map(|_| {
                    scope.spawn(|| {
                        let connected = Http::connect(self.up.public);
                        barrier.wait();
                        let mut http = connected?;
                        let mut done = Vec::new();
                        while taken.fetch_add(1, Ordering::Relaxed) < self.batch {
                            done.push(self.one(kind, fleet, &mut http)?);
                        }
                        Ok::<_, anyhow::Error>(done)
                    })
                })
                .collect();
            let mut all = Vec::with_capacity(self.batch);
            for w in workers {
                all.extend(w.join().map_err(|_| anyhow!("a caller panicked"))??);
            }
            Ok::<_, anyhow::Error>(all)
        })?;
        all.sort_by_key(|one| one.began);
        let began = all.first().map(|one| one.began);
        let over = all.iter().map(|one| one.over).max();
        Ok((
            over.zip(began)
                .map_or(Duration::ZERO, |(over, began)| over.since(began)),
            all,
        ))
    }

    fn one(&self, kind: Kind, fleet: &str, http: &mut Http) -> Result<One> {
        let began = Mark::now();
        if kind == Kind::Bare {
            let game = Bare::spawn(&self.binaries.spice)?;
            let wait = began.elapsed();
            drop(game);
            return Ok(One {
                began,
                wait,
                over: Mark::now(),
                left: None,
            });
        }
        let body = new_game(fleet, self.number.fetch_add(1, Ordering::Relaxed));
        let path = if kind == Kind::ColdReady {
            "/api/new-game?wait=50"
        } else {
            "/api/new-game"
        };
        let reply = http.call("POST", path, Some(&body))?;
        let wait = began.elapsed();
        let reply = reply.expect(&[201])?;
        let id = text(&reply, "session_id")?.to_owned();
        let left = if kind == Kind::ColdReady {
            http.call("DELETE", &format!("/api/sessions/{id}"), None)?
                .expect(&[200, 202, 204])?;
            None
        } else {
            Some(id)
        };
        Ok(One {
            began,
            wait,
            over: Mark::now(),
            left,
        })
    }
}

/// One start.
struct One {
    began: Mark,
    wait: Duration,
    over: Mark,
    /// The session that is still to be ended.
    left: Option<String>,
}

fn section(runs: &[(Kind, &str, usize, Vec<Run>)], size: Size) -> Section {
    let mut s = Section::new(
        "rate",
        "Session starts per second",
        &[
            "start",
            "callers",
            "per second",
            "p50 ms",
            "p99 ms",
            "CPU ms: server",
            "CPU ms: shim and game",
        ],
    );
    s.method = format!(
        "{} runs of {} starts each, the kinds in turn; medians of the runs. Callers are threads with one kept-alive connection each, on \
         the same machine, so their own CPU time is taken from what is left for the server. CPU time is per session from its start until \
         nothing is left of it (end and clean-up are in it), of the server and of the processes it started and reaped; for the bare game \
         it is the benchmark's own. Warm starts come from a pool as large as the batch that has no room to refill meanwhile.",
        size.runs, size.batch
    );
    let mut data = Vec::new();
    for (kind, name, callers, done) in runs {
        let over = |f: &dyn Fn(&Run) -> f64| Samples::new(done.iter().map(f)).median();
        let waits = |q: f64| over(&|r| Samples::millis(r.waits.iter().copied()).quantile(q));
        let cpu = |d: Duration| d.as_secs_f64() * 1e3 / size.batch as f64;
        let (rate, own, children) = (
            over(&|r| r.per_second),
            over(&|r| cpu(r.cpu.own)),
            over(&|r| cpu(r.cpu.children)),
        );
        let server = if *kind == Kind::Bare {
            String::new()
        } else {
            ms(own)
        };
        s.rows.push(vec![
            (*name).to_owned(),
            callers.to_string(),
            format!("{rate:.0}"),
            ms(waits(0.5)),
            ms(waits(0.99)),
            server,
            ms(children),
        ]);
        data.push(json!({
            "kind": format!("{kind:?}"), "callers": callers, "per_second": rate,
            "p50_ms": waits(0.5), "p99_ms": waits(0.99), "cpu_server_ms": own, "cpu_children_ms": children,
            "runs_per_second": done.iter().map(|r| r.per_second).collect::<Vec<_>>(),
        }));
    }
    s.data = data.into();
    s
}
