//! What `up` and `run` say once they are ready.

use std::net::SocketAddr;

use serde_json::{Value, json};
use spawnpoint_runtime::Protocol;
use spawnpoint_server::Config;
use spawnpoint_server::config::Expose;

use crate::output::{bold, highlighting};

/// Where to play and what to know, for a person. `live` sessions were taken over from an earlier run.
pub(crate) fn text(config: &Config, live: usize) -> String {
    let public = public_url(config);
    let mut rows: Vec<(&str, String)> = Vec::new();
    if has_page(config) {
        rows.push(("play", format!("{public}/play")));
    }
    rows.push(("api", format!("{public}/api/docs")));
    rows.push((
        "admin",
        config
            .server
            .admin
            .first()
            .map(|a| address_url(*a))
            .unwrap_or_default(),
    ));
    rows.push((
        "fleets",
        config
            .fleets
            .iter()
            .map(|f| fleet(f))
            .collect::<Vec<_>>()
            .join(", "),
    ));
    rows.push(("state", config.server.state_dir.display().to_string()));
    if !config.server.dev_mode() {
        let keys: Vec<&str> = config.server.keys.iter().map(|k| k.name.as_str()).collect();
        let guests = if config.server.guests {
            "guests may play"
        } else {
            "no guests"
        };
        let keys = if keys.is_empty() {
            "no keys".to_owned()
        } else {
            format!("keys: {}", keys.join(", "))
        };
        rows.push(("access", format!("{guests}, {keys}")));
    }
    if live > 0 {
        rows.push(("taken over", format!("{live} sessions of an earlier run")));
    }
    format!(
        "{}\n{}",
        bold(concat!("Spawnpoint ", env!("CARGO_PKG_VERSION"))),
        highlighting("play", &rows)
            .lines()
            .map(|l| format!("  {l}"))
            .collect::<Vec<_>>()
            .join("\n")
    )
}

/// The same for programs, on one line.
pub(crate) fn ready(config: &Config, live: usize) -> Value {
    let public = public_url(config);
    json!({
        "event": "ready",
        "pid": std::process::id(),
        "url": public,
        "play_url": has_page(config).then(|| format!("{public}/play")),
        "admin_url": config.server.admin.first().map(|a| address_url(*a)),
        "sdk_url": config.server.sdk.first().map(|a| address_url(*a)),
        "public": config.server.public,
        "admin": config.server.admin,
        "sdk": config.server.sdk,
        "fleets": config.fleets.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
        "state_dir": config.server.state_dir,
        "taken_over": live,
    })
}

/// How players reach the public listener, for people: a name they can type where there is one.
pub(crate) fn public_url(config: &Config) -> String {
    match &config.server.public_url {
        Some(url) => url.clone(),
        None => config
            .server
            .public
            .first()
            .map(|a| address_url(*a))
            .unwrap_or_default(),
    }
}

fn address_url(address: SocketAddr) -> String {
    if address.ip().is_loopback() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// Whether `/play` leads to a game: it is the page of the bundled one.
pub(crate) fn has_page(config: &Config) -> bool {
    config.fleets.iter().any(|f| f.has_page())
}

fn fleet(f: &spawnpoint_server::config::FleetConfig) -> String {
    let protocol = match f.template.protocol {
        Protocol::WebSocket => "websocket",
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let direct = if f.expose == Expose::HostPort {
        ", own port"
    } else {
        ""
    };
    let warm = if f.warm > 0 {
        format!(", {} warm", f.warm)
    } else {
        String::new()
    };
    format!("{} ({protocol}{direct}{warm})", f.name)
}
