//! The writing side of an instance's log: two files of bounded size, and no output that is worth stopping a game for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::state_dir::{LOG_FILE, OLD_LOG_FILE};

/// Appends to `log`; at the cap it becomes `log.1` and a new one begins. When the disk takes no more, output is dropped and the
/// gap is said once there is room again.
pub(super) struct Output {
    path: PathBuf,
    old: PathBuf,
    file: Option<File>,
    size: u64,
    cap: u64,
    dropped: u64,
}

impl Output {
    pub(super) fn open(dir: &Path, cap: u64) -> Self {
        let mut output = Self {
            path: dir.join(LOG_FILE),
            old: dir.join(OLD_LOG_FILE),
            file: None,
            size: 0,
            cap: cap.max(1),
            dropped: 0,
        };
        if let Ok(file) = output.append() {
            output.size = file.metadata().map_or(0, |m| m.len());
            output.file = Some(file);
        }
        output
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// A line of the shim's own.
    pub(super) fn note(&mut self, text: &str) {
        self.write(format!("spawnpoint: {text}\n").as_bytes());
    }

    /// Writes what fits and never fails.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.size >= self.cap {
                self.rotate();
            }
            let room = usize::try_from(self.cap.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room.max(1)));
            let written = self.append_some(now);
            self.dropped += (now.len() - written) as u64;
            bytes = later;
        }
    }

    /// Bytes that reached the file.
    fn append_some(&mut self, bytes: &[u8]) -> usize {
        if self.file.is_none() {
            self.file = self.append().ok();
        }
        let Some(file) = &mut self.file else {
            return 0;
        };
        if self.dropped > 0 {
            let gap = format!(
                "\nspawnpoint: {} bytes of output were lost, the disk took no more\n",
                self.dropped
            );
            match file.write(gap.as_bytes()) {
                Ok(n) => self.size += n as u64,
                Err(_) => return 0,
            }
            self.dropped = 0;
        }
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.size += written as u64;
        written
    }

    fn rotate(&mut self) {
        if fs::rename(&self.path, &self.old).is_ok() {
            self.file = self.append().ok();
        } else if let Some(file) = &self.file {
            // No rename, no growth: begin again in the same file.
            let _ = file.set_len(0);
        }
        self.size = 0;
    }
}

/// Finds a text in a stream of chunks, wherever the chunks are cut.
pub(super) struct Needle {
    text: Vec<u8>,
    tail: Vec<u8>,
}

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            tail: Vec::new(),
        }
    }

    /// Whether the text has now been seen whole.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> bool {
        if self.text.is_empty() {
            return true;
        }
        self.tail.extend_from_slice(chunk);
        let found = self
            .tail
            .windows(self.text.len())
            .any(|window| window == self.text);
        let keep = self.tail.len().min(self.text.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_files_of_bounded_size_hold_the_newest_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(dir.path(), 100);
        let mut all = Vec::new();
        for i in 0..100 {
            let line = format!("line {i}\n");
            output.write(line.as_bytes());
            all.extend_from_slice(line.as_bytes());
        }
        output.write(&[b'x'; 350]);
        all.extend_from_slice(&[b'x'; 350]);
        let old = fs::read(dir.path().join(OLD_LOG_FILE)).unwrap();
        let new = fs::read(dir.path().join(LOG_FILE)).unwrap();
        assert_eq!(old.len(), 100);
        assert!(!new.is_empty() && new.len() <= 100);
        let kept = [old, new].concat();
        assert!(all.ends_with(&kept));
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        Output::open(dir.path(), 1_000).write(b"one\n");
        Output::open(dir.path(), 1_000).write(b"two\n");
        assert_eq!(fs::read(dir.path().join(LOG_FILE)).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn output_that_cannot_be_written_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut output = Output::open(&gone, 100);
        output.write(&[b'x'; 1_000]);
        fs::create_dir(&gone).unwrap();
        output.write(b"back\n");
        let text = fs::read_to_string(gone.join(LOG_FILE)).unwrap();
        assert!(text.contains("1000 bytes"), "{text}");
        assert!(text.ends_with("back\n"), "{text}");
    }

    proptest! {
        #[test]
        fn a_text_is_found_wherever_it_is_cut(
            before in "[ab]{0,20}", after in "[ab]{0,20}", cuts in proptest::collection::vec(1usize..6, 1..40),
        ) {
            let text = format!("{before}abba{after}");
            let mut needle = Needle::new("abba");
            let mut rest = text.as_bytes();
            let mut found = false;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, later) = rest.split_at((*cut).min(rest.len()));
                found |= needle.feed(chunk);
                rest = later;
            }
            prop_assert!(found);
            let mut other = Needle::new("abc");
            prop_assert!(!other.feed(text.as_bytes()));
        }
    }
}
