//! HTTP that means harm: what could be read as two requests by two readers, or as somebody else's.

use spawnpoint_core::SessionId;
use tokio::io::AsyncWriteExt as _;

use crate::games::RawGame;
use crate::harness::*;
use crate::http_game::{Web, web};

async fn refused(world: &World, request: &str, status: u16, code: Option<&str>) {
    let mut client = Web::send(world.at, request).await;
    let mut answer = client.head().await;
    assert_eq!(answer.status, status, "{request}\n{}", answer.head);
    if let Some(code) = code {
        let length = answer.header("content-length").unwrap().parse().unwrap();
        answer.body = String::from_utf8(client.take(length).await).unwrap();
        assert_eq!(answer.code(), code, "{request}");
    }
}

fn with(world: &World, id: SessionId, line: &str, headers: &str) -> String {
    let token = world.token("a", id);
    format!("{line}\r\nAuthorization: Bearer {token}\r\n{headers}\r\n")
}

#[tokio::test]
async fn what_two_readers_could_read_differently_reaches_nobody() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let at = world.at;
    let post = format!("POST /session/{id}/ HTTP/1.1\r\nHost: {at}");
    for (headers, code) in [
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            Some("malformed_request"),
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Some("malformed_request"),
        ),
        ("Transfer-Encoding: xchunked\r\n", None),
        ("Transfer-Encoding: chunked, identity\r\n", None),
        ("Content-Length: 4\r\nContent-Length: 5\r\n", None),
        ("Content-Length: +4\r\n", None),
        ("Content-Length: -1\r\n", None),
        ("Content-Length : 4\r\n", None),
        ("X-A: b\rX-Player-Id: root\r\n", None),
        ("X\0: b\r\n", None),
    ] {
        let request = with(&world, id, &post, headers) + "0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n";
        refused(&world, &request, 400, code).await;
    }
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\n{host}");
    let path = format!("/session/{id}/");
    let twice = get(&path, &format!("Host: {at}\r\nHost: {at}"));
    refused(
        &world,
        &with(&world, id, &twice, ""),
        403,
        Some("host_not_allowed"),
    )
    .await;
    let none = get(&path, "X: y");
    refused(
        &world,
        &with(&world, id, &none, ""),
        403,
        Some("host_not_allowed"),
    )
    .await;
    let elsewhere = get(
        &format!("http://other.example{path}"),
        &format!("Host: {at}"),
    );
    refused(
        &world,
        &with(&world, id, &elsewhere, ""),
        400,
        Some("malformed_request"),
    )
    .await;
    let huge = format!("X-Huge: {}\r\n", "x".repeat(100_000));
    let plain = get(&path, &format!("Host: {at}"));
    refused(&world, &with(&world, id, &plain, &huge), 431, None).await;
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    refused(&world, &with(&world, id, &plain, &many), 431, None).await;
    let evil = format!("Host: {at}\r\nOrigin: https://evil.example");
    let foreign = get(&path, &evil);
    refused(
        &world,
        &with(&world, id, &foreign, ""),
        403,
        Some("origin_not_allowed"),
    )
    .await;
    // Nothing of all that came near the game: the first that does is this.
    let mut client = Web::send(at, &world.get(id, "/first", "")).await;
    let mut seen = game.accept().await;
    assert!(seen.head.starts_with("GET /first "), "{}", seen.head);
    let said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    seen.stream.write_all(said).await.unwrap();
    assert_eq!(client.answer().await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn of_two_lengths_one_is_passed_on_and_nothing_comes_after() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let hidden = world.get(id, "/evil", "");
        let request = world.request("POST", id, "/", headers) + "0\r\n\r\n" + &hidden;
        let mut client = Web::send(world.at, &request).await;
        let mut seen = game.accept().await;
        assert_eq!(seen.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(seen.header("Content-Length"), None, "{}", seen.head);
        assert_eq!(seen.read(5).await, b"0\r\n\r\n");
        let said = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        seen.stream.write_all(said).await.unwrap();
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(
            client.rest().await,
            "",
            "whatever followed is not a request"
        );
        assert_eq!(seen.rest().await, b"");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_same_address_in_full_is_one_request_to_the_path() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let line = format!(
        "GET http://{}/session/{id}/x HTTP/1.1\r\nHost: {}",
        world.at, world.at
    );
    let mut client = Web::send(world.at, &with(&world, id, &line, "")).await;
    let mut seen = game.accept().await;
    assert!(
        seen.head.starts_with("GET /x HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    // A second request hidden behind the first is a request of its own, with its own check.
    let said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    seen.stream.write_all(said).await.unwrap();
    assert_eq!(client.answer().await.status, 200);
    let hidden = format!(
        "GET /session/{id}/secret HTTP/1.1\r\nHost: {}\r\n\r\n",
        world.at
    );
    client.write(hidden.as_bytes()).await;
    assert_eq!(client.answer().await.code(), "unauthenticated");
    world.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_not_asked_for_is_nobodys() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let mut client = Web::send(world.at, &world.get(id, "/", "")).await;
    let mut seen = game.accept().await;
    // A second answer behind the first: it must not be given to whoever asks next.
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    seen.stream.write_all(two.as_bytes()).await.unwrap();
    assert_eq!(client.answer().await.body, "on");
    let mut client = Web::send(world.at, &world.get(id, "/next", "")).await;
    let mut fresh = game.accept().await;
    assert!(fresh.head.starts_with("GET /next "));
    let said = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    fresh.stream.write_all(said).await.unwrap();
    assert_eq!(client.answer().await.body, "good");
    // An upgrade that nobody wants.
    let mut client = Web::send(world.at, &world.get(id, "/", "Upgrade: h2c\r\n")).await;
    // The kept connection may serve this one.
    let head = tokio::select! {
        () = crate::http_game::next(&mut fresh) => fresh.head.clone(),
        other = game.accept() => { fresh = other; fresh.head.clone() }
    };
    assert!(!head.to_lowercase().contains("h2c"));
    let said = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n";
    fresh.stream.write_all(said).await.unwrap();
    assert_eq!(client.answer().await.code(), "game_failed");
    world.stop().await;
}
