//! The pool's plan: in sentences, and by simulating what it leads to.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use spawnpoint_core::fleet::{
    BREAKER_LONGEST_HOLD, Failures, InFlight, Plan, Pool, PoolSpec, Warm, plan,
};
use spawnpoint_core::{InstanceId, Known, Moment};
use uuid::Uuid;

const GOOD: u64 = 2;
const STALE: u64 = 1;
const NOW: Moment = Moment(1_000_000);

fn spec(warm: u32, max_instances: Option<u32>) -> PoolSpec {
    PoolSpec {
        warm,
        max_age: None,
        max_instances,
        template: GOOD,
    }
}

fn id(n: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(n))
}

fn warm(n: u128, ready: bool, template: u64) -> Warm {
    Warm {
        id: id(n),
        ready,
        started_at: Moment(i64::try_from(n).unwrap()),
        template,
    }
}

/// `ready` and `pending` good ones from 1 on, `stale` accepting ones from 101 on.
fn pool(ready: u128, pending: u128, stale: u128) -> Pool {
    let mut pool = Pool::default();
    pool.warm
        .extend((0..ready).map(|n| warm(1 + n, true, GOOD)));
    pool.warm
        .extend((0..pending).map(|n| warm(51 + n, false, GOOD)));
    pool.warm
        .extend((0..stale).map(|n| warm(101 + n, true, STALE)));
    pool
}

fn planned(spec: &PoolSpec, pool: Pool) -> Plan {
    plan(
        spec,
        &Known::Is(pool),
        InFlight::default(),
        Failures::default(),
        NOW,
    )
}

fn ids(from: u128, n: u128) -> Vec<InstanceId> {
    (from..from + n).map(id).collect()
}

#[test]
fn in_sentences() {
    let waiting = |queued, claimed| Pool {
        queued,
        claimed,
        ..pool(0, 0, 0)
    };
    // sentence, what is wanted, what is there, admitted, started, stopped
    type Row = (&'static str, PoolSpec, Pool, u32, u32, Vec<InstanceId>);
    let rows: Vec<Row> = vec![
        (
            "an empty pool is filled",
            spec(3, None),
            pool(0, 0, 0),
            0,
            3,
            vec![],
        ),
        (
            "what starts counts",
            spec(3, None),
            pool(1, 1, 0),
            0,
            1,
            vec![],
        ),
        (
            "a full pool is left alone",
            spec(3, None),
            pool(3, 0, 0),
            0,
            0,
            vec![],
        ),
        (
            "too many: those that start go first",
            spec(2, None),
            pool(2, 1, 0),
            0,
            0,
            ids(51, 1),
        ),
        (
            "then the oldest",
            spec(1, None),
            pool(3, 0, 0),
            0,
            0,
            ids(1, 2),
        ),
        (
            "scaled to zero nothing is kept",
            spec(0, None),
            pool(2, 1, 2),
            0,
            0,
            [ids(101, 2), ids(51, 1), ids(1, 2)].concat(),
        ),
        (
            "the maximum counts everything",
            spec(3, Some(4)),
            Pool {
                claimed: 2,
                stopping: 1,
                ..pool(0, 0, 0)
            },
            0,
            1,
            vec![],
        ),
        (
            "a claimed instance is no warm one",
            spec(2, None),
            Pool {
                claimed: 9,
                ..pool(1, 0, 0)
            },
            0,
            1,
            vec![],
        ),
        (
            "waiting sessions come before warm ones",
            spec(3, Some(4)),
            waiting(2, 1),
            2,
            0,
            vec![],
        ),
        (
            "as many as there is room for",
            spec(0, Some(4)),
            waiting(5, 2),
            2,
            0,
            vec![],
        ),
        (
            "a ready warm one is a place in a full fleet",
            spec(1, Some(3)),
            Pool {
                queued: 2,
                claimed: 2,
                ..pool(1, 0, 0)
            },
            1,
            0,
            vec![],
        ),
        (
            "what starts in a full fleet is left to start",
            spec(1, Some(3)),
            Pool {
                queued: 2,
                claimed: 2,
                ..pool(0, 1, 0)
            },
            0,
            0,
            vec![],
        ),
        (
            "what is about to be claimed is not stopped",
            spec(1, Some(4)),
            Pool {
                queued: 4,
                ..pool(2, 0, 2)
            },
            4,
            0,
            vec![],
        ),
        (
            "a full fleet admits nobody",
            spec(0, Some(2)),
            waiting(1, 2),
            0,
            0,
            vec![],
        ),
        (
            "a new template starts beside the stale ones",
            spec(2, None),
            pool(0, 0, 2),
            0,
            2,
            vec![],
        ),
        (
            "which stay until a good one accepts",
            spec(2, None),
            pool(0, 2, 2),
            0,
            0,
            vec![],
        ),
        (
            "one for one",
            spec(2, None),
            pool(1, 1, 2),
            0,
            0,
            ids(101, 1),
        ),
        (
            "until all are good",
            spec(2, None),
            pool(2, 0, 2),
            0,
            0,
            ids(101, 2),
        ),
        (
            "at the maximum one makes room",
            spec(3, Some(3)),
            pool(0, 0, 3),
            0,
            0,
            ids(101, 1),
        ),
        (
            "and only one, while its replacement starts",
            spec(3, Some(3)),
            pool(0, 1, 2),
            0,
            0,
            vec![],
        ),
        (
            "or while it stops",
            spec(3, Some(3)),
            Pool {
                stopping: 1,
                ..pool(0, 0, 2)
            },
            0,
            0,
            vec![],
        ),
        (
            "the next when that accepts",
            spec(3, Some(3)),
            pool(1, 0, 2),
            0,
            0,
            ids(101, 1),
        ),
        (
            "never the last that accepts",
            spec(1, Some(1)),
            pool(0, 0, 1),
            0,
            0,
            vec![],
        ),
    ];
    for (sentence, spec, pool, admit, start, stop) in rows {
        let p = planned(&spec, pool);
        assert_eq!(
            (p.admit, p.start, &p.stop),
            (admit, start, &stop),
            "{sentence}: {}",
            p.because
        );
        assert!(!p.because.is_empty());
    }
}

#[test]
fn as_many_instances_as_sessions_0_1_5_50() {
    for sessions in [0, 1, 5, 50] {
        let asked = planned(
            &spec(0, None),
            Pool {
                queued: sessions,
                ..Pool::default()
            },
        );
        assert_eq!((asked.admit, asked.start), (sessions, 0));
        let served = planned(
            &spec(0, None),
            Pool {
                claimed: sessions,
                ..Pool::default()
            },
        );
        assert_eq!((served.admit, served.start, served.stop), (0, 0, vec![]));
    }
}

#[test]
fn what_cannot_be_seen_is_neither_started_nor_stopped() {
    let unknown = Known::Unknown {
        since: Moment(NOW.0 - 1_500),
    };
    let p = plan(
        &spec(3, None),
        &unknown,
        InFlight::default(),
        Failures::default(),
        NOW,
    );
    assert_eq!((p.admit, p.start, p.stop.len()), (0, 0, 0));
    assert_eq!(p.recheck_after, Some(Duration::from_secs(1)));
    assert!(p.because.contains("1500 ms"), "{}", p.because);
}

#[test]
fn starts_in_flight_count() {
    let flying = InFlight {
        warm: 2,
        claimed: 1,
    };
    let with = |spec| {
        plan(
            &spec,
            &Known::Is(pool(0, 0, 0)),
            flying,
            Failures::default(),
            NOW,
        )
    };
    assert_eq!(with(spec(3, None)).start, 1);
    assert_eq!(with(spec(9, Some(4))).start, 1);
    // They are not there to be stopped, and nothing that accepts goes for their sake.
    let p = plan(
        &spec(2, None),
        &Known::Is(pool(2, 0, 0)),
        flying,
        Failures::default(),
        NOW,
    );
    assert_eq!(p.stop, vec![]);
}

#[test]
fn old_ones_are_renewed_like_stale_ones() {
    let aged = PoolSpec {
        max_age: Some(Duration::from_secs(600)),
        ..spec(2, None)
    };
    let young = Moment(NOW.0 - 100_000);
    let two = |first: Moment, second: Moment| {
        let mut pool = pool(2, 0, 0);
        (pool.warm[0].started_at, pool.warm[1].started_at) = (first, second);
        pool
    };
    let p = planned(&aged, two(Moment(NOW.0 - 600_000), young));
    assert_eq!((p.start, p.stop.len()), (1, 0), "{}", p.because);
    assert_eq!(p.recheck_after, Some(Duration::from_secs(500)));
    let p = planned(&aged, two(Moment(NOW.0 - 599_999), young));
    assert_eq!(
        (p.start, p.recheck_after),
        (0, Some(Duration::from_millis(1)))
    );
    // A boot longer than the age is not stopped in the middle, again and again.
    let mut slow = pool(0, 2, 0);
    slow.warm.iter_mut().for_each(|w| w.started_at = Moment(0));
    let p = planned(&aged, slow);
    assert_eq!((p.start, p.stop.len()), (0, 0));
}

#[test]
fn the_breaker_opens_at_3_and_backs_off_5_10_20_seconds_up_to_its_longest() {
    let mut failures = Failures::default();
    let (mut now, mut holds) = (NOW, Vec::new());
    for _ in 0..12 {
        failures = failures.failed(now, now);
        holds.push(failures.held_until().map(|u| u.since(now).as_secs()));
        now = failures
            .held_until()
            .unwrap_or(now)
            .after(Duration::from_secs(1));
    }
    let said: Vec<_> = holds.iter().take(8).copied().collect();
    assert_eq!(
        said,
        [
            None,
            None,
            Some(5),
            Some(10),
            Some(20),
            Some(40),
            Some(80),
            Some(160)
        ]
    );
    assert_eq!(holds.last(), Some(&Some(BREAKER_LONGEST_HOLD.as_secs())));
    assert_eq!(failures.succeeded(), Failures::default());

    let with = |failures, now, pending| {
        let pool = Known::Is(pool(0, pending, 0));
        plan(&spec(5, None), &pool, InFlight::default(), failures, now)
    };
    let one = Failures::default().failed(NOW, NOW);
    assert_eq!(with(one, NOW, 0).start, 1, "after a failure one at a time");
    assert_eq!(with(one, NOW, 1).start, 0);
    let open = Failures {
        in_a_row: 3,
        last: Some(NOW),
    };
    let held = with(open, NOW.after(Duration::from_secs(4)), 0);
    assert_eq!(
        (held.start, held.recheck_after),
        (0, Some(Duration::from_secs(1)))
    );
    assert!(open.degraded(NOW) && !open.degraded(NOW.after(Duration::from_secs(5))));
    assert_eq!(
        with(open, NOW.after(Duration::from_secs(5)), 0).start,
        1,
        "one tries"
    );
}

#[test]
fn while_starts_fail_nothing_that_accepts_makes_room() {
    // The place that was made was taken by a session meanwhile.
    let full = Known::Is(Pool {
        claimed: 1,
        ..pool(0, 0, 2)
    });
    let with = |failures| plan(&spec(3, Some(3)), &full, InFlight::default(), failures, NOW).stop;
    assert_eq!(with(Failures::default()), ids(101, 1));
    assert_eq!(with(Failures::default().failed(NOW, NOW)), vec![]);
}

#[test]
fn fifty_starts_that_fail_together_open_the_breaker_once() {
    let mut failures = Failures::default();
    for n in 0..50 {
        failures = failures.failed(NOW, Moment(NOW.0 + n));
    }
    assert_eq!(failures.in_a_row, 3);
    // A later one that fails is news.
    assert_eq!(
        failures
            .failed(Moment(NOW.0 + 6_000), Moment(NOW.0 + 7_000))
            .in_a_row,
        4
    );
}

/// A fleet that carries out plans: one round is one plan, then everything under way gets on by one step.
#[derive(Debug)]
struct Fleet {
    spec: PoolSpec,
    pool: Pool,
    flying: InFlight,
    failures: Failures,
    /// Whether the present template ever gets ready; one that does not exits instead.
    good_template: bool,
    now: Moment,
    next: u128,
}

impl Fleet {
    fn total(&self) -> u32 {
        let warm = u32::try_from(self.pool.warm.len()).unwrap();
        warm + self.pool.claimed + self.pool.stopping + self.flying.warm + self.flying.claimed
    }

    fn round(&mut self) -> Plan {
        let seen = Known::Is(self.pool.clone());
        let before = self.total();
        let p = plan(&self.spec, &seen, self.flying, self.failures, self.now);
        self.pool.stopping = 0;
        for id in &p.stop {
            let at = self
                .pool
                .warm
                .iter()
                .position(|w| w.id == *id)
                .expect("a warm one");
            self.pool.warm.remove(at);
            self.pool.stopping += 1;
        }
        for _ in 0..p.admit {
            self.pool.queued -= 1;
            match self.pool.warm.iter().position(|w| w.ready) {
                Some(at) => {
                    self.pool.warm.remove(at);
                    self.pool.claimed += 1;
                }
                None => self.flying.claimed += 1,
            }
        }
        self.flying.warm += p.start;
        if let Some(max) = self.spec.max_instances {
            let bound = max.max(before);
            assert!(
                self.total() <= bound,
                "{} of {max}: {}",
                self.total(),
                p.because
            );
        }
        if p.start > 0 {
            assert_eq!(self.pool.queued, 0, "warm before waiting: {}", p.because);
        }
        self.get_on();
        p
    }

    fn get_on(&mut self) {
        self.now = self.now.after(Duration::from_secs(2));
        for w in self
            .pool
            .warm
            .iter_mut()
            .filter(|w| self.good_template || w.template == STALE)
        {
            if !w.ready {
                w.ready = true;
                self.failures = self.failures.succeeded();
            }
        }
        let (now, failures) = (self.now, &mut self.failures);
        self.pool.warm.retain(|w| {
            if !w.ready {
                *failures = failures.failed(w.started_at, now);
            }
            w.ready
        });
        for _ in 0..std::mem::take(&mut self.flying.warm) {
            self.next += 1;
            let started_at = self.now;
            let template = self.spec.template;
            self.pool.warm.push(Warm {
                id: id(self.next),
                ready: false,
                started_at,
                template,
            });
        }
        self.pool.claimed += std::mem::take(&mut self.flying.claimed);
    }
}

fn fleet() -> impl Strategy<Value = Fleet> {
    (
        (0..8_u32, proptest::option::of(0..12_u32), any::<bool>()),
        (0..6_u128, 0..4_u128, 0..6_u128, 0..3_u128),
        (0..6_u32, 0..3_u32, 0..8_u32),
        (0..3_u32, 0..3_u32),
    )
        .prop_map(
            |(
                (target, max, good_template),
                (r, p, stale, sp),
                (claimed, stopping, queued),
                (fw, fc),
            )| {
                let mut pool = Pool {
                    claimed,
                    stopping,
                    queued,
                    ..pool(r, p, stale)
                };
                pool.warm
                    .extend((0..sp).map(|n| warm(151 + n, false, STALE)));
                Fleet {
                    spec: spec(target, max),
                    pool,
                    flying: InFlight {
                        warm: fw,
                        claimed: fc,
                    },
                    failures: Failures::default(),
                    good_template,
                    now: NOW,
                    next: 1_000,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_good_template_converges_to_the_target_and_stays(mut fleet in fleet()) {
        fleet.good_template = true;
        for _ in 0..200 {
            fleet.round();
        }
        let settled = fleet.pool.clone();
        for _ in 0..20 {
            let p = fleet.round();
            prop_assert!(p.start == 0 && p.stop.is_empty() && p.admit == 0, "restless: {}", p.because);
        }
        prop_assert_eq!(&settled, &fleet.pool);
        let accepting = u32::try_from(settled.warm.iter().filter(|w| w.ready).count()).unwrap();
        let room = fleet.spec.max_instances.map_or(u32::MAX, |m| m.saturating_sub(settled.claimed));
        if settled.queued > 0 {
            prop_assert_eq!(room, 0, "somebody waits though there is room");
        } else {
            prop_assert_eq!(accepting, fleet.spec.warm.min(room));
            let stale = settled.warm.iter().filter(|w| w.template == STALE).count();
            // Only the very last one may stay, where there is no room for another beside it.
            prop_assert!(stale == 0 || (stale == 1 && accepting == 1 && room == 1), "{stale} stale stay");
        }
    }

    #[test]
    fn a_bad_template_costs_no_good_instance_where_there_is_room_and_never_the_last(mut fleet in fleet()) {
        fleet.good_template = false;
        fleet.pool.queued = 0;
        // The bad template has not been ready anywhere.
        fleet.pool.warm.retain(|w| w.template == STALE && w.ready);
        fleet.flying.warm = 0;
        let room = fleet.spec.max_instances.map_or(u32::MAX, |m| m.saturating_sub(fleet.pool.claimed + fleet.flying.claimed));
        let target = usize::try_from(fleet.spec.warm.min(room)).unwrap();
        let stale = fleet.pool.warm.len();
        for _ in 0..200 {
            let before: HashSet<_> = fleet.pool.warm.iter().filter(|w| w.ready).map(|w| w.id).collect();
            let room = fleet.spec.max_instances.is_none_or(|m| fleet.total() < m);
            let p = fleet.round();
            let lost = p.stop.iter().filter(|id| before.contains(id)).count();
            let surplus = before.len().saturating_sub(target);
            if room {
                prop_assert!(lost <= surplus, "{}", p.because);
            }
        }
        let left = fleet.pool.warm.iter().filter(|w| w.ready).count();
        let had = stale.min(target);
        prop_assert!(left + 1 >= had && (had == 0 || left > 0), "{left} of {had} left");
    }

    #[test]
    fn nothing_is_planned_twice_and_only_what_is_there_is_stopped(fleet in fleet(), failures in 0..5_u32) {
        let failures = Failures { in_a_row: failures, last: Some(NOW) };
        let p = plan(&fleet.spec, &Known::Is(fleet.pool.clone()), fleet.flying, failures, NOW);
        let stop: HashSet<_> = p.stop.iter().collect();
        prop_assert_eq!(stop.len(), p.stop.len());
        prop_assert!(p.stop.iter().all(|id| fleet.pool.warm.iter().any(|w| w.id == *id)));
        prop_assert!(p.admit <= fleet.pool.queued);
        let degraded = failures.degraded(NOW);
        prop_assert!(!degraded || p.start == 0);
        // Nobody starts a good one and stops another good one at once.
        let good_stopped = fleet.pool.warm.iter()
            .filter(|w| w.template == GOOD && stop.contains(&w.id)).count();
        prop_assert!(p.start == 0 || good_stopped == 0);
    }
}
