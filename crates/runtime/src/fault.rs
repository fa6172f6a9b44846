//! Named places at which a process of the real product kills itself with `kill -9`, for the kill matrix: each lies between two
//! effects that must not depend on each other's luck. Without the feature `faults`, which nothing that ships has, a point is nothing
//! at all and the switch is not even read.
//!
//! In a build with the feature, `SPAWNPOINT_FAULT=<point>[:<n>]` lets whoever passes that point for the n-th time (the first) die there.
//! Passes are counted over all processes of a run if `SPAWNPOINT_FAULT_PASSES` names a file, which grows by a byte with each; so the
//! one that is to die is one of many shims, and whoever looks on can tell that the point was passed at all.

/// Every point of this crate. What has just been done is in the name: `state.*` where the owner writes the state directory, `launch.*`
/// and `ready.*` where it starts a game, `stop.*` where it ends one, `shim.*` in the shim.
pub const POINTS: [&str; 15] = [
    "state.filled",
    "state.placed",
    "launch.recorded",
    "launch.started",
    "shim.locked",
    "shim.claimed",
    "shim.spawned",
    "shim.running",
    "ready.noted",
    "state.drafted",
    "state.renamed",
    "stop.noted",
    "shim.over",
    "shim.noted",
    "state.leaving",
];

#[cfg(feature = "faults")]
pub use armed::{pass, passed_on};

/// Passes a point: nothing.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn pass(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
}

#[cfg(feature = "faults")]
mod armed {
    use std::ffi::OsString;
    use std::fs::{File, OpenOptions};
    use std::io::{Seek, Write};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    /// Which point, and at which pass.
    const SWITCH: &str = "SPAWNPOINT_FAULT";
    /// Where passes are counted over all processes.
    const PASSES: &str = "SPAWNPOINT_FAULT_PASSES";

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::read(&var(SWITCH)?));

    struct Armed {
        point: String,
        nth: u64,
        /// Only ever appended to: where a write ended is the number of the pass, whoever else writes. One thread at a time: those of a
        /// process share the place in the file.
        shared: Option<Mutex<File>>,
        own: AtomicU64,
    }

    fn var(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|v| !v.is_empty())
    }

    impl Armed {
        fn read(switch: &str) -> Option<Self> {
            let (point, nth) = switch.split_once(':').unwrap_or((switch, "1"));
            let shared =
                var(PASSES).and_then(|p| OpenOptions::new().create(true).append(true).open(p).ok());
            let shared = shared.map(Mutex::new);
            Some(Self {
                point: point.to_owned(),
                nth: nth.parse().ok()?,
                shared,
                own: AtomicU64::new(0),
            })
        }

        fn count(&self) -> u64 {
            let own = self.own.fetch_add(1, Ordering::Relaxed) + 1;
            let shared = self.shared.as_ref().and_then(|file| {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(b".").ok()?;
                file.stream_position().ok()
            });
            shared.unwrap_or(own)
        }
    }

    /// Passes a point; the pass that was asked for does not return.
    pub fn pass(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|a| a.point == name) else {
            return;
        };
        if armed.count() == armed.nth {
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    /// What a shim is to be given of all this, besides the environment that every shim gets.
    pub fn passed_on() -> impl Iterator<Item = (&'static str, OsString)> {
        [SWITCH, PASSES, crate::clock::OFFSET_FILE]
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)))
    }
}
