//! A clock that a test turns: tokio's paused time underneath, a wall clock and boots on top.
//!
//! Time passes by `tokio::time::advance` and by sleeping under paused time, for every clock of a test alike. The wall clock may jump,
//! the machine may sleep or reboot, the process may restart; each is one call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spawnpoint_core::{Clock, Moment};
use tokio::time::Instant;

/// What the clocks of one machine say.
#[derive(Debug)]
struct Machine {
    /// When it booted, in the test's time.
    booted: Instant,
    /// Wall clock at boot, Unix milliseconds; jumps and sleep are added to it.
    wall_at_boot: i64,
}

/// A process's clock on a simulated machine. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    machine: Arc<Mutex<Machine>>,
    /// Names this boot.
    boot_id: Arc<str>,
    /// Where this process's timeline begins: the machine's monotonic time and what the wall clock said then.
    anchor_monotonic: i64,
    anchor_wall: i64,
}

/// The wall clock at the start of a test unless told otherwise: 2026-01-01T00:00:00Z, Unix milliseconds.
pub const WALL_AT_START: i64 = 1_767_225_600_000;

/// How long a simulated machine has been up when a test begins. Not zero, so that mixing up the two timelines shows.
const UPTIME_AT_START: Duration = Duration::from_secs(10_000);

impl VirtualClock {
    /// A machine that has been up for a while, at [`WALL_AT_START`]. Must be called within a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self::at(WALL_AT_START)
    }

    /// The same at another time, Unix milliseconds.
    #[must_use]
    pub fn at(wall: i64) -> Self {
        let uptime = millis(UPTIME_AT_START);
        Self {
            machine: Arc::new(Mutex::new(Machine {
                booted: Instant::now(),
                wall_at_boot: wall,
            })),
            boot_id: "boot-1".into(),
            anchor_monotonic: uptime,
            anchor_wall: wall,
        }
    }

    /// The same machine as a new process sees it: another timeline, the same boot.
    #[must_use]
    pub fn restart(&self) -> Self {
        let monotonic = self.monotonic_now();
        Self {
            anchor_wall: self.wall_of_machine(),
            anchor_monotonic: monotonic,
            ..self.clone()
        }
    }

    /// The machine after it was off for this long: another boot, whose monotonic time says nothing
    /// about the last one's. Clocks of before are of no use.
    #[must_use]
    pub fn reboot(&self, off: Duration) -> Self {
        let wall = self.wall_of_machine().saturating_add(millis(off));
        let next = Self::at(wall);
        let n: u32 = self
            .boot_id
            .rsplit('-')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        Self {
            boot_id: format!("boot-{}", n.saturating_add(1)).into(),
            ..next
        }
    }

    /// Somebody sets the wall clock forward (or back, if negative), milliseconds.
    pub fn jump_wall(&self, by: i64) {
        let mut m = self.machine();
        m.wall_at_boot = m.wall_at_boot.saturating_add(by);
    }

    /// The machine sleeps: the wall clock goes on, nothing else does.
    pub fn suspend(&self, for_: Duration) {
        self.jump_wall(millis(for_));
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic_now(&self) -> i64 {
        let m = self.machine();
        millis(UPTIME_AT_START).saturating_add(millis(m.booted.elapsed()))
    }

    fn wall_of_machine(&self) -> i64 {
        let m = self.machine();
        m.wall_at_boot.saturating_add(millis(m.booted.elapsed()))
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        let passed = self.monotonic_now().saturating_sub(self.anchor_monotonic);
        Moment(self.anchor_wall.saturating_add(passed))
    }

    fn wall(&self, moment: Moment) -> i64 {
        let drift = self.wall_of_machine().saturating_sub(self.now().0);
        moment.0.saturating_add(drift)
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn monotonic(&self, moment: Moment) -> i64 {
        moment
            .0
            .saturating_sub(self.anchor_wall)
            .saturating_add(self.anchor_monotonic)
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_core::time::StoredMoment;

    fn store(clock: &VirtualClock, at: Moment) -> (i64, i64, String) {
        (
            clock.wall(at),
            clock.monotonic(at),
            clock.boot_id().to_owned(),
        )
    }

    fn restore(
        clock: &VirtualClock,
        (wall_ms, monotonic_ms, boot_id): &(i64, i64, String),
    ) -> Moment {
        clock.restore(StoredMoment {
            wall_ms: *wall_ms,
            monotonic_ms: *monotonic_ms,
            boot_id,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn time_passes_with_tokio() {
        let clock = VirtualClock::new();
        let start = clock.now();
        assert_eq!(start, Moment(WALL_AT_START));
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(start), Duration::from_secs(90));
        assert_eq!(clock.wall(clock.now()), WALL_AT_START + 90_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_jumps_alone() {
        let clock = VirtualClock::new();
        let start = clock.now();
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.now(), start);
        assert_eq!(clock.wall(start), WALL_AT_START - 3_600_000);
        clock.suspend(Duration::from_secs(3_600));
        assert_eq!(clock.now(), start);
        assert_eq!(clock.wall(start), WALL_AT_START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stored_deadline_survives_a_restart_whatever_the_wall_does() {
        let clock = VirtualClock::new();
        let deadline = clock.now().after(Duration::from_secs(600));
        let stored = store(&clock, deadline);
        tokio::time::sleep(Duration::from_secs(100)).await;
        clock.jump_wall(1_000_000_000);
        let next = clock.restart();
        assert_ne!(next.now(), clock.now(), "another timeline");
        let restored = restore(&next, &stored);
        assert_eq!(restored.since(next.now()), Duration::from_secs(500));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_reboot_the_wall_decides() {
        let clock = VirtualClock::new();
        let deadline = clock.now().after(Duration::from_secs(600));
        let stored = store(&clock, deadline);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let next = clock.reboot(Duration::from_secs(200));
        assert_ne!(next.boot_id(), clock.boot_id());
        let restored = restore(&next, &stored);
        assert_eq!(restored.since(next.now()), Duration::from_secs(300));
    }
}
