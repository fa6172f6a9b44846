//! Everything live, in memory: one writer's view, rebuilt from the runtime after a restart.
//!
//! Behind one lock that is never held across an await. Indices keep every step of a start O(1), whatever is live.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use spawnpoint_core::decision::Decision;
use spawnpoint_core::fleet::{Failures, Plan, Pool, Warm};
use spawnpoint_core::lifecycle::Joinable;
use spawnpoint_core::limits::{DECISIONS_KEPT, MAX_QUEUED};
use spawnpoint_core::record::{IdempotencyMark, Receipt};
use spawnpoint_core::session::{Effect, Session};
use spawnpoint_core::{Code, FleetName, InstanceId, Moment, PlayerId, SessionId, TicketId};
use spawnpoint_runtime::{Instance, Version};
use spawnpoint_wire::claim::MaxAsked;
use tokio::sync::watch;

use crate::config::FleetConfig;
use crate::mutant::{self, Mutant};

/// Whether a new session is durable yet. Copies of the same call wait for this before they answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The first write is under way.
    Pending,
    /// A `kill -9` loses nothing of it any more.
    Durable,
    /// It could not be written: the session never was.
    Failed(Code, String),
}

/// Something the session's driver must still do, in order.
#[derive(Clone, Debug)]
pub(crate) enum Todo {
    /// An effect of a step.
    Effect(Effect),
    /// Show the present state to the gateways.
    Route,
    /// Tell listeners where it can be reached: that was not known, or another, when they asked.
    Address,
}

/// When the steps of a start happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartTimes {
    /// It left the queue.
    pub(crate) placed: Option<Moment>,
    /// The moment the claim was drawn up with; the step repeats it, so that what is in memory is what was written.
    pub(crate) drafted: Option<Moment>,
    /// The claim (or the order) was durable.
    pub(crate) claimed: Option<Moment>,
    /// Whether a warm instance served it.
    pub(crate) warm: bool,
}

/// What a client last claimed in a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) status: &'static str,
    pub(crate) idle_ms: Option<f64>,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) at: Moment,
}

/// One live session with everything that belongs to it.
pub(crate) struct Entry {
    pub(crate) session: Session,
    pub(crate) fleet: Arc<FleetConfig>,
    /// Everybody who was ever on the roster, with when.
    pub(crate) ever: Vec<(PlayerId, Moment)>,
    pub(crate) invite: String,
    pub(crate) joinable: Joinable,
    pub(crate) payload: Option<Value>,
    pub(crate) max_asked: Option<MaxAsked>,
    pub(crate) idempotency: Option<IdempotencyMark>,
    /// The backend key it counts against.
    pub(crate) key: Option<String>,
    /// The queue whose match it is.
    pub(crate) queue: Option<FleetName>,
    /// Who came to it by which ticket.
    pub(crate) tickets: Vec<(PlayerId, TicketId)>,
    /// Results given with an end call or by the SDK; the results file wins.
    pub(crate) results: Option<String>,
    /// Version of the instance's durable state after our last write.
    pub(crate) version: Version,
    /// The claim document as last written.
    pub(crate) saved: Option<String>,
    /// How often the instance was started in place, as expected; older observations are echoes.
    pub(crate) restarts: u32,
    pub(crate) address: Option<SocketAddr>,
    /// Where the gateway listens for it, if it speaks TCP.
    pub(crate) tcp_port: Option<u16>,
    pub(crate) label: String,
    pub(crate) start: StartTimes,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) started_at: Option<Moment>,
    pub(crate) waiting_for: &'static str,
    pub(crate) commit: watch::Sender<Commit>,
    /// Counts steps; readers wait on it.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) todo: VecDeque<Todo>,
    pub(crate) driving: bool,
    /// Saves asked for and not done yet.
    pub(crate) unsaved: u32,
    pub(crate) decisions: VecDeque<Decision>,
    pub(crate) claims: HashMap<PlayerId, Claimed>,
    pub(crate) timer: Option<Moment>,
}

impl Entry {
    pub(crate) fn new(session: Session, fleet: Arc<FleetConfig>, invite: String) -> Self {
        Self {
            ever: session
                .roster
                .iter()
                .map(|p| (p.id.clone(), p.joined_at))
                .collect(),
            joinable: session.policy.joinable,
            session,
            fleet,
            invite,
            payload: None,
            max_asked: None,
            idempotency: None,
            key: None,
            queue: None,
            tickets: Vec::new(),
            results: None,
            version: Version(0),
            saved: None,
            restarts: 0,
            address: None,
            tcp_port: None,
            label: String::new(),
            start: StartTimes::default(),
            receipt: None,
            started_at: None,
            waiting_for: "schedule",
            commit: watch::Sender::new(Commit::Pending),
            changed: watch::Sender::new(0),
            todo: VecDeque::new(),
            driving: false,
            unsaved: 0,
            decisions: VecDeque::new(),
            claims: HashMap::new(),
            timer: None,
        }
    }

    pub(crate) fn decide(&mut self, decision: Decision) {
        if self.decisions.len() == DECISIONS_KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }

    /// The start's phases up to `ready_at`, from contiguous moments, so that they sum to the total.
    pub(crate) fn measure(&self, instance: Option<&Instance>, ready_at: Moment) -> Receipt {
        let mut last = self.session.created_at;
        let mut until = |m: Option<Moment>| {
            let Some(m) = m else { return 0 };
            let m = m.clamp(last, ready_at);
            let ms = u64::try_from(m.since(last).as_millis()).unwrap_or(u64::MAX);
            last = m;
            ms
        };
        let queue_ms = until(self.start.placed);
        let claim_ms = until(self.start.claimed);
        let timings = instance
            .filter(|_| !self.start.warm)
            .map(|i| i.timings)
            .unwrap_or_default();
        let pull_ms = until(timings.pulled_at);
        let schedule_ms = until(timings.spawned_at);
        let boot_ms = until(timings.ready_at);
        let dial_ms = until(Some(ready_at));
        let total_ms =
            u64::try_from(ready_at.since(self.session.created_at).as_millis()).unwrap_or(u64::MAX);
        Receipt {
            queue_ms,
            schedule_ms,
            pull_ms,
            boot_ms,
            claim_ms,
            dial_ms,
            total_ms,
        }
    }
}

/// Whose an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody's yet.
    Warm,
    /// A session's.
    Session(SessionId),
    /// It holds a session's place in the queue and does not run.
    Place(SessionId),
    /// Nobody's any more: stopped and forgotten as soon as that can be done.
    Orphan,
}

/// One fleet's pool and queue.
pub(crate) struct FleetState {
    pub(crate) config: Arc<FleetConfig>,
    pub(crate) template: u64,
    pub(crate) warm: BTreeMap<InstanceId, Warm>,
    /// Warm instances that accept, oldest first.
    pub(crate) warm_ready: VecDeque<InstanceId>,
    pub(crate) claimed: u32,
    pub(crate) stopping: u32,
    pub(crate) queue: VecDeque<SessionId>,
    pub(crate) failures: Failures,
    pub(crate) claims_warm: u64,
    pub(crate) claims_cold: u64,
    pub(crate) sessions: u32,
    pub(crate) last_plan: Option<(Moment, Plan)>,
}

impl FleetState {
    pub(crate) fn new(config: Arc<FleetConfig>) -> Self {
        Self {
            template: config.template.fingerprint(),
            config,
            warm: BTreeMap::new(),
            warm_ready: VecDeque::new(),
            claimed: 0,
            stopping: 0,
            queue: VecDeque::new(),
            failures: Failures::default(),
            claims_warm: 0,
            claims_cold: 0,
            sessions: 0,
            last_plan: None,
        }
    }

    fn instances(&self) -> u32 {
        let warm = u32::try_from(self.warm.len()).unwrap_or(u32::MAX);
        warm + self.claimed + self.stopping
    }

    fn uncount(&mut self, instance: InstanceId, old: Option<Holder>) {
        match old {
            Some(Holder::Warm) => {
                self.warm.remove(&instance);
                self.warm_ready.retain(|w| *w != instance);
            }
            Some(Holder::Session(_)) => self.claimed = self.claimed.saturating_sub(1),
            Some(Holder::Orphan) => self.stopping = self.stopping.saturating_sub(1),
            Some(Holder::Place(_)) | None => {}
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        let more = u32::from(mutant::on(Mutant::OverCapacity));
        self.config
            .max_instances
            .is_none_or(|max| self.instances() < max + more)
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool {
            warm: self.warm.values().copied().collect(),
            claimed: self.claimed,
            stopping: self.stopping,
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
        }
    }

    /// Takes the oldest warm instance that accepts.
    fn take_warm(&mut self) -> Option<Warm> {
        while let Some(id) = self.warm_ready.pop_front() {
            if let Some(warm) = self.warm.remove(&id) {
                return Some(warm);
            }
        }
        None
    }
}

/// On whose behalf a place is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A new session: behind those that wait.
    New,
    /// The first of those that wait.
    Admitted,
    /// A session whose instance died: its place is still its own, a full fleet heals its sessions too.
    Heal,
}

/// Where a session can be placed right now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On this warm instance.
    Warm(InstanceId),
    /// On an instance to be started under this id.
    Cold(InstanceId),
    /// In the queue.
    Wait,
    /// Nowhere: the queue is full too.
    Full,
}

/// See the module.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) sessions: HashMap<SessionId, Entry>,
    /// The live session of a player in a fleet.
    pub(crate) by_player: HashMap<(FleetName, PlayerId), SessionId>,
    pub(crate) by_idempotency: HashMap<String, SessionId>,
    pub(crate) holders: HashMap<InstanceId, Holder>,
    /// Each instance as last seen.
    pub(crate) instances: HashMap<InstanceId, Instance>,
    pub(crate) fleets: BTreeMap<FleetName, FleetState>,
    /// When each session must be looked at next.
    pub(crate) timers: BTreeSet<(Moment, SessionId)>,
    /// Live sessions by backend key.
    pub(crate) by_key: HashMap<String, u32>,
    /// Nothing new is accepted.
    pub(crate) draining: bool,
}

impl World {
    /// Adds a session to every index. The caller has checked that its players are free; those of one that is ending (taken over so)
    /// play elsewhere by now, or may.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let id = entry.session.id;
        if entry.session.phase.is_live() {
            for p in &entry.session.roster {
                self.by_player
                    .insert((entry.session.fleet.clone(), p.id.clone()), id);
            }
        }
        if let Some(mark) = &entry.idempotency {
            self.by_idempotency.insert(mark.key_hash.clone(), id);
        }
        if let Some(key) = &entry.key {
            *self.by_key.entry(key.clone()).or_default() += 1;
        }
        if let Some(f) = self.fleets.get_mut(&entry.session.fleet) {
            f.sessions += 1;
        }
        self.sessions.insert(id, entry);
    }

    /// Takes a session out of every index.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(&id)?;
        let fleet = &entry.session.fleet;
        for (player, _) in &entry.ever {
            self.release_player(fleet, player, id);
        }
        if let Some(mark) = &entry.idempotency
            && self.by_idempotency.get(&mark.key_hash) == Some(&id)
        {
            self.by_idempotency.remove(&mark.key_hash);
        }
        if let Some(key) = &entry.key
            && let Some(n) = self.by_key.get_mut(key)
        {
            *n = n.saturating_sub(1);
        }
        if let Some(f) = self.fleets.get_mut(fleet) {
            f.sessions = f.sessions.saturating_sub(1);
            f.queue.retain(|s| *s != id);
        }
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, id));
        }
        Some(entry)
    }

    /// The player is not in this session any more, as far as "one live session per fleet" goes.
    pub(crate) fn release_player(
        &mut self,
        fleet: &FleetName,
        player: &PlayerId,
        session: SessionId,
    ) {
        let key = (fleet.clone(), player.clone());
        if self.by_player.get(&key) == Some(&session) {
            self.by_player.remove(&key);
        }
    }

    /// Where a session of this fleet can be placed. The instance is the session's from here on, before anything is issued, so that
    /// no two sessions choose one and no stale view starts too many. `fresh` names an instance that is to be started.
    pub(crate) fn choose(
        &mut self,
        fleet: &FleetName,
        session: SessionId,
        how: Choice,
        fresh: impl FnOnce() -> InstanceId,
    ) -> Place {
        let Some(f) = self.fleets.get_mut(fleet) else {
            return Place::Full;
        };
        if how != Choice::New || f.queue.is_empty() {
            if let Some(warm) = f.take_warm() {
                f.claims_warm += 1;
                self.hold(warm.id, fleet, Holder::Session(session));
                if mutant::on(Mutant::DoubleClaim)
                    && let Some(f) = self.fleets.get_mut(fleet)
                {
                    f.warm.insert(warm.id, warm);
                    f.warm_ready.push_back(warm.id);
                }
                return Place::Warm(warm.id);
            }
            if how == Choice::Heal || f.has_room() {
                f.claims_cold += 1;
                let id = fresh();
                self.hold(id, fleet, Holder::Session(session));
                return Place::Cold(id);
            }
        }
        if f.queue.len() < MAX_QUEUED {
            Place::Wait
        } else {
            Place::Full
        }
    }

    /// Says whose an instance is, and keeps the fleet's counts true.
    pub(crate) fn hold(&mut self, instance: InstanceId, fleet: &FleetName, holder: Holder) {
        let old = self.holders.insert(instance, holder);
        let Some(f) = self.fleets.get_mut(fleet) else {
            return;
        };
        f.uncount(instance, old);
        match holder {
            Holder::Session(_) => f.claimed += 1,
            Holder::Orphan => f.stopping += 1,
            Holder::Warm | Holder::Place(_) => {}
        }
    }

    /// An instance is not there any more.
    pub(crate) fn drop_instance(&mut self, instance: InstanceId, fleet: &FleetName) {
        let old = self.holders.remove(&instance);
        self.instances.remove(&instance);
        if let Some(f) = self.fleets.get_mut(fleet) {
            f.uncount(instance, old);
        }
    }

    /// Sets the moment at which a session must be looked at next.
    pub(crate) fn arm(&mut self, id: SessionId, now: Moment) {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        let next = entry.session.next_look(now);
        if next == entry.timer {
            return;
        }
        if let Some(old) = entry.timer {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = next {
            self.timers.insert((at, id));
        }
        entry.timer = next;
    }

    /// Puts a session among those that wait for a place. Ids are made in order of arrival and so is the queue: whoever could not
    /// be placed has not lost their turn.
    pub(crate) fn enqueue(&mut self, fleet: &FleetName, id: SessionId) {
        let Some(f) = self.fleets.get_mut(fleet) else {
            return;
        };
        if let Err(at) = f.queue.binary_search(&id) {
            f.queue.insert(at, id);
        }
    }

    /// Place in the queue, 1 is next.
    pub(crate) fn position(&self, fleet: &FleetName, id: SessionId) -> Option<u32> {
        let at = self
            .fleets
            .get(fleet)?
            .queue
            .iter()
            .position(|s| *s == id)?;
        u32::try_from(at + 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    #[test]
    fn whoever_could_not_be_placed_keeps_their_turn() {
        let text = "[[fleet]]\nname = \"arena\"\nrun = { command = [\"./arena\"] }\n";
        let overrides = Overrides::at(Some("game".into()), None);
        let fleet = Arc::clone(&parse(text, &|_| None, &overrides).unwrap().config.fleets[0]);
        let name = fleet.name.clone();
        let mut world = World::default();
        world.fleets.insert(name.clone(), FleetState::new(fleet));
        let ids: Vec<SessionId> = (0..4)
            .map(|_| SessionId::new(uuid::Uuid::now_v7()))
            .collect();
        for id in [ids[0], ids[2], ids[3]] {
            world.enqueue(&name, id);
        }
        // The second was being placed meanwhile, and could not be.
        world.enqueue(&name, ids[1]);
        world.enqueue(&name, ids[0]);
        assert_eq!(world.fleets[&name].queue, ids);
    }
}
