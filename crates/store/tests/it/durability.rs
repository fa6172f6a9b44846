//! SIGKILL right after an insert returned: the record is there.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use spawnpoint_core::record::MatchRecord;
use spawnpoint_store::conformance::{record, session};
use spawnpoint_store::sqlite::SqliteRecords;
use spawnpoint_store::{Inserted, Records as _};

const DATABASE: &str = "STORE_TEST_DATABASE";
const FIRST: &str = "STORE_TEST_FIRST";

fn big(n: u128) -> MatchRecord {
    MatchRecord {
        log_tail: vec![b'x'; 64 * 1024],
        ..record(n, 10)
    }
}

/// Not a test of its own: what [`killed_writers_lose_nothing`] starts and kills.
#[tokio::test]
async fn writer_for_killing() {
    let Ok(path) = std::env::var(DATABASE) else {
        return;
    };
    let first: u128 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = SqliteRecords::open(path).await.unwrap();
    for n in first.. {
        assert_eq!(store.insert(&big(n)).await.unwrap(), Inserted::Now);
        println!("inserted {n}");
    }
}

#[tokio::test]
async fn killed_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let mut first = 0u128;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::writer_for_killing", "--nocapture"])
            .env(DATABASE, &path)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let said = |line: &str| line.strip_prefix("inserted ")?.parse::<u128>().ok();
        let mut lines = out.lines().map(Result::unwrap);
        let mut last = 0;
        let wanted = round * 3;
        for n in lines.by_ref().filter_map(|l| said(&l)).take(wanted) {
            last = n;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it managed to say between our last look and its death counts as well.
        last = lines.filter_map(|l| said(&l)).last().unwrap_or(last);
        assert!(last + 1 >= first + wanted as u128, "it wrote as it should");

        let store = SqliteRecords::open(&path).await.unwrap();
        for n in first..=last {
            assert_eq!(store.get(session(n)).await.unwrap(), Some(big(n)), "{n}");
        }
        // The one it may have written without having said so is whole or not there.
        let next = store.get(session(last + 1)).await.unwrap();
        first = if next.is_some() { last + 2 } else { last + 1 };
        assert!(next.is_none() || next == Some(big(last + 1)));
        store.close().await;
    }
}
