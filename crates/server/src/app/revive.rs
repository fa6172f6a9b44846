//! Sessions written down with their instances, and read back after a restart.
//!
//! *Flow*: `document` writes what must survive; after a restart `App::revive` reads every instance the runtime holds, rebuilds each
//! session from its newest claim and lets the ordinary events (ready, exited) move it on. *Guarantees*: every live session is live
//! again under its id, URL and tokens, or ends with a reason and one record. *Assumptions*: the runtime lists every instance it ever
//! took an order for until it is forgotten. *Caveats*: soft facts (who is connected, last activity) are unknown until the gateways
//! have reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spawnpoint_core::lifecycle::{EndedBy, Joinable, Policy, Reason};
use spawnpoint_core::record::{IdempotencyMark, Receipt};
use spawnpoint_core::session::{Effect, Ending, Event, Phase, Session};
use spawnpoint_core::time::Known;
use spawnpoint_core::{Clock, Code, FleetName, Generation, Moment, PlayerId, SessionId};
use spawnpoint_runtime::{Instance, RuntimeError, State};
use spawnpoint_wire::claim::{CLAIM_VERSION, Claim, ClaimEnding, ClaimPlayer, MaxAsked, Stamp};

use super::App;
use super::world::{Commit, Entry, Holder, Todo};
use crate::config::FleetConfig;
use crate::fault;
use crate::mutant::{self, Mutant};

/// What a session's maximum becomes when the call asked for one.
pub(super) fn apply_max(policy: &mut Policy, asked: Option<MaxAsked>) {
    match asked {
        None => {}
        Some(MaxAsked::None) => (policy.max, policy.max_limit) = (None, None),
        Some(MaxAsked::Millis(ms)) => {
            let asked = Duration::from_millis(ms);
            policy.max = Some(asked);
            if policy.max_limit.is_some_and(|l| l < asked) {
                policy.max_limit = Some(asked);
            }
        }
    }
}

/// The stable spelling of a joinable rule.
pub(crate) const fn joinable_text(j: Joinable) -> &'static str {
    match j {
        Joinable::Open => "open",
        Joinable::Invite => "invite",
        Joinable::Closed => "closed",
    }
}

/// The rule with this spelling.
pub(crate) fn joinable_parse(s: &str) -> Option<Joinable> {
    [Joinable::Open, Joinable::Invite, Joinable::Closed]
        .into_iter()
        .find(|j| joinable_text(*j) == s)
}

/// Everything about a session that must survive.
pub(super) fn document(entry: &Entry, clock: &dyn Clock) -> String {
    let s = &entry.session;
    let stamp = |m: Moment| Stamp::of(m, clock);
    let claim = Claim {
        version: CLAIM_VERSION,
        boot_id: clock.boot_id().to_owned(),
        session: s.id,
        fleet: s.fleet.clone(),
        generation: s.generation.0,
        server: String::new(),
        owner: s.owner.clone(),
        players: entry
            .ever
            .iter()
            .map(|(id, at)| ClaimPlayer {
                id: id.clone(),
                joined: stamp(*at),
                here: s.player(id).is_some(),
                ticket: entry.tickets.iter().find(|(p, _)| p == id).map(|(_, t)| *t),
            })
            .collect(),
        queue: entry.queue.clone(),
        invite: entry.invite.clone(),
        payload: entry.payload.clone(),
        created: stamp(s.created_at),
        granted: s.granted_at.map(stamp),
        started: entry.started_at.map(stamp),
        first_joined: s.first_joined_at.map(stamp),
        max: s.max_at.map(stamp),
        max_limit: s.max_limit_at.map(stamp),
        max_asked: entry.max_asked,
        extends: s.extends,
        replacing: s.phase == Phase::Replacing && s.exit.is_some(),
        joinable: Some(joinable_text(entry.joinable).to_owned()),
        tcp_port: entry.tcp_port,
        crashes: s.crashes.iter().map(|c| stamp(*c)).collect(),
        receipt: entry.receipt.map(|r| {
            [
                r.queue_ms,
                r.schedule_ms,
                r.pull_ms,
                r.boot_ms,
                r.claim_ms,
                r.dial_ms,
                r.total_ms,
            ]
        }),
        idempotency_key: entry.idempotency.as_ref().map(|m| m.key_hash.clone()),
        idempotency_body: entry.idempotency.as_ref().map(|m| m.body_hash.clone()),
        ending: s.ending.map(|e| ClaimEnding {
            reason: e.reason,
            by: e.by,
            code: e.code.map(|c| c.as_str().to_owned()),
            at: stamp(e.at),
            results: entry.results.clone(),
        }),
    };
    claim.to_document()
}

/// A session as its newest claim tells it, seen through its instance. The phase is the one before the instance's present state is
/// applied as an event.
fn read(
    claim: &Claim,
    instance: &Instance,
    fleet: Arc<FleetConfig>,
    now: Moment,
    clock: &dyn Clock,
) -> Entry {
    let at = |s: &Stamp| s.restore(&claim.boot_id, clock);
    let mut policy = (*fleet.policy).clone();
    apply_max(&mut policy, claim.max_asked);
    let joinable = claim
        .joinable
        .as_deref()
        .and_then(joinable_parse)
        .unwrap_or(policy.joinable);
    policy.joinable = joinable;
    let here: Vec<PlayerId> = claim
        .players
        .iter()
        .filter(|p| p.here)
        .map(|p| p.id.clone())
        .collect();
    let mut s = Session::new(
        claim.session,
        claim.fleet.clone(),
        Arc::new(policy),
        here,
        at(&claim.created),
    );
    for p in &mut s.roster {
        if let Some(c) = claim.players.iter().find(|c| c.id == p.id) {
            p.joined_at = at(&c.joined);
        }
    }
    s.owner.clone_from(&claim.owner);
    s.generation = Generation(claim.generation);
    s.instance = Some(instance.id);
    s.granted_at = claim.granted.as_ref().map(at);
    s.first_joined_at = claim.first_joined.as_ref().map(at);
    s.max_at = claim.max.as_ref().map(at);
    s.max_limit_at = claim.max_limit.as_ref().map(at);
    s.extends = claim.extends;
    s.crashes = claim.crashes.iter().map(at).collect();
    s.sight = Known::Unknown { since: now };
    if s.roster.is_empty() {
        s.emptied_at = Some(now);
    }
    s.phase = match (&claim.ending, instance.state) {
        (Some(_), _) => Phase::Ending,
        (None, State::Gated) => Phase::Queued,
        // A start limit that ran out while nobody looked must not end a game that is up: it is counted anew.
        (None, _) if claim.granted.is_none() => Phase::Queued,
        // It accepted before it died: that is a crash of a game, not a failed start.
        (None, State::Exited(_))
            if !claim.replacing
                && (claim.started.is_some() || instance.timings.ready_at.is_some()) =>
        {
            s.ready_at = Some(instance.timings.ready_at.unwrap_or(now));
            if s.first_joined_at.is_some() {
                Phase::Running
            } else {
                Phase::Ready
            }
        }
        // It accepted when it was last seen: nobody can say that it does not any more, and a start limit is not what ends it.
        (None, State::Unknown { .. })
            if instance.timings.ready_at.is_some()
                || (claim.started.is_some() && claim.generation == Generation::FIRST.0) =>
        {
            s.ready_at = Some(instance.timings.ready_at.unwrap_or(now));
            if s.first_joined_at.is_some() {
                Phase::Running
            } else {
                Phase::Ready
            }
        }
        (None, _) => Phase::Starting,
    };
    // The claim says it once it was written again after the start; the instance knows it in any case.
    s.first_ready_at = claim.started.as_ref().map(at).or(instance.timings.ready_at);
    if s.phase == Phase::Starting {
        s.start_deadline = Some(now.after(s.policy.boot));
    }
    s.ending = claim.ending.as_ref().map(|e| Ending {
        reason: e.reason,
        by: e.by,
        code: e
            .code
            .as_deref()
            .and_then(|c| Code::ALL.iter().copied().find(|k| k.as_str() == c)),
        at: at(&e.at),
    });
    let mut entry = Entry::new(s, fleet, claim.invite.clone());
    entry.ever = claim
        .players
        .iter()
        .map(|p| (p.id.clone(), at(&p.joined)))
        .collect();
    entry.queue.clone_from(&claim.queue);
    let ticket = |p: &ClaimPlayer| Some((p.id.clone(), p.ticket?));
    entry.tickets = claim.players.iter().filter_map(ticket).collect();
    entry.joinable = joinable;
    entry.payload.clone_from(&claim.payload);
    entry.max_asked = claim.max_asked;
    entry.results = claim.ending.as_ref().and_then(|e| e.results.clone());
    entry.started_at = claim.started.as_ref().map(at);
    entry.receipt = claim.receipt.map(
        |[
            queue_ms,
            schedule_ms,
            pull_ms,
            boot_ms,
            claim_ms,
            dial_ms,
            total_ms,
        ]| Receipt {
            queue_ms,
            schedule_ms,
            pull_ms,
            boot_ms,
            claim_ms,
            dial_ms,
            total_ms,
        },
    );
    // What was not written again after the start is read off the instance: phases that nobody timed count as nothing.
    entry.start.placed = entry.session.granted_at;
    entry.start.claimed = entry.session.granted_at;
    entry.start.warm = instance.timings.spawned_at < Some(entry.session.created_at);
    if let Some(ready) = instance.timings.ready_at
        && entry.receipt.is_none()
    {
        let ready = ready.max(entry.session.granted_at.unwrap_or(ready));
        entry.started_at = entry.started_at.or(Some(ready));
        entry.receipt = Some(entry.measure(Some(instance), ready));
    }
    entry.idempotency = match (&claim.idempotency_key, &claim.idempotency_body) {
        (Some(k), Some(b)) => Some(IdempotencyMark {
            key_hash: k.clone(),
            body_hash: b.clone(),
        }),
        _ => None,
    };
    entry.version = instance.version;
    entry.restarts = instance.restarts;
    entry.saved = instance.facts.as_ref().map(|f| f.document.clone());
    entry.address = instance.address;
    entry.tcp_port = claim.tcp_port;
    entry.label.clone_from(&instance.label);
    entry.commit.send_replace(Commit::Durable);
    entry
}

impl App {
    /// Takes over whatever the runtime holds from an earlier run. Called once, before anything is answered.
    ///
    /// # Errors
    /// When the runtime cannot be listed: then nothing may be decided.
    pub async fn revive(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let all = self.runtime.list().await?;
        fault::point(self, "revive.listed").await;
        let mut sessions: BTreeMap<SessionId, Vec<(Claim, Instance)>> = BTreeMap::new();
        for instance in all {
            let Some(facts) = &instance.facts else {
                self.adopt_warm(instance);
                continue;
            };
            match Claim::from_document(&facts.document) {
                Ok(claim) => sessions
                    .entry(facts.session)
                    .or_default()
                    .push((claim, instance)),
                Err(e) => {
                    // Somebody may be playing on it: it is left alone, and said loudly.
                    tracing::error!(instance = %instance.id, session = %facts.session, error = %super::start::chain(&e), "a session's stored claim cannot be read; its instance is left as it is");
                }
            }
        }
        let all: Vec<SessionId> = sessions.keys().copied().collect();
        for (id, claims) in sessions {
            self.revive_session(id, claims).await;
        }
        self.settle_doubles();
        self.reopen_ports(&all);
        self.reports.unseen.store(true, Ordering::Release);
        self.revived.store(true, Ordering::Release);
        self.plan_now.notify_one();
        self.look_now.notify_one();
        Ok(())
    }

    /// Nobody plays in two sessions of a fleet. Two are stored of one player when they went from one to the other, or were told that
    /// a start came to nothing which nobody could be sure of, and the process died before the older was let go. The newest stands.
    fn settle_doubles(self: &Arc<Self>) {
        let now = self.now();
        let mut world = self.world();
        let mut places: BTreeMap<(FleetName, PlayerId), Vec<(Moment, SessionId)>> = BTreeMap::new();
        for entry in world.sessions.values() {
            let s = &entry.session;
            for p in s.roster.iter().filter(|_| s.phase.is_live()) {
                let key = (s.fleet.clone(), p.id.clone());
                places.entry(key).or_default().push((p.joined_at, s.id));
            }
        }
        let mut left = Vec::new();
        for ((fleet, player), mut of) in places {
            of.sort_unstable();
            let Some((_, stands)) = of.pop() else {
                continue;
            };
            world
                .by_player
                .insert((fleet.clone(), player.clone()), stands);
            for (_, old) in of {
                tracing::warn!(session = %old, newer = %stands, %player, "a player was stored in two sessions of one fleet; they are in the newer");
                // What nobody was ever let in to was, for whoever asked for it, a start that failed.
                let played = world
                    .sessions
                    .get(&old)
                    .is_some_and(|e| e.session.first_ready_at.is_some());
                let reason = if played {
                    Reason::EndedByClient
                } else {
                    Reason::StartFailed
                };
                self.leave_behind(&mut world, old, &player, (reason, EndedBy::System), now);
                left.push(old);
            }
        }
        drop(world);
        for id in left {
            self.drive(id);
        }
    }

    fn adopt_warm(self: &Arc<Self>, instance: Instance) {
        let known = self.world().fleets.contains_key(&instance.fleet);
        if !known || matches!(instance.state, State::Gated) {
            self.world().instances.insert(instance.id, instance.clone());
            self.discard(instance.id, &instance.fleet);
            return;
        }
        self.observe(instance);
    }

    async fn revive_session(self: &Arc<Self>, id: SessionId, mut claims: Vec<(Claim, Instance)>) {
        if let Ok(Some(_)) = self.records.get(id).await {
            // Recorded, and the process died before it could forget.
            for (_, instance) in claims {
                self.world().instances.insert(instance.id, instance.clone());
                if mutant::on(Mutant::OrphanAfterCrash) {
                    continue;
                }
                self.discard(instance.id, &instance.fleet);
            }
            return;
        }
        // The newest incarnation is the session's; an instance still running wins over one that is over, ids are made in order.
        claims.sort_by_key(|(c, i)| {
            let running = !matches!(i.state, State::Exited(_) | State::Gated);
            (c.generation, running, c.granted.is_some(), i.id)
        });
        let Some((mut claim, instance)) = claims.pop() else {
            return;
        };
        // An end that was asked for while the next incarnation was being made is known to the one before alone, which therefore stays
        // until the record is written.
        let ended_before = claim.ending.is_none();
        if ended_before {
            claim.ending = claims.iter().rev().find_map(|(c, _)| c.ending.clone());
        }
        let keep_old = ended_before && claim.ending.is_some();
        for (_, old) in &claims {
            self.world().instances.insert(old.id, old.clone());
            if !keep_old && !mutant::on(Mutant::OrphanAfterCrash) {
                self.discard(old.id, &old.fleet);
            }
        }
        let now = self.now();
        let fleet = self
            .config
            .load()
            .fleet(&claim.fleet)
            .cloned()
            .unwrap_or_else(|| {
                // Its fleet is gone from the configuration: the game goes on by the default numbers and its own deadlines.
                Arc::new(FleetConfig::orphan(claim.fleet.clone()))
            });
        let entry = read(&claim, &instance, fleet, now, self.clock.as_ref());
        let phase = entry.session.phase;
        let generation = entry.session.generation;
        let mut world = self.world();
        if !world.fleets.contains_key(&claim.fleet) {
            let mut state = super::world::FleetState::new(Arc::clone(&entry.fleet));
            state.config = Arc::clone(&entry.fleet);
            world.fleets.insert(claim.fleet.clone(), state);
        }
        world.instances.insert(instance.id, instance.clone());
        let holder = if phase == Phase::Queued {
            Holder::Place(id)
        } else {
            Holder::Session(id)
        };
        world.hold(instance.id, &claim.fleet, holder);
        world.insert(entry);
        if phase == Phase::Queued {
            self.revive_place(&mut world, id, &instance, &claim);
        }
        world.arm(id, now);
        let exited = matches!(instance.state, State::Exited(_));
        if let Some(e) = world.sessions.get_mut(&id) {
            e.todo.push_back(Todo::Route);
            match phase {
                Phase::Ending if !exited => {
                    e.todo.push_back(Todo::Effect(Effect::Stop(instance.id)))
                }
                // Its exit was handled before the restart: the next incarnation is what is missing.
                Phase::Starting if exited && claim.replacing => {
                    e.session.phase = Phase::Replacing;
                    if let State::Exited(exit) = instance.state {
                        e.session.exit = Some(exit);
                    }
                    let in_place =
                        e.session.policy.on_crash == spawnpoint_core::lifecycle::OnCrash::Restart;
                    e.todo.push_back(Todo::Effect(Effect::Acquire {
                        generation,
                        in_place,
                        not_before: now,
                    }));
                }
                _ => {}
            }
        }
        drop(world);
        if keep_old {
            for (_, old) in &claims {
                self.discard_after(id, old.id, &old.fleet);
            }
        }
        self.audits.started(id, now);
        tracing::info!(session = %id, fleet = %claim.fleet, phase = phase.as_str(), state = ?instance.state, "session taken over");
        if !(exited && claim.replacing && phase == Phase::Starting) {
            self.observe(instance);
        }
        self.drive(id);
    }

    fn revive_place(
        &self,
        world: &mut super::World,
        id: SessionId,
        instance: &Instance,
        claim: &Claim,
    ) {
        // What cannot be seen now holds the place as it did: it was never let go.
        let holds = match instance.state {
            State::Gated => true,
            State::Unknown { .. } => claim.granted.is_none(),
            _ => false,
        };
        if holds {
            world.enqueue(&claim.fleet, id);
        }
    }

    /// A generation for an event about the session's present instance, or `None` for an echo of an older start in place.
    pub(super) fn generation_of(entry: &Entry, instance: &Instance) -> Option<Generation> {
        let current =
            entry.session.instance == Some(instance.id) && instance.restarts >= entry.restarts;
        (current || mutant::on(Mutant::GenerationUnchecked)).then_some(entry.session.generation)
    }

    /// Tells a session what its instance is doing.
    pub(super) fn tell_session(self: &Arc<Self>, id: SessionId, instance: &Instance) {
        let generation = {
            let mut world = self.world();
            let Some(entry) = world.sessions.get_mut(&id) else {
                return;
            };
            let Some(generation) = Self::generation_of(entry, instance) else {
                return;
            };
            entry.address = instance.address;
            entry.label.clone_from(&instance.label);
            generation
        };
        let event = match instance.state {
            State::Ready => Event::Accepting(generation),
            State::Exited(exit) => Event::Exited(generation, exit),
            State::Gated | State::Starting | State::Stopping | State::Unknown { .. } => return,
        };
        let _ = self.apply(id, &event);
    }
}
