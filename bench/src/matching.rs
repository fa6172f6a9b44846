//! One look at a queue: how long it takes with so many tickets, and how close the matches are.
//!
//! `core::matching::propose` alone, on one thread: no server, no lobby. Everybody waits, and one look matches whom it can; a queue that is
//! looked at each time somebody joins never has as much to do at once.

mod best;

use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use spawnpoint_core::Moment;
use spawnpoint_core::matching::{Candidate, Limit, Region, Rules, propose};

use crate::plot::{Upright, Words, lines};
use crate::proc::thread_cpu;
use crate::report::{Picture, Section, Verdict, ms, ratio, thousands};
use crate::stats::{Order, Samples};
use crate::stopwatch::Mark;

/// Tickets that wait.
const TICKETS: [usize; 3] = [1_000, 10_000, 100_000];
/// What is promised of a look at the most tickets, with limits on skill and latency: milliseconds of one core.
const TARGET_MS: f64 = 150.0;
/// What is promised of its growth: so many times the work at most, for ten times the tickets. In proportion would be 10; a sort makes it 12
/// or 13, and less memory of a larger queue fits into the processor's caches.
const TARGET_GROWTH: f64 = 20.0;
/// What is promised of the mean spread, beside the best there is.
const TARGET_SPREAD: f64 = 1.05;
/// Skills are a bell over this range where everybody is close to somebody: that of a usual rating.
const SKILLS: u64 = 3_000;
/// The longest anybody has waited, in milliseconds.
const WAITED: u64 = 60_000;
const NOW: Moment = Moment(1_000_000_000);

const PICTURE: Words<'_> = Words {
    caption: "one look at a queue, on one core",
    x: "waiting tickets (logarithmic)",
    y: "ms (logarithmic)",
};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// More tickets, closer together: almost everybody is matched.
    Full,
    /// More tickets, wider apart: everybody accepts a few others, however many wait.
    Sparse,
    /// Nobody accepts anybody.
    Apart,
    /// All have the same skill.
    Alike,
    /// As `Full`, four to a match, a third of the tickets parties of two or three.
    Parties,
}

impl Crowd {
    const ALL: [Self; 5] = [
        Self::Full,
        Self::Sparse,
        Self::Apart,
        Self::Alike,
        Self::Parties,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Full => "close together",
            Self::Sparse => "wide apart",
            Self::Apart => "nobody fits",
            Self::Alike => "one skill",
            Self::Parties => "close together, a third parties",
        }
    }

    fn rules(self) -> Result<Rules> {
        let size = if self == Self::Parties { 4 } else { 2 };
        let skill = Limit {
            start: 50.0,
            per_second: 5.0,
            most: 200.0,
        };
        let latency = Limit {
            start: 60.0,
            per_second: 5.0,
            most: 150.0,
        };
        let hour = Duration::from_secs(3_600);
        // No partial ones: they would empty the queue.
        let rules = Rules::new(size, size, hour, Some(skill), Some(latency));
        rules.map_err(|e| anyhow::anyhow!("the rules are wrong: {e:?}"))
    }

    /// So many tickets; each lists about half of six regions.
    fn draw(self, tickets: usize, order: &mut Order) -> Result<Vec<Candidate>> {
        let mut all: Vec<Candidate> = (0..tickets)
            .map(|n| {
                let mut bell = |range: u64| (0..4).map(|_| order.below(range / 4)).sum::<u64>();
                let skill = match self {
                    Self::Full | Self::Parties => bell(SKILLS * 1_000) as f64 / 1_000.0,
                    // About ten accept one another.
                    Self::Sparse => bell(tickets as u64 * 20) as f64,
                    Self::Apart => n as f64 * 201.0,
                    Self::Alike => 1_500.0,
                };
                let players = match order.below(6) {
                    0 if self == Self::Parties => 2,
                    1 if self == Self::Parties => 3,
                    _ => 1,
                };
                let mut latencies = Vec::new();
                for region in (0..6).filter_map(Region::new) {
                    if order.below(2) == 0 {
                        latencies.push((region, 20 + order.below(130) as u32));
                    }
                }
                ticket(n, players, skill, latencies, order.below(WAITED))
            })
            .collect::<Result<_>>()?;
        order.shuffle(&mut all);
        Ok(all)
    }
}

fn ticket(
    n: usize,
    players: u32,
    skill: f64,
    latencies: Vec<(Region, u32)>,
    waited_ms: u64,
) -> Result<Candidate> {
    Ok(Candidate {
        id: format!("01890a5d-ac96-7000-8000-{n:012x}").parse()?,
        players,
        skill: Some(skill),
        latencies,
        since: NOW.before(Duration::from_millis(waited_ms)),
    })
}

/// What was seen of one crowd of one size.
struct Seen {
    crowd: Crowd,
    tickets: usize,
    all: Vec<Candidate>,
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
    matched: usize,
    spread: f64,
}

impl Seen {
    fn look(&mut self) -> Result<()> {
        let rules = self.crowd.rules()?;
        let (began, before) = (Mark::now(), thread_cpu()?);
        let proposal = propose(&self.all, &rules, NOW);
        self.cpu.push(thread_cpu()?.saturating_sub(before));
        self.wall.push(began.elapsed());
        let fits = self.crowd != Crowd::Apart;
        ensure!(fits != proposal.matches.is_empty(), "{:?}", self.crowd);
        self.matched = proposal.matches.iter().map(|m| m.tickets.len()).sum();
        let spreads: f64 = proposal.matches.iter().map(|m| m.spread).sum();
        // A sum of nothing is -0.
        self.spread = spreads.max(0.0) / proposal.matches.len().max(1) as f64;
        Ok(())
    }

    fn cpu_ms(&self) -> f64 {
        Samples::millis(self.cpu.iter().copied()).median()
    }

    fn row(&self) -> Vec<String> {
        let wall = Samples::millis(self.wall.iter().copied());
        let cpu = self.cpu_ms();
        let percent = self.matched as f64 * 100.0 / self.tickets as f64;
        vec![
            format!("{}, {}", self.crowd.name(), thousands(self.tickets as f64)),
            format!("{percent:.0} %"),
            format!("{:.1}", self.spread),
            ms(cpu),
            ms(wall.median()),
            ms(wall.quantile(0.9)),
            format!("{:.2}", cpu * 1e3 / self.tickets as f64),
        ]
    }

    fn json(&self) -> Value {
        let wall = Samples::millis(self.wall.iter().copied());
        json!({
            "crowd": self.crowd.name(), "tickets": self.tickets, "matched": self.matched, "mean_spread": self.spread,
            "cpu_ms": self.cpu_ms(), "ms_p50": wall.median(), "ms_p90": wall.quantile(0.9),
        })
    }
}

/// Looks at every crowd of every size so many times, and matches few tickets beside the best there is.
pub(crate) fn run(quick: bool, bar: &ProgressBar) -> Result<Section> {
    let (rounds, instances) = if quick { (3, 20) } else { (21, 400) };
    let mut order = Order::new(4);
    let mut seen = Vec::new();
    for crowd in Crowd::ALL {
        for tickets in TICKETS {
            seen.push(Seen {
                crowd,
                tickets,
                all: crowd.draw(tickets, &mut order)?,
                wall: Vec::new(),
                cpu: Vec::new(),
                matched: 0,
                spread: 0.0,
            });
        }
    }
    bar.set_length((rounds * seen.len() + 1) as u64);
    let mut turns: Vec<usize> = (0..seen.len()).collect();
    for _ in 0..rounds {
        order.shuffle(&mut turns);
        for turn in &turns {
            seen[*turn].look()?;
            bar.inc(1);
        }
    }
    let few = best::beside_the_best(instances, &mut order)?;
    bar.finish_and_clear();
    report(&seen, &few, rounds)
}

fn report(seen: &[Seen], few: &[best::Few], rounds: usize) -> Result<Section> {
    let columns = [
        "who waits",
        "matched",
        "mean spread",
        "CPU ms, p50",
        "ms, p50",
        "ms, p90",
        "CPU us a ticket",
    ];
    let mut s = Section::new("matching", "One look at a match queue", &columns);
    s.method = format!(
        "`core::matching::propose` over candidates in no order, on one thread, with limits on skill (50, and 5 more each second up to 200) and on latency (60 ms, and 5 more each second up to 150) to one of six regions, of which each ticket lists about half; all have waited up to a minute. {rounds} rounds, in each every row once, in an order drawn anew. Skills are a bell over {SKILLS}, or as named."
    );
    s.rows = seen.iter().map(Seen::row).collect();
    let [.., most] = TICKETS;
    let limited = |s: &&Seen| s.crowd != Crowd::Parties;
    let slowest = seen
        .iter()
        .filter(limited)
        .filter(|s| s.tickets == most)
        .map(Seen::cpu_ms)
        .fold(0.0, f64::max);
    let promise = format!("{} tickets, slowest crowd, CPU ms", thousands(most as f64));
    s.verdicts
        .push(Verdict::at_most(&promise, slowest, TARGET_MS));
    let tens = seen
        .windows(2)
        .filter(|w| w[0].crowd == w[1].crowd && w[0].crowd != Crowd::Parties);
    let growth = tens
        .map(|w| w[1].cpu_ms() / w[0].cpu_ms())
        .fold(0.0, f64::max);
    s.verdicts.push(Verdict::at_most(
        "ten times the tickets, most times the work",
        growth,
        TARGET_GROWTH,
    ));
    for f in few {
        let promise = format!(
            "12 tickets, {} to a match, mean spread beside the best there is",
            f.size
        );
        s.verdicts
            .push(Verdict::at_most(&promise, f.worst, TARGET_SPREAD));
        s.notes.push(format!(
            "{} queues of 12, {} to a match: {} matches of mean spread {:.1}; the best of all ways {} of {:.1}; first come, first served {} of {:.1} ({}).",
            f.queues, f.size, f.ours.matches, f.ours.mean(), f.best.matches, f.best.mean(), f.first_come.matches,
            f.first_come.mean(), ratio(f.first_come.mean() / f.best.mean()),
        ));
    }
    s.notes.push("What grows slowest is matched in neighbourhoods, of which one look betters so many and no more: the mean spread of a large queue is nearer to what a quick cut gives.".to_owned());
    let line = |crowd: Crowd| {
        let points = seen.iter().filter(|s| s.crowd == crowd);
        let points = points.map(|s| (s.tickets as f64, s.cpu_ms())).collect();
        (crowd.name().to_owned(), points)
    };
    let four: Vec<_> = Crowd::ALL.into_iter().take(4).map(line).collect();
    s.pictures.push(Picture {
        name: "bench-matching",
        alt: "milliseconds of one look, by waiting tickets",
        svg: lines(PICTURE, Upright::Logarithmic, &four)?,
    });
    s.data = json!({
        "looks": seen.iter().map(Seen::json).collect::<Vec<_>>(),
        "few": few.iter().map(best::Few::json).collect::<Vec<_>>(),
    });
    Ok(s)
}
