//! Who gets in, what the game is told, and what everybody else hears.

use std::time::Duration;

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_gateway::GatewayConfig;
use spawnpoint_wire::link::{Protocol, Route};
use spawnpoint_wire::token::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

#[tokio::test]
async fn a_player_reaches_the_game_under_both_paths() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    for (path, seen) in [
        (format!("/session/{id}"), "/"),
        (format!("/session/{id}/"), "/"),
        (format!("/ws/{id}/a/b%20c"), "/a/b%20c"),
        (format!("/ws/{id}/a?x=1&y=%26"), "/a?x=1&y=%26"),
    ] {
        let glue = if path.contains('?') { '&' } else { '?' };
        let url = format!(
            "ws://{}{path}{glue}token={}",
            world.at,
            world.token("a", id)
        );
        let mut client = connect(world.at, &url, &[], &[]).await.unwrap();
        client.echo("hello").await;
        assert_eq!(game.seen().last().unwrap().path, seen);
    }
    assert_eq!(world.gateway.metrics().handshakes["ok"], 4);
    world.stop().await;
}

#[tokio::test]
async fn the_game_learns_who_comes_and_nothing_else_of_ours() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    let player = "emoji \u{1f9c2}/1%";
    world
        .route(Route {
            players: players(&[player]),
            ..ready(id, game.at)
        })
        .await;
    let token = world.token(player, id);
    let lies = [
        ("x-player-id", "root"),
        ("x-session-id", "x"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-prefix", "/evil"),
        ("cookie", "kept=1"),
    ];
    let base = format!("ws://{}/session/{id}/x", world.at);
    let bearer = format!("Bearer {token}");
    let ours = format!("spawnpoint.token.{token}");
    let own_path = format!("ws://{}/session/emoji%20%F0%9F%A7%82%2F1%25/x", world.at);
    let by_query = format!("{base}?a=b&token={token}");
    type Way<'a> = (&'a str, Vec<&'a str>, Vec<(&'static str, &'a str)>);
    let ways: [Way<'_>; 4] = [
        (&by_query, vec![], vec![]),
        (&base, vec![], vec![("authorization", &bearer)]),
        (&base, vec![&ours, "spawnpoint.v1"], vec![]),
        (&own_path, vec![], vec![("authorization", &bearer)]),
    ];
    for (url, protocols, mut headers) in ways {
        headers.extend(lies);
        let mut client = connect(world.at, url, &protocols, &headers).await.unwrap();
        client.echo("x").await;
        let seen = game.seen().pop().unwrap();
        let get = |n: &str| seen.headers.get(n).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(
            get("x-player-id").as_deref(),
            Some("emoji%20%F0%9F%A7%82%2F1%25")
        );
        assert_eq!(get("x-session-id"), Some(id.to_string()));
        assert_eq!(get("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(get("x-forwarded-host"), Some(world.at.to_string()));
        assert_eq!(get("x-forwarded-proto").as_deref(), Some("http"));
        let prefix = url
            .split_once("/x")
            .unwrap()
            .0
            .split_once(&world.at.to_string())
            .unwrap()
            .1;
        assert_eq!(get("x-forwarded-prefix").as_deref(), Some(prefix));
        assert_eq!(get("host"), Some(world.at.to_string()));
        assert_eq!(get("cookie").as_deref(), Some("kept=1"));
        assert_eq!(get("authorization"), None);
        assert_eq!(get("sec-websocket-protocol"), None);
        let everything = format!("{seen:?}");
        assert!(!everything.contains("v4.public"), "{everything}");
        assert!(
            !everything.contains("evil") && !everything.contains("6.6.6.6"),
            "{everything}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn a_games_own_credentials_are_left_alone() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let mut client = connect(
        world.at,
        &world.url(id, "a"),
        &[],
        &[("authorization", "Bearer the-games-own")],
    )
    .await
    .unwrap();
    client.echo("x").await;
    assert_eq!(
        game.seen()[0].headers["authorization"],
        "Bearer the-games-own"
    );
    world.stop().await;
}

#[tokio::test]
async fn refusals_are_problems_and_never_tell_whether_a_session_exists() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let (known, other, unknown) = (session(1), session(2), session(3));
    world.route(ready(known, game.at)).await;
    world.route(ready(other, game.at)).await;
    let foreign = SigningKey::generate().unwrap();
    let bad = [
        ("nonsense".to_owned(), "invalid_credentials"),
        (
            world.token_until("a", known, NOW - 1),
            "invalid_credentials",
        ),
        (
            token(&foreign, "a", known, NOW + 9999),
            "invalid_credentials",
        ),
        (String::new(), "unauthenticated"),
    ];
    for (token, code) in bad {
        let mut bodies = Vec::new();
        for name in [
            known.to_string(),
            unknown.to_string(),
            "some player".replace(' ', "%20"),
        ] {
            let path = if token.is_empty() {
                format!("/session/{name}")
            } else {
                format!("/session/{name}?token={token}")
            };
            let answer = ask(world.at, &upgrade(world.at, &path, "")).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, code),
                "{path}"
            );
            let head = answer
                .head
                .lines()
                .filter(|l| !l.starts_with("date"))
                .collect::<Vec<_>>()
                .join("\n");
            bodies.push((head, answer.body));
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "the same for known and unknown sessions");
    }
    let expect = async |path: String, more: &str, status: u16, code: &str| {
        let answer = ask(world.at, &upgrade(world.at, &path, more)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path} {more}"
        );
        answer
    };
    let t = |player: &str, s| world.token(player, s);
    expect(
        format!("/session/{known}?token={}", t("a", other)),
        "",
        403,
        "forbidden",
    )
    .await;
    expect(
        format!("/session/{unknown}?token={}", t("a", other)),
        "",
        403,
        "forbidden",
    )
    .await;
    expect(
        format!("/session/b?token={}", t("a", known)),
        "",
        403,
        "forbidden",
    )
    .await;
    expect(
        format!("/session/{known}?token={}", t("stranger", known)),
        "",
        403,
        "forbidden",
    )
    .await;
    expect(
        format!("/session/{unknown}?token={}", t("a", unknown)),
        "",
        404,
        "session_not_found",
    )
    .await;
    let path = format!("/session/{known}?token={}", t("a", known));
    for origin in [
        "null",
        "https://evil.example",
        "http://127.0.0.1.evil.example",
    ] {
        expect(
            path.clone(),
            &format!("Origin: {origin}\r\n"),
            403,
            "origin_not_allowed",
        )
        .await;
    }
    let rebound =
        upgrade(world.at, &path, "").replace(&format!("Host: {}", world.at), "Host: evil.example");
    assert_eq!(ask(world.at, &rebound).await.code(), "host_not_allowed");
    let plain = ask(
        world.at,
        &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", world.at),
    )
    .await;
    assert_eq!(
        (plain.status, plain.code().as_str()),
        (426, "upgrade_required")
    );
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let post = ask(
        world.at,
        &upgrade(world.at, &path, "").replace("GET", "POST"),
    )
    .await;
    assert_eq!(
        (post.status, post.code().as_str()),
        (405, "method_not_allowed")
    );
    let old = ask(
        world.at,
        &upgrade(world.at, &path, "").replace("Version: 13", "Version: 8"),
    )
    .await;
    assert_eq!(
        (old.status, old.header("sec-websocket-version")),
        (400, Some("13"))
    );
    let keyless = ask(
        world.at,
        &upgrade(world.at, &path, "").replace("dGhlIHNhbXBsZSBub25jZQ==", "x"),
    )
    .await;
    assert_eq!(keyless.status, 400);
    let body = ask(world.at, &upgrade(world.at, &path, "Content-Length: 5\r\n")).await;
    assert_eq!(body.status, 400);
    let unreadable = ask(world.at, &upgrade(world.at, "/session/%ff", "")).await;
    assert_eq!(unreadable.status, 404);
    assert!(game.seen().is_empty(), "none of these reached the game");
    let dev = ask(
        world.at,
        &upgrade(world.at, &path, "Origin: http://localhost:5173\r\n"),
    )
    .await;
    assert_eq!(dev.status, 101);
    world.stop().await;
}

#[tokio::test]
async fn ten_thousand_guesses_learn_nothing() {
    const GUESSES: u64 = 10_000;
    let world = World::start().await;
    let game = EchoGame::start().await;
    // One guess in twenty-five is right.
    for n in (0..GUESSES).filter(|n| matches!(n % 50, 0 | 5)) {
        world.link.set(ready(session(n), game.at));
    }
    world.link.settled().await;
    let own = session(GUESSES);
    world.route(ready(own, game.at)).await;
    let token = world.token("a", own);
    let mut heard = std::collections::BTreeSet::new();
    for n in 0..GUESSES {
        let id = session(n);
        // Some of them by somebody who plays here, elsewhere.
        let path = if n % 10 == 5 {
            format!("/session/{id}?token={token}")
        } else {
            format!("/session/{id}")
        };
        let answer = ask(world.at, &upgrade(world.at, &path, "")).await;
        let head: Vec<_> = answer
            .head
            .lines()
            .filter(|l| !l.starts_with("date"))
            .collect();
        heard.insert((answer.status, head.join("\n"), answer.body));
    }
    let statuses: Vec<u16> = heard.iter().map(|(status, ..)| *status).collect();
    assert_eq!(
        statuses,
        [401, 403],
        "each sort of guess is answered alike: {heard:#?}"
    );
    assert_eq!(game.seen().len(), 0);
    assert_eq!(
        world.link.asked(),
        0,
        "the server is not troubled with guesses"
    );
    world.stop().await;
}

#[tokio::test]
async fn other_paths_go_to_the_fallback_with_the_peer() {
    let world = World::start().await;
    for path in [
        "/",
        "/api/new-game?x=1",
        "/session",
        "/session/",
        "/sessions/x",
    ] {
        let answer = ask(world.at, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(answer.body, format!("fallback {path} 127.0.0.1"));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_games_subprotocol_is_chosen_else_ours() {
    let world = World::start().await;
    let (picky, plain) = (
        EchoGame::choosing(Some("chat")).await,
        EchoGame::start().await,
    );
    let (a, b) = (session(1), session(2));
    world.route(ready(a, picky.at)).await;
    world.route(ready(b, plain.at)).await;
    let chosen = |c: &Client| {
        c.headers
            .get("sec-websocket-protocol")
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let mut client = world
        .offer(a, "a", &["spawnpoint.v1", "chat", "other"])
        .await
        .unwrap();
    assert_eq!(chosen(&client).as_deref(), Some("chat"));
    assert_eq!(
        picky.seen()[0].headers["sec-websocket-protocol"],
        "chat, other"
    );
    client.echo("x").await;
    let client = world
        .offer(b, "a", &["chat", "spawnpoint.v1"])
        .await
        .unwrap();
    assert_eq!(chosen(&client).as_deref(), Some("spawnpoint.v1"));
    let client = world.join(b, "b").await;
    assert_eq!(chosen(&client), None);
    world.stop().await;
}

#[tokio::test]
async fn handshake_and_first_frames_in_one_segment_arrive_once() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    let frame = masked(2, b"first words");
    // Everything in one write on both sides.
    let mut client = TcpStream::connect(world.at).await.unwrap();
    let all = [upgrade(world.at, &path, "").as_bytes(), &frame].concat();
    client.write_all(&all).await.unwrap();
    let mut seen = game.accept().await;
    let welcome = seen.answer("") + "\u{2}\u{3}hey";
    let welcome = welcome.replace("\r\n\r\n\u{2}", "\r\n\r\n\u{1}");
    seen.stream
        .write_all(&fix_first_byte(welcome))
        .await
        .unwrap();
    assert_eq!(seen.read(frame.len()).await, frame);
    let mut bytes = Vec::new();
    let head = read_head(&mut client, &mut bytes).await;
    assert!(head.starts_with("HTTP/1.1 101"));
    while bytes.len() < 5 {
        let mut more = [0; 64];
        let n = soon("the game's words", client.read(&mut more))
            .await
            .unwrap();
        bytes.extend(&more[..n]);
    }
    assert_eq!(bytes, b"\x81\x03hey");
    // And in both directions nothing came twice.
    seen.stream.write_all(b"\x81\x01x").await.unwrap();
    let mut three = [0; 3];
    client.read_exact(&mut three).await.unwrap();
    assert_eq!(&three, b"\x81\x01x");
    client.write_all(&frame).await.unwrap();
    assert_eq!(seen.read(frame.len()).await, frame);
    world.stop().await;
}

/// A `String` cannot hold 0x81: the marker 0x01 after the blank line becomes it.
fn fix_first_byte(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    let at = bytes.windows(5).position(|w| w == b"\r\n\r\n\x01").unwrap() + 4;
    bytes[at] = 0x81;
    bytes
}

#[tokio::test]
async fn byte_by_byte_works_too() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    let frame = masked(1, b"slow");
    let mut client = TcpStream::connect(world.at).await.unwrap();
    client.set_nodelay(true).unwrap();
    let all = [upgrade(world.at, &path, "").as_bytes(), &frame].concat();
    let talk = async {
        for byte in all {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut bytes = Vec::new();
        let head = read_head(&mut client, &mut bytes).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        while bytes.len() < 4 {
            let mut more = [0; 64];
            let n = client.read(&mut more).await.unwrap();
            bytes.extend(&more[..n]);
        }
        assert_eq!(bytes, b"\x82\x02ok");
        client
    };
    let play = async {
        let mut seen = game.accept().await;
        let answer = [
            seen.answer("X-Of-The-Game: 1\r\n").as_bytes(),
            b"\x82\x02ok",
        ]
        .concat();
        for byte in answer {
            seen.stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.read(frame.len()).await, frame);
        seen
    };
    soon("byte by byte", Box::pin(async { tokio::join!(talk, play) })).await;
    world.stop().await;
}

#[tokio::test]
async fn starting_sessions_are_parked_until_they_accept() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let (joined, ()) = tokio::join!(world.offer(id, "a", &[]), async {
        eventually("it is parked", || world.gateway.metrics().parked == 1).await;
        world.link.set(ready(id, game.at));
    });
    joined.unwrap().echo("at last").await;
    assert_eq!(world.gateway.metrics().parked, 0);
    world.stop().await;
}

#[tokio::test]
async fn parking_has_an_end() {
    let world = World::with(GatewayConfig {
        park: Duration::from_millis(200),
        ..config()
    })
    .await;
    let id = session(1);
    world.route(starting(id)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    let answer = ask(world.at, &upgrade(world.at, &path, "")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "still_starting")
    );
    assert_eq!(answer.header("retry-after"), Some("2"));
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_parked_frees_its_place() {
    let world = World::start().await;
    let id = session(1);
    world.route(starting(id)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    let mut client = TcpStream::connect(world.at).await.unwrap();
    client
        .write_all(upgrade(world.at, &path, "").as_bytes())
        .await
        .unwrap();
    eventually("it is parked", || world.gateway.metrics().parked == 1).await;
    drop(client);
    eventually("nothing is left", || {
        let m = world.gateway.metrics();
        m.parked == 0 && m.connections == 0 && m.handshakes.get("client_gone") == Some(&1)
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn parked_players_hear_how_it_went() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    for (n, change, status) in [
        (
            1,
            Route {
                phase: Phase::Ending,
                ended: Some(Reason::StartFailed),
                ..starting(session(1))
            },
            503,
        ),
        (
            2,
            Route {
                players: players(&["b"]),
                ..starting(session(2))
            },
            403,
        ),
        (
            3,
            Route {
                protocol: Protocol::Tcp,
                ..ready(session(3), game.at)
            },
            404,
        ),
        (
            4,
            Route {
                address: Some("169.254.169.254:80".parse().unwrap()),
                ..ready(session(4), game.at)
            },
            500,
        ),
    ] {
        let id = session(n);
        world.route(starting(id)).await;
        let (joined, ()) = tokio::join!(world.offer(id, "a", &[]), async {
            eventually("it is parked", || world.gateway.metrics().parked == 1).await;
            world.link.set(change.clone());
        });
        assert_eq!(joined.err().unwrap().status, status, "{change:?}");
    }
    // A second connection of the same player takes the place of a parked one.
    let id = session(5);
    world.route(starting(id)).await;
    let (first, second) = tokio::join!(world.offer(id, "a", &[]), async {
        eventually("it is parked", || world.gateway.metrics().parked == 1).await;
        let ((), second) = tokio::join!(
            async {
                eventually("the other one is parked too", || {
                    world
                        .gateway
                        .metrics()
                        .handshakes
                        .contains_key("too_many_connections")
                })
                .await;
                world.link.set(ready(id, game.at));
            },
            world.offer(id, "a", &[])
        );
        second
    });
    assert_eq!(first.err().unwrap().status, 429);
    second.unwrap().echo("newer").await;
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_is_late_is_dialled_again_and_not_for_ever() {
    let world = World::with(GatewayConfig {
        dial_limit: Duration::from_secs(2),
        ..config()
    })
    .await;
    let (late, never) = (session(1), session(2));
    let address = RawGame::start().await.at;
    world.route(ready(late, address)).await;
    world
        .route(ready(never, "127.0.0.1:1".parse().unwrap()))
        .await;
    let path = |id| format!("/session/{id}?token={}", world.token("a", id));
    let mut client = TcpStream::connect(world.at).await.unwrap();
    client
        .write_all(upgrade(world.at, &path(late), "").as_bytes())
        .await
        .unwrap();
    eventually("it was dialled in vain", || {
        world.gateway.metrics().dial_retries > 1
    })
    .await;
    let game = RawGame::at(address);
    let _seen = game.welcome().await;
    assert_eq!(read_answer(&mut client).await.status, 101);
    let answer = ask(world.at, &upgrade(world.at, &path(never), "")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "game_unreachable")
    );
    assert!(answer.header("retry-after").is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_refuses_is_named() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    for reply in [
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: gopher\r\nconnection: upgrade\r\n\r\n",
        "not http at all\r\n\r\n",
    ] {
        let request = upgrade(world.at, &path, "");
        let (answer, ()) = tokio::join!(ask(world.at, &request), async {
            let mut seen = game.accept().await;
            seen.stream.write_all(reply.as_bytes()).await.unwrap();
        });
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (502, "game_refused"),
            "{reply}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_wired_to_an_older_incarnation() {
    let world = World::start().await;
    let (old, new) = (RawGame::start().await, EchoGame::start().await);
    let id = session(1);
    world.route(ready(id, old.at)).await;
    let (joined, ()) = tokio::join!(world.offer(id, "a", &[]), async {
        let mut seen = old.accept().await;
        // Replaced while the old one is still shaking hands.
        world
            .route(Route {
                generation: 2,
                ..ready(id, new.at)
            })
            .await;
        let answer = seen.answer("");
        seen.stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(seen.rest().await, b"", "the old one is left");
    });
    joined.unwrap().echo("to the new one").await;
    assert_eq!(new.seen().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_is_not_known_yet_is_asked_for_once() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let (hidden, nowhere) = (session(1), session(2));
    world.link.hide(ready(hidden, game.at));
    world.join(hidden, "a").await.echo("found").await;
    world.join(hidden, "b").await.echo("known now").await;
    assert_eq!(world.link.asked(), 1);
    for _ in 0..5 {
        assert_eq!(
            world.offer(nowhere, "a", &[]).await.err().unwrap().status,
            404
        );
    }
    assert_eq!(world.link.asked(), 2, "the miss is remembered");
    let path = format!("/session/{}?token=nonsense", session(3));
    ask(world.at, &upgrade(world.at, &path, "")).await;
    assert_eq!(world.link.asked(), 2, "a bad token asks nobody");
    world.stop().await;
}

#[tokio::test]
async fn known_sessions_work_while_the_control_plane_is_away() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let (known, unknown) = (session(1), session(2));
    world.route(ready(known, game.at)).await;
    let mut before = world.join(known, "a").await;
    world.link.set_down(true);
    eventually("the link is down", || !world.gateway.metrics().link_up).await;
    before.echo("still there").await;
    world.join(known, "b").await.echo("new, too").await;
    let path = format!("/session/{unknown}?token={}", world.token("a", unknown));
    let answer = ask(world.at, &upgrade(world.at, &path, "")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unknown"));
    // What happened meanwhile is caught up with from the cursor.
    let streams = world.link.streams();
    world.link.set(ready(unknown, game.at));
    world.link.set_down(false);
    eventually("the link is back", || world.gateway.metrics().routes == 2).await;
    assert_eq!(world.link.streams(), streams + 1);
    before.echo("undisturbed").await;
    world.stop().await;
}

#[tokio::test]
async fn a_new_table_ends_what_is_not_in_it() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let (kept, lost) = (session(1), session(2));
    world.route(ready(kept, game.at)).await;
    world.link.hide(ready(lost, game.at));
    let mut a = world.join(kept, "a").await;
    let mut b = world.join(lost, "b").await;
    world.link.restart();
    assert_eq!(b.closed().await, (4411, "session_ended".into()));
    a.echo("kept").await;
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_dropped() {
    let world = World::with(GatewayConfig {
        header_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(world.at).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
            .await
            .unwrap();
        slow.push(stream);
    }
    // They go on sending, a byte now and then; it does not help them.
    soon("they are dropped", async {
        for stream in &mut slow {
            let (mut read, mut write) = stream.split();
            let mut rest = Vec::new();
            let drip = async {
                while write.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                _ = read.read_to_end(&mut rest) => {}
                () = drip => {}
            }
        }
    })
    .await;
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    let mut large = TcpStream::connect(world.at).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let _ = large.write_all(head.as_bytes()).await;
    assert_eq!(read_answer(&mut large).await.status, 431);
    world.stop().await;
}

#[tokio::test]
async fn connections_have_limits() {
    let world = World::with(GatewayConfig {
        max_per_session: 2,
        max_per_address: 3,
        limit_loopback: true,
        ..config()
    })
    .await;
    let game = EchoGame::start().await;
    for n in 1..=2 {
        world.route(ready(session(n), game.at)).await;
    }
    let mut held = vec![
        world.join(session(1), "a").await,
        world.join(session(1), "b").await,
    ];
    let path = |id, p: &str| format!("/session/{id}?token={}", world.token(p, id));
    let full = ask(world.at, &upgrade(world.at, &path(session(1), "c"), "")).await;
    assert_eq!(
        (full.status, full.code().as_str()),
        (429, "too_many_connections")
    );
    assert!(full.header("retry-after").is_some());
    let mut told = world
        .offer(session(1), "c", &["spawnpoint.progress"])
        .await
        .unwrap();
    assert_eq!(told.closed().await, (4429, "too_many_connections".into()));
    drop(told);
    held.push(world.join(session(2), "a").await);
    let here = ask(world.at, &upgrade(world.at, &path(session(2), "b"), "")).await;
    assert_eq!(here.status, 429, "the address has its three");
    // Of all kinds: twice as many.
    let mut open = Vec::new();
    soon("the listener refuses", async {
        while world.gateway.metrics().connections_refused == 0 {
            open.push(TcpStream::connect(world.at).await.unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    let refused = open.last_mut().unwrap();
    assert_eq!(read_answer(refused).await.status, 429);
    drop(open);
    for client in &mut held {
        client.echo("the others are not disturbed").await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_takeover_of_the_same_player_is_no_extra_connection() {
    let world = World::with(GatewayConfig {
        max_per_session: 4,
        ..config()
    })
    .await;
    let game = EchoGame::start().await;
    world.route(ready(session(1), game.at)).await;
    let mut last = world.join(session(1), "a").await;
    for _ in 0..20 {
        let mut next = world.join(session(1), "a").await;
        assert_eq!(last.closed().await, (4409, "newer_connection".into()));
        next.echo("x").await;
        last = next;
    }
    assert_eq!(world.gateway.metrics().tunnels, 1);
    world.stop().await;
}
