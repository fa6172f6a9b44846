use std::collections::HashSet;
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spawnpoint_core::fleet::plan;
use spawnpoint_core::lifecycle::{
    ActivityRule, EndRule, EndedBy, Joinable, OnCrash, Policy, Reason, Sight,
};
use spawnpoint_core::matching::{Limit, Region, propose};
use spawnpoint_core::session::table::{Row, walk};
use spawnpoint_core::session::{Ending, Exit, Phase, Player, Warned};
use spawnpoint_core::{Generation, InstanceId, PlayerId, TicketId};

use super::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn again(line: Line) -> Line {
    let text = Numbered { n: 7, line }.write();
    let read = Numbered::read(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(read.n, 7);
    read.line
}

fn steps() -> &'static [(Session, Line)] {
    static STEPS: OnceLock<Vec<(Session, Line)>> = OnceLock::new();
    STEPS.get_or_init(|| walk().into_iter().map(as_line).collect())
}

fn as_line(row: Row) -> (Session, Line) {
    let line = Line::Step(Stepped {
        session: row.before.id,
        now: row.now,
        event: row.event,
        outcome: Outcome::of(&row.outcome),
    });
    (row.before, line)
}

#[test]
fn every_event_in_every_phase_comes_back_as_it_was() {
    let mut events = HashSet::new();
    for (before, line) in steps() {
        if let Line::Step(s) = line {
            events.insert(s.event.name());
        }
        assert_eq!(again(line.clone()), *line);
        let state = Line::State(State {
            state: before.clone(),
        });
        assert_eq!(again(state.clone()), state);
    }
    assert_eq!(events.len(), Event::NAMES.len());
}

#[test]
fn two_states_that_differ_have_two_digests() {
    let mut states: Vec<Session> = Vec::new();
    for (before, _) in steps() {
        if !states.contains(before) {
            states.push(before.clone());
        }
    }
    let digests: HashSet<String> = states.iter().map(digest).collect();
    assert_eq!(digests.len(), states.len());
    assert!(states.len() > 20, "{}", states.len());
}

/// The stored format as it stands. Whoever changes it raises the version and reads both.
#[test]
fn the_form_is_what_was_agreed() {
    let line = Numbered {
        n: 3,
        line: Line::Step(Stepped {
            session: ID.parse().unwrap(),
            now: Moment(1_700_000_000_123),
            event: Event::Connections("alice".parse().unwrap(), 1),
            outcome: Outcome::Rejected {
                because: "nothing changed".into(),
                code: None,
            },
        }),
    };
    let written = line.write();
    assert_eq!(
        written,
        concat!(
            r#"{"n":3,"function":"session::step","session":"01890a5d-ac96-774b-bcce-b302099a8057","now":1700000000123,"#,
            r#""event":{"connections":["alice",1]},"outcome":{"rejected":{"because":"nothing changed","code":null}},"#,
            r#""sum":"3d414b36d9679b55"}"#
        )
    );
}

fn moments() -> impl Strategy<Value = Moment> + Clone {
    prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64].prop_map(Moment)
}

fn spans() -> impl Strategy<Value = Duration> + Clone {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n))
}

fn players() -> impl Strategy<Value = PlayerId> + Clone {
    "\\PC{1,12}".prop_filter_map("a player id", |t| t.parse().ok())
}

fn instances() -> impl Strategy<Value = InstanceId> {
    any::<[u8; 16]>().prop_map(|b| {
        let hex = format!("{:032x}", u128::from_be_bytes(b));
        let id = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        id.join("-").parse().unwrap()
    })
}

fn exits() -> impl Strategy<Value = Exit> {
    let flags = any::<[bool; 3]>();
    let numbers = (option::of(any::<i32>()), option::of(any::<i32>()));
    (numbers, flags, moments()).prop_map(|((code, signal), [oom, never_ran, lost], at)| Exit {
        code,
        signal,
        oom,
        never_ran,
        lost,
        at,
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let spans = (
        vec(spans(), 4),
        vec(option::of(spans()), 4),
        vec(spans(), 0..3),
    );
    let rules = (
        prop::sample::select(vec![
            ActivityRule::ClientData,
            ActivityRule::Any,
            ActivityRule::Heartbeat,
        ]),
        prop::sample::select(vec![OnCrash::Replace, OnCrash::Restart, OnCrash::End]),
        prop::sample::select(vec![EndRule::Owner, EndRule::Any, EndRule::All]),
        prop::sample::select(vec![Joinable::Open, Joinable::Invite, Joinable::Closed]),
        prop::sample::select(vec![Sight::Gateway, Sight::Requests, Sight::Direct]),
    );
    (spans, rules, 0..200_usize).prop_map(|((s, o, warnings), rules, max_players)| Policy {
        heartbeat: s[0],
        queue: s[1],
        boot: s[2],
        reconnect: s[3],
        grace: s[0],
        idle: o[0],
        max: o[1],
        max_limit: o[2],
        join: o[3],
        warnings,
        activity: rules.0,
        on_crash: rules.1,
        end_by: rules.2,
        joinable: rules.3,
        sight: rules.4,
        max_players,
    })
}

fn roster() -> impl Strategy<Value = Vec<Player>> {
    let one = (
        players(),
        moments(),
        any::<u32>(),
        vec(option::of(moments()), 4),
        any::<bool>(),
    );
    let player = one.prop_map(|(id, joined_at, connections, o, inactive)| Player {
        id,
        joined_at,
        connections,
        gone_since: o[0],
        lease_until: o[1],
        last_active: o[2],
        inactive,
        inactive_at: o[3],
    });
    vec(player, 0..4)
}

fn sessions() -> impl Strategy<Value = Session> {
    let soft = (
        vec(option::of(moments()), 10),
        vec(moments(), 0..4),
        option::of(moments()),
        option::of((moments(), spans())),
    );
    let hard = (
        prop::sample::select(Phase::ALL.to_vec()),
        any::<(u32, u32)>(),
        option::of(instances()),
        option::of(players()),
        option::of(exits()),
        option::of((
            prop::sample::select(Reason::ALL.to_vec()),
            prop::sample::select(EndedBy::ALL.to_vec()),
            option::of(prop::sample::select(Code::ALL.to_vec())),
            moments(),
        )),
    );
    let parts = (roster(), policies(), moments(), soft, hard);
    parts.prop_map(|(roster, policy, created_at, soft, hard)| {
        let (o, crashes, lost, warned) = soft;
        let (phase, (generation, extends), instance, owner, exit, ending) = hard;
        Session {
            id: ID.parse().unwrap(),
            fleet: "arena".parse().unwrap(),
            phase,
            generation: Generation(generation),
            instance,
            policy: Arc::new(policy),
            owner,
            roster,
            created_at,
            queue_deadline: created_at,
            granted_at: o[0],
            start_deadline: o[1],
            ready_at: o[2],
            first_ready_at: o[3],
            first_joined_at: o[4],
            max_at: o[5],
            max_limit_at: o[6],
            extends,
            server_active: o[7],
            busy_until: o[8],
            emptied_at: o[9],
            sight: lost.map_or(Known::Is(()), |since| Known::Unknown { since }),
            crashes,
            warned: warned.map(|(cull_at, threshold)| Warned { cull_at, threshold }),
            ending: ending.map(|(reason, by, code, at)| Ending {
                reason,
                by,
                code,
                at,
            }),
            exit,
        }
    })
}

fn ticket(n: u64) -> TicketId {
    format!("01890a5d-ac96-774b-bcce-{n:012x}").parse().unwrap()
}

fn candidate_lists() -> impl Strategy<Value = Vec<Arc<Candidate>>> {
    let one = (
        0..6_u32,
        option::of(any::<f64>().prop_filter("finite", |n| n.is_finite())),
        vec((0..64_u8, any::<u32>()), 0..4),
        moments(),
    );
    vec(one, 0..12).prop_map(|all| {
        let named = all.into_iter().zip(1_u64..);
        named
            .map(|((players, skill, latencies, since), n)| {
                let mut latencies: Vec<_> = latencies
                    .into_iter()
                    .map(|(r, ms)| (Region::new(r).unwrap(), ms))
                    .collect();
                latencies.dedup_by_key(|(r, _)| *r);
                Arc::new(Candidate {
                    id: ticket(n),
                    players,
                    skill,
                    latencies,
                    since,
                })
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn any_state_comes_back_as_it_was(state in sessions()) {
        let line = Line::State(State { state });
        prop_assert_eq!(again(line.clone()), line);
    }

    #[test]
    fn any_proposal_comes_back_as_it_was(
        candidates in candidate_lists(),
        (size, limited, start, more) in (1..5_u32, any::<bool>(), 0.0..1e6_f64, 0.0..1e6_f64),
        now in (0..4_000_000_000_000_i64).prop_map(Moment),
    ) {
        let limit = limited.then_some(Limit { start, per_second: more, most: start + more });
        let rules = Rules::new(size, 1, Duration::from_millis(1_500), limit, limit).unwrap();
        let proposal = propose(candidates.iter().map(|c| &**c), &rules, now);
        let line = Line::Propose(Proposed {
            queue: "arena".parse().unwrap(), now, rules, candidates, proposal,
        });
        prop_assert_eq!(again(line.clone()), line);
    }

    #[test]
    fn any_plan_comes_back_as_it_was(
        (warm, old, most, template) in (0..9_u32, option::of(spans()), option::of(0..9_u32), any::<u64>()),
        there in vec((any::<bool>(), moments(), any::<u64>()), 0..6),
        counts in (0..9_u32, 0..9_u32, 0..9_u32, 0..9_u32, 0..9_u32),
        lost in option::of(moments()),
        (in_a_row, last) in (0..9_u32, option::of(moments())),
        now in (0..4_000_000_000_000_i64).prop_map(Moment),
    ) {
        let spec = PoolSpec { warm, max_age: old, max_instances: most, template };
        let warm = there.into_iter().zip(1_u64..).map(|((ready, started_at, template), n)| {
            let id = ticket(n).to_string().parse().unwrap();
            spawnpoint_core::fleet::Warm { id, ready, started_at, template }
        }).collect();
        let (claimed, stopping, queued, warm_flying, flying) = counts;
        let pool = Pool { warm, claimed, stopping, queued };
        let seen = lost.map_or(Known::Is(pool), |since| Known::Unknown { since });
        let in_flight = InFlight { warm: warm_flying, claimed: flying };
        let failures = Failures { in_a_row, last };
        let plan = plan(&spec, &seen, in_flight, failures, now);
        let line = Line::Plan(Planned {
            fleet: "arena".parse().unwrap(), now, spec, seen, in_flight, failures, plan,
        });
        prop_assert_eq!(again(line.clone()), line);
    }

    /// Whatever stands there: no line of a journal, or a changed one, but never taken for what it is not, and never a panic.
    #[test]
    fn a_flipped_bit_is_noticed(which in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let (before, step) = which.get(steps());
        for line in [step.clone(), Line::State(State { state: before.clone() })] {
            let mut text = Numbered { n: 1, line }.write().into_bytes();
            let at = bit.index(text.len() * 8);
            text[at / 8] ^= 1 << (at % 8);
            prop_assert!(matches!(Numbered::read(&text), Err(LineError::Changed(_) | LineError::NoSum)));
        }
    }

    #[test]
    fn any_bytes_are_no_line(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Numbered::read(&bytes).is_err());
    }
}
