//! `kill -9` of the server at any point: what lives goes on, what ended is recorded once, nothing is orphaned.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use spawnpoint_runtime::simulated::{End, SimulatedConfig, Span};
use spawnpoint_runtime::{Runtime, State};

use crate::harness::{On, World, config, fleet, id, with_policy};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn live_games_go_on_under_their_urls_tokens_and_deadlines() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let invite = s["invite"].as_str().unwrap().to_owned();
    up.post(
        &format!("/api/sessions/{}/players", id(&s)),
        json!({"playerId": "q", "invite": invite}),
    )
    .await
    .is(200);
    let before = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    tokio::time::sleep(1_000 * Duration::from_millis(100)).await;
    up.kill();
    tokio::time::sleep(10 * SECOND).await;
    let up = w.up(c).await;
    let after = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    assert_eq!(after["phase"], "running");
    for k in [
        "session_id",
        "fleet",
        "generation",
        "owner",
        "wsUrl",
        "created_at",
        "instance",
        "joinable",
        "receipt",
        "started_at",
    ] {
        assert_eq!(after[k], before[k], "{k}");
    }
    assert_eq!(after["players"].as_array().unwrap().len(), 2);
    let token = s["token"].as_str();
    up.call("GET", &format!("/api/sessions/{}", id(&s)), token, None)
        .await
        .is(200);
    let again = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(200);
    assert_eq!(id(&again), id(&s));
    assert_eq!(again["invite"], s["invite"]);
    // Its maximum still counts from the grant: 30 minutes, of which 110 s are over.
    let start = tokio::time::Instant::now();
    loop {
        up.gateway.connected(&id(&s), "p", 1, true).await;
        let a = up.get(&format!("/api/matches/{}", id(&s))).await;
        if a.status == 200 {
            assert_eq!(a.body["reason"], "max_duration");
            break;
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(
        (1_680..=1_702).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_ended_meanwhile_gets_one_record_with_the_true_exit() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![with_policy(fleet("arena"), |p| {
        p.on_crash = spawnpoint_core::lifecycle::OnCrash::End
    })]);
    let up = w.up(c.clone()).await;
    let mut ids = Vec::new();
    for i in 0..50 {
        let s = up.play(&format!("p{i}")).await;
        let v = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
        ids.push((
            id(&s),
            v["instance"]["id"].as_str().unwrap().parse().unwrap(),
        ));
    }
    up.kill();
    for (i, (_, instance)) in ids.iter().enumerate() {
        match i % 3 {
            0 => w.runtime.finish(*instance),
            1 => w.runtime.crash(*instance, End::Code(3)),
            _ => {}
        }
    }
    let up = w.up(c).await;
    for (i, (session, _)) in ids.iter().enumerate() {
        if i % 3 == 2 {
            assert_eq!(
                up.get(&format!("/api/sessions/{session}")).await.is(200)["phase"],
                "ready"
            );
            continue;
        }
        let r = up.record(session, 10 * SECOND).await;
        let wanted = if i % 3 == 0 {
            ("ended_by_server", 0)
        } else {
            ("crashed", 3)
        };
        assert_eq!(
            (
                r["reason"].as_str().unwrap(),
                r["exit_code"].as_i64().unwrap()
            ),
            wanted
        );
    }
    assert_eq!(up.get("/api/sessions?limit=500").await.is(200)["total"], 16);
    assert_eq!(
        w.runtime.list().await.unwrap().len(),
        16,
        "nothing is orphaned"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_at_a_restart_ends_within_a_second_for_its_own_reason() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![with_policy(fleet("arena"), |p| {
        p.max = Some(100 * SECOND);
        p.max_limit = Some(100 * SECOND);
    })]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    up.kill();
    tokio::time::sleep(200 * SECOND).await;
    assert_eq!(w.runtime.list().await.unwrap().len(), 1, "nobody ended it");
    let up = w.up(c).await;
    let start = tokio::time::Instant::now();
    let path = format!("/api/sessions/{}", id(&s));
    while up.get(&path).await.is(200)["end"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    }
    let record = up.record(&id(&s), 20 * SECOND).await;
    assert_eq!(
        (&record["reason"], &record["ended_by"]),
        (&"max_duration".into(), &"system".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_nobody_watched_is_healed() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    let old = up.get(&path).await.is(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    up.kill();
    w.runtime.crash(old.parse().unwrap(), End::Code(9));
    let up = w.up(c).await;
    for _ in 0..1_000 {
        let v = up.get(&path).await.is(200);
        if v["generation"] == 2 && v["ready"] == true {
            assert_ne!(v["instance"]["id"].as_str().unwrap(), old);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not healed");
}

#[tokio::test(start_paused = true)]
async fn waiting_sessions_keep_their_order() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    let first = id(&up.play("a").await);
    for p in ["b", "c", "d"] {
        up.post("/api/new-game", json!({"playerId": p}))
            .await
            .is(201);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    up.kill();
    let up = w.up(c).await;
    for (i, p) in ["b", "c", "d"].iter().enumerate() {
        let s = up
            .post("/api/new-game", json!({"playerId": p}))
            .await
            .is(200);
        assert_eq!(s["queue"]["position"].as_u64(), Some(i as u64 + 1), "{p}");
    }
    up.call("DELETE", &format!("/api/sessions/{first}"), None, None)
        .await
        .is(200);
    let b = up
        .post("/api/new-game?wait=30", json!({"playerId": "b"}))
        .await
        .is(200);
    assert_eq!(b["ready"], true);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_survives() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![fleet("arena")]);
    let send = |p: &str| {
        Request::post("/api/new-game")
            .header("host", "localhost")
            .header("idempotency-key", "k")
            .body(Body::from(json!({"playerId": p}).to_string()))
            .unwrap()
    };
    let up = w.up(c.clone()).await;
    let first = up.send(On::Public, send("p")).await.is(201);
    up.kill();
    let up = w.up(c).await;
    assert_eq!(
        id(&up.send(On::Public, send("p")).await.is(200)),
        id(&first)
    );
    up.send(On::Public, send("q"))
        .await
        .code(422, "idempotency_mismatch");
}

#[tokio::test(start_paused = true)]
async fn how_a_start_went_is_still_known() {
    let w = World::new(SimulatedConfig {
        boot: Span::Fixed(Duration::from_millis(250)),
        ..SimulatedConfig::default()
    });
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    up.kill();
    tokio::time::sleep(40 * SECOND).await;
    let up = w.up(c).await;
    let after = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    // Nothing was written after the start: the instance itself knows.
    assert_eq!(after["receipt"]["boot_ms"], 250, "{after}");
    let total = after["receipt"]["total_ms"].as_u64().unwrap();
    assert!(
        total < 300,
        "the time nobody ran is not part of it: {after}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_promised_stands() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    let script = spawnpoint_runtime::simulated::Script {
        ignores_term: true,
        ..Default::default()
    };
    f.template.command = script.command();
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    let ended = up
        .call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
        .await
        .is(200);
    assert_eq!(ended["ended"], true);
    up.kill();
    let up = w.up(c).await;
    let r = up.record(&id(&s), 30 * SECOND).await;
    assert_eq!(
        (r["reason"].as_str(), r["ended_by"].as_str()),
        (Some("ended_by_client"), Some("backend"))
    );
}

#[tokio::test(start_paused = true)]
async fn warm_instances_are_kept_and_used() {
    let w = World::new(SimulatedConfig {
        boot: Span::Fixed(SECOND),
        ..SimulatedConfig::default()
    });
    let mut f = fleet("arena");
    f.warm = 3;
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    tokio::time::sleep(5 * SECOND).await;
    let before: Vec<_> = w
        .runtime
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|i| i.id)
        .collect();
    assert_eq!(before.len(), 3);
    up.kill();
    let up = w.up(c).await;
    let s = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(201);
    assert_eq!(s["ready"], true);
    tokio::time::sleep(5 * SECOND).await;
    let after: Vec<_> = w
        .runtime
        .list()
        .await
        .unwrap()
        .into_iter()
        .filter(|i| matches!(i.state, State::Ready))
        .map(|i| i.id)
        .collect();
    assert!(
        before.iter().all(|b| after.contains(b)),
        "none was thrown away"
    );
}

/// Found by the simulation: taken over before its next incarnation accepted, a session was ended for `empty` the moment that did.
#[tokio::test(start_paused = true)]
async fn whoever_could_not_come_back_has_the_whole_grace_when_the_game_accepts_again() {
    let w = World::new(SimulatedConfig {
        boot: Span::Fixed(40 * SECOND),
        ..SimulatedConfig::default()
    });
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let instance = up.get(&path).await.is(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    tokio::time::sleep(60 * SECOND).await;
    w.runtime.crash(instance, End::Code(3));
    tokio::time::sleep(5 * SECOND).await;
    up.kill();
    let up = w.up(c).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(up.get(&path).await.is(200)["phase"], "running");
    let r = up.record(&id(&s), 15 * SECOND).await;
    assert_eq!(r["reason"], "empty");
}

/// Found by the simulation: a game that could not be seen at a restart was ended as crashed when its start limit was over.
#[tokio::test(start_paused = true)]
async fn a_game_that_cannot_be_seen_at_a_restart_is_not_called_dead() {
    let w = World::new(SimulatedConfig::default());
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let s = up.play("p").await;
    let path = format!("/api/sessions/{}", id(&s));
    up.gateway.connected(&id(&s), "p", 1, true).await;
    tokio::time::sleep(60 * SECOND).await;
    w.runtime.lose_watch();
    up.kill();
    let up = w.up(c).await;
    // Whoever is still on it is reported; for longer than a start may take nobody can say how it is.
    for _ in 0..12 {
        up.gateway.connected(&id(&s), "p", 1, true).await;
        tokio::time::sleep(5 * SECOND).await;
    }
    let unseen = up.get(&path).await.is(200);
    assert_eq!(
        (&unseen["phase"], &unseen["generation"]),
        (&"running".into(), &1.into())
    );
    w.runtime.regain_watch();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(up.get(&path).await.is(200)["phase"], "running");
}

/// Found by the simulation: warm instances that could not be seen were stopped as if their start had failed, and after a restart were not
/// counted, so that more were started than may be.
#[tokio::test(start_paused = true)]
async fn warm_instances_that_cannot_be_seen_are_kept_and_counted() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    f.warm = 2;
    f.max_instances = Some(2);
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    tokio::time::sleep(60 * SECOND).await;
    let warm = w.runtime.list().await.unwrap();
    assert_eq!(warm.len(), 2);
    w.runtime.lose_watch();
    tokio::time::sleep(60 * SECOND).await;
    up.kill();
    let up = w.up(c).await;
    tokio::time::sleep(60 * SECOND).await;
    w.runtime.regain_watch();
    tokio::time::sleep(5 * SECOND).await;
    let after = w.runtime.list().await.unwrap();
    let ids = |all: &[spawnpoint_runtime::Instance]| {
        let mut ids: Vec<_> = all.iter().map(|i| i.id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&after), ids(&warm), "{after:?}");
    assert!(after.iter().all(|i| i.state == State::Ready), "{after:?}");
    let s = up.play("p").await;
    let v = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    let claimed = v["instance"]["id"].as_str().unwrap().parse().unwrap();
    assert!(ids(&warm).contains(&claimed));
}

/// Found by the simulation: the session that was ending took the place of the live one in the index of who plays where, and left it
/// empty when it was recorded: the player could start a second.
#[tokio::test(start_paused = true)]
async fn a_player_whose_last_game_is_still_ending_is_in_the_one_they_joined_since() {
    let mut w = World::new(SimulatedConfig::default());
    let records = std::sync::Arc::new(spawnpoint_store::flaky::Flaky::quiet(
        spawnpoint_store::memory::MemoryRecords::new(),
    ));
    w.records = std::sync::Arc::clone(&records) as std::sync::Arc<dyn spawnpoint_store::Records>;
    let c = config(vec![fleet("arena")]);
    let up = w.up(c.clone()).await;
    let first = up.play("q").await;
    let own = up.play("p").await;
    records.outage(true);
    up.call("DELETE", &format!("/api/sessions/{}", id(&own)), None, None)
        .await
        .is(200);
    up.post(
        &format!("/api/sessions/{}/players", id(&first)),
        json!({"playerId": "p", "invite": first["invite"]}),
    )
    .await
    .is(200);
    up.kill();
    let up = w.up(c).await;
    tokio::time::sleep(5 * SECOND).await;
    records.outage(false);
    up.record(&id(&own), 60 * SECOND).await;
    let again = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(200);
    assert_eq!(id(&again), id(&first));
}

/// Found by the simulation: what held a place in the queue and could not be seen at a restart was in no line for ever.
#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_that_cannot_be_seen_at_a_restart_is_kept() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let c = config(vec![f]);
    let up = w.up(c.clone()).await;
    let a = up.play("a").await;
    let b = up
        .post("/api/new-game", json!({"playerId": "b"}))
        .await
        .is(201);
    assert_eq!(b["phase"], "queued");
    up.kill();
    w.runtime.lose_watch();
    let up = w.up(c).await;
    tokio::time::sleep(5 * SECOND).await;
    w.runtime.regain_watch();
    tokio::time::sleep(SECOND).await;
    up.call("DELETE", &format!("/api/sessions/{}", id(&a)), None, None)
        .await
        .is(200);
    let b = up
        .post("/api/new-game?wait=60", json!({"playerId": "b"}))
        .await
        .is(200);
    assert_eq!(b["ready"], true, "{b:#}");
}

/// Found by the simulation: a start whose caller was told that it came to nothing was there after all, and after a restart its player
/// was in two sessions.
#[tokio::test(start_paused = true)]
async fn a_player_who_is_stored_in_two_sessions_is_in_the_newer() {
    use spawnpoint_runtime::flaky::{Fault, Flaky};
    let w = World::new(SimulatedConfig::default());
    let flaky = std::sync::Arc::new(Flaky::quiet(std::sync::Arc::clone(&w.runtime)));
    let c = config(vec![fleet("arena")]);
    let up = w
        .up_with(
            c.clone(),
            std::sync::Arc::clone(&flaky) as std::sync::Arc<dyn Runtime>,
        )
        .await;
    tokio::time::sleep(SECOND).await;
    // The start is done and not answered, its last try is refused, and whatever would take it back does not come through.
    let calls = flaky.calls();
    flaky.script(calls + 1, Fault::After);
    flaky.script(calls + 2, Fault::Storage);
    for n in 3..40 {
        flaky.script(calls + n, Fault::Before);
    }
    let refused = up.post("/api/new-game", json!({"playerId": "p"})).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    up.kill();
    flaky.outage(true);
    let old = w.runtime.list().await.unwrap()[0].facts.clone().unwrap();
    // Another run begins without having seen it.
    let up = w.up(c.clone()).await;
    let old_path = format!("/api/sessions/{}", old.session);
    assert_eq!(up.get(&old_path).await.is(200)["owner"], "p");
    up.call("DELETE", &old_path, None, None).await.is(200);
    up.record(&old.session.to_string(), 10 * SECOND).await;
    // What was stored of it comes back beside a newer session of the same player, as if neither had been known to the other.
    let new = up.play("p").await;
    up.kill();
    let template = fleet("arena").template;
    let order = spawnpoint_runtime::Order {
        id: spawnpoint_core::InstanceId::new(uuid::Uuid::now_v7()),
        fleet: "arena".parse().unwrap(),
        template,
        gated: false,
        facts: Some(spawnpoint_runtime::Facts {
            session: spawnpoint_core::SessionId::new(uuid::Uuid::from_u128(
                old.session.uuid().as_u128() - 1,
            )),
            document: old.document.replace(&old.session.to_string(), &{
                let id = old.session.uuid().as_u128() - 1;
                uuid::Uuid::from_u128(id).to_string()
            }),
        }),
        session_file: None,
        env: std::collections::BTreeMap::new(),
    };
    w.runtime.order(order).await.unwrap();
    let up = w.up(c).await;
    let again = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(200);
    assert_eq!(id(&again), id(&new));
    let double = uuid::Uuid::from_u128(old.session.uuid().as_u128() - 1);
    let record = up.record(&double.to_string(), 30 * SECOND).await;
    assert_eq!(record["ended_by"], "system", "{record:#}");
    let report = up
        .send(
            On::Admin,
            crate::harness::Up::request("GET", "/debug/audit", None, None),
        )
        .await;
    assert_eq!(report.body["findings"], json!([]), "{}", report.text);
}
