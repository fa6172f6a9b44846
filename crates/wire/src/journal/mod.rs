//! The journal of decisions: each pure function's full inputs and output, one line of JSON each, so that `spawnpoint replay` can run
//! the same functions again and compare.
//!
//! A stored format: [`JOURNAL_VERSION`] is in the head of every file. A session's whole state is written once in a file, before its
//! first step there; each step after it says its event, its time and a digest of the state it led to. Every line has its number and
//! a check sum of itself, so that a changed log is told from a changed function.

mod forms;
mod pools;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spawnpoint_core::fleet::{Failures, InFlight, Plan, Pool, PoolSpec};
use spawnpoint_core::lifecycle::{Brake, Verdict};
use spawnpoint_core::matching::{Candidate, Proposal, Rules};
use spawnpoint_core::session::{Effect, Event, Phase, Rejected, Session, Step};
use spawnpoint_core::time::Known;
use spawnpoint_core::{Code, FleetName, Moment, SessionId};

use crate::text;
use forms::{brake, code_option, effect, event, known_moment, moment, session};
use pools::{
    FailuresForm, InFlightForm, PlanForm, ProposalForm, SeenPoolForm, SpecForm, candidates, rules,
};

/// The version written.
pub const JOURNAL_VERSION: u32 = 1;
/// Longest line that is read, bytes: more than the largest inputs that are written ([`MOST_ITEMS`], each in every region) take.
pub const MAX_LINE: usize = 8 * 1024 * 1024;
/// Most candidates or warm instances of one decision that are written: a line must stay something that can be looked at, and a queue
/// of a hundred thousand would fill the journal with itself within seconds.
pub const MOST_ITEMS: usize = 2_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function")]
pub enum Line {
    /// The head of a file.
    #[serde(rename = "journal")]
    Head(Head),
    /// The whole state of a session, before its first step in this file or after a gap.
    #[serde(rename = "session::state")]
    State(State),
    /// A step of a session.
    #[serde(rename = "session::step")]
    Step(Stepped),
    /// A plan of a fleet's pool.
    #[serde(rename = "fleet::plan")]
    Plan(Planned),
    /// A look of the mass-end brake.
    #[serde(rename = "lifecycle::brake")]
    Brake(Braked),
    /// A tick that came late.
    #[serde(rename = "lifecycle::hold_after")]
    Hold(Held),
    /// Matches found in a queue.
    #[serde(rename = "matching::propose")]
    Propose(Proposed),
    /// A decision whose inputs are too large to be written.
    #[serde(rename = "too_large")]
    TooLarge(TooLarge),
    /// Decisions that could not be written.
    #[serde(rename = "gap")]
    Gap(Gap),
}

/// The head of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`JOURNAL_VERSION`].
    pub version: u32,
    /// Names the run of the server that wrote it.
    pub run: String,
    /// Which file of that run, from 0.
    pub part: u64,
    /// Nothing was lost between the file before it and this one.
    pub continues: bool,
    /// The release that wrote it.
    pub release: String,
    /// Unix milliseconds of `now`.
    pub wall: i64,
    /// The moment it was begun.
    #[serde(with = "moment")]
    pub now: Moment,
}

/// A whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// It.
    #[serde(with = "session")]
    pub state: Session,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stepped {
    /// Of which session.
    #[serde(with = "text")]
    pub session: SessionId,
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// What happened.
    #[serde(with = "event")]
    pub event: Event,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was accepted.
    Accepted {
        /// The phase after it.
        #[serde(with = "text::phase")]
        phase: Phase,
        /// What is to be done.
        #[serde(with = "effect::list")]
        effects: Vec<Effect>,
        /// Why.
        because: String,
        /// [`digest`] of the state after it.
        state: String,
    },
    /// It changed nothing.
    Rejected {
        /// Why.
        because: String,
        /// The code for the caller.
        #[serde(with = "code_option")]
        code: Option<Code>,
    },
}

impl Outcome {
    /// The form of what [`step`](spawnpoint_core::session::step) said.
    #[must_use]
    pub fn of(result: &Result<Step, Rejected>) -> Self {
        match result {
            Ok(Step {
                next,
                effects,
                because,
            }) => Self::Accepted {
                phase: next.phase,
                effects: effects.clone(),
                because: (*because).to_owned(),
                state: digest(next),
            },
            Err(Rejected { because, code }) => Self::Rejected {
                because: (*because).to_owned(),
                code: *code,
            },
        }
    }
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Of which fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// What is asked for.
    #[serde(with = "SpecForm")]
    pub spec: PoolSpec,
    /// What was seen.
    #[serde(with = "SeenPoolForm")]
    pub seen: Known<Pool>,
    /// What was on its way.
    #[serde(with = "InFlightForm")]
    pub in_flight: InFlight,
    /// The breaker.
    #[serde(with = "FailuresForm")]
    pub failures: Failures,
    /// The plan.
    #[serde(with = "PlanForm")]
    pub plan: Plan,
}

/// A look of the brake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Braked {
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// The brake before it.
    #[serde(with = "brake")]
    pub before: Brake,
    /// Sessions that live.
    pub live: usize,
    /// Those that would end and count.
    pub due: usize,
    /// What is known of the gateways.
    #[serde(with = "known_moment")]
    pub facts: Known<Moment>,
    /// The brake after it.
    #[serde(with = "brake")]
    pub after: Brake,
    /// What it said.
    pub verdict: VerdictForm,
}

/// What the brake said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictForm {
    /// Culls may fire.
    Go {
        /// Why.
        because: String,
    },
    /// Culls wait.
    Hold {
        /// Until then at the latest.
        #[serde(with = "moment::option")]
        until: Option<Moment>,
        /// Why.
        because: String,
    },
}

impl From<Verdict> for VerdictForm {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Go { because } => Self::Go {
                because: because.to_owned(),
            },
            Verdict::Hold { until, because } => Self::Hold {
                until,
                because: because.to_owned(),
            },
        }
    }
}

/// A late tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// When it should have been.
    #[serde(with = "moment")]
    pub expected: Moment,
    /// How long players need to say that they are there.
    pub heartbeat: Duration,
    /// Culls hold until then.
    #[serde(with = "moment::option")]
    pub until: Option<Moment>,
}

/// Matches found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposed {
    /// In which queue.
    #[serde(with = "text")]
    pub queue: FleetName,
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// What the queue asks for.
    #[serde(with = "rules")]
    pub rules: Rules,
    /// Who waited.
    #[serde(with = "candidates")]
    pub candidates: Vec<Arc<Candidate>>,
    /// The matches.
    #[serde(with = "ProposalForm")]
    pub proposal: Proposal,
}

/// A decision whose inputs are too large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooLarge {
    /// Which function decided.
    pub of: String,
    /// About which fleet or queue.
    #[serde(with = "text")]
    pub subject: FleetName,
    /// When.
    #[serde(with = "moment")]
    pub now: Moment,
    /// How many instances or candidates it looked at.
    pub items: usize,
}

/// A gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Decisions that are missing here.
    pub lost: u64,
}

/// A line with its number in its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Counted from 0, in each run.
    pub n: u64,
    /// What it says.
    #[serde(flatten)]
    pub line: Line,
}

/// What comes before the check sum.
const SUM: &str = ",\"sum\":\"";
/// Hexadecimal digits of check sums and digests: 64 bits.
const DIGITS: usize = 16;

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It does not end in a check sum, so that it is no whole line of a journal.
    #[error("it is no line of a journal")]
    NoSum,
    /// Its check sum is right and yet it is not understood: it is of another release.
    #[error("it is not understood: {0}")]
    NotUnderstood(serde_json::Error),
    /// Its check sum is not that of what it says. What it says now, if that is anything, is still given.
    #[error("its check sum is not that of what it says")]
    Changed(Option<Box<Numbered>>),
}

impl Numbered {
    /// The line as it is written, without the end of line.
    #[must_use]
    pub fn write(&self) -> String {
        // Values with string keys and finite numbers always serialise.
        seal(serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads a line, given without its end.
    ///
    /// # Errors
    /// When it is not as it was written, or not of a form that this release knows.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let tail = SUM.len() + DIGITS + "\"}".len();
        let at = line.len().checked_sub(tail).ok_or(LineError::NoSum)?;
        let (body, seal) = line.split_at(at);
        let sum = seal
            .strip_prefix(SUM.as_bytes())
            .and_then(|s| s.strip_suffix(b"\"}"))
            .ok_or(LineError::NoSum)?;
        let mut text = body.to_vec();
        text.push(b'}');
        let said = serde_json::from_slice::<Self>(&text);
        if sum != hex(body).as_bytes() {
            return Err(LineError::Changed(said.ok().map(Box::new)));
        }
        said.map_err(LineError::NotUnderstood)
    }
}

/// Puts the check sum behind the last field of a line, which is an object.
#[must_use]
pub fn seal(mut line: String) -> String {
    line.pop();
    let sum = hex(line.as_bytes());
    line.push_str(SUM);
    line.push_str(&sum);
    line.push_str("\"}");
    line
}

/// Names a state: the check sum of how it is written in version [`JOURNAL_VERSION`].
#[must_use]
pub fn digest(state: &Session) -> String {
    #[derive(Serialize)]
    struct Shown<'a>(#[serde(with = "session")] &'a Session);
    hex(&serde_json::to_vec(&Shown(state)).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(DIGITS);
    for byte in Sha256::digest(bytes).iter().take(DIGITS / 2) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
