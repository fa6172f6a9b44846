//! The journal read again: every function is run on what it was given then, and must say the same.
//!
//! A session is folded from its written state through its events by the real `step`; at each line phase, effects, reason and the digest
//! of the whole state are compared. Two things are told apart: a line that is not as it was written (the log was changed), and a line
//! that is, whose function says something else now. What cannot be replayed is counted as that, never as the same.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read as _};

use serde::Serialize;
use spawnpoint_core::fleet::plan;
use spawnpoint_core::lifecycle::hold_after;
use spawnpoint_core::matching::propose;
use spawnpoint_core::session::{Phase, Session, step};
use spawnpoint_core::{Moment, SessionId};
use spawnpoint_wire::journal::{
    Braked, Head, Held, JOURNAL_VERSION, Line, LineError, MAX_LINE, Numbered, Outcome, Planned,
    Proposed, State, Stepped, VerdictForm, digest,
};

/// Differences that are named; of more only the number is kept.
const MOST_NAMED: usize = 100;
/// The functions, as they are called in the journal.
const FUNCTIONS: [&str; 5] = [
    STEP,
    "fleet::plan",
    "matching::propose",
    "lifecycle::brake",
    "lifecycle::hold_after",
];
const STEP: &str = "session::step";

/// What came of running a journal again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Every decision that could be replayed came out the same, and the journal is as it was written.
    pub same: bool,
    /// Files read.
    pub files: u64,
    /// Runs of the server that wrote them.
    pub runs: u64,
    /// Lines read.
    pub lines: u64,
    /// Decisions by function.
    pub functions: Vec<FunctionCount>,
    /// States that were written down again later and compared with what the steps had led to.
    pub states_compared: u64,
    /// Decisions that the server could not write, as it says itself.
    pub lost: u64,
    /// Files that end in half a line, as a process that is killed leaves them.
    pub torn: u64,
    /// What is not as it should be, in the order of the journal.
    pub differences: Vec<Difference>,
    /// Differences beyond those that are named.
    pub left_out: u64,
}

/// The decisions of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FunctionCount {
    /// Its name.
    pub function: &'static str,
    /// Decided the same again.
    pub same: u64,
    /// Decided otherwise.
    pub different: u64,
    /// Its inputs were too large to be written.
    pub too_large: u64,
    /// The state it began with cannot be known, because of what was found before it.
    pub unknown: u64,
}

/// What kind of a difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The line is not as it was written.
    Changed,
    /// Lines or a file that were there are not.
    Missing,
    /// The line is as it was written and this release does not understand it.
    NotUnderstood,
    /// The function decides otherwise now.
    Different,
    /// A session's state was changed by something else than a step.
    State,
}

impl DifferenceKind {
    /// In words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Changed => "the log was changed",
            Self::Missing => "a part of the log is missing",
            Self::NotUnderstood => "the log is of another release",
            Self::Different => "the function decides differently now",
            Self::State => "a state was changed by something else than a step",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind of thing.
    pub kind: DifferenceKind,
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// Which function, if that can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<&'static str>,
    /// About which session, fleet or queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What differs, each with what was written and what comes out now.
    pub what: Vec<String>,
}

/// A session as its steps led to it.
struct Chain {
    state: Session,
    /// A line that may have been about it cannot be read.
    doubtful: bool,
}

/// What one decision came to, again.
enum Again {
    Same,
    Different(Vec<String>),
    Unknown,
}

/// Told of every decision of the session that is looked at.
type Told<'a> = Box<dyn FnMut(&Stepped) + 'a>;

/// Reads a journal and runs it again.
#[derive(Default)]
pub struct Replay<'a> {
    only: Option<SessionId>,
    told: Option<Told<'a>>,
    out: Replayed,
    counts: BTreeMap<&'static str, FunctionCount>,
    known: HashMap<SessionId, Chain>,
    head: Option<Head>,
    /// The number that the next line must have.
    expected: Option<u64>,
    file: String,
    at: u64,
}

impl<'a> Replay<'a> {
    /// Of everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Of one session only; `told` hears each of its steps.
    #[must_use]
    pub fn of(session: SessionId, told: impl FnMut(&Stepped) + 'a) -> Self {
        Self {
            only: Some(session),
            told: Some(Box::new(told)),
            ..Self::default()
        }
    }

    /// Reads a file. `read` is told of the bytes of each line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(
        &mut self,
        name: &str,
        mut from: impl BufRead,
        mut read: impl FnMut(u64),
    ) -> io::Result<()> {
        self.out.files += 1;
        name.clone_into(&mut self.file);
        self.at = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
            let n = (&mut from).take(most).read_until(b'\n', &mut line)?;
            if n == 0 {
                return Ok(());
            }
            read(u64::try_from(n).unwrap_or(u64::MAX));
            self.at += 1;
            let whole = line.pop_if(|b| *b == b'\n').is_some();
            let last = !whole && n < MAX_LINE;
            self.line(&line, last);
        }
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> Replayed {
        let of = |function| {
            let count = self.counts.get(function).copied();
            FunctionCount {
                function,
                ..count.unwrap_or_default()
            }
        };
        self.out.functions = FUNCTIONS.into_iter().map(of).collect();
        self.out.same = self.out.differences.is_empty() && self.out.left_out == 0;
        self.out
    }

    fn line(&mut self, text: &[u8], last: bool) {
        match Numbered::read(text) {
            Ok(numbered) => {
                self.out.lines += 1;
                let is_head = matches!(numbered.line, Line::Head(_));
                let is_gap = matches!(numbered.line, Line::Gap(_));
                if !is_head {
                    self.in_order(numbered.n, is_gap);
                }
                let n = numbered.n;
                self.whole(numbered);
                self.expected = Some(n.saturating_add(1));
            }
            // The server died while it wrote this.
            Err(_) if last => self.out.torn += 1,
            Err(LineError::NotUnderstood(e)) => {
                self.out.lines += 1;
                self.broken();
                self.say(
                    DifferenceKind::NotUnderstood,
                    None,
                    None,
                    vec![e.to_string()],
                );
            }
            Err(LineError::NoSum) => {
                self.out.lines += 1;
                self.broken();
                let what = vec!["this is no line of a journal".to_owned()];
                self.say(DifferenceKind::Changed, None, None, what);
            }
            Err(LineError::Changed(said)) => {
                self.out.lines += 1;
                self.changed(said.map(|s| *s));
            }
        }
    }

    /// Lines are numbered through; after a gap from anywhere.
    fn in_order(&mut self, n: u64, is_gap: bool) {
        let Some(expected) = self.expected.filter(|e| *e != n && !is_gap) else {
            return;
        };
        let what = if n > expected {
            format!("lines {expected} to {} of this run are not there", n - 1)
        } else {
            format!(
                "line {n} of this run comes after line {}",
                expected.saturating_sub(1)
            )
        };
        self.doubt_all();
        self.say(DifferenceKind::Missing, None, None, vec![what]);
    }

    /// A line that was not read: the next number is not known, nor whom it was about.
    fn broken(&mut self) {
        self.expected = self.expected.map(|n| n.saturating_add(1));
        self.doubt_all();
    }

    fn doubt_all(&mut self) {
        for chain in self.known.values_mut() {
            chain.doubtful = true;
        }
    }

    /// A line whose check sum is wrong. It is not run: what it says now is not what the function was given, and may be anything.
    fn changed(&mut self, said: Option<Numbered>) {
        let what = vec!["its check sum is not that of what it says".to_owned()];
        self.broken();
        let Some(Numbered { line, .. }) = said else {
            self.say(DifferenceKind::Changed, None, None, what);
            return;
        };
        // A changed id may hide whose line it was: all are in doubt, and the one it names is not known.
        match &line {
            Line::State(state) => self.known.remove(&state.state.id),
            Line::Step(stepped) => self.known.remove(&stepped.session),
            _ => None,
        };
        let (function, subject) = (function_of(&line), subject_of(&line));
        self.say(DifferenceKind::Changed, function, subject, what);
    }

    fn whole(&mut self, numbered: Numbered) {
        let Numbered { n, line } = numbered;
        match &line {
            Line::Head(head) => return self.begins(head, n),
            Line::Gap(gap) => {
                self.out.lost = self.out.lost.saturating_add(gap.lost);
                self.known.clear();
                return;
            }
            Line::TooLarge(large) => {
                let of = FUNCTIONS.into_iter().find(|f| *f == large.of);
                if let (Some(function), None) = (of, self.only) {
                    self.count(function).too_large += 1;
                }
                return;
            }
            Line::State(state) => return self.state(state),
            _ => {}
        }
        let Some(function) = function_of(&line) else {
            return;
        };
        let Some(again) = self.again(&line) else {
            return;
        };
        if let (Line::Step(stepped), Some(told)) = (&line, &mut self.told) {
            told(stepped);
        }
        match again {
            Again::Same => self.count(function).same += 1,
            Again::Unknown => self.count(function).unknown += 1,
            Again::Different(what) => {
                self.count(function).different += 1;
                let subject = subject_of(&line);
                self.say(DifferenceKind::Different, Some(function), subject, what);
            }
        }
    }

    fn begins(&mut self, head: &Head, n: u64) {
        let before = self.head.replace(head.clone());
        let follows = before.as_ref().is_some_and(|b| b.run == head.run);
        if before.is_none_or(|b| b.run != head.run) {
            self.out.runs += 1;
        }
        let expected = self.expected.replace(n.saturating_add(1));
        if head.version > JOURNAL_VERSION {
            let what = format!(
                "this is version {} of the journal, and this release reads up to {JOURNAL_VERSION}",
                head.version
            );
            self.say(DifferenceKind::NotUnderstood, None, None, vec![what]);
        }
        if !head.continues || !follows {
            self.known.clear();
            return;
        }
        if expected.is_some_and(|e| e != n) {
            self.known.clear();
            let what = "what stood between this file and the one before it is not there".to_owned();
            self.say(DifferenceKind::Missing, None, None, vec![what]);
        }
    }

    /// A state that is written again must be what the steps led to.
    fn state(&mut self, line: &State) {
        let id = line.state.id;
        if self.only.is_some_and(|only| only != id) {
            return;
        }
        let chain = Chain {
            state: line.state.clone(),
            doubtful: false,
        };
        let Some(before) = self.known.insert(id, chain).filter(|c| !c.doubtful) else {
            return;
        };
        self.out.states_compared += 1;
        let what = fields_that_differ(&before.state, &line.state);
        if !what.is_empty() {
            self.say(DifferenceKind::State, None, Some(id.to_string()), what);
        }
    }

    /// Runs one decision again. `None`: it is not asked for.
    fn again(&mut self, line: &Line) -> Option<Again> {
        if let Line::Step(stepped) = line {
            let wanted = self.only.is_none_or(|only| only == stepped.session);
            return wanted.then(|| self.step(stepped));
        }
        if self.only.is_some() {
            return None;
        }
        let what = match line {
            Line::Plan(p) => plan_again(p),
            Line::Brake(b) => brake_again(b),
            Line::Hold(h) => hold_again(h),
            Line::Propose(p) => propose_again(p),
            _ => return None,
        };
        Some(if what.is_empty() {
            Again::Same
        } else {
            Again::Different(what)
        })
    }

    fn step(&mut self, stepped: &Stepped) -> Again {
        let id = stepped.session;
        let Some(mut chain) = self.known.remove(&id) else {
            return Again::Unknown;
        };
        let result = step(&chain.state, &stepped.event, stepped.now);
        let now = Outcome::of(&result);
        if now == stepped.outcome {
            if let Ok(next) = result {
                chain.state = next.next;
            }
            // It has come to a state that was written: nothing about it is missing.
            if matches!(now, Outcome::Accepted { .. }) {
                chain.doubtful = false;
            }
            if chain.state.phase != Phase::Ended {
                self.known.insert(id, chain);
            }
            return Again::Same;
        }
        if chain.doubtful {
            return Again::Unknown;
        }
        Again::Different(outcomes_differ(&stepped.outcome, &now))
    }

    fn count(&mut self, function: &'static str) -> &mut FunctionCount {
        self.counts.entry(function).or_default()
    }

    fn say(
        &mut self,
        kind: DifferenceKind,
        function: Option<&'static str>,
        subject: Option<String>,
        what: Vec<String>,
    ) {
        if self.out.differences.len() >= MOST_NAMED {
            self.out.left_out += 1;
            return;
        }
        self.out.differences.push(Difference {
            kind,
            file: self.file.clone(),
            line: self.at,
            function,
            subject,
            what,
        });
    }
}

fn function_of(line: &Line) -> Option<&'static str> {
    match line {
        Line::Step(_) => Some(STEP),
        Line::Plan(_) => Some("fleet::plan"),
        Line::Brake(_) => Some("lifecycle::brake"),
        Line::Hold(_) => Some("lifecycle::hold_after"),
        Line::Propose(_) => Some("matching::propose"),
        Line::Head(_) | Line::State(_) | Line::TooLarge(_) | Line::Gap(_) => None,
    }
}

fn subject_of(line: &Line) -> Option<String> {
    match line {
        Line::State(s) => Some(s.state.id.to_string()),
        Line::Step(s) => Some(s.session.to_string()),
        Line::Plan(p) => Some(p.fleet.to_string()),
        Line::Propose(p) => Some(p.queue.to_string()),
        Line::TooLarge(t) => Some(t.subject.to_string()),
        Line::Head(_) | Line::Brake(_) | Line::Hold(_) | Line::Gap(_) => None,
    }
}

/// `name: was <then>, is <now>` where the two differ.
fn differs<T: PartialEq + std::fmt::Debug>(out: &mut Vec<String>, name: &str, then: &T, now: &T) {
    if then != now {
        out.push(format!("{name}: was {then:?}, is {now:?}"));
    }
}

fn outcomes_differ(then: &Outcome, now: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    match (then, now) {
        (
            Outcome::Accepted {
                phase,
                effects,
                because,
                state,
            },
            Outcome::Accepted {
                phase: phase_now,
                effects: effects_now,
                because: because_now,
                state: state_now,
            },
        ) => {
            differs(&mut out, "phase", phase, phase_now);
            differs(&mut out, "effects", effects, effects_now);
            differs(&mut out, "because", because, because_now);
            differs(&mut out, "digest of the state", state, state_now);
        }
        _ => differs(&mut out, "outcome", then, now),
    }
    out
}

fn plan_again(p: &Planned) -> Vec<String> {
    let now = plan(&p.spec, &p.seen, p.in_flight, p.failures, p.now);
    let mut out = Vec::new();
    differs(&mut out, "plan", &p.plan, &now);
    out
}

fn brake_again(b: &Braked) -> Vec<String> {
    let (after, verdict) = b.before.decide(b.live, b.due, b.facts, b.now);
    let mut out = Vec::new();
    differs(&mut out, "brake", &b.after, &after);
    differs(&mut out, "verdict", &b.verdict, &VerdictForm::from(verdict));
    out
}

fn hold_again(h: &Held) -> Vec<String> {
    let until: Option<Moment> = hold_after(h.expected, h.now, h.heartbeat);
    let mut out = Vec::new();
    differs(&mut out, "until", &h.until, &until);
    out
}

fn propose_again(p: &Proposed) -> Vec<String> {
    let now = propose(p.candidates.iter().map(|c| &**c), &p.rules, p.now);
    let mut out = Vec::new();
    differs(&mut out, "matches", &p.proposal.matches, &now.matches);
    let (then, now) = (p.proposal.recheck_after, now.recheck_after);
    differs(&mut out, "recheck_after", &then, &now);
    out
}

/// The fields in which two states differ, as they are written.
fn fields_that_differ(steps: &Session, written: &Session) -> Vec<String> {
    if digest(steps) == digest(written) {
        return Vec::new();
    }
    let fields = |state: &Session| {
        let line = Line::State(State {
            state: state.clone(),
        });
        let value = serde_json::to_value(line).unwrap_or_default();
        value.get("state").and_then(|s| s.as_object().cloned())
    };
    let (Some(steps), Some(written)) = (fields(steps), fields(written)) else {
        return vec!["the states cannot be shown".to_owned()];
    };
    let names = steps
        .iter()
        .filter(|(name, v)| written.get(*name) != Some(v));
    names
        .map(|(name, v)| {
            let other = written.get(name).cloned().unwrap_or_default();
            format!("{name}: its steps led to {v}, written is {other}")
        })
        .collect()
}
