//! The lifecycle, to the second, in virtual time: what ends a session, when, and what keeps it.

use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_core::lifecycle::OnCrash;
use spawnpoint_runtime::simulated::{End, SimulatedConfig};
use spawnpoint_runtime::{Runtime, State};

use crate::harness::{Up, World, config, fleet, id, with_policy};

const SECOND: Duration = Duration::from_secs(1);

/// Seconds (virtual) from now until the session is recorded.
async fn seconds_to_end(up: &Up, session: &str, limit: u64) -> (f64, Value) {
    let start = tokio::time::Instant::now();
    let record = up.record(session, Duration::from_secs(limit)).await;
    (start.elapsed().as_secs_f64(), record)
}

async fn world() -> (World, Up) {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![fleet("arena")])).await;
    (world, up)
}

#[tokio::test(start_paused = true)]
async fn nobody_ever_came() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    let (t, record) = seconds_to_end(&up, &id(&s), 120).await;
    assert_eq!(record["reason"], "never_joined");
    assert!((59.0..=61.5).contains(&t), "{t}");
}

#[tokio::test(start_paused = true)]
async fn everybody_left() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, false).await;
    tokio::time::sleep(20 * SECOND).await;
    up.gateway.connected(&id(&s), "p", 0, false).await;
    tokio::time::sleep(20 * SECOND).await;
    up.gateway.connected(&id(&s), "p", 1, false).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(
        up.get(&format!("/api/sessions/{}", id(&s))).await.is(200)["phase"],
        "running",
        "back within the grace"
    );
    up.gateway.connected(&id(&s), "p", 0, false).await;
    let (t, record) = seconds_to_end(&up, &id(&s), 60).await;
    assert_eq!(record["reason"], "empty");
    assert!((29.5..=31.5).contains(&t), "{t}");
}

#[tokio::test(start_paused = true)]
async fn idle_is_client_data_and_nothing_else() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    // Reports without client data (pings, a server that streams) change nothing.
    for _ in 0..29 {
        tokio::time::sleep(10 * SECOND).await;
        up.gateway.connected(&id(&s), "p", 1, false).await;
    }
    tokio::time::sleep(9 * SECOND).await;
    // 299 s: one frame saves it.
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let (t, record) = seconds_to_end(&up, &id(&s), 400).await;
    assert_eq!(record["reason"], "idle");
    assert!((299.0..=301.5).contains(&t), "{t}");
}

#[tokio::test(start_paused = true)]
async fn constant_activity_ends_at_the_maximum_with_warnings() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    let beat = format!("/api/sessions/{}/heartbeat", id(&s));
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let start = tokio::time::Instant::now();
    let mut warned_at = None;
    loop {
        tokio::time::sleep(5 * SECOND).await;
        let reply = up
            .post(
                &beat,
                json!({"status": "active", "idleTime": 0, "sessionDuration": 1e12}),
            )
            .await;
        if reply.status != 200 {
            break;
        }
        if reply.body["phase"] == "ending" {
            break;
        }
        if !reply.body["warning"].is_null() && warned_at.is_none() {
            assert_eq!(reply.body["warning"]["reason"], "max_duration");
            warned_at = Some(start.elapsed().as_secs());
        }
        assert!(start.elapsed() < 1_900 * SECOND, "still alive");
    }
    let record = up.record(&id(&s), 20 * SECOND).await;
    assert_eq!(record["reason"], "max_duration");
    assert!(
        (1_795..=1_810).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    assert!(
        (1_735..=1_750).contains(&warned_at.unwrap()),
        "{warned_at:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeats_in_the_shape_that_libraries_send() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    let session = id(&s);
    let beat = format!("/api/sessions/{session}/heartbeat");
    up.gateway.connected(&session, "p", 1, true).await;
    let exact = json!({
        "event": "game_session_heartbeat", "sessionId": session, "timestamp": "2020-01-01T00:00:00Z",
        "status": "active", "idleTime": 0, "sessionDuration": "61000"
    });
    let reply = up.post(&beat, exact).await.is(200);
    assert_eq!(reply["cull_reason"], "idle");
    assert!(
        (299_000..=300_000).contains(&reply["cull_in_ms"].as_u64().unwrap()),
        "{reply}"
    );
    assert_eq!(reply["next_heartbeat_s"], 5.0);
    tokio::time::sleep(250 * SECOND).await;
    let reply = up
        .post(&beat, json!({"status": "active", "idleTime": 200_000}))
        .await
        .is(200);
    assert!(
        (99_000..=100_000).contains(&reply["cull_in_ms"].as_u64().unwrap()),
        "200 s idle leaves 100 s: {reply}"
    );
    let same = up.post(&beat, json!({"status": "inactive"})).await.is(200);
    assert_eq!(same["cull_at"], reply["cull_at"], "inactive moves nothing");
    let as_text = up
        .post(&beat, json!({"status": "active", "idleTime": "0"}))
        .await
        .is(200);
    assert!((299_000..=300_000).contains(&as_text["cull_in_ms"].as_u64().unwrap()));
    up.post(&beat, json!({"status": "sleepy"}))
        .await
        .code(400, "invalid_field");
    up.post(
        &beat,
        json!({"sessionId": "01890a5d-ac96-774b-bcce-b302099a8057"}),
    )
    .await
    .code(400, "invalid_field");
    up.post(&beat, json!({"idleTime": -1}))
        .await
        .code(400, "invalid_field");
    up.post(&beat, json!({"nope": -1}))
        .await
        .code(400, "unknown_field");
    let beacon = json!({"status": "inactive", "token": s["token"]});
    up.post(&beat, beacon).await.is(200);
    let why = up
        .get(&format!("/api/sessions/{session}/why"))
        .await
        .is(200);
    assert_eq!(why["client_claims"][0]["status"], "inactive");
}

#[tokio::test(start_paused = true)]
async fn busy_keeps_a_quiet_worker_and_never_past_the_maximum() {
    let (_w, up) = world().await;
    let s = up.play("p").await;
    let session = id(&s);
    up.gateway.connected(&session, "p", 1, true).await;
    up.gateway.connected(&session, "p", 0, false).await;
    let start = tokio::time::Instant::now();
    let mut last = 200;
    while last == 200 {
        tokio::time::sleep(20 * SECOND).await;
        last = up
            .post(
                &format!("/api/sessions/{session}/heartbeat"),
                json!({"status": "busy", "ttl": 60}),
            )
            .await
            .status;
        let view = up.get(&format!("/api/sessions/{session}")).await.is(200);
        if view["phase"] == "ending" || view["phase"] == "ended" {
            break;
        }
        assert!(start.elapsed() < 1_900 * SECOND);
    }
    let record = up.record(&session, 20 * SECOND).await;
    assert_eq!(record["reason"], "max_duration");
}

#[tokio::test(start_paused = true)]
async fn unlimited_and_asked_maxima() {
    let (_w, up) = world().await;
    let s = up
        .post(
            "/api/new-game?wait=9",
            json!({"playerId": "a", "max_duration": "none"}),
        )
        .await
        .is(201);
    up.gateway.connected(&id(&s), "a", 1, true).await;
    let path = format!("/api/sessions/{}", id(&s));
    let before = up.get(&path).await.is(200);
    for _ in 0..400 {
        tokio::time::sleep(60 * SECOND).await;
        up.gateway.connected(&id(&s), "a", 1, true).await;
    }
    let after = up.get(&path).await.is(200);
    assert_eq!(after["phase"], "running", "400 minutes on");
    for same in ["instance", "generation", "wsUrl"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let b = up
        .post(
            "/api/new-game?wait=9",
            json!({"playerId": "b", "maxDuration": 90}),
        )
        .await
        .is(201);
    up.gateway.connected(&id(&b), "b", 1, true).await;
    let (t, record) = seconds_to_end(&up, &id(&b), 120).await;
    assert_eq!(record["reason"], "max_duration");
    assert!((88.0..=91.5).contains(&t), "{t}");
}

#[tokio::test(start_paused = true)]
async fn extending_is_bounded() {
    let f = with_policy(fleet("arena"), |p| {
        p.max = Some(100 * SECOND);
        p.max_limit = Some(150 * SECOND);
        p.join = None;
    });
    let mut c = config(vec![f]);
    c.server.keys = vec![crate::harness::key("k")];
    let world = World::new(SimulatedConfig::default());
    let up = world.up(c).await;
    let k = crate::harness::secret("k");
    let s = up
        .call(
            "POST",
            "/api/new-game?wait=9",
            Some(&k),
            Some(json!({"playerId": "p"})),
        )
        .await
        .is(201);
    let t = s["token"].as_str().unwrap();
    let extend = format!("/api/sessions/{}/extend", id(&s));
    let one = up
        .call("POST", &extend, Some(t), Some(json!({"by": "30s"})))
        .await
        .is(200);
    assert_eq!(one["extended"], true);
    let two = up
        .call("POST", &extend, Some(t), Some(json!({"by": 1000})))
        .await
        .is(200);
    assert_eq!(
        (two["extended"].as_bool(), &two["max_at"]),
        (Some(true), &two["max_limit_at"]),
        "capped"
    );
    let three = up
        .call("POST", &extend, Some(t), Some(json!({"by": 1000})))
        .await
        .is(200);
    assert_eq!(three["extended"], false);
    up.call(
        "POST",
        &extend,
        Some(t),
        Some(json!({"by": 60, "raise_limit": true})),
    )
    .await
    .code(403, "forbidden");
    let raised = up
        .call(
            "POST",
            &extend,
            Some(&k),
            Some(json!({"by": 60, "raise_limit": true})),
        )
        .await
        .is(200);
    assert_eq!(raised["extended"], true);
    up.call("POST", &extend, Some(t), Some(json!({"by": 0})))
        .await
        .code(400, "invalid_field");
    let start = tokio::time::Instant::now();
    loop {
        let a = up
            .call("GET", &format!("/api/matches/{}", id(&s)), Some(&k), None)
            .await;
        if a.status == 200 {
            assert_eq!(a.body["reason"], "max_duration");
            break;
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(
        (205..=215).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_game_that_is_over_says_so_with_its_results_and_log() {
    let (w, up) = world().await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let instance = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    w.runtime.write_log(instance, "hello from the game\n");
    w.runtime.write_results(instance, r#"{"winner":"p"}"#);
    let logs = up.get(&format!("/api/sessions/{}/logs", id(&s))).await;
    assert!(logs.text.contains("hello from the game"));
    w.runtime.finish(instance);
    let record = up.record(&id(&s), 5 * SECOND).await;
    assert_eq!(
        (
            record["reason"].as_str(),
            record["ended_by"].as_str(),
            record["exit_code"].as_i64()
        ),
        (Some("ended_by_server"), Some("server"), Some(0))
    );
    assert_eq!(record["results"], json!({"winner": "p"}));
    assert!(
        record["log_tail"]
            .as_str()
            .unwrap()
            .contains("hello from the game")
    );
    let after = up
        .get(&format!("/api/sessions/{}/logs?tail=5", id(&s)))
        .await;
    assert_eq!(after.text, "game\n");
    assert!(
        w.runtime.list().await.unwrap().is_empty(),
        "nothing is left"
    );
    let ended = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200);
    assert_eq!(
        (ended["phase"].as_str(), ended["end"]["reason"].as_str()),
        (Some("ended"), Some("ended_by_server"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_replaced_under_the_same_id() {
    for policy in [OnCrash::Replace, OnCrash::Restart] {
        let w = World::new(SimulatedConfig {
            restarts: true,
            ..SimulatedConfig::default()
        });
        let up = w
            .up(config(vec![with_policy(fleet("arena"), |p| {
                p.on_crash = policy
            })]))
            .await;
        let s = up.play("p").await;
        up.gateway.connected(&id(&s), "p", 1, true).await;
        let path = format!("/api/sessions/{}", id(&s));
        let before = up.get(&path).await.is(200)["instance"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        w.runtime.crash(before.parse().unwrap(), End::Code(3));
        wait_phase(&up, &path, 2, "running").await;
        let view = up.get(&path).await.is(200);
        let after = view["instance"]["id"].as_str().unwrap().to_owned();
        assert_eq!(after == before, policy == OnCrash::Restart, "{policy:?}");
        assert_eq!(
            view["wsUrl"].as_str(),
            s["wsUrl"].as_str().unwrap().split('?').next()
        );
        // A crash loop ends it: three within a minute.
        let mut instance = after;
        for generation in 3..=4 {
            w.runtime.crash(instance.parse().unwrap(), End::Code(3));
            if generation == 4 {
                break;
            }
            wait_phase(&up, &path, generation, "running").await;
            instance = up.get(&path).await.is(200)["instance"]["id"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        let record = up.record(&id(&s), 30 * SECOND).await;
        assert_eq!(
            (record["reason"].as_str(), record["exit_code"].as_i64()),
            (Some("crashed"), Some(3)),
            "{policy:?}"
        );
        assert!(w.runtime.list().await.unwrap().is_empty());
    }
}

async fn wait_phase(up: &Up, path: &str, generation: u64, phase: &str) {
    for _ in 0..2_000 {
        let v = up.get(path).await.is(200);
        if v["generation"] == generation && v["phase"] == phase {
            return;
        }
        assert_ne!(v["phase"], "ended", "{v}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {phase} of generation {generation}");
}

#[tokio::test(start_paused = true)]
async fn a_new_template_is_for_new_games_and_ends_no_old_one() {
    const GAMES: usize = 100;
    let version = |version: &str| {
        let mut f = fleet("arena");
        f.warm = 3;
        f.template.env = [("VERSION".to_owned(), version.to_owned())].into();
        config(vec![f])
    };
    let w = World::new(SimulatedConfig::default());
    let up = w.up(version("1")).await;
    // What an instance was started from.
    let template = async |view: &Value| {
        let instance = view["instance"]["id"].as_str().unwrap().parse().unwrap();
        w.runtime.get(instance).await.unwrap().template
    };
    let mut old = Vec::new();
    for n in 0..GAMES {
        let player = format!("p{n}");
        let s = id(&up.play(&player).await);
        up.gateway.connected(&s, &player, 1, true).await;
        let view = up.get(&format!("/api/sessions/{s}")).await.is(200);
        let started_from = template(&view).await;
        old.push((player, view, started_from));
    }
    up.server.reload(version("2"));
    // Also at once, before the warm ones of old could be replaced.
    for n in 0..20 {
        let s = id(&up.play(&format!("new{n}")).await);
        let view = up.get(&format!("/api/sessions/{s}")).await.is(200);
        assert_ne!(template(&view).await, old[0].2, "the {n}th new game");
    }
    for (player, before, started_from) in &old {
        assert_eq!(*started_from, old[0].2);
        let path = format!("/api/sessions/{}", id(before));
        up.gateway.connected(&id(before), player, 1, true).await;
        let view = up.get(&path).await.is(200);
        assert_eq!(
            (&view["instance"], &view["generation"], &view["phase"]),
            (
                &before["instance"],
                &before["generation"],
                &json!("running")
            )
        );
    }
    // Warm ones of old go, and those of now come, up to the number asked for.
    for _ in 0..1_000 {
        let f = up.get("/api/fleets/arena").await.is(200);
        let all = w.runtime.list().await.unwrap();
        if f["warm"] == 3 && f["starting"] == 0 && all.len() == GAMES + 20 + 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the warm ones were never replaced");
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_it_where_the_policy_says_so() {
    let w = World::new(SimulatedConfig::default());
    let up = w
        .up(config(vec![with_policy(fleet("arena"), |p| {
            p.on_crash = OnCrash::End
        })]))
        .await;
    let s = up.play("p").await;
    let instance = up.get(&format!("/api/sessions/{}", id(&s))).await.is(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    w.runtime.crash(instance.parse().unwrap(), End::Code(7));
    let record = up.record(&id(&s), 5 * SECOND).await;
    assert_eq!(
        (record["reason"].as_str(), record["exit_code"].as_i64()),
        (Some("crashed"), Some(7))
    );
}

#[tokio::test(start_paused = true)]
async fn a_game_that_never_listens_ends_at_its_start_limit() {
    let w = World::new(SimulatedConfig::default());
    let mut f = fleet("arena");
    let script = spawnpoint_runtime::simulated::Script {
        never_ready: true,
        ..Default::default()
    };
    f.template.command = script.command();
    let up = w.up(config(vec![f])).await;
    let s = up
        .post("/api/new-game", json!({"playerId": "p"}))
        .await
        .is(201);
    let (t, record) = seconds_to_end(&up, &id(&s), 80).await;
    assert_eq!(
        (record["reason"].as_str(), record["code"].as_str()),
        (Some("start_failed"), Some("start_failed"))
    );
    assert!((44.0..=57.0).contains(&t), "{t}");
}

#[tokio::test(start_paused = true)]
async fn a_mass_end_is_held_until_fresh_reports_confirm_it() {
    let (_w, up) = world().await;
    let mut sessions = Vec::new();
    for i in 0..10 {
        let p = format!("p{i}");
        let s = id(&up.play(&p).await);
        up.gateway.connected(&s, &p, 1, true).await;
        sessions.push((s, p));
    }
    for (s, p) in &sessions {
        up.gateway.connected(s, p, 0, false).await;
    }
    let start = tokio::time::Instant::now();
    for (s, _) in &sessions {
        assert_eq!(up.record(s, 60 * SECOND).await["reason"], "empty");
    }
    assert!(start.elapsed() >= 30 * SECOND, "never early");
    assert!(
        start.elapsed() <= 60 * SECOND,
        "thirty tabs closed at once are gone within a minute: {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_machine_ends_nothing_at_once() {
    let (w, up) = world().await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    w.clock.jump_wall(7 * 86_400_000);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(
        up.get(&format!("/api/sessions/{}", id(&s))).await.is(200)["phase"],
        "running",
        "the wall clock jumped a week"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_view_ends_nothing() {
    let (w, up) = world().await;
    let s = up.play("p").await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    let path = format!("/api/sessions/{}", id(&s));
    let instance = up.get(&path).await.is(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    w.runtime.lose(instance);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(up.get(&path).await.is(200)["phase"], "running");
    w.runtime.regain(instance);
    w.runtime.lose_watch();
    tokio::time::sleep(60 * SECOND).await;
    up.gateway.connected(&id(&s), "p", 1, true).await;
    assert_eq!(up.get(&path).await.is(200)["phase"], "running");
    w.runtime.regain_watch();
    w.runtime.finish(instance);
    assert_eq!(
        up.record(&id(&s), 10 * SECOND).await["reason"],
        "ended_by_server"
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_every_game_with_a_reason() {
    let mut f = fleet("arena");
    f.warm = 2;
    let w = World::new(SimulatedConfig::default());
    let up = w.up(config(vec![f])).await;
    let (a, b) = (id(&up.play("a").await), id(&up.play("b").await));
    let left = up
        .server
        .drain(spawnpoint_server::DrainMode::EndGames, 30 * SECOND)
        .await;
    assert_eq!(left, 0);
    for s in [a, b] {
        let r = w.records.get(s.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(
            (r.reason.as_str(), r.ended_by.as_str()),
            ("shutdown", "system")
        );
    }
    let rest: Vec<_> = w
        .runtime
        .list()
        .await
        .unwrap()
        .into_iter()
        .filter(|i| !matches!(i.state, State::Exited(_)))
        .collect();
    assert!(rest.is_empty(), "{rest:?}");
}
