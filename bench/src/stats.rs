//! Order statistics of a set of samples. Pure; no distribution is assumed.

use std::time::Duration;

/// Sorted samples of one quantity.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Values that are no number are left out: they would have no place in an order.
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut v: Vec<f64> = values.into_iter().filter(|x| !x.is_nan()).collect();
        v.sort_by(f64::total_cmp);
        Self(v)
    }

    /// In milliseconds.
    pub(crate) fn millis(values: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(values.into_iter().map(|d| d.as_secs_f64() * 1e3))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn sorted(&self) -> &[f64] {
        &self.0
    }

    /// The smallest sample that at least `q` (0 to 1) of all are not above: a value that was measured, never one between two.
    /// NaN of an empty set.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let n = self.0.len();
        if n == 0 {
            return f64::NAN;
        }
        self.0[rank(n, q)]
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// An interval that holds the true quantile with about 95 % (order statistics of a binomial count, normal approximation).
    /// With few samples it is as wide as the samples allow.
    pub(crate) fn interval(&self, q: f64) -> (f64, f64) {
        let n = self.0.len();
        if n == 0 {
            return (f64::NAN, f64::NAN);
        }
        let count = n as f64;
        let half = 1.96 * (count * q * (1.0 - q)).sqrt();
        let at = |x: f64| self.0[(x.max(0.0) as usize).min(n - 1)];
        (
            at((count * q - half).floor()),
            at((count * q + half).ceil()),
        )
    }
}

/// Index of the quantile among `n` sorted values.
fn rank(n: usize, q: f64) -> usize {
    let above = (q.clamp(0.0, 1.0) * n as f64).ceil() as usize;
    above.clamp(1, n) - 1
}

/// A generator for the order of measurements: the same seed, the same order (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Order(u64);

impl Order {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is small.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// In an order drawn anew, so that what one measurement leaves behind does not always hit the same other.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let s = Samples::new([5.0, 1.0, 4.0, 2.0, 3.0]);
        for (q, want) in [
            (0.0, 1.0),
            (0.2, 1.0),
            (0.21, 2.0),
            (0.5, 3.0),
            (0.9, 5.0),
            (1.0, 5.0),
        ] {
            assert_eq!(s.quantile(q), want, "{q}");
        }
        let hundred = Samples::new((1..=100).map(f64::from));
        assert_eq!(
            (
                hundred.median(),
                hundred.quantile(0.9),
                hundred.quantile(0.99)
            ),
            (50.0, 90.0, 99.0)
        );
        assert_eq!(hundred.mean(), 50.5);
        assert_eq!(hundred.len(), 100);
    }

    #[test]
    fn nothing_measured_is_no_number() {
        let none = Samples::default();
        assert!(none.median().is_nan() && none.mean().is_nan() && none.interval(0.5).0.is_nan());
        assert_eq!(Samples::new([f64::NAN, 2.0]).sorted(), [2.0]);
    }

    #[test]
    fn the_interval_narrows_with_more_samples_and_holds_the_median() {
        let width = |n: u32| {
            let s = Samples::new((0..n).map(|i| f64::from(i) / f64::from(n)));
            let (from, to) = s.interval(0.5);
            assert!(from <= s.median() && s.median() <= to);
            to - from
        };
        assert!(width(1_000) < width(100) && width(100) < width(10));
        let one = Samples::new([7.0]);
        assert_eq!(one.interval(0.5), (7.0, 7.0));
    }

    #[test]
    fn the_interval_covers_as_often_as_it_says() {
        // Medians of 100 even numbers, drawn again and again: the true one is 0.5.
        let mut order = Order::new(7);
        let mut held = 0;
        for _ in 0..1_000 {
            let s =
                Samples::new((0..100).map(|_| (order.next() >> 11) as f64 / (1_u64 << 53) as f64));
            let (from, to) = s.interval(0.5);
            held += u32::from(from <= 0.5 && 0.5 <= to);
        }
        assert!((930..=990).contains(&held), "{held}");
    }

    #[test]
    fn milliseconds_of_durations() {
        let s = Samples::millis([Duration::from_micros(1_500), Duration::from_micros(500)]);
        assert_eq!(s.sorted(), [0.5, 1.5]);
    }

    #[test]
    fn an_order_is_a_permutation_and_can_be_repeated() {
        let draw = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            Order::new(seed).shuffle(&mut items);
            items
        };
        let mut once = draw(1);
        assert_eq!(once, draw(1));
        assert_ne!(once, draw(2));
        once.sort_unstable();
        assert_eq!(once, (0..20).collect::<Vec<_>>());
    }
}
