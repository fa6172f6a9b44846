//! One socket: the head, the handshake, then a reader and a writer until either has a reason to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::http_head::{self, Head, MAX_HEAD, Upgrade};
use crate::hub::{Feeds, Refused, Seat, ToHub};
use crate::protocol::{self, FromPlayer, MAX_CLIENT_MESSAGE};
use crate::session_file;

/// A gateway may open a socket as its readiness probe and keep it for the first player; a warm
/// instance can wait long for that. The connection limit bounds how many may do so.
const FIRST_BYTE: Duration = Duration::from_secs(15 * 60);
/// Once begun, a head comes quickly or not at all.
const HEAD: Duration = Duration::from_secs(5);
/// A player who takes no byte for this long is gone.
const SEND: Duration = Duration::from_secs(10);
/// For the other side's half of the closing handshake.
const CLOSING: Duration = Duration::from_millis(500);
/// Answers (pongs, errors) waiting for the writer; more are dropped, they are only courtesy.
const ANSWERS: usize = 16;
/// Messages a second; a page sends at most about 40.
const RATE: f64 = 90.0;
const BURST: f64 = 180.0;
/// Messages that make no sense, before the connection is closed.
const PATIENCE: u32 = 20;

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) hub: mpsc::Sender<ToHub>,
    pub(crate) feeds: Feeds,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) session_file: Option<Arc<PathBuf>>,
}

/// Why a connection ends; the reason text is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The player closed, or the network did.
    Gone,
    Close(u16, &'static str),
}

/// Serves one accepted socket to its end.
pub(crate) async fn serve(mut tcp: TcpStream, connection: u64, mut doors: Doors) {
    // States are small and late ones are worthless.
    let _ = tcp.set_nodelay(true);
    let mut bytes = Vec::new();
    let head = tokio::select! {
        head = read_head(&mut tcp, &mut bytes) => head,
        _ = doors.stop.wait_for(|stop| *stop) => None,
    };
    match head {
        None | Some(Head::Partial) => {}
        Some(Head::Answer(text)) => {
            let _ = timeout(HEAD, tcp.write_all(text.as_bytes())).await;
            let _ = timeout(HEAD, tcp.shutdown()).await;
        }
        Some(Head::Upgrade(upgrade)) => {
            let sent = timeout(HEAD, tcp.write_all(upgrade.response.as_bytes())).await;
            if matches!(sent, Ok(Ok(()))) {
                let rest = bytes.split_off(upgrade.length);
                play(tcp, rest, upgrade, connection, doors).await;
            }
        }
    }
}

async fn read_head(tcp: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Head> {
    let mut deadline = Instant::now() + FIRST_BYTE;
    loop {
        let mut chunk = [0u8; 1024];
        let room = (MAX_HEAD + 1)
            .saturating_sub(bytes.len())
            .clamp(1, chunk.len());
        let read = tokio::time::timeout_at(deadline, tcp.read(&mut chunk[..room])).await;
        let count = read.ok()?.ok()?;
        if count == 0 {
            return None;
        }
        if bytes.is_empty() {
            deadline = Instant::now() + HEAD;
        }
        bytes.extend_from_slice(&chunk[..count]);
        match http_head::parse(bytes) {
            Head::Partial => {}
            head => return Some(head),
        }
    }
}

async fn play(tcp: TcpStream, rest: Vec<u8>, upgrade: Upgrade, connection: u64, doors: Doors) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(64 * 1024)
        .max_message_size(Some(MAX_CLIENT_MESSAGE))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE));
    let mut ws = WebSocketStream::from_partially_read(tcp, rest, Role::Server, Some(config)).await;
    let player_id = upgrade
        .player_id
        .unwrap_or_else(|| format!("guest-{connection}"));
    let end = match sit(&player_id, upgrade.session_id, connection, &doors).await {
        None => End::Gone,
        Some(Err(Refused::Full)) => {
            let text = protocol::error("arena_full", "The arena is full; try again in a while.");
            let _ = timeout(SEND, ws.send(Message::text(text))).await;
            End::Close(4429, "arena_full")
        }
        Some(Err(Refused::OtherSession)) => End::Close(4403, "forbidden"),
        Some(Ok(seat)) => {
            let end = exchange(&mut ws, seat, &doors).await;
            let _ = doors
                .hub
                .send(ToHub::Leave {
                    player_id,
                    connection,
                })
                .await;
            end
        }
    };
    if let End::Close(code, reason) = end {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        let farewell = async {
            // The other side may be gone already; nothing is owed to it then.
            let _ = ws.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = ws.next().await {}
        };
        let _ = timeout(CLOSING, farewell).await;
    }
}

async fn sit(
    player_id: &str,
    session_id: Option<String>,
    connection: u64,
    doors: &Doors,
) -> Option<Result<Seat, Refused>> {
    let facts = match &doors.session_file {
        Some(path) => session_file::read(path).await,
        None => None,
    };
    let (reply, seat) = oneshot::channel();
    let request = ToHub::Sit {
        player_id: player_id.to_owned(),
        connection,
        session_id,
        facts,
        reply,
    };
    doors.hub.send(request).await.ok()?;
    seat.await.ok()
}

async fn exchange(ws: &mut WebSocketStream<TcpStream>, seat: Seat, doors: &Doors) -> End {
    let (mut sink, mut stream) = ws.split();
    let (answers, answers_out) = mpsc::channel(ANSWERS);
    tokio::select! {
        end = read(&mut stream, seat.avatar, doors, answers) => end,
        end = write(&mut sink, seat, doors, answers_out) => end,
    }
}

async fn read(
    stream: &mut (impl StreamExt<Item = Result<Message, Error>> + Unpin),
    avatar: u32,
    doors: &Doors,
    answers: mpsc::Sender<Utf8Bytes>,
) -> End {
    let mut patience = PATIENCE;
    let mut allowance = BURST;
    let mut last = Instant::now();
    while let Some(message) = stream.next().await {
        let now = Instant::now();
        allowance = (allowance + (now - last).as_secs_f64() * RATE).min(BURST) - 1.0;
        last = now;
        if allowance < 0.0 {
            return End::Close(4429, "rate_limited");
        }
        let refused = match message {
            Ok(Message::Text(text)) => match protocol::parse(&text) {
                Ok(FromPlayer::Play(command)) => {
                    if doors
                        .hub
                        .send(ToHub::Play { avatar, command })
                        .await
                        .is_err()
                    {
                        return End::Close(1001, "shutdown");
                    }
                    continue;
                }
                Ok(FromPlayer::Ping(c)) => {
                    let _ = answers.try_send(protocol::pong(c).into());
                    continue;
                }
                Err(reason) => protocol::error("bad_message", &reason),
            },
            Ok(Message::Binary(_)) => protocol::error("text_only", "Send JSON as text frames."),
            // Pings are answered by the library.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) => return End::Gone,
            Err(error) => return end_of(&error),
        };
        let _ = answers.try_send(refused.into());
        patience -= 1;
        if patience == 0 {
            return End::Close(1008, "too_many_bad_messages");
        }
    }
    End::Gone
}

fn end_of(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Close(1009, "message_too_long"),
        Error::Utf8(_) => End::Close(1007, "not_utf8"),
        Error::Protocol(_) => End::Close(1002, "protocol_error"),
        _ => End::Gone,
    }
}

async fn write(
    sink: &mut (impl SinkExt<Message, Error = Error> + Unpin),
    mut seat: Seat,
    doors: &Doors,
    mut answers: mpsc::Receiver<Utf8Bytes>,
) -> End {
    let Feeds {
        mut frames,
        mut roster,
    } = doors.feeds.clone();
    let mut stop = doors.stop.clone();
    frames.mark_unchanged();
    roster.mark_changed();
    let mut spice_sent = None;
    let mut next = std::mem::take(&mut seat.hello);
    loop {
        match timeout(SEND, sink.send(Message::Text(next))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return End::Gone,
        }
        next = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return End::Close(1001, "shutdown"),
            _ = &mut seat.ousted => return End::Close(4409, "newer_connection"),
            Some(answer) = answers.recv() => answer,
            Ok(()) = roster.changed() => roster.borrow_and_update().clone(),
            Ok(()) = frames.changed() => {
                // Published states are never empty; only the slot starts so.
                let Some(frame) = frames.borrow_and_update().clone() else { return End::Gone };
                if spice_sent == Some(frame.spice_version) {
                    frame.without_spice
                } else {
                    spice_sent = Some(frame.spice_version);
                    frame.with_spice
                }
            }
            else => return End::Close(1001, "shutdown"),
        };
    }
}
