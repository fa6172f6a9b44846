//! What the kernel says of a process: CPU time, memory, children. Linux only, as the measurements are.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of one process and of those children of it that have ended and were reaped, theirs included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) own: Duration,
    pub(crate) children: Duration,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            children: self.children.saturating_sub(earlier.children),
        }
    }
}

/// CPU time of a process so far.
pub(crate) fn cpu(pid: u32) -> Result<Cpu> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_cpu(&text, ticks_per_second()).with_context(|| format!("{path}: {text}"))
}

fn parse_cpu(stat: &str, per_second: u64) -> Option<Cpu> {
    // The name may hold spaces and parentheses; everything after the last one is plain fields, the third of all first.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|f| f.parse::<u64>().ok());
    let time = |a: u64, b: u64| Duration::from_nanos((a + b) * 1_000_000_000 / per_second);
    Some(Cpu {
        own: time(ticks(14)?, ticks(15)?),
        children: time(ticks(16)?, ticks(17)?),
    })
}

/// CPU time of the calling thread so far.
pub(crate) fn thread_cpu() -> Result<Duration> {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(spent).context("the thread's CPU time is negative")
}

/// CPU time of all threads of these processes so far, to the nanosecond: `utime + stime` of `stat` are this sum rounded to hundredths of
/// a second. For processes whose threads live as long as they do.
pub(crate) fn threads_cpu(pids: &[u32]) -> Result<Duration> {
    let mut nanos = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/task");
        for task in fs::read_dir(&path).with_context(|| path.clone())? {
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let ran = text.split_whitespace().next();
            let ran = ran.and_then(|f| f.parse::<u64>().ok());
            nanos += ran.with_context(|| format!("{}: {text}", path.display()))?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident, pages shared with others counted whole.
    pub(crate) resident: u64,
    /// Of it the process's own data: neither the program's file nor shared with anybody.
    pub(crate) own: u64,
    /// Resident, each shared page divided among those who share it (PSS).
    pub(crate) proportional: u64,
}

/// Memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = |name: &str| {
        kib(&text, name)
            .map(|k| k * 1024)
            .with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory {
        resident: bytes("Rss:")?,
        own: bytes("Anonymous:")?,
        proportional: bytes("Pss:")?,
    })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// Every process by its parent.
pub(crate) fn children() -> Result<HashMap<u32, Vec<u32>>> {
    let mut out: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        // One that ends meanwhile has no parent any more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            out.entry(parent).or_default().push(pid);
        }
    }
    Ok(out)
}

/// A process and all below it.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let tree = children()?;
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(one) = all.get(at).copied() {
        all.extend(tree.get(&one).into_iter().flatten());
        at += 1;
    }
    Ok(all)
}

/// The load averages as the kernel shows them.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What the machine is, in general words: cores, memory, system. Nothing that names it.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|t| kib(&t, "MemTotal:"))
        .unwrap_or(0);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtual_machine = info
        .lines()
        .any(|l| l.starts_with("flags") && l.split_whitespace().any(|f| f == "hypervisor"));
    let kind = if virtual_machine {
        "a shared virtual machine"
    } else {
        "a machine"
    };
    let gib = (memory as f64 / (1024.0 * 1024.0)).round();
    format!(
        "{kind} with {cores} cores and {gib:.0} GiB of memory, {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 1 1 1";
        let want = Cpu {
            own: Duration::from_secs(2),
            children: Duration::from_millis(500),
        };
        assert_eq!(parse_cpu(stat, 100), Some(want));
        assert_eq!(parse_cpu("42 (short) S 1", 100), None);
    }

    #[test]
    fn this_process_has_time_memory_and_a_parent() {
        let me = std::process::id();
        let memory = memory(me).unwrap();
        assert!(memory.resident > 0 && memory.own <= memory.resident);
        assert!(memory.proportional > 0 && memory.proportional <= memory.resident);
        assert!(threads_cpu(&[me]).unwrap() > Duration::ZERO);
        assert!(family(me).unwrap().starts_with(&[me]));
        assert!(children().unwrap().values().any(|c| c.contains(&me)));
        assert!(cpu(me).is_ok() && !load().is_empty() && machine().contains("cores"));
    }
}
