//! The socket under an HTTP connection, closed so that the last answer is heard.
//!
//! hyper closes behind an answer to a request that it has not read to its end: a body that is too large, a head that is none. Closing a
//! socket over bytes that still come resets the connection, and the client may see that instead of the answer. So a close right behind an
//! answer waits a little for the client's, and reads over what it sends.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::config::{LINGER, REFUSED_DISCARD};
use crate::half::CHUNK;

/// A close so soon after the last write is one behind an answer: hyper makes it in the same breath, also on a busy machine.
const BEHIND: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Lingering {
    stream: TokioIo<TcpStream>,
    /// When hyper wrote to it last.
    answered: Option<Instant>,
    closing: Option<Box<Closing>>,
}

struct Closing {
    /// Bytes that are still read over.
    left: usize,
    /// Until then, if more is to be expected than what is there.
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(crate) const fn new(stream: TokioIo<TcpStream>) -> Self {
        Self {
            stream,
            answered: None,
            closing: None,
        }
    }

    pub(crate) fn into_inner(self) -> TokioIo<TcpStream> {
        self.stream
    }

    fn poll_read_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(closing) = &mut self.closing else {
            return Poll::Ready(());
        };
        let stream = self.stream.inner_mut();
        while closing.left > 0 {
            let read = CHUNK.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
                read.map(|done| done.map_or(0, |()| buffer.filled().len()))
            });
            match read {
                Poll::Ready(0) => break,
                Poll::Ready(n) => {
                    closing.left = closing.left.saturating_sub(n);
                    closing.until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                }
                Poll::Pending => match &mut closing.until {
                    Some(until) => {
                        ready!(until.as_mut().poll(cx));
                        break;
                    }
                    None => break,
                },
            }
        }
        Poll::Ready(())
    }
}

impl Read for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered = Some(Instant::now());
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            // A connection that was quiet is closed at once: nothing that was said is on its way, and a stop of the process is no wait.
            let behind = self.answered.is_some_and(|at| at.elapsed() < BEHIND);
            let until = behind.then(|| Box::pin(sleep(LINGER)));
            self.closing = Some(Box::new(Closing {
                left: REFUSED_DISCARD,
                until,
            }));
        }
        self.poll_read_over(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered = Some(Instant::now());
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}
