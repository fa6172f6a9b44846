//! Choosing tickets whose players add up.

use crate::limits::MAX_PLAYERS;

use super::queue::{Entry, up_to};

/// Tickets of which some can be chosen, and what their players can add up to. Sums are kept as bits: bit n is set if some choice has n
/// players.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    /// Tickets that are in every choice, and their players.
    forced: Vec<(u32, u32)>,
    /// Ticket, players, accepted spread.
    items: Vec<(u32, u32, f64)>,
    sums: u128,
    /// The least spread that an item accepts.
    tightest: f64,
    enough: Enough,
}

/// Of which sizes of party there are enough: with `size / players` of one kind at hand that accept whatever the choice may be, another
/// one of that kind that is further away makes nothing possible and nothing better.
#[derive(Clone, Debug)]
pub(super) struct Enough {
    size: u32,
    counts: [u8; MAX_PLAYERS + 1],
    full: u128,
}

impl Enough {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            counts: [0; MAX_PLAYERS + 1],
            full: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        if self.full != 0 || self.counts[1..=self.size as usize].iter().any(|c| *c > 0) {
            self.counts = [0; MAX_PLAYERS + 1];
            self.full = 0;
        }
    }

    pub(super) fn of(&self, players: u32) -> bool {
        self.full >> players & 1 == 1
    }

    /// One more of these that accepts whatever the choice may be.
    pub(super) fn add(&mut self, players: u32) {
        let count = &mut self.counts[players as usize];
        *count = count.saturating_add(1);
        if u32::from(*count) >= self.size / players {
            self.full |= 1 << players;
        }
    }

    /// Whether there are enough of all of these kinds.
    pub(super) fn of_all(&self, kinds: u128) -> bool {
        kinds & !self.full == 0
    }
}

impl Window {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            forced: Vec::new(),
            items: Vec::new(),
            sums: 1,
            tightest: f64::INFINITY,
            enough: Enough::new(size),
        }
    }

    pub(super) fn clear(&mut self) {
        self.forced.clear();
        self.items.clear();
        self.sums = 1;
        self.tightest = f64::INFINITY;
        self.enough.clear();
    }

    /// Puts this one into every choice.
    pub(super) fn force(&mut self, entry: &Entry) {
        self.forced.push((entry.ticket, entry.players));
        self.sums = (self.sums << entry.players) & up_to(self.size);
    }

    pub(super) fn forces(&self, ticket: u32) -> bool {
        self.forced.iter().any(|(t, _)| *t == ticket)
    }

    pub(super) fn enough(&self) -> &Enough {
        &self.enough
    }

    /// One more to choose from, that accepts this spread. With `whatever` it accepts any that can come up.
    pub(super) fn add(&mut self, entry: &Entry, accepts: f64, whatever: bool) {
        self.items.push((entry.ticket, entry.players, accepts));
        self.tightest = self.tightest.min(accepts);
        self.sums |= (self.sums << entry.players) & up_to(self.size);
        if whatever {
            self.enough.add(entry.players);
        }
    }

    /// Lets go of those that do not accept this spread.
    pub(super) fn tighten(&mut self, spread: f64) {
        if self.tightest >= spread {
            return;
        }
        self.items.retain(|(_, _, accepts)| *accepts >= spread);
        let accepted = self.items.iter().map(|(_, _, accepts)| *accepts);
        self.tightest = accepted.fold(f64::INFINITY, f64::min);
        let given = self.given();
        self.sums = if given > self.size { 0 } else { 1 << given };
        for (_, players, _) in &self.items {
            self.sums |= (self.sums << players) & up_to(self.size);
        }
    }

    fn given(&self) -> u32 {
        self.forced.iter().map(|(_, players)| players).sum()
    }

    /// The most players that some choice has.
    pub(super) fn most_players(&self) -> Option<u32> {
        (self.sums != 0).then(|| self.sums.ilog2())
    }

    /// A choice of so many players, of the oldest tickets that allow it; oldest first.
    pub(super) fn choose(&mut self, players: u32) -> Vec<u32> {
        self.items.sort_unstable_by_key(|(ticket, _, _)| *ticket);
        // `after[i]`: the sums that items from `i` on can make.
        let mut after = vec![1u128; self.items.len() + 1];
        for (i, (_, players, _)) in self.items.iter().enumerate().rev() {
            after[i] = after[i + 1] | ((after[i + 1] << players) & up_to(self.size));
        }
        let mut missing = players.saturating_sub(self.given());
        let mut tickets: Vec<u32> = self.forced.iter().map(|(ticket, _)| *ticket).collect();
        for (i, (ticket, players, _)) in self.items.iter().enumerate() {
            let fits = |rest| after[i + 1] >> rest & 1 == 1;
            if missing.checked_sub(*players).is_some_and(fits) {
                missing -= players;
                tickets.push(*ticket);
            }
        }
        tickets.sort_unstable();
        tickets
    }
}
