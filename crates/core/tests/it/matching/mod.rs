//! Matches: in sentences, by property against the definition, and beside the best there is.

mod definition;
mod property;
mod quality;

use std::time::Duration;

use spawnpoint_core::matching::{
    Candidate, Limit, Match, Proposal, Region, RuleError, Rules, propose,
};
use spawnpoint_core::{Moment, TicketId};
use uuid::Uuid;

const NOW: Moment = Moment(1_000_000);

fn id(n: u128) -> TicketId {
    TicketId::new(Uuid::from_u128(n))
}

fn limit(start: f64, per_second: f64, most: f64) -> Limit {
    Limit {
        start,
        per_second,
        most,
    }
}

fn rules(size: u32, min_partial: u32, flush_s: u64) -> Rules {
    Rules::new(size, min_partial, Duration::from_secs(flush_s), None, None).unwrap()
}

fn by_skill(size: u32, min_partial: u32, skill: Limit) -> Rules {
    Rules::new(
        size,
        min_partial,
        Duration::from_secs(10),
        Some(skill),
        None,
    )
    .unwrap()
}

/// A player alone that has waited so many milliseconds.
fn solo(n: u128, waited: i64) -> Candidate {
    Candidate {
        id: id(n),
        players: 1,
        skill: None,
        latencies: Vec::new(),
        since: Moment(NOW.0 - waited),
    }
}

fn skilled(n: u128, waited: i64, skill: f64) -> Candidate {
    Candidate {
        skill: Some(skill),
        ..solo(n, waited)
    }
}

fn party(n: u128, waited: i64, players: u32) -> Candidate {
    Candidate {
        players,
        ..solo(n, waited)
    }
}

fn region(n: u8) -> Region {
    Region::new(n).unwrap()
}

fn ids(p: &Proposal) -> Vec<Vec<u128>> {
    let of = |m: &Match| m.tickets.iter().map(|t| t.uuid().as_u128()).collect();
    p.matches.iter().map(of).collect()
}

#[test]
fn wrong_rules_are_all_named() {
    let second = Duration::from_secs(1);
    let fields = |e: Vec<RuleError>| e.into_iter().map(|e| e.field).collect::<Vec<_>>();
    let wrong = |size, min, skill, latency| {
        fields(Rules::new(size, min, second, skill, latency).unwrap_err())
    };
    assert_eq!(wrong(0, 0, None, None), ["size", "min_partial"]);
    assert_eq!(wrong(101, 1, None, None), ["size"]);
    assert_eq!(wrong(4, 5, None, None), ["min_partial"]);
    assert_eq!(
        wrong(
            0,
            1,
            Some(limit(f64::NAN, -1.0, f64::INFINITY)),
            Some(limit(5.0, 1.0, 4.0))
        ),
        [
            "size",
            "min_partial",
            "skill.start",
            "skill.per_second",
            "skill.most",
            "latency.most"
        ]
    );
    let e = Rules::new(4, 5, second, None, None).unwrap_err();
    assert_eq!(
        e[0].to_string(),
        "must be at most the 4 players of a match, not 5"
    );
    for size in [1, 2, 12, 100] {
        assert!(Rules::new(size, size, second, None, None).is_ok());
    }
}

#[test]
fn sizes_are_exact() {
    for size in [1u32, 2, 12, 100] {
        let all: Vec<Candidate> = (0..250).map(|n| solo(n, 250 - n as i64)).collect();
        let p = propose(&all, &rules(size, size, 10), NOW);
        assert_eq!(p.matches.len(), 250 / size as usize);
        assert!(p.matches.iter().all(|m| m.players == size && !m.partial));
        // The oldest first, and the youngest wait on.
        let flat: Vec<u128> = ids(&p).concat();
        let taken = 250 / u128::from(size) * u128::from(size);
        assert_eq!(flat, (0..taken).collect::<Vec<_>>());
        assert_eq!(p.recheck_after, None);
    }
}

#[test]
fn a_lone_ticket_is_matched_after_the_flush_wait_and_not_before() {
    let rules = rules(2, 1, 10);
    let p = propose(&[solo(1, 0)], &rules, NOW);
    assert!(p.matches.is_empty());
    assert_eq!(p.recheck_after, Some(Duration::from_secs(10)));
    let p = propose(&[solo(1, 9_999)], &rules, NOW);
    assert!(p.matches.is_empty());
    assert_eq!(p.recheck_after, Some(Duration::from_millis(1)));
    let p = propose(&[solo(1, 10_000)], &rules, NOW);
    assert_eq!(ids(&p), [[1]]);
    assert!(p.matches[0].partial);
    assert_eq!(p.recheck_after, None);
}

#[test]
fn a_queue_below_the_least_partial_never_flushes() {
    let p = propose(&[solo(1, 3_600_000)], &rules(4, 2, 10), NOW);
    assert!(p.matches.is_empty());
    assert_eq!(p.recheck_after, None);
    let two = [solo(1, 10_000), solo(2, 0)];
    let p = propose(&two, &rules(4, 2, 10), NOW);
    assert_eq!(ids(&p), [[1, 2]]);
}

#[test]
fn parties_are_never_split() {
    // 3 + 2 of 4 do not add up: the younger single player completes the three.
    let all = [
        party(1, 4, 3),
        party(2, 3, 2),
        party(3, 2, 1),
        party(4, 1, 2),
    ];
    let p = propose(&all, &rules(4, 4, 10), NOW);
    assert_eq!(ids(&p), [vec![1, 3], vec![2, 4]]);
    // Nothing adds up to 3.
    let all = [party(1, 3, 2), party(2, 2, 2), party(3, 1, 2)];
    let p = propose(&all, &rules(3, 3, 10), NOW);
    assert_eq!((p.matches.len(), p.recheck_after), (0, None));
    // As a partial match each goes alone.
    let p = propose(&all, &rules(3, 1, 0), NOW);
    assert_eq!(ids(&p), [[1], [2], [3]]);
    // Too large for any match: left alone.
    let p = propose(&[party(1, 99_000, 5)], &rules(3, 1, 0), NOW);
    assert_eq!((p.matches.len(), p.recheck_after), (0, None));
}

#[test]
fn the_skill_limit_relaxes_with_each_ticket_s_own_wait() {
    let rules = by_skill(2, 2, limit(10.0, 5.0, 100.0));
    // 50 apart: accepted after 8 s by each of them.
    let p = propose(
        &[skilled(1, 60_000, 0.0), skilled(2, 7_000, 50.0)],
        &rules,
        NOW,
    );
    assert_eq!(
        (p.matches.len(), p.recheck_after),
        (0, Some(Duration::from_secs(1)))
    );
    let p = propose(
        &[skilled(1, 60_000, 0.0), skilled(2, 8_000, 50.0)],
        &rules,
        NOW,
    );
    assert_eq!(ids(&p), [[1, 2]]);
    assert_eq!(
        (p.matches[0].spread, p.matches[0].accepted),
        (50.0, Some(50.0))
    );
    assert_eq!(
        p.matches[0].because(&rules),
        "2 of 2 players, the oldest ticket waited 60.0 s; skill spread 50 of 50.0"
    );
    // Never above the most.
    let p = propose(
        &[skilled(1, 1 << 40, 0.0), skilled(2, 1 << 40, 100.1)],
        &rules,
        NOW,
    );
    assert_eq!((p.matches.len(), p.recheck_after), (0, None));
}

#[test]
fn a_ticket_without_skill_fits_anywhere() {
    let rules = by_skill(3, 3, limit(10.0, 0.0, 10.0));
    let all = [
        skilled(1, 5, 0.0),
        skilled(2, 4, 1_000.0),
        solo(3, 3),
        skilled(4, 2, 1_005.0),
        skilled(5, 1, f64::NAN),
    ];
    // 1 goes first, and only those without skill fit it.
    let p = propose(&all, &rules, NOW);
    assert_eq!(ids(&p), [[1, 3, 5]]);
    assert_eq!(p.matches[0].spread, 0.0);
}

#[test]
fn all_accept_the_region() {
    let rules = |most| {
        let latency = Some(limit(50.0, 10.0, most));
        Rules::new(2, 2, Duration::from_secs(10), None, latency).unwrap()
    };
    let at = |n, waited, latencies: &[(u8, u32)]| Candidate {
        latencies: latencies.iter().map(|(r, ms)| (region(*r), *ms)).collect(),
        ..solo(n, waited)
    };
    let all = [
        at(1, 9, &[(0, 20), (1, 45)]),
        at(2, 8, &[(2, 10)]),
        at(3, 7, &[(0, 90), (1, 30)]),
    ];
    let p = propose(&all, &rules(200.0), NOW);
    assert_eq!(ids(&p), [[1, 3]]);
    assert_eq!(
        (p.matches[0].region, p.matches[0].latency),
        (Some(region(1)), Some(45))
    );
    // A region that is not listed is never accepted.
    assert_eq!(p.recheck_after, None);
    // One that lists none accepts all.
    let p = propose(&[at(1, 9, &[(7, 50)]), solo(2, 8)], &rules(200.0), NOW);
    assert_eq!(p.matches[0].region, Some(region(7)));
    // Relaxed after 4 s of waiting by each.
    let far = [at(1, 1_000, &[(3, 90)]), at(2, 2_000, &[(3, 10)])];
    let p = propose(&far, &rules(200.0), NOW);
    assert_eq!(p.matches.len(), 0);
    assert_eq!(p.recheck_after, Some(Duration::from_secs(3)));
    assert_eq!(propose(&far, &rules(89.0), NOW).recheck_after, None);
}
