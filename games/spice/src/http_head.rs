//! The first bytes of a connection: is this a WebSocket handshake, a probe, or neither?
//!
//! Parsing is `httparse`'s; nothing here reads a socket.

use percent_encoding::percent_decode_str;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A request head longer than this is nobody's honest browser.
pub(crate) const MAX_HEAD: usize = 8192;
const MAX_HEADERS: usize = 64;
/// As everywhere in the platform.
const MAX_PLAYER_ID_CHARS: usize = 256;
/// What Spawnpoint's browser client offers when it dials a game server directly; a browser whose
/// offers are all refused closes the socket, so it is accepted by name.
const PLAIN_SUBPROTOCOL: &str = "spawnpoint.v1";

/// What the head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not all there yet.
    Partial,
    /// Answer this text and close.
    Answer(String),
    Upgrade(Upgrade),
}

/// A valid WebSocket handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The 101 to write.
    pub(crate) response: String,
    /// Bytes of the head; what follows them is already WebSocket.
    pub(crate) length: usize,
    /// From `X-Player-Id`, else from `?player=`.
    pub(crate) player_id: Option<String>,
    pub(crate) session_id: Option<String>,
}

pub(crate) fn parse(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Head::Partial,
        Ok(httparse::Status::Partial) => {
            return answer(
                431,
                "Request Header Fields Too Large",
                "the request head is too long",
            );
        }
        Err(_) => return answer(400, "Bad Request", "this is a WebSocket game server"),
    };
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    };
    let method = request.method.unwrap_or("");
    let lists = |name: &str, wanted: &str| {
        header(name).is_some_and(|value| {
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(wanted))
        })
    };
    if !lists("Upgrade", "websocket") {
        return match method {
            "GET" => answer(200, "OK", "spice"),
            "HEAD" => Head::Answer(with_body(200, "OK", "", 6)),
            _ => answer(405, "Method Not Allowed", "GET, or a WebSocket handshake"),
        };
    }
    let key = header("Sec-WebSocket-Key").filter(|key| key.len() == 24);
    let (Some(key), "GET", Some("13"), true) = (
        key,
        method,
        header("Sec-WebSocket-Version"),
        lists("Connection", "upgrade"),
    ) else {
        return answer(400, "Bad Request", "not a WebSocket version 13 handshake");
    };
    let given = header("X-Player-Id").or_else(|| query(request.path.unwrap_or(""), "player"));
    let player_id = match given.map(decode_player_id) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => {
            return answer(
                400,
                "Bad Request",
                "X-Player-Id is 1 to 256 characters, none of them a control character",
            );
        }
    };
    let protocol = if lists("Sec-WebSocket-Protocol", PLAIN_SUBPROTOCOL) {
        format!("Sec-WebSocket-Protocol: {PLAIN_SUBPROTOCOL}\r\n")
    } else {
        String::new()
    };
    let accept = derive_accept_key(key.as_bytes());
    Head::Upgrade(Upgrade {
        response: format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        ),
        length,
        player_id,
        session_id: header("X-Session-Id")
            .filter(|id| !id.is_empty())
            .map(str::to_owned),
    })
}

fn decode_player_id(raw: &str) -> Option<String> {
    let id = percent_decode_str(raw).decode_utf8().ok()?;
    let length = id.chars().count();
    // As everywhere in the platform: control characters make logs and terminals lie.
    let plain = !id.chars().any(char::is_control);
    ((1..=MAX_PLAYER_ID_CHARS).contains(&length) && plain).then(|| id.into_owned())
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}

fn answer(status: u16, reason: &str, body: &str) -> Head {
    let body = format!("{body}\n");
    let length = body.len();
    Head::Answer(with_body(status, reason, &body, length))
}

fn with_body(status: u16, reason: &str, body: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(extra: &str) -> String {
        format!(
            "GET /a?player=bob%20b&x=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        )
    }

    fn upgrade(text: &str) -> Upgrade {
        match parse(text.as_bytes()) {
            Head::Upgrade(upgrade) => upgrade,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_accept_key_is_the_one_of_rfc_6455() {
        let text = handshake("");
        let upgrade = upgrade(&text);
        assert!(upgrade.response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(upgrade.length, text.len());
        assert!(!upgrade.response.contains("Protocol:"));
    }

    #[test]
    fn the_header_outranks_the_query_and_is_decoded() {
        assert_eq!(upgrade(&handshake("")).player_id.as_deref(), Some("bob b"));
        let named = upgrade(&handshake(
            "x-player-id: %F0%9F%A6%80%2F..\r\nX-Session-Id: s1\r\n",
        ));
        assert_eq!(named.player_id.as_deref(), Some("🦀/.."));
        assert_eq!(named.session_id.as_deref(), Some("s1"));
    }

    #[test]
    fn impossible_player_ids_are_refused() {
        for bad in ["", "%FF%FE", "%1B[31m", &"a".repeat(257)] {
            let text = handshake(&format!("X-Player-Id: {bad}\r\n"));
            let Head::Answer(answer) = parse(text.as_bytes()) else {
                panic!("{bad}")
            };
            assert!(answer.starts_with("HTTP/1.1 400"));
        }
    }

    #[test]
    fn the_plain_subprotocol_is_chosen_when_offered() {
        let offered = "Sec-WebSocket-Protocol: spawnpoint.progress, spawnpoint.v1\r\n";
        assert!(
            upgrade(&handshake(offered))
                .response
                .contains("Protocol: spawnpoint.v1\r\n")
        );
    }

    #[test]
    fn probes_and_strangers_get_an_answer() {
        let first = |text: &str| match parse(text.as_bytes()) {
            Head::Answer(answer) => answer,
            other => panic!("{other:?}"),
        };
        let ok = first("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(ok.starts_with("HTTP/1.1 200") && ok.ends_with("\r\n\r\nspice\n"));
        assert!(first("POST / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(first("\u{1}\u{2}nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        assert!(first(&long).starts_with("HTTP/1.1 431"));
        assert_eq!(parse(b"GET / HT"), Head::Partial);
    }
}
