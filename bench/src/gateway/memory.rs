//! Memory that players cost who do nothing: connected and silent, or waiting for a game that still starts.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use spawnpoint_wire::token::SigningKey;

use super::part::{Part, Running};
use super::rivals::Installed;
use super::{echo, player, role, settled, start_gateway, wait_for};
use crate::proc::{family, memory};

/// Players that come and go before anything is measured, so that what is made once is there.
const FIRST: usize = 64;
/// Offered by clients that want to be told how the start goes.
const PROGRESS: &str = "spawnpoint.progress, spawnpoint.v1";

/// Bytes of user memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    /// How many players that was.
    pub(super) players: usize,
    /// For each idle tunnel, by relay.
    pub(super) tunnel: Vec<(&'static str, f64)>,
    /// The gateway's, for each session that it could route.
    pub(super) route: f64,
    /// The gateway's, for each connection whose handshake waits for the game.
    pub(super) parked: f64,
    /// The gateway's, for each connection that is told progress meanwhile.
    pub(super) progress: f64,
}

pub(super) fn measure(
    players: usize,
    installed: &[Installed],
    key: &SigningKey,
    progress: &ProgressBar,
) -> Result<Bytes> {
    let (_echo, answer) = Running::start(Part::Echo, &json!({ "ports": 1 + installed.len() }))?;
    let mut games = echo::addresses(&answer)?.into_iter();
    let mut game = || games.next().context("too few ports");
    let paths = role::paths(key, 0..FIRST + players)?;
    let (first, paths) = paths.split_at(FIRST);
    let mut bytes = Bytes {
        players,
        ..Bytes::default()
    };

    let behind = game()?;
    let (mut gateway, address) = start_gateway(key, behind)?;
    let processes = family(gateway.pid())?;
    gateway.ask(&json!({ "live": (0, FIRST) }))?;
    come_and_go(address, first, &processes)?;
    let before = user_memory(&processes)?;
    gateway.ask(&json!({ "live": (FIRST, FIRST + players) }))?;
    settled(&processes)?;
    let routes = user_memory(&processes)?;
    bytes.route = (routes - before) / players as f64;
    let each = idle(address, paths, &processes)?;
    bytes.tunnel.push(("gateway", each));
    drop(gateway);
    progress.inc(1);

    for i in installed {
        let relay = i.start(game()?, players)?;
        let processes = family(relay.pid())?;
        come_and_go(relay.address, first, &processes)?;
        let each = idle(relay.address, paths, &processes)
            .with_context(|| format!("idle players of {}", i.rival.name()))?;
        bytes.tunnel.push((i.rival.name(), each));
        progress.inc(1);
    }

    bytes.parked = waiting(key, behind, (first, paths), "")?;
    progress.inc(1);
    bytes.progress = waiting(key, behind, (first, paths), PROGRESS)?;
    progress.inc(1);
    Ok(bytes)
}

fn come_and_go(address: SocketAddr, paths: &[String], processes: &[u32]) -> Result<()> {
    drop(player::each(paths, |path| player::open(address, path))?);
    settled(processes)
}

/// Bytes for each player that is connected, has said and heard one message, and is silent.
fn idle(address: SocketAddr, paths: &[String], processes: &[u32]) -> Result<f64> {
    let before = user_memory(processes)?;
    let players = player::each(paths, |path| player::open(address, path))?;
    settled(processes)?;
    let after = user_memory(processes)?;
    Ok((after - before) / players.len() as f64)
}

/// Bytes for each player whose session still starts.
fn waiting(
    key: &SigningKey,
    game: SocketAddr,
    (first, paths): (&[String], &[String]),
    protocols: &str,
) -> Result<f64> {
    let (mut gateway, address) = start_gateway(key, game)?;
    let processes = family(gateway.pid())?;
    gateway.ask(&json!({ "live": (0, FIRST) }))?;
    come_and_go(address, first, &processes)?;
    gateway.ask(&json!({ "starting": (FIRST, FIRST + paths.len()) }))?;
    settled(&processes)?;
    let before = user_memory(&processes)?;
    let players = player::each(paths, |path| player::ask(address, path, protocols))?;
    let counter = if protocols.is_empty() {
        "parked"
    } else {
        "progress"
    };
    let all = players.len() as u64;
    wait_for(&mut gateway, |c| c[counter].as_u64() == Some(all))
        .with_context(|| format!("not all connections are {counter}"))?;
    settled(&processes)?;
    let after = user_memory(&processes)?;
    let still = gateway.ask(&json!({}))?;
    ensure!(
        still[counter].as_u64() == Some(all),
        "some did not wait: {still}"
    );
    drop(players);
    Ok((after - before) / all as f64)
}

fn user_memory(processes: &[u32]) -> Result<f64> {
    let mut all = 0;
    for pid in processes {
        all += memory(*pid)?.proportional;
    }
    Ok(all as f64)
}
