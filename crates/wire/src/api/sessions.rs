//! Sessions as they are shown: how to play one, what it is doing, why it lives.

use serde::{Deserialize, Serialize};
use spawnpoint_core::record::Receipt;
use utoipa::ToSchema;

/// Place in a fleet's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueuePlace {
    /// 1 is next.
    pub position: u32,
    /// When waiting ends, RFC 3339.
    pub deadline: String,
    /// `capacity`, `ports_exhausted` or `schedule`.
    pub waiting_for: String,
}

/// How a start went, in milliseconds. The phases sum to `total_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptView {
    /// Waiting for capacity.
    pub queue_ms: u64,
    /// From capacity to a process or pod being started.
    pub schedule_ms: u64,
    /// Fetching the image.
    pub pull_ms: u64,
    /// From the start of the process to it accepting.
    pub boot_ms: u64,
    /// Binding a warm instance.
    pub claim_ms: u64,
    /// From the instance accepting to the session being ready.
    pub dial_ms: u64,
    /// From the call to the session being ready.
    pub total_ms: u64,
}

impl From<Receipt> for ReceiptView {
    fn from(r: Receipt) -> Self {
        Self {
            queue_ms: r.queue_ms,
            schedule_ms: r.schedule_ms,
            pull_ms: r.pull_ms,
            boot_ms: r.boot_ms,
            claim_ms: r.claim_ms,
            dial_ms: r.dial_ms,
            total_ms: r.total_ms,
        }
    }
}

/// How to play: the reply of new-game, of joining and of token renewal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// The session.
    pub session_id: String,
    /// Its fleet.
    pub fleet: String,
    /// `queued`, `starting`, `ready`, `running`, `replacing`, `ending`, `ended`.
    pub phase: String,
    /// Whether the game accepts connections now.
    pub ready: bool,
    /// Which incarnation of the instance.
    pub generation: u32,
    /// Open or dial this, whatever the game speaks: `ws(s)://` for a WebSocket client, `http(s)://` for a browser, `tcp://` and
    /// `udp://` with host and port. Carries the player's token where the form can. Null while it is not known (direct modes).
    #[serde(default)]
    pub url: Option<String>,
    /// For WebSocket clients: dial this; final in gateway mode. Carries the player's token. Null where the game speaks no WebSocket.
    #[serde(rename = "wsUrl")]
    pub ws_url: Option<String>,
    /// For a friend: opens `/play` and joins. Never carries a token. Null where nobody may join, and where that page cannot play the
    /// game: link to a page of your own with the session id and `invite`.
    pub share_url: Option<String>,
    /// The code that lets others join, where one is needed.
    #[serde(default)]
    pub invite: Option<String>,
    /// Host to dial; null until known in direct modes.
    pub connect_host: Option<String>,
    /// Port to dial; null until known in direct modes.
    pub connect_port: Option<u16>,
    /// `websocket`, `http`, `tcp` or `udp`.
    pub protocol: String,
    /// The player's join token. Null for a backend asking about a session that is nobody's.
    pub token: Option<String>,
    /// RFC 3339.
    pub token_expires_at: Option<String>,
    /// The player the token is for.
    pub player_id: Option<String>,
    /// Everybody on the roster, in order of joining.
    pub players: Vec<String>,
    /// Place in the queue, while queued.
    pub queue: Option<QueuePlace>,
    /// When it would be culled if nothing happens, RFC 3339; null: never.
    pub cull_at: Option<String>,
    /// For what.
    pub cull_reason: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// How its start went, once ready.
    pub receipt: Option<ReceiptView>,
}

/// One player of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlayerView {
    /// Who.
    pub player_id: String,
    /// On the roster since, RFC 3339.
    pub joined_at: String,
    /// Open connections; null when nobody can say.
    pub connections: Option<u32>,
    /// Latest activity known, RFC 3339.
    pub last_active_at: Option<String>,
}

/// The instance behind a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// Its id.
    pub id: String,
    /// Process or pod name.
    pub label: String,
    /// Where the game listens, `host:port`.
    pub address: Option<String>,
    /// How often it was started in place.
    pub restarts: u32,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// Why.
    pub reason: String,
    /// `player`, `backend`, `operator`, `server` or `system`.
    pub by: String,
    /// The narrower problem code, if any.
    pub code: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Exit code of the game server, once known.
    pub exit_code: Option<i32>,
}

/// `GET /api/sessions/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    pub session_id: String,
    /// Its fleet.
    pub fleet: String,
    /// See [`Connection::phase`].
    pub phase: String,
    /// Whether the game accepts connections now.
    pub ready: bool,
    /// Which incarnation.
    pub generation: u32,
    /// Who may end it for all.
    pub owner: Option<String>,
    /// Who is on it.
    pub players: Vec<PlayerView>,
    /// `open`, `invite` or `closed`.
    pub joinable: String,
    /// Without a token.
    #[serde(rename = "wsUrl")]
    pub ws_url: Option<String>,
    /// Host to dial.
    pub connect_host: Option<String>,
    /// Port to dial.
    pub connect_port: Option<u16>,
    /// What it speaks.
    pub protocol: String,
    /// The instance, while there is one.
    pub instance: Option<InstanceView>,
    /// Place in the queue, while queued.
    pub queue: Option<QueuePlace>,
    /// When the call came, RFC 3339.
    pub created_at: String,
    /// When it first was ready.
    pub started_at: Option<String>,
    /// When the first player connected.
    pub first_joined_at: Option<String>,
    /// Latest activity known.
    pub last_active_at: Option<String>,
    /// When it would be culled if nothing happens; null: never.
    pub cull_at: Option<String>,
    /// For what.
    pub cull_reason: Option<String>,
    /// How often its deadline was pushed.
    pub extends: u32,
    /// How its start went.
    pub receipt: Option<ReceiptView>,
    /// Its end, from `ending` on.
    pub end: Option<EndView>,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// Pass as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Live sessions in all that match the filter.
    pub total: usize,
}

/// One decision, as `why` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// When, RFC 3339.
    pub at: String,
    /// Which function decided.
    pub function: String,
    /// Its inputs, short.
    pub input: String,
    /// Its output, short.
    pub output: String,
    /// Its reason.
    pub because: String,
}

/// `GET /api/sessions/{id}/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The session.
    pub session_id: String,
    /// Its phase.
    pub phase: String,
    /// In words: why it is alive, and when and why it would end.
    pub summary: String,
    /// When it would be culled.
    pub cull_at: Option<String>,
    /// For what.
    pub cull_reason: Option<String>,
    /// Every deadline that runs, earliest first.
    pub deadlines: Vec<DeadlineView>,
    /// Whether culls are held now, and by what (`late_tick`, `mass_end_brake`).
    pub held_by: Option<String>,
    /// Seconds since the latest activity.
    pub idle_s: Option<f64>,
    /// Players connected; null when nobody can say.
    pub connected: Option<usize>,
    /// What clients last claimed in heartbeats: never trusted, shown for debugging.
    pub client_claims: Vec<ClientClaim>,
    /// Crashes that count towards a crash loop.
    pub recent_crashes: usize,
    /// How its start went.
    pub receipt: Option<ReceiptView>,
    /// Its end, if it ended.
    pub end: Option<EndView>,
    /// The decisions taken, oldest first (the last 64).
    pub decisions: Vec<DecisionView>,
}

/// One running deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadlineView {
    /// What it would end the session for.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What a client last said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClientClaim {
    /// Who.
    pub player_id: String,
    /// `active`, `inactive` or `busy`.
    pub status: String,
    /// Milliseconds.
    pub idle_ms: Option<f64>,
    /// Milliseconds.
    pub session_duration_ms: Option<f64>,
    /// When it came, RFC 3339.
    pub at: String,
}
