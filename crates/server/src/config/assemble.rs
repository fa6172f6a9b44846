//! From a file, variables and flags to [`Config`]: the sections, and `[server]`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use spawnpoint_core::FleetName;

use super::error::{ConfigError, ErrorKind, Origin, nearest};
use super::fleets::read_fleets;
use super::keys::{Meta, fleet, queue, server};
use super::queues::read_queues;
use super::read::{Overrides, Reader, Section, Setting};
use super::value::{Value, parse_file};
use super::{Config, ServerConfig};

/// A configuration with the story of each value.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What holds.
    pub config: Config,
    /// Each setting and who said so, in the order of the documentation.
    pub settings: Vec<Setting>,
}

impl Parsed {
    /// Each setting and who said so, as lines of text for people; secrets hidden.
    #[must_use]
    pub fn describe_sources(&self) -> Vec<String> {
        self.settings
            .iter()
            .map(|s| format!("{} = {} ({})", s.path, s.value, s.origin))
            .collect()
    }
}

/// Parses a configuration: flag over variable over file over default.
///
/// `file` is the text of `spawnpoint.toml` (empty when there is none), `env` looks a variable up.
///
/// # Errors
/// Every error there is, each with its key, value, place and what is allowed. Nothing was bound or started.
pub fn parse(
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
    overrides: &Overrides,
) -> Result<Parsed, Vec<ConfigError>> {
    let mut reader = Reader::new(env, overrides);
    let top = parse_file(file, &mut reader.errors);
    let broken = !reader.errors.is_empty();
    let mut server_pairs = Vec::new();
    let mut fleet_nodes = Vec::new();
    let mut queue_nodes = Vec::new();
    for (written, node) in top {
        match (written.as_str(), node.value) {
            ("server", Value::Table(pairs)) => server_pairs = pairs,
            ("fleet", Value::List(nodes)) => fleet_nodes = nodes,
            ("queue", Value::List(nodes)) => queue_nodes = nodes,
            ("fleet", Value::Table(pairs)) => {
                let hint = if pairs.iter().any(|(k, _)| k == "name" || k == "run") {
                    "[[fleet]]"
                } else {
                    "[[fleet]] with name = \"...\""
                };
                reader.errors.push(top_error(
                    ErrorKind::Invalid,
                    "fleet",
                    node.line,
                    format!("there can be several: write {hint}"),
                ));
            }
            ("queue", _) => reader.errors.push(top_error(
                ErrorKind::Invalid,
                "queue",
                node.line,
                "must be a list of tables: [[queue]]".into(),
            )),
            ("server", _) => reader.errors.push(top_error(
                ErrorKind::Invalid,
                "server",
                node.line,
                "must be a table: [server]".into(),
            )),
            ("fleet", _) => reader.errors.push(top_error(
                ErrorKind::Invalid,
                "fleet",
                node.line,
                "must be a list of tables: [[fleet]]".into(),
            )),
            (other, _) => {
                let shown: String = other.escape_debug().take(64).collect();
                let problem = match nearest(other, ["server", "fleet", "queue"]) {
                    Some(n) => format!("is not a known section; did you mean {n:?}?"),
                    None if server::ALL.iter().any(|m| m.name == other) => {
                        "stands outside of any section: move it below [server]".into()
                    }
                    None if fleet::ALL.iter().any(|m| m.name == other) => {
                        "stands outside of any section: move it below [[fleet]]".into()
                    }
                    None if queue::ALL.iter().any(|m| m.name == other) => {
                        "stands outside of any section: move it below [[queue]]".into()
                    }
                    None => {
                        "is not a known section; known are [server], [[fleet]] and [[queue]]".into()
                    }
                };
                reader
                    .errors
                    .push(top_error(ErrorKind::UnknownKey, &shown, node.line, problem));
            }
        }
    }
    let prefixes = vec!["SPAWNPOINT_SERVER".to_owned()];
    let section = reader.open("server", prefixes, &server_pairs, server::ALL);
    let server_config = read_server(&mut reader, &section);
    let fleets = read_fleets(&mut reader, fleet_nodes, server_config.as_ref());
    let queues = read_queues(&mut reader, queue_nodes, &fleets);
    if fleets.is_empty() && reader.errors.is_empty() {
        reader.errors.push(ConfigError {
            kind: ErrorKind::Missing,
            path: "fleet".into(),
            origin: Origin::Default,
            value: None,
            problem: "there is no fleet, so nothing could be played: add [[fleet]] with a name and run = { command = [...] }".into(),
        });
    }
    if broken {
        quiet_noise(&mut reader.errors);
    }
    match server_config {
        Some(server) if reader.errors.is_empty() => Ok(Parsed {
            config: Config {
                server,
                fleets,
                queues,
            },
            settings: reader.settings,
        }),
        _ => Err(reader.errors),
    }
}

/// What a syntax error leaves behind (half-read values on its line, keys that were cut off, the parser's own further guesses)
/// would hide the one thing to mend.
fn quiet_noise(errors: &mut Vec<ConfigError>) {
    // A set: a file that is no TOML at all has an error on every line.
    let mut broken_lines = BTreeSet::new();
    errors.retain(|e| match (&e.kind, &e.origin) {
        (ErrorKind::Syntax, Origin::File { line }) => broken_lines.insert(*line),
        (ErrorKind::Missing, _) => false,
        (_, Origin::File { line }) => !broken_lines.contains(line),
        _ => true,
    });
}

pub(super) fn top_error(kind: ErrorKind, path: &str, line: usize, problem: String) -> ConfigError {
    ConfigError {
        kind,
        path: path.to_owned(),
        origin: Origin::File { line },
        value: None,
        problem,
    }
}

/// `None` only when there are errors.
fn read_server(r: &mut Reader<'_>, s: &Section) -> Option<ServerConfig> {
    let (host, port) = (r.get(s, &server::HOST), r.get(s, &server::PORT_PUBLIC));
    let (admin_host, admin_port) = (r.get(s, &server::ADMIN_HOST), r.get(s, &server::ADMIN_PORT));
    let (sdk_host, sdk_port) = (r.get(s, &server::SDK_HOST), r.get(s, &server::SDK_PORT));
    let public_url = r.get(s, &server::PUBLIC_URL);
    let (allowed_hosts, allowed_origins) = (
        r.get(s, &server::ALLOWED_HOSTS),
        r.get(s, &server::ALLOWED_ORIGINS),
    );
    let (keys, guests) = (r.get(s, &server::KEYS), r.get(s, &server::GUESTS));
    let (guest_starts, sessions_per_key) = (
        r.get(s, &server::GUEST_STARTS),
        r.get(s, &server::SESSIONS_PER_KEY),
    );
    let state_dir = state_dir(r, s);
    let (instance_ports, tcp_ports) = (
        r.get(s, &server::INSTANCE_PORTS),
        r.get(s, &server::TCP_PORTS),
    );
    let retention = r.get(s, &server::RETENTION);
    let decision_log = r.get(s, &server::DECISION_LOG);
    let name = r.get(s, &server::NAME).unwrap_or_else(|| {
        r.note(s, &server::NAME.meta, "spawnpoint".into(), Origin::Default);
        "spawnpoint".to_owned()
    });
    let at = |hosts: Option<Vec<std::net::IpAddr>>, port: Option<u16>| -> Option<Vec<SocketAddr>> {
        let port = port?;
        Some(
            hosts?
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port))
                .collect(),
        )
    };
    let config = ServerConfig {
        public: at(host, port)?,
        admin: at(admin_host, admin_port)?,
        sdk: at(sdk_host, sdk_port)?,
        public_url,
        allowed_hosts: allowed_hosts?,
        allowed_origins: allowed_origins?,
        keys: keys?,
        guests: guests?,
        state_dir: state_dir?,
        instance_ports: instance_ports?,
        tcp_ports: tcp_ports?,
        retention: retention?,
        decision_log: decision_log?,
        sessions_per_key: sessions_per_key?,
        guest_starts_per_minute: guest_starts?,
        name,
    };
    check_listeners(r, s, &config);
    check_doors(r, s, &config);
    Some(config)
}

fn state_dir(r: &mut Reader<'_>, s: &Section) -> Option<PathBuf> {
    let meta = &server::STATE_DIR.meta;
    if r.given(s, meta) {
        let given = r.get(s, &server::STATE_DIR)?;
        return Some(r.place(s, meta, given));
    }
    let dir = match &r.overrides.base_dir {
        Some(base) => base.join(".spawnpoint"),
        None => match default_state_home(&|name| r.env(name)) {
            Some(home) => home.join("default"),
            None => {
                r.complain(ErrorKind::Missing, s, meta, "neither a file nor XDG_STATE_HOME nor HOME says where to keep state: use --state-dir");
                return None;
            }
        },
    };
    r.note(s, meta, dir.display().to_string(), Origin::Default);
    Some(dir)
}

/// Where state is kept that belongs to no configuration file: `$XDG_STATE_HOME/spawnpoint`, by default below `$HOME/.local/state`.
#[must_use]
pub fn default_state_home(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |v: String| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    let home = env("XDG_STATE_HOME").and_then(absolute);
    let home = home.or_else(|| {
        env("HOME")
            .and_then(absolute)
            .map(|h| h.join(".local/state"))
    });
    home.map(|h| h.join("spawnpoint"))
}

/// Two listeners on one port, or one inside the range given to games.
fn check_listeners(r: &mut Reader<'_>, s: &Section, c: &ServerConfig) {
    let port = |a: &[SocketAddr]| a.first().map_or(0, SocketAddr::port);
    let listeners = [
        (&server::PORT_PUBLIC.meta, &c.public),
        (&server::ADMIN_PORT.meta, &c.admin),
        (&server::SDK_PORT.meta, &c.sdk),
    ];
    for (i, (meta, addresses)) in listeners.iter().enumerate() {
        let mine = port(addresses);
        if mine == 0 {
            continue;
        }
        if let Some((other, _)) = listeners.iter().take(i).find(|(_, a)| port(a) == mine) {
            r.complain(
                ErrorKind::Conflict,
                s,
                meta,
                format!(
                    "is also {}: each listener needs a port of its own",
                    other.name
                ),
            );
        }
        let (first, last) = c.instance_ports;
        if (first..=last).contains(&mine) {
            r.complain(
                ErrorKind::Conflict,
                s,
                meta,
                format!("lies in instance_ports {first}-{last}: a game server could be given it"),
            );
        }
        let (first, last) = c.tcp_ports;
        if (first..=last).contains(&mine) {
            r.complain(
                ErrorKind::Conflict,
                s,
                meta,
                format!("lies in tcp_ports {first}-{last}: a TCP session could be given it"),
            );
        }
    }
    let ((a, b), (first, last)) = (c.instance_ports, c.tcp_ports);
    if a <= last && first <= b {
        r.complain(
            ErrorKind::Conflict,
            s,
            &server::TCP_PORTS.meta,
            format!("overlaps instance_ports {a}-{b}: a game server and a session could be given the same port"),
        );
    }
}

/// Who could come in from outside.
fn check_doors(r: &mut Reader<'_>, s: &Section, c: &ServerConfig) {
    let open = |a: &[SocketAddr]| a.iter().any(|a| !a.ip().is_loopback());
    if open(&c.public) && c.keys.is_empty() && !c.guests {
        r.complain(
            ErrorKind::Unsafe,
            s,
            &server::HOST.meta,
            "is reachable from other machines and nobody would be asked who they are: set keys (SPAWNPOINT_KEYS=name:secret), or let strangers play with --guests (guests = true)",
        );
    }
    if open(&c.admin) && c.keys.is_empty() {
        r.complain(
            ErrorKind::Unsafe,
            s,
            &server::ADMIN_HOST.meta,
            "would let other machines end every game: set keys (SPAWNPOINT_KEYS=name:secret), or keep it on localhost",
        );
    }
}

/// Variables that look like ours and are not: each with the name that was probably meant.
///
/// Variables that are set for the command line or for games are known too.
#[must_use]
pub fn unknown_variables(
    names: impl IntoIterator<Item = String>,
    config: &Config,
) -> Vec<(String, Option<String>)> {
    let upper = |s: &str| s.replace(['.', '-'], "_").to_ascii_uppercase();
    let mut known: Vec<String> = Vec::new();
    for m in server::ALL {
        known.push(format!("SPAWNPOINT_SERVER_{}", upper(m.name)));
        known.extend(m.env.iter().map(|e| (*e).to_owned()));
    }
    let mut all = |kind: &str, name: &FleetName, metas: &[&Meta]| {
        let prefix = format!("SPAWNPOINT_{kind}_{}", upper(name.as_str()));
        known.extend(metas.iter().map(|m| format!("{prefix}_{}", upper(m.name))));
    };
    for f in &config.fleets {
        all("FLEET", &f.name, fleet::ALL);
    }
    for q in &config.queues {
        all("QUEUE", &q.name, queue::ALL);
    }
    let mut unknown: Vec<(String, Option<String>)> = names
        .into_iter()
        .filter(|n| {
            let ours = ["SERVER", "FLEET", "QUEUE"];
            ours.iter()
                .any(|o| n.starts_with(&format!("SPAWNPOINT_{o}_")))
                && !known.contains(n)
        })
        .map(|n| {
            let meant = nearest(&n, known.iter().map(String::as_str)).map(str::to_owned);
            (n, meant)
        })
        .collect();
    unknown.sort();
    unknown
}

/// The text of the file that says every default, for tests of the documentation.
#[cfg(test)]
pub(super) fn defaults_of(metas: &[&Meta]) -> Vec<(&'static str, &'static str)> {
    metas
        .iter()
        .filter_map(|m| match m.fallback {
            super::keys::Fallback::Value(v) => Some((m.name, v)),
            _ => None,
        })
        .collect()
}
