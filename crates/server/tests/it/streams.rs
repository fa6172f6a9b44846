//! The event stream: complete, in order, resumable, and over with its session.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use spawnpoint_runtime::simulated::{SimulatedConfig, Span};

use crate::harness::{Answer, On, Up, World, config, fleet, id};

async fn stream(up: &Up, query: &str, last: Option<&str>) -> Answer {
    let mut r = Request::get(format!("/api/events?{query}")).header("host", "localhost");
    if let Some(l) = last {
        r = r.header("last-event-id", l);
    }
    up.send(On::Public, r.body(Body::empty()).unwrap()).await
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .map(|d| serde_json::from_str(d).unwrap())
        .collect()
}

fn kinds(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|e| match e["type"].as_str().unwrap() {
            "phase" => format!("phase:{}", e["phase"].as_str().unwrap()),
            other => other.to_owned(),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_whole_life_in_order_and_resumed_from_any_place() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![fleet("arena")])).await;
    let s = up.play("p").await;
    let session = id(&s);
    let query = format!(
        "session_id={session}&token={}",
        s["token"].as_str().unwrap()
    );
    let (whole, ()) = tokio::join!(stream(&up, &query, None), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        up.gateway.connected(&session, "p", 1, true).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        up.gateway.connected(&session, "p", 0, false).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        up.call("DELETE", &format!("/api/sessions/{session}"), None, None)
            .await
            .is(200);
    });
    assert_eq!(whole.status, 200);
    let all = events(&whole.text);
    assert_eq!(
        kinds(&all),
        [
            "hello",
            "player_joined",
            "phase:running",
            "player_left",
            "ended",
            "phase:ending",
            "phase:ended"
        ]
    );
    assert!(
        all.iter()
            .all(|e| e["v"] == 1 && e["session_id"] == session.as_str())
    );
    up.record(&session, Duration::from_secs(30)).await;
    for i in 1..all.len() {
        let resumed = events(&stream(&up, &query, all[i]["id"].as_str()).await.text);
        assert_eq!(resumed[0]["type"], "hello", "{i}");
        if i + 1 < all.len() {
            assert_eq!(resumed[0]["resumed"], true);
            assert_eq!(resumed[1..], all[i + 1..], "{i}");
        }
    }
    let unknown = events(&stream(&up, &query, Some("1-99999")).await.text);
    assert_eq!(
        (
            unknown[0]["resumed"].as_bool(),
            unknown[0]["phase"].as_str()
        ),
        (Some(false), Some("ended"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_is_told_from_the_call_to_the_first_player() {
    let w = World::new(SimulatedConfig {
        boot: Span::Fixed(Duration::from_millis(500)),
        ..SimulatedConfig::default()
    });
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let up = w.up(config(vec![f])).await;
    let before = up.play("before").await;
    let s = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(201);
    assert_eq!(s["phase"], "queued");
    let session = id(&s);
    let running = |e: &[Value]| e.iter().any(|e| e["phase"] == "running");
    let (all, ()) = tokio::join!(
        up.follow("player_id=p", None, Duration::from_secs(60), running),
        async {
            let path = format!("/api/sessions/{}", id(&before));
            up.call("DELETE", &path, None, None).await.is(200);
            up.play("p").await;
            up.gateway.connected(&session, "p", 1, true).await;
        }
    );
    // Where it stands may be told more than once while the place is made.
    let mut told = kinds(&all);
    told.dedup();
    assert_eq!(
        told,
        [
            "hello",
            "phase:starting",
            "phase:ready",
            "player_joined",
            "phase:running"
        ],
        "{all:#?}"
    );
    assert_eq!(all[0]["phase"], "queued");
    assert!(
        all.iter().all(|e| e["session_id"] == session.as_str()),
        "{all:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_is_the_short_form() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![fleet("arena")])).await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}?wait=20", id(&s));
    let (view, ()) = tokio::join!(up.get(&path), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        up.gateway.connected(&id(&s), "p", 1, true).await;
    });
    assert_eq!(view.is(200)["phase"], "running");
    up.get(&format!("/api/sessions/{}?wait=61", id(&s)))
        .await
        .code(400, "invalid_parameter");
}

#[tokio::test(start_paused = true)]
async fn streams_are_for_those_they_are_about() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![fleet("arena")])).await;
    stream(&up, "", None).await.code(400, "invalid_parameter");
    stream(&up, "session_id=01890a5d-ac96-774b-bcce-b302099a8057", None)
        .await
        .code(404, "session_not_found");
    let s = up.play("p").await;
    let t = s["token"].as_str().unwrap();
    stream(&up, &format!("player_id=q&token={t}"), None)
        .await
        .code(403, "forbidden");
}

#[tokio::test(start_paused = true)]
async fn an_instance_speaks_for_itself_only() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    f.template.ready = spawnpoint_runtime::ReadyRule::Sdk;
    let up = w.up(config(vec![f])).await;
    let s = up
        .post(
            "/api/new-game",
            json!({"playerId": "p", "payload": {"map": 3}}),
        )
        .await
        .is(201);
    let view = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    let instance = view["instance"]["id"].as_str().unwrap().parse().unwrap();
    let token = w
        .runtime
        .environment(instance)
        .unwrap()
        .remove("SPAWNPOINT_TOKEN")
        .unwrap();
    let sdk = |method: &str, path: &str, body: Option<Value>| {
        let r = Up::request(method, path, Some(&token), body.as_ref());
        up.send(On::Sdk, r)
    };
    let own = sdk("GET", "/v1/session", None).await.is(200);
    assert_eq!(
        (own["session_id"].as_str(), &own["payload"]["map"]),
        (Some(id(&s).as_str()), &json!(3))
    );
    assert_eq!(own["phase"], "starting");
    sdk("POST", "/v1/ready", None).await.is(200);
    let ready = up
        .post("/api/new-game?wait=5", json!({"playerId": "p"}))
        .await
        .is(200);
    assert_eq!(ready["ready"], true);
    sdk(
        "POST",
        "/v1/activity",
        Some(json!({"status": "busy", "ttl": 30})),
    )
    .await
    .is(200);
    sdk("POST", "/v1/activity", Some(json!({"status": "odd"})))
        .await
        .code(400, "invalid_field");
    up.send(
        On::Sdk,
        Up::request("GET", "/v1/session", s["token"].as_str(), None),
    )
    .await
    .code(401, "invalid_credentials");
    up.send(On::Sdk, Up::request("GET", "/v1/session", None, None))
        .await
        .code(401, "unauthenticated");
    up.send(
        On::Sdk,
        Up::request("GET", "/api/sessions", Some(&token), None),
    )
    .await
    .code(404, "not_found");
    sdk("POST", "/v1/end", Some(json!({"results": {"score": 9}})))
        .await
        .is(200);
    let r = up.record(&id(&s), Duration::from_secs(20)).await;
    assert_eq!(
        (r["reason"].as_str(), &r["results"]["score"]),
        (Some("ended_by_server"), &json!(9))
    );
    sdk("GET", "/v1/session", None)
        .await
        .code(401, "invalid_credentials");
}

/// A fleet with so many warm, and no more instances than this.
fn pool(name: &str, warm: u32, most: u32) -> spawnpoint_server::config::FleetConfig {
    let mut f = fleet(name);
    (f.warm, f.max_instances) = (warm, Some(most));
    f
}

#[tokio::test(start_paused = true)]
async fn changes_of_fleets_are_told_with_their_reasons_and_each_once() {
    let w = World::new(SimulatedConfig {
        boot: Span::Fixed(Duration::from_secs(2)),
        ..SimulatedConfig::default()
    });
    let up = w
        .up(config(vec![pool("arena", 2, 3), pool("other", 0, 3)]))
        .await;
    // Warm instances are on their way; the follower sees them get ready, one taken, another started, and the session end.
    let following = up.follow_path(
        "/api/fleets?follow=true",
        None,
        Duration::from_secs(60),
        |told| {
            let last = told.iter().rfind(|c| c["name"] == "arena");
            told.iter().any(|c| c["claimed"] == 1)
                && last.is_some_and(|c| c["claimed"] == 0 && c["warm"] == 2 && c["stopping"] == 0)
        },
    );
    let (told, ()) = tokio::join!(following, async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let session = id(&up.play("p").await);
        tokio::time::sleep(Duration::from_secs(10)).await;
        up.call("DELETE", &format!("/api/sessions/{session}"), None, None)
            .await
            .is(200);
    });
    // In their order, as all are when the stream begins.
    assert_eq!(
        (&told[0]["name"], &told[1]["name"]),
        (&json!("arena"), &json!("other"))
    );
    let numbers = |c: &Value| ["warm", "starting", "claimed"].map(|n| c[n].as_u64().unwrap());
    let arena: Vec<&Value> = told.iter().filter(|c| c["name"] == "arena").collect();
    let mut seen: Vec<[u64; 3]> = arena.iter().map(|c| numbers(c)).collect();
    seen.dedup();
    let order = [[0, 2, 0], [2, 0, 0], [1, 1, 1], [2, 0, 1], [2, 0, 0]];
    let mut rest = seen.iter();
    assert!(
        order.iter().all(|wanted| rest.any(|s| s == wanted)),
        "{seen:?}"
    );
    // Each has its time and the reason of the plan that made it so; none says what was said.
    let claim = arena.iter().find(|c| numbers(c) == [1, 1, 1]).unwrap();
    assert_eq!(claim["last_plan"]["because"], "1 of 2 warm: 1 more");
    assert_eq!(claim["last_plan"]["start"], 1);
    let times: Vec<&str> = arena.iter().map(|c| c["at"].as_str().unwrap()).collect();
    assert!(
        times.is_sorted() && times[0] < times[times.len() - 1],
        "{times:?}"
    );
    let what = |c: &Value| {
        (
            numbers(c),
            c["stopping"].clone(),
            c["sessions"].clone(),
            c["last_plan"]["because"].clone(),
        )
    };
    assert!(
        arena.windows(2).all(|pair| what(pair[0]) != what(pair[1])),
        "{arena:#?}"
    );
    // The fleet that nobody plays says how it is, and when it is planned for the first time.
    let other = told.iter().filter(|c| c["name"] == "other").count();
    assert!((1..=2).contains(&other), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn one_fleet_is_followed_until_it_is_gone() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![fleet("arena"), fleet("other")])).await;
    let session = id(&up.play("p").await);
    let path = "/api/fleets/arena?follow=1";
    let (told, ()) = tokio::join!(
        // To its end: nobody says here when it is enough.
        up.follow_path(path, None, Duration::from_secs(600), |_| false),
        async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // Its session plays on, so it is still there.
            up.server.reload(config(vec![fleet("other")]));
            tokio::time::sleep(Duration::from_secs(30)).await;
            up.call("DELETE", &format!("/api/sessions/{session}"), None, None)
                .await
                .is(200);
        }
    );
    assert!(told.iter().all(|c| c["name"] == "arena"), "{told:#?}");
    let gone: Vec<bool> = told.iter().map(|c| c["gone"].as_bool().unwrap()).collect();
    let (last, before) = gone.split_last().unwrap();
    assert!(*last && before.iter().all(|g| !g), "{gone:?}");
    up.get("/api/fleets/nowhere?follow=true")
        .await
        .code(404, "fleet_not_found");
    up.get("/api/fleets?follow=maybe")
        .await
        .code(400, "invalid_parameter");
}
