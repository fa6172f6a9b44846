//! A disk that is full, a small real one: a clear error, nothing lost, and it goes on when there is space again.

use std::path::Path;
use std::process::Command;

use spawnpoint_core::Code;
use spawnpoint_core::record::MatchRecord;
use spawnpoint_store::conformance::{record, session};
use spawnpoint_store::sqlite::{Fault, SqliteRecords};
use spawnpoint_store::{Inserted, Records as _, StoreError};

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where this user or machine cannot mount one.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output();
        match made {
            Ok(o) if o.status.success() => Some(Self(dir)),
            Ok(o) => {
                let why = String::from_utf8_lossy(&o.stderr).trim().to_owned();
                println!("SKIPPED: no small file system can be mounted here: {why}");
                None
            }
            Err(e) => {
                println!("SKIPPED: no small file system can be mounted here: {e}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn is_full(e: &StoreError) -> bool {
    matches!(e, StoreError::Unavailable { source, .. }
        if matches!(source.downcast_ref(), Some(Fault::DiskFull)))
}

fn big(n: u128) -> MatchRecord {
    MatchRecord {
        log_tail: vec![b'x'; 64 * 1024],
        ..record(n, 10)
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_heals() {
    let Some(disk) = SmallDisk::mount("size=4m") else {
        return;
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let store = SqliteRecords::open(disk.path().join("records.db"))
        .await
        .unwrap();
    let mut written = 0u128;
    let error = loop {
        match store.insert(&big(written)).await {
            Ok(done) => assert_eq!(done, Inserted::Now),
            Err(e) => break e,
        }
        written += 1;
        assert!(written < 100, "4 MiB cannot hold this many");
    };
    assert!(written > 3, "some fitted");
    assert!(is_full(&error), "{error:?}");
    assert_eq!(error.code(), Code::DatabaseUnavailable);
    // Again and again, and what was there stays readable.
    for _ in 0..3 {
        let e = store.insert(&big(written)).await.unwrap_err();
        assert!(is_full(&e), "{e:?}");
    }
    for n in 0..written {
        assert_eq!(store.get(session(n)).await.unwrap(), Some(big(n)));
    }
    assert_eq!(store.get(session(written)).await.unwrap(), None);

    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(store.insert(&big(written)).await.unwrap(), Inserted::Now);
    store.healthy().await.unwrap();
    store.close().await;
    let again = SqliteRecords::open(disk.path().join("records.db"))
        .await
        .unwrap();
    for n in 0..=written {
        assert_eq!(again.get(session(n)).await.unwrap(), Some(big(n)));
    }
    again.close().await;
}

#[tokio::test]
async fn a_disk_full_from_the_start_is_said_at_open() {
    let Some(disk) = SmallDisk::mount("size=1m") else {
        return;
    };
    let ballast = disk.path().join("ballast");
    // Fill it to the last block.
    let mut size = 1024 * 1024;
    while size > 0 && std::fs::write(&ballast, vec![0; size]).is_err() {
        size -= 4096;
    }
    let path = disk.path().join("records.db");
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Unavailable { .. }), "{e:?}");
    std::fs::remove_file(&ballast).unwrap();
    let store = SqliteRecords::open(&path).await.unwrap();
    store.insert(&record(1, 10)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_file_system_that_turns_read_only_is_said() {
    let Some(disk) = SmallDisk::mount("size=4m") else {
        return;
    };
    let path = disk.path().join("records.db");
    SqliteRecords::open(&path).await.unwrap().close().await;
    let made = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(disk.path())
        .status()
        .unwrap();
    assert!(made.success());
    let e = SqliteRecords::open(&path).await.unwrap_err();
    let said = matches!(&e, StoreError::Unavailable { source, .. }
        if matches!(source.downcast_ref(), Some(Fault::ReadOnly | Fault::CannotOpen)));
    assert!(said, "{e:?}");
}
