//! Heads of HTTP messages that this gateway writes and reads itself, around a WebSocket's handshake. Pure.
//!
//! Reading is httparse's; what may enter here is which spelling a name has on the wire, and what of a game's answer goes on to its
//! client.

use http::header::{HeaderName, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Response};

/// Names with letters that the rule of a capital after each hyphen does not know.
const SPELLINGS: [(&str, &str); 9] = [
    ("sec-websocket-key", "Sec-WebSocket-Key"),
    ("sec-websocket-version", "Sec-WebSocket-Version"),
    ("sec-websocket-protocol", "Sec-WebSocket-Protocol"),
    ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
    ("sec-websocket-accept", "Sec-WebSocket-Accept"),
    ("www-authenticate", "WWW-Authenticate"),
    ("dnt", "DNT"),
    ("te", "TE"),
    ("etag", "ETag"),
];
/// Header lines of a game's answer that are read; what it says in more is no handshake.
const MAX_LINES: usize = 100;
/// Belong to one connection or to the handshake itself, which the client's answer has lines of its own for.
const NOT_PASSED_ON: [&str; 8] = [
    "connection",
    "upgrade",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "trailer",
    "proxy-connection",
    "sec-websocket-protocol",
];

/// Appends `name: value` with its end.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends header lines with the usual spelling of their names: servers of twenty lines compare them letter by letter.
pub(crate) fn lines(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        spell(out, name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn spell(out: &mut Vec<u8>, name: &HeaderName) {
    let name = name.as_str();
    if let Some((_, spelling)) = SPELLINGS.iter().find(|(n, _)| *n == name) {
        out.extend_from_slice(spelling.as_bytes());
        return;
    }
    let mut first = true;
    for byte in name.bytes() {
        out.push(if first {
            byte.to_ascii_uppercase()
        } else {
            byte
        });
        first = byte == b'-';
    }
}

/// A whole answer as it goes over the wire, the last one of its connection.
pub(crate) fn last_answer(answer: &Response<impl AsRef<[u8]>>) -> Vec<u8> {
    let (status, body) = (answer.status(), answer.body().as_ref());
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    lines(&mut out, answer.headers());
    if !answer.headers().contains_key(http::header::CONNECTION) {
        line(&mut out, b"Connection", b"close");
    }
    line(
        &mut out,
        b"Content-Length",
        body.len().to_string().as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// What a game answers to a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GameAnswer {
    pub(crate) status: u16,
    /// It upgrades to WebSocket.
    pub(crate) websocket: bool,
    pub(crate) accept: Option<Vec<u8>>,
    /// It agreed to some extension.
    pub(crate) extended: bool,
    /// Which subprotocol it chose.
    pub(crate) subprotocol: Option<Vec<u8>>,
    /// The lines that go on to the client, spelled as the game does.
    lines: Vec<u8>,
}

/// It is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotHttp;

/// Reads the head of an answer and its length; `None`: there is more to come.
pub(crate) fn game_answer(bytes: &[u8]) -> Result<Option<(GameAnswer, usize)>, NotHttp> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NotHttp),
    };
    let mut answer = GameAnswer {
        status: response.code.unwrap_or(0),
        ..GameAnswer::default()
    };
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("upgrade") {
            answer.websocket = header.value.eq_ignore_ascii_case(b"websocket");
        } else if is("sec-websocket-accept") {
            answer.accept = Some(header.value.to_vec());
        } else if is("sec-websocket-extensions") {
            answer.extended = true;
        } else if is(SEC_WEBSOCKET_PROTOCOL.as_str()) {
            answer.subprotocol = Some(header.value.to_vec());
        }
        if !NOT_PASSED_ON.iter().any(|n| is(n)) {
            line(&mut answer.lines, header.name.as_bytes(), header.value);
        }
    }
    Ok(Some((answer, length)))
}

impl GameAnswer {
    /// The answer as the client gets it. The game's choice of a subprotocol stands if it was offered (`forwarded`); else `ours` is
    /// chosen, because a browser that offered some fails if none is.
    pub(crate) fn for_client(&self, forwarded: &[String], ours: Option<&str>) -> Vec<u8> {
        let chosen = self.subprotocol.as_deref();
        let chosen = chosen.filter(|c| forwarded.iter().any(|f| f.as_bytes() == *c));
        switching(chosen.or(ours.map(str::as_bytes)), &self.lines)
    }
}

/// The answer to a client whose game is not asked yet.
pub(crate) fn greeting(accept: &str, subprotocol: &str) -> Vec<u8> {
    let mut lines = Vec::with_capacity(64);
    line(&mut lines, b"Sec-WebSocket-Accept", accept.as_bytes());
    switching(Some(subprotocol.as_bytes()), &lines)
}

fn switching(subprotocol: Option<&[u8]>, lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(192 + lines.len());
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    );
    if let Some(subprotocol) = subprotocol {
        line(&mut out, b"Sec-WebSocket-Protocol", subprotocol);
    }
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nUPGRADE: WebSocket\r\nX-mixedCase: 1\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nContent-Length: 0\r\n\r\n\x01\x02hi";

    #[test]
    fn names_are_spelled_as_everybody_spells_them() {
        let mut headers = HeaderMap::new();
        for name in ["host", "sec-websocket-key", "x-player-id", "etag", "a--b"] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        let mut out = Vec::new();
        lines(&mut out, &headers);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "Host: v\r\nSec-WebSocket-Key: v\r\nX-Player-Id: v\r\nETag: v\r\nA--B: v\r\n"
        );
    }

    #[test]
    fn an_answer_is_read_wherever_it_is_cut() {
        let whole = ANSWER.as_bytes();
        let length = whole.len() - 4;
        for cut in 0..length {
            assert_eq!(game_answer(&whole[..cut]), Ok(None), "{cut}");
        }
        let (answer, read) = game_answer(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.websocket, read), (101, true, length));
        assert!(!answer.extended);
        assert_eq!(game_answer(b"SSH-2.0-x\r\n"), Err(NotHttp));
    }

    #[test]
    fn the_client_gets_the_games_lines_as_the_game_spells_them() {
        let (answer, _) = game_answer(ANSWER.as_bytes()).unwrap().unwrap();
        let text = String::from_utf8(answer.for_client(&["chat".into()], None)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n\
             X-mixedCase: 1\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn the_games_choice_stands_if_it_was_offered_else_ours_if_it_was() {
        let choose = |game: Option<&str>, forwarded: &[&str], ours: Option<&str>| {
            let answer = GameAnswer {
                subprotocol: game.map(|g| g.as_bytes().to_vec()),
                ..GameAnswer::default()
            };
            let forwarded: Vec<String> = forwarded.iter().map(|s| (*s).to_owned()).collect();
            let text = String::from_utf8(answer.for_client(&forwarded, ours)).unwrap();
            let chosen = text
                .lines()
                .find_map(|l| l.strip_prefix("Sec-WebSocket-Protocol: "));
            chosen.map(ToOwned::to_owned)
        };
        let v1 = Some("spawnpoint.v1");
        assert_eq!(
            choose(Some("chat"), &["chat", "x"], v1).as_deref(),
            Some("chat")
        );
        assert_eq!(choose(None, &["chat"], v1).as_deref(), v1);
        assert_eq!(choose(Some("made-up"), &["chat"], v1).as_deref(), v1);
        assert_eq!(choose(Some("made-up"), &[], None), None);
        assert_eq!(choose(None, &[], None), None);
    }

    #[test]
    fn a_last_answer_is_whole_and_says_that_it_is_the_last() {
        let mut answer = Response::new(b"{}".to_vec());
        *answer.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        answer
            .headers_mut()
            .insert("retry-after", HeaderValue::from_static("5"));
        let text = String::from_utf8(last_answer(&answer)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        );
    }
}
