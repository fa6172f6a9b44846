//! The match record: what outlives a session. Written exactly once; the first reason wins.

use crate::id::{FleetName, Generation, InstanceId, PlayerId, SessionId};
use crate::lifecycle::{EndedBy, Reason};

/// Milliseconds of each phase of a session's start. They sum to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Waiting for capacity.
    pub queue_ms: u64,
    /// From capacity to a process or pod being started.
    pub schedule_ms: u64,
    /// Fetching the image; 0 for processes.
    pub pull_ms: u64,
    /// From the start of the process to it accepting.
    pub boot_ms: u64,
    /// Binding a warm instance.
    pub claim_ms: u64,
    /// What is left: bookkeeping between the phases and telling the caller.
    pub dial_ms: u64,
    /// From the call to the session being ready.
    pub total_ms: u64,
}

/// One player of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchPlayer {
    /// Who.
    pub player: PlayerId,
    /// Unix milliseconds when they joined the roster.
    pub joined_at: i64,
}

/// A finished match. Times are Unix milliseconds by the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchRecord {
    /// Its session.
    pub session: SessionId,
    /// The fleet.
    pub fleet: FleetName,
    /// Everybody who was ever on the roster, in order of joining.
    pub players: Vec<MatchPlayer>,
    /// The replica that formed it.
    pub server: String,
    /// The last instance that served it, if it ever had one.
    pub instance: Option<InstanceId>,
    /// How many incarnations it had.
    pub generation: Generation,
    /// When the call came.
    pub created_at: i64,
    /// When it first was ready.
    pub started_at: Option<i64>,
    /// When it ended (not when this was written).
    pub ended_at: i64,
    /// Why.
    pub reason: Reason,
    /// By whom.
    pub ended_by: EndedBy,
    /// The narrower problem code, if any.
    pub code: Option<String>,
    /// Exit code of the last instance.
    pub exit_code: Option<i32>,
    /// Signal that killed the last instance.
    pub exit_signal: Option<i32>,
    /// Whether the memory limit killed it.
    pub oom: bool,
    /// The game's results: JSON text, at most 4 KiB.
    pub results: Option<String>,
    /// Why results were refused, if they were (too large, not JSON).
    pub results_error: Option<String>,
    /// The last 64 KiB of the instance's log, as it was written.
    pub log_tail: Vec<u8>,
    /// How its start went, if it started.
    pub receipt: Option<Receipt>,
    /// Who asked for it and under which idempotency key: `caller \0 key`, hashed. So that a retry after the end finds it.
    pub idempotency: Option<IdempotencyMark>,
}

/// An idempotency key as it is kept: only hashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyMark {
    /// SHA-256 of caller and key, hex.
    pub key_hash: String,
    /// SHA-256 of the request body in canonical form, hex.
    pub body_hash: String,
}
