//! Rows back into values. What does not parse is damage, said with the column's name.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use spawnpoint_core::lifecycle::{EndedBy, Reason};
use spawnpoint_core::record::{IdempotencyMark, MatchPlayer, MatchRecord, Receipt};
use spawnpoint_core::{Generation, SessionId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::fault::store_error;
use crate::StoreError;

/// Why a read failed.
pub(super) enum Error {
    /// The database said so.
    Database(sqlx::Error),
    /// A column holds what no release of ours wrote.
    Column(&'static str),
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        Self::Database(e)
    }
}

impl Error {
    pub(super) fn into_store(self, what: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Database(e) => store_error(what, path, e),
            Self::Column(column) => StoreError::Corrupt {
                what: format!("{} holds an unknown value in {column}", path.display()),
            },
        }
    }
}

fn text<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, Error> {
    let s: &str = row.try_get(column)?;
    s.parse().map_err(|_| Error::Column(column))
}

fn optional_text<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, Error> {
    let s: Option<&str> = row.try_get(column)?;
    s.map(|s| s.parse().map_err(|_| Error::Column(column)))
        .transpose()
}

fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, Error> {
    let n: i64 = row.try_get(column)?;
    u64::try_from(n).map_err(|_| Error::Column(column))
}

fn receipt(row: &SqliteRow) -> Result<Option<Receipt>, Error> {
    let total: Option<i64> = row.try_get("total_ms")?;
    if total.is_none() {
        return Ok(None);
    }
    Ok(Some(Receipt {
        queue_ms: unsigned(row, "queue_ms")?,
        schedule_ms: unsigned(row, "schedule_ms")?,
        pull_ms: unsigned(row, "pull_ms")?,
        boot_ms: unsigned(row, "boot_ms")?,
        claim_ms: unsigned(row, "claim_ms")?,
        dial_ms: unsigned(row, "dial_ms")?,
        total_ms: unsigned(row, "total_ms")?,
    }))
}

fn mark(row: &SqliteRow) -> Result<Option<IdempotencyMark>, Error> {
    let key_hash: Option<String> = row.try_get("idempotency_key")?;
    let body_hash: Option<String> = row.try_get("idempotency_body")?;
    Ok(key_hash
        .zip(body_hash)
        .map(|(key_hash, body_hash)| IdempotencyMark {
            key_hash,
            body_hash,
        }))
}

/// A match, without its players and log.
pub(super) fn record(row: &SqliteRow) -> Result<MatchRecord, Error> {
    let reason: &str = row.try_get("reason")?;
    let ended_by: &str = row.try_get("ended_by")?;
    let generation: i64 = row.try_get("generation")?;
    Ok(MatchRecord {
        session: text(row, "session_id")?,
        fleet: text(row, "fleet")?,
        players: Vec::new(),
        server: row.try_get("server")?,
        instance: optional_text(row, "instance_id")?,
        generation: Generation(u32::try_from(generation).map_err(|_| Error::Column("generation"))?),
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        reason: Reason::parse(reason).ok_or(Error::Column("reason"))?,
        ended_by: EndedBy::parse(ended_by).ok_or(Error::Column("ended_by"))?,
        code: row.try_get("code")?,
        exit_code: row.try_get("exit_code")?,
        exit_signal: row.try_get("exit_signal")?,
        oom: row.try_get("oom")?,
        results: row.try_get("results")?,
        results_error: row.try_get("results_error")?,
        log_tail: Vec::new(),
        receipt: receipt(row)?,
        idempotency: mark(row)?,
    })
}

/// Puts rows of players into the matches they belong to.
pub(super) fn players(rows: &[SqliteRow], records: &mut [MatchRecord]) -> Result<(), Error> {
    let mut of: HashMap<SessionId, Vec<MatchPlayer>> = HashMap::with_capacity(records.len());
    for row in rows {
        of.entry(text(row, "session_id")?)
            .or_default()
            .push(MatchPlayer {
                player: text(row, "player_id")?,
                joined_at: row.try_get("joined_at")?,
            });
    }
    for r in records {
        r.players = of.remove(&r.session).unwrap_or_default();
    }
    Ok(())
}

/// A log.
pub(super) fn log(row: &SqliteRow) -> Result<Vec<u8>, Error> {
    Ok(row.try_get("tail")?)
}

/// The answer to an idempotency look-up.
pub(super) fn idempotency(row: &SqliteRow) -> Result<(SessionId, IdempotencyMark), Error> {
    let mark = mark(row)?.ok_or(Error::Column("idempotency_body"))?;
    Ok((text(row, "session_id")?, mark))
}
