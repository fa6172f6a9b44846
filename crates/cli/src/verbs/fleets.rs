//! `spawnpoint fleets`.

mod watch;

use spawnpoint_wire::api::{FleetList, FleetView};

use super::{or_dash, read};
use crate::args::{FleetsVerb, Global};
use crate::client::{Client, encode};
use crate::exit::Failure;
use crate::output::{distance, facts, now, show, table};

/// Lists fleets, shows one, or follows them.
pub(crate) fn run(verb: &FleetsVerb, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match verb {
        FleetsVerb::Ls => {
            let answer = client.get("/api/fleets", &[])?;
            let list: FleetList = read(&answer)?;
            show(global.output, &answer, || {
                let headings = [
                    "FLEET",
                    "PROTOCOL",
                    "SESSIONS",
                    "QUEUED",
                    "WARM",
                    "STARTING",
                    "CLAIMED",
                    "MAX",
                    "WARM HITS",
                    "STATE",
                ];
                table(&headings, list.fleets.iter().map(row).collect())
            })
        }
        FleetsVerb::Get { name } => {
            let answer = client.get(&format!("/api/fleets/{}", encode(name)), &[])?;
            let fleet: FleetView = read(&answer)?;
            show(global.output, &answer, || details(&fleet))
        }
        FleetsVerb::Watch { name } => watch::run(client, global.output, name.as_deref()),
    }
}

fn row(f: &FleetView) -> Vec<String> {
    vec![
        f.name.clone(),
        f.protocol.clone(),
        f.sessions.to_string(),
        f.queued.to_string(),
        format!("{}/{}", f.warm, f.warm_target),
        f.starting.to_string(),
        f.claimed.to_string(),
        or_dash(f.max_instances),
        hits(f),
        if f.degraded {
            "degraded".to_owned()
        } else {
            "ok".to_owned()
        },
    ]
}

fn hits(f: &FleetView) -> String {
    or_dash(f.hit_rate.map(|r| format!("{:.0}%", r * 100.0)))
}

fn details(f: &FleetView) -> String {
    let plan = f.last_plan.as_ref();
    facts(&[
        ("fleet", f.name.clone()),
        (
            "protocol",
            format!("{}, exposed by {}", f.protocol, f.expose),
        ),
        (
            "sessions",
            format!("{}, and {} waiting for capacity", f.sessions, f.queued),
        ),
        (
            "instances",
            format!(
                "{} claimed, {} warm of {} wanted, {} starting, {} stopping",
                f.claimed, f.warm, f.warm_target, f.starting, f.stopping
            ),
        ),
        (
            "most",
            f.max_instances
                .map_or_else(|| "unlimited".to_owned(), |m| m.to_string()),
        ),
        (
            "claims",
            format!(
                "{} warm, {} cold ({} warm hits)",
                f.claims_warm,
                f.claims_cold,
                hits(f)
            ),
        ),
        (
            "state",
            if f.degraded {
                format!("degraded: {} starts failed in a row", f.failures_in_a_row)
            } else {
                "ok".to_owned()
            },
        ),
        (
            "last plan",
            plan.map(|p| format!("{} ({})", p.because, distance(Some(&p.at), now())))
                .unwrap_or_default(),
        ),
    ])
}
