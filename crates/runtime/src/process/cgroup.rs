//! CPU and memory limits through control groups, version 1, 2 or both side by side, where this process may make them.
//!
//! A group is a child of the group this process is in (or of that one's parent, where version 2 forbids groups below a group
//! with processes), named after the instance. Where none can be made, games run unlimited and `doctor` says why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which interface a limit uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupVersion {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Whether one kind of limit can be set here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitSupport {
    /// It can.
    Available(GroupVersion),
    /// It cannot; the reason is for a person.
    Missing(String),
}

/// What `doctor` says about limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsReport {
    /// `memory_bytes` of a template.
    pub memory: LimitSupport,
    /// `cpu_millis` of a template.
    pub cpu: LimitSupport,
}

/// The scheduling period CPU quotas are given for, microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's smallest quota, microseconds.
const MIN_CPU_QUOTA_US: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }

    /// The file that carries the limit.
    const fn limit_file(self, version: GroupVersion) -> &'static str {
        match (self, version) {
            (Self::Memory, GroupVersion::V1) => "memory.limit_in_bytes",
            (Self::Memory, GroupVersion::V2) => "memory.max",
            (Self::Cpu, GroupVersion::V1) => "cpu.cfs_quota_us",
            (Self::Cpu, GroupVersion::V2) => "cpu.max",
        }
    }
}

/// A place where groups for a controller can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    version: GroupVersion,
    path: PathBuf,
}

/// Tries both kinds by making a group and removing it.
#[must_use]
pub fn limits_available() -> LimitsReport {
    let probe = format!("spawnpoint-probe-{}", std::process::id());
    let support = |controller| match find_parent(controller, &probe) {
        Ok(parent) => LimitSupport::Available(parent.version),
        Err(why) => LimitSupport::Missing(why),
    };
    LimitsReport {
        memory: support(Controller::Memory),
        cpu: support(Controller::Cpu),
    }
}

/// The groups of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) paths: Vec<PathBuf>,
}

impl Groups {
    /// Makes the groups for the limits asked for. What cannot be limited is said in the second value.
    pub(super) fn make(
        instance: &str,
        cpu_millis: Option<u32>,
        memory_bytes: Option<u64>,
    ) -> (Self, Vec<String>) {
        let name = format!("spawnpoint-{instance}");
        let mut groups = Self::default();
        let mut missing = Vec::new();
        let mut wanted = Vec::new();
        if let Some(bytes) = memory_bytes {
            wanted.push((Controller::Memory, bytes));
        }
        if let Some(millis) = cpu_millis {
            wanted.push((Controller::Cpu, u64::from(millis)));
        }
        for (controller, amount) in wanted {
            let made = find_parent(controller, &format!("{name}-probe")).and_then(|parent| {
                let path = parent.path.join(&name);
                make_dir(&path)
                    .and_then(|()| set_limit(&path, parent.version, controller, amount))
                    .map_err(|e| format!("{}: {e}", path.display()))?;
                Ok(path)
            });
            match made {
                Ok(path) if !groups.paths.contains(&path) => groups.paths.push(path),
                Ok(_) => {}
                Err(why) => missing.push(format!("no {} limit: {why}", controller.name())),
            }
        }
        (groups, missing)
    }

    /// Whether the kernel killed something for want of memory.
    pub(super) fn oom_killed(&self) -> bool {
        self.paths.iter().any(|path| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .filter_map(|file| fs::read_to_string(path.join(file)).ok())
                .any(|text| counter(&text, "oom_kill") > 0)
        })
    }

    /// Every process in the groups.
    pub(super) fn members(&self) -> Vec<i32> {
        self.paths
            .iter()
            .filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok())
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .collect::<Vec<i32>>()
            })
            .collect()
    }

    /// Kills all members at once where the kernel can (version 2), else one by one.
    pub(super) fn kill(&self) {
        for path in &self.paths {
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
        for pid in self.members() {
            super::tree::kill(pid, rustix::process::Signal::KILL);
        }
    }

    /// Removes the groups. Fails while a process is in them.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in &self.paths {
            match fs::remove_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn set_limit(
    path: &Path,
    version: GroupVersion,
    controller: Controller,
    amount: u64,
) -> io::Result<()> {
    match (controller, version) {
        (Controller::Memory, GroupVersion::V1) => {
            fs::write(path.join("memory.limit_in_bytes"), amount.to_string())?;
            // Swap would make a game that leaks slow instead of dead; not every kernel counts it.
            let _ = fs::write(path.join("memory.memsw.limit_in_bytes"), amount.to_string());
            Ok(())
        }
        (Controller::Memory, GroupVersion::V2) => {
            fs::write(path.join("memory.max"), amount.to_string())?;
            let _ = fs::write(path.join("memory.swap.max"), "0");
            // The game dies as a whole, not one helper of it.
            let _ = fs::write(path.join("memory.oom.group"), "1");
            Ok(())
        }
        (Controller::Cpu, version) => {
            let quota = (amount * CPU_PERIOD_US / 1_000).max(MIN_CPU_QUOTA_US);
            if version == GroupVersion::V2 {
                return fs::write(path.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"));
            }
            fs::write(path.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(path.join("cpu.cfs_quota_us"), quota.to_string())
        }
    }
}

fn counter(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Finds where groups of a controller can be made, by making one called `probe`.
fn find_parent(controller: Controller, probe: &str) -> Result<Parent, String> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|e| format!("control groups cannot be read ({path}: {e})"))
    };
    let mounts = read("/proc/self/mountinfo")?;
    let own = read("/proc/self/cgroup")?;
    let mut why = format!("no {} controller is mounted", controller.name());
    for parent in candidates(controller, &mounts, &own) {
        match try_parent(controller, &parent, probe) {
            Ok(()) => return Ok(parent),
            Err(e) => why = format!("{}: {e}", parent.path.display()),
        }
    }
    Err(why)
}

fn try_parent(controller: Controller, parent: &Parent, probe: &str) -> io::Result<()> {
    if parent.version == GroupVersion::V2 {
        let enabled = fs::read_to_string(parent.path.join("cgroup.subtree_control"))?;
        if !enabled
            .split_ascii_whitespace()
            .any(|c| c == controller.name())
        {
            fs::write(
                parent.path.join("cgroup.subtree_control"),
                format!("+{}", controller.name()),
            )?;
        }
    }
    let path = parent.path.join(probe);
    make_dir(&path)?;
    let usable = fs::OpenOptions::new()
        .write(true)
        .open(path.join(controller.limit_file(parent.version)))
        .map(|_| ());
    let _ = fs::remove_dir(&path);
    usable
}

/// Where groups of a controller might be made, best first. Pure.
fn candidates(controller: Controller, mounts: &str, own: &str) -> Vec<Parent> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let version = if id == "0" && controllers.is_empty() {
            GroupVersion::V2
        } else if controllers.split(',').any(|c| c == controller.name()) {
            GroupVersion::V1
        } else {
            continue;
        };
        let Some((root, mount)) = find_mount(mounts, version, controller) else {
            continue;
        };
        // A container sees a part of the tree mounted; its own group is named from the real root or, in a namespace, from `/`.
        let below = Path::new(group)
            .strip_prefix(&root)
            .or_else(|_| Path::new(group).strip_prefix("/"))
            .unwrap_or(Path::new(""));
        let path = mount.join(below);
        let outer = (version == GroupVersion::V2 && path != mount)
            .then(|| path.parent().map(Path::to_owned))
            .flatten();
        found.push(Parent { version, path });
        if let Some(path) = outer {
            found.push(Parent { version, path });
        }
    }
    // A controller lives in one hierarchy at a time; where version 1 has it, version 2 only looks as if.
    found.sort_by_key(|p| p.version == GroupVersion::V2);
    found
}

/// Root inside the hierarchy and mount point, from `mountinfo`.
fn find_mount(
    mounts: &str,
    version: GroupVersion,
    controller: Controller,
) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (fs_type, _, options) = (kind.next()?, kind.next()?, kind.next().unwrap_or(""));
        let fits = match version {
            GroupVersion::V2 => fs_type == "cgroup2",
            GroupVersion::V1 => {
                fs_type == "cgroup" && options.split(',').any(|o| o == controller.name())
            }
        };
        fits.then(|| (PathBuf::from(root), PathBuf::from(mount)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";
    const V2_MOUNTS: &str = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn version_1_is_used_where_it_has_the_controller() {
        let own = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/c\n";
        assert_eq!(
            candidates(Controller::Memory, HYBRID_MOUNTS, own)[0],
            Parent {
                version: GroupVersion::V1,
                path: "/sys/fs/cgroup/memory/a/b".into()
            }
        );
        assert_eq!(
            candidates(Controller::Cpu, HYBRID_MOUNTS, own)[0],
            Parent {
                version: GroupVersion::V1,
                path: "/sys/fs/cgroup/cpu,cpuacct".into()
            }
        );
    }

    #[test]
    fn version_2_tries_the_own_group_and_then_the_one_around_it() {
        let paths: Vec<_> = candidates(Controller::Memory, V2_MOUNTS, "0::/user/app/x.scope\n")
            .into_iter()
            .map(|p| p.path)
            .collect();
        assert_eq!(
            paths,
            [
                PathBuf::from("/sys/fs/cgroup/user/app/x.scope"),
                PathBuf::from("/sys/fs/cgroup/user/app")
            ]
        );
        assert_eq!(
            candidates(Controller::Memory, V2_MOUNTS, "0::/\n").len(),
            1,
            "never above the mount"
        );
        assert!(candidates(Controller::Cpu, "", "0::/\n").is_empty());
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        assert_eq!(counter("oom 3\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(counter("oom_kill_disable 1\nunder_oom 0\n", "oom_kill"), 0);
    }
}
