//! The world: what survives every death of the server, what is going wrong right now, and the history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spawnpoint_core::{Clock, InstanceId, Moment, SessionId, TicketId};
use spawnpoint_runtime::simulated::{SimulatedConfig, SimulatedRuntime, Span};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_testkit::VirtualClock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chance::Chance;
use crate::history::History;
use crate::life::Life;
use crate::plan::{Plan, Trouble};
use crate::players::Board;
use crate::site::{Fronts, Site};
use crate::truth::Truth;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which checker.
    pub checker: &'static str,
    /// What is wrong.
    pub what: String,
}

/// Where the process dies next.
#[derive(Debug)]
pub(crate) struct Armed {
    pub(crate) point: &'static str,
    /// Passed so often before.
    pub(crate) skip: u64,
}

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) history: History,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) records: MemoryRecords,
    pub(crate) lobby: MemoryLobby,
    pub(crate) tasks: TaskTracker,
    /// Nobody begins anything new.
    pub(crate) closing: CancellationToken,
    /// Something was found: the world ends.
    pub(crate) found: CancellationToken,
    pub(crate) fronts: Fronts,
    /// The run that was started last, built or not.
    life: Mutex<Option<Arc<Life>>>,
    line: Notify,
    began: Moment,
    truth: Mutex<Truth>,
    site: Mutex<Option<Arc<Site>>>,
    /// How many spells of each kind there are now.
    troubles: Mutex<BTreeMap<Trouble, u32>>,
    /// Until when what goes on is not ordinary, milliseconds.
    uneasy_until: Mutex<i64>,
    armed: Mutex<Option<Armed>>,
    chance: Mutex<Chance>,
    finding: Mutex<Option<Finding>>,
    board: Mutex<Board>,
    held_by: Mutex<Option<String>>,
    pub(crate) checks: AtomicU64,
    /// Sessions that are over and of no interest any more.
    pub(crate) forgotten: AtomicUsize,
    /// How often the mass-end brake held culls, and how often a late tick did, in the run of the server that they held most often.
    pub(crate) braked: AtomicU64,
    pub(crate) late: AtomicU64,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        let clock = Arc::new(VirtualClock::new());
        let games = plan.games;
        let config = SimulatedConfig {
            seed: plan.seed,
            boot: Span::Between(std::time::Duration::from_millis(20), games.boot),
            life: games.life.map(|(a, b)| Span::Between(a, b)),
            crashes: games.crashes,
            ports: games.ports.map(|n| 20_000..=20_000 + n - 1),
            // An address rests for longer than a gateway can be cut off, or that gateway would lead players to somebody else's game.
            quarantine: std::time::Duration::from_secs(if plan.apart { 60 } else { 1 }),
            listen: None,
            restarts: true,
        };
        let runtime = SimulatedRuntime::new(Arc::clone(&clock) as Arc<dyn Clock>, config);
        let began = clock.now();
        Arc::new(Self {
            history: if plan.day {
                History::of_the_last()
            } else {
                History::default()
            },
            runtime,
            records: MemoryRecords::new(),
            lobby: MemoryLobby::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            found: CancellationToken::new(),
            fronts: Fronts::default(),
            life: Mutex::new(None),
            line: Notify::new(),
            began,
            truth: Mutex::new(Truth {
                offsets: vec![0],
                ..Truth::default()
            }),
            site: Mutex::new(None),
            troubles: Mutex::default(),
            uneasy_until: Mutex::new(0),
            armed: Mutex::new(None),
            chance: Mutex::new(Chance::part(plan.seed, "world")),
            finding: Mutex::new(None),
            board: Mutex::default(),
            held_by: Mutex::new(None),
            checks: AtomicU64::new(0),
            forgotten: AtomicUsize::new(0),
            braked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            clock,
            plan,
        })
    }

    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        lock(&self.truth)
    }

    /// The world's time, milliseconds.
    pub(crate) fn now(&self) -> i64 {
        self.ms(self.clock.now())
    }

    pub(crate) const fn ms(&self, moment: Moment) -> i64 {
        moment.0 - self.began.0
    }

    pub(crate) fn say(&self, who: &str, what: &str) {
        self.history.say(self.now(), who, what);
    }

    pub(crate) fn s(&self, id: SessionId) -> String {
        self.history.name('s', id.uuid())
    }

    pub(crate) fn i(&self, id: InstanceId) -> String {
        self.history.name('i', id.uuid())
    }

    pub(crate) fn t(&self, id: TicketId) -> String {
        self.history.name('t', id.uuid())
    }

    /// A checker found something: the first one counts, and the world ends.
    pub(crate) fn fail(&self, checker: &'static str, what: &str) {
        let mut finding = lock(&self.finding);
        if finding.is_none() {
            self.say("CHECK", &format!("{checker}: {what}"));
            *finding = Some(Finding {
                checker,
                what: what.to_owned(),
            });
            self.found.cancel();
        }
    }

    pub(crate) fn finding(&self) -> Option<Finding> {
        lock(&self.finding).clone()
    }

    pub(crate) fn checked(&self) {
        self.checks.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this goes wrong right now.
    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        lock(&self.troubles).contains_key(&trouble)
    }

    pub(crate) fn trouble(&self, trouble: Trouble, on: bool) {
        let mut troubles = lock(&self.troubles);
        if on {
            *troubles.entry(trouble).or_default() += 1;
        } else if let Some(n) = troubles.get_mut(&trouble) {
            *n -= 1;
            if *n == 0 {
                troubles.remove(&trouble);
            }
        }
        drop(troubles);
        self.uneasy(3_000);
    }

    pub(crate) fn no_trouble(&self) {
        lock(&self.troubles).clear();
        self.uneasy(3_000);
    }

    /// Nothing ordinary can be expected for so long from now.
    pub(crate) fn uneasy(&self, ms: i64) {
        let until = self.now() + ms;
        let mut at = lock(&self.uneasy_until);
        *at = (*at).max(until);
    }

    /// Since `from` everything was as usual.
    pub(crate) fn was_calm_since(&self, from: i64) -> bool {
        lock(&self.troubles).is_empty() && *lock(&self.uneasy_until) <= from
    }

    /// A chance of so many in a thousand that belongs to nobody in particular.
    pub(crate) fn roll(&self, permille: u64) -> bool {
        lock(&self.chance).permille(permille)
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        lock(&self.chance).fill(bytes);
    }

    /// The run of the server that stands now, if one does.
    pub(crate) fn site(&self) -> Option<Arc<Site>> {
        lock(&self.site).clone().filter(|s| !s.life.is_dead())
    }

    pub(crate) fn put_site(&self, site: Option<Arc<Site>>) {
        *lock(&self.site) = site;
    }

    pub(crate) fn begins(&self, life: &Arc<Life>) {
        *lock(&self.life) = Some(Arc::clone(life));
    }

    /// The present run passes one of the server's own fault points. True: it is dead.
    pub(crate) fn passes_point(&self, point: &str) -> bool {
        let life = lock(&self.life).clone();
        life.is_some_and(|life| {
            self.passes(&life, point);
            life.is_dead()
        })
    }

    pub(crate) fn arm(&self, armed: Option<Armed>) {
        *lock(&self.armed) = armed;
    }

    pub(crate) fn is_armed(&self) -> bool {
        lock(&self.armed).is_some()
    }

    /// Waits until the line between gateway and server is cut.
    pub(crate) async fn line_cut(&self) {
        self.line.notified().await;
    }

    pub(crate) fn cut_line(&self) {
        self.line.notify_waiters();
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// The server said what holds culls now, and how often each did in this run of it.
    pub(crate) fn held(&self, by: Option<&str>, times: &serde_json::Value) {
        let mut now = lock(&self.held_by);
        if now.as_deref() != by {
            let by = by.unwrap_or("nothing");
            self.say("server", &format!("culls are held by {by}"));
        }
        *now = by.map(str::to_owned);
        let most = |seen: &AtomicU64, name: &str| {
            let times = times[name].as_u64().unwrap_or(0);
            seen.fetch_max(times, Ordering::Relaxed);
        };
        most(&self.braked, "mass_end_brake");
        most(&self.late, "late_tick");
    }

    /// How often the server was started.
    pub(crate) fn runs(&self) -> u32 {
        lock(&self.life).as_ref().map_or(0, |l| l.number)
    }

    /// A run passes a place at which it may die.
    pub(crate) fn passes(&self, life: &Life, point: &str) {
        if life.is_dead() || point.is_empty() {
            return;
        }
        let mut armed = lock(&self.armed);
        let Some(at) = armed.as_mut().filter(|a| a.point == point) else {
            return;
        };
        if at.skip > 0 {
            at.skip -= 1;
            return;
        }
        *armed = None;
        drop(armed);
        self.kill(life, point);
    }

    /// The process dies, as by `kill -9`.
    pub(crate) fn kill(&self, life: &Life, at: &str) {
        if life.is_dead() {
            return;
        }
        self.say("nature", &format!("the server dies at {at}"));
        life.dead.cancel();
        self.uneasy(10_000);
        if let Some(site) = lock(&self.site).take() {
            site.server.abandon();
            if let Some(gateway) = &site.gateway {
                gateway.stop.cancel();
            }
        }
    }
}
