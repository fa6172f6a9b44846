//! A round of `spice` over WebSocket: run to and fro, and measure how long the game takes to show it.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::dial::Stream;
use crate::fault::Fault;
use crate::schedule::{Beat, Dice};
use crate::stats::Times;

/// The library's default would take 128 KiB a socket before the first byte.
const READ_BUFFER: usize = 4 * 1024;
/// Largest message taken, bytes: a state has four kilobytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// A change of speed that only an input of ours explains, units a second: a tenth of what a reversal causes in one tick.
const FELT: i64 = 20;
/// Close codes of a session that ended as sessions do: game over, ended by a call.
const ENDED: [u16; 2] = [1000, 4411];

/// A connection to the game.
pub(crate) type Socket = WebSocketStream<Stream>;

/// What a client does in a round.
pub(crate) struct Terms<'a> {
    /// When it has played enough.
    pub(crate) until: Instant,
    /// When it changes direction.
    pub(crate) beat: Beat,
    pub(crate) dice: Dice,
    /// From a ping's intended time to its pong.
    pub(crate) round_trips: &'a Times,
    /// From an input's intended time to the state that shows it.
    pub(crate) inputs: &'a Times,
}

/// How a round ended for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It played as long as it was to.
    Played,
    /// Somebody ended the session.
    Ended,
    /// The connection is gone, or its server is replaced.
    Closed,
}

/// Shakes hands. `url` has its token in the query.
pub(crate) async fn open(url: &str, stream: Stream) -> Result<Socket, Fault> {
    let request = url
        .into_client_request()
        .map_err(|e| Fault::new("odd_answer", format!("wsUrl cannot be dialled: {e}")))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            let text = response.into_body().unwrap_or_default();
            let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let class = problem["code"]
                .as_str()
                .map_or_else(|| format!("http_{status}"), str::to_owned);
            Err(Fault {
                transient: status >= 502,
                ..Fault::new(class, format!("the handshake was answered {status}"))
            })
        }
        Err(e) => Err(fault(&e)),
    }
}

#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
enum Told {
    Hello {
        id: i64,
    },
    #[serde(rename = "s")]
    State {
        p: Vec<Vec<i64>>,
    },
    Pong {
        c: f64,
    },
    Error {
        code: String,
    },
    #[serde(other)]
    Other,
}

/// The game's first word: which player we are.
pub(crate) async fn first_word(socket: &mut Socket) -> Result<i64, Fault> {
    loop {
        match next(socket).await? {
            Next::Told(Told::Hello { id }) => return Ok(id),
            Next::Told(Told::Error { code }) => {
                return Err(Fault::new(format!("game_{code}"), "before the first word"));
            }
            Next::Told(_) => {}
            Next::Closed(code) => return Err(closed(code)),
        }
    }
}

/// An input that no state has shown yet.
struct Steered {
    intended: Instant,
    to: i64,
}

/// Plays on until it is enough. A question that was not answered is owed: the beat is left at it.
pub(crate) async fn watch(
    socket: &mut Socket,
    own_id: i64,
    terms: &mut Terms<'_>,
) -> Result<Over, Fault> {
    let mut pinged = None;
    let over = play(socket, own_id, terms, &mut pinged).await;
    if let Some((_, intended)) = pinged {
        terms.beat.owe(intended);
    }
    over
}

async fn play(
    socket: &mut Socket,
    own_id: i64,
    terms: &mut Terms<'_>,
    pinged: &mut Option<(f64, Instant)>,
) -> Result<Over, Fault> {
    let began = Instant::now();
    if say(socket, r#"{"t":"start"}"#.to_owned()).await.is_err() {
        return Ok(Over::Closed);
    }
    let mut steered: Option<Steered> = None;
    let mut speed: Option<i64> = None;
    let mut to = 1i64;
    let mut count = 0.0;
    loop {
        tokio::select! {
            told = next(socket) => match told {
                Ok(Next::Told(Told::State { p })) => {
                    let own = p.iter().find(|row| row.first() == Some(&own_id));
                    let now = own.filter(|row| row.get(1) == Some(&1)).and_then(|row| row.get(4));
                    if let (Some(before), Some(now), Some(input)) = (speed, now, &steered)
                        && (now - before) * input.to > FELT
                    {
                        terms.inputs.record(input.intended.elapsed());
                        steered = None;
                    }
                    speed = now.copied();
                }
                Ok(Next::Told(Told::Pong { c })) => {
                    if let Some((_, intended)) = pinged.take_if(|(sent, _)| *sent == c) {
                        terms.round_trips.record(intended.elapsed());
                    }
                }
                Ok(Next::Told(Told::Error { code })) => {
                    return Err(Fault::new(format!("game_{code}"), "while playing"));
                }
                Ok(Next::Told(_)) => {}
                Ok(Next::Closed(Some(code))) if ENDED.contains(&code) => return Ok(Over::Ended),
                Ok(Next::Closed(None | Some(1001 | 1006 | 1012 | 1013))) => return Ok(Over::Closed),
                Ok(Next::Closed(code)) => return Err(closed(code)),
                Err(fault) if fault.transient => return Ok(Over::Closed),
                Err(fault) => return Err(fault),
            },
            () = sleep_until(terms.beat.next()), if pinged.is_none() => {
                let intended = terms.beat.next();
                terms.beat.asked();
                to = -to;
                // Also up and down, each client its own way.
                let y = terms.dice.share() * 0.4 - 0.2;
                count += 1.0;
                let input = format!(r#"{{"t":"in","x":{:.1},"y":{y:.2}}}"#, to as f64 * 0.9);
                let ping = format!(r#"{{"t":"ping","c":{count}}}"#);
                *pinged = Some((count, intended));
                steered = Some(Steered { intended, to });
                if say(socket, input).await.is_err() || say(socket, ping).await.is_err() {
                    return Ok(Over::Closed);
                }
            }
            () = sleep_until(terms.until) => return Ok(Over::Played),
        }
        // A round ends while matches go on: play again, as a person would.
        if began.elapsed() > Duration::from_secs(1) && speed.is_none() && steered.is_some() {
            steered = None;
            if say(socket, r#"{"t":"start"}"#.to_owned()).await.is_err() {
                return Ok(Over::Closed);
            }
        }
    }
}

enum Next {
    Told(Told),
    /// With its code, if it said one.
    Closed(Option<u16>),
}

async fn next(socket: &mut Socket) -> Result<Next, Fault> {
    loop {
        match socket.next().await {
            None => return Ok(Next::Closed(None)),
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text)
                    .map(Next::Told)
                    .map_err(|e| Fault::new("odd_answer", format!("not a message of spice: {e}")));
            }
            Some(Ok(Message::Close(frame))) => {
                return Ok(Next::Closed(frame.map(|frame| frame.code.into())));
            }
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(fault(&e)),
        }
    }
}

async fn say(socket: &mut Socket, text: String) -> Result<(), Fault> {
    socket
        .send(Message::text(text))
        .await
        .map_err(|e| fault(&e))
}

fn closed(code: Option<u16>) -> Fault {
    match code {
        Some(code) => Fault::new(format!("closed_{code}"), "the connection was closed"),
        None => Fault::transport("closed", "the connection was closed without a word"),
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::Io(e) => Fault::io(e),
        Error::ConnectionClosed | Error::AlreadyClosed => closed(None),
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => closed(None),
        other => Fault::new("websocket_error", other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_game_are_read() {
        let state = r#"{"t":"s","k":7,"ph":"play","left":9,"rd":1,"p":[[3,1,10,20,-270,0,0,0,0,1,3,40,100]],"w":[]}"#;
        let Ok(Told::State { p }) = serde_json::from_str(state) else {
            panic!("no state")
        };
        assert_eq!(p[0][4], -270);
        assert!(matches!(
            serde_json::from_str(r#"{"t":"hello","v":1,"id":3,"name":"x"}"#),
            Ok(Told::Hello { id: 3 })
        ));
        assert!(matches!(
            serde_json::from_str(r#"{"t":"who","p":[{"id":1}]}"#),
            Ok(Told::Other)
        ));
    }
}
