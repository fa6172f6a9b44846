//! How tunnels end, and what both sides hear.

use std::time::Duration;

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::Route;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

fn over(id: spawnpoint_core::SessionId, reason: Reason) -> Route {
    Route {
        phase: Phase::Ending,
        ended: Some(reason),
        ..starting(id)
    }
}

#[tokio::test]
async fn each_reason_of_an_end_has_its_code() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    for (n, reason) in Reason::ALL.into_iter().enumerate() {
        let id = session(n as u64);
        world.route(ready(id, game.at)).await;
        let mut client = world.join(id, "a").await;
        client.echo("x").await;
        world.link.set(over(id, reason));
        let close = Close::for_end(reason);
        assert_eq!(
            client.closed().await,
            (close.code, close.reason.to_owned()),
            "{reason:?}"
        );
        world.link.gone(id);
    }
    eventually("the game has lost them all", || game.open() == 0).await;
    let closes = world.gateway.metrics().closes;
    assert_eq!(closes[&4408], 1);
    assert_eq!(closes.values().sum::<u64>(), Reason::ALL.len() as u64);
    world.stop().await;
}

#[tokio::test]
async fn a_kick_ends_one_players_tunnels_only() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut a, mut b) = (world.join(id, "a").await, world.join(id, "b").await);
    world.link.set(Route {
        players: players(&["a", "c"]),
        ..ready(id, game.at)
    });
    assert_eq!(b.closed().await, (4403, "forbidden".into()));
    a.echo("still here").await;
    assert_eq!(world.offer(id, "b", &[]).await.err().unwrap().status, 403);
    world.stop().await;
}

#[tokio::test]
async fn a_replacement_goes_on_under_the_same_url() {
    let world = World::start().await;
    let (first, second) = (EchoGame::start().await, EchoGame::start().await);
    let id = session(1);
    world.route(ready(id, first.at)).await;
    let url = world.url(id, "a");
    let mut client = connect(world.at, &url, &[], &[]).await.unwrap();
    client.echo("one").await;
    world.link.set(Route {
        generation: 2,
        phase: Phase::Replacing,
        ..starting(id)
    });
    assert_eq!(client.closed().await, (1012, "replaced".into()));
    let (again, ()) = tokio::join!(connect(world.at, &url, &[], &[]), async {
        eventually("it waits", || world.gateway.metrics().parked == 1).await;
        world.link.set(Route {
            generation: 2,
            ..ready(id, second.at)
        });
    });
    again.unwrap().echo("two").await;
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
    world.stop().await;
}

#[tokio::test]
async fn the_newer_connection_wins_and_the_game_loses_the_older_first() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut older, mut old_leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let newer = world.join(id, "a");
    let play = async {
        // The old one's goodbye is there before the new one knocks.
        let goodbye = old_leg.rest().await;
        assert_eq!(
            goodbye,
            [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9],
            "1001, as of a tab that is closed"
        );
        game.welcome().await
    };
    let (_newer, _leg, closed) = tokio::join!(newer, play, older.closed());
    assert_eq!(closed, (4409, "newer_connection".into()));
    world.stop().await;
}

#[tokio::test]
async fn a_takeover_does_not_wait_for_an_old_client_that_reads_nothing() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (older, leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let frame = [&[0x82, 126, 0x10, 0x00][..], &[7; 0x1000]].concat();
    let (mut from_player, mut to_player) = leg.stream.into_split();
    let flood = async { while to_player.write_all(&frame).await.is_ok() {} };
    let newcomer = async {
        eventually("its buffers are full", || {
            world.gateway.metrics().buffered_bytes > 0
        })
        .await;
        let play = async {
            let mut rest = Vec::new();
            let _ = soon("the old one leaves", from_player.read_to_end(&mut rest)).await;
            game.welcome().await
        };
        let (mut newer, mut leg) = tokio::join!(world.join(id, "a"), play);
        leg.stream.write_all(b"\x81\x02hi").await.unwrap();
        assert_eq!(newer.hear_text().await, "hi");
    };
    soon(
        "the takeover",
        Box::pin(async { tokio::join!(flood, newcomer) }),
    )
    .await;
    drop(older);
    world.stop().await;
}

#[tokio::test]
async fn the_games_own_goodbye_passes_untouched() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    leg.stream
        .write_all(b"\x81\x02hi\x88\x05\x0f\xa0bye")
        .await
        .unwrap();
    // The session ends in the same moment; nothing of ours follows the game's word.
    world.link.set(over(id, Reason::EndedByServer));
    assert_eq!(client.hear_text().await, "hi");
    assert_eq!(client.closed().await, (4000, "bye".into()));
    let answered = leg.rest().await;
    assert!(answered.is_empty() || answered[0] == 0x88, "{answered:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_the_game_sent_last_is_heard_before_the_end() {
    let world = World::start().await;
    let game = RawGame::start().await;
    for n in 0..20 {
        let (reason, code) = [(Reason::EndedByServer, 1000), (Reason::Idle, 4408)][n as usize % 2];
        let id = session(n);
        world.route(ready(id, game.at)).await;
        let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
        let score = [&[0x82, 126, 0x40, 0x00][..], &[7; 0x4000]].concat();
        for _ in 0..8 {
            leg.stream.write_all(&score).await.unwrap();
        }
        drop(leg);
        world.link.set(over(id, reason));
        let (heard, got, _) = client.until_close().await;
        assert_eq!((heard.len(), got), (8, code));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_dies_without_a_word_is_explained() {
    let world = World::start().await;
    for (n, change, code) in [
        (1, over(session(1), Reason::Crashed), 4500),
        (2, over(session(2), Reason::EndedByServer), 1000),
        (
            3,
            Route {
                generation: 2,
                phase: Phase::Replacing,
                ..starting(session(3))
            },
            1012,
        ),
        (
            4,
            Route {
                phase: Phase::Starting,
                ..starting(session(4))
            },
            1012,
        ),
    ] {
        let game = EchoGame::start().await;
        let id = session(n);
        world.route(ready(id, game.at)).await;
        let mut client = world.join(id, "a").await;
        client.echo("x").await;
        game.die().await;
        world.link.set(change);
        assert_eq!(client.closed().await.0, code);
    }
    // Nobody knows why: connecting again is right.
    let game = EchoGame::start().await;
    let id = session(9);
    world.route(ready(id, game.at)).await;
    let mut client = world.join(id, "a").await;
    game.die().await;
    assert_eq!(client.closed().await, (1012, "replaced".into()));
    // And an end that came as a bare removal.
    let game = EchoGame::start().await;
    let id = session(10);
    world.route(ready(id, game.at)).await;
    let mut client = world.join(id, "a").await;
    world.link.gone(id);
    assert_eq!(client.closed().await, (4411, "session_ended".into()));
    world.stop().await;
}

#[tokio::test]
async fn a_close_waits_for_the_frame_to_end() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    leg.stream.write_all(b"\x81\x0ahello").await.unwrap();
    eventually("half a frame is through", || {
        world.gateway.metrics().bytes_out >= 7
    })
    .await;
    world.link.set(over(id, Reason::Idle));
    let (closed, ()) = tokio::join!(client.until_close(), async {
        // The route is applied before the rest of the frame comes.
        world.link.settled().await;
        leg.stream.write_all(b"world\x81\x03and").await.unwrap();
    });
    let (heard, code, _) = closed;
    assert_eq!(heard[0], Message::text("helloworld"));
    assert_eq!(code, 4408);
    world.stop().await;
}

#[tokio::test]
async fn a_game_stalled_within_a_frame_loses_the_tunnel() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    leg.stream.write_all(b"\x81\x0ahello").await.unwrap();
    eventually("half a frame is through", || {
        world.gateway.metrics().bytes_out >= 7
    })
    .await;
    world.link.set(over(id, Reason::Idle));
    assert_eq!(client.closed().await.0, 1006);
    assert_eq!(world.gateway.metrics().closes[&1006], 1);
    drop(leg);
    world.stop().await;
}

#[tokio::test]
async fn a_flood_does_not_put_off_the_close() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let frame = [&[0x82, 126, 0x10, 0x00][..], &[7; 0x1000]].concat();
    let flood = async { while leg.stream.write_all(&frame).await.is_ok() {} };
    let end = async {
        client.hear().await;
        world.link.set(over(id, Reason::MaxDuration));
        client.until_close().await
    };
    let ((), (heard, code, _)) = tokio::join!(flood, end);
    assert_eq!(code, 4410);
    assert!(heard.iter().all(|m| m.len() == 0x1000), "whole frames only");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_when_its_session_ends() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &[7; 1 << 20]].concat();
    let flood = async { while leg.stream.write_all(&frame).await.is_ok() {} };
    let end = async {
        eventually("its buffers are full", || {
            world.gateway.metrics().buffered_bytes > 0
        })
        .await;
        world.link.set(over(id, Reason::Idle));
        eventually("it is gone", || world.gateway.metrics().tunnels == 0).await;
        eventually("nothing is kept", || {
            world.gateway.metrics().buffered_bytes == 0
        })
        .await;
    };
    soon("the end", async { tokio::join!(flood, end) }).await;
    drop(client);
    world.stop().await;
}

#[tokio::test]
async fn a_drain_says_going_away_to_everybody() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut a, mut b) = (world.join(id, "a").await, world.join(id, "b").await);
    let drain = async {
        world.shutdown.cancel();
        soon("the gateway stops", world.serving).await.unwrap();
    };
    let ((), a, b) = tokio::join!(drain, a.closed(), b.closed());
    assert_eq!((a.0, b.0), (1001, 1001));
    let reports = world.link.reports();
    let last = reports
        .iter()
        .rev()
        .find(|r| !r.sessions.is_empty())
        .unwrap();
    assert!(
        last.sessions[0].players.iter().all(|p| p.connections == 0),
        "the departures are told"
    );
}

#[tokio::test]
async fn hanging_up_after_a_goodbye_is_a_clean_end() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    client.ws.close(None).await.unwrap();
    let goodbye = leg.read(6).await;
    assert_eq!(goodbye[0], 0x88);
    // Twenty lines of Python do not answer a Close; they just leave.
    drop(leg);
    let mut rest = Vec::new();
    soon("the end", client.ws.get_mut().read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
    world.stop().await;
}

#[tokio::test]
async fn broken_frames_of_a_client_never_reach_the_game() {
    let world = World::start().await;
    let game = RawGame::start().await;
    for (n, bad) in [
        vec![0x81, 0x02, b'h', b'i'],
        vec![
            0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
        ],
        vec![0xc1, 0x80, 1, 2, 3, 4],
        vec![0x83, 0x80, 1, 2, 3, 4],
        vec![0x09, 0x80, 1, 2, 3, 4],
        vec![0x89, 0xfe, 0, 200, 1, 2, 3, 4],
    ]
    .into_iter()
    .enumerate()
    {
        let id = session(n as u64);
        world.route(ready(id, game.at)).await;
        let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
        let good = masked(1, b"good");
        client
            .ws
            .get_mut()
            .write_all(&[&good[..], &bad].concat())
            .await
            .unwrap();
        assert_eq!(
            client.closed().await,
            (1002, "protocol_error".into()),
            "{bad:?}"
        );
        assert_eq!(leg.rest().await, good, "{bad:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_frame_of_the_largest_size_is_only_a_number() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let endless = [
        &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[5; 1000],
    ]
    .concat();
    client.ws.get_mut().write_all(&endless).await.unwrap();
    assert_eq!(leg.read(endless.len()).await, endless);
    world.link.set(over(id, Reason::Idle));
    assert_eq!(
        client.closed().await.0,
        4408,
        "the other direction has its own frames"
    );
    world.stop().await;
}

#[tokio::test]
async fn with_an_extension_reserved_bits_pass() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let path = format!("/session/{id}?token={}", world.token("a", id));
    let mut client = tokio::net::TcpStream::connect(world.at).await.unwrap();
    let head = upgrade(
        world.at,
        &path,
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut leg = game.accept().await;
    assert_eq!(
        leg.header("Sec-WebSocket-Extensions"),
        Some("permessage-deflate")
    );
    let answer = leg.answer("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    leg.stream.write_all(answer.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let head = soon("a head", read_head(&mut client, &mut bytes)).await;
    assert!(
        head.to_lowercase()
            .contains("sec-websocket-extensions: permessage-deflate\r\n"),
        "{head}"
    );
    let compressed = [0xc1, 0x82, 1, 2, 3, 4, 9, 9];
    client.write_all(&compressed).await.unwrap();
    assert_eq!(leg.read(8).await, compressed);
    tokio::time::timeout(Duration::from_millis(50), client.read_u8())
        .await
        .expect_err("no close");
    world.stop().await;
}
