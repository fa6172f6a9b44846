//! Players that add next to nothing to what they measure: one write and one read for each message.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::stopwatch::Mark;

/// Bytes that are echoed.
pub(super) const PAYLOAD: usize = 64;
/// A client's frame: two bytes, the masking key, the payload.
pub(super) const ASKED: usize = 2 + 4 + PAYLOAD;
/// A server's frame.
pub(super) const ECHOED: usize = 2 + PAYLOAD;
/// No answer in this time is a failure of the measurement, not a slow sample.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest head of an answer.
const MAX_HEAD: usize = 4 * 1024;
/// Threads that open connections meanwhile.
const OPENERS: usize = 16;

/// What a player's program sends to open a WebSocket: the headers of a browser.
pub(super) fn handshake(address: SocketAddr, path: &str, protocols: &str) -> String {
    let protocols = if protocols.is_empty() {
        String::new()
    } else {
        format!("Sec-WebSocket-Protocol: {protocols}\r\n")
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\nOrigin: http://{address}\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\n\
         Accept-Language: en-GB,en;q=0.9\r\nSec-WebSocket-Key: c3Bhd25wb2ludCBiZW5jaA==\r\n{protocols}\r\n"
    )
}

/// The one message that is sent, masked as a client must.
fn question() -> [u8; ASKED] {
    let mut frame = [0_u8; ASKED];
    frame[0] = 0x82;
    frame[1] = 0x80 | PAYLOAD as u8;
    let mask = [0x5a, 0x11, 0xc3, 0x7e];
    frame[2..6].copy_from_slice(&mask);
    for (at, byte) in frame[6..].iter_mut().enumerate() {
        *byte = payload(at) ^ mask[at % 4];
    }
    frame
}

const fn payload(at: usize) -> u8 {
    (at as u8).wrapping_mul(37)
}

fn is_echo(frame: &[u8]) -> bool {
    let [0x82, length, body @ ..] = frame else {
        return false;
    };
    usize::from(*length) == PAYLOAD
        && body.len() == PAYLOAD
        && body
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == payload(at))
}

/// Connects and asks; the answer is not awaited.
pub(super) fn ask(address: SocketAddr, path: &str, protocols: &str) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(handshake(address, path, protocols).as_bytes())?;
    Ok(stream)
}

/// An open WebSocket over which one message has gone each way.
pub(super) fn open(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = ask(address, path, "")?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        // One read is usual. Nothing follows the head: the game speaks when it is spoken to.
        let mut chunk = [0_u8; 1024];
        let n = stream
            .read(&mut chunk)
            .context("waiting for the handshake")?;
        head.extend_from_slice(&chunk[..n]);
        ensure!(n > 0 && head.len() <= MAX_HEAD, "{}", refused(&head));
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "{}", refused(&head));
    round_trip(&mut stream)?;
    Ok(stream)
}

fn refused(head: &[u8]) -> String {
    format!(
        "the handshake was refused: {:?}",
        String::from_utf8_lossy(head)
    )
}

/// One message there and back.
pub(super) fn round_trip(stream: &mut TcpStream) -> Result<Duration> {
    let asked = question();
    let mut echoed = [0_u8; ECHOED];
    let began = Mark::now();
    stream.write_all(&asked)?;
    stream
        .read_exact(&mut echoed)
        .context("waiting for an echo")?;
    let took = began.elapsed();
    ensure!(is_echo(&echoed), "this is no echo: {echoed:?}");
    Ok(took)
}

/// Does `one` for each path, some at a time, in no order; what came of them.
pub(super) fn each<T: Send>(
    paths: &[String],
    one: impl Fn(&str) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(one(path)?);
        }
        Ok::<_, anyhow::Error>(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(paths.len());
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(_) => bail!("a player panicked"),
            }
        }
        Ok(all)
    })
}

/// Players that all talk at once, each as fast as it is answered.
pub(super) struct Crowd {
    streams: Vec<tokio::net::TcpStream>,
}

impl Crowd {
    pub(super) fn new(runtime: &Runtime, streams: Vec<TcpStream>) -> Result<Self> {
        let _inside = runtime.enter();
        let streams = streams
            .into_iter()
            .map(|s| {
                s.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(s)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { streams })
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Everybody sends this many messages; how long each took.
    pub(super) fn talk(&mut self, runtime: &Runtime, messages: usize) -> Result<Vec<Duration>> {
        let streams = std::mem::take(&mut self.streams);
        runtime.block_on(async {
            let mut talking = JoinSet::new();
            for stream in streams {
                talking.spawn(tokio::time::timeout(PATIENCE, monologue(stream, messages)));
            }
            let mut all = Vec::new();
            while let Some(done) = talking.join_next().await {
                let (stream, took) = done?.context("an echo did not come")??;
                self.streams.push(stream);
                all.extend(took);
            }
            Ok(all)
        })
    }
}

async fn monologue(
    mut stream: tokio::net::TcpStream,
    messages: usize,
) -> Result<(tokio::net::TcpStream, Vec<Duration>)> {
    let asked = question();
    let mut echoed = [0_u8; ECHOED];
    let mut took = Vec::with_capacity(messages);
    for _ in 0..messages {
        let began = Mark::now();
        stream.write_all(&asked).await?;
        stream.read_exact(&mut echoed).await?;
        took.push(began.elapsed());
        ensure!(is_echo(&echoed), "this is no echo: {echoed:?}");
    }
    Ok((stream, took))
}

/// Opens WebSockets and hangs up, `callers` at a time; how long each took from the connect to the 101, and all together.
pub(super) fn handshakes(
    runtime: &Runtime,
    address: SocketAddr,
    paths: &[String],
    callers: usize,
) -> Result<(Duration, Vec<Duration>)> {
    let requests: Arc<[String]> = paths.iter().map(|p| handshake(address, p, "")).collect();
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let began = Mark::now();
        let mut calling = JoinSet::new();
        for _ in 0..callers {
            let (requests, next) = (requests.clone(), next.clone());
            calling.spawn(tokio::time::timeout(PATIENCE, async move {
                let mut took = Vec::new();
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    took.push(shake_hands(address, request).await?);
                }
                Ok::<_, anyhow::Error>(took)
            }));
        }
        let mut all = Vec::with_capacity(requests.len());
        while let Some(done) = calling.join_next().await {
            all.extend(done?.context("a handshake was not answered")??);
        }
        Ok((began.elapsed(), all))
    })
}

async fn shake_hands(address: SocketAddr, request: &str) -> Result<Duration> {
    let began = Mark::now();
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0_u8; MAX_HEAD];
    let mut filled = 0;
    while !head[..filled].ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut head[filled..]).await?;
        filled += n;
        ensure!(n > 0, "{}", refused(&head[..filled]));
    }
    let head = &head[..filled];
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "{}", refused(head));
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_message_is_its_echo() {
        let asked = question();
        let mut echo = vec![0x82, PAYLOAD as u8];
        echo.extend(
            asked[6..]
                .iter()
                .enumerate()
                .map(|(at, b)| b ^ asked[2 + at % 4]),
        );
        assert_eq!(echo.len(), ECHOED);
        assert!(is_echo(&echo));
        echo[40] ^= 1;
        assert!(!is_echo(&echo));
        assert!(!is_echo(&asked));
    }

    #[test]
    fn every_path_is_done_once() {
        let paths: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let mut done = each(&paths, |p| Ok(p.to_owned())).unwrap();
        done.sort_by_key(|p| p.parse::<u32>().unwrap());
        assert_eq!(done, paths);
        assert!(each(&paths, |p| if p == "7" { bail!("no") } else { Ok(()) }).is_err());
    }
}
