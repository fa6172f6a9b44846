//! The product's own audit, asked again and again: the same checkers as `spawnpoint audit`, over what the server says of itself.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::audit::{Finding, Id, Part, Report, Rule};
use tokio::time::sleep;

use crate::plan::Trouble;
use crate::world::World;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(2);
/// What the audit gives things to arrive, and the troubles that were before, milliseconds.
const SETTLED: i64 = 40_000;

/// What holds at every moment, whatever goes wrong, as long as instances can be seen.
const ALWAYS: [Rule; 5] = [
    Rule::PlayerInTwoSessions,
    Rule::InstanceInTwoSessions,
    Rule::CapacityExceeded,
    Rule::RecordTwice,
    Rule::PlayerInTwoTickets,
];

/// Asks until the world ends.
pub(crate) async fn auditor(world: Arc<World>) {
    loop {
        sleep(EVERY).await;
        if let Some(report) = audit(&world).await {
            let calm = world.was_calm_since(world.now() - SETTLED);
            judge(&world, &report, calm);
        }
    }
}

/// One audit. `None`: there is no server, or it died meanwhile.
pub(crate) async fn audit(world: &Arc<World>) -> Option<Report> {
    let site = world.site()?;
    world.checked();
    tokio::select! {
        biased;
        () = site.life.dead.cancelled() => None,
        report = site.server.audit() => Some(report),
    }
}

fn judge(world: &World, report: &Report, calm: bool) {
    // What ended while nobody could see it counts as there for as long; and its end cannot be written to it, so that a restart
    // meanwhile does not know of it.
    let seen = !world.has(Trouble::Blind);
    let counts = |f: &&Finding| calm || (seen && ALWAYS.contains(&f.rule));
    if let Some(finding) = report.findings.iter().find(counts) {
        found(world, finding);
    }
}

/// At the end nothing is wrong, and everything can be seen that one process sees.
pub(crate) fn at_the_end(world: &World, report: &Report) {
    world.checked();
    if let Some(finding) = report.findings.first() {
        found(world, finding);
        return;
    }
    // A gateway of its own is not asked for its tables here; and one that died is waited for.
    let elsewhere = |p: &Part| world.plan.apart && matches!(p, Part::Gateways | Part::Gateway(_));
    if let Some(unseen) = report.unseen.iter().find(|u| !elsewhere(&u.part)) {
        world.fail(
            "all can be seen",
            &format!("{} cannot be seen", unseen.part.as_str()),
        );
    }
}

fn found(world: &World, finding: &Finding) {
    let name = |id: &Id| match id {
        Id::Session(s) => world.s(*s),
        Id::Instance(i) => world.i(*i),
        Id::Ticket(t) => world.t(*t),
        other => other.to_string(),
    };
    let ids: Vec<String> = finding.ids.iter().map(name).collect();
    world.fail(
        finding.rule.as_str(),
        &format!("{}: {}", ids.join(" "), finding.seen),
    );
}
