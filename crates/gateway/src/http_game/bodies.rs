//! Bodies on their way: a chunk at a time, counted, never kept. Back-pressure is that of the two sockets.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use spawnpoint_wire::close::Close;
use tokio::time::{Instant, Sleep, sleep};

use super::pool::Lease;
use crate::config::DRAIN_ANSWERS;
use crate::table::Admission;

pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// Why a body of ours ends before its end. Nobody reads the text; the connection is cut, and that is the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// The client sent nothing for too long.
    #[error("the client stopped sending")]
    Silent,
    /// The session, the player's place in it or the gateway is over.
    #[error("the connection was ordered to close")]
    Ordered,
}

/// One request under way, shared by its two bodies.
pub(crate) struct Exchange {
    pub(crate) admission: Admission,
    began: Instant,
    /// When the upload last moved, milliseconds after `began`.
    moved: AtomicU64,
    /// The whole request has been read from the client.
    pub(crate) sent: AtomicBool,
    /// It is the client's turn: more of its body is to come, and the game takes it.
    clients_turn: AtomicBool,
    stalled: AtomicBool,
}

impl Exchange {
    pub(crate) fn new(admission: Admission) -> Arc<Self> {
        Arc::new(Self {
            admission,
            began: Instant::now(),
            moved: AtomicU64::new(0),
            sent: AtomicBool::new(false),
            clients_turn: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        })
    }

    fn upload_moves(&self) {
        self.clients_turn.store(false, Ordering::Relaxed);
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.fetch_max(passed, Ordering::Relaxed);
    }

    /// Since when it is the game's turn: the upload last moved then, or it moves right now.
    pub(crate) fn games_turn(&self) -> Instant {
        if self.clients_turn.load(Ordering::Relaxed) {
            return Instant::now();
        }
        self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Whether the client left its own upload unfinished.
    pub(crate) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

/// A request's body, from the client to the game.
pub(crate) struct Upload {
    /// `None`: there is none.
    body: Option<Incoming>,
    exchange: Arc<Exchange>,
    patience: Duration,
    /// Only while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(crate) fn new(body: Incoming, exchange: Arc<Exchange>, patience: Duration) -> Self {
        let body = Some(body).filter(|b| !b.is_end_stream());
        exchange.sent.store(body.is_none(), Ordering::Relaxed);
        Self {
            body,
            exchange,
            patience,
            silence: None,
        }
    }

    /// No body, for asking again.
    pub(crate) fn empty(exchange: Arc<Exchange>) -> Self {
        Self {
            body: None,
            exchange,
            patience: Duration::ZERO,
            silence: None,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(next) => {
                this.silence = None;
                this.exchange.upload_moves();
                match &next {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            this.exchange.admission.heard_client(data.len(), true);
                        }
                        if body.is_end_stream() {
                            this.exchange.sent.store(true, Ordering::Relaxed);
                        }
                    }
                    Some(Err(_)) => {}
                    None => this.exchange.sent.store(true, Ordering::Relaxed),
                }
                Poll::Ready(next.map(|f| f.map_err(Into::into)))
            }
            Poll::Pending => {
                this.exchange.clients_turn.store(true, Ordering::Relaxed);
                let patience = this.patience;
                let silence = this
                    .silence
                    .get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(silence.as_mut().poll(cx));
                this.exchange.stalled.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(Cut::Silent.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// An answer's body, from the game to the client. When it is through, the connection to the game is free again.
pub(crate) struct Download {
    body: Incoming,
    exchange: Arc<Exchange>,
    lease: Option<Lease>,
    drain: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(crate) fn new(body: Incoming, exchange: Arc<Exchange>, lease: Lease) -> Self {
        let mut download = Self {
            body,
            exchange,
            lease: Some(lease),
            drain: None,
        };
        // An empty body is never asked for.
        if download.body.is_end_stream() {
            download.over();
        }
        download
    }

    fn over(&mut self) {
        // Ordered to go: the game that it leads to is not the session's any more.
        let current = self.exchange.admission.tunnel().ordered().is_none();
        if let Some(lease) = self.lease.take()
            && current
            && self.exchange.sent.load(Ordering::Relaxed)
        {
            lease.give_back();
        }
    }

    /// Whether the answer must stop here.
    fn poll_order(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let close = ready!(self.exchange.admission.tunnel().poll_order(cx));
        if close == Close::DRAIN {
            let grace = self
                .drain
                .get_or_insert_with(|| Box::pin(sleep(DRAIN_ANSWERS)));
            return grace.as_mut().poll(cx);
        }
        Poll::Ready(())
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.poll_order(cx).is_ready() {
            this.lease = None;
            return Poll::Ready(Some(Err(Cut::Ordered.into())));
        }
        loop {
            let next = ready!(Pin::new(&mut this.body).poll_frame(cx));
            match next {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        this.exchange.admission.heard_server(data.len(), true);
                        if this.body.is_end_stream() {
                            this.over();
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    // Trailers stay behind: they belong to the framing of this leg.
                }
                // The game broke off: so does the answer, or the client would take half of it for all of it.
                Some(Err(e)) => {
                    this.lease = None;
                    return Poll::Ready(Some(Err(e.into())));
                }
                None => {
                    this.over();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the gateway answers with.
pub(crate) enum Reply {
    /// Ours.
    Own(Full<Bytes>),
    /// The game's.
    Game(Box<Download>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|f| f.map(|f| f.map_err(|never| match never {}))),
            Self::Game(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Game(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Game(body) => body.size_hint(),
        }
    }
}
