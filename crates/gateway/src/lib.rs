//! The data plane role: it owns the public listener and carries players to their game servers.
//!
//! It is internet-facing and knows nothing but routes, public keys and sockets: no Kubernetes, no database, no configuration file
//! may enter. The control plane is [`spawnpoint_wire::link::Link`] and nothing more. `frames`, `access`, `decide`, `routes` and
//! `tunnels` decide; the others act.

mod access;
mod audit;
pub mod config;
mod connect;
mod decide;
#[cfg(feature = "simulation")]
pub mod dry;
mod feed;
pub mod frames;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod game;
mod half;
mod handshake;
mod head;
mod http_game;
mod linger;
mod metrics;
mod progress;
mod relay;
mod report;
mod roster;
mod routes;
mod say;
mod serve;
mod table;
pub mod tcp;
mod tunnels;

use std::convert::Infallible;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use spawnpoint_core::Clock;

use spawnpoint_wire::link::Link;
use spawnpoint_wire::token::Keyring;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use config::{GatewayConfig, Network, NetworkError};
pub use decide::Refusal;
pub use metrics::Metrics;
pub use serve::NotFound;
pub use tcp::ports::{TcpConfig, TcpListeners};

use config::{DRAIN_LIMIT, REFUSALS_AT_ONCE};
use table::Table;

/// What the gateway stands on.
pub struct GatewayDeps {
    /// The control plane.
    pub link: Arc<dyn Link>,
    /// Public keys that are valid now; swapped on rotation.
    pub keyring: Arc<ArcSwap<Keyring>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The listeners of TCP sessions, if there are any; the control plane opens and closes them.
    pub tcp: Option<Arc<TcpListeners>>,
}

/// The gateway. Copies are the same one.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    config: GatewayConfig,
    link: Arc<dyn Link>,
    keyring: Arc<ArcSwap<Keyring>>,
    clock: Arc<dyn Clock>,
    tcp: Option<Arc<TcpListeners>>,
    table: Arc<Table>,
    addresses: serve::Addresses,
    /// Places of those who are being told that they are not let in.
    refusing: Arc<Semaphore>,
    /// Free connections to HTTP games.
    pool: Arc<http_game::Pool>,
    tracker: TaskTracker,
    /// Ends requests that outlast a drain.
    kill: CancellationToken,
    /// This run, in reports.
    name: String,
}

impl Gateway {
    /// A gateway that does nothing yet.
    #[must_use]
    pub fn new(config: GatewayConfig, deps: GatewayDeps) -> Self {
        let mut run = [0u8; 8];
        // Without randomness the time of the start tells runs apart well enough.
        if getrandom::fill(&mut run).is_err() {
            run = deps.clock.wall(deps.clock.now()).to_be_bytes();
        }
        let pool = Arc::new(http_game::Pool::default());
        let table = Arc::new(Table::new(&config, deps.clock.clone(), pool.clone()));
        let inner = Inner {
            config,
            link: deps.link,
            keyring: deps.keyring,
            clock: deps.clock,
            tcp: deps.tcp,
            table,
            addresses: serve::Addresses::default(),
            refusing: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)),
            pool,
            tracker: TaskTracker::new(),
            kill: CancellationToken::new(),
            name: format!("gateway-{:016x}", u64::from_be_bytes(run)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Serves these listeners until `shutdown`, then drains and returns. Paths under `/session/` and `/ws/` are ours, and everything
    /// on a session's own host name (`<session id>.<host>`); every other request goes to `fallback`, with [`Peer`](spawnpoint_wire::access::Peer) among its extensions. Call it once.
    pub async fn serve<S, B>(
        &self,
        listeners: Vec<TcpListener>,
        fallback: S,
        shutdown: CancellationToken,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stop = CancellationToken::new();
        let mut workers = JoinSet::new();
        workers.spawn(feed::follow(self.inner.clone(), stop.clone()));
        workers.spawn(report::report(self.inner.clone(), stop.clone()));
        workers.spawn(self.inner.pool.clone().expire(stop.clone()));
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(serve::accept(
                self.inner.clone(),
                listener,
                fallback.clone(),
                shutdown.clone(),
            ));
        }
        if let Some(listeners) = &self.inner.tcp {
            accepting.spawn(tcp::listen(
                self.inner.clone(),
                listeners.clone(),
                shutdown.clone(),
            ));
        }
        shutdown.cancelled().await;
        accepting.join_all().await;
        self.drain().await;
        self.inner.pool.clear();
        self.inner.tracker.close();
        if timeout(DRAIN_LIMIT, self.inner.tracker.wait())
            .await
            .is_err()
        {
            self.inner.kill.cancel();
            self.inner.tracker.wait().await;
        }
        stop.cancel();
        workers.join_all().await;
    }

    /// Refuses new connections, closes all tunnels with 1001 and waits until they are gone (at most [`DRAIN_LIMIT`]). Other
    /// requests are still answered.
    pub async fn drain(&self) {
        self.inner.table.begin_drain();
        // Each tunnel ends itself within its own bounds, which are shorter.
        let _ = timeout(DRAIN_LIMIT, self.inner.table.emptied()).await;
    }

    /// What was counted so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let inner = &self.inner;
        let counted = inner
            .table
            .counters
            .snapshot(inner.table.routes(), inner.pool.len());
        Metrics {
            tcp_sessions: inner.tcp.as_ref().map_or(0, |t| t.len() as u64),
            ..counted
        }
    }

    /// How this run names itself in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}
