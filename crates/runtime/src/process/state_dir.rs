//! The state directory: who owns it, and how instance directories come, change and go.
//!
//! ```text
//! <state>/lock                    one owner at a time; holds its pid
//! <state>/instances/<id>/         an instance (renamed into place whole)
//!     record.json  run            the durable record; the four pages of the run file
//!     session.json results.json   what the game reads; what it leaves
//!     log log.1    work/          its output; its working directory unless the template names one
//! <state>/instances/.new-<id>     being made; swept at open
//! <state>/instances/.gone-<id>    being removed; swept at open
//! <state>/torn/<id>               set aside: not readable after a power loss
//! ```
//! Nothing here is synced to disk: see `docs/decisions/0002-process-runtime-durability.md`.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use spawnpoint_core::InstanceId;
use spawnpoint_core::audit::Holding;

use super::OpenError;
use super::holdings::directories;
use super::pages::RunFile;
use super::record::{Record, Unreadable, parse};
use crate::fault;

pub(super) const RECORD_FILE: &str = "record.json";
pub(super) const SESSION_FILE: &str = "session.json";
pub(super) const RESULTS_FILE: &str = "results.json";
pub(super) const LOG_FILE: &str = "log";
pub(super) const OLD_LOG_FILE: &str = "log.1";
pub(super) const WORK_DIR: &str = "work";

/// A lock is asked for this often before somebody is said to hold it: a child that a killed owner was just forking holds a copy
/// until it has become another program, which takes a while on a busy machine.
const LOCK_TRIES: u32 = 100;
/// Pause between the tries.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// An owned state directory. The lock is held until this is dropped (or the process dies, however it dies).
#[derive(Debug)]
pub(super) struct StateDir {
    root: PathBuf,
    instances: PathBuf,
    torn: PathBuf,
    lock: Mutex<Option<File>>,
}

impl StateDir {
    /// Makes the directory private and takes the lock.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory {
            path: path.to_owned(),
            source,
        };
        private_dir(path).map_err(failed)?;
        // Games get paths below it as variables and run elsewhere: relative ones would not lead back.
        let path = path.canonicalize().map_err(failed)?;
        let lock = take_lock(&path)?;
        let instances = path.join("instances");
        let torn = path.join("torn");
        private_dir(&instances).map_err(failed)?;
        private_dir(&torn).map_err(failed)?;
        let state = Self {
            root: path,
            instances,
            torn,
            lock: Mutex::new(Some(lock)),
        };
        state.sweep().map_err(failed)?;
        Ok(state)
    }

    /// Gives the directory up before this is dropped. Nothing may be written after it.
    pub(super) fn unlock(&self) {
        self.lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Names what lies among the instances and among those set aside.
    pub(super) fn holdings(
        &self,
        known: &HashSet<InstanceId>,
        all: &mut Vec<Holding>,
    ) -> io::Result<()> {
        directories(&self.instances, "instances", known, all)?;
        directories(&self.torn, "torn", known, all)
    }

    pub(super) fn path(&self, id: InstanceId) -> PathBuf {
        self.instances.join(id.to_string())
    }

    /// Removes what a killed owner was making or removing.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.instances)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".new-") || name.starts_with(".gone-") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Every stored record. Torn ones are set aside and named in the second list; a newer version is an error, because guessing
    /// would lose what the newer release wrote.
    pub(super) fn load(&self) -> Result<(Vec<Record>, Vec<InstanceId>), OpenError> {
        let mut records = Vec::new();
        let mut torn = Vec::new();
        let failed = |source| OpenError::Directory {
            path: self.instances.clone(),
            source,
        };
        for entry in fs::read_dir(&self.instances).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<InstanceId>().ok())
            else {
                continue;
            };
            let path = entry.path();
            let text = match fs::read(path.join(RECORD_FILE)) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(e) => return Err(failed(e)),
            };
            match parse(&text) {
                Ok(record) if record.instance() == Some(id) && RunFile::open(&path).is_ok() => {
                    let _ = fs::remove_file(path.join(temp_name(RECORD_FILE)));
                    let _ = fs::remove_file(path.join(temp_name(SESSION_FILE)));
                    records.push(record);
                }
                Err(Unreadable::Newer(version)) => {
                    return Err(OpenError::NewerVersion { path, version });
                }
                Ok(_) | Err(Unreadable::Torn) => {
                    let aside = self.torn.join(id.to_string());
                    let _ = fs::remove_dir_all(&aside);
                    fs::rename(&path, &aside).map_err(failed)?;
                    torn.push(id);
                }
            }
        }
        Ok((records, torn))
    }

    /// Makes an instance's directory whole or not at all.
    pub(super) fn create(&self, id: InstanceId, record: &Record) -> io::Result<()> {
        let making = self.instances.join(format!(".new-{id}"));
        let made = self
            .fill(&making, record)
            .inspect(|()| fault::pass("state.filled"))
            .and_then(|()| fs::rename(&making, self.path(id)))
            .inspect(|()| fault::pass("state.placed"));
        if made.is_err() {
            let _ = fs::remove_dir_all(&making);
        }
        made
    }

    fn fill(&self, dir: &Path, record: &Record) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(dir)?;
        builder.create(dir.join(WORK_DIR))?;
        RunFile::create(dir)?;
        if let Some(content) = &record.session_file {
            write_new(&dir.join(SESSION_FILE), content.as_bytes())?;
        }
        write_new(&dir.join(RECORD_FILE), &serde_json::to_vec(record)?)
    }

    /// Replaces the record, and the session file with it if `session_file`. The record's rename is the point where it counts;
    /// everything that can fail for want of space is done before it.
    pub(super) fn replace(
        &self,
        id: InstanceId,
        record: &Record,
        session_file: bool,
    ) -> io::Result<()> {
        let dir = self.path(id);
        let record_temp = dir.join(temp_name(RECORD_FILE));
        let session_temp = dir.join(temp_name(SESSION_FILE));
        let content = record.session_file.as_ref().filter(|_| session_file);
        let written = (|| {
            write_over(&record_temp, &serde_json::to_vec(record)?)?;
            if let Some(content) = content {
                write_over(&session_temp, content.as_bytes())?;
            }
            fault::pass("state.drafted");
            fs::rename(&record_temp, dir.join(RECORD_FILE))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&record_temp);
            let _ = fs::remove_file(&session_temp);
            return written;
        }
        if content.is_some() {
            fault::pass("state.renamed");
            // From here on the claim stands; what is left is repaired at the next open from the record.
            fs::rename(&session_temp, dir.join(SESSION_FILE))?;
        }
        Ok(())
    }

    /// Makes the session file what the record says (a kill between the two renames).
    pub(super) fn repair_session_file(&self, id: InstanceId, record: &Record) -> io::Result<()> {
        let Some(content) = &record.session_file else {
            return Ok(());
        };
        let path = self.path(id).join(SESSION_FILE);
        if fs::read(&path).is_ok_and(|there| there == content.as_bytes()) {
            return Ok(());
        }
        let temp = self.path(id).join(temp_name(SESSION_FILE));
        write_over(&temp, content.as_bytes())?;
        fs::rename(&temp, &path)
    }

    /// Removes an instance's directory. After the first step it is gone for every reader.
    pub(super) fn remove(&self, id: InstanceId) -> io::Result<()> {
        let going = self.instances.join(format!(".gone-{id}"));
        match fs::rename(self.path(id), &going) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        fault::pass("state.leaving");
        if let Err(e) = fs::remove_dir_all(&going) {
            // A leftover process of the game may still write there; the next open sweeps it.
            tracing::warn!(instance = %id, error = %e, "an instance's directory could not be removed yet");
        }
        Ok(())
    }
}

fn temp_name(name: &str) -> String {
    format!(".{name}.tmp")
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}

fn write_over(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn take_lock(state: &Path) -> Result<File, OpenError> {
    let path = state.join("lock");
    let failed = |source| OpenError::Directory {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut tries = LOCK_TRIES;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
                return Err(OpenError::Locked {
                    path: state.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
    // Best effort: on a full disk the lock holds all the same, it only cannot say whose it is.
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(file)
}
