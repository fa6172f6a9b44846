//! TCP games: a listener for each session, the line that says who connects, and the way to the game.
//!
//! `preamble` and `ports` decide, `relay` carries. What a connection is told is at most one line, before the game is connected;
//! after that every byte is the game's or the player's.

mod greeting;
pub mod ports;
pub(crate) mod preamble;
pub(crate) mod proxy;
mod relay;
mod sniff;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::config::ACCEPT_PAUSE;
use crate::decide::Refusal;
use crate::say;
use crate::serve::{Permit, backlog, is_one_connections_problem, quicken_client};
use ports::{Listening, TcpListeners};

/// A client that need not say who they are is given this long to begin with it; a game that speaks first is not kept waiting longer.
pub const TOKEN_PAUSE: Duration = Duration::from_millis(20);
/// Something that may be the first letters of a token line is held this long, then it is the game's: a line is written in one go.
pub const TOKEN_HOLD: Duration = Duration::from_secs(1);
/// Default of [`GatewayConfig::token_limit`](crate::GatewayConfig::token_limit), from the connection or the line's first byte: long
/// enough to paste it by hand.
pub const TOKEN_LIMIT: Duration = Duration::from_secs(10);
/// A connection waits for its game at most this long: as long as one that is told progress.
pub const TCP_PARK: Duration = crate::config::MAX_PROGRESS;
/// A connection one side of which has finished is given up when not a byte came for this long. Some clients finish sending at once
/// and then listen to a whole game; those that are gone are found by keepalive long before.
pub const TCP_HALF_CLOSED: Duration = Duration::from_secs(600);
/// Bytes read and thrown away after a refusal, so that closing the socket does not destroy the line that says why.
pub const DISCARD_LIMIT: usize = 256 * 1024;

/// Accepts for every session that the server opened, until told to stop.
pub(crate) async fn listen(
    inner: Arc<Inner>,
    listeners: Arc<TcpListeners>,
    shutdown: CancellationToken,
) {
    let mut accepting = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            fresh = listeners.fresh() => {
                for listening in fresh {
                    accepting.spawn(accept(inner.clone(), listening, shutdown.clone()));
                }
            }
            Some(_) = accepting.join_next() => {}
        }
    }
    for listening in listeners.take_fresh() {
        accepting.spawn(accept(inner.clone(), listening, shutdown.clone()));
    }
    accepting.join_all().await;
}

/// Accepts for one session until it is over or we are told to stop. Who has connected by then is heard and told so like those before
/// them: what the kernel has accepted for us it would only reset.
async fn accept(inner: Arc<Inner>, listening: Listening, shutdown: CancellationToken) {
    let mut sockets = Vec::with_capacity(listening.sockets.len());
    for socket in listening.sockets {
        match TcpListener::from_std(socket) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::error!(session = %listening.session, %error, "a session's listener cannot be used");
            }
        }
    }
    let door = Arc::new(greeting::Door {
        session: listening.session,
        terms: listening.terms,
    });
    // Said once until it works again.
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = listening.closed.cancelled() => break,
            () = shutdown.cancelled() => break,
            accepted = any(&sockets) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                take_in(&inner, &door, stream, peer);
            }
            Err(e) if is_one_connections_problem(&e) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections to a TCP session");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    for (stream, peer) in sockets.into_iter().flat_map(backlog) {
        take_in(&inner, &door, stream, peer);
    }
}

async fn any(sockets: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for socket in sockets {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

fn take_in(inner: &Arc<Inner>, door: &Arc<greeting::Door>, stream: TcpStream, peer: SocketAddr) {
    quicken_client(&stream);
    match Permit::take(inner, peer.ip().to_canonical()) {
        Some(permit) => {
            let welcome = greeting::welcome(inner.clone(), door.clone(), stream, peer, permit);
            inner.tracker.spawn(welcome);
        }
        None => {
            inner
                .table
                .counters
                .connections_refused
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            say::refuse(inner, stream, error_line(&Refusal::Limit), DISCARD_LIMIT);
        }
    }
}

/// A refusal as the one line that a TCP client is told.
pub(crate) fn error_line(refusal: &Refusal) -> Vec<u8> {
    format!(
        "{}{}\n",
        spawnpoint_wire::tcp::ERROR_LINE,
        refusal.code().as_str()
    )
    .into_bytes()
}
