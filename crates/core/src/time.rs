//! Time as the decisions see it: milliseconds on one line that never jumps while the machine is up.

use std::fmt;
use std::time::Duration;

/// A point on the process's own timeline, in milliseconds.
///
/// The line follows the monotonic clock (it neither jumps with the wall clock nor counts a sleeping machine), anchored so
/// that it reads as Unix milliseconds when the process starts. Only a [`Clock`] makes one from the outside world; after a
/// restart stored deadlines are brought onto the new line by boot id and monotonic time, or by the wall clock after a reboot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

impl Moment {
    /// The later moment, or the end of the line if `by` does not fit.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// The earlier moment, or the start of the line if `by` does not fit.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

/// The only door to the clocks of the machine.
pub trait Clock: Send + Sync + 'static {
    /// Now, on this process's timeline.
    fn now(&self) -> Moment;
    /// `moment` as Unix milliseconds by the wall clock as it is set now. For display and storage only.
    fn wall(&self, moment: Moment) -> i64;
    /// Names this boot of the machine; a stored monotonic time means nothing under another.
    fn boot_id(&self) -> &str;
    /// `moment` as the machine's monotonic milliseconds, comparable between processes of one boot.
    fn monotonic(&self, moment: Moment) -> i64;
    /// Brings a stored moment onto this timeline: exact within a boot, by wall clock after a reboot.
    fn restore(&self, stored: StoredMoment<'_>) -> Moment {
        if stored.boot_id == self.boot_id() {
            let now = self.now();
            Moment(
                now.0
                    .saturating_add(stored.monotonic_ms.saturating_sub(self.monotonic(now))),
            )
        } else {
            let now = self.now();
            Moment(
                now.0
                    .saturating_add(stored.wall_ms.saturating_sub(self.wall(now))),
            )
        }
    }
}

/// A moment as it was written down by some process, perhaps of an earlier boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMoment<'a> {
    /// Unix milliseconds by the wall clock when written.
    pub wall_ms: i64,
    /// Machine monotonic milliseconds of the same moment.
    pub monotonic_ms: i64,
    /// The boot whose monotonic clock that was.
    pub boot_id: &'a str,
}

/// What is known of something that others report. "Cannot see" is a value of its own and never means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// Reported by its owner.
    Is(T),
    /// Not seen since this moment (a restart, a lost watch).
    Unknown {
        /// Since when nobody could say.
        since: Moment,
    },
}

impl<T> Known<T> {
    /// The value, if it is known.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(v) => Some(v),
            Self::Unknown { .. } => None,
        }
    }
}
