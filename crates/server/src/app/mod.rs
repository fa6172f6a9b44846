//! The use cases: one writer over one [`World`], every phase change through `core::session::step`, every effect in order.
//!
//! Calls and workers apply events; a driver per session carries out what the step asked for and feeds back what came of it. A reply
//! is given only when what it says is durable.

pub(crate) mod audit;
mod calls;
mod effects;
mod fleets;
pub mod hub;
mod ids;
mod link;
pub(crate) mod matching;
mod observe;
mod place;
mod revive;
mod start;
mod tasks;
mod tcp;
mod views;
pub(crate) mod world;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use spawnpoint_core::decision::{Decision, Subject};
use spawnpoint_core::session::{Effect, Event, Notice, Phase, Rejected, Session, Step, step};
use spawnpoint_core::{Clock, Code, Moment, PlayerId, SessionId};
use spawnpoint_runtime::Runtime;
use spawnpoint_store::{Lobby, Records};
use spawnpoint_wire::event::{Event as WireEvent, EventBody};
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::tcp::TcpPorts;
use spawnpoint_wire::token::{Keyring, SigningKey};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::journal::{Journal, Made, StepMade};
pub(crate) use calls::{Beat, check_results, unknown_session};
use hub::{EventHub, RouteHub};
pub use ids::{Random, os_random};
pub use link::LocalLink;
pub(crate) use revive::joinable_parse;
pub(crate) use start::{NewSession, Started, chain};
pub(crate) use views::{Addressing, match_view};
use world::{Entry, FleetState, Todo, World};

/// Who is asking, as far as it has been proven.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The admin listener.
    Operator,
    /// A backend key (its name), or any local caller in dev mode.
    Backend {
        /// The key's name; `dev` in dev mode.
        name: String,
    },
    /// A player with a token of theirs.
    Player(spawnpoint_wire::token::TokenClaims),
    /// A stranger, where guests are allowed.
    Guest,
}

impl Caller {
    /// Backends and operators may speak for any player.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        matches!(self, Self::Operator | Self::Backend { .. })
    }
}

/// The keys of this server.
pub struct Keys {
    /// Signs new tokens.
    pub signing: SigningKey,
    /// Every key whose tokens are valid, the signing one among them.
    pub ring: Arc<Keyring>,
}

/// What the roles give the server to stand on.
pub struct Deps {
    /// What starts instances.
    pub runtime: Arc<dyn Runtime>,
    /// What keeps match records.
    pub records: Arc<dyn Records>,
    /// What keeps the tickets that wait for a match.
    pub lobby: Arc<dyn Lobby>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The keys.
    pub keys: Keys,
    /// Where instances reach the SDK listener (`http://127.0.0.1:8082`), if there is one.
    pub sdk_url: Option<String>,
    /// Metrics of other roles in this process, in Prometheus text.
    pub more_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// The gateway that listens for TCP games, if there is one.
    pub tcp: Option<Arc<dyn TcpPorts>>,
    /// Where chance comes from: [`os_random`] but in a simulation.
    pub random: Random,
    /// Where decisions are noted with all that went into them, if they are.
    pub journal: Option<Arc<dyn Journal>>,
}

/// Counts for `/metrics`. Never by session or player.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) starts: AtomicU64,
    pub(crate) ends: Mutex<HashMap<(String, &'static str), u64>>,
    pub(crate) problems: Mutex<HashMap<&'static str, u64>>,
    pub(crate) heartbeats: AtomicU64,
    pub(crate) requests_public: AtomicU64,
    pub(crate) requests_admin: AtomicU64,
    pub(crate) requests_sdk: AtomicU64,
    pub(crate) record_retries: AtomicU64,
    pub(crate) culls_held_late: AtomicU64,
    pub(crate) culls_held_braked: AtomicU64,
}

/// What holds culls: a tick that came too late.
pub(crate) const LATE_TICK: &str = "late_tick";
/// What holds culls: too many would end at once.
pub(crate) const MASS_END_BRAKE: &str = "mass_end_brake";

impl Counters {
    /// How often each has held culls. A hold may be over before anybody looks.
    pub(crate) fn culls_held(&self) -> [(&'static str, u64); 2] {
        [
            (LATE_TICK, self.culls_held_late.load(Ordering::Relaxed)),
            (
                MASS_END_BRAKE,
                self.culls_held_braked.load(Ordering::Relaxed),
            ),
        ]
    }
}

/// One server.
pub struct App {
    pub(crate) config: ArcSwap<Config>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) lobby: Arc<dyn Lobby>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: Keys,
    pub(crate) ids: ids::Ids,
    pub(crate) sdk_url: Option<String>,
    pub(crate) more_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    tcp: Option<Arc<dyn TcpPorts>>,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    world: Mutex<World>,
    tickets: Mutex<matching::Table>,
    pub(crate) events: EventHub,
    pub(crate) followed: hub::FleetHub,
    pub(crate) routes: RouteHub,
    pub(crate) reports: link::Reports,
    pub(crate) audits: audit::Memory,
    /// Wakes the fleet worker.
    pub(crate) plan_now: Notify,
    /// Wakes the reaper when an earlier deadline was set.
    pub(crate) look_now: Notify,
    /// Wakes the matchmaker.
    pub(crate) match_now: Notify,
    /// Looks at the queues that were begun, and the last that is done: whoever joined before a look began is in it.
    pub(crate) looks_begun: AtomicU64,
    pub(crate) looks_done: watch::Sender<u64>,
    /// The lobby's tickets were read and every one is here.
    pub(crate) lobby_loaded: AtomicBool,
    /// Something ended; drains wait on it.
    pub(crate) ended: Notify,
    pub(crate) tasks: tasks::Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) counters: Counters,
    /// The runtime's list was read and every session it holds is live here.
    pub(crate) revived: AtomicBool,
    /// Why culls are held, if they are.
    pub(crate) held_by: Mutex<Option<&'static str>>,
    pub(crate) started_at: Moment,
}

impl App {
    /// A server over these parts. Nothing runs yet: call [`App::revive`], then start the workers.
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Arc<Self> {
        let mut world = World::default();
        for fleet in &config.fleets {
            world
                .fleets
                .insert(fleet.name.clone(), FleetState::new(Arc::clone(fleet)));
        }
        let now = deps.clock.now();
        let mut tickets = matching::Table::default();
        tickets.configure(&config.queues, now);
        // Names this run: later runs of one machine get later numbers.
        let incarnation = u64::try_from(deps.clock.wall(now)).unwrap_or(0);
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            runtime: deps.runtime,
            records: deps.records,
            lobby: deps.lobby,
            ids: ids::Ids::new(Arc::clone(&deps.clock), deps.random),
            clock: deps.clock,
            keys: deps.keys,
            sdk_url: deps.sdk_url,
            more_metrics: deps.more_metrics,
            tcp: deps.tcp,
            journal: deps.journal,
            world: Mutex::new(world),
            tickets: Mutex::new(tickets),
            events: EventHub::new(incarnation),
            followed: hub::FleetHub::default(),
            routes: RouteHub::new(incarnation),
            reports: link::Reports::default(),
            audits: audit::Memory::default(),
            plan_now: Notify::new(),
            look_now: Notify::new(),
            match_now: Notify::new(),
            looks_begun: AtomicU64::new(0),
            looks_done: watch::Sender::new(0),
            lobby_loaded: AtomicBool::new(false),
            ended: Notify::new(),
            tasks: tasks::Tasks::default(),
            stop: CancellationToken::new(),
            counters: Counters::default(),
            revived: AtomicBool::new(false),
            held_by: Mutex::new(None),
            started_at: now,
        })
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // A panic while the lock is held is a bug in one session's path; the others must go on.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_world<T>(&self, f: impl FnOnce(&World) -> T) -> T {
        f(&self.world())
    }

    /// The same for writing; a closure cannot carry the lock over an await.
    pub(crate) fn change_world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.world())
    }

    /// A session whose look had nothing to do now (its cull is held) is looked at again then, not at once.
    pub(crate) fn look_later(&self, id: SessionId, at: Moment) {
        let mut world = self.world();
        let now = self.now();
        let Some(entry) = world.sessions.get_mut(&id) else {
            return;
        };
        let Some(old) = entry.timer.filter(|t| *t <= now) else {
            return;
        };
        entry.timer = Some(at);
        world.timers.remove(&(old, id));
        world.timers.insert((at, id));
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A moment as RFC 3339 with milliseconds.
    pub(crate) fn text(&self, moment: Moment) -> String {
        wall_text(self.clock.wall(moment))
    }

    /// Applies one event to a session and lets its driver carry out what follows.
    ///
    /// # Errors
    /// [`Rejected`] when the event changes nothing, or there is no such live session.
    pub(crate) fn apply(
        self: &Arc<Self>,
        id: SessionId,
        event: &Event,
    ) -> Result<&'static str, Rejected> {
        self.apply_at(id, event, self.now())
    }

    /// The same as of this moment.
    pub(crate) fn apply_at(
        self: &Arc<Self>,
        id: SessionId,
        event: &Event,
        now: Moment,
    ) -> Result<&'static str, Rejected> {
        let mut world = self.world();
        let because = self.apply_in(&mut world, id, event, now)?;
        drop(world);
        self.drive(id);
        Ok(because)
    }

    /// The same under a lock already held; the caller calls [`App::drive`] after letting it go.
    pub(crate) fn apply_in(
        &self,
        world: &mut World,
        id: SessionId,
        event: &Event,
        now: Moment,
    ) -> Result<&'static str, Rejected> {
        let Some(entry) = world.sessions.get_mut(&id) else {
            return Err(Rejected {
                because: "no such live session",
                code: Some(Code::SessionNotFound),
            });
        };
        let before = entry.session.phase;
        let result = step(&entry.session, event, now);
        let quiet = matches!(event, Event::Data(..) | Event::Tick { .. });
        match &result {
            Ok(s) if !quiet || s.next.phase != before => entry.decide(Decision {
                at: now,
                subject: Subject::Session(id),
                function: "session::step",
                input: format!("{} + {event:?}", before.as_str()),
                output: describe(&s.effects, s.next.phase),
                because: s.because.to_owned(),
            }),
            Err(r) if r.code.is_some() => entry.decide(Decision {
                at: now,
                subject: Subject::Session(id),
                function: "session::step",
                input: format!("{} + {event:?}", before.as_str()),
                output: "rejected".to_owned(),
                because: r.because.to_owned(),
            }),
            _ => {}
        }
        let s = match result {
            Ok(s) => s,
            Err(r) => {
                if r.code.is_some() {
                    self.note_step(|| entry.session.clone(), event, now, || Err(r));
                }
                return Err(r);
            }
        };
        tracing::debug!(session = %id, fleet = %entry.session.fleet, from = before.as_str(), to = s.next.phase.as_str(), because = s.because, "step");
        let was = std::mem::replace(&mut entry.session, s.next);
        self.note_step(
            || was,
            event,
            now,
            || {
                Ok(Step {
                    next: entry.session.clone(),
                    effects: s.effects.clone(),
                    because: s.because,
                })
            },
        );
        entry.unsaved += u32::try_from(
            s.effects
                .iter()
                .filter(|e| matches!(e, Effect::Save))
                .count(),
        )
        .unwrap_or(0);
        entry.todo.extend(s.effects.into_iter().map(Todo::Effect));
        entry.todo.push_back(Todo::Route);
        entry.changed.send_modify(|n| *n += 1);
        self.after_step(world, id, before, now);
        Ok(s.because)
    }

    /// Notes a step, if anybody wants to know: nothing is copied otherwise.
    fn note_step(
        &self,
        before: impl FnOnce() -> Session,
        event: &Event,
        now: Moment,
        result: impl FnOnce() -> Result<Step, Rejected>,
    ) {
        if let Some(journal) = &self.journal {
            journal.note(Made::Step(Box::new(StepMade {
                before: before(),
                event: event.clone(),
                now,
                result: result(),
            })));
        }
    }

    fn after_step(&self, world: &mut World, id: SessionId, before: Phase, now: Moment) {
        let Some(entry) = world.sessions.get_mut(&id) else {
            return;
        };
        let phase = entry.session.phase;
        for p in &entry.session.roster {
            if !entry.ever.iter().any(|(e, _)| *e == p.id) {
                entry.ever.push((p.id.clone(), p.joined_at));
            }
        }
        if phase.accepts() && entry.receipt.is_none() {
            let instance = entry.session.instance.and_then(|i| world.instances.get(&i));
            entry.receipt = Some(entry.measure(instance, now));
            entry.started_at = Some(now);
        }
        if before.is_live() && !phase.is_live() {
            // Its players are free from the moment the reason is fixed, or "fresh" and a quick second game would have to wait.
            let fleet = entry.session.fleet.clone();
            let players: Vec<PlayerId> =
                entry.session.roster.iter().map(|p| p.id.clone()).collect();
            for p in &players {
                world.release_player(&fleet, p, id);
            }
            if let Some(f) = world.fleets.get_mut(&fleet) {
                f.queue.retain(|s| *s != id);
            }
            self.plan_now.notify_one();
        }
        let earliest = world.timers.first().map(|t| t.0);
        world.arm(id, now);
        if world.timers.first().map(|t| t.0) < earliest || earliest.is_none() {
            self.look_now.notify_one();
        }
    }

    /// Starts the session's driver unless it is running.
    pub(crate) fn drive(self: &Arc<Self>, id: SessionId) {
        let mut world = self.world();
        let Some(entry) = world.sessions.get_mut(&id) else {
            return;
        };
        if entry.driving || entry.todo.is_empty() {
            return;
        }
        entry.driving = true;
        drop(world);
        let app = Arc::clone(self);
        self.tasks.spawn(async move { app.carry_out(id).await });
    }

    /// Tells listeners of a session.
    pub(crate) fn announce(&self, id: SessionId, notice: &Notice) {
        let body = match notice {
            Notice::Phase(phase) => {
                let generation = self
                    .world()
                    .sessions
                    .get(&id)
                    .map_or(0, |e| e.session.generation.0);
                EventBody::Phase {
                    phase: *phase,
                    generation,
                }
            }
            Notice::PlayerJoined(p) => EventBody::PlayerJoined {
                player_id: p.clone(),
            },
            Notice::PlayerLeft(p) => EventBody::PlayerLeft {
                player_id: p.clone(),
            },
            Notice::Warning { reason, cull_at } => EventBody::Warning {
                reason: *reason,
                cull_at: self.text(*cull_at),
            },
            Notice::Replaced(generation) => EventBody::Replaced {
                generation: generation.0,
            },
            Notice::Ended(reason) => EventBody::Ended { reason: *reason },
        };
        self.tell(id, body);
    }

    pub(crate) fn tell(&self, id: SessionId, body: EventBody) {
        let players: Arc<[PlayerId]> = {
            let world = self.world();
            world
                .sessions
                .get(&id)
                .map(|e| e.ever.iter().map(|(p, _)| p.clone()).collect())
                .unwrap_or_default()
        };
        let event = WireEvent {
            v: 1,
            id: String::new(),
            at: self.text(self.now()),
            session_id: Some(id),
            ticket_id: None,
            body,
        };
        self.events.tell(event, players);
    }

    /// Waits until `done` holds for the session, it is gone, or the time is up. Returns whether it held.
    pub(crate) async fn wait_for(
        &self,
        id: SessionId,
        limit: Duration,
        done: impl Fn(&Entry) -> bool,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let mut changed = {
                let world = self.world();
                let Some(entry) = world.sessions.get(&id) else {
                    return false;
                };
                if done(entry) {
                    return true;
                }
                entry.changed.subscribe()
            };
            tokio::select! {
                biased;
                r = changed.changed() => if r.is_err() { return false },
                () = tokio::time::sleep_until(deadline) => return false,
                () = self.stop.cancelled() => return false,
            }
        }
    }

    /// Puts a new configuration in place: new sessions and warm instances use it, live ones stay as they are.
    pub fn reload(self: &Arc<Self>, config: Config) {
        let mut world = self.world();
        for fleet in &config.fleets {
            match world.fleets.get_mut(&fleet.name) {
                Some(state) => {
                    let template = fleet.template.fingerprint();
                    if template != state.template {
                        // A new template starts with a clean slate.
                        state.failures = spawnpoint_core::fleet::Failures::default();
                        state.template = template;
                    }
                    state.config = Arc::clone(fleet);
                }
                None => {
                    world
                        .fleets
                        .insert(fleet.name.clone(), FleetState::new(Arc::clone(fleet)));
                }
            }
        }
        // A fleet that is gone keeps its live sessions and loses its warm instances.
        let names: Vec<_> = world
            .fleets
            .keys()
            .filter(|n| config.fleet(n).is_none())
            .cloned()
            .collect();
        for name in names {
            if let Some(state) = world.fleets.get_mut(&name) {
                let mut empty = (*state.config).clone();
                empty.warm = 0;
                state.config = Arc::new(empty);
            }
        }
        drop(world);
        let queues = config.queues.clone();
        self.config.store(Arc::new(config));
        self.configure_queues(&queues);
        self.plan_now.notify_one();
    }

    /// Nothing new from here on.
    pub(crate) fn begin_drain(&self) {
        self.world().draining = true;
    }

    /// Whether no session and no instance of ours is left.
    pub(crate) fn is_empty(&self) -> bool {
        let world = self.world();
        world.sessions.is_empty() && world.holders.is_empty()
    }

    pub(crate) fn count_problem(&self, code: &'static str) {
        *self
            .counters
            .problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(code)
            .or_default() += 1;
    }

    pub(crate) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Unix milliseconds as RFC 3339 with milliseconds.
pub(crate) fn wall_text(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => format!("{t:.3}"),
        // Out of the calendar's range: a deadline so far away that it is none.
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

fn describe(effects: &[Effect], phase: Phase) -> String {
    let mut out = phase.as_str().to_owned();
    for e in effects {
        match e {
            Effect::Announce(_) => {}
            other => {
                out.push_str(", ");
                out.push_str(&format!("{other:?}"));
            }
        }
    }
    out
}

/// The problem for a rejected step.
pub(crate) fn rejected(r: Rejected) -> Problem {
    Problem::new(r.code.unwrap_or(Code::Internal), r.because)
}
