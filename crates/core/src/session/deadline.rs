//! What time does to a session: culls, warnings, lapsed leases, extension.

use std::time::Duration;

use super::event::{Effect, Notice};
use super::step::{Moved, Transition, reject};
use super::{Player, Session, Warned};
use crate::Moment;
use crate::lifecycle::{Cull, EndedBy, Reason, SAME_DEADLINE, brake_applies, cull, deadlines};

impl Transition {
    pub(super) fn extend(&mut self, to: Moment, raise: bool) -> Moved {
        let s = &mut self.next;
        if s.granted_at.is_none() {
            return reject("it has no instance yet: its time has not begun");
        }
        let Some(old) = s.max_at else {
            return reject("it has no maximum");
        };
        if to <= old {
            return reject("its deadline is not before that");
        }
        if raise {
            s.max_limit_at = s.max_limit_at.map(|l| l.max(to));
        }
        let to = s.max_limit_at.map_or(to, |l| to.min(l));
        if to <= old {
            return reject("the limit is reached: nothing extends past it");
        }
        s.max_at = Some(to);
        s.extends = s.extends.saturating_add(1);
        self.effects.push(Effect::Save);
        Ok("the deadline was pushed")
    }

    pub(super) fn tick(&mut self, hold: bool) -> Moved {
        let now = self.now;
        // What is held must not hide what is not: a session at its own maximum ends even while its idle cull waits.
        let held = |c: &Cull| hold && now >= c.at && brake_applies(c.reason);
        let first = deadlines(&self.next)
            .filter(|c| !held(c))
            .min_by_key(|c| c.at);
        if let Some(due) = first.filter(|c| now >= c.at) {
            return Ok(self.end(due.reason, EndedBy::System, due.code, "its deadline passed"));
        }
        let left = self.lapse_leases();
        let warned = first.is_some_and(|c| self.warn(&c));
        match (warned, left) {
            (true, _) => Ok("a cull is near"),
            (false, true) => Ok("a player's lease ran out"),
            (false, false) if deadlines(&self.next).any(|c| held(&c)) => {
                reject("a cull is due and held")
            }
            (false, false) => reject("nothing is due"),
        }
    }

    fn warn(&mut self, due: &Cull) -> bool {
        let left = due.at.since(self.now);
        let Some(threshold) = unsaid(&self.next, due).filter(|t| left <= *t).min() else {
            return false;
        };
        self.next.warned = Some(Warned {
            cull_at: due.at,
            threshold,
        });
        self.effects.push(Effect::Announce(Notice::Warning {
            reason: due.reason,
            cull_at: due.at,
        }));
        true
    }
}

/// What was said of this deadline.
fn said(s: &Session, due: &Cull) -> Option<Warned> {
    let apart = |w: &Warned| due.at.since(w.cull_at).max(w.cull_at.since(due.at));
    s.warned.filter(|w| apart(w) < SAME_DEADLINE)
}

/// The thresholds that are still to be announced for this deadline. Only idleness and age are warned of: there is nobody to hear
/// the others.
fn unsaid<'a>(s: &'a Session, due: &Cull) -> impl Iterator<Item = Duration> + 'a {
    let warns = matches!(due.reason, Reason::Idle | Reason::MaxDuration);
    let below = said(s, due).map_or(due.rule, |w| w.threshold.min(due.rule));
    let warnings = s.policy.warnings.iter().copied();
    warnings.filter(move |t| warns && *t < below)
}

impl Session {
    /// Whether a warning of this deadline is out.
    #[must_use]
    pub fn has_warned(&self, due: &Cull) -> bool {
        said(self, due).is_some()
    }

    /// When an [`Event::Tick`](super::Event::Tick) next has something to say, not before `now`; `None` when time changes nothing.
    ///
    /// While culls are held a due one stays due: whoever holds looks again at its own pace.
    #[must_use]
    pub fn next_look(&self, now: Moment) -> Option<Moment> {
        let due = cull(self);
        let warning = due
            .as_ref()
            .and_then(|c| unsaid(self, c).map(|t| c.at.before(t)).min());
        let lease = if self.phase.is_live() {
            self.roster.iter().filter_map(Player::lease_lapses).min()
        } else {
            None
        };
        [due.map(|c| c.at), warning, lease]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now))
    }
}
