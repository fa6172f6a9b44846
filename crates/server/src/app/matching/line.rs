//! Who stands where in a queue: places by age, counted in O(log n) however many wait, so that a hundred thousand players may each ask
//! for theirs.

use std::collections::HashMap;

use spawnpoint_core::TicketId;

/// Least size of the tree: below it growing would be all it does.
const LEAST: usize = 64;

/// Tickets in the order they came. One may step out and come back to its place (its match could not be started).
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Every ticket in order, with holes where tickets left.
    order: Vec<Option<TicketId>>,
    /// Where each is in `order`, and whether it stands in line (and is counted).
    places: HashMap<TicketId, (usize, bool)>,
    /// Fenwick tree over `order` of those who stand; its length is `order`'s capacity.
    tree: Vec<u32>,
    standing: usize,
}

impl Line {
    /// A ticket comes in behind all others.
    pub(super) fn push(&mut self, id: TicketId) {
        if self.places.contains_key(&id) {
            return self.step_in(id);
        }
        if self.order.len() == self.tree.len() {
            self.rebuild();
        }
        let at = self.order.len();
        self.order.push(Some(id));
        self.places.insert(id, (at, true));
        self.standing += 1;
        self.add(at, true);
    }

    /// It leaves for good.
    pub(super) fn remove(&mut self, id: TicketId) {
        self.step_out(id);
        if let Some((at, _)) = self.places.remove(&id)
            && let Some(slot) = self.order.get_mut(at)
        {
            *slot = None;
        }
    }

    /// It is not counted for now; its place stays its own.
    pub(super) fn step_out(&mut self, id: TicketId) {
        self.stand(id, false);
    }

    /// It is back in its place.
    pub(super) fn step_in(&mut self, id: TicketId) {
        self.stand(id, true);
    }

    fn stand(&mut self, id: TicketId, stands: bool) {
        let Some((at, was)) = self.places.get_mut(&id) else {
            return;
        };
        if *was == stands {
            return;
        }
        *was = stands;
        let at = *at;
        if stands {
            self.standing += 1;
        } else {
            self.standing -= 1;
        }
        self.add(at, stands);
    }

    /// How many stand before it, and one: 1 is the first. One that has stepped out is told the place it would come back to.
    pub(super) fn position(&self, id: TicketId) -> Option<usize> {
        let (at, _) = self.places.get(&id)?;
        Some(self.before(*at) + 1)
    }

    /// How many stand in line.
    pub(super) const fn len(&self) -> usize {
        self.standing
    }

    /// Those who stand, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = TicketId> {
        let stands = |id: &TicketId| self.places.get(id).is_some_and(|(_, s)| *s);
        self.order.iter().flatten().copied().filter(stands)
    }

    /// The oldest who stands.
    pub(super) fn first(&self) -> Option<TicketId> {
        self.iter().next()
    }

    fn add(&mut self, at: usize, more: bool) {
        let mut i = at + 1;
        while let Some(n) = self.tree.get_mut(i - 1) {
            *n = if more {
                n.wrapping_add(1)
            } else {
                n.wrapping_sub(1)
            };
            i += i & i.wrapping_neg();
        }
    }

    /// How many stand before this place.
    fn before(&self, at: usize) -> usize {
        let mut i = at;
        let mut sum = 0_u32;
        while i > 0 {
            sum = sum.wrapping_add(self.tree.get(i - 1).copied().unwrap_or(0));
            i &= i - 1;
        }
        sum as usize
    }

    /// Drops the holes; grows when there are few. Each rebuild is paid for by as many pushes as it has places.
    fn rebuild(&mut self) {
        self.order.retain(Option::is_some);
        let size = (self.order.len() * 2).max(LEAST);
        self.tree.clear();
        self.tree.resize(size, 0);
        for at in 0..self.order.len() {
            let Some(Some(id)) = self.order.get(at) else {
                continue;
            };
            let Some((place, stands)) = self.places.get_mut(id) else {
                continue;
            };
            *place = at;
            if *stands {
                self.add(at, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> TicketId {
        TicketId::new(Uuid::from_u128(n))
    }

    proptest! {
        /// Against the plain way: a list that is searched.
        #[test]
        fn positions_are_those_of_a_list(steps in prop::collection::vec((0u8..5, 0u128..40), 0..600)) {
            let mut line = Line::default();
            let mut plain: Vec<(TicketId, bool)> = Vec::new();
            for (what, n) in steps {
                let t = id(n);
                match what {
                    0 | 1 => {
                        line.push(t);
                        match plain.iter_mut().find(|(p, _)| *p == t) {
                            Some(p) => p.1 = true,
                            None => plain.push((t, true)),
                        }
                    }
                    2 => {
                        line.remove(t);
                        plain.retain(|(p, _)| *p != t);
                    }
                    3 => {
                        line.step_out(t);
                        plain.iter_mut().filter(|(p, _)| *p == t).for_each(|p| p.1 = false);
                    }
                    _ => {
                        line.step_in(t);
                        plain.iter_mut().filter(|(p, _)| *p == t).for_each(|p| p.1 = true);
                    }
                }
                prop_assert_eq!(line.len(), plain.iter().filter(|p| p.1).count());
                for n in 0..40 {
                    let at = plain.iter().position(|(p, _)| *p == id(n));
                    let before = at.map(|at| plain[..at].iter().filter(|p| p.1).count() + 1);
                    prop_assert_eq!(line.position(id(n)), before);
                }
                let standing: Vec<TicketId> = plain.iter().filter(|p| p.1).map(|p| p.0).collect();
                prop_assert_eq!(line.iter().collect::<Vec<_>>(), standing);
            }
        }
    }

    /// A ticket that waits for hours while many pass must not make the line as long as everybody who ever passed.
    #[test]
    fn who_has_passed_takes_no_room() {
        let mut line = Line::default();
        line.push(id(0));
        for n in 1..100_000 {
            line.push(id(n));
            line.remove(id(n));
        }
        assert_eq!(line.position(id(0)), Some(1));
        assert!(line.order.len() <= LEAST && line.tree.len() <= LEAST);
    }
}
