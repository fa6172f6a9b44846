//! HTTP games under the path form: what passes through, how, and what becomes of it when somebody goes.

use std::net::SocketAddr;
use std::time::Duration;

use spawnpoint_core::SessionId;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_gateway::GatewayConfig;
use spawnpoint_wire::link::{Protocol, Route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::games::{RawConnection, RawGame};
use crate::harness::*;

/// A route to an HTTP game that accepts, for players a, b and c.
pub(crate) fn web(session: SessionId, address: SocketAddr) -> Route {
    Route {
        protocol: Protocol::Http,
        ..ready(session, address)
    }
}

/// A client by hand.
pub(crate) struct Web {
    pub(crate) stream: TcpStream,
    pub(crate) bytes: Vec<u8>,
}

impl Web {
    pub(crate) async fn open(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    /// Opens and sends a request.
    pub(crate) async fn send(at: SocketAddr, request: &str) -> Self {
        let mut web = Self::open(at).await;
        web.write(request.as_bytes()).await;
        web
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("a client's write", self.stream.write_all(bytes))
            .await
            .unwrap();
    }

    /// The head of the next answer; its body is still to be read.
    pub(crate) async fn head(&mut self) -> Answer {
        let head = soon("a head", read_head(&mut self.stream, &mut self.bytes)).await;
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        }
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map(|l| l.parse().unwrap());
        answer.body = String::from_utf8(self.take(length.unwrap_or(0)).await).unwrap();
        answer
    }

    pub(crate) async fn take(&mut self, n: usize) -> Vec<u8> {
        while self.bytes.len() < n {
            assert!(self.more().await, "ended after {:?}", self.bytes);
        }
        self.bytes.drain(..n).collect()
    }

    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let got = self.take(bytes.len()).await;
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(bytes)
        );
    }

    async fn more(&mut self) -> bool {
        let mut more = vec![0; 65_536];
        match soon("bytes for the client", self.stream.read(&mut more)).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.bytes.extend(&more[..n]);
                true
            }
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.bytes)).unwrap()
    }
}

impl World {
    pub(crate) fn get(&self, session: SessionId, path: &str, more: &str) -> String {
        self.request("GET", session, path, more)
    }

    /// A request on the path form, authorised by a bearer.
    pub(crate) fn request(
        &self,
        method: &str,
        session: SessionId,
        path: &str,
        more: &str,
    ) -> String {
        let token = self.token("a", session);
        format!(
            "{method} /session/{session}{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{more}\r\n",
            self.at
        )
    }
}

async fn say(game: &mut RawConnection, text: &str) {
    game.stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads the next request on the same connection.
pub(crate) async fn next(game: &mut RawConnection) {
    game.head = soon(
        "another request",
        read_head(&mut game.stream, &mut game.bytes),
    )
    .await;
}

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_request_arrives_as_it_was_made_but_for_what_is_ours() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let token = world.token("b", id);
    let mut client = Web::send(
        world.at,
        &format!(
            "PATCH /ws/{id}/a/../b%2Fc?x=1&token={token}&y=%26 HTTP/1.1\r\nHost: {}\r\nX-Odd-CASE: 1\r\n\
             Authorization: Bearer its-own\r\nCookie: k=v\r\nX-Player-Id: root\r\nX-Forwarded-For: 6.6.6.6\r\n\
             Accept-Encoding: br\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 4\r\n\r\nbody",
            world.at
        ),
    )
    .await;
    let mut seen = game.accept().await;
    assert!(
        seen.head
            .starts_with("PATCH /a/../b%2Fc?x=1&y=%26 HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert!(!seen.head.contains(&token) && !seen.head.contains("6.6.6.6"));
    assert!(!seen.head.to_lowercase().contains("x-hop"));
    for (name, value) in [
        ("X-Odd-CASE", "1"),
        ("Authorization", "Bearer its-own"),
        ("Cookie", "k=v"),
        ("Host", &world.at.to_string()),
        ("X-Forwarded-Host", &world.at.to_string()),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Prefix", &format!("/ws/{id}")),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Session-Id", &id.to_string()),
        ("X-Player-Id", "b"),
        ("Accept-Encoding", "br"),
        ("Content-Length", "4"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{}", seen.head);
    }
    assert_eq!(seen.read(4).await, b"body");
    say(
        &mut seen,
        "HTTP/1.1 418 Short And Stout\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Kept: 1\r\nConnection: x-mine\r\n\
         X-Mine: 1\r\nLocation: /session/x/y\r\nContent-Length: 3\r\n\r\ntea",
    )
    .await;
    let answer = client.answer().await;
    assert!(
        answer.head.starts_with("HTTP/1.1 418 Short And Stout\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.body, "tea");
    assert_eq!(answer.head.matches("Set-Cookie").count(), 2);
    assert_eq!(
        answer.header("location"),
        Some("/session/x/y"),
        "not ours to rewrite"
    );
    assert_eq!(answer.header("x-mine"), None);
    world.stop().await;
}

#[tokio::test]
async fn events_pass_one_by_one() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(world.at, &world.get(id, "/events", "")).await;
    let mut seen = game.accept().await;
    say(
        &mut seen,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    assert_eq!(client.head().await.status, 200);
    for n in 0..5 {
        say(&mut seen, &format!("9\r\ndata: {n}\n\n\r\n")).await;
        // The game says the next one only after this one has come out.
        client
            .expect(format!("9\r\ndata: {n}\n\n\r\n").as_bytes())
            .await;
    }
    eventually("it is counted", || world.gateway.metrics().requests == 1).await;
    drop(client);
    // The client's going reaches the game, or it would stream for ever.
    assert_eq!(seen.rest().await, b"");
    eventually("it is over", || world.gateway.metrics().requests == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn an_upload_streams_and_waits_for_a_game_that_does_not_read() {
    const SIZE: usize = 100 * 1024 * 1024;
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let head = world.request("POST", id, "/up", &format!("Content-Length: {SIZE}\r\n"));
    let mut client = Web::send(world.at, &head).await;
    let mut seen = game.accept().await;
    // As much as sockets and windows hold goes out, and then no more.
    let chunk = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    while let Ok(n) =
        tokio::time::timeout(Duration::from_millis(500), client.stream.write(&chunk)).await
    {
        sent += n.unwrap();
        assert!(
            sent < SIZE / 2,
            "somebody keeps what the game does not take"
        );
    }
    let reading = async {
        let mut got = seen.bytes.len();
        let mut buffer = vec![0; 1024 * 1024];
        while got < SIZE {
            let n = seen.stream.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0);
            got += n;
        }
        assert_eq!(got, SIZE);
        say(&mut seen, HELLO).await;
    };
    let writing = async {
        let mut left = SIZE - sent;
        while left > 0 {
            let n = left.min(chunk.len());
            client.stream.write_all(&chunk[..n]).await.unwrap();
            left -= n;
        }
        client.answer().await
    };
    let ((), answer) = soon("the upload", async { tokio::join!(reading, writing) }).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    let counted = world.gateway.metrics();
    assert_eq!(counted.bytes_in, SIZE as u64);
    world.stop().await;
}

#[tokio::test]
async fn chunks_stay_chunks_and_a_hesitant_client_is_told_to_go_on() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(
        world.at,
        &world.request(
            "PUT",
            id,
            "/",
            "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
        ),
    )
    .await;
    let mut seen = game.accept().await;
    assert_eq!(seen.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(seen.header("Expect"), None);
    assert_eq!(client.head().await.status, 100);
    for part in ["3\r\nabc\r\n", "2\r\nde\r\n", "0\r\n\r\n"] {
        client.write(part.as_bytes()).await;
        assert_eq!(seen.read(part.len()).await, part.as_bytes(), "as it comes");
    }
    say(&mut seen, HELLO).await;
    assert_eq!(client.answer().await.body, "hello");
    world.stop().await;
}

#[tokio::test]
async fn answers_without_a_body_stay_without() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(world.at, &world.request("HEAD", id, "/", "")).await;
    let mut seen = game.accept().await;
    assert!(seen.head.starts_with("HEAD / "));
    say(&mut seen, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("1234"))
    );
    // All on one connection: had there been a body, the next head would not be read.
    for (status, more) in [
        ("204 No Content", ""),
        ("304 Not Modified", "ETag: \"x\"\r\n"),
        ("200 OK", "Content-Length: 0\r\n"),
    ] {
        client.write(world.get(id, "/", "").as_bytes()).await;
        next(&mut seen).await;
        say(&mut seen, &format!("HTTP/1.1 {status}\r\n{more}\r\n")).await;
        let answer = client.head().await;
        assert!(status.starts_with(&answer.status.to_string()));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_game_that_dies_in_the_middle_is_not_taken_for_the_end() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    for (framing, part) in [
        ("Content-Length: 10", "12345"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n"),
    ] {
        let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
        let mut seen = game.accept().await;
        say(
            &mut seen,
            &format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}"),
        )
        .await;
        assert_eq!(client.head().await.status, 200);
        client.expect(part.as_bytes()).await;
        drop(seen);
        let rest = client.rest().await;
        assert_eq!(rest, "", "cut, without the last chunk or the missing bytes");
    }
    // Before the answer it is an answer of ours.
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    drop(game.accept().await);
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "game_failed")
    );
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    say(&mut game.accept().await, "220 smtp.example ESMTP\r\n\r\n").await;
    assert_eq!(client.answer().await.code(), "game_failed");
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut seen = game.accept().await;
    let (answer, ()) = tokio::join!(client.answer(), async {
        let _ = seen.stream.write_all(huge.as_bytes()).await;
    });
    assert_eq!(answer.code(), "game_failed");
    world.stop().await;
}

#[tokio::test]
async fn a_request_waits_for_its_game() {
    let world = World::with(GatewayConfig {
        park: Duration::from_millis(1500),
        ..config()
    })
    .await;
    let game = RawGame::start().await;
    let id = session(1);
    let coming = Route {
        protocol: Protocol::Http,
        ..starting(id)
    };
    world.route(coming.clone()).await;
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    eventually("it is parked", || world.gateway.metrics().parked == 1).await;
    world.route(web(id, game.at)).await;
    say(&mut game.accept().await, HELLO).await;
    assert_eq!(client.answer().await.body, "hello");
    // Too long: a program is told when to come back, a person gets a page that does.
    world
        .route(Route {
            session: session(2),
            ..coming
        })
        .await;
    let mut program = Web::send(world.at, &world.get(session(2), "/", "Accept: */*\r\n")).await;
    let page = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let mut person = Web::send(world.at, &world.get(session(2), "/", page)).await;
    let answer = program.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "still_starting")
    );
    assert_eq!(answer.header("retry-after"), Some("2"));
    let answer = person.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        answer.body.contains("http-equiv=\"refresh\""),
        "{}",
        answer.body
    );
    world.stop().await;
}

#[tokio::test]
async fn connections_are_kept_for_the_same_incarnation_and_nobody_else() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let (id, other) = (session(1), session(2));
    // Two sessions at one address cannot be; here they are, so that a mix-up would show.
    world.route(web(id, game.at)).await;
    world.route(web(other, game.at)).await;
    let ask = async |id: SessionId| Web::send(world.at, &world.get(id, "/", "")).await;
    let mut client = ask(id).await;
    let mut first = game.accept().await;
    say(&mut first, HELLO).await;
    assert_eq!(client.answer().await.body, "hello");
    let mut client = ask(id).await;
    next(&mut first).await;
    say(&mut first, HELLO).await;
    assert_eq!(client.answer().await.body, "hello", "on the kept one");
    eventually("kept", || {
        world.gateway.metrics().idle_game_connections == 1
    })
    .await;
    let mut client = ask(other).await;
    let mut second = game.accept().await;
    assert_eq!(
        second.header("X-Session-Id"),
        Some(other.to_string().as_str())
    );
    say(&mut second, HELLO).await;
    client.answer().await;
    // Another incarnation: the kept one is closed at once.
    world
        .route(Route {
            generation: 2,
            ..web(id, game.at)
        })
        .await;
    assert_eq!(first.rest().await, b"");
    let mut client = ask(id).await;
    let mut third = game.accept().await;
    say(&mut third, HELLO).await;
    client.answer().await;
    world.link.gone(other);
    assert_eq!(second.rest().await, b"");
    // Unused, it is closed before the game gets tired of it.
    assert_eq!(third.rest().await, b"");
    assert_eq!(world.gateway.metrics().idle_game_connections, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_game_closes_loses_no_request() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    let mut first = game.accept().await;
    say(&mut first, HELLO).await;
    client.answer().await;
    // The game reads the next request and hangs up: its keep-alive was over.
    let mut client = Web::send(world.at, &world.get(id, "/again", "")).await;
    next(&mut first).await;
    drop(first);
    let mut second = game.accept().await;
    assert!(second.head.starts_with("GET /again "));
    say(&mut second, HELLO).await;
    assert_eq!(client.answer().await.body, "hello");
    // What is not harmless twice is not asked twice.
    let post = world.request("POST", id, "/pay", "Content-Length: 1\r\n") + "1";
    let mut client = Web::send(world.at, &post).await;
    next(&mut second).await;
    drop(second);
    assert_eq!(client.answer().await.code(), "game_failed");
    world.stop().await;
}

#[tokio::test]
async fn requests_are_presence_and_activity() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    let mut seen = game.accept().await;
    let player = |wanted: u32| {
        move |reports: &[spawnpoint_wire::link::Report]| {
            reports
                .iter()
                .flat_map(|r| &r.sessions)
                .flat_map(|s| &s.players)
                .any(|p| {
                    p.player.as_str() == "a"
                        && p.connections == wanted
                        && p.client_data_age_ms.is_some()
                })
        }
    };
    world.link.reported("somebody is here", player(1)).await;
    say(&mut seen, HELLO).await;
    client.answer().await;
    world.link.reported("it is over", player(0)).await;
    let out: u64 = world
        .link
        .reports()
        .iter()
        .flat_map(|r| &r.sessions)
        .flat_map(|s| &s.players)
        .map(|p| p.bytes_out)
        .sum();
    assert_eq!(out, 5);
    assert_eq!(world.gateway.metrics().http_requests["ok"], 1);
    world.stop().await;
}

#[tokio::test]
async fn streams_end_with_the_session_the_player_and_the_gateway() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    let stream = async |world: &World| {
        world.route(web(id, game.at)).await;
        let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
        let mut seen = game.accept().await;
        say(
            &mut seen,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
        assert_eq!(client.head().await.status, 200);
        (client, seen)
    };
    let (mut client, mut seen) = stream(&world).await;
    world
        .route(Route {
            players: players(&["b"]),
            ..web(id, game.at)
        })
        .await;
    assert_eq!(
        (client.rest().await.as_str(), seen.rest().await),
        ("", vec![]),
        "kicked"
    );
    let kicked = Web::send(world.at, &world.get(id, "/", ""))
        .await
        .answer()
        .await;
    assert_eq!((kicked.status, kicked.code().as_str()), (403, "forbidden"));
    let (mut client, _seen) = stream(&world).await;
    world
        .route(Route {
            phase: Phase::Ending,
            ended: Some(Reason::Idle),
            ..web(id, game.at)
        })
        .await;
    assert_eq!(client.rest().await, "", "ended");
    let late = Web::send(world.at, &world.get(id, "/", ""))
        .await
        .answer()
        .await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (404, "session_not_found")
    );
    let (mut client, _seen) = stream(&world).await;
    world.stop().await;
    assert_eq!(client.rest().await, "", "drained");
}

#[tokio::test]
async fn limits_have_names() {
    let world = World::with(GatewayConfig {
        max_requests_per_session: 2,
        answer_timeout: Duration::from_millis(300),
        upload_silence: Duration::from_millis(300),
        ..config()
    })
    .await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut slow = Web::send(world.at, &world.get(id, "/", "")).await;
    let _first = game.accept().await;
    let answer = slow.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "game_timeout")
    );
    let stalled = world.request("POST", id, "/", "Content-Length: 10\r\n") + "1";
    let mut stalled = Web::send(world.at, &stalled).await;
    let mut cut = game.accept().await;
    assert_eq!(cut.rest().await, b"1", "and the game is not left waiting");
    let answer = stalled.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "upload_stalled")
    );
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
        let mut seen = game.accept().await;
        say(
            &mut seen,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
        client.head().await;
        streams.push((client, seen));
    }
    let answer = Web::send(world.at, &world.get(id, "/", ""))
        .await
        .answer()
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (429, "too_many_connections")
    );
    world.stop().await;
}

#[tokio::test]
async fn a_page_may_have_several_sockets_beside_its_requests() {
    let world = World::start().await;
    let game = crate::games::EchoGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut one = world.join(id, "a").await;
    let mut two = world.join(id, "a").await;
    one.echo("kernel 1").await;
    two.echo("kernel 2").await;
    one.echo("still here").await;
    assert_eq!(world.gateway.metrics().tunnels, 2);
    world.stop().await;
}
