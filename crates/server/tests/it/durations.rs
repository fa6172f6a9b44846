//! Every duration that can be set is set here, to two values, in the words of the configuration file, and what it does is measured in
//! virtual time: a key that were read and forgotten would show. `docs/configuration.md`, which is printed from the keys themselves, says
//! which durations there are.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::simulated::{Script, SimulatedConfig};
use spawnpoint_server::config::{Config, Overrides, ServerConfig, parse, parse_duration};

use crate::harness::{Up, World, id};

/// How soon after its time something happens: a look at the clock, a worker's round.
const SOON: Duration = Duration::from_millis(1_500);
/// The page that is printed from the keys.
const PAGE: &str = include_str!("../../../../docs/configuration.md");

type Measured<'a> = Pin<Box<dyn Future<Output = Duration> + 'a>>;

/// One duration and what it does.
struct Row {
    section: &'static str,
    key: &'static str,
    values: [&'static str; 2],
    /// The key with this value, as in the file.
    line: fn(&str) -> String,
    /// What else is set for the fleet and for its queue, so that nothing else happens first.
    fleet: &'static str,
    queue: &'static str,
    game: fn() -> Script,
    /// How long it took, which is the value that was set.
    measure: for<'a> fn(&'a World, &'a Up) -> Measured<'a>,
    /// How much longer it may take.
    late: Duration,
}

const FLEET: Row = Row {
    section: "fleet",
    key: "",
    values: ["20s", "2m"],
    line: |_| String::new(),
    fleet: "",
    queue: "",
    game: Script::default,
    measure: |_, _| Box::pin(async { Duration::ZERO }),
    late: SOON,
};

static ROWS: &[Row] = &[
    Row {
        section: "server",
        key: "retention",
        values: ["10m", "40m"],
        line: |v| format!("retention = \"{v}\""),
        measure: |_, up| Box::pin(record_is_kept(up)),
        // Old records are looked for every ten minutes.
        late: Duration::from_secs(620),
        ..FLEET
    },
    Row {
        key: "warm",
        line: |v| format!("warm = {{ replicas = 1, max_age = \"{v}\" }}"),
        measure: |world, up| Box::pin(warm_instance_is_kept(world, up)),
        ..FLEET
    },
    Row {
        key: "heartbeat",
        line: |v| format!("heartbeat = \"{v}\""),
        fleet: "expose = \"host_port\"\nidle_timeout = \"none\"\nmax_duration = \"none\"\nreconnect_grace = 0",
        measure: |_, up| Box::pin(a_third_of_a_lease(up)),
        ..FLEET
    },
    Row {
        key: "idle_timeout",
        line: |v| format!("idle_timeout = \"{v}\""),
        measure: |_, up| Box::pin(one_who_does_nothing(up)),
        ..FLEET
    },
    Row {
        key: "max_duration",
        line: |v| format!("max_duration = \"{v}\""),
        fleet: "idle_timeout = \"none\"",
        measure: |_, up| Box::pin(one_who_never_stops(up)),
        ..FLEET
    },
    Row {
        key: "max_duration_limit",
        line: |v| format!("max_duration_limit = \"{v}\""),
        fleet: "idle_timeout = \"none\"\nmax_duration = \"10s\"",
        measure: |_, up| Box::pin(one_who_wants_more(up)),
        ..FLEET
    },
    Row {
        key: "queue_timeout",
        line: |v| format!("queue_timeout = \"{v}\""),
        fleet: "max_instances = 1\njoin_timeout = \"none\"\nmax_duration = \"none\"",
        measure: |_, up| Box::pin(wait_for_capacity(up)),
        ..FLEET
    },
    Row {
        key: "boot_timeout",
        line: |v| format!("boot_timeout = \"{v}\""),
        fleet: "on_crash = \"end\"",
        game: || Script {
            never_ready: true,
            ..Script::default()
        },
        measure: |_, up| Box::pin(a_start_that_never_ends(up)),
        ..FLEET
    },
    Row {
        key: "join_timeout",
        line: |v| format!("join_timeout = \"{v}\""),
        measure: |_, up| Box::pin(a_game_nobody_comes_to(up)),
        ..FLEET
    },
    Row {
        key: "reconnect_grace",
        line: |v| format!("reconnect_grace = \"{v}\""),
        measure: |_, up| Box::pin(a_game_everybody_left(up)),
        ..FLEET
    },
    Row {
        key: "warnings",
        line: |v| format!("warnings = [\"{v}\"]"),
        fleet: "idle_timeout = \"none\"\nmax_duration = \"4m\"",
        measure: |_, up| Box::pin(warned_before(up)),
        ..FLEET
    },
    Row {
        key: "termination_grace",
        line: |v| format!("termination_grace = \"{v}\""),
        game: || Script {
            ignores_term: true,
            ..Script::default()
        },
        measure: |world, up| Box::pin(a_game_that_will_not_end(world, up)),
        ..FLEET
    },
    Row {
        section: "queue",
        key: "flush_wait",
        line: |v| format!("flush_wait = \"{v}\""),
        queue: "session_size = 2",
        measure: |_, up| Box::pin(a_lone_ticket(up)),
        ..FLEET
    },
    Row {
        section: "queue",
        key: "unattended",
        line: |v| format!("unattended = \"{v}\""),
        queue: "session_size = 2\nmin_partial_session_size = 2\nflush_wait = \"1s\"",
        measure: |_, up| Box::pin(a_ticket_nobody_asks_after(up)),
        ..FLEET
    },
];

impl Row {
    /// The file that sets it.
    fn file(&self, value: &str) -> String {
        let line = (self.line)(value);
        let of = |section: &str| {
            if self.section == section {
                line.as_str()
            } else {
                ""
            }
        };
        let command = json!((self.game)().command());
        format!(
            "[server]\n{}\n[[fleet]]\nname = \"arena\"\nrun.command = {command}\n{}\n{}\n[[queue]]\nfleet = \"arena\"\n{}\n{}\n",
            of("server"),
            self.fleet,
            of("fleet"),
            self.queue,
            of("queue"),
        )
    }

    /// A server with that file, and how long the thing takes in it.
    fn measured(&self, value: &str) -> Duration {
        let file = self.file(value);
        let parsed = parse(&file, &|_| None, &Overrides::at(Some("base".into()), None));
        let parsed = parsed.unwrap_or_else(|e| panic!("{file}\n{e:#?}")).config;
        let config = Config {
            // Nothing listens and nothing is stored; the durations are those of the file.
            server: ServerConfig {
                retention: parsed.server.retention,
                ..ServerConfig::in_memory("test-server")
            },
            ..parsed
        };
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        executor.block_on(async {
            let world = World::new(SimulatedConfig::default());
            let up = world.up(config).await;
            (self.measure)(&world, &up).await
        })
    }
}

#[test]
fn every_duration_that_is_set_is_kept_to() {
    let mut wrong = Vec::new();
    for row in ROWS {
        for value in row.values {
            let took = row.measured(value);
            let wanted = parse_duration(value).unwrap();
            let (least, most) = (wanted.saturating_sub(SOON), wanted + row.late);
            if !(least..=most).contains(&took) {
                wrong.push(format!(
                    "{}.{} = {value:?} took {took:?}",
                    row.section, row.key
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_duration_of_the_configuration_is_measured() {
    let mut section = String::new();
    let mut there = BTreeSet::new();
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches(['`', '[', ']']).to_owned();
        }
        // | `key` | takes | default | ...
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(key), Some(takes)) = (cells.next(), cells.next()) else {
            continue;
        };
        if takes.contains("duration") {
            there.insert((section.clone(), key.trim_matches('`').to_owned()));
        }
    }
    let here: BTreeSet<(String, String)> = ROWS
        .iter()
        .map(|r| (r.section.to_owned(), r.key.to_owned()))
        .collect();
    assert_eq!(here.len(), ROWS.len(), "a row is there twice");
    assert_eq!(
        there, here,
        "left: durations of docs/configuration.md; right: rows of this file. A duration without a row has no test that sees its effect"
    );
}

/// A ready session with its player in it.
async fn playing(up: &Up) -> String {
    let session = id(&up.play("p").await);
    up.gateway.connected(&session, "p", 1, true).await;
    session
}

/// How long a session lived, by its record, which has to give this reason.
async fn lived(up: &Up, session: &str, reason: &str) -> Duration {
    let record = recorded(up, session).await;
    assert_eq!(record["reason"], reason, "{record:#}");
    between(&record["created_at"], &record["ended_at"])
}

/// The record, once there is one. It says itself when it was over, so that nobody has to look often.
async fn recorded(up: &Up, session: &str) -> Value {
    let since = tokio::time::Instant::now();
    loop {
        let answer = up.get(&format!("/api/matches/{session}")).await;
        if answer.status == 200 {
            return answer.body;
        }
        assert!(
            since.elapsed() < Duration::from_secs(900),
            "{}",
            answer.text
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn between(from: &Value, to: &Value) -> Duration {
    let at = |v: &Value| v.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    Duration::try_from(at(to).duration_since(at(from))).unwrap()
}

async fn record_is_kept(up: &Up) -> Duration {
    let session = playing(up).await;
    let path = format!("/api/sessions/{session}");
    up.call("DELETE", &path, None, None).await.is(200);
    up.record(&session, Duration::from_secs(60)).await;
    let since = tokio::time::Instant::now();
    while up.get(&format!("/api/matches/{session}")).await.status == 200 {
        assert!(
            since.elapsed() < Duration::from_secs(86_400),
            "kept for ever"
        );
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    since.elapsed()
}

async fn warm_instance_is_kept(world: &World, up: &Up) -> Duration {
    let there = || async {
        let all = world.runtime.list().await.unwrap();
        all.into_iter().map(|i| i.id).collect::<BTreeSet<_>>()
    };
    while up.get("/api/fleets/arena").await.is(200)["warm"] != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let since = tokio::time::Instant::now();
    let first = there().await;
    assert_eq!(first.len(), 1);
    // Its successor accepts first, then it goes.
    while !there().await.is_disjoint(&first) {
        assert!(since.elapsed() < Duration::from_secs(600), "kept for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    since.elapsed()
}

/// Where no gateway sees the players, each heartbeat says for three periods that somebody is there. The reply says when the next is due.
async fn a_third_of_a_lease(up: &Up) -> Duration {
    let session = id(&up.play("p").await);
    let beat = json!({"status": "active", "player_id": "p"});
    let path = format!("/api/sessions/{session}/heartbeat");
    let reply = up.post(&path, beat).await.is(200);
    let since = tokio::time::Instant::now();
    let record = recorded(up, &session).await;
    assert_eq!(record["reason"], "empty", "{record:#}");
    let third = since.elapsed() / 3;
    let said = Duration::from_secs_f64(reply["next_heartbeat_s"].as_f64().unwrap());
    assert!(
        said.abs_diff(third) < SOON,
        "said {said:?}, and is {third:?}"
    );
    third
}

async fn one_who_does_nothing(up: &Up) -> Duration {
    let session = playing(up).await;
    lived(up, &session, "idle").await
}

async fn one_who_never_stops(up: &Up) -> Duration {
    let session = playing(up).await;
    lived(up, &session, "max_duration").await
}

async fn one_who_wants_more(up: &Up) -> Duration {
    let session = playing(up).await;
    let path = format!("/api/sessions/{session}/extend");
    up.post(&path, json!({"by": "10h"})).await.is(200);
    lived(up, &session, "max_duration").await
}

async fn wait_for_capacity(up: &Up) -> Duration {
    up.play("first").await;
    let second = up.post("/api/new-game", json!({"playerId": "p"})).await;
    lived(up, &id(&second.is(201)), "start_failed").await
}

async fn a_start_that_never_ends(up: &Up) -> Duration {
    let started = up.post("/api/new-game", json!({"playerId": "p"})).await;
    lived(up, &id(&started.is(201)), "start_failed").await
}

async fn a_game_nobody_comes_to(up: &Up) -> Duration {
    let session = id(&up.play("p").await);
    lived(up, &session, "never_joined").await
}

async fn a_game_everybody_left(up: &Up) -> Duration {
    let session = playing(up).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    up.gateway.connected(&session, "p", 0, false).await;
    let stayed = Duration::from_secs(5);
    lived(up, &session, "empty").await.saturating_sub(stayed)
}

async fn warned_before(up: &Up) -> Duration {
    let session = playing(up).await;
    let query = format!("session_id={session}");
    let warned = |events: &[Value]| events.iter().any(|e| e["type"] == "warning");
    let limit = Duration::from_secs(300);
    let events = up.follow(&query, None, limit, warned).await;
    let warning = events.iter().find(|e| e["type"] == "warning").unwrap();
    between(&warning["at"], &warning["cull_at"])
}

async fn a_game_that_will_not_end(world: &World, up: &Up) -> Duration {
    let session = playing(up).await;
    let path = format!("/api/sessions/{session}");
    up.call("DELETE", &path, None, None).await.is(200);
    let since = tokio::time::Instant::now();
    while !world.runtime.list().await.unwrap().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(600), "never killed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    since.elapsed()
}

async fn a_lone_ticket(up: &Up) -> Duration {
    up.join(json!({"player_id": "p"})).await.is(200);
    let path = "/api/match/status?player_id=p&wait=50";
    let mut matched = up.get(path).await.is(200);
    while matched["status"] == "queued" {
        matched = up.get(path).await.is(200);
    }
    assert_eq!(matched["status"], "matched", "{matched:#}");
    Duration::from_secs_f64(matched["waited_s"].as_f64().unwrap())
}

async fn a_ticket_nobody_asks_after(up: &Up) -> Duration {
    up.join(json!({"player_id": "p"})).await.is(200);
    let since = tokio::time::Instant::now();
    // Whoever looks at the queue does not ask after one who is in it.
    while up.get("/api/queues").await.is(200)["queues"][0]["tickets"] == 1 {
        assert!(since.elapsed() < Duration::from_secs(600), "never dropped");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    since.elapsed()
}
