//! How close the matches are: beside the best there is, and beside first come, first served.

use std::time::Duration;

use spawnpoint_core::matching::{Candidate, Limit, Proposal, Rules, propose};

use super::definition::{allowed, check, left_over};
use super::{NOW, limit, region, solo};

/// A small generator, so that every run is the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(sides)).unwrap()
    }
}

/// What waits in one instance.
#[derive(Clone, Copy)]
struct Crowd {
    size: u32,
    tickets: usize,
    /// Skills are the sum of four draws below this.
    skills: u32,
    /// Waits are below this, in milliseconds.
    waits: u32,
    parties: bool,
    regions: bool,
    skill: Limit,
}

impl Crowd {
    fn rules(&self) -> Rules {
        let latency = self.regions.then(|| limit(60.0, 5.0, 150.0));
        let (size, never) = (self.size, Duration::from_secs(3_600));
        Rules::new(size, size, never, Some(self.skill), latency).unwrap()
    }

    fn draw(&self, seed: u64) -> Vec<Candidate> {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut one = |n: usize| {
            let skill: u32 = (0..4).map(|_| dice.roll(self.skills)).sum();
            let players = if self.parties && dice.roll(3) == 0 {
                1 + dice.roll(self.size)
            } else {
                1
            };
            let mut latencies = Vec::new();
            for r in 0..if self.regions { 3 } else { 0 } {
                if dice.roll(3) > 0 {
                    latencies.push((region(r), 20 + dice.roll(100)));
                }
            }
            Candidate {
                players,
                skill: Some(f64::from(skill)),
                latencies,
                ..solo(n as u128, i64::from(dice.roll(self.waits)))
            }
        };
        (0..self.tickets).map(&mut one).collect()
    }
}

/// Matches and their spreads, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sum {
    matches: u32,
    spread: f64,
}

impl Sum {
    fn of(p: &Proposal) -> Self {
        Self {
            matches: u32::try_from(p.matches.len()).unwrap(),
            spread: p.matches.iter().map(|m| m.spread).sum(),
        }
    }

    fn mean(&self) -> f64 {
        self.spread / f64::from(self.matches.max(1))
    }
}

/// The spread of a match.
fn spread(members: &[&Candidate]) -> f64 {
    let skills = || members.iter().filter_map(|c| c.skill);
    let most = skills().fold(f64::NEG_INFINITY, f64::max);
    (most - skills().fold(f64::INFINITY, f64::min)).max(0.0)
}

/// The most matches there can be and, of all ways to have so many, the least spread: every way is looked at.
fn optimum(all: &[Candidate], rules: &Rules) -> Sum {
    let n = all.len();
    assert!(n <= 16, "too many to look at every way");
    // What can be a match, by its first member.
    let mut by_first: Vec<Vec<(usize, f64)>> = vec![Vec::new(); n];
    let mut players = vec![0; 1 << n];
    for set in 1usize..1 << n {
        players[set] = players[set & (set - 1)] + all[set.trailing_zeros() as usize].players;
        if players[set] != rules.size() {
            continue;
        }
        let at = |i: &usize| set >> i & 1 == 1;
        let members: Vec<&Candidate> = (0..n).filter(at).map(|i| &all[i]).collect();
        if allowed(rules, &members, NOW) {
            by_first[set.trailing_zeros() as usize].push((set, spread(&members)));
        }
    }
    let mut best = vec![
        Sum {
            matches: 0,
            spread: 0.0
        };
        1 << n
    ];
    for set in 1usize..1 << n {
        let mut sum = best[set & (set - 1)];
        for (group, spread) in &by_first[set.trailing_zeros() as usize] {
            if group & !set == 0 {
                let rest = best[set & !group];
                let with = Sum {
                    matches: rest.matches + 1,
                    spread: rest.spread + spread,
                };
                let less = with.matches == sum.matches && with.spread < sum.spread;
                if with.matches > sum.matches || less {
                    sum = with;
                }
            }
        }
        best[set] = sum;
    }
    best[(1 << n) - 1]
}

/// First come, first served, within the limits: the oldest takes the next oldest that fit.
fn first_come(all: &[Candidate], rules: &Rules) -> Sum {
    let mut waiting: Vec<&Candidate> = all.iter().collect();
    waiting.sort_by_key(|c| (c.since, c.id));
    let open = Rules::new(
        rules.size(),
        1,
        Duration::ZERO,
        rules.skill(),
        rules.latency(),
    )
    .unwrap();
    let mut sum = Sum {
        matches: 0,
        spread: 0.0,
    };
    while !waiting.is_empty() {
        let mut members: Vec<&Candidate> = Vec::new();
        for c in &waiting {
            members.push(c);
            if !allowed(&open, &members, NOW) {
                members.pop();
            }
        }
        if allowed(rules, &members, NOW) {
            sum.matches += 1;
            sum.spread += spread(&members);
            waiting.retain(|c| !members.iter().any(|m| m.id == c.id));
        } else {
            waiting.remove(0);
        }
    }
    sum
}

/// Few, so that every way can be looked at; nobody is due, so that closeness alone counts.
fn crowds(tickets: usize) -> Vec<Crowd> {
    let mut all = Vec::new();
    for size in [2, 3, 4] {
        // Almost everybody accepts almost everybody; some accept some; few accept anybody.
        for skills in [30, 100, 400] {
            for (parties, regions) in [(false, false), (true, false), (false, true), (true, true)] {
                all.push(Crowd {
                    size,
                    tickets,
                    skills,
                    waits: 9_000,
                    parties,
                    regions,
                    skill: limit(50.0, 5.0, 200.0),
                });
            }
        }
    }
    all
}

fn ours(all: &[Candidate], rules: &Rules) -> Sum {
    let p = propose(all, rules, NOW);
    check(rules, all, &p, NOW);
    Sum::of(&p)
}

/// Whether a matcher makes as many matches as can be made, with a mean spread of at most 1.05 times the least there is, every time.
fn is_close_to_the_best(matcher: impl Fn(&[Candidate], &Rules) -> Sum) -> Result<(), (Sum, Sum)> {
    for tickets in [2, 5, 9, 12] {
        for crowd in crowds(tickets) {
            let rules = crowd.rules();
            for seed in 0..8 {
                let all = crowd.draw(seed);
                let (made, best) = (matcher(&all, &rules), optimum(&all, &rules));
                if made.matches < best.matches || made.mean() > 1.05 * best.mean() + 1e-9 {
                    return Err((made, best));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn few_are_matched_as_closely_as_can_be() {
    assert_eq!(is_close_to_the_best(ours), Ok(()));
}

#[test]
fn first_come_first_served_is_not_close() {
    assert!(is_close_to_the_best(first_come).is_err());
}

#[test]
fn more_are_matched_nearly_as_closely() {
    let zero = Sum {
        matches: 0,
        spread: 0.0,
    };
    let add = |a: &mut Sum, b: Sum| {
        a.matches += b.matches;
        a.spread += b.spread;
    };
    let (mut made, mut best, mut fifo) = (zero, zero, zero);
    for crowd in crowds(14) {
        let rules = crowd.rules();
        for seed in 0..4 {
            let all = crowd.draw(seed);
            add(&mut made, ours(&all, &rules));
            add(&mut best, optimum(&all, &rules));
            add(&mut fifo, first_come(&all, &rules));
        }
    }
    let matches = f64::from(made.matches) / f64::from(best.matches);
    assert!(matches > 0.98, "{matches} of the matches there can be");
    let spread = made.mean() / best.mean();
    assert!(spread < 1.02, "{spread} times the least spread");
    assert!(fifo.mean() / best.mean() > 1.5, "{fifo:?}, {best:?}");
}

/// What holds of a few holds of thousands.
#[test]
fn a_crowd_is_matched_by_the_rules_as_well() {
    let mut rechecked = 0;
    for (size, parties, regions, skills) in [
        (2, false, false, 4_000),
        (2, false, true, 1_000),
        (3, true, false, 1_000),
        (5, true, true, 1_000),
        (100, false, true, 30),
    ] {
        let crowd = Crowd {
            size,
            tickets: 2_000,
            skills,
            waits: 60_000,
            parties,
            regions,
            skill: limit(10.0, 1.0, 40.0),
        };
        let rules = crowd.rules();
        let all = crowd.draw(u64::from(size));
        let p = propose(&all, &rules, NOW);
        check(&rules, &all, &p, NOW);
        let matched: u32 = p.matches.iter().map(|m| m.players).sum();
        assert!(matched > 0 && p.matches.iter().all(|m| !m.partial));
        let left: Vec<Candidate> = left_over(&all, &p).into_iter().cloned().collect();
        assert!(propose(&left, &rules, NOW).matches.is_empty());
        if size <= 3 {
            let left: Vec<&Candidate> = left.iter().collect();
            for (at, a) in left.iter().enumerate() {
                for b in &left[at + 1..] {
                    let both = [*a, *b];
                    assert!(!allowed(&rules, &both, NOW), "{both:?} are left over");
                }
            }
        }
        let Some(after) = p.recheck_after else {
            continue;
        };
        rechecked += 1;
        let before = NOW.after(after - Duration::from_millis(1));
        assert!(propose(&left, &rules, before).matches.is_empty());
        assert!(!propose(&left, &rules, NOW.after(after)).matches.is_empty());
    }
    assert!(rechecked >= 3, "only {rechecked}");
}
