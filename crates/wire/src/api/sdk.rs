//! What instances send and hear on the sdk listener.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::strict::Body;

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
