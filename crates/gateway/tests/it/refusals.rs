//! Who is not let in hears why, also when they had much to say: no refusal is lost with a reset of the connection.
//!
//! Clients here connect and write without giving the gateway a turn (one thread runs both), so that what they said is unread when they are
//! refused.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_gateway::GatewayConfig;
use spawnpoint_wire::link::Route;
use spawnpoint_wire::tcp::{TcpPorts as _, TcpTerms, TokenRule};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::*;
use crate::tcp::{dial, hears, is_reset, rest, say, tcp};

const ANYBODY: TcpTerms = TcpTerms {
    token: TokenRule::Never,
    proxy_protocol: false,
};

/// Connects and says this before the gateway can do anything.
fn blurt(at: SocketAddr, words: &[u8]) -> TcpStream {
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    stream.write_all(words).unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

/// The whole of an HTTP answer, to the end of the connection.
async fn whole(stream: &mut TcpStream) -> String {
    String::from_utf8(rest(stream).await.unwrap()).unwrap()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn past_the_limit_of_connections() {
    let world = World::with(GatewayConfig {
        max_connections: 1,
        ..config()
    })
    .await;
    let (game, at) = world.playing(1, ANYBODY).await;
    let mut held = dial(at).await;
    say(&mut held, b"x").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"x").await;
    let mut client = blurt(at, b"SPAWNPOINT abc\nGET_STATE\n");
    assert_eq!(
        rest(&mut client).await.unwrap(),
        b"ERROR too_many_connections\n"
    );
    let mut client = blurt(world.at, REQUEST);
    let answer = whole(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("too_many_connections"), "{answer}");
    assert_eq!(world.gateway.metrics().connections_refused, 2);
    say(&mut held, b"the others are not disturbed").await;
    hears(&mut at_game, b"the others are not disturbed").await;
}

#[tokio::test]
async fn more_at_once_than_are_waited_for() {
    let world = World::with(GatewayConfig {
        max_connections: 0,
        ..config()
    })
    .await;
    // They stay: none gives its place back. As many at a time as the kernel keeps.
    let mut all = Vec::new();
    while all.len() < spawnpoint_gateway::config::REFUSALS_AT_ONCE + 40 {
        all.extend((0..64).map(|_| blurt(world.at, REQUEST)));
        eventually("they are refused", || {
            world.gateway.metrics().connections_refused == all.len() as u64
        })
        .await;
    }
    for client in &mut all {
        let answer = whole(client).await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    }
}

#[tokio::test]
async fn connected_and_not_accepted_when_the_session_is_over() {
    let world = World::start().await;
    let (game, at) = world.playing(1, ANYBODY).await;
    // Another one that nobody has begun to accept for.
    let other = world.open(session(2), ANYBODY);
    drop(game);
    let mut clients: Vec<_> = [at, at, other]
        .into_iter()
        .map(|at| blurt(at, b"SPAWNPOINT abc\nGET_STATE\n"))
        .collect();
    world.tcp.close(session(1));
    world.tcp.close(session(2));
    world.link.gone(session(1));
    assert!(world.tcp.is_empty());
    for client in &mut clients {
        // Their token is none, which they hear before anything else.
        assert_eq!(rest(client).await.unwrap(), b"ERROR invalid_credentials\n");
    }
}

#[tokio::test]
async fn late_comers_of_a_session_that_has_ended() {
    let world = World::start().await;
    let (game, at) = world.playing(1, ANYBODY).await;
    drop(game);
    let mut clients: Vec<_> = (0..8).map(|_| blurt(at, b"GET_STATE\n")).collect();
    world.link.set(Route {
        phase: Phase::Ended,
        ended: Some(Reason::EndedByServer),
        ..tcp(session(1), at)
    });
    world.link.gone(session(1));
    world.tcp.close(session(1));
    for client in &mut clients {
        assert_eq!(rest(client).await.unwrap(), b"ERROR session_not_found\n");
    }
    soon("refused", async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connected_and_not_accepted_when_the_gateway_stops() {
    let world = World::start().await;
    let (game, at) = world.playing(1, ANYBODY).await;
    let fresh = world.open(session(2), ANYBODY);
    let mut over_http: Vec<_> = (0..3).map(|_| blurt(world.at, REQUEST)).collect();
    let mut over_tcp = [blurt(at, b"GET_STATE\n"), blurt(fresh, b"GET_STATE\n")];
    world.shutdown.cancel();
    for client in &mut over_http {
        let answer = whole(client).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("shutting_down"), "{answer}");
    }
    for client in &mut over_tcp {
        let line = String::from_utf8(rest(client).await.unwrap()).unwrap();
        // The other session's route is not known here; what comes first is told.
        assert!(
            ["ERROR shutting_down\n", "ERROR session_not_found\n"].contains(&&*line),
            "{line}"
        );
    }
    drop(game);
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_is_over_before_it_said_a_word() {
    let world = World::start().await;
    let (game, at) = world.playing(1, ANYBODY).await;
    let mut late = dial(at).await;
    say(&mut late, b"GET_STATE\n").await;
    let at_game = game.accept().await;
    eventually("it is connected", || world.gateway.metrics().tunnels == 1).await;
    // As a process does that exits over what it has not read.
    at_game.set_zero_linger().unwrap();
    drop((at_game, game));
    eventually("the gateway has lost the game", || {
        world.gateway.metrics().tunnels == 0
    })
    .await;
    say(&mut late, b"GET_STATE\n").await;
    world.link.set(Route {
        phase: Phase::Ended,
        ended: Some(Reason::EndedByServer),
        ..tcp(session(1), at)
    });
    world.link.gone(session(1));
    assert_eq!(rest(&mut late).await.unwrap(), b"ERROR session_not_found\n");
}

#[tokio::test]
async fn a_game_that_is_lost_and_goes_on_elsewhere_is_a_reset() {
    let world = World::start().await;
    for said in [&b""[..], b"state"] {
        let id = session(1 + said.len() as u64);
        let (game, at) = world.playing(1 + said.len() as u64, ANYBODY).await;
        let mut client = dial(at).await;
        say(&mut client, b"GET_STATE\n").await;
        let mut at_game = game.accept().await;
        hears(&mut at_game, b"GET_STATE\n").await;
        say(&mut at_game, said).await;
        hears(&mut client, said).await;
        at_game.set_zero_linger().unwrap();
        drop(at_game);
        eventually("the gateway has lost the game", || {
            world.gateway.metrics().tunnels == 0
        })
        .await;
        world.link.set(Route {
            generation: 2,
            phase: Phase::Replacing,
            address: None,
            ..tcp(id, game.at)
        });
        assert!(is_reset(&mut client).await, "after {said:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_read() {
    let world = World::start().await;
    for _ in 0..8 {
        let mut client = dial(world.at).await;
        let body = vec![b'x'; 200_000];
        let head = format!(
            "POST /elsewhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        say(&mut client, head.as_bytes()).await;
        // The answer is there before most of the body is.
        for piece in body.chunks(50_000) {
            client.readable().await.unwrap();
            say(&mut client, piece).await;
        }
        let answer = whole(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("fallback /elsewhere"), "{answer}");
        client.shutdown().await.unwrap();
    }
    eventually("nothing is left", || {
        world.gateway.metrics().connections == 0
    })
    .await;
    world.stop().await;
}
