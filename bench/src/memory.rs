//! Memory of the server and of the processes of a session.

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;

use crate::platform::{Binaries, FleetSpec, UNTIL_ENDED, Up, new_game, text};
use crate::proc::{Memory, children, memory};
use crate::report::{Section, bytes};
use crate::wire::{Http, Player};

pub(crate) fn run(binaries: &Binaries, sessions: usize, progress: &ProgressBar) -> Result<Section> {
    progress.set_length(2 * sessions as u64);
    let up = Up::start(
        binaries,
        &[FleetSpec {
            name: "cold",
            warm: 0,
            max_instances: None,
            rules: UNTIL_ENDED,
        }],
    )?;
    let (mut public, mut admin) = (Http::connect(up.public)?, Http::connect(up.admin)?);
    // Its first session, so that what is made once is there.
    let first = public
        .call("POST", "/api/new-game?wait=50", Some(&new_game("cold", 0)))?
        .expect(&[201])?;
    public
        .call(
            "DELETE",
            &format!("/api/sessions/{}", text(&first, "session_id")?),
            None,
        )?
        .expect(&[200, 202, 204])?;
    up.settled(&mut admin, "cold")?;
    let idle = memory(up.pid())?;

    let mut started = Vec::with_capacity(sessions);
    for n in 0..sessions {
        let reply = public
            .call(
                "POST",
                "/api/new-game?wait=50",
                Some(&new_game("cold", n as u64 + 1)),
            )?
            .expect(&[201])?;
        started.push(text(&reply, "wsUrl")?.to_owned());
        progress.inc(1);
    }
    let alone = memory(up.pid())?;
    let mut players = Vec::with_capacity(sessions);
    for url in &started {
        players.push(Player::follow(up.public, url)?);
        progress.inc(1);
    }
    let played = memory(up.pid())?;
    let tree = children()?;
    let shims = tree.get(&up.pid()).cloned().unwrap_or_default();
    let games: Vec<u32> = shims
        .iter()
        .filter_map(|s| tree.get(s))
        .flatten()
        .copied()
        .collect();
    ensure!(
        shims.len() == sessions && games.len() == sessions,
        "{} shims and {} games for {sessions} sessions",
        shims.len(),
        games.len()
    );
    let (shim, game) = (mean(&shims)?, mean(&games)?);
    drop(players);
    up.stop()?;

    let mut s = Section::new(
        "memory",
        "Memory",
        &["what", "resident", "of it its own data"],
    );
    s.method = format!(
        "`spawnpoint up` after its first session, then with {sessions} real sessions, then with one player connected to each. \
         Own data: anonymous pages; the rest is the program itself, which all processes of one binary share."
    );
    let each = |from: Memory, to: Memory| {
        let per = |a: u64, b: u64| (b as f64 - a as f64) / sessions as f64;
        (per(from.resident, to.resident), per(from.own, to.own))
    };
    let (of_session, of_player) = (each(idle, alone), each(alone, played));
    let rows = [
        ("server, idle", (idle.resident as f64, idle.own as f64)),
        ("server, for each live session", of_session),
        ("server, for each connected player", of_player),
        ("shim, for each session", shim),
        ("game (spice), for each session", game),
    ];
    for (name, (resident, own)) in rows {
        s.rows
            .push(vec![name.to_owned(), bytes(resident), bytes(own)]);
    }
    s.data = rows
        .iter()
        .map(|(n, (r, p))| json!({"what": n, "resident_bytes": r, "own_bytes": p}))
        .collect::<Vec<_>>()
        .into();
    Ok(s)
}

fn mean(pids: &[u32]) -> Result<(f64, f64)> {
    let all = pids
        .iter()
        .map(|p| memory(*p))
        .collect::<Result<Vec<_>>>()
        .context("reading the memory of a session's processes")?;
    let n = all.len() as f64;
    Ok((
        all.iter().map(|m| m.resident as f64).sum::<f64>() / n,
        all.iter().map(|m| m.own as f64).sum::<f64>() / n,
    ))
}
