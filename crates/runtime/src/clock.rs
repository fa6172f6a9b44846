//! The machine's clocks, behind [`Clock`]. The only place of this workspace's roles that reads them.

use rustix::time::{ClockId, clock_gettime};
use spawnpoint_core::{Clock, Moment};

/// The machine's clocks: a timeline that follows `CLOCK_MONOTONIC`, anchored to Unix time when it was made.
#[derive(Clone, Debug)]
pub struct SystemClock {
    /// Wall minus monotonic milliseconds at the anchor.
    offset_ms: i64,
    boot_id: String,
}

impl SystemClock {
    /// Anchors a timeline now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            offset_ms: wall_ms() - read_ms(ClockId::Monotonic),
            boot_id: read_boot_id(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(read_ms(ClockId::Monotonic) + self.offset_ms)
    }

    fn wall(&self, moment: Moment) -> i64 {
        let drift = wall_ms() - self.now().0;
        moment.0.saturating_add(drift)
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn monotonic(&self, moment: Moment) -> i64 {
        moment.0.saturating_sub(self.offset_ms)
    }
}

/// What the wall shows: in a product the machine's clock.
#[cfg(not(feature = "faults"))]
fn wall_ms() -> i64 {
    read_ms(ClockId::Realtime)
}

/// The file with the seconds by which the wall clock of a build with the feature `faults` is wrong, read at each look: a clock that
/// is set while everything runs, without touching the machine's.
#[cfg(feature = "faults")]
pub(crate) const OFFSET_FILE: &str = "SPAWNPOINT_FAULT_WALL_OFFSET";

#[cfg(feature = "faults")]
fn wall_ms() -> i64 {
    let seconds = std::env::var_os(OFFSET_FILE)
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<i64>().ok());
    read_ms(ClockId::Realtime) + seconds.unwrap_or(0) * 1_000
}

fn read_ms(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec * 1_000 + t.tv_nsec / 1_000_000
}

/// Linux names each boot; elsewhere the time it began is the name (it differs between boots, which is all that is asked).
fn read_boot_id() -> String {
    if let Ok(id) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        return id.trim().to_owned();
    }
    #[cfg(target_os = "macos")]
    if let Some(began) = crate::process::boot_time() {
        return format!("booted-{began}");
    }
    // Wall clock minus uptime, to ten seconds, so that a steered clock is not taken for a reboot.
    let began = read_ms(ClockId::Realtime) - read_ms(ClockId::Monotonic);
    format!("booted-{}", began / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_core::time::StoredMoment;

    #[test]
    fn two_clocks_of_one_boot_agree_on_a_stored_moment() {
        let writer = SystemClock::new();
        let at = writer.now();
        let reader = SystemClock {
            // As if the wall clock had been set a day ahead before the reader started.
            offset_ms: writer.offset_ms + 86_400_000,
            boot_id: writer.boot_id.clone(),
        };
        let restored = reader.restore(StoredMoment {
            wall_ms: writer.wall(at),
            monotonic_ms: writer.monotonic(at),
            boot_id: writer.boot_id(),
        });
        assert_eq!(reader.monotonic(restored), writer.monotonic(at));
    }

    #[test]
    fn the_line_does_not_go_back_and_reads_as_unix_time() {
        let clock = SystemClock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second >= first);
        assert!((clock.wall(second) - second.0).abs() < 1_000);
        assert!(!clock.boot_id().is_empty());
    }
}
