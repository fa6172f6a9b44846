//! From sections to [`Config`]: what each key means together with the others, and what cannot hold together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::{ActivityRule, Policy, Sight};
use spawnpoint_runtime::{Protocol, ReadyRule, Template};

use super::convert::Warm;
use super::error::{ConfigError, ErrorKind, Origin, nearest};
use super::keys::{fleet, server};
use super::read::{Overrides, Reader, Section, Setting};
use super::units::show_duration;
use super::value::{Node, Value, parse_file};
use super::{Config, Expose, FleetConfig, ServerConfig};

/// Most fleets of one file: each has its own pool and plans.
const MAX_FLEETS: usize = 256;

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
        self.settings.iter().map(|s| format!("{} = {} ({})", s.path, s.value, s.origin)).collect()
    }
}

/// Parses a configuration: flag over variable over file over default.
///
/// `file` is the text of `spawnpoint.toml` (empty when there is none), `env` looks a variable up.
///
/// # Errors
/// Every error there is, each with its key, value, place and what is allowed. Nothing was bound or started.
pub fn parse(file: &str, env: &dyn Fn(&str) -> Option<String>, overrides: &Overrides) -> Result<Parsed, Vec<ConfigError>> {
    let mut reader = Reader::new(env, overrides);
    let top = parse_file(file, &mut reader.errors);
    let broken = !reader.errors.is_empty();
    let mut server_pairs = Vec::new();
    let mut fleet_nodes = Vec::new();
    for (written, node) in top {
        match (written.as_str(), node.value) {
            ("server", Value::Table(pairs)) => server_pairs = pairs,
            ("fleet", Value::List(nodes)) => fleet_nodes = nodes,
            ("fleet", Value::Table(pairs)) => {
                let hint = if pairs.iter().any(|(k, _)| k == "name" || k == "run") { "[[fleet]]" } else { "[[fleet]] with name = \"...\"" };
                reader.errors.push(top_error(ErrorKind::Invalid, "fleet", node.line, format!("there can be several: write {hint}")));
            }
            ("queue", _) => reader.errors.push(top_error(ErrorKind::Unsupported, "queue", node.line, "matchmaking queues are not in this release".into())),
            ("server", _) => reader.errors.push(top_error(ErrorKind::Invalid, "server", node.line, "must be a table: [server]".into())),
            ("fleet", _) => reader.errors.push(top_error(ErrorKind::Invalid, "fleet", node.line, "must be a list of tables: [[fleet]]".into())),
            (other, _) => {
                let shown: String = other.escape_debug().take(64).collect();
                let problem = match nearest(other, ["server", "fleet", "queue"]) {
                    Some(n) => format!("is not a known section; did you mean {n:?}?"),
                    None if server::ALL.iter().any(|m| m.name == other) => "stands outside of any section: move it below [server]".into(),
                    None if fleet::ALL.iter().any(|m| m.name == other) => "stands outside of any section: move it below [[fleet]]".into(),
                    None => "is not a known section; known are [server] and [[fleet]]".into(),
                };
                reader.errors.push(top_error(ErrorKind::UnknownKey, &shown, node.line, problem));
            }
        }
    }
    let prefixes = vec!["SPAWNPOINT_SERVER".to_owned()];
    let section = reader.open("server", prefixes, &server_pairs, server::ALL);
    let server_config = read_server(&mut reader, &section);
    let fleets = read_fleets(&mut reader, fleet_nodes, server_config.as_ref());
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
        Some(server) if reader.errors.is_empty() => Ok(Parsed { config: Config { server, fleets }, settings: reader.settings }),
        _ => Err(reader.errors),
    }
}

/// What a syntax error leaves behind (half-read values on its line, keys that were cut off, the parser's own further guesses)
/// would hide the one thing to mend.
fn quiet_noise(errors: &mut Vec<ConfigError>) {
    let mut broken_lines = Vec::new();
    errors.retain(|e| match (&e.kind, &e.origin) {
        (ErrorKind::Syntax, Origin::File { line }) => {
            let first = !broken_lines.contains(line);
            broken_lines.push(*line);
            first
        }
        (ErrorKind::Missing, _) => false,
        (_, Origin::File { line }) => !broken_lines.contains(line),
        _ => true,
    });
}

fn top_error(kind: ErrorKind, path: &str, line: usize, problem: String) -> ConfigError {
    ConfigError { kind, path: path.to_owned(), origin: Origin::File { line }, value: None, problem }
}

/// `None` only when there are errors.
fn read_server(r: &mut Reader<'_>, s: &Section) -> Option<ServerConfig> {
    let (host, port) = (r.get(s, &server::HOST), r.get(s, &server::PORT_PUBLIC));
    let (admin_host, admin_port) = (r.get(s, &server::ADMIN_HOST), r.get(s, &server::ADMIN_PORT));
    let (sdk_host, sdk_port) = (r.get(s, &server::SDK_HOST), r.get(s, &server::SDK_PORT));
    let public_url = r.get(s, &server::PUBLIC_URL);
    let (allowed_hosts, allowed_origins) = (r.get(s, &server::ALLOWED_HOSTS), r.get(s, &server::ALLOWED_ORIGINS));
    let (keys, guests) = (r.get(s, &server::KEYS), r.get(s, &server::GUESTS));
    let (guest_starts, sessions_per_key) = (r.get(s, &server::GUEST_STARTS), r.get(s, &server::SESSIONS_PER_KEY));
    let state_dir = state_dir(r, s);
    let (instance_ports, retention) = (r.get(s, &server::INSTANCE_PORTS), r.get(s, &server::RETENTION));
    let name = r.get(s, &server::NAME).unwrap_or_else(|| {
        r.note(s, &server::NAME.meta, "spawnpoint".into(), Origin::Default);
        "spawnpoint".to_owned()
    });
    let at = |hosts: Option<Vec<std::net::IpAddr>>, port: Option<u16>| -> Option<Vec<SocketAddr>> {
        let port = port?;
        Some(hosts?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
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
        retention: retention?,
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
    let home = home.or_else(|| env("HOME").and_then(absolute).map(|h| h.join(".local/state")));
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
            r.complain(ErrorKind::Conflict, s, meta, format!("is also {}: each listener needs a port of its own", other.name));
        }
        let (first, last) = c.instance_ports;
        if (first..=last).contains(&mine) {
            r.complain(ErrorKind::Conflict, s, meta, format!("lies in instance_ports {first}-{last}: a game server could be given it"));
        }
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

fn read_fleets(r: &mut Reader<'_>, nodes: Vec<Node>, server: Option<&ServerConfig>) -> Vec<Arc<FleetConfig>> {
    if nodes.len() > MAX_FLEETS {
        r.errors.push(top_error(ErrorKind::Invalid, "fleet", nodes.first().map_or(0, |n| n.line), format!("{} fleets; at most {MAX_FLEETS}", nodes.len())));
        return Vec::new();
    }
    let mut all: Vec<Arc<FleetConfig>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let Value::Table(pairs) = node.value else {
            r.errors.push(top_error(ErrorKind::Invalid, &format!("fleet[{at}]"), node.line, "must be a table: [[fleet]]".into()));
            continue;
        };
        let name = pairs.iter().find_map(|(k, n)| match &n.value {
            Value::Text(s) if k == "name" && s.parse::<FleetName>().is_ok() => Some(s.clone()),
            _ => None,
        });
        let mut prefixes = Vec::new();
        if let Some(name) = &name {
            prefixes.push(format!("SPAWNPOINT_FLEET_{}", name.to_ascii_uppercase().replace('-', "_")));
        }
        let path = name.as_ref().map_or_else(|| format!("fleet[{at}]"), |n| format!("fleet.{n}"));
        let section = r.open(&path, prefixes, &pairs, fleet::ALL);
        let read = read_fleet(r, &section, server);
        if let Some(name) = name {
            if names.contains(&name) {
                r.complain(ErrorKind::Conflict, &section, &fleet::NAME.meta, "is the name of another fleet as well");
            }
            names.push(name);
        }
        all.extend(read.map(Arc::new));
    }
    all
}

/// `None` only when there are errors.
fn read_fleet(r: &mut Reader<'_>, s: &Section, server: Option<&ServerConfig>) -> Option<FleetConfig> {
    let name = r.get(s, &fleet::NAME);
    let expose = r.get(s, &fleet::EXPOSE);
    let template = read_template(r, s, expose);
    let (warm, max_instances) = (r.get(s, &fleet::WARM), read_max_instances(r, s));
    let policy = read_policy(r, s, expose);
    let guests = read_guests(r, s);
    let labels = r.get(s, &fleet::LABELS);
    let warm = warm?;
    let config = FleetConfig {
        name: name?,
        template: template?,
        warm: warm.replicas,
        warm_allowed: warm.allowed,
        warm_max_age: warm.max_age,
        max_instances: max_instances?,
        policy: Arc::new(policy?),
        expose: expose?,
        guests: guests?,
        labels: labels?,
    };
    check_fleet(r, s, &config, warm, server);
    Some(config)
}

fn read_template(r: &mut Reader<'_>, s: &Section, expose: Option<Expose>) -> Option<Template> {
    if r.given(s, &fleet::IMAGE.meta) {
        let _ = r.get(s, &fleet::IMAGE);
        r.complain(
            ErrorKind::Unsupported,
            s,
            &fleet::IMAGE.meta,
            "container images cannot be run by this release, which starts processes: give run.command instead",
        );
        if !r.given(s, &fleet::COMMAND.meta) {
            return None;
        }
    }
    let command = r.get(s, &fleet::COMMAND);
    let env = r.get(s, &fleet::ENV);
    let workdir = r.get(s, &fleet::WORKDIR).map(|w| r.place(s, &fleet::WORKDIR.meta, w));
    let (cpu, memory) = (r.get(s, &fleet::CPU), r.get(s, &fleet::MEMORY));
    let port = r.get(s, &fleet::PORT);
    let (protocol, ready) = (r.get(s, &fleet::PROTOCOL), r.get(s, &fleet::READY));
    let mut command = command?;
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        let placed = r.place(s, &fleet::COMMAND.meta, PathBuf::from(&*program));
        *program = placed.to_string_lossy().into_owned();
    }
    Some(Template {
        command,
        env: env?,
        inherit_env: false,
        workdir,
        cpu_millis: cpu,
        memory_bytes: memory,
        protocol: protocol?,
        ready: ready?,
        fixed_port: port,
        host_port: expose? == Expose::HostPort,
    })
}

fn read_max_instances(r: &mut Reader<'_>, s: &Section) -> Option<Option<u32>> {
    let fixed = r.given(s, &fleet::PORT.meta);
    if fixed && !r.given(s, &fleet::MAX_INSTANCES.meta) {
        r.note(s, &fleet::MAX_INSTANCES.meta, "1".into(), Origin::Default);
        return Some(Some(1));
    }
    let max = r.get(s, &fleet::MAX_INSTANCES)?;
    if fixed && max != Some(1) {
        r.complain(ErrorKind::Conflict, s, &fleet::MAX_INSTANCES.meta, "only one instance can listen on a fixed port: leave port out, or set this to 1");
    }
    Some(max)
}

fn read_guests(r: &mut Reader<'_>, s: &Section) -> Option<bool> {
    let (guests, access) = (r.given(s, &fleet::GUESTS.meta), r.given(s, &fleet::ACCESS.meta));
    let by_flag = if guests { Some(r.get(s, &fleet::GUESTS)?) } else { None };
    let by_list = if access { Some(r.get(s, &fleet::ACCESS)?) } else { None };
    match (by_flag, by_list) {
        (Some(a), Some(b)) if a != b => {
            r.complain(ErrorKind::Conflict, s, &fleet::ACCESS.meta, format!("says otherwise than guests = {a}: keep one"));
            None
        }
        (Some(a), _) => Some(a),
        (None, Some(b)) => Some(b),
        (None, None) => {
            r.note(s, &fleet::GUESTS.meta, "true".into(), Origin::Default);
            Some(true)
        }
    }
}

fn read_policy(r: &mut Reader<'_>, s: &Section, expose: Option<Expose>) -> Option<Policy> {
    let (heartbeat, idle) = (r.get(s, &fleet::HEARTBEAT), r.get(s, &fleet::IDLE));
    let max = r.get(s, &fleet::MAX);
    let max_limit = if r.given(s, &fleet::MAX_LIMIT.meta) { r.get(s, &fleet::MAX_LIMIT) } else { max };
    let (queue, boot, join) = (r.get(s, &fleet::QUEUE), r.get(s, &fleet::BOOT), r.get(s, &fleet::JOIN));
    let (reconnect, warnings, grace) = (r.get(s, &fleet::RECONNECT), r.get(s, &fleet::WARNINGS), r.get(s, &fleet::GRACE));
    let direct = expose? == Expose::HostPort;
    let activity = if r.given(s, &fleet::ACTIVITY.meta) {
        r.get(s, &fleet::ACTIVITY)
    } else {
        let (rule, word) = if direct { (ActivityRule::Heartbeat, "heartbeat") } else { (ActivityRule::ClientData, "client_data") };
        r.note(s, &fleet::ACTIVITY.meta, word.into(), Origin::Default);
        Some(rule)
    };
    let (on_crash, end_by) = (r.get(s, &fleet::ON_CRASH), r.get(s, &fleet::END_BY));
    let (joinable, max_players) = (r.get(s, &fleet::JOINABLE), r.get(s, &fleet::MAX_PLAYERS));
    Some(Policy {
        heartbeat: heartbeat?,
        idle: idle?,
        max: max?,
        max_limit: max_limit?,
        queue: queue?,
        boot: boot?,
        join: join?,
        reconnect: reconnect?,
        warnings: warnings?,
        grace: grace?,
        activity: activity?,
        on_crash: on_crash?,
        end_by: end_by?,
        joinable: joinable?,
        sight: if direct { Sight::Direct } else { Sight::Gateway },
        max_players: max_players?,
    })
}

/// What cannot hold together: most of it is a rule that its mode cannot see.
fn check_fleet(r: &mut Reader<'_>, s: &Section, c: &FleetConfig, warm: Warm, server: Option<&ServerConfig>) {
    let p = &c.policy;
    let protocol = c.template.protocol;
    let raw = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    if raw && c.expose == Expose::Gateway {
        let word = if protocol == Protocol::Tcp { "TCP" } else { "UDP" };
        let problem = format!("{word} through the gateway is not in this release: set expose = \"host_port\", and players get the instance's own port");
        r.complain(ErrorKind::Unsupported, s, &fleet::PROTOCOL.meta, problem);
    }
    if raw && matches!(c.template.ready, ReadyRule::Http(_)) {
        r.complain(ErrorKind::Conflict, s, &fleet::READY.meta, "a server that speaks raw TCP or UDP does not answer HTTP on its port: use \"dial\", { log = \"...\" }, \"sdk\" or \"none\"");
    }
    if p.sight == Sight::Direct && p.activity != ActivityRule::Heartbeat {
        r.complain(
            ErrorKind::Conflict,
            s,
            &fleet::ACTIVITY.meta,
            "with expose = \"host_port\" nothing of ours carries the data, so it cannot be seen: use \"heartbeat\", or expose = \"gateway\"",
        );
    }
    if let Some(idle) = p.idle
        && p.activity == ActivityRule::Heartbeat
        && p.heartbeat >= idle
    {
        let problem = format!("heartbeats are all that is seen of the players, and one every {} comes too late: make it longer than heartbeat, or \"none\"", show_duration(p.heartbeat));
        r.complain(ErrorKind::Conflict, s, &fleet::IDLE.meta, problem);
    }
    if longer(p.max, p.max_limit) {
        let limit = p.max_limit.map_or_else(|| "none".into(), show_duration);
        r.complain(ErrorKind::Conflict, s, &fleet::MAX.meta, format!("is longer than max_duration_limit, {limit}"));
    }
    if c.max_instances.is_some_and(|m| warm.replicas > m) {
        r.complain(ErrorKind::Conflict, s, &fleet::WARM.meta, format!("is more than max_instances, {}", c.max_instances.unwrap_or(0)));
    }
    if let (Some(port), Some(server)) = (c.template.fixed_port, server) {
        let (first, last) = server.instance_ports;
        if (first..=last).contains(&port) {
            r.complain(ErrorKind::Conflict, s, &fleet::PORT.meta, format!("lies in server.instance_ports {first}-{last}, which are given to any instance: choose another"));
        }
        if server.public.iter().chain(&server.admin).chain(&server.sdk).any(|a| a.port() == port) {
            r.complain(ErrorKind::Conflict, s, &fleet::PORT.meta, "is a port that Spawnpoint itself listens on: choose another");
        }
    }
}

/// Whether `a` lasts longer than `b`, unlimited being the longest.
fn longer(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}

/// Variables that look like ours and are not: each with the name that was probably meant.
///
/// `fleets` are the names of the fleets. Variables that are set for the command line or for games are known too.
#[must_use]
pub fn unknown_variables(names: impl IntoIterator<Item = String>, fleets: &[FleetName]) -> Vec<(String, Option<String>)> {
    let upper = |s: &str| s.replace(['.', '-'], "_").to_ascii_uppercase();
    let mut known: Vec<String> = Vec::new();
    for m in server::ALL {
        known.push(format!("SPAWNPOINT_SERVER_{}", upper(m.name)));
        known.extend(m.env.iter().map(|e| (*e).to_owned()));
    }
    for f in fleets {
        known.extend(fleet::ALL.iter().map(|m| format!("SPAWNPOINT_FLEET_{}_{}", upper(f.as_str()), upper(m.name))));
    }
    let mut unknown: Vec<(String, Option<String>)> = names
        .into_iter()
        .filter(|n| (n.starts_with("SPAWNPOINT_SERVER_") || n.starts_with("SPAWNPOINT_FLEET_")) && !known.contains(n))
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
pub(super) fn defaults_of(metas: &[&super::keys::Meta]) -> Vec<(&'static str, &'static str)> {
    metas
        .iter()
        .filter_map(|m| match m.fallback {
            super::keys::Fallback::Value(v) => Some((m.name, v)),
            _ => None,
        })
        .collect()
}

