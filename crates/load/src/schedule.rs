//! When things are meant to happen. Pure.
//!
//! A tester that waits for the last answer before it asks again stops measuring exactly while the server is slow ("coordinated
//! omission"): a stall of five seconds becomes one bad sample. Here every start and every question has an intended time that depends
//! on nothing the server does, and latency is counted from it.

use std::time::Duration;

use tokio::time::Instant;

use crate::stats::Times;

/// A question without an answer that had waited this long when its connection ended counts with the time it had waited. One that
/// crossed the match's own end does not: it says nothing.
const UNANSWERED: Duration = Duration::from_millis(100);

/// How long after the first client this one is meant to start.
pub(crate) fn start_of(client: usize, spawn_rate: f64) -> Duration {
    if spawn_rate <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(client as f64 / spawn_rate).unwrap_or(Duration::MAX)
}

/// Intended times of one client's questions: a fixed beat from a point of its own.
#[derive(Debug, Clone)]
pub(crate) struct Beat {
    next: Instant,
    every: Duration,
}

impl Beat {
    /// The first after `first`, then one `every` so often.
    pub(crate) fn new(from: Instant, first: Duration, every: Duration) -> Self {
        Self {
            next: from + first,
            every,
        }
    }

    /// The next intended time. It may be past: then whatever is asked now is late, and that counts.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// The next one was asked.
    pub(crate) fn asked(&mut self) {
        self.next += self.every;
    }

    /// A question that was asked and not answered has to be asked again; its time is still the intended one.
    pub(crate) const fn owe(&mut self, intended: Instant) {
        self.next = intended;
    }

    /// It is over: records what is owed. What was meant to be asked while an answer was outstanding, up to `ends`, is owed as well:
    /// leaving it out would leave out the worst.
    pub(crate) fn settle(&mut self, ends: Instant, times: &Times) {
        let now = Instant::now();
        while self.next < now.min(ends) {
            let waited = now - self.next;
            if waited >= UNANSWERED {
                times.record(waited);
            }
            self.asked();
        }
    }
}

/// Chance that is the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Of one client of one run.
    pub(crate) const fn new(seed: u64, client: usize) -> Self {
        Self(seed ^ (client as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub(crate) const fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_spaces_starts_evenly_and_none_starts_all_at_once() {
        let starts: Vec<_> = (0..4).map(|n| start_of(n, 10.0).as_millis()).collect();
        assert_eq!(starts, [0, 100, 200, 300]);
        assert_eq!(start_of(4999, 0.0), Duration::ZERO);
        assert_eq!(start_of(199, 10.0), Duration::from_millis(19_900));
        assert_eq!(start_of(3, 0.5), Duration::from_secs(6));
    }

    #[test]
    fn what_was_asked_late_stays_late() {
        let from = Instant::now();
        let mut beat = Beat::new(from, Duration::from_millis(300), Duration::from_secs(1));
        assert_eq!(beat.next() - from, Duration::from_millis(300));
        // Five seconds without an answer: the questions of that time are still owed, each with its own time.
        for n in 0..5 {
            assert_eq!(beat.next() - from, Duration::from_millis(300 + 1000 * n));
            beat.asked();
        }
    }

    proptest! {
        #[test]
        fn chance_is_fair_and_repeatable(seed: u64, client in 0usize..10_000) {
            let (mut a, mut b) = (Dice::new(seed, client), Dice::new(seed, client));
            let shares: Vec<f64> = (0..100).map(|_| a.share()).collect();
            prop_assert!(shares.iter().all(|s| (0.0..1.0).contains(s)));
            let again: Vec<f64> = (0..100).map(|_| b.share()).collect();
            prop_assert_eq!(shares, again);
            prop_assert_ne!(Dice::new(seed, client).next(), Dice::new(seed, client + 1).next());
        }
    }
}
