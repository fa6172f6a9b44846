//! A run of the server and the gateway before it: built as `spawnpoint up` builds them, over doors into the world.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::Router;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use spawnpoint_core::audit::GatewayTables;
use spawnpoint_core::lifecycle::{OnCrash, Policy};
use spawnpoint_core::matching::Rules;
use spawnpoint_core::{Clock, SessionId};
use spawnpoint_gateway::{Gateway, GatewayConfig, GatewayDeps};
use spawnpoint_runtime::flaky::Flaky;
use spawnpoint_runtime::{ReadyRule, Runtime};
use spawnpoint_server::config::{Config, FleetConfig, QueueConfig, ServerConfig};
use spawnpoint_server::{Deps, Keys, Server, build};
use spawnpoint_store::flaky::Flaky as FlakyStore;
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::{Lobby, Records};
use spawnpoint_wire::link::{Cursor, Link, LinkError, Report, Resolved, RouteUpdate};
use spawnpoint_wire::tables::Tables;
use spawnpoint_wire::token::{Keyring, SigningKey};
use tokio_util::sync::CancellationToken;

use crate::decisions::Decisions;
use crate::doors::{Door, LedgerRecords, LedgerRuntime};
use crate::life::Life;
use crate::plan::{Crashing, FleetPlan, Plan, Trouble};
use crate::world::World;

/// The signing key of every simulated server: fixed, so that tokens are the same in every run. It signs nothing outside a simulation.
const KEY: &str = "k4.secret.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8c5WpIyC_5kWKhS8VEYSZ05dYfuTF-ZdQFV4D9vLTcNQ";

/// A gateway of one run.
pub(crate) struct Front {
    pub(crate) gateway: Gateway,
    pub(crate) stop: CancellationToken,
}

/// A run of the server.
pub(crate) struct Site {
    pub(crate) life: Arc<Life>,
    pub(crate) server: Server,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) public: Router,
    pub(crate) admin: Router,
    pub(crate) sdk: Router,
    pub(crate) runtime: Arc<Flaky<LedgerRuntime>>,
    pub(crate) records: Arc<FlakyStore<LedgerRecords>>,
    pub(crate) lobby: Arc<FlakyStore<MemoryLobby>>,
    /// Its own gateway, where they are one process.
    pub(crate) gateway: Option<Arc<Front>>,
}

fn policy(f: &FleetPlan) -> Policy {
    Policy {
        idle: Some(f.idle),
        max: Some(f.longest),
        max_limit: Some(f.longest * 2),
        queue: f.queue,
        boot: f.boot,
        join: Some(f.join),
        reconnect: f.reconnect,
        grace: f.grace,
        on_crash: match f.crashing {
            Crashing::Replace => OnCrash::Replace,
            Crashing::Restart => OnCrash::Restart,
            Crashing::End => OnCrash::End,
        },
        ..Policy::default()
    }
}

fn fleet(f: &FleetPlan) -> Option<FleetConfig> {
    let name = f.name.parse().ok()?;
    let mut fleet = FleetConfig::plain(name, vec!["game".into(), f.name.into()], policy(f));
    if f.sdk {
        fleet.template.ready = ReadyRule::Sdk;
    }
    fleet.warm = f.warm;
    fleet.max_instances = f.max;
    Some(fleet)
}

fn queue(f: &FleetPlan) -> Option<QueueConfig> {
    Some(QueueConfig {
        name: f.name.parse().ok()?,
        fleet: f.name.parse().ok()?,
        rules: Rules::new(f.size, 1, f.flush, None, None).ok()?,
        regions: Vec::new(),
        max_tickets: 1_000,
        unattended: std::time::Duration::from_secs(20),
        max_failures: 3,
    })
}

fn config(plan: &Plan) -> Config {
    let mut server = ServerConfig::in_memory("simulated");
    if plan.day {
        server.retention = crate::day::RETENTION;
    }
    Config {
        server,
        queues: plan.fleets.iter().filter_map(queue).map(Arc::new).collect(),
        fleets: plan.fleets.iter().filter_map(fleet).map(Arc::new).collect(),
    }
}

fn keys() -> Option<Keys> {
    let signing = SigningKey::from_paserk(KEY).ok()?;
    let ring = Arc::new(Keyring::new(vec![signing.public().clone()]));
    Some(Keys { signing, ring })
}

/// Starts a run of the server over the world. `None`: it died while starting, or could not start.
pub(crate) async fn start(world: &Arc<World>, life: Arc<Life>) -> Option<Arc<Site>> {
    let seed = world.plan.seed ^ (u64::from(life.number) << 32);
    let rates = crate::nature::rates(world);
    let runtime = Arc::new(Flaky::new(
        Arc::new(LedgerRuntime {
            inner: world.runtime.clone(),
            world: Arc::clone(world),
        }),
        seed,
        rates.runtime,
    ));
    let ledger = LedgerRecords {
        inner: world.records.clone(),
        world: Arc::clone(world),
    };
    let records = Arc::new(FlakyStore::new(ledger, seed ^ 1, rates.records));
    let lobby = Arc::new(FlakyStore::new(world.lobby.clone(), seed ^ 2, rates.lobby));
    records.outage(world.has(Trouble::RecordsOutage));
    lobby.outage(world.has(Trouble::LobbyOutage));
    let random = Arc::clone(world);
    let deps = Deps {
        runtime: Arc::new(Door {
            inner: Arc::clone(&runtime),
            life: Arc::clone(&life),
            world: Arc::clone(world),
        }) as Arc<dyn Runtime>,
        records: Arc::new(Door {
            inner: Arc::clone(&records),
            life: Arc::clone(&life),
            world: Arc::clone(world),
        }) as Arc<dyn Records>,
        lobby: Arc::new(Door {
            inner: Arc::clone(&lobby),
            life: Arc::clone(&life),
            world: Arc::clone(world),
        }) as Arc<dyn Lobby>,
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        keys: keys()?,
        sdk_url: Some("http://127.0.0.1:8082".into()),
        more_metrics: None,
        tcp: None,
        random: Arc::new(move |bytes| random.fill(bytes)),
        journal: Some(Arc::new(Decisions {
            world: Arc::clone(world),
            life: Arc::clone(&life),
            sessions: Mutex::default(),
        })),
    };
    let server = tokio::select! {
        biased;
        () = life.dead.cancelled() => return None,
        built = build(config(&world.plan), deps) => match built {
            Ok(server) => server,
            Err(e) => {
                world.say("server", &format!("cannot start: {e}"));
                return None;
            }
        },
    };
    let link = Arc::new(SiteLink {
        world: Arc::clone(world),
        life: Arc::clone(&life),
        inner: server.link(),
    }) as Arc<dyn Link>;
    let gateway = (!world.plan.apart).then(|| front(world, Arc::clone(&link)));
    if let Some(front) = gateway.iter().flatten().next() {
        server.audit_gateway(Arc::new(Asked {
            name: front.gateway.name().to_owned(),
            front: Arc::downgrade(front),
        }));
    }
    let site = Arc::new(Site {
        public: server.public_router(),
        admin: server.admin_router(),
        sdk: server.sdk_router(),
        life,
        server,
        link,
        runtime,
        records,
        lobby,
        gateway: gateway.flatten(),
    });
    Some(site)
}

/// A gateway over this link, running.
pub(crate) fn front(world: &Arc<World>, link: Arc<dyn Link>) -> Option<Arc<Front>> {
    let deps = GatewayDeps {
        link,
        keyring: Arc::new(ArcSwap::new(keys()?.ring)),
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        tcp: None,
    };
    let config = GatewayConfig {
        // Where the simulated games are.
        targets: ["127.0.0.0/8", "10.0.0.0/8"]
            .iter()
            .filter_map(|n| n.parse().ok())
            .collect(),
        ..GatewayConfig::default()
    };
    let gateway = Gateway::new(config, deps);
    let stop = CancellationToken::new();
    let (running, stopping) = (gateway.clone(), stop.clone());
    world.tasks.spawn(async move {
        // Cut off where it stands: a process that dies says no farewell.
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = running.run_dry(CancellationToken::new()) => {}
        }
    });
    Some(Arc::new(Front { gateway, stop }))
}

/// A gateway as the audit asks it; not kept alive by being asked, or no world would ever be freed.
struct Asked {
    name: String,
    front: Weak<Front>,
}

impl Tables for Asked {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn tables(&self) -> BoxFuture<'_, Result<GatewayTables, LinkError>> {
        let front = self.front.upgrade();
        Box::pin(async move {
            match front {
                Some(front) => front.gateway.tables().await,
                None => Err(LinkError::Unavailable("it is gone".to_owned())),
            }
        })
    }
}

/// One run of the server, as a gateway reaches it: not at all while the line is down or the run is dead.
pub(crate) struct SiteLink {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
    pub(crate) inner: Arc<dyn Link>,
}

impl SiteLink {
    async fn reach(&self) -> Result<(), LinkError> {
        if self.world.has(Trouble::Link) || self.life.is_dead() {
            return Err(LinkError::Unavailable("the line is down".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Link for SiteLink {
    async fn routes(
        &self,
        from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError> {
        self.reach().await?;
        let routes = self.inner.routes(from).await?;
        let dead = self.life.dead.clone().cancelled_owned();
        let cut = {
            let world = Arc::clone(&self.world);
            async move { world.line_cut().await }
        };
        let ended = futures::future::select(Box::pin(dead), Box::pin(cut));
        Ok(routes.take_until(ended).boxed())
    }

    async fn resolve(&self, session: SessionId) -> Result<Option<Resolved>, LinkError> {
        self.reach().await?;
        self.inner.resolve(session).await
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.reach().await?;
        self.inner.report(report).await
    }
}

/// Whatever run of the server stands, as a gateway of its own reaches it.
pub(crate) struct AnyLink(pub(crate) Arc<World>);

#[async_trait]
impl Link for AnyLink {
    async fn routes(
        &self,
        from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError> {
        self.link()?.routes(from).await
    }

    async fn resolve(&self, session: SessionId) -> Result<Option<Resolved>, LinkError> {
        self.link()?.resolve(session).await
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.link()?.report(report).await
    }
}

impl AnyLink {
    fn link(&self) -> Result<Arc<dyn Link>, LinkError> {
        let site = self.0.site();
        site.map(|s| Arc::clone(&s.link))
            .ok_or_else(|| LinkError::Unavailable("nothing listens".to_owned()))
    }
}

/// The gateway that stands now, of either kind.
#[derive(Default)]
pub(crate) struct Fronts(Mutex<Option<Arc<Front>>>);

impl Fronts {
    pub(crate) fn set(&self, front: Option<Arc<Front>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = front;
    }

    pub(crate) fn get(&self) -> Option<Arc<Front>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
