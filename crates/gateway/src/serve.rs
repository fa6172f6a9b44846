//! The public listener: accepting, limits on connections, HTTP/1.1, and who answers which path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use spawnpoint_core::Code;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::config::{
    ACCEPT_PAUSE, BACKLOG_HEARD, CLIENT_UNACKNOWLEDGED, KEEPALIVE, KEEPALIVE_INTERVAL, MAX_HEAD,
    REFUSED_DISCARD,
};
use crate::metrics::lock;
use spawnpoint_wire::access::Peer;

use crate::Inner;
use crate::handshake::{self, Asked, Visit};
use crate::http_game::{self, Reply, entrance};
use crate::linger::Lingering;
use crate::relay::Leg;
use crate::say;

/// Small frames leave at once, and a peer that vanished is noticed.
pub(crate) fn quicken(stream: &TcpStream) {
    // A socket that refuses an option still works.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(any(target_os = "openbsd", target_os = "windows")))]
    let keepalive = keepalive.with_retries(3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

pub(crate) fn quicken_client(stream: &TcpStream) {
    quicken(stream);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(CLIENT_UNACKNOWLEDGED));
}

/// Connections per address, besides the loopback ones.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, u32>>);

/// One connection's place among all; given back when the last copy is dropped (the tunnel keeps one after the handshake).
#[derive(Clone)]
pub(crate) struct Permit(#[allow(dead_code, reason = "held for its Drop")] Arc<Held>);

struct Held {
    inner: Arc<Inner>,
    address: IpAddr,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.table.counters.connections.down();
        let mut addresses = lock(&self.inner.addresses.0);
        if let Some(n) = addresses.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

impl Permit {
    pub(crate) fn take(inner: &Arc<Inner>, address: IpAddr) -> Option<Self> {
        let mut addresses = lock(&inner.addresses.0);
        let here = addresses.get(&address).copied().unwrap_or(0);
        let counts = inner.config.limit_loopback || !address.is_loopback();
        let too_many_here = counts && here >= inner.config.max_per_address.saturating_mul(2);
        if too_many_here
            || inner.table.counters.connections.get() >= u64::from(inner.config.max_connections)
        {
            return None;
        }
        *addresses.entry(address).or_default() += 1;
        inner.table.counters.connections.up();
        Some(Self(Arc::new(Held {
            inner: inner.clone(),
            address,
        })))
    }
}

/// Accepts until told to stop.
pub(crate) async fn accept<S, B>(
    inner: Arc<Inner>,
    listener: TcpListener,
    fallback: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Said once until it works again.
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => {
                failing = false;
                accepted
            }
            Err(e) if is_one_connections_problem(&e) => continue,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        quicken_client(&stream);
        match Permit::take(&inner, peer.ip().to_canonical()) {
            Some(permit) => {
                let connection = connection(
                    inner.clone(),
                    stream,
                    peer,
                    permit,
                    fallback.clone(),
                    shutdown.clone(),
                );
                inner.tracker.spawn(connection);
            }
            None => {
                inner
                    .table
                    .counters
                    .connections_refused
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // Reading the request first would be the work that the limit saves.
                let detail = "too many connections; close some and try again";
                turn_away(&inner, stream, Code::TooManyConnections, detail);
            }
        }
    }
    for (stream, _) in backlog(listener) {
        let detail = crate::Refusal::Draining.to_string();
        turn_away(&inner, stream, Code::ShuttingDown, &detail);
    }
}

/// Answers a request that is not read.
fn turn_away(inner: &Arc<Inner>, stream: TcpStream, code: Code, detail: &str) {
    let answer = handshake::bare_problem(code, detail);
    say::refuse(inner, stream, answer, REFUSED_DISCARD);
}

/// The connections that the kernel has made and nobody has accepted, of a listener that is not needed any more: closing it resets
/// them, and their clients would not hear why.
pub(crate) fn backlog(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let listener = listener.into_std().ok();
    std::iter::from_fn(move || {
        loop {
            match listener.as_ref()?.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true).ok()?;
                    return Some((TcpStream::from_std(stream).ok()?, peer));
                }
                Err(e) if is_one_connections_problem(&e) => {}
                Err(_) => return None,
            }
        }
    })
    .take(BACKLOG_HEARD)
}

pub(crate) fn is_one_connections_problem(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection<S, B>(
    inner: Arc<Inner>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    fallback: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let kill = inner.kill.clone();
    // Handed over by the service, which hyper owns, to us, who own hyper.
    let handover = Arc::new(Mutex::new(None));
    let service = service(inner.clone(), peer, permit, fallback, handover.clone());
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(inner.config.header_timeout)
        .max_buf_size(MAX_HEAD)
        .preserve_header_case(true)
        .serve_connection(Lingering::new(TokioIo::new(stream)), service);
    let mut stopping = false;
    let asked = loop {
        let served = poll_fn(|cx| {
            let served = Pin::new(&mut connection).poll(cx);
            match lock(&handover).take() {
                Some(asked) => Poll::Ready(Some(asked)),
                // Errors here are the client's: it went away, sent no request, or no HTTP.
                None => served.map(|_| None),
            }
        });
        tokio::select! {
            served = served => match served {
                Some(asked) => break asked,
                None => return,
            },
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            // Requests under way are finished; streams that never end are cut when the drain's time is over.
            () = kill.cancelled(), if stopping => return,
        }
    };
    let parts = connection.into_parts();
    let visit = Visit {
        inner: inner.clone(),
        client: Leg {
            stream: parts.io.into_inner().into_inner(),
            early: parts.read_buf.to_vec(),
        },
        peer,
        asked,
    };
    // A task of its own: what hyper needed is gone with this one.
    inner.tracker.spawn(handshake::welcome(Box::new(visit)));
}

/// A WebSocket's request leaves hyper by this.
type Handover = Arc<Mutex<Option<Asked>>>;

type Answering<B> =
    Pin<Box<dyn Future<Output = Result<Response<Either<Reply, B>>, Infallible>> + Send>>;

/// Who answers which request of one connection.
fn service<S, B>(
    inner: Arc<Inner>,
    peer: SocketAddr,
    permit: Permit,
    fallback: S,
    handover: Handover,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Either<Reply, B>>,
    Error = Infallible,
    Future = Answering<B>,
> + Unpin
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let fallback = Box::new(fallback);
    hyper::service::service_fn(move |mut request: Request<Incoming>| -> Answering<B> {
        let door = http_game::door(request.headers(), request.uri(), &inner.config.access);
        let Some(door) = door else {
            request.extensions_mut().insert(Peer(peer));
            let theirs = S::clone(&fallback).oneshot(request);
            return theirs
                .map(|r| r.map(|r| r.map(Either::<Reply, B>::Right)))
                .boxed();
        };
        if !entrance::is_websocket(request.method(), request.headers()) {
            let ours = http_game::answer(inner.clone(), request, peer, door);
            return ours.map(|r| Ok(r.map(Either::Left))).boxed();
        }
        match handshake::read(&inner, request, door, permit.clone()) {
            Ok(asked) => {
                *lock(&handover) = Some(asked);
                pending().boxed()
            }
            Err(answer) => ready(Ok(answer.map(|body| Either::Left(Reply::Own(body))))).boxed(),
        }
    })
}

/// Answers nothing but 404: for gateways that stand alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotFound;

impl Service<Request<Incoming>> for NotFound {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(handshake::problem(&crate::Refusal::Path)))
    }
}
