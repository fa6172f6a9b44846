//! Connections that are told progress: answered 101 at once, text frames with events until the game is connected, then the game's
//! own frames. Data that the client sends meanwhile stays in the kernel; control frames before it are answered, so that a client
//! library's own keep-alive does not give up on us.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use spawnpoint_core::session::Phase;
use spawnpoint_core::{Clock, SessionId};
use spawnpoint_wire::close::Close;
use spawnpoint_wire::event::{Event, EventBody};
use spawnpoint_wire::link::Route;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::Inner;
use crate::config::{LINGER, MAX_PROGRESS, WATCH_PERIOD};
use crate::connect::connect;
use crate::decide::{self, Refusal};
use crate::frames::{
    self, Follower, Head, MAX_CLIENT_CONTROL, Sender, TEXT, server_close, server_frame,
};
use crate::game::{GameLeg, GameRequest};
use crate::relay::{Ended, Leg, Relay, ended};
use crate::routes::RouteState;
use crate::say::say;
use crate::table::Admission;

/// Tells a client whose handshake was answered why it is refused.
pub(crate) async fn refuse(inner: Arc<Inner>, client: Leg, close: Close) {
    Waiting {
        stream: client.stream,
        early: client.early,
    }
    .goodbye(&inner, close)
    .await;
}

/// The whole life of a connection with progress, up to the relay.
pub(crate) async fn run(
    inner: Arc<Inner>,
    client: Leg,
    admission: Admission,
    request: GameRequest,
) {
    let counters = inner.table.counters.clone();
    let waiting = counters.progress.count();
    let client = Waiting {
        stream: client.stream,
        early: client.early,
    };
    match tell(&inner, client, admission, request).await {
        Some(relay) => {
            counters.handshake("ok");
            drop(waiting);
            inner.tracker.spawn(relay);
        }
        None => drop(waiting),
    }
}

/// How waiting ended.
enum End {
    /// The game is there and the client knows.
    Connected(Box<(Admission, GameLeg)>),
    /// The client left.
    Left,
    /// The client must be told this, under this name in the counters.
    Over(&'static str, Close),
}

async fn tell(
    inner: &Inner,
    mut client: Waiting,
    admission: Admission,
    request: GameRequest,
) -> Option<Relay> {
    match wait(inner, &mut client, admission, request).await {
        End::Connected(connected) => {
            let (admission, game) = *connected;
            let client = Leg {
                stream: client.stream,
                early: client.early,
            };
            let game = Leg {
                stream: game.stream,
                early: game.early,
            };
            return Some(Relay::new(client, game, false, admission));
        }
        End::Left => inner.table.counters.handshake("client_gone"),
        End::Over(outcome, close) => {
            inner.table.counters.handshake(outcome);
            client.goodbye(inner, close).await;
        }
    }
    None
}

async fn wait(
    inner: &Inner,
    client: &mut Waiting,
    admission: Admission,
    request: GameRequest,
) -> End {
    let clock = inner.table.clock();
    let session = admission.tunnel().session;
    let Some(mut watch) = admission.watch() else {
        return over(&Refusal::CannotKnow);
    };
    let tunnel = admission.shared_tunnel();
    let mut game = Box::pin(connect(admission, &request, &inner.config));
    let period = inner.config.progress_period;
    let mut again = interval_at(Instant::now() + period, period);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut too_long = pin!(sleep(MAX_PROGRESS));
    let (mut changed, mut gone) = (true, false);
    loop {
        if std::mem::take(&mut changed) {
            let state = watch.borrow_and_update().clone();
            if let RouteState::Live(route) = state
                && !client.say(&progress(clock, session, &route)).await
            {
                return End::Left;
            }
        }
        tokio::select! {
            biased;
            close = poll_fn(|cx| tunnel.poll_order(cx)) => return End::Over(close.reason, close),
            connected = &mut game => {
                return answered(clock, client, session, connected).await;
            }
            sign = client.sign() => match sign {
                Sign::Answer(frame) => if !client.say(&frame).await {
                    return End::Left;
                },
                Sign::Left(answer) => {
                    if let Some(answer) = answer {
                        client.say(&answer).await;
                    }
                    return End::Left;
                }
            },
            seen = watch.changed(), if !gone => {
                // An error means that the session is gone: the connecting future says so.
                changed = seen.is_ok();
                gone = seen.is_err();
            }
            _ = again.tick() => changed = true,
            () = &mut too_long => return over(&Refusal::StillStarting),
        }
    }
}

fn over(refusal: &Refusal) -> End {
    End::Over(refusal.code().as_str(), refusal.close())
}

/// The last word before the game's own: it runs, or it is over.
async fn answered(
    clock: &dyn Clock,
    client: &mut Waiting,
    session: SessionId,
    connected: Result<(Admission, GameLeg, Arc<Route>), Refusal>,
) -> End {
    match connected {
        Ok((admission, leg, route)) => {
            let body = EventBody::Phase {
                phase: Phase::Running,
                generation: route.generation,
            };
            if client.say(&event(clock, session, body)).await {
                End::Connected(Box::new((admission, leg)))
            } else {
                End::Left
            }
        }
        Err(refusal) => {
            if let Refusal::Ended(Some(reason)) = refusal {
                let body = EventBody::Ended { reason };
                client.say(&event(clock, session, body)).await;
            }
            over(&refusal)
        }
    }
}

/// What a client hears about its session now.
fn progress(clock: &dyn Clock, session: SessionId, route: &Route) -> Vec<u8> {
    let body = match (route.phase, route.position) {
        (Phase::Queued, Some(position)) => EventBody::Queued {
            position,
            waiting_for: route
                .waiting_for
                .clone()
                .unwrap_or_else(|| "capacity".to_owned()),
            estimate_s: None,
        },
        (phase, _) => EventBody::Phase {
            phase: decide::told(phase),
            generation: route.generation,
        },
    };
    event(clock, session, body)
}

fn event(clock: &dyn Clock, session: SessionId, body: EventBody) -> Vec<u8> {
    let wall = clock.wall(clock.now());
    let at = jiff::Timestamp::from_millisecond(wall).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let event = Event {
        v: 1,
        id: String::new(),
        at: at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        session_id: Some(session),
        ticket_id: None,
        body,
    };
    // Strings and numbers under string keys always serialise.
    server_frame(TEXT, &serde_json::to_vec(&event).unwrap_or_default())
}

/// Something a waiting client did.
enum Sign {
    /// It wants this frame back.
    Answer(Vec<u8>),
    /// It is gone; perhaps it still wants a last frame.
    Left(Option<Vec<u8>>),
}

/// A client whose game is not there yet.
struct Waiting {
    stream: TcpStream,
    /// Read and not used: at most what came with the handshake and the beginning of one frame.
    early: Vec<u8>,
}

impl Waiting {
    /// Writes one frame; false: the client is gone or takes nothing.
    async fn say(&mut self, frame: &[u8]) -> bool {
        say(&mut self.stream, frame).await
    }

    /// Waits until the client does something that concerns us. May be dropped at any await.
    async fn sign(&mut self) -> Sign {
        loop {
            match frames::head(&self.early) {
                Head::Control {
                    opcode,
                    length,
                    payload,
                } => {
                    self.early.drain(..length.min(self.early.len()));
                    match opcode {
                        frames::PING => return Sign::Answer(server_frame(frames::PONG, &payload)),
                        frames::CLOSE => {
                            return Sign::Left(Some(server_frame(frames::CLOSE, &payload)));
                        }
                        _ => {}
                    }
                }
                Head::Violation => return Sign::Left(Some(server_close(1002, "protocol_error"))),
                Head::Data => {
                    // Not read, so that its sender feels it; the end of the stream shows in the socket's state alone.
                    while poll_fn(|cx| Poll::Ready(ended(&self.stream, cx))).await == Ended::No {
                        sleep(WATCH_PERIOD).await;
                    }
                    return Sign::Left(None);
                }
                Head::Incomplete => {
                    if !self.read_some().await {
                        return Sign::Left(None);
                    }
                }
            }
        }
    }

    /// Reads no further than the control frame that may stand here; false: the stream has ended.
    async fn read_some(&mut self) -> bool {
        let mut room = [0u8; MAX_CLIENT_CONTROL];
        let most = MAX_CLIENT_CONTROL.saturating_sub(self.early.len()).max(1);
        loop {
            if self.stream.readable().await.is_err() {
                return false;
            }
            match self
                .stream
                .try_read(room.get_mut(..most).unwrap_or_default())
            {
                Ok(0) => return false,
                Ok(n) => {
                    self.early
                        .extend_from_slice(room.get(..n).unwrap_or_default());
                    return true;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }

    /// Says the Close and waits a little for the client's, reading over what it still sends: a socket closed with unread bytes
    /// takes back what it said last.
    async fn goodbye(mut self, inner: &Inner, close: Close) {
        inner.table.counters.closed(close.code);
        if !self.say(&server_close(close.code, close.reason)).await {
            return;
        }
        let mut follower = Follower::new(Sender::Client, false);
        follower.feed(&self.early);
        let answered = async {
            let mut over = vec![0u8; 4096];
            while !follower.closed() {
                if self.stream.readable().await.is_err() {
                    return;
                }
                match self.stream.try_read(&mut over) {
                    Ok(0) => return,
                    Ok(n) => {
                        follower.feed(over.get(..n).unwrap_or_default());
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = timeout(LINGER, answered).await;
    }
}
