//! What was promised while the runtime was slow or blind: ends that were acknowledged, and warm instances that nobody wants any more.
//! Found by the kill matrix; here each of the calls in question is the slow one in turn.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_runtime::flaky::{Fault, Flaky};
use spawnpoint_runtime::simulated::{End, SimulatedConfig};
use spawnpoint_runtime::{Runtime, State};
use spawnpoint_store::Records;
use spawnpoint_store::flaky::Flaky as FlakyRecords;
use spawnpoint_store::memory::MemoryRecords;

use crate::harness::{World, config, fleet, id, with_policy};

const SECOND: Duration = Duration::from_secs(1);

/// Whoever came to stop it found nothing yet and went; the order landed, and it ran for ever.
#[tokio::test(start_paused = true)]
async fn a_warm_instance_that_is_given_up_while_it_is_ordered_is_stopped() {
    for slow in 1..=12 {
        let w = World::new(SimulatedConfig::default());
        let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
        flaky.script(slow, Fault::Delay(20 * SECOND));
        let mut f = with_policy(fleet("arena"), |p| p.boot = 2 * SECOND);
        f.warm = 1;
        let up = w
            .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
            .await;
        tokio::time::sleep(120 * SECOND).await;
        let all = w.runtime.list().await.unwrap();
        let running = all.iter().filter(|i| !matches!(i.state, State::Exited(_)));
        assert_eq!(running.count(), 1, "call {slow} was slow: {all:#?}");
        assert_eq!(up.get("/api/fleets/arena").await.is(200)["warm"], 1);
    }
}

/// The game dies; what heals it is slow, or its death has not been seen yet; the player ends the session and is told that it ends; the
/// server dies before it could record that.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_acknowledged_while_its_game_was_dead_is_recorded_as_such() {
    for slow in 0..=5 {
        for killed_after in [10, 500, 1_500, 4_000] {
            let case = format!("call {slow} was slow, killed after {killed_after} ms");
            let mut w = World::new(SimulatedConfig::default());
            let records = Arc::new(FlakyRecords::quiet(MemoryRecords::new()));
            w.records = Arc::clone(&records) as Arc<dyn Records>;
            let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
            let c = config(vec![fleet("arena")]);
            let up = w
                .up_with(c.clone(), Arc::clone(&flaky) as Arc<dyn Runtime>)
                .await;
            let s = up.play("p").await;
            let path = format!("/api/sessions/{}", id(&s));
            let seen = up.get(&path).await.is(200);
            let game = seen["instance"]["id"].as_str().unwrap().parse().unwrap();
            tokio::time::sleep(SECOND).await;
            records.outage(true);
            match slow {
                // Nobody sees it die.
                0 => flaky.cut_watches(2 * SECOND),
                n => flaky.script(flaky.calls() + n, Fault::Delay(SECOND)),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            w.runtime.crash(game, End::Code(7));
            tokio::time::sleep(Duration::from_millis(200)).await;
            let told = up.call("DELETE", &path, None, None).await.is(200);
            assert_eq!(told["reason"], "ended_by_client", "{case}: {told:#}");
            tokio::time::sleep(Duration::from_millis(killed_after)).await;
            up.kill();
            // What it had asked for and not got yet is asked for by nobody now.
            flaky.outage(true);
            records.outage(false);
            let up = w.up(c).await;
            let record = up.record(&id(&s), 60 * SECOND).await;
            assert_eq!(record["reason"], "ended_by_client", "{case}: {record:#}");
            tokio::time::sleep(60 * SECOND).await;
            let left = w.runtime.list().await.unwrap();
            assert!(left.is_empty(), "{case}: {left:#?}");
        }
    }
}

/// Found by measuring how late culls are: who looked in for a few milliseconds was nobody, and where a fleet has no limit for staying
/// away the game ran for ever.
#[tokio::test(start_paused = true)]
async fn who_came_and_left_between_two_reports_was_there() {
    let w = World::new(SimulatedConfig::default());
    let f = with_policy(fleet("arena"), |p| {
        (p.join, p.idle, p.max, p.max_limit) = (None, None, None, None);
    });
    let up = w.up(config(vec![f])).await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 0, false).await;
    let seen = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    assert_eq!(seen["phase"], "running", "{seen:#}");
    assert!(seen["first_joined_at"].is_string(), "{seen:#}");
    let record = up.record(&id(&s), 60 * SECOND).await;
    assert_eq!(record["reason"], "empty");
}

/// Found by the kill matrix: an end was acknowledged while the disk was full, and after a kill it was recorded with another reason.
#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_written_down_is_not_acknowledged() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let up = w
        .up_with(
            config(vec![fleet("arena")]),
            Arc::clone(&flaky) as Arc<dyn Runtime>,
        )
        .await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    tokio::time::sleep(SECOND).await;
    flaky.outage(true);
    up.call("DELETE", &path, None, None)
        .await
        .code(503, "unknown");
    // It is in effect all the same, and asked again it is said as soon as it is true.
    assert_eq!(up.get(&path).await.is(200)["phase"], "ending");
    flaky.outage(false);
    tokio::time::sleep(5 * SECOND).await;
    let told = up.call("DELETE", &path, None, None).await.is(200);
    assert_eq!(told["reason"], "ended_by_client", "{told:#}");
}
