//! HTTP games: one request of a player, to their session's game and back.
//!
//! Everything passes through as it comes: nothing is buffered, rewritten or cached. What may enter here is one request at a time;
//! WebSockets of HTTP games are tunnels like all others ([`crate::handshake`]).

mod bodies;
pub(crate) mod entrance;
pub(crate) mod heads;
mod pages;
mod pool;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use spawnpoint_wire::link::Route;
use spawnpoint_wire::token::TokenClaims;
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use bodies::Reply;
pub(crate) use entrance::{Door, door};
pub(crate) use pool::Pool;

use crate::Inner;
use crate::access::Target;
use crate::connect::{Dial, connect, refusal_for};
use crate::decide::{Refusal, Use};
use crate::game::{DialError, Introduction};
use crate::handshake;
use crate::table::Admission;
use bodies::{Download, Exchange, Upload};
use entrance::Credentials;
use heads::Framing;
use pool::{Destination, Lease};

/// Answers one request that came by a door of a session.
pub(crate) async fn answer(
    inner: Arc<Inner>,
    request: Request<Incoming>,
    peer: SocketAddr,
    door: Door,
) -> Response<Reply> {
    let mut outcome = Outcome {
        inner: &inner,
        text: "client_gone",
    };
    let page = entrance::wants_page(request.method(), request.headers());
    let method = request.method().clone();
    match serve(&inner, request, peer, door).await {
        Ok(Served::Game(answer)) => {
            outcome.text = "ok";
            answer.map(|download| Reply::Game(Box::new(download)))
        }
        Ok(Served::Login(answer)) => {
            outcome.text = "login";
            answer
        }
        Err(refusal) => {
            // A game that speaks WebSocket only: other methods do not get there by asking for an upgrade.
            let refusal = match refusal {
                Refusal::UpgradeRequired if method != Method::GET => Refusal::Method,
                refusal => refusal,
            };
            outcome.text = refusal.code().as_str();
            pages::refused(&refusal, page)
        }
    }
}

enum Served {
    Game(Response<Download>),
    Login(Response<Reply>),
}

/// Counts how a request ended, also when the client goes away and the future is just dropped.
struct Outcome<'a> {
    inner: &'a Inner,
    text: &'static str,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.inner.table.counters.http_request(self.text);
    }
}

async fn serve(
    inner: &Arc<Inner>,
    request: Request<Incoming>,
    peer: SocketAddr,
    door: Door,
) -> Result<Served, Refusal> {
    let (mut head, body) = request.into_parts();
    head.extensions.remove::<spawnpoint_wire::access::Peer>();
    entrance::check_origin(door, &head.method, false, &head.headers, &inner.config)?;
    entrance::check_form(&head.headers, &head.uri, &head.method)?;
    let target = entrance::target(door, &head.uri).ok_or(Refusal::Path)?;
    let secure = inner.config.secure;
    let credentials = entrance::credentials(door, &target, None, &head.headers, secure);
    let cookies = entrance::cookie_counts(&head.headers, secure);
    let granted = handshake::authorise(inner, &target.name, &credentials, cookies)?;
    if let Some(login) = login(inner, door, &head, &target, &credentials, &granted) {
        return Ok(Served::Login(login));
    }
    let address = peer.ip().to_canonical();
    let claims = granted.claims;
    let admission = handshake::admit_player(inner, &claims, address, None, Use::Request).await?;
    let framing = framing(&body);
    let who = Introduction {
        session: claims.sid,
        player: &claims.sub,
        peer,
        secure,
    };
    let head = heads::for_game(head, door, &target, &credentials, &who, framing)?;
    let (admission, lease, route) = reach(inner, admission).await?;
    let answer = exchange(inner, head, body, admission, lease, &route, door).await?;
    Ok(Served::Game(answer))
}

/// On a session's own host a token in the address becomes a cookie, and the address is asked for again without it.
fn login(
    inner: &Inner,
    door: Door,
    head: &Parts,
    target: &Target,
    credentials: &Credentials,
    granted: &handshake::Granted,
) -> Option<Response<Reply>> {
    let navigates = matches!(head.method, Method::GET | Method::HEAD);
    if door == Door::Path || target.token.is_none() || !navigates {
        return None;
    }
    let mut answer = Response::new(Reply::Own(Full::default()));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let headers = answer.headers_mut();
    let location = entrance::without_token(&target.path_and_query);
    headers.insert(LOCATION, HeaderValue::from_str(&location).ok()?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // An old link with a good cookie beside it: the cookie stays.
    if granted.which == 0 {
        let left = left(inner, &granted.claims);
        let token = credentials.tokens.first()?;
        let cookie = entrance::cookie(token, left, inner.config.secure);
        headers.insert(SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
    }
    Some(answer)
}

/// Seconds that a token is good for.
fn left(inner: &Inner, claims: &TokenClaims) -> i64 {
    let now = inner.clock.wall(inner.clock.now()).div_euclid(1000);
    claims.exp.saturating_sub(now)
}

fn framing(body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::Empty,
        Some(bytes) => Framing::Sized(bytes),
        None => Framing::Chunked,
    }
}

struct ToGame<'a>(&'a Inner);

impl Dial for ToGame<'_> {
    const USE: Use = Use::Request;
    type Leg = Lease;

    async fn dial(&self, route: &Route, address: SocketAddr) -> Result<Lease, DialError> {
        let to = destination(route, address);
        let inner = self.0;
        inner.pool.connect(to, &inner.tracker, &inner.kill).await
    }
}

const fn destination(route: &Route, address: SocketAddr) -> Destination {
    Destination {
        session: route.session,
        generation: route.generation,
        address,
    }
}

/// Waits for the game, as long as one may without a word.
async fn reach(
    inner: &Inner,
    admission: Admission,
) -> Result<(Admission, Lease, Arc<Route>), Refusal> {
    let tunnel = admission.shared_tunnel();
    let _counted = inner.table.counters.parked.count();
    let game = ToGame(inner);
    let connected = pin!(timeout(
        inner.config.park,
        connect(admission, &game, &inner.config)
    ));
    let ordered = pin!(poll_fn(|cx| tunnel.poll_order(cx)));
    match select(ordered, connected).await {
        Either::Left((close, _)) => Err(refusal_for(close)),
        Either::Right((connected, _)) => connected.map_err(|_| Refusal::StillStarting)?,
    }
}

/// Sends the request and hears the head of the answer.
async fn exchange(
    inner: &Arc<Inner>,
    head: Parts,
    body: Incoming,
    admission: Admission,
    mut lease: Lease,
    route: &Route,
    door: Door,
) -> Result<Response<Download>, Refusal> {
    admission.heard_client(0, true);
    let tunnel = admission.shared_tunnel();
    let exchange = Exchange::new(admission);
    let upload = Upload::new(body, exchange.clone(), inner.config.upload_silence);
    let again = can_repeat(&head, &upload).then(|| head.clone());
    let mut request = Request::from_parts(head, upload);
    let answer = loop {
        let patience = pin!(too_slow(&exchange, inner));
        let ordered = pin!(poll_fn(|cx| tunnel.poll_order(cx)));
        let sending = pin!(lease.send.try_send_request(request));
        let sent = match select(sending, select(ordered, patience)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((Either::Left((close, _)), _)) => return Err(refusal_for(close)),
            Either::Right((Either::Right(_), _)) => return Err(Refusal::GameTimeout),
        };
        let mut failed = match sent {
            Ok(answer) => break answer,
            Err(failed) => failed,
        };
        // A kept connection may be closed by the game just as it is used; what did not reach it is asked once more.
        let unsent = failed.take_message();
        let repeated = match (lease.used, unsent, &again) {
            (true, Some(unsent), _) => Some(unsent),
            (true, None, Some(head)) if !failed.error().is_parse() => {
                let nothing = Upload::empty(exchange.clone());
                Some(Request::from_parts(head.clone(), nothing))
            }
            _ => None,
        };
        let Some(repeated) = repeated else {
            return Err(failure(failed.error(), &exchange));
        };
        request = repeated;
        let address = route.address.ok_or(Refusal::GameUnreachable)?;
        let to = destination(route, address);
        let fresh = inner.pool.fresh(to, &inner.tracker, &inner.kill).await;
        lease = fresh.map_err(|_| Refusal::GameUnreachable)?;
    };
    let (mut head, body) = answer.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::GameFailed("it changed the protocol unasked"));
    }
    exchange.admission.heard_server(0, true);
    heads::for_client(&mut head, door);
    let download = Download::new(body, exchange, lease);
    Ok(Response::from_parts(head, download))
}

/// Asking twice does no harm, and there is nothing that was sent already.
fn can_repeat(head: &Parts, upload: &Upload) -> bool {
    head.method.is_idempotent() && upload.is_end_stream()
}

/// Ends when the game should have begun to answer: counted from the last byte that it was sent.
async fn too_slow(exchange: &Exchange, inner: &Inner) {
    loop {
        let until = exchange.games_turn() + inner.config.answer_timeout;
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

fn failure(error: &hyper::Error, exchange: &Exchange) -> Refusal {
    if exchange.stalled() {
        return Refusal::UploadStalled;
    }
    if error.is_parse_too_large() {
        return Refusal::GameFailed("the head of its answer is too large");
    }
    if error.is_parse() {
        return Refusal::GameFailed("its answer is not HTTP");
    }
    if error.is_user() {
        // The client's body broke off: nobody is there to read this.
        return Refusal::UploadStalled;
    }
    Refusal::GameFailed("it closed the connection")
}
