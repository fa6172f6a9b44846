//! New ids and codes: time from the clock, chance from one source. Nothing else here makes either, so that a run can be repeated from
//! a seed and an id never says what the machine's clock said.

use std::sync::{Arc, Mutex, PoisonError};

use spawnpoint_core::{Clock, InstanceId, SessionId, TicketId};
use uuid::Uuid;

/// Fills bytes with chance. The operating system's ([`os_random`]) everywhere but in a simulation.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Bits of an id that count within a millisecond.
const COUNTER_BITS: u32 = 12;

/// The operating system's source of chance.
#[must_use]
pub fn os_random() -> Random {
    Arc::new(|bytes| {
        if getrandom::fill(bytes).is_err() {
            // No source at all: another one that does not repeat itself. Ids authorise nothing; invites are short-lived.
            for chunk in bytes.chunks_mut(16) {
                let other = Uuid::new_v4();
                for (to, from) in chunk.iter_mut().zip(other.as_bytes()) {
                    *to = *from;
                }
            }
        }
    })
}

/// Makes ids: UUIDv7, each greater than the one before whatever the wall clock does, because queues are in the order of ids.
pub(crate) struct Ids {
    clock: Arc<dyn Clock>,
    random: Random,
    /// Millisecond and count of the last.
    last: Mutex<(u64, u16)>,
}

impl Ids {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Random) -> Self {
        Self {
            clock,
            random,
            last: Mutex::new((0, 0)),
        }
    }

    fn next(&self) -> Uuid {
        let wall = u64::try_from(self.clock.wall(self.clock.now())).unwrap_or(0);
        let (ms, count) = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = if wall > last.0 {
                (wall, 0)
            } else if u32::from(last.1) + 1 < 1 << COUNTER_BITS {
                (last.0, last.1 + 1)
            } else {
                (last.0 + 1, 0)
            };
            *last
        };
        let mut bytes = [0_u8; 10];
        self.fill(&mut bytes);
        // The four high bits become the version.
        let count = count.to_be_bytes();
        (bytes[0], bytes[1]) = (count[0], count[1]);
        uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid()
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId::new(self.next())
    }

    pub(crate) fn instance(&self) -> InstanceId {
        InstanceId::new(self.next())
    }

    pub(crate) fn ticket(&self) -> TicketId {
        TicketId::new(self.next())
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        (self.random)(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_core::Moment;

    struct At(std::sync::atomic::AtomicI64);

    impl Clock for At {
        fn now(&self) -> Moment {
            Moment(self.0.load(std::sync::atomic::Ordering::SeqCst))
        }

        fn wall(&self, moment: Moment) -> i64 {
            moment.0
        }

        fn boot_id(&self) -> &str {
            "boot"
        }

        fn monotonic(&self, moment: Moment) -> i64 {
            moment.0
        }
    }

    #[test]
    fn a_hundred_thousand_ids_are_all_different() {
        let clock = Arc::new(At(1_767_225_600_000.into()));
        let one = Ids::new(Arc::clone(&clock) as Arc<dyn Clock>, os_random());
        let other = Ids::new(clock as Arc<dyn Clock>, os_random());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50_000 {
            seen.insert(one.session().to_string());
            seen.insert(other.session().to_string());
        }
        assert_eq!(seen.len(), 100_000, "by two servers in one millisecond");
    }

    #[test]
    fn ids_grow_whatever_the_wall_clock_does() {
        let clock = Arc::new(At(1_767_225_600_000.into()));
        let ids = Ids::new(Arc::clone(&clock) as Arc<dyn Clock>, os_random());
        let mut last = ids.session();
        for n in 0..20_000 {
            if n == 10_000 {
                clock
                    .0
                    .fetch_sub(3_600_000, std::sync::atomic::Ordering::SeqCst);
            }
            let next = ids.session();
            assert!(next > last, "{last} then {next}");
            assert_eq!(next.uuid().get_version_num(), 7);
            assert_eq!(next.to_string().parse::<SessionId>().ok(), Some(next));
            last = next;
        }
    }

    #[test]
    fn chance_is_all_that_differs() {
        let clock: Arc<dyn Clock> = Arc::new(At(1_767_225_600_000.into()));
        let fixed: Random = Arc::new(|bytes| bytes.fill(7));
        let of = |random: &Random| Ids::new(Arc::clone(&clock), Arc::clone(random)).ticket();
        assert_eq!(of(&fixed), of(&fixed));
        assert_ne!(of(&os_random()), of(&os_random()));
    }
}
