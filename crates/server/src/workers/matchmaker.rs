//! The matchmaker: looks at each queue when somebody came or time has come, and starts the matches there are.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// It looks around at least this often even if nobody wakes it: tickets that nobody asks after go, and a lost wake-up costs no more.
const SWEEP: Duration = Duration::from_millis(500);
/// A lobby that forgets in time is told this often who still waits.
const TOUCH_EVERY: Duration = Duration::from_secs(20);
/// Pause before a lobby that could not be read is read again.
const LOAD_AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(app: Arc<App>) {
    load(&app).await;
    let mut touched = app.clock.now();
    loop {
        let begun = app.clock.now();
        let next = app.look_at_queues().await;
        let took = app.clock.now().since(begun);
        if app.clock.now().since(touched) >= TOUCH_EVERY {
            app.touch_lobby().await;
            touched = app.clock.now();
        }
        // With very many tickets a look takes its time: it rests as long, and what came meanwhile is seen by one look, not by one each.
        tokio::time::sleep(took).await;
        tokio::select! {
            biased;
            () = app.match_now.notified() => {}
            () = tokio::time::sleep(next.min(SWEEP)) => {}
        }
    }
}

async fn load(app: &Arc<App>) {
    while !app.lobby_loaded.load(std::sync::atomic::Ordering::Acquire) {
        if let Err(e) = app.load_lobby().await {
            tracing::warn!(code = %e.code(), error = %e, "the tickets of an earlier run cannot be read; nobody joins a queue until they can");
            tokio::time::sleep(LOAD_AGAIN).await;
        }
    }
}
