//! The roles of one process, put together: runtime and records below, the server over them, the gateway in front.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, Request};
use axum::{Router, middleware};
use spawnpoint_core::Clock;
use spawnpoint_gateway::{Gateway, GatewayConfig, GatewayDeps, TcpConfig, TcpListeners};
use spawnpoint_runtime::Runtime;
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_runtime::process::{ProcessConfig, ProcessRuntime};
use spawnpoint_server::config::ServerConfig;
use spawnpoint_server::journal::{self, FileJournal, Journal};
use spawnpoint_server::{Config, Deps, DrainMode, Server};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::sqlite::SqliteRecords;
use spawnpoint_wire::access::Peer;
use spawnpoint_wire::tcp::TcpPorts;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::Failure;
use crate::listen::{Listeners, addresses};
use crate::signing_keys;

/// The file of match records in the state directory.
const RECORDS: &str = "records.db";
/// After a drain, requests under way have this long to finish before their connections are cut.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Everything of one process, running.
pub(crate) struct Roles {
    pub(crate) server: Arc<Server>,
    pub(crate) gateway: Gateway,
    /// The configuration as it was put in place, with the ports that were bound.
    pub(crate) config: Config,
    runtime: Arc<ProcessRuntime>,
    records: SqliteRecords,
    journal: Option<Arc<FileJournal>>,
    /// Stops the listeners.
    stop: CancellationToken,
    listeners: TaskTracker,
}

/// Puts the roles together and begins to serve.
///
/// # Errors
/// When the state directory is somebody else's or cannot be used, or what an earlier run left cannot be read.
pub(crate) async fn start(
    mut config: Config,
    listeners: Listeners,
    clock: Arc<SystemClock>,
) -> Result<Roles, Failure> {
    let public = addresses(&listeners.public);
    listeners.place(&mut config.server);
    let state = config.server.state_dir.clone();
    let own = std::env::current_exe()
        .map_err(|e| Failure::because("this executable cannot be found", &e))?;
    let mut process = ProcessConfig::new(state.clone(), vec![own.into_os_string(), "shim".into()]);
    process.ports = config.server.instance_ports.0..=config.server.instance_ports.1;
    process.clock = clock.clone();
    std::fs::create_dir_all(&state).map_err(|e| {
        Failure::because(
            format!("cannot use the state directory {}", state.display()),
            &e,
        )
    })?;
    let runtime =
        ProcessRuntime::open(process).map_err(|e| Failure::because("cannot start", &e))?;
    // From here on the state directory is ours alone.
    let keys = signing_keys::open(&state)?;
    let ring = Arc::clone(&keys.ring);
    let records = SqliteRecords::open(state.join(RECORDS))
        .await
        .map_err(|e| Failure::because("cannot start", &e))?;

    let journal = open_journal(&config.server, &clock)?;

    let (first, last) = config.server.tcp_ports;
    let tcp = TcpListeners::new(
        TcpConfig::new(public.iter().map(SocketAddr::ip).collect(), first..=last),
        clock.clone() as Arc<dyn Clock>,
    );
    let gateway_slot: Arc<OnceLock<Gateway>> = Arc::default();
    let counted = Arc::clone(&gateway_slot);
    let deps = Deps {
        runtime: runtime.clone() as Arc<dyn Runtime>,
        records: Arc::new(records.clone()),
        lobby: Arc::new(MemoryLobby::new()),
        clock: clock.clone() as Arc<dyn Clock>,
        keys,
        sdk_url: config.server.sdk.first().map(|a| format!("http://{a}")),
        more_metrics: Some(Arc::new(move || {
            counted
                .get()
                .map(|g| crate::gateway_metrics::render(&g.metrics()))
                .unwrap_or_default()
        })),
        tcp: Some(tcp.clone() as Arc<dyn TcpPorts>),
        random: spawnpoint_server::os_random(),
        journal: journal.clone().map(|j| j as Arc<dyn Journal>),
    };
    let server = spawnpoint_server::build(config.clone(), deps)
        .await
        .map_err(|e| Failure::because("cannot take over what an earlier run left", &e))?;
    let gateway = Gateway::new(
        gateway_config(&config.server),
        GatewayDeps {
            link: server.link(),
            keyring: Arc::new(ArcSwap::new(ring)),
            clock: clock as Arc<dyn Clock>,
            tcp: Some(tcp),
        },
    );
    let _ = gateway_slot.set(gateway.clone());
    server.audit_gateway(Arc::new(gateway.clone()));

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    for listener in listeners.admin {
        tasks.spawn(serve(listener, server.admin_router(), stop.clone()));
    }
    for listener in listeners.sdk {
        tasks.spawn(serve(listener, server.sdk_router(), stop.clone()));
    }
    let front = gateway.clone();
    let public = server.public_router();
    let (sockets, stopping) = (listeners.public, stop.clone());
    tasks.spawn(async move { Box::pin(front.serve(sockets, public, stopping)).await });
    tasks.close();
    Ok(Roles {
        server: Arc::new(server),
        gateway,
        config,
        runtime,
        records,
        journal,
        stop,
        listeners: tasks,
    })
}

/// The journal of decisions, where one is wanted.
fn open_journal(
    server: &ServerConfig,
    clock: &Arc<SystemClock>,
) -> Result<Option<Arc<FileJournal>>, Failure> {
    let Some(keep) = server.decision_log else {
        return Ok(None);
    };
    let directory = server.state_dir.join(journal::DIRECTORY);
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let opened = FileJournal::open(directory.clone(), keep, clock);
    let journal = opened.map_err(|e| {
        let what = format!("cannot keep a log of decisions in {}", directory.display());
        Failure::because(what, &e)
    })?;
    Ok(Some(Arc::new(journal)))
}

/// The gateway keeps the doors of the same server, so it has the same rules.
fn gateway_config(server: &ServerConfig) -> GatewayConfig {
    GatewayConfig {
        access: server.access(),
        secure: server
            .public_url
            .as_deref()
            .is_some_and(|u| u.starts_with("https://")),
        ..GatewayConfig::default()
    }
}

/// Puts the caller's address where the gateway puts it on its own listeners.
async fn peer_of_socket(mut request: Request) -> Request {
    if let Some(ConnectInfo(address)) = request
        .extensions()
        .get::<ConnectInfo<std::net::SocketAddr>>()
        .copied()
    {
        request.extensions_mut().insert(Peer(address));
    }
    request
}

async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(middleware::map_request(peer_of_socket));
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let stopping = stop.clone();
    let serving = axum::serve(listener, service)
        .with_graceful_shutdown(async move { stopping.cancelled().await });
    let last = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    // Event streams and followed logs end only with their connection.
    tokio::select! {
        outcome = serving => if let Err(e) = outcome { tracing::error!(error = %e, "a listener stopped") },
        () = last => {}
    }
}

impl Roles {
    /// The longest that games have to stop, and a margin to write what became of them.
    pub(crate) fn drain_limit(&self) -> Duration {
        let grace = self
            .config
            .fleets
            .iter()
            .map(|f| f.policy.grace)
            .max()
            .unwrap_or_default();
        grace + Duration::from_secs(15)
    }

    /// Stops: games end (or are left), records are written, then the listeners close. Returns how many sessions were not finished.
    pub(crate) async fn stop(&self, mode: DrainMode) -> usize {
        // The gateway still stands meanwhile, so that players are told why.
        let left = self.server.drain(mode, self.drain_limit()).await;
        self.stop.cancel();
        self.listeners.wait().await;
        self.runtime.shutdown().await;
        self.records.close().await;
        if let Some(journal) = self.journal.clone() {
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
        left
    }
}
