//! The floor: the same game with nothing of Spawnpoint around it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::stopwatch::Mark;
use crate::wire::Player;

/// A game started by hand. Dropping it kills it.
pub(crate) struct Bare {
    child: Child,
    address: SocketAddr,
    /// Just before the spawn.
    began: Mark,
}

impl Bare {
    /// Spawns it and waits for the line that says it listens: no polling, so nothing is faster.
    pub(crate) fn spawn(spice: &Path) -> Result<Self> {
        let mut command = Command::new(spice);
        // Any free port, which the game says; no other environment, as under a fleet.
        command
            .env_clear()
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let began = Mark::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", spice.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let port = line
            .trim()
            .rsplit_once(':')
            .and_then(|(_, p)| p.parse().ok())
            .with_context(|| format!("the game said {line:?}"))?;
        Ok(Self {
            child,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            began,
        })
    }

    /// Connects as its first player.
    pub(crate) fn join(&self) -> Result<Player> {
        Player::open(self.address, "/", Some("bench"))
    }

    pub(crate) const fn began(&self) -> Mark {
        self.began
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
