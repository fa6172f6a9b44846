//! Sessions by the thousand over simulated games: the real server in real time, and a gateway's reports without a gateway.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use spawnpoint_core::lifecycle::Policy;
use spawnpoint_core::{Clock, Moment, SessionId};
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_runtime::simulated::{SimulatedConfig, SimulatedRuntime, Span};
use spawnpoint_server::config::{Config, FleetConfig, ServerConfig};
use spawnpoint_server::{Deps, Keys, Server, build};
use spawnpoint_store::Records as _;
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_wire::link::{Link, PlayerReport, Report, SessionReport};
use spawnpoint_wire::token::{Keyring, SigningKey};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::ServiceExt as _;

use super::Cull;

/// Between two starts: ten thousand take 25 seconds, and 400 end in a second.
const EVERY: Duration = Duration::from_micros(2_500);
/// Every deadline. It comes after the last start, and after the restart.
const AFTER: Duration = Duration::from_secs(40);
/// When the server is stopped and started again, from the first start.
const RESTART_AT: Duration = Duration::from_secs(32);
/// A gateway reports this often whether or not it has anything to say.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Everything has ended this long after the last deadline, or it will not.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// What they are to end for; each a fleet of its own.
const KINDS: [&str; 3] = ["idle", "max_duration", "never_joined"];

pub(super) fn run(sessions: usize, restart: bool, progress: &ProgressBar) -> Result<Vec<Cull>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(sessions, restart, progress))
}

async fn measure(sessions: usize, restart: bool, progress: &ProgressBar) -> Result<Vec<Cull>> {
    let mut site = Site::start().await?;
    let began = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due: HashMap<SessionId, (&'static str, i64)> = HashMap::with_capacity(sessions);
    for n in 0..sessions {
        ticks.tick().await;
        let kind = KINDS[n % KINDS.len()];
        let (session, deadline) = site.begin(kind, n).await?;
        due.insert(session, (kind, deadline));
        progress.inc(1);
    }
    if restart {
        tokio::time::sleep_until(began + RESTART_AT).await;
        ensure!(
            site.server.live() == sessions,
            "a deadline came before the restart"
        );
        site.restart().await?;
    }
    site.drained().await?;
    let mut culls = Vec::with_capacity(sessions);
    for (session, (why, deadline)) in due {
        let record = site.records.get(session).await?;
        let record = record.with_context(|| format!("{session} has no record"))?;
        ensure!(
            record.reason.as_str() == why,
            "{session} ended for {} and not for {why}",
            record.reason.as_str()
        );
        culls.push(Cull {
            why,
            late_ms: (record.ended_at - deadline) as f64,
        });
    }
    site.server.abandon();
    Ok(culls)
}

/// A server, and what outlives it.
struct Site {
    runtime: SimulatedRuntime,
    records: MemoryRecords,
    clock: Arc<dyn Clock>,
    server: Server,
    public: Router,
    /// The gateway's word to the server's present run.
    reporting: JoinSet<()>,
    /// Whom the gateway carries: all of them, for the first report after a restart.
    carried: Vec<(SessionId, String, Moment)>,
    /// Of the gateway's reports: held while one is on its way, so that none looks old beside another.
    sequence: Arc<Mutex<u64>>,
}

impl Site {
    async fn start() -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let simulated = SimulatedConfig {
            boot: Span::Fixed(Duration::from_millis(1)),
            ..SimulatedConfig::default()
        };
        let runtime = SimulatedRuntime::new(Arc::clone(&clock), simulated);
        let records = MemoryRecords::new();
        let server = serve(&runtime, &records, &clock).await?;
        let mut site = Self {
            public: server.public_router(),
            runtime,
            records,
            clock,
            server,
            reporting: JoinSet::new(),
            carried: Vec::new(),
            sequence: Arc::default(),
        };
        site.gateway_begins().await?;
        Ok(site)
    }

    /// Stops it as a `kill -9` would and starts another over what it left.
    async fn restart(&mut self) -> Result<()> {
        self.reporting.abort_all();
        self.server.abandon();
        self.server = serve(&self.runtime, &self.records, &self.clock).await?;
        self.public = self.server.public_router();
        self.gateway_begins().await
    }

    /// A gateway says everything it has, and from then on every second that it is there.
    async fn gateway_begins(&mut self) -> Result<()> {
        let link = self.server.link();
        let sessions = self
            .carried
            .iter()
            .map(|(session, player, data)| self.carries(*session, player, *data))
            .collect::<Result<Vec<_>>>()?;
        tell(&link, &self.sequence, true, sessions).await?;
        let sequence = Arc::clone(&self.sequence);
        self.reporting.spawn(async move {
            let mut ticks = interval(REPORT_EVERY);
            loop {
                ticks.tick().await;
                // A server that is gone hears nothing, and the next second asks again.
                let _ = tell(&link, &sequence, false, Vec::new()).await;
            }
        });
        Ok(())
    }

    fn carries(&self, session: SessionId, player: &str, data: Moment) -> Result<SessionReport> {
        let age = self.clock.now().since(data).as_millis();
        Ok(SessionReport {
            session,
            generation: 1,
            players: vec![PlayerReport {
                player: player.parse()?,
                connections: 1,
                client_data_age_ms: Some(u64::try_from(age)?),
                server_data_age_ms: None,
                bytes_in: 1,
                bytes_out: 1,
            }],
        })
    }

    /// One session, and when it is to end: Unix milliseconds.
    async fn begin(&mut self, kind: &'static str, n: usize) -> Result<(SessionId, i64)> {
        let player = format!("player-{n}");
        let body = json!({"playerId": player, "fleet": kind.replace('_', "-")}).to_string();
        let request = Request::post("/api/new-game?wait=20")
            .header("host", "127.0.0.1:8080")
            .body(Body::from(body))?;
        let response = self.public.clone().oneshot(request).await?;
        ensure!(response.status() == 201, "answered {}", response.status());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let session: SessionId = answer["session_id"].as_str().context("no id")?.parse()?;
        if kind == "idle" {
            let now = self.clock.now();
            self.carried.push((session, player.clone(), now));
            let seen = self.carries(session, &player, now)?;
            tell(&self.server.link(), &self.sequence, false, vec![seen]).await?;
            return Ok((session, self.clock.wall(now.after(AFTER))));
        }
        let view = self.get(&format!("/api/sessions/{session}")).await?;
        ensure!(view["cull_reason"] == kind, "it would end for {view}");
        let due: jiff::Timestamp = view["cull_at"].as_str().context("no cull_at")?.parse()?;
        Ok((session, due.as_millisecond()))
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let request = Request::get(path)
            .header("host", "127.0.0.1:8080")
            .body(Body::empty())?;
        let response = self.public.clone().oneshot(request).await?;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn drained(&self) -> Result<()> {
        let ended = async {
            while self.server.live() > 0 {
                sleep(LOOK).await;
            }
        };
        tokio::time::timeout(AFTER + PATIENCE, ended)
            .await
            .map_err(|_| anyhow!("{} sessions did not end", self.server.live()))
    }
}

/// One report of the gateway.
async fn tell(
    link: &Arc<dyn Link>,
    sequence: &Mutex<u64>,
    full: bool,
    sessions: Vec<SessionReport>,
) -> Result<()> {
    let mut sequence = sequence.lock().await;
    *sequence += 1;
    let report = Report {
        gateway: "bench".into(),
        sequence: *sequence,
        full,
        sessions,
    };
    Ok(link.report(report).await?)
}

async fn serve(
    runtime: &SimulatedRuntime,
    records: &MemoryRecords,
    clock: &Arc<dyn Clock>,
) -> Result<Server> {
    let signing = SigningKey::generate()?;
    let deps = Deps {
        runtime: Arc::new(runtime.clone()),
        records: Arc::new(records.clone()),
        lobby: Arc::new(MemoryLobby::new()),
        clock: Arc::clone(clock),
        keys: Keys {
            ring: Arc::new(Keyring::new(vec![signing.public().clone()])),
            signing,
        },
        sdk_url: None,
        more_metrics: None,
        tcp: None,
        random: spawnpoint_server::os_random(),
        journal: None,
    };
    Ok(build(config()?, deps).await?)
}

fn config() -> Result<Config> {
    let far = Some(Duration::from_secs(86_400));
    let after = Some(AFTER);
    let fleets = KINDS.map(|kind| {
        let policy = Policy {
            idle: if kind == "idle" { after } else { far },
            max: if kind == "max_duration" { after } else { far },
            max_limit: far,
            join: if kind == "never_joined" { after } else { far },
            ..Policy::default()
        };
        // A name has no underscores.
        let name = kind.replace('_', "-").parse()?;
        anyhow::Ok(Arc::new(FleetConfig::plain(
            name,
            vec!["game".into()],
            policy,
        )))
    });
    Ok(Config {
        server: ServerConfig::in_memory("bench"),
        fleets: fleets.into_iter().collect::<Result<_>>()?,
        queues: Vec::new(),
    })
}
