//! Properties of whole games, and the rules a player would name.

use super::rules::{
    DOWN_TICKS, LIVES, PLAYER_RADIUS, SHIELD_TICKS, SPICE_MAX, STEAL_MAX, WORMS_MAX,
};
use super::*;
use proptest::prelude::*;

const ROUND: u32 = 20 * TICK_HZ;

fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        round_ticks: ROUND,
        grace_ticks: 30,
    }
}

#[derive(Debug, Clone)]
enum Act {
    Enter,
    Sleep(usize),
    Wake(usize),
    Start(usize),
    Steer(usize, f64, f64),
    Dash(usize),
    Steps(u8),
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -1.0f64..1.0,
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let who = 0usize..20;
    prop_oneof![
        2 => Just(Act::Enter),
        1 => who.clone().prop_map(Act::Sleep),
        1 => who.clone().prop_map(Act::Wake),
        3 => who.clone().prop_map(Act::Start),
        8 => (who.clone(), any_number(), any_number()).prop_map(|(w, x, y)| Act::Steer(w, x, y)),
        3 => who.prop_map(Act::Dash),
        8 => any::<u8>().prop_map(Act::Steps),
    ]
}

fn id_at(world: &World, index: usize) -> AvatarId {
    world.avatars.get(index).map_or(9_999, |avatar| avatar.id)
}

fn play(world: &mut World, acts: &[Act], mut check: impl FnMut(&World)) {
    for act in acts {
        match *act {
            Act::Enter => {
                let _ = world.enter();
            }
            Act::Sleep(who) => world.sleep(id_at(world, who)),
            Act::Wake(who) => {
                world.wake(id_at(world, who));
            }
            Act::Start(who) => world.command(id_at(world, who), Command::Start),
            Act::Steer(who, x, y) => {
                world.command(id_at(world, who), Command::Steer(Vec2::new(x, y)));
            }
            Act::Dash(who) => world.command(id_at(world, who), Command::Dash),
            Act::Steps(n) => {
                for _ in 0..n {
                    world.step();
                    check(world);
                    world.take_events();
                }
            }
        }
    }
}

fn finite(v: Vec2) -> bool {
    v.x.is_finite() && v.y.is_finite()
}

fn check_sane(world: &World) {
    for avatar in &world.avatars {
        assert!(finite(avatar.at) && finite(avatar.velocity), "{avatar:?}");
        assert!(
            (PLAYER_RADIUS..=ARENA_W - PLAYER_RADIUS).contains(&avatar.at.x),
            "{avatar:?}"
        );
        assert!(
            (PLAYER_RADIUS..=ARENA_H - PLAYER_RADIUS).contains(&avatar.at.y),
            "{avatar:?}"
        );
        assert!((0.0..=1.0).contains(&avatar.noise), "{avatar:?}");
        assert!(avatar.lives <= LIVES && avatar.best >= avatar.score);
    }
    for worm in &world.worms {
        assert!(finite(worm.at) && finite(worm.heading), "{worm:?}");
        assert!((0.0..=ARENA_W).contains(&worm.at.x) && (0.0..=ARENA_H).contains(&worm.at.y));
    }
    assert!(world.avatars.len() <= MAX_PLAYERS);
    assert!(world.spice.len() <= SPICE_MAX);
    assert!(world.worms.len() <= WORMS_MAX);
    assert!(world.spice.iter().all(|spice| finite(spice.at)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_leaves_the_arena_or_stops_being_a_number(
        seed in any::<u64>(),
        acts in prop::collection::vec(any_act(), 1..60),
    ) {
        let mut world = World::new(settings(seed));
        play(&mut world, &acts, check_sane);
    }

    #[test]
    fn the_same_seed_and_inputs_give_the_same_state(
        seed in any::<u64>(),
        acts in prop::collection::vec(any_act(), 1..40),
    ) {
        let mut one = World::new(settings(seed));
        let mut other = World::new(settings(seed));
        play(&mut one, &acts, |_| {});
        play(&mut other, &acts, |_| {});
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_round_always_ends(seed in any::<u64>(), steer in (any_number(), any_number())) {
        let mut world = World::new(settings(seed));
        let id = world.enter().unwrap();
        world.command(id, Command::Start);
        world.command(id, Command::Steer(Vec2::new(steer.0, steer.1)));
        for _ in 0..=ROUND {
            world.step();
        }
        prop_assert_eq!(world.phase, Phase::Over);
    }

    #[test]
    fn theft_moves_points_and_never_makes_them(
        mine in 0u32..5_000,
        yours in 0u32..5_000,
    ) {
        let (mut world, a, b) = duel();
        world.avatar_mut(a).unwrap().score = mine;
        world.avatar_mut(b).unwrap().score = yours;
        ram(&mut world, a, b);
        let (mine_now, yours_now) = (world.avatar(a).unwrap().score, world.avatar(b).unwrap().score);
        prop_assert_eq!(mine + yours, mine_now + yours_now);
        prop_assert!(yours_now <= yours && yours - yours_now <= STEAL_MAX);
    }
}

/// Two running players side by side on bare sand without shields, spice or worms.
fn duel() -> (World, AvatarId, AvatarId) {
    let mut world = World::new(settings(3));
    world.rocks.clear();
    let a = world.enter().unwrap();
    let b = world.enter().unwrap();
    world.command(a, Command::Start);
    world.command(b, Command::Start);
    world.spice.clear();
    world.worms.clear();
    for (id, x) in [(a, 600.0), (b, 680.0)] {
        let avatar = world.avatar_mut(id).unwrap();
        avatar.at = Vec2::new(x, 700.0);
        avatar.shield = 0;
    }
    (world, a, b)
}

fn ram(world: &mut World, a: AvatarId, _b: AvatarId) {
    world.command(a, Command::Steer(Vec2::new(1.0, 0.0)));
    world.command(a, Command::Dash);
    for _ in 0..6 {
        world.move_players();
        world.bump_players();
    }
}

#[test]
fn a_dash_into_somebody_stuns_and_robs_them() {
    let (mut world, a, b) = duel();
    world.avatar_mut(b).unwrap().score = 500;
    ram(&mut world, a, b);
    assert_eq!(world.avatar(a).unwrap().score, 70);
    assert_eq!(world.avatar(b).unwrap().score, 430);
    assert!(world.avatar(b).unwrap().stun > 0);
    assert!(world.avatar(b).unwrap().at.x > 690.0);
    assert!(
        world
            .events
            .iter()
            .any(|e| matches!(e, Event::Stolen { points: 70, .. }))
    );
}

#[test]
fn bodies_never_rest_inside_each_other() {
    let (mut world, a, b) = duel();
    world.avatar_mut(b).unwrap().at = Vec2::new(601.0, 700.0);
    world.bump_players();
    let apart = world
        .avatar(a)
        .unwrap()
        .at
        .distance(world.avatar(b).unwrap().at);
    assert!(apart >= 2.0 * PLAYER_RADIUS - 1e-9, "{apart}");
}

#[test]
fn a_combo_multiplies_and_runs_out() {
    let (mut world, a, _) = duel();
    let avatar = world.avatar_mut(a).unwrap();
    let points: Vec<u32> = (0..9).map(|_| avatar.collect(10)).collect();
    assert_eq!(points, [10, 10, 10, 20, 20, 20, 20, 30, 30]);
    for _ in 0..=rules::COMBO_TICKS {
        world.move_players();
    }
    assert_eq!(world.avatar(a).unwrap().multiplier(), 1);
}

#[test]
fn who_stands_still_on_sand_is_not_heard_and_who_dashes_is() {
    let (mut world, a, b) = duel();
    world.command(a, Command::Steer(Vec2::new(-1.0, 0.0)));
    for _ in 0..30 {
        world.command(a, Command::Dash);
        world.move_players();
    }
    assert!(world.avatar(a).unwrap().noise > 0.4);
    assert!(world.avatar(b).unwrap().noise < 0.01);
}

#[test]
fn three_bites_and_a_lone_player_is_out_and_the_round_over() {
    let mut world = World::new(settings(8));
    let id = world.enter().unwrap();
    world.command(id, Command::Start);
    world.rocks.clear();
    for bite in 1..=LIVES {
        for _ in 0..=(SHIELD_TICKS + DOWN_TICKS) {
            world.step();
        }
        let at = world.avatar(id).unwrap().at;
        world.swallow(at);
        assert_eq!(world.avatar(id).unwrap().lives, LIVES - bite);
    }
    world.step();
    assert_eq!(world.avatar(id).unwrap().status, Status::Out);
    assert_eq!(world.phase, Phase::Over);

    world.command(id, Command::Start);
    let avatar = world.avatar(id).unwrap();
    assert_eq!(
        (avatar.status, avatar.score, avatar.lives),
        (Status::Running, 0, LIVES)
    );
    assert_eq!(world.phase, Phase::Playing);
}

#[test]
fn who_is_out_may_enter_the_running_round_again() {
    let (mut world, a, b) = duel();
    world.avatar_mut(a).unwrap().status = Status::Out;
    world.avatar_mut(a).unwrap().score = 300;
    world.step();
    assert_eq!(world.phase, Phase::Playing);
    world.command(a, Command::Start);
    assert_eq!(world.avatar(a).unwrap().status, Status::Running);
    assert_eq!(world.avatar(a).unwrap().score, 0);
    assert_eq!(world.rounds, 1);
    assert_eq!(world.avatar(b).unwrap().status, Status::Running);
}

#[test]
fn a_sleeping_player_keeps_body_and_score_and_then_vanishes() {
    let (mut world, a, b) = duel();
    world.avatar_mut(a).unwrap().score = 120;
    world.sleep(a);
    for _ in 0..20 {
        world.step();
    }
    assert!(world.wake(a));
    assert_eq!(world.avatar(a).unwrap().score, 120);
    world.sleep(a);
    for _ in 0..=31 {
        world.step();
    }
    assert!(world.avatar(a).is_none());
    assert!(!world.wake(a));
    assert!(world.avatar(b).is_some());
}

#[test]
fn the_round_waits_for_a_lone_player_whose_connection_is_gone() {
    let mut world = World::new(settings(1));
    let id = world.enter().unwrap();
    world.command(id, Command::Start);
    world.step();
    let left = world.ticks_left;
    world.sleep(id);
    for _ in 0..25 {
        world.step();
    }
    assert_eq!(world.ticks_left, left);
    world.wake(id);
    world.step();
    assert_eq!(world.ticks_left, left - 1);
}

#[test]
fn the_seventeenth_player_is_told_that_the_arena_is_full() {
    let mut world = World::new(settings(1));
    for _ in 0..MAX_PLAYERS {
        world.enter().unwrap();
    }
    assert_eq!(world.enter(), Err(Full));
}

#[test]
fn spice_grows_only_on_open_sand() {
    for seed in 0..40 {
        let world = World::new(settings(seed));
        assert!(
            world.rocks.len() >= 4,
            "seed {seed}: {} rocks",
            world.rocks.len()
        );
        assert!(
            world.spice.len() >= 40,
            "seed {seed}: {} spice",
            world.spice.len()
        );
        for spice in &world.spice {
            assert!(world.rocks.iter().all(|rock| !rock.holds(spice.at)));
        }
    }
}

/// Runs after the nearest spice at full pace, which is what everybody does in their first game.
fn greedy_round(seed: u64, careful: bool) -> (u32, u8) {
    let mut world = World::new(Settings {
        seed,
        round_ticks: 120 * TICK_HZ,
        grace_ticks: 30,
    });
    let id = world.enter().unwrap();
    world.command(id, Command::Start);
    while world.phase == Phase::Playing {
        let me = world.avatar(id).unwrap().clone();
        let nearest = world
            .spice
            .iter()
            .min_by(|a, b| a.at.distance(me.at).total_cmp(&b.at.distance(me.at)));
        let mut way = nearest.map_or(Vec2::ZERO, |spice| spice.at - me.at);
        let near = |w: &&worm::Worm| w.at.distance(me.at) < 230.0;
        if careful && let Some(worm) = world.worms.iter().find(near) {
            way = me.at - worm.at;
            world.command(id, Command::Dash);
        }
        world.command(id, Command::Steer(way.unit_or(Vec2::ZERO)));
        world.step();
    }
    let me = world.avatar(id).unwrap();
    (me.best, LIVES - me.lives)
}

#[test]
fn greed_pays_and_kills_and_care_lives_longer() {
    let rounds: u32 = 12;
    let play = |careful| {
        (0..u64::from(rounds))
            .map(|seed| greedy_round(seed, careful))
            .fold((0, 0), |(score, bites), (s, b)| {
                (score + s, bites + u32::from(b))
            })
    };
    let (greedy, bitten) = play(false);
    let (careful, bitten_careful) = play(true);
    println!(
        "greedy {} points, {bitten} bites; careful {}, {bitten_careful}",
        greedy / rounds,
        careful / rounds
    );
    assert!(greedy / rounds > 500, "nothing to collect");
    assert!(bitten >= rounds, "the worm is no danger");
    assert!(bitten_careful < bitten, "running away does not help");
}
