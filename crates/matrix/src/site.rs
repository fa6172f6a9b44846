//! One place under test: a state directory, a configuration, ports of its own, and `up` on them, started as often as it is killed.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::api::Api;
use crate::clock::{Chance, eventually};
use crate::machine::{self, Kind};

/// Longest wait for a start, a death or an end; only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The programs: the command with fault points and the bundled games beside it.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) command: PathBuf,
    pub(crate) spice: PathBuf,
    pub(crate) arena: PathBuf,
}

/// How a start went.
pub(crate) enum Started {
    Ready,
    /// It was over before it was ready.
    Died(ExitStatus),
}

pub(crate) struct Site {
    programs: Programs,
    dir: TempDir,
    pub(crate) state: PathBuf,
    ports: [u16; 3],
    up: Option<Child>,
    pub(crate) public: Api,
    pub(crate) admin: Api,
    /// A file system of the state directory's own, if it has one.
    pub(crate) volume: bool,
}

/// Lines of the fleet of those who stay, unless a row wants others.
pub(crate) const STAY: &str = "idle_timeout = \"5m\"";

impl Site {
    /// A place of its own among those that are used at the same time.
    pub(crate) fn new(
        programs: &Programs,
        slot: u16,
        stay: &str,
        chance: &mut Chance,
    ) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("kill-matrix-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let state = dir.path().join("state");
        std::fs::create_dir(&state).map_err(|e| e.to_string())?;
        let ports = free_ports(chance)?;
        let text = configuration(programs, slot, ports, stay);
        std::fs::write(dir.path().join("spawnpoint.toml"), text).map_err(|e| e.to_string())?;
        Ok(Self {
            programs: programs.clone(),
            state,
            dir,
            ports,
            up: None,
            public: Api::at(format!("http://127.0.0.1:{}", ports[0])),
            admin: Api::at(format!("http://127.0.0.1:{}", ports[1])),
            volume: false,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `up` with these variables and waits until it is ready, or is over.
    pub(crate) fn start(&mut self, variables: &[(&str, String)]) -> Result<Started, String> {
        self.start_until("/readyz", variables)
    }

    /// The same where it may be alive and not ready, as with records that cannot be written to.
    pub(crate) fn start_as_it_can(&mut self) -> Result<Started, String> {
        self.start_until("/healthz", &[])
    }

    fn start_until(&mut self, page: &str, variables: &[(&str, String)]) -> Result<Started, String> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))
            .map_err(|e| e.to_string())?;
        let child = Command::new(&self.programs.command)
            .args(["up", "--state-dir"])
            .arg(&self.state)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("SPAWNPOINT_LOG", "info")
            .envs(variables.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.programs.command.display()))?;
        self.up = Some(child);
        eventually("up is ready or over", PATIENCE, || {
            if let Some(status) = self.over() {
                return Ok(Started::Died(status));
            }
            match self.admin.get(page) {
                Ok(a) if a.status == 200 => Ok(Started::Ready),
                Ok(a) => Err(a.body.to_string()),
                Err(e) => Err(e),
            }
        })
    }

    /// The same, and it has to be ready.
    pub(crate) fn start_well(&mut self, variables: &[(&str, String)]) -> Result<(), String> {
        match self.start(variables)? {
            Started::Ready => Ok(()),
            Started::Died(status) => Err(format!("up did not start: {status}\n{}", self.log_end())),
        }
    }

    /// How it ended, if it did.
    pub(crate) fn over(&mut self) -> Option<ExitStatus> {
        self.up.as_mut()?.try_wait().ok()?
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        i32::try_from(self.up.as_ref()?.id()).ok()
    }

    /// Waits for its end, of a `kill -9`.
    pub(crate) fn killed(&mut self) -> Result<(), String> {
        let status = eventually("up is dead", PATIENCE, || {
            self.over().ok_or_else(|| "it lives".to_owned())
        })?;
        self.up = None;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            Ok(())
        } else {
            Err(format!(
                "up was to die of SIGKILL: {status}\n{}",
                self.log_end()
            ))
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if let Some(pid) = self.pid() {
            machine::signal(pid, Signal::KILL);
        }
        self.killed()
    }

    /// SIGTERM: games are ended, then it exits well, and nothing of it is left.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        if let Some(pid) = self.pid() {
            machine::signal(pid, Signal::TERM);
        }
        let status = eventually("up stops", PATIENCE, || {
            self.over().ok_or_else(|| "it runs".to_owned())
        })?;
        self.up = None;
        if !status.success() {
            return Err(format!(
                "up did not stop well: {status}\n{}",
                self.log_end()
            ));
        }
        self.nothing_left()
    }

    fn nothing_left(&self) -> Result<(), String> {
        eventually("no process is left", PATIENCE, || {
            let left = machine::processes(&self.state);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })?;
        for port in self.ports {
            TcpListener::bind(("127.0.0.1", port))
                .map_err(|e| format!("port {port} is still taken: {e}"))?;
        }
        for kind in ["instances", "torn"] {
            let left: Vec<_> = std::fs::read_dir(self.state.join(kind))
                .map_err(|e| e.to_string())?
                .filter_map(|e| Some(e.ok()?.file_name()))
                .collect();
            if !left.is_empty() {
                return Err(format!("files are left in {kind}: {left:?}"));
            }
        }
        Ok(())
    }

    /// The audit verb, of the very command: its exit code and what it says.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let out = Command::new(&self.programs.command)
            .args([
                "audit",
                "--server",
                &format!("http://127.0.0.1:{}", self.ports[1]),
            ])
            .env_clear()
            .output()
            .map_err(|e| e.to_string())?;
        if out.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&out.stdout);
        let complained = String::from_utf8_lossy(&out.stderr);
        Err(format!(
            "spawnpoint audit: {}\n{said}{complained}",
            out.status
        ))
    }

    pub(crate) fn pids(&self, kind: Kind) -> Vec<i32> {
        let all = machine::processes(&self.state);
        all.iter()
            .filter(|p| p.kind == kind)
            .map(|p| p.pid)
            .collect()
    }

    /// The value of a metric with these labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, String> {
        let answer = self.admin.get("/metrics")?;
        let text = answer.body.as_str().unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(name));
        let value = line.and_then(|l| l.rsplit(' ').next()?.parse().ok());
        value.ok_or_else(|| format!("no metric {name}"))
    }

    /// The end of everything that `up` wrote in this place.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(6_000);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Copies what `up` wrote to where it can be looked at after this place is gone.
    pub(crate) fn keep_log(&self, to: &Path) {
        let _ = std::fs::copy(self.file("log"), to);
    }
}

impl Drop for Site {
    /// Nothing outlives the runner, whatever failed.
    fn drop(&mut self) {
        if let Some(up) = &mut self.up {
            let _ = up.kill();
            let _ = up.wait();
        }
        for p in machine::processes(&self.state) {
            machine::signal(p.pid, Signal::CONT);
            machine::signal(p.pid, Signal::KILL);
        }
        crate::trouble::unlock(self);
    }
}

/// Below the ports that systems give to outgoing connections, so that a restart finds its own free.
fn free_ports(chance: &mut Chance) -> Result<[u16; 3], String> {
    let mut held = Vec::new();
    for _ in 0..1_000 {
        let port = 10_000 + u16::try_from(chance.below(9_000)).unwrap_or(0);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if let [a, b, c] = held.as_slice() {
            return Ok([a.0, b.0, c.0]);
        }
    }
    Err("no free ports".to_owned())
}

fn configuration(
    programs: &Programs,
    slot: u16,
    [public, admin, sdk]: [u16; 3],
    stay: &str,
) -> String {
    let (spice, arena) = (
        programs.spice.display().to_string(),
        programs.arena.display().to_string(),
    );
    let (instances, tcp) = (22_000 + slot * 200, 26_000 + slot * 100);
    format!(
        "[server]\nhost = \"127.0.0.1\"\nadmin_host = \"127.0.0.1\"\nsdk_host = \"127.0.0.1\"\n\
         port = {public}\nadmin_port = {admin}\nsdk_port = {sdk}\n\
         instance_ports = \"{instances}-{}\"\ntcp_ports = \"{tcp}-{}\"\n\
         [[fleet]]\nname = \"spice\"\nwarm = 2\nmax_instances = 8\nreconnect_grace = \"1s\"\ntermination_grace = \"1s\"\n\
         run = {{ command = [{spice:?}] }}\n\
         [[fleet]]\nname = \"stay\"\nreconnect_grace = \"2m\"\n{stay}\nrun = {{ command = [{spice:?}] }}\n\
         [[fleet]]\nname = \"small\"\nmax_instances = 2\non_crash = \"restart\"\nreconnect_grace = \"1s\"\n\
         run = {{ command = [{spice:?}] }}\n\
         [[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\non_crash = \"end\"\nreconnect_grace = \"1s\"\n\
         run = {{ command = [{arena:?}] }}\n\
         [[queue]]\nname = \"arena\"\nsession_size = 2\nflush_wait = \"300ms\"\n",
        instances + 199,
        tcp + 99,
    )
}
