//! HTTP games on a host name of their own: the one cookie, what browsers may do with it, and who else may not.

use std::time::Duration;

use spawnpoint_core::SessionId;
use spawnpoint_gateway::GatewayConfig;
use spawnpoint_wire::access::Access;
use tokio::io::AsyncWriteExt as _;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;
use crate::http_game::{Web, next, web};

fn host(world: &World, session: SessionId) -> String {
    format!("{session}.localhost:{}", world.at.port())
}

fn request(method: &str, path: &str, host: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// What the game answers with.
const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

struct Stage {
    world: World,
    game: RawGame,
    id: SessionId,
    host: String,
}

impl Stage {
    async fn set(config: GatewayConfig) -> Self {
        let world = World::with(config).await;
        let game = RawGame::start().await;
        let id = session(1);
        world.route(web(id, game.at)).await;
        let host = host(&world, id);
        Self {
            world,
            game,
            id,
            host,
        }
    }

    async fn ask(&self, method: &str, path: &str, more: &str) -> Answer {
        let request = request(method, path, &self.host, more);
        Web::send(self.world.at, &request).await.answer().await
    }

    /// Asks for what must reach the game; returns the head that it saw.
    async fn reaches(&self, method: &str, path: &str, more: &str) -> String {
        let request = request(method, path, &self.host, more);
        let mut client = Web::send(self.world.at, &request).await;
        let mut seen = self.game.accept().await;
        // Not kept, so that each of these is a connection of its own.
        let bye = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        seen.stream.write_all(bye.as_bytes()).await.unwrap();
        let answer = client.head().await;
        assert_eq!(
            answer.status, 200,
            "{method} {path} {more}\n{}",
            answer.head
        );
        seen.head
    }

    fn cookie(&self) -> String {
        format!("Cookie: spawnpoint={}\r\n", self.world.token("a", self.id))
    }
}

#[tokio::test]
async fn a_link_becomes_a_cookie_and_the_cookie_opens_the_session() {
    let stage = Stage::set(config()).await;
    let token = stage.world.token("a", stage.id);
    let answer = stage
        .ask("GET", &format!("/lab/x?a=1&token={token}&b=2"), "")
        .await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/lab/x?a=1&b=2"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let cookie = answer.header("set-cookie").unwrap();
    assert_eq!(
        cookie,
        format!("spawnpoint={token}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
    );
    let sent = format!(
        "Cookie: its=own; spawnpoint={token}; more=1\r\nReferer: http://{}/?token={token}\r\n",
        stage.host
    );
    let seen = stage.reaches("GET", "/lab/x?a=1", &sent).await;
    assert!(seen.starts_with("GET /lab/x?a=1 HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains(&token), "{seen}");
    assert!(seen.contains("Cookie: its=own; more=1\r\n"), "{seen}");
    assert!(seen.contains(&format!("Host: {}\r\n", stage.host)));
    assert!(seen.contains(&format!("X-Forwarded-Host: {}\r\n", stage.host)));
    assert!(
        !seen.contains("X-Forwarded-Prefix"),
        "it is at the root: {seen}"
    );
    assert!(seen.contains(&format!("X-Session-Id: {}\r\n", stage.id)));
    // Whatever the path, it is the game's: also those that are ours elsewhere.
    for path in [
        "/healthz",
        "/play",
        "/api/new-game",
        "/session/x",
        "/ws/x",
        "//x",
    ] {
        let seen = stage.reaches("GET", path, &stage.cookie()).await;
        assert!(
            seen.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
            "{seen}"
        );
    }
    // A program that has the token does without cookies; with a body there is nothing to redirect.
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let seen = stage.reaches("GET", "/", &bearer).await;
    assert!(!seen.contains("Authorization"), "{seen}");
    let seen = stage
        .reaches(
            "POST",
            &format!("/x?token={token}"),
            "Content-Length: 0\r\n",
        )
        .await;
    assert!(seen.starts_with("POST /x HTTP/1.1\r\n"), "{seen}");
    let counted = stage.world.gateway.metrics().http_requests;
    assert_eq!((counted["login"], counted["ok"]), (1, 9));
    stage.world.stop().await;
}

#[tokio::test]
async fn a_redirect_of_ours_stays_on_the_host() {
    let stage = Stage::set(config()).await;
    let token = stage.world.token("a", stage.id);
    for (asked, location) in [
        (format!("/?token={token}"), "/"),
        (
            format!("//evil.example/?token={token}"),
            "/.//evil.example/",
        ),
        (
            format!("/\\evil.example/?token={token}"),
            "/./\\evil.example/",
        ),
        (format!("/%0d%0aX:1?token={token}"), "/%0d%0aX:1"),
    ] {
        let answer = stage.ask("GET", &asked, "").await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(location))
        );
    }
    stage.world.stop().await;
}

#[tokio::test]
async fn without_a_good_token_there_is_a_page_that_says_what_to_do() {
    let stage = Stage::set(config()).await;
    let old = stage.world.token_until("a", stage.id, NOW - 1);
    let other = stage.world.token("a", session(2));
    let page = "Accept: text/html\r\n";
    for (cookie, status, code, words) in [
        (
            None,
            401,
            "unauthenticated",
            "A link with a token is needed",
        ),
        (
            Some(&old),
            401,
            "invalid_credentials",
            "This link has expired",
        ),
        (Some(&other), 403, "forbidden", "somebody else"),
    ] {
        let cookie = cookie
            .map(|t| format!("Cookie: spawnpoint={t}\r\n"))
            .unwrap_or_default();
        let answer = stage.ask("GET", "/", &cookie).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        let answer = stage.ask("GET", "/", &format!("{cookie}{page}")).await;
        assert_eq!(answer.status, status);
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(answer.body.contains(words), "{}", answer.body);
        assert!(
            answer
                .header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
    }
    // An old link beside a good cookie: the cookie stands, and the address loses the token.
    let both = stage
        .ask("GET", &format!("/x?token={old}"), &stage.cookie())
        .await;
    assert_eq!((both.status, both.header("location")), (303, Some("/x")));
    assert_eq!(both.header("set-cookie"), None);
    // Planted cookies do not shut the true one out.
    let planted = format!(
        "Cookie: spawnpoint=junk; {}",
        &stage.cookie()["Cookie: ".len()..]
    );
    stage.reaches("GET", "/", &planted).await;
    stage.world.stop().await;
}

#[tokio::test]
async fn pages_of_other_sessions_can_do_nothing_here() {
    let stage = Stage::set(config()).await;
    let (own, sibling) = (
        format!("http://{}", stage.host),
        format!("http://{}", host(&stage.world, session(2))),
    );
    let cookie = stage.cookie();
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        stage.world.token("a", stage.id)
    );
    let port = stage.world.at.port();
    for origin in [
        sibling.as_str(),
        "null",
        "https://evil.example",
        &format!("http://localhost:{port}"),
        &format!("{own}1"),
    ] {
        for (method, who) in [
            ("POST", &cookie),
            ("DELETE", &cookie),
            ("GET", &cookie),
            ("POST", &bearer),
        ] {
            let more = format!("{who}Origin: {origin}\r\nContent-Length: 0\r\n");
            let answer = stage.ask(method, "/", &more).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, "origin_not_allowed"),
                "{method} from {origin}"
            );
        }
    }
    // An <img>, a script or a form of a sibling brings no Origin in some browsers, but says where it comes from.
    for site in ["same-site", "cross-site"] {
        let more = format!("{cookie}Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: no-cors\r\n");
        assert_eq!(
            stage.ask("GET", "/", &more).await.code(),
            "origin_not_allowed"
        );
        let more = format!(
            "{cookie}Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: navigate\r\nContent-Length: 0\r\n"
        );
        assert_eq!(
            stage.ask("POST", "/", &more).await.code(),
            "origin_not_allowed"
        );
        stage
            .reaches(
                "GET",
                "/a-link-to-here",
                &more.replace("Content-Length: 0\r\n", ""),
            )
            .await;
    }
    for fine in [
        format!("Origin: {own}\r\n"),
        "Origin: null\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        "Sec-Fetch-Site: same-origin\r\n".to_owned(),
        String::new(),
    ] {
        let more = format!("{cookie}{fine}Content-Length: 0\r\n");
        stage.reaches("POST", "/", &more).await;
    }
    stage.world.stop().await;
}

#[tokio::test]
async fn sockets_follow_the_same_rules() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(web(id, game.at)).await;
    let host = host(&world, id);
    let token = world.token("a", id);
    let cookie = format!("its=own; spawnpoint={token}");
    let url = format!("ws://{host}/api/kernels/1?x=1");
    let own = format!("http://{host}");
    let evil = "http://01890a5d-ac96-774b-bcce-000000000002.localhost";
    let mut client = connect(
        world.at,
        &url,
        &[],
        &[("cookie", &cookie), ("origin", &own)],
    )
    .await
    .unwrap();
    client.echo("in").await;
    let seen = game.seen().pop().unwrap();
    assert_eq!(seen.path, "/api/kernels/1?x=1");
    assert_eq!(seen.headers["cookie"], "its=own");
    assert!(!seen.headers.contains_key("x-forwarded-prefix"));
    let by_link = format!("ws://{host}/?token={token}");
    connect(world.at, &by_link, &[], &[]).await.unwrap();
    for (url, headers) in [
        (&url, vec![("cookie", cookie.as_str()), ("origin", evil)]),
        (&by_link, vec![("origin", evil)]),
        (
            &url,
            vec![("cookie", cookie.as_str()), ("sec-fetch-site", "same-site")],
        ),
    ] {
        let refused = connect(world.at, url, &[], &headers).await.err().unwrap();
        assert_eq!(refused.status, 403);
    }
    let refused = connect(world.at, &url, &[], &[]).await.err().unwrap();
    assert_eq!(refused.status, 401);
    world.stop().await;
}

#[tokio::test]
async fn under_tls_the_cookie_is_one_that_nobody_else_can_plant() {
    let stage = Stage::set(GatewayConfig {
        secure: true,
        access: Access {
            hosts: vec!["games.example.com".into()],
            ..Access::default()
        },
        ..config()
    })
    .await;
    let host = format!("{}.games.example.com", stage.id);
    let stage = Stage { host, ..stage };
    let token = stage.world.token("a", stage.id);
    let answer = stage.ask("GET", &format!("/?token={token}"), "").await;
    assert_eq!(
        answer.header("set-cookie").unwrap(),
        format!("__Host-spawnpoint={token}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
    );
    assert_eq!(
        stage.ask("GET", "/", &stage.cookie()).await.status,
        401,
        "the other name"
    );
    let cookie = format!("Cookie: __Host-spawnpoint={token}\r\n");
    let seen = stage.reaches("GET", "/", &cookie).await;
    assert!(
        seen.contains("X-Forwarded-Proto: https\r\n") && !seen.contains("Cookie"),
        "{seen}"
    );
    let plain = format!(
        "{cookie}Origin: http://{}\r\nContent-Length: 0\r\n",
        stage.host
    );
    assert_eq!(
        stage.ask("POST", "/", &plain).await.status,
        403,
        "a page without TLS"
    );
    let own = format!(
        "{cookie}Origin: https://{}\r\nContent-Length: 0\r\n",
        stage.host
    );
    stage.reaches("POST", "/", &own).await;
    stage.world.stop().await;
}

#[tokio::test]
async fn only_names_below_ours_are_session_hosts() {
    let stage = Stage::set(config()).await;
    let cookie = stage.cookie();
    for host in [
        format!("{}.evil.example", stage.id),
        format!("{}.127.0.0.1:{}", stage.id, stage.world.at.port()),
        format!("x{}.localhost", stage.id),
    ] {
        let request = request("GET", "/healthz", &host, &cookie);
        let answer = Web::send(stage.world.at, &request).await.answer().await;
        assert!(
            answer.body.starts_with("fallback /healthz"),
            "{host}: whoever is there refuses the name"
        );
    }
    let twice = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nHost: localhost\r\n{cookie}\r\n",
        stage.host
    );
    let answer = Web::send(stage.world.at, &twice).await.answer().await;
    assert!(answer.body.starts_with("fallback"), "{}", answer.head);
    let full = format!(
        "GET http://localhost/healthz HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n",
        stage.host
    );
    let answer = Web::send(stage.world.at, &full).await.answer().await;
    assert_eq!(answer.code(), "malformed_request");
    let star = format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", stage.host);
    let answer = Web::send(stage.world.at, &star).await.answer().await;
    assert_eq!(answer.code(), "malformed_request");
    // A session that speaks WebSocket only has the same host and nothing to read there.
    stage.world.route(ready(session(3), stage.game.at)).await;
    let host = host(&stage.world, session(3));
    let more = format!(
        "Authorization: Bearer {}\r\n",
        stage.world.token("a", session(3))
    );
    let answer = Web::send(stage.world.at, &request("GET", "/", &host, &more))
        .await
        .answer()
        .await;
    assert_eq!(answer.code(), "upgrade_required");
    stage.world.stop().await;
}

#[tokio::test]
async fn a_page_loads_over_one_connection_while_another_player_does_the_same() {
    let stage = Stage::set(config()).await;
    let mut client = Web::open(stage.world.at).await;
    let cookie = stage.cookie();
    client
        .write(request("GET", "/1", &stage.host, &cookie).as_bytes())
        .await;
    let mut seen = stage.game.accept().await;
    seen.stream.write_all(HELLO).await.unwrap();
    assert_eq!(client.answer().await.body, "hello");
    let other = format!(
        "Cookie: spawnpoint={}\r\n",
        stage.world.token("b", stage.id)
    );
    for (cookie, player) in [(&cookie, "a"), (&other, "b"), (&cookie, "a")] {
        client
            .write(request("GET", "/2", &stage.host, cookie).as_bytes())
            .await;
        next(&mut seen).await;
        assert_eq!(
            seen.header("X-Player-Id"),
            Some(player),
            "by request, not by connection"
        );
        seen.stream.write_all(HELLO).await.unwrap();
        assert_eq!(client.answer().await.body, "hello");
    }
    tokio::time::timeout(Duration::from_secs(20), stage.world.stop())
        .await
        .unwrap();
}
