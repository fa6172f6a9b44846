//! What a queue asks of a match.

use std::fmt;
use std::time::Duration;

use crate::limits::MAX_PLAYERS;
use crate::time::Moment;

/// How far apart things may be, and how that relaxes while a ticket waits: `start`, then `per_second` more for each second,
/// never above `most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Accepted at once.
    pub start: f64,
    /// Added for each second of waiting; 0 never relaxes.
    pub per_second: f64,
    /// Never more than this, however long it takes.
    pub most: f64,
}

impl Limit {
    /// What a ticket accepts that has waited so long. Never falls while it waits.
    #[must_use]
    pub fn after(&self, waited: Duration) -> f64 {
        self.after_ms(i64::try_from(waited.as_millis()).unwrap_or(i64::MAX))
    }

    /// The same in whole milliseconds, as every moment is.
    fn after_ms(&self, waited: i64) -> f64 {
        let seconds = waited.max(0) as f64 / 1_000.0;
        (self.start + self.per_second * seconds).min(self.most)
    }

    /// How long a ticket waits until it accepts `most`; `None` if the limit does not relax.
    #[must_use]
    pub fn bound(&self) -> Option<Duration> {
        if self.per_second <= 0.0 || self.start >= self.most {
            return None;
        }
        let seconds = (self.most - self.start) / self.per_second;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// How long closeness outranks age where limits never relax.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a queue asks of a match. Valid by construction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    size: u32,
    min_partial: u32,
    flush_wait: Duration,
    skill: Option<Limit>,
    latency: Option<Limit>,
}

/// One thing wrong with rules. `Display` is fit for whoever wrote them and does not repeat the field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{problem}")]
pub struct RuleError {
    /// Which field: `size`, `min_partial`, `skill.start`, `skill.per_second`, `skill.most`, and the same for `latency`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What is wrong with a field of rules.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleProblem {
    /// A count outside its range.
    Range {
        /// Least.
        least: u32,
        /// Most.
        most: u32,
        /// What was given.
        got: u32,
    },
    /// More than a whole match.
    AboveSize {
        /// Players of a whole match.
        size: u32,
        /// What was given.
        got: u32,
    },
    /// Not a finite number of at least 0.
    Number(
        /// What was given.
        f64,
    ),
    /// A limit that would tighten.
    BelowStart {
        /// The limit at once.
        start: f64,
        /// What was given.
        got: f64,
    },
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { least, most, got } => {
                write!(f, "must be from {least} to {most}, not {got}")
            }
            Self::AboveSize { size, got } => {
                write!(
                    f,
                    "must be at most the {size} players of a match, not {got}"
                )
            }
            Self::Number(got) => write!(f, "must be a number of at least 0, not {got}"),
            Self::BelowStart { start, got } => {
                write!(
                    f,
                    "must be at least `start`, which is {start}, and not {got}: limits relax"
                )
            }
        }
    }
}

impl Rules {
    /// Rules for matches of `size` players. A smaller match of at least `min_partial` starts once its oldest ticket has waited
    /// `flush_wait`; with `min_partial` equal to `size` there are none. `skill` limits the spread of skill in a match, `latency` the
    /// milliseconds to the match's region; `None` asks nothing.
    ///
    /// # Errors
    /// Everything that is wrong, each with its field, in the order of the fields.
    pub fn new(
        size: u32,
        min_partial: u32,
        flush_wait: Duration,
        skill: Option<Limit>,
        latency: Option<Limit>,
    ) -> Result<Self, Vec<RuleError>> {
        let mut wrong = Vec::new();
        let mut say = |field, problem| wrong.push(RuleError { field, problem });
        let most = u32::try_from(MAX_PLAYERS).unwrap_or(u32::MAX);
        if !(1..=most).contains(&size) {
            let least = 1;
            let got = size;
            say("size", RuleProblem::Range { least, most, got });
        }
        if !(1..=most).contains(&min_partial) {
            let least = 1;
            let got = min_partial;
            say("min_partial", RuleProblem::Range { least, most, got });
        } else if min_partial > size {
            let got = min_partial;
            say("min_partial", RuleProblem::AboveSize { size, got });
        }
        const SKILL: [&str; 3] = ["skill.start", "skill.per_second", "skill.most"];
        const LATENCY: [&str; 3] = ["latency.start", "latency.per_second", "latency.most"];
        for (limit, [start, per_second, most]) in [(skill, SKILL), (latency, LATENCY)] {
            let Some(limit) = limit else { continue };
            let fine = |n: f64| n.is_finite() && n >= 0.0;
            let numbers = [
                (start, limit.start),
                (per_second, limit.per_second),
                (most, limit.most),
            ];
            for (field, n) in numbers {
                if !fine(n) {
                    say(field, RuleProblem::Number(n));
                }
            }
            if fine(limit.start) && fine(limit.most) && limit.most < limit.start {
                let (start, got) = (limit.start, limit.most);
                say(most, RuleProblem::BelowStart { start, got });
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            size,
            min_partial,
            flush_wait,
            skill,
            latency,
        })
    }

    /// Players of a whole match.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Fewest players of a partial match.
    #[must_use]
    pub const fn min_partial(&self) -> u32 {
        self.min_partial
    }

    /// How long the oldest ticket of a partial match has waited at least.
    #[must_use]
    pub const fn flush_wait(&self) -> Duration {
        self.flush_wait
    }

    /// The limit on the spread of skill.
    #[must_use]
    pub const fn skill(&self) -> Option<Limit> {
        self.skill
    }

    /// The limit on milliseconds to the region.
    #[must_use]
    pub const fn latency(&self) -> Option<Limit> {
        self.latency
    }

    /// The spread that a ticket accepts: any, if there is no rule.
    pub(super) fn spread_at(&self, since: Moment, now: Moment) -> f64 {
        self.skill.map_or(f64::INFINITY, |limit| {
            limit.after_ms(now.0.saturating_sub(since.0))
        })
    }

    /// The latency that a ticket accepts: any, if there is no rule.
    pub(super) fn latency_at(&self, since: Moment, now: Moment) -> f64 {
        self.latency.map_or(f64::INFINITY, |limit| {
            limit.after_ms(now.0.saturating_sub(since.0))
        })
    }

    /// After this wait a ticket's age outranks closeness: when every limit that relaxes has come to its most.
    ///
    /// Where none relaxes it is [`PATIENCE`], and where there is nothing to be close in, at once.
    #[must_use]
    pub fn due_after(&self) -> Duration {
        let limits = || self.skill.iter().chain(&self.latency);
        if limits().next().is_none() {
            return Duration::ZERO;
        }
        let bounds = limits().filter_map(Limit::bound);
        bounds.max().unwrap_or(PATIENCE)
    }

    /// After this wait nothing changes any more for a ticket.
    pub(super) fn settled_after(&self) -> Duration {
        let limits = self.skill.iter().chain(&self.latency);
        let bounds = limits.filter_map(Limit::bound);
        bounds.fold(self.flush_wait, Duration::max)
    }

    /// Whether a ticket has waited long enough to start a partial match.
    pub(super) fn flushes(&self, since: Moment, now: Moment) -> bool {
        self.min_partial < self.size && now.since(since) >= self.flush_wait
    }
}
