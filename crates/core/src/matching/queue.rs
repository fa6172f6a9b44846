//! Those who wait, in the orders that the search needs.

use super::rules::Rules;
use super::{Candidate, MAX_REGIONS, Region};
use crate::time::Moment;

/// One ticket in one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its place by age: 0 is the oldest.
    pub(super) ticket: u32,
    pub(super) players: u32,
    /// 0 where skill does not matter or is not stated.
    pub(super) skill: f64,
    pub(super) since: Moment,
    /// To the lane's region.
    pub(super) ms: u32,
}

/// The tickets that can play in one place.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// By skill, ties by age.
    pub(super) ranked: Vec<Entry>,
    /// Those that state no skill, by age.
    pub(super) open: Vec<Entry>,
}

/// Everybody who waits and can be matched at all.
pub(super) struct Queue<'a> {
    by_age: Vec<&'a Candidate>,
    /// One for each region, and one for those who play anywhere.
    pub(super) lanes: Vec<Lane>,
}

/// The skill that counts.
pub(super) fn skill(candidate: &Candidate, rules: &Rules) -> Option<f64> {
    match rules.skill() {
        // All alike, so that none is narrower than another.
        None => Some(0.0),
        // Adding 0 makes -0 and 0 one.
        Some(_) => candidate.skill.filter(|s| s.is_finite()).map(|s| s + 0.0),
    }
}

impl<'a> Queue<'a> {
    pub(super) fn of(candidates: impl IntoIterator<Item = &'a Candidate>, rules: &Rules) -> Self {
        let fits = |c: &&Candidate| (1..=rules.size()).contains(&c.players);
        let mut by_age: Vec<&Candidate> = candidates.into_iter().filter(fits).collect();
        by_age.sort_unstable_by_key(|c| (c.since, c.id));
        let most = rules.latency().map_or(f64::INFINITY, |limit| limit.most);
        let mut anywhere = Lane::default();
        let mut regions: Vec<Option<Lane>> = Vec::new();
        regions.resize_with(usize::from(MAX_REGIONS), || None);
        let asked = rules.latency().is_some();
        let named = by_age.iter().filter(|_| asked).flat_map(|c| &c.latencies);
        for (region, ms) in named {
            if f64::from(*ms) <= most {
                regions[usize::from(region.0)].get_or_insert_with(Lane::default);
            }
        }
        for (ticket, c) in (0u32..).zip(&by_age) {
            let skill = skill(c, rules);
            let entry = |ms| Entry {
                ticket,
                players: c.players,
                skill: skill.unwrap_or(0.0),
                since: c.since,
                ms,
            };
            if !asked || c.latencies.is_empty() {
                anywhere.add(entry(0), skill.is_some());
                for lane in regions.iter_mut().flatten() {
                    lane.add(entry(0), skill.is_some());
                }
                continue;
            }
            for (region, ms) in &c.latencies {
                let lane = &mut regions[usize::from(region.0)];
                if let Some(lane) = lane.as_mut().filter(|_| f64::from(*ms) <= most) {
                    lane.add(entry(*ms), skill.is_some());
                }
            }
        }
        let mut lanes = vec![anywhere];
        lanes.extend(regions.into_iter().flatten());
        for lane in &mut lanes {
            let order =
                |a: &Entry, b: &Entry| a.skill.total_cmp(&b.skill).then(a.ticket.cmp(&b.ticket));
            lane.ranked.sort_unstable_by(order);
        }
        Self { by_age, lanes }
    }

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn ticket(&self, by_age: u32) -> &'a Candidate {
        self.by_age[by_age as usize]
    }

    pub(super) fn by_age_since(&self, by_age: usize) -> Moment {
        self.by_age[by_age].since
    }

    /// Where these play: the region that all of them accept and whose worst latency is least.
    pub(super) fn place(
        &self,
        rules: &Rules,
        now: Moment,
        members: &[&Candidate],
    ) -> Option<(Region, u32)> {
        rules.latency()?;
        let choosy = || members.iter().filter(|m| !m.latencies.is_empty());
        let first = choosy().next()?;
        let worst = |region: Region| {
            let mut worst = 0;
            for m in choosy() {
                let (_, ms) = m.latencies.iter().find(|(r, _)| *r == region)?;
                if f64::from(*ms) > rules.latency_at(m.since, now) {
                    return None;
                }
                worst = worst.max(*ms);
            }
            Some((region, worst))
        };
        let places = first.latencies.iter().filter_map(|(r, _)| worst(*r));
        places.min_by_key(|(region, ms)| (*ms, *region))
    }
}

impl Lane {
    fn add(&mut self, entry: Entry, ranked: bool) {
        if ranked {
            self.ranked.push(entry);
        } else {
            self.open.push(entry);
        }
    }
}
