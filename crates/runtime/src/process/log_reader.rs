//! The reading side of an instance's log: the last bytes of two files as one, and what is written later.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use spawnpoint_core::InstanceId;

use super::shared::Shared;
use super::state_dir::{LOG_FILE, OLD_LOG_FILE};
use crate::contract::{LogRange, LogStream, RuntimeError, State};

/// Bytes of one chunk of a log stream.
const CHUNK: usize = 64 * 1024;
/// How often a followed log is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(50);
/// Looks for two files that belong together before giving up; each miss means that the log turned over meanwhile.
const OPEN_TRIES: usize = 8;

/// A position in the log.
struct Reader {
    path: PathBuf,
    /// What is left of `log.1`, read first.
    old: Option<File>,
    current: Option<File>,
}

impl Reader {
    fn open(dir: &Path, tail_bytes: Option<u64>) -> io::Result<Self> {
        let path = dir.join(LOG_FILE);
        let old_path = dir.join(OLD_LOG_FILE);
        for _ in 0..OPEN_TRIES {
            let mut current = open_if_there(&path)?;
            let mut old = open_if_there(&old_path)?;
            if let (Some(a), Some(b)) = (&current, &old)
                && a.metadata()?.ino() == b.metadata()?.ino()
            {
                // It turned over between the two opens.
                continue;
            }
            if let Some(tail) = tail_bytes {
                let len =
                    |f: &Option<File>| f.as_ref().map_or(Ok(0), |f| f.metadata().map(|m| m.len()));
                let current_len = len(&current)?;
                let old_wanted = tail.saturating_sub(current_len);
                if old_wanted == 0 {
                    old = None;
                } else if let Some(file) = &mut old {
                    let len = file.metadata()?.len();
                    file.seek(SeekFrom::Start(len.saturating_sub(old_wanted)))?;
                }
                if let Some(file) = &mut current {
                    file.seek(SeekFrom::Start(current_len.saturating_sub(tail)))?;
                }
            }
            return Ok(Self { path, old, current });
        }
        Err(io::Error::other("the log turns over too fast to be read"))
    }

    /// The next bytes; empty at the present end.
    fn read(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(old) = &mut self.old {
                match old.read(&mut chunk)? {
                    0 => self.old = None,
                    n => {
                        chunk.truncate(n);
                        return Ok(chunk.into());
                    }
                }
                continue;
            }
            let Some(current) = &mut self.current else {
                self.current = open_if_there(&self.path)?;
                if self.current.is_none() {
                    return Ok(Bytes::new());
                }
                continue;
            };
            match current.read(&mut chunk)? {
                0 => {}
                n => {
                    chunk.truncate(n);
                    return Ok(chunk.into());
                }
            }
            // At the end: of the log, or of a file that has become `log.1`. Its last bytes may have come after the read above.
            match open_if_there(&self.path)? {
                Some(new) if new.metadata()?.ino() != current.metadata()?.ino() => {
                    self.old = self.current.replace(new);
                }
                _ => return Ok(Bytes::new()),
            }
        }
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) async fn open(
    shared: &Arc<Shared>,
    id: InstanceId,
    range: LogRange,
) -> Result<LogStream, RuntimeError> {
    shared.get(id).ok_or(RuntimeError::NotFound)?;
    let dir = shared.dir(id);
    let reader = tokio::task::spawn_blocking(move || Reader::open(&dir, range.tail_bytes))
        .await
        .map_err(|e| RuntimeError::OutcomeUnknown(e.to_string()))?
        .map_err(|_| RuntimeError::NoLog)?;
    let start = (reader, Arc::downgrade(shared));
    let chunks = stream::unfold(Some(start), move |state| async move {
        let (reader, shared) = state?;
        match next(reader, &shared, id, range.follow).await {
            Ok(Some((chunk, reader))) => Some((Ok(chunk), Some((reader, shared)))),
            Ok(None) => None,
            Err(e) => Some((Err(RuntimeError::Storage(e)), None)),
        }
    });
    Ok(chunks.take_until(shared.closed()).boxed())
}

/// The next chunk, waiting for it if the log is followed and the instance is not over.
async fn next(
    mut reader: Reader,
    shared: &Weak<Shared>,
    id: InstanceId,
    follow: bool,
) -> io::Result<Option<(Bytes, Reader)>> {
    loop {
        // Asked before the read: what is written before an end is read before the end is believed.
        let over = !follow
            || shared
                .upgrade()
                .and_then(|s| s.get(id))
                .is_none_or(|i| matches!(i.state, State::Exited(_)));
        let (chunk, back) = tokio::task::spawn_blocking(move || {
            let chunk = reader.read();
            (chunk, reader)
        })
        .await
        .map_err(io::Error::other)?;
        reader = back;
        let chunk = chunk?;
        if !chunk.is_empty() {
            return Ok(Some((chunk, reader)));
        }
        if over {
            return Ok(None);
        }
        tokio::time::sleep(FOLLOW_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Output;
    use super::*;

    fn rest(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let chunk = reader.read().unwrap();
            if chunk.is_empty() {
                return all;
            }
            all.extend_from_slice(&chunk);
        }
    }

    #[test]
    fn a_tail_goes_over_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(dir.path(), 10);
        output.write(b"0123456789abcde");
        for (tail, want) in [
            (None, "0123456789abcde"),
            (Some(100), "0123456789abcde"),
            (Some(8), "789abcde"),
            (Some(5), "abcde"),
            (Some(2), "de"),
            (Some(0), ""),
        ] {
            let mut reader = Reader::open(dir.path(), tail).unwrap();
            assert_eq!(rest(&mut reader), want.as_bytes(), "{tail:?}");
        }
    }

    #[test]
    fn following_goes_over_a_turn_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(dir.path(), None).unwrap();
        assert!(rest(&mut reader).is_empty());
        let mut output = Output::open(dir.path(), 10);
        let mut all = Vec::new();
        let mut seen = Vec::new();
        for i in 0..50u8 {
            let line = [b'a' + i % 26; 7];
            output.write(&line);
            all.extend_from_slice(&line);
            seen.extend(rest(&mut reader));
        }
        assert_eq!(seen, all);
    }
}
