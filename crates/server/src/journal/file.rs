//! The journal on disk: one thread writes what is noted, file after file, and the oldest go.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use spawnpoint_core::session::Phase;
use spawnpoint_core::{Clock, Moment, SessionId};
use spawnpoint_wire::journal::{Gap, Head, JOURNAL_VERSION, Line, Numbered};

use super::{Counts, Journal, Made};

/// Where it is, within the state directory.
pub const DIRECTORY: &str = "decisions";
/// The least that can be kept, bytes: below it files would be so short that most of them were states.
pub const LEAST_KEPT: u64 = 1024 * 1024;
/// Decisions that wait for the writer. Enough for a burst of a second; each is some hundred bytes to a few thousand.
const WAITING: usize = 8_192;
/// Lines written in one go.
const BATCH: usize = 256;
/// Longest file, bytes: what is left of a run is known from the beginning of a file, so the oldest go in pieces of this size.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;
/// What is kept is at least so many files, so that the newest is not all there is.
const FILES_KEPT: u64 = 8;
/// After a failed write nothing is tried for so long: a full disk is no reason to be busy.
const AGAIN: Duration = Duration::from_secs(5);
/// Ends of its files' names.
const SUFFIX: &str = ".jsonl";

/// A journal in a directory.
pub struct FileJournal {
    outbox: Mutex<Outbox>,
    writer: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    written: AtomicU64,
    lost: AtomicU64,
}

struct Outbox {
    /// `None`: it was closed.
    mail: Option<SyncSender<Mail>>,
    /// Left out since the last that was taken.
    lost: u64,
}

/// What goes to the writer.
struct Mail {
    /// Decisions that were left out before this one.
    lost: u64,
    /// `None` at the end, when the last ones were left out.
    made: Option<Made>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileJournal {
    /// Begins a file in this directory, which is made if it is not there, and keeps about `keep` bytes of what was written.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn open(directory: PathBuf, keep: u64, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&directory)?;
        let last = files(&directory)?.last().map_or(0, |f| f.number);
        let counts = Arc::<Shared>::default();
        let now = clock.now();
        let mut writer = Writer {
            directory,
            keep: keep.max(LEAST_KEPT),
            run: clock.wall(now).to_string(),
            clock,
            number: last,
            part: 0,
            next: 0,
            file: None,
            continues: false,
            unsaid: 0,
            try_at: now,
            failing: false,
            known: HashSet::new(),
            buffer: Vec::new(),
            counts: Arc::clone(&counts),
        };
        writer.begin_file()?;
        let (mail, inbox) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("decisions".to_owned())
            .spawn(move || writer.run(&inbox))?;
        Ok(Self {
            outbox: Mutex::new(Outbox {
                mail: Some(mail),
                lost: 0,
            }),
            writer: Mutex::new(Some(thread)),
            counts,
        })
    }

    /// Writes what is still to be written and closes the file. What is noted later is lost.
    pub fn close(&self) {
        let (mail, lost) = {
            let mut outbox = lock(&self.outbox);
            (outbox.mail.take(), std::mem::take(&mut outbox.lost))
        };
        if let Some(mail) = mail.filter(|_| lost > 0) {
            // Nobody decides anything any more: there is time to wait for room.
            let _ = mail.send(Mail { lost, made: None });
        }
        if let Some(thread) = lock(&self.writer).take() {
            // A panic in it would be a bug; nothing is left to be done about it here.
            let _ = thread.join();
        }
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal for FileJournal {
    fn note(&self, made: Made) {
        // Under one lock, or a decision made after one that was left out could be written before that is said.
        let mut outbox = lock(&self.outbox);
        let Some(mail) = &outbox.mail else {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let lost = outbox.lost;
        let made = Some(made);
        outbox.lost = match mail.try_send(Mail { lost, made }) {
            Ok(()) => 0,
            Err(_) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                lost + 1
            }
        };
    }

    fn counts(&self) -> Counts {
        Counts {
            written: self.counts.written.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed),
        }
    }
}

struct Writer {
    directory: PathBuf,
    keep: u64,
    run: String,
    clock: Arc<dyn Clock>,
    /// Of the file that is written to.
    number: u64,
    /// Of the next file in this run.
    part: u64,
    /// Of the next line in this run.
    next: u64,
    file: Option<(File, u64)>,
    /// Nothing was lost since the last file.
    continues: bool,
    /// Decisions that were left out and not said to be.
    unsaid: u64,
    try_at: Moment,
    /// That nothing can be written was said; once until it works again.
    failing: bool,
    /// Sessions whose state can be known from this file.
    known: HashSet<SessionId>,
    buffer: Vec<u8>,
    counts: Arc<Shared>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Mail>) {
        while let Ok(first) = inbox.recv() {
            let more = inbox.try_iter().take(BATCH - 1);
            let batch: Vec<Mail> = std::iter::once(first).chain(more).collect();
            self.write(batch);
        }
        if self.unsaid > 0 {
            // Perhaps there is room again: what is missing is said at least.
            self.try_at = self.clock.now();
            let (lost, made) = (0, None);
            self.write(vec![Mail { lost, made }]);
        }
    }

    /// Writes a batch; what cannot be written is counted.
    fn write(&mut self, batch: Vec<Mail>) {
        let count = batch.iter().map(|m| u64::from(m.made.is_some())).sum();
        if self.file.is_none() && !self.reopen() {
            let before: u64 = batch.iter().map(|m| m.lost).sum();
            self.unsaid += count + before;
            self.counts.lost.fetch_add(count, Ordering::Relaxed);
            return;
        }
        let (first, already) = (self.next, self.unsaid);
        let mut lost = 0;
        for mail in batch {
            lost += mail.lost;
            self.unsaid += mail.lost;
            self.put_gap();
            if let Some(made) = mail.made {
                self.put_made(made);
            }
        }
        match self.flush() {
            Ok(()) => {
                self.counts.written.fetch_add(count, Ordering::Relaxed);
            }
            Err(e) => {
                self.next = first;
                self.give_up_file(&e);
                self.unsaid = already + lost + count;
                self.counts.lost.fetch_add(count, Ordering::Relaxed);
            }
        }
        if self
            .file
            .as_ref()
            .is_some_and(|(_, n)| *n >= self.longest())
        {
            self.file = None;
            self.try_at = self.clock.now();
        }
    }

    fn put_gap(&mut self) {
        if self.unsaid > 0 {
            let lost = std::mem::take(&mut self.unsaid);
            self.put(Line::Gap(Gap { lost }));
            self.known.clear();
        }
    }

    fn put_made(&mut self, made: Made) {
        let step = match &made {
            Made::Step(step) => {
                let over = matches!(&step.result, Ok(step) if step.next.phase == Phase::Ended);
                Some((step.before.id, over))
            }
            _ => None,
        };
        let is_known = step.is_none_or(|(id, _)| !self.known.insert(id));
        let (state, line) = made.lines(is_known);
        if let Some(state) = state {
            self.put(state);
        }
        self.put(line);
        if let Some((id, true)) = step {
            self.known.remove(&id);
        }
    }

    fn put(&mut self, line: Line) {
        let n = self.next;
        self.next += 1;
        let text = Numbered { n, line }.write();
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some((file, length)) = &mut self.file else {
            return Err(io::Error::other("there is no file"));
        };
        let written = file.write_all(&self.buffer);
        if written.is_ok() {
            *length += self.buffer.len() as u64;
        }
        self.buffer.clear();
        written
    }

    /// A write failed: what of it is there is taken back, and another file is begun later.
    fn give_up_file(&mut self, e: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(error = %e, directory = %self.directory.display(), "decisions cannot be logged; trying again every few seconds");
        }
        if let Some((file, length)) = self.file.take() {
            // If that fails too the file ends in a torn line, which says what it is.
            let _ = file.set_len(length);
        }
        self.continues = false;
        self.try_at = self.clock.now().after(AGAIN);
    }

    fn reopen(&mut self) -> bool {
        if self.clock.now() < self.try_at {
            return false;
        }
        let first = self.next;
        match self.begin_file() {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(lost = self.unsaid, "decisions are logged again");
                }
                true
            }
            Err(e) => {
                self.next = first;
                self.give_up_file(&e);
                false
            }
        }
    }

    /// The next file, with its head in it. Nothing is left of one that could not be begun: while a disk is full there would be another
    /// one every few seconds.
    fn begin_file(&mut self) -> io::Result<()> {
        self.prune()?;
        let number = self.number + 1;
        let path = self.directory.join(format!("{number:08}{SUFFIX}"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        self.file = Some((file, 0));
        self.known.clear();
        let now = self.clock.now();
        self.put(Line::Head(Head {
            version: JOURNAL_VERSION,
            run: self.run.clone(),
            part: self.part,
            continues: self.continues,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            wall: self.clock.wall(now),
            now,
        }));
        if let Err(e) = self.flush() {
            self.file = None;
            // If that fails too it is an empty file, or half a head, which says what it is.
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
        self.number = number;
        self.part += 1;
        self.continues = true;
        Ok(())
    }

    fn longest(&self) -> u64 {
        LONGEST_FILE.min(self.keep / FILES_KEPT)
    }

    /// The oldest files go until there is room for the one that is to be begun.
    fn prune(&self) -> io::Result<()> {
        let room = self.keep - self.longest();
        let mut kept = 0;
        for file in files(&self.directory)?.iter().rev() {
            kept += file.length;
            if kept > room
                && let Err(e) = std::fs::remove_file(&file.path)
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
        }
        Ok(())
    }
}

/// A file of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFile {
    /// Where it is.
    pub path: PathBuf,
    /// A later one has a greater number.
    pub number: u64,
    /// Its length now, bytes.
    pub length: u64,
}

/// The files of a journal's directory, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<JournalFile>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(SUFFIX));
        let Some(number) = number.and_then(|n| n.parse().ok()) else {
            continue;
        };
        // It may be the oldest, and gone by now.
        if let Ok(about) = entry.metadata() {
            all.push(JournalFile {
                path: entry.path(),
                number,
                length: about.len(),
            });
        }
    }
    all.sort_unstable_by_key(|f| f.number);
    Ok(all)
}
