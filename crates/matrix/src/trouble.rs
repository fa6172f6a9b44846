//! What is done to a place besides killing: its disk, its records, its clock. The machine's own clock is never touched.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::site::Site;

/// Bytes of a state directory's own file system: the records, some dozens of instances with their logs, and no more.
const VOLUME: &str = "size=24m";
/// What fills it.
const BALLAST: &str = "ballast";

/// Runs a program of the system; its complaint is the error.
fn system(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let out = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program}: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    ))
}

/// Whether file systems may be mounted here.
///
/// # Errors
/// Why not.
pub(crate) fn can_mount() -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    mount(dir.path())?;
    unmount(dir.path())
}

fn mount(at: &std::path::Path) -> Result<(), String> {
    let words = ["-t", "tmpfs", "-o", VOLUME, "tmpfs"].map(std::ffi::OsStr::new);
    system("mount", &[&words[..], &[at.as_os_str()]].concat())
}

fn unmount(at: &std::path::Path) -> Result<(), String> {
    system("umount", &["-l".as_ref(), at.as_os_str()])
}

/// Puts the state directory on a small file system of its own. Before `up` is started.
pub(crate) fn small_disk(site: &mut Site) -> Result<(), String> {
    mount(&site.state)?;
    site.volume = true;
    Ok(())
}

/// Not one byte is left on it.
pub(crate) fn fill(site: &Site) -> Result<(), String> {
    let mut file = std::fs::File::create(site.state.join(BALLAST)).map_err(|e| e.to_string())?;
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![0_u8; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                Err(e) => return Err(format!("filling the disk: {e}")),
            }
        }
    }
    Ok(())
}

pub(crate) fn free(site: &Site) -> Result<(), String> {
    std::fs::remove_file(site.state.join(BALLAST)).map_err(|e| e.to_string())
}

/// The files of the records that nobody may change, not even root.
fn records(site: &Site) -> Vec<PathBuf> {
    ["records.db", "records.db-wal"]
        .iter()
        .map(|name| site.state.join(name))
        .filter(|path| path.exists())
        .collect()
}

/// Whether a file can be made unchangeable here.
///
/// # Errors
/// Why not.
pub(crate) fn can_lock() -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    chattr("+i", file.path())?;
    chattr("-i", file.path())
}

fn chattr(change: &str, path: &std::path::Path) -> Result<(), String> {
    system("chattr", &[change.as_ref(), path.as_os_str()])
}

pub(crate) fn lock_records(site: &Site) -> Result<(), String> {
    let files = records(site);
    if files.is_empty() {
        return Err("there are no records to lock".to_owned());
    }
    files.iter().try_for_each(|path| chattr("+i", path))
}

pub(crate) fn unlock_records(site: &Site) -> Result<(), String> {
    records(site).iter().try_for_each(|path| chattr("-i", path))
}

/// Gives everything back, so that the place can be removed.
pub(crate) fn unlock(site: &mut Site) {
    let _ = unlock_records(site);
    if site.volume {
        let _ = unmount(&site.state);
    }
}

/// The file that a build with fault points reads its wall clock's error from.
pub(crate) const OFFSET_FILE: &str = "SPAWNPOINT_FAULT_WALL_OFFSET";

/// Pushes the product's wall clock by so many seconds, for every process of this place at once.
pub(crate) fn set_wall(site: &Site, seconds: i64) -> Result<(), String> {
    let (new, file) = (site.file("wall.new"), site.file("wall"));
    std::fs::write(&new, seconds.to_string()).map_err(|e| e.to_string())?;
    std::fs::rename(new, file).map_err(|e| e.to_string())
}
