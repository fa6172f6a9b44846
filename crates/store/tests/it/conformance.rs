//! Every store passes the one suite.

use std::sync::atomic::{AtomicU32, Ordering};

use spawnpoint_store::conformance;
use spawnpoint_store::flaky::Flaky;
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_store::sqlite::SqliteRecords;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    conformance::run(async || MemoryRecords::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let serial = AtomicU32::new(0);
    conformance::run(async || {
        let n = serial.fetch_add(1, Ordering::SeqCst);
        SqliteRecords::open(dir.path().join(format!("{n}.db")))
            .await
            .unwrap()
    })
    .await;
}

#[tokio::test]
async fn flaky_without_failures() {
    conformance::run(async || Flaky::quiet(MemoryRecords::new())).await;
}
