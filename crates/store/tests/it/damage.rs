//! Files that are not what they should be: a clear error, and the file is left as it was.

use std::os::unix::fs::PermissionsExt as _;

use spawnpoint_core::{Code, Side};
use spawnpoint_store::conformance::{record, session};
use spawnpoint_store::sqlite::{Fault, SqliteRecords};
use spawnpoint_store::{Filter, Records as _, StoreError};

fn fault(e: &StoreError) -> Option<&Fault> {
    match e {
        StoreError::Unavailable { source, .. } => source.downcast_ref(),
        _ => None,
    }
}

#[tokio::test]
async fn the_files_are_for_this_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    store.insert(&record(1, 10)).await.unwrap();
    for name in ["records.db", "records.db-wal", "records.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn closing_folds_everything_into_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    store.insert(&record(1, 10)).await.unwrap();
    store.get(session(1)).await.unwrap().unwrap();
    store.close().await;
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["records.db"]);
    let again = SqliteRecords::open(&path).await.unwrap();
    assert!(again.get(session(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let garbage = b"these are my holiday notes, not a database\n".repeat(100);
    std::fs::write(&path, &garbage).unwrap();
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert!(e.to_string().contains("records.db"), "{e}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn a_database_damaged_in_the_middle_is_an_error_and_not_an_empty_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    for n in 0..200 {
        store.insert(&record(n, 10)).await.unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    // All but the first page: the schema still reads, the tables do not.
    for b in &mut bytes[4096..] {
        *b = 0xa5;
    }
    std::fs::write(&path, &bytes).unwrap();
    // Opening reads some of it and may see the damage already.
    let e = match SqliteRecords::open(&path).await {
        Err(e) => e,
        Ok(store) => store.list(&Filter::default(), None, 10).await.unwrap_err(),
    };
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert_eq!(e.code(), Code::Internal);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bookmarks.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    use sqlx::Connection as _;
    let mut conn = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE bookmarks (url TEXT)")
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Incompatible { .. }), "{e:?}");
    let mut conn = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema")
        .fetch_all(&mut conn)
        .await
        .unwrap();
    assert_eq!(tables, ["bookmarks"], "nothing of ours was put into it");
}

#[tokio::test]
async fn a_place_that_cannot_be_opened_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no/such/records.db");
    let e = SqliteRecords::open(&missing).await.unwrap_err();
    assert_eq!(e.code(), Code::DatabaseUnavailable);
    assert_eq!(e.side(), Side::Platform);
    let e = SqliteRecords::open(dir.path()).await.unwrap_err();
    assert!(matches!(fault(&e), Some(Fault::CannotOpen)), "{e:?}");
}

#[tokio::test]
async fn a_file_this_user_may_not_write_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    SqliteRecords::open(&path).await.unwrap().close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        println!("SKIPPED: this user may write any file (root); permissions do not bind it");
        return;
    }
    let e = SqliteRecords::open(&path).await.unwrap_err();
    let said = matches!(fault(&e), Some(Fault::ReadOnly | Fault::CannotOpen));
    assert!(said, "{e:?}");
}

#[tokio::test]
async fn odd_names_are_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a?mode=memory", "a#b %20", "\u{1f9c2}.db", "file:x"] {
        let path = dir.path().join(name);
        let store = SqliteRecords::open(&path).await.unwrap();
        store.insert(&record(1, 10)).await.unwrap();
        store.close().await;
        assert!(std::fs::metadata(&path).unwrap().len() > 4096, "{name}");
    }
}

#[tokio::test]
async fn two_processes_may_share_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let (a, b) = tokio::join!(SqliteRecords::open(&path), SqliteRecords::open(&path));
    let (a, b) = (a.unwrap(), b.unwrap());
    a.insert(&record(1, 10)).await.unwrap();
    b.insert(&record(2, 10)).await.unwrap();
    assert!(a.get(session(2)).await.unwrap().is_some());
    assert!(b.get(session(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(dir.path().join("records.db"))
        .await
        .unwrap();
    // Dropped after each number of polls: before, within and after the transaction.
    for polls in 0..40u128 {
        let r = record(polls, 10);
        let mut insert = store.insert(&r);
        for _ in 0..polls {
            if futures::poll!(&mut insert).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(insert);
        let kept = store.get(r.session).await.unwrap();
        assert!(kept.is_none() || kept.as_ref() == Some(&r), "{kept:?}");
        store.insert(&r).await.unwrap();
        assert_eq!(store.get(r.session).await.unwrap(), Some(r));
    }
}

#[tokio::test]
async fn an_inspection_names_rows_that_cannot_be_right() {
    use spawnpoint_core::audit::Flaw;
    use sqlx::Connection as _;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    for n in 1..=4 {
        store.insert(&record(n, 10)).await.unwrap();
    }
    let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap();
    for sql in [
        "UPDATE matches SET ended_at = 0 WHERE session_id LIKE '%1'",
        "UPDATE matches SET reason = 'boredom' WHERE session_id LIKE '%2'",
        "UPDATE matches SET session_id = 'mine' WHERE session_id LIKE '%3'",
    ] {
        sqlx::query("PRAGMA foreign_keys = OFF")
            .execute(&mut conn)
            .await
            .unwrap();
        sqlx::query(sql).execute(&mut conn).await.unwrap();
    }
    let seen = store.inspect().await.unwrap();
    assert_eq!(seen.total, 4);
    let mut flaws: Vec<(String, Flaw)> = seen
        .flaws
        .into_iter()
        .map(|f| (f.session, f.what))
        .collect();
    flaws.sort_by(|a, b| a.0.cmp(&b.0));
    let want = [
        (session(1).to_string(), Flaw::NoEnd),
        (session(2).to_string(), Flaw::NoReason),
        ("mine".to_owned(), Flaw::NoSession),
    ];
    assert_eq!(flaws, want);
}

#[tokio::test]
async fn a_damaged_database_is_not_inspected_as_fine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    for n in 0..200 {
        store.insert(&record(n, 10)).await.unwrap();
    }
    store.close().await;
    assert!(store.inspect().await.is_err(), "closed");
    assert!(store.recorded(&[session(1)]).await.is_err(), "closed");
    let mut bytes = std::fs::read(&path).unwrap();
    for b in &mut bytes[4096..] {
        *b = 0xa5;
    }
    std::fs::write(&path, &bytes).unwrap();
    if let Ok(store) = SqliteRecords::open(&path).await {
        assert!(store.inspect().await.is_err());
        assert!(store.recorded(&[session(1)]).await.is_err());
    }
}
