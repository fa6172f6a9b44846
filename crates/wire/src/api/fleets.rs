//! Fleets as they are shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
