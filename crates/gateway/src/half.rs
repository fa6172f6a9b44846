//! One direction of a tunnel: a chunk is read, followed, and written; what is not taken is kept, and then nothing more is read.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::config::RELAY_CHUNK;
use crate::frames::{Follower, Sender};
use crate::table::Admission;

thread_local! {
    /// Shared by all tunnels of a thread: it is only used within one poll.
    pub(crate) static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; RELAY_CHUNK]);
}

/// One direction.
pub(crate) struct Half {
    pub(crate) follower: Follower,
    /// What the receiver has not taken yet.
    pub(crate) pending: Vec<u8>,
    sent: usize,
    /// Where in `pending` the last whole frame ends, if that was not passed on already.
    whole: Option<usize>,
    /// The sender has ended.
    eof: bool,
    /// Its end has been passed on.
    pub(crate) done: bool,
    /// The receiver takes nothing any more.
    pub(crate) broken: bool,
    /// Cut at a frame boundary: nothing more is read.
    cut: bool,
    violated: bool,
    /// Counts what moved, wrapping: whoever looks twice sees whether anything did.
    pub(crate) moves: u32,
}

/// How far a direction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The sender ended and everything is passed on.
    End,
    /// The sender's socket failed.
    SourceLost,
    /// The receiver's socket failed.
    SinkLost,
    /// Not WebSocket from here on; everything before is passed on.
    Violation,
    /// Cut at a boundary as wanted; everything before is passed on.
    Cut,
}

impl Half {
    pub(crate) fn new(sender: Sender, extensions: bool) -> Self {
        Self::following(Follower::new(sender, extensions))
    }

    /// A direction without frames.
    pub(crate) fn opaque(sender: Sender) -> Self {
        Self::following(Follower::opaque(sender))
    }

    const fn following(follower: Follower) -> Self {
        Self {
            follower,
            pending: Vec::new(),
            sent: 0,
            whole: None,
            eof: false,
            done: false,
            broken: false,
            cut: false,
            violated: false,
            moves: 0,
        }
    }

    /// How much of `pending` the receiver has taken.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn at_boundary(&self) -> bool {
        self.cut || self.follower.at_boundary()
    }

    /// Follows a chunk. Returns how much of it may be passed on, and whether it holds data.
    pub(crate) fn follow(
        &mut self,
        chunk: &[u8],
        sender: Sender,
        cut: bool,
    ) -> (usize, Option<usize>, bool) {
        let seen = self.follower.feed(chunk);
        let mut pass = chunk.len();
        if seen.violation && sender == Sender::Client {
            self.violated = true;
            pass = seen.boundary.unwrap_or(0);
        } else if cut && let Some(boundary) = seen.boundary {
            self.cut = true;
            pass = boundary;
        }
        (pass, seen.boundary, seen.data)
    }

    pub(crate) fn keep(&mut self, rest: &[u8], boundary: Option<usize>, admission: &Admission) {
        self.pending = rest.to_vec();
        self.sent = 0;
        self.whole = boundary;
        admission.table().counters.buffered(held(&self.pending));
    }

    pub(crate) fn forget(&mut self, admission: &Admission) {
        if self.pending.capacity() > 0 {
            admission.table().counters.buffered(-held(&self.pending));
            self.pending = Vec::new();
        }
        self.sent = 0;
        self.whole = None;
    }

    /// Writes what is pending.
    pub(crate) fn poll_flush(
        &mut self,
        to: &mut TcpStream,
        admission: &Admission,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Moved>> {
        while let Some(rest) = self.pending.get(self.sent..).filter(|r| !r.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                Ok(n) if n > 0 => {
                    self.sent += n;
                    self.moves = self.moves.wrapping_add(1);
                }
                _ => {
                    self.forget(admission);
                    return Poll::Ready(Err(Moved::SinkLost));
                }
            }
        }
        self.forget(admission);
        Poll::Ready(Ok(()))
    }

    /// Moves bytes until one of the two is not ready. `cut`: stop after the first chunk with a frame boundary, at the boundary.
    pub(crate) fn poll_pump(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        admission: &Admission,
        (sender, cut): (Sender, bool),
        cx: &mut Context<'_>,
    ) -> Poll<Moved> {
        loop {
            if let Err(lost) = ready!(self.poll_flush(to, admission, cx)) {
                return Poll::Ready(lost);
            }
            if self.violated {
                return Poll::Ready(Moved::Violation);
            }
            if self.cut {
                return Poll::Ready(Moved::Cut);
            }
            if self.eof {
                return Poll::Ready(Moved::End);
            }
            let step = CHUNK.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Some(Moved::SourceLost)),
                    Poll::Ready(Ok(())) => {}
                }
                let chunk = buffer.filled();
                if chunk.is_empty() {
                    self.eof = true;
                    return Poll::Ready(None);
                }
                self.moves = self.moves.wrapping_add(1);
                let (pass, boundary, data) = self.follow(chunk, sender, cut);
                note(admission, sender, chunk.len(), data);
                let chunk = chunk.get(..pass).unwrap_or_default();
                Poll::Ready(self.pass_on(chunk, boundary, to, admission, cx))
            });
            if let Some(lost) = ready!(step) {
                return Poll::Ready(lost);
            }
        }
    }

    /// Writes a chunk; keeps what is not taken.
    fn pass_on(
        &mut self,
        chunk: &[u8],
        boundary: Option<usize>,
        to: &mut TcpStream,
        admission: &Admission,
        cx: &mut Context<'_>,
    ) -> Option<Moved> {
        let mut written = 0;
        while let Some(rest) = chunk.get(written..).filter(|r| !r.is_empty()) {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => written += n,
                Poll::Ready(_) => return Some(Moved::SinkLost),
                Poll::Pending => {
                    self.keep(
                        rest,
                        boundary.and_then(|b| b.checked_sub(written)),
                        admission,
                    );
                    return None;
                }
            }
        }
        None
    }

    /// Drops the pending part of a frame that has only begun, if none of it has been passed on.
    pub(crate) fn cut_pending(&mut self, admission: &Admission) {
        if let Some(whole) = self.whole
            && whole >= self.sent
            && !self.follower.at_boundary()
        {
            admission.table().counters.buffered(-held(&self.pending));
            self.pending.truncate(whole);
            self.pending.shrink_to_fit();
            admission.table().counters.buffered(held(&self.pending));
            self.cut = true;
        }
    }
}

fn held(pending: &Vec<u8>) -> i64 {
    i64::try_from(pending.capacity()).unwrap_or(i64::MAX)
}

pub(crate) fn note(admission: &Admission, sender: Sender, bytes: usize, data: bool) {
    match sender {
        Sender::Client => admission.heard_client(bytes, data),
        Sender::Server => admission.heard_server(bytes, data),
    }
}
