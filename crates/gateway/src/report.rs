//! Telling the control plane who is here and when they last did something. Edges at once, traffic each second, everything after a
//! loss. What cannot be told is kept: ages are counted by this gateway's own clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spawnpoint_wire::link::{REPORT_EVERY, Report};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::config::{LINK_PAUSE, LINK_PAUSE_MAX, REPORT_PERIOD, REPORT_SPACING, REPORT_TIMEOUT};
use crate::tunnels::Sending;

/// Reports until told to stop; then says what is left once more.
pub(crate) async fn report(inner: Arc<Inner>, stop: CancellationToken) {
    let mut reporter = Reporter {
        inner,
        sequence: 0,
        silent_since: Instant::now(),
    };
    let mut pause = LINK_PAUSE;
    loop {
        if reporter.send().await {
            pause = LINK_PAUSE;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(REPORT_SPACING) => {}
            }
        } else {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LINK_PAUSE_MAX);
        }
        if !reporter.inner.table.urgent() {
            let next = Instant::now() + REPORT_PERIOD;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = reporter.inner.table.edge() => {}
                () = sleep_until(next) => {}
            }
        }
    }
    // Departures of the drain; whoever does not hear them learns it from this run's silence.
    reporter.send().await;
}

struct Reporter {
    inner: Arc<Inner>,
    sequence: u64,
    /// When the last report arrived. A gateway that says nothing for long is not believed to be there.
    silent_since: Instant,
}

impl Reporter {
    /// Sends what there is to say; false: it did not arrive.
    async fn send(&mut self) -> bool {
        let table = &self.inner.table;
        let sending = match table.report() {
            Some(sending) => sending,
            None if self.silent_since.elapsed() >= REPORT_EVERY => Sending::default(),
            None => return true,
        };
        self.sequence += 1;
        let report = Report {
            gateway: self.inner.name.clone(),
            sequence: self.sequence,
            full: sending.full,
            sessions: sending.sessions.clone(),
        };
        let arrived = matches!(
            timeout(REPORT_TIMEOUT, self.inner.link.report(report)).await,
            Ok(Ok(()))
        );
        if arrived {
            self.silent_since = Instant::now();
            table.report_arrived(&sending);
            table.counters.reports.fetch_add(1, Ordering::Relaxed);
        } else {
            table.report_lost(&sending);
            table
                .counters
                .reports_failed
                .fetch_add(1, Ordering::Relaxed);
        }
        arrived
    }
}
