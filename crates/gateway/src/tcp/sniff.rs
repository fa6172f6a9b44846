//! Hearing how a client begins, from its socket, and who a token says it is.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use spawnpoint_core::{PlayerId, SessionId};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::preamble::{Preamble, Said};
use crate::Inner;
use crate::decide::Refusal;
use crate::half::CHUNK;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Bytes, and what the beginning is now.
    Said(Said),
    /// The client has finished sending.
    End,
    /// Its socket failed.
    Lost,
}

/// Takes in what the client sends next; never more than belongs to a token line.
pub(crate) fn poll_hear(
    preamble: &mut Preamble,
    client: &mut TcpStream,
    cx: &mut Context<'_>,
) -> Poll<Heard> {
    CHUNK.with_borrow_mut(|chunk| {
        let room = preamble.room().min(chunk.len());
        let mut buffer = ReadBuf::new(chunk.get_mut(..room).unwrap_or_default());
        match ready!(Pin::new(client).poll_read(cx, &mut buffer)) {
            Err(_) => Poll::Ready(Heard::Lost),
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Heard::End),
            Ok(()) => Poll::Ready(Heard::Said(preamble.hear(buffer.filled()))),
        }
    })
}

/// See [`poll_hear`]. Nothing is lost when the future is dropped.
pub(crate) async fn hear(preamble: &mut Preamble, client: &mut TcpStream) -> Heard {
    poll_fn(|cx| poll_hear(preamble, client, cx)).await
}

/// Whose token this is, if it is a good one for this session. Asked before anything is looked up.
pub(crate) fn authorise(
    inner: &Inner,
    session: SessionId,
    token: &str,
) -> Result<PlayerId, Refusal> {
    let now = inner.clock.wall(inner.clock.now()).div_euclid(1000);
    let claims = inner
        .keyring
        .load()
        .verify(token, now)
        .map_err(Refusal::BadToken)?;
    if claims.sid == session {
        Ok(claims.sub)
    } else {
        Err(Refusal::OtherSession)
    }
}

/// A client that is connected to its game and has not begun to speak, or only just: it may still say who it is.
pub(crate) struct Sniff {
    pub(crate) preamble: Preamble,
    /// What the beginning is so far.
    pub(crate) said: Said,
    /// When it began.
    pub(crate) since: Option<Instant>,
    pub(crate) session: SessionId,
    pub(crate) inner: Arc<Inner>,
}
