//! The trait every record store implements, and what its words mean.

use std::collections::HashSet;

use async_trait::async_trait;
use spawnpoint_core::audit::RecordFlaw;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use spawnpoint_core::{Code, Coded, FleetName, PlayerId, Retry, SessionId, Side};

/// Why a store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is locked or its disk is full. Nothing of the call was done, or the same call again is harmless.
    #[error("the record store is unavailable: {what}")]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored is damaged or not a record store at all. It is left as it was found.
    #[error("the record store cannot be read: {what}")]
    Corrupt {
        /// Which part.
        what: String,
    },
    /// What is stored was written by another release in a form that this one must not touch. It is left as it was found.
    #[error("the record store is of another release: {what}")]
    Incompatible {
        /// What does not fit, and what to do.
        what: String,
    },
    /// The cursor is not one of this store's.
    #[error("the cursor is not valid")]
    Cursor,
}

impl StoreError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } => Code::DatabaseUnavailable,
            Self::Corrupt { .. } | Self::Incompatible { .. } => Code::Internal,
            Self::Cursor => Code::InvalidCursor,
        }
    }

    /// Whose side it is on.
    #[must_use]
    pub fn side(&self) -> Side {
        self.code().side()
    }

    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code().retry()
    }
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        Self::code(self)
    }
}

/// What an insert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// This call wrote it.
    Now,
    /// It was there already and stands as it was: the first reason wins.
    Before,
}

/// Which records a listing wants. All given conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this fleet.
    pub fleet: Option<FleetName>,
    /// That this player was in (exactly this id).
    pub player: Option<PlayerId>,
    /// That ended for this reason.
    pub reason: Option<Reason>,
    /// That ended at or after this, Unix milliseconds.
    pub ended_from: Option<i64>,
    /// That ended before this, Unix milliseconds.
    pub ended_until: Option<i64>,
}

/// One page of a listing, newest end first, ties by session id, greatest first. `log_tail` is left empty in listings.
#[derive(Clone, Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<MatchRecord>,
    /// Where the next page begins; `None` on the last one. Opaque, stable while records are added.
    pub next: Option<String>,
}

/// Flaws named by one inspection at most: a store with more is beyond mending row by row.
pub const MAX_FLAWS: usize = 1_000;

/// What a look over everything stored found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// How many records there are.
    pub total: u64,
    /// Rows that cannot be right, at most [`MAX_FLAWS`].
    pub flaws: Vec<RecordFlaw>,
}

/// Match records.
///
/// Semantics that every implementation keeps and the conformance suite checks:
/// * `insert` is exactly-once by session id and durable when it returns; the first one stands, whatever the second says.
/// * Players are rows, found by their exact id (`1`, `11`, `1%` and `a,b` never mix).
/// * Every query used has an index.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Writes one record, unless the session has one.
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError>;

    /// One record, log and all.
    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError>;

    /// A page of at most `limit` records; the limit is taken as at least 1 and at most [`spawnpoint_core::limits::MAX_PAGE`].
    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// The session that an idempotency key led to and the hash of that request's body, if it ended at or after `not_before` (Unix ms);
    /// the one that ended last, should there be several.
    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError>;

    /// Removes records that ended before this (Unix ms), at most `limit` of them, oldest first; returns how many.
    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError>;

    /// Which of these sessions have a record. Any number of them, each a look-up by key; what is written meanwhile may be missing.
    async fn recorded(&self, sessions: &[SessionId]) -> Result<HashSet<SessionId>, StoreError>;

    /// Looks over everything stored, by counts and indices where it lies: never a row at a time in this process, never in a writer's
    /// way, a fraction of a second for a million records.
    async fn inspect(&self) -> Result<Inspection, StoreError>;

    /// Whether it can be written to right now.
    async fn healthy(&self) -> Result<(), StoreError>;
}
