//! Following the stream of routes. While it is down, what is known keeps working.

use std::sync::Arc;

use futures::StreamExt as _;
use spawnpoint_wire::link::{Cursor, RouteUpdate};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::config::{LINK_PAUSE, LINK_PAUSE_MAX, REPORT_TIMEOUT};

/// Follows until told to stop.
pub(crate) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    stop.run_until_cancelled(forever(&inner)).await;
    inner.table.counters.link_up.set(false);
}

async fn forever(inner: &Inner) {
    let mut cursor: Option<Cursor> = None;
    let mut pause = LINK_PAUSE;
    loop {
        match timeout(REPORT_TIMEOUT, inner.link.routes(cursor)).await {
            Ok(Ok(mut stream)) => {
                inner.table.counters.link_up.set(true);
                while let Some(update) = stream.next().await {
                    if is_of_another_run(cursor, &update) {
                        // Numbers of two runs cannot be compared: begin with the whole table.
                        cursor = None;
                        break;
                    }
                    cursor = Some(inner.table.apply(update));
                    pause = LINK_PAUSE;
                }
                tracing::info!("the stream of routes has ended");
            }
            Ok(Err(error)) => tracing::warn!(%error, "no routes"),
            Err(_) => tracing::warn!("no answer to the question for routes"),
        }
        inner.table.counters.link_up.set(false);
        sleep(pause).await;
        pause = (pause * 2).min(LINK_PAUSE_MAX);
    }
}

fn is_of_another_run(known: Option<Cursor>, update: &RouteUpdate) -> bool {
    match update {
        RouteUpdate::All { .. } => false,
        RouteUpdate::Set { cursor, .. } | RouteUpdate::Gone { cursor, .. } => {
            known.is_none_or(|k| k.incarnation != cursor.incarnation)
        }
    }
}
