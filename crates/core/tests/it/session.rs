//! Random lives: events in any order against a world that carries out the effects, with an independent account of what must hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use spawnpoint_core::lifecycle::{
    ActivityRule, Cull, EndedBy, OnCrash, Policy, Reason, Sight, cull, deadlines,
};
use spawnpoint_core::limits::MAX_HEARTBEAT_TTL;
use spawnpoint_core::session::{
    Effect, Event, Exit, Heartbeat, Notice, Phase, Session, Status, step,
};
use spawnpoint_core::{Code, Generation, InstanceId, Known, Moment, SessionId};
use uuid::Uuid;

use crate::invariants;

/// All times are whole seconds, so that ticking every second misses nothing and serves as the reference for `next_look`.
const SECOND: Duration = Duration::from_secs(1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the world does next.
#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Join(usize),
    Leave(usize),
    Connections(usize, u32),
    Sight(bool),
    /// Data that passed this many seconds ago; `None`: from the server.
    Data(Option<usize>, u64),
    Beat {
        player: Option<usize>,
        status: Status,
        idle: u64,
        ttl: Option<u64>,
    },
    Extend(u64, bool),
    Exit(Option<i32>),
    StaleExit,
    End(Reason),
    /// Culls are held from here on, or not any more.
    Hold(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let player = 0..4_usize;
    let status = prop_oneof![
        4 => Just(Status::Active),
        2 => Just(Status::Inactive),
        1 => Just(Status::Busy)
    ];
    prop_oneof![
        12 => (1..70_u64).prop_map(Op::Wait),
        1 => (100..400_u64).prop_map(Op::Wait),
        2 => player.clone().prop_map(Op::Join),
        2 => player.clone().prop_map(Op::Leave),
        8 => (player.clone(), 0..3_u32).prop_map(|(p, n)| Op::Connections(p, n)),
        2 => any::<bool>().prop_map(Op::Sight),
        6 => (proptest::option::weighted(0.8, player.clone()), 0..100_u64)
            .prop_map(|(p, ago)| Op::Data(p, ago)),
        8 => (
            proptest::option::weighted(0.8, player),
            status,
            prop_oneof![Just(0), 0..250_u64],
            proptest::option::weighted(0.3, 0..5_000_u64),
        )
            .prop_map(|(player, status, idle, ttl)| Op::Beat { player, status, idle, ttl }),
        2 => (0..4_000_u64, any::<bool>()).prop_map(|(to, raise)| Op::Extend(to, raise)),
        2 => proptest::option::of(0..3_i32).prop_map(Op::Exit),
        1 => Just(Op::StaleExit),
        1 => prop_oneof![
            Just(Reason::EndedByClient),
            Just(Reason::Quota),
            Just(Reason::Shutdown)
        ]
        .prop_map(Op::End),
        1 => any::<bool>().prop_map(Op::Hold),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let limit =
        |choices: Vec<u64>| proptest::option::weighted(0.8, proptest::sample::select(choices));
    (
        (
            limit(vec![20, 90, 300]),
            limit(vec![50, 600, 1_800]),
            limit(vec![50, 1_200, 3_600]),
        ),
        (
            limit(vec![10, 60]),
            proptest::sample::select(vec![0, 5, 30]),
        ),
        proptest::sample::select(vec![
            ActivityRule::ClientData,
            ActivityRule::Any,
            ActivityRule::Heartbeat,
        ]),
        proptest::sample::select(vec![OnCrash::Replace, OnCrash::Restart, OnCrash::End]),
        proptest::sample::select(vec![Sight::Gateway, Sight::Requests, Sight::Direct]),
    )
        .prop_map(
            |((idle, max, max_limit), (join, reconnect), activity, on_crash, sight)| Policy {
                idle: idle.map(secs),
                max: max.map(secs),
                max_limit: max_limit.map(secs),
                join: join.map(secs),
                reconnect: secs(reconnect),
                activity,
                on_crash,
                sight,
                max_players: 3,
                ..Policy::default()
            },
        )
}

/// How the world's instances behave: seconds from order to grant and from grant to accepting, and what fails.
#[derive(Clone, Debug)]
struct Starts {
    grant: u64,
    boot: u64,
    /// Every n-th start fails.
    fails: Option<usize>,
}

fn starts() -> impl Strategy<Value = Starts> {
    (
        0..5_u64,
        prop_oneof![9 => 0..20_u64, 1 => Just(50)],
        proptest::option::weighted(0.2, 1..4_usize),
    )
        .prop_map(|(grant, boot, fails)| Starts { grant, boot, fails })
}

struct World {
    session: Session,
    now: Moment,
    starts: Starts,
    ordered: usize,
    hold: bool,
    /// Ticks every second as well, not only when `next_look` says so.
    dense: bool,
    pending: Vec<(Moment, Event)>,
    heard: Vec<(Moment, Notice)>,
    records: usize,
    /// The latest activity by our own account.
    active: Option<Moment>,
}

impl World {
    fn new(policy: Policy, starts: Starts, dense: bool) -> Self {
        let session = Session::new(
            SessionId::new(Uuid::from_u128(1)),
            "arena".parse().unwrap(),
            Arc::new(policy),
            vec![player(0), player(1)],
            Moment(0),
        );
        let mut world = Self {
            session,
            now: Moment(0),
            starts,
            ordered: 0,
            hold: false,
            dense,
            pending: Vec::new(),
            heard: Vec::new(),
            records: 0,
            active: None,
        };
        world.order(Generation::FIRST, Moment(0));
        world
    }

    fn order(&mut self, generation: Generation, not_before: Moment) {
        self.ordered += 1;
        let at = not_before.max(self.now).after(secs(self.starts.grant));
        let event = if self
            .starts
            .fails
            .is_some_and(|n| self.ordered.is_multiple_of(n))
        {
            Event::CannotStart(Code::PortsExhausted)
        } else {
            let instance = InstanceId::new(Uuid::from_u128(100 + self.ordered as u128));
            Event::Granted {
                instance,
                generation,
            }
        };
        self.pending.push((at, event));
    }

    /// One event through `step`, with everything that must hold of it, and its effects carried out.
    fn happen(&mut self, event: &Event) {
        let before = self.session.clone();
        let outcome = step(&before, event, self.now);
        let context = format!("at {:?}: {event:?} in {}", self.now, before.phase.as_str());
        invariants::check(&before, event, &outcome, &context);
        let Ok(done) = outcome else {
            self.check_tick(&before, event, &context);
            return;
        };
        self.session = done.next;
        self.check_heartbeat(&before, event, &context);
        self.check_end(&before, event, &context);
        if let Event::Granted { generation, .. } = event {
            let at = self.now.after(secs(self.starts.boot));
            self.pending.push((at, Event::Accepting(*generation)));
        }
        for effect in done.effects {
            match effect {
                Effect::Save => {}
                Effect::Acquire {
                    generation,
                    not_before,
                    ..
                } => self.order(generation, not_before),
                Effect::Stop(_) => {
                    let over = Exit::with_code(0, self.now.after(secs(3)));
                    let exited = Event::Exited(self.session.generation, over);
                    self.pending.push((over.at, exited));
                }
                Effect::Record => {
                    self.records += 1;
                    self.pending.push((self.now.after(SECOND), Event::Recorded));
                }
                Effect::Announce(notice) => self.heard.push((self.now, notice)),
            }
        }
        self.check_tick(&before, event, &context);
    }

    /// Never later than the next tick after the deadline; nothing holds a maximum or a start limit back.
    fn check_tick(&self, before: &Session, event: &Event, context: &str) {
        let Event::Tick { hold } = event else { return };
        for c in deadlines(&self.session) {
            let held =
                *hold && matches!(c.reason, Reason::Idle | Reason::Empty | Reason::NeverJoined);
            assert!(held || c.at > self.now, "{context}: {c:?} is overdue");
        }
        if !hold && before.phase.is_live() {
            let next = self.session.next_look(self.now);
            assert!(
                next.is_none_or(|n| n > self.now),
                "{context}: looks again at once, for ever"
            );
        }
    }

    /// Never earlier than the rules say, by the session's own account and by ours.
    fn check_end(&self, before: &Session, event: &Event, context: &str) {
        let (Some(end), None) = (self.session.ending, before.ending) else {
            return;
        };
        if let Event::Tick { hold } = event {
            let held = matches!(
                end.reason,
                Reason::Idle | Reason::Empty | Reason::NeverJoined
            );
            assert!(!(*hold && held), "{context}: culled while held");
            let due = deadlines(before).find(|c| c.reason == end.reason && c.at <= self.now);
            assert!(due.is_some(), "{context}: {end:?} is not due");
        }
        let policy = &before.policy;
        if end.reason == Reason::Idle {
            let idle = policy.idle.unwrap();
            assert!(
                self.active.is_none_or(|a| a.after(idle) <= self.now),
                "{context}: too early"
            );
        }
        let rests_on_reports = matches!(end.reason, Reason::Empty | Reason::NeverJoined);
        if let Known::Unknown { since } = before.sight {
            let blind = policy.sight != Sight::Direct;
            assert!(
                !(rests_on_reports && blind),
                "{context}: unknown is not none"
            );
            let timeout = match end.reason {
                Reason::Idle => policy.idle,
                Reason::Empty => Some(policy.reconnect),
                _ => None,
            };
            assert!(
                timeout.is_none_or(|t| since.after(t) <= self.now),
                "{context}: culled earlier than since + timeout"
            );
        }
        if rests_on_reports {
            assert_eq!(before.present(self.now), 0, "{context}: somebody is there");
            assert!(
                before.busy_until.is_none_or(|b| b <= self.now),
                "{context}: busy"
            );
        }
        if end.reason == Reason::NeverJoined {
            assert_eq!(before.first_joined_at, None, "{context}");
        }
    }

    fn check_heartbeat(&self, before: &Session, event: &Event, context: &str) {
        let Event::Heartbeat(beat) = event else {
            return;
        };
        if !before.phase.is_live() {
            return;
        }
        let of = |s: &Session, reason| deadlines(s).find(|c| c.reason == reason).map(|c| c.at);
        assert_eq!(
            of(before, Reason::MaxDuration),
            of(&self.session, Reason::MaxDuration),
            "{context}: a heartbeat moved the maximum"
        );
        match beat.status {
            Status::Inactive => assert_eq!(
                of(before, Reason::Idle),
                of(&self.session, Reason::Idle),
                "{context}: inactive moved the idle deadline"
            ),
            Status::Busy => {
                let ttl = beat.ttl.unwrap_or(secs(15)).min(MAX_HEARTBEAT_TTL);
                for r in [Reason::Idle, Reason::Empty, Reason::NeverJoined] {
                    let held = of(&self.session, r).is_none_or(|at| at >= self.now.after(ttl));
                    assert!(held, "{context}: busy does not hold {r:?}");
                }
            }
            Status::Active => {}
        }
    }

    /// Lets time pass: what is pending happens at its moment, ticks come when the session asks for them.
    fn wait(&mut self, seconds: u64) {
        let until = self.now.after(secs(seconds));
        loop {
            let pending = self.pending.iter().map(|(at, _)| *at).min();
            let mut look = self.session.next_look(self.now);
            if self.hold {
                // What is held stays due: whoever holds looks at its own pace, here every second.
                look = look.map(|l| l.max(self.now.after(SECOND)));
            }
            let dense = self.dense.then(|| self.now.after(SECOND));
            let next = [pending, look, dense].into_iter().flatten().min();
            let Some(next) = next.filter(|n| *n <= until) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(i) = self.pending.iter().position(|(at, _)| *at <= self.now) {
                let (_, event) = self.pending.remove(i);
                self.happen(&event);
            }
            self.happen(&Event::Tick { hold: self.hold });
        }
        self.now = until;
    }

    fn act(&mut self, op: &Op) {
        let now = self.now;
        let event = match op {
            Op::Wait(seconds) => return self.wait(*seconds),
            Op::Hold(hold) => {
                self.hold = *hold;
                return;
            }
            Op::Join(p) => Event::Join(player(*p)),
            Op::Leave(p) => Event::Leave(player(*p)),
            Op::Connections(p, n) => Event::Connections(player(*p), *n),
            Op::Sight(true) => Event::SightRegained,
            Op::Sight(false) => Event::SightLost,
            Op::Data(p, ago) => {
                let at = now.before(secs(*ago));
                let rule = self.session.policy.activity;
                let counts = p.is_some_and(|p| self.session.player(&player(p)).is_some());
                if counts && rule != ActivityRule::Heartbeat {
                    self.active = self.active.max(Some(at));
                }
                Event::Data(p.map(player), at)
            }
            Op::Beat {
                player: p,
                status,
                idle,
                ttl,
            } => {
                let known = p.is_none_or(|p| self.session.player(&player(p)).is_some());
                if *status == Status::Active && known {
                    self.active = self.active.max(Some(now.before(secs(*idle))));
                }
                Event::Heartbeat(Heartbeat {
                    player: p.map(player),
                    status: *status,
                    idle: secs(*idle),
                    ttl: ttl.map(secs),
                })
            }
            Op::Extend(to, raise) => Event::Extend {
                to: now.after(secs(*to)),
                raise: *raise,
            },
            Op::Exit(code) => {
                let mut exit = Exit::with_code(0, now);
                (exit.code, exit.lost) = (*code, code.is_none());
                Event::Exited(self.session.generation, exit)
            }
            Op::StaleExit => {
                let old = Generation(self.session.generation.0 - 1);
                let exit = Exit::with_code(1, now);
                let before = self.session.clone();
                self.happen(&Event::Exited(old, exit));
                assert_eq!(before, self.session, "a stale exit changed something");
                return;
            }
            Op::End(reason) => Event::End {
                reason: *reason,
                by: EndedBy::Backend,
            },
        };
        self.happen(&event);
    }

    fn drain(&mut self) {
        self.hold = false;
        self.happen(&Event::End {
            reason: Reason::Shutdown,
            by: EndedBy::System,
        });
        self.wait(600);
    }
}

fn player(n: usize) -> spawnpoint_core::PlayerId {
    ["ann", "ben", "cat", "dan"][n].parse().unwrap()
}

fn cases() -> ProptestConfig {
    ProptestConfig::default()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_life_drains_to_one_record_with_its_first_reason(
        policy in policy(), starts in starts(), ops in proptest::collection::vec(op(), 0..60),
    ) {
        let mut world = World::new(policy, starts, false);
        for op in &ops {
            world.act(op);
        }
        world.drain();
        prop_assert_eq!(world.session.phase, Phase::Ended);
        prop_assert_eq!(world.records, 1);
        let ends: Vec<_> = world.heard.iter()
            .filter_map(|(at, n)| match n { Notice::Ended(r) => Some((*at, *r)), _ => None })
            .collect();
        let end = world.session.ending.unwrap();
        prop_assert_eq!(ends, vec![(end.at, end.reason)]);
        prop_assert!(world.pending.is_empty(), "work is left: {:?}", world.pending);
    }

    #[test]
    fn next_look_misses_nothing_that_ticking_every_second_finds(
        policy in policy(), starts in starts(), ops in proptest::collection::vec(op(), 0..40),
    ) {
        let mut sparse = World::new(policy.clone(), starts.clone(), false);
        let mut dense = World::new(policy, starts, true);
        for op in &ops {
            sparse.act(op);
            dense.act(op);
        }
        sparse.drain();
        dense.drain();
        prop_assert_eq!(sparse.heard, dense.heard);
        prop_assert_eq!(sparse.session.ending, dense.session.ending);
    }

    #[test]
    fn each_deadline_is_warned_of_once_per_threshold(
        policy in policy(), starts in starts(), ops in proptest::collection::vec(op(), 0..60),
    ) {
        let thresholds = policy.warnings.len();
        let longest = *policy.warnings.iter().max().unwrap();
        let mut world = World::new(policy, starts, false);
        for op in &ops {
            world.act(op);
        }
        let mut said: HashMap<(Reason, i64), usize> = HashMap::new();
        for (at, notice) in &world.heard {
            let Notice::Warning { reason, cull_at } = notice else { continue };
            prop_assert!(cull_at.since(*at) <= longest && cull_at > at, "{reason:?} {cull_at:?} at {at:?}");
            let n = said.entry((*reason, cull_at.0)).or_default();
            *n += 1;
            prop_assert!(*n <= thresholds, "{reason:?} {cull_at:?} said {n} times");
        }
    }

    /// A client that never stops heartbeating is gone at the maximum's limit, whatever else happens (nobody raises it here).
    #[test]
    fn nothing_outlives_the_limit(
        policy in policy(),
        ops in proptest::collection::vec(
            op().prop_filter("nobody raises the limit", |op| !matches!(op, Op::Extend(_, true))), 0..40,
        ),
    ) {
        prop_assume!(policy.max_limit.is_some());
        let limit = policy.max_limit.unwrap();
        let starts = Starts { grant: 1, boot: 2, fails: None };
        let mut world = World::new(policy, starts, false);
        let active = Op::Beat { player: None, status: Status::Active, idle: 0, ttl: None };
        let busy = Op::Beat { player: None, status: Status::Busy, idle: 0, ttl: Some(3_600) };
        for op in &ops {
            for op in [op, &active, &busy] {
                world.act(op);
            }
            if let Some(granted) = world.session.granted_at && world.session.phase.is_live() {
                prop_assert!(world.now < granted.after(limit));
            }
        }
        // And without anything else, for ever.
        for _ in 0..1_000 {
            for op in [&active, &busy, &Op::Wait(5)] {
                world.act(op);
            }
        }
        prop_assert!(!world.session.phase.is_live());
    }

    #[test]
    fn the_first_deadline_is_the_least_of_all(
        policy in policy(), starts in starts(), ops in proptest::collection::vec(op(), 0..40),
    ) {
        let mut world = World::new(policy, starts, false);
        for op in &ops {
            world.act(op);
            let all: Vec<Cull> = deadlines(&world.session).collect();
            prop_assert_eq!(cull(&world.session).map(|c| c.at), all.iter().map(|c| c.at).min());
            prop_assert!(all.iter().filter(|c| c.reason == Reason::MaxDuration).count() <= 1);
            prop_assert!(world.session.phase.is_live() || all.is_empty());
        }
    }
}
