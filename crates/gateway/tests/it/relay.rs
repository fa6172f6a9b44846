//! Bytes in, the same bytes out.

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

/// Bytes that repeat nowhere near, so that a lost or doubled chunk shows.
fn pattern(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

#[tokio::test]
async fn large_messages_pass_both_ways_unchanged() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let client = world.join(id, "a").await;
    let (mut say, mut hear) = client.ws.split();
    let messages: Vec<Vec<u8>> = [1 << 20, 0, 1, 125, 126, 65_535, 65_536, 3_000_000, 1 << 20]
        .into_iter()
        .enumerate()
        .map(|(i, n)| pattern(n, i as u64))
        .collect();
    let sending = async {
        for m in &messages {
            say.send(Message::binary(m.clone())).await.unwrap();
        }
    };
    let hearing = async {
        for m in &messages {
            let heard = soon("an echo", hear.next()).await.unwrap().unwrap();
            assert!(
                heard == Message::binary(m.clone()),
                "{} bytes differ",
                m.len()
            );
        }
    };
    tokio::join!(sending, hearing);
    let m = world.gateway.metrics();
    assert!(m.bytes_in >= 5_000_000 && m.bytes_out >= 5_000_000);
    eventually("nothing is kept", || {
        world.gateway.metrics().buffered_bytes == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_has_said_all_still_hears_the_rest() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let last = masked(1, b"that is all");
    let socket = client.ws.get_mut();
    socket.write_all(&last).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(leg.rest().await, last, "the end of the stream is carried");
    let more = [
        &[0x82, 127, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40][..],
        &pattern(1_000_000, 3),
        b"\x88\x02\x03\xe8",
    ]
    .concat();
    leg.stream.write_all(&more).await.unwrap();
    drop(leg);
    let mut heard = Vec::new();
    soon("the rest", socket.read_to_end(&mut heard))
        .await
        .unwrap();
    assert!(heard == more, "{} of {} bytes", heard.len(), more.len());
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_has_said_goodbye_still_hears_the_rest() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    leg.stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    leg.stream.shutdown().await.unwrap();
    let socket = client.ws.get_mut();
    let mut heard = Vec::new();
    soon("the goodbye and the end", socket.read_to_end(&mut heard))
        .await
        .unwrap();
    assert_eq!(heard, b"\x88\x02\x03\xe8");
    let late = masked(2, &pattern(300_000, 1));
    socket.write_all(&late).await.unwrap();
    socket.shutdown().await.unwrap();
    assert!(leg.rest().await == late);
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_games_side() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let mut client = world.join(id, "a").await;
    client.echo("x").await;
    let socket = socket2::SockRef::from(client.ws.get_ref());
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    eventually("the game sees it", || game.open() == 0).await;
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_bytes_its_game_does_not_take_is_noticed() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, leg) = tokio::join!(world.join(id, "a"), game.welcome());
    let part = masked(2, &[1; 60_000]);
    soon("its buffers are full", async {
        while world.gateway.metrics().buffered_bytes == 0 {
            let write = client.ws.get_mut().write(&part);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), write).await;
        }
    })
    .await;
    // A reset is seen by the watch, not by reading: reading has stopped.
    let socket = socket2::SockRef::from(client.ws.get_ref());
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    tokio::time::timeout(std::time::Duration::from_secs(40), async {
        while world.gateway.metrics().tunnels != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    drop(leg);
    world.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_is_quiet_for_half_an_hour_is_still_there() {
    let world = World::start().await;
    let (game, id) = (EchoGame::start().await, session(1));
    world.route(ready(id, game.at)).await;
    let mut client = world.join(id, "a").await;
    client.echo("before").await;
    // Half an hour in which all that changes are routes of others.
    for n in 0..50 {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(36)).await;
        tokio::time::resume();
        world.route(ready(session(100 + n), game.at)).await;
    }
    client.echo("after").await;
    assert_eq!(world.gateway.metrics().handshakes["ok"], 1, "the same one");
    world.stop().await;
}
