//! Time and chance of the runner itself, and whether it is to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use spawnpoint_core::{Clock as _, Moment};
use spawnpoint_runtime::clock::SystemClock;

static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);

pub(crate) fn now() -> Moment {
    CLOCK.now()
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// What a run that was cut short says: nothing about the product.
pub(crate) const CUT_SHORT: &str = "interrupted";

/// From now on a SIGINT or SIGTERM ends every wait, so that places take their processes and mounts with them; a second one ends this
/// process at once.
///
/// # Errors
/// The signals cannot be handled.
pub(crate) fn heed_signals() -> std::io::Result<()> {
    use signal_hook::{consts, flag};
    for signal in [consts::SIGINT, consts::SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&INTERRUPTED))?;
        flag::register(signal, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}

/// Whether somebody wants this to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A random number of nobody's secrets: which pass, which moment, which victim.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to `below` - 1. This is splitmix64.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(all.len() as u64)).ok()?;
        all.get(at)
    }
}

/// Lets time pass where nothing can be awaited.
///
/// # Errors
/// [`CUT_SHORT`].
pub(crate) fn pass(time: Duration) -> Result<(), String> {
    let over = now().after(time);
    while now() < over {
        if interrupted() {
            return Err(CUT_SHORT.to_owned());
        }
        std::thread::sleep(over.since(now()).min(LOOK));
    }
    Ok(())
}

/// Looks until `look` gives something; after `limit` what it saw last is the error.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let give_up = now().after(limit);
    loop {
        if interrupted() {
            return Err(CUT_SHORT.to_owned());
        }
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if now() >= give_up => {
                return Err(format!(
                    "waited {} s in vain: {what}; {seen}",
                    limit.as_secs()
                ));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
