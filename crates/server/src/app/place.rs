//! Putting a session on an instance: a warm one claimed, a new one ordered, or a place held in the queue.
//!
//! The world is told whose an instance is before anything is issued; the durable write comes before the step; what was seen of the
//! instance before it was granted is looked at again after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::session::{Effect, Event, step};
use spawnpoint_core::{Code, FleetName, Generation, InstanceId, SessionId};
use spawnpoint_runtime::{Facts, Instance, Order, RuntimeError, State, Version};
use spawnpoint_wire::event::EventBody;
use spawnpoint_wire::token::InstanceClaims;

use super::start::chain;
use super::world::{Choice, Commit, Holder, Place, Todo};
use super::{App, revive};
use crate::config::FleetConfig;
use crate::fault;
use crate::mutant::{self, Mutant};

/// How often a start whose outcome is not known is looked at again before the caller is told so.
const UNKNOWN_TRIES: u32 = 5;
/// Warm instances that turn out to be gone before a cold start is preferred.
const WARM_TRIES: u32 = 8;

/// A claim before it is written.
pub(super) struct Draft {
    document: String,
    file: bytes::Bytes,
    fleet: Arc<FleetConfig>,
}

impl App {
    pub(super) async fn place_first(self: Arc<Self>, id: SessionId, place: Place) {
        fault::point(&self, "start.reserved").await;
        let result = match (self.open_port(id), place) {
            (Err(_), place) => {
                self.give_back(id, place);
                self.gate(id, "ports_exhausted").await
            }
            (Ok(()), Place::Wait | Place::Full) => self.gate(id, self.waiting_for(id)).await,
            (Ok(()), place) => match self.put(id, place, Generation::FIRST).await {
                Err(RuntimeError::PortsExhausted { .. }) => self.gate(id, "ports_exhausted").await,
                other => other,
            },
        };
        match result {
            Ok(()) => {
                // Before the reply: who has the address connects at once, and must not find that there is no such session.
                self.show_route(id);
                self.audits.started(id, self.now());
                if let Some(entry) = self.world().sessions.get(&id) {
                    entry.commit.send_replace(Commit::Durable);
                }
            }
            Err(e) => {
                tracing::warn!(session = %id, code = %e.code(), error = %chain(&e), "a session could not be started");
                let mut world = self.world();
                if let Some(entry) = world.remove(id) {
                    let detail = format!("nothing was started: {}", chain(&e));
                    entry.commit.send_replace(Commit::Failed(e.code(), detail));
                }
                drop(world);
                self.routes.gone(id);
                self.close_port(id);
                self.plan_now.notify_one();
            }
        }
        self.drive(id);
    }

    /// Puts a session on its place. The place is given back when that fails.
    pub(super) async fn put(
        self: &Arc<Self>,
        id: SessionId,
        place: Place,
        generation: Generation,
    ) -> Result<(), RuntimeError> {
        let mut place = place;
        for tries in 0.. {
            let (instance, warm) = match place {
                Place::Warm(instance) => (instance, true),
                Place::Cold(instance) => (instance, false),
                Place::Wait | Place::Full => return self.gate(id, "capacity").await,
            };
            let result = if warm {
                self.claim(id, instance, generation).await
            } else {
                self.start(id, instance, generation).await
            };
            let Some(fleet) = self
                .world()
                .sessions
                .get(&id)
                .map(|e| e.session.fleet.clone())
            else {
                self.discard_anywhere(instance);
                return Ok(());
            };
            match result {
                Ok(version) => {
                    let passed = if warm { "claim.bound" } else { "order.taken" };
                    fault::point(self, passed).await;
                    self.granted(id, instance, version, generation);
                    return Ok(());
                }
                Err(
                    RuntimeError::Conflict
                    | RuntimeError::Over
                    | RuntimeError::NotFound
                    | RuntimeError::OutcomeUnknown(_),
                ) if warm => {
                    // It died or changed under the claim: nobody's from now on, and the next one is tried.
                    self.discard(instance, &fleet);
                    let how = if tries < WARM_TRIES {
                        Choice::Admitted
                    } else {
                        Choice::Heal
                    };
                    place = self.world().choose(&fleet, id, how, || self.ids.instance());
                }
                Err(e) => {
                    if warm {
                        // It is as it was, and still somebody's who comes after.
                        self.give_back(id, place);
                    } else if matches!(e, RuntimeError::OutcomeUnknown(_)) {
                        self.discard(instance, &fleet);
                    } else {
                        self.world().drop_instance(instance, &fleet);
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Binds a warm instance: the claim, with everything that must survive in one write.
    async fn claim(
        &self,
        id: SessionId,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<Version, RuntimeError> {
        let Some(version) = self.world().instances.get(&instance).map(|i| i.version) else {
            return Err(RuntimeError::NotFound);
        };
        let Some(draft) = self.draft_claim(id, instance, generation, true) else {
            return Err(RuntimeError::Over);
        };
        let facts = Facts {
            session: id,
            document: draft.document.clone(),
        };
        let result = match self
            .runtime
            .bind(instance, version, facts.clone(), Some(draft.file.clone()))
            .await
        {
            Err(RuntimeError::Conflict) => {
                // Its version may have moved without anybody taking it.
                let seen = self.runtime.get(instance).await?;
                if seen.facts.is_some() && !mutant::on(Mutant::DoubleClaim) {
                    return Err(RuntimeError::Conflict);
                }
                self.runtime
                    .bind(instance, seen.version, facts, Some(draft.file))
                    .await
            }
            other => other,
        };
        if result.is_ok()
            && let Some(entry) = self.world().sessions.get_mut(&id)
        {
            entry.saved = Some(draft.document);
        }
        result
    }

    /// Orders an instance that is bound from the start.
    async fn start(
        &self,
        id: SessionId,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<Version, RuntimeError> {
        let Some(draft) = self.draft_claim(id, instance, generation, false) else {
            return Err(RuntimeError::Over);
        };
        let order = self.order_for(&draft.fleet, instance, Some((id, &draft)), false);
        let seen = self.order(order).await?;
        let version = seen.version;
        let mut world = self.world();
        world.instances.entry(instance).or_insert(seen);
        if let Some(entry) = world.sessions.get_mut(&id) {
            entry.saved = Some(draft.document);
        }
        Ok(version)
    }

    /// Orders an instance; asks again while nobody can say whether it was ordered.
    async fn order(&self, order: Order) -> Result<Instance, RuntimeError> {
        let mut tries = 0;
        loop {
            let refused = match self.runtime.order(order.clone()).await {
                // The same id again returns what is there: asking twice starts nothing twice.
                Err(RuntimeError::OutcomeUnknown(_)) if tries < UNKNOWN_TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20 << tries)).await;
                    continue;
                }
                Err(e) if tries > 0 => e,
                other => return other,
            };
            // That nothing came of this try says nothing about those before it, which were not answered.
            return match self.runtime.get(order.id).await {
                Ok(seen) => Ok(seen),
                Err(RuntimeError::NotFound) => Err(refused),
                Err(_) => Err(RuntimeError::OutcomeUnknown(format!(
                    "an earlier try was not answered, and the last one was refused: {}",
                    chain(&refused)
                ))),
            };
        }
    }

    /// The claim as it will be once the instance is granted, before it is.
    fn draft_claim(
        &self,
        id: SessionId,
        instance: InstanceId,
        generation: Generation,
        warm: bool,
    ) -> Option<Draft> {
        let now = self.now();
        let mut world = self.world();
        let entry = world.sessions.get_mut(&id)?;
        if entry.start.placed.is_none() {
            entry.start.placed = Some(now);
        }
        entry.start.warm = warm;
        entry.start.drafted = Some(now);
        let granted = step(
            &entry.session,
            &Event::Granted {
                instance,
                generation,
            },
            now,
        )
        .ok()?
        .next;
        let before = std::mem::replace(&mut entry.session, granted);
        let draft = Draft {
            document: revive::document(entry, self.clock.as_ref()),
            file: entry.session_file(self.clock.as_ref()),
            fleet: Arc::clone(&entry.fleet),
        };
        entry.session = before;
        Some(draft)
    }

    /// The order for an instance of a fleet.
    pub(super) fn order_for(
        &self,
        fleet: &Arc<FleetConfig>,
        instance: InstanceId,
        bound: Option<(SessionId, &Draft)>,
        gated: bool,
    ) -> Order {
        let mut env = BTreeMap::new();
        env.insert("SPAWNPOINT_PUBLIC_KEYS".to_owned(), self.keys.ring.to_env());
        if let Some(url) = &self.sdk_url
            && let Ok(token) = self.keys.signing.sign_instance(&InstanceClaims {
                iid: instance,
                fleet: fleet.name.clone(),
            })
        {
            env.insert("SPAWNPOINT_URL".to_owned(), url.clone());
            env.insert("SPAWNPOINT_TOKEN".to_owned(), token);
        }
        Order {
            id: instance,
            fleet: fleet.name.clone(),
            template: fleet.template.clone(),
            gated,
            facts: bound.map(|(session, d)| Facts {
                session,
                document: d.document.clone(),
            }),
            session_file: bound.map(|(_, d)| d.file.clone()),
            env,
        }
    }

    /// The instance is the session's, durably: the step, without writing again what was just written.
    pub(super) fn granted(
        self: &Arc<Self>,
        id: SessionId,
        instance: InstanceId,
        version: Version,
        generation: Generation,
    ) {
        let now = self.now();
        let mut world = self.world();
        let drafted = world
            .sessions
            .get(&id)
            .and_then(|e| e.start.drafted)
            .unwrap_or(now);
        let result = self.apply_in(
            &mut world,
            id,
            &Event::Granted {
                instance,
                generation,
            },
            drafted,
        );
        let seen = world.instances.get(&instance).cloned();
        match result {
            Ok(_) => {
                if let Some(entry) = world.sessions.get_mut(&id) {
                    entry.version = version;
                    let document = revive::document(entry, self.clock.as_ref());
                    if entry.saved.as_ref() != Some(&document) {
                        // Something changed while the claim was being written, when there was no instance to save it with.
                        entry.todo.push_front(Todo::Effect(Effect::Save));
                        entry.unsaved += 1;
                    }
                    if entry.start.claimed.is_none() {
                        entry.start.claimed = Some(now);
                    }
                    if let Some(seen) = &seen {
                        entry.address = seen.address;
                        entry.label.clone_from(&seen.label);
                    }
                }
                drop(world);
                if let Some(seen) = seen {
                    // What was seen before the grant counts now.
                    self.observe(seen);
                }
                self.drive(id);
            }
            Err(_) => {
                let of = world.sessions.get_mut(&id).map(|e| {
                    let own = e.session.instance == Some(instance);
                    if own {
                        e.version = version;
                    }
                    (e.session.fleet.clone(), own)
                });
                drop(world);
                match of {
                    // It ended meanwhile: its own end stops the instance, and forgets it once the record is written.
                    Some((_, true)) => {}
                    Some((fleet, false)) => self.discard_after(id, instance, &fleet),
                    None => self.discard_anywhere(instance),
                }
            }
        }
        self.plan_now.notify_one();
    }

    /// Stops an instance that was made for a session that ended meanwhile, and forgets it when the record is written: until then it
    /// is all there is of a session that somebody may have been told of.
    pub(super) fn discard_after(
        self: &Arc<Self>,
        id: SessionId,
        instance: InstanceId,
        fleet: &FleetName,
    ) {
        self.world().hold(instance, fleet, Holder::Orphan);
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Ok(seen) = app.runtime.get(instance).await {
                let _ = app
                    .runtime
                    .stop(instance, seen.version, Duration::from_secs(1))
                    .await;
            }
            loop {
                let Some(mut changed) =
                    app.with_world(|w| w.sessions.get(&id).map(|e| e.changed.subscribe()))
                else {
                    break;
                };
                tokio::select! {
                    biased;
                    () = app.stop.cancelled() => return,
                    // The channel goes with the session.
                    _ = changed.changed() => {}
                }
            }
            app.forget(instance).await;
        });
    }

    /// An instance that a session does not need: at once, or after the record if the session has ended meanwhile.
    fn discard_of(self: &Arc<Self>, id: SessionId, instance: InstanceId, fleet: &FleetName) {
        let ended = self.with_world(|w| {
            w.sessions
                .get(&id)
                .is_some_and(|e| !e.session.phase.is_live())
        });
        if ended {
            self.discard_after(id, instance, fleet);
        } else {
            self.discard(instance, fleet);
        }
    }

    fn discard_anywhere(self: &Arc<Self>, instance: InstanceId) {
        let fleet = self
            .world()
            .instances
            .get(&instance)
            .map(|i| i.fleet.clone());
        if let Some(fleet) = fleet {
            self.discard(instance, &fleet);
        } else {
            let app = Arc::clone(self);
            self.tasks.spawn(async move { app.forget(instance).await });
        }
    }

    /// Holds a session's place in the queue durably.
    async fn gate(
        self: &Arc<Self>,
        id: SessionId,
        waiting_for: &'static str,
    ) -> Result<(), RuntimeError> {
        let instance = self.ids.instance();
        let draft = {
            let mut world = self.world();
            let Some(entry) = world.sessions.get_mut(&id) else {
                return Ok(());
            };
            entry.waiting_for = waiting_for;
            entry.start.placed = None;
            let draft = Draft {
                document: revive::document(entry, self.clock.as_ref()),
                file: entry.session_file(self.clock.as_ref()),
                fleet: Arc::clone(&entry.fleet),
            };
            world.hold(instance, &draft.fleet.name, Holder::Place(id));
            draft
        };
        let order = self.order_for(&draft.fleet, instance, Some((id, &draft)), true);
        let seen = match self.order(order).await {
            Ok(seen) => seen,
            Err(e) => {
                if matches!(e, RuntimeError::OutcomeUnknown(_)) {
                    // It may be there, and would hold a place for nobody.
                    self.discard(instance, &draft.fleet.name);
                } else {
                    self.world().drop_instance(instance, &draft.fleet.name);
                }
                return Err(e);
            }
        };
        fault::point(self, "gate.ordered").await;
        let version = seen.version;
        let mut world = self.world();
        world.instances.insert(instance, seen);
        let now = self.now();
        if self
            .apply_in(&mut world, id, &Event::Gated(instance), now)
            .is_err()
        {
            drop(world);
            self.discard_of(id, instance, &draft.fleet.name);
            return Ok(());
        }
        if let Some(entry) = world.sessions.get_mut(&id) {
            entry.written(version, draft.document);
        }
        world.enqueue(&draft.fleet.name, id);
        let position = world.position(&draft.fleet.name, id).unwrap_or(1);
        drop(world);
        self.tell(
            id,
            EventBody::Queued {
                position,
                waiting_for: waiting_for.to_owned(),
                estimate_s: None,
            },
        );
        self.drive(id);
        self.plan_now.notify_one();
        Ok(())
    }

    /// Gives the first `n` waiting sessions of a fleet their place.
    pub(super) fn admit(self: &Arc<Self>, fleet: &FleetName, n: u32) {
        for _ in 0..n {
            if !self.first_has_port(fleet) {
                return;
            }
            let mut world = self.world();
            let Some(id) = world
                .fleets
                .get_mut(fleet)
                .and_then(|f| f.queue.pop_front())
            else {
                return;
            };
            let place = world.choose(fleet, id, Choice::Admitted, || self.ids.instance());
            if matches!(place, Place::Wait | Place::Full) {
                world.enqueue(fleet, id);
                return;
            }
            drop(world);
            let app = Arc::clone(self);
            self.tasks
                .spawn(async move { app.place_admitted(id, place).await });
        }
    }

    async fn place_admitted(self: Arc<Self>, id: SessionId, place: Place) {
        let known = self.with_world(|w| {
            w.sessions.get(&id).map(|e| {
                (
                    e.session.fleet.clone(),
                    e.session.instance,
                    e.session.generation,
                )
            })
        });
        let Some((fleet, gated, generation)) = known else {
            if let Place::Warm(i) | Place::Cold(i) = place {
                self.discard_anywhere(i);
            }
            return;
        };
        let result = match (place, gated) {
            (Place::Cold(fresh), Some(gated)) => {
                // The instance that held the place runs; the id made for a cold start is not needed.
                self.change_world(|world| {
                    world.drop_instance(fresh, &fleet);
                    world.hold(gated, &fleet, Holder::Session(id));
                });
                self.release(id, gated, generation).await
            }
            (place, None) => self.put(id, place, generation).await,
            (place, Some(gated)) => {
                // A session has one instance at a time: what held the place lets go of it, and the next incarnation keeps its late
                // echoes apart. On disk it stays until the claim, which is newer, is written.
                let gone = Event::Exited(generation, super::effects::lost(self.now()));
                let _ = self.apply(id, &gone);
                let result = self.put(id, place, generation.next()).await;
                match &result {
                    Ok(()) => self.discard_of(id, gated, &fleet),
                    Err(_) => {
                        let _ = self.apply(id, &Event::Gated(gated));
                    }
                }
                result
            }
        };
        if let Err(e) = result {
            tracing::warn!(session = %id, code = %e.code(), error = %chain(&e), "a waiting session could not be placed yet");
            let mut world = self.world();
            if let Some(gated) = gated {
                world.hold(gated, &fleet, Holder::Place(id));
            }
            if let Some(entry) = world.sessions.get_mut(&id) {
                entry.waiting_for = if e.code() == Code::PortsExhausted {
                    "ports_exhausted"
                } else {
                    "schedule"
                };
                entry.start.placed = None;
                world.enqueue(&fleet, id);
            }
        }
        self.drive(id);
    }

    async fn release(
        self: &Arc<Self>,
        id: SessionId,
        gated: InstanceId,
        generation: Generation,
    ) -> Result<(), RuntimeError> {
        let Some(draft) = self.draft_claim(id, gated, generation, false) else {
            return Ok(());
        };
        let Some(version) = self.world().sessions.get(&id).map(|e| e.version) else {
            return Ok(());
        };
        let facts = Facts {
            session: id,
            document: draft.document.clone(),
        };
        let bound = match self
            .runtime
            .bind(gated, version, facts, Some(draft.file))
            .await
        {
            Err(e @ (RuntimeError::Conflict | RuntimeError::OutcomeUnknown(_))) => {
                // The next try must not begin with a version that is old for ever.
                self.look_again(id, gated).await;
                return Err(e);
            }
            other => other?,
        };
        if let Some(entry) = self.world().sessions.get_mut(&id) {
            entry.written(bound, draft.document);
        }
        fault::point(self, "release.bound").await;
        let version = match self.runtime.release(gated, bound).await {
            Err(e @ (RuntimeError::Conflict | RuntimeError::OutcomeUnknown(_))) => {
                self.was_released(id, gated).await.ok_or(e)?
            }
            other => other?,
        };
        fault::point(self, "release.released").await;
        self.granted(id, gated, version, generation);
        Ok(())
    }

    /// Whether an instance runs whose release was not answered; then its version. To guess would start one too many, or leave one
    /// running for nobody: it is looked at until somebody can say.
    async fn was_released(&self, id: SessionId, gated: InstanceId) -> Option<Version> {
        let mut pause = super::effects::RETRY_FIRST;
        loop {
            match self.runtime.get(gated).await {
                Ok(seen) if matches!(seen.state, State::Unknown { .. }) => {}
                Ok(seen) => {
                    if let Some(entry) = self.world().sessions.get_mut(&id) {
                        entry.version = seen.version;
                    }
                    return (seen.state != State::Gated).then_some(seen.version);
                }
                Err(RuntimeError::NotFound) => return None,
                Err(_) => {}
            }
            if self.pause(&mut pause).await {
                return None;
            }
        }
    }
}
