//! A client that adds next to nothing to what it measures: blocking sockets, one buffer, one write for each request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::stopwatch::Mark;

/// No answer in this time is a failure of the measurement, not a slow sample.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// The handshake's nonce; any sixteen bytes will do for a server.
const NONCE: &str = "c3Bhd25wb2ludCBiZW5jaA==";

/// What a client's frames are masked with; any four bytes will do for a server.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, if the status is one of these.
    pub(crate) fn expect(self, statuses: &[u16]) -> Result<Value> {
        ensure!(
            statuses.contains(&self.status),
            "answered {}: {}",
            self.status,
            self.body
        );
        Ok(self.body)
    }
}

/// One kept-alive HTTP connection.
pub(crate) struct Http {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            address,
            stream: dial(address)?,
            buffer: Vec::with_capacity(8 * 1024),
        })
    }

    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let head = read_head(&mut self.stream, &mut self.buffer)?;
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = status(text)?;
        let length: usize = match header(text, "content-length") {
            Some(n) => n.parse().context("Content-Length")?,
            None if status == 204 => 0,
            None => bail!("an answer without Content-Length: {text}"),
        };
        while self.buffer.len() < head + length {
            fill(&mut self.stream, &mut self.buffer)?;
        }
        let body = &self.buffer[head..head + length];
        let body = serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
        Ok(Answer { status, body })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        self.call("GET", path, None)?
            .expect(&[200])
            .with_context(|| format!("GET {path}"))
    }
}

/// A WebSocket, and when its steps were done.
pub(crate) struct Player {
    stream: TcpStream,
    /// What came and was not looked at yet.
    pending: Vec<u8>,
    /// The 101 was there.
    pub(crate) upgraded: Mark,
    /// The first byte of the game's first frame was there.
    pub(crate) first: Mark,
}

impl Player {
    /// Connects, shakes hands and waits for the game's first byte.
    pub(crate) fn open(address: SocketAddr, path: &str, player: Option<&str>) -> Result<Self> {
        let mut stream = dial(address)?;
        let who = player
            .map(|p| format!("X-Player-Id: {p}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n{who}\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut pending = Vec::with_capacity(4 * 1024);
        let head = read_head(&mut stream, &mut pending)?;
        let upgraded = Mark::now();
        let text = std::str::from_utf8(&pending[..head])?;
        ensure!(
            status(text)? == 101,
            "the handshake was refused: {}",
            String::from_utf8_lossy(&pending)
        );
        pending.drain(..head);
        if pending.is_empty() {
            fill(&mut stream, &mut pending)?;
        }
        let first = Mark::now();
        Ok(Self {
            stream,
            pending,
            upgraded,
            first,
        })
    }

    /// Opens a `ws://` URL of an answer, at `address` whatever its host is.
    pub(crate) fn follow(address: SocketAddr, url: &str) -> Result<Self> {
        Self::open(address, path_of(url)?, None)
    }

    /// The next text message.
    pub(crate) fn next_text(&mut self) -> Result<String> {
        loop {
            if let Some((opcode, payload, length)) = frame(&self.pending) {
                let (text, closed) = (
                    String::from_utf8_lossy(payload).into_owned(),
                    close(payload),
                );
                self.pending.drain(..length);
                match opcode {
                    1 => return Ok(text),
                    8 => bail!("the connection was closed: {closed}"),
                    _ => continue,
                }
            }
            fill(&mut self.stream, &mut self.pending)?;
        }
    }

    /// Sends a short text message.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        let length = u8::try_from(text.len())?;
        ensure!(length < 126, "too long for a short frame: {text}");
        let mut bytes = vec![0x81, 0x80 | length];
        bytes.extend(MASK);
        bytes.extend(text.bytes().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Takes what comes until the connection ends; when that was.
    pub(crate) fn closed(&mut self) -> Mark {
        while self.next_text().is_ok() {}
        Mark::now()
    }
}

/// The first whole frame of a server: opcode, payload, length with its head.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (opcode, short) = (bytes.first()? & 0x0f, bytes.get(1)? & 0x7f);
    let (head, length) = match short {
        126 => (
            4,
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        n => (2, u64::from(n)),
    };
    let end = head + usize::try_from(length).ok()?;
    Some((opcode, bytes.get(head..end)?, end))
}

/// What a close frame says.
fn close(payload: &[u8]) -> String {
    match payload {
        [a, b, reason @ ..] => format!(
            "{} {}",
            u16::from_be_bytes([*a, *b]),
            String::from_utf8_lossy(reason)
        ),
        _ => "without a code".to_owned(),
    }
}

/// The path and query of a URL of an answer.
pub(crate) fn path_of(url: &str) -> Result<&str> {
    let rest = url.split_once("://").context("a URL without a scheme")?.1;
    rest.find('/')
        .map(|at| &rest[at..])
        .context("a URL without a path")
}

fn dial(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads until a head is whole; its length.
fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(at + 4);
        }
        ensure!(
            buffer.len() < MAX_HEAD,
            "the head of the answer does not end"
        );
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    let mut chunk = [0_u8; 4096];
    let n = stream.read(&mut chunk).context("waiting for an answer")?;
    ensure!(
        n > 0,
        "the connection was closed; so far: {:?}",
        String::from_utf8_lossy(buffer)
    );
    buffer.extend_from_slice(&chunk[..n]);
    Ok(())
}

fn status(head: &str) -> Result<u16> {
    head.get(9..12)
        .and_then(|s| s.parse().ok())
        .with_context(|| format!("not an HTTP answer: {head}"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_or_not_there() {
        let short = [0x81, 2, b'h', b'i', 0x81];
        assert_eq!(frame(&short), Some((1, &b"hi"[..], 4)));
        assert_eq!(frame(&short[..3]), None);
        let mut long = vec![0x82, 126, 1, 0];
        long.extend([7; 256]);
        assert_eq!(
            frame(&long).map(|(o, p, n)| (o, p.len(), n)),
            Some((2, 256, 260))
        );
        assert_eq!(frame(&long[..200]), None);
        assert_eq!(frame(&[]), None);
        assert_eq!(close(b"\x03\xf4replaced"), "1012 replaced");
        assert_eq!(close(&[]), "without a code");
    }

    #[test]
    fn heads() {
        let head = "HTTP/1.1 201 Created\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(status(head).unwrap(), 201);
        assert_eq!(header(head, "Content-Length"), Some("12"));
        assert_eq!(header(head, "Date"), None);
        assert!(status("nonsense").is_err());
        assert_eq!(
            path_of("ws://localhost:8080/session/1?token=t").unwrap(),
            "/session/1?token=t"
        );
    }
}
