//! The workers: level-triggered, without input, activated by period or hint. Each looks at the world and acts.

mod matchmaker;
mod reaper;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use spawnpoint_core::session::Event;

use crate::app::App;

/// How often the fleet worker looks around even if nobody wakes it.
const SWEEP: Duration = Duration::from_secs(1);
/// How often old records are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Records removed in one go.
const PRUNE_BATCH: usize = 500;
/// Pause before a lost watch is opened again.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

/// Starts all workers on the app's tracker; they end with its stop token.
pub(crate) fn start(app: &Arc<App>) {
    app.tasks
        .spawn(until_stop(Arc::clone(app), watch(Arc::clone(app))));
    app.tasks
        .spawn(until_stop(Arc::clone(app), fleets(Arc::clone(app))));
    app.tasks
        .spawn(until_stop(Arc::clone(app), reaper::run(Arc::clone(app))));
    app.tasks.spawn(until_stop(
        Arc::clone(app),
        matchmaker::run(Arc::clone(app)),
    ));
    app.tasks
        .spawn(until_stop(Arc::clone(app), prune(Arc::clone(app))));
}

async fn until_stop(app: Arc<App>, worker: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        // First: a worker does nothing more once the server stops.
        () = app.stop.cancelled() => {}
        () = worker => {}
    }
}

/// Follows the runtime. A lost watch is opened again and begins with everything; meanwhile what was seen last stands.
async fn watch(app: Arc<App>) {
    loop {
        match app.runtime.watch().await {
            Ok(mut changes) => {
                while let Some(change) = changes.next().await {
                    app.changed(change);
                }
                tracing::warn!("the runtime's watch ended; opening it again");
            }
            Err(e) => {
                tracing::warn!(code = %e.code(), error = %e, "the runtime cannot be watched; trying again")
            }
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

async fn fleets(app: Arc<App>) {
    loop {
        let next = app.plan_fleets().min(SWEEP);
        tokio::select! {
            biased;
            () = app.plan_now.notified() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

async fn prune(app: Arc<App>) {
    loop {
        let keep =
            i64::try_from(app.config.load().server.retention.as_millis()).unwrap_or(i64::MAX);
        let before = app.clock.wall(app.clock.now()).saturating_sub(keep);
        loop {
            match app.records.prune(before, PRUNE_BATCH).await {
                Ok(n) if n >= PRUNE_BATCH as u64 => {}
                Ok(_) => break,
                Err(e) => {
                    tracing::warn!(code = %e.code(), error = %e, "old records could not be removed; trying again later");
                    break;
                }
            }
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}

/// Applies a tick; what it rejects is not worth a word.
fn tick(app: &Arc<App>, id: spawnpoint_core::SessionId, hold: bool, now: spawnpoint_core::Moment) {
    let _ = app.apply_at(id, &Event::Tick { hold }, now);
}
