//! The relay: two bare sockets and nothing in between while nothing moves.
//!
//! Bytes pass through one buffer per thread; only what a receiver does not take at once is kept, at most one chunk, and then its
//! sender is not read any more (back-pressure). Frame headers are followed, payloads never touched. The only thing ever added is
//! one Close frame, at a frame boundary. There is no timer while a tunnel is idle or flowing.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use spawnpoint_wire::close::Close;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::config::{CLOSE_DRAIN, CLOSE_LIMIT, HALF_CLOSED, LINGER, WATCH_PERIOD, WORD_WAIT};
use crate::frames::{Sender, client_close, server_close};
use crate::half::{CHUNK, Half, Moved, note};
use crate::table::Admission;

/// The client broke the WebSocket protocol: it learns so, and a naive game never sees it.
const PROTOCOL_ERROR: Close = Close {
    code: 1002,
    reason: "protocol_error",
};
/// The client said goodbye and the game just hung up: that is the end that the client wanted.
const ANSWERED: Close = Close {
    code: 1000,
    reason: "",
};

/// What the game hears when a tunnel is closed on our side: its player is going away.
const GOING_AWAY: u16 = 1001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The game's socket died without a Close; somebody may know why.
    Bereft,
    /// A Close of ours is due at the next frame boundary. `urgent`: do not wait for the game to pause.
    Closing {
        close: Close,
        urgent: bool,
    },
    /// The Close is on its way (or the game's was); the client may answer it.
    Lingering,
}

/// What a timer of a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// One side has finished.
    HalfClosed,
    /// The game takes nothing: is the client still there?
    Stuck,
    /// The present stage is over.
    Stage,
}

/// One tunnel. A future that ends when the connection is over.
pub(crate) struct Relay {
    client: TcpStream,
    game: Option<TcpStream>,
    /// From the client to the game.
    up: Half,
    /// From the game to the client.
    down: Half,
    stage: Stage,
    alarm: Option<(Alarm, Pin<Box<Sleep>>)>,
    down_first: bool,
    /// The client has ended behind bytes that the game does not take.
    client_ended: bool,
    admission: Admission,
}

/// A socket and what was already read from it.
pub(crate) struct Leg {
    pub(crate) stream: TcpStream,
    pub(crate) early: Vec<u8>,
}

impl Relay {
    /// Joins the two. `extensions`: the ends agreed on some.
    pub(crate) fn new(client: Leg, game: Leg, extensions: bool, admission: Admission) -> Self {
        let mut relay = Self {
            client: client.stream,
            game: Some(game.stream),
            up: Half::new(Sender::Client, extensions),
            down: Half::new(Sender::Server, extensions),
            stage: Stage::Open,
            alarm: None,
            down_first: false,
            client_ended: false,
            admission,
        };
        for (half, sender, early) in [
            (&mut relay.up, Sender::Client, &client.early),
            (&mut relay.down, Sender::Server, &game.early),
        ] {
            if !early.is_empty() {
                let (pass, boundary, data) = half.follow(early, sender, false);
                note(&relay.admission, sender, early.len(), data);
                half.keep(
                    early.get(..pass).unwrap_or_default(),
                    boundary,
                    &relay.admission,
                );
            }
        }
        relay
    }

    fn arm(&mut self, what: Alarm, after: Duration) {
        self.alarm = Some((what, Box::pin(tokio::time::sleep(after))));
    }

    fn poll_alarm(&mut self, what: Alarm, cx: &mut Context<'_>) -> bool {
        match &mut self.alarm {
            Some((armed, sleep)) if *armed == what => sleep.as_mut().poll(cx).is_ready(),
            _ => false,
        }
    }

    fn begin_closing(&mut self, close: Close, cx: &mut Context<'_>) {
        if self.down.follower.closed() && self.down.pending.is_empty() {
            // The game has said goodbye itself; nothing may follow that.
            self.admission
                .table()
                .counters
                .closed(self.down.follower.close_code().unwrap_or(1005));
            self.leave_game(cx);
            self.begin_lingering();
        } else {
            self.stage = Stage::Closing {
                close,
                urgent: false,
            };
            self.arm(Alarm::Stage, CLOSE_DRAIN);
        }
    }

    /// Puts the Close frame on its way; the game is left at once.
    fn say(&mut self, close: Close, cx: &mut Context<'_>) {
        let frame = server_close(close.code, close.reason);
        self.down.keep(&frame, None, &self.admission);
        self.admission.table().counters.closed(close.code);
        self.leave_game(cx);
        self.begin_lingering();
    }

    fn leave_game(&mut self, cx: &mut Context<'_>) {
        if let Some(mut game) = self.game.take() {
            let clean = self.up.pending.is_empty() && self.up.at_boundary();
            if clean && !self.up.broken && !self.up.done && !self.up.follower.closed() {
                // Best effort: a game that takes nothing right now sees the end of the stream instead.
                let _ = Pin::new(&mut game).poll_write(cx, &client_close(GOING_AWAY));
            }
            let _ = Pin::new(&mut game).poll_shutdown(cx);
        }
        self.up.forget(&self.admission);
        self.admission.detach();
    }

    fn begin_lingering(&mut self) {
        self.stage = Stage::Lingering;
        self.arm(Alarm::Stage, LINGER);
    }

    /// The end without a Close frame of ours.
    fn over(&mut self) -> Poll<()> {
        let code = match (self.down.follower.closed(), self.down.follower.close_code()) {
            (_, Some(code)) => code,
            (true, None) => 1005,
            // A client's code is masked and not read.
            (false, None) if self.up.follower.closed() => 1005,
            (false, None) => 1006,
        };
        self.admission.table().counters.closed(code);
        Poll::Ready(())
    }

    /// The usual life.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(close) = self.admission.tunnel().poll_order(cx) {
            self.begin_closing(close, cx);
            return self.poll_stage(cx);
        }
        // In turns: one side that never pauses uses up what a task may do in one go.
        self.down_first = !self.down_first;
        for down in [self.down_first, !self.down_first] {
            let turned = if down {
                self.poll_down(cx)
            } else {
                self.poll_up(cx)
            };
            if let Some(turned) = turned {
                return turned;
            }
        }
        if self.up.done && self.down.done {
            return self.over();
        }
        if self.down.done && self.up.broken {
            self.admission
                .table()
                .counters
                .closed(self.down.follower.close_code().unwrap_or(1005));
            self.leave_game(cx);
            self.begin_lingering();
            return self.poll_stage(cx);
        }
        self.poll_watch(cx)
    }

    /// Moves what the client sends; something if that ended the usual life.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        let game = self.game.as_mut()?;
        if self.up.done || self.up.broken {
            return None;
        }
        let way = (Sender::Client, false);
        match self
            .up
            .poll_pump(&mut self.client, game, &self.admission, way, cx)
        {
            Poll::Pending => {}
            Poll::Ready(Moved::End) => {
                self.up.done = true;
                // The game may have gone already; its own end is on the way then.
                let _ = Pin::new(game).poll_shutdown(cx);
            }
            Poll::Ready(Moved::SinkLost) => self.up.broken = true,
            Poll::Ready(Moved::Violation) => {
                self.begin_closing(PROTOCOL_ERROR, cx);
                return Some(self.poll_stage(cx));
            }
            Poll::Ready(Moved::SourceLost | Moved::Cut) => return Some(self.over()),
        }
        None
    }

    /// Moves what the game sends, likewise.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        let game = self.game.as_mut()?;
        if self.down.done {
            return None;
        }
        let way = (Sender::Server, false);
        match self
            .down
            .poll_pump(game, &mut self.client, &self.admission, way, cx)
        {
            Poll::Pending => None,
            Poll::Ready(Moved::End | Moved::SourceLost) => Some(self.game_ended(cx)),
            Poll::Ready(_) => Some(self.over()),
        }
    }

    /// The game's socket has ended and everything it sent is passed on.
    fn game_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.down.follower.closed() {
            self.down.done = true;
            let _ = Pin::new(&mut self.client).poll_shutdown(cx);
            return self.poll_stage(cx);
        }
        if !self.down.at_boundary() || self.up.done {
            // In mid-frame no Close can be said, and to a client that has ended nothing need be.
            return self.over();
        }
        if self.up.follower.closed() {
            self.say(ANSWERED, cx);
        } else {
            self.stage = Stage::Bereft;
            self.arm(Alarm::Stage, WORD_WAIT);
        }
        self.poll_stage(cx)
    }

    /// Waits for the reason of the game's death; what the client sends meanwhile goes where it can.
    fn poll_bereft(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(close) = self.admission.tunnel().poll_order(cx) {
            self.say(close, cx);
            return self.poll_stage(cx);
        }
        if self.poll_alarm(Alarm::Stage, cx) {
            // Nobody says that the session is over: connecting again is right.
            self.say(Close::REPLACED, cx);
            return self.poll_stage(cx);
        }
        if let Some(game) = &mut self.game
            && !self.up.broken
        {
            match ready!(self.up.poll_pump(
                &mut self.client,
                game,
                &self.admission,
                (Sender::Client, false),
                cx
            )) {
                Moved::SinkLost => {
                    self.up.broken = true;
                    // The order or the alarm wakes this up; both are registered.
                }
                Moved::Violation => {
                    self.say(PROTOCOL_ERROR, cx);
                    return self.poll_stage(cx);
                }
                _ => return self.over(),
            }
        }
        Poll::Pending
    }

    /// Carries what the game has already sent, then says the Close at a frame boundary.
    fn poll_closing(&mut self, close: Close, urgent: bool, cx: &mut Context<'_>) -> Poll<()> {
        let mut urgent = urgent;
        if self.poll_alarm(Alarm::Stage, cx) {
            if urgent {
                // Stalled in mid-frame, or a client that reads nothing: no Close can reach it.
                return self.over();
            }
            urgent = true;
            self.stage = Stage::Closing { close, urgent };
            self.arm(Alarm::Stage, CLOSE_LIMIT.saturating_sub(CLOSE_DRAIN));
            // Polled once so that it is registered.
            let _ = self.poll_alarm(Alarm::Stage, cx);
        }
        if urgent {
            self.down.cut_pending(&self.admission);
        }
        if leaves_at_once(close) {
            self.down.cut_pending(&self.admission);
            if urgent || self.down.at_boundary() {
                self.leave_game(cx);
            }
        }
        let Some(game) = &mut self.game else {
            return self.poll_left(close, cx);
        };
        let moved = self.down.poll_pump(
            game,
            &mut self.client,
            &self.admission,
            (Sender::Server, urgent),
            cx,
        );
        match moved {
            Poll::Ready(Moved::SinkLost | Moved::Violation) => return self.over(),
            Poll::Ready(Moved::Cut) => {}
            Poll::Ready(Moved::End | Moved::SourceLost) if self.down.at_boundary() => {}
            Poll::Ready(Moved::End | Moved::SourceLost) => return self.over(),
            Poll::Pending if !self.down.pending.is_empty() || !self.down.at_boundary() => {
                return Poll::Pending;
            }
            Poll::Pending if !urgent && !self.down.follower.closed() => {
                if ends_by_game(close) {
                    return Poll::Pending;
                }
                if has_more(game) {
                    // The kernel has bytes that the runtime has not heard of yet.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Poll::Pending => {}
        }
        if self.down.follower.closed() {
            self.admission
                .table()
                .counters
                .closed(self.down.follower.close_code().unwrap_or(1005));
            self.leave_game(cx);
            self.begin_lingering();
        } else {
            self.say(close, cx);
        }
        self.poll_stage(cx)
    }

    /// The game is left already: what is kept goes out, then the Close if it may stand there.
    fn poll_left(&mut self, close: Close, cx: &mut Context<'_>) -> Poll<()> {
        let flushed = self.down.poll_flush(&mut self.client, &self.admission, cx);
        match ready!(flushed) {
            Ok(()) if self.down.at_boundary() && !self.down.follower.closed() => {
                self.say(close, cx);
                self.poll_stage(cx)
            }
            _ => self.over(),
        }
    }

    /// Flushes the Close and waits for the client's, so that closing the socket does not overtake it.
    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_alarm(Alarm::Stage, cx) {
            return Poll::Ready(());
        }
        let flushed = match self.down.poll_flush(&mut self.client, &self.admission, cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if flushed && self.up.follower.closed() {
            return Poll::Ready(());
        }
        if flushed && self.up.follower.lost() {
            // Its answer cannot be told from its noise: the end of our stream asks for the end of its own.
            let _ = Pin::new(&mut self.client).poll_shutdown(cx);
        }
        loop {
            let over = CHUNK.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                let read = ready!(Pin::new(&mut self.client).poll_read(cx, &mut buffer));
                let chunk = buffer.filled();
                self.up.follower.feed(chunk);
                Poll::Ready(
                    read.is_err() || chunk.is_empty() || (flushed && self.up.follower.closed()),
                )
            });
            if ready!(over) {
                return Poll::Ready(());
            }
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.stage {
            Stage::Open => self.poll_open(cx),
            Stage::Bereft => self.poll_bereft(cx),
            Stage::Closing { close, urgent } => self.poll_closing(close, urgent, cx),
            Stage::Lingering => self.poll_lingering(cx),
        }
    }

    /// Looks after tunnels that are neither idle nor flowing: half closed ones are given up after a while, and a client that left
    /// behind bytes that its game does not take is noticed.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let wanted = if self.up.done || self.down.done || self.client_ended {
                Some((Alarm::HalfClosed, HALF_CLOSED))
            } else if !self.up.pending.is_empty() {
                Some((Alarm::Stuck, WATCH_PERIOD))
            } else {
                None
            };
            let Some((alarm, after)) = wanted else {
                self.alarm = None;
                return Poll::Pending;
            };
            if self.alarm.as_ref().is_none_or(|(armed, _)| *armed != alarm) {
                self.arm(alarm, after);
            }
            if !self.poll_alarm(alarm, cx) {
                return Poll::Pending;
            }
            if alarm == Alarm::HalfClosed {
                return self.over();
            }
            self.alarm = None;
            match ended(&self.client, cx) {
                Ended::No => {}
                Ended::Reading => self.client_ended = true,
                Ended::Both => return self.over(),
            }
        }
    }
}

/// Whether this close is told because the game went away: then its last words and its end are on the way.
const fn ends_by_game(close: Close) -> bool {
    matches!(close.code, 1000 | 1012 | 4500)
}

/// Whether the player has no business in this game any more: a newer connection of theirs waits for this one to be gone, or they
/// were removed.
const fn leaves_at_once(close: Close) -> bool {
    matches!(close.code, 4403 | 4409)
}

/// Whether there is something to read (also an end or an error), asked of the kernel itself.
fn has_more(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    match socket2::SockRef::from(stream).peek(&mut byte) {
        Ok(_) => true,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// How far a peer has ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    No,
    /// It sends no more.
    Reading,
    /// It is gone.
    Both,
}

/// Whether the peer has ended, seen without reading what lies before the end.
pub(crate) fn ended(stream: &TcpStream, cx: &mut Context<'_>) -> Ended {
    match pin!(stream.ready(Interest::READABLE | Interest::WRITABLE)).poll(cx) {
        Poll::Ready(Ok(ready)) if ready.is_write_closed() => Ended::Both,
        Poll::Ready(Ok(ready)) if ready.is_read_closed() => Ended::Reading,
        Poll::Ready(Err(_)) => Ended::Both,
        _ => Ended::No,
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_stage(cx)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.up.forget(&self.admission);
        self.down.forget(&self.admission);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_tunnel_is_small() {
        assert!(size_of::<Relay>() <= 512, "{}", size_of::<Relay>());
    }
}
