//! HTTP games: what their players open, and how long they count as being there.

use std::time::Duration;

use axum::http::header::HOST;
use serde_json::json;
use spawnpoint_core::lifecycle::Sight;
use spawnpoint_runtime::Protocol;
use spawnpoint_runtime::simulated::SimulatedConfig;
use spawnpoint_server::config::{Expose, FleetConfig};

use crate::harness::{Up, World, config, fleet, id, with_policy};

fn web(name: &str) -> FleetConfig {
    let mut f = with_policy(fleet(name), |p| p.sight = Sight::Requests);
    f.template.protocol = Protocol::Http;
    f
}

async fn new_at(up: &Up, host: &str, fleet: &str) -> serde_json::Value {
    let body = json!({"playerId": format!("{fleet} at {host}"), "fleet": fleet});
    let mut request = Up::request("POST", "/api/new-game?wait=5", None, Some(&body));
    request.headers_mut().insert(HOST, host.parse().unwrap());
    up.send(crate::harness::On::Public, request).await.is(201)
}

#[tokio::test(start_paused = true)]
async fn the_url_is_what_to_open_or_dial_for_every_protocol() {
    let world = World::new(SimulatedConfig::default());
    let mut direct = web("direct");
    direct.expose = Expose::HostPort;
    direct.template.host_port = true;
    let mut tcp = fleet("tcp");
    tcp.template.protocol = Protocol::Tcp;
    tcp.expose = Expose::HostPort;
    tcp.template.host_port = true;
    let mut bundled = fleet("bundled");
    bundled.template.command = vec!["/opt/games/spice".into()];
    let up = world
        .up(config(vec![web("web"), direct, tcp, bundled, fleet("own")]))
        .await;
    let named = new_at(&up, "localhost:8080", "web").await;
    let (session, token) = (id(&named), named["token"].as_str().unwrap());
    assert_eq!(
        named["url"],
        format!("http://{session}.localhost:8080/?token={token}")
    );
    assert_eq!(
        named["wsUrl"],
        format!("ws://localhost:8080/session/{session}?token={token}"),
        "its WebSockets, for clients that are no browser"
    );
    assert!(named["share_url"].is_null());
    let numbered = new_at(&up, "127.0.0.1:8080", "web").await;
    assert_eq!(
        numbered["url"],
        format!(
            "http://127.0.0.1:8080/session/{}/?token={}",
            id(&numbered),
            numbered["token"].as_str().unwrap()
        )
    );
    let direct = new_at(&up, "localhost:8080", "direct").await;
    let port = direct["connect_port"].as_u64().unwrap();
    assert_eq!(
        direct["url"],
        format!(
            "http://localhost:{port}/?token={}",
            direct["token"].as_str().unwrap()
        )
    );
    let tcp = new_at(&up, "127.0.0.1:8080", "tcp").await;
    let port = tcp["connect_port"].as_u64().unwrap();
    assert_eq!(tcp["url"], format!("tcp://127.0.0.1:{port}"));
    let bundled = new_at(&up, "localhost:8080", "bundled").await;
    assert_eq!(bundled["url"], bundled["wsUrl"]);
    let invite = bundled["invite"].as_str().unwrap();
    assert_eq!(
        bundled["share_url"],
        format!(
            "http://localhost:8080/play?join={}&invite={invite}",
            id(&bundled)
        )
    );
    let own = new_at(&up, "localhost:8080", "own").await;
    assert!(own["share_url"].is_null() && own["invite"].is_string());
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_game_lives_on_a_sessions_own_host() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![web("web")])).await;
    let s = new_at(&up, "localhost:8080", "web").await;
    let own = format!("{}.localhost:8080", id(&s));
    for path in ["/api/fleets", "/api/sessions"] {
        let mut request = Up::request("GET", path, None, None);
        request.headers_mut().insert(HOST, own.parse().unwrap());
        up.send(crate::harness::On::Public, request)
            .await
            .code(403, "host_not_allowed");
    }
    // Its page is a stranger to the API, although it is on this machine.
    for on in [crate::harness::On::Public, crate::harness::On::Admin] {
        let mut request = Up::request(
            "POST",
            "/api/new-game",
            None,
            Some(&json!({"playerId": "x"})),
        );
        let origin = format!("http://{own}");
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        up.send(on, request).await.code(403, "origin_not_allowed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_between_two_clicks_is_there() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![web("web")])).await;
    let s = new_at(&up, "localhost:8080", "web").await;
    let player = "web at localhost:8080";
    let session = format!("/api/sessions/{}", id(&s));
    for _ in 0..20 {
        up.gateway.connected(&id(&s), player, 1, true).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        up.gateway.connected(&id(&s), player, 0, true).await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        let now = up.get(&session).await.is(200);
        assert_eq!(
            (&now["phase"], &now["cull_reason"]),
            (&json!("running"), &json!("idle"))
        );
    }
    let start = tokio::time::Instant::now();
    let record = up.record(&id(&s), Duration::from_secs(600)).await;
    assert_eq!(record["reason"], "idle");
    let passed = start.elapsed().as_secs();
    assert!((240..=242).contains(&passed), "{passed}");
    let unseen = new_at(&up, "localhost:8080", "web").await;
    let record = up.record(&id(&unseen), Duration::from_secs(120)).await;
    assert_eq!(record["reason"], "never_joined");
}
