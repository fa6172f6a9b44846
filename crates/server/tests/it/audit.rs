//! The audit over a running server: nothing is found while hundreds of games come and go, and each broken world is found as what it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use spawnpoint_core::audit::{GatewayTables, Holding, HoldingKind, RouteSeen, Rule, TunnelSeen};
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Generation, InstanceId, SessionId, TicketId};
use spawnpoint_runtime::flaky::{Flaky, Rates};
use spawnpoint_runtime::simulated::{End, SimulatedConfig, Span};
use spawnpoint_runtime::{Facts, Order, Runtime, State};
use spawnpoint_server::Config;
use spawnpoint_store::flaky::{Flaky as FlakyStore, Rates as StoreRates};
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_store::{Records, lobby};
use spawnpoint_wire::link::{LinkError, Route, RouteUpdate};
use spawnpoint_wire::tables::Tables;

use crate::harness::{On, Up, World, config, fleet, id};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway's table that follows the server's stream, with what a test changes in it.
#[derive(Default)]
struct Mirror {
    name: String,
    routes: Mutex<HashMap<SessionId, Route>>,
    /// Not there, whatever the stream says.
    hidden: Mutex<BTreeSet<SessionId>>,
    more: Mutex<GatewayTables>,
}

impl Mirror {
    /// Follows this server from now on, under its gateway's name.
    async fn of(up: &Up) -> Arc<Self> {
        let mirror = Arc::new(Self {
            name: up.gateway.name.clone(),
            ..Self::default()
        });
        let mut stream = up.gateway.link.routes(None).await.unwrap();
        let copy = Arc::clone(&mirror);
        tokio::spawn(async move {
            while let Some(update) = stream.next().await {
                let mut routes = copy.routes.lock().unwrap();
                match update {
                    RouteUpdate::All { routes: all, .. } => {
                        *routes = all.into_iter().map(|r| (r.session, r)).collect();
                    }
                    RouteUpdate::Set { route, .. } => {
                        routes.insert(route.session, *route);
                    }
                    RouteUpdate::Gone { session, .. } => {
                        routes.remove(&session);
                    }
                }
            }
        });
        up.server
            .audit_gateway(Arc::clone(&mirror) as Arc<dyn Tables>);
        mirror
    }
}

impl Tables for Mirror {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn tables(&self) -> BoxFuture<'_, Result<GatewayTables, LinkError>> {
        let mut tables = self.more.lock().unwrap().clone();
        let hidden = self.hidden.lock().unwrap();
        let routes = self.routes.lock().unwrap();
        let shown = routes.values().filter(|r| !hidden.contains(&r.session));
        tables.routes.extend(shown.map(|r| RouteSeen {
            session: r.session,
            generation: Generation(r.generation),
            phase: r.phase,
        }));
        Box::pin(ready(Ok(tables)))
    }
}

async fn audit(up: &Up) -> Value {
    up.send(On::Admin, Up::request("GET", "/debug/audit", None, None))
        .await
        .is(200)
}

#[track_caller]
fn clean(report: &Value) {
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["findings"], json!([]), "{report:#}");
    assert_eq!(report["unseen"], json!([]), "{report:#}");
}

/// Exactly these rules are broken, and everything was seen.
#[track_caller]
fn found(report: &Value, rules: &[Rule]) {
    let want: BTreeSet<&str> = rules.iter().map(|r| r.as_str()).collect();
    let codes = report["findings"].as_array().unwrap().iter();
    let codes: BTreeSet<&str> = codes.map(|f| f["code"].as_str().unwrap()).collect();
    assert_eq!(codes, want, "{report:#}");
    assert_eq!(report["unseen"], json!([]), "{report:#}");
    assert_eq!(report["clean"], false);
}

/// Nothing is known to be wrong, and this part was not seen.
#[track_caller]
fn unseen(report: &Value, part: &str) {
    assert_eq!(report["findings"], json!([]), "{report:#}");
    let parts = report["unseen"].as_array().unwrap().iter();
    let parts: BTreeSet<&str> = parts.map(|u| u["part"].as_str().unwrap()).collect();
    assert_eq!(parts, BTreeSet::from([part]), "{report:#}");
    assert_eq!(report["clean"], false);
}

fn session(v: &Value) -> SessionId {
    id(v).parse().unwrap()
}

fn some_session() -> SessionId {
    SessionId::new(uuid::Uuid::now_v7())
}

fn arena() -> Config {
    let mut f = fleet("arena");
    f.warm = 1;
    config(vec![f])
}

struct Table {
    world: World,
    up: Up,
    mirror: Arc<Mirror>,
    flaky: Arc<Flaky<spawnpoint_runtime::simulated::SimulatedRuntime>>,
}

/// A server with a warm instance and a game of `p`.
async fn playing() -> (Table, Value) {
    let world = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&world.runtime)));
    let up = world
        .up_with(arena(), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    let mirror = Mirror::of(&up).await;
    let game = up.play("p").await;
    clean(&audit(&up).await);
    let table = Table {
        world,
        up,
        mirror,
        flaky,
    };
    (table, game)
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_games_come_and_go_and_nothing_is_found() {
    let mut world = World::new(SimulatedConfig {
        boot: Span::Between(Duration::from_millis(10), Duration::from_millis(400)),
        life: Some(Span::Between(SECOND, 20 * SECOND)),
        crashes: 300,
        ports: Some(20_000..=20_400),
        ..SimulatedConfig::default()
    });
    let slow_store = StoreRates {
        delay: 600,
        longest_delay: Duration::from_millis(80),
        ..StoreRates::default()
    };
    world.records = Arc::new(FlakyStore::new(MemoryRecords::new(), 1, slow_store));
    let mut f = fleet("arena");
    f.warm = 3;
    f.max_instances = Some(60);
    // Everything takes its time, so that every look finds games half-way between one owner and the next.
    let slow = Rates {
        delay: 600,
        longest_delay: Duration::from_millis(80),
        ..Rates::default()
    };
    let start = async |world: &World, run: u64| {
        let runtime = Flaky::new(Arc::clone(&world.runtime), run, slow);
        world
            .up_with(config(vec![f.clone()]), Arc::new(runtime))
            .await
    };
    let mut up = start(&world, 0).await;
    let mut mirror = Mirror::of(&up).await;
    let mut audits = 0;
    let (mut most, mut changing) = (0, 0);
    for n in 0..400u64 {
        let player = format!("p{n}");
        if n % 4 == 3 {
            up.join(json!({"player_id": player})).await;
        } else {
            let reply = up.post("/api/new-game", json!({"playerId": player})).await;
            assert!(matches!(reply.status, 200 | 201), "{}", reply.text);
            if n % 5 == 0 {
                up.call(
                    "DELETE",
                    &format!("/api/sessions/{}", id(&reply.body)),
                    None,
                    None,
                )
                .await;
            }
        }
        tokio::time::sleep(Duration::from_millis(n * 37 % 90)).await;
        if n % 8 == 0 {
            let report = audit(&up).await;
            clean(&report);
            audits += 1;
            most = most.max(report["counts"]["sessions"].as_u64().unwrap());
            changing += report["counts"]["changing"].as_u64().unwrap();
        }
        if n % 150 == 149 {
            // A crash of the server, and the next run finds everything.
            up.kill();
            up = start(&world, n).await;
            mirror = Mirror::of(&up).await;
            clean(&audit(&up).await);
        }
    }
    assert!(
        audits >= 50 && most >= 20,
        "{audits} audits of at most {most}"
    );
    assert!(changing > 0, "no audit met a session on its way");
    drop(mirror);
    tokio::time::sleep(120 * SECOND).await;
    let report = audit(&up).await;
    clean(&report);
    assert_eq!(report["counts"]["sessions"], 0);
    assert!(
        report["counts"]["records"].as_u64().unwrap() >= 300,
        "{report:#}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_operators_may_ask_and_players_are_not_told_of_it() {
    let (t, _) = playing().await;
    let there = t.up.get("/debug/audit").await;
    assert_eq!(there.status, 404, "not on the public listener");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_nobody_knows_is_found_and_so_is_the_game_it_was_for() {
    let (t, game) = playing().await;
    let all = t.world.runtime.list().await.unwrap();
    let served = all.iter().find(|i| i.facts.is_some()).unwrap();
    let known = served.facts.as_ref().unwrap();
    let lost = some_session();
    let order = Order {
        id: InstanceId::new(uuid::Uuid::now_v7()),
        fleet: "arena".parse().unwrap(),
        template: fleet("arena").template,
        gated: false,
        facts: Some(Facts {
            session: lost,
            document: known.document.replace(&id(&game), &lost.to_string()),
        }),
        session_file: None,
        env: BTreeMap::new(),
    };
    t.world.runtime.order(order.clone()).await.unwrap();
    let report = audit(&t.up).await;
    found(&report, &[Rule::InstanceOrphaned, Rule::StartLost]);
    let named = report["findings"].to_string();
    assert!(named.contains(&lost.to_string()) && named.contains(&order.id.to_string()));
    assert!(!named.contains(&id(&game)), "{report:#}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_read_is_found() {
    let (t, _) = playing().await;
    let order = Order {
        id: InstanceId::new(uuid::Uuid::now_v7()),
        fleet: "arena".parse().unwrap(),
        template: fleet("arena").template,
        gated: false,
        facts: Some(Facts {
            session: some_session(),
            document: "{".to_owned(),
        }),
        session_file: None,
        env: BTreeMap::new(),
    };
    t.world.runtime.order(order).await.unwrap();
    found(
        &audit(&t.up).await,
        &[Rule::ClaimUnreadable, Rule::StartLost],
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_instance_is_gone_is_found() {
    let (t, game) = playing().await;
    let all = t.world.runtime.list().await.unwrap();
    let served = all.iter().find(|i| i.facts.is_some()).unwrap();
    // Removed behind the server's back, and nobody tells it.
    t.flaky.cut_watches(600 * SECOND);
    tokio::time::sleep(SECOND).await;
    t.world.runtime.crash(served.id, End::Code(0));
    let over = t.world.runtime.get(served.id).await.unwrap();
    assert!(matches!(over.state, State::Exited(_)));
    t.world.runtime.forget(over.id, over.version).await.unwrap();
    let report = audit(&t.up).await;
    found(&report, &[Rule::SessionWithoutInstance]);
    assert!(report["findings"].to_string().contains(&id(&game)));
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_nobody_noticed_is_found_once_it_is_late() {
    let (t, _) = playing().await;
    let all = t.world.runtime.list().await.unwrap();
    let served = all.iter().find(|i| i.facts.is_some()).unwrap();
    t.flaky.cut_watches(600 * SECOND);
    tokio::time::sleep(SECOND).await;
    t.world.runtime.crash(served.id, End::Code(0));
    clean(&audit(&t.up).await);
    tokio::time::sleep(40 * SECOND).await;
    found(&audit(&t.up).await, &[Rule::ExitUnnoticed]);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_lost_or_too_early_are_found() {
    let (t, game) = playing().await;
    let other = t.up.play("q").await;
    t.up.call(
        "DELETE",
        &format!("/api/sessions/{}", id(&other)),
        None,
        None,
    )
    .await;
    t.up.record(&id(&other), 60 * SECOND).await;
    tokio::time::sleep(SECOND).await;
    clean(&audit(&t.up).await);
    let mut early = t.world.records.get(session(&other)).await.unwrap().unwrap();
    assert_eq!(t.world.records.prune(i64::MAX, 10).await.unwrap(), 1);
    let report = audit(&t.up).await;
    found(&report, &[Rule::StartLost]);
    assert!(report["findings"].to_string().contains(&id(&other)));
    t.world.records.insert(&early).await.unwrap();
    clean(&audit(&t.up).await);
    early.session = session(&game);
    t.world.records.insert(&early).await.unwrap();
    let report = audit(&t.up).await;
    found(&report, &[Rule::LiveAndRecorded]);
    assert!(report["findings"].to_string().contains(&id(&game)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_lost_is_not_seen_and_not_fine() {
    let mut world = World::new(SimulatedConfig::default());
    let store = Arc::new(FlakyStore::quiet(MemoryRecords::new()));
    world.records = Arc::clone(&store) as Arc<dyn Records>;
    let up = world.up(arena()).await;
    let _mirror = Mirror::of(&up).await;
    up.play("p").await;
    clean(&audit(&up).await);
    store.outage(true);
    let report = audit(&up).await;
    unseen(&report, "records");
    assert_eq!(report["counts"]["sessions"], 1);
    store.outage(false);
    clean(&audit(&up).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_once_is_asked_again() {
    let mut world = World::new(SimulatedConfig::default());
    let store = Arc::new(FlakyStore::quiet(MemoryRecords::new()));
    world.records = Arc::clone(&store) as Arc<dyn Records>;
    let up = world.up(arena()).await;
    let _mirror = Mirror::of(&up).await;
    store.script_next(spawnpoint_store::flaky::Fault::Before);
    clean(&audit(&up).await);
}

#[tokio::test(start_paused = true)]
async fn instances_and_gateways_that_cannot_be_seen_are_not_fine() {
    let (t, _) = playing().await;
    t.world.runtime.lose_watch();
    let report = audit(&t.up).await;
    unseen(&report, "instance");
    assert_eq!(
        report["unseen"].as_array().unwrap().len(),
        2,
        "the warm one too"
    );
    t.world.runtime.regain_watch();
    clean(&audit(&t.up).await);
    t.flaky.outage(true);
    let report = audit(&t.up).await;
    let parts = report["unseen"].as_array().unwrap().iter();
    let parts: BTreeSet<&str> = parts.map(|u| u["part"].as_str().unwrap()).collect();
    assert_eq!(parts, BTreeSet::from(["holdings", "instances"]));
    assert_eq!(report["findings"], json!([]));
    t.flaky.outage(false);
    // A gateway that reports and cannot be asked.
    let world = World::new(SimulatedConfig::default());
    let up = world.up(arena()).await;
    unseen(&audit(&up).await, "gateway");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_nothing_is_found() {
    let (t, _) = playing().await;
    for (kind, rule) in [
        (HoldingKind::Port, Rule::PortOrphaned),
        (HoldingKind::File, Rule::FileOrphaned),
        (HoldingKind::Log, Rule::LogOrphaned),
        (HoldingKind::Process, Rule::ProcessOrphaned),
    ] {
        let (t2, _) = playing().await;
        let name = "stray".to_owned();
        t2.world.runtime.leave_behind(Holding {
            kind,
            name,
            of: None,
        });
        found(&audit(&t2.up).await, &[rule]);
    }
    clean(&audit(&t.up).await);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_lags_or_dreams_is_found() {
    let (t, game) = playing().await;
    let s = session(&game);
    t.mirror.hidden.lock().unwrap().insert(s);
    found(&audit(&t.up).await, &[Rule::RouteMissing]);
    t.mirror.hidden.lock().unwrap().clear();
    let route = |session, generation| RouteSeen {
        session,
        generation: Generation(generation),
        phase: Phase::Running,
    };
    let tunnel = |session, generation| TunnelSeen {
        session,
        generation: Generation(generation),
        open: 1,
    };
    let dream = some_session();
    let cases: [(GatewayTables, Rule); 4] = [
        (
            GatewayTables {
                routes: vec![route(dream, 1)],
                ..GatewayTables::default()
            },
            Rule::RouteOrphaned,
        ),
        (
            GatewayTables {
                routes: vec![route(s, 7)],
                ..GatewayTables::default()
            },
            Rule::RouteDiffers,
        ),
        (
            GatewayTables {
                tunnels: vec![tunnel(dream, 1)],
                ..GatewayTables::default()
            },
            Rule::TunnelOrphaned,
        ),
        (
            GatewayTables {
                listeners: vec![(dream, 25_000)],
                ..GatewayTables::default()
            },
            Rule::ListenerOrphaned,
        ),
    ];
    for (more, rule) in cases {
        *t.mirror.more.lock().unwrap() = more;
        let report = audit(&t.up).await;
        found(&report, &[rule]);
        assert!(report["findings"].to_string().contains(&t.mirror.name));
    }
    *t.mirror.more.lock().unwrap() = GatewayTables::default();
    clean(&audit(&t.up).await);
}

#[tokio::test(start_paused = true)]
async fn tickets_that_the_lobby_and_the_server_disagree_on_are_found() {
    let (t, _) = playing().await;
    let waiting = t.up.join(json!({"player_id": "w"})).await.is(200);
    assert_eq!(waiting["status"], "queued");
    clean(&audit(&t.up).await);
    let foreign = Ticket {
        id: TicketId::new(uuid::Uuid::now_v7()),
        queue: "arena".parse().unwrap(),
        players: vec!["x".parse().unwrap()],
        attributes: BTreeMap::new(),
        latencies: BTreeMap::new(),
        joined_at: 0,
        failures: 0,
        caller: None,
    };
    t.world.lobby.join(&foreign).await.unwrap();
    found(&audit(&t.up).await, &[Rule::TicketUnknown]);
    t.world.lobby.leave(foreign.id).await.unwrap();
    let held = lobby::load(&*t.world.lobby).await.unwrap();
    assert_eq!(held.len(), 1);
    t.world.lobby.leave(held[0].ticket.id).await.unwrap();
    found(&audit(&t.up).await, &[Rule::TicketNotKept]);
}
