//! From `git clone` to two players in one game, as a newcomer does it: `make play` with empty caches.
//!
//! The Rust toolchain is there (it is what the README asks for); the package cache, the build directory and HOME are empty. The page is
//! opened by hand in real life; here its two players are WebSocket clients that do what it does: one starts a game, the other follows
//! the share link, and it counts when each has been told of the other.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::platform::text;
use crate::report::{Section, Verdict};
use crate::stopwatch::Mark;
use crate::wire::{Http, Player};

/// What is promised, minutes.
const TARGET: f64 = 5.0;
/// A build that takes longer is stuck.
const LONGEST: Duration = Duration::from_secs(30 * 60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// For a drain.
const STOPS: Duration = Duration::from_secs(30);

pub(crate) fn run(progress: &ProgressBar) -> Result<Section> {
    let root = root()?;
    let dir = TempDir::with_prefix("spawnpoint-clone-")?;
    let repo = dir.path().join("spawnpoint");
    let say = |text: &'static str| progress.set_message(text);
    say("git clone");
    let began = Mark::now();
    let mut clone = Command::new("git");
    clone
        .args(["clone", "--quiet", "--no-local"])
        .arg(&root)
        .arg(&repo);
    ensure!(
        clone.status().context("starting git")?.success(),
        "git clone failed"
    );
    let cloned = began.elapsed();
    say("make play");
    let ports = free_ports()?;
    let mut play = Play::start(dir.path(), &repo, ports)?;
    let public = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
    play.wait_for(public)?;
    let ready = began.elapsed();
    say("two players");
    two_players(public)?;
    let playing = began.elapsed();
    play.stop()?;
    Ok(section(cloned, ready, playing))
}

fn root() -> Result<PathBuf> {
    let out = Command::new("git")
        .args(["rev-parse", "--show-toplevel"])
        .output()
        .context("starting git")?;
    ensure!(
        out.status.success(),
        "run it inside the repository: that is what is cloned"
    );
    Ok(PathBuf::from(String::from_utf8(out.stdout)?.trim()))
}

/// Three ports that are free now. Held together, so that they differ.
fn free_ports() -> Result<[u16; 3]> {
    let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// `make play`, running.
struct Play {
    child: Child,
    log: PathBuf,
}

impl Play {
    fn start(dir: &Path, repo: &Path, ports: [u16; 3]) -> Result<Self> {
        let home = dir.join("home");
        fs::create_dir(&home)?;
        let rustup = std::env::var_os("RUSTUP_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".rustup")))
            .context("neither RUSTUP_HOME nor HOME is set")?;
        let log = dir.join("log");
        let out = File::create(&log)?;
        let mut command = Command::new("make");
        command
            .arg("play")
            .current_dir(repo)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("CARGO_HOME", home.join(".cargo"))
            .env("RUSTUP_HOME", rustup)
            .env("SPAWNPOINT_PORT", ports[0].to_string())
            .env("SPAWNPOINT_ADMIN_PORT", ports[1].to_string())
            .env("SPAWNPOINT_SDK_PORT", ports[2].to_string())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C in a terminal reaches the whole group; so will ours.
            .process_group(0);
        Ok(Self {
            child: command.spawn().context("starting make")?,
            log,
        })
    }

    fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let began = Mark::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("`make play` ended ({status}):\n{}", self.last_words());
            }
            ensure!(
                began.elapsed() < LONGEST,
                "`make play` takes too long:\n{}",
                self.last_words()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn stop(&mut self) -> Result<()> {
        self.signal(Signal::INT);
        let began = Mark::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                began.elapsed() < STOPS,
                "`make play` does not stop:\n{}",
                self.last_words()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// One starts, the other follows the link; each is told of both.
fn two_players(public: SocketAddr) -> Result<()> {
    let mut http = Http::connect(public)?;
    let first = http
        .call("POST", "/api/new-game", Some(&json!({"playerId": "first"})))?
        .expect(&[201])?;
    let mut one = Player::follow(public, text(&first, "wsUrl")?)?;
    let link = text(&first, "share_url")?;
    let invite = link
        .split(['?', '&'])
        .find_map(|part| part.strip_prefix("invite="))
        .with_context(|| format!("no invite in {link}"))?;
    let path = format!("/api/sessions/{}/players", text(&first, "session_id")?);
    let second = http
        .call(
            "POST",
            &path,
            Some(&json!({"playerId": "second", "invite": invite})),
        )?
        .expect(&[200])?;
    let mut two = Player::follow(public, text(&second, "wsUrl")?)?;
    for player in [&mut one, &mut two] {
        while !both(&player.next_text()?) {}
    }
    Ok(())
}

/// Whether a message of the game says who plays, and two do.
fn both(message: &str) -> bool {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    message["t"] == "who" && message["p"].as_array().is_some_and(|p| p.len() >= 2)
}

fn section(cloned: Duration, ready: Duration, playing: Duration) -> Section {
    let mut s = Section::new("clone", "Clone to two players", &["until", "seconds"]);
    s.method = "`git clone` of the repository on this machine (over the pack protocol, not hard links), then `make play` with an empty \
                HOME, package cache and build directory; packages come over the network. Two WebSocket clients then do what the page does: \
                one starts a game, the other follows the share link, and each is told by the game that both are in it."
        .to_owned();
    for (name, at) in [
        ("cloned", cloned),
        ("ready", ready),
        ("two players in one game", playing),
    ] {
        s.rows
            .push(vec![name.to_owned(), format!("{:.1}", at.as_secs_f64())]);
    }
    s.verdicts.push(Verdict::at_most(
        "clone to two players, minutes",
        playing.as_secs_f64() / 60.0,
        TARGET,
    ));
    s.data = json!({"cloned_s": cloned.as_secs_f64(), "ready_s": ready.as_secs_f64(), "playing_s": playing.as_secs_f64()});
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_two() {
        assert!(both(r#"{"t":"who","p":[{"n":"a"},{"n":"b"}]}"#));
        assert!(!both(r#"{"t":"who","p":[{"n":"a"}]}"#));
        assert!(!both(r#"{"t":"s","p":[1,2]}"#) && !both("no json"));
    }

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
