//! What the server stands on fails: full disks, lost databases, calls whose outcome nobody knows, ports that run out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use spawnpoint_runtime::flaky::{Fault, Flaky, Rates};
use spawnpoint_runtime::simulated::SimulatedConfig;
use spawnpoint_runtime::{Runtime, State};
use spawnpoint_store::Records;
use spawnpoint_store::flaky::Flaky as FlakyRecords;
use spawnpoint_store::memory::MemoryRecords;

use crate::harness::{World, config, fleet, id, with_policy};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_full_disk_starts_nothing_and_says_so() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let up = w
        .up_with(
            config(vec![fleet("arena")]),
            Arc::clone(&flaky) as Arc<dyn Runtime>,
        )
        .await;
    // The workers' own first calls are over.
    tokio::time::sleep(SECOND).await;
    flaky.script_next(Fault::Storage);
    let p = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .code(503, "storage_full");
    assert!(p["retry_after"].as_u64().is_some());
    assert_eq!(up.get("/api/sessions").await.is(200)["total"], 0);
    assert!(w.runtime.list().await.unwrap().is_empty());
    // The player is not held by what never was.
    let s = up.play("p").await;
    assert_eq!(s["generation"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_of_unknown_outcome_starts_one_instance() {
    for fault in [Fault::Before, Fault::After] {
        let w = World::new(SimulatedConfig::default());
        let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
        let up = w
            .up_with(
                config(vec![fleet("arena")]),
                Arc::clone(&flaky) as Arc<dyn Runtime>,
            )
            .await;
        tokio::time::sleep(SECOND).await;
        flaky.script_next(fault);
        up.play("p").await;
        tokio::time::sleep(30 * SECOND).await;
        let running = w.runtime.list().await.unwrap();
        assert_eq!(running.len(), 1, "{fault:?}: {running:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_constant_failures_every_session_ends_with_one_record_and_nothing_is_left() {
    for seed in 0..5 {
        let w = World::new(SimulatedConfig {
            seed,
            ..SimulatedConfig::default()
        });
        let rates = Rates {
            before: 60,
            after: 60,
            conflict: 40,
            delay: 100,
            longest_delay: Duration::from_millis(300),
            cut: 30,
            longest_cut: SECOND,
            ..Rates::default()
        };
        let mut f = fleet("arena");
        f.warm = 3;
        let flaky = Arc::new(Flaky::new(Arc::clone(&w.runtime), seed, rates));
        let up = w.up_with(config(vec![f]), flaky).await;
        let mut started = Vec::new();
        for i in 0..30 {
            let reply = up
                .post(
                    "/api/new-game?wait=30",
                    json!({"playerId": format!("p{i}")}),
                )
                .await;
            match reply.status {
                200 | 201 => started.push(id(&reply.body)),
                // Told so at once, and nothing of it exists.
                503 => {}
                other => panic!("seed {seed}: {other} {}", reply.text),
            }
        }
        assert!(
            started.len() >= 20,
            "seed {seed}: {} started",
            started.len()
        );
        for s in &started {
            let end = up
                .call("DELETE", &format!("/api/sessions/{s}"), None, None)
                .await;
            assert_eq!(end.status, 200, "seed {seed}: {}", end.text);
        }
        for s in &started {
            up.record(s, 120 * SECOND).await;
        }
        // The record is there before the instance is forgotten; then the session goes.
        let deadline = tokio::time::Instant::now() + 120 * SECOND;
        loop {
            let rest = up.get("/api/sessions").await.is(200);
            if rest["total"] == 0 {
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "seed {seed}: {rest:#}"
            );
            tokio::time::sleep(SECOND).await;
        }
        up.server
            .drain(spawnpoint_server::DrainMode::EndGames, 120 * SECOND)
            .await;
        let left: Vec<_> = w
            .runtime
            .list()
            .await
            .unwrap()
            .into_iter()
            .filter(|i| !matches!(i.state, State::Exited(_)))
            .collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_database_loses_no_record() {
    let mut w = World::new(SimulatedConfig::default());
    let records = Arc::new(FlakyRecords::quiet(MemoryRecords::new()));
    w.records = Arc::clone(&records) as Arc<dyn Records>;
    let up = w.up(config(vec![fleet("arena")])).await;
    let s = up.play("p").await;
    records.outage(true);
    let path = format!("/api/sessions/{}", id(&s));
    up.call("DELETE", &path, None, None).await.is(200);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(up.get(&path).await.is(200)["phase"], "ending");
    assert_eq!(
        w.runtime.list().await.unwrap().len(),
        1,
        "the instance keeps the record until it is written"
    );
    up.get("/api/matches")
        .await
        .code(503, "database_unavailable");
    let readyz = up.get("/readyz").await;
    assert_eq!(readyz.status, 503, "{}", readyz.text);
    // New games start meanwhile: nothing of a start needs the database.
    up.play("q").await;
    records.outage(false);
    assert_eq!(
        up.record(&id(&s), 10 * SECOND).await["reason"],
        "ended_by_client"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_database_and_a_kill_lose_no_record() {
    let mut w = World::new(SimulatedConfig::default());
    let records = Arc::new(FlakyRecords::quiet(MemoryRecords::new()));
    w.records = Arc::clone(&records) as Arc<dyn Records>;
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    records.outage(true);
    up.call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
        .await
        .is(200);
    tokio::time::sleep(15 * SECOND).await;
    up.kill();
    records.outage(false);
    let up = w.up(c).await;
    let r = up.record(&id(&s), 20 * SECOND).await;
    assert_eq!(
        (r["reason"].as_str(), r["ended_by"].as_str()),
        (Some("ended_by_client"), Some("backend"))
    );
    assert!(w.runtime.list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_a_port() {
    let w = World::new(SimulatedConfig {
        ports: Some(20_000..=20_000),
        quarantine: SECOND,
        ..SimulatedConfig::default()
    });
    let up = w.up(config(vec![fleet("arena")])).await;
    let a = up.play("a").await;
    let b = up
        .post("/api/new-game", json!({"playerId": "b"}))
        .await
        .is(201);
    assert_eq!(
        (b["phase"].as_str(), b["queue"]["waiting_for"].as_str()),
        (Some("queued"), Some("ports_exhausted"))
    );
    up.call("DELETE", &format!("/api/sessions/{}", id(&a)), None, None)
        .await
        .is(200);
    let b = up
        .post("/api/new-game?wait=60", json!({"playerId": "b"}))
        .await
        .is(200);
    assert_eq!(b["ready"], true);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_start_is_held_and_said() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    f.warm = 2;
    let script = spawnpoint_runtime::simulated::Script {
        ends: Some((
            Duration::from_millis(5),
            spawnpoint_runtime::simulated::End::Code(1),
        )),
        never_ready: true,
        ..Default::default()
    };
    f.template.command = script.command();
    let up = w.up(config(vec![f])).await;
    let mut code = String::new();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if up.get("/api/fleets/arena").await.is(200)["degraded"] == true {
            let p = up
                .post("/api/new-game", json!({"playerId": "p"}))
                .await
                .code(503, "fleet_degraded");
            code = p["code"].as_str().unwrap().to_owned();
            assert!(p["retry_after"].as_u64().is_some());
            break;
        }
    }
    assert_eq!(code, "fleet_degraded");
}

/// Found by the simulation: a listing with nothing in it replaced every game, and ended those that are not replaced.
#[tokio::test(start_paused = true)]
async fn an_empty_listing_ends_nothing() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let mut f = fleet("arena");
    f.warm = 1;
    let up = w
        .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    let s = up.play("p").await;
    let before = w.runtime.list().await.unwrap().len();
    flaky.hollow_listings(1);
    flaky.cut_watches(Duration::from_millis(10));
    tokio::time::sleep(10 * SECOND).await;
    let after = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    assert_eq!(
        (after["phase"].as_str(), after["generation"].as_u64()),
        (Some("ready"), Some(1)),
        "{after:#}"
    );
    assert_eq!(w.runtime.list().await.unwrap().len(), before.max(2));
    // What really is gone is noticed all the same.
    let instance = after["instance"]["id"].as_str().unwrap().parse().unwrap();
    w.runtime.finish(instance);
    up.record(&id(&s), 10 * SECOND).await;
}

/// Found by the simulation: the warm instance was forgotten though nothing had happened to it, and one more was started than may be.
#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_written_leaves_the_warm_instance_warm() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let mut f = fleet("arena");
    f.warm = 1;
    f.max_instances = Some(1);
    let up = w
        .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    tokio::time::sleep(SECOND).await;
    let warm = w.runtime.list().await.unwrap();
    assert_eq!(warm.len(), 1);
    flaky.script_next(Fault::Storage);
    up.post("/api/new-game", json!({"playerId": "p"}))
        .await
        .code(503, "storage_full");
    tokio::time::sleep(5 * SECOND).await;
    let after = w.runtime.list().await.unwrap();
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(up.get("/api/fleets/arena").await.is(200)["warm"], 1);
    let s = up.play("p").await;
    let v = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    assert_eq!(v["instance"]["id"], warm[0].id.to_string());
}

/// Found by the simulation: a place in the queue that was taken without an answer was held for ever, by nobody.
#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_of_unknown_outcome_is_not_left_behind() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let up = w
        .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    up.play("a").await;
    tokio::time::sleep(SECOND).await;
    flaky.script_next(Fault::After);
    let b = up
        .post("/api/new-game", json!({"playerId": "b"}))
        .await
        .is(201);
    assert_eq!(b["phase"], "queued");
    up.call("DELETE", &format!("/api/sessions/{}", id(&b)), None, None)
        .await
        .is(200);
    up.record(&id(&b), 20 * SECOND).await;
    // However often it is asked again, and looked after: nothing is known, and nothing stays.
    let calls = flaky.calls();
    for n in 1..=7 {
        flaky.script(calls + n, Fault::After);
    }
    let c = up.post("/api/new-game", json!({"playerId": "c"})).await;
    assert_eq!(c.status, 503, "{}", c.text);
    tokio::time::sleep(10 * SECOND).await;
    let left = w.runtime.list().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Found by the simulation: a place that was left by a write without an answer was tried again with a version that was old for ever, and
/// the instance that ran meanwhile was not counted.
#[tokio::test(start_paused = true)]
async fn a_session_leaves_the_queue_whatever_is_not_answered() {
    for (call, fault) in [
        (1, Fault::Before),
        (1, Fault::After),
        (2, Fault::Before),
        (2, Fault::After),
        (2, Fault::Conflict),
    ] {
        let w = World::new(SimulatedConfig::default());
        let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
        let mut f = fleet("arena");
        f.max_instances = Some(1);
        let up = w
            .up_with(
                config(vec![f.clone()]),
                Arc::clone(&flaky) as Arc<dyn Runtime>,
            )
            .await;
        up.play("a").await;
        let b = up
            .post("/api/new-game", json!({"playerId": "b"}))
            .await
            .is(201);
        assert_eq!(b["phase"], "queued");
        tokio::time::sleep(5 * SECOND).await;
        // Room for one more: first the claim is written, then the instance is let go.
        flaky.script(flaky.calls() + call, fault);
        f.max_instances = Some(2);
        up.server.reload(config(vec![f]));
        let b = up
            .post("/api/new-game?wait=20", json!({"playerId": "b"}))
            .await
            .is(200);
        assert_eq!(b["ready"], true, "{call} {fault:?}: {b:#}");
        let c = up
            .post("/api/new-game", json!({"playerId": "c"}))
            .await
            .is(201);
        assert_eq!(c["phase"], "queued", "{call} {fault:?}: {c:#}");
        tokio::time::sleep(10 * SECOND).await;
        let all = w.runtime.list().await.unwrap();
        let running = all.iter().filter(|i| i.state == State::Ready).count();
        assert_eq!(running, 2, "{call} {fault:?}: {all:?}");
    }
}

/// Found by the simulation: a start in place that was not answered was asked for until the start limit ended a game that ran.
#[tokio::test(start_paused = true)]
async fn a_start_in_place_that_is_not_answered_counts_when_it_was_done() {
    let w = World::new(SimulatedConfig::default());
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let f = with_policy(fleet("arena"), |p| {
        p.on_crash = spawnpoint_core::lifecycle::OnCrash::Restart;
        p.join = None;
    });
    let up = w
        .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
        .await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    let seen = up.get(&path).await.is(200);
    let instance: spawnpoint_core::InstanceId =
        seen["instance"]["id"].as_str().unwrap().parse().unwrap();
    tokio::time::sleep(SECOND).await;
    // Whatever is asked for the next moments is done and not answered; the start in place is among it.
    let calls = flaky.calls();
    for n in 1..=4 {
        flaky.script(calls + n, Fault::After);
    }
    w.runtime
        .crash(instance, spawnpoint_runtime::simulated::End::Code(3));
    tokio::time::sleep(60 * SECOND).await;
    let after = up.get(&path).await.is(200);
    assert_eq!(
        (after["phase"].as_str(), after["generation"].as_u64()),
        (Some("ready"), Some(2)),
        "{after:#}"
    );
    assert_eq!(w.runtime.get(instance).await.unwrap().restarts, 1);
}

/// Found by the simulation: a session that ended in the moment it left the queue had its instance forgotten before it was recorded, and
/// a `kill -9` in between would have lost it.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_it_leaves_the_queue_is_recorded_before_its_instance_goes() {
    let mut w = World::new(SimulatedConfig::default());
    let records = Arc::new(FlakyRecords::quiet(MemoryRecords::new()));
    w.records = Arc::clone(&records) as Arc<dyn Records>;
    let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let up = w
        .up_with(
            config(vec![f.clone()]),
            Arc::clone(&flaky) as Arc<dyn Runtime>,
        )
        .await;
    up.play("a").await;
    let b = up
        .post("/api/new-game", json!({"playerId": "b"}))
        .await
        .is(201);
    assert_eq!(b["phase"], "queued");
    tokio::time::sleep(5 * SECOND).await;
    // The instance is let go slowly; meanwhile the session is ended, and the database is away.
    flaky.script(flaky.calls() + 2, Fault::Delay(2 * SECOND));
    f.max_instances = Some(2);
    up.server.reload(config(vec![f]));
    tokio::time::sleep(SECOND).await;
    records.outage(true);
    up.call("DELETE", &format!("/api/sessions/{}", id(&b)), None, None)
        .await
        .is(200);
    tokio::time::sleep(20 * SECOND).await;
    let of_b = |i: &spawnpoint_runtime::Instance| {
        i.facts
            .as_ref()
            .is_some_and(|f| f.session.to_string() == id(&b))
    };
    let all = w.runtime.list().await.unwrap();
    assert_eq!(all.iter().filter(|i| of_b(i)).count(), 1, "{all:?}");
    records.outage(false);
    up.record(&id(&b), 10 * SECOND).await;
    tokio::time::sleep(10 * SECOND).await;
    let all = w.runtime.list().await.unwrap();
    assert_eq!(all.iter().filter(|i| of_b(i)).count(), 0, "{all:?}");
}

/// Found by the simulation: the start limit of a start in place counted from the session's first claim, so that a game older than the
/// limit was ended as crashed in the moment it was started again.
#[tokio::test(start_paused = true)]
async fn a_start_in_place_of_an_old_game_has_its_whole_start_limit() {
    let w = World::new(SimulatedConfig {
        boot: spawnpoint_runtime::simulated::Span::Fixed(5 * SECOND),
        ..SimulatedConfig::default()
    });
    let f = with_policy(fleet("arena"), |p| {
        p.on_crash = spawnpoint_core::lifecycle::OnCrash::Restart;
        p.join = None;
    });
    let up = w.up(config(vec![f])).await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    let seen = up.get(&path).await.is(200);
    let instance: spawnpoint_core::InstanceId =
        seen["instance"]["id"].as_str().unwrap().parse().unwrap();
    tokio::time::sleep(200 * SECOND).await;
    w.runtime
        .crash(instance, spawnpoint_runtime::simulated::End::Code(3));
    tokio::time::sleep(20 * SECOND).await;
    let after = up.get(&path).await.is(200);
    assert_eq!(
        (after["phase"].as_str(), after["generation"].as_u64()),
        (Some("ready"), Some(2)),
        "{after:#}"
    );
}

/// Found by the simulation: the disk that was full at the second try said nothing about the first, which had not been answered: its
/// instance was forgotten and stayed, for nobody; after a restart its player was in two sessions.
#[tokio::test(start_paused = true)]
async fn a_refused_try_says_nothing_about_the_one_before_it() {
    for (waits, lost_look) in [(false, false), (false, true), (true, false), (true, true)] {
        let case = format!("waits in line {waits}, the look after it is lost {lost_look}");
        let w = World::new(SimulatedConfig::default());
        let flaky = Arc::new(Flaky::quiet(Arc::clone(&w.runtime)));
        let mut f = fleet("arena");
        f.max_instances = Some(if waits { 1 } else { 2 });
        let up = w
            .up_with(config(vec![f]), Arc::clone(&flaky) as Arc<dyn Runtime>)
            .await;
        up.play("a").await;
        tokio::time::sleep(SECOND).await;
        let calls = flaky.calls();
        flaky.script(calls + 1, Fault::After);
        flaky.script(calls + 2, Fault::Storage);
        if lost_look {
            flaky.script(calls + 3, Fault::Before);
        }
        let b = up.post("/api/new-game", json!({"playerId": "b"})).await;
        if lost_look {
            assert_eq!(b.status, 503, "{case}: {}", b.text);
        } else {
            // It is there: nothing was refused.
            assert_eq!(b.status, 201, "{case}: {}", b.text);
        }
        tokio::time::sleep(10 * SECOND).await;
        let all = w.runtime.list().await.unwrap();
        assert_eq!(all.len(), if lost_look { 1 } else { 2 }, "{case}: {all:#?}");
    }
}

/// Found by the simulation: a start limit ended a game that had accepted while nobody could see it, or while the server stood still.
#[tokio::test(start_paused = true)]
async fn a_start_limit_ends_nothing_that_cannot_be_seen() {
    for stands_still in [false, true] {
        let w = World::new(SimulatedConfig::default());
        let mut f = with_policy(fleet("arena"), |p| p.boot = 5 * SECOND);
        let script = spawnpoint_runtime::simulated::Script {
            boot: Some(2 * SECOND),
            ..Default::default()
        };
        f.template.command = script.command();
        let up = w.up(config(vec![f])).await;
        let s = up
            .post("/api/new-game", json!({"playerId": "p"}))
            .await
            .is(201);
        let path = format!("/api/sessions/{}", id(&s));
        if stands_still {
            tokio::time::advance(20 * SECOND).await;
        } else {
            w.runtime.lose_watch();
            tokio::time::sleep(20 * SECOND).await;
            assert_eq!(up.get(&path).await.is(200)["phase"], "starting");
            w.runtime.regain_watch();
        }
        tokio::time::sleep(6 * SECOND).await;
        let seen = up.get(&path).await.is(200);
        assert_eq!(seen["phase"], "ready", "{stands_still}: {seen:#}");
    }
}
