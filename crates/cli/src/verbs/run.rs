//! `spawnpoint run -- CMD`: any server, no file. A fleet of one command, a first session, and its log on the terminal.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};
use spawnpoint_server::config::default_state_home;
use spawnpoint_wire::api::Connection;
use tokio_util::sync::CancellationToken;
use ureq::http::Method;

use super::{new, read, up};
use crate::args::{Format, Global, RunArgs, SpokenProtocol};
use crate::client::{Client, encode};
use crate::config_file::{Source, in_path, is_program};
use crate::exit::Failure;
use crate::output::{json_line, line, note, raw};
use crate::roles::Roles;

/// Who plays the first session.
const PLAYER: &str = "dev";
/// How often the program is looked at for a rebuild.
const LOOK: Duration = Duration::from_millis(500);
/// A first session that is not ready by then is shown all the same; its URL works as soon as it is.
const FIRST_WAIT: &str = "10";
/// Seconds that a look at a session is held while nothing changes.
const LOOK_AGAIN: &str = "20";

/// Runs the command as a fleet until a signal.
pub(crate) fn run(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    let program = args.command.first().map(String::as_str).unwrap_or_default();
    let program = find(program).ok_or_else(|| {
        Failure::Usage(format!(
            "there is no program {program:?}: write its path (./{program}) or one that is in PATH"
        ))
    })?;
    let text = file(args, &std::env::current_dir()?)?;
    let source = Source::text(text, state_dir(args))?.inheriting_environment();
    let (args, format) = (args.clone(), global.output);
    up::execute(up::serve(
        source,
        args.serve.clone(),
        format,
        move |roles, stop| async move {
            let watching = tell_of_rebuilds(program, stop);
            let playing = async {
                if args.no_session {
                    return Ok(());
                }
                first_session(&roles, &args.name, format).await
            };
            tokio::pin!(watching);
            tokio::select! {
                played = playing => played?,
                () = &mut watching => return Ok(()),
            }
            watching.await;
            Ok(())
        },
    ))
}

fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(|p| is_program(p));
    }
    in_path(program)
}

/// Two of these may run side by side on different ports, and neither shares anything with an `up`.
fn state_dir(args: &RunArgs) -> Option<PathBuf> {
    let home = default_state_home(&|name| std::env::var(name).ok())?;
    let name = match args.serve.port {
        Some(0) => format!("run-{}", std::process::id()),
        port => format!("run-{}", port.unwrap_or(8080)),
    };
    Some(home.join(name))
}

/// The configuration that these flags mean, as the file it could have been.
fn file(args: &RunArgs, workdir: &Path) -> Result<String, Failure> {
    let (protocol, direct) = match args.protocol {
        SpokenProtocol::Websocket => ("websocket", false),
        SpokenProtocol::Http => ("http", false),
        SpokenProtocol::Tcp => ("tcp", false),
        SpokenProtocol::Udp => ("udp", true),
    };
    let text = |s: &str| toml::Value::String(s.to_owned());
    let mut run = toml::Table::new();
    let mut command = args.command.clone();
    if let Some(first) = command.first_mut().filter(|p| p.contains('/')) {
        *first = workdir.join(&*first).display().to_string();
    }
    run.insert(
        "command".into(),
        toml::Value::Array(command.iter().map(|w| text(w)).collect()),
    );
    run.insert("workdir".into(), text(&workdir.display().to_string()));
    let mut fleet = toml::Table::new();
    fleet.insert("name".into(), text(&args.name));
    fleet.insert("run".into(), toml::Value::Table(run));
    fleet.insert("protocol".into(), text(protocol));
    fleet.insert(
        "expose".into(),
        text(if direct { "host_port" } else { "gateway" }),
    );
    fleet.insert("ready".into(), ready(&args.ready)?);
    // A developer's server stays until it is told to go.
    for key in ["idle_timeout", "max_duration", "join_timeout"] {
        fleet.insert(key.into(), text("none"));
    }
    fleet.insert("reconnect_grace".into(), text("7d"));
    fleet.insert("termination_grace".into(), text("5s"));
    let mut whole = toml::Table::new();
    whole.insert(
        "fleet".into(),
        toml::Value::Array(vec![toml::Value::Table(fleet)]),
    );
    toml::to_string(&whole)
        .map_err(|e| Failure::Usage(format!("the command cannot be written down: {e}")))
}

fn ready(rule: &str) -> Result<toml::Value, Failure> {
    let table = |key: &str, value: &str| {
        let mut table = toml::Table::new();
        table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
        toml::Value::Table(table)
    };
    match rule.split_once(':') {
        Some((key @ ("http" | "log"), value)) => Ok(table(key, value)),
        None if matches!(rule, "dial" | "sdk" | "none") => Ok(toml::Value::String(rule.to_owned())),
        _ => Err(Failure::Usage(format!(
            "--ready {rule:?}: must be dial, sdk, none, http:/path or log:text"
        ))),
    }
}

/// Starts a session, prints where to play it, then its log until it ends.
async fn first_session(roles: &Arc<Roles>, fleet: &str, format: Format) -> Result<(), Failure> {
    let admin = roles
        .config
        .server
        .admin
        .first()
        .ok_or_else(|| Failure::Failed("no admin listener".into()))?;
    let base = format!("http://{admin}");
    let key = roles.config.server.keys.first().map(|k| k.secret.clone());
    // What an earlier run left under this player may be another program.
    let body = json!({ "player_id": PLAYER, "fleet": fleet, "fresh": true });
    let ask = (base.clone(), key.clone());
    let answer = blocking(move || {
        let client = Client::at(&ask.0, ask.1)?;
        client.send(
            Method::POST,
            "/api/new-game",
            &[("wait", FIRST_WAIT)],
            &body,
        )
    })
    .await?;
    let connection: Connection = read(&answer)?;
    let loopback = roles
        .config
        .server
        .public
        .iter()
        .all(|a| a.ip().is_loopback());
    show(&answer, &connection, loopback, format)?;
    let id = connection.session_id.clone();
    blocking(move || {
        let client = Client::at(&base, key)?;
        follow(&client, &id, format)
    })
    .await
}

/// A call of the blocking client. When the process stops, its server closes the connection it waits on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::Failed(e.to_string())))
}

fn show(
    answer: &Value,
    connection: &Connection,
    loopback: bool,
    format: Format,
) -> Result<(), Failure> {
    if format == Format::Json {
        return json_line(&json!({ "event": "session", "session": answer }));
    }
    line("")?;
    line(&new::describe(connection))?;
    if let Some(code) = browser_url(connection).and_then(|url| qr_code(&url)) {
        line(&code)?;
        if loopback {
            line("(a telephone reaches it with --host 0.0.0.0 --guests)")?;
        }
    }
    line("another session: spawnpoint new\n")
}

/// The code, where there is a terminal with room for it: a token makes it large.
fn qr_code(url: &str) -> Option<String> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    // The lowest correction: a screen has no stains, and a smaller code is easier to take in.
    let code = QrCode::with_error_correction_level(url.as_bytes(), EcLevel::L).ok()?;
    let text = code.render::<Dense1x2>().quiet_zone(true).build();
    // A terminal that does not say its size (0) gets it all the same.
    let fits = size.is_none_or(|s| {
        s.ws_col == 0
            || text
                .lines()
                .all(|l| l.chars().count() <= usize::from(s.ws_col))
    });
    fits.then_some(text)
}

/// What a telephone can open.
fn browser_url(c: &Connection) -> Option<String> {
    let url = c.url.as_ref()?;
    matches!(c.protocol.as_str(), "http" | "websocket").then(|| url.clone())
}

/// Prints the logs of the session's instances, one after another, and at its end why it ended.
fn follow(client: &Client, id: &str, format: Format) -> Result<(), Failure> {
    let session = format!("/api/sessions/{}", encode(id));
    loop {
        if format == Format::Table {
            print_log(client, &session)?;
        }
        // An instance that crashed has a successor; the reply is held until there is something new to say.
        match client.get(&session, &[("wait", LOOK_AGAIN)]) {
            Ok(s) if s.get("phase").and_then(Value::as_str) != Some("ended") => {}
            Ok(_) | Err(Failure::NotFound(_)) => break,
            // The server is stopping; that is said elsewhere.
            Err(_) => return Ok(()),
        }
    }
    let Ok(record) = client.get(&format!("/api/matches/{}", encode(id)), &[]) else {
        return Ok(());
    };
    let reason = record
        .get("reason")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let exit = record.get("exit_code").and_then(Value::as_i64);
    let exit = exit.map(|c| format!(", exit code {c}")).unwrap_or_default();
    if reason == "start_failed" {
        return Err(Failure::Failed(format!(
            "the server did not start{exit}: does it listen on the port in PORT? (spawnpoint run --ready says how readiness is known)"
        )));
    }
    note(&format!(
        "the session ended: {reason}{exit}. Another: spawnpoint new"
    ));
    Ok(())
}

/// The present instance's log to its end, or nothing if there is none.
fn print_log(client: &Client, session: &str) -> Result<(), Failure> {
    let Ok(mut stream) = client.stream(&format!("{session}/logs"), &[("follow", "true")], &[])
    else {
        return Ok(());
    };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(n) = stream.read(&mut chunk) {
        let Some(bytes) = chunk.get(..n).filter(|b| !b.is_empty()) else {
            break;
        };
        raw(bytes)?;
    }
    Ok(())
}

/// Says when the program was built anew: nothing is kept warm, so the next session runs it.
async fn tell_of_rebuilds(program: PathBuf, stop: CancellationToken) {
    let modified = |p: &Path| -> Option<SystemTime> { std::fs::metadata(p).ok()?.modified().ok() };
    let mut seen = modified(&program);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = modified(&program);
        if now.is_some() && now != seen {
            seen = now;
            note(&format!(
                "{} was rebuilt: sessions from now on run the new one (spawnpoint new --player {PLAYER} --fresh)",
                program.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, ServeArgs, Verb};

    fn args(words: &[&str]) -> RunArgs {
        let words = ["spawnpoint", "run"].iter().chain(words);
        let Verb::Run(args) = Cli::try_parse_from(words).unwrap().verb else {
            panic!("not run")
        };
        args
    }

    #[test]
    fn the_flags_make_a_configuration_that_holds() {
        for words in [
            &["--", "sh", "-c", "echo \"$PORT\" 'x' \\"][..],
            &["--protocol", "udp", "--", "x"],
            &["--protocol", "tcp", "--", "x"],
            &["--protocol", "http", "--ready", "http:/healthz", "--", "x"],
            &[
                "--ready",
                "log:listening on: 1",
                "--name",
                "game",
                "--",
                "x",
            ],
        ] {
            let args = args(words);
            let text = file(&args, Path::new("/srv")).unwrap();
            let source = Source::text(text.clone(), Some("/state".into()))
                .unwrap()
                .inheriting_environment();
            let loaded = source
                .load(&ServeArgs::default())
                .unwrap_or_else(|e| panic!("{text}\n{e}"));
            let fleet = &loaded.config.fleets[0];
            assert_eq!(fleet.template.command, args.command);
            assert_eq!(fleet.template.workdir.as_deref(), Some(Path::new("/srv")));
            assert!(fleet.template.inherit_env && fleet.warm == 0);
            assert_eq!(
                (fleet.policy.idle, fleet.policy.max, fleet.policy.join),
                (None, None, None)
            );
        }
        assert!(ready("sometimes").is_err() && ready("tcp:x").is_err());
    }

    #[test]
    fn telephones_get_what_they_can_open() {
        let mut c: Connection = serde_json::from_value(json!({
            "session_id": "s", "fleet": "f", "phase": "ready", "ready": true, "generation": 1, "wsUrl": "ws://h:1/session/s?token=t",
            "url": "http://h:1/session/s/?token=t", "protocol": "http", "players": [], "created_at": "",
            "share_url": null, "connect_host": null, "connect_port": null, "token": null, "token_expires_at": null, "player_id": null,
            "queue": null, "cull_at": null, "cull_reason": null, "receipt": null
        }))
        .unwrap();
        assert_eq!(browser_url(&c), c.url);
        c.protocol = "tcp".into();
        assert_eq!(browser_url(&c), None);
    }
}
