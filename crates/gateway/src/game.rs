//! The leg to the game: what it is asked, connecting, and the handshake.

use std::io;
use std::net::SocketAddr;

use base64::Engine as _;
use http::header::{
    CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::{Digest as _, Sha1};
use spawnpoint_core::{PlayerId, SessionId};
use spawnpoint_wire::link::Route;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::access::{Offer, Target};
use crate::config::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, MAX_HEAD};
use crate::connect::Dial;
use crate::decide::Use;
use crate::half::CHUNK;
use crate::head::{self, GameAnswer, NotHttp};
use crate::serve::quicken;

/// Escapes like `encodeURIComponent`, so that every language can read a player id back.
const ID: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// Appended to the key before hashing (RFC 6455, section 4.2.2).
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the game is asked: the whole head, ready to be sent, because a connection may wait long for its game.
#[derive(Clone, Debug)]
pub(crate) struct GameRequest {
    head: Box<[u8]>,
    /// Ours, where the client has been answered already: then nobody else would check the game's answer.
    own_key: Option<String>,
    /// Forwarded; the game may choose among them.
    pub(crate) subprotocols: Vec<String>,
}

/// Who connects, as the game is told.
pub(crate) struct Introduction<'a> {
    pub(crate) session: SessionId,
    pub(crate) player: &'a PlayerId,
    pub(crate) peer: SocketAddr,
    pub(crate) secure: bool,
}

/// A connected game.
pub(crate) struct GameLeg {
    pub(crate) stream: TcpStream,
    /// Bytes that followed the handshake at once.
    pub(crate) early: Vec<u8>,
    pub(crate) answer: GameAnswer,
}

/// Why a game could not be connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nothing accepts there, or it went away before answering: worth another try.
    #[error("not reachable")]
    Unreachable,
    /// It answered, and not with a WebSocket.
    #[error("{0}")]
    Refused(String),
}

impl GameRequest {
    /// Makes the game's request from the client's: nothing of ours in it, nothing of the client's under our names. `progress`: the
    /// client has its answer already, so the game's handshake is our own, and no extension may be agreed on.
    pub(crate) fn new(
        target: &Target,
        client: &HeaderMap,
        offer: &Offer,
        who: &Introduction<'_>,
        progress: bool,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(client.len() + 8);
        for (name, value) in client {
            if !is_replaced(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if !offer.game.is_empty() {
            put(&mut headers, SEC_WEBSOCKET_PROTOCOL, &offer.game.join(", "));
        }
        let own_key = progress.then(new_key);
        match &own_key {
            Some(key) => put(&mut headers, SEC_WEBSOCKET_KEY, key),
            None => {
                copy(client, &mut headers, SEC_WEBSOCKET_KEY);
                copy(client, &mut headers, SEC_WEBSOCKET_EXTENSIONS);
            }
        }
        introduce(&mut headers, &target.prefix, client, who);
        let mut head = Vec::with_capacity(1024);
        head.extend_from_slice(b"GET ");
        head.extend_from_slice(target.path_and_query.as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        head::lines(&mut head, &headers);
        head.extend_from_slice(b"\r\n");
        Self {
            head: head.into_boxed_slice(),
            own_key,
            subprotocols: offer.game.clone(),
        }
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> Result<GameLeg, DialError> {
        let unreachable = |_| DialError::Unreachable;
        stream.write_all(&self.head).await.map_err(unreachable)?;
        let mut bytes = Vec::new();
        loop {
            if receive(&stream, &mut bytes).await.map_err(unreachable)? == 0 {
                return Err(DialError::Unreachable);
            }
            while let Some((answer, length)) = head::game_answer(&bytes)
                .map_err(|NotHttp| DialError::Refused("its answer is not HTTP".into()))?
            {
                bytes.drain(..length);
                // Only 101 is an answer among those; others say that one is on its way.
                if answer.status == 101 || !(100..200).contains(&answer.status) {
                    self.check(&answer)?;
                    bytes.shrink_to_fit();
                    return Ok(GameLeg {
                        stream,
                        early: bytes,
                        answer,
                    });
                }
            }
            if bytes.len() > MAX_HEAD {
                return Err(DialError::Refused(
                    "the head of its answer is too large".into(),
                ));
            }
        }
    }

    fn check(&self, answer: &GameAnswer) -> Result<(), DialError> {
        if answer.status != 101 {
            return Err(DialError::Refused(format!("it answered {}", answer.status)));
        }
        if !answer.websocket {
            return Err(DialError::Refused("it upgrades to something else".into()));
        }
        let expected = self.own_key.as_deref().map(|k| accept_for(k.as_bytes()));
        if let Some(expected) = expected
            && answer.accept.as_deref() != Some(expected.as_bytes())
        {
            return Err(DialError::Refused(
                "its Sec-WebSocket-Accept is wrong".into(),
            ));
        }
        Ok(())
    }
}

/// Appends what has come to `bytes`; how much that was, nothing at the end of the stream.
async fn receive(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let received: io::Result<usize> = CHUNK.with_borrow_mut(|chunk| {
            let n = stream.try_read(chunk)?;
            bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
            Ok(n)
        });
        match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

impl Dial for GameRequest {
    const USE: Use = Use::Tunnel;
    type Leg = GameLeg;

    /// Connects and shakes hands.
    async fn dial(&self, _: &Route, address: SocketAddr) -> Result<GameLeg, DialError> {
        let stream = open(address).await?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(stream))
            .await
            .map_err(|_| DialError::Unreachable)?
    }
}

/// A fresh socket to a game.
pub(crate) async fn open(address: SocketAddr) -> Result<TcpStream, DialError> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::Unreachable)?
        .map_err(|_| DialError::Unreachable)?;
    quicken(&stream);
    Ok(stream)
}

/// `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept_for(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SALT);
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

/// A random handshake key. It protects from caches that answer by heart, not from people: without randomness zeros do.
fn new_key() -> String {
    let mut bytes = [0u8; 16];
    let _ = getrandom::fill(&mut bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Headers that belong to one connection, to the handshake, or to us.
pub(crate) fn is_replaced(name: &HeaderName) -> bool {
    // Some frameworks read `X_Player_Id` as `X-Player-Id`: both spellings are ours.
    let n = name.as_str().replace('_', "-");
    n.starts_with("sec-websocket-")
        || n.starts_with("x-forwarded-")
        || matches!(
            n.as_str(),
            "connection"
                | "upgrade"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "content-length"
                | "expect"
                | "proxy-connection"
                | "proxy-authorization"
                | "forwarded"
                | "x-real-ip"
                | "x-session-id"
                | "x-player-id"
        )
}

/// Tells the game who comes, from where, and under which URL. `prefix` is empty where the game has a host name of its own.
pub(crate) fn introduce(
    headers: &mut HeaderMap,
    prefix: &str,
    client: &HeaderMap,
    who: &Introduction<'_>,
) {
    put(
        headers,
        HeaderName::from_static("x-session-id"),
        &who.session.to_string(),
    );
    let player = utf8_percent_encode(who.player.as_str(), ID).to_string();
    put(headers, HeaderName::from_static("x-player-id"), &player);
    let address = who.peer.ip().to_canonical().to_string();
    put(
        headers,
        HeaderName::from_static("x-forwarded-for"),
        &address,
    );
    let proto = if who.secure { "https" } else { "http" };
    put(headers, HeaderName::from_static("x-forwarded-proto"), proto);
    if !prefix.is_empty() {
        put(
            headers,
            HeaderName::from_static("x-forwarded-prefix"),
            prefix,
        );
    }
    if let Some(host) = client.get(HOST) {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host.clone());
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // All of these are ids, numbers, or came in a request head themselves.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: HeaderName) {
    for value in from.get_all(&name) {
        to.append(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_standards_example() {
        assert_eq!(
            accept_for(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn request(client: &[(&'static str, &str)], progress: bool) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (k, v) in client {
            map.append(*k, v.parse().unwrap());
        }
        let target = crate::access::target(&"/ws/p%201/a?token=t&x=1".parse().unwrap()).unwrap();
        let player: PlayerId = "p 1/\u{1f9c2}".parse().unwrap();
        let who = Introduction {
            session: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            player: &player,
            peer: "[::ffff:10.1.2.3]:99".parse().unwrap(),
            secure: true,
        };
        let offer = crate::access::offer(&map);
        let made = GameRequest::new(&target, &map, &offer, &who, progress);
        let text = std::str::from_utf8(&made.head).unwrap();
        let (first, rest) = text.split_once("\r\n").unwrap();
        assert_eq!(first, "GET /a?x=1 HTTP/1.1");
        let lines = rest.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|l| l.split_once(": ").unwrap()) {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_game_learns_who_comes_and_nothing_that_is_ours() {
        let headers = request(
            &[
                ("host", "games.example.com"),
                ("x-player-id", "root"),
                ("x_player_id", "root"),
                ("x-session-id", "other"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-forwarded-anything", "x"),
                ("cookie", "a=b"),
                ("connection", "keep-alive, Upgrade"),
                ("sec-websocket-key", "k"),
                ("sec-websocket-extensions", "permessage-deflate"),
                (
                    "sec-websocket-protocol",
                    "spawnpoint.v1, chat, spawnpoint.token.x",
                ),
            ],
            false,
        );
        let get = |n: &str| {
            let all: Vec<_> = headers
                .get_all(n)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect();
            all.join("|")
        };
        assert_eq!(get("host"), "games.example.com");
        assert_eq!(get("x-forwarded-host"), "games.example.com");
        assert_eq!(get("x-forwarded-for"), "10.1.2.3");
        assert_eq!(get("x-forwarded-proto"), "https");
        assert_eq!(get("x-forwarded-prefix"), "/ws/p%201");
        assert_eq!(get("x-forwarded-anything"), "");
        assert_eq!(get("x-session-id"), "01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(get("x-player-id"), "p%201%2F%F0%9F%A7%82");
        assert_eq!(get("x_player_id"), "");
        assert_eq!(get("cookie"), "a=b");
        assert_eq!(get("connection"), "Upgrade");
        assert_eq!(get("sec-websocket-key"), "k");
        assert_eq!(get("sec-websocket-extensions"), "permessage-deflate");
        assert_eq!(get("sec-websocket-protocol"), "chat");
    }

    #[test]
    fn with_progress_the_games_handshake_is_our_own() {
        let headers = request(
            &[
                ("authorization", "Basic eA=="),
                ("sec-websocket-key", "k"),
                ("sec-websocket-extensions", "permessage-deflate"),
                (
                    "sec-websocket-protocol",
                    "spawnpoint.progress, spawnpoint.v1",
                ),
            ],
            true,
        );
        assert_ne!(headers["sec-websocket-key"], "k");
        assert!(headers.get("sec-websocket-extensions").is_none());
        assert!(headers.get("sec-websocket-protocol").is_none());
        assert_eq!(headers["authorization"], "Basic eA==", "the game's own");
    }
}
