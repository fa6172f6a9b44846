//! The simulation itself: a seed is a world, to the byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use spawnpoint_dst::day::{Sample, run_hours};
use spawnpoint_dst::{Crowd, Cut, Outcome, Plan, Trouble, run, run_seed};

#[test]
#[cfg_attr(
    not(tokio_unstable),
    ignore = "to be run from crates/dst: only there tokio's own chance comes from the seed"
)]
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

fn crowds(crowd: Crowd) -> Vec<Outcome> {
    let worlds = (1..=8).map(|seed| run(Plan::of(seed).crowd(crowd)).unwrap());
    worlds
        .inspect(|o| assert_eq!(o.finding, None, "seed {}: {:#?}", o.seed, o.history))
        .collect()
}

#[test]
fn the_brake_holds_while_nobody_can_say_who_plays() {
    for o in crowds(Crowd::Unheard) {
        assert!(o.braked > 0, "seed {}: {:#?}", o.seed, o.history);
        let until_heard = o
            .history
            .iter()
            .take_while(|l| !l.contains("the line is back"));
        let culled: Vec<_> = until_heard.filter(|l| l.contains(" records ")).collect();
        assert!(culled.is_empty(), "seed {}: {culled:#?}", o.seed);
    }
}

#[test]
fn the_brake_lets_go_of_a_crowd_that_has_left() {
    let worlds = crowds(Crowd::Leaves);
    for o in &worlds {
        assert!(o.braked > 0, "seed {}: {:#?}", o.seed, o.history);
        // Each gone within its grace, the brake's longest hold, what stood still, and a little for the stop and the record.
        let plan = Plan::of(o.seed).crowd(Crowd::Leaves);
        let (_, at) = plan.crowd.unwrap();
        let stood: std::time::Duration = plan.spells.iter().map(|s| s.lasts).sum();
        let grace = plan
            .fleets
            .iter()
            .map(|f| f.reconnect + f.grace)
            .max()
            .unwrap();
        let limit = (at + stood + grace).as_secs_f64() + 10.0 + 5.0 + 6.0;
        let last = o
            .history
            .iter()
            .rfind(|l| l.contains(" empty (Now)"))
            .unwrap();
        let when: f64 = last.split_whitespace().next().unwrap().parse().unwrap();
        assert!(when <= limit, "seed {}: {last} after {limit}", o.seed);
    }
    assert!(
        worlds.iter().any(|o| o.late > 0),
        "no late tick in any of them"
    );
}

#[test]
fn an_hour_in_one_world_is_forgotten_as_it_goes() {
    let (tell, samples) = std::sync::mpsc::channel();
    let outcome = run_hours(1, 1, &Cut::default(), tell).unwrap();
    assert_eq!(outcome.finding, None);
    let samples: Vec<Sample> = samples.iter().collect();
    let last = samples.last().unwrap();
    assert!(samples.len() >= 12 && last.runs > 1, "{last:?}");
    assert!(outcome.sessions > 300, "{}", outcome.sessions);
    // What is live is of this minute, whatever has been.
    let most = samples.iter().map(|s| s.live).max().unwrap();
    assert!(most < 50, "{most} live at once");
}
