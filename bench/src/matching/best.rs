//! Few tickets, matched as the product does, in the best of all ways, and first come, first served.

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use spawnpoint_core::matching::{Candidate, Limit, Rules, propose};

use super::{NOW, ticket};
use crate::stats::Order;

/// Few enough that every way can be looked at.
const FEW: usize = 12;

/// Matches and their spreads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) matches: u32,
    spread: f64,
}

impl Sum {
    pub(super) fn mean(&self) -> f64 {
        self.spread / f64::from(self.matches.max(1))
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            matches: self.matches + other.matches,
            spread: self.spread + other.spread,
        }
    }

    fn one(spread: f64) -> Self {
        Self { matches: 1, spread }
    }

    /// More matches, then less spread.
    fn beats(&self, other: &Self) -> bool {
        self.matches > other.matches
            || (self.matches == other.matches && self.spread < other.spread)
    }

    fn json(&self) -> Value {
        json!({"matches": self.matches, "mean_spread": self.mean()})
    }
}

/// All queues of one size of match.
pub(super) struct Few {
    pub(super) size: u32,
    pub(super) queues: usize,
    pub(super) ours: Sum,
    pub(super) best: Sum,
    pub(super) first_come: Sum,
    /// The mean spread over the least there is, in the queue where it is greatest. Infinite if a match was missed.
    pub(super) worst: f64,
}

impl Few {
    pub(super) fn json(&self) -> Value {
        json!({
            "size": self.size, "queues": self.queues, "ours": self.ours.json(), "best": self.best.json(),
            "first_come": self.first_come.json(), "worst": self.worst,
        })
    }
}

/// Matches many small queues in all three ways.
pub(super) fn beside_the_best(queues: usize, order: &mut Order) -> Result<Vec<Few>> {
    let limit = Limit {
        start: 50.0,
        per_second: 5.0,
        most: 200.0,
    };
    let mut all = Vec::new();
    for size in [2, 4] {
        // Nobody has waited long enough for age to outrank closeness.
        let rules = Rules::new(size, size, Duration::from_secs(3_600), Some(limit), None)
            .map_err(|e| anyhow!("the rules are wrong: {e:?}"))?;
        let mut few = Few {
            size,
            queues,
            ours: Sum::default(),
            best: Sum::default(),
            first_come: Sum::default(),
            worst: 1.0,
        };
        for _ in 0..queues {
            let mut waiting = Vec::new();
            for n in 0..FEW {
                let skill: u64 = (0..4).map(|_| order.below(100)).sum();
                let waited = order.below(9_000);
                waiting.push(ticket(n, 1, skill as f64, Vec::new(), waited)?);
            }
            let proposal = propose(&waiting, &rules, NOW);
            let spreads = proposal.matches.iter().map(|m| Sum::one(m.spread));
            let ours = spreads.fold(Sum::default(), |a, b| a.and(&b));
            let best = optimum(&waiting, limit, size);
            let first_come = first_come(&waiting, limit, size);
            let over = match best.mean() {
                _ if ours.matches < best.matches => f64::INFINITY,
                least if least > 0.0 => ours.mean() / least,
                _ if ours.mean() > 0.0 => f64::INFINITY,
                _ => 1.0,
            };
            few.worst = few.worst.max(over);
            few.ours = few.ours.and(&ours);
            few.best = few.best.and(&best);
            few.first_come = few.first_come.and(&first_come);
        }
        all.push(few);
    }
    Ok(all)
}

/// The spread of these, if all of them accept it.
fn spread(members: &[&Candidate], limit: Limit) -> Option<f64> {
    let skills = || members.iter().filter_map(|c| c.skill);
    let highest = skills().fold(f64::NEG_INFINITY, f64::max);
    let spread = highest - skills().fold(f64::INFINITY, f64::min);
    let accepts = |c: &&Candidate| spread <= limit.after(NOW.since(c.since));
    members.iter().all(accepts).then_some(spread)
}

/// The most matches there can be and, of all ways to have so many, the least spread.
fn optimum(all: &[Candidate], limit: Limit, size: u32) -> Sum {
    let n = all.len();
    let mut possible: Vec<Vec<(usize, f64)>> = vec![Vec::new(); n];
    for set in (1usize..1 << n).filter(|set| set.count_ones() == size) {
        let members: Vec<&Candidate> = (0..n)
            .filter(|i| set >> i & 1 == 1)
            .map(|i| &all[i])
            .collect();
        if let Some(spread) = spread(&members, limit) {
            possible[set.trailing_zeros() as usize].push((set, spread));
        }
    }
    let mut best = vec![Sum::default(); 1 << n];
    for set in 1usize..1 << n {
        let mut sum = best[set & (set - 1)];
        for (group, spread) in &possible[set.trailing_zeros() as usize] {
            let with = best[set & !group].and(&Sum::one(*spread));
            if group & !set == 0 && with.beats(&sum) {
                sum = with;
            }
        }
        best[set] = sum;
    }
    best[(1 << n) - 1]
}

/// The oldest takes the next oldest who fit.
fn first_come(all: &[Candidate], limit: Limit, size: u32) -> Sum {
    let mut waiting: Vec<&Candidate> = all.iter().collect();
    waiting.sort_by_key(|c| (c.since, c.id));
    let mut sum = Sum::default();
    while !waiting.is_empty() {
        let mut members: Vec<&Candidate> = Vec::new();
        for c in &waiting {
            members.push(c);
            if members.len() > size as usize || spread(&members, limit).is_none() {
                members.pop();
            }
        }
        match spread(&members, limit).filter(|_| members.len() == size as usize) {
            Some(spread) => {
                sum = sum.and(&Sum::one(spread));
                waiting.retain(|c| members.iter().all(|m| m.id != c.id));
            }
            None => {
                waiting.remove(0);
            }
        }
    }
    sum
}
