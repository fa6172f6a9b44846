//! `spawnpoint new`.

use std::hash::{BuildHasher, Hasher};

use serde_json::{Value, json};
use spawnpoint_wire::api::Connection;
use spawnpoint_wire::tcp::TOKEN_LINE;
use ureq::http::Method;

use super::read;
use crate::args::{Global, NewArgs};
use crate::client::Client;
use crate::exit::Failure;
use crate::output::{highlighting, show};

/// Starts a session and prints how to play it.
pub(crate) fn run(args: &NewArgs, global: &Global) -> Result<(), Failure> {
    let body = body(args)?;
    let client = Client::new(global)?;
    let wait = args.wait.map(|w| w.to_string());
    let query: Vec<(&str, &str)> = wait.iter().map(|w| ("wait", w.as_str())).collect();
    let answer = client.send(Method::POST, "/api/new-game", &query, &body)?;
    let connection: Connection = read(&answer)?;
    show(global.output, &answer, || describe(&connection))
}

fn body(args: &NewArgs) -> Result<Value, Failure> {
    let player = args.player.clone().unwrap_or_else(somebody);
    let mut body = json!({ "player_id": player, "fresh": args.fresh });
    if let Some(fleet) = &args.fleet {
        body["fleet"] = json!(fleet);
    }
    if let Some(payload) = &args.payload {
        body["payload"] = serde_json::from_str(payload)
            .map_err(|e| Failure::Usage(format!("--payload is not JSON: {e}")))?;
    }
    if let Some(max) = &args.max_duration {
        body["max_duration"] = max
            .parse::<f64>()
            .map_or_else(|_| json!(max), |seconds| json!(seconds));
    }
    Ok(body)
}

/// A player nobody has been before: the hasher's random start is the standard library's door to randomness.
fn somebody() -> String {
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    format!("player-{random:016x}")
}

/// How to play, for a person.
pub(crate) fn describe(c: &Connection) -> String {
    let state = match (&c.queue, c.ready) {
        (Some(q), _) => format!(
            "waits for {}: number {} in the queue",
            q.waiting_for, q.position
        ),
        (None, true) => format!("{}, accepting players", c.phase),
        (None, false) => format!("{} (connect at once: the gateway waits for it)", c.phase),
    };
    let url = c.url.clone().unwrap_or_else(|| {
        "not known yet: ask again with `spawnpoint sessions get`, or use --wait".to_owned()
    });
    // Typed as it stands it plays a TCP game.
    let dial = match (&c.connect_host, c.connect_port) {
        (Some(host), Some(port)) if c.protocol == "tcp" => format!("nc {host} {port}"),
        _ => String::new(),
    };
    let rows = [
        ("session", c.session_id.clone()),
        ("fleet", c.fleet.clone()),
        ("player", c.player_id.clone().unwrap_or_default()),
        ("state", state),
        ("url", url),
        ("address", dial),
        ("first line", token_line(c)),
        ("share", c.share_url.clone().unwrap_or_default()),
        (
            "start",
            c.receipt
                .as_ref()
                .map(super::sessions::receipt)
                .unwrap_or_default(),
        ),
    ];
    highlighting("url", &rows)
}

/// How a connection from another machine to a TCP game begins; nothing for other games, and on this machine.
fn token_line(c: &Connection) -> String {
    let host = c.connect_host.as_deref().unwrap_or_default();
    let here = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match &c.token {
        Some(token) if c.protocol == "tcp" && !here && c.connect_port.is_some() => {
            format!("{TOKEN_LINE}{token}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_game_is_played_with_nc() {
        let connection = |host: &str| -> Connection {
            serde_json::from_value(json!({
                "session_id": "s", "fleet": "f", "phase": "starting", "ready": false, "generation": 1, "wsUrl": null,
                "url": format!("tcp://{host}:25001"), "protocol": "tcp", "players": [], "created_at": "", "share_url": null, "connect_host": host, "connect_port": 25001,
                "token": "v4.public.x", "token_expires_at": null, "player_id": "p", "queue": null, "cull_at": null,
                "cull_reason": null, "receipt": null
            }))
            .unwrap()
        };
        for (host, asked) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("192.168.1.7", true),
            ("games.example.com", true),
        ] {
            let text = describe(&connection(host));
            assert!(text.contains(&format!("nc {host} 25001")), "{text}");
            assert_eq!(text.contains("SPAWNPOINT v4.public.x"), asked, "{text}");
        }
    }

    #[test]
    fn every_call_is_somebody_new_unless_named() {
        assert_ne!(somebody(), somebody());
        let args = NewArgs {
            fleet: None,
            player: Some("alice".into()),
            fresh: true,
            payload: Some("{\"map\":1}".into()),
            max_duration: Some("90".into()),
            wait: None,
        };
        assert_eq!(
            body(&args).unwrap(),
            json!({"player_id": "alice", "fresh": true, "payload": {"map": 1}, "max_duration": 90.0})
        );
        let bad = NewArgs {
            payload: Some("{".into()),
            ..args
        };
        assert_eq!(body(&bad).unwrap_err().exit_code(), crate::exit::USAGE);
    }
}
