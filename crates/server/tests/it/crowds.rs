//! Many at once: each gets what is theirs, what is over leaves nothing, and noise starts nothing.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::future::join_all;
use serde_json::{Value, json};
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::simulated::{SimulatedConfig, Span};

use crate::harness::{On, Up, World, config, fleet, id, key, secret};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    World::new(SimulatedConfig {
        boot: Span::Between(Duration::from_millis(20), Duration::from_millis(900)),
        ..SimulatedConfig::default()
    })
}

/// All live sessions, over as many pages as there are.
async fn sessions(up: &Up) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = up
            .get_owned(format!("/api/sessions?limit=500{cursor}"))
            .await
            .is(200);
        all.extend(page["sessions"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn texts<'v>(all: impl IntoIterator<Item = &'v Value>) -> HashSet<&'v str> {
    all.into_iter().map(|v| v.as_str().unwrap()).collect()
}

async fn end(up: &Up, session: &str) {
    let path = format!("/api/sessions/{session}");
    up.call("DELETE", &path, None, None).await.is(200);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_starts_at_once_are_a_thousand_games() {
    const PLAYERS: usize = 1_000;
    let world = world();
    let up = world.up(config(vec![fleet("arena")])).await;
    let replies = join_all((0..PLAYERS).map(|n| up.play_owned(format!("p{n}")))).await;
    for distinct in ["session_id", "wsUrl", "token", "player_id"] {
        let seen = texts(replies.iter().map(|r| &r[distinct]));
        assert_eq!(seen.len(), PLAYERS, "{distinct}");
    }
    let beginnings: HashSet<&str> = replies
        .iter()
        .map(|r| &r["session_id"].as_str().unwrap()[..8])
        .collect();
    assert!(beginnings.len() <= 2, "although their ids begin alike");
    let live = sessions(&up).await;
    assert_eq!(live.len(), PLAYERS);
    let instances = texts(live.iter().map(|s| &s["instance"]["id"]));
    assert_eq!(instances.len(), PLAYERS, "none is in two sessions");
    let addresses = texts(live.iter().map(|s| &s["instance"]["address"]));
    assert_eq!(addresses.len(), PLAYERS);
    let view = up.get("/api/fleets/arena").await.is(200);
    assert_eq!(view["claimed"], PLAYERS);
    assert_eq!(world.runtime.list().await.unwrap().len(), PLAYERS);
    // In another order than they came.
    let (odd, even): (Vec<_>, Vec<_>) = replies.iter().enumerate().partition(|(n, _)| n % 2 == 1);
    for (_, reply) in odd.iter().rev().chain(&even) {
        end(&up, &id(reply)).await;
    }
    for reply in &replies {
        let record = up.record(&id(reply), 60 * SECOND).await;
        assert_eq!(record["reason"], "ended_by_client");
    }
    assert!(sessions(&up).await.is_empty());
    assert!(world.runtime.list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn twenty_clicks_at_once_are_one_game() {
    let world = world();
    let up = world.up(config(vec![fleet("arena")])).await;
    let clicks = (0..20).map(|_| up.post("/api/new-game", json!({"playerId": "p"})));
    let answers = join_all(clicks).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1);
    let replies: Vec<Value> = answers.into_iter().map(|a| a.body).collect();
    assert_eq!(texts(replies.iter().map(|r| &r["session_id"])).len(), 1);
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
    let fresh = json!({"playerId": "p", "fresh": true});
    let second = up.post("/api/new-game", fresh).await.is(201);
    assert_ne!(id(&second), id(&replies[0]));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_play_and_fifty_wait_and_none_is_lost() {
    let mut f = fleet("arena");
    f.max_instances = Some(200);
    let world = world();
    let up = world.up(config(vec![f])).await;
    let start = async |n: usize| {
        let body = json!({"playerId": format!("p{n}")});
        up.post("/api/new-game", body).await.is(201)
    };
    let replies = join_all((0..250).map(start)).await;
    let (waiting, placed): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r["phase"] == "queued");
    assert_eq!((placed.len(), waiting.len()), (200, 50));
    let mut positions: Vec<u64> = waiting
        .iter()
        .map(|r| r["queue"]["position"].as_u64().unwrap())
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=50).collect::<Vec<u64>>());
    assert!(
        waiting
            .iter()
            .all(|r| r["queue"]["waiting_for"] == "capacity")
    );
    assert!(world.runtime.list().await.unwrap().len() <= 250);
    for reply in &placed[..50] {
        end(&up, &id(reply)).await;
    }
    for reply in &waiting {
        let player = reply["player_id"].as_str().unwrap();
        assert_eq!(id(&up.play(player).await), id(reply), "{player}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_of_ten_end_and_their_five_instances_go() {
    let world = world();
    let up = world.up(config(vec![fleet("arena")])).await;
    let replies = join_all((0..10).map(|n| up.play_owned(format!("p{n}")))).await;
    let start = tokio::time::Instant::now();
    for reply in replies.iter().step_by(2) {
        end(&up, &id(reply)).await;
    }
    while world.runtime.list().await.unwrap().len() > 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            start.elapsed() <= 15 * SECOND,
            "the grace of 10 s, and 5 more"
        );
    }
    let left = sessions(&up).await;
    let expected: HashSet<String> = replies.iter().skip(1).step_by(2).map(id).collect();
    assert_eq!(left.iter().map(id).collect::<HashSet<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn noise_starts_nothing_and_heartbeats_alone_keep_a_game() {
    let world = world();
    let up = world.up(config(vec![fleet("arena")])).await;
    // Pages, listings, questions about nobody: a hundred a second for ten seconds.
    for _ in 0..10 {
        for n in 0..25 {
            up.get("/play").await.is(200);
            up.get("/api/sessions").await.is(200);
            up.get_owned(format!("/api/match/status?player_id=nobody{n}"))
                .await
                .is(200);
            up.get("/api/players/nobody/session").await.is(404);
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(world.runtime.list().await.unwrap().is_empty());
    // A player who sends nothing but heartbeats wakes the fleet and stays.
    let s = id(&up.play("quiet").await);
    up.gateway.connected(&s, "quiet", 1, false).await;
    for _ in 0..200 {
        tokio::time::sleep(5 * SECOND).await;
        let beat = json!({"status": "active", "idleTime": 0});
        up.post(&format!("/api/sessions/{s}/heartbeat"), beat)
            .await
            .is(200);
    }
    let view = up.get_owned(format!("/api/sessions/{s}")).await.is(200);
    assert_eq!(
        (&view["phase"], &view["generation"]),
        (&json!("running"), &json!(1))
    );
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_starts_by_one_key_costs_no_other_key_anything() {
    let mut c = config(vec![fleet("arena")]);
    c.server.keys = vec![key("flood"), key("shop")];
    c.server.sessions_per_key = Some(20);
    let world = world();
    let up = world.up(c).await;
    let start = async |who: &str, n: usize| {
        let body = json!({"playerId": format!("{who}{n}")});
        up.call("POST", "/api/new-game", Some(&secret(who)), Some(body))
            .await
    };
    let flood = join_all((0..1_000).map(|n| start("flood", n))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = flood.into_iter().partition(|a| a.status == 201);
    assert_eq!((taken.len(), refused.len()), (20, 980));
    for answer in refused {
        let problem = answer.code(429, "quota_exceeded");
        assert!(problem["retry_after"].as_u64().is_some(), "{problem}");
    }
    for n in 0..20 {
        start("shop", n).await.is(201);
    }
    assert_eq!(world.runtime.list().await.unwrap().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_the_api_lists() {
    let mut small = fleet("small");
    small.max_instances = Some(3);
    let world = world();
    let up = world.up(config(vec![fleet("arena"), small])).await;
    for n in 0..7 {
        up.play(&format!("p{n}")).await;
        let body = json!({"playerId": format!("s{n}"), "fleet": "small"});
        up.post("/api/new-game", body).await.is(201);
        let request = Request::get("/metrics").header("host", "localhost");
        let text = up
            .send(On::Admin, request.body(Body::empty()).unwrap())
            .await
            .text;
        let live = sessions(&up).await;
        for fleet in ["arena", "small"] {
            let label = format!("fleet=\"{fleet}\"");
            let gauge: f64 = text
                .lines()
                .filter(|l| l.starts_with("spawnpoint_sessions{") && l.contains(&label))
                .map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum();
            let listed = live.iter().filter(|s| s["fleet"] == fleet).count();
            assert_eq!(gauge.to_string(), listed.to_string(), "{fleet}\n{text}");
        }
    }
}
