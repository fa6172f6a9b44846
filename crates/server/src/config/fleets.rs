//! Each `[[fleet]]`: what its keys mean together, and what cannot hold together. Most of that is a rule that its mode cannot see.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::{ActivityRule, Policy, Sight};
use spawnpoint_runtime::{Protocol, ReadyRule, Template};

use spawnpoint_wire::tcp::{TcpTerms, TokenRule};

use super::assemble::top_error;
use super::convert::Warm;
use super::error::{ErrorKind, Origin};
use super::keys::fleet;
use super::read::{Reader, Section};
use super::units::show_duration;
use super::value::{Node, Value};
use super::{Expose, FleetConfig, ServerConfig};

/// Most fleets of one file: each has its own pool and plans.
const MAX_FLEETS: usize = 256;

pub(super) fn read_fleets(
    r: &mut Reader<'_>,
    nodes: Vec<Node>,
    server: Option<&ServerConfig>,
) -> Vec<Arc<FleetConfig>> {
    if nodes.len() > MAX_FLEETS {
        r.errors.push(top_error(
            ErrorKind::Invalid,
            "fleet",
            nodes.first().map_or(0, |n| n.line),
            format!("{} fleets; at most {MAX_FLEETS}", nodes.len()),
        ));
        return Vec::new();
    }
    let mut all: Vec<Arc<FleetConfig>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let Value::Table(pairs) = node.value else {
            r.errors.push(top_error(
                ErrorKind::Invalid,
                &format!("fleet[{at}]"),
                node.line,
                "must be a table: [[fleet]]".into(),
            ));
            continue;
        };
        let name = pairs.iter().find_map(|(k, n)| match &n.value {
            Value::Text(s) if k == "name" && s.parse::<FleetName>().is_ok() => Some(s.clone()),
            _ => None,
        });
        let mut prefixes = Vec::new();
        if let Some(name) = &name {
            prefixes.push(format!(
                "SPAWNPOINT_FLEET_{}",
                name.to_ascii_uppercase().replace('-', "_")
            ));
        }
        let path = name
            .as_ref()
            .map_or_else(|| format!("fleet[{at}]"), |n| format!("fleet.{n}"));
        let section = r.open(&path, prefixes, &pairs, fleet::ALL);
        let read = read_fleet(r, &section, server);
        if let Some(name) = name {
            if names.contains(&name) {
                r.complain(
                    ErrorKind::Conflict,
                    &section,
                    &fleet::NAME.meta,
                    "is the name of another fleet as well",
                );
            }
            names.push(name);
        }
        all.extend(read.map(Arc::new));
    }
    all
}

/// `None` only when there are errors.
fn read_fleet(
    r: &mut Reader<'_>,
    s: &Section,
    server: Option<&ServerConfig>,
) -> Option<FleetConfig> {
    let name = r.get(s, &fleet::NAME);
    let expose = r.get(s, &fleet::EXPOSE);
    let template = read_template(r, s, expose);
    let (warm, max_instances) = (r.get(s, &fleet::WARM), read_max_instances(r, s));
    let protocol = template.as_ref().map(|t| t.protocol);
    let policy = read_policy(r, s, expose, protocol);
    let tcp = read_tcp(r, s);
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
        tcp: tcp?,
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
    // Scripts and data named in arguments lie beside the file; an instance's own directory would be empty.
    let workdir = r
        .get(s, &fleet::WORKDIR)
        .map(|w| r.place(s, &fleet::WORKDIR.meta, w))
        .or_else(|| r.overrides.base_dir.clone());
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

fn read_tcp(r: &mut Reader<'_>, s: &Section) -> Option<TcpTerms> {
    let token = if r.given(s, &fleet::TCP_AUTH.meta) {
        r.get(s, &fleet::TCP_AUTH)?
    } else {
        r.note(
            s,
            &fleet::TCP_AUTH.meta,
            "required off loopback".into(),
            Origin::Default,
        );
        TokenRule::OffLoopback
    };
    Some(TcpTerms {
        token,
        proxy_protocol: r.get(s, &fleet::PROXY_PROTOCOL)?,
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
        r.complain(
            ErrorKind::Conflict,
            s,
            &fleet::MAX_INSTANCES.meta,
            "only one instance can listen on a fixed port: leave port out, or set this to 1",
        );
    }
    Some(max)
}

fn read_guests(r: &mut Reader<'_>, s: &Section) -> Option<bool> {
    let (guests, access) = (
        r.given(s, &fleet::GUESTS.meta),
        r.given(s, &fleet::ACCESS.meta),
    );
    let by_flag = if guests {
        Some(r.get(s, &fleet::GUESTS)?)
    } else {
        None
    };
    let by_list = if access {
        Some(r.get(s, &fleet::ACCESS)?)
    } else {
        None
    };
    match (by_flag, by_list) {
        (Some(a), Some(b)) if a != b => {
            r.complain(
                ErrorKind::Conflict,
                s,
                &fleet::ACCESS.meta,
                format!("says otherwise than guests = {a}: keep one"),
            );
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

fn read_policy(
    r: &mut Reader<'_>,
    s: &Section,
    expose: Option<Expose>,
    protocol: Option<Protocol>,
) -> Option<Policy> {
    let (heartbeat, idle) = (r.get(s, &fleet::HEARTBEAT), r.get(s, &fleet::IDLE));
    let max = r.get(s, &fleet::MAX);
    let max_limit = if r.given(s, &fleet::MAX_LIMIT.meta) {
        r.get(s, &fleet::MAX_LIMIT)
    } else {
        max
    };
    let (queue, boot, join) = (
        r.get(s, &fleet::QUEUE),
        r.get(s, &fleet::BOOT),
        r.get(s, &fleet::JOIN),
    );
    let (reconnect, warnings, grace) = (
        r.get(s, &fleet::RECONNECT),
        r.get(s, &fleet::WARNINGS),
        r.get(s, &fleet::GRACE),
    );
    let direct = expose? == Expose::HostPort;
    let activity = if r.given(s, &fleet::ACTIVITY.meta) {
        r.get(s, &fleet::ACTIVITY)
    } else {
        let (rule, word) = if direct {
            (ActivityRule::Heartbeat, "heartbeat")
        } else {
            (ActivityRule::ClientData, "client_data")
        };
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
        sight: match (direct, protocol?) {
            (true, _) => Sight::Direct,
            (false, Protocol::Http) => Sight::Requests,
            (false, _) => Sight::Gateway,
        },
        max_players: max_players?,
    })
}

/// What cannot hold together: most of it is a rule that its mode cannot see.
fn check_fleet(
    r: &mut Reader<'_>,
    s: &Section,
    c: &FleetConfig,
    warm: Warm,
    server: Option<&ServerConfig>,
) {
    let p = &c.policy;
    let protocol = c.template.protocol;
    let raw = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    if protocol == Protocol::Udp && c.expose == Expose::Gateway {
        let problem = "UDP through the gateway is not in this release: set expose = \"host_port\", and players get the instance's own port";
        r.complain(ErrorKind::Unsupported, s, &fleet::PROTOCOL.meta, problem);
    }
    if protocol != Protocol::Tcp || c.expose != Expose::Gateway {
        let asked = [
            (&fleet::TCP_AUTH.meta, r.given(s, &fleet::TCP_AUTH.meta)),
            (&fleet::PROXY_PROTOCOL.meta, c.tcp.proxy_protocol),
        ];
        for (meta, asked) in asked {
            if asked {
                r.complain(
                    ErrorKind::Conflict,
                    s,
                    meta,
                    "is for connections that the gateway makes to a TCP game: set protocol = \"tcp\" and expose = \"gateway\", or leave it out",
                );
            }
        }
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
        let problem = format!(
            "heartbeats are all that is seen of the players, and one every {} comes too late: make it longer than heartbeat, or \"none\"",
            show_duration(p.heartbeat)
        );
        r.complain(ErrorKind::Conflict, s, &fleet::IDLE.meta, problem);
    }
    if longer(p.max, p.max_limit) {
        let limit = p.max_limit.map_or_else(|| "none".into(), show_duration);
        r.complain(
            ErrorKind::Conflict,
            s,
            &fleet::MAX.meta,
            format!("is longer than max_duration_limit, {limit}"),
        );
    }
    if c.max_instances.is_some_and(|m| warm.replicas > m) {
        r.complain(
            ErrorKind::Conflict,
            s,
            &fleet::WARM.meta,
            format!(
                "is more than max_instances, {}",
                c.max_instances.unwrap_or(0)
            ),
        );
    }
    if let (Some(port), Some(server)) = (c.template.fixed_port, server) {
        let (first, last) = server.instance_ports;
        if (first..=last).contains(&port) {
            r.complain(ErrorKind::Conflict, s, &fleet::PORT.meta, format!("lies in server.instance_ports {first}-{last}, which are given to any instance: choose another"));
        }
        let (first, last) = server.tcp_ports;
        if (first..=last).contains(&port) {
            r.complain(ErrorKind::Conflict, s, &fleet::PORT.meta, format!("lies in server.tcp_ports {first}-{last}, at which the gateway listens for sessions: choose another"));
        }
        if server
            .public
            .iter()
            .chain(&server.admin)
            .chain(&server.sdk)
            .any(|a| a.port() == port)
        {
            r.complain(
                ErrorKind::Conflict,
                s,
                &fleet::PORT.meta,
                "is a port that Spawnpoint itself listens on: choose another",
            );
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
