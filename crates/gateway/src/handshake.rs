//! One request on a path of ours: who is it, may they, where does it lead; and the answer to the handshake.
//!
//! The token is checked before anything is looked up, so that an answer never tells whether a session exists to somebody who has
//! no token for it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{
    CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use spawnpoint_core::Code;
use spawnpoint_wire::access::Peer;
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::TokenClaims;
use tokio::time::timeout;

use crate::access::{self, Offer, PROGRESS, Target, V1};
use crate::connect::{connect, refusal_for};
use crate::decide::{Refusal, Use};
use crate::game::{GameLeg, GameRequest, Introduction, accept_for};
use crate::http_game::entrance::{self, Credentials, Door};
use crate::relay::{Leg, Relay};
use crate::serve::Permit;
use crate::table::Admission;
use crate::{Inner, progress, roster};

type Answer = Response<Full<Bytes>>;

/// What every request of ours is checked for before anybody is asked who they are.
struct Asked {
    door: Door,
    target: Target,
    credentials: Credentials,
    offer: Offer,
    key: Vec<u8>,
    upgrade: OnUpgrade,
    permit: Option<Permit>,
    head: http::request::Parts,
}

/// Answers one request for a WebSocket.
pub(crate) async fn answer(
    inner: Arc<Inner>,
    request: Request<Incoming>,
    peer: SocketAddr,
    door: Door,
) -> Answer {
    let mut outcome = Outcome {
        inner: &inner,
        text: "client_gone",
    };
    let asked = match read(&inner, door, request) {
        Ok(asked) => asked,
        Err(refusal) => return outcome.refused(&refusal),
    };
    let wants_progress = asked.offer.progress;
    let admitted = admit(&inner, &asked, peer).await;
    if wants_progress {
        // Counted by the task that takes over.
        outcome.text = "";
        return with_progress(&inner, asked, admitted, peer);
    }
    let answered = match admitted {
        Ok(admission) => parked(&inner, asked, admission, peer).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(answer) => {
            outcome.text = "ok";
            answer
        }
        Err(refusal) => outcome.refused(&refusal),
    }
}

/// Counts how a handshake ended, also when the client goes away in the middle and the future is just dropped.
struct Outcome<'a> {
    inner: &'a Inner,
    text: &'static str,
}

impl Outcome<'_> {
    fn refused(&mut self, refusal: &Refusal) -> Answer {
        self.text = refusal.code().as_str();
        problem(refusal)
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.inner.table.counters.handshake(self.text);
        }
    }
}

/// Checks the form of the request.
fn read(inner: &Inner, door: Door, mut request: Request<Incoming>) -> Result<Asked, Refusal> {
    let headers = request.headers();
    entrance::check_origin(door, request.method(), true, headers, &inner.config)?;
    entrance::check_form(headers, request.uri(), request.method())?;
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err(Refusal::Handshake("Sec-WebSocket-Version must be 13"));
    }
    let key = match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) if key.len() == 24 => key.as_bytes().to_vec(),
        _ => {
            return Err(Refusal::Handshake(
                "Sec-WebSocket-Key must be 16 bytes in base64",
            ));
        }
    };
    if !request.body().is_end_stream() {
        return Err(Refusal::Handshake("it must have no body"));
    }
    let target = entrance::target(door, request.uri()).ok_or(Refusal::Path)?;
    let offer = access::offer(headers);
    let secure = inner.config.secure;
    let offered = offer.token.as_deref();
    let credentials = entrance::credentials(door, &target, offered, headers, secure);
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut head, _) = request.into_parts();
    head.extensions.remove::<Peer>();
    let permit = head.extensions.remove::<Permit>();
    Ok(Asked {
        door,
        target,
        credentials,
        offer,
        key,
        upgrade,
        permit,
        head,
    })
}

async fn admit(inner: &Arc<Inner>, asked: &Asked, peer: SocketAddr) -> Result<Admission, Refusal> {
    let counts = entrance::cookie_counts(&asked.head.headers, inner.config.secure);
    let granted = authorise(inner, &asked.target.name, &asked.credentials, counts)?;
    let (claims, address) = (granted.claims, peer.ip().to_canonical());
    admit_player(inner, &claims, address, asked.permit.clone(), Use::Tunnel).await
}

/// A token that is good for the session that was asked for.
pub(crate) struct Granted {
    pub(crate) claims: TokenClaims,
    /// Which of the credentials it was.
    pub(crate) which: usize,
}

/// Finds the first credential that opens this session. `cookies`: whether those may speak here.
pub(crate) fn authorise(
    inner: &Inner,
    name: &str,
    credentials: &Credentials,
    cookies: bool,
) -> Result<Granted, Refusal> {
    let now = inner.clock.wall(inner.clock.now()).div_euclid(1000);
    let keyring = inner.keyring.load();
    let silent = if cookies { 0 } else { credentials.cookies };
    let spoken = credentials.tokens.len().saturating_sub(silent);
    let mut refusal = match (spoken, silent) {
        (0, 1..) => Refusal::ForeignPage,
        _ => Refusal::NoToken,
    };
    for (which, token) in credentials.tokens.iter().take(spoken).enumerate() {
        let said = match keyring.verify(token, now) {
            Ok(claims) if access::session_of(name, &claims).is_some() => {
                return Ok(Granted { claims, which });
            }
            Ok(_) => Refusal::OtherSession,
            Err(e) => Refusal::BadToken(e),
        };
        if refusal == Refusal::NoToken {
            refusal = said;
        }
    }
    Err(refusal)
}

/// Gives the player of a token a place in its session.
pub(crate) async fn admit_player(
    inner: &Inner,
    claims: &TokenClaims,
    address: std::net::IpAddr,
    permit: Option<Permit>,
    wanted: Use,
) -> Result<Admission, Refusal> {
    let route = inner.table.find(&*inner.link, claims.sid).await?;
    roster::check(inner, &route, &claims.sub).await?;
    inner
        .table
        .admit(claims.sid, &claims.sub, address, permit, wanted)
}

fn game_request(
    inner: &Inner,
    asked: &mut Asked,
    admission: &Admission,
    peer: SocketAddr,
) -> GameRequest {
    let who = Introduction {
        session: admission.tunnel().session,
        player: &admission.tunnel().player,
        peer,
        secure: inner.config.secure,
    };
    entrance::strip(&mut asked.head.headers, &asked.credentials, asked.door);
    GameRequest::new(
        &asked.target,
        &asked.head.headers,
        std::mem::take(&mut asked.head.extensions),
        &asked.offer,
        &who,
        asked.offer.progress,
    )
}

/// Waits for the game before answering. The client cannot be told anything meanwhile, so not for long.
async fn parked(
    inner: &Arc<Inner>,
    mut asked: Asked,
    admission: Admission,
    peer: SocketAddr,
) -> Result<Answer, Refusal> {
    let request = game_request(inner, &mut asked, &admission, peer);
    let tunnel = admission.shared_tunnel();
    let counted = inner.table.counters.parked.count();
    let ordered = poll_fn(|cx| tunnel.poll_order(cx));
    let connected = pin!(timeout(
        inner.config.park,
        connect(admission, &request, &inner.config)
    ));
    let (admission, leg, _) = match select(pin!(ordered), connected).await {
        Either::Left((close, _)) => return Err(refusal_for(close)),
        Either::Right((connected, _)) => connected.map_err(|_| Refusal::StillStarting)??,
    };
    drop(counted);
    let GameLeg {
        stream,
        early,
        headers,
        extensions,
    } = leg;
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.extensions_mut() = extensions;
    let extended = headers.contains_key(SEC_WEBSOCKET_EXTENSIONS);
    *answer.headers_mut() = answer_headers(headers, &request.subprotocols, asked.offer.v1);
    let upgrade = asked.upgrade;
    inner.tracker.clone().spawn(relay(
        inner.clone(),
        upgrade,
        Leg { stream, early },
        extended,
        admission,
    ));
    Ok(answer)
}

/// Starts the relay as a task of its own, so that what the handshake needed is gone when the tunnel goes quiet.
async fn relay(
    inner: Arc<Inner>,
    upgrade: OnUpgrade,
    game: Leg,
    extended: bool,
    admission: Admission,
) {
    if let Some(client) = progress::take_over(upgrade).await {
        inner
            .tracker
            .spawn(Relay::new(client, game, extended, admission));
    }
}

/// The game's answer as the client gets it.
fn answer_headers(mut game: HeaderMap, forwarded: &[String], v1: bool) -> HeaderMap {
    let chosen = game.remove(SEC_WEBSOCKET_PROTOCOL);
    for name in [
        "connection",
        "upgrade",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "trailer",
        "proxy-connection",
    ] {
        game.remove(name);
    }
    game.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    game.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let known = chosen.filter(|c| forwarded.iter().any(|f| f.as_bytes() == c.as_bytes()));
    if let Some(chosen) = known.or_else(|| v1.then(|| HeaderValue::from_static(V1))) {
        game.insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    game
}

/// Answers 101 at once; everything else, refusals too, the client hears on the connection: a page cannot read the status of a
/// refused handshake, but it can read a close code.
fn with_progress(
    inner: &Arc<Inner>,
    mut asked: Asked,
    admitted: Result<Admission, Refusal>,
    peer: SocketAddr,
) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROGRESS));
    if let Ok(accept) = HeaderValue::from_str(&accept_for(&asked.key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    match admitted {
        Ok(admission) => {
            let request = game_request(inner, &mut asked, &admission, peer);
            let task = progress::run(inner.clone(), asked.upgrade, admission, request);
            inner.tracker.spawn(task);
        }
        Err(refusal) => {
            inner.table.counters.handshake(refusal.code().as_str());
            let task =
                progress::refuse(inner.clone(), asked.upgrade, asked.permit, refusal.close());
            inner.tracker.spawn(task);
        }
    }
    answer
}

/// A refusal as a problem document.
pub(crate) fn problem(refusal: &Refusal) -> Answer {
    let code = refusal.code();
    let document = Problem::new(code, refusal.to_string());
    let mut answer = problem_answer(&document);
    let headers = answer.headers_mut();
    match refusal {
        Refusal::UpgradeRequired => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        Refusal::Handshake(_) => {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        Refusal::Method => {
            headers.insert(http::header::ALLOW, HeaderValue::from_static("GET"));
        }
        Refusal::NoToken | Refusal::BadToken(_) => {
            headers.insert(
                http::header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            );
        }
        _ => {}
    }
    answer
}

/// The answer for a problem.
fn problem_answer(document: &Problem) -> Answer {
    // A document of strings and numbers always serialises.
    let body = serde_json::to_vec(document).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() =
        StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(
        http::header::CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    );
    if let Some(seconds) = document.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// The whole HTTP answer, for a socket that no request is read from.
pub(crate) fn bare_problem(code: Code, detail: &str) -> Vec<u8> {
    let document = Problem::new(code, detail);
    let body = serde_json::to_string(&document).unwrap_or_default();
    let retry = document
        .retry_after
        .map(|s| format!("retry-after: {s}\r\n"))
        .unwrap_or_default();
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_games_choice_stands_if_it_was_offered_else_ours_if_it_was() {
        let choose = |game: Option<&'static str>, forwarded: &[&str], v1: bool| {
            let mut headers = HeaderMap::new();
            if let Some(game) = game {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(game));
            }
            let forwarded: Vec<String> = forwarded.iter().map(|s| (*s).to_owned()).collect();
            let answer = answer_headers(headers, &forwarded, v1);
            answer
                .get(SEC_WEBSOCKET_PROTOCOL)
                .map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(
            choose(Some("chat"), &["chat", "x"], true).as_deref(),
            Some("chat")
        );
        assert_eq!(choose(None, &["chat"], true).as_deref(), Some(V1));
        assert_eq!(
            choose(Some("made-up"), &["chat"], true).as_deref(),
            Some(V1)
        );
        assert_eq!(choose(Some("made-up"), &[], false), None);
        assert_eq!(choose(None, &[], false), None);
    }

    #[test]
    fn a_bare_problem_is_a_whole_answer() {
        let text = String::from_utf8(bare_problem(Code::TooManyConnections, "too many")).unwrap();
        assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"));
        assert!(
            text.contains("\r\nretry-after: 5\r\n")
                && text.contains("\"code\":\"too_many_connections\"")
        );
    }
}
