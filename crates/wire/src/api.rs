//! Bodies of the HTTP API. Replies are snake_case but for `wsUrl`; requests are read by [`crate::strict`].

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spawnpoint_core::record::Receipt;
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
    /// Dial this; final in gateway mode. Carries the player's token. Null where the game speaks no WebSocket.
    #[serde(rename = "wsUrl")]
    pub ws_url: Option<String>,
    /// For a friend: opens `/play` and joins. Never carries a token. Null where nobody may join.
    pub share_url: Option<String>,
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

/// One fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetView {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub protocol: String,
    /// `gateway` or `hostPort`.
    pub expose: String,
    /// Warm instances wanted.
    pub warm_target: u32,
    /// Unclaimed instances that accept.
    pub warm: u32,
    /// Unclaimed instances that do not accept yet.
    pub starting: u32,
    /// Sessions waiting for capacity.
    pub queued: u32,
    /// Instances bound to sessions.
    pub claimed: u32,
    /// Instances being stopped.
    pub stopping: u32,
    /// Most instances; null is unlimited.
    pub max_instances: Option<u32>,
    /// Live sessions.
    pub sessions: u32,
    /// Claims served warm.
    pub claims_warm: u64,
    /// Claims that had to start an instance.
    pub claims_cold: u64,
    /// Share of claims served warm; null before the first.
    pub hit_rate: Option<f64>,
    /// Its template keeps failing to start.
    pub degraded: bool,
    /// Warm starts that failed in a row.
    pub failures_in_a_row: u32,
    /// The last plan.
    pub last_plan: Option<PlanView>,
}

/// What the planner last decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// When, RFC 3339.
    pub at: String,
    /// Waiting sessions that got a place.
    pub admit: u32,
    /// Warm instances started.
    pub start: u32,
    /// Warm instances stopped.
    pub stop: u32,
    /// Why.
    pub because: String,
}

/// All fleets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetList {
    /// In the order of the configuration.
    pub fleets: Vec<FleetView>,
}

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

/// `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether all below are well.
    pub ready: bool,
    /// Each dependency.
    pub checks: Vec<ReadinessCheck>,
}

/// One dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadinessCheck {
    /// `runtime`, `records`, `brake`, ...
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// In words.
    pub detail: String,
}

/// `GET /v1/session` of the SDK listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SdkSession {
    /// The instance that asks.
    pub instance: String,
    /// Its fleet.
    pub fleet: String,
    /// Its session; null while warm.
    pub session_id: Option<String>,
    /// Which incarnation.
    pub generation: Option<u32>,
    /// The session's phase.
    pub phase: Option<String>,
    /// Players on the roster.
    pub players: Vec<String>,
    /// What the caller wanted the game to know.
    pub payload: Option<Value>,
    /// Absolute deadline, RFC 3339.
    pub deadline: Option<String>,
}

/// `POST /v1/activity` of the SDK listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct SdkActivity {
    /// `active`, `inactive` or `busy`; default `active`.
    pub status: Option<String>,
    /// Whom it is about; the whole session by default.
    pub player_id: Option<String>,
    /// Seconds that `busy` (or presence) is believed.
    pub ttl: Option<Value>,
}

impl Body for SdkActivity {
    const FIELDS: &'static [&'static str] = &["status", "player_id", "ttl"];
}

/// `POST /v1/end` of the SDK listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct SdkEnd {
    /// Results (JSON, at most 4 KiB).
    pub results: Option<Value>,
}

impl Body for SdkEnd {
    const FIELDS: &'static [&'static str] = &["results"];
}

/// `POST /v1/ready` of the SDK listener takes an empty body.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct SdkReady {}

impl Body for SdkReady {
    const FIELDS: &'static [&'static str] = &[];
}

/// Done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Always true.
    pub ok: bool,
}
