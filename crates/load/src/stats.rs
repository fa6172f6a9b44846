//! Distributions of times.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart, microseconds: a day, the longest anything may take here.
const MOST: u64 = 86_400_000_000;
/// Significant digits: percentiles are right to one in a thousand.
const DIGITS: u8 = 3;
/// Points of a curve: finer than a picture shows.
const CURVE_POINTS: usize = 400;

/// A distribution in milliseconds. All zero when nothing was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many values.
    pub count: u64,
    /// The least.
    pub min_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// Half are at most this.
    pub p50_ms: f64,
    /// 90 of 100.
    pub p90_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// The most.
    pub max_ms: f64,
    /// (milliseconds, percent of values that are at most this), for plots.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

impl Spread {
    /// Of these values.
    pub(crate) fn of(values: impl IntoIterator<Item = Duration>) -> Self {
        let times = Times::default();
        for value in values {
            times.record(value);
        }
        times.spread()
    }
}

/// Values as they come, from any task.
#[derive(Debug)]
pub(crate) struct Times(Mutex<Option<Histogram<u64>>>);

impl Default for Times {
    fn default() -> Self {
        // The bounds are constants that fit; without a histogram nothing is recorded, which the counts then show.
        Self(Mutex::new(Histogram::new_with_bounds(1, MOST, DIGITS).ok()))
    }
}

impl Times {
    pub(crate) fn record(&self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(MOST);
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = times.as_mut() {
            times.saturating_record(micros.clamp(1, MOST));
        }
    }

    pub(crate) fn spread(&self) -> Spread {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = times.as_ref().filter(|times| !times.is_empty()) else {
            return Spread::default();
        };
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| ms(times.value_at_quantile(quantile).min(times.max()));
        Spread {
            count: times.len(),
            min_ms: ms(times.min()),
            mean_ms: times.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(times.max()),
            curve: curve(times),
        }
    }
}

fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    let all: Vec<(f64, f64)> = times
        .iter_recorded()
        .map(|step| {
            let micros = step.value_iterated_to().min(times.max());
            (micros as f64 / 1000.0, step.percentile())
        })
        .collect();
    let stride = all.len().div_ceil(CURVE_POINTS).max(1);
    let mut thinned: Vec<_> = all.iter().copied().step_by(stride).collect();
    if let (Some(last), Some(kept)) = (all.last(), thinned.last())
        && last != kept
    {
        thinned.push(*last);
    }
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_values() {
        let spread = Spread::of((1..=1000).map(Duration::from_millis));
        assert_eq!(spread.count, 1000);
        let near = |a: f64, b: f64| (a - b).abs() <= b * 0.002;
        assert!(
            near(spread.p50_ms, 500.0) && near(spread.p99_ms, 990.0),
            "{spread:?}"
        );
        assert!(near(spread.p999_ms, 999.0) && near(spread.max_ms, 1000.0));
        assert!(spread.curve.len() <= CURVE_POINTS + 1);
        assert!(
            spread
                .curve
                .windows(2)
                .all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1)
        );
        assert_eq!(spread.curve.last().unwrap().1, 100.0);
    }

    #[test]
    fn nothing_is_zero_and_a_year_is_a_day() {
        assert_eq!(Spread::of([]), Spread::default());
        let spread = Spread::of([Duration::ZERO, Duration::from_secs(31_536_000)]);
        assert!(spread.max_ms <= MOST as f64 / 1000.0 * 1.001);
        assert_eq!(spread.min_ms, 0.001);
    }
}
