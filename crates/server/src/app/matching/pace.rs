//! How fast a queue makes matches, and what a ticket may hope for by that.

use std::collections::VecDeque;
use std::time::Duration;

use spawnpoint_core::Moment;
use spawnpoint_core::matching::Rules;

/// Matches older than this say nothing of what comes next.
const WINDOW: Duration = Duration::from_secs(60);
/// Matches remembered for the pace; with more in a minute the last ones say enough.
const REMEMBERED: usize = 4_096;

/// The bounds of the waiting-time histogram, seconds.
pub(crate) const BUCKETS: [u32; 10] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300];

/// What a queue has done since this server began.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When matches were started, and of how many tickets.
    recent: VecDeque<(Moment, usize)>,
    /// Matches started.
    pub(crate) matches: u64,
    /// Those of them that were partial.
    pub(crate) partial: u64,
    /// Matches that could not be started.
    pub(crate) failures: u64,
    /// Tickets lost.
    pub(crate) lost: u64,
    /// Tickets that left.
    pub(crate) left: u64,
    /// Tickets matched, by how long they had waited: at most the bound of the same place in [`BUCKETS`], the last one any.
    pub(crate) waits: [u64; BUCKETS.len() + 1],
    /// Milliseconds waited by all tickets that were matched.
    pub(crate) waited_ms: u64,
}

impl Pace {
    /// A match was started, of tickets that waited so long.
    pub(crate) fn matched(&mut self, now: Moment, partial: bool, waited: &[Duration]) {
        self.matches += 1;
        self.partial += u64::from(partial);
        for w in waited {
            let bound = |b: &u32| *w <= Duration::from_secs(u64::from(*b));
            let at = BUCKETS.iter().position(bound).unwrap_or(BUCKETS.len());
            if let Some(n) = self.waits.get_mut(at) {
                *n += 1;
            }
            let ms = u64::try_from(w.as_millis()).unwrap_or(u64::MAX);
            self.waited_ms = self.waited_ms.saturating_add(ms);
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((now, waited.len()));
    }

    /// Matches started in the last minute.
    pub(crate) fn per_minute(&self, now: Moment) -> u64 {
        self.fresh(now).count() as u64
    }

    fn fresh(&self, now: Moment) -> impl Iterator<Item = (Moment, usize)> {
        let recent = self.recent.iter().rev().copied();
        recent.take_while(move |(at, _)| now.since(*at) <= WINDOW)
    }

    /// Tickets matched a second, lately; `None` when too little happened to tell.
    fn rate(&self, now: Moment) -> Option<f64> {
        let mut tickets = 0_usize;
        let mut matches = 0_usize;
        let mut oldest = now;
        for (at, n) in self.fresh(now) {
            tickets += n;
            matches += 1;
            oldest = at;
        }
        // One match may be chance.
        if matches < 2 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a pace for people")]
        let rate = tickets as f64 / now.since(oldest).as_secs_f64().max(1.0);
        Some(rate)
    }
}

/// What is known of a ticket that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    /// Its place, 1 is the first.
    pub(super) position: usize,
    /// How long it has waited.
    pub(super) waited: Duration,
    /// Players in line, its own among them.
    pub(super) players: usize,
    /// It is not tried again before this has passed.
    pub(super) held: Duration,
}

/// Seconds until the match, rounded up; `None` when nobody can say. Never a promise: others may leave.
pub(super) fn estimate(rules: &Rules, pace: &Pace, o: Outlook, now: Moment) -> Option<u32> {
    // With limits on skill or latency nobody knows who will come.
    let flushes = rules.min_partial() < rules.size()
        && rules.skill().is_none()
        && rules.latency().is_none()
        && o.players >= rules.min_partial() as usize;
    let by_flush = flushes.then(|| rules.flush_wait().saturating_sub(o.waited).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a pace for people")]
    let by_pace = pace
        .rate(now)
        .filter(|r| *r > 0.0)
        .map(|r| o.position as f64 / r);
    let soonest = match (by_flush, by_pace) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    let seconds = soonest.max(o.held.as_secs_f64()).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit"
    )]
    (seconds < f64::from(u32::MAX)).then_some(seconds as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn rules(size: u32, min: u32) -> Rules {
        Rules::new(size, min, 10 * S, None, None).unwrap()
    }

    fn outlook(position: usize, waited: u32, players: usize) -> Outlook {
        Outlook {
            position,
            waited: waited * S,
            players,
            held: Duration::ZERO,
        }
    }

    #[test]
    fn a_lone_player_waits_for_the_flush_and_no_longer() {
        let pace = Pace::default();
        let at = |waited| estimate(&rules(2, 1), &pace, outlook(1, waited, 1), Moment(0));
        assert_eq!((at(0), at(7), at(12)), (Some(10), Some(3), Some(0)));
    }

    #[test]
    fn what_nobody_can_know_is_not_said() {
        let pace = Pace::default();
        let now = Moment(0);
        assert_eq!(estimate(&rules(4, 3), &pace, outlook(1, 0, 2), now), None);
        assert_eq!(estimate(&rules(2, 2), &pace, outlook(1, 0, 1), now), None);
        let limit = spawnpoint_core::matching::Limit {
            start: 1.0,
            per_second: 0.0,
            most: 1.0,
        };
        let picky = Rules::new(2, 1, 10 * S, Some(limit), None).unwrap();
        assert_eq!(estimate(&picky, &pace, outlook(1, 0, 9), now), None);
        let mut once = Pace::default();
        once.matched(now, false, &[S, S]);
        assert_eq!(estimate(&rules(2, 2), &once, outlook(1, 0, 1), now), None);
    }

    #[test]
    fn the_recent_pace_counts_and_an_old_one_does_not() {
        let mut pace = Pace::default();
        for second in 0..20 {
            pace.matched(Moment(second * 1_000), false, &[S, 3 * S]);
        }
        let now = Moment(20_000);
        assert_eq!(pace.per_minute(now), 20);
        // Two tickets a second.
        assert_eq!(
            estimate(&rules(2, 2), &pace, outlook(40, 0, 40), now),
            Some(20)
        );
        let later = Moment(200_000);
        assert_eq!(pace.per_minute(later), 0);
        assert_eq!(
            estimate(&rules(2, 2), &pace, outlook(40, 0, 40), later),
            None
        );
        assert_eq!((pace.waits[0], pace.waits[2]), (20, 20));
        assert_eq!(pace.waited_ms, 80_000);
    }

    #[test]
    fn a_ticket_that_is_held_is_not_promised_sooner() {
        let held = Outlook {
            held: 30 * S,
            ..outlook(1, 12, 2)
        };
        let pace = Pace::default();
        assert_eq!(estimate(&rules(2, 1), &pace, held, Moment(0)), Some(30));
    }
}
