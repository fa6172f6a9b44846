//! haproxy and nginx as one would run them in front of WebSockets: a worker for each core, no log, long tunnels.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::stopwatch::Mark;

/// One that does not listen by then never will.
const STARTS: Duration = Duration::from_secs(10);
/// After a polite end.
const STOPS: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Connections they are prepared for besides the players.
const SPARE: usize = 500;
/// Where distributions put servers; not always in a user's PATH.
const SERVER_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Whom we are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    Haproxy,
    Nginx,
}

/// A program that was found.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) rival: Rival,
    program: PathBuf,
    /// As it names itself.
    pub(super) version: String,
}

impl Rival {
    pub(super) const ALL: [Self; 2] = [Self::Haproxy, Self::Nginx];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Looks for it; the error says how to get it.
    pub(super) fn find(self) -> Result<Installed> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain(SERVER_DIRECTORIES.iter().map(PathBuf::from))
            .map(|dir| dir.join(self.name()))
            .find(|p| p.is_file());
        let Some(program) = program else {
            let package = match self {
                Self::Haproxy => "haproxy",
                Self::Nginx => "nginx-light",
            };
            bail!(
                "{} is not installed, so it is not compared with (Debian and Ubuntu: apt-get install {package})",
                self.name()
            );
        };
        let said = Command::new(&program)
            .arg("-v")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", program.display()))?;
        let said = [said.stdout, said.stderr].concat();
        let version = version(&String::from_utf8_lossy(&said));
        Ok(Installed {
            rival: self,
            program,
            version,
        })
    }
}

/// The first word of the first line that begins with a digit, or follows a slash and does.
fn version(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let number = |w: &str| w.starts_with(|c: char| c.is_ascii_digit());
    line.split([' ', '/'])
        .find(|w| number(w))
        .unwrap_or("of unknown version")
        .to_owned()
}

/// A running rival. Dropping it ends it.
pub(super) struct Relay {
    child: Child,
    pub(super) address: SocketAddr,
    /// Holds its configuration and log.
    dir: TempDir,
}

impl Installed {
    /// Starts it in front of the game, prepared for this many players.
    pub(super) fn start(&self, game: SocketAddr, players: usize) -> Result<Relay> {
        let dir = TempDir::with_prefix("spawnpoint-bench-")?;
        let config = dir.path().join("config");
        // Neither can be asked for any free port: this one was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(&self.program);
        match self.rival {
            Rival::Haproxy => {
                fs::write(&config, haproxy(address, game, players + SPARE))?;
                command.arg("-db").arg("-f").arg(&config);
            }
            Rival::Nginx => {
                fs::write(&config, nginx(dir.path(), address, game, players + SPARE))?;
                command
                    .arg("-c")
                    .arg(&config)
                    .arg("-p")
                    .arg(dir.path())
                    .arg("-e")
                    .arg(dir.path().join("log"));
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let mut relay = Relay {
            child,
            address,
            dir,
        };
        relay
            .listens()
            .with_context(|| format!("{} does not start", self.rival.name()))?;
        Ok(relay)
    }
}

impl Relay {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn listens(&mut self) -> Result<()> {
        let began = Mark::now();
        while TcpStream::connect(self.address).is_err() {
            let over = self.child.try_wait()?.is_some() || began.elapsed() > STARTS;
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            ensure!(!over, "it says: {log}");
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Mark::now();
        while began.elapsed() < STOPS {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy(listen: SocketAddr, game: SocketAddr, connections: usize) -> String {
    format!(
        "global\n  maxconn {connections}\n\
         defaults\n  mode http\n  option clitcpka\n  option srvtcpka\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
         \x20 timeout http-request 30s\n  timeout tunnel 1h\n\
         frontend players\n  bind {listen}\n  default_backend games\n\
         backend games\n  server game {game}\n"
    )
}

fn nginx(dir: &Path, listen: SocketAddr, game: SocketAddr, connections: usize) -> String {
    let dir = dir.display();
    // Two sockets for each player, and one worker may get them all.
    let sockets = 2 * connections;
    format!(
        "daemon off;\nworker_processes auto;\nworker_rlimit_nofile {};\npid {dir}/pid;\nerror_log {dir}/log error;\n\
         events {{ worker_connections {sockets}; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n\
         \x20 uwsgi_temp_path {dir}/uwsgi;\n  scgi_temp_path {dir}/scgi;\n\
         \x20 map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
         \x20 upstream game {{ server {game}; }}\n\
         \x20 server {{\n    listen {listen} backlog=4096 so_keepalive=on;\n    location / {{\n      proxy_pass http://game;\n\
         \x20     proxy_http_version 1.1;\n      proxy_set_header Host $host;\n      proxy_set_header Upgrade $http_upgrade;\n\
         \x20     proxy_set_header Connection $connection_upgrade;\n      proxy_socket_keepalive on;\n      proxy_read_timeout 1h;\n\
         \x20     proxy_send_timeout 1h;\n    }}\n  }}\n}}\n",
        sockets + 64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_they_say_them() {
        assert_eq!(
            version("HAProxy version 2.6.12-1 2026/10/17 - https://haproxy.org/\nStatus: ..."),
            "2.6.12-1"
        );
        assert_eq!(version("nginx version: nginx/1.22.1\n"), "1.22.1");
        assert_eq!(version(""), "of unknown version");
    }

    #[test]
    fn configurations_hold_every_address_and_the_room() {
        let (listen, game) = (
            "127.0.0.1:81".parse().unwrap(),
            "127.0.0.1:82".parse().unwrap(),
        );
        let h = haproxy(listen, game, 8_500);
        let n = nginx(Path::new("/dir"), listen, game, 8_500);
        assert!(h.contains("bind 127.0.0.1:81\n") && h.contains("server game 127.0.0.1:82\n"));
        assert!(h.contains("maxconn 8500\n"));
        assert!(n.contains("listen 127.0.0.1:81 ") && n.contains("server 127.0.0.1:82;"));
        assert!(n.contains("worker_connections 17000;") && n.contains("pid /dir/pid;"));
        assert_eq!(n.matches('{').count(), n.matches('}').count());
    }
}
