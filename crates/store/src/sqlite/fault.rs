//! What the database's errors mean to a caller.

use std::path::Path;

use crate::StoreError;

/// Why SQLite could not do as asked, in words for the person who can do something about it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No space left for the file or its log.
    #[error("the disk is full; free some space, nothing recorded is lost")]
    DiskFull,
    /// Another process holds a lock for longer than we wait.
    #[error("the database is locked by another process")]
    Locked,
    /// The file or its directory cannot be written.
    #[error("the database or its directory is not writable by this user")]
    ReadOnly,
    /// The file cannot be opened.
    #[error(
        "the database cannot be opened: its directory is missing, it is a directory, or this user may not read and write it"
    )]
    CannotOpen,
    /// Reading or writing the disk failed.
    #[error("the disk reported an error")]
    Disk(#[source] sqlx::Error),
    /// Every connection was in use for longer than we wait.
    #[error("the database is too busy")]
    Busy,
    /// Anything else.
    #[error("the database refused")]
    Other(#[source] sqlx::Error),
}

/// SQLite's primary result code, which the low byte of an extended one is.
fn primary_code(e: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(e) = e else {
        return None;
    };
    Some(e.code()?.parse::<i32>().ok()? & 0xff)
}

/// Sorts an error of the driver into ours. `what` completes "could not ...".
pub(super) fn store_error(what: &'static str, path: &Path, e: sqlx::Error) -> StoreError {
    let fault = match primary_code(&e) {
        Some(11 | 26) => {
            return StoreError::Corrupt {
                what: format!(
                    "{} is damaged or no SQLite database ({e}); it was left as it is: restore a backup or move it away",
                    path.display()
                ),
            };
        }
        Some(5 | 6) => Fault::Locked,
        Some(8) => Fault::ReadOnly,
        Some(10) => Fault::Disk(e),
        Some(13) => Fault::DiskFull,
        Some(3 | 14 | 23) => Fault::CannotOpen,
        _ if matches!(e, sqlx::Error::PoolTimedOut) => Fault::Busy,
        _ => Fault::Other(e),
    };
    StoreError::Unavailable {
        what,
        source: Box::new(fault),
    }
}
