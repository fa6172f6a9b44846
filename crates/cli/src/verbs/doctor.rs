//! `spawnpoint doctor`: what would keep this machine or this configuration from working, each with what mends it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use spawnpoint_core::Clock;
use spawnpoint_runtime::Protocol;
use spawnpoint_runtime::clock::SystemClock;
use spawnpoint_runtime::process::{LimitSupport, limits_available};
use spawnpoint_server::Config;
use spawnpoint_server::config::{Expose, FleetConfig, Setting};

use crate::args::{DoctorArgs, Global};
use crate::client::Client;
use crate::config_file::{
    GAMES, Loaded, Source, bundled, in_path, is_program, misspelled_variables,
};
use crate::exit::Failure;
use crate::listen::{reachable, state_holder};
use crate::output::{coloured, paint, show, table};

/// Below this much free space records and logs would soon not be written.
const DISK_FAIL: u64 = 64 * 1024 * 1024;
/// Below this much it is time to look.
const DISK_WARN: u64 = 1024 * 1024 * 1024;
/// Open files that a hundred sessions need, with room.
const DESCRIPTORS_WANTED: u64 = 4_096;
/// A wall clock before this is not set: this release is younger.
const CLOCK_FLOOR_MS: i64 = 1_750_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    detail: String,
    /// What to do about it; empty when there is nothing to do.
    fix: String,
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Ok,
        detail: detail.into(),
        fix: String::new(),
    }
}

fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Warning,
        detail: detail.into(),
        fix: fix.into(),
    }
}

fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Failure,
        detail: detail.into(),
        fix: fix.into(),
    }
}

/// Checks everything and shows it.
pub(crate) fn run(args: &DoctorArgs, global: &Global) -> Result<(), Failure> {
    let mut checks = vec![bundled_game()];
    let mut settings = Vec::new();
    match Source::locate(args.config.as_deref()).and_then(|s| Ok((s.load(&args.serve)?, s))) {
        Ok((
            Loaded {
                config,
                settings: all,
            },
            source,
        )) => {
            let from = source.path.map_or_else(
                || "no file: the bundled game".to_owned(),
                |p| p.display().to_string(),
            );
            checks.push(ok("configuration", from));
            settings = all;
            about_config(&config, &mut checks);
        }
        Err(e) => checks.push(fail(
            "configuration",
            e.to_string(),
            "mend it; docs/configuration.md has every key",
        )),
    }
    checks.extend(limits());
    checks.push(descriptors());
    checks.push(clock());
    checks.push(chromium());
    checks.push(running(global));
    if cfg!(target_os = "macos") {
        checks.push(warn("platform", "macOS: no processor or memory limits, and processes that escape their group are not followed", "use Linux where that matters"));
    }
    report(&checks, &settings, global)
}

fn about_config(config: &Config, checks: &mut Vec<Check>) {
    checks.extend(
        misspelled_variables(config)
            .into_iter()
            .map(|words| warn("variables", words, "correct or unset it")),
    );
    checks.extend(config.fleets.iter().map(|f| program(f)));
    let server = &config.server;
    let holder = state_holder(&server.state_dir);
    checks.push(state_dir(&server.state_dir, holder));
    checks.push(disk(&server.state_dir));
    for (addresses, flag) in [
        (&server.public, "--port"),
        (&server.admin, "--admin-port"),
        (&server.sdk, "--sdk-port"),
    ] {
        checks.push(port(addresses, flag, holder));
    }
    checks.push(ports(
        "instance ports",
        "server.instance_ports",
        server.instance_ports,
    ));
    if config
        .fleets
        .iter()
        .any(|f| f.template.protocol == Protocol::Tcp && f.expose == Expose::Gateway)
    {
        checks.push(ports("TCP ports", "server.tcp_ports", server.tcp_ports));
    }
    checks.push(access(config));
}

fn bundled_game() -> Check {
    match GAMES.iter().find(|g| bundled(g).is_none()) {
        None => ok(
            "bundled games",
            GAMES
                .iter()
                .filter_map(|g| bundled(g))
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        Some(game) => warn(
            "bundled games",
            format!("{game} is neither beside this executable nor in PATH"),
            "make install puts it there; your own servers do not need it",
        ),
    }
}

fn program(f: &FleetConfig) -> Check {
    let name = "fleet";
    let command = f
        .template
        .command
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let found = if command.contains('/') {
        Some(PathBuf::from(command)).filter(|p| is_program(p))
    } else {
        in_path(command)
    };
    let Some(found) = found else {
        let detail = format!("{}: {command:?} is no program that can be run", f.name);
        return fail(
            name,
            detail,
            "check run.command: a path begins at the file's directory, a bare name is looked up in PATH; chmod +x what you built",
        );
    };
    if let Some(dir) = f.template.workdir.as_deref().filter(|d| !d.is_dir()) {
        return fail(
            name,
            format!("{}: there is no directory {}", f.name, dir.display()),
            "check run.workdir",
        );
    }
    ok(name, format!("{}: {}", f.name, found.display()))
}

fn state_dir(dir: &Path, holder: Option<u32>) -> Check {
    let name = "state directory";
    if let Some(pid) = holder {
        return ok(
            name,
            format!("{} is in use by process {pid}", dir.display()),
        );
    }
    // Nothing is created here: the nearest directory there is decides whether it could be.
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
    match rustix::fs::access(
        existing,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    ) {
        Ok(()) => ok(name, dir.display().to_string()),
        Err(e) => fail(
            name,
            format!("{} cannot be written to: {e}", existing.display()),
            "choose another with --state-dir",
        ),
    }
}

fn disk(dir: &Path) -> Check {
    let name = "disk";
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
    match rustix::fs::statvfs(existing) {
        Err(e) => warn(
            name,
            format!("free space is not known: {e}"),
            "see that there is room for logs and records",
        ),
        Ok(s) => {
            let free = s.f_bavail.saturating_mul(s.f_frsize);
            let detail = format!("{} MiB free", free / (1024 * 1024));
            match free {
                _ if free < DISK_FAIL => fail(
                    name,
                    detail,
                    "free some: no session can be started without room for its state",
                ),
                _ if free < DISK_WARN => warn(name, detail, "free some before it runs out"),
                _ => ok(name, detail),
            }
        }
    }
}

fn port(addresses: &[SocketAddr], flag: &'static str, holder: Option<u32>) -> Check {
    if addresses.iter().all(|a| a.port() == 0) {
        return ok("port", format!("{flag} 0: any free one"));
    }
    let shown = addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    for address in addresses.iter().filter(|a| a.port() != 0) {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                return match holder {
                    Some(pid) => ok(
                        "port",
                        format!(
                            "{address} is taken, and a server runs on this state directory (process {pid})"
                        ),
                    ),
                    None => fail(
                        "port",
                        format!("{address} is taken by another program"),
                        format!("stop it, or choose another with {flag}"),
                    ),
                };
            }
            // No IPv6 on this machine: `up` goes on without it.
            Err(_) if address.is_ipv6() && address.ip().is_loopback() => {}
            Err(e) => {
                return fail(
                    "port",
                    format!("cannot listen on {address}: {e}"),
                    format!("choose another with {flag} or --host"),
                );
            }
        }
    }
    ok("port", format!("{shown} free"))
}

fn ports(name: &'static str, key: &str, (first, last): (u16, u16)) -> Check {
    let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|t| {
            let mut numbers = t.split_whitespace().map(str::parse::<u16>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
    match ephemeral {
        Some((from, to)) if first <= to && from <= last => warn(
            name,
            format!(
                "{first}-{last} overlaps the system's own range for outgoing connections, {from}-{to}"
            ),
            format!("set {key} outside of it: a port may be taken when it is needed"),
        ),
        _ => ok(name, format!("{first}-{last}")),
    }
}

fn access(config: &Config) -> Check {
    let server = &config.server;
    let name = "access";
    if server.dev_mode() {
        return ok(
            name,
            "dev mode: only this machine can connect, and every caller counts as a backend",
        );
    }
    let open = server.public.iter().any(|a| !a.ip().is_loopback());
    let detail = format!(
        "{}, {} keys{}",
        if server.guests {
            "guests may play"
        } else {
            "no guests"
        },
        server.keys.len(),
        if open {
            format!(", reachable from other machines as {}", reachable())
        } else {
            String::new()
        }
    );
    if open
        && server
            .public_url
            .as_deref()
            .is_none_or(|u| u.starts_with("http://"))
    {
        return warn(
            name,
            detail,
            "tokens travel readable to others on the way: fine at home, behind TLS (public_url = \"https://...\") anywhere else",
        );
    }
    ok(name, detail)
}

fn limits() -> Vec<Check> {
    let report = limits_available();
    [
        ("memory limits", report.memory),
        ("processor limits", report.cpu),
    ]
    .into_iter()
    .map(|(name, support)| match support {
        LimitSupport::Available(version) => ok(name, format!("control groups {version:?}")),
        LimitSupport::Missing(why) => warn(
            name,
            why,
            "games run without it; needed only for run.memory and run.cpu",
        ),
    })
    .collect()
}

fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(n) if n < DESCRIPTORS_WANTED => warn(
            "open files",
            format!("at most {n}"),
            format!("raise it (ulimit -Hn {DESCRIPTORS_WANTED}): every player takes two"),
        ),
        Some(n) => ok("open files", format!("at most {n}")),
        None => ok("open files", "no limit"),
    }
}

fn clock() -> Check {
    let clock = SystemClock::new();
    let wall = clock.wall(clock.now());
    if wall < CLOCK_FLOOR_MS {
        return fail(
            "clock",
            "the wall clock is not set",
            "set it (timedatectl set-ntp true): tokens carry dates",
        );
    }
    if clock.boot_id().is_empty() {
        return warn(
            "clock",
            "this boot of the machine has no name",
            "after a restart of Spawnpoint deadlines go by the wall clock",
        );
    }
    ok("clock", "set")
}

fn chromium() -> Check {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find_map(in_path);
    match browser {
        Some(path) => ok("chromium", path.display().to_string()),
        None => warn(
            "chromium",
            "not found",
            "only the browser tests of `make test` need it: sudo apt-get install -y chromium",
        ),
    }
}

fn running(global: &Global) -> Check {
    let name = "server";
    let answer = Client::new(global).and_then(|c| c.get("/readyz", &[]));
    match answer {
        Ok(ready) if ready.get("ready").and_then(Value::as_bool) == Some(true) => {
            ok(name, format!("{} is ready", global.server))
        }
        Ok(_) => warn(
            name,
            format!("{} answers and is not ready", global.server),
            format!("curl {}/readyz says why", global.server),
        ),
        Err(Failure::Unreachable(_)) => ok(name, format!("none runs at {}", global.server)),
        Err(e) => warn(name, e.to_string(), "check --server and SPAWNPOINT_KEY"),
    }
}

fn report(checks: &[Check], settings: &[Setting], global: &Global) -> Result<(), Failure> {
    let failures = checks
        .iter()
        .filter(|c| c.verdict == Verdict::Failure)
        .count();
    let value = json!({
        "ok": failures == 0,
        "checks": checks.iter().map(|c| json!({
            "name": c.name,
            "status": word(c.verdict),
            "detail": c.detail,
            "fix": (!c.fix.is_empty()).then_some(&c.fix),
        })).collect::<Vec<_>>(),
        "settings": settings.iter().map(|s| json!({ "key": s.path, "value": s.value, "source": s.origin.to_string() })).collect::<Vec<_>>(),
    });
    show(global.output, &value, || {
        let mut lines: Vec<String> = checks.iter().map(line).collect();
        if !settings.is_empty() {
            let rows = settings
                .iter()
                .map(|s| vec![s.path.clone(), s.value.clone(), s.origin.to_string()])
                .collect();
            lines.push(String::new());
            lines.push(table(&["SETTING", "VALUE", "SOURCE"], rows));
        }
        lines.join("\n")
    })?;
    if failures > 0 {
        Err(Failure::Said)
    } else {
        Ok(())
    }
}

const fn word(v: Verdict) -> &'static str {
    match v {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failure => "failure",
    }
}

fn line(c: &Check) -> String {
    let style = match c.verdict {
        Verdict::Ok => "32",
        Verdict::Warning => "33",
        Verdict::Failure => "31;1",
    };
    let mark = paint(coloured(), style, &format!("{:<8}", word(c.verdict)));
    let mut text = format!(
        "{mark} {:<17} {}",
        c.name,
        c.detail.replace('\n', "\n                           ")
    );
    if !c.fix.is_empty() {
        text.push_str(&format!("\n                           -> {}", c.fix));
    }
    text
}
