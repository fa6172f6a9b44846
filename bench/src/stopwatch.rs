//! Monotonic nanoseconds. Measurements need more than the milliseconds of the product's clock.

use std::time::{Duration, Instant};

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(Instant);

impl Mark {
    /// The only place here that reads a clock.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// From `earlier` to this one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}
