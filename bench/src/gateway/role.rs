//! The real gateway as a process of its own: token check, activity, metrics, reports and close handles as in the product. Only the
//! control plane is small: it hands out the routes that the benchmark orders and adds up the reports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::{Value, json};
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Clock, PlayerId, SessionId};
use spawnpoint_gateway::{Gateway, GatewayConfig, GatewayDeps, NotFound};
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_wire::link::{
    Cursor, Link, LinkError, Protocol, Report, Resolved, Route, RouteUpdate,
};
use spawnpoint_wire::token::{Keyring, SigningKey, TokenClaims, VerifyingKey};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::part;
use crate::stopwatch::Mark;

/// Routes on their way to the gateway.
const ROUTE_QUEUE: usize = 1024;
/// A run longer than this has its tokens expire.
const TOKEN_LIFE: i64 = 6 * 3600;
/// Starting sessions must stay parked until they are measured; the product answers them after 12 s.
const PARK: Duration = Duration::from_secs(10 * 60);
/// Routes reach the gateway within this time.
const ROUTES_ARRIVE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The session of this number.
pub(super) fn session(n: usize) -> Result<SessionId> {
    format!("01890a5d-ac96-774b-bcce-{n:012x}")
        .parse()
        .map_err(|e| anyhow!("session {n}: {e}"))
}

fn player(n: usize) -> Result<PlayerId> {
    format!("player-{n}")
        .parse()
        .map_err(|e| anyhow!("player {n}: {e}"))
}

/// Paths with tokens for the sessions of these numbers.
pub(super) fn paths(key: &SigningKey, numbers: std::ops::Range<usize>) -> Result<Vec<String>> {
    let clock = SystemClock::new();
    let now = clock.wall(clock.now()).div_euclid(1000);
    numbers
        .map(|n| {
            let sid = session(n)?;
            let token = key.sign(&TokenClaims {
                sub: player(n)?,
                sid,
                fleet: "bench".parse().map_err(|e| anyhow!("fleet: {e}"))?,
                iat: now,
                exp: now + TOKEN_LIFE,
            })?;
            Ok(format!("/session/{sid}?token={token}"))
        })
        .collect()
}

/// The control plane of this measurement.
struct Desk {
    /// Given to the gateway when it asks for routes: once, it never has to ask again.
    routes: Mutex<Option<mpsc::Receiver<RouteUpdate>>>,
    reports: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

#[async_trait]
impl Link for Desk {
    async fn routes(
        &self,
        _from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError> {
        let updates = self
            .routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| LinkError::Unavailable("asked twice".to_owned()))?;
        let none = RouteUpdate::All {
            cursor: cursor(0),
            routes: Vec::new(),
        };
        let later = stream::unfold(updates, |mut updates| async move {
            updates.recv().await.map(|update| (update, updates))
        });
        Ok(stream::iter([none]).chain(later).boxed())
    }

    async fn resolve(&self, _session: SessionId) -> Result<Option<Resolved>, LinkError> {
        Ok(None)
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.reports.fetch_add(1, Ordering::Relaxed);
        for player in report.sessions.iter().flat_map(|s| &s.players) {
            self.bytes_in.fetch_add(player.bytes_in, Ordering::Relaxed);
            self.bytes_out
                .fetch_add(player.bytes_out, Ordering::Relaxed);
        }
        Ok(())
    }
}

const fn cursor(sequence: u64) -> Cursor {
    Cursor {
        incarnation: 1,
        sequence,
    }
}

/// Serves until the questions end.
pub(super) fn serve(orders: &Value, questions: impl Iterator<Item = Result<Value>>) -> Result<()> {
    let key = orders["key"].as_str().context("no key")?;
    let key = VerifyingKey::from_paserk(key).map_err(|e| anyhow!("the key: {e}"))?;
    let game: SocketAddr = serde_json::from_value(orders["game"].clone())?;
    // As `spawnpoint up` does it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (feed, updates) = mpsc::channel(ROUTE_QUEUE);
    let desk = Arc::new(Desk {
        routes: Mutex::new(Some(updates)),
        reports: AtomicU64::new(0),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
    });
    let gateway = Gateway::new(
        GatewayConfig {
            park: PARK,
            ..GatewayConfig::default()
        },
        GatewayDeps {
            link: desk.clone(),
            keyring: Arc::new(ArcSwap::from_pointee(Keyring::new(vec![key]))),
            clock: Arc::new(SystemClock::new()),
            tcp: None,
        },
    );
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serving = {
        let (gateway, stop) = (gateway.clone(), stop.clone());
        #[allow(clippy::disallowed_methods, reason = "awaited below")]
        runtime.spawn(async move { gateway.serve(vec![listener], NotFound, stop).await })
    };
    part::answer(&json!({ "address": address }))?;
    let mut role = Role {
        gateway,
        desk,
        feed,
        game,
        handle: runtime.handle().clone(),
        sequence: 0,
    };
    for question in questions {
        let answer = match role.answer(&question?) {
            Ok(answer) => answer,
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        part::answer(&answer)?;
    }
    stop.cancel();
    runtime.block_on(serving)?;
    Ok(())
}

struct Role {
    gateway: Gateway,
    desk: Arc<Desk>,
    feed: mpsc::Sender<RouteUpdate>,
    game: SocketAddr,
    handle: Handle,
    sequence: u64,
}

impl Role {
    /// `{"live": [from, to]}` and `{"starting": [from, to]}` hand out routes; anything else only asks for the counters.
    fn answer(&mut self, question: &Value) -> Result<Value> {
        if let Ok((from, to)) = serde_json::from_value(question["live"].clone()) {
            self.hand_out(from..to, Phase::Running, Some(self.game))?;
        }
        if let Ok((from, to)) = serde_json::from_value(question["starting"].clone()) {
            self.hand_out(from..to, Phase::Starting, None)?;
        }
        let m = self.gateway.metrics();
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Ok(json!({
            "connections": m.connections, "tunnels": m.tunnels, "parked": m.parked, "progress": m.progress,
            "handshakes": m.handshakes, "bytes_in": m.bytes_in, "bytes_out": m.bytes_out,
            "reports": n(&self.desk.reports), "reported_in": n(&self.desk.bytes_in), "reported_out": n(&self.desk.bytes_out),
        }))
    }

    fn hand_out(
        &mut self,
        numbers: std::ops::Range<usize>,
        phase: Phase,
        address: Option<SocketAddr>,
    ) -> Result<()> {
        let wanted = self.gateway.metrics().routes + numbers.len() as u64;
        for n in numbers {
            self.sequence += 1;
            let route = Route {
                session: session(n)?,
                fleet: "bench".parse().map_err(|e| anyhow!("fleet: {e}"))?,
                generation: 1,
                phase,
                address,
                protocol: Protocol::WebSocket,
                players: [player(n)?].into(),
                position: None,
                waiting_for: None,
                ended: None,
            };
            let update = RouteUpdate::Set {
                cursor: cursor(self.sequence),
                route: Box::new(route),
            };
            self.handle.block_on(self.feed.send(update))?;
        }
        let began = Mark::now();
        while self.gateway.metrics().routes < wanted {
            ensure!(
                began.elapsed() < ROUTES_ARRIVE,
                "the gateway does not follow"
            );
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}
