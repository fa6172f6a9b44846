//! A simulated game's output: the last part of it, and whoever follows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream;
use tokio::sync::Notify;

use crate::{LogRange, LogStream};

/// Bytes kept of one log: enough for a record's tail and a reader's page, little enough for ten thousand instances.
const KEPT: usize = 256 * 1024;

/// One log, shared between the game that writes and those who read.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    text: Mutex<Text>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Text {
    /// Bytes that were dropped before the first one kept.
    dropped: u64,
    kept: Vec<u8>,
    over: bool,
}

impl Log {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.0.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        let mut t = self.text();
        t.kept.extend_from_slice(bytes);
        // Drop half at a time, or every line of a full log would move all of it.
        if t.kept.len() > KEPT {
            let cut = t.kept.len() - KEPT / 2;
            t.kept.drain(..cut);
            t.dropped += cut as u64;
        }
        drop(t);
        self.0.changed.notify_waiters();
    }

    /// The game is over (or runs again): those who follow are let go, or go on.
    pub(super) fn set_over(&self, over: bool) {
        self.text().over = over;
        self.0.changed.notify_waiters();
    }

    pub(super) fn read(&self, range: LogRange) -> LogStream {
        let t = self.text();
        let end = t.dropped + t.kept.len() as u64;
        let from = match range.tail_bytes {
            Some(n) => end.saturating_sub(n).max(t.dropped),
            None => t.dropped,
        };
        drop(t);
        let until = (!range.follow).then_some(end);
        let reader = (self.clone(), from);
        Box::pin(stream::unfold(reader, move |(log, at)| async move {
            let (chunk, next) = log.next(at, until).await?;
            Some((Ok(chunk), (log, next)))
        }))
    }

    /// What was written from `at` on; waits for more unless the log is over or `until` is reached.
    async fn next(&self, at: u64, until: Option<u64>) -> Option<(Bytes, u64)> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that nothing written in between is missed.
            changed.as_mut().enable();
            {
                let t = self.text();
                let end = t.dropped + t.kept.len() as u64;
                let end = until.map_or(end, |u| u.min(end));
                if at < end {
                    let index = |n: u64| usize::try_from(n.saturating_sub(t.dropped)).unwrap_or(0);
                    let chunk = Bytes::copy_from_slice(&t.kept[index(at)..index(end)]);
                    return Some((chunk, end));
                }
                if t.over || until.is_some() {
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    #[tokio::test]
    async fn a_flood_keeps_its_end_and_readers_go_on_from_there() {
        let log = Log::default();
        log.write(b"first line\n");
        let follow = LogRange {
            tail_bytes: None,
            follow: true,
        };
        let mut reader = log.read(follow);
        for n in 0..100_000 {
            log.write(format!("line {n}\n").as_bytes());
        }
        log.set_over(true);
        let mut text = Vec::new();
        while let Some(chunk) = reader.next().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        assert!(text.len() <= KEPT);
        assert!(text.ends_with(b"line 99999\n"));
    }
}
