//! Connections that are told progress.

use std::time::Duration;

use futures::SinkExt as _;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_gateway::GatewayConfig;
use spawnpoint_wire::link::Route;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

const PROGRESS: &[&str] = &["spawnpoint.progress", "spawnpoint.v1"];

fn queued(n: u64, position: u32) -> Route {
    Route {
        phase: Phase::Queued,
        position: Some(position),
        waiting_for: Some("capacity".into()),
        ..starting(session(n))
    }
}

#[tokio::test]
async fn a_start_is_told_step_by_step_and_then_the_game_speaks() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(queued(1, 2)).await;
    let mut client = world.offer(id, "a", PROGRESS).await.unwrap();
    assert_eq!(
        client.headers["sec-websocket-protocol"],
        "spawnpoint.progress"
    );
    assert!(client.headers.get("sec-websocket-extensions").is_none());
    let first = client.hear_event().await;
    assert_eq!(
        (first["type"].as_str(), first["position"].as_u64()),
        (Some("queued"), Some(2))
    );
    assert_eq!(
        (first["v"].as_u64(), first["id"].as_str()),
        (Some(1), Some(""))
    );
    assert_eq!(first["waiting_for"], "capacity");
    assert_eq!(first["session_id"], id.to_string());
    assert!(
        first["at"]
            .as_str()
            .unwrap()
            .starts_with("2027-01-15T08:00:"),
        "{first}"
    );
    assert_eq!(world.gateway.metrics().progress, 1);
    // Said early, heard in order, by the game alone.
    client.say("too early").await;
    for (route, kind, what) in [
        (queued(1, 1), "queued", 1.into()),
        (starting(id), "phase", "starting".into()),
        (
            Route {
                phase: Phase::Running,
                ..starting(id)
            },
            "phase",
            serde_json::Value::from("ready"),
        ),
    ] {
        world.link.set(route);
        let event = client.hear_event().await;
        assert_eq!(event["type"], kind);
        assert_eq!(
            event[if kind == "queued" {
                "position"
            } else {
                "phase"
            }],
            what
        );
    }
    world.link.set(Route {
        generation: 3,
        ..ready(id, game.at)
    });
    loop {
        let event = client.hear_event().await;
        if event["phase"] == "running" {
            assert_eq!(
                (event["type"].as_str(), event["generation"].as_u64()),
                (Some("phase"), Some(3))
            );
            break;
        }
        assert_eq!(event["phase"], "ready");
    }
    assert_eq!(client.hear_text().await, "too early");
    client.echo("in time").await;
    let seen = game.seen().pop().unwrap();
    assert!(seen.headers.get("sec-websocket-protocol").is_none());
    assert!(seen.headers.get("sec-websocket-extensions").is_none());
    assert_eq!(seen.headers["x-player-id"], "a");
    assert_eq!(world.gateway.metrics().progress, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_is_ready_says_running_at_once() {
    let world = World::start().await;
    let game = EchoGame::choosing(Some("chat")).await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let mut client = world
        .offer(id, "a", &["spawnpoint.progress", "chat"])
        .await
        .unwrap();
    assert_eq!(
        client.headers["sec-websocket-protocol"],
        "spawnpoint.progress"
    );
    loop {
        let event = client.hear_event().await;
        if event["phase"] == "running" {
            break;
        }
        assert_eq!(event["phase"], "ready");
    }
    client.echo("x").await;
    assert_eq!(
        game.seen()[0].headers["sec-websocket-protocol"],
        "chat",
        "a game that insists on its own gets it"
    );
    world.stop().await;
}

#[tokio::test]
async fn something_is_said_now_and_then() {
    let world = World::with(GatewayConfig {
        progress_period: Duration::from_millis(50),
        ..config()
    })
    .await;
    let id = session(1);
    world.route(starting(id)).await;
    let mut client = world.offer(id, "a", PROGRESS).await.unwrap();
    for _ in 0..5 {
        assert_eq!(client.hear_event().await["phase"], "starting");
    }
    world.stop().await;
}

#[tokio::test]
async fn pings_are_answered_while_waiting() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let mut client = world.offer(id, "a", PROGRESS).await.unwrap();
    assert_eq!(client.hear_event().await["phase"], "starting");
    for text in ["one", "two"] {
        client.ws.send(Message::Ping(text.into())).await.unwrap();
        assert_eq!(client.hear().await, Message::Pong(text.into()));
    }
    world.link.set(ready(id, game.at));
    while client.hear_event().await["phase"] != "running" {}
    client.echo("x").await;
    world.stop().await;
}

#[tokio::test]
async fn early_words_in_the_segment_of_the_handshake_arrive_once() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    for split in [0, 1, 7, 20] {
        world.route(starting(id)).await;
        let frames = [
            masked(9, b"p"),
            masked(1, b"hello"),
            masked(9, b"later"),
            masked(2, &[7; 3000]),
        ]
        .concat();
        let ping = masked(9, b"p").len();
        let mut client = TcpStream::connect(world.at).await.unwrap();
        client.set_nodelay(true).unwrap();
        let head = upgrade(
            world.at,
            &path,
            "Sec-WebSocket-Protocol: spawnpoint.progress\r\n",
        );
        client
            .write_all(&[head.as_bytes(), &frames[..split]].concat())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let answer = soon("a head", read_head(&mut client, &mut bytes)).await;
        assert!(
            answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{answer}"
        );
        client.write_all(&frames[split..]).await.unwrap();
        // The ping at the head is answered by us, everything from the first data frame on is the game's.
        soon("the pong", async {
            while !bytes.windows(3).any(|w| w == b"\x8a\x01p") {
                let mut more = [0; 512];
                let n = client.read(&mut more).await.unwrap();
                assert_ne!(n, 0);
                bytes.extend(&more[..n]);
            }
        })
        .await;
        world.link.set(ready(id, game.at));
        let mut seen = game.welcome().await;
        assert_eq!(
            seen.read(frames.len() - ping).await,
            frames[ping..],
            "split at {split}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn refusals_are_close_codes_that_a_page_can_read() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let (known, unknown) = (session(1), session(2));
    world.route(ready(known, game.at)).await;
    world
        .route(Route {
            phase: Phase::Ending,
            ended: Some(Reason::Idle),
            ..starting(session(3))
        })
        .await;
    world
        .route(Route {
            phase: Phase::Ending,
            ended: Some(Reason::MaxDuration),
            ..starting(session(4))
        })
        .await;
    world.link.gone(session(4));
    world.link.settled().await;
    let at = |id, token: String| format!("ws://{}/session/{id}?token={token}", world.at);
    for (url, code, reason) in [
        (at(known, "nonsense".into()), 4401, "invalid_credentials"),
        (at(unknown, "nonsense".into()), 4401, "invalid_credentials"),
        (at(known, world.token("a", unknown)), 4403, "forbidden"),
        (at(known, world.token("stranger", known)), 4403, "forbidden"),
        (
            at(unknown, world.token("a", unknown)),
            4404,
            "session_not_found",
        ),
        (at(session(3), world.token("a", session(3))), 4408, "idle"),
        (
            at(session(4), world.token("a", session(4))),
            4410,
            "max_duration",
        ),
    ] {
        let mut client = connect(world.at, &url, PROGRESS, &[]).await.unwrap();
        let (_, got, text) = client.until_close().await;
        assert_eq!((got, text.as_str()), (code, reason));
    }
    let null = connect(
        world.at,
        &world.url(known, "a"),
        PROGRESS,
        &[("origin", "null")],
    )
    .await;
    assert_eq!(null.err().unwrap().status, 403, "before anything else");
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_failed_start_is_told() {
    let world = World::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let mut client = world.offer(id, "a", PROGRESS).await.unwrap();
    assert_eq!(client.hear_event().await["phase"], "starting");
    world.link.set(Route {
        phase: Phase::Ending,
        ended: Some(Reason::StartFailed),
        ..starting(id)
    });
    let (heard, code, reason) = client.until_close().await;
    assert_eq!((code, reason.as_str()), (1013, "start_failed"));
    let last: serde_json::Value =
        serde_json::from_str(heard.last().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(
        (last["type"].as_str(), last["reason"].as_str()),
        (Some("ended"), Some("start_failed"))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_kick_a_takeover_and_a_drain_reach_those_who_wait() {
    let world = World::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let mut kicked = world.offer(id, "b", PROGRESS).await.unwrap();
    let mut older = world.offer(id, "a", PROGRESS).await.unwrap();
    let mut newer = world.offer(id, "a", PROGRESS).await.unwrap();
    assert_eq!(older.closed().await, (4409, "newer_connection".into()));
    world.link.set(Route {
        players: players(&["a"]),
        ..starting(id)
    });
    assert_eq!(kicked.closed().await, (4403, "forbidden".into()));
    let (drained, closed) = tokio::join!(world.gateway.drain(), newer.closed());
    assert_eq!(((), (1001, "shutdown".to_owned())), (drained, closed));
    let after = world.offer(id, "a", &[]).await;
    assert_eq!(after.err().unwrap().status, 503);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_waiting_frees_everything() {
    let world = World::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    // Plainly, behind data that nobody reads, and with a goodbye.
    for early in [vec![], masked(1, b"data"), masked(9, b"ping")] {
        let path = format!("/session/{id}?token={}", world.token("a", id));
        let mut client = TcpStream::connect(world.at).await.unwrap();
        let head = upgrade(
            world.at,
            &path,
            "Sec-WebSocket-Protocol: spawnpoint.progress\r\n",
        );
        client
            .write_all(&[head.as_bytes(), &early].concat())
            .await
            .unwrap();
        eventually("it waits", || world.gateway.metrics().progress == 1).await;
        drop(client);
        eventually("nothing is left", || {
            let m = world.gateway.metrics();
            m.progress == 0 && m.connections == 0
        })
        .await;
    }
    let mut polite = world.offer(id, "a", PROGRESS).await.unwrap();
    polite.ws.close(None).await.unwrap();
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn what_a_waiting_client_sends_is_not_hoarded() {
    let world = World::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let mut client = world.offer(id, "a", PROGRESS).await.unwrap();
    // More than any kernel buffer: it must come to a halt, not into our memory.
    let flood = async {
        let part = masked(2, &[1; 60_000]);
        let mut sent = 0usize;
        loop {
            let write = client.ws.get_mut().write(&part);
            match tokio::time::timeout(Duration::from_millis(500), write).await {
                Ok(n) => sent += n.unwrap(),
                Err(_) => break sent,
            }
        }
    };
    let sent = soon("the flood halts", flood).await;
    assert!(sent < 64 << 20, "{sent}");
    assert_eq!(world.gateway.metrics().buffered_bytes_peak, 0);
    world.stop().await;
}
