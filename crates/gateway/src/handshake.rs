//! One WebSocket handshake on a path of ours: who is it, may they, where does it lead; and its answer.
//!
//! hyper reads the request; then its connection is taken apart and only the bare socket and what the game will be asked are kept,
//! because a connection may wait long for its game. The token is checked before anything is looked up, so that an answer never tells
//! whether a session exists to somebody who has no token for it.

use std::future::{Future as _, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use socket2::SockRef;
use spawnpoint_core::Code;
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::TokenClaims;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::access::{self, Offer, PROGRESS, Target, V1};
use crate::config::{REFUSED_DISCARD, WATCH_PERIOD};
use crate::connect::{connect, refusal_for};
use crate::decide::{Refusal, Use};
use crate::game::{GameLeg, GameRequest, Introduction, accept_for};
use crate::head::{greeting, last_answer};
use crate::http_game::entrance::{self, Credentials, Door};
use crate::relay::{Ended, Leg, Relay, ended};
use crate::say::{last_words, say};
use crate::serve::Permit;
use crate::table::Admission;
use crate::{Inner, progress, roster};

type Answer = Response<Full<Bytes>>;

/// What every request of ours is checked for before anybody is asked who they are.
pub(crate) struct Asked {
    door: Door,
    target: Target,
    credentials: Credentials,
    offer: Offer,
    key: Vec<u8>,
    headers: HeaderMap,
    permit: Permit,
}

/// Checks the form of a request for a WebSocket. On refusal the answer, counted.
pub(crate) fn read(
    inner: &Inner,
    request: Request<Incoming>,
    door: Door,
    permit: Permit,
) -> Result<Asked, Answer> {
    check(inner, request, door, permit).map_err(|refusal| {
        inner.table.counters.handshake(refusal.code().as_str());
        problem(&refusal)
    })
}

/// A client whose request was read, and the socket that it came by. Boxed on its way: thousands may wait.
pub(crate) struct Visit {
    pub(crate) inner: Arc<Inner>,
    pub(crate) client: Leg,
    pub(crate) peer: SocketAddr,
    pub(crate) asked: Asked,
}

/// Goes on with a client, to the relay or to a refusal.
pub(crate) async fn welcome(visit: Box<Visit>) {
    let admitted = Box::pin(admit(&visit.inner, &visit.asked, visit.peer)).await;
    if visit.asked.offer.progress {
        let inner = visit.inner.clone();
        inner.tracker.spawn(tell_progress(visit, admitted));
        return;
    }
    match admitted {
        Ok(admission) => {
            let parked = Box::new(Parked::new(visit, &admission));
            wait(parked, admission).await;
        }
        Err(refusal) => {
            let inner = &visit.inner;
            inner.table.counters.handshake(refusal.code().as_str());
            let client = visit.client;
            Box::pin(turn_away(client.stream, &refusal)).await;
        }
    }
}

/// A client that waits for its game without a word: it cannot be told anything before its handshake is answered.
struct Parked {
    inner: Arc<Inner>,
    client: Leg,
    request: GameRequest,
    v1: bool,
}

impl Parked {
    fn new(visit: Box<Visit>, admission: &Admission) -> Self {
        let Visit {
            inner,
            client,
            peer,
            asked,
        } = *visit;
        let v1 = asked.offer.v1;
        Self {
            request: game_request(&inner, asked, admission, peer),
            inner,
            client,
            v1,
        }
    }

    /// Answers the handshake and starts the relay.
    async fn go(mut self: Box<Self>, admission: Admission, game: GameLeg) -> &'static str {
        let ours = self.v1.then_some(V1);
        let answer = game.answer.for_client(&self.request.subprotocols, ours);
        if !say(&mut self.client.stream, &answer).await {
            return "client_gone";
        }
        let extended = game.answer.extended;
        let game = Leg {
            stream: game.stream,
            early: game.early,
        };
        // A task of its own, so that what the handshake needed is gone when the tunnel goes quiet.
        let relay = Relay::new(self.client, game, extended, admission);
        self.inner.tracker.spawn(relay);
        "ok"
    }
}

async fn wait(parked: Box<Parked>, admission: Admission) {
    let mut outcome = Outcome {
        inner: parked.inner.clone(),
        text: "client_gone",
    };
    match connected(&parked, admission).await {
        Some(Ok((admission, game))) => {
            outcome.text = Box::pin(parked.go(admission, *game)).await;
        }
        Some(Err(refusal)) => {
            outcome.text = refusal.code().as_str();
            Box::pin(turn_away(parked.client.stream, &refusal)).await;
        }
        None => {}
    }
}

/// Counts how a handshake ended, also when the future is just dropped.
struct Outcome {
    inner: Arc<Inner>,
    text: &'static str,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.inner.table.counters.handshake(self.text);
    }
}

fn check(
    inner: &Inner,
    request: Request<Incoming>,
    door: Door,
    permit: Permit,
) -> Result<Asked, Refusal> {
    let headers = request.headers();
    entrance::check_origin(door, request.method(), true, headers, &inner.config)?;
    entrance::check_form(headers, request.uri(), request.method())?;
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::Handshake("it must be HTTP/1.1"));
    }
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
    let (head, _) = request.into_parts();
    Ok(Asked {
        door,
        target,
        credentials,
        offer,
        key,
        headers: head.headers,
        permit,
    })
}

async fn admit(inner: &Arc<Inner>, asked: &Asked, peer: SocketAddr) -> Result<Admission, Refusal> {
    let counts = entrance::cookie_counts(&asked.headers, inner.config.secure);
    let granted = authorise(inner, &asked.target.name, &asked.credentials, counts)?;
    let (claims, address) = (granted.claims, peer.ip().to_canonical());
    let permit = Some(asked.permit.clone());
    admit_player(inner, &claims, address, permit, Use::Tunnel).await
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
    mut asked: Asked,
    admission: &Admission,
    peer: SocketAddr,
) -> GameRequest {
    let who = Introduction {
        session: admission.tunnel().session,
        player: &admission.tunnel().player,
        peer,
        secure: inner.config.secure,
    };
    entrance::strip(&mut asked.headers, &asked.credentials, asked.door);
    let progress = asked.offer.progress;
    GameRequest::new(&asked.target, &asked.headers, &asked.offer, &who, progress)
}

/// Waits for the game, not for long. `None`: the client left.
async fn connected(
    parked: &Parked,
    admission: Admission,
) -> Option<Result<(Admission, Box<GameLeg>), Refusal>> {
    let config = &parked.inner.config;
    let _counted = parked.inner.table.counters.parked.count();
    let tunnel = admission.shared_tunnel();
    let mut connecting = pin!(timeout(
        config.park,
        connect(admission, &parked.request, config)
    ));
    let mut overdue = None;
    poll_fn(|cx| {
        if let Poll::Ready(close) = tunnel.poll_order(cx) {
            return Poll::Ready(Some(Err(refusal_for(close))));
        }
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            let connected = connected.unwrap_or(Err(Refusal::StillStarting));
            let connected = connected.map(|(admission, leg, _)| (admission, Box::new(leg)));
            return Poll::Ready(Some(connected));
        }
        poll_left(&parked.client.stream, &mut overdue, cx).map(|()| None)
    })
    .await
}

/// Waits until the client is gone. What it sends too early stays in the kernel, so that its sender feels it; `overdue` is the time for
/// the next look then.
fn poll_left(
    client: &TcpStream,
    overdue: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        if let Some(wait) = overdue {
            ready!(wait.as_mut().poll(cx));
            *overdue = None;
        }
        if ready!(client.poll_read_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        let peeked = client.try_io(Interest::READABLE, || {
            SockRef::from(client).peek(&mut [MaybeUninit::uninit()])
        });
        match peeked {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return Poll::Ready(()),
            // Behind bytes that nobody reads the end of the stream shows in the socket's state alone.
            Ok(_) if ended(client, cx) != Ended::No => return Poll::Ready(()),
            Ok(_) => *overdue = Some(Box::pin(sleep(WATCH_PERIOD))),
        }
    }
}

/// Answers 101 at once; everything else, refusals too, the client hears on the connection: a page cannot read the status of a
/// refused handshake, but it can read a close code.
async fn tell_progress(mut visit: Box<Visit>, admitted: Result<Admission, Refusal>) {
    let answer = greeting(&accept_for(&visit.asked.key), PROGRESS);
    if !say(&mut visit.client.stream, &answer).await {
        visit.inner.table.counters.handshake("client_gone");
        return;
    }
    match admitted {
        Ok(admission) => {
            let p = Parked::new(visit, &admission);
            progress::run(p.inner, p.client, admission, p.request).await;
        }
        Err(refusal) => {
            let Visit { inner, client, .. } = *visit;
            inner.table.counters.handshake(refusal.code().as_str());
            Box::pin(progress::refuse(inner, client, refusal.close())).await;
        }
    }
}

/// Says why not.
async fn turn_away(client: TcpStream, refusal: &Refusal) {
    let answer = last_answer(&document(refusal));
    last_words(client, &answer, REFUSED_DISCARD).await;
}

/// A refusal as a problem document.
pub(crate) fn problem(refusal: &Refusal) -> Answer {
    document(refusal).map(|body| Full::new(Bytes::from(body)))
}

fn document(refusal: &Refusal) -> Response<Vec<u8>> {
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
fn problem_answer(document: &Problem) -> Response<Vec<u8>> {
    // A document of strings and numbers always serialises.
    let mut answer = Response::new(serde_json::to_vec(document).unwrap_or_default());
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
    last_answer(&problem_answer(&Problem::new(code, detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_problem_is_a_whole_answer() {
        let text = String::from_utf8(bare_problem(Code::TooManyConnections, "too many")).unwrap();
        assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"));
        assert!(
            text.contains("\r\nRetry-After: 5\r\n")
                && text.contains("\"code\":\"too_many_connections\"")
        );
    }
}
