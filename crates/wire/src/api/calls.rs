//! Starting, joining, keeping alive and ending: what players and backends send, and what they hear.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::strict::Body;

/// `POST /api/new-game`. Every field in both spellings.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct NewGame {
    /// Who plays: 1 to 256 characters. Backends name a player; guests leave it out and are given one.
    pub player_id: Option<String>,
    /// Which fleet; the first configured one by default.
    pub fleet: Option<String>,
    /// Everybody in this session, if more than one. `player_id` is added when missing.
    pub players: Vec<String>,
    /// JSON for the game (at most 16 KiB), readable in its session file.
    pub payload: Option<Value>,
    /// First deadline: seconds or a text such as "30m"; "none" is unlimited (backends only).
    pub max_duration: Option<Value>,
    /// End (or, if others are in it, leave) the player's present session first.
    pub fresh: bool,
    /// Who may join: `open`, `invite`, `closed`; the fleet's rule by default.
    pub joinable: Option<String>,
}

impl Body for NewGame {
    const FIELDS: &'static [&'static str] = &[
        "player_id",
        "fleet",
        "players",
        "payload",
        "max_duration",
        "fresh",
        "joinable",
    ];
}

/// `POST /api/sessions/{id}/heartbeat`. Accepts the shape browsers' metrics libraries send.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct HeartbeatBody {
    /// Must equal the path's, if sent.
    pub session_id: Option<String>,
    /// `active`, `inactive` or `busy`.
    pub status: Option<String>,
    /// Milliseconds since the last input. Numeric strings are taken too.
    pub idle_time: Option<Value>,
    /// Milliseconds of play as the client counts them; shown in `why`, never trusted.
    pub session_duration: Option<Value>,
    /// The client's clock; nothing depends on it.
    pub timestamp: Option<Value>,
    /// Seconds that `busy` (or presence, in direct modes) is believed.
    pub ttl: Option<Value>,
    /// The player's token, where a header cannot be set (`sendBeacon`).
    pub token: Option<String>,
    /// Whom a backend speaks for.
    pub player_id: Option<String>,
    /// Name of the event in metrics libraries; `game_session_heartbeat`.
    pub event: Option<String>,
}

impl Body for HeartbeatBody {
    const FIELDS: &'static [&'static str] = &[
        "session_id",
        "status",
        "idle_time",
        "session_duration",
        "timestamp",
        "ttl",
        "token",
        "player_id",
        "event",
    ];
}

/// Reply to a heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatReply {
    /// The session.
    pub session_id: String,
    /// Its phase.
    pub phase: String,
    /// Which incarnation.
    pub generation: u32,
    /// When it would be culled if nothing more happens; null: never.
    pub cull_at: Option<String>,
    /// For what.
    pub cull_reason: Option<String>,
    /// Milliseconds until then, so that clients need no synchronised clock.
    pub cull_in_ms: Option<u64>,
    /// A cull is so near that a warning is out.
    pub warning: Option<WarningView>,
    /// Send the next heartbeat after this many seconds.
    pub next_heartbeat_s: f64,
}

/// A warning that is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WarningView {
    /// For what.
    pub reason: String,
    /// When, RFC 3339.
    pub cull_at: String,
}

/// `POST /api/sessions/{id}/extend`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct ExtendBody {
    /// Push the deadline by this: seconds or a text such as "10m"; the fleet's idle timeout by default.
    pub by: Option<Value>,
    /// A backend may lift the ceiling.
    pub raise_limit: bool,
    /// The player's token, where a header cannot be set.
    pub token: Option<String>,
}

impl Body for ExtendBody {
    const FIELDS: &'static [&'static str] = &["by", "raise_limit", "token"];
}

/// Reply to an extend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtendReply {
    /// The session.
    pub session_id: String,
    /// Whether the deadline moved.
    pub extended: bool,
    /// The absolute deadline now; null: unlimited.
    pub max_at: Option<String>,
    /// Nothing extends past this; null: unlimited.
    pub max_limit_at: Option<String>,
    /// When it would be culled if nothing happens.
    pub cull_at: Option<String>,
    /// For what.
    pub cull_reason: Option<String>,
}

/// `POST /api/match/{session_id}/end` and `DELETE /api/sessions/{id}`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct EndBody {
    /// Results to keep with the record (JSON, at most 4 KiB); the game's own results file wins. Backends only.
    pub results: Option<Value>,
    /// Whom a backend speaks for: then it is as if that player called.
    pub player_id: Option<String>,
    /// The player's token, where a header cannot be set.
    pub token: Option<String>,
}

impl Body for EndBody {
    const FIELDS: &'static [&'static str] = &["results", "player_id", "token"];
}

/// Reply to an end call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndReply {
    /// The session.
    pub session_id: String,
    /// True when the session ends (now or before); false when only the caller left.
    pub ended: bool,
    /// Why it ends.
    pub reason: Option<String>,
    /// Its phase.
    pub phase: String,
}

/// `POST /api/sessions/{id}/players`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct JoinBody {
    /// Who joins. Guests leave it out and are given one.
    pub player_id: Option<String>,
    /// The invite code of the share link, where one is needed.
    pub invite: Option<String>,
    /// The joiner's own token from another session, to be known by (guests).
    pub token: Option<String>,
}

impl Body for JoinBody {
    const FIELDS: &'static [&'static str] = &["player_id", "invite", "token"];
}

/// `POST /api/sessions/{id}/token`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct TokenBody {
    /// Whose (backends).
    pub player_id: Option<String>,
    /// The token to renew.
    pub token: Option<String>,
}

impl Body for TokenBody {
    const FIELDS: &'static [&'static str] = &["player_id", "token"];
}
