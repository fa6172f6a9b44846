//! The numbers of the lifecycle, to the second.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::lifecycle::{
    ActivityRule, EndedBy, OnCrash, Policy, Reason, Sight, brake_counts, cull,
};
use spawnpoint_core::limits::MAX_HEARTBEAT_TTL;
use spawnpoint_core::session::{
    Effect, EndCaller, EndMeaning, Event, Exit, Heartbeat, Notice, Phase, Rejected, Session,
    Status, Step, step,
};
use spawnpoint_core::{Code, Generation, InstanceId, Moment, PlayerId, SessionId};
use uuid::Uuid;

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn at(seconds: i64) -> Moment {
    Moment(seconds * 1_000)
}

pub(crate) fn player(name: &str) -> PlayerId {
    name.parse().unwrap()
}

pub(crate) fn instance(n: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(n))
}

/// A session and what was said and done about it. Times are seconds from the call.
pub(crate) struct Life {
    pub(crate) session: Session,
    pub(crate) effects: Vec<(Moment, Effect)>,
}

impl Life {
    pub(crate) fn queued(policy: Policy) -> Self {
        let session = Session::new(
            SessionId::new(Uuid::from_u128(1)),
            "arena".parse().unwrap(),
            Arc::new(policy),
            vec![player("ann"), player("ben")],
            at(0),
        );
        Self {
            session,
            effects: Vec::new(),
        }
    }

    /// Granted at 1 s.
    pub(crate) fn starting(policy: Policy) -> Self {
        let mut life = Self::queued(policy);
        life.grant(1, 1);
        life
    }

    /// Ready at 10 s.
    pub(crate) fn ready(policy: Policy) -> Self {
        let mut life = Self::starting(policy);
        life.does(10, Event::Accepting(Generation::FIRST));
        life
    }

    /// Ann came at 20 s.
    pub(crate) fn running(policy: Policy) -> Self {
        let mut life = Self::ready(policy);
        life.does(20, Event::Connections(player("ann"), 1));
        life
    }

    pub(crate) fn offer(&mut self, now: Moment, event: &Event) -> Result<Step, Rejected> {
        let step = step(&self.session, event, now)?;
        self.session = step.next.clone();
        self.effects
            .extend(step.effects.iter().map(|e| (now, e.clone())));
        Ok(step)
    }

    pub(crate) fn does(&mut self, second: i64, event: Event) {
        self.offer(at(second), &event).unwrap();
    }

    pub(crate) fn grant(&mut self, second: i64, n: u128) {
        let generation = self.session.generation;
        self.does(
            second,
            Event::Granted {
                instance: instance(n),
                generation,
            },
        );
    }

    pub(crate) fn crash(&mut self, second: i64) {
        let exit = Exit::with_code(3, at(second));
        self.does(second, Event::Exited(self.session.generation, exit));
    }

    pub(crate) fn beat(
        &mut self,
        second: i64,
        who: Option<&str>,
        status: Status,
        idle_ms: u64,
        ttl: Option<u64>,
    ) {
        let beat = Heartbeat {
            player: who.map(player),
            status,
            idle: Duration::from_millis(idle_ms),
            ttl: ttl.map(secs),
        };
        self.does(second, Event::Heartbeat(beat));
    }

    pub(crate) fn data(&mut self, second: i64, who: &str) {
        self.does(second, Event::Data(Some(player(who)), at(second)));
    }

    /// Ticks as the session asks until it ends, at most this many seconds. What was warned of on the way, and the end.
    pub(crate) fn runs_to(&mut self, until: i64) -> Option<(Moment, Reason)> {
        let mut now = Moment(0);
        while let Some(next) = self.session.next_look(now).filter(|n| *n <= at(until)) {
            now = next;
            let before = self.session.clone();
            if self.offer(now, &Event::Tick { hold: false }).is_err() {
                assert!(
                    self.session.next_look(now) > Some(now),
                    "stuck at {now:?}: {before:?}"
                );
            }
        }
        self.session.ending.map(|e| (e.at, e.reason))
    }

    pub(crate) fn warnings(&self) -> Vec<(i64, Reason)> {
        let said = self.effects.iter().filter_map(|(at, e)| match e {
            Effect::Announce(Notice::Warning { reason, .. }) => Some((at.0 / 1_000, *reason)),
            _ => None,
        });
        said.collect()
    }

    pub(crate) fn heard(&self, notice: &Notice) -> usize {
        let announce = Effect::Announce(notice.clone());
        self.effects.iter().filter(|(_, e)| *e == announce).count()
    }

    pub(crate) fn next(&self) -> Option<(Moment, Reason)> {
        cull(&self.session).map(|c| (c.at, c.reason))
    }
}

fn unlimited() -> Policy {
    Policy {
        idle: None,
        max: None,
        max_limit: None,
        join: None,
        ..Policy::default()
    }
}

#[test]
fn the_documented_defaults() {
    let p = Policy::default();
    assert_eq!(p.heartbeat, secs(5));
    assert_eq!(p.idle, Some(secs(300)));
    assert_eq!((p.max, p.max_limit), (Some(secs(1_800)), Some(secs(1_800))));
    assert_eq!((p.queue, p.boot), (secs(300), secs(45)));
    assert_eq!((p.join, p.reconnect), (Some(secs(60)), secs(30)));
    assert_eq!(p.warnings, [secs(60), secs(10)]);
    assert_eq!(p.grace, secs(10));
    assert_eq!(
        (p.activity, p.on_crash),
        (ActivityRule::ClientData, OnCrash::Replace)
    );
}

#[test]
fn idle_time_of_a_heartbeat_counts_in_milliseconds() {
    let mut life = Life::running(Policy::default());
    // Ann came at 20 s; 200 s later she says that her last input was 200 s ago: nothing newer is known.
    life.beat(250, Some("ann"), Status::Active, 200_000, None);
    assert_eq!(life.next(), Some((at(350), Reason::Idle)));
    life.beat(260, Some("ann"), Status::Active, 1, None);
    assert_eq!(life.next(), Some((Moment(559_999), Reason::Idle)));
    // An older claim than what is known changes nothing.
    life.beat(261, Some("ann"), Status::Active, 100_000, None);
    assert_eq!(life.next(), Some((Moment(559_999), Reason::Idle)));
}

#[test]
fn without_input_it_is_idle_at_300_s_and_input_at_299_s_prevents_it() {
    let mut life = Life::running(Policy::default());
    assert_eq!(life.runs_to(10_000), Some((at(320), Reason::Idle)));
    assert_eq!(life.warnings(), [(260, Reason::Idle), (310, Reason::Idle)]);

    let mut life = Life::running(Policy::default());
    assert_eq!(life.runs_to(319), None);
    life.data(319, "ann");
    assert_eq!(life.runs_to(618), None);
    assert_eq!(life.runs_to(619), Some((at(619), Reason::Idle)));
}

#[test]
fn inactive_never_moves_the_deadline_and_holds_until_the_next_data() {
    let mut life = Life::running(Policy::default());
    life.beat(200, Some("ann"), Status::Inactive, 0, None);
    assert_eq!(life.next(), Some((at(320), Reason::Idle)));
    // A report made later, of data from before: it counts, and does not contradict her.
    life.does(201, Event::Data(Some(player("ann")), at(199)));
    assert!(life.session.player(&player("ann")).unwrap().inactive);
    assert_eq!(life.next(), Some((at(499), Reason::Idle)));
    life.data(202, "ann");
    assert!(!life.session.player(&player("ann")).unwrap().inactive);
}

#[test]
fn a_constantly_active_session_ends_at_its_maximum_with_both_warnings() {
    let mut life = Life::running(Policy::default());
    for second in 21..1_801 {
        life.data(second, "ann");
        assert_eq!(life.runs_to(second), None, "at {second}");
    }
    assert_eq!(life.runs_to(10_000), Some((at(1_801), Reason::MaxDuration)));
    let max = Reason::MaxDuration;
    assert_eq!(life.warnings(), [(1_741, max), (1_791, max)]);
}

#[test]
fn nobody_ever_came() {
    let mut life = Life::ready(Policy::default());
    assert_eq!(life.runs_to(69), None);
    assert_eq!(life.runs_to(70), Some((at(70), Reason::NeverJoined)));
    // Whoever is invited at the last moment has as long.
    let mut life = Life::ready(Policy::default());
    life.does(69, Event::Join(player("cat")));
    assert_eq!(life.runs_to(10_000), Some((at(129), Reason::NeverJoined)));
}

#[test]
fn the_reconnect_grace_is_30_s_and_coming_back_stops_it() {
    let mut life = Life::running(Policy::default());
    life.does(100, Event::Connections(player("ann"), 0));
    assert_eq!(life.next(), Some((at(130), Reason::Empty)));
    life.does(129, Event::Connections(player("ann"), 1));
    // Coming back is no input.
    assert_eq!(life.next(), Some((at(320), Reason::Idle)));
    life.does(150, Event::Connections(player("ann"), 0));
    assert_eq!(life.runs_to(10_000), Some((at(180), Reason::Empty)));
}

#[test]
fn who_came_and_left_between_two_reports_was_there() {
    // Nobody has to have been seen while they were connected: the grace counts from the visit, and nobody stayed away.
    for policy in [
        Policy::default(),
        Policy {
            join: None,
            idle: None,
            max: None,
            max_limit: None,
            ..Policy::default()
        },
    ] {
        let mut life = Life::ready(policy);
        life.does(20, Event::Connections(player("ann"), 0));
        assert_eq!(life.session.phase, Phase::Running);
        assert_eq!(life.session.first_joined_at, Some(at(20)));
        assert_eq!(life.next(), Some((at(50), Reason::Empty)));
        // Another such visit counts anew.
        life.does(40, Event::Connections(player("ann"), 0));
        assert_eq!(life.runs_to(10_000), Some((at(70), Reason::Empty)));
    }
}

#[test]
fn a_grace_of_0_ends_with_the_last_player() {
    let mut life = Life::running(Policy {
        reconnect: secs(0),
        ..Policy::default()
    });
    life.does(30, Event::Connections(player("ben"), 1));
    life.does(100, Event::Connections(player("ann"), 0));
    assert_eq!(life.runs_to(100), None);
    life.does(101, Event::Connections(player("ben"), 0));
    assert_eq!(life.runs_to(101), Some((at(101), Reason::Empty)));
}

#[test]
fn whoever_is_taken_off_the_roster_leaves_at_that_moment() {
    // Ann is kicked; ben is on the roster and never came: nobody is there.
    let mut life = Life::running(Policy {
        idle: None,
        ..Policy::default()
    });
    life.does(100, Event::Leave(player("ann")));
    assert_eq!(life.next(), Some((at(130), Reason::Empty)));
    assert_eq!(life.session.owner, Some(player("ben")));
    // Ben as well: the grace still counts from ann, the last who was there.
    life.does(110, Event::Leave(player("ben")));
    assert_eq!(life.next(), Some((at(130), Reason::Empty)));
    assert_eq!(life.session.owner, None);
    // Somebody new gets a whole grace to arrive.
    life.does(129, Event::Join(player("cat")));
    assert_eq!(life.next(), Some((at(159), Reason::Empty)));
    assert_eq!(life.session.owner, Some(player("cat")));
    assert_eq!(life.runs_to(10_000), Some((at(159), Reason::Empty)));
}

#[test]
fn what_a_player_did_stays_counted_when_they_leave() {
    let mut life = Life::running(Policy::default());
    life.does(21, Event::Connections(player("ben"), 1));
    life.data(310, "ann");
    life.does(311, Event::Leave(player("ann")));
    assert_eq!(
        life.next(),
        Some((at(610), Reason::Idle)),
        "ben's deadline was 321 s"
    );
}

#[test]
fn unlimited_means_that_only_people_and_the_game_end_it() {
    let mut life = Life::running(unlimited());
    assert_eq!(life.runs_to(1_000_000), None);
    assert_eq!(life.next(), None);
    assert!(
        life.offer(
            at(500),
            &Event::Extend {
                to: at(9_999),
                raise: true
            }
        )
        .is_err()
    );
    let mut life = Life::ready(unlimited());
    assert_eq!(life.runs_to(1_000_000), None);
    life.does(
        2_000_000,
        Event::Exited(Generation::FIRST, Exit::with_code(0, at(2_000_000))),
    );
    assert_eq!(life.session.ending.unwrap().reason, Reason::EndedByServer);
}

#[test]
fn a_limit_without_a_first_deadline_or_below_it_is_the_deadline() {
    let no_max = Policy {
        max: None,
        max_limit: Some(secs(50)),
        ..Policy::default()
    };
    assert_eq!(
        Life::running(no_max).next(),
        Some((at(51), Reason::MaxDuration))
    );
    let below = Policy {
        max: Some(secs(90)),
        max_limit: Some(secs(50)),
        ..Policy::default()
    };
    assert_eq!(
        Life::running(below).next(),
        Some((at(51), Reason::MaxDuration))
    );
}

#[test]
fn extending_stops_at_the_limit_and_only_backends_raise_it() {
    let policy = Policy {
        max: Some(secs(100)),
        max_limit: Some(secs(200)),
        ..Policy::default()
    };
    let mut life = Life::running(policy);
    life.does(
        30,
        Event::Extend {
            to: at(150),
            raise: false,
        },
    );
    assert_eq!(life.next(), Some((at(150), Reason::MaxDuration)));
    life.does(
        31,
        Event::Extend {
            to: at(9_999),
            raise: false,
        },
    );
    assert_eq!(life.next(), Some((at(201), Reason::MaxDuration)));
    let more = Event::Extend {
        to: at(9_999),
        raise: false,
    };
    assert!(
        life.offer(at(32), &more)
            .unwrap_err()
            .because
            .contains("limit")
    );
    life.does(
        33,
        Event::Extend {
            to: at(260),
            raise: true,
        },
    );
    assert_eq!(life.next(), Some((at(260), Reason::MaxDuration)));
    assert_eq!(life.session.extends, 3);
    assert!(Life::queued(Policy::default()).offer(at(1), &more).is_err());
}

#[test]
fn a_moved_deadline_is_warned_of_again() {
    let policy = Policy {
        max: Some(secs(100)),
        max_limit: Some(secs(200)),
        ..Policy::default()
    };
    let mut life = Life::running(policy);
    assert_eq!(life.runs_to(92), None);
    life.does(
        93,
        Event::Extend {
            to: at(160),
            raise: false,
        },
    );
    assert_eq!(life.runs_to(1_000), Some((at(160), Reason::MaxDuration)));
    let at: Vec<_> = life.warnings().into_iter().map(|(at, _)| at).collect();
    assert_eq!(at, [41, 91, 100, 150]);
}

#[test]
fn a_deadline_that_creeps_by_milliseconds_is_no_news() {
    let mut life = Life::running(Policy::default());
    // The same last input, 250 s ago and more, reported every 5 s with up to 40 ms of jitter.
    for (i, second) in (271..320).step_by(5).enumerate() {
        let now = Moment(second * 1_000 + 40 + i as i64);
        let idle = Duration::from_millis(u64::try_from(second - 20).unwrap() * 1_000);
        let beat = Heartbeat {
            player: Some(player("ann")),
            status: Status::Active,
            idle,
            ttl: None,
        };
        life.offer(now, &Event::Heartbeat(beat)).unwrap();
        let _ = life.offer(now, &Event::Tick { hold: false });
    }
    assert_eq!(life.warnings().len(), 2);
}

#[test]
fn a_warning_as_long_as_its_rule_says_nothing() {
    let mut life = Life::running(Policy {
        max: Some(secs(60)),
        ..Policy::default()
    });
    assert_eq!(life.runs_to(100), Some((at(61), Reason::MaxDuration)));
    assert_eq!(life.warnings(), [(51, Reason::MaxDuration)]);
    let short = Policy {
        max: Some(secs(10)),
        join: None,
        ..Policy::default()
    };
    let mut life = Life::starting(short);
    assert_eq!(life.runs_to(100), Some((at(11), Reason::MaxDuration)));
    assert_eq!(life.warnings(), []);
}

#[test]
fn a_late_tick_announces_the_nearest_warning_only() {
    let mut life = Life::running(Policy::default());
    life.does(315, Event::Tick { hold: false });
    assert_eq!(life.warnings(), [(315, Reason::Idle)]);
    assert_eq!(life.session.next_look(at(315)), Some(at(320)));
}

#[test]
fn a_held_idle_cull_does_not_hold_the_maximum() {
    let mut life = Life::running(Policy {
        max: Some(secs(400)),
        ..Policy::default()
    });
    let held = Event::Tick { hold: true };
    assert!(
        life.offer(at(320), &held)
            .unwrap_err()
            .because
            .contains("held")
    );
    life.does(392, held.clone());
    assert_eq!(life.warnings().last(), Some(&(392, Reason::MaxDuration)));
    life.does(401, held);
    assert_eq!(life.session.ending.unwrap().reason, Reason::MaxDuration);
    // Without a hold the one that was due first gives the reason.
    let mut life = Life::running(Policy {
        max: Some(secs(400)),
        ..Policy::default()
    });
    life.does(500, Event::Tick { hold: false });
    assert_eq!(life.session.ending.unwrap().reason, Reason::Idle);
    // Both at the same moment: the maximum.
    let mut life = Life::running(Policy {
        max: Some(secs(319)),
        ..Policy::default()
    });
    life.does(500, Event::Tick { hold: false });
    assert_eq!(life.session.ending.unwrap().reason, Reason::MaxDuration);
}

#[test]
fn busy_holds_everything_but_the_maximum() {
    let mut life = Life::running(Policy::default());
    life.beat(21, None, Status::Busy, 0, Some(1_000));
    life.does(22, Event::Connections(player("ann"), 0));
    assert_eq!(life.next(), Some((at(1_021), Reason::Empty)));
    life.beat(500, None, Status::Busy, 0, Some(3_000));
    assert_eq!(life.runs_to(9_000), Some((at(1_801), Reason::MaxDuration)));
    // Three heartbeat periods when it does not say, an hour when it says more.
    let mut life = Life::ready(Policy::default());
    life.beat(60, None, Status::Busy, 0, None);
    assert_eq!(life.next(), Some((at(75), Reason::NeverJoined)));
    life.beat(61, None, Status::Busy, 0, Some(u64::MAX));
    assert_eq!(
        life.session.busy_until,
        Some(at(61).after(MAX_HEARTBEAT_TTL))
    );
}

#[test]
fn a_start_has_45_s_from_its_grant_and_the_queue_5_min() {
    assert_eq!(
        Life::starting(Policy::default()).runs_to(999),
        Some((at(46), Reason::StartFailed))
    );
    let mut life = Life::queued(Policy::default());
    assert_eq!(life.runs_to(9_999), Some((at(300), Reason::StartFailed)));
    assert_eq!(life.session.ending.unwrap().code, Some(Code::Capacity));
    // The wait before does not count, the hold does not help.
    let mut life = Life::queued(Policy::default());
    life.grant(200, 1);
    assert_eq!(life.next(), Some((at(245), Reason::StartFailed)));
    life.does(245, Event::Tick { hold: true });
    assert_eq!(life.session.ending.unwrap().code, Some(Code::StartFailed));
}

#[test]
fn a_crash_is_replaced_at_once_then_after_a_second_and_the_third_in_60_s_ends_it() {
    let acquires = |life: &Life| -> Vec<_> {
        let found = life.effects.iter().filter_map(|(at, e)| match e {
            Effect::Acquire {
                generation,
                in_place,
                not_before,
            } => Some((generation.0, *in_place, not_before.since(*at))),
            _ => None,
        });
        found.collect()
    };
    for (on_crash, in_place) in [(OnCrash::Replace, false), (OnCrash::Restart, true)] {
        let mut life = Life::running(Policy {
            on_crash,
            ..Policy::default()
        });
        life.crash(100);
        assert_eq!(life.session.phase, Phase::Replacing);
        // Dead, and named still: a record or a restart in place needs to know which it was.
        assert_eq!(
            (life.session.instance, life.session.live_instance()),
            (Some(instance(1)), None)
        );
        life.grant(101, 2);
        life.does(103, Event::Accepting(Generation(2)));
        assert_eq!(life.session.phase, Phase::Running, "somebody has played");
        life.crash(110);
        // The pause does not eat into the start.
        assert_eq!(life.next(), Some((at(111 + 45), Reason::Crashed)));
        life.grant(112, 3);
        life.does(114, Event::Accepting(Generation(3)));
        assert_eq!(
            acquires(&life),
            [(2, in_place, secs(0)), (3, in_place, secs(1))]
        );
        let (mut slow, second) = (
            Life {
                session: life.session.clone(),
                effects: Vec::new(),
            },
            160,
        );
        slow.crash(second);
        assert_eq!(slow.session.phase, Phase::Replacing, "100 s is 60 s ago");
        life.crash(159);
        let end = life.session.ending.unwrap();
        assert_eq!((end.reason, end.by), (Reason::Crashed, EndedBy::System));
        assert!(life.effects.iter().any(|(_, e)| *e == Effect::Record));
    }
    let mut life = Life::running(Policy {
        on_crash: OnCrash::End,
        ..Policy::default()
    });
    life.crash(100);
    assert_eq!(life.session.ending.unwrap().reason, Reason::Crashed);
}

#[test]
fn crashes_count_by_when_they_happened_not_by_when_they_were_heard_of() {
    // The server was dead from 112 s to 300 s; the game died meanwhile.
    for (died, end) in [(120, Some(Reason::Crashed)), (165, None)] {
        let mut life = Life::running(Policy::default());
        life.session.crashes = vec![at(100), at(110)];
        life.does(
            300,
            Event::Exited(Generation::FIRST, Exit::with_code(3, at(died))),
        );
        assert_eq!(life.session.ending.map(|e| e.reason), end, "died at {died}");
        assert_eq!(life.session.crashes.last(), Some(&at(died)));
    }
}

#[test]
fn what_never_was_ready_failed_to_start_and_what_was_crashed() {
    let mut life = Life::starting(Policy::default());
    for (second, n) in [(2, 2), (3, 3), (4, 4)] {
        life.crash(second);
        if life.session.phase == Phase::Replacing {
            life.grant(second, n);
        }
    }
    let end = life.session.ending.unwrap();
    assert_eq!(
        (end.reason, end.code),
        (Reason::StartFailed, Some(Code::StartFailed))
    );
    // It played, crashed, and nothing could be had for it again.
    let mut life = Life::running(Policy::default());
    life.crash(100);
    life.does(101, Event::CannotStart(Code::PortsExhausted));
    let end = life.session.ending.unwrap();
    assert_eq!(
        (end.reason, end.code),
        (Reason::Crashed, Some(Code::PortsExhausted))
    );
}

#[test]
fn after_a_replacement_graces_and_idleness_begin_again_and_the_maximum_does_not() {
    let mut life = Life::running(Policy::default());
    life.does(50, Event::Connections(player("ann"), 0));
    life.crash(60);
    // Nobody can come back yet, and nobody is culled for it.
    assert_eq!(life.next(), Some((at(105), Reason::Crashed)));
    life.grant(61, 2);
    life.does(100, Event::Accepting(Generation(2)));
    assert_eq!(life.next(), Some((at(130), Reason::Empty)));
    life.does(110, Event::Connections(player("ann"), 1));
    assert_eq!(life.next(), Some((at(400), Reason::Idle)));
    assert_eq!(life.session.max_at, Some(at(1_801)));
}

#[test]
fn a_replacing_session_keeps_strangers_and_echoes_out() {
    let mut life = Life::running(Policy::default());
    life.crash(100);
    let rejected = |life: &mut Life, event| life.offer(at(101), &event).is_err();
    assert!(
        rejected(&mut life, Event::Accepting(Generation(2))),
        "nothing is granted yet"
    );
    let late = Exit::with_code(0, at(101));
    assert!(
        rejected(&mut life, Event::Exited(Generation(1), late)),
        "an echo"
    );
    assert!(
        rejected(&mut life, Event::Exited(Generation(2), late)),
        "nothing runs"
    );
    life.grant(102, 2);
    let another = Event::Granted {
        instance: instance(3),
        generation: Generation(2),
    };
    assert!(rejected(&mut life, another), "one is bound already");
    // Told to end while nothing runs: recorded at once. While the next one starts: stopped first.
    let end = Event::End {
        reason: Reason::EndedByClient,
        by: EndedBy::Player,
    };
    let mut starting = Life {
        session: life.session.clone(),
        effects: Vec::new(),
    };
    starting.does(103, end.clone());
    assert!(
        starting
            .effects
            .contains(&(at(103), Effect::Stop(instance(2))))
    );
    let mut life = Life::running(Policy::default());
    life.crash(100);
    life.does(103, end);
    assert!(life.effects.contains(&(at(103), Effect::Record)));
    let late = Event::Granted {
        instance: instance(9),
        generation: Generation(2),
    };
    assert!(rejected(&mut life, late), "whoever offered it stops it");
}

#[test]
fn what_holds_a_place_in_the_queue_may_vanish() {
    let mut life = Life::queued(Policy::default());
    life.does(1, Event::Gated(instance(7)));
    let mut gone = Exit::with_code(1, at(2));
    (gone.code, gone.never_ran) = (None, true);
    life.does(2, Event::Exited(Generation::FIRST, gone));
    assert_eq!(
        (life.session.phase, life.session.instance),
        (Phase::Queued, None)
    );
    assert!(
        life.offer(at(3), &Event::Exited(Generation::FIRST, gone))
            .is_err(),
        "an echo"
    );
    life.grant(4, 8);
    assert_eq!(life.session.phase, Phase::Starting);
}

#[test]
fn in_direct_modes_a_heartbeat_is_a_lease() {
    let direct = Policy {
        sight: Sight::Direct,
        ..Policy::default()
    };
    let mut life = Life::starting(direct.clone());
    // Before the game accepts nobody can be there.
    life.beat(5, Some("ann"), Status::Active, 0, None);
    life.does(10, Event::Accepting(Generation::FIRST));
    assert_eq!(life.session.phase, Phase::Ready);
    life.beat(10, Some("ben"), Status::Inactive, 0, None);
    assert_eq!(life.session.phase, Phase::Ready, "inactive brings nobody");
    life.beat(12, Some("ann"), Status::Active, 0, None);
    assert_eq!(life.session.phase, Phase::Running);
    assert_eq!(life.session.present(at(26)), 1);
    assert_eq!(life.next(), Some((at(12 + 15 + 30), Reason::Empty)));
    // A hidden tab stays there, and is idle.
    for second in (17..300).step_by(5) {
        life.beat(second, Some("ann"), Status::Inactive, 0, None);
        assert_eq!(life.runs_to(second), None);
    }
    assert_eq!(life.next(), Some((at(312), Reason::Idle)));
    assert_eq!(life.heard(&Notice::PlayerJoined(player("ann"))), 1);

    // The lease runs out: she left, and may come back.
    let mut life = Life::ready(direct);
    life.beat(20, Some("ann"), Status::Active, 0, Some(5));
    assert_eq!(life.runs_to(54), None);
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 1);
    life.beat(54, Some("ann"), Status::Active, 0, Some(5));
    assert_eq!(life.heard(&Notice::PlayerJoined(player("ann"))), 2);
    assert_eq!(life.runs_to(9_999), Some((at(89), Reason::Empty)));
}

#[test]
fn a_direct_player_has_a_whole_grace_after_a_replacement() {
    let mut life = Life::ready(Policy {
        sight: Sight::Direct,
        ..Policy::default()
    });
    life.beat(90, Some("ann"), Status::Active, 0, None);
    life.crash(100);
    life.grant(101, 2);
    life.does(140, Event::Accepting(Generation(2)));
    assert_eq!(
        life.next(),
        Some((at(170), Reason::Empty)),
        "her lease ran out at 105 s"
    );
}

#[test]
fn a_direct_session_after_a_restart_gives_everybody_time_to_say_that_they_are_there() {
    let mut life = Life::ready(Policy {
        sight: Sight::Direct,
        ..Policy::default()
    });
    life.beat(20, Some("ann"), Status::Active, 0, None);
    // A restart: leases are forgotten.
    for p in &mut life.session.roster {
        (p.lease_until, p.last_active) = (None, None);
    }
    life.does(200, Event::SightLost);
    assert_eq!(life.next(), Some((at(200 + 15 + 30), Reason::Empty)));
    let mut heard = Life {
        session: life.session.clone(),
        effects: Vec::new(),
    };
    heard.beat(210, Some("ben"), Status::Active, 0, None);
    assert_eq!(heard.next(), Some((at(210 + 15 + 30), Reason::Empty)));
    life.does(220, Event::SightRegained);
    assert_eq!(life.next(), Some((at(250), Reason::Empty)));
}

#[test]
fn unknown_is_not_nobody() {
    // Nobody came as far as was seen; then nothing is seen for long.
    let mut life = Life::ready(Policy::default());
    life.does(15, Event::SightLost);
    assert_eq!(
        life.next(),
        Some((at(1801), Reason::MaxDuration)),
        "whatever rests on what was not seen waits"
    );
    life.does(200, Event::SightRegained);
    assert_eq!(
        life.next(),
        Some((at(260), Reason::NeverJoined)),
        "a whole join timeout"
    );
    life.does(201, Event::Connections(player("ben"), 1));
    assert_eq!(life.session.phase, Phase::Running);

    // Ann was there, and the gateway that knew is gone for a while.
    let mut life = Life::running(Policy::default());
    life.data(100, "ann");
    life.does(110, Event::SightLost);
    life.does(111, Event::Connections(player("ann"), 0));
    assert_eq!(life.next(), Some((at(1801), Reason::MaxDuration)));
    life.does(300, Event::SightRegained);
    assert_eq!(
        life.next(),
        Some((at(330), Reason::Empty)),
        "the grace starts now"
    );
    // What she did unseen is reported late and counts; the deadline is never nearer than it was.
    life.does(301, Event::Connections(player("ann"), 1));
    assert_eq!(life.next(), Some((at(410), Reason::Idle)));
    life.does(301, Event::Data(Some(player("ann")), at(280)));
    assert_eq!(life.next(), Some((at(580), Reason::Idle)));
}

#[test]
fn a_streaming_server_is_no_player_unless_the_fleet_says_so() {
    let stream = |second| Event::Data(None, at(second));
    let mut life = Life::running(Policy::default());
    assert!(life.offer(at(100), &stream(100)).is_err());
    let mut life = Life::running(Policy {
        activity: ActivityRule::Any,
        ..Policy::default()
    });
    life.does(100, stream(100));
    assert_eq!(life.next(), Some((at(400), Reason::Idle)));
    // Everybody there says that they are not playing: the stream counts no more, until one of them does something.
    life.beat(110, Some("ann"), Status::Inactive, 0, None);
    assert!(life.offer(at(120), &stream(120)).is_err());
    life.data(130, "ann");
    life.does(140, stream(140));
    assert_eq!(life.next(), Some((at(440), Reason::Idle)));
    let mut life = Life::running(Policy {
        activity: ActivityRule::Heartbeat,
        ..Policy::default()
    });
    assert!(
        life.offer(at(100), &Event::Data(Some(player("ann")), at(100)))
            .is_err()
    );
}

#[test]
fn the_brake_counts_what_rests_on_reports_and_is_near() {
    let mut life = Life::running(Policy::default());
    life.does(100, Event::Connections(player("ann"), 0));
    assert!(!brake_counts(&life.session, Moment(119_999)));
    assert!(brake_counts(&life.session, at(120)));
    let starting = Life::starting(Policy::default());
    assert!(!brake_counts(&starting.session, at(46)));
}

#[test]
fn whose_end_call_ends_it() {
    use spawnpoint_core::lifecycle::EndRule;
    let (ann, ben, cat) = (player("ann"), player("ben"), player("cat"));
    let by_player = EndMeaning::End(EndedBy::Player);
    for (rule, owner, other) in [
        (EndRule::Owner, by_player, EndMeaning::Leave),
        (EndRule::Any, by_player, by_player),
        (EndRule::All, EndMeaning::Leave, EndMeaning::Leave),
    ] {
        let mut life = Life::running(Policy {
            end_by: rule,
            ..Policy::default()
        });
        assert_eq!(life.session.end_call(EndCaller::Player(&ann)), owner);
        assert_eq!(life.session.end_call(EndCaller::Player(&ben)), other);
        assert_eq!(
            life.session.end_call(EndCaller::Player(&cat)),
            EndMeaning::Stranger
        );
        let backend = life.session.end_call(EndCaller::Backend);
        assert_eq!(backend, EndMeaning::End(EndedBy::Backend));
        life.does(30, Event::Leave(ann.clone()));
        assert_eq!(
            life.session.end_call(EndCaller::Player(&ben)),
            by_player,
            "the last one"
        );
    }
}
