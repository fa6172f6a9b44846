//! The process runtime with real processes: a state directory of its own per test, and nothing left of it afterwards.

mod adoption;
mod conformance;
mod faults;
mod limits;
mod ordinary;
mod readiness;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use spawnpoint_core::InstanceId;
use spawnpoint_core::session::Exit;
use spawnpoint_runtime::process::{ProcessConfig, ProcessRuntime};
use spawnpoint_runtime::{
    Change, Facts, Instance, LogRange, Order, Protocol, ReadyRule, Runtime, RuntimeError, State,
    Template, Version,
};

/// Long enough for a loaded machine; nothing waits this long unless it failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The test game, which is also the shim.
fn game() -> PathBuf {
    env!("CARGO_BIN_EXE_spawnpoint-testgame").into()
}

/// A port block of its own for each test, below the ephemeral range, so that tests beside each other do not meet.
fn own_ports() -> std::ops::RangeInclusive<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let block = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 7;
    let from = 10_000 + u16::try_from(block % 80).unwrap() * 120;
    from..=from + 119
}

/// One state directory and its owner.
struct World {
    dir: tempfile::TempDir,
    config: ProcessConfig,
    runtime: Arc<ProcessRuntime>,
    _sweep: Sweep,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ProcessConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            ProcessConfig::new(dir.path().join("state"), vec![game().into(), "shim".into()]);
        config.ports = own_ports();
        change(&mut config);
        let runtime = ProcessRuntime::open(config.clone()).unwrap();
        Self {
            _sweep: Sweep(dir.path().to_owned()),
            dir,
            config,
            runtime,
        }
    }

    /// Lets go of the state directory as a killed owner would, and opens it again.
    async fn reopen(&mut self) {
        self.runtime.shutdown().await;
        self.runtime = ProcessRuntime::open(self.config.clone()).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn instance_dir(&self, id: InstanceId) -> PathBuf {
        self.config.state_dir.join("instances").join(id.to_string())
    }

    async fn start(&self, order: Order) -> Instance {
        let id = self.runtime.order(order).await.unwrap().id;
        self.until_ready(id).await
    }

    /// Waits for a change that `wanted` accepts; an exit that is not wanted fails at once, with the log.
    async fn until(
        &self,
        id: InstanceId,
        what: &str,
        wanted: impl Fn(&Instance) -> bool,
    ) -> Instance {
        let mut changes = self.runtime.watch().await.unwrap();
        let wait = async {
            while let Some(change) = changes.next().await {
                let seen = match change {
                    Change::All(all) => all.into_iter().find(|i| i.id == id),
                    Change::One(one) if one.id == id => Some(*one),
                    _ => None,
                };
                let Some(seen) = seen else { continue };
                if wanted(&seen) {
                    return seen;
                }
                if let State::Exited(exit) = seen.state {
                    let log = self.log(id).await;
                    panic!("{id} is over ({exit:?}) before: {what}; its log: {log}");
                }
            }
            panic!("the watch ended before: {what}");
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(instance) => instance,
            Err(_) => panic!(
                "not in time: {what}; now {:?}; its log: {}",
                self.runtime.get(id).await,
                self.log(id).await
            ),
        }
    }

    async fn until_ready(&self, id: InstanceId) -> Instance {
        self.until(id, "ready", |i| i.state == State::Ready).await
    }

    async fn until_exit(&self, id: InstanceId) -> Exit {
        let over = self
            .until(id, "an exit", |i| matches!(i.state, State::Exited(_)))
            .await;
        match over.state {
            State::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    async fn log(&self, id: InstanceId) -> String {
        match self.runtime.logs(id, LogRange::default()).await {
            Ok(log) => {
                let chunks: Vec<_> = log.map(Result::unwrap).collect().await;
                String::from_utf8_lossy(&chunks.concat()).into_owned()
            }
            Err(e) => e.to_string(),
        }
    }

    /// Waits until the log ends with this.
    async fn until_logged(&self, id: InstanceId, end: &str) {
        let read = async {
            while !self.log(id).await.ends_with(end) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        assert!(read.is_ok(), "its log never ends with {end:?}");
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Exit {
        let version = self.runtime.get(id).await.unwrap().version;
        self.runtime.stop(id, version, grace).await.unwrap();
        self.until_exit(id).await
    }

    /// Ends and forgets everything, and proves that nothing is left.
    async fn end(self) {
        for instance in self.runtime.list().await.unwrap() {
            if !matches!(instance.state, State::Exited(_)) {
                self.stop(instance.id, Duration::ZERO).await;
            }
            let now = self.runtime.get(instance.id).await.unwrap();
            self.runtime.forget(now.id, now.version).await.unwrap();
        }
        assert!(self.runtime.list().await.unwrap().is_empty());
        let left = std::fs::read_dir(self.config.state_dir.join("instances"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "instance directories are left");
        eventually("no process of this test is left", || {
            processes_of(self.dir.path()).is_empty()
        });
        self.runtime.shutdown().await;
    }
}

/// After a failed test: what it started must not outlive it.
struct Sweep(PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        for pid in processes_of(&self.0) {
            kill(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Every live process that this test started: it has the test's directory in its environment or arguments.
fn processes_of(dir: &Path) -> Vec<i32> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let holds = |path: String| {
        std::fs::read(path).is_ok_and(|text| text.windows(needle.len()).any(|w| w == needle))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        .filter(|pid| {
            holds(format!("/proc/{pid}/environ")) || holds(format!("/proc/{pid}/cmdline"))
        })
        .collect()
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let tries = 6_000;
    for _ in 0..tries {
        if check() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not in time: {what}");
}

fn new_id() -> InstanceId {
    InstanceId::new(uuid::Uuid::now_v7())
}

fn template(args: &[&str]) -> Template {
    let mut command = vec![game().display().to_string()];
    command.extend(args.iter().map(|a| (*a).to_owned()));
    Template {
        command,
        env: BTreeMap::new(),
        inherit_env: false,
        workdir: None,
        cpu_millis: None,
        memory_bytes: None,
        protocol: Protocol::Tcp,
        ready: ReadyRule::Dial,
        fixed_port: None,
        host_port: false,
    }
}

fn order(args: &[&str]) -> Order {
    Order {
        id: new_id(),
        fleet: "test".parse().unwrap(),
        template: template(args),
        gated: false,
        facts: None,
        session_file: None,
        env: BTreeMap::new(),
    }
}

fn facts(document: &str) -> Facts {
    Facts {
        session: "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap(),
        document: document.into(),
    }
}

fn address(instance: &Instance) -> SocketAddr {
    instance.address.expect("an address")
}

/// Says one line to a game and returns its answer; empty if it left without one.
fn ask(at: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

/// The game's own process, from its label.
fn pid(instance: &Instance) -> i32 {
    instance
        .label
        .strip_prefix("pid ")
        .unwrap_or_else(|| panic!("no pid in {:?}", instance.label))
        .parse()
        .unwrap()
}

/// The parent of a process.
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn document(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, RuntimeError>) {
    assert!(matches!(result, Err(RuntimeError::Conflict)), "{result:?}");
}

fn is_over<T: std::fmt::Debug>(result: Result<T, RuntimeError>) {
    assert!(matches!(result, Err(RuntimeError::Over)), "{result:?}");
}

/// A version nobody has seen.
fn wrong(version: Version) -> Version {
    Version(version.0 + 1_000)
}
