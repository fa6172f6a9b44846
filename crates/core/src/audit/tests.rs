use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::id::{FleetName, Generation, PlayerId, TicketId};
use crate::matching::Ticket;
use crate::session::Phase;

const NOW: Moment = Moment(1_000_000);

fn session(n: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(0x5000 + n))
}

fn instance(n: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(0x1000 + n))
}

fn ticket(n: u128) -> TicketId {
    TicketId::new(Uuid::from_u128(0x7000 + n))
}

fn fleet() -> FleetName {
    "arena".parse().unwrap()
}

fn player(name: &str) -> PlayerId {
    name.parse().unwrap()
}

fn long_ago() -> Moment {
    NOW.before(SETTLE * 10)
}

fn seen_ticket(n: u128, who: &str, standing: Standing) -> TicketSeen {
    TicketSeen {
        ticket: Arc::new(Ticket {
            id: ticket(n),
            queue: fleet(),
            players: vec![player(who)],
            attributes: BTreeMap::new(),
            latencies: BTreeMap::new(),
            joined_at: 0,
            failures: 0,
            caller: None,
        }),
        standing,
    }
}

/// Adds an instance with everything that belongs to one.
fn put(s: &mut Snapshot, n: u128, holder: Holder, doing: Doing, claim: Claim) {
    let id = instance(n);
    let port = u16::try_from(20_000 + n).unwrap();
    server(s).holders.push((id, holder));
    instances(s).push(InstanceSeen {
        id,
        fleet: fleet(),
        doing,
        claim,
        port: Some(port),
    });
    for (kind, name) in [
        (HoldingKind::Port, port.to_string()),
        (HoldingKind::File, format!("instances/{n}")),
        (HoldingKind::Log, format!("instances/{n}/log")),
        (HoldingKind::Process, format!("{n}")),
    ] {
        let of = Some(id);
        holdings(s).push(Holding { kind, name, of });
    }
}

/// Adds a session with its route.
fn add(s: &mut Snapshot, seen: SessionSeen) {
    let route = RouteSeen {
        session: seen.id,
        generation: seen.generation,
        phase: seen.phase,
    };
    server(s).routes.push(route);
    tables(s).routes.push(route);
    server(s).starts.push((seen.id, NOW));
    records(s).asked.insert(seen.id);
    server(s).sessions.push(seen);
}

fn server(s: &mut Snapshot) -> &mut ServerSeen {
    is(&mut s.server)
}

fn instances(s: &mut Snapshot) -> &mut Vec<InstanceSeen> {
    is(&mut s.instances)
}

fn holdings(s: &mut Snapshot) -> &mut Vec<Holding> {
    is(&mut s.holdings)
}

fn records(s: &mut Snapshot) -> &mut RecordsSeen {
    is(&mut s.records)
}

fn lobby(s: &mut Snapshot) -> &mut Vec<TicketKept> {
    is(&mut s.lobby)
}

fn tables(s: &mut Snapshot) -> &mut GatewayTables {
    is(&mut is(&mut s.gateways)[0].tables)
}

fn is<T>(known: &mut Known<T>) -> &mut T {
    match known {
        Known::Is(v) => v,
        Known::Unknown { .. } => panic!("this part is not known"),
    }
}

/// A healthy world with something in every state that there is on the way from a start to a record.
fn world() -> Snapshot {
    let mut s = Snapshot::empty();
    s.gateways = Known::Is(vec![GatewaySeen {
        name: "gateway-1".to_owned(),
        tables: Known::Is(GatewayTables::default()),
    }]);
    let of = |n, g| Claim::Of(session(n), Generation(g));
    let on = |n| Holder::Session(session(n));
    // 1 is played.
    let mut one = SessionSeen::settled(session(1), fleet(), Phase::Running, Some(instance(1)));
    one.roster = vec![player("a"), player("b")];
    one.tickets = vec![ticket(3)];
    one.listens = Some(25_001);
    one.due = Some(NOW.after(Duration::from_secs(60)));
    add(&mut s, one);
    put(&mut s, 1, on(1), Doing::Running, of(1, 1));
    tables(&mut s).tunnels.push(TunnelSeen {
        session: session(1),
        generation: Generation(1),
        open: 2,
    });
    tables(&mut s).listeners.push((session(1), 25_001));
    // 2 is being started as a match, and not durable yet: the instance that it will have is ordered for it.
    let mut two = SessionSeen::settled(session(2), fleet(), Phase::Queued, None);
    two.settled = false;
    two.waits = Waits::Nowhere;
    add(&mut s, two);
    put(&mut s, 2, on(2), Doing::Running, of(2, 1));
    // 3 stands in line.
    let mut three = SessionSeen::settled(session(3), fleet(), Phase::Queued, Some(instance(3)));
    three.waits = Waits::InLine;
    add(&mut s, three);
    put(&mut s, 3, Holder::Place(session(3)), Doing::Gated, of(3, 1));
    // 4 is ending: recorded, its instance not forgotten yet, and its player plays another already.
    let mut four = SessionSeen::settled(session(4), fleet(), Phase::Ending, Some(instance(4)));
    four.roster = vec![player("a")];
    four.ending_since = Some(NOW);
    four.grace = Duration::from_secs(10);
    add(&mut s, four);
    put(&mut s, 4, on(4), Doing::Over { since: NOW }, of(4, 1));
    records(&mut s).found.insert(session(4));
    // 5 is being healed: the next incarnation is bound and not granted, the first is over.
    let mut five = SessionSeen::settled(session(5), fleet(), Phase::Replacing, Some(instance(5)));
    five.generation = Generation(2);
    five.over = true;
    add(&mut s, five);
    put(&mut s, 5, on(5), Doing::Over { since: NOW }, of(5, 1));
    put(&mut s, 6, on(5), Doing::Running, of(5, 2));
    // One warm; one called off under a claim that never came to be; a session that ended.
    put(&mut s, 7, Holder::Warm, Doing::Running, Claim::None);
    put(&mut s, 8, Holder::Discarded, Doing::Stopping, of(80, 1));
    server(&mut s).starts.push((session(9), NOW));
    server(&mut s).starts.push((session(90), Moment(5)));
    server(&mut s).kept_since = Moment(10);
    records(&mut s)
        .asked
        .extend([session(9), session(80), session(90)]);
    records(&mut s).found.insert(session(9));
    server(&mut s).fleets.push(FleetSeen {
        name: fleet(),
        limit: Some(5),
        line: vec![session(3)],
    });
    server(&mut s)
        .bound_players
        .push((fleet(), player("b"), session(1)));
    server(&mut s).tickets = vec![
        seen_ticket(1, "x", Standing::Waiting),
        seen_ticket(2, "y", Standing::Forming(session(2))),
        seen_ticket(6, "z", Standing::Joining),
    ];
    server(&mut s).fates = vec![
        (ticket(3), Fate::Matched(session(1))),
        (ticket(4), Fate::Matched(session(9))),
        (ticket(5), Fate::Unmatched),
    ];
    *lobby(&mut s) = vec![
        TicketKept {
            id: ticket(1),
            forming: None,
        },
        TicketKept {
            id: ticket(2),
            forming: Some(session(2)),
        },
    ];
    s
}

type Break = fn(&mut Snapshot);

fn find(s: &mut Snapshot, n: u128) -> &mut SessionSeen {
    server(s)
        .sessions
        .iter_mut()
        .find(|x| x.id == session(n))
        .unwrap()
}

fn held(s: &mut Snapshot, n: u128) -> &mut InstanceSeen {
    instances(s)
        .iter_mut()
        .find(|x| x.id == instance(n))
        .unwrap()
}

fn hold(s: &mut Snapshot, n: u128, holder: Holder) {
    for h in &mut server(s).holders {
        if h.0 == instance(n) {
            h.1 = holder;
        }
    }
}

fn stray(s: &mut Snapshot, kind: HoldingKind) {
    let name = "stray".to_owned();
    holdings(s).push(Holding {
        kind,
        name,
        of: Some(instance(99)),
    });
}

/// A broken world for every rule.
const BREAKS: &[(Rule, Break)] = &[
    (Rule::StartLost, |s| {
        server(s).starts.push((session(50), NOW));
        records(s).asked.insert(session(50));
    }),
    (Rule::LiveAndRecorded, |s| {
        records(s).found.insert(session(1));
    }),
    (Rule::RecordTwice, |s| {
        let session = session(9).to_string();
        records(s).flaws.push(RecordFlaw {
            session,
            what: Flaw::Twice,
        });
    }),
    (Rule::RecordFlawed, |s| {
        let session = "what".to_owned();
        records(s).flaws.push(RecordFlaw {
            session,
            what: Flaw::NoEnd,
        });
    }),
    (Rule::PlayerInTwoSessions, |s| {
        find(s, 5).roster.push(player("b"))
    }),
    (Rule::PlayerLockedOut, |s| {
        server(s)
            .bound_players
            .push((fleet(), player("c"), session(9)));
    }),
    (Rule::PlayerLockedOut, |s| {
        server(s)
            .bound_players
            .push((fleet(), player("c"), session(4)));
    }),
    (Rule::InstanceInTwoSessions, |s| {
        // The first start was not settled, and is now, on the other's.
        find(s, 2).instance = Some(instance(1));
    }),
    (Rule::SessionOnTwoInstances, |s| {
        put(
            s,
            20,
            Holder::Session(session(5)),
            Doing::Running,
            Claim::Of(session(5), Generation(2)),
        );
        server(s).fleets.clear();
    }),
    (Rule::InstanceOrphaned, |s| {
        put(s, 20, Holder::Warm, Doing::Running, Claim::None);
        server(s).holders.pop();
    }),
    (Rule::InstanceOrphaned, |s| {
        // The incarnation before the present one, that nobody removes.
        put(
            s,
            20,
            Holder::Session(session(1)),
            Doing::Running,
            Claim::Of(session(1), Generation(0)),
        );
        server(s).fleets.clear();
    }),
    (Rule::ClaimUnreadable, |s| {
        put(
            s,
            20,
            Holder::Warm,
            Doing::Running,
            Claim::Unreadable(session(1)),
        );
        server(s).holders.pop();
    }),
    (Rule::ClaimDiffers, |s| {
        held(s, 1).claim = Claim::Of(session(1), Generation(7))
    }),
    (Rule::ClaimDiffers, |s| held(s, 1).claim = Claim::None),
    (Rule::ClaimDiffers, |s| {
        held(s, 7).claim = Claim::Of(session(9), Generation(1))
    }),
    (Rule::ClaimDiffers, |s| {
        held(s, 3).claim = Claim::Of(session(9), Generation(1))
    }),
    (Rule::SessionWithoutInstance, |s| {
        instances(s).retain(|i| i.id != instance(1));
        holdings(s).retain(|h| h.of != Some(instance(1)));
    }),
    (Rule::SessionWithoutInstance, |s| {
        instances(s).retain(|i| i.id != instance(3));
        holdings(s).retain(|h| h.of != Some(instance(3)));
    }),
    (Rule::ExitUnnoticed, |s| {
        held(s, 1).doing = Doing::Over { since: long_ago() }
    }),
    (Rule::InstanceNotRemoved, |s| {
        held(s, 8).doing = Doing::Over { since: long_ago() }
    }),
    (Rule::InstanceNotRemoved, |s| {
        held(s, 7).doing = Doing::Over { since: long_ago() }
    }),
    (Rule::InstanceNotRemoved, |s| {
        held(s, 8).doing = Doing::Running
    }),
    (Rule::EndOverdue, |s| {
        find(s, 4).ending_since = Some(long_ago())
    }),
    (Rule::DeadlineMissed, |s| find(s, 1).due = Some(long_ago())),
    (Rule::PlaceLost, |s| {
        find(s, 3).waits = Waits::Nowhere;
        server(s).fleets[0].line.clear();
    }),
    (Rule::LineHoldsStranger, |s| {
        server(s).fleets[0].line.push(session(1))
    }),
    (Rule::LineHoldsStranger, |s| {
        server(s).fleets[0].line.push(session(9))
    }),
    (Rule::CapacityExceeded, |s| {
        server(s).fleets[0].limit = Some(3)
    }),
    (Rule::RouteOrphaned, |s| {
        let (session, generation) = (session(9), Generation(1));
        tables(s).routes.push(RouteSeen {
            session,
            generation,
            phase: Phase::Running,
        });
    }),
    (Rule::RouteMissing, |s| {
        tables(s).routes.retain(|r| r.session != session(1))
    }),
    (Rule::RouteMissing, |s| {
        server(s).routes.retain(|r| r.session != session(1))
    }),
    (Rule::RouteDiffers, |s| {
        tables(s).routes[0].generation = Generation(7)
    }),
    (Rule::RouteDiffers, |s| {
        tables(s).routes[0].phase = Phase::Starting
    }),
    (Rule::TunnelOrphaned, |s| {
        tables(s).tunnels[0].session = session(9)
    }),
    (Rule::TunnelOutdated, |s| {
        tables(s).tunnels[0].generation = Generation(0)
    }),
    (Rule::ListenerOrphaned, |s| {
        tables(s).listeners.push((session(9), 25_009))
    }),
    (Rule::ListenerMissing, |s| tables(s).listeners.clear()),
    (Rule::PortShared, |s| held(s, 1).port = Some(20_006)),
    (Rule::PortOrphaned, |s| stray(s, HoldingKind::Port)),
    (Rule::FileOrphaned, |s| stray(s, HoldingKind::File)),
    (Rule::FileOrphaned, |s| {
        let (kind, name) = (HoldingKind::File, "instances/notes.txt".to_owned());
        holdings(s).push(Holding {
            kind,
            name,
            of: None,
        });
    }),
    (Rule::LogOrphaned, |s| stray(s, HoldingKind::Log)),
    (Rule::ProcessOrphaned, |s| stray(s, HoldingKind::Process)),
    (Rule::TicketInTwoMatches, |s| {
        find(s, 5).tickets.push(ticket(3))
    }),
    (Rule::TicketWithoutSession, |s| {
        server(s)
            .fates
            .push((ticket(8), Fate::Matched(session(50))));
        records(s).asked.insert(session(50));
    }),
    (Rule::TicketTwoFates, |s| {
        server(s).fates.push((ticket(1), Fate::Unmatched))
    }),
    (Rule::TicketStuck, |s| {
        server(s).tickets[1].standing = Standing::Forming(session(50))
    }),
    (Rule::TicketUnknown, |s| {
        lobby(s).push(TicketKept {
            id: ticket(8),
            forming: None,
        })
    }),
    (Rule::TicketNotKept, |s| lobby(s).clear()),
    (Rule::PlayerInTwoTickets, |s| {
        server(s)
            .tickets
            .push(seen_ticket(8, "x", Standing::Joining));
    }),
];

fn rules(report: &Report) -> BTreeSet<Rule> {
    report.findings.iter().map(|f| f.rule).collect()
}

#[test]
fn a_healthy_world_is_clean_with_something_in_every_state() {
    let report = check(&world(), NOW);
    assert!(report.is_clean(), "{:#?}", report.findings);
    let c = report.counts;
    assert_eq!(
        (c.sessions, c.changing, c.instances, c.holdings),
        (5, 1, 8, 32)
    );
    assert_eq!((c.starts, c.tickets, c.fates, c.looked_up), (7, 3, 3, 8));
    assert_eq!((c.gateways, c.routes, c.tunnels, c.listeners), (1, 5, 2, 1));
}

#[test]
fn each_break_is_found_as_what_it_is_and_as_nothing_else() {
    for (rule, breaks) in BREAKS {
        let mut s = world();
        breaks(&mut s);
        let report = check(&s, NOW);
        assert_eq!(
            rules(&report),
            BTreeSet::from([*rule]),
            "{:#?}",
            report.findings
        );
        assert!(report.unseen.is_empty(), "{rule:?}");
        for f in &report.findings {
            assert!(!f.ids.is_empty() && !f.seen.is_empty(), "{f}");
        }
    }
}

#[test]
fn every_rule_has_a_break_a_code_of_its_own_and_advice() {
    let broken: BTreeSet<Rule> = BREAKS.iter().map(|(r, _)| *r).collect();
    let mut codes = BTreeSet::new();
    for rule in Rule::ALL {
        assert!(broken.contains(rule), "no test breaks {rule:?}");
        assert!(codes.insert(rule.as_str()), "{rule:?}");
        assert!(
            rule.about().ends_with('.') && !rule.advice().ends_with('.'),
            "{rule:?}"
        );
    }
}

/// Makes each part unknown in turn.
fn blind(s: &Snapshot, part: usize) -> (Snapshot, Part) {
    let mut s = s.clone();
    let since = Moment(77);
    let name = match part {
        0 => {
            s.server = Known::Unknown { since };
            Part::Server
        }
        1 => {
            s.instances = Known::Unknown { since };
            Part::Instances
        }
        2 => {
            s.holdings = Known::Unknown { since };
            Part::Holdings
        }
        3 => {
            s.records = Known::Unknown { since };
            Part::Records
        }
        4 => {
            s.lobby = Known::Unknown { since };
            Part::Lobby
        }
        5 => {
            s.gateways = Known::Unknown { since };
            Part::Gateways
        }
        6 => {
            is(&mut s.gateways)[0].tables = Known::Unknown { since };
            Part::Gateway("gateway-1".to_owned())
        }
        _ => {
            held(&mut s, 7).doing = Doing::Unknown { since };
            Part::Instance(instance(7))
        }
    };
    (s, name)
}

#[test]
fn what_cannot_be_seen_is_said_and_never_taken_for_none() {
    for part in 0..8 {
        let (s, name) = blind(&world(), part);
        let report = check(&s, NOW);
        assert_eq!(report.findings, [], "{name:?}");
        let unseen = Unseen {
            part: name,
            since: Moment(77),
        };
        assert_eq!(report.unseen, [unseen]);
        assert!(!report.is_clean());
    }
}

#[test]
fn a_second_look_keeps_what_was_wrong_both_times() {
    let mut first = world();
    server(&mut first).starts.push((session(50), NOW));
    records(&mut first).asked.insert(session(50));
    tables(&mut first).routes.clear();
    let first = check(&first, NOW);
    assert_eq!(first.suspects(), BTreeSet::from([1, 3, 5, 50].map(session)));
    // The routes have arrived meanwhile, and only the suspects' records were asked for.
    let mut second = world();
    server(&mut second).starts.push((session(50), NOW));
    records(&mut second).asked = first.suspects().into_iter().collect();
    records(&mut second).found.clear();
    let later = NOW.after(Duration::from_secs(1));
    let left = confirm(&first, &check(&second, later));
    assert_eq!(rules(&left), BTreeSet::from([Rule::StartLost]));
    assert_eq!(left.counts, first.counts);
    let (blind, name) = blind(&second, 3);
    let left = confirm(&first, &check(&blind, later));
    assert_eq!(left.findings, []);
    assert_eq!(
        left.unseen.len(),
        1,
        "what the second look could not see is not fine"
    );
    assert_eq!(left.unseen[0].part, name);
}

#[test]
fn the_same_trouble_in_other_words_is_the_same_finding() {
    let mut s = world();
    find(&mut s, 1).due = Some(long_ago());
    let (a, b) = (check(&s, NOW), check(&s, NOW.after(Duration::from_secs(5))));
    assert_ne!(a.findings[0].seen, b.findings[0].seen);
    assert_eq!(confirm(&a, &b).findings, a.findings);
}

#[test]
fn what_is_on_its_way_is_no_finding() {
    let cases: &[(&str, Break)] = &[
        (
            "its end takes as long as its instance may take to stop",
            |s| {
                find(s, 4).ending_since = Some(NOW.before(Duration::from_secs(40)));
                held(s, 4).doing = Doing::Stopping;
            },
        ),
        ("an end waits for a store that cannot be seen", |s| {
            find(s, 4).ending_since = Some(long_ago());
            s.records = Known::Unknown { since: NOW };
        }),
        ("a cull held for a moment", |s| {
            find(s, 1).due = Some(NOW.before(Duration::from_secs(20)));
        }),
        ("an exit that has just happened", |s| {
            held(s, 1).doing = Doing::Over { since: NOW }
        }),
        (
            "a session that is changing is not compared with what others have of it",
            |s| {
                find(s, 1).settled = false;
                tables(s).routes[0].generation = Generation(9);
                held(s, 1).claim = Claim::None;
                tables(s).listeners.clear();
            },
        ),
        ("a queued session that is being placed", |s| {
            find(s, 3).waits = Waits::Placed;
            server(s).fleets[0].line.clear();
            hold(s, 3, Holder::Session(session(3)));
        }),
        ("an old start whose record is pruned", |s| {
            server(s).kept_since = NOW
        }),
        ("a session nobody asked the records about", |s| {
            server(s).starts.push((session(50), NOW));
        }),
        ("what is discarded does not count against a fleet", |s| {
            for n in 100..110 {
                put(s, n, Holder::Discarded, Doing::Stopping, Claim::None);
            }
        }),
    ];
    for (name, change) in cases {
        let mut s = world();
        change(&mut s);
        let report = check(&s, NOW);
        assert_eq!(report.findings, [], "{name}");
    }
}

fn phase() -> impl Strategy<Value = Phase> {
    proptest::sample::select(Phase::ALL.to_vec())
}

proptest! {
    /// However many of whatever kind: healthy is clean, one break is found, and blindness never finds more.
    #[test]
    fn only_what_is_broken_is_found(
        phases in proptest::collection::vec((phase(), any::<bool>()), 0..20),
        which in 0..BREAKS.len(),
        part in 0usize..8,
    ) {
        let mut s = world();
        server(&mut s).fleets[0].limit = None;
        for (n, (phase, settled)) in (200u128..).zip(phases) {
            let mut one = SessionSeen::settled(session(n), fleet(), phase, Some(instance(n)));
            one.settled = settled;
            one.roster = vec![player(&format!("p{n}"))];
            let (mut holder, mut doing) = (Holder::Session(session(n)), Doing::Running);
            match phase {
                Phase::Queued => {
                    one.waits = Waits::InLine;
                    server(&mut s).fleets[0].line.push(session(n));
                    (holder, doing) = (Holder::Place(session(n)), Doing::Gated);
                }
                Phase::Ending | Phase::Ended => {
                    one.ending_since = Some(NOW);
                    if n % 2 == 0 {
                        records(&mut s).found.insert(session(n));
                    }
                    doing = Doing::Over { since: NOW };
                }
                Phase::Replacing => {
                    one.over = true;
                    doing = Doing::Over { since: NOW };
                }
                Phase::Starting | Phase::Ready | Phase::Running => {}
            }
            add(&mut s, one);
            put(&mut s, n, holder, doing, Claim::Of(session(n), Generation(1)));
        }
        let healthy = check(&s, NOW);
        prop_assert!(healthy.is_clean(), "{:#?}", healthy.findings);
        let (rule, breaks) = BREAKS[which];
        // The fleet's limit is what one of the breaks is about.
        server(&mut s).fleets[0].limit = (rule == Rule::CapacityExceeded).then_some(1);
        breaks(&mut s);
        let broken = check(&s, NOW);
        prop_assert_eq!(rules(&broken), BTreeSet::from([rule]));
        let (blind, _) = blind(&s, part);
        let blinded = check(&blind, NOW);
        prop_assert!(rules(&blinded).is_subset(&rules(&broken)), "{:#?}", blinded.findings);
        prop_assert!(!blinded.unseen.is_empty());
    }
}
