//! What holds of every proposal.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use spawnpoint_core::Moment;
use spawnpoint_core::matching::{Candidate, Rules, propose};

use super::definition::{allowed, check, left_over, possible};
use super::{NOW, limit, region, solo};

/// Who waits: few regions and close skills, so that most meet somebody and not everybody.
fn candidates(most: usize) -> impl Strategy<Value = Vec<Candidate>> {
    let latencies = prop::collection::btree_map(0u8..3, 0u32..150, 0..3);
    let one = (
        prop_oneof![4 => Just(1u32), 1 => 2u32..5],
        prop_oneof![6 => (0u32..400).prop_map(Some), 1 => Just(None)],
        latencies,
        0i64..20_000,
    );
    prop::collection::vec(one, 0..most).prop_map(|all| {
        type One = (u32, Option<u32>, BTreeMap<u8, u32>, i64);
        let make = |(n, (players, skill, latencies, waited)): (usize, One)| Candidate {
            players,
            skill: skill.map(f64::from),
            latencies: latencies
                .into_iter()
                .map(|(r, ms)| (region(r), ms))
                .collect(),
            ..solo(n as u128, waited)
        };
        all.into_iter().enumerate().map(make).collect()
    })
}

fn some_rules() -> impl Strategy<Value = Rules> {
    let skill = prop::option::weighted(0.8, (0u32..60, 0u32..20, 0u32..150));
    let latency = prop::option::weighted(0.5, (10u32..100, 0u32..10, 0u32..100));
    let make = |l: Option<(u32, u32, u32)>| {
        l.map(|(start, per, more)| limit(start.into(), per.into(), (start + more).into()))
    };
    (1u32..6, 1u32..6, 0u64..30, skill, latency).prop_map(move |(size, min, flush, s, l)| {
        let flush = Duration::from_secs(flush);
        Rules::new(size, min.min(size), flush, make(s), make(l)).unwrap()
    })
}

proptest! {
    #[test]
    fn every_match_is_allowed(all in candidates(60), rules in some_rules()) {
        let p = propose(&all, &rules, NOW);
        check(&rules, &all, &p, NOW);
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        all in candidates(40).prop_flat_map(|a| (Just(a.clone()), Just(a).prop_shuffle())),
        rules in some_rules(),
    ) {
        prop_assert_eq!(propose(&all.0, &rules, NOW), propose(&all.1, &rules, NOW));
    }

    #[test]
    fn those_left_over_cannot_be_matched_with_each_other(
        all in candidates(22),
        rules in some_rules(),
    ) {
        let p = propose(&all, &rules, NOW);
        let missed = possible(&rules, &left_over(&all, &p), NOW);
        prop_assert!(missed.is_empty(), "{:?} of {:?}", missed[0], p);
    }

    #[test]
    fn nobody_who_is_due_is_passed_over_for_somebody_younger(
        all in candidates(22),
        rules in some_rules(),
    ) {
        let p = propose(&all, &rules, NOW);
        let due = |c: &Candidate| NOW.since(c.since) >= rules.due_after();
        let age = |c: &Candidate| (c.since, c.id);
        for passed in left_over(&all, &p).into_iter().filter(|c| due(c)) {
            // Those in a match with somebody who is due and older are not to be had.
            let older = |c: &Candidate| due(c) && age(c) < age(passed);
            let mut to_be_had: Vec<&Candidate> = all.iter().collect();
            for m in p.matches.iter().filter(|m| !m.partial) {
                let of = |c: &&Candidate| m.tickets.contains(&c.id);
                if all.iter().filter(of).any(older) {
                    to_be_had.retain(|c| !of(c));
                }
            }
            let missed = possible(&rules, &to_be_had, NOW)
                .into_iter()
                .find(|set| {
                    let players: u32 = set.iter().map(|c| c.players).sum();
                    players == rules.size() && set.iter().any(|c| c.id == passed.id)
                });
            prop_assert!(missed.is_none(), "{missed:?} of {p:?}");
        }
    }

    #[test]
    fn nothing_happens_before_the_recheck_and_something_does_then(
        all in candidates(30),
        rules in some_rules(),
        part in 0.0..1.0,
    ) {
        let p = propose(&all, &rules, NOW);
        let left: Vec<Candidate> = left_over(&all, &p).into_iter().cloned().collect();
        let at = |after: Duration| propose(&left, &rules, NOW.after(after));
        let Some(after) = p.recheck_after else {
            for hours in [0, 1, 1_000] {
                prop_assert!(at(Duration::from_secs(hours * 3_600)).matches.is_empty());
            }
            return Ok(());
        };
        prop_assert!(!after.is_zero());
        let just_before = after - Duration::from_millis(1);
        for before in [Duration::ZERO, after.mul_f64(part).min(just_before), just_before] {
            let then = at(before);
            prop_assert!(then.matches.is_empty(), "{before:?} of {after:?}: {then:?}");
            // It says the same from there.
            let ms = |d: Duration| d.as_millis();
            prop_assert_eq!(then.recheck_after.map(ms), Some(ms(after) - ms(before)));
        }
        prop_assert!(!at(after).matches.is_empty(), "nothing after {after:?}");
    }

    #[test]
    fn what_can_be_matched_now_can_be_matched_later(
        all in candidates(20),
        rules in some_rules(),
        later in 0u64..60_000,
    ) {
        let later: Moment = NOW.after(Duration::from_millis(later));
        for m in propose(&all, &rules, NOW).matches {
            let of = |c: &&Candidate| m.tickets.contains(&c.id);
            let members: Vec<&Candidate> = all.iter().filter(of).collect();
            prop_assert!(allowed(&rules, &members, later));
            prop_assert!(!propose(members, &rules, later).matches.is_empty());
        }
    }

    #[test]
    fn a_lone_ticket_waits_for_the_flush_and_no_longer(
        rules in some_rules(),
        waited in 0i64..40_000,
        players in 1u32..6,
    ) {
        let one = Candidate { players, ..solo(1, waited) };
        let p = propose([&one], &rules, NOW);
        let whole = players == rules.size();
        let partial = players >= rules.min_partial() && players < rules.size();
        let flush = rules.flush_wait().as_millis() as i64;
        prop_assert_eq!(p.matches.len() == 1, whole || (partial && waited >= flush));
        let wait = (partial && waited < flush).then(|| flush - waited);
        prop_assert_eq!(p.recheck_after.map(|d| d.as_millis() as i64), wait);
    }
}
