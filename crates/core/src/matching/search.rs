//! The best group around one ticket.

use super::queue::{Entry, Lane, Lanes, Queue, Spot, in_company};
use super::rules::Rules;
use super::window::{Enough, Window};
use crate::time::Moment;

/// A search looks at so many entries at most, in all of one call: whatever is sent into a queue, a tick ends. A queue of parties that do
/// not add up is what comes nearest; players alone stay far below.
const MOST_STEPS: u64 = 4_000_000;

/// Finding out who is near costs as much as so many steps.
const NEARNESS: u64 = 20;

/// Not in a group.
const FREE: u32 = u32::MAX;

/// What kind of group is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Exactly a whole match, as tight as possible.
    Whole,
    /// As many players as possible, then as tight as possible.
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
        self.tickets.first().copied().unwrap_or(FREE)
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

/// The groups made so far, and the search for more.
pub(super) struct Search<'q> {
    pub(super) queue: &'q Queue,
    pub(super) rules: &'q Rules,
    /// Who can ever play where.
    all: Vec<Lane>,
    /// Who can be had where, or could a while ago.
    pub(super) lanes: Lanes,
    /// The moment that limits are taken at.
    pub(super) now: Moment,
    /// Tickets in a group whose oldest is this one or younger may be had as if they were free.
    pub(super) may_break: u32,
    /// The oldest ticket of each one's group, or that it is free.
    oldest: Vec<u32>,
    groups: Vec<Group>,
    group_of: Vec<u32>,
    window: Window,
    low_side: Enough,
    steps: u64,
    /// Steps when the lanes were last rid of those that cannot be had.
    kept_at: u64,
}

impl<'q> Search<'q> {
    pub(super) fn new(queue: &'q Queue, rules: &'q Rules, now: Moment) -> Self {
        let n = queue.len() as usize;
        let all = queue.lanes();
        // Most of a long queue waits because nobody is near: they are left out from the start, but for those who may play alone.
        let company = in_company(&all, queue.len(), rules, now);
        let wanted = |e: &Entry| {
            f64::from(e.ms) <= rules.latency_at(e.since, now)
                && (company[e.ticket as usize] || rules.flushes(e.since, now))
        };
        Self {
            queue,
            rules,
            lanes: Lanes::of(&all, queue.len(), wanted),
            all,
            now,
            may_break: FREE,
            oldest: vec![FREE; n],
            groups: Vec::new(),
            group_of: vec![FREE; n],
            window: Window::new(rules.size()),
            low_side: Enough::new(rules.size()),
            steps: 0,
            kept_at: 0,
        }
    }

    /// The groups there are, oldest first.
    pub(super) fn into_groups(self) -> Vec<Group> {
        let mut groups = self.groups;
        groups.retain(|g| !g.tickets.is_empty());
        groups.sort_unstable_by_key(Group::oldest);
        groups
    }

    pub(super) fn free(&self, ticket: u32) -> bool {
        self.oldest[ticket as usize] == FREE
    }

    /// Whether it looked at more than it may, and so may have missed something.
    pub(super) fn exhausted(&self) -> bool {
        self.steps >= MOST_STEPS
    }

    /// Those of a ticket's group.
    pub(super) fn members(&self, ticket: u32) -> &[u32] {
        self.groups
            .get(self.group_of[ticket as usize] as usize)
            .map_or(&[], |g| g.tickets.as_slice())
    }

    /// Sets all of these free, and who is in a group with them.
    pub(super) fn unmake(&mut self, tickets: &[u32]) {
        for ticket in tickets {
            let broken = self.group_of[*ticket as usize];
            if broken != FREE {
                for member in std::mem::take(&mut self.groups[broken as usize].tickets) {
                    self.oldest[member as usize] = FREE;
                    self.group_of[member as usize] = FREE;
                }
            }
        }
    }

    /// Makes a group; those that its members were in before are no more.
    pub(super) fn make(&mut self, group: Group) {
        let number = u32::try_from(self.groups.len()).unwrap_or(FREE);
        self.unmake(&group.tickets);
        for ticket in &group.tickets {
            self.oldest[*ticket as usize] = group.oldest();
            self.group_of[*ticket as usize] = number;
        }
        self.groups.push(group);
    }

    /// From now on only those who are free can be had, wherever they can play by `end`.
    pub(super) fn only_free_until(&mut self, end: Moment) {
        self.may_break = FREE;
        let company = in_company(&self.all, self.queue.len(), self.rules, end);
        let wanted = |e: &Entry| {
            self.free(e.ticket) && (company[e.ticket as usize] || self.rules.flushes(e.since, end))
        };
        self.lanes = Lanes::of(&self.all, self.queue.len(), wanted);
        self.kept_at = self.steps;
    }

    /// From now on only those who are free can be had.
    pub(super) fn only_free(&mut self) {
        self.may_break = FREE;
        self.keep_those_to_be_had();
    }

    /// Lets the lanes go of everybody who cannot be had.
    pub(super) fn keep_those_to_be_had(&mut self) {
        let Self {
            lanes,
            oldest,
            may_break,
            ..
        } = self;
        lanes.keep(self.queue.len(), |t| oldest[t as usize] >= *may_break);
        self.kept_at = self.steps;
    }

    /// Those who state no skill are had oldest first, so those who cannot be had are mostly at the front.
    fn pass_over_the_gone(&mut self, ticket: u32) {
        for spot in 0..self.lanes.spots(ticket).len() {
            let lane = self.lanes.spots(ticket)[spot].lane as usize;
            let lane = &mut self.lanes.lanes[lane];
            let gone = |e: &Entry| self.oldest[e.ticket as usize] < self.may_break;
            while lane.open.get(lane.open_from).is_some_and(gone) {
                lane.open_from += 1;
            }
        }
    }

    /// The best group that a ticket can be in, which can be had itself.
    pub(super) fn around(&mut self, ticket: u32, goal: Goal) -> Option<Group> {
        // So often that the work between is a multiple of this one's.
        if self.steps - self.kept_at > 8 * (self.lanes.entries() as u64 + 1_000) {
            self.keep_those_to_be_had();
        }
        self.pass_over_the_gone(ticket);
        let mut find = Find::new(self, goal);
        for spot in find.lanes.spots(ticket) {
            find.with(spot);
        }
        find.best
    }

    /// Whether a ticket can be in a whole group in which nobody has a lower skill, or everybody has none.
    pub(super) fn can_begin(&mut self, ticket: u32) -> bool {
        let mut find = Find::new(self, Goal::Whole);
        for spot in find.lanes.spots(ticket) {
            find.above(spot);
            if find.best.is_some() {
                return true;
            }
        }
        false
    }
}

/// One search for one group.
struct Find<'s> {
    goal: Goal,
    least: u32,
    rules: &'s Rules,
    lanes: &'s Lanes,
    now: Moment,
    may_break: u32,
    oldest: &'s [u32],
    window: &'s mut Window,
    low_side: &'s mut Enough,
    steps: &'s mut u64,
    best: Option<Group>,
}

impl<'s> Find<'s> {
    fn new(search: &'s mut Search<'_>, goal: Goal) -> Self {
        Self {
            goal,
            least: goal.least(search.rules),
            rules: search.rules,
            lanes: &search.lanes,
            now: search.now,
            may_break: search.may_break,
            oldest: &search.oldest,
            window: &mut search.window,
            low_side: &mut search.low_side,
            steps: &mut search.steps,
            best: None,
        }
    }

    /// Whether this one can be had, here and now.
    fn here(&self, entry: &Entry) -> bool {
        self.oldest[entry.ticket as usize] >= self.may_break
            && f64::from(entry.ms) <= self.rules.latency_at(entry.since, self.now)
    }

    fn accepts(&self, entry: &Entry) -> f64 {
        self.rules.spread_at(entry.since, self.now)
    }

    /// The best group of this lane with the ticket of this spot in it.
    fn with(&mut self, spot: &Spot) {
        let lanes = self.lanes;
        let lane = &lanes.lanes[spot.lane as usize];
        let at = spot.at as usize;
        if spot.open {
            self.with_open(lane, &lane.open[at]);
        } else {
            self.with_ranked(lane, at);
        }
    }

    fn with_open(&mut self, lane: &Lane, me: &Entry) {
        let adds_up = || lane.adds_up(0, lane.ranked.len(), me, self.least, self.rules.size());
        if *self.steps >= MOST_STEPS || !self.here(me) || !adds_up() {
            return;
        }
        self.open_only(lane, me);
        for (low, lowest) in lane.ranked.iter().enumerate() {
            *self.steps += 1;
            if self.best_spread() <= 0.0 || *self.steps >= MOST_STEPS {
                return;
            }
            if self.here(lowest) {
                self.upward(lane, low, low, me);
            }
        }
    }

    fn with_ranked(&mut self, lane: &Lane, at: usize) {
        let me = &lane.ranked[at];
        if *self.steps >= MOST_STEPS || !self.here(me) {
            return;
        }
        let accepts = self.accepts(me);
        if !self.meets_enough(lane, at, accepts) {
            return;
        }
        self.low_side.clear();
        for low in (0..=at).rev() {
            let lowest = &lane.ranked[low];
            let apart = me.skill - lowest.skill;
            *self.steps += 1;
            if apart > accepts
                || apart > self.best_spread()
                || self.low_side.of_all(lane.ranked_kinds)
                || *self.steps >= MOST_STEPS
            {
                return;
            }
            if low != at {
                let theirs = self.accepts(lowest);
                if self.low_side.of(lowest.players) || apart > theirs || !self.here(lowest) {
                    continue;
                }
                if theirs >= accepts {
                    self.low_side.add(lowest.players);
                }
            }
            self.upward(lane, low, at, me);
        }
    }

    /// Only what has the ticket of this spot at its lower end.
    fn above(&mut self, spot: &Spot) {
        let lanes = self.lanes;
        let lane = &lanes.lanes[spot.lane as usize];
        let at = spot.at as usize;
        let entries = if spot.open { &lane.open } else { &lane.ranked };
        let me = &entries[at];
        if *self.steps >= MOST_STEPS || !self.here(me) {
            return;
        }
        if spot.open {
            self.open_only(lane, me);
        } else if self.meets_enough(lane, at, self.accepts(me)) {
            self.upward(lane, at, at, me);
        }
    }

    /// A group that only counts if it is at least as tight.
    fn best_spread(&self) -> f64 {
        match (&self.best, self.goal) {
            (Some(best), Goal::Whole) => best.spread,
            _ => f64::INFINITY,
        }
    }

    /// Whether there can be enough players as near as this one accepts. Most who are alone are found to be here.
    fn meets_enough(&mut self, lane: &Lane, at: usize, accepts: f64) -> bool {
        let me = &lane.ranked[at];
        let near = |e: Option<&Entry>| e.is_some_and(|e| (e.skill - me.skill).abs() <= accepts);
        let below = at > 0 && near(lane.ranked.get(at - 1));
        if !below && !near(lane.ranked.get(at + 1)) && lane.open.is_empty() {
            return me.players >= self.least;
        }
        let size = self.rules.size();
        if !lane.adds_up(0, lane.ranked.len(), me, self.least, size) {
            return false;
        }
        *self.steps += NEARNESS;
        let below = |e: &Entry| me.skill - e.skill > accepts;
        let from = lane.ranked[..at].partition_point(below);
        let above = |e: &Entry| e.skill - me.skill <= accepts;
        let to = at + lane.ranked[at..].partition_point(above);
        lane.adds_up(from, to, me, self.least, size)
    }

    /// A group of those that state no skill.
    fn open_only(&mut self, lane: &Lane, me: &Entry) {
        self.window.clear();
        self.window.force(me);
        self.add_open(lane);
        self.offer(0.0);
    }

    /// Those that state no skill fit in everywhere.
    fn add_open(&mut self, lane: &Lane) {
        let mut enough = Enough::new(self.rules.size());
        for entry in &lane.open[lane.open_from..] {
            *self.steps += 1;
            if enough.of_all(lane.open_kinds) || *self.steps >= MOST_STEPS {
                return;
            }
            if !enough.of(entry.players) && !self.window.forces(entry.ticket) && self.here(entry) {
                enough.add(entry.players);
                self.window.add(entry, f64::INFINITY, false);
            }
        }
    }

    /// The best group in which `low` is the lowest and which has `me` in it: the ticket at place `at`, or one that states no skill and
    /// then `at` is `low`.
    fn upward(&mut self, lane: &Lane, low: usize, at: usize, me: &Entry) {
        let lowest = &lane.ranked[low];
        let mut reach = self.accepts(lowest).min(self.best_spread());
        self.window.clear();
        self.window.force(me);
        if low != at || lowest.ticket != me.ticket {
            self.window.force(lowest);
            if low != at {
                reach = reach.min(self.accepts(me));
            }
        }
        if !lane.open.is_empty() {
            self.add_open(lane);
        }
        for (place, entry) in lane.ranked.iter().enumerate().skip(low) {
            let spread = entry.skill - lowest.skill;
            *self.steps += 1;
            if spread > reach || *self.steps >= MOST_STEPS {
                return;
            }
            if place != low && place != at {
                let accepts = self.accepts(entry);
                if self.window.enough().of(entry.players) || spread > accepts || !self.here(entry) {
                    continue;
                }
                self.window.add(entry, accepts, accepts >= reach);
            }
            self.window.tighten(spread);
            if place >= at {
                if self.offer(spread) && self.goal == Goal::Whole {
                    return;
                }
                if self.window.enough().of_all(lane.ranked_kinds) {
                    return;
                }
            }
        }
    }

    /// Takes what the window has for the best, if it is. Says whether there was a group at all.
    fn offer(&mut self, spread: f64) -> bool {
        let most = self.window.most_players();
        let Some(players) = most.filter(|p| *p >= self.least) else {
            return false;
        };
        let worse = |b: &Group| players < b.players || (players == b.players && spread > b.spread);
        if !self.best.as_ref().is_some_and(worse) {
            let group = Group {
                tickets: self.window.choose(players),
                players,
                spread,
            };
            if self.best.as_ref().is_none_or(|b| group.better_than(b)) {
                self.best = Some(group);
            }
        }
        true
    }
}
