//! The binary as a child process, and a client that speaks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes a tenth of this; it only keeps a failure from hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary with nothing in its environment but `env`.
pub(crate) fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arena-tcp"));
    command
        .env_clear()
        .env("PORT", "0")
        .env("ARENA_HOST", "127.0.0.1")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(env: &[(&str, &str)], args: &[&str]) -> Output {
    command(env).args(args).output().expect("arena-tcp starts")
}

pub(crate) struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    pub(crate) address: SocketAddr,
    dir: TempDir,
}

impl Server {
    /// Started and listening.
    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let mut child = command(env)
            .env("SPAWNPOINT_RESULTS_FILE", dir.path().join("results"))
            .env("SPAWNPOINT_SESSION_FILE", dir.path().join("session"))
            .spawn()
            .expect("arena-tcp starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("readable");
        let address = line.trim().rsplit(' ').next().and_then(|a| a.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            child,
            out,
            address,
            dir,
        }
    }

    pub(crate) fn dial(&self) -> Client {
        let tcp = TcpStream::connect(self.address).expect("accepts");
        tcp.set_read_timeout(Some(PATIENCE)).expect("settable");
        tcp.set_write_timeout(Some(PATIENCE)).expect("settable");
        tcp.set_nodelay(true).expect("settable");
        Client {
            tcp: BufReader::new(tcp),
        }
    }

    pub(crate) fn session_file(&self) -> PathBuf {
        self.dir.path().join("session")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        let status = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waitable").is_none()
    }

    /// Its exit code, its log and its results, once it has ended.
    pub(crate) fn end(mut self) -> (Option<i32>, String, Value) {
        let mut log = String::new();
        self.out.read_to_string(&mut log).expect("text");
        let code = self.child.wait().expect("waitable").code();
        let results = std::fs::read(self.dir.path().join("results")).unwrap_or_default();
        let results = serde_json::from_slice(&results).unwrap_or(Value::Null);
        (code, log, results)
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("a resident size")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Client {
    pub(crate) tcp: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp
            .get_mut()
            .write_all(bytes.as_ref())
            .expect("written");
    }

    /// The next line with its end; empty at the end of the stream.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.tcp.read_line(&mut line).expect("a line in time");
        line
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// Everything until the server hangs up.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.tcp.read_to_string(&mut text).expect("text");
        text
    }

    /// No more from us, as `nc -N` does at the end of its input.
    pub(crate) fn finish(&mut self) {
        self.tcp
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("half closed");
    }
}
