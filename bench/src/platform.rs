//! The product as it is shipped: the real binaries, started as a user would, on a state directory and ports of their own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stopwatch::Mark;
use crate::wire::Http;

/// Names the `spawnpoint` binary, if it is not beside this one.
pub(crate) const BIN_VAR: &str = "SPAWNPOINT_BIN";
/// Ports of the games: inside the product's usual ranges nothing of ours, so that a server in daily use is not disturbed.
const PORTS: &str = "28000-29999";
/// Pause between two looks at something outside of what is timed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What does not settle in this time will not.
const SETTLES: Duration = Duration::from_secs(120);
/// For a drain of every game.
const STOPS: Duration = Duration::from_secs(60);

/// The binaries that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) spawnpoint: PathBuf,
    pub(crate) spice: PathBuf,
}

impl Binaries {
    /// # Errors
    /// With the command that builds what is missing.
    pub(crate) fn find() -> Result<Self> {
        let beside = std::env::current_exe()?
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let spawnpoint =
            std::env::var_os(BIN_VAR).map_or_else(|| beside.join("spawnpoint"), PathBuf::from);
        let spice = spawnpoint.parent().unwrap_or(&beside).join("spice");
        let missing: Vec<String> = [&spawnpoint, &spice]
            .iter()
            .filter(|p| !p.is_file())
            .map(|p| p.display().to_string())
            .collect();
        if !missing.is_empty() {
            bail!(
                "missing: {}\nbuild what is measured with\n    cargo build --release -p spawnpoint -p spice\nor name it with {BIN_VAR} (spice is looked for beside it)",
                missing.join(", ")
            );
        }
        Ok(Self {
            spawnpoint: spawnpoint.canonicalize()?,
            spice: spice.canonicalize()?,
        })
    }
}

/// One fleet of the measured server.
#[derive(Clone, Debug)]
pub(crate) struct FleetSpec {
    pub(crate) name: &'static str,
    pub(crate) warm: u32,
    pub(crate) max_instances: Option<u32>,
    /// Its times and whatever else it is set to, as TOML.
    pub(crate) rules: &'static str,
}

/// Nothing but an end call ends a session while it is measured.
pub(crate) const UNTIL_ENDED: &str = "idle_timeout = \"none\"\nmax_duration = \"none\"\njoin_timeout = \"none\"\nreconnect_grace = \"1h\"\n";

/// A running `spawnpoint up`. Dropping it ends it and its games.
pub(crate) struct Up {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    dir: TempDir,
}

impl Up {
    pub(crate) fn start(binaries: &Binaries, fleets: &[FleetSpec]) -> Result<Self> {
        let dir = TempDir::with_prefix("spawnpoint-bench-")?;
        let config = dir.path().join("spawnpoint.toml");
        fs::write(&config, configuration(&binaries.spice, fleets))?;
        let (child, public, admin) = serve(binaries, dir.path(), [0; 2])?;
        Ok(Self {
            child,
            public,
            admin,
            dir,
        })
    }

    /// Dies as by `kill -9`; its games do not.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts again over what it left, at the same addresses.
    pub(crate) fn again(&mut self, binaries: &Binaries) -> Result<()> {
        let ports = [self.public.port(), self.admin.port()];
        (self.child, self.public, self.admin) = serve(binaries, self.dir.path(), ports)?;
        Ok(())
    }

    /// Where it keeps what outlives it.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until nothing of a fleet is moving: no session, nothing starting or stopping, the warm ones all there.
    pub(crate) fn settled(&self, admin: &mut Http, fleet: &str) -> Result<Value> {
        let path = format!("/api/fleets/{fleet}");
        self.wait_for(admin, &path, |f| {
            let zero = |key: &str| f[key].as_u64() == Some(0);
            zero("sessions")
                && zero("claimed")
                && zero("starting")
                && zero("stopping")
                && f["warm"] == f["warm_target"]
        })
    }

    /// Looks at `path` until it is so.
    pub(crate) fn wait_for(
        &self,
        admin: &mut Http,
        path: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let began = Mark::now();
        loop {
            let seen = admin.get(path)?;
            if so(&seen) {
                return Ok(seen);
            }
            ensure!(
                seen["degraded"] != json!(true),
                "the games do not start: {seen}\n{}",
                self.log()
            );
            ensure!(
                began.elapsed() < SETTLES,
                "{path} does not settle: {seen}\n{}",
                self.log()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it as Ctrl-C does and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        if let Some(pid) = Pid::from_raw(i32::try_from(self.child.id())?) {
            let _ = kill_process(pid, Signal::INT);
        }
        let began = Mark::now();
        while began.elapsed() < STOPS {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("`spawnpoint up` did not stop by itself:\n{}", self.log())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.drain();
    }
}

/// Starts the server over this directory; returns when it is ready.
fn serve(
    binaries: &Binaries,
    dir: &Path,
    [public, admin]: [u16; 2],
) -> Result<(Child, SocketAddr, SocketAddr)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let mut command = Command::new(&binaries.spawnpoint);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPAWNPOINT_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--output", "json", "up", "--sdk-port", "0"])
        .args(["--port", &public.to_string()])
        .args(["--admin-port", &admin.to_string()])
        .arg("--config")
        .arg(dir.join("spawnpoint.toml"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .current_dir(dir)
        .env("SPAWNPOINT_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", binaries.spawnpoint.display()))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let ready: Value = serde_json::from_str(&line).unwrap_or_default();
    let address = |key: &str| {
        ready[key][0]
            .as_str()
            .and_then(|a| a.parse::<SocketAddr>().ok())
    };
    if let (Some(public), Some(admin)) = (address("public"), address("admin")) {
        return Ok((child, public, admin));
    }
    let _ = child.kill();
    let _ = child.wait();
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    bail!("`spawnpoint up` did not become ready; it said: {line}{log}");
}

fn configuration(spice: &Path, fleets: &[FleetSpec]) -> String {
    let mut text = format!("[server]\ninstance_ports = \"{PORTS}\"\n");
    for f in fleets {
        let command = Value::String(spice.display().to_string());
        text.push_str(&format!(
            "\n[[fleet]]\nname = \"{}\"\nrun = {{ command = [{command}] }}\nwarm = {}\n",
            f.name, f.warm
        ));
        if let Some(most) = f.max_instances {
            text.push_str(&format!("max_instances = {most}\n"));
        }
        text.push_str(f.rules);
    }
    text
}

/// The body of a call for a new session of a player nobody has heard of.
pub(crate) fn new_game(fleet: &str, number: u64) -> Value {
    json!({"playerId": format!("bench-{}-{number}", std::process::id()), "fleet": fleet})
}

/// A text field of an answer.
pub(crate) fn text<'a>(body: &'a Value, key: &str) -> Result<&'a str> {
    body[key]
        .as_str()
        .with_context(|| format!("no {key} in {body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_with_every_fleet() {
        let fleets = [
            FleetSpec {
                name: "cold",
                warm: 0,
                max_instances: None,
                rules: UNTIL_ENDED,
            },
            FleetSpec {
                name: "warm",
                warm: 4,
                max_instances: Some(9),
                rules: "max_duration = \"20s\"\n",
            },
        ];
        let text = configuration(Path::new("/a \"b\"/spice"), &fleets);
        assert!(text.contains(r#"command = ["/a \"b\"/spice"]"#), "{text}");
        assert_eq!(text.matches("[[fleet]]").count(), 2);
        assert_eq!(text.matches("max_instances = 9").count(), 1);
        assert!(text.ends_with("max_duration = \"20s\"\n"), "{text}");
    }
}
