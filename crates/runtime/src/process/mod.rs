//! The embedded runtime: a game server is a process of this machine, kept by a shim of its own.
//!
//! The state directory plays the part that pods play elsewhere: it is the only record of what is live. The shim is the parent of
//! the game and outlives us, so a killed and restarted owner finds its games running, and those that ended with their true exit.
//! What a session is, who plays and when it ends is not known here. Linux is complete; elsewhere there are no limits, and a
//! process that leaves the game's group is not found again. This is no security boundary: games run as the caller's user.
//!
//! Files: `shim` and `output` are the shim's side; `pages`, `record` and `state_dir` what both sides read; `entry` the view of
//! one instance and its decisions; `shared`, `operations`, `supervise`, `start`, `gone` and `holdings` our side; `ports`, `listeners`,
//! `tree`, `cgroup` and `sys` the machine.

mod cgroup;
mod entry;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gone;
mod holdings;
mod launch;
mod listeners;
mod log_reader;
mod operations;
mod output;
mod pages;
mod ports;
mod record;
mod shared;
pub mod shim;
mod start;
mod state_dir;
mod supervise;
mod sys;
mod tree;

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use spawnpoint_core::audit::Holding;
use spawnpoint_core::{Clock, Code, InstanceId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

pub use cgroup::{GroupVersion, LimitSupport, LimitsReport, limits_available};
#[cfg(target_os = "macos")]
pub(crate) use sys::boot_time;

use crate::clock::SystemClock;
use crate::contract::{
    Change, Facts, Instance, LogRange, LogStream, Order, Runtime, RuntimeError, Version,
};
use shared::Shared;

/// Ports given to instances: outside the ephemeral range of Linux (32768-60999) and of Kubernetes' NodePorts.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 20_000..=24_999;
/// How long a released port rests. Longer than a reconnecting client insists; short enough for 300 starts a second.
pub const DEFAULT_QUARANTINE: Duration = Duration::from_secs(15);
/// Size of one log file of an instance, bytes; two are kept.
pub const DEFAULT_LOG_BYTES: u64 = 1024 * 1024;
/// Changes a watcher may be behind before it is told everything again.
const WATCH_BACKLOG: usize = 1_024;

/// Where the owner is in a start; tests kill it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerStep {
    /// The order is durable, no shim is started.
    Recorded,
    /// The shim's process exists.
    ShimStarted,
}

impl OwnerStep {
    pub(crate) const fn point(self) -> &'static str {
        match self {
            Self::Recorded => "launch.recorded",
            Self::ShimStarted => "launch.started",
        }
    }
}

/// Called at each [`OwnerStep`].
pub type Observer = Arc<dyn Fn(InstanceId, OwnerStep) + Send + Sync>;

/// What a process runtime needs to know.
#[derive(Clone)]
pub struct ProcessConfig {
    /// Its state directory; made private (0700) if need be.
    pub state_dir: PathBuf,
    /// What runs [`shim::main`] with the instance directory as its last argument: `[<own executable>, "shim"]`.
    pub shim_command: Vec<OsString>,
    /// Ports for instances without a port of their own.
    pub ports: RangeInclusive<u16>,
    /// How long a port rests after its instance was forgotten.
    pub port_quarantine: Duration,
    /// Size of one log file, bytes; two are kept per instance.
    pub log_bytes: u64,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For crash tests; `None` in a product.
    pub observer: Option<Observer>,
}

impl ProcessConfig {
    /// The defaults, for this state directory and shim.
    #[must_use]
    pub fn new(state_dir: PathBuf, shim_command: Vec<OsString>) -> Self {
        Self {
            state_dir,
            shim_command,
            ports: DEFAULT_PORTS,
            port_quarantine: DEFAULT_QUARANTINE,
            log_bytes: DEFAULT_LOG_BYTES,
            clock: Arc::new(SystemClock::new()),
            observer: None,
        }
    }
}

impl fmt::Debug for ProcessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessConfig")
            .field("state_dir", &self.state_dir)
            .field("shim_command", &self.shim_command)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

/// Why a state directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody has it.
    #[error(
        "the state directory {} is in use by {}; stop it or choose another with --state-dir",
        path.display(), pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"))
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its holder, if it said.
        pid: Option<u32>,
    },
    /// It cannot be read or written.
    #[error("cannot use the state directory {}", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A newer release wrote to it.
    #[error("{} was written by a newer release (version {version}); use that release, or another --state-dir", path.display())]
    NewerVersion {
        /// The instance directory.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// The configuration names no shim.
    #[error("no shim command is configured")]
    NoShim,
    /// Called outside an async executor.
    #[error("a process runtime must be opened inside a tokio runtime")]
    NoExecutor,
}

impl OpenError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "state_locked",
            Self::NewerVersion { .. } => "state_newer",
            Self::Directory { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Code::StorageFull.as_str()
            }
            Self::Directory { .. } => "state_unusable",
            Self::NoShim | Self::NoExecutor => Code::Internal.as_str(),
        }
    }
}

/// Instances as processes of this machine. Dropping it (or `kill -9`) leaves the games running: ending them is the caller's
/// decision, by [`Runtime::stop`].
pub struct ProcessRuntime {
    shared: Arc<Shared>,
}

impl fmt::Debug for ProcessRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessRuntime").finish_non_exhaustive()
    }
}

impl ProcessRuntime {
    /// Takes the state directory and adopts what is in it: running games go on, those that ended meanwhile are listed with their
    /// exit, orders whose start was cut off are started. Reads and writes files; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The directory is somebody else's, not usable, or of a newer release.
    pub fn open(config: ProcessConfig) -> Result<Arc<Self>, OpenError> {
        if config.shim_command.is_empty() {
            return Err(OpenError::NoShim);
        }
        tokio::runtime::Handle::try_current().map_err(|_| OpenError::NoExecutor)?;
        let shared = Shared::open(config)?;
        Ok(Arc::new(Self { shared }))
    }

    /// Lets go: watches end, nothing is supervised any more, and when this returns the state directory is free. Games run on.
    pub async fn shutdown(&self) {
        self.shared.shutdown().await;
    }

    /// Runs a short piece of file work off the executor's threads, to its end whether or not the caller stays.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        if shared.is_closed() {
            return Err(RuntimeError::OutcomeUnknown(
                "the runtime is shut down".into(),
            ));
        }
        let tasks = self.shared.tasks();
        tasks
            .spawn_blocking(move || work(&shared))
            .await
            .unwrap_or_else(|e| Err(RuntimeError::OutcomeUnknown(e.to_string())))
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn order(&self, order: Order) -> Result<Instance, RuntimeError> {
        self.blocking(move |s| s.order(order)).await
    }

    async fn release(&self, id: InstanceId, expect: Version) -> Result<Version, RuntimeError> {
        self.blocking(move |s| s.release(id, expect)).await
    }

    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        self.blocking(move |s| s.bind(id, expect, &facts, session_file.as_ref()))
            .await
    }

    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        self.blocking(move |s| s.restart(id, expect, session_file.as_ref()))
            .await
    }

    async fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError> {
        self.blocking(move |s| s.mark_ready(id)).await
    }

    async fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError> {
        self.blocking(move |s| s.stop(id, expect, grace)).await
    }

    async fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError> {
        self.blocking(move |s| s.forget(id, expect)).await
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        Ok(self.shared.list())
    }

    async fn holdings(&self) -> Result<Vec<Holding>, RuntimeError> {
        self.blocking(|s| s.holdings()).await
    }

    async fn get(&self, id: InstanceId) -> Result<Instance, RuntimeError> {
        self.shared.get(id).ok_or(RuntimeError::NotFound)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, RuntimeError> {
        // Subscribed before the first look: a change in between is said twice rather than never.
        let changes = self.shared.subscribe();
        let closed = self.shared.closed();
        let source = Arc::downgrade(&self.shared);
        let start = (changes, source, true);
        let all = |s: &Shared| Change::All(s.list());
        Ok(
            stream::unfold(start, move |(mut changes, source, first)| async move {
                let change = if first {
                    all(&*source.upgrade()?)
                } else {
                    match changes.recv().await {
                        Ok(id) => source.upgrade()?.change(id),
                        Err(RecvError::Lagged(_)) => {
                            // Everything is said now, so what is still queued need not be.
                            changes = changes.resubscribe();
                            all(&*source.upgrade()?)
                        }
                        Err(RecvError::Closed) => return None,
                    }
                };
                Some((change, (changes, source, false)))
            })
            .take_until(closed)
            .boxed(),
        )
    }

    async fn logs(&self, id: InstanceId, range: LogRange) -> Result<LogStream, RuntimeError> {
        log_reader::open(&self.shared, id, range).await
    }

    async fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        self.blocking(move |s| s.results(id)).await
    }
}

/// The channel of changes: only ids travel, so that a late reader sees the present and not the past.
fn changes() -> broadcast::Sender<InstanceId> {
    broadcast::Sender::new(WATCH_BACKLOG)
}
