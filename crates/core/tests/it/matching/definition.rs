//! What a match is, said as plainly as can be, without a thought for speed.

use std::collections::HashSet;

use spawnpoint_core::Moment;
use spawnpoint_core::matching::{Candidate, Proposal, Rules};

use super::region;

/// Whether these may play together now, by the definition.
pub(super) fn allowed(rules: &Rules, members: &[&Candidate], now: Moment) -> bool {
    let waited = |c: &Candidate| now.since(c.since);
    let skills = || members.iter().filter_map(|c| c.skill);
    let greatest = skills().fold(f64::NEG_INFINITY, f64::max);
    let spread = (greatest - skills().fold(f64::INFINITY, f64::min)).max(0.0);
    let mut rated = members.iter().filter(|c| c.skill.is_some());
    let close = rules
        .skill()
        .is_none_or(|l| rated.all(|c| spread <= l.after(waited(c))));
    let choosy = |c: &&&Candidate| !c.latencies.is_empty();
    let near = rules.latency().is_none_or(|l| {
        let accepts = |c: &Candidate, r: u8| {
            c.latencies
                .iter()
                .any(|(own, ms)| *own == region(r) && f64::from(*ms) <= l.after(waited(c)))
        };
        !members.iter().any(|c| choosy(&c))
            || (0..64).any(|r| members.iter().filter(choosy).all(|c| accepts(c, r)))
    });
    let players: u32 = members.iter().map(|c| c.players).sum();
    let enough = players == rules.size()
        || (players >= rules.min_partial()
            && players < rules.size()
            && members.iter().any(|c| waited(c) >= rules.flush_wait()));
    close && near && enough
}

pub(super) fn check(rules: &Rules, all: &[Candidate], p: &Proposal, now: Moment) {
    let mut seen = HashSet::new();
    for m in &p.matches {
        let members: Vec<&Candidate> = m
            .tickets
            .iter()
            .map(|t| all.iter().find(|c| c.id == *t).unwrap())
            .collect();
        assert!(
            m.tickets.iter().all(|t| seen.insert(*t)),
            "a ticket in two matches"
        );
        assert!(
            members.is_sorted_by_key(|c| (c.since, c.id)),
            "oldest first"
        );
        let players: u32 = members.iter().map(|c| c.players).sum();
        assert_eq!((m.players, m.partial), (players, players < rules.size()));
        assert!(allowed(rules, &members, now), "{members:?} is not allowed");
    }
}

/// Those who are in no match.
pub(super) fn left_over<'a>(all: &'a [Candidate], p: &Proposal) -> Vec<&'a Candidate> {
    let matched: HashSet<_> = p.matches.iter().flat_map(|m| &m.tickets).collect();
    all.iter().filter(|c| !matched.contains(&c.id)).collect()
}

/// Calls back with every set of these that has at most so many players.
pub(super) fn each_set<'a>(
    all: &[&'a Candidate],
    most: u32,
    chosen: &mut Vec<&'a Candidate>,
    with: &mut impl FnMut(&[&'a Candidate]),
) {
    let Some((first, rest)) = all.split_first() else {
        if !chosen.is_empty() {
            with(chosen);
        }
        return;
    };
    each_set(rest, most, chosen, with);
    if first.players <= most {
        chosen.push(first);
        each_set(rest, most - first.players, chosen, with);
        chosen.pop();
    }
}

/// Every match that may be made of these now.
pub(super) fn possible<'a>(
    rules: &Rules,
    all: &[&'a Candidate],
    now: Moment,
) -> Vec<Vec<&'a Candidate>> {
    let mut found = Vec::new();
    each_set(all, rules.size(), &mut Vec::new(), &mut |set| {
        if allowed(rules, set, now) {
            found.push(set.to_vec());
        }
    });
    found
}
