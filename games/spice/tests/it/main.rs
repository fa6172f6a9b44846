//! The real binary over real sockets: what a gateway, a page and a hostile stranger would do to it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail loudly

mod server;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use server::{Player, Server, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

#[tokio::test]
async fn a_plain_get_answers_spice_and_counts_as_nobody() {
    let server = Server::start(&[]).await;
    let mut tcp = server.dial().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nspice\n"), "{answer}");
}

#[tokio::test]
async fn two_players_see_each_other_move() {
    let server = Server::start(&[("SPICE_SEED", "5")]).await;
    let mut ann = Player::join(&server, "ann").await;
    let mut bob = Player::join(&server, "bob").await;
    ann.say(json!({"t": "start"})).await;
    bob.say(json!({"t": "start"})).await;
    let from = bob
        .until(|s| s.row(ann.id).is_some_and(|row| row[1] == 1))
        .await;
    let start = from.row(ann.id).unwrap()[2].as_i64().unwrap();
    let way = if start > 1200 { -1 } else { 1 };
    ann.say(json!({"t": "in", "x": way, "y": 0})).await;
    bob.until(|s| {
        s.row(ann.id)
            .is_some_and(|row| (row[2].as_i64().unwrap() - start) * way > 100)
    })
    .await;
    let names = |player: &Player| {
        player
            .roster
            .as_ref()
            .and_then(|who| who["p"].as_array().map(Vec::len))
    };
    assert_eq!(names(&bob), Some(2), "{:?}", bob.roster);
}

#[tokio::test]
async fn who_reconnects_finds_body_and_score() {
    let server = Server::start(&[("SPICE_SEED", "5")]).await;
    let mut ann = Player::join(&server, "ann").await;
    ann.say(json!({"t": "start"})).await;
    ann.chase_spice(|score| score > 0).await;
    let score = ann.last.row(ann.id).unwrap()[7].clone();
    let id = ann.id;
    drop(ann); // no close frame: the network went away

    let mut again = Player::join(&server, "ann").await;
    assert_eq!(again.id, id);
    assert_eq!(again.hello["resumed"], true);
    let state = again.until(|s| s.row(id).is_some()).await;
    assert!(state.row(id).unwrap()[7].as_i64() >= score.as_i64());
    assert_eq!(state.row(id).unwrap()[1], 1, "still in the round");
}

#[tokio::test]
async fn who_stays_away_sleeps_and_then_vanishes() {
    let server = Server::start(&[("SPICE_GRACE_SECONDS", "1")]).await;
    let mut ann = Player::join(&server, "ann").await;
    let mut bob = Player::join(&server, "bob").await;
    for player in [&mut ann, &mut bob] {
        player.say(json!({"t": "start"})).await;
    }
    let id = bob.id;
    drop(bob);
    ann.until(|s| {
        s.row(id)
            .is_some_and(|row| row[6].as_i64().unwrap() & 16 != 0)
    })
    .await;
    ann.until(|s| s.row(id).is_none()).await;
}

#[tokio::test]
async fn a_second_tab_takes_over_and_the_first_is_told() {
    let server = Server::start(&[]).await;
    let mut first = Player::join(&server, "ann").await;
    let second = Player::join(&server, "ann").await;
    assert_eq!(first.id, second.id);
    assert_eq!(first.closed().await, (4409, "newer_connection".to_owned()));
}

#[tokio::test]
async fn after_game_over_start_plays_again_in_the_same_server() {
    let server = Server::start(&[("SPICE_ROUND_SECONDS", "2")]).await;
    let mut ann = Player::join(&server, "ann").await;
    ann.say(json!({"t": "start"})).await;
    let over = ann.until(|s| s.0["ph"] == "over").await;
    assert_eq!(over.0["rd"], 1);
    ann.say(json!({"t": "start"})).await;
    let next = ann.until(|s| s.0["ph"] == "play").await;
    assert_eq!(next.0["rd"], 2);
    assert_eq!(next.row(ann.id).unwrap()[1], 1);
}

#[tokio::test]
async fn hostile_messages_get_an_error_and_the_game_goes_on() {
    let server = Server::start(&[]).await;
    let mut ann = Player::join(&server, "ann").await;
    let nasty = [
        "",
        "{",
        "[]",
        "nul\u{0}l",
        r#"{"t":"in","x":"a","y":{}}"#,
        r#"{"t":"in","x":1e999,"y":0}"#,
    ];
    for text in nasty {
        ann.send(Message::text(text)).await;
        assert_eq!(ann.error().await["code"], "bad_message", "{text:?}");
    }
    ann.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(ann.error().await["code"], "text_only");
    for n in 0..100 {
        ann.send(Message::text(format!("nonsense {n}"))).await;
    }
    assert_eq!(
        ann.closed().await,
        (1008, "too_many_bad_messages".to_owned())
    );
    Player::join(&server, "bob").await;
}

#[tokio::test]
async fn oversized_and_broken_frames_close_one_connection_only() {
    let server = Server::start(&[]).await;
    let mut witness = Player::join(&server, "witness").await;
    let mut big = Player::join(&server, "big").await;
    big.send(Message::text("x".repeat(1 << 20))).await;
    assert_eq!(big.closed().await.0, 1009);

    let mut many = Player::join(&server, "many").await;
    for last in [false, false, true] {
        many.send(fragment(last, OpCode::Data(Data::Text), &"y".repeat(3000)))
            .await;
    }
    assert!([1002, 1009].contains(&many.closed().await.0));

    let mut raw = server.handshake("raw", "").await;
    raw.write_all(&[0xFF; 64]).await.unwrap();
    let mut rest = Vec::new();
    // Reset or closed: either way the server let go.
    let _ = within(raw.read_to_end(&mut rest)).await;

    witness.say(json!({"t": "start"})).await;
    witness.until(|s| s.0["ph"] == "play").await;
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message() {
    let server = Server::start(&[]).await;
    let mut ann = Player::join(&server, "ann").await;
    ann.send(fragment(false, OpCode::Data(Data::Text), r#"{"t":"#))
        .await;
    ann.send(Message::Ping(vec![7].into())).await; // allowed between fragments
    ann.send(fragment(true, OpCode::Data(Data::Continue), r#""start"}"#))
        .await;
    ann.until(|s| s.0["ph"] == "play").await;
}

fn fragment(last: bool, opcode: OpCode, text: &str) -> Message {
    let mut frame = Frame::message(text.as_bytes().to_vec(), opcode, last);
    *frame.header_mut() = FrameHeader {
        is_final: last,
        opcode,
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    Message::Frame(frame)
}

#[tokio::test]
async fn the_handshake_and_the_first_message_may_share_a_segment() {
    let server = Server::start(&[]).await;
    let text = br#"{"t":"ping","c":41}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    let mut tcp = server
        .handshake("ann", std::str::from_utf8(&frame[..0]).unwrap())
        .await;
    tcp.write_all(&frame).await.unwrap();
    let mut one = server.dial().await;
    let mut both = Server::request("bob", "").into_bytes();
    both.extend_from_slice(&frame);
    one.write_all(&both).await.unwrap();
    for tcp in [&mut tcp, &mut one] {
        let mut seen = Vec::new();
        let pong = br#""t":"pong""#;
        while !seen.windows(pong.len()).any(|window| window == pong) {
            let mut chunk = [0; 4096];
            let count = within(tcp.read(&mut chunk)).await.unwrap();
            assert!(count > 0, "closed before the pong");
            seen.extend_from_slice(&chunk[..count]);
        }
    }
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let server = Server::start(&[]).await;
    let mut ann = Player::join(&server, "ann").await;
    for _ in 0..2_000 {
        if ann
            .try_send(Message::text(r#"{"t":"dash"}"#))
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(ann.closed().await, (4429, "rate_limited".to_owned()));
}

#[tokio::test]
async fn the_seventeenth_player_is_told_that_the_arena_is_full() {
    let server = Server::start(&[]).await;
    let mut players = Vec::new();
    for n in 0..16 {
        players.push(Player::join(&server, &format!("p{n}")).await);
    }
    let mut late = Player::open(&server, "late", "").await;
    let first: Value = late.next_json().await;
    assert_eq!(first["code"], "arena_full");
    assert_eq!(late.closed().await, (4429, "arena_full".to_owned()));
}

#[tokio::test]
async fn players_who_do_not_read_cost_no_memory_and_skip_to_the_present() {
    let server = Server::start(&[]).await;
    let mut ann = Player::join(&server, "ann").await;
    let mut deaf = Vec::new();
    for n in 0..12 {
        deaf.push(Player::join(&server, &format!("deaf{n}")).await);
    }
    ann.say(json!({"t": "start"})).await;
    let tick = |s: &server::State| s.0["k"].as_i64().unwrap();
    let first = tick(&ann.until(|s| s.0["ph"] == "play").await);
    let before = server.resident_kib();
    let present = tick(&ann.until(|s| tick(s) > first + 180).await);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB more for twelve deaf players");

    let (mut last, mut widest) = (first, 0);
    while last < present {
        let now = tick(&deaf[0].until(|_| true).await);
        widest = widest.max(now - last);
        last = now;
    }
    assert!(
        widest > 30,
        "every state was kept for a player who reads nothing (gap {widest})"
    );
}

#[tokio::test]
async fn sigterm_says_goodbye_writes_the_scores_and_exits_zero() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results.json");
    let mut server = Server::start(&[
        ("SPAWNPOINT_RESULTS_FILE", results.to_str().unwrap()),
        ("SESSION_ID", "0199-abc"),
        ("SPICE_SEED", "5"),
    ])
    .await;
    let mut ann = Player::join(&server, "ann/\u{1F980}").await;
    ann.say(json!({"t": "start"})).await;
    ann.chase_spice(|score| score >= 20).await;
    server.signal("TERM");
    assert_eq!(ann.closed().await, (1001, "shutdown".to_owned()));
    assert_eq!(server.exit_code().await, Some(0));
    let text = std::fs::read_to_string(results).unwrap();
    assert!(text.len() <= 4096);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["session_id"], "0199-abc");
    assert_eq!(value["scores"][0]["player_id"], "ann/\u{1F980}");
    assert!(value["scores"][0]["best"].as_i64().unwrap() >= 20, "{text}");
}

#[tokio::test]
async fn sigterm_during_boot_is_a_stop_like_any_other() {
    let mut server = Server::spawn(&[("SPICE_BOOT_DELAY_MS", "60000")]);
    server.until_signals_are_caught().await;
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_impossible_environment_is_named_and_exits_two() {
    let mut server = Server::spawn(&[("PORT", "seventy"), ("SPICE_ROUND_SECONDS", "0")]);
    assert_eq!(server.exit_code().await, Some(2));
    let errors = server.stderr();
    assert!(
        errors.contains("PORT") && errors.contains("SPICE_ROUND_SECONDS"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let first = Server::start(&[]).await;
    let mut second = Server::spawn(&[("PORT", &first.port.to_string())]);
    assert_eq!(second.exit_code().await, Some(1));
    assert!(second.stderr().contains("in use"));
}

#[tokio::test]
async fn the_session_file_may_appear_late_and_sets_the_round() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.json");
    let server = Server::start(&[("SPAWNPOINT_SESSION_FILE", path.to_str().unwrap())]).await;
    let file = json!({"version": 1, "session_id": "s-1", "players": ["ann"], "generation": 1,
        "payload": {"round_seconds": 7, "seed": 3}});
    let writer = async {
        tokio::time::sleep(Duration::from_millis(120)).await; // a claim that reaches the file late
        std::fs::write(&path, file.to_string()).unwrap();
    };
    let (player, ()) = tokio::join!(
        Player::open(&server, "ann", "X-Session-Id: s-1\r\n"),
        writer
    );
    let player = player.seated().await;
    assert_eq!(player.hello["round_s"], 7);
    assert_eq!(player.hello["session"], "s-1");

    let mut lost = Player::open(&server, "bob", "X-Session-Id: s-2\r\n").await;
    assert_eq!(lost.closed().await, (4403, "forbidden".to_owned()));
}

#[tokio::test]
async fn pings_are_answered_and_closes_are_returned() {
    let server = Server::start(&[]).await;
    let mut ann = Player::join(&server, "ann").await;
    ann.send(Message::Ping(b"abc".to_vec().into())).await;
    within(async {
        loop {
            if let Some(Ok(Message::Pong(body))) = ann.ws.next().await {
                assert_eq!(&body[..], b"abc");
                break;
            }
        }
    })
    .await;
    ann.ws.close(None).await.unwrap();
    within(async { while ann.ws.next().await.is_some() {} }).await;
    let _ = ann.ws.flush().await;
}
