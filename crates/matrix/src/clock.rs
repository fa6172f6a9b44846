//! Time and chance of the runner itself.

use std::sync::LazyLock;
use std::time::Duration;

use spawnpoint_core::{Clock as _, Moment};
use spawnpoint_runtime::clock::SystemClock;

static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);

pub(crate) fn now() -> Moment {
    CLOCK.now()
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

/// Looks until `look` gives something; after `limit` what it saw last is the error.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let give_up = now().after(limit);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if now() >= give_up => {
                return Err(format!(
                    "waited {} s in vain: {what}; {seen}",
                    limit.as_secs()
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}
