//! The head of a request as the game gets it, and of its answer as the client gets it. Pure.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::entrance::{self, Credentials, Door};
use crate::access::Target;
use crate::decide::Refusal;
use crate::game::{Introduction, introduce, is_replaced};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Sized(u64),
    /// In chunks, to the last one.
    Chunked,
}

/// Makes the game's request from the client's: nothing of ours in it, nothing of the client's under our names, and framed by us,
/// so that the game cannot read two requests where we read one.
pub(crate) fn for_game(
    client: Parts,
    door: Door,
    target: &Target,
    credentials: &Credentials,
    who: &Introduction<'_>,
    framing: Framing,
) -> Result<Parts, Refusal> {
    let path = PathAndQuery::try_from(target.path_and_query.as_str())
        .map_err(|_| Refusal::Malformed("its path cannot be passed on"))?;
    let mut game = client;
    let mut headers = HeaderMap::with_capacity(game.headers.len() + 8);
    let nominated = nominated(&game.headers);
    for (name, value) in &game.headers {
        if !is_replaced(name) && !nominated.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    entrance::strip(&mut headers, credentials, door);
    introduce(&mut headers, &target.prefix, &game.headers, who);
    match framing {
        Framing::Empty => {
            // A POST without a body says so, if it did.
            if game.headers.contains_key(CONTENT_LENGTH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
        Framing::Sized(bytes) => {
            headers.insert(CONTENT_LENGTH, bytes.into());
        }
        Framing::Chunked => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    game.headers = headers;
    game.uri = Uri::from(path);
    game.version = Version::HTTP_11;
    Ok(game)
}

/// Makes the client's answer from the game's.
pub(crate) fn for_client(game: &mut http::response::Parts, door: Door) {
    let nominated = nominated(&game.headers);
    for name in HOP_BY_HOP.iter().map(|n| HeaderName::from_static(n)) {
        game.headers.remove(name);
    }
    for name in nominated {
        game.headers.remove(name);
    }
    game.version = Version::HTTP_11;
    if matches!(door, Door::Host(_)) {
        guard_cookies(&mut game.headers);
    }
}

/// Headers about one connection.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What `Connection` names besides: about this connection too. What makes a message what it is cannot be taken out that way.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE].contains(name))
        .filter(|name| *name != http::header::COOKIE && *name != http::header::AUTHORIZATION)
        .collect()
}

/// A game's own cookies pass untouched, but for two that are not its own: one under our name, and one for the hosts above it, which
/// browsers would send to every other session.
fn guard_cookies(headers: &mut HeaderMap) {
    let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    if all.iter().all(is_games_own) {
        return;
    }
    headers.remove(SET_COOKIE);
    for value in all.into_iter().filter(is_games_own) {
        headers.append(SET_COOKIE, value);
    }
}

fn is_games_own(value: &HeaderValue) -> bool {
    let mut parts = value.as_bytes().split(|b| *b == b';');
    let named = parts.next().unwrap_or_default();
    let shared = |attribute: &[u8]| {
        let name = attribute.split(|b| *b == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"domain")
    };
    !entrance::is_ours_named(named) && !parts.any(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (k, v) in pairs {
            map.append(*k, v.parse().unwrap());
        }
        map
    }

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn game_gets(
        door: Door,
        uri: &str,
        client: &[(&'static str, &str)],
        framing: Framing,
    ) -> Parts {
        let uri: Uri = uri.parse().unwrap();
        let headers = map(client);
        let target = entrance::target(door, &uri).unwrap();
        let credentials = entrance::credentials(door, &target, None, &headers, false);
        let player = "a".parse().unwrap();
        let who = Introduction {
            session: ID.parse().unwrap(),
            player: &player,
            peer: "10.1.2.3:9".parse().unwrap(),
            secure: false,
        };
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = uri;
        parts.headers = headers;
        for_game(parts, door, &target, &credentials, &who, framing).unwrap()
    }

    fn all(headers: &HeaderMap, name: &str) -> String {
        let all: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect();
        all.join("|")
    }

    #[test]
    fn the_path_is_passed_on_as_it_was_sent() {
        for (sent, got) in [
            ("", "/"),
            ("?x=%2F", "/?x=%2F"),
            ("/../../etc/passwd", "/../../etc/passwd"),
            ("/a%2F..%2Fb//c/./", "/a%2F..%2Fb//c/./"),
            ("//evil.example/x", "//evil.example/x"),
            ("/a?token=t&token=u&x=1", "/a?x=1"),
        ] {
            let p = game_gets(
                Door::Path,
                &format!("/session/{ID}{sent}"),
                &[],
                Framing::Empty,
            );
            assert_eq!(p.uri.to_string(), got);
            assert_eq!(p.headers["x-forwarded-prefix"], format!("/session/{ID}"));
        }
        let host = Door::Host(ID.parse().unwrap());
        let p = game_gets(host, "/session/x?token=t", &[], Framing::Empty);
        assert_eq!(
            p.uri.to_string(),
            "/session/x",
            "the whole path is the game's"
        );
        assert!(!p.headers.contains_key("x-forwarded-prefix"));
    }

    #[test]
    fn what_is_about_one_connection_stays_there_and_the_framing_is_ours() {
        let sent = [
            ("host", "h"),
            (
                "connection",
                "close, X-Own, host, Content-Length, x-player-id",
            ),
            ("x-own", "1"),
            ("x-player-id", "root"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("accept", "*/*"),
        ];
        let p = game_gets(Door::Path, &format!("/ws/{ID}"), &sent, Framing::Sized(5));
        for gone in ["connection", "x-own", "te", "upgrade", "expect"] {
            assert!(!p.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(p.headers["content-length"], "5");
        assert_eq!(p.headers["host"], "h");
        assert_eq!(p.headers["x-player-id"], "a");
        assert_eq!(p.headers["accept"], "*/*");
        let p = game_gets(Door::Path, &format!("/ws/{ID}"), &[], Framing::Chunked);
        assert_eq!(p.headers["transfer-encoding"], "chunked");
    }

    #[test]
    fn our_token_goes_nowhere_and_the_games_own_secrets_stay() {
        let host = Door::Host(ID.parse().unwrap());
        let sent = [
            ("cookie", "a=1; spawnpoint=t; b=\"x;y\""),
            ("cookie", "spawnpoint=u"),
            ("authorization", "Bearer its-own"),
            ("referer", "http://h/x?token=t&y=2"),
        ];
        let p = game_gets(host, "/", &sent, Framing::Empty);
        assert_eq!(all(&p.headers, "cookie"), "a=1; b=\"x; y\"");
        assert_eq!(p.headers["authorization"], "Bearer its-own");
        assert_eq!(p.headers["referer"], "http://h/x?y=2");
        let sent = [
            ("cookie", "spawnpoint=kept"),
            ("authorization", "Bearer v4.public.x"),
            ("referer", "http://h/x?token=t"),
        ];
        let p = game_gets(Door::Path, &format!("/ws/{ID}"), &sent, Framing::Empty);
        assert_eq!(p.headers["cookie"], "spawnpoint=kept", "none of ours there");
        assert!(!p.headers.contains_key("authorization"));
        assert_eq!(p.headers["referer"], "http://h/x");
        let sent = [
            ("referer", "http://h/first"),
            ("referer", "http://h/\u{f6}?a=\u{f6}&%74oken=t&b"),
        ];
        let p = game_gets(Door::Path, &format!("/ws/{ID}"), &sent, Framing::Empty);
        let referers: Vec<&[u8]> = p
            .headers
            .get_all("referer")
            .iter()
            .map(|v| v.as_bytes())
            .collect();
        assert_eq!(
            referers,
            [
                "http://h/first".as_bytes(),
                "http://h/\u{f6}?a=\u{f6}&b".as_bytes()
            ]
        );
    }

    #[test]
    fn a_games_cookies_pass_but_for_those_of_others() {
        let mut answer = http::Response::new(()).into_parts().0;
        answer.headers = map(&[
            ("set-cookie", "a=1; Path=/x"),
            ("set-cookie", "spawnpoint=stolen"),
            ("set-cookie", "__Host-spawnpoint=stolen; Secure"),
            ("set-cookie", "wide=1; domain =example.com"),
            ("set-cookie", "b=2"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "3"),
        ]);
        for_client(&mut answer, Door::Host(ID.parse().unwrap()));
        assert_eq!(all(&answer.headers, "set-cookie"), "a=1; Path=/x|b=2");
        assert!(!answer.headers.contains_key("x-hop"));
        assert_eq!(answer.headers["content-length"], "3");
    }
}
