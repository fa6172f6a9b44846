//! Records in one SQLite file: the embedded default.
//!
//! One connection writes, a few read; WAL lets them not wait for each other. Inserts are synced to disk before they return,
//! because a record is the only copy once its instance is forgotten. Whatever is wrong with the file, it is never deleted or
//! replaced: that is for a person to decide.

mod fault;
mod inspect;
mod query;
mod row;
mod schema;

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use spawnpoint_core::SessionId;
use spawnpoint_core::limits::MAX_PAGE;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

pub use fault::Fault;

use crate::cursor::Position;
use crate::{Filter, Inserted, Inspection, Page, Records, StoreError};
use fault::store_error;

/// Connections that read. Each is a thread; listings are short, and on a small machine more would only wait for the same disk.
const READERS: u32 = 4;
/// What each connection keeps of the file by itself, in SQLite's spelling of KiB: enough for the upper pages of every index. The system
/// keeps the file too; at SQLite's own 2 MiB the readers alone held as much as everything else of a small server.
const CACHE: &str = "-256";
/// How long a statement waits for another process's lock before it says so.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection: longer than one locked statement, shorter than a caller's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows pruned in one transaction: an insert never waits for more than this many deletions.
const PRUNE_BATCH: usize = 200;
/// The write-ahead log is cut back to this after a checkpoint, bytes, so that one busy hour does not hold disk space for ever.
const WAL_KEPT: &str = "16777216";

/// Match records in a SQLite file. Clones share its connections.
#[derive(Clone, Debug)]
pub struct SqliteRecords {
    writer: SqlitePool,
    readers: SqlitePool,
    path: PathBuf,
}

impl SqliteRecords {
    /// Opens the file, creates it (mode 0600) if it is not there, and brings its schema up to date. The directory must exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be opened or written, [`StoreError::Corrupt`] if it is no database,
    /// [`StoreError::Incompatible`] if a release wrote it that this one cannot share it with. The file stays as it was.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        // Absolute: the driver reads `file:...` as a URI, and a later change of directory must not open another file.
        let path = std::path::absolute(path).map_err(|e| unavailable("find the database", e))?;
        create(&path)?;
        let base = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .pragma("cache_size", CACHE)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .after_release(|conn, _| Box::pin(still_usable(conn)));
        let writer = base
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_KEPT);
        let open = |e| store_error("open the database", &path, e);
        let writer = pool
            .clone()
            .max_connections(1)
            .connect_with(writer)
            .await
            .map_err(open)?;
        let mut conn = writer.acquire().await.map_err(open)?;
        schema::prepare(&mut conn, &path).await?;
        drop(conn);
        let readers = pool
            .max_connections(READERS)
            .connect_lazy_with(base.read_only(true));
        Ok(Self {
            writer,
            readers,
            path,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finishes what is under way and closes the file. Dropping it loses nothing either; this waits.
    pub async fn close(&self) {
        // The writer last: closing the last connection folds the log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }

    fn error(&self, what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
        move |e| store_error(what, &self.path, e)
    }

    async fn prune_batch(&self, ended_before: i64, limit: usize) -> Result<u64, sqlx::Error> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let gone = query::prune(ended_before, limit)
            .build()
            .execute(&mut *tx)
            .await?
            .rows_affected();
        tx.commit().await?;
        Ok(gone)
    }
}

/// Whether a connection may be used again. When the disk is full SQLite ends a transaction by itself, and the driver, whose own
/// rollback then fails, believes for ever that it is inside one: such a connection would refuse every later write.
async fn still_usable(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Lets a rollback that is still on its way (the caller gave up) come first.
    conn.ping().await?;
    Ok(!conn.is_in_transaction())
}

/// Makes the file ours alone before the driver opens it; its log and shared-memory files take over its mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(unavailable("create the database", e)),
    }
}

fn unavailable(
    what: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable {
        what,
        source: source.into(),
    }
}

async fn insert(pool: &SqlitePool, record: &MatchRecord) -> Result<Inserted, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let wrote = query::insert_match(record)
        .build()
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if wrote == 0 {
        // Dropping the transaction rolls it back; nothing was written.
        return Ok(Inserted::Before);
    }
    for mut players in query::insert_players(record) {
        players.build().execute(&mut *tx).await?;
    }
    if !record.log_tail.is_empty() {
        query::insert_log(record).build().execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Inserted::Now)
}

async fn fill_players(
    conn: &mut SqliteConnection,
    records: &mut [MatchRecord],
) -> Result<(), row::Error> {
    if records.is_empty() {
        return Ok(());
    }
    let rows = query::players(records.iter().map(|r| r.session))
        .build()
        .persistent(false)
        .fetch_all(conn)
        .await?;
    row::players(&rows, records)
}

async fn get(pool: &SqlitePool, session: SessionId) -> Result<Option<MatchRecord>, row::Error> {
    // One transaction is one snapshot: a record pruned meanwhile is there whole or not at all.
    let mut tx = pool.begin().await?;
    let Some(found) = query::get(session).build().fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let mut record = row::record(&found)?;
    fill_players(&mut tx, std::slice::from_mut(&mut record)).await?;
    let log = query::log(session).build().fetch_optional(&mut *tx).await?;
    if let Some(log) = log {
        record.log_tail = row::log(&log)?;
    }
    Ok(Some(record))
}

async fn list(
    pool: &SqlitePool,
    filter: &Filter,
    after: Option<Position>,
    limit: usize,
) -> Result<Page, row::Error> {
    let mut tx = pool.begin().await?;
    let rows = query::list(filter, after, limit + 1)
        .build()
        .fetch_all(&mut *tx)
        .await?;
    let mut records = rows
        .iter()
        .take(limit)
        .map(row::record)
        .collect::<Result<Vec<_>, _>>()?;
    fill_players(&mut tx, &mut records).await?;
    let next = records
        .last()
        .filter(|_| rows.len() > limit)
        .map(|r| Position::of(r).encode());
    Ok(Page { records, next })
}

#[async_trait]
impl Records for SqliteRecords {
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError> {
        insert(&self.writer, record)
            .await
            .map_err(self.error("write a record"))
    }

    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError> {
        get(&self.readers, session)
            .await
            .map_err(|e| e.into_store("read a record", &self.path))
    }

    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let after = cursor.map(Position::decode).transpose()?;
        list(&self.readers, filter, after, limit.clamp(1, MAX_PAGE))
            .await
            .map_err(|e| e.into_store("list records", &self.path))
    }

    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError> {
        let found = query::by_idempotency(key_hash, not_before)
            .build()
            .fetch_optional(&self.readers)
            .await
            .map_err(self.error("look up an idempotency key"))?;
        found
            .map(|r| row::idempotency(&r))
            .transpose()
            .map_err(|e| e.into_store("look up an idempotency key", &self.path))
    }

    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError> {
        let mut left = limit;
        let mut pruned = 0;
        while left > 0 {
            let batch = left.min(PRUNE_BATCH);
            let gone = self
                .prune_batch(ended_before, batch)
                .await
                .map_err(self.error("prune old records"))?;
            pruned += gone;
            left -= batch;
            if gone < batch as u64 {
                break;
            }
        }
        Ok(pruned)
    }

    async fn recorded(&self, sessions: &[SessionId]) -> Result<HashSet<SessionId>, StoreError> {
        inspect::look_up(&self.readers, sessions)
            .await
            .map_err(self.error("look records up"))
    }

    async fn inspect(&self) -> Result<Inspection, StoreError> {
        inspect::inspect(&self.readers)
            .await
            .map_err(self.error("inspect the records"))
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        // A real write: a full or read-only disk shows only then.
        query::probe()
            .build()
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(self.error("write a probe"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_as_promised() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(dir.path().join("records.db"))
            .await
            .unwrap();
        for (sql, want) in [
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            ("PRAGMA busy_timeout", 5_000),
            ("PRAGMA cache_size", -256),
        ] {
            let is: i64 = sqlx::query_scalar(sql)
                .fetch_one(&store.writer)
                .await
                .unwrap();
            assert_eq!(is, want, "{sql}");
        }
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&store.writer)
            .await
            .unwrap();
        assert_eq!(mode, "wal");
        let refused = sqlx::query("DELETE FROM matches")
            .execute(&store.readers)
            .await;
        assert!(refused.is_err(), "readers cannot write");
    }
}
