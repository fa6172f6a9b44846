//! Match records as they are shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ReceiptView;

/// A player of a finished match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatchPlayerView {
    /// Who.
    pub player_id: String,
    /// RFC 3339.
    pub joined_at: String,
}

/// One match record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatchView {
    /// Its session.
    pub session_id: String,
    /// Its fleet.
    pub fleet: String,
    /// Everybody who was ever in it.
    pub players: Vec<MatchPlayerView>,
    /// The server that formed it.
    pub server: String,
    /// The last instance that served it.
    pub instance: Option<String>,
    /// How many incarnations.
    pub generation: u32,
    /// RFC 3339.
    pub created_at: String,
    /// When it first was ready.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: String,
    /// Seconds from ready to end.
    pub duration_s: Option<f64>,
    /// Why it ended.
    pub reason: String,
    /// By whom.
    pub ended_by: String,
    /// The narrower problem code.
    pub code: Option<String>,
    /// Exit code of the game server.
    pub exit_code: Option<i32>,
    /// Signal that killed it.
    pub exit_signal: Option<i32>,
    /// The memory limit killed it.
    pub oom: bool,
    /// The game's results.
    pub results: Option<Value>,
    /// Why results were refused.
    pub results_error: Option<String>,
    /// How its start went.
    pub receipt: Option<ReceiptView>,
    /// The last 64 KiB of its log; only when one record is asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_tail: Option<String>,
}

/// A page of match records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatchPage {
    /// The records, newest end first.
    pub matches: Vec<MatchView>,
    /// Pass as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}
