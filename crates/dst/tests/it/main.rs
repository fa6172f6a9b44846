//! The simulation itself: a seed is a world, to the byte.

use spawnpoint_dst::{Cut, Plan, Trouble, run_seed};

#[test]
fn a_seed_is_a_history_to_the_byte() {
    for seed in 1..=25 {
        let one = run_seed(seed, &Cut::default()).unwrap();
        let two = run_seed(seed, &Cut::default()).unwrap();
        let differs = one
            .history
            .iter()
            .zip(&two.history)
            .position(|(a, b)| a != b);
        assert_eq!(
            differs.map(|n| (&one.history[n], &two.history[n])),
            None,
            "seed {seed}"
        );
        assert_eq!(one.history.len(), two.history.len(), "seed {seed}");
        assert_eq!(one.finding, None, "seed {seed}");
        assert!(
            one.sessions > 0 && one.checks > 50,
            "seed {seed}: {} checks",
            one.checks
        );
    }
}

#[test]
fn what_is_cut_from_a_plan_leaves_the_rest_as_it_was() {
    for seed in 1..=50 {
        let whole = Plan::of(seed);
        let cut = Cut {
            without: [Trouble::Crash].into(),
            ..Cut::default()
        };
        let less = Plan::of(seed).cut(&cut);
        let rest = whole.spells.iter().filter(|s| s.what != Trouble::Crash);
        assert!(
            rest.map(|s| (s.at, s.what, s.draw))
                .eq(less.spells.iter().map(|s| (s.at, s.what, s.draw)))
        );
        assert_eq!(whole.players, less.players);
    }
}

#[test]
fn every_kind_of_trouble_happens() {
    for (trouble, name) in Trouble::ALL {
        assert_eq!(Trouble::parse(name), Some(trouble));
        let seeds = 1..=100;
        let worlds = seeds.filter(|s| Plan::of(*s).troubles().contains(&trouble));
        assert!(worlds.count() >= 10, "{name}");
    }
}
