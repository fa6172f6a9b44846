//! What the runtime shows, turned into events. Level-triggered: seeing the same thing twice changes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use spawnpoint_core::InstanceId;
use spawnpoint_core::fleet::Warm;
use spawnpoint_runtime::{Change, Instance, RuntimeError, State};

use super::App;
use super::world::Holder;
use crate::mutant::{self, Mutant};

impl App {
    /// Takes one change of the runtime's watch.
    pub(crate) fn changed(self: &Arc<Self>, change: Change) {
        match change {
            Change::One(instance) => self.observe(*instance),
            Change::Gone(id) => self.gone(id),
            Change::All(all) => {
                let present: HashSet<InstanceId> = all.iter().map(|i| i.id).collect();
                for instance in all {
                    self.observe(instance);
                }
                // Only what was really seen before can be gone; an order under way has not been listed yet.
                let mut missing: Vec<InstanceId> = self
                    .world()
                    .instances
                    .keys()
                    .filter(|i| !present.contains(i))
                    .copied()
                    .collect();
                missing.sort_unstable();
                if !missing.is_empty() {
                    let app = Arc::clone(self);
                    self.tasks.spawn(async move { app.look_for(missing).await });
                }
            }
        }
    }

    /// Takes one instance as it is now.
    pub(super) fn observe(self: &Arc<Self>, instance: Instance) {
        let id = instance.id;
        let holder = {
            let mut world = self.world();
            if world
                .instances
                .get(&id)
                .is_some_and(|old| is_older(&instance, old))
            {
                return;
            }
            let holder = world.holders.get(&id).copied();
            world.instances.insert(id, instance.clone());
            holder
        };
        match holder {
            Some(Holder::Session(session) | Holder::Place(session)) => {
                self.tell_session(session, &instance)
            }
            Some(Holder::Orphan) => {}
            Some(Holder::Warm) => self.observe_warm(&instance),
            None if instance.facts.is_none() => {
                let fleet = instance.fleet.clone();
                let mut world = self.world();
                if world.draining || !world.fleets.contains_key(&fleet) {
                    drop(world);
                    self.discard(id, &fleet);
                    return;
                }
                world.hold(id, &fleet, Holder::Warm);
                drop(world);
                self.observe_warm(&instance);
            }
            // Bound to a session nobody here knows: another run's, or one already recorded. Revive decides, nobody else.
            None => {}
        }
    }

    fn observe_warm(self: &Arc<Self>, instance: &Instance) {
        let mut world = self.world();
        let now = self.now();
        // Since this was taken in, it may have been claimed or seen anew: then it would come back as warm, and be claimed twice.
        if world.holders.get(&instance.id) != Some(&Holder::Warm)
            || world.instances.get(&instance.id) != Some(instance)
        {
            return;
        }
        let Some(f) = world.fleets.get_mut(&instance.fleet) else {
            return;
        };
        match instance.state {
            State::Starting | State::Ready => {
                let ready = instance.state == State::Ready;
                let warm = Warm {
                    id: instance.id,
                    ready,
                    started_at: instance.timings.ordered_at.unwrap_or(now),
                    template: instance.template,
                };
                let before = f.warm.insert(instance.id, warm);
                if ready && !f.warm_ready.contains(&instance.id) {
                    f.warm_ready.push_back(instance.id);
                    f.failures = f.failures.succeeded();
                }
                if before == Some(warm) {
                    return;
                }
            }
            State::Exited(exit) => {
                let started = f.warm.get(&instance.id).map_or(now, |w| w.started_at);
                f.failures = f.failures.failed(started, now);
                let n = f.failures.in_a_row;
                drop(world);
                tracing::warn!(fleet = %instance.fleet, instance = %instance.id, code = exit.code, signal = exit.signal, in_a_row = n, "a warm instance is over");
                self.discard(instance.id, &instance.fleet);
                self.plan_now.notify_one();
                return;
            }
            // Cannot be seen: it is neither claimed nor replaced until it can.
            State::Unknown { .. } | State::Gated => {
                f.warm_ready.retain(|w| *w != instance.id);
                // And it counts, also where it was first met like this (after a restart): it may well be there.
                let unseen = Warm {
                    id: instance.id,
                    ready: false,
                    started_at: instance.timings.ordered_at.unwrap_or(now),
                    template: instance.template,
                };
                f.warm.entry(instance.id).or_insert(unseen).ready = false;
            }
            State::Stopping => {
                drop(world);
                self.discard(instance.id, &instance.fleet);
                return;
            }
        }
        drop(world);
        self.plan_now.notify_one();
    }

    /// An instance was forgotten.
    pub(super) fn gone(&self, id: InstanceId) {
        let mut world = self.world();
        let fleet = world.instances.get(&id).map(|i| i.fleet.clone());
        if let Some(fleet) = fleet {
            world.drop_instance(id, &fleet);
        }
        drop(world);
        self.ended.notify_waiters();
        self.plan_now.notify_one();
    }

    /// A listing does not have these, which were seen before. A listing can be stale, or empty by mistake, and to believe it would end
    /// every game at once: each is asked after by its id first.
    async fn look_for(self: Arc<Self>, missing: Vec<InstanceId>) {
        for id in missing {
            let mut pause = super::effects::RETRY_FIRST;
            loop {
                match self.runtime.get(id).await {
                    Ok(seen) => self.observe(seen),
                    Err(RuntimeError::NotFound) => self.vanished(id),
                    // Not known is not the same as not there.
                    Err(_) => {
                        if self.pause(&mut pause).await {
                            return;
                        }
                        continue;
                    }
                }
                break;
            }
        }
    }

    /// An instance that was seen before is not there: somebody removed it behind our back.
    fn vanished(self: &Arc<Self>, id: InstanceId) {
        let holder = self.world().holders.get(&id).copied();
        match holder {
            Some(Holder::Session(session) | Holder::Place(session)) => {
                let generation = {
                    let world = self.world();
                    world
                        .sessions
                        .get(&session)
                        .filter(|e| e.session.instance == Some(id))
                        .map(|e| e.session.generation)
                };
                if let Some(generation) = generation {
                    let exit = super::effects::lost(self.now());
                    let _ = self.apply(
                        session,
                        &spawnpoint_core::session::Event::Exited(generation, exit),
                    );
                }
            }
            Some(Holder::Warm | Holder::Orphan) | None => self.gone(id),
        }
    }
}

/// Whether `new` says less than `old` does: an exit is final, and a start in place counts up.
fn is_older(new: &Instance, old: &Instance) -> bool {
    let rank = |s: &State| match s {
        State::Unknown { .. } => 0,
        State::Gated => 1,
        State::Starting => 2,
        State::Ready => 3,
        State::Stopping => 4,
        State::Exited(_) => 5,
    };
    if new.restarts != old.restarts && !mutant::on(Mutant::GenerationUnchecked) {
        return new.restarts < old.restarts;
    }
    if matches!(new.state, State::Unknown { .. }) || matches!(old.state, State::Unknown { .. }) {
        return matches!(old.state, State::Exited(_));
    }
    rank(&new.state) < rank(&old.state)
}
