//! Lines over a socket, read so that nothing is lost when a wait for one is given up.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::Stream;
use crate::fault::Fault;

/// Longest line taken from a game, bytes.
const MAX_LINE: usize = 1024;
/// A game that takes no byte for this long is stuck.
const WRITE: Duration = Duration::from_secs(10);

/// A connection of lines.
pub(crate) struct Lines {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) const fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// As if this had come already.
    #[cfg(test)]
    pub(crate) fn buffer_for_test(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) async fn send(&mut self, line: &str) -> Result<(), Fault> {
        let line = format!("{line}\n");
        match timeout(WRITE, self.stream.write_all(line.as_bytes())).await {
            Ok(done) => done.map_err(|e| Fault::io(&e)),
            Err(_) => Err(Fault::timed_out("writing to the game")),
        }
    }

    /// The next line without its end; `None` when the other side closed. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Fault> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                let text = String::from_utf8_lossy(&line);
                return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(Fault::new(
                    "odd_answer",
                    "the game sent a line without an end",
                ));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) => return Err(Fault::io(&e)),
            }
        }
    }
}
