//! What goes wrong, and when: the spells of the plan, the process that looks after the server, and a gateway of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use spawnpoint_core::SessionId;
use spawnpoint_runtime::flaky::Rates;
use spawnpoint_runtime::simulated::End;
use spawnpoint_runtime::{Instance, Runtime as _, State};
use spawnpoint_server::fault::POINTS;
use spawnpoint_store::flaky::Rates as StoreRates;
use tokio::time::{sleep, sleep_until};

use crate::chance::Chance;
use crate::life::{CALLS, Life};
use crate::plan::{Spell, Trouble};
use crate::site::{self, AnyLink};
use crate::world::{Armed, World};

/// How often calls fail right now.
pub(crate) struct AllRates {
    pub(crate) runtime: Rates,
    pub(crate) records: StoreRates,
    pub(crate) lobby: StoreRates,
}

/// The rates of the troubles there are.
pub(crate) fn rates(world: &World) -> AllRates {
    let latency = world.plan.latency;
    let often = |t: Trouble, permille: u16| if world.has(t) { permille } else { 0 };
    let store = |t: Trouble| StoreRates {
        before: often(t, 120),
        after: often(t, 120),
        delay: 400,
        longest_delay: latency,
    };
    AllRates {
        runtime: Rates {
            before: often(Trouble::Runtime, 60),
            after: often(Trouble::Runtime, 60),
            storage: often(Trouble::RuntimeDisk, 300),
            conflict: often(Trouble::Runtime, 30),
            delay: 400,
            longest_delay: latency,
            cut: often(Trouble::Watch, 80),
            longest_cut: Duration::from_secs(3),
        },
        records: store(Trouble::Records),
        lobby: store(Trouble::Lobby),
    }
}

fn apply(world: &World) {
    if let Some(site) = world.site() {
        let rates = rates(world);
        site.runtime.set_rates(rates.runtime);
        site.records.set_rates(rates.records);
        site.lobby.set_rates(rates.lobby);
        site.records.outage(world.has(Trouble::RecordsOutage));
        site.lobby.outage(world.has(Trouble::LobbyOutage));
    }
}

/// Starts the server, and starts it again whenever it died.
pub(crate) async fn keeper(world: Arc<World>) {
    let mut chance = Chance::part(world.plan.seed, "keeper");
    let mut number = 0;
    loop {
        number += 1;
        let life = Life::new(number);
        world.begins(&life);
        world.say("keeper", "starts the server");
        if let Some(site) = site::start(&world, Arc::clone(&life)).await {
            if !world.plan.apart {
                world.fronts.set(site.gateway.clone());
            }
            world.put_site(Some(Arc::clone(&site)));
            apply(&world);
            if life.is_dead() {
                world.put_site(None);
            } else {
                world.uneasy(2_000);
                life.dead.cancelled().await;
            }
        } else {
            life.dead.cancel();
        }
        if !world.plan.apart {
            world.fronts.set(None);
        }
        sleep(chance.millis(50, 6_000)).await;
    }
}

/// Everything of the plan at its time.
pub(crate) async fn weather(world: Arc<World>) {
    let begin = tokio::time::Instant::now();
    for spell in world.plan.spells.clone() {
        sleep_until(begin + spell.at).await;
        let own = Arc::clone(&world);
        world.tasks.spawn(async move { happen(own, spell).await });
    }
}

async fn happen(world: Arc<World>, spell: Spell) {
    let mut chance = Chance::new(spell.draw);
    let name = spell.what.name();
    match spell.what {
        Trouble::Crash => crash(&world, &mut chance).await,
        Trouble::GatewayCrash => {
            if world.plan.apart {
                world.say("nature", "the gateway dies");
                gateway_dies(&world, chance.millis(50, 3_000)).await;
            }
        }
        Trouble::Wall => {
            let most = if world.plan.day { 300_000 } else { 7_200_000 };
            let by = i64::try_from(chance.between(1, most)).unwrap_or(1);
            let by = if chance.permille(500) { by } else { -by };
            world.say("nature", &format!("the wall clock jumps by {by} ms"));
            world.clock.jump_wall(by);
            let mut truth = world.truth();
            let offset = truth.offsets.last().copied().unwrap_or(0) + by;
            truth.offsets.push(offset);
        }
        Trouble::Stop => {
            world.say("nature", &format!("everything stops for {:?}", spell.lasts));
            world.uneasy(20_000 + i64::try_from(spell.lasts.as_millis()).unwrap_or(0));
            let now = world.now();
            tokio::time::advance(spell.lasts).await;
            // Nobody could tell anybody anything meanwhile.
            let resumed = world.now();
            let mut truth = world.truth();
            truth.goes_deaf((now, resumed + 8_000), Some((now, resumed - 1_000)));
            if world.site().is_some() {
                truth.stops.push((resumed, resumed - now));
            }
        }
        Trouble::Blind => blind(&world, spell.lasts, &mut chance).await,
        Trouble::Games => game_over(&world, &mut chance),
        // In one process there is no line to be cut.
        Trouble::Link if !world.plan.apart => {}
        Trouble::Link => {
            let now = world.now();
            world.say(
                "nature",
                &format!("the line to the gateway is cut for {:?}", spell.lasts),
            );
            world.trouble(Trouble::Link, true);
            world.cut_line();
            let lasts = i64::try_from(spell.lasts.as_millis()).unwrap_or(0);
            // It is tried again with growing pauses.
            let may = (now, now + lasts + 9_000);
            world.truth().goes_deaf(may, Some((now, now + lasts)));
            sleep(spell.lasts).await;
            world.trouble(Trouble::Link, false);
            world.say("nature", "the line is back");
            world.uneasy(25_000);
        }
        what => {
            world.say("nature", &format!("{name} begins, for {:?}", spell.lasts));
            world.trouble(what, true);
            apply(&world);
            if what == Trouble::EmptyList
                && let Some(site) = world.site()
            {
                site.runtime.hollow_listings(2);
                site.runtime.cut_watches(Duration::from_millis(10));
            }
            sleep(spell.lasts).await;
            world.say("nature", &format!("{name} is over"));
            world.trouble(what, false);
            apply(&world);
        }
    }
}

async fn crash(world: &Arc<World>, chance: &mut Chance) {
    let at_point = chance.permille(450);
    let point = if at_point {
        chance.pick(&POINTS).copied()
    } else {
        chance.pick(&CALLS).copied()
    };
    let skip = chance.below(3);
    if let Some(point) = point.filter(|_| chance.permille(850)) {
        world.arm(Some(Armed { point, skip }));
        // Whoever is not passed by in time is not waited for.
        for _ in 0..50 {
            sleep(Duration::from_millis(100)).await;
            if !world.is_armed() {
                return;
            }
        }
        world.arm(None);
    }
    if let Some(site) = world.site() {
        world.kill(&site.life, "no point in particular");
    }
}

/// Puts a gateway of its own in place.
pub(crate) fn gateway_stands(world: &Arc<World>) {
    let front = site::front(world, Arc::new(AnyLink(Arc::clone(world))));
    world.fronts.set(front);
}

async fn gateway_dies(world: &Arc<World>, pause: Duration) {
    if let Some(front) = world.fronts.get() {
        front.stop.cancel();
    }
    world.fronts.set(None);
    let now = world.now();
    // Until it is forgotten the server waits for it to speak again, if this run of it has ever heard it.
    let surely = (!world.has(Trouble::Link)).then_some((now - 2_000, now + 21_000));
    let may = (now - 2_000, now + 30_000);
    world.truth().goes_deaf(may, surely);
    world.uneasy(640_000);
    sleep(pause).await;
    gateway_stands(world);
    world.say("nature", "another gateway stands");
}

async fn blind(world: &Arc<World>, lasts: Duration, chance: &mut Chance) {
    world.trouble(Trouble::Blind, true);
    if chance.permille(500) {
        world.say("nature", &format!("no instance can be seen for {lasts:?}"));
        world.runtime.lose_watch();
        sleep(lasts).await;
        world.runtime.regain_watch();
        world.say("nature", "they can be seen again");
    } else if let Some(one) = some_instance(world, chance, |_| true) {
        world.say(
            "nature",
            &format!("{} cannot be seen for {lasts:?}", world.i(one.id)),
        );
        world.runtime.lose(one.id);
        sleep(lasts).await;
        world.runtime.regain(one.id);
        world.say("nature", &format!("{} can be seen again", world.i(one.id)));
    }
    world.trouble(Trouble::Blind, false);
}

fn some_instance(
    world: &World,
    chance: &mut Chance,
    wanted: impl Fn(&Instance) -> bool,
) -> Option<Instance> {
    let all: Vec<Instance> = world
        .instances()
        .into_iter()
        .filter(|i| matches!(i.state, State::Starting | State::Ready) && wanted(i))
        .collect();
    chance.pick(&all).cloned()
}

fn game_over(world: &Arc<World>, chance: &mut Chance) {
    let Some(one) = some_instance(world, chance, |_| true) else {
        return;
    };
    let end = match chance.below(5) {
        0 => End::Code(0),
        1 => End::Code(3),
        2 => End::Signal(11),
        3 => End::Oom,
        _ => End::Code(1),
    };
    world.say("nature", &format!("{} ends: {end:?}", world.i(one.id)));
    world.runtime.crash(one.id, end);
}

/// Games that say themselves that they are ready, or never do.
pub(crate) async fn games_speak(world: Arc<World>) {
    let mut chance = Chance::part(world.plan.seed, "games");
    let sdk = |i: &Instance| world.fleet(&i.fleet).is_some_and(|f| f.sdk);
    let mut mute = std::collections::BTreeSet::new();
    loop {
        sleep(Duration::from_millis(700)).await;
        let there = world.instances();
        mute.retain(|id| there.iter().any(|i| i.id == *id));
        let waiting: Vec<Instance> = there
            .into_iter()
            .filter(|i| i.state == State::Starting && sdk(i))
            .collect();
        for i in waiting {
            if mute.contains(&i.id) {
                continue;
            }
            if chance.permille(120) {
                mute.insert(i.id);
                continue;
            }
            let token = world
                .runtime
                .environment(i.id)
                .ok()
                .and_then(|e| e.get("SPAWNPOINT_TOKEN").cloned());
            if let Some(token) = token {
                crate::client::ready(&world, &token).await;
            }
        }
    }
}

/// When troubles are over: nothing fails, everything can be seen, and the server stands.
pub(crate) fn calm(world: &World) {
    world.no_trouble();
    let now = world.now();
    let mut truth = world.truth();
    for (_, until) in &mut truth.deaf {
        *until = (*until).min(now + 9_000);
    }
    for (_, until) in &mut truth.unheard {
        *until = (*until).min(now);
    }
    drop(truth);
    world.arm(None);
    world.runtime.regain_watch();
    for i in world.instances() {
        world.runtime.regain(i.id);
    }
    apply(world);
    world.say("nature", "all is well from here on");
}

/// Whether a session is in the records.
pub(crate) fn is_recorded(world: &World, session: SessionId) -> bool {
    use spawnpoint_store::Records as _;
    matches!(world.records.get(session).now_or_never(), Some(Ok(Some(_))))
}

/// Nothing is left of instances.
pub(crate) fn left_over(world: &World) -> Vec<Instance> {
    world
        .runtime
        .list()
        .now_or_never()
        .and_then(Result::ok)
        .unwrap_or_default()
}

/// A ticket has one fate: what carried it and came to a record is one session.
pub(crate) fn check_tickets(world: &World) {
    let doubled: Option<String> = {
        let truth = world.truth();
        truth.by_ticket.iter().find_map(|(ticket, sessions)| {
            let recorded: Vec<String> = sessions
                .iter()
                .filter(|s| truth.games.get(s).is_some_and(|g| g.recorded.is_some()))
                .map(|s| world.s(*s))
                .collect();
            (recorded.len() > 1).then(|| {
                format!(
                    "{} was matched to {}",
                    world.t(*ticket),
                    recorded.join(" and ")
                )
            })
        })
    };
    if let Some(what) = doubled {
        world.fail("a ticket has one fate", &what);
    }
}
