//! The simulated world: what exists, and the one task that lets time pass in it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use spawnpoint_core::audit::{Holding, HoldingKind};
use spawnpoint_core::{Clock, InstanceId, Moment};
use tokio::sync::{Notify, broadcast};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::SimulatedConfig;
use super::log::Log;
use super::ports::Addresses;
use super::script::{End, Script};
use crate::{Change, Facts, Instance, Order, ReadyRule, RuntimeError, State, Timings, Version};

/// Changes a watch may be behind before it is told everything again.
const WATCH_QUEUE: usize = 1_024;

/// Everything there is, behind one lock that is never held over an await.
#[derive(Debug)]
pub(super) struct World {
    config: SimulatedConfig,
    owner: AtomicU64,
    inner: Mutex<Inner>,
    wake: Arc<Notify>,
    driver: Mutex<Option<AbortHandle>>,
}

pub(super) struct Inner {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) games: HashMap<InstanceId, Game>,
    /// Ids in the order they came, for listings that are the same in every run; forgotten ones are swept now and then.
    pub(super) order: Vec<InstanceId>,
    pub(super) agenda: BinaryHeap<Reverse<Due>>,
    pub(super) addresses: Addresses,
    pub(super) watchers: broadcast::Sender<Change>,
    /// Counts orders and starts: names them for chance and makes ties on the agenda fall as they came.
    pub(super) serial: u64,
    /// Nobody can see anything since.
    pub(super) blind_since: Option<Moment>,
    /// What the next orders fail with, instead of being done.
    pub(super) failing_orders: std::collections::VecDeque<RuntimeError>,
    /// What tests left behind.
    pub(super) strays: Vec<Holding>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("games", &self.games.len())
            .finish_non_exhaustive()
    }
}

/// One instance, as it is and as it is seen.
pub(super) struct Game {
    pub(super) seen: Instance,
    pub(super) script: Script,
    pub(super) rule: ReadyRule,
    pub(super) port: Option<u16>,
    /// Which start of it this is: what is on the agenda for an earlier one is void.
    pub(super) run: u64,
    pub(super) session_file: Option<Bytes>,
    pub(super) env: std::collections::BTreeMap<String, String>,
    pub(super) log: Option<Log>,
    pub(super) results: Option<Bytes>,
    /// Nobody can see it since.
    pub(super) lost_since: Option<Moment>,
    /// It ended while nobody could see it.
    pub(super) ended_unseen: bool,
}

/// Something that will happen.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) serial: u64,
    pub(super) run: u64,
    pub(super) id: InstanceId,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Accepts,
    Ends,
    Killed,
}

impl Game {
    /// As others see it.
    pub(super) fn view(&self, blind: Option<Moment>) -> Instance {
        let mut seen = self.seen.clone();
        let lost = blind.or(self.lost_since);
        if let Some(since) = lost
            && (!self.is_over() || self.ended_unseen)
        {
            seen.state = State::Unknown { since };
        }
        seen
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.seen.state, State::Exited(_))
    }

    /// Over or on its way there.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.seen.state, State::Exited(_) | State::Stopping)
    }

    pub(super) fn expect(&self, version: Version) -> Result<(), RuntimeError> {
        if self.seen.version == version {
            Ok(())
        } else {
            Err(RuntimeError::Conflict)
        }
    }

    /// A write by the owner.
    pub(super) fn written(&mut self) -> Version {
        self.seen.version.0 += 1;
        self.seen.version
    }

    pub(super) fn log(&mut self) -> &Log {
        let over = self.is_over();
        self.log.get_or_insert_with(|| {
            let log = Log::default();
            log.set_over(over);
            log
        })
    }
}

impl World {
    pub(super) fn start(clock: Arc<dyn Clock>, config: SimulatedConfig) -> (Arc<Self>, u64) {
        let addresses = Addresses::new(config.listen, config.ports.clone(), config.quarantine);
        let world = Arc::new(Self {
            config,
            owner: AtomicU64::new(1),
            inner: Mutex::new(Inner {
                clock,
                games: HashMap::new(),
                order: Vec::new(),
                agenda: BinaryHeap::new(),
                addresses,
                watchers: broadcast::channel(WATCH_QUEUE).0,
                serial: 0,
                blind_since: None,
                failing_orders: std::collections::VecDeque::new(),
                strays: Vec::new(),
            }),
            wake: Arc::new(Notify::new()),
            driver: Mutex::new(None),
        });
        let drive = drive(Arc::downgrade(&world), world.wake.clone());
        let handle = TaskTracker::new().spawn(drive).abort_handle();
        *world.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        (world, 1)
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_owner(&self, owner: u64) -> bool {
        self.owner.load(Ordering::SeqCst) == owner
    }

    pub(super) fn change_owner(&self) -> u64 {
        // Their sender gone, the old owner's watches end.
        self.inner().watchers = broadcast::channel(WATCH_QUEUE).0;
        self.owner.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn subscribe(&self) -> (Vec<Instance>, broadcast::Receiver<Change>) {
        let w = self.inner();
        (w.list(), w.watchers.subscribe())
    }

    /// For a watch that fell behind; `None` when its owner has died.
    pub(super) fn resubscribe(
        &self,
        old: &broadcast::Receiver<Change>,
    ) -> Option<(Vec<Instance>, broadcast::Receiver<Change>)> {
        let w = self.inner();
        let fresh = w.watchers.subscribe();
        old.same_channel(&fresh).then(|| (w.list(), fresh))
    }

    pub(super) fn list(&self) -> Vec<Instance> {
        self.inner().list()
    }

    /// The ports of the range that are taken, and what tests left behind.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        let w = self.inner();
        let ports = w.order.iter().filter_map(|id| {
            let port = w.games.get(id)?.port?;
            Some(Holding {
                kind: HoldingKind::Port,
                name: port.to_string(),
                of: Some(*id),
            })
        });
        ports.chain(w.strays.iter().cloned()).collect()
    }

    pub(super) fn get(&self, id: InstanceId) -> Result<Instance, RuntimeError> {
        let w = self.inner();
        let game = w.games.get(&id).ok_or(RuntimeError::NotFound)?;
        Ok(game.view(w.blind_since))
    }

    pub(super) fn order(&self, order: Order) -> Result<Instance, RuntimeError> {
        let mut w = self.inner();
        let blind = w.blind_since;
        if let Some(game) = w.games.get(&order.id) {
            return Ok(game.view(blind));
        }
        if let Some(e) = w.failing_orders.pop_front() {
            return Err(e);
        }
        let now = w.clock.now();
        let (address, port) = if order.gated {
            (None, None)
        } else {
            let (address, port) = w.addresses.take(Instant::now())?;
            (Some(address), port)
        };
        let id = order.id;
        let seen = Instance {
            id,
            fleet: order.fleet,
            template: order.template.fingerprint(),
            version: Version(1),
            state: State::Gated,
            facts: order.facts,
            address,
            restarts: 0,
            timings: Timings {
                ordered_at: Some(now),
                ..Timings::default()
            },
            label: format!("simulated-{id}"),
        };
        let game = Game {
            seen,
            script: Script::parse(&order.template.command),
            rule: order.template.ready,
            port,
            run: 0,
            session_file: order.session_file,
            env: order.env,
            log: None,
            results: None,
            lost_since: None,
            ended_unseen: false,
        };
        w.games.insert(id, game);
        w.order.push(id);
        w.sweep();
        if order.gated {
            w.tell(id);
        } else {
            w.run(id, &self.config);
        }
        self.wake.notify_one();
        let seen = w.games.get(&id).map(|g| g.view(blind));
        seen.ok_or(RuntimeError::NotFound)
    }

    pub(super) fn release(&self, id: InstanceId, expect: Version) -> Result<Version, RuntimeError> {
        let mut w = self.inner();
        let game = w.game(id)?;
        if game.is_ending() {
            return Err(RuntimeError::Over);
        }
        game.expect(expect)?;
        if game.seen.state != State::Gated {
            return Ok(expect);
        }
        let (address, port) = w.addresses.take(Instant::now())?;
        let game = w.game(id)?;
        game.seen.address = Some(address);
        game.port = port;
        let version = game.written();
        w.run(id, &self.config);
        self.wake.notify_one();
        Ok(version)
    }

    pub(super) fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        let mut w = self.inner();
        let game = w.game(id)?;
        let bound = game.seen.facts.as_ref();
        let own = bound.is_some_and(|f| f.session == facts.session);
        if !own && game.is_ending() {
            return Err(RuntimeError::Over);
        }
        game.expect(expect)?;
        game.seen.facts = Some(facts);
        if session_file.is_some() {
            game.session_file = session_file;
        }
        let version = game.written();
        w.tell(id);
        Ok(version)
    }

    pub(super) fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        if !self.config.restarts {
            return Err(RuntimeError::Unsupported("restart an instance in place"));
        }
        let mut w = self.inner();
        let game = w.game(id)?;
        game.expect(expect)?;
        if !game.is_over() {
            return Err(RuntimeError::Conflict);
        }
        if game.seen.address.is_none() {
            // It was stopped while it was gated: there is no place to start it in.
            return Err(RuntimeError::Over);
        }
        if session_file.is_some() {
            game.session_file = session_file;
        }
        game.results = None;
        game.seen.restarts += 1;
        game.seen.timings.ready_at = None;
        if let Some(log) = &game.log {
            log.set_over(false);
        }
        let version = game.written();
        w.run(id, &self.config);
        self.wake.notify_one();
        Ok(version)
    }

    pub(super) fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError> {
        let mut w = self.inner();
        let game = w.game(id)?;
        if game.rule == ReadyRule::Sdk && game.seen.state == State::Starting {
            w.accepts(id);
        }
        Ok(())
    }

    pub(super) fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError> {
        let mut w = self.inner();
        let game = w.game(id)?;
        if game.is_ending() {
            return Ok(game.seen.version);
        }
        game.expect(expect)?;
        let version = game.written();
        if game.seen.state == State::Gated {
            w.exits(id, End::NeverRan);
            return Ok(version);
        }
        game.seen.state = State::Stopping;
        let after = if game.script.ignores_term {
            grace
        } else {
            Duration::ZERO
        };
        let run = game.run;
        w.plan(id, run, after, What::Killed);
        w.tell(id);
        self.wake.notify_one();
        Ok(version)
    }

    pub(super) fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError> {
        let mut w = self.inner();
        let game = w.game(id)?;
        if !game.is_over() {
            return Err(RuntimeError::Conflict);
        }
        game.expect(expect)?;
        let port = game.port;
        w.games.remove(&id);
        if let Some(port) = port {
            w.addresses.give_back(port, Instant::now());
        }
        w.send(Change::Gone(id));
        Ok(())
    }

    pub(super) fn log(&self, id: InstanceId) -> Result<Log, RuntimeError> {
        Ok(self.inner().game(id)?.log().clone())
    }

    pub(super) fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        Ok(self.inner().game(id)?.results.clone())
    }

    pub(super) fn environment(
        &self,
        id: InstanceId,
    ) -> Result<std::collections::BTreeMap<String, String>, RuntimeError> {
        Ok(self.inner().game(id)?.env.clone())
    }

    pub(super) fn session_file(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        Ok(self.inner().game(id)?.session_file.clone())
    }

    /// Lets everything due happen; returns when the next thing is.
    fn pass(&self) -> Option<Instant> {
        let mut w = self.inner();
        let now = Instant::now();
        while let Some(next) = w.agenda.peek() {
            if next.0.at > now {
                return Some(next.0.at);
            }
            if let Some(Reverse(due)) = w.agenda.pop() {
                w.happen(due);
            }
        }
        None
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let driver = self
            .driver
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = driver {
            driver.abort();
        }
    }
}

async fn drive(world: Weak<World>, wake: Arc<Notify>) {
    loop {
        let next = match world.upgrade() {
            Some(world) => world.pass(),
            None => return,
        };
        match next {
            None => wake.notified().await,
            Some(at) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
        }
    }
}
