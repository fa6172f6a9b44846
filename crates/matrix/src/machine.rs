//! The processes of one state directory, and what is done to them. Linux: `/proc` says whose each is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// What a process of a state directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Shim,
    /// A game server, or something it started.
    Game,
}

/// A process that belongs to a state directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) kind: Kind,
}

/// Every shim and game of this state directory that is alive now.
pub(crate) fn processes(state: &Path) -> Vec<Process> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            Some(Process {
                pid,
                kind: kind(pid, state)?,
            })
        })
        .collect()
}

fn kind(pid: i32, state: &Path) -> Option<Kind> {
    let below = |path: &[u8]| Path::new(OsStr::from_bytes(path)).starts_with(state);
    let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let line = read("cmdline");
    let mut words = line.split(|b| *b == 0);
    // A zombie has no words.
    words.next().filter(|program| !program.is_empty())?;
    if words.next() == Some(b"shim") && words.next().is_some_and(below) {
        return Some(Kind::Shim);
    }
    let environment = read("environ");
    let file = environment
        .split(|b| *b == 0)
        .find_map(|v| v.strip_prefix(b"SPAWNPOINT_SESSION_FILE="))?;
    below(file).then_some(Kind::Game)
}

/// Whether this number is a game of this state directory now: numbers are given out again.
pub(crate) fn is_game(pid: i32, state: &Path) -> bool {
    kind(pid, state) == Some(Kind::Game)
}

/// Sends a signal; a process that is gone already hears nothing.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
