//! The fleet worker's acts: what `core::fleet::plan` decided, done.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::fleet::{InFlight, Plan, PoolSpec, Warm, plan};
use spawnpoint_core::time::Known;
use spawnpoint_core::{FleetName, InstanceId};
use spawnpoint_runtime::{RuntimeError, State};
use spawnpoint_wire::api::{FleetChange, FleetView};
use tokio::sync::broadcast::Receiver;

use super::App;
use super::start::chain;
use super::world::{FleetState, Holder, World};
use crate::journal::Made;
use crate::mutant::{self, Mutant};

/// A fleet with sessions waiting is looked at again at least this often: a port may have become free.
const WAITING_LOOK: Duration = Duration::from_secs(1);

/// Whether a plan wants something done.
fn acts(plan: &Plan) -> bool {
    plan.start > 0 || !plan.stop.is_empty() || plan.admit > 0
}

impl App {
    /// Looks at every fleet once and acts. Returns when to look again at the latest.
    pub(crate) fn plan_fleets(self: &Arc<Self>) -> Duration {
        let names: Vec<FleetName> = self.world().fleets.keys().cloned().collect();
        let mut next = Duration::from_secs(30);
        for name in names {
            if let Some(after) = self.plan_fleet(&name) {
                next = next.min(after);
            }
            self.tell_fleet(&name);
        }
        next
    }

    fn plan_fleet(self: &Arc<Self>, name: &FleetName) -> Option<Duration> {
        let now = self.now();
        let (plan, config, waiting) = {
            let mut world = self.world();
            let draining = world.draining;
            let f = world.fleets.get_mut(name)?;
            let spec = PoolSpec {
                warm: if draining || !f.config.warm_allowed {
                    0
                } else {
                    f.config.warm
                },
                max_age: f.config.warm_max_age,
                max_instances: f.config.max_instances,
                template: f.template,
            };
            let seen = Known::Is(f.pool());
            let in_flight = InFlight::default();
            let decided = plan(&spec, &seen, in_flight, f.failures, now);
            let acted = f.last_plan.as_ref().is_some_and(|(_, p)| acts(p));
            if let Some(journal) = &self.journal
                && (acts(&decided) || acted)
            {
                let inputs = (spec, seen, in_flight, f.failures);
                journal.note(Made::plan(name.clone(), inputs, now, decided.clone()));
            }
            let changed = f.last_plan.as_ref().is_none_or(|(_, p)| *p != decided);
            if changed && acts(&decided) {
                tracing::info!(fleet = %name, admit = decided.admit, start = decided.start, stop = decided.stop.len(), because = %decided.because, "fleet plan");
            }
            f.last_plan = Some((now, decided.clone()));
            (decided, Arc::clone(&f.config), !f.queue.is_empty())
        };
        let Plan {
            admit,
            start,
            stop,
            recheck_after,
            ..
        } = plan;
        for id in stop {
            self.discard(id, name);
        }
        if waiting && mutant::on(Mutant::DeleteClaimed) {
            self.make_room(name);
        }
        if admit > 0 {
            self.admit(name, admit);
        }
        for _ in 0..start {
            let id = self.ids.instance();
            let warm = Warm {
                id,
                ready: false,
                started_at: now,
                template: config.template.fingerprint(),
            };
            {
                let mut world = self.world();
                world.hold(id, name, Holder::Warm);
                if let Some(f) = world.fleets.get_mut(name) {
                    f.warm.insert(id, warm);
                }
            }
            let app = Arc::clone(self);
            let config = Arc::clone(&config);
            self.tasks
                .spawn(async move { app.start_warm(config, id).await });
        }
        let again = waiting.then_some(WAITING_LOOK);
        match (recheck_after, again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Says how a fleet is after its plan was carried out, with the plan's reason, to whoever follows it.
    fn tell_fleet(&self, name: &FleetName) {
        if !self.followed.is_followed() {
            return;
        }
        // Under the lock, as who begins to follow looks under it: they miss nothing, and are told nothing older than what they saw.
        let world = self.world();
        if let Some(f) = world.fleets.get(name) {
            self.followed.tell(self.fleet_change(name, f));
        }
    }

    /// How a fleet is now.
    fn fleet_change(&self, name: &FleetName, f: &FleetState) -> FleetChange {
        FleetChange {
            at: self.text(self.now()),
            gone: f.sessions == 0 && self.config.load().fleet(name).is_none(),
            fleet: self.fleet_view(name, f),
        }
    }

    /// All fleets as they are shown: in the order of the configuration, then those that are gone from it and still have games.
    pub(crate) fn fleets_shown(&self) -> Vec<FleetView> {
        self.with_world(|w| self.fleets_in(w))
            .into_iter()
            .map(|c| c.fleet)
            .collect()
    }

    /// The same, and what is told of them from here on.
    pub(crate) fn follow_fleets(&self) -> (Vec<FleetChange>, Receiver<Arc<FleetChange>>) {
        self.with_world(|w| (self.fleets_in(w), self.followed.listen()))
    }

    fn fleets_in(&self, world: &World) -> Vec<FleetChange> {
        let config = self.config.load();
        let configured = config.fleets.iter().map(|c| &c.name);
        let mut others: Vec<&FleetName> = world
            .fleets
            .keys()
            .filter(|n| config.fleet(n).is_none())
            .collect();
        others.sort_unstable();
        configured
            .chain(others)
            .filter_map(|n| Some(self.fleet_change(n, world.fleets.get(n)?)))
            .filter(|c| !c.gone)
            .collect()
    }

    /// An injected bug: a claimed instance goes so that the next in line can have its place.
    fn make_room(self: &Arc<Self>, name: &FleetName) {
        let claimed = self.with_world(|w| {
            let held = |i: &InstanceId| matches!(w.holders.get(i), Some(Holder::Session(_)));
            let of =
                |e: &super::world::Entry| (e.session.fleet == *name).then_some(e.session.instance?);
            w.sessions.values().filter_map(of).filter(held).min()
        });
        if let Some(instance) = claimed {
            self.discard(instance, name);
        }
    }

    async fn start_warm(self: Arc<Self>, config: Arc<crate::config::FleetConfig>, id: InstanceId) {
        let order = self.order_for(&config, id, None, false);
        match self.runtime.order(order).await {
            Ok(seen) => {
                let discarded = self.with_world(|w| w.holders.get(&id) == Some(&Holder::Orphan));
                self.observe(seen);
                if discarded {
                    // Nobody wanted it any more while it was being ordered: whoever came to stop it found nothing, and went.
                    self.discard(id, &config.name);
                }
            }
            Err(e) => {
                tracing::warn!(fleet = %config.name, code = %e.code(), error = %chain(&e), "a warm instance could not be started");
                if matches!(e, RuntimeError::OutcomeUnknown(_)) {
                    // It may exist: whatever there is under this id goes, and another is started instead.
                    self.discard(id, &config.name);
                    return;
                }
                let now = self.now();
                let mut world = self.world();
                world.drop_instance(id, &config.name);
                if let Some(f) = world.fleets.get_mut(&config.name) {
                    f.failures = f.failures.failed(now, now);
                }
                drop(world);
                self.plan_now.notify_one();
            }
        }
    }

    /// Warm instances that do not accept within their start limit fail like those that exit.
    pub(crate) fn drop_stuck_warm(self: &Arc<Self>) {
        let now = self.now();
        let stuck: Vec<(InstanceId, FleetName)> = {
            let mut world = self.world();
            let world = &mut *world;
            let unseen = |id: &InstanceId| {
                let seen = world.instances.get(id);
                seen.is_some_and(|i| matches!(i.state, State::Unknown { .. }))
            };
            let mut out = Vec::new();
            for (name, f) in &mut world.fleets {
                let boot = f.config.policy.boot;
                let late: Vec<Warm> = f
                    .warm
                    .values()
                    // What cannot be seen may accept as it did before: that is no failed start.
                    .filter(|w| !w.ready && now.since(w.started_at) >= boot && !unseen(&w.id))
                    .copied()
                    .collect();
                for w in late {
                    f.failures = f.failures.failed(w.started_at, now);
                    out.push((w.id, name.clone()));
                }
            }
            out
        };
        for (id, fleet) in stuck {
            tracing::warn!(%fleet, instance = %id, "a warm instance never accepted within its start limit");
            self.discard(id, &fleet);
        }
    }

    /// Stops every unclaimed instance: nothing is left running after a drain.
    pub(crate) fn stop_warm(self: &Arc<Self>) {
        let warm: Vec<(InstanceId, FleetName)> = {
            let world = self.world();
            world
                .fleets
                .iter()
                .flat_map(|(n, f)| f.warm.keys().map(|id| (*id, n.clone())))
                .collect()
        };
        for (id, fleet) in warm {
            self.discard(id, &fleet);
        }
    }
}
