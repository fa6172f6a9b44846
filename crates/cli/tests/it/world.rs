//! What the tests stand on: a directory, a clean environment, and `up` as a child that is never left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{self, WebSocket};

/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);
/// Looks before a wait is given up: 40 s, only to keep a failure from hanging.
const LOOKS: usize = 2_000;

pub(crate) type Socket = WebSocket<MaybeTlsStream<std::net::TcpStream>>;

/// Waits until `look` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK);
    }
    panic!("waited in vain: {what}");
}

/// The bundled games, built if this test run did not build them.
pub(crate) fn spice() -> &'static Path {
    static SPICE: OnceLock<PathBuf> = OnceLock::new();
    SPICE.get_or_init(|| bundled("spice"))
}

/// The bundled TCP game, likewise.
pub(crate) fn arena() -> &'static Path {
    static ARENA: OnceLock<PathBuf> = OnceLock::new();
    ARENA.get_or_init(|| bundled("arena-tcp"))
}

fn bundled(game: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_spawnpoint")).with_file_name(game);
    // Cargo builds binaries of this package only, and knows itself whether there is anything to do.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", game])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success() && beside.is_file(), "cargo build -p {game}");
    beside
}

/// A directory with a `spawnpoint.toml`, and the environment of a fresh user.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    /// With any free ports and these fleets.
    pub(crate) fn new(fleets: &str) -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        world.configure(fleets);
        world
    }

    /// Writes the file (anew), as editors do: whole, by renaming.
    pub(crate) fn configure(&self, fleets: &str) {
        let text = format!(
            "[server]\nport = 0\nadmin_port = 0\nsdk_port = 0\ninstance_ports = \"{}\"\n{fleets}",
            ports()
        );
        let temporary = self.dir.path().join("new.toml");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.dir.path().join("spawnpoint.toml")).unwrap();
    }

    /// A call of the binary, not started.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("SPAWNPOINT_LOG", "info");
        command
            .args(words)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// A call of the binary, to its end.
    pub(crate) fn call(&self, words: &[&str]) -> Called {
        Called::from(self.command(words).output().unwrap())
    }

    /// `up`, ready.
    pub(crate) fn up(&self, words: &[&str]) -> Up<'_> {
        Up::start(self, &[&["up", "--output", "json"], words].concat())
    }
}

/// Each test process gives its games ports of their own, so that tests side by side do not search for each other's.
fn ports() -> String {
    let slot = u16::try_from(std::process::id() % 40).unwrap();
    format!("{}-{}", 20_000 + slot * 100, 20_000 + slot * 100 + 99)
}

/// A finished call.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Called {
    fn from(o: Output) -> Self {
        Self {
            code: o.status.code(),
            out: String::from_utf8(o.stdout).unwrap(),
            err: String::from_utf8(o.stderr).unwrap(),
        }
    }
}

impl Called {
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let fine = self.fine();
        serde_json::from_str(&fine.out).unwrap_or_else(|e| panic!("{e}: {fine:#?}"))
    }
}

/// A running server.
pub(crate) struct Up<'w> {
    world: &'w World,
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) ready: Value,
}

impl<'w> Up<'w> {
    pub(crate) fn start(world: &'w World, words: &[&str]) -> Self {
        Self::start_with(world, words, &[])
    }

    /// The same, with these variables besides.
    pub(crate) fn start_with(world: &'w World, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(world.dir.path().join("log"))
            .unwrap();
        let mut child = world
            .command(words)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut up = Self {
            world,
            child,
            out,
            ready: Value::Null,
        };
        up.ready = up.event();
        assert_eq!(up.ready["event"], "ready", "{}", up.log());
        up
    }

    /// The next object on standard output.
    pub(crate) fn event(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}\n{}", self.log()))
    }

    /// What it wrote to standard error so far, and every earlier run in this world.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.world.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A verb that asks this server.
    pub(crate) fn ask(&self, words: &[&str]) -> Called {
        Called::from(self.asking(words).output().unwrap())
    }

    /// The same, not started.
    pub(crate) fn asking(&self, words: &[&str]) -> Command {
        let mut command = self.world.command(words);
        command.args(["--server", self.ready["admin_url"].as_str().unwrap()]);
        command
    }

    /// A session for this player, ready.
    #[track_caller]
    pub(crate) fn new_game(&self, player: &str) -> Value {
        self.ask(&[
            "new", "--player", player, "--wait", "30", "--output", "json",
        ])
        .json()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(),
            signal,
        )
        .unwrap();
    }

    /// Its end, and all that it still said on standard output.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Up<'_> {
    /// Whether it ends within this many looks.
    pub(crate) fn is_over(&mut self, looks: usize) -> bool {
        (0..looks).any(|_| {
            std::thread::sleep(LOOK);
            matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
        })
    }
}

impl Drop for Up<'_> {
    /// A failed test leaves no games behind: the ordinary way out first, the hard one after.
    fn drop(&mut self) {
        if self.is_over(1) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !self.is_over(LOOKS / 4) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A player's connection.
#[track_caller]
pub(crate) fn connect(url: &str) -> Socket {
    let (socket, _) = tungstenite::connect(url).unwrap_or_else(|e| panic!("{url}: {e}"));
    if let MaybeTlsStream::Plain(tcp) = socket.get_ref() {
        tcp.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    }
    socket
}

/// Reads until the connection is closed; the close frame's code and reason.
pub(crate) fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.read() {
            Ok(tungstenite::Message::Close(Some(frame))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Ok(_) => {}
            Err(e) => panic!("closed without a frame: {e}"),
        }
    }
}

/// The first of these programs that is not there to be run.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let there = |program: &str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status();
        found.is_ok_and(|s| s.success())
    };
    programs.iter().copied().find(|p| !there(p))
}
