//! The audit in production: what every owner of facts says now, judged by `core::audit`.
//!
//! *Flow*: one look at everything; what it suspects is looked at again, twice, with pauses that whatever is on its way needs to arrive.
//! *Guarantees*: it changes nothing; no lock is held for more than a slice of what is live, none over an await; records are asked by
//! key for the sessions concerned. *Caveats*: starts are remembered for a bounded number, and from this run on only.

mod gather;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spawnpoint_core::audit::{Report, Snapshot, check, confirm};
use spawnpoint_core::{Moment, SessionId};
use spawnpoint_store::Inspection;
use spawnpoint_wire::api::AuditReport;
use spawnpoint_wire::tables::Tables;

use super::App;

/// Answered starts that are remembered, so that an audit can ask what became of them: 24 bytes each, and a key look-up each time.
const STARTS_KEPT: usize = 20_000;
/// Work on this many instances takes about a millisecond: more of it is not done on a thread that answers players.
const ASIDE_FROM: usize = 512;
/// Pauses before what is suspected is looked at again: an echo or a write under way takes milliseconds; a lost watch is opened again
/// within half a second. With what the looks themselves take it must stay below two seconds.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];

/// What is kept for audits alone.
#[derive(Default)]
pub(crate) struct Memory {
    /// Answered starts, the latest last.
    starts: Mutex<VecDeque<(SessionId, Moment)>>,
    /// Gateways whose tables can be asked for.
    gateways: Mutex<Vec<Arc<dyn Tables>>>,
    /// One audit at a time: a second would see the same and cost as much again.
    turn: tokio::sync::Mutex<()>,
}

impl Memory {
    /// A start was answered, or a session taken over: from now on it is live or recorded.
    pub(crate) fn started(&self, session: SessionId, now: Moment) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if starts.len() == STARTS_KEPT {
            starts.pop_front();
        }
        starts.push_back((session, now));
    }

    fn starts(&self) -> Vec<(SessionId, Moment)> {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.iter().copied().collect()
    }

    /// This gateway's tables can be asked for from now on.
    pub(crate) fn listen_to(&self, gateway: Arc<dyn Tables>) {
        let mut all = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let name = gateway.name();
        all.retain(|g| g.name() != name);
        all.push(gateway);
    }

    fn gateways(&self) -> Vec<Arc<dyn Tables>> {
        let all = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

impl App {
    /// Looks at everything and says what is wrong and what cannot be seen. Takes up to some seconds; changes nothing.
    pub(crate) async fn audit(self: &Arc<Self>) -> Report {
        let _turn = self.audits.turn.lock().await;
        // What is stored comes and goes with releases and accidents, not within seconds: it is inspected once.
        let mut inspection = None;
        let mut last = self.audit_look(None, &mut inspection).await;
        for (nth, pause) in LOOK_AGAIN.into_iter().enumerate() {
            if last.is_clean() {
                break;
            }
            tokio::time::sleep(pause).await;
            if last.unseen.is_empty() {
                let suspects = last.suspects();
                let next = self.audit_look(Some(&suspects), &mut inspection).await;
                last = confirm(&last, &next);
                continue;
            }
            // What could not be seen may be there now, and then everything about it is new.
            let next = self.audit_look(None, &mut inspection).await;
            let is_final = nth + 1 == LOOK_AGAIN.len();
            last = if is_final {
                Report {
                    findings: confirm(&last, &next).findings,
                    ..next
                }
            } else {
                next
            };
        }
        last
    }

    /// A first look alone: what it finds may just be on its way.
    pub(crate) async fn first_look(self: &Arc<Self>) -> Report {
        let _turn = self.audits.turn.lock().await;
        self.audit_look(None, &mut None).await
    }

    /// The audit, as others read it.
    pub(crate) async fn audit_report(self: &Arc<Self>) -> AuditReport {
        let at = self.now();
        let report = self.audit().await;
        let took = self.now().since(at);
        if !report.is_clean() {
            let (findings, unseen) = (report.findings.len(), report.unseen.len());
            tracing::warn!(findings, unseen, "an audit was not clean");
        }
        self.audit_view(&report, at, took)
    }

    /// One look. Of the records only the suspects' are asked for, if there are any to begin with.
    async fn audit_look(
        self: &Arc<Self>,
        suspects: Option<&BTreeSet<SessionId>>,
        inspection: &mut Option<Inspection>,
    ) -> Report {
        let now = self.now();
        let snapshot = self.snapshot(suspects, inspection).await;
        let size = snapshot.instances.get().map_or(0, Vec::len);
        self.aside(size, move || check(&snapshot, now))
            .await
            // Only a panic comes here: nothing was proven.
            .unwrap_or_else(|| check(&blind(now), now))
    }

    /// Works on so many things where it keeps nobody waiting; here, if there are few: then it takes less than the way to another
    /// thread, and a simulation stays the same in every run.
    async fn aside<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if size < ASIDE_FROM {
            return Some(work());
        }
        self.tasks.spawn_blocking(work).await.ok()
    }
}

/// Nothing can be seen.
fn blind(now: Moment) -> Snapshot {
    use spawnpoint_core::time::Known::Unknown;
    Snapshot {
        server: Unknown { since: now },
        instances: Unknown { since: now },
        holdings: Unknown { since: now },
        records: Unknown { since: now },
        lobby: Unknown { since: now },
        gateways: Unknown { since: now },
    }
}
