//! What the operator asked for. Parsed whole, every error collected, nothing bound or started.
//!
//! [`parse`] reads a file, variables and flags by the one table of keys in `keys`, from which `docs/configuration.md` is printed too.

mod assemble;
mod convert;
mod error;
mod fleets;
mod keys;
mod queues;
mod read;
mod reference;
pub(crate) mod units;
mod value;

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;

pub use assemble::{Parsed, default_state_home, parse, unknown_variables};
pub use error::{ConfigError, ErrorKind, Origin};
pub use read::{Overrides, Setting};
pub use reference::reference;
pub use units::{MAX_DURATION, parse_duration, show_duration};
pub use value::MAX_FILE;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::Policy;
use spawnpoint_core::matching::Rules;
use spawnpoint_runtime::Template;
use spawnpoint_wire::access::Access;
use spawnpoint_wire::tcp::TcpTerms;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `[server]`.
    pub server: ServerConfig,
    /// Each `[[fleet]]`, in the order of the file: the first is new-game's default.
    pub fleets: Vec<Arc<FleetConfig>>,
    /// Each `[[queue]]` in the order of the file, then the queue of its own name of each fleet that has no other of that name.
    pub queues: Vec<Arc<QueueConfig>>,
}

/// One `[[queue]]`: where players wait for a match.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// Its name; the fleet's unless named.
    pub name: FleetName,
    /// The fleet its matches are played on.
    pub fleet: FleetName,
    /// What a match needs.
    pub rules: Rules,
    /// Regions that tickets may name; their place here is their number in the rules.
    pub regions: Vec<String>,
    /// Most tickets that wait.
    pub max_tickets: usize,
    /// A ticket that nobody has asked after for this long is dropped.
    pub unattended: Duration,
    /// Matches of one ticket that failed to start in a row until it is given up.
    pub max_failures: u32,
}

/// Section `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Gateway, player API and `/play`. Default 127.0.0.1:8080 and [::1]:8080.
    pub public: Vec<SocketAddr>,
    /// Everything, for operators. Default 127.0.0.1:8081 and [::1]:8081.
    pub admin: Vec<SocketAddr>,
    /// For instances. Default 127.0.0.1:8082 and [::1]:8082.
    pub sdk: Vec<SocketAddr>,
    /// How players reach the public listener (`https://games.example.com`); by default the request's own `Host`.
    pub public_url: Option<String>,
    /// Host names answered to, besides loopback names and that of `public_url`.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages that may call, besides the server's own.
    pub allowed_origins: Vec<String>,
    /// Backend keys. None on loopback is dev mode: every local caller counts as a backend.
    pub keys: Vec<ApiKey>,
    /// Strangers may start games; the server mints their ids.
    pub guests: bool,
    /// Where instances, records and keys are kept.
    pub state_dir: PathBuf,
    /// First and last port given to instances.
    pub instance_ports: (u16, u16),
    /// First and last port that the gateway listens at for TCP sessions, one each.
    pub tcp_ports: (u16, u16),
    /// How long match records are kept.
    pub retention: Duration,
    /// Bytes of the journal of decisions that are kept; `None` writes none.
    pub decision_log: Option<u64>,
    /// Live sessions one backend key may have; `None` is unlimited.
    pub sessions_per_key: Option<u32>,
    /// Starts a minute that one address may make as a guest.
    pub guest_starts_per_minute: u32,
    /// Names this server in records and logs.
    pub name: String,
}

/// A backend key. The secret never leaves this struct in any log or reply.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// For logs, quotas and idempotency.
    pub name: String,
    /// At least 16 characters.
    pub secret: String,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("secret", &"(hidden)")
            .finish()
    }
}

/// One `[[fleet]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetConfig {
    /// Its name.
    pub name: FleetName,
    /// How to run one instance.
    pub template: Template,
    /// Warm instances wanted.
    pub warm: u32,
    /// A server that must have everything in its environment is never started before it is needed (`warm = "none"`).
    pub warm_allowed: bool,
    /// Warm instances older than this are renewed.
    pub warm_max_age: Option<Duration>,
    /// Most instances of any kind.
    pub max_instances: Option<u32>,
    /// The lifecycle numbers.
    pub policy: Arc<Policy>,
    /// How players reach an instance.
    pub expose: Expose,
    /// What holds for connections of a TCP game through the gateway.
    pub tcp: TcpTerms,
    /// Guests may start sessions of this fleet (where the server allows guests at all).
    pub guests: bool,
    /// Shown to people and kept with nothing: free text labels.
    pub labels: BTreeMap<String, String>,
}

/// How players reach an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    /// Through the gateway, under one URL that never changes.
    Gateway,
    /// At the instance's own port.
    HostPort,
}

impl ServerConfig {
    /// A server of this name on loopback, with every default and no directory: for worlds that are assembled by hand, where nothing listens
    /// and nothing is stored (tests, the simulation, benchmarks).
    #[must_use]
    pub fn in_memory(name: &str) -> Self {
        let local = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        Self {
            public: local(8080),
            admin: local(8081),
            sdk: local(8082),
            public_url: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            keys: Vec::new(),
            guests: false,
            state_dir: "unused".into(),
            instance_ports: (20_000, 24_999),
            tcp_ports: (25_000, 27_999),
            retention: Duration::from_secs(30 * 86_400),
            decision_log: None,
            sessions_per_key: None,
            guest_starts_per_minute: 30,
            name: name.to_owned(),
        }
    }

    /// Whether every local caller counts as a backend: no keys, no guests, and nothing but loopback is bound.
    #[must_use]
    pub fn dev_mode(&self) -> bool {
        self.keys.is_empty()
            && !self.guests
            && self
                .public
                .iter()
                .chain(&self.admin)
                .all(|a| a.ip().is_loopback())
    }
}

impl ServerConfig {
    /// Which hosts and origins are answered to. The gateway uses the same.
    #[must_use]
    pub fn access(&self) -> Access {
        let mut hosts: Vec<String> = self
            .allowed_hosts
            .iter()
            .map(|h| h.to_ascii_lowercase())
            .collect();
        let mut origins: Vec<String> = self
            .allowed_origins
            .iter()
            .map(|o| o.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        if let Some((scheme, rest)) = self.public_url.as_deref().and_then(|u| u.split_once("://")) {
            let authority = rest.split('/').next().unwrap_or("").to_ascii_lowercase();
            let host = authority
                .rsplit_once(':')
                .map_or(authority.as_str(), |(h, _)| h)
                .trim_matches(['[', ']']);
            hosts.push(host.to_owned());
            origins.push(format!(
                "{}://{authority}",
                if matches!(scheme, "https" | "wss") {
                    "https"
                } else {
                    "http"
                }
            ));
        }
        Access {
            hosts,
            origins,
            loopback_origins: self.dev_mode(),
        }
    }
}

impl Config {
    /// The fleet of this name.
    #[must_use]
    pub fn fleet(&self, name: &FleetName) -> Option<&Arc<FleetConfig>> {
        self.fleets.iter().find(|f| f.name == *name)
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &FleetName) -> Option<&Arc<QueueConfig>> {
        self.queues.iter().find(|q| q.name == *name)
    }

    /// The queue of a join that names none: the first one of the first fleet.
    #[must_use]
    pub fn default_queue(&self) -> Option<&Arc<QueueConfig>> {
        let fleet = &self.fleets.first()?.name;
        self.queues.iter().find(|q| q.fleet == *fleet)
    }
}

impl FleetConfig {
    /// Whether `/play` plays it: that page speaks with the bundled game and no other.
    #[must_use]
    pub fn has_page(&self) -> bool {
        let program = self.template.command.first();
        program.is_some_and(|p| p.rsplit('/').next() == Some("spice"))
    }

    /// A fleet that runs this command, with every default and nothing warm.
    #[must_use]
    pub fn plain(name: FleetName, command: Vec<String>, policy: Policy) -> Self {
        Self {
            name,
            template: Template {
                command,
                env: BTreeMap::new(),
                inherit_env: false,
                workdir: None,
                cpu_millis: None,
                memory_bytes: None,
                protocol: spawnpoint_runtime::Protocol::WebSocket,
                ready: spawnpoint_runtime::ReadyRule::Dial,
                fixed_port: None,
                host_port: false,
            },
            warm: 0,
            warm_allowed: true,
            warm_max_age: None,
            max_instances: None,
            policy: Arc::new(policy),
            expose: Expose::Gateway,
            tcp: TcpTerms::default(),
            guests: false,
            labels: BTreeMap::new(),
        }
    }

    /// Stands in for a fleet that is gone from the configuration while sessions of it live: default numbers, nothing new.
    #[must_use]
    pub fn orphan(name: FleetName) -> Self {
        let policy = Policy {
            on_crash: spawnpoint_core::lifecycle::OnCrash::End,
            ..Policy::default()
        };
        Self {
            warm_allowed: false,
            ..Self::plain(name, Vec::new(), policy)
        }
    }
}
