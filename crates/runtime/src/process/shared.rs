//! What one open runtime holds: the instances it knows, as callers see them, and the tasks that keep them.
//!
//! Two locks per instance. `entry` is held over file work, so only the blocking pool takes it; `view` is the published copy and is
//! never held over anything. The order is always slots, entry, view, ports; none is held while waiting for another instance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spawnpoint_core::ports::PortTable;
use spawnpoint_core::{Clock, InstanceId, Moment};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use super::entry::Entry;
use super::pages::{RunFile, Stamp};
use super::record::Record;
use super::state_dir::StateDir;
use super::{OpenError, OwnerStep, ProcessConfig, changes, tree};
use crate::contract::{Change, Instance, RuntimeError};
use crate::fault;

/// What all tasks and calls of one open runtime share.
pub(super) struct Shared {
    pub(super) state: StateDir,
    pub(super) config: ProcessConfig,
    pub(super) ports: Mutex<PortTable<InstanceId>>,
    pub(super) slots: Mutex<BTreeMap<InstanceId, Arc<Slot>>>,
    changes: broadcast::Sender<InstanceId>,
    tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

/// One instance's place.
pub(super) struct Slot {
    pub(super) id: InstanceId,
    pub(super) entry: Mutex<Option<Entry>>,
    view: Mutex<Option<Instance>>,
    /// Tells the supervisor that something it waits for may have changed.
    pub(super) wake: Notify,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not take every session along; what is guarded is written whole or not at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub(super) fn empty(id: InstanceId) -> Arc<Self> {
        Arc::new(Self {
            id,
            entry: Mutex::new(None),
            view: Mutex::new(None),
            wake: Notify::new(),
        })
    }

    pub(super) fn view(&self) -> Option<Instance> {
        locked(&self.view).clone()
    }
}

impl Shared {
    pub(super) fn open(config: ProcessConfig) -> Result<Arc<Self>, OpenError> {
        let state = StateDir::open(&config.state_dir)?;
        let (records, torn) = state.load()?;
        let clock = Arc::clone(&config.clock);
        let seed = clock.now().0.unsigned_abs() ^ u64::from(std::process::id()).rotate_left(32);
        let ports = PortTable::new(
            *config.ports.start(),
            *config.ports.end(),
            config.port_quarantine,
            // Spread: the clock alone would hand the same first ports to two starts within a second.
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16,
        );
        let shared = Arc::new(Self {
            state,
            ports: Mutex::new(ports),
            slots: Mutex::new(BTreeMap::new()),
            changes: changes(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            config,
        });
        for id in torn {
            tracing::warn!(instance = %id, "an instance's record was torn; it was set aside and what ran of it is ended");
            tree::sweep_orphans(&id.to_string(), None, None);
        }
        for record in records {
            shared.adopt(record)?;
        }
        Ok(shared)
    }

    /// Takes a stored instance over from an owner that is gone.
    fn adopt(self: &Arc<Self>, record: Record) -> Result<(), OpenError> {
        let Some(mut entry) = Entry::of(record) else {
            return Ok(());
        };
        let id = entry.id;
        let failed = |source| OpenError::Directory {
            path: self.state.path(id),
            source,
        };
        let run = RunFile::open(&self.state.path(id)).map_err(failed)?;
        entry.read_pages(&run).map_err(failed)?;
        let over = entry.exit.is_some();
        if let Some(port) = entry.record.port
            && !(over && entry.record.template.fixed_port.is_some())
            && !locked(&self.ports).take(port, id)
        {
            tracing::warn!(instance = %id, port, "two stored instances claim one port");
        }
        if !over && let Err(e) = self.state.repair_session_file(id, &entry.record) {
            tracing::warn!(instance = %id, error = %e, "the session file could not be repaired");
        }
        let slot = Slot::empty(id);
        *locked(&slot.entry) = Some(entry.clone());
        locked(&self.slots).insert(id, Arc::clone(&slot));
        if entry.gated() && entry.stop.is_some() && !over {
            // Killed between the two writes of a stop.
            let _ = self.with_entry(id, |_, e| self.end_unstarted(e));
        } else {
            self.publish(&slot, Some(&entry));
        }
        if !over && !entry.gated() {
            // Looked at now, so that the first listing already tells how each one fared.
            let next = self.advance(id, 0);
            self.supervise(id, Some(next));
        }
        Ok(())
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.config.clock
    }

    pub(super) fn now(&self) -> Moment {
        self.config.clock.now()
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp::now(self.clock())
    }

    pub(super) fn observe(&self, id: InstanceId, step: OwnerStep) {
        fault::pass(step.point());
        if let Some(observer) = &self.config.observer {
            observer(id, step);
        }
    }

    pub(super) fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled_owned() => {}
                () = task => {}
            }
        });
    }

    /// Where work that must end before a shutdown does is run.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(super) fn close(&self) {
        self.cancel.cancel();
        self.tasks.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.cancel.clone().cancelled_owned()
    }

    pub(super) async fn shutdown(self: &Arc<Self>) {
        self.close();
        self.tasks.wait().await;
        self.state.unlock();
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<InstanceId> {
        self.changes.subscribe()
    }

    pub(super) fn slot(&self, id: InstanceId) -> Option<Arc<Slot>> {
        locked(&self.slots).get(&id).cloned()
    }

    pub(super) fn list(&self) -> Vec<Instance> {
        let slots: Vec<_> = locked(&self.slots).values().cloned().collect();
        slots.iter().filter_map(|slot| slot.view()).collect()
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<Instance> {
        self.slot(id)?.view()
    }

    pub(super) fn change(&self, id: InstanceId) -> Change {
        self.get(id)
            .map_or(Change::Gone(id), |i| Change::One(Box::new(i)))
    }

    pub(super) fn dir(&self, id: InstanceId) -> PathBuf {
        self.state.path(id)
    }

    /// Publishes what is known now; says nothing if nothing changed.
    pub(super) fn publish(&self, slot: &Slot, entry: Option<&Entry>) {
        let new = entry.map(|e| e.instance(self.clock()));
        let mut view = locked(&slot.view);
        if *view != new {
            *view = new;
            drop(view);
            // Nobody watching is fine.
            let _ = self.changes.send(slot.id);
        }
    }

    /// Runs `work` on an instance under its lock and publishes what came of it.
    pub(super) fn with_entry<T>(
        &self,
        id: InstanceId,
        work: impl FnOnce(&Slot, &mut Entry) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let slot = self.slot(id).ok_or(RuntimeError::NotFound)?;
        let mut guard = locked(&slot.entry);
        let entry = guard.as_mut().ok_or(RuntimeError::NotFound)?;
        let result = work(&slot, entry);
        self.publish(&slot, guard.as_ref());
        result
    }
}
