//! Matches that fail to start, tickets over a `kill -9`, and everything at once under faults: each ticket has one fate, and nobody is in
//! two games of a fleet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_core::matching::{Rules, Ticket};
use spawnpoint_core::{SessionId, TicketId};
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::flaky::{Fault, Flaky, Rates};
use spawnpoint_runtime::simulated::{End, Script, SimulatedConfig, SimulatedRuntime};
use spawnpoint_server::Config;
use spawnpoint_store::flaky::{Flaky as FlakyStore, Rates as StoreRates};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::lobby::{Lobby, State, load};

use crate::harness::{Up, World, config, fleet, id, queue};

const SECOND: Duration = Duration::from_secs(1);

fn duels() -> Config {
    let mut c = config(vec![fleet("arena")]);
    let mut q = queue("arena", 2);
    q.rules = Rules::new(2, 2, 10 * SECOND, None, None).unwrap();
    c.queues = vec![Arc::new(q)];
    c
}

async fn scripted() -> (World, Arc<Flaky<SimulatedRuntime>>, Up) {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let up = w
        .up_with(duels(), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    // The workers' own first calls are over.
    tokio::time::sleep(SECOND).await;
    (w, flaky, up)
}

#[tokio::test(start_paused = true)]
async fn tickets_of_a_failed_match_wait_again_in_their_place() {
    let (w, flaky, up) = scripted().await;
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    tokio::time::sleep(5 * SECOND).await;
    flaky.script_next(Fault::Storage);
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(b["status"], "queued", "{b:#}");
    let back = up.status("a").await;
    assert_eq!(
        (&back["position"], &back["ticket_id"]),
        (&json!(1), &a["ticket_id"])
    );
    assert!(
        back["waited_s"].as_f64().unwrap() >= 5.0,
        "as old as it was: {back:#}"
    );
    // Somebody else comes while they are held: the held ones are not lost sight of.
    assert_eq!(
        up.join(json!({"player_id": "c"})).await.is(200)["position"],
        3
    );
    let matched = up.until_status("a", "matched", 40 * SECOND).await;
    assert_eq!(matched["players"], json!(["a", "b"]));
    assert_eq!(up.status("c").await["position"], 1);
    assert_eq!(w.runtime.list().await.unwrap().len(), 1);
    assert_eq!(load(w.lobby.as_ref()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_so_many_failures_a_ticket_is_given_up_with_the_cause() {
    let (w, flaky, up) = scripted().await;
    // Whatever is asked of the runtime from here on, for longer than it takes.
    let calls = flaky.calls();
    for n in 1..=2_000 {
        flaky.script(calls + n, Fault::Storage);
    }
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    let lost = |e: &[Value]| e.iter().any(|e| e["type"] == "lost");
    let (events, _) = tokio::join!(
        up.follow("player_id=a", None, 300 * SECOND, lost),
        up.join(json!({"player_id": "b"}))
    );
    let told = events.last().unwrap();
    assert_eq!(
        (&told["code"], &told["ticket_id"]),
        (&json!("storage_full"), &a["ticket_id"]),
        "{events:#?}"
    );
    for p in ["a", "b"] {
        let s = up.status(p).await;
        assert_eq!(
            (&s["status"], &s["code"]),
            (&json!("lost"), &json!("storage_full")),
            "{s:#}"
        );
        assert!(
            s["detail"]
                .as_str()
                .unwrap()
                .starts_with("3 matches in a row"),
            "{s:#}"
        );
    }
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(load(w.lobby.as_ref()).await.unwrap(), []);
    assert!(w.runtime.list().await.unwrap().is_empty());
    let q = &up.get("/api/queues").await.is(200)["queues"][0];
    assert_eq!(
        (&q["failures"], &q["lost"], &q["matches"]),
        (&json!(3), &json!(2), &json!(0))
    );
    // A new ticket begins anew.
    assert_eq!(
        up.join(json!({"player_id": "a"})).await.is(200)["status"],
        "queued"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_held_holds_its_queue() {
    let w = World::new(SimulatedConfig::default());
    let script = Script {
        ends: Some((Duration::from_millis(5), End::Code(1))),
        never_ready: true,
        ..Default::default()
    };
    let mut c = duels();
    let mut f = fleet("arena");
    f.warm = 2;
    f.template.command = script.command();
    c.fleets = vec![Arc::new(f)];
    let up = w.up(c).await;
    let deadline = tokio::time::Instant::now() + 60 * SECOND;
    while up.get("/api/fleets/arena").await.is(200)["degraded"] != true {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    up.join(json!({"player_id": "a"})).await.is(200);
    up.join(json!({"player_id": "b"})).await.is(200);
    let waits = up.status("a").await;
    assert_eq!(waits["status"], "queued", "{waits:#}");
    assert_eq!(
        up.get("/api/queues").await.is(200)["queues"][0]["failures"],
        1
    );
}

#[tokio::test(start_paused = true)]
async fn who_got_a_game_meanwhile_is_in_no_second_one() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(duels()).await;
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    let own = up.play("a").await;
    // The partner is not punished for it: the next one plays with them.
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(b["status"], "queued", "{b:#}");
    assert_eq!(b["position"], 1);
    let path = format!(
        "/api/match/status?player_id=a&ticket_id={}",
        a["ticket_id"].as_str().unwrap()
    );
    let status = up.get(&path).await.is(200);
    assert_eq!(
        (status["status"].as_str(), id(&status)),
        (Some("matched"), id(&own))
    );
    let c = up.join(json!({"player_id": "c"})).await.is(200);
    assert_eq!(c["players"], json!(["b", "c"]));
    assert_eq!(up.get("/api/sessions").await.is(200)["total"], 2);
    let q = &up.get("/api/queues").await.is(200)["queues"][0];
    assert_eq!(q["failures"], 0);
}

#[tokio::test(start_paused = true)]
async fn joining_and_new_game_at_once_lead_to_one_game_each() {
    for seed in 0..20 {
        let w = World::new(SimulatedConfig {
            seed,
            ..SimulatedConfig::default()
        });
        let up = w.up(duels()).await;
        let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
        let joins = names.iter().map(|p| up.join(json!({"player_id": p})));
        let games = names
            .iter()
            .map(|p| up.post("/api/new-game", json!({"player_id": p})));
        let _ = tokio::join!(
            futures::future::join_all(joins),
            futures::future::join_all(games)
        );
        tokio::time::sleep(30 * SECOND).await;
        one_game_each(&up).await;
    }
}

/// No player is in two live sessions.
async fn one_game_each(up: &Up) -> HashMap<String, String> {
    let all = up.get("/api/sessions?limit=500").await.is(200);
    let mut seen: HashMap<String, String> = HashMap::new();
    for s in all["sessions"].as_array().unwrap() {
        if s["phase"] == "ending" || s["phase"] == "ended" {
            continue;
        }
        for p in s["players"].as_array().unwrap() {
            let name = p["player_id"].as_str().unwrap().to_owned();
            if let Some(other) = seen.insert(name.clone(), id(s)) {
                panic!("{name} is in {other} and {}", id(s));
            }
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_ticket_in_memory_is_lost_and_a_match_is_not() {
    let mut w = World::new(SimulatedConfig::default());
    let up = w.up(duels()).await;
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    let waits = up.join(json!({"player_id": "waits"})).await.is(200);
    up.kill();
    w.lobby = Arc::new(MemoryLobby::new());
    let up = w.up(duels()).await;
    let status = |p: &str, t: &Value| {
        format!(
            "/api/match/status?player_id={p}&ticket_id={}",
            t["ticket_id"].as_str().unwrap()
        )
    };
    for (p, t) in [("a", &a), ("b", &b)] {
        let s = up.get(&status(p, t)).await.is(200);
        assert_eq!((s["status"].as_str(), id(&s)), (Some("matched"), id(&b)));
        assert_eq!(
            s["ticket_id"], t["ticket_id"],
            "the session knows who came by which ticket"
        );
    }
    let s = up.get(&status("waits", &waits)).await.is(200);
    assert_eq!(
        (&s["status"], &s["code"]),
        (&json!("lost"), &json!("ticket_lost"))
    );
    assert_eq!(up.status("waits").await["status"], "none");
    let again = up.join(json!({"player_id": "waits"})).await.is(200);
    assert_eq!(
        (again["status"].as_str(), again["position"].as_u64()),
        (Some("queued"), Some(1))
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_lobby_that_outlives_the_process_tickets_keep_their_age_and_place() {
    let w = World::new(SimulatedConfig::default());
    let mut c = duels();
    let mut q = queue("arena", 4);
    q.rules = Rules::new(4, 4, 10 * SECOND, None, None).unwrap();
    c.queues = vec![Arc::new(q)];
    let up = w.up(c.clone()).await;
    let mut tickets = Vec::new();
    for p in ["a", "b", "c"] {
        tickets.push(up.join(json!({"player_id": p})).await.is(200));
        tokio::time::sleep(SECOND).await;
    }
    up.kill();
    let up = w.up(c).await;
    for (n, (p, t)) in ["a", "b", "c"].iter().zip(&tickets).enumerate() {
        let s = up.status(p).await;
        assert_eq!(
            (&s["ticket_id"], &s["position"]),
            (&t["ticket_id"], &json!(n + 1))
        );
        assert!(s["waited_s"].as_f64().unwrap() >= 3.0 - n as f64, "{s:#}");
    }
    let d = up.join(json!({"player_id": "d"})).await.is(200);
    assert_eq!(d["players"], json!(["a", "b", "c", "d"]));
}

fn ticket(n: u128, player: &str) -> Ticket {
    Ticket {
        id: TicketId::new(uuid::Uuid::from_u128(n)),
        queue: "arena".parse().unwrap(),
        players: vec![player.parse().unwrap()],
        attributes: Default::default(),
        latencies: Default::default(),
        joined_at: 0,
        failures: 0,
        caller: None,
    }
}

/// What `kill -9` leaves at each line of a match: its tickets taken, and then its session there, or recorded, or not.
#[tokio::test(start_paused = true)]
async fn a_kill_between_take_start_and_settle_leaves_one_fate() {
    for there in ["never", "live", "recorded"] {
        let w = World::new(SimulatedConfig::default());
        let up = w.up(duels()).await;
        let session: SessionId = if there == "never" {
            SessionId::new(uuid::Uuid::now_v7())
        } else {
            up.join(json!({"player_id": "a"})).await.is(200);
            let s = up.join(json!({"player_id": "b"})).await.is(200);
            if there == "recorded" {
                up.call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
                    .await
                    .is(200);
                up.record(&id(&s), 30 * SECOND).await;
            }
            id(&s).parse().unwrap()
        };
        up.kill();
        assert_eq!(load(w.lobby.as_ref()).await.unwrap(), []);
        let ids = [1, 2].map(|n| TicketId::new(uuid::Uuid::from_u128(n)));
        for (n, p) in [(1, "a"), (2, "b")] {
            w.lobby.join(&ticket(n, p)).await.unwrap();
        }
        w.lobby.take(session, &ids).await.unwrap();
        let up = w.up(duels()).await;
        match there {
            "never" => {
                // Given back, and matched at last.
                let s = up.until_status("a", "matched", 5 * SECOND).await;
                assert_ne!(id(&s), session.to_string());
                assert_eq!(s["ticket_id"], ids[0].to_string());
                assert_eq!(id(&up.status("b").await), id(&s));
            }
            "live" => assert_eq!(
                id(&up.until_status("a", "matched", 5 * SECOND).await),
                session.to_string()
            ),
            _ => {
                up.until_status("a", "none", 5 * SECOND).await;
            }
        }
        tokio::time::sleep(SECOND).await;
        assert_eq!(load(w.lobby.as_ref()).await.unwrap(), [], "{there}");
        one_game_each(&up).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lobby_that_is_away_refuses_joins_and_keeps_who_waits() {
    let mut w = World::new(SimulatedConfig::default());
    let lobby = Arc::new(FlakyStore::quiet(MemoryLobby::new()));
    w.lobby = Arc::clone(&lobby) as Arc<dyn Lobby>;
    let up = w.up(duels()).await;
    up.join(json!({"player_id": "a"})).await.is(200);
    lobby.outage(true);
    up.join(json!({"player_id": "b"}))
        .await
        .code(503, "lobby_unavailable");
    assert_eq!(up.status("b").await["status"], "lost");
    assert_eq!(up.status("a").await["status"], "queued");
    let ready = up.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text);
    lobby.outage(false);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(
        up.join(json!({"player_id": "b"})).await.is(200)["status"],
        "matched"
    );
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(load(lobby.inner()).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lobby_that_cannot_be_read_at_the_start_is_read_later_and_nothing_is_said_before() {
    let mut w = World::new(SimulatedConfig::default());
    let lobby = Arc::new(FlakyStore::quiet(MemoryLobby::new()));
    w.lobby = Arc::clone(&lobby) as Arc<dyn Lobby>;
    lobby.inner().join(&ticket(7, "a")).await.unwrap();
    lobby.outage(true);
    let up = w.up(duels()).await;
    let path = format!(
        "/api/match/status?player_id=a&ticket_id={}",
        uuid::Uuid::from_u128(7)
    );
    up.get(&path).await.code(503, "lobby_unavailable");
    up.join(json!({"player_id": "a"}))
        .await
        .code(503, "lobby_unavailable");
    lobby.outage(false);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(up.get(&path).await.is(200)["status"], "queued");
}

/// Random joins, parties, leaves and kills under a flaky lobby and a flaky runtime.
#[tokio::test(start_paused = true)]
async fn whatever_happens_every_ticket_has_one_fate_and_nobody_two_games() {
    for seed in 0..8_u64 {
        let mut w = World::new(SimulatedConfig {
            seed,
            ..SimulatedConfig::default()
        });
        let store = StoreRates {
            before: 80,
            after: 80,
            delay: 100,
            longest_delay: Duration::from_millis(200),
        };
        let lobby = Arc::new(FlakyStore::new(MemoryLobby::new(), seed, store));
        w.lobby = Arc::clone(&lobby) as Arc<dyn Lobby>;
        let rates = Rates {
            before: 40,
            after: 40,
            storage: 60,
            delay: 100,
            longest_delay: Duration::from_millis(300),
            ..Rates::default()
        };
        let mut c = config(vec![fleet("arena")]);
        c.queues = vec![Arc::new(queue("arena", 4))];
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let runtime =
            |seed| Arc::new(Flaky::new(Arc::clone(&w.runtime), seed, rates)) as Arc<dyn Runtime>;
        let mut up = w.up_with(c.clone(), runtime(seed)).await;
        // Every ticket anybody was told of, with one of its players.
        let mut told: HashMap<String, String> = HashMap::new();
        for step in 0..250 {
            let a = format!("p{}", draw(24));
            match draw(12) {
                0..=5 => {
                    let mut players = vec![a.clone()];
                    for _ in 0..draw(3) {
                        players.push(format!("p{}", draw(24)));
                    }
                    let r = up.join(json!({"players": players})).await;
                    match r.status {
                        200 => {
                            if let Some(t) = r.body["ticket_id"].as_str() {
                                told.insert(t.to_owned(), a);
                            }
                        }
                        409 | 503 => {}
                        other => panic!("seed {seed}: {other} {}", r.text),
                    }
                }
                6 | 7 => {
                    let path = format!("/api/match/join?player_id={a}");
                    let r = up.call("DELETE", &path, None, None).await;
                    assert!(r.status == 200 || r.status == 503, "{}", r.text);
                }
                8 => {
                    let s = up.status(&a).await;
                    if s["status"] == "matched" {
                        up.call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
                            .await;
                    }
                }
                9 => tokio::time::sleep(Duration::from_millis(draw(4_000))).await,
                10 if step % 5 == 0 => {
                    up.kill();
                    up = w.up_with(c.clone(), runtime(seed + step)).await;
                }
                _ => {
                    up.post("/api/new-game", json!({"player_id": a})).await;
                }
            }
            one_game_each(&up).await;
        }
        // With time alone everybody is matched or given up.
        tokio::time::sleep(600 * SECOND).await;
        one_game_each(&up).await;
        for (t, player) in told {
            let s = up
                .get(&format!(
                    "/api/match/status?player_id={player}&ticket_id={t}"
                ))
                .await
                .is(200);
            assert_ne!(s["status"], "queued", "seed {seed}: {s:#}");
        }
        let left = load(lobby.inner()).await.unwrap();
        assert!(
            left.iter().all(|h| h.state == State::Waiting),
            "seed {seed}: {left:#?}"
        );
        assert_eq!(left, [], "seed {seed}");
    }
}
