//! What is stored with an instance, and what server and gateway tell each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use spawnpoint_core::lifecycle::{EndedBy, Reason};
use spawnpoint_core::session::Phase;
use spawnpoint_runtime::{Facts, Order, Protocol, ReadyRule, Template};
use spawnpoint_wire::claim::{
    CLAIM_VERSION, Claim, ClaimEnding, ClaimPlayer, MaxAsked, SessionFile, Stamp,
};
use spawnpoint_wire::event::{Event, EventBody};
use spawnpoint_wire::link::{
    self, Cursor, PlayerReport, Report, Route, RouteUpdate, SessionReport,
};

use super::{ID, Seeds, texts};

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn made<T>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        None => unreachable!("the examples are valid"),
    }
}

const NOW: Stamp = Stamp {
    wall: 1_790_000_000_000,
    mono: 86_400_000,
};

fn claim() -> Option<Claim> {
    Some(Claim {
        version: CLAIM_VERSION,
        boot_id: "boot-1".into(),
        session: ID.parse().ok()?,
        fleet: "spice".parse().ok()?,
        generation: 2,
        server: "spawnpoint".into(),
        owner: Some("ann".parse().ok()?),
        players: vec![ClaimPlayer {
            id: "ann".parse().ok()?,
            joined: NOW,
            here: true,
            ticket: Some(ID.parse().ok()?),
        }],
        queue: Some("ranked".parse().ok()?),
        invite: "k3yb04rd".into(),
        payload: Some(serde_json::json!({"map": "dune", "n": 2.5})),
        created: NOW,
        granted: Some(NOW),
        started: Some(NOW),
        first_joined: Some(NOW),
        max: Some(NOW),
        max_limit: Some(NOW),
        max_asked: Some(MaxAsked::Millis(60_000)),
        extends: 1,
        replacing: false,
        joinable: Some("invite".into()),
        tcp_port: Some(25_000),
        crashes: vec![NOW],
        receipt: Some([0, 0, 0, 120, 3, 1, 124]),
        idempotency_key: Some("a1b2".into()),
        idempotency_body: Some("c3d4".into()),
        ending: Some(ClaimEnding {
            reason: Reason::Idle,
            by: EndedBy::System,
            code: None,
            at: NOW,
            results: Some("{}".into()),
        }),
    })
}

pub(crate) fn stored() -> Seeds {
    let whole = made(claim());
    let newer = Claim {
        version: 9,
        ..whole.clone()
    };
    let edges = Claim {
        created: Stamp {
            wall: i64::MIN,
            mono: i64::MAX,
        },
        max_asked: Some(MaxAsked::None),
        ending: None,
        ..whole.clone()
    };
    vec![
        ("whole", json(&whole)),
        ("newer", json(&newer)),
        ("edges", json(&edges)),
        ("torn", json(&whole).into_iter().take(100).collect()),
    ]
}

fn route() -> Option<Route> {
    Some(Route {
        session: ID.parse().ok()?,
        fleet: "spice".parse().ok()?,
        generation: 1,
        phase: Phase::Running,
        address: Some(([127, 0, 0, 1], 20_000).into()),
        protocol: link::Protocol::WebSocket,
        players: vec!["ann".parse().ok()?].into(),
        position: None,
        waiting_for: None,
        ended: None,
    })
}

fn report() -> Option<Report> {
    Some(Report {
        gateway: "gateway-1".into(),
        sequence: 3,
        full: true,
        sessions: vec![SessionReport {
            session: ID.parse().ok()?,
            generation: 1,
            players: vec![PlayerReport {
                player: "ann".parse().ok()?,
                connections: 1,
                client_data_age_ms: Some(20),
                server_data_age_ms: None,
                bytes_in: 100,
                bytes_out: 2_000,
            }],
        }],
    })
}

pub(crate) fn messages() -> Seeds {
    let cursor = Cursor {
        incarnation: 7,
        sequence: 40,
    };
    let route = made(route());
    let ended = Route {
        ended: Some(Reason::Idle),
        phase: Phase::Ended,
        address: None,
        ..route.clone()
    };
    let event = Event {
        v: 1,
        id: "7-40".into(),
        at: "2026-11-21T00:00:00.000Z".into(),
        session_id: ID.parse().ok(),
        ticket_id: None,
        body: EventBody::Phase {
            phase: Phase::Running,
            generation: 1,
        },
    };
    let queued = Event {
        body: EventBody::Queued {
            position: 1,
            waiting_for: "capacity".into(),
            estimate_s: Some(3),
        },
        ..event.clone()
    };
    vec![
        (
            "all",
            json(&RouteUpdate::All {
                cursor,
                routes: vec![route.clone(), ended],
            }),
        ),
        (
            "set",
            json(&RouteUpdate::Set {
                cursor,
                route: Box::new(route.clone()),
            }),
        ),
        (
            "gone",
            json(&RouteUpdate::Gone {
                cursor,
                session: route.session,
            }),
        ),
        ("route", json(&route)),
        ("cursor", json(&cursor)),
        ("report", json(&made(report()))),
        ("event-phase", json(&event)),
        ("event-queued", json(&queued)),
    ]
}

pub(crate) fn session_files() -> Seeds {
    let file = SessionFile {
        version: 1,
        session_id: made(ID.parse().ok()),
        fleet: made("spice".parse().ok()),
        generation: 1,
        players: vec![made("ann".parse().ok())],
        payload: Some(serde_json::json!({"round_seconds": 30, "seed": 7})),
        claimed_at: "2026-11-21T00:00:00Z".into(),
        deadline: None,
    };
    let mut seeds = texts(&[
        ("short", r#"{"session_id":"s","payload":null}"#),
        (
            "wishes",
            r#"{"session_id":"s","payload":{"round_seconds":1,"seed":-1}}"#,
        ),
        ("torn", r#"{"session_id":"#),
    ]);
    seeds.push(("whole", json(&file)));
    seeds
}

pub(crate) fn records() -> Seeds {
    let order = Order {
        id: made(ID.parse().ok()),
        fleet: made("spice".parse().ok()),
        template: Template {
            command: vec!["spice".into(), "$(PORT)".into()],
            env: BTreeMap::from([("SPICE_HOST".into(), "127.0.0.1".into())]),
            inherit_env: false,
            workdir: Some("games".into()),
            cpu_millis: Some(500),
            memory_bytes: Some(1 << 29),
            protocol: Protocol::WebSocket,
            ready: ReadyRule::Http("/health".into()),
            fixed_port: None,
            host_port: false,
        },
        gated: false,
        facts: Some(Facts {
            session: made(ID.parse().ok()),
            document: "{}".into(),
        }),
        session_file: Some(Bytes::from_static(b"{\"version\":1}")),
        env: BTreeMap::from([("SESSION_ID".into(), ID.into())]),
    };
    let warm = Order {
        facts: None,
        gated: true,
        session_file: Some(Bytes::from_static(b"\xff\x00")),
        ..order.clone()
    };
    let whole = spawnpoint_runtime::fuzz::example_record(&order);
    vec![
        ("torn", whole.iter().copied().take(200).collect()),
        ("whole", whole),
        ("warm", spawnpoint_runtime::fuzz::example_record(&warm)),
        (
            "newer",
            br#"{"version":2,"template":"of another shape"}"#.to_vec(),
        ),
    ]
}

pub(crate) fn pages() -> Seeds {
    spawnpoint_runtime::fuzz::example_pages()
}

pub(crate) fn stats() -> Seeds {
    texts(&[
        (
            "line",
            "77 (spice) S 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1",
        ),
        ("name", "spice"),
        ("forged", "a) Z 1 (b"),
        ("newline", "a\n) S 1"),
    ])
}
