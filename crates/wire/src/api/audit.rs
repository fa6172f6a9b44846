//! What an audit found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /debug/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditReport {
    /// Nothing is wrong and everything was seen.
    pub clean: bool,
    /// When it was begun, RFC 3339.
    pub at: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// What is wrong.
    pub findings: Vec<AuditFinding>,
    /// Findings beyond the most that are named.
    pub left_out: usize,
    /// What could not be looked at. It is not known to be in order.
    pub unseen: Vec<AuditUnseen>,
    /// What was looked at.
    pub counts: AuditCounts,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFinding {
    /// Which rule is broken; stable.
    pub code: String,
    /// The rule's breach in a sentence.
    pub about: String,
    /// By whom.
    pub ids: Vec<AuditId>,
    /// What was seen.
    pub seen: String,
    /// What to do.
    pub advice: String,
}

/// Whom or what a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditId {
    /// `session`, `instance`, `ticket`, `fleet`, `player`, `port`, `gateway`, `thing` (a file, log or process), `row` (a stored record).
    pub kind: String,
    /// Its id or name.
    pub id: String,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditUnseen {
    /// `server`, `instances`, `instance`, `holdings`, `records`, `lobby`, `gateways`, `gateway`; stable.
    pub part: String,
    /// Which one, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What that means, in a sentence.
    pub about: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// What an audit looked at. Parts that were not seen count as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditCounts {
    /// Sessions that have not been recorded and forgotten.
    pub sessions: usize,
    /// Those of them that were just changing: judged by what holds in every moment.
    pub changing: usize,
    /// Instances.
    pub instances: usize,
    /// Ports, directories and processes that the runtime keeps for instances.
    pub holdings: usize,
    /// Records in the store.
    pub records: u64,
    /// Sessions whose record was looked up.
    pub looked_up: usize,
    /// Answered starts that are remembered.
    pub starts: usize,
    /// Tickets that are there.
    pub tickets: usize,
    /// Fates of tickets that are remembered.
    pub fates: usize,
    /// Gateways.
    pub gateways: usize,
    /// Routes in their tables.
    pub routes: usize,
    /// Players' connections through them.
    pub tunnels: u64,
    /// Ports they listen on for one session each.
    pub listeners: usize,
}
