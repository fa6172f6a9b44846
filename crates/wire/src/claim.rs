//! The durable facts of a session as they are kept with its instance, and the session file the game reads.
//!
//! Both are stored formats: version N reads N-1 and N+1 (unknown fields are kept out of decisions, not refused).

use serde::{Deserialize, Serialize};
use spawnpoint_core::lifecycle::{EndedBy, Reason};
use spawnpoint_core::time::{Clock, StoredMoment};
use spawnpoint_core::{FleetName, Moment, PlayerId, SessionId, TicketId};

use crate::text;

/// The version written.
pub const CLAIM_VERSION: u32 = 1;

/// A moment as stored: exact within a boot, by wall clock after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Unix milliseconds.
    pub wall: i64,
    /// Machine monotonic milliseconds.
    pub mono: i64,
}

impl Stamp {
    /// How `moment` is written down.
    #[must_use]
    pub fn of(moment: Moment, clock: &dyn Clock) -> Self {
        Self {
            wall: clock.wall(moment),
            mono: clock.monotonic(moment),
        }
    }

    /// The moment it means on this process's timeline.
    #[must_use]
    pub fn restore(&self, boot_id: &str, clock: &dyn Clock) -> Moment {
        clock.restore(StoredMoment {
            wall_ms: self.wall,
            monotonic_ms: self.mono,
            boot_id,
        })
    }
}

/// One player as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimPlayer {
    /// Who.
    #[serde(with = "text")]
    pub id: PlayerId,
    /// When they joined the roster.
    pub joined: Stamp,
    /// Whether they are on it still.
    #[serde(default = "yes")]
    pub here: bool,
    /// The ticket they came by, if a queue led them here.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ticket: Option<TicketId>,
}

const fn yes() -> bool {
    true
}

/// The end, once it is fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimEnding {
    /// Why.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// By whom.
    #[serde(with = "text::ended_by")]
    pub by: EndedBy,
    /// The narrower code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When.
    pub at: Stamp,
    /// Results given with the end call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
}

/// Everything about a live session that must survive any restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// [`CLAIM_VERSION`].
    pub version: u32,
    /// The boot the monotonic parts belong to.
    pub boot_id: String,
    /// The session.
    #[serde(with = "text")]
    pub session: SessionId,
    /// Its fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
    /// Which incarnation this instance is.
    pub generation: u32,
    /// The server that formed it.
    pub server: String,
    /// The owner.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub owner: Option<PlayerId>,
    /// Everybody who was ever on the roster.
    pub players: Vec<ClaimPlayer>,
    /// The queue whose match it is.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub queue: Option<FleetName>,
    /// The invite code.
    pub invite: String,
    /// The payload for the game.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<serde_json::Value>,
    /// When the call came.
    pub created: Stamp,
    /// When an instance was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Stamp>,
    /// When it first was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Stamp>,
    /// When the first player connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_joined: Option<Stamp>,
    /// Absolute deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Stamp>,
    /// Nothing extends past this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<Stamp>,
    /// The maximum asked for with the call, milliseconds; absent: the fleet's; `none`: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_asked: Option<MaxAsked>,
    /// How often it was extended.
    #[serde(default)]
    pub extends: u32,
    /// The instance of this incarnation died and the next one is being found.
    #[serde(default)]
    pub replacing: bool,
    /// Who may join, where the call asked for other than the fleet's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joinable: Option<String>,
    /// The port that the gateway listens at for this session, where it speaks TCP: the address players were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_port: Option<u16>,
    /// Recent crashes.
    #[serde(default)]
    pub crashes: Vec<Stamp>,
    /// Phases of the first start, milliseconds: queue, schedule, pull, boot, claim, dial, total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<[u64; 7]>,
    /// Hash of caller and idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Hash of that request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_body: Option<String>,
    /// The end, once it is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<ClaimEnding>,
}

/// A maximum asked for with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxAsked {
    /// This many milliseconds.
    Millis(u64),
    /// Unlimited.
    None,
}

/// Why a stored claim cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Not JSON of this form.
    #[error("the stored claim is damaged")]
    Damaged(#[source] serde_json::Error),
    /// From a release two or more ahead.
    #[error("the stored claim has version {0}, which this release does not read")]
    TooNew(u32),
}

impl Claim {
    /// The stored text.
    #[must_use]
    pub fn to_document(&self) -> String {
        // A struct of strings and numbers with string keys always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a stored text.
    ///
    /// # Errors
    /// When it is damaged or too new.
    pub fn from_document(text: &str) -> Result<Self, ClaimError> {
        let claim: Self = serde_json::from_str(text).map_err(ClaimError::Damaged)?;
        if claim.version > CLAIM_VERSION + 1 {
            return Err(ClaimError::TooNew(claim.version));
        }
        Ok(claim)
    }
}

/// What the game reads at `SPAWNPOINT_SESSION_FILE` (CONTRACT, Session file).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFile {
    /// 1.
    pub version: u32,
    /// The session.
    #[serde(with = "text")]
    pub session_id: SessionId,
    /// Its fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
    /// Which incarnation.
    pub generation: u32,
    /// Players expected.
    #[serde(with = "text::list")]
    pub players: Vec<PlayerId>,
    /// What the caller wanted the game to know.
    pub payload: Option<serde_json::Value>,
    /// When the instance was claimed, RFC 3339.
    pub claimed_at: String,
    /// Absolute deadline, RFC 3339; null is unlimited.
    pub deadline: Option<String>,
}
