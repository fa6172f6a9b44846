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
