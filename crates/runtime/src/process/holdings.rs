//! What this machine has of instances: ports given out, directories and logs, processes. For an audit; nothing is decided here, and
//! nothing is removed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use spawnpoint_core::InstanceId;
use spawnpoint_core::audit::{Holding, HoldingKind};

use super::shared::{Shared, locked};
use super::state_dir::{LOG_FILE, OLD_LOG_FILE};
use super::tree;
use crate::contract::RuntimeError;

impl Shared {
    /// Everything that is kept for instances. Of those that are listed the directory and processes are named, not each file.
    pub(super) fn holdings(&self) -> Result<Vec<Holding>, RuntimeError> {
        let mut all: Vec<Holding> = locked(&self.ports)
            .owned()
            .map(|(port, of)| Holding {
                kind: HoldingKind::Port,
                name: port.to_string(),
                of: Some(of),
            })
            .collect();
        let known: HashSet<InstanceId> = locked(&self.slots).keys().copied().collect();
        self.state
            .holdings(&known, &mut all)
            .map_err(RuntimeError::Storage)?;
        processes(self.state.root(), &mut all);
        Ok(all)
    }
}

/// Directories below one, by the instance in their name. What is none of ours belongs to nobody.
pub(super) fn directories(
    dir: &Path,
    shown: &str,
    known: &HashSet<InstanceId>,
    all: &mut Vec<Holding>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // `.new-<id>` and `.gone-<id>` are on their way from and to nothing.
        let id = name
            .strip_prefix(".new-")
            .or_else(|| name.strip_prefix(".gone-"))
            .unwrap_or(&name);
        let of = id.parse::<InstanceId>().ok();
        all.push(Holding {
            kind: HoldingKind::File,
            name: format!("{shown}/{name}"),
            of,
        });
        if of.is_none_or(|of| known.contains(&of)) {
            continue;
        }
        for log in [LOG_FILE, OLD_LOG_FILE] {
            if entry.path().join(log).exists() {
                all.push(Holding {
                    kind: HoldingKind::Log,
                    name: format!("{shown}/{name}/{log}"),
                    of,
                });
            }
        }
    }
    Ok(())
}

/// Processes that carry an instance's directory in their environment (the game and what it forked) or arguments (its shim). Other
/// users' processes cannot be read, and are not ours.
fn processes(state: &Path, all: &mut Vec<Holding>) {
    let mut below = state.join("instances").as_os_str().as_bytes().to_vec();
    below.push(b'/');
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for pid in tree::processes().filter(|pid| *pid != own) {
        let Some(of) = instance_of(pid, &below) else {
            continue;
        };
        // It may have ended since, and its zombie has no say any more.
        if tree::stat(pid).is_none_or(|s| s.zombie) {
            continue;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        all.push(Holding {
            kind: HoldingKind::Process,
            name: format!("{pid} ({})", name.trim()),
            of: Some(of),
        });
    }
}

fn instance_of(pid: i32, below: &[u8]) -> Option<InstanceId> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environ
        .split(|b| *b == 0)
        .filter_map(|var| var.strip_prefix(b"SPAWNPOINT_SESSION_FILE="));
    if let Some(id) = variables.filter_map(|v| id_below(v, below)).next() {
        return Some(id);
    }
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // The shim's last argument is its instance's directory and nothing else.
    let last = arguments.split(|b| *b == 0).rfind(|a| !a.is_empty())?;
    let id = id_below(last, below)?;
    (last.len() == below.len() + id.to_string().len()).then_some(id)
}

fn id_below(path: &[u8], below: &[u8]) -> Option<InstanceId> {
    let rest = path.strip_prefix(below)?;
    let name = rest.split(|b| *b == b'/').next()?;
    OsStr::from_bytes(name).to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_known_by_a_path_below_its_state_directory_only() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let below = b"/srv/state/instances/";
        let of = |path: String| id_below(path.as_bytes(), below).map(|i| i.to_string());
        let want = Some(id.to_owned());
        assert_eq!(of(format!("/srv/state/instances/{id}/session.json")), want);
        assert_eq!(of(format!("/srv/state/instances/{id}")), want);
        assert_eq!(of(format!("/srv/other/instances/{id}/session.json")), None);
        assert_eq!(of("/srv/state/instances/notes/session.json".into()), None);
    }

    #[test]
    fn whatever_lies_among_instances_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let id = |n: u8| format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}");
        for name in [id(1), id(2), format!(".gone-{}", id(3))] {
            fs::create_dir(dir.path().join(&name)).unwrap();
            fs::write(dir.path().join(&name).join(LOG_FILE), "x").unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let known = HashSet::from([id(1).parse().unwrap()]);
        let mut all = Vec::new();
        directories(dir.path(), "instances", &known, &mut all).unwrap();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let seen: Vec<_> = all
            .iter()
            .map(|h| (h.kind, h.name.as_str(), h.of.map(|i| i.to_string())))
            .collect();
        let (file, log) = (HoldingKind::File, HoldingKind::Log);
        let name = |n, tail: &str| format!("instances/{}{tail}", id(n));
        let gone = format!("instances/.gone-{}", id(3));
        assert_eq!(
            seen,
            [
                (file, gone.as_str(), Some(id(3))),
                (log, format!("{gone}/log").as_str(), Some(id(3))),
                (file, name(1, "").as_str(), Some(id(1))),
                (file, name(2, "").as_str(), Some(id(2))),
                (log, name(2, "/log").as_str(), Some(id(2))),
                (file, "instances/notes.txt", None),
            ]
        );
    }
}
