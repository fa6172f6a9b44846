//! Who has which port of a managed range. A plain value: whether a port can really be bound is the caller's to ask.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::Moment;

/// Ports given to owners. Never two live owners; never given out again within the quarantine.
#[derive(Debug)]
pub struct PortTable<O> {
    from: u16,
    to: u16,
    quarantine: Duration,
    owned: HashMap<u16, O>,
    /// Released managed ports and until when they rest, oldest first.
    resting: VecDeque<(Moment, u16)>,
    /// Where the next search begins: it goes round, so that a port comes back as late as possible.
    next: u16,
}

impl<O: Copy + Eq> PortTable<O> {
    /// A table over `from..=to`; `seed` picks where the first search begins, so that two machines' worth of restarts do not
    /// all hand out the same first port.
    #[must_use]
    pub fn new(from: u16, to: u16, quarantine: Duration, seed: u64) -> Self {
        let (from, to) = (from.min(to), from.max(to));
        let size = u64::from(to - from) + 1;
        let offset = u16::try_from(seed % size).unwrap_or(0);
        Self {
            from,
            to,
            quarantine,
            owned: HashMap::new(),
            resting: VecDeque::new(),
            next: from + offset,
        }
    }

    /// The range, both ends included.
    #[must_use]
    pub const fn range(&self) -> (u16, u16) {
        (self.from, self.to)
    }

    /// Gives `owner` a port that is neither owned nor resting and that `usable` accepts; `None` if there is none.
    pub fn allocate(
        &mut self,
        owner: O,
        now: Moment,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.wake(now);
        let size = u32::from(self.to - self.from) + 1;
        for _ in 0..size {
            let port = self.next;
            self.next = if port == self.to { self.from } else { port + 1 };
            if self.owned.contains_key(&port) || self.resting.iter().any(|(_, p)| *p == port) {
                continue;
            }
            if usable(port) {
                self.owned.insert(port, owner);
                return Some(port);
            }
        }
        None
    }

    /// Gives `owner` exactly this port (one the game insists on, or one it has from before a restart). False if it is another's.
    pub fn take(&mut self, port: u16, owner: O) -> bool {
        match self.owned.get(&port) {
            Some(other) if *other != owner => false,
            _ => {
                self.resting.retain(|(_, p)| *p != port);
                self.owned.insert(port, owner);
                true
            }
        }
    }

    /// Gives a port back. It rests first if it is a managed one and `used`: players' old connections may still be in the air.
    pub fn release(&mut self, port: u16, owner: O, used: bool, now: Moment) {
        if self.owned.get(&port) != Some(&owner) {
            return;
        }
        self.owned.remove(&port);
        if used && (self.from..=self.to).contains(&port) {
            self.resting.push_back((now.after(self.quarantine), port));
        }
    }

    /// Who has which port now.
    pub fn owned(&self) -> impl Iterator<Item = (u16, O)> {
        self.owned.iter().map(|(port, owner)| (*port, *owner))
    }

    fn wake(&mut self, now: Moment) {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.resting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstanceId;
    use proptest::prelude::*;

    fn id(n: u8) -> InstanceId {
        format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}")
            .parse()
            .unwrap()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Allocate(u8),
        Take(u8, u16),
        Release(u16),
        Pass(u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any::<u8>().prop_map(Op::Allocate),
            1 => (any::<u8>(), 100u16..112).prop_map(|(o, p)| Op::Take(o, p)),
            3 => (100u16..112).prop_map(Op::Release),
            2 => (0u16..800).prop_map(Op::Pass),
        ]
    }

    proptest! {
        #[test]
        fn no_port_has_two_owners_or_comes_back_early(
            seed in any::<u64>(),
            busy in proptest::collection::hash_set(100u16..112, 0..4),
            ops in proptest::collection::vec(op(), 1..200),
        ) {
            let quarantine = Duration::from_millis(1_000);
            let mut table = PortTable::new(100, 111, quarantine, seed);
            let mut now = Moment(0);
            let mut owners: HashMap<u16, InstanceId> = HashMap::new();
            let mut released: HashMap<u16, Moment> = HashMap::new();
            for op in ops {
                match op {
                    Op::Allocate(o) => match table.allocate(id(o), now, |p| !busy.contains(&p)) {
                        Some(port) => {
                            prop_assert!((100..=111).contains(&port));
                            prop_assert!(!busy.contains(&port));
                            prop_assert!(!owners.contains_key(&port), "{port} has two owners");
                            if let Some(at) = released.get(&port) {
                                prop_assert!(now >= at.after(quarantine), "{port} came back early");
                            }
                            owners.insert(port, id(o));
                        }
                        None => {
                            // Only when each port is busy, owned or resting.
                            for port in 100..=111 {
                                let resting = released
                                    .get(&port)
                                    .is_some_and(|at| now < at.after(quarantine));
                                prop_assert!(busy.contains(&port) || owners.contains_key(&port) || resting);
                            }
                        }
                    },
                    Op::Take(o, port) => {
                        let free = owners.get(&port).is_none_or(|owner| *owner == id(o));
                        prop_assert_eq!(table.take(port, id(o)), free);
                        if free {
                            owners.insert(port, id(o));
                            released.remove(&port);
                        }
                    }
                    Op::Release(port) => {
                        if let Some(owner) = owners.remove(&port) {
                            table.release(port, owner, true, now);
                            released.insert(port, now);
                        }
                    }
                    Op::Pass(ms) => now = now.after(Duration::from_millis(ms.into())),
                }
            }
        }
    }

    #[test]
    fn only_the_owner_gives_a_port_back() {
        let mut table = PortTable::new(100, 100, Duration::ZERO, 7);
        assert_eq!(table.allocate(id(1), Moment(0), |_| true), Some(100));
        table.release(100, id(2), true, Moment(0));
        assert_eq!(table.allocate(id(2), Moment(0), |_| true), None);
        table.release(100, id(1), true, Moment(0));
        assert_eq!(table.allocate(id(2), Moment(0), |_| true), Some(100));
    }
}
