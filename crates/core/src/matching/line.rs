//! Many matches at once: tickets in a row by skill, cut into neighbours so that as many matches as possible come out, and of those the
//! closest. Quick, and the best there is while all accept the same and nobody has a party; what it leaves is for the search.

use std::collections::VecDeque;

use super::queue::Entry;
use super::search::{Group, Search};

/// Rows are cut anew without those that are matched, at most so often: a newcomer who accepts little may stand between two who accept
/// more. What is still left then is little.
const MOST_ROUNDS: usize = 4;

/// Makes groups of neighbours: first each ticket in the region it is nearest to, then wherever it can play.
pub(super) fn match_neighbours(search: &mut Search<'_>) {
    let nearest = nearest(search);
    let mut row = Row::default();
    for round in 0..MOST_ROUNDS {
        let mut made = false;
        for lane in 0..search.lanes.lanes.len() {
            let only = (round == 0).then_some((nearest.as_slice(), lane));
            row.fill(search, lane, only);
            for group in row.best_cut(search.rules.size()) {
                search.make(group);
                made = true;
            }
        }
        // With one lane the first round has done what a second would.
        if !made && (round > 0 || search.lanes.lanes.len() == 1) {
            return;
        }
    }
}

/// For each ticket the lane where it has the least latency of those it accepts now, and that latency.
fn nearest(search: &Search<'_>) -> Vec<(u32, usize)> {
    let mut nearest = vec![(u32::MAX, usize::MAX); search.queue.len() as usize];
    for (at, lane) in search.lanes.lanes.iter().enumerate() {
        for entry in &lane.ranked {
            let best = &mut nearest[entry.ticket as usize];
            if (entry.ms, at) < *best {
                *best = (entry.ms, at);
            }
        }
    }
    nearest
}

/// How good a cut is: more matches, then less spread, then more waiting ended.
#[derive(Clone, Copy, Default)]
struct Worth {
    matches: u32,
    spread: f64,
    waited: f64,
}

impl Worth {
    fn beats(&self, other: &Self) -> bool {
        self.matches
            .cmp(&other.matches)
            .then(other.spread.total_cmp(&self.spread))
            .then(self.waited.total_cmp(&other.waited))
            .is_gt()
    }
}

/// One row of tickets, by skill.
#[derive(Default)]
struct Row {
    entries: Vec<Entry>,
    /// The spread that each accepts.
    accepts: Vec<f64>,
    /// How long each has waited, in milliseconds.
    waited: Vec<f64>,
    /// What the best cut of the first n is worth.
    worth: Vec<Worth>,
    /// Where the last group of the best cut of the first n begins, if it ends there.
    from: Vec<Option<u32>>,
}

impl Row {
    /// The tickets of a lane that are free and can play there, or only those who are nearest to it.
    fn fill(&mut self, search: &Search<'_>, lane: usize, only: Option<(&[(u32, usize)], usize)>) {
        self.entries.clear();
        self.accepts.clear();
        self.waited.clear();
        for entry in &search.lanes.lanes[lane].ranked {
            let wanted =
                only.is_none_or(|(nearest, lane)| nearest[entry.ticket as usize].1 == lane);
            if wanted && search.free(entry.ticket) {
                self.entries.push(*entry);
                self.accepts
                    .push(search.rules.spread_at(entry.since, search.now));
                let waited = search.now.0.saturating_sub(entry.since.0);
                self.waited.push(waited.max(0) as f64);
            }
        }
    }

    /// Cuts the row into groups of `size` players that stand side by side, leaving out whom it must.
    fn best_cut(&mut self, size: u32) -> Vec<Group> {
        let row = &self.entries;
        self.worth.clear();
        self.from.clear();
        self.worth.push(Worth::default());
        self.from.push(None);
        let (mut begin, mut players, mut wait) = (0, 0, 0.0);
        // Those from `begin` on that accept less than everybody after them, so that the first accepts least of all.
        let mut strict: VecDeque<usize> = VecDeque::new();
        for (at, entry) in row.iter().enumerate() {
            players += entry.players;
            wait += self.waited[at];
            while strict
                .back()
                .is_some_and(|b| self.accepts[*b] >= self.accepts[at])
            {
                strict.pop_back();
            }
            strict.push_back(at);
            while players > size {
                players -= row[begin].players;
                wait -= self.waited[begin];
                begin += 1;
            }
            while strict.front().is_some_and(|f| *f < begin) {
                strict.pop_front();
            }
            let mut best = self.worth[at];
            let mut origin = None;
            if players == size {
                let spread = entry.skill - row[begin].skill;
                let before = self.worth[begin];
                let with = Worth {
                    matches: before.matches + 1,
                    spread: before.spread + spread,
                    waited: before.waited + wait,
                };
                let accepted = strict.front().is_some_and(|f| spread <= self.accepts[*f]);
                if accepted && with.beats(&best) {
                    best = with;
                    origin = u32::try_from(begin).ok();
                }
            }
            self.worth.push(best);
            self.from.push(origin);
        }
        self.groups(size)
    }

    fn groups(&self, size: u32) -> Vec<Group> {
        let row = &self.entries;
        let mut groups = Vec::new();
        let mut end = row.len();
        while end > 0 {
            let Some(begin) = self.from[end].map(|b| b as usize) else {
                end -= 1;
                continue;
            };
            let mut tickets: Vec<u32> = row[begin..end].iter().map(|e| e.ticket).collect();
            tickets.sort_unstable();
            groups.push(Group {
                tickets,
                players: size,
                spread: row[end - 1].skill - row[begin].skill,
            });
            end = begin;
        }
        groups
    }
}
