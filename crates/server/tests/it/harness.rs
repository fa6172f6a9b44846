//! A server in this process: simulated instances, a real record store, virtual time; each answer is checked against the OpenAPI
//! document before a test sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use spawnpoint_core::lifecycle::Policy;
use spawnpoint_core::matching::Rules;
use spawnpoint_core::{Clock, PlayerId, SessionId};
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::simulated::{SimulatedConfig, SimulatedRuntime};
use spawnpoint_server::config::{ApiKey, Config, FleetConfig, QueueConfig, ServerConfig};
use spawnpoint_server::journal::Journal;
use spawnpoint_server::{Deps, Keys, Server, build};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_store::{Lobby, Records};
use spawnpoint_testkit::clock::VirtualClock;
use spawnpoint_wire::link::{Link, PlayerReport, REPORT_EVERY, Report, SessionReport};
use spawnpoint_wire::tcp::TcpPorts;
use spawnpoint_wire::token::{Keyring, SigningKey};
use tower::ServiceExt;

/// A fleet with short names for what tests change.
pub(crate) fn fleet(name: &str) -> FleetConfig {
    FleetConfig::plain(
        name.parse().unwrap(),
        vec!["game".into()],
        Policy::default(),
    )
}

pub(crate) fn with_policy(mut f: FleetConfig, change: impl FnOnce(&mut Policy)) -> FleetConfig {
    let mut p = (*f.policy).clone();
    change(&mut p);
    f.policy = Arc::new(p);
    f
}

pub(crate) fn config(fleets: Vec<FleetConfig>) -> Config {
    Config {
        server: ServerConfig::in_memory("test-server"),
        queues: fleets
            .iter()
            .map(|f| Arc::new(queue(f.name.as_str(), 2)))
            .collect(),
        fleets: fleets.into_iter().map(Arc::new).collect(),
    }
}

/// The queue that a fleet has by itself, for matches of `size`.
pub(crate) fn queue(fleet: &str, size: u32) -> QueueConfig {
    QueueConfig {
        name: fleet.parse().unwrap(),
        fleet: fleet.parse().unwrap(),
        rules: Rules::new(size, 1, Duration::from_secs(10), None, None).unwrap(),
        regions: Vec::new(),
        max_tickets: 100_000,
        unattended: Duration::from_secs(70),
        max_failures: 3,
    }
}

pub(crate) fn key(name: &str) -> ApiKey {
    ApiKey {
        name: name.into(),
        secret: secret(name),
    }
}

pub(crate) fn secret(name: &str) -> String {
    format!("secret-of-{name}-0123456789")
}

/// What survives a `kill -9` of the server.
pub(crate) struct World {
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) runtime: Arc<SimulatedRuntime>,
    pub(crate) records: Arc<dyn Records>,
    /// Of a lobby that outlives the server; a new one for a server whose lobby does not.
    pub(crate) lobby: Arc<dyn Lobby>,
    /// The gateway's listeners for TCP games, of the server that is started next.
    pub(crate) tcp: Option<Arc<dyn TcpPorts>>,
    /// Where the server that is started next notes its decisions.
    pub(crate) journal: Option<Arc<dyn Journal>>,
    signing: String,
}

impl World {
    pub(crate) fn new(simulated: SimulatedConfig) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let runtime = Arc::new(SimulatedRuntime::new(
            Arc::clone(&clock) as Arc<dyn Clock>,
            simulated,
        ));
        Self {
            clock,
            runtime,
            records: Arc::new(MemoryRecords::new()),
            lobby: Arc::new(MemoryLobby::new()),
            tcp: None,
            journal: None,
            signing: SigningKey::generate().unwrap().to_paserk().unwrap(),
        }
    }

    /// Starts a server over it, over this view of its runtime.
    pub(crate) async fn up_with(&self, config: Config, runtime: Arc<dyn Runtime>) -> Up {
        // A start that cannot read what is there is made again, as by whoever looks after the process.
        let mut tries = 0;
        let server = loop {
            let signing = SigningKey::from_paserk(&self.signing).unwrap();
            let ring = Arc::new(Keyring::new(vec![signing.public().clone()]));
            let deps = Deps {
                runtime: Arc::clone(&runtime),
                records: Arc::clone(&self.records),
                lobby: Arc::clone(&self.lobby),
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                keys: Keys { signing, ring },
                sdk_url: Some("http://127.0.0.1:8082".into()),
                more_metrics: None,
                tcp: self.tcp.clone(),
                random: spawnpoint_server::os_random(),
                journal: self.journal.clone(),
            };
            match build(config.clone(), deps).await {
                Ok(server) => break server,
                Err(e) if tries == 50 => panic!("{e}"),
                Err(_) => tries += 1,
            }
        };
        let link = server.link();
        let up = Up {
            public: server.public_router(),
            admin: server.admin_router(),
            sdk: server.sdk_router(),
            gateway: Arc::new(Gateway {
                link,
                name: format!("gateway-{}", uuid::Uuid::new_v4()),
                sequence: AtomicU64::new(0),
            }),
            server,
            alive: tokio_util::sync::CancellationToken::new(),
        };
        up.gateway.report(true, Vec::new()).await;
        let (gateway, alive) = (Arc::clone(&up.gateway), up.alive.clone());
        tokio::spawn(async move {
            while alive
                .run_until_cancelled(tokio::time::sleep(REPORT_EVERY))
                .await
                .is_some()
            {
                gateway.report(false, Vec::new()).await;
            }
        });
        up
    }

    pub(crate) async fn up(&self, config: Config) -> Up {
        self.up_with(config, Arc::clone(&self.runtime) as Arc<dyn Runtime>)
            .await
    }
}

/// A running server.
pub(crate) struct Up {
    pub(crate) server: Server,
    pub(crate) gateway: Arc<Gateway>,
    alive: tokio_util::sync::CancellationToken,
    public: Router,
    admin: Router,
    sdk: Router,
}

/// The gateway's side of the link, by hand.
pub(crate) struct Gateway {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) name: String,
    sequence: AtomicU64,
}

impl Gateway {
    pub(crate) async fn report(&self, full: bool, sessions: Vec<SessionReport>) {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        self.link
            .report(Report {
                gateway: self.name.clone(),
                sequence,
                full,
                sessions,
            })
            .await
            .unwrap();
    }

    /// This player has so many connections; `data`: they sent some just now.
    pub(crate) async fn connected(
        &self,
        session: &str,
        player: &str,
        connections: u32,
        data: bool,
    ) {
        let player = PlayerReport {
            player: player.parse::<PlayerId>().unwrap(),
            connections,
            client_data_age_ms: data.then_some(0),
            server_data_age_ms: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let session = SessionReport {
            session: session.parse::<SessionId>().unwrap(),
            generation: 1,
            players: vec![player],
        };
        self.report(false, vec![session]).await;
    }
}

/// An answer that fits the OpenAPI document.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    #[track_caller]
    pub(crate) fn code(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.text
        );
        self.body
    }
}

/// Which listener, and what goes with a request.
#[derive(Clone, Copy)]
pub(crate) enum On {
    Public,
    Admin,
    Sdk,
}

impl Up {
    pub(crate) async fn send(&self, on: On, request: Request<Body>) -> Answer {
        let router = match on {
            On::Public => &self.public,
            On::Admin => &self.admin,
            On::Sdk => &self.sdk,
        };
        let (method, path) = (
            request.method().as_str().to_lowercase(),
            request.uri().path().to_owned(),
        );
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let kind = parts
            .headers
            .get("content-type")
            .map_or("", |v| v.to_str().unwrap())
            .to_owned();
        crate::contract::check(&method, &path, parts.status.as_u16(), &kind, &body);
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            text,
        }
    }

    pub(crate) fn request(
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Request<Body> {
        let mut r = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:8080");
        if let Some(t) = token {
            r = r.header("authorization", format!("Bearer {t}"));
        }
        r.body(body.map_or_else(Body::empty, |b| Body::from(b.to_string())))
            .unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        self.send(
            On::Public,
            Self::request(method, path, token, body.as_ref()),
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, None).await
    }

    /// The same for a path that was just made.
    pub(crate) async fn get_owned(&self, path: String) -> Answer {
        self.get(&path).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, None, Some(body)).await
    }

    /// A ready session of this player.
    pub(crate) async fn play(&self, player: &str) -> Value {
        let reply = self
            .post("/api/new-game?wait=60", json!({"playerId": player}))
            .await;
        assert!(reply.status == 201 || reply.status == 200, "{}", reply.text);
        assert_eq!(reply.body["ready"], true, "{}", reply.text);
        reply.body
    }

    /// The same for a player whose name was just made.
    pub(crate) async fn play_owned(&self, player: String) -> Value {
        self.play(&player).await
    }

    /// Joins a queue; the answer whatever it is.
    pub(crate) async fn join(&self, body: Value) -> Answer {
        self.post("/api/match/join", body).await
    }

    /// How a player stands.
    pub(crate) async fn status(&self, player: &str) -> Value {
        self.get(&format!("/api/match/status?player_id={player}"))
            .await
            .is(200)
    }

    /// Waits (in virtual time) until a player's status is this one.
    pub(crate) async fn until_status(&self, player: &str, wanted: &str, within: Duration) -> Value {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let now = self.status(player).await;
            if now["status"] == wanted {
                return now;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{player} is not {wanted} within {within:?}: {now:#}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Events of a stream as they come, until `done` holds for them all or the time is up.
    pub(crate) async fn follow(
        &self,
        query: &str,
        last: Option<&str>,
        limit: Duration,
        done: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let path = format!("/api/events?{query}");
        self.follow_path(&path, last, limit, done).await
    }

    /// The same of any stream of server-sent events.
    pub(crate) async fn follow_path(
        &self,
        path: &str,
        last: Option<&str>,
        limit: Duration,
        done: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.public.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let (mut text, mut events) = (String::new(), Vec::new());
        let deadline = tokio::time::Instant::now() + limit;
        while !done(&events) {
            let Ok(Some(frame)) = tokio::time::timeout_at(deadline, body.frame()).await else {
                break;
            };
            if let Ok(data) = frame.unwrap().into_data() {
                text.push_str(std::str::from_utf8(&data).unwrap());
            }
            events = text
                .lines()
                .filter_map(|l| l.strip_prefix("data: "))
                .map(|d| serde_json::from_str(d).unwrap())
                .collect();
        }
        events
    }

    /// Waits (in virtual time) until the session is recorded, and returns the record.
    pub(crate) async fn record(&self, session: &str, within: Duration) -> Value {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let answer = self.get(&format!("/api/matches/{session}")).await;
            if answer.status == 200 {
                return answer.body;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no record within {within:?}: {}",
                answer.text
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As `kill -9` would: nothing is drained, nothing more is written.
    pub(crate) fn kill(self) {
        self.alive.cancel();
        self.server.abandon();
    }
}

/// The id in a reply.
pub(crate) fn id(v: &Value) -> String {
    v["session_id"].as_str().unwrap().to_owned()
}
