//! The mass-end brake: when many sessions are about to end at once for what gateways report (or fail to), it is more likely that
//! the reports are wrong than that everybody went home. Decision note: `docs/decisions/0001-mass-end-brake.md`.

use super::{Reason, cull};
use crate::Moment;
use crate::limits::{BRAKE_LONGEST_HOLD, BRAKE_MIN, BRAKE_PERCENT, BRAKE_WINDOW};
use crate::session::Session;
use crate::time::Known;

/// Whether more than the set share of live sessions would end within [`BRAKE_WINDOW`] for a reason that is neither their own
/// maximum nor somebody's explicit wish. `ending` counts those ([`brake_counts`]), `live` all live sessions.
#[must_use]
pub fn brake_holds(live: usize, ending: usize) -> bool {
    ending >= BRAKE_MIN && ending.saturating_mul(100) > live.saturating_mul(BRAKE_PERCENT)
}

/// Whether a cull for this reason counts towards the brake (and is held by it): those that rest on what others report.
#[must_use]
pub const fn brake_applies(reason: Reason) -> bool {
    matches!(reason, Reason::Idle | Reason::Empty | Reason::NeverJoined)
}

/// Whether a cull for this reason waits after a tick that came too late: also those that rest on what the runtime has told, which may
/// have happened and not been heard yet.
#[must_use]
pub const fn late_tick_applies(reason: Reason) -> bool {
    brake_applies(reason) || matches!(reason, Reason::StartFailed | Reason::Crashed)
}

/// Whether this session is one of those that would end within the window and count.
#[must_use]
pub fn brake_counts(s: &Session, now: Moment) -> bool {
    cull(s).is_some_and(|c| brake_applies(c.reason) && c.at <= now.after(BRAKE_WINDOW))
}

/// The brake between two looks. Keep what [`decide`](Brake::decide) returns for the next look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brake {
    /// Since when too many would end at once; kept while that lasts, also after the brake let go, so that the rest of the same
    /// mass is not held a second time.
    pub held_since: Option<Moment>,
    /// Since when, during that, facts have been known without a gap.
    pub known_since: Option<Moment>,
}

/// What the brake says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Culls may fire.
    Go {
        /// Why, in words.
        because: &'static str,
    },
    /// Culls for [the reasons it applies to](brake_applies) wait.
    Hold {
        /// It lets go then at the latest; `None` while nothing is known.
        until: Option<Moment>,
        /// Why, in words.
        because: &'static str,
    },
}

impl Verdict {
    /// Whether culls wait: the `hold` of [`Event::Tick`](crate::session::Event::Tick).
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self, Self::Hold { .. })
    }
}

impl Brake {
    /// One look. `live` and `due` as for [`brake_holds`]. `facts`: every gateway has reported since this moment (the oldest of
    /// their newest reports), or some gateway cannot be heard.
    ///
    /// It lets go when facts newer than the start of the hold leave the culls standing, or [`BRAKE_LONGEST_HOLD`] after the hold
    /// began or facts became known, whichever is later. While facts are unknown it holds.
    #[must_use]
    pub fn decide(
        self,
        live: usize,
        due: usize,
        facts: Known<Moment>,
        now: Moment,
    ) -> (Self, Verdict) {
        if !brake_holds(live, due) {
            let because = "no more than usual would end at once";
            return (Self::default(), Verdict::Go { because });
        }
        let held_since = self.held_since.unwrap_or(now);
        let Known::Is(fresh) = facts else {
            let next = Self {
                held_since: Some(held_since),
                known_since: None,
            };
            let because = "many would end at once and nobody can say who is connected";
            return (
                next,
                Verdict::Hold {
                    until: None,
                    because,
                },
            );
        };
        let known_since = self.known_since.unwrap_or(now);
        let next = Self {
            held_since: Some(held_since),
            known_since: Some(known_since),
        };
        let until = known_since.max(held_since).after(BRAKE_LONGEST_HOLD);
        let verdict = if fresh > held_since {
            Verdict::Go {
                because: "many end at once and reports made since confirm it",
            }
        } else if now >= until {
            Verdict::Go {
                because: "many end at once and the hold is over",
            }
        } else {
            Verdict::Hold {
                until: Some(until),
                because: "many would end at once: waiting for fresh reports",
            }
        };
        (next, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000;

    fn at(seconds: i64) -> Moment {
        Moment(seconds * S)
    }

    #[test]
    fn it_takes_both_a_share_and_a_number() {
        assert!(!brake_holds(4, 4), "four friends going home");
        assert!(brake_holds(5, 5));
        assert!(brake_holds(24, 5));
        assert!(!brake_holds(25, 5), "exactly a fifth passes");
        assert!(!brake_holds(1000, 200));
        assert!(brake_holds(1000, 201));
        assert!(!brake_holds(0, 0));
    }

    #[test]
    fn thirty_tabs_closed_at_once_go_when_reports_made_since_confirm_it() {
        let (b, v) = Brake::default().decide(30, 30, Known::Is(at(99)), at(100));
        assert!(v.holds());
        let (b, v) = b.decide(30, 30, Known::Is(at(100)), at(101));
        assert!(v.holds(), "a report as old as the hold proves nothing");
        let (b, v) = b.decide(30, 30, Known::Is(at(102)), at(102));
        assert!(!v.holds());
        // The rest of the same mass is not held a second time.
        let (_, v) = b.decide(12, 12, Known::Is(at(102)), at(103));
        assert!(!v.holds());
    }

    #[test]
    fn without_fresh_reports_it_goes_ten_seconds_after_the_hold_began() {
        let (b, v) = Brake::default().decide(30, 30, Known::Is(at(90)), at(100));
        assert_eq!(
            v,
            Verdict::Hold {
                until: Some(at(110)),
                because: "many would end at once: waiting for fresh reports"
            }
        );
        let (b, v) = b.decide(30, 30, Known::Is(at(90)), Moment(110 * S - 1));
        assert!(v.holds());
        assert!(!b.decide(30, 30, Known::Is(at(90)), at(110)).1.holds());
    }

    #[test]
    fn a_gateway_outage_ends_nobody_however_long_it_lasts() {
        let mut brake = Brake::default();
        for second in 100..4_000 {
            let (next, v) = brake.decide(30, 30, Known::Unknown { since: at(90) }, at(second));
            assert!(v.holds(), "at {second}");
            brake = next;
        }
        // Back, with an old report: ten seconds from now for a newer one.
        let (b, v) = brake.decide(30, 30, Known::Is(at(80)), at(4_000));
        assert!(v.holds());
        assert!(b.decide(30, 30, Known::Is(at(80)), at(4_009)).1.holds());
        assert!(!b.decide(30, 30, Known::Is(at(80)), at(4_010)).1.holds());
        // Lost again in between: the ten seconds begin anew.
        let (b, _) = b.decide(30, 30, Known::Unknown { since: at(4_005) }, at(4_005));
        assert!(b.decide(30, 30, Known::Is(at(80)), at(4_010)).1.holds());
    }

    #[test]
    fn an_outage_holds_a_mass_that_was_already_let_go() {
        let (b, _) = Brake::default().decide(30, 30, Known::Is(at(90)), at(100));
        let (b, v) = b.decide(30, 30, Known::Is(at(101)), at(101));
        assert!(!v.holds());
        let (_, v) = b.decide(20, 20, Known::Unknown { since: at(102) }, at(102));
        assert!(v.holds());
    }

    #[test]
    fn when_the_mass_is_over_the_next_one_is_held_anew() {
        let (b, _) = Brake::default().decide(30, 30, Known::Is(at(90)), at(100));
        let (b, v) = b.decide(30, 3, Known::Is(at(90)), at(105));
        assert!(!v.holds());
        assert_eq!(b, Brake::default());
        assert!(b.decide(30, 30, Known::Is(at(104)), at(110)).1.holds());
    }

    #[test]
    fn maximum_starts_and_explicit_ends_are_exempt() {
        let held: Vec<_> = Reason::ALL
            .into_iter()
            .filter(|r| brake_applies(*r))
            .collect();
        assert_eq!(held, [Reason::Idle, Reason::Empty, Reason::NeverJoined]);
    }
}
