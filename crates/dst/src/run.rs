//! One world from beginning to end: troubles until the horizon, then calm, and everything must drain.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures::FutureExt as _;
use spawnpoint_runtime::State;
use spawnpoint_server::DrainMode;
use spawnpoint_store::Lobby as _;
use tokio::time::{Instant, sleep};

use crate::audit;
use crate::chance::Chance;
use crate::client::{Ask, On, send, straight};
use crate::day::{Sample, forgetter, sampler};
use crate::nature;
use crate::plan::{Cut, Plan};
use crate::players::{Player, operator};
use crate::truth::Game;
use crate::world::{Finding, World};

/// Everything must have drained this long after the troubles are over: the longest silence of a gateway that is waited for, and then
/// the longest game.
const DRAINS_WITHIN: Duration = Duration::from_secs(1_800);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_secs(2);
/// How often the checkers look, and for things that take a moment to settle, how long that may take at most.
const WATCH: Duration = Duration::from_millis(500);
/// What is not settled this long after the last trouble is wrong, milliseconds.
const SETTLED: i64 = 20_000;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was found, if anything.
    pub finding: Option<Finding>,
    /// What happened.
    pub history: Vec<String>,
    /// Checks made.
    pub checks: u64,
    /// Sessions that clients were told of.
    pub sessions: usize,
    /// Runs of the server.
    pub runs: u32,
    /// How often the mass-end brake held culls.
    pub braked: u64,
    /// How often a late tick held culls.
    pub late: u64,
}

/// Runs the world of a plan to its end, on a runtime of its own whose time is virtual.
///
/// # Errors
/// When no runtime can be had.
pub fn run(plan: Plan) -> std::io::Result<Outcome> {
    run_with(plan, None)
}

/// The same, telling how it stands meanwhile.
pub(crate) fn run_with(plan: Plan, samples: Option<Sender<Sample>>) -> std::io::Result<Outcome> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Who is woken first of several that wait for one thing. Elsewhere it is tokio's to choose; see `.cargo/config.toml` beside this crate.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(
        &plan.seed.to_le_bytes(),
    ));
    let runtime = builder.build()?;
    let outcome = runtime.block_on(Box::pin(whole(plan, samples)));
    spawnpoint_server::fault::arm(None);
    // What hangs in a dead run hangs for ever.
    runtime.shutdown_background();
    Ok(outcome)
}

/// The world of a seed, cut down.
///
/// # Errors
/// When no runtime can be had.
pub fn run_seed(seed: u64, cut: &Cut) -> std::io::Result<Outcome> {
    run(Plan::of(seed).cut(cut))
}

async fn whole(plan: Plan, samples: Option<Sender<Sample>>) -> Outcome {
    let world = World::new(plan);
    let hook = Arc::downgrade(&world);
    spawnpoint_server::fault::arm(Some(Arc::new(move |point| {
        hook.upgrade().is_some_and(|w| w.passes_point(point))
    })));
    let everything = async {
        begin(&world);
        if let Some(samples) = samples {
            world.tasks.spawn(sampler(Arc::clone(&world), samples));
        }
        sleep(world.plan.horizon).await;
        world.closing.cancel();
        nature::calm(&world);
        drain(&world).await;
    };
    tokio::select! {
        biased;
        () = world.found.cancelled() => {}
        () = Box::pin(everything) => {}
    }
    // They hold the world as it holds them.
    world.put_site(None);
    world.fronts.set(None);
    let (sessions, runs) = {
        let truth = world.truth();
        let acked = truth.games.values().filter(|g| g.acked.is_some()).count();
        let forgotten = world.forgotten.load(std::sync::atomic::Ordering::Relaxed);
        (acked + forgotten, world.runs())
    };
    Outcome {
        seed: world.plan.seed,
        finding: world.finding(),
        history: world.history.take(),
        checks: world.checks.load(std::sync::atomic::Ordering::Relaxed),
        sessions,
        runs,
        braked: world.braked.load(std::sync::atomic::Ordering::Relaxed),
        late: world.late.load(std::sync::atomic::Ordering::Relaxed),
    }
}

fn begin(world: &Arc<World>) {
    if world.plan.apart {
        nature::gateway_stands(world);
    }
    let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| world.tasks.spawn(task);
    spawn(Box::pin(nature::keeper(Arc::clone(world))));
    spawn(Box::pin(nature::weather(Arc::clone(world))));
    spawn(Box::pin(nature::games_speak(Arc::clone(world))));
    spawn(Box::pin(operator(Arc::clone(world))));
    spawn(Box::pin(watch(Arc::clone(world))));
    spawn(Box::pin(audit::auditor(Arc::clone(world))));
    if world.plan.day {
        spawn(Box::pin(forgetter(Arc::clone(world))));
    }
    for n in 0..world.plan.players {
        if let Some(player) = Player::new(world, n) {
            spawn(Box::pin(player.live()));
        }
    }
}

/// The checks that are made again and again: what holds at every moment, and what must have settled.
async fn watch(world: Arc<World>) {
    loop {
        sleep(WATCH).await;
        look_at_reaper(&world).await;
        world.checked();
        let acked: Vec<_> = {
            let truth = world.truth();
            let nowhere = |g: &Game| g.acked.is_some() && g.on.is_empty() && g.recorded.is_none();
            truth
                .games
                .iter()
                .filter(|(_, g)| nowhere(g))
                .map(|(id, _)| *id)
                .collect()
        };
        for id in acked {
            world.check_somewhere(id);
        }
        if world.was_calm_since(world.now() - SETTLED) && world.site().is_some() {
            check_players(&world);
        }
    }
}

/// What holds culls right now, as the server says.
async fn look_at_reaper(world: &Arc<World>) {
    let ask = Ask::get("/debug/workers").on(On::Admin);
    if let Some(answer) = straight(world, &ask).await {
        let reaper = &answer.body["reaper"];
        world.held(reaper["held_by"].as_str(), &reaper["held_times"]);
    }
}

/// Each player is in one live session of a fleet at most.
fn check_players(world: &World) {
    use std::collections::BTreeMap;
    world.checked();
    let mut of: BTreeMap<(String, String), Vec<spawnpoint_core::SessionId>> = BTreeMap::new();
    let now = world.now();
    {
        let truth = world.truth();
        let settled = |g: &Game| g.is_live() && g.acked.is_some_and(|at| at < now - SETTLED);
        for (id, game) in truth.games.iter().filter(|(_, g)| settled(g)) {
            let Some((claim, _)) = &game.claim else {
                continue;
            };
            for p in claim.players.iter().filter(|p| p.here) {
                let key = (claim.fleet.to_string(), p.id.as_str().to_owned());
                of.entry(key).or_default().push(*id);
            }
        }
    }
    for ((fleet, player), sessions) in of {
        if sessions.len() > 1 {
            let names: Vec<String> = sessions.iter().map(|s| world.s(*s)).collect();
            world.fail(
                "a player is in one session of a fleet",
                &format!("{player} is in {} of {fleet}", names.join(" and ")),
            );
        }
    }
}

/// Waits until everything that began has come to its end, and looks what is left.
async fn drain(world: &Arc<World>) {
    let deadline = Instant::now() + DRAINS_WITHIN;
    loop {
        sleep(LOOK).await;
        if is_drained(world) {
            break;
        }
        if Instant::now() >= deadline {
            world.fail("all work drains", &what_is_left(world));
            return;
        }
    }
    // Somebody who was late may have begun something meanwhile; and the warm ones go with the server.
    sleep(Duration::from_secs(5)).await;
    let mut chance = Chance::part(world.plan.seed, "end");
    let list = send(world, &mut chance, Ask::get("/api/sessions").on(On::Admin)).await;
    if let Some(total) = list.and_then(|a| a.body.get("total")?.as_u64())
        && total > 0
        && is_drained(world)
    {
        world.fail(
            "all work drains",
            &format!("the server speaks of {total} sessions and none is there"),
        );
    }
    let Some(site) = world.site() else {
        world.fail("all work drains", "the server does not stand");
        return;
    };
    if let Some(report) = audit::audit(world).await {
        audit::at_the_end(world, &report);
    }
    site.server
        .drain(DrainMode::EndGames, Duration::from_secs(60))
        .await;
    world.say("keeper", "the server was told to stop");
    check_end(world);
}

fn is_drained(world: &World) -> bool {
    let live = world
        .truth()
        .games
        .values()
        .any(|g| !g.on.is_empty() || (g.acked.is_some() && g.recorded.is_none()));
    !live && tickets_left(world) == 0 && world.site().is_some()
}

fn tickets_left(world: &World) -> usize {
    world
        .lobby
        .list(None, 1_000)
        .now_or_never()
        .and_then(Result::ok)
        .map_or(0, |t| t.len())
}

fn what_is_left(world: &World) -> String {
    let mut out = Vec::new();
    let truth = world.truth();
    for (id, game) in &truth.games {
        if !game.on.is_empty() || (game.acked.is_some() && game.recorded.is_none()) {
            let on: Vec<String> = game
                .on
                .keys()
                .map(|i| {
                    let state = world.instance(*i).map(|i| format!("{:?}", i.state));
                    format!("{} {}", world.i(*i), state.unwrap_or_default())
                })
                .collect();
            let recorded = game.reason.map_or("", |r| r.as_str());
            out.push(format!(
                "{} {recorded} on [{}]",
                world.s(*id),
                on.join(", ")
            ));
        }
    }
    drop(truth);
    let tickets = tickets_left(world);
    if tickets > 0 {
        out.push(format!("{tickets} tickets"));
    }
    if world.site().is_none() {
        out.push("no server".to_owned());
    }
    out.join("; ")
}

fn check_end(world: &World) {
    world.checked();
    let left: Vec<String> = nature::left_over(world)
        .iter()
        .filter(|i| !matches!(i.state, State::Exited(_)))
        .map(|i| format!("{} {:?}", world.i(i.id), i.state))
        .collect();
    if !left.is_empty() {
        world.fail("nothing is left over", &left.join(", "));
    }
    let unrecorded: Vec<_> = {
        let truth = world.truth();
        let acked = truth.games.iter().filter(|(_, g)| g.acked.is_some());
        acked.map(|(id, _)| *id).collect()
    };
    for id in unrecorded {
        if !nature::is_recorded(world, id) {
            world.fail(
                "an acknowledged start is live or recorded",
                &format!("{} has no record at the end", world.s(id)),
            );
        }
    }
    nature::check_tickets(world);
}
