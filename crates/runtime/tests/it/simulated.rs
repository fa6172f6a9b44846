//! The simulated runtime and the failure wrapper: the shared suite under paused and real time, and what only they can do.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use spawnpoint_core::limits::MAX_RESULTS;
use spawnpoint_core::{Clock, Code, InstanceId, SessionId};
use spawnpoint_runtime::conformance::{self, Fixture};
use spawnpoint_runtime::flaky::{Fault, Flaky, Rates};
use spawnpoint_runtime::simulated::{
    EchoServer, End, Script, SimulatedConfig, SimulatedRuntime, Span,
};
use spawnpoint_runtime::{
    Change, Facts, Order, ReadyRule, Runtime, RuntimeError, State, Template, Version,
};
use spawnpoint_testkit::VirtualClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

const SOON: Duration = Duration::from_millis(20);

/// Templates for every fixture here.
struct Scripts;

impl Scripts {
    fn ready() -> Template {
        Script::default().template(ReadyRule::Dial)
    }

    fn with(change: impl FnOnce(&mut Script)) -> Template {
        let mut script = Script::default();
        change(&mut script);
        script.template(ReadyRule::Dial)
    }
}

fn simulated(config: SimulatedConfig) -> SimulatedRuntime {
    SimulatedRuntime::new(Arc::new(VirtualClock::new()), config)
}

struct Plain {
    restarts: bool,
}

#[async_trait]
impl Fixture for Plain {
    type Runtime = SimulatedRuntime;

    async fn start(&self) -> Arc<SimulatedRuntime> {
        Arc::new(simulated(SimulatedConfig {
            restarts: self.restarts,
            ports: Some(30_000..=30_099),
            boot: Span::Between(Duration::ZERO, SOON),
            ..SimulatedConfig::default()
        }))
    }

    async fn reopen(&self, old: Arc<SimulatedRuntime>) -> Arc<SimulatedRuntime> {
        Arc::new(old.reopen())
    }

    fn ready(&self) -> Template {
        Scripts::ready()
    }

    fn exits(&self, code: i32) -> Template {
        Scripts::with(|s| s.ends = Some((SOON, End::Code(code))))
    }

    fn logs(&self, line: &str) -> Template {
        Scripts::with(|s| s.lines = vec![line.to_owned()])
    }

    fn leaves_results(&self, text: &str) -> Template {
        Scripts::with(|s| {
            s.results = Some(text.to_owned());
            s.ends = Some((SOON, End::Code(0)));
        })
    }

    fn says_ready(&self) -> Template {
        Script::default().template(ReadyRule::Sdk)
    }

    async fn crash(&self, runtime: &SimulatedRuntime, id: InstanceId) {
        runtime.crash(id, End::Signal(11));
    }

    fn restarts(&self) -> bool {
        self.restarts
    }

    async fn leftovers(&self, runtime: &SimulatedRuntime, id: InstanceId) -> Vec<String> {
        let file = runtime.session_file(id);
        file.is_ok()
            .then(|| "its session file".to_owned())
            .into_iter()
            .collect()
    }
}

/// The same behind the failure wrapper.
struct Wrapped(Plain);

#[async_trait]
impl Fixture for Wrapped {
    type Runtime = Flaky<SimulatedRuntime>;

    async fn start(&self) -> Arc<Self::Runtime> {
        Arc::new(Flaky::quiet(self.0.start().await))
    }

    async fn reopen(&self, old: Arc<Self::Runtime>) -> Arc<Self::Runtime> {
        Arc::new(Flaky::quiet(self.0.reopen(old.inner().clone()).await))
    }

    fn ready(&self) -> Template {
        self.0.ready()
    }

    fn exits(&self, code: i32) -> Template {
        self.0.exits(code)
    }

    fn logs(&self, line: &str) -> Template {
        self.0.logs(line)
    }

    fn leaves_results(&self, text: &str) -> Template {
        self.0.leaves_results(text)
    }

    fn says_ready(&self) -> Template {
        self.0.says_ready()
    }

    async fn crash(&self, runtime: &Self::Runtime, id: InstanceId) {
        self.0.crash(runtime.inner(), id).await;
    }

    fn restarts(&self) -> bool {
        self.0.restarts()
    }

    async fn leftovers(&self, runtime: &Self::Runtime, id: InstanceId) -> Vec<String> {
        self.0.leftovers(runtime.inner(), id).await
    }
}

#[tokio::test(start_paused = true)]
async fn conformance_under_paused_time() {
    conformance::run(&Plain { restarts: true }).await;
    conformance::run(&Plain { restarts: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_under_real_time() {
    conformance::run(&Plain { restarts: true }).await;
}

#[tokio::test(start_paused = true)]
async fn conformance_of_the_wrapper_without_failures() {
    conformance::run(&Wrapped(Plain { restarts: true })).await;
}

fn order(n: u128, template: Template) -> Order {
    Order {
        id: InstanceId::new(Uuid::from_u128(n)),
        fleet: "spice".parse().unwrap(),
        template,
        gated: false,
        facts: None,
        session_file: None,
        env: BTreeMap::new(),
    }
}

fn facts(document: &str) -> Facts {
    Facts {
        session: SessionId::new(Uuid::from_u128(1)),
        document: document.to_owned(),
    }
}

async fn state(runtime: &impl Runtime, id: InstanceId) -> State {
    runtime.get(id).await.unwrap().state
}

#[tokio::test(start_paused = true)]
async fn moments_are_the_clocks() {
    let clock = VirtualClock::new();
    let boot = Duration::from_millis(300);
    let config = SimulatedConfig {
        boot: Span::Fixed(boot),
        ..SimulatedConfig::default()
    };
    let runtime = SimulatedRuntime::new(Arc::new(clock.clone()), config);
    let start = clock.now();
    let made = runtime.order(order(1, Scripts::ready())).await.unwrap();
    assert_eq!(made.state, State::Starting);
    tokio::time::sleep(boot - Duration::from_millis(1)).await;
    assert_eq!(state(&runtime, made.id).await, State::Starting);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let ready = runtime.get(made.id).await.unwrap();
    assert_eq!(ready.state, State::Ready);
    assert_eq!(ready.timings.spawned_at, Some(start));
    assert_eq!(ready.timings.ready_at, Some(start.after(boot)));
}

/// All that a watch says of a little history in which chance decides everything.
async fn history(seed: u64) -> String {
    let runtime = simulated(SimulatedConfig {
        seed,
        boot: Span::Between(Duration::from_millis(10), Duration::from_secs(5)),
        life: Some(Span::Between(
            Duration::from_secs(1),
            Duration::from_secs(100),
        )),
        crashes: 300,
        ..SimulatedConfig::default()
    });
    let mut watch = runtime.watch().await.unwrap();
    for n in 0..100 {
        runtime.order(order(n, Scripts::ready())).await.unwrap();
    }
    let mut over = 0;
    let mut text = String::new();
    while over < 100 {
        let change = watch.next().await.unwrap();
        if let Change::One(i) = &change
            && matches!(i.state, State::Exited(_))
        {
            over += 1;
        }
        text.push_str(&format!("{change:?}\n"));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_its_history() {
    let first = history(7).await;
    assert_eq!(first, history(7).await);
    assert_ne!(first, history(8).await);
    let crashed = first.matches("code: Some(1)").count();
    assert!((10..60).contains(&crashed), "{crashed} of 100 crashed");
}

#[tokio::test(start_paused = true)]
async fn every_way_to_end() {
    let runtime = simulated(SimulatedConfig::default());
    for (n, end) in (0..).zip([
        End::Code(0),
        End::Code(3),
        End::Signal(11),
        End::Oom,
        End::NeverRan,
    ]) {
        let template = Scripts::with(|s| s.ends = Some((Duration::ZERO, end)));
        let made = runtime.order(order(n, template)).await.unwrap();
        tokio::time::sleep(SOON).await;
        let State::Exited(exit) = state(&runtime, made.id).await else {
            panic!("{end:?} does not end");
        };
        assert_eq!(exit, end.exit(exit.at));
        assert_eq!(exit.is_clean(), end == End::Code(0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_ready_starts_for_ever() {
    let runtime = simulated(SimulatedConfig::default());
    let template = Scripts::with(|s| s.never_ready = true);
    let made = runtime.order(order(1, template)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert_eq!(state(&runtime, made.id).await, State::Starting);
}

#[tokio::test(start_paused = true)]
async fn the_grace_is_for_those_who_do_not_listen() {
    let runtime = simulated(SimulatedConfig::default());
    let polite = order(1, Scripts::ready());
    let deaf = order(2, Scripts::with(|s| s.ignores_term = true));
    let grace = Duration::from_secs(10);
    for o in [&polite, &deaf] {
        let made = runtime.order(o.clone()).await.unwrap();
        runtime.stop(made.id, made.version, grace).await.unwrap();
    }
    tokio::time::sleep(grace - Duration::from_millis(1)).await;
    let State::Exited(exit) = state(&runtime, polite.id).await else {
        panic!("it heeds SIGTERM");
    };
    assert_eq!(exit.signal, Some(15));
    assert_eq!(state(&runtime, deaf.id).await, State::Stopping);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let State::Exited(exit) = state(&runtime, deaf.id).await else {
        panic!("SIGKILL is heeded by all");
    };
    assert_eq!(exit.signal, Some(9));
}

#[tokio::test(start_paused = true)]
async fn ports_run_out_and_rest() {
    let quarantine = Duration::from_secs(30);
    let runtime = simulated(SimulatedConfig {
        ports: Some(30_000..=30_001),
        quarantine,
        ..SimulatedConfig::default()
    });
    let first = runtime.order(order(1, Scripts::ready())).await.unwrap();
    let second = runtime.order(order(2, Scripts::ready())).await.unwrap();
    assert_ne!(first.address, second.address);
    let third = order(3, Scripts::ready());
    let e = runtime.order(third.clone()).await.unwrap_err();
    assert_eq!(e.code(), Code::PortsExhausted);
    assert_eq!(
        runtime.list().await.unwrap().len(),
        2,
        "nothing of it was kept"
    );
    // Waiting needs no port, running does.
    let mut waits = order(4, Scripts::ready());
    waits.gated = true;
    let waits = runtime.order(waits).await.unwrap();
    assert_eq!(waits.address, None);
    let e = runtime.release(waits.id, waits.version).await.unwrap_err();
    assert_eq!(e.code(), Code::PortsExhausted);
    assert_eq!(runtime.get(waits.id).await.unwrap(), waits);

    runtime.finish(first.id);
    runtime.forget(first.id, first.version).await.unwrap();
    let e = runtime.release(waits.id, waits.version).await.unwrap_err();
    assert_eq!(e.code(), Code::PortsExhausted, "the port rests");
    tokio::time::sleep(quarantine).await;
    runtime.release(waits.id, waits.version).await.unwrap();
    let released = runtime.get(waits.id).await.unwrap();
    assert_eq!(released.address, first.address);
}

#[tokio::test(start_paused = true)]
async fn a_dead_owners_handle_is_dead() {
    let old = simulated(SimulatedConfig::default());
    let made = old.order(order(1, Scripts::ready())).await.unwrap();
    let mut watch = old.watch().await.unwrap();
    let new = old.reopen();
    let e = old.bind(made.id, made.version, facts("late"), None).await;
    assert!(matches!(e, Err(RuntimeError::OutcomeUnknown(_))), "{e:?}");
    let same = new.get(made.id).await.unwrap();
    assert_eq!((same.facts, same.version), (None, made.version));
    let rest = tokio::time::timeout(Duration::from_secs(1), async {
        while watch.next().await.is_some() {}
    });
    rest.await.expect("its watch ends");
    let mut fresh = new.watch().await.unwrap();
    assert!(matches!(fresh.next().await, Some(Change::All(all)) if all.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_world_ends_with_its_last_handle() {
    let runtime = simulated(SimulatedConfig::default());
    let made = runtime.order(order(1, Scripts::ready())).await.unwrap();
    let mut watch = runtime.watch().await.unwrap();
    watch.next().await.unwrap();
    let again = runtime.clone();
    drop(runtime);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&again, made.id).await, State::Ready);
    drop(again);
    assert!(matches!(watch.next().await, Some(Change::One(_))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_behind_is_told_everything_again() {
    let runtime = simulated(SimulatedConfig::default());
    let made = runtime.order(order(1, Scripts::ready())).await.unwrap();
    let mut watch = runtime.watch().await.unwrap();
    watch.next().await.unwrap();
    let mut version = made.version;
    for n in 0..5_000 {
        let claim = facts(&n.to_string());
        version = runtime.bind(made.id, version, claim, None).await.unwrap();
    }
    let now = runtime.get(made.id).await.unwrap();
    let Some(Change::All(all)) = watch.next().await else {
        panic!("a gap is never left");
    };
    assert_eq!(all, [now]);
    runtime.finish(made.id);
    assert!(matches!(watch.next().await, Some(Change::One(_))));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_is_unknown_and_goes_on() {
    let clock = VirtualClock::new();
    let runtime = SimulatedRuntime::new(Arc::new(clock.clone()), SimulatedConfig::default());
    let lives = runtime.order(order(1, Scripts::ready())).await.unwrap();
    let dies = runtime.order(order(2, Scripts::ready())).await.unwrap();
    let over = runtime.order(order(3, Scripts::ready())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    runtime.finish(over.id);
    let mut watch = runtime.watch().await.unwrap();
    watch.next().await.unwrap();

    let since = clock.now();
    runtime.lose_watch();
    tokio::time::sleep(Duration::from_secs(5)).await;
    runtime.crash(dies.id, End::Code(3));
    for id in [lives.id, dies.id] {
        assert_eq!(state(&runtime, id).await, State::Unknown { since });
    }
    let known = matches!(state(&runtime, over.id).await, State::Exited(_));
    assert!(known, "an exit that is known stays known");
    let Some(Change::All(all)) = watch.next().await else {
        panic!("losing sight is told");
    };
    let unknown = |i: &&spawnpoint_runtime::Instance| i.state == State::Unknown { since };
    assert_eq!(all.iter().filter(unknown).count(), 2);
    // Facts are durable: they can be written while nobody sees.
    let claim = facts("written blind");
    let bound = runtime.bind(lives.id, lives.version, claim.clone(), None);
    bound.await.unwrap();

    runtime.regain_watch();
    let Some(Change::All(all)) = watch.next().await else {
        panic!("seeing again is told");
    };
    assert!(!all.iter().any(|i| matches!(i.state, State::Unknown { .. })));
    let back = runtime.get(lives.id).await.unwrap();
    assert_eq!((back.state, back.facts), (State::Ready, Some(claim)));
    assert!(matches!(state(&runtime, dies.id).await, State::Exited(e) if e.code == Some(3)));

    runtime.lose(lives.id);
    let alone = state(&runtime, lives.id).await;
    assert!(matches!(alone, State::Unknown { .. }));
    runtime.regain(lives.id);
    assert_eq!(state(&runtime, lives.id).await, State::Ready);
}

#[tokio::test(start_paused = true)]
async fn hooks_write_what_games_would() {
    let runtime = simulated(SimulatedConfig::default());
    runtime.fail_next_order(RuntimeError::Start {
        what: "./server".to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    });
    let o = order(1, Scripts::ready());
    let e = runtime.order(o.clone()).await.unwrap_err();
    assert_eq!(e.code(), Code::StartFailed);
    assert!(runtime.list().await.unwrap().is_empty());
    let made = runtime.order(o).await.unwrap();
    runtime.write_results(made.id, vec![b'x'; 3 * MAX_RESULTS]);
    let results = runtime.results(made.id).await.unwrap().unwrap();
    assert_eq!(
        results.len(),
        MAX_RESULTS + 1,
        "enough to see it is too much"
    );
    let claim = runtime.bind(
        made.id,
        made.version,
        facts("claim"),
        Some("{\"session\":1}".into()),
    );
    claim.await.unwrap();
    let file = runtime.session_file(made.id).unwrap();
    assert_eq!(file.as_deref(), Some(&b"{\"session\":1}"[..]));
}

#[tokio::test]
async fn one_listener_serves_all() {
    let echo = EchoServer::start().await.unwrap();
    let runtime = simulated(SimulatedConfig {
        listen: Some(echo.address()),
        boot: Span::Fixed(Duration::ZERO),
        ..SimulatedConfig::default()
    });
    for n in 0..3 {
        let made = runtime.order(order(n, Scripts::ready())).await.unwrap();
        let mut stream = TcpStream::connect(made.address.unwrap()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    let address = echo.address();
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"x").await.unwrap();
    open.read_exact(&mut [0]).await.unwrap();
    echo.close().await;
    let end = open.read(&mut [0]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "closed: {end:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tens_of_thousands_live_and_end() {
    const MANY: u128 = 30_000;
    let runtime = simulated(SimulatedConfig {
        boot: Span::Between(Duration::from_secs(1), Duration::from_secs(60)),
        ..SimulatedConfig::default()
    });
    for n in 0..MANY {
        runtime.order(order(n, Scripts::ready())).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    let all = runtime.list().await.unwrap();
    let addresses: HashSet<_> = all.iter().map(|i| i.address).collect();
    assert_eq!(addresses.len(), all.len(), "each has an address of its own");
    assert!(all.iter().all(|i| i.state == State::Ready));
    for i in &all {
        let stop = runtime.stop(i.id, i.version, Duration::ZERO).await;
        stop.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for i in runtime.list().await.unwrap() {
        assert!(matches!(i.state, State::Exited(_)));
        runtime.forget(i.id, i.version).await.unwrap();
    }
    assert!(runtime.list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_says() {
    let inner = Arc::new(simulated(SimulatedConfig::default()));
    let runtime = Flaky::quiet(inner.clone());
    let o = order(1, Scripts::ready());
    let is_unknown = |e: &RuntimeError| matches!(e, RuntimeError::OutcomeUnknown(_));

    runtime.script_next(Fault::Before);
    assert!(is_unknown(&runtime.order(o.clone()).await.unwrap_err()));
    assert!(inner.list().await.unwrap().is_empty());
    runtime.script_next(Fault::Storage);
    let e = runtime.order(o.clone()).await.unwrap_err();
    assert_eq!(e.code(), Code::StorageFull);
    assert!(inner.list().await.unwrap().is_empty());
    runtime.script_next(Fault::After);
    assert!(is_unknown(&runtime.order(o.clone()).await.unwrap_err()));
    assert_eq!(inner.list().await.unwrap().len(), 1, "it was done");
    let made = runtime.order(o).await.unwrap();

    runtime.script_next(Fault::Conflict);
    let e = runtime.bind(made.id, made.version, facts("x"), None).await;
    assert!(matches!(e, Err(RuntimeError::Conflict)), "{e:?}");
    assert_eq!(inner.get(made.id).await.unwrap().facts, None);
    runtime.script_next(Fault::Conflict);
    runtime.get(made.id).await.unwrap();
    runtime.script_next(Fault::Delay(Duration::from_secs(3)));
    let t = tokio::time::Instant::now();
    let version = runtime
        .bind(made.id, made.version, facts("x"), None)
        .await
        .unwrap();
    assert_eq!(version, Version(made.version.0 + 1));
    assert!(t.elapsed() >= Duration::from_secs(3));
    runtime.outage(true);
    assert!(is_unknown(&runtime.list().await.unwrap_err()));
    runtime.outage(false);
    runtime.list().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_misses_and_is_told_everything_again() {
    let inner = Arc::new(simulated(SimulatedConfig::default()));
    let runtime = Flaky::quiet(inner.clone());
    let a = inner.order(order(1, Scripts::ready())).await.unwrap();
    let b = inner.order(order(2, Scripts::ready())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut watch = runtime.watch().await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::All(all)) if all.len() == 2));
    runtime.cut_watches(Duration::from_secs(5));
    inner.finish(a.id);
    inner.forget(a.id, a.version).await.unwrap();
    inner.finish(b.id);
    let t = tokio::time::Instant::now();
    let Some(Change::All(all)) = watch.next().await else {
        panic!("after a cut everything is told");
    };
    assert!(t.elapsed() >= Duration::from_secs(5));
    assert_eq!(all, [inner.get(b.id).await.unwrap()]);
    inner.forget(b.id, b.version).await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::Gone(id)) if id == b.id));
}

/// Whatever fails and is cut, who follows a watch ends up seeing what is.
#[tokio::test(start_paused = true)]
async fn a_flaky_watch_converges() {
    for seed in 0..20 {
        let inner = Arc::new(simulated(SimulatedConfig {
            seed,
            life: Some(Span::Between(Duration::ZERO, Duration::from_secs(60))),
            crashes: 500,
            ..SimulatedConfig::default()
        }));
        let rates = Rates {
            cut: 200,
            longest_cut: Duration::from_secs(5),
            ..Rates::default()
        };
        let runtime = Flaky::new(inner.clone(), seed, rates);
        let mut watch = runtime.watch().await.unwrap();
        for n in 0..50 {
            inner.order(order(n, Scripts::ready())).await.unwrap();
        }
        let mut seen = BTreeMap::new();
        let follow = async {
            while let Some(change) = watch.next().await {
                match change {
                    Change::All(all) => seen = all.into_iter().map(|i| (i.id, i)).collect(),
                    Change::One(i) => drop(seen.insert(i.id, *i)),
                    Change::Gone(id) => drop(seen.remove(&id)),
                }
            }
        };
        let rest = tokio::time::timeout(Duration::from_secs(600), follow).await;
        assert!(rest.is_err(), "a watch does not end");
        let is: BTreeMap<_, _> = inner
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|i| (i.id, i))
            .collect();
        assert_eq!(seen, is, "seed {seed}");
    }
}
