//! The best of all ways to match a few tickets, by looking at every one.

use super::Region;
use super::queue::Queue;
use super::rules::Rules;
use super::search::Group;
use crate::time::Moment;

/// Most tickets that are matched this way: the work doubles with each, and more than doubles with larger matches.
pub(super) const FEW: usize = 12;

/// How good a way is: the oldest of those that are due matched, then more matches, then less spread, then older tickets.
#[derive(Clone, Copy)]
struct Worth {
    /// A bit for each ticket that is due and matched, the oldest's highest.
    due: u16,
    matches: u8,
    spread: f64,
    /// A bit for each that is matched, the oldest's highest.
    matched: u16,
}

impl Worth {
    const NOTHING: Self = Self {
        due: 0,
        matches: 0,
        spread: 0.0,
        matched: 0,
    };

    fn and(&self, other: &Self) -> Self {
        Self {
            due: self.due | other.due,
            matches: self.matches + other.matches,
            spread: self.spread + other.spread,
            matched: self.matched | other.matched,
        }
    }

    fn beats(&self, other: &Self) -> bool {
        self.due
            .cmp(&other.due)
            .then(self.matches.cmp(&other.matches))
            .then(other.spread.total_cmp(&self.spread))
            .then(self.matched.cmp(&other.matched))
            .is_gt()
    }
}

/// What some tickets have in common.
#[derive(Clone, Copy)]
struct Common {
    players: u32,
    lowest: f64,
    highest: f64,
    accepts: f64,
    /// A bit for each region that all of them accept.
    regions: u64,
}

impl Common {
    fn of(queue: &Queue, rules: &Rules, now: Moment, ticket: u32) -> Self {
        let fact = queue.get(ticket);
        let skill = fact.skill();
        let accepted = rules.latency_at(fact.since, now);
        let near = |(_, ms): &&(Region, u32)| f64::from(*ms) <= accepted;
        let regions = queue.regions(fact).iter().filter(near);
        Self {
            players: fact.players,
            lowest: skill.unwrap_or(f64::INFINITY),
            highest: skill.unwrap_or(f64::NEG_INFINITY),
            accepts: skill.map_or(f64::INFINITY, |_| rules.spread_at(fact.since, now)),
            regions: if fact.anywhere {
                u64::MAX
            } else {
                regions.fold(0, |bits, (region, _)| bits | 1 << region.number())
            },
        }
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            players: self.players + other.players,
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
            accepts: self.accepts.min(other.accepts),
            regions: self.regions & other.regions,
        }
    }

    fn spread(&self) -> f64 {
        (self.highest - self.lowest).max(0.0)
    }
}

/// A match that could be, among a few tickets. Sets have a bit for each ticket, by skill.
struct Possible {
    set: usize,
    worth: Worth,
}

/// The best way found so far to decide on all but some tickets.
#[derive(Clone, Copy)]
struct Way {
    /// Which of the searches found it.
    search: u64,
    worth: Worth,
    /// What was undecided before its last step.
    before: usize,
    /// Whether that step was a match; else it left one ticket out.
    matched: bool,
}

/// No search has this number.
const NOT_FOUND: Way = Way {
    search: 0,
    worth: Worth::NOTHING,
    before: 0,
    matched: false,
};

/// Finds the best matches of a few tickets; it keeps its tables for the next few.
pub(super) struct Exact {
    searches: u64,
    /// What could be, by its member of least skill.
    possible: Vec<Vec<Possible>>,
    /// By the set of those undecided.
    ways: Vec<Way>,
    /// Steps from one way to another, in all searches.
    pub(super) steps: u64,
}

/// Tickets in the making of a match.
#[derive(Clone, Copy)]
struct Making {
    set: usize,
    /// Its last member.
    last: usize,
    common: Common,
    worth: Worth,
}

impl Exact {
    pub(super) fn new() -> Self {
        Self {
            searches: 0,
            possible: Vec::new(),
            ways: Vec::new(),
            steps: 0,
        }
    }

    /// The best whole matches among these (at most [`FEW`] of them are looked at). `due` says who outranks closeness.
    pub(super) fn best_matches(
        &mut self,
        queue: &Queue,
        rules: &Rules,
        now: Moment,
        tickets: &[u32],
        due: impl Fn(u32) -> bool,
    ) -> Vec<Group> {
        let with_common = |t: &u32| (*t, Common::of(queue, rules, now, *t));
        let mut few: Vec<(u32, Common)> = tickets.iter().take(FEW).map(with_common).collect();
        // Decided on by skill, so that those who could be matched with each other are soon all decided, and few sets come up.
        few.sort_unstable_by(|(a, x), (b, y)| x.lowest.total_cmp(&y.lowest).then(a.cmp(b)));
        let n = few.len();
        let single: Vec<Making> = (0..n)
            .map(|at| {
                let (ticket, common) = few[at];
                let older = few.iter().filter(|(other, _)| *other < ticket).count();
                let high = 1u16 << (n - 1 - older);
                let worth = Worth {
                    due: if due(ticket) { high } else { 0 },
                    matched: high,
                    ..Worth::NOTHING
                };
                Making {
                    set: 1 << at,
                    last: at,
                    common,
                    worth,
                }
            })
            .collect();
        self.possible.clear();
        self.possible.resize_with(n, Vec::new);
        for one in &single {
            self.extend(*one, &single, rules.size());
        }
        if self.possible.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        self.decide(n);
        self.chosen(n)
            .into_iter()
            .map(|set| {
                let members = || (0..n).filter(|at| set >> at & 1 == 1).map(|at| few[at]);
                let mut tickets: Vec<u32> = members().map(|(ticket, _)| ticket).collect();
                tickets.sort_unstable();
                let common = members().map(|(_, c)| c).reduce(|a, b| a.and(&b));
                Group {
                    tickets,
                    players: rules.size(),
                    spread: common.map_or(0.0, |c| c.spread()),
                }
            })
            .collect()
    }

    /// Notes every match that some of the tickets make with those after the last of them.
    fn extend(&mut self, some: Making, single: &[Making], size: u32) {
        let common = &some.common;
        if common.players > size || common.spread() > common.accepts || common.regions == 0 {
            // What is too much cannot become less.
            return;
        }
        if common.players == size {
            let worth = Worth {
                matches: 1,
                spread: common.spread(),
                ..some.worth
            };
            let set = some.set;
            self.possible[set.trailing_zeros() as usize].push(Possible { set, worth });
            return;
        }
        for next in &single[some.last + 1..] {
            let more = Making {
                set: some.set | next.set,
                last: next.last,
                common: common.and(&next.common),
                worth: some.worth.and(&next.worth),
            };
            self.extend(more, single, size);
        }
    }

    /// Walks from nothing decided to everything decided, along every way.
    fn decide(&mut self, n: usize) {
        self.searches += 1;
        let all = (1usize << n) - 1;
        if self.ways.len() <= all {
            self.ways.resize(all + 1, NOT_FOUND);
        }
        self.ways[all] = Way {
            search: self.searches,
            worth: Worth::NOTHING,
            before: all,
            matched: false,
        };
        // What is still undecided only becomes less.
        for undecided in (1..=all).rev() {
            let way = self.ways[undecided];
            if way.search != self.searches {
                continue;
            }
            let first = undecided.trailing_zeros() as usize;
            let left_out = Possible {
                set: 1 << first,
                worth: Worth::NOTHING,
            };
            let those = self.possible[first].iter().map(|p| (p, true));
            for (step, matched) in those.chain([(&left_out, false)]) {
                if step.set & !undecided != 0 {
                    continue;
                }
                self.steps += 1;
                let worth = way.worth.and(&step.worth);
                let then = &mut self.ways[undecided & !step.set];
                if then.search != self.searches || worth.beats(&then.worth) {
                    *then = Way {
                        search: self.searches,
                        worth,
                        before: undecided,
                        matched,
                    };
                }
            }
        }
    }

    /// The matches on the best way.
    fn chosen(&self, n: usize) -> Vec<usize> {
        let all = (1usize << n) - 1;
        let mut sets = Vec::new();
        let mut undecided = 0;
        while undecided != all {
            let way = &self.ways[undecided];
            if way.matched {
                sets.push(way.before & !undecided);
            }
            undecided = way.before;
        }
        sets
    }
}
