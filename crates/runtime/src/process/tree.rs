//! Processes as the kernel shows them: who is who, who descends from whom, and how to end all of them.
//!
//! Linux reads `/proc`. Elsewhere only what `kill` can tell is known, and a process group is all that can be ended.

use std::io;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use super::pages::ProcessId;

/// Rounds of looking for what is left of a tree. Each round kills all that is seen; only a fork bomb outruns a few of them.
const SWEEP_ROUNDS: usize = 200;
/// Pause between rounds, for the killed to go.
const SWEEP_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// What `/proc/<pid>/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) zombie: bool,
    pub(super) parent: i32,
    pub(super) session: i32,
    pub(super) started: u64,
}

/// Reads one line of `/proc/<pid>/stat`. The name may hold anything, parentheses and newlines included.
pub(super) fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        zombie: matches!(state, "Z" | "X"),
        parent,
        session,
        started,
    })
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&String::from_utf8_lossy(
        &std::fs::read(format!("/proc/{pid}/stat")).ok()?,
    ))
}

/// The process with this number as it is now.
pub(super) fn identify(pid: i32) -> ProcessId {
    ProcessId {
        pid,
        started: stat(pid).map_or(0, |s| s.started),
    }
}

/// Whether that very process still runs (a zombie does not).
pub(super) fn alive(id: ProcessId) -> bool {
    if cfg!(target_os = "linux") {
        stat(id.pid).is_some_and(|s| s.started == id.started && !s.zombie)
    } else {
        Pid::from_raw(id.pid)
            .is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
    }
}

/// Sends a signal to that very process; false if it is gone.
pub(super) fn signal(id: ProcessId, signal: Signal) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(id.pid) else {
        return Ok(false);
    };
    // A descriptor pins the process between the look at its start time and the signal.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => {
                if !alive(id) {
                    return Ok(false);
                }
                return match pidfd_send_signal(&fd, signal) {
                    Ok(()) => Ok(true),
                    Err(rustix::io::Errno::SRCH) => Ok(false),
                    Err(e) => Err(e.into()),
                };
            }
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            // Not known here (an old kernel, a sandbox): by number.
            Err(_) => {}
        }
    }
    if !alive(id) {
        return Ok(false);
    }
    match kill_process(pid, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Every process that descends from `root`, without it. Complete only while `root` is a subreaper and lives.
pub(super) fn descendants(root: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(pid) = queue.pop() {
        let Some(children) = children(pid) else {
            return descendants_by_scan(root);
        };
        found.extend_from_slice(&children);
        queue.extend(children);
    }
    found
}

/// `None` where the kernel does not list children.
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Some(found);
    };
    for task in tasks.flatten() {
        match std::fs::read_to_string(task.path().join("children")) {
            Ok(list) => found.extend(
                list.split_ascii_whitespace()
                    .filter_map(|n| n.parse::<i32>().ok()),
            ),
            // The thread ended meanwhile, or there is no such file at all.
            Err(_) if task.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

fn descendants_by_scan(root: i32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = processes()
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        for (pid, _) in all.iter().filter(|(_, p)| *p == parent) {
            found.push(*pid);
            queue.push(*pid);
        }
    }
    found
}

/// The numbers of all processes there are.
pub(super) fn processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills a process group; true if there was anybody in it.
pub(super) fn kill_group(group: i32, signal: Signal) -> bool {
    Pid::from_raw(group).is_some_and(|pid| kill_process_group(pid, signal).is_ok())
}

/// Kills one process by number. Only for numbers just read from the tree of a parent that has not reaped them.
pub(super) fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends what a dead shim left: its game's group, its session, and whoever carries the instance's name in their environment.
/// Returns the number of processes that could not be ended in time.
pub(super) fn sweep_orphans(
    instance: &str,
    shim: Option<ProcessId>,
    game: Option<ProcessId>,
) -> usize {
    let mark = format!("SPAWNPOINT_INSTANCE={instance}");
    if let Some(game) = game
        && (alive(game) || !cfg!(target_os = "linux"))
    {
        kill_group(game.pid, Signal::KILL);
        kill(game.pid, Signal::KILL);
    }
    let mut left = 0;
    for _ in 0..SWEEP_ROUNDS {
        let remaining = orphans(&mark, shim);
        left = remaining.len();
        if left == 0 {
            break;
        }
        for id in remaining {
            let _ = signal(id, Signal::KILL);
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
    left
}

fn orphans(mark: &str, shim: Option<ProcessId>) -> Vec<ProcessId> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    processes()
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let stat = stat(pid)?;
            if stat.zombie {
                return None;
            }
            // A session's number is its leader's pid; a later leader of the same number started after everyone in it.
            let of_session = shim.is_some_and(|shim| {
                stat.session == shim.pid && stat.started >= shim.started && pid != shim.pid
            }) && self::stat_is_headless(shim);
            let marked = || {
                std::fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|env| env.split(|b| *b == 0).any(|var| var == mark.as_bytes()))
            };
            (of_session || marked()).then_some(ProcessId {
                pid,
                started: stat.started,
            })
        })
        .collect()
}

/// Whether the session's leader is gone, so that the number cannot be another's new session.
fn stat_is_headless(shim: Option<ProcessId>) -> bool {
    shim.is_some_and(|shim| stat(shim.pid).is_none_or(|s| s.zombie && s.started == shim.started))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_its_fields() {
        let line = "77 (a) Z 1 (b) S 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                zombie: false,
                parent: 5,
                session: 7,
                started: 4242
            })
        );
        assert_eq!(parse_stat("77 (x) S 5"), None);
    }

    #[test]
    fn a_number_alone_is_no_identity() {
        let own = identify(i32::try_from(std::process::id()).unwrap());
        assert!(alive(own));
        let other = ProcessId {
            started: own.started + 1,
            ..own
        };
        assert!(!alive(other));
        assert!(!signal(other, Signal::KILL).unwrap());
    }

    #[test]
    fn children_and_grandchildren_are_found_both_ways() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = 2_000;
        let mut seen = Vec::new();
        for _ in 0..deadline {
            seen = descendants(pid);
            if !seen.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(seen.len(), 1);
        assert_eq!(descendants_by_scan(pid), seen);
        assert!(descendants(own).contains(&seen[0]));
        kill(seen[0], Signal::KILL);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
