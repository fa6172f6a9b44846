//! Finding the tightest group around a ticket.

use std::time::Duration;

use super::queue::{Entry, Lane, Queue};
use super::rules::Rules;
use crate::time::Moment;

/// What kind of group is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Of exactly a whole match, as tight as possible.
    Whole,
    /// Of as many players as possible, then as tight as possible.
    Partial,
}

impl Goal {
    const fn least(self, rules: &Rules) -> u32 {
        match self {
            Self::Whole => rules.size(),
            Self::Partial => rules.min_partial(),
        }
    }
}

/// Tickets that can play together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Oldest first.
    pub(super) tickets: Vec<u32>,
    pub(super) players: u32,
    pub(super) spread: f64,
}

impl Group {
    pub(super) fn oldest(&self) -> u32 {
        self.tickets.first().copied().unwrap_or(u32::MAX)
    }

    /// More players, less spread, older tickets.
    fn better_than(&self, other: &Self) -> bool {
        other
            .players
            .cmp(&self.players)
            .then(self.spread.total_cmp(&other.spread))
            .then_with(|| self.tickets.cmp(&other.tickets))
            .is_lt()
    }
}

/// A search at one moment among those who are still free.
pub(super) struct Search<'q> {
    queue: &'q Queue<'q>,
    rules: &'q Rules,
    now: Moment,
    free: Vec<bool>,
    /// Every older ticket is taken or has no whole match.
    whole_from: u32,
    /// Every older ticket is taken or has no partial match.
    partial_from: u32,
}

impl<'q> Search<'q> {
    pub(super) fn new(queue: &'q Queue<'q>, rules: &'q Rules, now: Moment) -> Self {
        Self {
            queue,
            rules,
            now,
            free: vec![true; queue.len()],
            whole_from: 0,
            partial_from: 0,
        }
    }

    pub(super) fn take(&mut self, group: &Group) {
        for ticket in &group.tickets {
            self.free[*ticket as usize] = false;
        }
    }

    /// The next match: whole ones first, each around the oldest ticket that has one.
    pub(super) fn next_group(&mut self) -> Option<Group> {
        let n = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        while self.whole_from < n {
            let found = self.around(self.whole_from, Goal::Whole);
            if found.is_some() {
                return found;
            }
            self.whole_from += 1;
        }
        while self.partial_from < n {
            let since = self.queue.ticket(self.partial_from).since;
            if !self.rules.flushes(since, self.now) {
                // The rest is younger.
                return None;
            }
            let found = self.around(self.partial_from, Goal::Partial);
            if found.is_some() {
                return found;
            }
            self.partial_from += 1;
        }
        None
    }

    /// How long nothing happens by itself: the waiting time after which the next group forms among those who are free.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let bounds = [self.rules.skill(), self.rules.latency()];
        let relaxed = bounds.iter().flatten().filter_map(|limit| limit.bound());
        let longest = relaxed.chain([self.rules.flush_wait()]).max()?;
        let youngest = (0..self.queue.len()).rev().find(|t| self.free[*t])?;
        let youngest = self.queue.by_age_since(youngest).max(self.now);
        // A little more than everything takes, so that rounding leaves nothing behind.
        let end = youngest.after(longest).after(Duration::from_secs(1));
        if !self.something_at(end) {
            return None;
        }
        let (mut nothing, mut something) = (self.now, end);
        while something.0 - nothing.0 > 1 {
            let middle = Moment(nothing.0 + (something.0 - nothing.0) / 2);
            if self.something_at(middle) {
                something = middle;
            } else {
                nothing = middle;
            }
        }
        Some(something.since(self.now))
    }

    fn something_at(&self, then: Moment) -> bool {
        let mut later = Search::new(self.queue, self.rules, then);
        later.free.clone_from(&self.free);
        later.next_group().is_some()
    }

    /// The best group that a ticket can be in.
    fn around(&self, ticket: u32, goal: Goal) -> Option<Group> {
        if !self.free[ticket as usize] {
            return None;
        }
        let mut best = None;
        for lane in &self.queue.lanes {
            let scan = LaneScan {
                search: self,
                lane,
                goal,
            };
            scan.around(ticket, &mut best);
        }
        best
    }

    fn here(&self, entry: &Entry) -> bool {
        self.free[entry.ticket as usize]
            && f64::from(entry.ms) <= self.rules.latency_at(entry.since, self.now)
    }

    fn accepts(&self, entry: &Entry) -> f64 {
        self.rules.spread_at(entry.since, self.now)
    }
}

struct LaneScan<'s, 'q> {
    search: &'s Search<'q>,
    lane: &'s Lane,
    goal: Goal,
}

impl LaneScan<'_, '_> {
    /// Looks for the best group of this lane with the ticket in it.
    fn around(&self, ticket: u32, best: &mut Option<Group>) {
        let search = self.search;
        let ranked = &self.lane.ranked;
        if let Some(at) = ranked.iter().position(|e| e.ticket == ticket) {
            let me = &ranked[at];
            if !search.here(me) {
                return;
            }
            let accepts = search.accepts(me);
            for low in (0..=at).rev() {
                let lowest = &ranked[low];
                let apart = me.skill - lowest.skill;
                if apart > accepts {
                    break;
                }
                if search.here(lowest) && apart <= search.accepts(lowest) {
                    self.upward(Some(low), Some((at, me)), best);
                }
            }
        } else if let Ok(at) = self.lane.open.binary_search_by_key(&ticket, |e| e.ticket) {
            let me = &self.lane.open[at];
            if !search.here(me) {
                return;
            }
            self.upward(None, Some((0, me)), best);
            for (low, lowest) in ranked.iter().enumerate() {
                if search.here(lowest) {
                    self.upward(Some(low), Some((low, me)), best);
                }
            }
        }
    }

    /// Looks for the best group whose lowest skill is that of `low` (none: that states no skill), with `must` in it, which is at this
    /// place at least.
    fn upward(&self, low: Option<usize>, must: Option<(usize, &Entry)>, best: &mut Option<Group>) {
        let search = self.search;
        let mut window = Window::new(search.rules.size());
        let must_at = must.map_or(0, |(at, _)| at);
        if let Some((_, entry)) = must {
            window.force(entry);
        }
        for open in self.lane.open.iter().filter(|e| search.here(e)) {
            if !window.forced(open.ticket) {
                window.add(open, f64::INFINITY);
            }
        }
        let Some(low) = low else {
            self.offer(&mut window, 0.0, best);
            return;
        };
        let ranked = &self.lane.ranked;
        let lowest = &ranked[low];
        let mut reach = search.accepts(lowest);
        if !window.forced(lowest.ticket) {
            window.force(lowest);
        }
        if let Some((at, entry)) = must
            && ranked.get(at).is_some_and(|e| e.ticket == entry.ticket)
        {
            reach = reach.min(search.accepts(entry));
        }
        for (at, entry) in ranked.iter().enumerate().skip(low) {
            let spread = entry.skill - lowest.skill;
            if spread > reach {
                break;
            }
            let accepts = search.accepts(entry);
            if accepts < spread || !search.here(entry) {
                continue;
            }
            if !window.forced(entry.ticket) {
                window.add(entry, accepts);
            }
            window.tighten(spread);
            if at >= must_at {
                self.offer(&mut window, spread, best);
            }
        }
    }

    fn offer(&self, window: &mut Window, spread: f64, best: &mut Option<Group>) {
        let least = self.goal.least(self.search.rules);
        let Some(players) = window.most_players().filter(|p| *p >= least) else {
            return;
        };
        // The tickets are only picked if they may count.
        if best
            .as_ref()
            .is_some_and(|b| players < b.players || (players == b.players && spread > b.spread))
        {
            return;
        }
        let group = Group {
            tickets: window.pick(players),
            players,
            spread,
        };
        if best.as_ref().is_none_or(|b| group.better_than(b)) {
            *best = Some(group);
        }
    }
}

/// Tickets of which some are to be chosen so that their players add up.
struct Window {
    size: u32,
    forced: Vec<(u32, u32)>,
    /// Ticket, players, accepted spread.
    items: Vec<(u32, u32, f64)>,
    /// Bit n: some choice with all that is forced has n players.
    sums: u128,
    tightest: f64,
}

impl Window {
    fn new(size: u32) -> Self {
        Self {
            size,
            forced: Vec::new(),
            items: Vec::new(),
            sums: 1,
            tightest: f64::INFINITY,
        }
    }

    fn mask(&self) -> u128 {
        u128::MAX >> (127 - self.size)
    }

    fn force(&mut self, entry: &Entry) {
        self.forced.push((entry.ticket, entry.players));
        self.sums = (self.sums << entry.players) & self.mask();
    }

    fn forced(&self, ticket: u32) -> bool {
        self.forced.iter().any(|(t, _)| *t == ticket)
    }

    fn add(&mut self, entry: &Entry, accepts: f64) {
        self.items.push((entry.ticket, entry.players, accepts));
        self.tightest = self.tightest.min(accepts);
        self.sums |= (self.sums << entry.players) & self.mask();
    }

    /// Lets go of those that do not accept this spread.
    fn tighten(&mut self, spread: f64) {
        if self.tightest >= spread {
            return;
        }
        self.items.retain(|(_, _, accepts)| *accepts >= spread);
        let accepted = self.items.iter().map(|(_, _, accepts)| *accepts);
        self.tightest = accepted.fold(f64::INFINITY, f64::min);
        self.sums = self.base();
        for (_, players, _) in &self.items {
            self.sums |= (self.sums << players) & self.mask();
        }
    }

    fn base(&self) -> u128 {
        let players: u32 = self.forced.iter().map(|(_, players)| players).sum();
        if players > self.size { 0 } else { 1 << players }
    }

    /// Most players that some choice has.
    fn most_players(&self) -> Option<u32> {
        (self.sums != 0).then(|| self.sums.ilog2())
    }

    /// A choice of so many players, of the oldest tickets that allow it.
    fn pick(&mut self, players: u32) -> Vec<u32> {
        self.items.sort_unstable_by_key(|(ticket, _, _)| *ticket);
        // `after[i]`: the sums that items from `i` on can make.
        let mut after = vec![1u128; self.items.len() + 1];
        for (i, (_, players, _)) in self.items.iter().enumerate().rev() {
            after[i] = after[i + 1] | ((after[i + 1] << players) & self.mask());
        }
        let given: u32 = self.forced.iter().map(|(_, players)| players).sum();
        let mut missing = players.saturating_sub(given);
        let mut tickets: Vec<u32> = self.forced.iter().map(|(ticket, _)| *ticket).collect();
        for (i, (ticket, players, _)) in self.items.iter().enumerate() {
            if missing
                .checked_sub(*players)
                .is_some_and(|rest| after[i + 1] >> rest & 1 == 1)
            {
                missing -= players;
                tickets.push(*ticket);
            }
        }
        tickets.sort_unstable();
        tickets
    }
}
