//! The real server and a real gateway inside this process, over simulated instances that boot in a millisecond, and claims through the
//! server's HTTP router.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use futures::stream;
use serde_json::{Value, json};
use spawnpoint_core::Clock;
use spawnpoint_gateway::{Gateway, GatewayConfig, GatewayDeps, NotFound};
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_runtime::simulated::{SimulatedConfig, SimulatedRuntime, Span};
use spawnpoint_server::journal::Journal;
use spawnpoint_server::{Deps, Keys, Server, build};
use spawnpoint_store::Records;
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_wire::token::{Keyring, SigningKey};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::stopwatch::Mark;

/// Time between two claims that come at a fixed rate.
pub(crate) const EVERY: Duration = Duration::from_millis(10);
/// Claims under way at once where they come as fast as they can.
pub(crate) const AT_ONCE: usize = 16;
/// What must happen happens within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// See the module.
pub(crate) struct Inside {
    pub(crate) server: Arc<Server>,
    public: Router,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Inside {
    /// A server with these records, and perhaps a log of its decisions.
    pub(crate) async fn start(
        records: Arc<dyn Records>,
        journal: Option<Arc<dyn Journal>>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let simulated = SimulatedConfig {
            boot: Span::Fixed(Duration::from_millis(1)),
            ..SimulatedConfig::default()
        };
        let signing = SigningKey::generate()?;
        let ring = Arc::new(Keyring::new(vec![signing.public().clone()]));
        let deps = Deps {
            runtime: Arc::new(SimulatedRuntime::new(Arc::clone(&clock), simulated)),
            records,
            lobby: Arc::new(MemoryLobby::new()),
            clock: Arc::clone(&clock),
            keys: Keys {
                signing,
                ring: Arc::clone(&ring),
            },
            sdk_url: None,
            more_metrics: None,
            tcp: None,
            random: spawnpoint_server::os_random(),
            journal,
        };
        let server = Arc::new(build(crate::claims::config()?, deps).await?);
        let gateway = Gateway::new(
            GatewayConfig::default(),
            GatewayDeps {
                link: server.link(),
                keyring: Arc::new(ArcSwap::new(ring)),
                clock,
                tcp: None,
            },
        );
        server.audit_gateway(Arc::new(gateway.clone()));
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut serving = JoinSet::new();
        let stopping = stop.clone();
        serving.spawn(async move { gateway.serve(vec![listener], NotFound, stopping).await });
        Ok(Self {
            public: server.public_router(),
            server,
            stop,
            serving,
        })
    }

    /// So many more sessions, as fast as they come; who they are.
    pub(crate) async fn start_sessions(&self, how_many: usize) -> Result<Vec<String>> {
        let before = self.server.live();
        let claims = stream::iter(0..how_many).map(|_| claim(self.public.clone(), uuid()));
        let mut done = claims.buffer_unordered(AT_ONCE);
        let mut sessions = Vec::with_capacity(how_many);
        while let Some(session) = done.next().await {
            sessions.push(session?);
        }
        let live = self.server.live();
        ensure!(live == before + how_many, "{live} are live");
        Ok(sessions)
    }

    /// Claims at the fixed rate until `until` is over: how long each took, from when it was due, and its session.
    pub(crate) async fn claims(
        &self,
        until: impl Future<Output = ()>,
    ) -> Result<(Vec<Duration>, Vec<String>)> {
        let mut under_way: JoinSet<Result<(Duration, String)>> = JoinSet::new();
        let mut ticks = tokio::time::interval(EVERY);
        // One that is late is late for whoever asked: none is left out.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => break,
                due = ticks.tick() => {
                    let late = tokio::time::Instant::now().saturating_duration_since(due);
                    let public = self.public.clone();
                    under_way.spawn(async move {
                        let began = Mark::now();
                        let session = claim(public, uuid()).await?;
                        Ok((late + began.elapsed(), session))
                    });
                }
            }
        }
        let (mut took, mut sessions) = (Vec::new(), Vec::new());
        while let Some(done) = under_way.join_next().await {
            let (duration, session) = done??;
            took.push(duration);
            sessions.push(session);
        }
        Ok((took, sessions))
    }

    /// Ends these, so that every round has as many live as the first.
    pub(crate) async fn end(&self, sessions: Vec<String>, live: usize) -> Result<()> {
        for session in sessions {
            let request = Request::delete(format!("/api/sessions/{session}"))
                .header("host", "127.0.0.1:8080")
                .body(Body::empty())?;
            let response = self.public.clone().oneshot(request).await?;
            ensure!(response.status().is_success(), "{}", response.status());
        }
        let settled = async {
            while self.server.live() > live {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled)
            .await
            .map_err(|_| anyhow!("{} sessions are live still", self.server.live()))
    }

    pub(crate) async fn stop(mut self) {
        // As a `kill -9` would: ending all sessions is no part of it.
        self.server.abandon();
        self.stop.cancel();
        while self.serving.join_next().await.is_some() {}
    }
}

/// A player that nobody is.
fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    format!("player-{}", SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// One claim through the HTTP router; its session.
async fn claim(public: Router, player: String) -> Result<String> {
    let body = json!({"playerId": player}).to_string();
    let request = Request::post("/api/new-game")
        .header("host", "127.0.0.1:8080")
        .body(Body::from(body))?;
    let response = public.oneshot(request).await?;
    ensure!(response.status() == 201, "answered {}", response.status());
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    let session = answer["session_id"].as_str().context("no session_id")?;
    Ok(session.to_owned())
}
