//! The relay of a TCP game: two bare sockets and nothing in between while nothing moves.
//!
//! It behaves as the wire would: a side that finishes sending is finished on the other side too and the answers still flow; a
//! connection that is reset is reset. What is ended by us after the game's last words ends like the game's own end (FIN); what is
//! taken from a player while the session goes on elsewhere is reset, because a stream that is cut must not look whole. Only who has not
//! heard a byte of a game that is over is told so by a line of ours.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use spawnpoint_wire::close::Close;
use spawnpoint_wire::token::TokenError;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::preamble::Said;
use super::sniff::{Heard, Sniff, authorise, poll_hear};
use super::{TCP_HALF_CLOSED, TOKEN_HOLD, error_line};
use crate::config::{CLOSE_LIMIT, HALF_CLOSED, LINGER, WATCH_PERIOD, WORD_WAIT};
use crate::connect::refusal_for;
use crate::decide::Refusal;
use crate::frames::Sender;
use crate::half::{CHUNK, Half, Moved, note};
use crate::relay::{Ended, ended};
use crate::table::Admission;
use crate::tunnels::Nudge;

/// Both sides finished.
const DONE: u16 = 1000;
/// One of them was lost.
const LOST: u16 = 1006;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// It is over: what the game still says is carried to its end, nothing of the client's any more.
    Farewell {
        close: Close,
        /// Not longer than this, whoever is slow.
        until: Instant,
    },
    /// The game's connection failed before it said anything: is the session over?
    Unheard,
    /// Everything is said and our end is on its way; the client may finish.
    Lingering,
}

/// What a timer of a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// What may be a token line is not finished.
    Token,
    /// One side has finished, or takes nothing: is anybody still there?
    Watch,
    /// The present stage is over if nothing moved.
    Stage,
}

/// One tunnel. A future that ends when the connection is over.
pub(crate) struct TcpRelay {
    client: TcpStream,
    game: Option<TcpStream>,
    up: Half,
    down: Half,
    stage: Stage,
    alarm: Option<(Alarm, Pin<Box<Sleep>>)>,
    /// Both directions' moves when the alarm was set, and looks since without any.
    seen: (u32, u32),
    quiet: u32,
    down_first: bool,
    /// While the client may still say who it is.
    sniff: Option<Box<Sniff>>,
    admission: Admission,
}

/// What a poll of a part came to.
enum Step {
    /// Go on with the next part.
    On,
    /// The stage is another one now.
    Again,
    /// The tunnel is over.
    Over,
}

impl TcpRelay {
    /// Joins the two. `early`: what the client sent for the game so far.
    pub(crate) fn new(
        client: TcpStream,
        game: TcpStream,
        early: &[u8],
        sniff: Option<Box<Sniff>>,
        admission: Admission,
    ) -> Self {
        let mut relay = Self {
            client,
            game: Some(game),
            up: Half::opaque(Sender::Client),
            down: Half::opaque(Sender::Server),
            stage: Stage::Open,
            alarm: None,
            seen: (0, 0),
            quiet: 0,
            down_first: false,
            sniff,
            admission,
        };
        relay.pass_up(early);
        relay
    }

    /// Puts bytes of the client's on their way to the game. Nothing else is on that way yet.
    fn pass_up(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            note(&self.admission, Sender::Client, bytes.len(), true);
            self.up.keep(bytes, None, &self.admission);
        }
    }

    fn arm(&mut self, what: Alarm, after: Duration) {
        self.seen = (self.up.moves, self.down.moves);
        self.alarm = Some((what, Box::pin(tokio::time::sleep(after))));
    }

    fn poll_alarm(&mut self, what: Alarm, cx: &mut Context<'_>) -> bool {
        match &mut self.alarm {
            Some((armed, sleep)) if *armed == what => sleep.as_mut().poll(cx).is_ready(),
            _ => false,
        }
    }

    fn moved(&self) -> bool {
        self.seen != (self.up.moves, self.down.moves)
    }

    fn count(&self, code: u16) {
        self.admission.table().counters.closed(code);
    }

    /// The game hears that its player is gone.
    fn leave_game(&mut self, cx: &mut Context<'_>) {
        if let Some(mut game) = self.game.take() {
            let _ = Pin::new(&mut game).poll_shutdown(cx);
        }
        self.up.forget(&self.admission);
        self.admission.detach();
    }

    /// One side's connection was broken: so is the other's.
    fn broken(&mut self) -> Step {
        self.count(LOST);
        reset(&self.client);
        if let Some(game) = &self.game {
            reset(game);
        }
        Step::Over
    }

    fn begin_farewell(&mut self, close: Close, cx: &mut Context<'_>) -> Step {
        self.sniff = None;
        if is_elsewhere(close) {
            self.count(close.code);
            self.leave_game(cx);
            reset(&self.client);
            return Step::Over;
        }
        // A game that ended by itself has said all it will: a slow client may have it. One that is being ended may talk on.
        let longest = if ends_by_game(close) {
            HALF_CLOSED
        } else {
            CLOSE_LIMIT
        };
        self.stage = Stage::Farewell {
            close,
            until: Instant::now() + longest,
        };
        self.arm(Alarm::Stage, CLOSE_LIMIT);
        Step::Again
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(close) = self.admission.tunnel().poll_order(cx) {
            return Poll::Ready(self.begin_farewell(close, cx));
        }
        if self.admission.tunnel().take_nudge(Nudge::Orphaned) {
            self.admission.stand_for_somebody();
            return Poll::Ready(Step::Again);
        }
        if self.sniff.is_some()
            && let Poll::Ready(step @ (Step::Again | Step::Over)) = self.poll_sniff(cx)
        {
            return Poll::Ready(step);
        }
        // In turns: one side that never pauses uses up what a task may do in one go.
        self.down_first = !self.down_first;
        for down in [self.down_first, !self.down_first] {
            let step = if down {
                self.poll_down(cx)
            } else {
                self.poll_up(cx)
            };
            if !matches!(step, Step::On) {
                return Poll::Ready(step);
            }
        }
        if self.down.done && (self.up.done || self.up.broken) {
            self.count(DONE);
            return Poll::Ready(Step::Over);
        }
        self.poll_watch(cx)
    }

    /// Hears whether the client says who it is after all.
    fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let Some(sniff) = &mut self.sniff else {
                return Poll::Ready(Step::On);
            };
            match poll_hear(&mut sniff.preamble, &mut self.client, cx) {
                Poll::Pending => return self.poll_unfinished(cx),
                Poll::Ready(Heard::Lost) => return Poll::Ready(self.broken()),
                Poll::Ready(Heard::Said(Said::Token { token, rest })) => {
                    let known = authorise(&sniff.inner, sniff.session, &token)
                        .and_then(|player| self.admission.named(&player));
                    self.sniff = None;
                    self.alarm = None;
                    return Poll::Ready(match known {
                        Ok(()) => {
                            self.pass_up(&rest);
                            Step::Again
                        }
                        Err(refusal) => self.turn_away(&refusal, cx),
                    });
                }
                Poll::Ready(Heard::Said(Said::TooLong)) => {
                    let refusal = Refusal::BadToken(TokenError::Invalid);
                    return Poll::Ready(self.turn_away(&refusal, cx));
                }
                Poll::Ready(Heard::Said(Said::Game(bytes))) => {
                    self.sniff = None;
                    self.alarm = None;
                    self.pass_up(&bytes);
                    return Poll::Ready(Step::Again);
                }
                Poll::Ready(Heard::Said(said)) => {
                    sniff.since.get_or_insert_with(Instant::now);
                    sniff.said = said;
                }
                Poll::Ready(Heard::End) => {
                    let begun = matches!(sniff.said, Said::Begun);
                    let bytes = sniff.preamble.take();
                    self.sniff = None;
                    self.alarm = None;
                    if begun {
                        return Poll::Ready(self.turn_away(&Refusal::NoToken, cx));
                    }
                    // The end itself is read again.
                    self.pass_up(&bytes);
                    return Poll::Ready(Step::Again);
                }
            }
        }
    }

    /// A client that began to say something and did not go on.
    fn poll_unfinished(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Some(sniff) = &mut self.sniff else {
            return Poll::Ready(Step::On);
        };
        let limit = match sniff.said {
            Said::Perhaps => TOKEN_HOLD,
            Said::Begun => sniff.inner.config.token_limit,
            _ => return Poll::Pending,
        };
        let begun = sniff.said == Said::Begun;
        let due = *sniff.since.get_or_insert_with(Instant::now) + limit;
        if !matches!(&self.alarm, Some((Alarm::Token, sleep)) if sleep.deadline() == due) {
            self.alarm = Some((Alarm::Token, Box::pin(tokio::time::sleep_until(due))));
        }
        if !self.poll_alarm(Alarm::Token, cx) {
            return Poll::Pending;
        }
        if begun {
            return Poll::Ready(self.turn_away(&Refusal::NoToken, cx));
        }
        let bytes = self.sniff.take().map(|mut s| s.preamble.take());
        self.alarm = None;
        self.pass_up(&bytes.unwrap_or_default());
        Poll::Ready(Step::Again)
    }

    /// Says why this client may not play, behind what the game has said to it already.
    fn turn_away(&mut self, refusal: &Refusal, cx: &mut Context<'_>) -> Step {
        self.sniff = None;
        self.count(refusal.close().code);
        let counters = &self.admission.table().counters;
        counters.handshake(refusal.code().as_str());
        self.leave_game(cx);
        let mut last = std::mem::take(&mut self.down.pending);
        let sent = self.down.sent().min(last.len());
        last.drain(..sent);
        self.down.forget(&self.admission);
        last.extend_from_slice(&error_line(refusal));
        self.down.keep(&last, None, &self.admission);
        self.begin_lingering();
        Step::Again
    }

    /// Moves what the client sends.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Step {
        // A client that has not begun yet is heard by the sniff only.
        if self.sniff.is_some() || self.up.done || self.up.broken {
            return Step::On;
        }
        let Some(game) = self.game.as_mut() else {
            return Step::On;
        };
        let way = (Sender::Client, false);
        match self
            .up
            .poll_pump(&mut self.client, game, &self.admission, way, cx)
        {
            Poll::Pending => Step::On,
            Poll::Ready(Moved::End) => {
                self.up.done = true;
                let _ = Pin::new(game).poll_shutdown(cx);
                Step::On
            }
            // What the game has said before it went is still carried.
            Poll::Ready(Moved::SinkLost) => {
                self.up.broken = true;
                Step::On
            }
            Poll::Ready(_) => self.broken(),
        }
    }

    /// Moves what the game sends.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Step {
        if self.down.done {
            return Step::On;
        }
        let Some(game) = self.game.as_mut() else {
            return Step::On;
        };
        let way = (Sender::Server, false);
        match self
            .down
            .poll_pump(game, &mut self.client, &self.admission, way, cx)
        {
            Poll::Pending => Step::On,
            Poll::Ready(Moved::End) => {
                self.down.done = true;
                let _ = Pin::new(&mut self.client).poll_shutdown(cx);
                Step::On
            }
            Poll::Ready(Moved::SourceLost) if self.down.moves == 0 => {
                self.leave_game(cx);
                self.stage = Stage::Unheard;
                self.arm(Alarm::Stage, WORD_WAIT);
                Step::Again
            }
            Poll::Ready(_) => self.broken(),
        }
    }

    /// Waits for the control plane to say what became of a game that took the connection and died without a word: a match that is just
    /// over does so to its late comers. They have heard nothing yet, so they are told like those who come a moment later.
    fn poll_unheard(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let order = self.admission.tunnel().poll_order(cx);
        match order {
            Poll::Ready(close) if is_elsewhere(close) => Poll::Ready(self.broken()),
            Poll::Ready(close) => Poll::Ready(self.turn_away(&refusal_for(close), cx)),
            Poll::Pending if self.poll_alarm(Alarm::Stage, cx) => Poll::Ready(self.broken()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks after tunnels that are neither idle nor flowing: a client that is gone behind its own end, or behind bytes that the
    /// game does not take, and connections that nobody uses any more.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let half = self.up.done || self.up.broken || self.down.done;
        if !half && self.up.pending.is_empty() {
            if matches!(self.alarm, Some((Alarm::Watch, _))) {
                self.alarm = None;
            }
            self.quiet = 0;
            return Poll::Pending;
        }
        if matches!(self.alarm, Some((Alarm::Token, _))) {
            // First things first: that one is over soon, whatever comes of it.
            return Poll::Pending;
        }
        loop {
            if !matches!(self.alarm, Some((Alarm::Watch, _))) {
                self.arm(Alarm::Watch, WATCH_PERIOD);
            }
            if !self.poll_alarm(Alarm::Watch, cx) {
                return Poll::Pending;
            }
            self.quiet = if self.moved() { 0 } else { self.quiet + 1 };
            self.alarm = None;
            // Before we have finished ourselves only a reset ends both ways.
            let gone = !self.down.done && ended(&self.client, cx) == Ended::Both;
            let unused = half && WATCH_PERIOD.saturating_mul(self.quiet) >= TCP_HALF_CLOSED;
            if gone || unused {
                return Poll::Ready(self.broken());
            }
        }
    }

    /// Carries the game's last words.
    fn poll_farewell(&mut self, close: Close, until: Instant, cx: &mut Context<'_>) -> Poll<Step> {
        let tunnel = self.admission.tunnel();
        // Registered, or the hurry would not wake this up.
        let _ = tunnel.poll_order(cx);
        if tunnel.take_nudge(Nudge::Hurry) {
            let until = until.min(Instant::now() + CLOSE_LIMIT);
            self.stage = Stage::Farewell { close, until };
            return Poll::Ready(Step::Again);
        }
        if !self.down.done
            && let Some(game) = &mut self.game
        {
            let way = (Sender::Server, false);
            match self
                .down
                .poll_pump(game, &mut self.client, &self.admission, way, cx)
            {
                Poll::Pending => {
                    loop {
                        if !self.poll_alarm(Alarm::Stage, cx) {
                            return Poll::Pending;
                        }
                        if !self.moved() || Instant::now() >= until {
                            break;
                        }
                        let left = until.saturating_duration_since(Instant::now());
                        self.arm(Alarm::Stage, CLOSE_LIMIT.min(left));
                    }
                    if !self.down.pending.is_empty() {
                        // A client that does not take what it is told: its stream is cut, and must not look whole.
                        self.count(close.code);
                        self.leave_game(cx);
                        reset(&self.client);
                        return Poll::Ready(Step::Over);
                    }
                }
                Poll::Ready(Moved::SinkLost) => {
                    self.count(close.code);
                    return Poll::Ready(Step::Over);
                }
                Poll::Ready(_) => {}
            }
        }
        self.count(close.code);
        self.leave_game(cx);
        self.begin_lingering();
        Poll::Ready(Step::Again)
    }

    fn begin_lingering(&mut self) {
        self.stage = Stage::Lingering;
        self.arm(Alarm::Stage, LINGER);
    }

    /// Finishes, and reads what the client still sends: closing the socket over it would reset the connection.
    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.poll_alarm(Alarm::Stage, cx) {
            return Poll::Ready(Step::Over);
        }
        match self.down.poll_flush(&mut self.client, &self.admission, cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Step::Over),
            Poll::Ready(Ok(())) if !self.down.done => {
                self.down.done = true;
                let _ = Pin::new(&mut self.client).poll_shutdown(cx);
            }
            _ => {}
        }
        loop {
            let over = CHUNK.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                let read = ready!(Pin::new(&mut self.client).poll_read(cx, &mut buffer));
                Poll::Ready(read.is_err() || buffer.filled().is_empty())
            });
            if ready!(over) {
                return Poll::Ready(Step::Over);
            }
        }
    }
}

/// The session goes on and this connection's part in it is another one's, or nobody's: connecting again is right, or is not allowed.
const fn is_elsewhere(close: Close) -> bool {
    matches!(close.code, 1012 | 4403 | 4409)
}

/// Whether the game went by itself: all it said is on the way.
const fn ends_by_game(close: Close) -> bool {
    matches!(close.code, 1000 | 4500)
}

/// Closing this socket resets the connection.
fn reset(stream: &TcpStream) {
    // A socket that refuses it is closed in the ordinary way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Future for TcpRelay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let step = match self.stage {
                Stage::Open => self.poll_open(cx),
                Stage::Farewell { close, until } => self.poll_farewell(close, until, cx),
                Stage::Unheard => self.poll_unheard(cx),
                Stage::Lingering => self.poll_lingering(cx),
            };
            match ready!(step) {
                Step::On | Step::Again => {}
                Step::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for TcpRelay {
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
        assert!(size_of::<TcpRelay>() <= 512, "{}", size_of::<TcpRelay>());
    }
}
