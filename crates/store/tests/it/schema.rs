//! Files of other releases, and opening what is already up to date.

use spawnpoint_store::conformance::{record, session};
use spawnpoint_store::sqlite::SqliteRecords;
use spawnpoint_store::{Records as _, StoreError};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

/// A file with one record, changed as another release would have.
async fn changed(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).await.unwrap();
    store.insert(&record(1, 10)).await.unwrap();
    store.close().await;
    let url = format!("sqlite://{}", path.display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    (dir, path)
}

const FUTURE: &str = "ALTER TABLE matches ADD COLUMN mood TEXT;
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'mood', TRUE, x'00', 1);";

#[tokio::test]
async fn a_newer_release_that_only_added_is_shared() {
    let (_dir, path) = changed(FUTURE).await;
    let store = SqliteRecords::open(&path).await.unwrap();
    assert!(store.get(session(1)).await.unwrap().is_some());
    store.insert(&record(2, 20)).await.unwrap();
    assert_eq!(store.get(session(2)).await.unwrap(), Some(record(2, 20)));
}

#[tokio::test]
async fn a_newer_release_that_closed_the_file_to_us_is_refused() {
    let closed = format!("{FUTURE} UPDATE store_state SET compatible_from = 99;");
    let (_dir, path) = changed(&closed).await;
    let before = std::fs::read(&path).unwrap();
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Incompatible { .. }), "{e:?}");
    assert!(e.to_string().contains("newer release"), "{e}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "left as it was");
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let (_dir, path) =
        changed("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Incompatible { .. }), "{e:?}");
}

#[tokio::test]
async fn another_line_of_releases_is_refused() {
    let (_dir, path) = changed(&format!(
        "{FUTURE} DELETE FROM _sqlx_migrations WHERE version = 1"
    ))
    .await;
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Incompatible { .. }), "{e:?}");
}

#[tokio::test]
async fn a_half_done_migration_is_refused() {
    let (_dir, path) = changed(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (2, 'x', FALSE, x'00', 1)",
    )
    .await;
    let e = SqliteRecords::open(&path).await.unwrap_err();
    assert!(matches!(e, StoreError::Incompatible { .. }), "{e:?}");
}

#[tokio::test]
async fn opening_an_up_to_date_file_writes_nothing() {
    let (_dir, path) = changed("SELECT 1").await;
    let before = std::fs::read(&path).unwrap();
    let store = SqliteRecords::open(&path).await.unwrap();
    let wal = path.with_extension("db-wal");
    assert_eq!(std::fs::metadata(wal).map_or(0, |m| m.len()), 0);
    store.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
