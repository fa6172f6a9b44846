//! Logs of decisions, as a server writes them.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::fleet::{Failures, InFlight, Pool, PoolSpec, Warm, plan};
use spawnpoint_core::lifecycle::{Brake, hold_after};
use spawnpoint_core::matching::{Candidate, Limit, Region, Rules, propose};
use spawnpoint_core::session::table::{Row, in_phase, walk};
use spawnpoint_core::session::{Phase, step};
use spawnpoint_core::time::Known;
use spawnpoint_core::{FleetName, Moment};
use spawnpoint_wire::journal::{
    Braked, Gap, Head, Held, JOURNAL_VERSION, Line, Numbered, Outcome, Planned, Proposed, State,
    Stepped, TooLarge,
};

use super::{ID, Seeds};

const NOW: Moment = Moment(1_790_000_000_000);
/// Most steps of the session whose life is told.
const STEPS: usize = 12;

pub(crate) fn logs() -> Seeds {
    let made = [
        ("life", life()),
        ("events", events()),
        ("plans", plans().unwrap_or_default()),
        ("matches", matches().unwrap_or_default()),
        ("culls", culls()),
        ("files", files()),
    ];
    made.into_iter()
        .map(|(name, lines)| (name, log(lines)))
        .collect()
}

fn named(name: &str) -> FleetName {
    match name.parse() {
        Ok(name) => name,
        Err(_) => unreachable!("the examples are valid"),
    }
}

fn log(lines: Vec<Line>) -> Vec<u8> {
    let head = matches!(lines.first(), Some(Line::Head(_)));
    let first = (!head).then(|| Line::Head(begins("1", 0)));
    let all = first.into_iter().chain(lines).enumerate();
    let all = all.map(|(n, line)| {
        let n = n as u64;
        Numbered { n, line }.write() + "\n"
    });
    all.collect::<String>().into_bytes()
}

fn begins(run: &str, part: u64) -> Head {
    Head {
        version: JOURNAL_VERSION,
        run: run.to_owned(),
        part,
        continues: part > 0,
        release: "1.2.3".to_owned(),
        wall: NOW.0 + 1_500,
        now: NOW,
    }
}

fn stepped(row: &Row) -> Line {
    Line::Step(Stepped {
        session: row.before.id,
        now: row.now,
        event: row.event.clone(),
        outcome: Outcome::of(&row.outcome),
    })
}

/// A session from its start until it is over, one step after the other.
fn life() -> Vec<Line> {
    let mut state = in_phase(Phase::Queued);
    let mut lines = vec![Line::State(State {
        state: state.clone(),
    })];
    for row in walk() {
        if row.before.phase != state.phase || lines.len() > STEPS {
            continue;
        }
        let now = row.now;
        let outcome = step(&state, &row.event, now);
        let next = outcome.as_ref().ok().map(|done| done.next.clone());
        let row = Row {
            before: state.clone(),
            outcome,
            ..row
        };
        match next {
            // What leads on is kept, and a little of what does not.
            Some(next) if next.phase != state.phase || lines.len() % 3 != 0 => {
                lines.push(stepped(&row));
                state = next;
            }
            _ => {}
        }
    }
    lines
}

/// One of the scenarios of each event, each from a state of its own.
fn events() -> Vec<Line> {
    let mut seen = Vec::new();
    let mut lines = Vec::new();
    for row in walk() {
        if seen.contains(&row.event.name()) {
            continue;
        }
        seen.push(row.event.name());
        let state = row.before.clone();
        lines.push(Line::State(State { state }));
        lines.push(stepped(&row));
    }
    lines
}

fn plans() -> Option<Vec<Line>> {
    let spec = PoolSpec {
        warm: 3,
        max_age: Some(Duration::from_secs(3_600)),
        max_instances: Some(10),
        template: 7,
    };
    let warm = |template| {
        Some(Warm {
            id: ID.parse().ok()?,
            ready: true,
            started_at: Moment(NOW.0 - 4_000_000),
            template,
        })
    };
    let pool = Pool {
        warm: vec![warm(7)?, warm(6)?],
        claimed: 2,
        stopping: 1,
        queued: 4,
    };
    let failures = Failures {
        in_a_row: 3,
        last: Some(Moment(NOW.0 - 1_000)),
    };
    let unknown = Known::Unknown {
        since: Moment(NOW.0 - 500),
    };
    let cases = [
        (Known::Is(pool.clone()), Failures::default()),
        (Known::Is(pool), failures),
        (unknown, failures),
    ];
    let lines = cases.map(|(seen, failures)| {
        let in_flight = InFlight {
            warm: 1,
            claimed: 0,
        };
        let plan = plan(&spec, &seen, in_flight, failures, NOW);
        Line::Plan(Planned {
            fleet: named("arena"),
            now: NOW,
            spec: spec.clone(),
            seen,
            in_flight,
            failures,
            plan,
        })
    });
    Some(lines.to_vec())
}

fn matches() -> Option<Vec<Line>> {
    let limit = Limit {
        start: 50.0,
        per_second: 2.5,
        most: 400.0,
    };
    let flush = Duration::from_secs(10);
    let rules = Rules::new(4, 2, flush, Some(limit), Some(limit)).ok()?;
    let candidate = |n: u8, players, skill| {
        let region = Region::new(n % 2)?;
        Some(Arc::new(Candidate {
            id: format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}")
                .parse()
                .ok()?,
            players,
            skill,
            latencies: vec![(region, 20 + u32::from(n))],
            since: Moment(NOW.0 - i64::from(n) * 3_000),
        }))
    };
    let all: Option<Vec<_>> = (1..7)
        .map(|n| {
            candidate(
                n,
                1 + u32::from(n % 2),
                (n != 3).then(|| 1_000.0 + f64::from(n) * 12.5),
            )
        })
        .collect();
    let all = all?;
    let lines = [all, Vec::new()].map(|candidates| {
        let proposal = propose(candidates.iter().map(|c| &**c), &rules, NOW);
        Line::Propose(Proposed {
            queue: named("ranked"),
            now: NOW,
            rules,
            candidates,
            proposal,
        })
    });
    Some(lines.to_vec())
}

fn culls() -> Vec<Line> {
    let mut brake = Brake::default();
    let mut lines = Vec::new();
    let looks = [
        (40, 20, Known::Unknown { since: NOW }),
        (40, 20, Known::Is(Moment(NOW.0 - 10))),
        (40, 20, Known::Is(Moment(NOW.0 + 900))),
        (40, 0, Known::Is(Moment(NOW.0 + 1_900))),
    ];
    for (n, (live, due, facts)) in looks.into_iter().enumerate() {
        let now = NOW.after(Duration::from_secs(n as u64));
        let (after, verdict) = brake.decide(live, due, facts, now);
        lines.push(Line::Brake(Braked {
            now,
            before: brake,
            live,
            due,
            facts,
            after,
            verdict: verdict.into(),
        }));
        brake = after;
    }
    let heartbeat = Duration::from_secs(5);
    let now = NOW.after(Duration::from_secs(60));
    lines.push(Line::Hold(Held {
        now,
        expected: NOW,
        heartbeat,
        until: hold_after(NOW, now, heartbeat),
    }));
    lines
}

/// Two files of one run with a gap between, and another run.
fn files() -> Vec<Line> {
    let state = in_phase(Phase::Running);
    let large = TooLarge {
        of: "matching::propose".to_owned(),
        subject: named("ranked"),
        now: NOW,
        items: 2_001,
    };
    vec![
        Line::Head(begins("1", 0)),
        Line::State(State {
            state: state.clone(),
        }),
        Line::TooLarge(large),
        Line::Head(begins("1", 1)),
        Line::State(State {
            state: state.clone(),
        }),
        Line::Gap(Gap { lost: 12 }),
        Line::State(State { state }),
        Line::Head(begins("2", 0)),
    ]
}
