//! The file of keys that sign players' tokens: `signing.keys` in the state directory, one PASERK a line, the first signs, all are valid.
//!
//! To rotate: put a new key on the first line and remove the old one once no token of it is left (a session's longest life).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use spawnpoint_server::Keys;
use spawnpoint_wire::token::{Keyring, SigningKey};

use crate::exit::Failure;

const NAME: &str = "signing.keys";
/// Keys that may be valid at once: the new one, the old one, and one more for a rotation done twice in a hurry.
const MAX_KEYS: usize = 3;
/// Largest file read, bytes: three keys take 600.
const MAX_FILE: u64 = 4 * 1024;

/// Reads the keys, or makes the first one. The state directory must be owned (one process at a time).
///
/// # Errors
/// When the file cannot be read or written, is open to others, or holds something else.
pub(crate) fn open(state_dir: &Path) -> Result<Keys, Failure> {
    let path = state_dir.join(NAME);
    let fail = |e: io::Error| {
        Failure::because(
            format!("cannot use the signing keys {}", path.display()),
            &e,
        )
    };
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate()
                .map_err(|e| Failure::because("cannot make a signing key", &e))?;
            let text = key
                .to_paserk()
                .map_err(|e| Failure::because("cannot write a signing key", &e))?;
            create(state_dir, &text).map_err(fail)?;
            read(File::open(&path).map_err(fail)?, &path)
        }
        Err(e) => Err(fail(e)),
    }
}

/// Writes the file whole or not at all: a crash in between must not leave half a key.
fn create(state_dir: &Path, text: &str) -> io::Result<()> {
    let temporary = state_dir.join(format!("{NAME}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
    let placed = written
        .and_then(|()| std::fs::rename(&temporary, state_dir.join(NAME)))
        .and_then(|()| File::open(state_dir)?.sync_all());
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed
}

fn read(mut file: File, path: &Path) -> Result<Keys, Failure> {
    let fail = |e: io::Error| {
        Failure::because(
            format!("cannot use the signing keys {}", path.display()),
            &e,
        )
    };
    let mode = file.metadata().map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::Failed(format!(
            "the signing keys {0} can be read by others of this machine: chmod 600 {0}",
            path.display()
        )));
    }
    let mut text = String::new();
    Read::by_ref(&mut file)
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(fail)?;
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    // The words never repeat what was read: it may be most of a key.
    let broken = |at: usize| {
        Failure::Failed(format!(
            "line {at} of {} is no signing key (k4.secret...); remove the file to start with a new one: players' present tokens end with it",
            path.display()
        ))
    };
    if lines.len() > MAX_KEYS {
        return Err(Failure::Failed(format!(
            "{} holds {} keys; at most {MAX_KEYS} may be valid at once",
            path.display(),
            lines.len()
        )));
    }
    let mut keys = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        keys.push(SigningKey::from_paserk(line).map_err(|_| broken(at + 1))?);
    }
    let ring = Keyring::new(keys.iter().map(|k| k.public().clone()).collect());
    let signing = keys.into_iter().next().ok_or_else(|| broken(1))?;
    Ok(Keys {
        signing,
        ring: Arc::new(ring),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_private_key_and_later_ones_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap().signing.public().kid().to_owned();
        let mode = std::fs::metadata(dir.path().join(NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(open(dir.path()).unwrap().signing.public().kid(), first);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing temporary is left"
        );
    }

    #[test]
    fn two_keys_are_valid_while_rotating_and_the_first_signs() {
        let dir = tempfile::tempdir().unwrap();
        let old = open(dir.path()).unwrap().signing.to_paserk().unwrap();
        let new = SigningKey::generate().unwrap().to_paserk().unwrap();
        std::fs::write(dir.path().join(NAME), format!("# new\n{new}\n{old}\n")).unwrap();
        let keys = open(dir.path()).unwrap();
        assert_eq!(keys.signing.to_paserk().unwrap(), new);
        assert_eq!(keys.ring.to_env().split(' ').count(), 2);
    }

    #[test]
    fn a_file_that_is_open_or_broken_is_refused_without_a_word_of_it() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(
            open(dir.path())
                .err()
                .unwrap()
                .to_string()
                .contains("chmod 600")
        );
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "k4.secret.hunter2").unwrap();
        let e = open(dir.path()).err().unwrap().to_string();
        assert!(e.contains("line 1") && !e.contains("hunter2"), "{e}");
        std::fs::write(&path, "").unwrap();
        assert!(open(dir.path()).is_err());
    }
}
