//! A player of the bundled game who turns round now and then and watches for the state in which that is felt.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::stats::Order;
use crate::stopwatch::Mark;

/// Between two turns at least this long, ...
const TURN: Duration = Duration::from_millis(200);
/// ... and up to so much more: no step with the game's ticks, or all would be felt equally late.
const TURN_MORE_MS: u64 = 100;
/// A turn not felt in this time is not felt.
const FELT: Duration = Duration::from_secs(1);
/// A change of speed that only a turn makes, arena units a second; a tick of it is about a hundred.
const CHANGE: i64 = 20;
/// Between two wishes to enter the round.
const START_AGAIN: Duration = Duration::from_secs(1);
/// The library's default takes 128 KiB at once.
const READ_BUFFER: usize = 4 * 1024;

/// What everybody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Joining,
    WarmUp,
    Measured,
    Over,
}

/// What was felt while it was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Played {
    /// From a turn to the state that shows it.
    pub(super) inputs: Vec<Duration>,
    /// From a ping of the game's protocol to its answer.
    pub(super) answers: Vec<Duration>,
    /// Turns that no state showed.
    pub(super) missed: usize,
}

impl Played {
    pub(super) fn add(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        self.answers.extend(other.answers);
        self.missed += other.missed;
    }
}

/// Plays until all is over.
pub(super) async fn play(
    address: SocketAddr,
    path: String,
    seed: u64,
    mut stages: watch::Receiver<Stage>,
    joined: mpsc::Sender<()>,
) -> Result<Played> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0);
    let url = format!("ws://{address}{path}");
    let (mut socket, _) = client_async_with_config(url, stream, Some(config))
        .await
        .context("joining a game")?;
    let hello = hear(&mut socket).await?;
    let me = hello["id"].as_i64().context("no id in the game's hello")?;
    joined.send(()).await.context("nobody waits")?;
    let mut bot = Bot {
        me,
        order: Order::new(seed),
        played: Played::default(),
        speed: 0,
        able: false,
        right: true,
        turned: None,
        pinged: None,
        started: None,
    };
    let mut next = Instant::now() + TURN;
    loop {
        tokio::select! {
            _ = stages.changed() => if *stages.borrow_and_update() == Stage::Over {
                let _ = socket.close(None).await;
                return Ok(bot.played);
            },
            heard = hear(&mut socket) => {
                let measured = *stages.borrow() == Stage::Measured;
                if bot.hear(&heard?, measured) {
                    say(&mut socket, &json!({"t": "start"})).await?;
                }
            }
            () = sleep_until(next) => {
                next = Instant::now() + bot.pause();
                if let Some(steer) = bot.turn() {
                    say(&mut socket, &steer).await?;
                    say(&mut socket, &json!({"t": "ping", "c": 1})).await?;
                }
            }
        }
    }
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Result<Value> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
            Some(Ok(Message::Close(why))) => bail!("the game closed: {why:?}"),
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(e).context("hearing the game"),
            None => bail!("the game is gone"),
        }
    }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, what: &Value) -> Result<()> {
    Ok(socket.send(Message::text(what.to_string())).await?)
}

struct Bot {
    me: i64,
    order: Order,
    played: Played,
    /// To the right, as last seen.
    speed: i64,
    /// Runs, and would turn.
    able: bool,
    right: bool,
    /// When, and from which speed.
    turned: Option<(Mark, i64)>,
    pinged: Option<Mark>,
    started: Option<Mark>,
}

impl Bot {
    fn pause(&mut self) -> Duration {
        TURN + Duration::from_millis(self.order.below(TURN_MORE_MS))
    }

    /// The next turn, unless one is still to be felt.
    fn turn(&mut self) -> Option<Value> {
        if !self.able || self.turned.is_some() || self.pinged.is_some() {
            return None;
        }
        self.right = !self.right;
        let now = Mark::now();
        self.turned = Some((now, self.speed));
        self.pinged = Some(now);
        let x = if self.right { 1 } else { -1 };
        Some(json!({"t": "in", "x": x, "y": 0}))
    }

    /// Takes in a message; true: it should ask to (re)enter the round.
    fn hear(&mut self, message: &Value, measured: bool) -> bool {
        match message["t"].as_str() {
            Some("pong") => {
                if let Some(began) = self.pinged.take()
                    && measured
                {
                    self.played.answers.push(began.elapsed());
                }
                false
            }
            Some("s") => self.see(message, measured),
            _ => false,
        }
    }

    fn see(&mut self, state: &Value, measured: bool) -> bool {
        let rows = state["p"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(row) = rows.iter().find(|r| r[0] == self.me) else {
            return false;
        };
        let number = |at: usize| row[at].as_i64().unwrap_or(0);
        let (status, flags) = (number(1), number(6));
        self.speed = number(4);
        // Dashing and stunned figures do not turn.
        self.able = status == 1 && flags & 0b101 == 0;
        if let Some((began, from)) = self.turned {
            let change = self.speed - from;
            if !self.able {
                self.turned = None;
            } else if (if self.right { change } else { -change }) > CHANGE {
                self.turned = None;
                if measured {
                    self.played.inputs.push(began.elapsed());
                }
            } else if began.elapsed() > FELT {
                self.turned = None;
                self.played.missed += usize::from(measured);
            }
        }
        let outside = status == 0 || status == 3 || state["ph"] != "play";
        let again = self.started.is_none_or(|s| s.elapsed() > START_AGAIN);
        if outside && again {
            self.started = Some(Mark::now());
        }
        outside && again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot() -> Bot {
        Bot {
            me: 7,
            order: Order::new(1),
            played: Played::default(),
            speed: 0,
            able: false,
            right: true,
            turned: None,
            pinged: None,
            started: None,
        }
    }

    fn state(status: i64, speed: i64, flags: i64) -> Value {
        json!({"t": "s", "ph": "play", "p": [[1, 1, 0, 0, -270, 0, 0], [7, status, 0, 0, speed, 0, flags]]})
    }

    #[test]
    fn a_turn_is_felt_by_the_own_figure_only() {
        let mut bot = bot();
        assert!(bot.hear(&state(0, 0, 0), true), "asks to start");
        assert!(!bot.hear(&state(0, 0, 0), true), "not at once again");
        assert!(!bot.hear(&state(1, 270, 0), true));
        assert_eq!(bot.turn(), Some(json!({"t": "in", "x": -1, "y": 0})));
        assert_eq!(bot.turn(), None, "one at a time");
        bot.hear(&state(1, 270, 0), true);
        assert!(bot.played.inputs.is_empty());
        bot.hear(&state(1, 108, 0), true);
        assert_eq!(bot.played.inputs.len(), 1);
        bot.hear(&json!({"t": "pong", "c": 1}), true);
        assert_eq!(bot.played.answers.len(), 1);
        assert!(bot.turn().is_some());
        bot.hear(&state(1, 108, 4), true);
        bot.hear(&state(1, 270, 0), true);
        assert_eq!(
            (bot.played.inputs.len(), bot.played.missed),
            (1, 0),
            "a stunned figure does not count"
        );
    }

    #[test]
    fn what_is_felt_before_it_counts_is_not_counted() {
        let mut bot = bot();
        bot.hear(&state(1, 0, 0), false);
        assert!(bot.turn().is_some());
        bot.hear(&state(1, -80, 0), false);
        assert!(bot.played.inputs.is_empty() && bot.turned.is_none());
    }
}
