//! A runtime that only pretends: for tests, simulation and planning.
//!
//! It keeps every promise of [`Runtime`] with no process behind it. Time is tokio's (it runs under paused time), moments come from
//! the [`Clock`] given, chance from the seed; nothing else decides, so a run can be repeated. What a game does is said by its
//! template (see [`Script`]); what befalls it, by the hooks ([`SimulatedRuntime::crash`] and the rest).
//!
//! "Durable" here means that it survives its owner: [`SimulatedRuntime::reopen`] is a `kill -9` of the owner and a new start.

mod echo;
mod hooks;
mod log;
mod passing;
mod ports;
mod script;
mod world;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use spawnpoint_core::audit::Holding;
use spawnpoint_core::limits::MAX_RESULTS;
use spawnpoint_core::{Clock, InstanceId};
use tokio::sync::broadcast::error::RecvError;

pub use echo::EchoServer;
pub use script::{End, Script, Span};

use crate::{Change, Facts, Instance, LogRange, LogStream, Order, Runtime, RuntimeError, Version};
use world::World;

/// How the simulated world is.
#[derive(Clone, Debug)]
pub struct SimulatedConfig {
    /// Everything drawn is drawn from this.
    pub seed: u64,
    /// From the start of a process to accepting, where its script does not say.
    pub boot: Span,
    /// How long a game runs before it ends by itself, where its script does not say; `None` is for ever.
    pub life: Option<Span>,
    /// Of those that end by themselves, how many thousandths crash (the others exit 0).
    pub crashes: u16,
    /// The managed port range: its size bounds the instances there can be. `None` is unbounded.
    pub ports: Option<RangeInclusive<u16>>,
    /// How long a port rests after its instance was forgotten.
    pub quarantine: Duration,
    /// Every instance has this address (of an [`EchoServer`], for instance); else each has one of its own where nothing listens.
    pub listen: Option<SocketAddr>,
    /// Whether [`Runtime::restart`] works (as with processes) or not (as with pods).
    pub restarts: bool,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            boot: Span::Fixed(Duration::from_millis(50)),
            life: None,
            crashes: 0,
            ports: None,
            quarantine: Duration::from_secs(5),
            listen: None,
            restarts: true,
        }
    }
}

/// A handle on a simulated world. Dropping the last one ends the world.
#[derive(Clone, Debug)]
pub struct SimulatedRuntime {
    world: Arc<World>,
    owner: u64,
}

impl SimulatedRuntime {
    /// A new world. Must be called within a tokio runtime, whose timers drive it.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, config: SimulatedConfig) -> Self {
        let (world, owner) = World::start(clock, config);
        Self { world, owner }
    }

    /// The owner died without a word and a new one opens the same world. Games go on running meanwhile; every older handle is
    /// dead: its watches end and its calls fail as outcome-unknown.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            world: self.world.clone(),
            owner: self.world.change_owner(),
        }
    }

    fn alive(&self) -> Result<(), RuntimeError> {
        if self.world.is_owner(self.owner) {
            Ok(())
        } else {
            Err(RuntimeError::OutcomeUnknown(
                "this handle's owner has died".to_owned(),
            ))
        }
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    async fn order(&self, order: Order) -> Result<Instance, RuntimeError> {
        self.alive()?;
        self.world.order(order)
    }

    async fn release(&self, id: InstanceId, expect: Version) -> Result<Version, RuntimeError> {
        self.alive()?;
        self.world.release(id, expect)
    }

    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        self.alive()?;
        self.world.bind(id, expect, facts, session_file)
    }

    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        self.alive()?;
        self.world.restart(id, expect, session_file)
    }

    async fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError> {
        self.alive()?;
        self.world.mark_ready(id)
    }

    async fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError> {
        self.alive()?;
        self.world.stop(id, expect, grace)
    }

    async fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError> {
        self.alive()?;
        self.world.forget(id, expect)
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        self.alive()?;
        Ok(self.world.list())
    }

    async fn holdings(&self) -> Result<Vec<Holding>, RuntimeError> {
        self.alive()?;
        Ok(self.world.holdings())
    }

    async fn get(&self, id: InstanceId) -> Result<Instance, RuntimeError> {
        self.alive()?;
        self.world.get(id)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, RuntimeError> {
        self.alive()?;
        let (all, receiver) = self.world.subscribe();
        // Weak: a watch must not keep alive the world whose end it reports.
        let state = (receiver, Arc::downgrade(&self.world));
        let rest = stream::unfold(state, |(mut receiver, world)| async move {
            match receiver.recv().await {
                Ok(change) => Some((change, (receiver, world))),
                Err(RecvError::Closed) => None,
                Err(RecvError::Lagged(_)) => {
                    let (all, receiver) = world.upgrade()?.resubscribe(&receiver)?;
                    Some((Change::All(all), (receiver, world)))
                }
            }
        });
        Ok(Box::pin(
            stream::once(async { Change::All(all) }).chain(rest),
        ))
    }

    async fn logs(&self, id: InstanceId, range: LogRange) -> Result<LogStream, RuntimeError> {
        self.alive()?;
        self.world.log(id).map(|log| log.read(range))
    }

    async fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        self.alive()?;
        let results = self.world.results(id)?;
        // One byte more than is allowed, so that the caller can tell too much from just enough.
        Ok(results.map(|r| r.slice(..r.len().min(MAX_RESULTS + 1))))
    }
}
