//! The journal: what the pure functions decided, with everything that they were given, for whoever wants to run them again.
//!
//! [`Journal`] is where the use cases and workers note each decision; [`FileJournal`] writes them, [`Replay`] runs them again. To note
//! must never wait: what cannot be taken is counted and left out.

mod file;
mod replay;

use std::sync::Arc;

use spawnpoint_core::fleet::{Failures, InFlight, Plan, Pool, PoolSpec};
use spawnpoint_core::matching::{Candidate, Proposal, Rules};
use spawnpoint_core::session::{Event, Rejected, Session, Step};
use spawnpoint_core::time::Known;
use spawnpoint_core::{FleetName, Moment};
use spawnpoint_wire::journal::{
    Braked, Held, Line, MOST_ITEMS, Outcome, Planned, Proposed, State, Stepped, TooLarge,
};

pub use file::{DIRECTORY, FileJournal, LEAST_KEPT, files};
pub use replay::{Difference, DifferenceKind, FunctionCount, Replay, Replayed};

/// One decision with everything that went into it.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// [`session::step`](spawnpoint_core::session::step) changed a session, or refused somebody who had asked for something. Echoes
    /// that change nothing and were asked for by nobody are not noted.
    Step(Box<StepMade>),
    /// [`fleet::plan`](spawnpoint_core::fleet::plan) wanted something done, or wanted nothing more.
    Plan(Box<Planned>),
    /// [`Brake::decide`](spawnpoint_core::lifecycle::Brake::decide) while too many would end at once, and when that is over.
    Brake(Box<Braked>),
    /// [`hold_after`](spawnpoint_core::lifecycle::hold_after) found a tick late.
    Hold(Held),
    /// [`matching::propose`](spawnpoint_core::matching::propose) found matches, or none any more.
    Propose(Box<Proposed>),
    /// One of them looked at more than is written.
    TooLarge(TooLarge),
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMade {
    /// The state it began with.
    pub before: Session,
    /// What happened.
    pub event: Event,
    /// When.
    pub now: Moment,
    /// What came of it.
    pub result: Result<Step, Rejected>,
}

/// Where decisions are noted.
pub trait Journal: Send + Sync {
    /// Notes one. Called with the world locked, in the order of the decisions: it must not wait for anything.
    fn note(&self, made: Made);

    /// How many were written and how many left out, since the start.
    fn counts(&self) -> Counts {
        Counts::default()
    }
}

/// What became of the decisions that were noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that were written.
    pub written: u64,
    /// Those that were not: more came than could be written, or the disk would not take them.
    pub lost: u64,
}

impl Made {
    /// A plan, unless it looked at too much.
    pub(crate) fn plan(
        fleet: FleetName,
        (spec, seen, in_flight, failures): (PoolSpec, Known<Pool>, InFlight, Failures),
        now: Moment,
        plan: Plan,
    ) -> Self {
        let items = seen.get().map_or(0, |pool| pool.warm.len());
        if items > MOST_ITEMS {
            return Self::TooLarge(TooLarge {
                of: "fleet::plan".to_owned(),
                subject: fleet,
                now,
                items,
            });
        }
        Self::Plan(Box::new(Planned {
            fleet,
            now,
            spec,
            seen,
            in_flight,
            failures,
            plan,
        }))
    }

    /// Matches, unless too many waited.
    pub(crate) fn propose(
        queue: FleetName,
        rules: Rules,
        candidates: Vec<Arc<Candidate>>,
        now: Moment,
        proposal: Proposal,
    ) -> Self {
        if candidates.len() > MOST_ITEMS {
            return Self::TooLarge(TooLarge {
                of: "matching::propose".to_owned(),
                subject: queue,
                now,
                items: candidates.len(),
            });
        }
        Self::Propose(Box::new(Proposed {
            queue,
            now,
            rules,
            candidates,
            proposal,
        }))
    }

    /// The lines that say it: a step of a session whose state is not known there takes two.
    fn lines(self, is_known: bool) -> (Option<Line>, Line) {
        let line = match self {
            Self::Step(step) => {
                let StepMade {
                    before,
                    event,
                    now,
                    result,
                } = *step;
                let line = Line::Step(Stepped {
                    session: before.id,
                    now,
                    event,
                    outcome: Outcome::of(&result),
                });
                let state = (!is_known).then_some(Line::State(State { state: before }));
                return (state, line);
            }
            Self::Plan(planned) => Line::Plan(*planned),
            Self::Brake(braked) => Line::Brake(*braked),
            Self::Hold(held) => Line::Hold(held),
            Self::Propose(proposed) => Line::Propose(*proposed),
            Self::TooLarge(too_large) => Line::TooLarge(too_large),
        };
        (None, line)
    }
}
