//! Hours of virtual time in one world: churn and failures again and again, and whether what it all needs stays as it is.
//!
//! What is over is forgotten after a while, by the records (their retention) and by the checkers, who look at it once more then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use spawnpoint_core::{InstanceId, SessionId, TicketId};
use tokio::time::sleep;

use crate::nature;
use crate::plan::{Cut, Plan};
use crate::run::{Outcome, run_with};
use crate::world::World;

/// How long records are kept.
pub(crate) const RETENTION: Duration = Duration::from_secs(3_600);
/// How long after its record a session is still of interest, milliseconds. Less than the retention by more than the wall clock jumps.
const INTEREST: i64 = 20 * 60_000;
/// How often it is looked what can be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked what there is.
const SAMPLE_EVERY: Duration = Duration::from_secs(300);
/// What the kernel counts memory in, bytes.
const PAGE: u64 = 4_096;

/// How it stands at some time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the world began.
    pub at: Duration,
    /// Sessions that are live.
    pub live: usize,
    /// Instances there are.
    pub instances: usize,
    /// Sessions so far.
    pub sessions: usize,
    /// Runs of the server so far.
    pub runs: u32,
    /// Checks so far.
    pub checks: u64,
    /// Memory of this process, bytes; 0 where it cannot be told.
    pub resident: u64,
}

/// Runs so many hours without what is cut, and tells how it stands meanwhile. Without deaths of the server nothing is freed by them that
/// should have been freed before.
///
/// # Errors
/// When no runtime can be had.
pub fn run_hours(
    seed: u64,
    hours: u64,
    cut: &Cut,
    samples: Sender<Sample>,
) -> std::io::Result<Outcome> {
    run_with(Plan::day(seed, hours).cut(cut), Some(samples))
}

/// Says how it stands until nobody listens.
pub(crate) async fn sampler(world: Arc<World>, samples: Sender<Sample>) {
    loop {
        sleep(SAMPLE_EVERY).await;
        let (live, sessions) = {
            let truth = world.truth();
            let games = truth.games.values();
            (games.clone().filter(|g| g.is_live()).count(), games.count())
        };
        let sample = Sample {
            at: Duration::from_millis(u64::try_from(world.now()).unwrap_or(0)),
            live,
            instances: world.instances().len(),
            sessions: sessions + world.forgotten.load(Ordering::Relaxed),
            runs: world.runs(),
            checks: world.checks.load(Ordering::Relaxed),
            resident: resident(),
        };
        if samples.send(sample).is_err() {
            return;
        }
    }
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|p| p.parse().ok());
    pages.unwrap_or(0) * PAGE
}

/// Forgets what is over, after a last look at it.
pub(crate) async fn forgetter(world: Arc<World>) {
    loop {
        sleep(FORGET_EVERY).await;
        let before = world.now() - INTEREST;
        let over: Vec<SessionId> = {
            let truth = world.truth();
            let over = truth
                .games
                .iter()
                .filter(|(_, g)| g.on.is_empty() && g.recorded.is_some_and(|at| at < before));
            over.map(|(id, _)| *id).collect()
        };
        for id in &over {
            world.checked();
            if !nature::is_recorded(&world, *id) {
                let what = format!("the record of {} is gone", world.s(*id));
                world.fail("an acknowledged start is live or recorded", &what);
            }
        }
        nature::check_tickets(&world);
        forget(&world, &over, before);
        world.forgotten.fetch_add(over.len(), Ordering::Relaxed);
    }
}

fn forget(world: &World, over: &[SessionId], before: i64) {
    let there: std::collections::BTreeSet<InstanceId> =
        world.instances().iter().map(|i| i.id).collect();
    let mut gone: Vec<uuid::Uuid> = over.iter().map(|s| s.uuid()).collect();
    let mut truth = world.truth();
    for id in over {
        truth.games.remove(id);
    }
    let truth = &mut *truth;
    let games = &truth.games;
    truth.bodies.retain(|id, body| {
        let stays = there.contains(id) || body.session.is_some_and(|s| games.contains_key(&s));
        if !stays {
            gone.push(id.uuid());
        }
        stays
    });
    truth
        .by_ticket
        .retain(|_, sessions| sessions.iter().any(|s| games.contains_key(s)));
    let by_ticket = &truth.by_ticket;
    let mut stays = |id: &TicketId, asked: i64| {
        let stays = asked >= before || by_ticket.contains_key(id);
        if !stays {
            gone.push(id.uuid());
        }
        stays
    };
    truth.slips.retain(|id, slip| stays(id, slip.asked));
    truth.deaf.retain(|(_, until)| *until >= before);
    truth.unheard.retain(|(_, until)| *until >= before);
    truth.stops.retain(|(at, _)| *at >= before);
    truth.culls.retain(|at| *at >= before);
    for asked in truth.fresh.values_mut() {
        asked.retain(|at| *at >= before);
    }
    world.board().forget(over);
    world.history.forget(&gone);
}
