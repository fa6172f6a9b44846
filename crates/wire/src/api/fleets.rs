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

impl FleetView {
    /// Whether somebody who follows the fleet would see a difference: in its numbers, its state, or what was planned and why. The same
    /// plan made again is none, nor is a reason that only counts down.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let plan = |v: &Self| {
            v.last_plan.as_ref().map(|p| {
                let words: String = p.because.chars().filter(|c| !c.is_ascii_digit()).collect();
                (p.admit, p.start, p.stop, words)
            })
        };
        let rest = |v: &Self| Self {
            last_plan: None,
            ..v.clone()
        };
        plan(self) != plan(other) || rest(self) != rest(other)
    }
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

/// One entry of the followed list of fleets: how a fleet is after something about it changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetChange {
    /// When it was so, RFC 3339.
    pub at: String,
    /// It is not configured any more and has no session left: its last entry.
    pub gone: bool,
    /// How it is; why is in `last_plan`.
    #[serde(flatten)]
    pub fleet: FleetView,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(warm: u32, because: &str) -> FleetView {
        FleetView {
            name: "arena".into(),
            protocol: "tcp".into(),
            expose: "gateway".into(),
            warm_target: 2,
            warm,
            starting: 0,
            queued: 0,
            claimed: 0,
            stopping: 0,
            max_instances: None,
            sessions: 0,
            claims_warm: 0,
            claims_cold: 0,
            hit_rate: None,
            degraded: false,
            failures_in_a_row: 0,
            last_plan: Some(PlanView {
                at: format!("2026-01-01T00:00:0{warm}Z"),
                admit: 0,
                start: 0,
                stop: 0,
                because: because.into(),
            }),
        }
    }

    #[test]
    fn a_difference_is_in_numbers_or_in_words_and_not_in_time() {
        let shown = view(1, "1 of 2 warm: 0 more; held for 900 ms");
        let mut again = shown.clone();
        again.last_plan = view(1, "1 of 2 warm: 0 more; held for 400 ms").last_plan;
        if let Some(plan) = &mut again.last_plan {
            plan.at = "2026-01-01T00:01:00Z".into();
        }
        assert!(!shown.differs(&again));
        assert!(shown.differs(&view(2, "1 of 2 warm: 0 more; held for 900 ms")));
        assert!(shown.differs(&view(1, "as wanted")));
        let mut stops = shown.clone();
        if let Some(plan) = &mut stops.last_plan {
            plan.stop = 1;
        }
        assert!(shown.differs(&stops));
    }

    #[test]
    fn an_entry_is_one_flat_object() {
        let change = FleetChange {
            at: "2026-01-01T00:00:00Z".into(),
            gone: false,
            fleet: view(1, "x"),
        };
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!((&json["name"], &json["warm"]), (&"arena".into(), &1.into()));
        assert_eq!(json["last_plan"]["because"], "x");
        assert_eq!(serde_json::from_value::<FleetChange>(json).unwrap(), change);
    }
}
