//! Starting games: warm, cold, queued, repeated, refused.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::simulated::{SimulatedConfig, Span};

use crate::harness::{On, Up, World, config, fleet, id, key, secret, with_policy};

fn booting(ms: u64) -> SimulatedConfig {
    SimulatedConfig {
        boot: Span::Fixed(Duration::from_millis(ms)),
        ..SimulatedConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_game_starts_and_the_answer_says_how_to_play() {
    let world = World::new(booting(80));
    let up = world.up(config(vec![fleet("arena")])).await;
    let reply = up
        .post("/api/new-game", json!({"playerId": "user123"}))
        .await
        .is(201);
    assert_eq!(reply["phase"], "starting");
    assert_eq!(reply["ready"], false);
    assert_eq!(reply["players"], json!(["user123"]));
    let url = reply["wsUrl"].as_str().unwrap();
    assert!(
        url.starts_with(&format!(
            "ws://127.0.0.1:8080/session/{}?token=v4.public.",
            id(&reply)
        )),
        "{url}"
    );
    assert_eq!(reply["url"], reply["wsUrl"]);
    assert!(reply["share_url"].is_null(), "/play plays the bundled game");
    assert_eq!(reply["connect_port"], 8080);
    let again = up
        .post("/api/new-game?wait=5", json!({"player_id": "user123"}))
        .await
        .is(200);
    assert_eq!(id(&again), id(&reply), "one session per player");
    assert_eq!(again["phase"], "ready");
    let receipt = &again["receipt"];
    let sum: u64 = [
        "queue_ms",
        "schedule_ms",
        "pull_ms",
        "boot_ms",
        "claim_ms",
        "dial_ms",
    ]
    .iter()
    .map(|k| receipt[k].as_u64().unwrap())
    .sum();
    assert_eq!(receipt["total_ms"], sum);
    assert!(receipt["boot_ms"].as_u64().unwrap() >= 80, "{receipt}");
}

#[tokio::test(start_paused = true)]
async fn more_boot_time_grows_only_boot() {
    let mut receipts = Vec::new();
    for boot in [50, 350] {
        let world = World::new(booting(boot));
        let up = world.up(config(vec![fleet("arena")])).await;
        receipts.push(up.play("p").await["receipt"].clone());
    }
    for k in ["queue_ms", "schedule_ms", "pull_ms", "claim_ms", "dial_ms"] {
        let (a, b) = (
            receipts[0][k].as_i64().unwrap(),
            receipts[1][k].as_i64().unwrap(),
        );
        assert!((a - b).abs() <= 2, "{k}: {receipts:?}");
    }
    let grown = receipts[1]["boot_ms"].as_i64().unwrap() - receipts[0]["boot_ms"].as_i64().unwrap();
    assert!((299..=301).contains(&grown), "{receipts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_warm_instance_is_claimed_and_replaced() {
    let mut f = fleet("arena");
    f.warm = 2;
    let world = World::new(booting(500));
    let up = world.up(config(vec![f])).await;
    warm(&up, 2).await;
    let reply = up
        .post("/api/new-game", json!({"playerId": "a"}))
        .await
        .is(201);
    assert_eq!(
        reply["ready"], true,
        "a warm claim is ready at once: {reply}"
    );
    assert_eq!(reply["receipt"]["boot_ms"], 0);
    warm(&up, 2).await;
    let f = up.get("/api/fleets/arena").await.is(200);
    assert_eq!(
        (
            f["claimed"].as_u64(),
            f["claims_warm"].as_u64(),
            f["claims_cold"].as_u64()
        ),
        (Some(1), Some(1), Some(0))
    );
    assert_eq!(f["hit_rate"], 1.0);
}

/// Waits until the fleet has this many warm instances that accept.
async fn warm(up: &Up, n: u64) {
    for _ in 0..1_000 {
        let f = up.get("/api/fleets/arena").await.is(200);
        if f["warm"] == n && f["starting"] == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {n} warm");
}

#[tokio::test(start_paused = true)]
async fn sixty_copies_of_one_call_make_one_session() {
    let world = World::new(booting(30));
    let up = world.up(config(vec![fleet("arena")])).await;
    let calls = (0..60).map(|i| {
        let body = json!({"playerId": "p", "payload": {"n": 1}});
        let r = Request::post("/api/new-game")
            .header("host", "localhost:8080")
            .header("idempotency-key", "k1")
            .body(Body::from(body.to_string()))
            .unwrap();
        let up = &up;
        async move {
            let call = up.send(On::Public, r);
            // A third of the callers hang up before the answer.
            if i % 3 == 0 {
                tokio::time::timeout(Duration::from_micros(1), call)
                    .await
                    .ok()
            } else {
                Some(call.await)
            }
        }
    });
    let answers: Vec<_> = futures::future::join_all(calls)
        .await
        .into_iter()
        .flatten()
        .collect();
    let ids: HashSet<_> = answers.iter().map(|a| id(&a.body)).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().filter(|a| a.status == 201).count() <= 1);
    assert_eq!(up.get("/api/sessions").await.is(200)["total"], 1);
    assert_eq!(up.get("/api/fleets/arena").await.is(200)["claimed"], 1);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_means_one_request() {
    let world = World::new(booting(10));
    let up = world.up(config(vec![fleet("arena")])).await;
    let send = |body: serde_json::Value| {
        let r = Request::post("/api/new-game")
            .header("host", "localhost")
            .header("idempotency-key", "k")
            .body(Body::from(body.to_string()));
        up.send(On::Public, r.unwrap())
    };
    let first = send(json!({"playerId": "p"})).await.is(201);
    send(json!({"player_id": "p"})).await.is(200);
    send(json!({"playerId": "q"}))
        .await
        .code(422, "idempotency_mismatch");
    up.call(
        "DELETE",
        &format!("/api/sessions/{}", id(&first)),
        None,
        None,
    )
    .await
    .is(200);
    up.record(&id(&first), Duration::from_secs(30)).await;
    let after = send(json!({"playerId": "p"})).await.is(200);
    assert_eq!(
        (id(&after), after["phase"].as_str()),
        (id(&first), Some("ended")),
        "also after the end"
    );
    send(json!({"playerId": "q"}))
        .await
        .code(422, "idempotency_mismatch");
    let fresh = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(201);
    assert_ne!(id(&fresh), id(&first));
}

#[tokio::test(start_paused = true)]
async fn a_full_fleet_queues_in_order_and_the_queue_moves() {
    let mut f = fleet("arena");
    f.max_instances = Some(2);
    let world = World::new(booting(20));
    let up = world.up(config(vec![f])).await;
    let (a, _b) = (up.play("a").await, up.play("b").await);
    let c = up
        .post("/api/new-game", json!({"playerId": "c"}))
        .await
        .is(201);
    let d = up
        .post("/api/new-game", json!({"playerId": "d"}))
        .await
        .is(201);
    assert_eq!(
        (
            c["phase"].as_str(),
            c["queue"]["position"].as_u64(),
            c["queue"]["waiting_for"].as_str()
        ),
        (Some("queued"), Some(1), Some("capacity"))
    );
    assert_eq!(d["queue"]["position"], 2);
    up.call("DELETE", &format!("/api/sessions/{}", id(&a)), None, None)
        .await
        .is(200);
    let c = up
        .post("/api/new-game?wait=60", json!({"playerId": "c"}))
        .await
        .is(200);
    assert_eq!(c["phase"], "ready");
    assert!(c["receipt"]["queue_ms"].as_u64().is_some());
    let d = up
        .post("/api/new-game", json!({"playerId": "d"}))
        .await
        .is(200);
    assert_eq!(d["queue"]["position"], 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_full_fleet_gets_the_warm_instance_that_becomes_ready() {
    let mut f = fleet("arena");
    (f.warm, f.max_instances) = (1, Some(1));
    let c = config(vec![f]);
    let world = World::new(booting(200));
    let up = world.up(c.clone()).await;
    // The fleet worker has ordered its one instance, which boots: there is room for no other.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let a = up
        .post("/api/new-game", json!({"playerId": "a"}))
        .await
        .is(201);
    assert_eq!(a["queue"]["waiting_for"], "capacity");
    let a = up.play("a").await;
    assert_eq!(a["phase"], "ready");
    // What held its place is gone, and a restart finds the same session on the same instance.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = world.runtime.list().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    up.kill();
    let up = world.up(c).await;
    let again = up
        .post("/api/new-game", json!({"playerId": "a"}))
        .await
        .is(200);
    assert_eq!((id(&again), &again["ready"]), (id(&a), &json!(true)));
    up.call("DELETE", &format!("/api/sessions/{}", id(&a)), None, None)
        .await
        .is(200);
    let record = up.record(&id(&a), Duration::from_secs(30)).await;
    assert_eq!(record["reason"], "ended_by_client");
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_runs_out() {
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let f = with_policy(f, |p| {
        p.join = None;
        p.max = None;
        p.max_limit = None;
    });
    let world = World::new(booting(20));
    let up = world.up(config(vec![f])).await;
    up.play("a").await;
    let b = up
        .post("/api/new-game", json!({"playerId": "b"}))
        .await
        .is(201);
    let record = up.record(&id(&b), Duration::from_secs(302)).await;
    assert_eq!(
        (record["reason"].as_str(), record["code"].as_str()),
        (Some("start_failed"), Some("capacity"))
    );
}

#[tokio::test(start_paused = true)]
async fn fresh_ends_the_old_game_and_starts_another() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena")])).await;
    let old = up.play("p").await;
    let new = up
        .post("/api/new-game", json!({"playerId": "p", "fresh": true}))
        .await
        .is(201);
    assert_ne!(id(&old), id(&new));
    let record = up.record(&id(&old), Duration::from_secs(30)).await;
    assert_eq!(record["reason"], "ended_by_client");
}

#[tokio::test(start_paused = true)]
async fn players_of_another_game_are_named() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena")])).await;
    up.play("a").await;
    let p = up
        .post(
            "/api/new-game",
            json!({"playerId": "b", "players": ["b", "a"]}),
        )
        .await
        .code(409, "players_in_other_session");
    assert!(p["detail"].as_str().unwrap().contains("\"a\""));
    let four = up
        .post(
            "/api/new-game",
            json!({"playerId": "w", "players": ["x", "y", "z"]}),
        )
        .await
        .is(201);
    assert_eq!(four["players"], json!(["w", "x", "y", "z"]));
}

#[tokio::test(start_paused = true)]
async fn wrong_calls_are_told_what_is_wrong() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena"), fleet("other")])).await;
    let post = |text: &str| {
        up.send(
            On::Public,
            Request::post("/api/new-game")
                .header("host", "localhost")
                .body(Body::from(text.to_owned()))
                .unwrap(),
        )
    };
    post("{").await.code(400, "malformed_body");
    post("[]").await.code(400, "malformed_body");
    post("{}").await.code(400, "missing_field");
    post(r#"{"playerId":""}"#).await.code(400, "invalid_field");
    post(r#"{"playerId":7}"#).await.code(400, "invalid_field");
    post(r#"{"playerId":"a","nope":1}"#)
        .await
        .code(400, "unknown_field");
    post(r#"{"playerId":"a","player_id":"b"}"#)
        .await
        .code(400, "conflicting_fields");
    post(r#"{"playerId":"a\u0000"}"#)
        .await
        .code(400, "invalid_field");
    post(&json!({"playerId": "x".repeat(257)}).to_string())
        .await
        .code(400, "invalid_field");
    post(&json!({"playerId": "x".repeat(1 << 20)}).to_string())
        .await
        .code(413, "body_too_large");
    post(&json!({"playerId": "a", "payload": "x".repeat(17_000)}).to_string())
        .await
        .code(400, "invalid_field");
    post(r#"{"playerId":"a","max_duration":0}"#)
        .await
        .code(400, "invalid_field");
    post(r#"{"playerId":"a","max_duration":"soon"}"#)
        .await
        .code(400, "invalid_field");
    post(r#"{"playerId":"a","joinable":"maybe"}"#)
        .await
        .code(400, "invalid_field");
    let p = post(r#"{"playerId":"a","fleet":"nope"}"#)
        .await
        .code(404, "fleet_not_found");
    assert!(
        p["detail"].as_str().unwrap().contains("arena, other"),
        "{p}"
    );
    up.get("/api/new-game")
        .await
        .code(405, "method_not_allowed");
    up.get("/api/nothing").await.code(404, "not_found");
    up.get("/api/sessions?nope=1")
        .await
        .code(400, "invalid_parameter");
    up.get("/api/sessions?limit=0")
        .await
        .code(400, "invalid_parameter");
    up.get("/api/sessions?cursor=abc")
        .await
        .code(400, "invalid_cursor");
    up.get("/api/sessions/not-an-id")
        .await
        .code(404, "session_not_found");
    up.get("/api/matches/01890a5d-ac96-774b-bcce-b302099a8057")
        .await
        .code(404, "match_not_found");
    assert_eq!(
        up.get("/api/sessions").await.is(200)["total"],
        0,
        "nothing was started"
    );
    for odd in [
        "1",
        "11",
        "1%",
        "_",
        "a,b",
        "\u{1f9c2}",
        "../../etc/passwd",
        "A/B?c#d",
    ] {
        let reply = post(&json!({"playerId": odd}).to_string()).await.is(201);
        assert_eq!(reply["player_id"], odd);
    }
    assert_eq!(
        up.get("/api/sessions?player_id=1%25").await.is(200)["total"],
        1
    );
}

#[tokio::test(start_paused = true)]
async fn strangers_learn_nothing_and_start_nothing() {
    let mut c = config(vec![fleet("arena")]);
    c.server.keys = vec![key("shop"), key("other")];
    let world = World::new(booting(20));
    let up = world.up(c).await;
    up.post("/api/new-game", json!({"playerId": "p"}))
        .await
        .code(401, "unauthenticated");
    up.call(
        "POST",
        "/api/new-game",
        Some("wrong"),
        Some(json!({"playerId": "p"})),
    )
    .await
    .code(401, "invalid_credentials");
    let shop = secret("shop");
    let reply = up
        .call(
            "POST",
            "/api/new-game?wait=5",
            Some(&shop),
            Some(json!({"playerId": "p"})),
        )
        .await
        .is(201);
    let session = id(&reply);
    let token = reply["token"].as_str().unwrap();
    let q = up
        .call(
            "POST",
            "/api/new-game?wait=5",
            Some(&shop),
            Some(json!({"playerId": "q"})),
        )
        .await
        .is(201);
    let foreign = q["token"].as_str().unwrap();
    for (method, path) in [
        ("GET", format!("/api/sessions/{session}")),
        ("GET", format!("/api/sessions/{session}/why")),
        ("POST", format!("/api/sessions/{session}/heartbeat")),
        ("POST", format!("/api/sessions/{session}/extend")),
        ("POST", format!("/api/match/{session}/end")),
        ("DELETE", format!("/api/sessions/{session}")),
        ("POST", format!("/api/sessions/{session}/token")),
        ("GET", format!("/api/events?session_id={session}")),
    ] {
        let body = (method == "POST").then(|| json!({}));
        up.call(method, &path, None, body.clone())
            .await
            .code(401, "unauthenticated");
        up.call(method, &path, Some(foreign), body)
            .await
            .code(403, "forbidden");
    }
    up.call(
        "GET",
        &format!("/api/sessions/{session}"),
        Some(token),
        None,
    )
    .await
    .is(200);
    let mine = up
        .call("GET", "/api/sessions", Some(token), None)
        .await
        .is(200);
    assert_eq!(mine["total"], 1, "a player sees only theirs");
    up.call("GET", "/api/fleets", Some(token), None)
        .await
        .code(403, "forbidden");
    up.call(
        "GET",
        &format!("/api/sessions/{session}/logs"),
        Some(token),
        None,
    )
    .await
    .code(403, "forbidden");
    up.send(On::Admin, Up::request("GET", "/api/sessions", None, None))
        .await
        .code(401, "unauthenticated");
    up.send(On::Admin, Up::request("GET", "/metrics", Some(&shop), None))
        .await
        .is(200);
    up.get("/metrics").await.code(404, "not_found");
}

#[tokio::test(start_paused = true)]
async fn guests_are_given_an_id_and_only_they_get_their_game_back() {
    let mut f = fleet("arena");
    f.guests = true;
    let mut c = config(vec![f, fleet("closed")]);
    c.server.guests = true;
    let world = World::new(booting(20));
    let up = world.up(c).await;
    up.post("/api/new-game", json!({"playerId": "admin"}))
        .await
        .code(401, "unauthenticated");
    let a = up.post("/api/new-game?wait=5", json!({})).await.is(201);
    let b = up.post("/api/new-game?wait=5", json!({})).await.is(201);
    assert_ne!(a["player_id"], b["player_id"]);
    let back = up
        .call(
            "POST",
            "/api/new-game",
            Some(a["token"].as_str().unwrap()),
            Some(json!({})),
        )
        .await
        .is(200);
    assert_eq!(id(&back), id(&a));
    up.post("/api/new-game", json!({"fleet": "closed"}))
        .await
        .code(403, "forbidden");
    up.post("/api/new-game", json!({"payload": 1}))
        .await
        .code(403, "forbidden");
    up.get("/api/sessions").await.code(401, "unauthenticated");
}

#[tokio::test(start_paused = true)]
async fn hosts_and_origins_are_checked_even_in_development() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena")])).await;
    let get = |host: &str, origin: Option<&str>| {
        let mut r = Request::get("/api/sessions").header("host", host);
        if let Some(o) = origin {
            r = r.header("origin", o);
        }
        up.send(On::Public, r.body(Body::empty()).unwrap())
    };
    get("evil.com", None).await.code(403, "host_not_allowed");
    get("localhost:8080", Some("https://evil.com"))
        .await
        .code(403, "origin_not_allowed");
    get("localhost:8080", Some("null"))
        .await
        .code(403, "origin_not_allowed");
    let ok = get("localhost:8080", Some("http://localhost:5173")).await;
    assert_eq!(
        ok.headers["access-control-allow-origin"],
        "http://localhost:5173"
    );
    ok.is(200);
    let pre = Request::options("/api/new-game")
        .header("host", "localhost")
        .header("origin", "http://localhost:5173")
        .body(Body::empty())
        .unwrap();
    assert_eq!(up.send(On::Public, pre).await.status, 204);
}

#[tokio::test(start_paused = true)]
async fn listed_origins_may_call_and_no_others() {
    let mut c = config(vec![fleet("arena")]);
    c.server.allowed_origins = vec!["https://www.example.com".into()];
    c.server.keys = vec![key("shop")];
    let world = World::new(booting(20));
    let up = world.up(c).await;
    let call = |method: &str, origin: &str| {
        let body = json!({"playerId": "p"}).to_string();
        let r = Request::builder()
            .method(method)
            .uri("/api/new-game")
            .header("host", "localhost:8080")
            .header("origin", origin)
            .header("authorization", format!("Bearer {}", secret("shop")))
            .body(Body::from(body))
            .unwrap();
        up.send(On::Public, r)
    };
    for origin in [
        "https://www.example.com.evil.com",
        "http://www.example.com",
        "https://example.com",
        "http://localhost:5173",
        "null",
    ] {
        call("POST", origin).await.code(403, "origin_not_allowed");
        assert_ne!(call("OPTIONS", origin).await.status, 204, "{origin}");
    }
    assert!(world.runtime.list().await.unwrap().is_empty());
    for origin in ["https://www.example.com", "http://localhost:8080"] {
        let preflight = call("OPTIONS", origin).await;
        assert_eq!(preflight.status, 204);
        let answer = call("POST", origin).await;
        assert_eq!(answer.headers["access-control-allow-origin"], origin);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_json_whatever_they_are_called() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena")])).await;
    // As axios, fetch, curl -d, sendBeacon and careless clients send it.
    let kinds = [
        Some("application/json"),
        Some("application/json; charset=utf-8"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain;charset=UTF-8"),
        None,
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let send = |path: String, body: serde_json::Value| {
            let mut r = Request::post(path)
                .header("host", "localhost:8080")
                .header("origin", "http://localhost:8080")
                .header("accept", "application/json, text/plain, */*");
            if let Some(kind) = kind {
                r = r.header("content-type", kind);
            }
            up.send(On::Public, r.body(Body::from(body.to_string())).unwrap())
        };
        let body = json!({"playerId": format!("user{n}")});
        let answer = send("/api/new-game".into(), body).await;
        assert_eq!(answer.headers["content-type"], "application/json");
        let reply = answer.is(201);
        let beat = format!("/api/sessions/{}/heartbeat", id(&reply));
        let body = json!({"status": "inactive", "token": reply["token"]});
        send(beat, body).await.is(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_one_key_is_not_anothers() {
    let mut c = config(vec![fleet("arena")]);
    c.server.keys = vec![key("a"), key("b")];
    c.server.sessions_per_key = Some(2);
    let world = World::new(booting(20));
    let up = world.up(c).await;
    let start = |k: &'static str, p: &'static str| {
        let (up, s) = (&up, secret(k));
        async move {
            up.call(
                "POST",
                "/api/new-game",
                Some(&s),
                Some(json!({"playerId": p})),
            )
            .await
        }
    };
    start("a", "1").await.is(201);
    start("a", "2").await.is(201);
    let p = start("a", "3").await.code(429, "quota_exceeded");
    assert!(p["retry_after"].as_u64().is_some());
    start("b", "4").await.is(201);
}

#[tokio::test(start_paused = true)]
async fn listings_page_completely() {
    let world = World::new(booting(20));
    let up = world.up(config(vec![fleet("arena")])).await;
    for i in 0..7 {
        up.play(&format!("p{i}")).await;
    }
    for sort in ["newest", "idle"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = up
                .get(&format!("/api/sessions?limit=3&sort={sort}{cursor}"))
                .await
                .is(200);
            seen.extend(page["sessions"].as_array().unwrap().iter().map(id));
            match page["next_cursor"].as_str() {
                Some(c) => cursor = format!("&cursor={c}"),
                None => break,
            }
        }
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 7, "{sort}");
        assert_eq!(seen.len(), 7, "{sort}");
    }
}
