//! TCP games through the gateway: the port is in the answer, outlives the server, and is waited for when there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use spawnpoint_core::SessionId;
use spawnpoint_runtime::Protocol;
use spawnpoint_runtime::simulated::{Script, SimulatedConfig};
use spawnpoint_server::config::FleetConfig;
use spawnpoint_wire::tcp::{TcpPortError, TcpPorts, TcpTerms, TokenRule};

use crate::harness::{On, Up, World, config, fleet, id};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway's listeners without sockets.
#[derive(Default)]
struct Ports {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free ones, the first is given next.
    free: BTreeSet<u16>,
    open: BTreeMap<SessionId, (u16, TcpTerms)>,
}

impl Ports {
    fn of(ports: impl IntoIterator<Item = u16>) -> Arc<Self> {
        let state = State {
            free: ports.into_iter().collect(),
            open: BTreeMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn open_now(&self) -> BTreeMap<String, u16> {
        let state = self.state.lock().unwrap();
        let open = state.open.iter();
        open.map(|(s, (p, _))| (s.to_string(), *p)).collect()
    }

    fn terms(&self) -> Vec<TcpTerms> {
        let state = self.state.lock().unwrap();
        state.open.values().map(|(_, t)| *t).collect()
    }

    /// Another program takes a port, or gives it back.
    fn elsewhere(&self, port: u16, taken: bool) {
        let mut state = self.state.lock().unwrap();
        if taken {
            state.free.remove(&port);
        } else {
            state.free.insert(port);
        }
    }
}

impl TcpPorts for Ports {
    fn open(
        &self,
        session: SessionId,
        exactly: Option<u16>,
        terms: TcpTerms,
    ) -> Result<u16, TcpPortError> {
        let mut state = self.state.lock().unwrap();
        if let Some((port, _)) = state.open.get(&session) {
            return Ok(*port);
        }
        let port = match exactly {
            Some(port) => state.free.contains(&port).then_some(port),
            None => state.free.first().copied(),
        };
        let port = port.ok_or(TcpPortError::Exhausted { from: 1, to: 2 })?;
        state.free.remove(&port);
        state.open.insert(session, (port, terms));
        Ok(port)
    }

    fn close(&self, session: SessionId) {
        let mut state = self.state.lock().unwrap();
        if let Some((port, _)) = state.open.remove(&session) {
            state.free.insert(port);
        }
    }
}

fn tcp(name: &str) -> FleetConfig {
    let mut f = fleet(name);
    f.template.protocol = Protocol::Tcp;
    f
}

fn world(ports: &Arc<Ports>) -> World {
    let mut w = World::new(SimulatedConfig::default());
    w.tcp = Some(ports.clone());
    w
}

async fn new_game(up: &Up, player: &str) -> Value {
    up.post("/api/new-game", json!({"playerId": player}))
        .await
        .is(201)
}

async fn look(up: &Up, session: &str) -> Value {
    up.get(&format!("/api/sessions/{session}")).await.is(200)
}

async fn end(up: &Up, session: &str) {
    let path = format!("/api/sessions/{session}");
    up.call("DELETE", &path, None, None).await.is(200);
    up.record(session, 30 * SECOND).await;
}

/// Waits until the session is ready.
async fn ready(up: &Up, session: &str) -> Value {
    for _ in 0..1_000 {
        let seen = look(up, session).await;
        if seen["ready"] == true {
            return seen;
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    panic!("never ready: {}", look(up, session).await);
}

/// Addresses that those who listen to a session are told while something happens and until it ends.
async fn told(up: &Up, session: &str, happens: impl Future<Output = ()>) -> Vec<(String, u64)> {
    let request =
        Request::get(format!("/api/events?session_id={session}")).header("host", "localhost");
    let stream = up.send(On::Public, request.body(Body::empty()).unwrap());
    let happens = async {
        happens.await;
        end(up, session).await;
    };
    let (answer, ()) = tokio::join!(stream, happens);
    answer
        .text
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .map(|d| serde_json::from_str::<Value>(d).unwrap())
        .filter(|e| e["type"] == "address")
        .map(|e| {
            let host = e["connect_host"].as_str().unwrap().to_owned();
            (host, e["connect_port"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_address_is_in_the_first_answer_and_never_changes() {
    let ports = Ports::of(25_000..25_010);
    let w = world(&ports);
    let mut f = tcp("arena");
    f.tcp = TcpTerms {
        token: TokenRule::Never,
        proxy_protocol: true,
    };
    let terms = f.tcp;
    let up = w.up(config(vec![f])).await;
    let s = new_game(&up, "p").await;
    assert_eq!(s["phase"], "starting");
    assert_eq!(s["protocol"], "tcp");
    assert_eq!((&s["wsUrl"], &s["queue"]), (&Value::Null, &Value::Null));
    assert_eq!(s["connect_host"], "127.0.0.1");
    assert_eq!(s["connect_port"], 25_000);
    assert!(s["token"].as_str().unwrap().starts_with("v4.public."));
    assert_eq!(ports.open_now(), [(id(&s), 25_000)].into());
    assert_eq!(ports.terms(), [terms]);
    let seen = ready(&up, &id(&s)).await;
    assert_eq!(
        (&seen["connect_port"], &seen["wsUrl"]),
        (&json!(25_000), &Value::Null)
    );
    let again = up.post("/api/new-game", json!({"playerId": "p"})).await;
    assert_eq!(again.is(200)["connect_port"], 25_000);
    let other = new_game(&up, "q").await;
    assert_eq!(other["connect_port"], 25_001);
    end(&up, &id(&s)).await;
    assert_eq!(ports.open_now(), [(id(&other), 25_001)].into());
}

#[tokio::test(start_paused = true)]
async fn the_host_is_that_of_the_public_url() {
    let ports = Ports::of([25_000]);
    let w = world(&ports);
    let mut c = config(vec![tcp("arena")]);
    c.server.public_url = Some("https://games.example.com".into());
    let up = w.up(c).await;
    let s = new_game(&up, "p").await;
    assert_eq!(s["connect_host"], "games.example.com");
    assert_eq!(s["connect_port"], 25_000);
}

#[tokio::test(start_paused = true)]
async fn sessions_wait_for_ports_in_order_and_are_told_theirs() {
    for warm in [0, 2] {
        let ports = Ports::of([25_000]);
        let w = world(&ports);
        let mut f = tcp("arena");
        f.warm = warm;
        let up = w.up(config(vec![f])).await;
        tokio::time::sleep(5 * SECOND).await;
        let a = new_game(&up, "a").await;
        let mut waiting = Vec::new();
        for player in ["b", "c"] {
            let s = new_game(&up, player).await;
            assert_eq!(
                (&s["phase"], &s["queue"]["waiting_for"]),
                (&json!("queued"), &json!("ports_exhausted")),
                "{s}"
            );
            assert_eq!(
                (&s["connect_host"], &s["connect_port"]),
                (&Value::Null, &Value::Null)
            );
            waiting.push(id(&s));
        }
        tokio::time::sleep(5 * SECOND).await;
        let pool = up.get("/api/fleets/arena").await.is(200);
        assert_eq!(
            (&pool["warm"], &pool["queued"]),
            (&json!(warm), &json!(2)),
            "{pool}"
        );
        let told = told(&up, &waiting[0], async {
            end(&up, &id(&a)).await;
            let b = ready(&up, &waiting[0]).await;
            assert_eq!(b["connect_port"], 25_000);
            assert_eq!(look(&up, &waiting[1]).await["phase"], "queued");
        })
        .await;
        assert_eq!(told, [("127.0.0.1".to_owned(), 25_000)]);
        assert_eq!(ready(&up, &waiting[1]).await["connect_port"], 25_000);
        end(&up, &waiting[1]).await;
        assert!(ports.open_now().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_fleets_session_has_its_port_before_its_place() {
    let ports = Ports::of(25_000..25_010);
    let w = world(&ports);
    let mut f = tcp("arena");
    f.max_instances = Some(1);
    let up = w.up(config(vec![f])).await;
    let a = new_game(&up, "a").await;
    let b = new_game(&up, "b").await;
    assert_eq!(b["queue"]["waiting_for"], "capacity");
    assert_eq!(b["connect_port"], 25_001, "its players may wait there");
    let told = told(&up, &id(&b), async {
        end(&up, &id(&a)).await;
        assert_eq!(ready(&up, &id(&b)).await["connect_port"], 25_001);
    })
    .await;
    assert!(told.is_empty(), "it is what they know");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_was_leaves_no_port_open() {
    let ports = Ports::of([25_000]);
    let w = world(&ports);
    let mut f = tcp("arena");
    f.policy = Arc::new(spawnpoint_core::lifecycle::Policy {
        boot: SECOND,
        ..(*f.policy).clone()
    });
    f.template.command = Script {
        never_ready: true,
        ..Script::default()
    }
    .command();
    let up = w.up(config(vec![f])).await;
    let s = new_game(&up, "p").await;
    let record = up.record(&id(&s), 60 * SECOND).await;
    assert_eq!(record["reason"], "start_failed");
    assert!(ports.open_now().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_the_same_port_is_asked_for() {
    let ports = Ports::of(25_000..25_010);
    let mut w = world(&ports);
    let mut f = tcp("arena");
    f.max_instances = Some(2);
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    let first = new_game(&up, "a").await;
    ready(&up, &id(&first)).await;
    let second = new_game(&up, "b").await;
    let waits = new_game(&up, "c").await;
    let all: BTreeMap<String, u16> = ports.open_now();
    assert_eq!(all.len(), 3);
    up.kill();
    // The gateway was of the same process: none of its listeners is left.
    let ports = Ports::of(25_000..25_010);
    w.tcp = Some(ports.clone());
    let up = w.up(c.clone()).await;
    assert_eq!(ports.open_now(), all);
    for s in [&first, &second, &waits] {
        assert_eq!(
            look(&up, &id(s)).await["connect_port"],
            s["connect_port"],
            "{s}"
        );
    }
    up.kill();
    // Now another program has one of them, and every other port too for a while.
    let ports = Ports::of([25_000, 25_002]);
    w.tcp = Some(ports.clone());
    let up = w.up(c.clone()).await;
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(ports.open_now().len(), 2);
    assert_eq!(
        look(&up, &id(&second)).await["connect_port"],
        Value::Null,
        "not another program's"
    );
    ports.elsewhere(25_007, false);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(look(&up, &id(&second)).await["connect_port"], 25_007);
    assert_eq!(look(&up, &id(&first)).await["connect_port"], 25_000);
    up.kill();
    let ports = Ports::of(25_000..25_010);
    w.tcp = Some(ports.clone());
    let up = w.up(c).await;
    assert_eq!(
        ports.open_now()[&id(&second)],
        25_007,
        "it was written down"
    );
    end(&up, &id(&second)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_address_after_a_restart_is_told() {
    let ports = Ports::of([25_000]);
    let mut w = world(&ports);
    let c = config(vec![tcp("arena")]);
    let up = w.up(c.clone()).await;
    let s = new_game(&up, "a").await;
    ready(&up, &id(&s)).await;
    up.kill();
    let ports = Ports::of([]);
    w.tcp = Some(ports.clone());
    let up = w.up(c).await;
    let told = told(&up, &id(&s), async {
        tokio::time::sleep(SECOND).await;
        ports.elsewhere(25_009, false);
        tokio::time::sleep(3 * SECOND).await;
    })
    .await;
    assert_eq!(told, [("127.0.0.1".to_owned(), 25_009)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_such_a_gateway_says_so() {
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![tcp("arena"), fleet("web")])).await;
    let refused = up.post("/api/new-game", json!({"playerId": "p"})).await;
    let problem = refused.code(500, "internal");
    assert!(
        problem["detail"].as_str().unwrap().contains("TCP"),
        "{problem}"
    );
    up.post("/api/new-game", json!({"playerId": "p", "fleet": "web"}))
        .await
        .is(201);
}
