//! The run file of an instance: four fixed pages, written in place, so that what must be said can be said on a full disk.
//!
//! It is written out in full before the order counts as taken. Each page carries its own length and checksum: a reader sees a
//! whole page or none. Writers: the shim owns `Status` and `Exit`; the runtime owns `Ready` and `Stop`, and writes `Exit` only
//! under the file's lock when there is no shim that could. The lock is held by a shim for as long as it lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spawnpoint_core::time::StoredMoment;
use spawnpoint_core::{Clock, Moment};

/// File name inside the instance's directory.
pub(super) const RUN_FILE: &str = "run";
/// Bytes of one page: a disk block, so that one page is one write.
const PAGE: usize = 4096;
/// Pages in the file.
const PAGES: usize = 4;
/// Magic, length, checksum.
const HEAD: usize = 16;
const MAGIC: &[u8; 4] = b"SPr1";

/// A moment as written down: comparable within its boot by monotonic time, after it by wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) wall_ms: i64,
    pub(super) monotonic_ms: i64,
    pub(super) boot_id: String,
}

impl Stamp {
    pub(super) fn of(moment: Moment, clock: &dyn Clock) -> Self {
        Self {
            wall_ms: clock.wall(moment),
            monotonic_ms: clock.monotonic(moment),
            boot_id: clock.boot_id().to_owned(),
        }
    }

    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self::of(clock.now(), clock)
    }

    pub(super) fn moment(&self, clock: &dyn Clock) -> Moment {
        clock.restore(StoredMoment {
            wall_ms: self.wall_ms,
            monotonic_ms: self.monotonic_ms,
            boot_id: &self.boot_id,
        })
    }
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// Clock ticks since boot (Linux); 0 where the kernel does not say.
    pub(super) started: u64,
}

/// What a shim says about itself. Written first without a game (the attempt is taken), then with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) attempt: u32,
    pub(super) boot_id: String,
    pub(super) shim: ProcessId,
    pub(super) game: Option<ProcessId>,
    pub(super) spawned_at: Option<Stamp>,
    /// A line of the output had the text of the ready rule `log`.
    pub(super) line_seen_at: Option<Stamp>,
    /// Control groups made for it.
    pub(super) groups: Vec<PathBuf>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExitNote {
    pub(super) attempt: u32,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) oom: bool,
    pub(super) never_ran: bool,
    pub(super) lost: bool,
    pub(super) at: Stamp,
}

/// The attempt accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadyNote {
    pub(super) attempt: u32,
    pub(super) at: Stamp,
    pub(super) address: Option<std::net::SocketAddr>,
}

/// The instance was told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopNote {
    pub(super) attempt: u32,
    /// The durable state's version with this write.
    pub(super) version: u64,
    /// When what is left is killed.
    pub(super) kill_at: Stamp,
}

/// A page's place and content.
pub(super) trait Page: Serialize + DeserializeOwned {
    const INDEX: usize;
}

impl Page for Status {
    const INDEX: usize = 0;
}
impl Page for ExitNote {
    const INDEX: usize = 1;
}
impl Page for ReadyNote {
    const INDEX: usize = 2;
}
impl Page for StopNote {
    const INDEX: usize = 3;
}

/// The open run file.
pub(super) struct RunFile {
    file: File,
}

impl RunFile {
    /// Creates it with every block written. Fails on a full disk; nothing later does.
    pub(super) fn create(dir: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.join(RUN_FILE))?;
        file.write_all_at(&[0; PAGE * PAGES], 0)
    }

    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join(RUN_FILE))?;
        Ok(Self { file })
    }

    /// Takes the shim's lock; false if somebody has it. Held until the file is closed in every process that has it open.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The page, if one was ever written whole.
    pub(super) fn read<P: Page>(&self) -> io::Result<Option<P>> {
        let mut page = [0u8; PAGE];
        let mut filled = 0;
        while filled < PAGE {
            match self
                .file
                .read_at(&mut page[filled..], (P::INDEX * PAGE + filled) as u64)?
            {
                0 => break,
                n => filled += n,
            }
        }
        Ok(decode(&page[..filled]))
    }

    pub(super) fn write<P: Page>(&self, content: &P) -> io::Result<()> {
        let page = encode(content)?;
        self.file.write_all_at(&page, (P::INDEX * PAGE) as u64)
    }
}

pub(super) fn encode<P: Page>(content: &P) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(content)?;
    if body.len() > PAGE - HEAD {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the page is too small",
        ));
    }
    Ok(seal(&body))
}

/// A page with this body, of at most a page's length.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut page = Vec::with_capacity(HEAD + body.len());
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&len.to_le_bytes());
    page.extend_from_slice(&checksum(body).to_le_bytes());
    page.extend_from_slice(body);
    page
}

pub(super) fn decode<P: Page>(page: &[u8]) -> Option<P> {
    let (head, rest) = page.split_at_checked(HEAD)?;
    let (magic, head) = head.split_at_checked(4)?;
    let (len, sum) = head.split_at_checked(4)?;
    if magic != MAGIC {
        return None;
    }
    let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
    let body = rest.get(..len)?;
    if checksum(body) != u64::from_le_bytes(sum.try_into().ok()?) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// FNV-1a: against torn writes, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(code: i32) -> ExitNote {
        ExitNote {
            attempt: 1,
            code: Some(code),
            signal: None,
            oom: false,
            never_ran: false,
            lost: false,
            at: Stamp {
                wall_ms: 1,
                monotonic_ms: 2,
                boot_id: "b".into(),
            },
        }
    }

    #[test]
    fn a_page_is_read_whole_or_not_at_all() {
        let whole = encode(&note(3)).unwrap();
        assert_eq!(decode::<ExitNote>(&whole), Some(note(3)));
        for cut in 0..whole.len() {
            assert_eq!(decode::<ExitNote>(&whole[..cut]), None, "cut at {cut}");
        }
        for i in 0..whole.len() {
            let mut bad = whole.clone();
            bad[i] ^= 0x55;
            assert_eq!(decode::<ExitNote>(&bad), None, "byte {i} changed");
        }
    }

    #[test]
    fn pages_do_not_touch_each_other_and_are_rewritten_in_place() {
        let dir = tempfile::tempdir().unwrap();
        RunFile::create(dir.path()).unwrap();
        let run = RunFile::open(dir.path()).unwrap();
        assert_eq!(run.read::<ExitNote>().unwrap(), None);
        run.write(&note(300)).unwrap();
        run.write(&note(4)).unwrap();
        assert_eq!(run.read::<ExitNote>().unwrap(), Some(note(4)));
        assert!(run.read::<Status>().unwrap().is_none());
        assert_eq!(
            std::fs::metadata(dir.path().join(RUN_FILE)).unwrap().len(),
            (PAGE * PAGES) as u64
        );
    }

    #[test]
    fn one_holder_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        RunFile::create(dir.path()).unwrap();
        let first = RunFile::open(dir.path()).unwrap();
        let second = RunFile::open(dir.path()).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
