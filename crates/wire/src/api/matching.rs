//! Waiting for a match: what players and backends send, what they hear, and the queues as they are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Connection, QueuePlace, ReceiptView};
use crate::strict::Body;

/// `POST /api/match/join`. Every field in both spellings.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct MatchJoin {
    /// Who waits: 1 to 256 characters. Backends name a player or `players`; guests leave it out and are given one.
    pub player_id: Option<String>,
    /// A party: they play together or not at all (backends only). `player_id` is added when missing.
    pub players: Vec<String>,
    /// Which queue; the first fleet's by default. Every fleet has one of its own name.
    pub queue: Option<String>,
    /// Numbers and texts about the ticket (backends only), at most 16. `skill` is what the queue's limit looks at; all of them are in
    /// the payload that the game reads.
    pub attributes: BTreeMap<String, Value>,
    /// Milliseconds to each region the players can play in, by the names the queue knows. None: any region will do.
    pub latencies: BTreeMap<String, Value>,
    /// The player's token, where a header cannot be set.
    pub token: Option<String>,
}

impl Body for MatchJoin {
    const FIELDS: &'static [&'static str] = &[
        "player_id",
        "players",
        "queue",
        "attributes",
        "latencies",
        "token",
    ];
}

/// `DELETE /api/match/join`. The same can be said in the query.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct MatchLeave {
    /// Whose ticket; by default the caller's.
    pub player_id: Option<String>,
    /// In which queue; every one by default.
    pub queue: Option<String>,
    /// The player's token, where a header cannot be set.
    pub token: Option<String>,
}

impl Body for MatchLeave {
    const FIELDS: &'static [&'static str] = &["player_id", "queue", "token"];
}

/// A ticket as it stands. From `session_id` on: how to play, as in the reply of new-game, and absent until matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TicketStatus {
    /// `queued`; `matched`; `none`: no ticket, and in no game; `lost`: the ticket is gone without a match, join again.
    pub status: String,
    /// The ticket. Null without one, and for a game that no ticket led to.
    pub ticket_id: Option<String>,
    /// The queue.
    pub queue: String,
    /// Place among the tickets of the queue, 1 is the oldest; only while queued.
    pub position: Option<u32>,
    /// Seconds until the match by the queue's recent pace and its flush wait; null when nobody can say.
    pub estimate_s: Option<u32>,
    /// Seconds waited, until the match if there is one.
    pub waited_s: Option<f64>,
    /// Whom this is about.
    pub player_id: Option<String>,
    /// While queued the party, once matched everybody in the game.
    pub players: Vec<String>,
    /// That player's token: while queued good for asking, following and leaving, once matched the game's.
    pub token: Option<String>,
    /// RFC 3339.
    pub token_expires_at: Option<String>,
    /// Why it was lost: a problem code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The session of the match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Its fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// See [`Connection::phase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Whether the game accepts connections now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Which incarnation of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Dial this; final in gateway mode. Absent where the game speaks no WebSocket.
    #[serde(rename = "wsUrl", default, skip_serializing_if = "Option::is_none")]
    pub ws_url: Option<String>,
    /// For a friend. Absent where nobody may join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_url: Option<String>,
    /// Host to dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_host: Option<String>,
    /// Port to dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_port: Option<u16>,
    /// `websocket`, `http`, `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The session's place in line for a game server, while it has none (new-game's `queue`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_queue: Option<QueuePlace>,
    /// When it would be culled if nothing happens, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cull_at: Option<String>,
    /// For what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cull_reason: Option<String>,
    /// When the session was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// How its start went, once ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptView>,
}

impl TicketStatus {
    /// The same, matched to the session of this connection.
    #[must_use]
    pub fn matched(self, c: Connection) -> Self {
        Self {
            status: "matched".to_owned(),
            position: None,
            estimate_s: None,
            player_id: c.player_id,
            players: c.players,
            token: c.token,
            token_expires_at: c.token_expires_at,
            session_id: Some(c.session_id),
            fleet: Some(c.fleet),
            phase: Some(c.phase),
            ready: Some(c.ready),
            generation: Some(c.generation),
            ws_url: c.ws_url,
            share_url: c.share_url,
            connect_host: c.connect_host,
            connect_port: c.connect_port,
            protocol: Some(c.protocol),
            session_queue: c.queue,
            cull_at: c.cull_at,
            cull_reason: c.cull_reason,
            created_at: Some(c.created_at),
            receipt: c.receipt,
            ..self
        }
    }
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// The fleet its matches are played on.
    pub fleet: String,
    /// Players of a whole match.
    pub session_size: u32,
    /// Fewest players of a partial match.
    pub min_partial_session_size: u32,
    /// Seconds after which a partial match starts.
    pub flush_wait_s: f64,
    /// Tickets that wait.
    pub tickets: usize,
    /// Their players.
    pub players: usize,
    /// Tickets in matches that are being started.
    pub forming: usize,
    /// Seconds that the oldest ticket has waited; null when none waits.
    pub oldest_wait_s: Option<f64>,
    /// Matches started since this server was.
    pub matches: u64,
    /// Those of them with fewer players than a whole match.
    pub partial_matches: u64,
    /// Matches started in the last minute.
    pub matches_per_minute: u64,
    /// Matches that could not be started.
    pub failures: u64,
    /// Tickets lost.
    pub lost: u64,
    /// The latest match.
    pub last_match: Option<MatchDecision>,
}

/// Why a match was formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatchDecision {
    /// When, RFC 3339.
    pub at: String,
    /// Its session.
    pub session_id: String,
    /// How many players.
    pub players: u32,
    /// Why these, in words.
    pub because: String,
}

/// All queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    /// Those of the configuration in its order, then those that fleets have by themselves.
    pub queues: Vec<QueueView>,
}
