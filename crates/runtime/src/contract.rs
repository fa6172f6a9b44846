//! The trait every runtime implements, and what its words mean.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use spawnpoint_core::audit::Holding;
use spawnpoint_core::session::Exit;
use spawnpoint_core::{Code, Coded, FleetName, InstanceId, Moment, Retry, SessionId, Side};

/// How to run one kind of game server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Program and arguments. `$(PORT)`, `$(SESSION_ID)` and `$(NAME)` of any variable given are expanded in arguments.
    pub command: Vec<String>,
    /// Variables given on top of the base environment.
    pub env: BTreeMap<String, String>,
    /// Inherit the caller's environment (less `SPAWNPOINT_*`, `DATABASE_URL`, `REDIS_*`) instead of PATH, HOME and LANG only.
    pub inherit_env: bool,
    /// Working directory; the instance's own directory when `None`.
    pub workdir: Option<PathBuf>,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// What the game speaks on its port.
    pub protocol: Protocol,
    /// How it is known to be ready.
    pub ready: ReadyRule,
    /// A port the game insists on; otherwise one of the managed range.
    pub fixed_port: Option<u16>,
    /// Whether the instance's own port is what players dial (`expose = "hostPort"`): bound for other machines to reach.
    pub host_port: bool,
}

impl Template {
    /// A name for exactly this template: equal templates have equal names, across processes and versions of one release.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a over the debug form: stable for one release, and a change of release renews the warm pool, which is wanted.
        format!("{self:?}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
            })
    }
}

/// What travels between player and game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket over HTTP/1.1.
    WebSocket,
    /// Plain HTTP/1.1 (may upgrade).
    Http,
    /// Raw TCP.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// How an instance is known to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyRule {
    /// The port is bound by the instance's own process group and accepts (TCP) or is bound (UDP).
    Dial,
    /// `GET` of this path answers 2xx or 3xx, on a port owned as under `Dial`.
    Http(String),
    /// A line of its output contains this text.
    Log(String),
    /// It says so itself (`POST /v1/ready`), told to the runtime by [`Runtime::mark_ready`].
    Sdk,
    /// As soon as it runs.
    None,
}

/// Facts that must survive any restart, kept with the instance. The runtime does not read the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The session it is bound to.
    pub session: SessionId,
    /// Everything else, in a versioned form of the caller's own (at most 64 KiB).
    pub document: String,
}

/// An order for one instance.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id, chosen by the caller: ordering the same id again returns what is there.
    pub id: InstanceId,
    /// The fleet it is for.
    pub fleet: FleetName,
    /// How to run it.
    pub template: Template,
    /// Hold its place without running it until [`Runtime::release`].
    pub gated: bool,
    /// Bound to a session from the start.
    pub facts: Option<Facts>,
    /// The session file's content, if bound (`SPAWNPOINT_SESSION_FILE`).
    pub session_file: Option<Bytes>,
    /// Environment only this instance gets (SDK token, public keys, `SESSION_ID`).
    pub env: BTreeMap<String, String>,
}

/// Counts writes to an instance's durable state; every write needs the one it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Holds a place, does not run.
    Gated,
    /// Runs, does not accept yet.
    Starting,
    /// Accepts.
    Ready,
    /// Was told to stop.
    Stopping,
    /// Is over; its log, results and facts remain until [`Runtime::forget`].
    Exited(Exit),
    /// Nobody can say (its supervisor cannot be reached); it may well be serving players.
    Unknown {
        /// Since when.
        since: Moment,
    },
}

/// When the steps of a start happened, as far as they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The order was taken (durable).
    pub ordered_at: Option<Moment>,
    /// Released to run (equal to `ordered_at` unless gated).
    pub released_at: Option<Moment>,
    /// The image was there; equal to `released_at` for processes.
    pub pulled_at: Option<Moment>,
    /// The process was started.
    pub spawned_at: Option<Moment>,
    /// It accepted.
    pub ready_at: Option<Moment>,
}

/// One instance as seen now.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its fleet.
    pub fleet: FleetName,
    /// [`Template::fingerprint`] of what it runs.
    pub template: u64,
    /// Of its durable state.
    pub version: Version,
    /// What it is doing.
    pub state: State,
    /// Its durable facts; `None` is unclaimed (warm).
    pub facts: Option<Facts>,
    /// Where the game listens, once known.
    pub address: Option<SocketAddr>,
    /// How often it was started in place.
    pub restarts: u32,
    /// How its start went.
    pub timings: Timings,
    /// Its process or pod name, for people.
    pub label: String,
}

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Change {
    /// Everything there is; what is not in it is gone. Always the first, and again after anything was missed.
    All(Vec<Instance>),
    /// One instance as it is now.
    One(Box<Instance>),
    /// One instance was forgotten.
    Gone(InstanceId),
}

/// Which part of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRange {
    /// At most this many of the last bytes; all that is kept when `None`.
    pub tail_bytes: Option<u64>,
    /// Go on with what is written later, until the instance is over.
    pub follow: bool,
}

/// A log as a stream of chunks.
pub type LogStream = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// Why a runtime could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No instance of this id (never, or forgotten).
    #[error("no such instance")]
    NotFound,
    /// The instance has changed since the version the caller saw. Look again.
    #[error("the instance has changed meanwhile")]
    Conflict,
    /// It is over or being stopped, so it cannot be claimed, released or restarted.
    #[error("the instance is over")]
    Over,
    /// No port of the managed range is free.
    #[error(
        "no port of the managed range {from}-{to} is free; end sessions or widen instance_ports"
    )]
    PortsExhausted {
        /// First port of the range.
        from: u16,
        /// Last port of the range.
        to: u16,
    },
    /// The template cannot be run.
    #[error("cannot run {what}")]
    Start {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Durable state could not be written. Nothing was started or changed.
    #[error("cannot write the instance's state")]
    Storage(#[source] std::io::Error),
    /// Whether it was done is not known (a timed-out or cut call). Look, do not repeat blindly.
    #[error("the outcome is not known: {0}")]
    OutcomeUnknown(String),
    /// The log is not kept any more.
    #[error("no log is kept for the instance")]
    NoLog,
    /// What this runtime cannot do at all.
    #[error("this runtime cannot {0}")]
    Unsupported(&'static str),
}

impl RuntimeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound => Code::SessionNotFound,
            Self::Conflict | Self::OutcomeUnknown(_) => Code::Unknown,
            Self::Over => Code::SessionEnded,
            Self::PortsExhausted { .. } => Code::PortsExhausted,
            Self::Start { .. } => Code::StartFailed,
            Self::Storage(e) if e.kind() == std::io::ErrorKind::StorageFull => Code::StorageFull,
            Self::Storage(_) => Code::StorageFull,
            Self::NoLog => Code::LogNotFound,
            Self::Unsupported(_) => Code::InvalidField,
        }
    }

    /// Whose side it is on.
    #[must_use]
    pub fn side(&self) -> Side {
        self.code().side()
    }

    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code().retry()
    }
}

impl Coded for RuntimeError {
    fn code(&self) -> Code {
        Self::code(self)
    }
}

/// What starts, watches and stops instances.
///
/// Semantics that every implementation keeps and the conformance suite checks:
/// * Durable first: when `order`, `bind` or `release` returns, a `kill -9` of the caller loses nothing of it.
/// * Compare and set: `bind`, `release`, `restart`, `stop` and `forget` act only on the version given, else [`RuntimeError::Conflict`].
///   [`RuntimeError::OutcomeUnknown`] means exactly that. Only these writes change a version: getting ready and exiting do not.
/// * An instance that is over cannot be claimed: a claim never lands on a dead one that the runtime knows to be dead. Being over (or
///   stopping) is said before a stale version is: `bind` and `release` answer [`RuntimeError::Over`] whatever the version.
/// * Whose it is may go on writing: `bind` with the session that is bound already works until `forget`, also on an instance that is
///   over. An end that is asked for when the game has just died must not be forgotten with the caller.
/// * Exits are kept: an exited instance is listed, with its true exit, until `forget`.
/// * Nothing is orphaned: what `stop` was told to stop is gone, with every process it forked, after the grace.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Starts (or gates) an instance. Idempotent by id: a second order of the same id returns the first's instance.
    /// Returns as soon as the order is durable; the start goes on by itself and shows in the watch.
    async fn order(&self, order: Order) -> Result<Instance, RuntimeError>;

    /// Lets a gated instance run.
    async fn release(&self, id: InstanceId, expect: Version) -> Result<Version, RuntimeError>;

    /// Replaces the durable facts, and the session file if one is given: this is a claim when there were none, or another session's.
    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError>;

    /// Starts an exited instance again in its place: same id, port, directory and facts (not on Kubernetes).
    /// [`RuntimeError::Conflict`] while it is not over; [`RuntimeError::Over`] if it never had a place.
    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError>;

    /// The instance said that it is ready (rule `sdk`). Harmless when it is ready already or is over.
    async fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError>;

    /// Begins to stop it: SIGTERM, then after `grace` SIGKILL of everything it forked. Returns once that is certain to happen.
    /// Stopping what is stopping or over is harmless: it returns the version, whatever the one given, and changes nothing, except
    /// that a shorter grace brings the end of what is stopping forward.
    async fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError>;

    /// Removes what is left of an exited instance. Its port may be used again after the quarantine.
    /// [`RuntimeError::Conflict`] while it is not over.
    async fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError>;

    /// Everything there is.
    async fn list(&self) -> Result<Vec<Instance>, RuntimeError>;

    /// What is kept for instances (ports given out, directories, logs, processes): at least everything that belongs to none that is
    /// listed. For an audit: it may look at the whole machine, takes its time, and changes nothing.
    async fn holdings(&self) -> Result<Vec<Holding>, RuntimeError>;

    /// One instance.
    async fn get(&self, id: InstanceId) -> Result<Instance, RuntimeError>;

    /// Everything there is, then each change. Ends only with the runtime; a slow reader gets [`Change::All`] again instead of a gap.
    async fn watch(&self) -> Result<BoxStream<'static, Change>, RuntimeError>;

    /// Its output, stdout and stderr as they came.
    async fn logs(&self, id: InstanceId, range: LogRange) -> Result<LogStream, RuntimeError>;

    /// What it left in its results file; `None` when it left nothing. At most [`spawnpoint_core::limits::MAX_RESULTS`] + 1 bytes are read.
    async fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError>;
}
