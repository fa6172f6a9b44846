//! Those who wait, in the orders that the search needs.

use super::rules::Rules;
use super::{Candidate, MAX_REGIONS, Region};
use crate::id::TicketId;
use crate::limits::MAX_PLAYERS;
use crate::time::Moment;

/// What counts of one ticket, close together in memory: going from one to another is most of the work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) id: TicketId,
    pub(super) since: Moment,
    pub(super) players: u32,
    /// Not a number if none is stated; 0 if the queue does not ask.
    skill: f64,
    /// Its latencies in [`Queue::latencies`] begin here, and there are so many. None of them is out of reach for ever.
    near: u32,
    count: u16,
    /// It lists no region, or the queue does not ask.
    pub(super) anywhere: bool,
}

impl Fact {
    pub(super) fn skill(&self) -> Option<f64> {
        (!self.skill.is_nan()).then_some(self.skill)
    }
}

/// Everybody who waits and can be matched at all, oldest first. A ticket is named by its place in this order.
pub(super) struct Queue {
    facts: Vec<Fact>,
    latencies: Vec<(Region, u32)>,
}

/// One ticket in one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) ticket: u32,
    pub(super) players: u32,
    /// 0 where skill does not matter or is not stated.
    pub(super) skill: f64,
    pub(super) since: Moment,
    /// To the lane's region.
    pub(super) ms: u32,
}

/// The tickets that can play in one region, now or once they have waited; or those that can play anywhere.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those whose skill counts, by skill, ties by age.
    pub(super) ranked: Vec<Entry>,
    /// Those that state no skill, by age.
    pub(super) open: Vec<Entry>,
    /// Those of `open` before this one are gone.
    pub(super) open_from: usize,
    /// Where those with so many players stand in `ranked`, if there are several kinds.
    kinds: Vec<(u32, Vec<u32>)>,
    /// Bit n: some of `ranked` have n players.
    pub(super) ranked_kinds: u128,
    /// Bit n: some of `open` have n players.
    pub(super) open_kinds: u128,
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) lane: u32,
    pub(super) at: u32,
    pub(super) open: bool,
}

/// All lanes, and where each ticket stands in them.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    spots: Vec<Spot>,
    /// The spots of ticket `t` begin at `first[t]` and end where those of the next begin.
    first: Vec<u32>,
}

impl Queue {
    pub(super) fn of<'a>(
        candidates: impl IntoIterator<Item = &'a Candidate>,
        rules: &Rules,
    ) -> Self {
        let most = rules.latency().map(|limit| limit.most);
        let mut latencies = Vec::new();
        let mut facts: Vec<Fact> = Vec::new();
        let fits = |c: &&Candidate| (1..=rules.size()).contains(&c.players);
        for c in candidates.into_iter().filter(fits) {
            let near = latencies.len();
            if let Some(most) = most {
                let reachable = |(_, ms): &&(Region, u32)| f64::from(*ms) <= most;
                latencies.extend(c.latencies.iter().filter(reachable));
            }
            let skill = match rules.skill() {
                // All alike, so that age alone decides.
                None => 0.0,
                // Adding 0 makes -0 and 0 one.
                Some(_) => c
                    .skill
                    .filter(|s| s.is_finite())
                    .map_or(f64::NAN, |s| s + 0.0),
            };
            facts.push(Fact {
                id: c.id,
                since: c.since,
                players: c.players,
                skill,
                near: number(near),
                count: u16::try_from(latencies.len() - near).unwrap_or(u16::MAX),
                anywhere: most.is_none() || c.latencies.is_empty(),
            });
        }
        facts.sort_unstable_by_key(|f| (f.since, f.id));
        Self { facts, latencies }
    }

    pub(super) fn len(&self) -> u32 {
        number(self.facts.len())
    }

    pub(super) fn get(&self, ticket: u32) -> &Fact {
        &self.facts[ticket as usize]
    }

    /// The regions that a ticket can ever play in, and how far each is.
    pub(super) fn regions(&self, fact: &Fact) -> &[(Region, u32)] {
        let from = fact.near as usize;
        &self.latencies[from..from + usize::from(fact.count)]
    }

    /// Where these play: the region that all of them accept and whose worst latency is least.
    pub(super) fn place(
        &self,
        rules: &Rules,
        now: Moment,
        tickets: &[u32],
    ) -> Option<(Region, u32)> {
        let choosy = || {
            let facts = tickets.iter().map(|t| self.get(*t));
            facts.filter(|f| !f.anywhere)
        };
        let worst = |region: Region| {
            let mut worst = 0;
            for fact in choosy() {
                let here = |(r, _): &&(Region, u32)| *r == region;
                let (_, ms) = self.regions(fact).iter().find(here)?;
                if f64::from(*ms) > rules.latency_at(fact.since, now) {
                    return None;
                }
                worst = worst.max(*ms);
            }
            Some((region, worst))
        };
        let first = self.regions(choosy().next()?);
        let places = first.iter().filter_map(|(region, _)| worst(*region));
        places.min_by_key(|(region, ms)| (*ms, *region))
    }
}

impl Lane {
    /// Whether tickets of the row from place `from` to before place `to`, and any that state no skill, can add up with this one to
    /// `least` players at least and `size` at most, for all that their numbers say.
    pub(super) fn adds_up(
        &self,
        from: usize,
        to: usize,
        me: &Entry,
        least: u32,
        size: u32,
    ) -> bool {
        let all = up_to(size);
        let mut sums = 1u128 << me.players;
        let mut add = |players: u32, count: usize| {
            for _ in 0..count.min((size / players) as usize) {
                sums |= (sums << players) & all;
            }
        };
        if self.kinds.is_empty() {
            if let Some(players) = self.row_kind() {
                add(players, to - from);
            }
        } else {
            for (players, places) in &self.kinds {
                let before = |end: usize| places.partition_point(|p| (*p as usize) < end);
                add(*players, before(to) - before(from));
            }
        }
        for players in (1..=size).filter(|p| self.open_kinds >> p & 1 == 1) {
            add(players, usize::MAX);
        }
        sums >> least != 0
    }

    /// The one size of party in the row.
    fn row_kind(&self) -> Option<u32> {
        (self.ranked_kinds != 0).then(|| self.ranked_kinds.ilog2())
    }

    fn index(&mut self) {
        let kinds = |entries: &[Entry]| entries.iter().fold(0, |k, e| k | 1u128 << e.players);
        self.ranked_kinds = kinds(&self.ranked);
        self.open_kinds = kinds(&self.open);
        self.open_from = 0;
        self.kinds.clear();
        if self.ranked_kinds.count_ones() > 1 {
            let mut places: Vec<Vec<u32>> = vec![Vec::new(); MAX_PLAYERS + 1];
            for (at, entry) in (0..).zip(&self.ranked) {
                places[entry.players as usize].push(at);
            }
            let some = (0..).zip(places).filter(|(_, places)| !places.is_empty());
            self.kinds = some.collect();
        }
    }
}

impl Queue {
    /// A lane for each region that somebody can ever play in, and one for those who play anywhere.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        let queue = self;
        let mut sizes = [0usize; MAX_REGIONS as usize];
        for (region, _) in &queue.latencies {
            sizes[usize::from(region.number())] += 1;
        }
        let everywhere = queue.facts.iter().filter(|f| f.anywhere).count();
        let empty = |size: usize| Lane {
            ranked: Vec::with_capacity(size + everywhere),
            ..Lane::default()
        };
        let mut lanes = vec![empty(0)];
        let mut lane_of = [0usize; MAX_REGIONS as usize];
        for (region, size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
            lane_of[region] = lanes.len();
            lanes.push(empty(*size));
        }
        // Sorted once, so that every lane comes out sorted; those without a skill come by age, wherever.
        let mut order: Vec<(f64, u32)> =
            (0..).zip(&queue.facts).map(|(t, f)| (f.skill, t)).collect();
        order.sort_unstable_by(|(a, at), (b, bt)| a.total_cmp(b).then(at.cmp(bt)));
        for (_, ticket) in order {
            let fact = queue.get(ticket);
            let add = |lane: &mut Lane, ms| {
                let entry = Entry {
                    ticket,
                    players: fact.players,
                    skill: fact.skill().unwrap_or(0.0),
                    since: fact.since,
                    ms,
                };
                if fact.skill().is_some() {
                    lane.ranked.push(entry);
                } else {
                    lane.open.push(entry);
                }
            };
            if fact.anywhere {
                for lane in &mut lanes {
                    add(lane, 0);
                }
            } else {
                for (region, ms) in queue.regions(fact) {
                    add(&mut lanes[lane_of[usize::from(region.number())]], *ms);
                }
            }
        }
        lanes
    }
}

/// Who can be in a whole match then for all that their nearest neighbours say: one that states no skill is there, or somebody as close as
/// they accept. Walks along the lanes, which is a fraction of asking one ticket after the other.
pub(super) fn in_company(lanes: &[Lane], tickets: u32, rules: &Rules, then: Moment) -> Vec<bool> {
    let mut company = vec![false; tickets as usize];
    for lane in lanes {
        let here = |e: &&Entry| f64::from(e.ms) <= rules.latency_at(e.since, then);
        let mut all = lane.ranked.iter().chain(&lane.open).filter(here);
        if lane.open.iter().any(|e| here(&e)) {
            all.for_each(|e| company[e.ticket as usize] = true);
            continue;
        }
        let mut before: Option<&Entry> = None;
        for entry in all.by_ref() {
            company[entry.ticket as usize] |= entry.players == rules.size();
            if let Some(before) = before {
                let apart = entry.skill - before.skill;
                for one in [before, entry] {
                    company[one.ticket as usize] |= apart <= rules.spread_at(one.since, then);
                }
            }
            before = Some(entry);
        }
    }
    company
}

impl Lanes {
    /// Those entries of these lanes that are wanted.
    pub(super) fn of(lanes: &[Lane], tickets: u32, wanted: impl Fn(&Entry) -> bool) -> Self {
        let those = |entries: &[Entry]| entries.iter().filter(|e| wanted(e)).copied().collect();
        let lanes = lanes.iter().map(|lane| Lane {
            ranked: those(&lane.ranked),
            open: those(&lane.open),
            ..Lane::default()
        });
        let mut some = Self {
            lanes: lanes.collect(),
            spots: Vec::new(),
            first: Vec::new(),
        };
        some.index(tickets);
        some
    }

    /// How many entries there are.
    pub(super) fn entries(&self) -> usize {
        self.spots.len()
    }

    /// Where the ticket stands.
    pub(super) fn spots(&self, ticket: u32) -> &[Spot] {
        let from = self.first[ticket as usize] as usize;
        let to = self.first[ticket as usize + 1] as usize;
        &self.spots[from..to]
    }

    /// Lets go of all other tickets.
    pub(super) fn keep(&mut self, tickets: u32, kept: impl Fn(u32) -> bool) {
        for lane in &mut self.lanes {
            lane.ranked.retain(|e| kept(e.ticket));
            lane.open.retain(|e| kept(e.ticket));
        }
        self.index(tickets);
    }

    fn index(&mut self, tickets: u32) {
        let mut first = vec![0u32; tickets as usize + 1];
        for lane in &mut self.lanes {
            lane.index();
            for entry in lane.ranked.iter().chain(&lane.open) {
                first[entry.ticket as usize + 1] += 1;
            }
        }
        let mut sum = 0;
        for f in &mut first {
            sum += *f;
            *f = sum;
        }
        let nowhere = Spot {
            lane: 0,
            at: 0,
            open: false,
        };
        self.spots.clear();
        self.spots.resize(sum as usize, nowhere);
        // Each ticket's beginning moves to its end while its spots are noted, so that it comes to be the beginning of the next.
        for (lane_at, lane) in (0..).zip(&self.lanes) {
            for (entries, open) in [(&lane.ranked, false), (&lane.open, true)] {
                for (at, entry) in (0..).zip(entries) {
                    let spot = &mut first[entry.ticket as usize];
                    self.spots[*spot as usize] = Spot {
                        lane: lane_at,
                        at,
                        open,
                    };
                    *spot += 1;
                }
            }
        }
        first.rotate_right(1);
        if let Some(f) = first.first_mut() {
            *f = 0;
        }
        self.first = first;
    }
}

/// The sums of players up to `size`, each a bit.
pub(super) fn up_to(size: u32) -> u128 {
    u128::MAX >> (127 - size)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
