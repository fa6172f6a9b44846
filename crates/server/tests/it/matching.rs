//! Queues: who is matched with whom and when, what those who wait are told, and who may ask.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_core::matching::{Limit, Rules};
use spawnpoint_runtime::simulated::SimulatedConfig;
use spawnpoint_server::Config;
use spawnpoint_server::config::QueueConfig;

use crate::harness::{On, Up, World, config, fleet, id, key, queue, secret, with_policy};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    World::new(SimulatedConfig::default())
}

/// One fleet, `arena`, with a queue of these rules.
fn with_rules(rules: Rules) -> Config {
    with_queue(|q| q.rules = rules)
}

fn with_queue(change: impl FnOnce(&mut QueueConfig)) -> Config {
    let mut c = config(vec![fleet("arena")]);
    let mut q = queue("arena", 2);
    change(&mut q);
    c.queues = vec![Arc::new(q)];
    c
}

fn rules(size: u32, min: u32) -> Rules {
    Rules::new(size, min, 10 * SECOND, None, None).unwrap()
}

async fn total(up: &Up) -> u64 {
    up.get("/api/sessions").await.is(200)["total"]
        .as_u64()
        .unwrap()
}

async fn arena(up: &Up) -> Value {
    let all = up.get("/api/queues").await.is(200);
    let mut queues = all["queues"].as_array().unwrap().iter();
    queues.find(|q| q["name"] == "arena").unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn two_players_meet_and_the_second_is_answered_with_the_match() {
    let up = world().up(config(vec![fleet("arena")])).await;
    let first = up.join(json!({"player_id": "p1"})).await.is(200);
    assert_eq!(
        (
            first["status"].as_str(),
            first["queue"].as_str(),
            first["position"].as_u64()
        ),
        (Some("queued"), Some("arena"), Some(1))
    );
    assert_eq!(first["estimate_s"], 10, "alone it takes the flush wait");
    assert_eq!(
        (&first["player_id"], &first["players"]),
        (&json!("p1"), &json!(["p1"]))
    );
    assert!(first.get("session_id").is_none() && first.get("wsUrl").is_none());
    let second = up.join(json!({"playerId": "p2"})).await.is(200);
    assert_eq!(second["status"], "matched", "{second:#}");
    let both = up.status("p1").await;
    assert_eq!(both["status"], "matched");
    assert_eq!(id(&both), id(&second));
    assert_eq!(both["players"], json!(["p1", "p2"]));
    assert_eq!(both["ticket_id"], first["ticket_id"]);
    assert_ne!(both["ticket_id"], second["ticket_id"]);
    assert_ne!(
        both["token"], second["token"],
        "each has a token of their own"
    );
    for reply in [&both, &second] {
        assert_eq!(reply["connect_host"], "127.0.0.1");
        assert_eq!(reply["connect_port"], 8080);
        assert_eq!(
            (&reply["protocol"], &reply["fleet"]),
            (&json!("websocket"), &json!("arena"))
        );
        assert!(reply["wsUrl"].as_str().unwrap().contains(&id(reply)));
        assert!(reply["waited_s"].as_f64().is_some());
    }
    assert_eq!(total(&up).await, 1);
    let session = up
        .get(&format!("/api/sessions/{}", id(&both)))
        .await
        .is(200);
    assert_eq!(session["owner"], "p1");
    let why = up
        .get(&format!("/api/sessions/{}/why", id(&both)))
        .await
        .is(200);
    let decisions = why["decisions"].as_array().unwrap();
    let found = decisions
        .iter()
        .find(|d| d["function"] == "matching::propose")
        .unwrap();
    assert_eq!(found["input"], "queue arena: 2 tickets");
    assert!(
        found["because"]
            .as_str()
            .unwrap()
            .starts_with("2 of 2 players"),
        "{found:#}"
    );
    let q = arena(&up).await;
    assert_eq!(
        (&q["tickets"], &q["matches"], &q["forming"]),
        (&json!(0), &json!(1), &json!(0))
    );
    assert_eq!(q["last_match"]["session_id"], id(&both).as_str());
    assert_eq!(q["last_match"]["because"], found["because"]);
}

#[tokio::test(start_paused = true)]
async fn a_lone_ticket_is_matched_after_the_flush_wait_with_no_other_traffic() {
    let up = world().up(config(vec![fleet("arena")])).await;
    up.join(json!({"player_id": "p"})).await.is(200);
    tokio::time::sleep(Duration::from_millis(9_950)).await;
    assert_eq!(total(&up).await, 0);
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(total(&up).await, 1);
    let matched = up.status("p").await;
    let waited = matched["waited_s"].as_f64().unwrap();
    assert!((10.0..11.0).contains(&waited), "{waited}");
    let why = up
        .get(&format!("/api/sessions/{}/why", id(&matched)))
        .await
        .is(200);
    let because = why["decisions"].to_string();
    assert!(because.contains("after 10.0 s 1 are enough"), "{because}");
    assert_eq!(arena(&up).await["partial_matches"], 1);
}

#[tokio::test(start_paused = true)]
async fn fifty_joins_of_one_player_at_once_make_one_ticket() {
    let up = world().up(with_rules(rules(2, 2))).await;
    let joins = (0..50).map(|_| up.join(json!({"player_id": "p"})));
    let answers = futures::future::join_all(joins).await;
    let tickets: HashSet<String> = answers
        .into_iter()
        .map(|a| a.is(200))
        .inspect(|a| {
            assert_eq!(
                (&a["status"], &a["position"]),
                (&json!("queued"), &json!(1))
            )
        })
        .map(|a| a["ticket_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tickets.len(), 1);
    assert_eq!(arena(&up).await["tickets"], 1);
}

#[tokio::test(start_paused = true)]
async fn the_fourth_of_four_starts_the_match_and_the_others_hear_of_it() {
    let up = world().up(with_rules(rules(4, 4))).await;
    for p in ["a", "b", "c"] {
        assert_eq!(
            up.join(json!({"player_id": p})).await.is(200)["status"],
            "queued"
        );
    }
    let waits = ["a", "b", "c"].map(|p| {
        let path = format!("/api/match/status?player_id={p}&wait=25");
        let up = &up;
        async move { up.get(&path).await.is(200) }
    });
    let (told, fourth) = tokio::join!(futures::future::join_all(waits), async {
        tokio::time::sleep(5 * SECOND).await;
        up.join(json!({"player_id": "d"})).await.is(200)
    });
    assert_eq!(fourth["status"], "matched");
    for t in told {
        assert_eq!(
            (t["status"].as_str(), id(&t)),
            (Some("matched"), id(&fourth))
        );
    }
    assert_eq!(total(&up).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_partial_match_starts_by_time_alone_and_never_below_its_least() {
    let up = world().up(with_rules(rules(4, 2))).await;
    up.join(json!({"player_id": "a"})).await.is(200);
    // Asked after, so that it is not dropped; below the least nothing is ever flushed.
    for _ in 0..30 {
        assert_eq!(up.status("a").await["status"], "queued");
        assert_eq!(
            up.status("a").await["estimate_s"],
            Value::Null,
            "nobody knows who will come"
        );
        tokio::time::sleep(10 * SECOND).await;
    }
    // The oldest has waited long enough: the second makes the match at once.
    assert_eq!(
        up.join(json!({"player_id": "b"})).await.is(200)["status"],
        "matched"
    );
    up.join(json!({"player_id": "c"})).await.is(200);
    up.join(json!({"player_id": "d"})).await.is(200);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(total(&up).await, 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(total(&up).await, 2);
    assert_eq!(id(&up.status("c").await), id(&up.status("d").await));
}

#[tokio::test(start_paused = true)]
async fn every_size_forms_exact_matches() {
    for size in [1, 2, 12, 100] {
        let up = world().up(with_rules(rules(size, size))).await;
        for n in 0..size * 2 {
            up.join(json!({"player_id": format!("p{n}")})).await.is(200);
        }
        let page = up.get("/api/sessions").await.is(200);
        assert_eq!(page["total"], 2, "{size}");
        for s in page["sessions"].as_array().unwrap() {
            assert_eq!(s["players"].as_array().unwrap().len(), size as usize);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parties_play_together_or_not_at_all() {
    let up = world().up(with_rules(rules(4, 4))).await;
    let party = |players: &[&str]| json!({"players": players});
    let three = up.join(party(&["a", "b", "c"])).await.is(200);
    assert_eq!(
        (&three["player_id"], &three["players"]),
        (&json!("a"), &json!(["a", "b", "c"]))
    );
    let same = up
        .join(json!({"player_id": "c", "players": ["b", "a"]}))
        .await
        .is(200);
    assert_eq!(
        same["ticket_id"], three["ticket_id"],
        "the same players in another order"
    );
    assert_eq!(up.status("b").await["ticket_id"], three["ticket_id"]);
    up.join(party(&["d", "e"])).await.is(200);
    assert_eq!(total(&up).await, 0, "three and two make no four");
    for overlapping in [
        json!({"player_id": "a"}),
        party(&["a", "x"]),
        party(&["a", "b", "c", "x"]),
    ] {
        let p = up
            .join(overlapping)
            .await
            .code(409, "players_in_other_ticket");
        assert!(p["detail"].as_str().unwrap().contains("\"a\""), "{p:#}");
    }
    let p = up
        .join(party(&["1", "2", "3", "4", "5"]))
        .await
        .code(400, "invalid_field");
    assert_eq!(p["field"], "players");
    let p = up
        .join(json!({"player_id": "1", "players": ["2", "3", "4", "5"]}))
        .await;
    assert_eq!(p.code(400, "invalid_field")["field"], "players");
    let matched = up.join(json!({"player_id": "f"})).await.is(200);
    assert_eq!(
        matched["players"],
        json!(["a", "b", "c", "f"]),
        "the oldest first"
    );
    // A party leaves together.
    let gone = up
        .call("DELETE", "/api/match/join?player_id=e", None, None)
        .await
        .is(200);
    assert_eq!(gone["status"], "none");
    assert_eq!(up.status("d").await["status"], "none");
    assert_eq!(arena(&up).await["tickets"], 0);
}

#[tokio::test(start_paused = true)]
async fn who_plays_already_is_matched_to_their_game() {
    let up = world().up(config(vec![fleet("arena")])).await;
    let s = up.play("p").await;
    let joined = up.join(json!({"player_id": "p"})).await.is(200);
    assert_eq!(
        (joined["status"].as_str(), id(&joined)),
        (Some("matched"), id(&s))
    );
    assert_eq!(joined["ticket_id"], Value::Null);
    assert_eq!(id(&up.status("p").await), id(&s));
    up.join(json!({"players": ["q", "p"]}))
        .await
        .code(409, "players_in_other_session");
    up.call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
        .await
        .is(200);
    assert_eq!(
        up.status("p").await["status"],
        "none",
        "a game that is over is none"
    );
    assert_eq!(
        up.join(json!({"player_id": "p"})).await.is(200)["status"],
        "queued"
    );
}

#[tokio::test(start_paused = true)]
async fn status_is_right_however_long_the_match_lasts() {
    let mut c = config(vec![with_policy(fleet("arena"), |p| {
        (p.max, p.max_limit, p.idle, p.join) = (None, None, None, None);
    })]);
    c.queues = vec![Arc::new(queue("arena", 2))];
    let up = world().up(c).await;
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    tokio::time::sleep(3_600 * 5 * SECOND).await;
    let path = format!(
        "/api/match/status?player_id=a&ticket_id={}",
        a["ticket_id"].as_str().unwrap()
    );
    let still = up.get(&path).await.is(200);
    assert_eq!(
        (still["status"].as_str(), id(&still)),
        (Some("matched"), id(&b))
    );
    assert_eq!(still["ticket_id"], a["ticket_id"]);
}

#[tokio::test(start_paused = true)]
async fn leaving_is_harmless_to_repeat_and_too_late_after_the_match() {
    let up = world().up(config(vec![fleet("arena")])).await;
    let leave = |p: &'static str| {
        up.call(
            "DELETE",
            "/api/match/join",
            None,
            Some(json!({"player_id": p})),
        )
    };
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    let gone = leave("a").await.is(200);
    assert_eq!(
        (&gone["status"], &gone["ticket_id"]),
        (&json!("none"), &a["ticket_id"])
    );
    assert_eq!(leave("a").await.is(200)["status"], "none");
    assert_eq!(leave("never").await.is(200)["status"], "none");
    let asked = up
        .get(&format!(
            "/api/match/status?player_id=a&ticket_id={}",
            a["ticket_id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(asked.is(200)["status"], "none", "it left, it was not lost");
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!(total(&up).await, 0, "nobody is matched who has left");
    let again = up.join(json!({"player_id": "a"})).await.is(200);
    assert_ne!(again["ticket_id"], a["ticket_id"]);
    up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(
        leave("a").await.is(200)["status"],
        "matched",
        "then it is a game to leave"
    );
    assert_eq!(total(&up).await, 1);
}

#[tokio::test(start_paused = true)]
async fn positions_are_by_age() {
    let up = world().up(with_rules(rules(100, 100))).await;
    for n in 1..=5 {
        let t = up.join(json!({"player_id": format!("p{n}")})).await.is(200);
        assert_eq!(t["position"], n);
    }
    up.call("DELETE", "/api/match/join?playerId=p2", None, None)
        .await
        .is(200);
    for (p, at) in [("p1", 1), ("p3", 2), ("p5", 4)] {
        assert_eq!(up.status(p).await["position"], at, "{p}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_calls_name_what_is_wrong() {
    let up = world().up(config(vec![fleet("arena")])).await;
    let p = up.join(json!({})).await.code(400, "missing_field");
    assert_eq!(p["field"], "player_id");
    let p = up
        .join(json!({"player_id": "p", "team": 1}))
        .await
        .code(400, "unknown_field");
    assert_eq!(p["field"], "team");
    let p = up
        .join(json!({"player_id": "p", "queue": "nope"}))
        .await
        .code(404, "queue_not_found");
    assert!(
        p["detail"].as_str().unwrap().contains("there are: arena"),
        "{p:#}"
    );
    for (attributes, said) in [
        (json!({"skill": "high"}), "\"skill\" must be a number"),
        (json!({"mode": [1]}), "\"mode\" must be a number, or a text"),
    ] {
        let p = up
            .join(json!({"player_id": "p", "attributes": attributes}))
            .await
            .code(400, "invalid_field");
        assert_eq!(p["field"], "attributes");
        assert!(p["detail"].as_str().unwrap().contains(said), "{p:#}");
    }
    up.get("/api/match/status").await.code(400, "missing_field");
    up.get("/api/match/status?player_id=p&wait=61")
        .await
        .code(400, "invalid_parameter");
    up.get("/api/match/status?player_id=p&x=1")
        .await
        .code(400, "invalid_parameter");
    up.get("/api/match/status?player_id=p&queue=nope")
        .await
        .code(404, "queue_not_found");
    let lost = up
        .get("/api/match/status?player_id=p&ticket_id=whatever")
        .await
        .is(200);
    assert_eq!(
        (&lost["status"], &lost["code"], &lost["ticket_id"]),
        (&json!("lost"), &json!("ticket_lost"), &json!("whatever"))
    );
    assert_eq!(up.status("p").await["status"], "none");
}

#[tokio::test(start_paused = true)]
async fn strangers_are_asked_who_they_are_and_players_see_only_theirs() {
    let mut c = config(vec![fleet("arena")]);
    c.server.keys = vec![key("backend")];
    c.server.public = vec!["0.0.0.0:8080".parse().unwrap()];
    let up = world().up(c).await;
    let backend = secret("backend");
    for (method, path) in [
        ("POST", "/api/match/join"),
        ("DELETE", "/api/match/join?player_id=a"),
        ("GET", "/api/match/status?player_id=a"),
        ("GET", "/api/events?player_id=a"),
        ("GET", "/api/queues"),
    ] {
        up.call(method, path, None, None)
            .await
            .code(401, "unauthenticated");
    }
    let join = |p: &str| {
        up.call(
            "POST",
            "/api/match/join",
            Some(&backend),
            Some(json!({"player_id": p})),
        )
    };
    let a = join("a").await.is(200);
    let token = a["token"].as_str().unwrap();
    let as_a = |method: &'static str, path: &'static str, body: Option<Value>| {
        up.call(method, path, Some(token), body)
    };
    assert_eq!(
        as_a("GET", "/api/match/status", None).await.is(200)["ticket_id"],
        a["ticket_id"]
    );
    assert_eq!(
        as_a("GET", "/api/match/status?player_id=a", None)
            .await
            .is(200)["status"],
        "queued"
    );
    as_a("GET", "/api/match/status?player_id=b", None)
        .await
        .code(403, "forbidden");
    as_a("GET", "/api/events?player_id=b", None)
        .await
        .code(403, "forbidden");
    as_a("DELETE", "/api/match/join", Some(json!({"player_id": "b"})))
        .await
        .code(403, "forbidden");
    as_a("GET", "/api/queues", None)
        .await
        .code(403, "forbidden");
    for (field, body) in [
        ("player_id", json!({"player_id": "b"})),
        ("players", json!({"players": ["a", "b"]})),
        ("attributes", json!({"attributes": {"skill": 9000}})),
    ] {
        let p = as_a("POST", "/api/match/join", Some(body))
            .await
            .code(403, "forbidden");
        assert_eq!(p["field"], field);
    }
    assert_eq!(
        as_a("POST", "/api/match/join", None).await.is(200)["ticket_id"],
        a["ticket_id"]
    );
    // The ticket's token is no game's.
    assert_eq!(as_a("GET", "/api/sessions", None).await.is(200)["total"], 0);
    let b = join("b").await.is(200);
    assert_eq!(b["status"], "matched");
    let end = format!("/api/match/{}/end", id(&b));
    up.call("POST", &end, Some(token), None)
        .await
        .code(403, "forbidden");
    up.call("POST", &end, None, None)
        .await
        .code(401, "unauthenticated");
    let matched = as_a("GET", "/api/match/status", None).await.is(200);
    assert_eq!(id(&matched), id(&b));
    up.call("POST", &end, matched["token"].as_str(), None)
        .await
        .is(200);
}

#[tokio::test(start_paused = true)]
async fn guests_are_given_a_name_and_a_token_to_wait_with() {
    let mut open = fleet("arena");
    open.guests = true;
    let mut c = config(vec![open, fleet("closed")]);
    c.server.guests = true;
    let up = world().up(c).await;
    let p = up
        .join(json!({"player_id": "me"}))
        .await
        .code(401, "unauthenticated");
    assert_eq!(p["field"], "player_id");
    up.join(json!({"queue": "closed"}))
        .await
        .code(403, "forbidden");
    let a = up.join(json!({})).await.is(200);
    let name = a["player_id"].as_str().unwrap();
    assert!(name.starts_with("guest-"), "{name}");
    let token = a["token"].as_str();
    let same = up
        .call("POST", "/api/match/join", token, None)
        .await
        .is(200);
    assert_eq!(
        (&same["player_id"], &same["ticket_id"]),
        (&a["player_id"], &a["ticket_id"])
    );
    let body = json!({"token": token});
    let in_body = up.join(body).await.is(200);
    assert_eq!(in_body["ticket_id"], a["ticket_id"]);
    let b = up.join(json!({})).await.is(200);
    assert_eq!(b["status"], "matched");
    let asked = up
        .get(&format!("/api/match/status?token={}", token.unwrap()))
        .await
        .is(200);
    assert_eq!(
        (asked["status"].as_str(), id(&asked)),
        (Some("matched"), id(&b))
    );
    assert_eq!(asked["player_id"], a["player_id"]);
    let view = up
        .call(
            "GET",
            &format!("/api/sessions/{}", id(&b)),
            asked["token"].as_str(),
            None,
        )
        .await;
    assert_eq!(view.is(200)["players"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_skill_limit_relaxes_while_they_wait() {
    let limit = Limit {
        start: 50.0,
        per_second: 25.0,
        most: 400.0,
    };
    let up = world()
        .up(with_rules(
            Rules::new(2, 2, 10 * SECOND, Some(limit), None).unwrap(),
        ))
        .await;
    let join = |p: &'static str, skill: i32| {
        up.join(json!({"player_id": p, "attributes": {"skill": skill, "mode": "duel"}}))
    };
    join("a", 1_000).await.is(200);
    let b = join("b", 1_200).await.is(200);
    assert_eq!(b["status"], "queued", "200 apart, 50 accepted");
    // 50 + 25 x 6 s = 200.
    tokio::time::sleep(Duration::from_millis(5_900)).await;
    assert_eq!(total(&up).await, 0);
    let matched = up.until_status("a", "matched", SECOND).await;
    assert_eq!(matched["players"], json!(["a", "b"]));
    join("c", 0).await.is(200);
    join("d", 1_000).await.is(200);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(
        up.status("c").await["status"],
        "queued",
        "never more than the most"
    );
}

#[tokio::test(start_paused = true)]
async fn a_latency_limit_finds_a_region_that_all_can_play_in() {
    let limit = Limit {
        start: 60.0,
        per_second: 0.0,
        most: 60.0,
    };
    let c = with_queue(|q| {
        q.rules = Rules::new(2, 2, 10 * SECOND, None, Some(limit)).unwrap();
        q.regions = vec!["eu".into(), "us".into()];
    });
    let up = world().up(c).await;
    let join = |p: &'static str, latencies: Value| {
        up.join(json!({"player_id": p, "latencies": latencies}))
    };
    assert_eq!(
        join("a", json!({"eu": 20, "us": 110})).await.is(200)["status"],
        "queued"
    );
    assert_eq!(
        join("b", json!({"us": 30})).await.is(200)["status"],
        "queued"
    );
    let c = join("c", json!({"us": 50.5, "eu": 200})).await.is(200);
    assert_eq!(c["players"], json!(["b", "c"]));
    let session = up
        .get(&format!("/api/sessions/{}/why", id(&c)))
        .await
        .is(200);
    assert!(
        session["decisions"].to_string().contains("(us)"),
        "{session:#}"
    );
    let p = join("d", json!({"mars": 1}))
        .await
        .code(400, "invalid_field");
    assert!(
        p["detail"].as_str().unwrap().contains("it knows: eu, us"),
        "{p:#}"
    );
    let p = join("d", json!({"eu": -1}))
        .await
        .code(400, "invalid_field");
    assert_eq!(p["field"], "latencies");
}

#[tokio::test(start_paused = true)]
async fn the_game_reads_who_came_together() {
    let w = world();
    let up = w.up(with_rules(rules(3, 3))).await;
    up.join(json!({"players": ["a", "b"], "attributes": {"mode": "ctf"}}))
        .await
        .is(200);
    let c = up.join(json!({"player_id": "c"})).await.is(200);
    let view = up.get(&format!("/api/sessions/{}", id(&c))).await.is(200);
    let instance = view["instance"]["id"].as_str().unwrap().parse().unwrap();
    let token = w
        .runtime
        .environment(instance)
        .unwrap()
        .remove("SPAWNPOINT_TOKEN")
        .unwrap();
    let own = up
        .send(
            On::Sdk,
            Up::request("GET", "/v1/session", Some(&token), None),
        )
        .await
        .is(200);
    assert_eq!(own["players"], json!(["a", "b", "c"]));
    assert_eq!(
        own["payload"]["match"],
        json!({"queue": "arena", "region": null, "tickets": [
            {"players": ["a", "b"], "attributes": {"mode": "ctf"}}, {"players": ["c"], "attributes": {}}
        ]})
    );
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["type"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_lobbys_stream_says_where_one_stands_and_when_it_is_over() {
    let up = world().up(with_rules(rules(4, 4))).await;
    up.join(json!({"player_id": "first"})).await.is(200);
    let p = up.join(json!({"player_id": "p"})).await.is(200);
    let over = |e: &[Value]| e.iter().any(|e| e["type"] == "matched");
    let (events, ()) = tokio::join!(up.follow("player_id=p", None, 60 * SECOND, over), async {
        tokio::time::sleep(5 * SECOND).await;
        up.call("DELETE", "/api/match/join?player_id=first", None, None)
            .await
            .is(200);
        tokio::time::sleep(5 * SECOND).await;
        for other in ["x", "y", "z"] {
            up.join(json!({"player_id": other})).await.is(200);
        }
    });
    // The session's own events may come first; what the lobby says is in order.
    let events: Vec<Value> = events
        .into_iter()
        .filter(|e| e["type"] != "phase")
        .collect();
    assert_eq!(
        kinds(&events),
        ["hello", "queued", "queued", "matched"],
        "{events:#?}"
    );
    let mine = p["ticket_id"].as_str();
    assert!(events[1..].iter().all(|e| e["ticket_id"].as_str() == mine));
    assert_eq!(
        (&events[1]["position"], &events[2]["position"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(events[1]["waiting_for"], "players");
    let session = up.status("p").await;
    assert_eq!(events[3]["session_id"], session["session_id"]);
    // Cut off before the match and resumed: nothing is missed.
    let resumed = up
        .follow("player_id=p", events[2]["id"].as_str(), SECOND, over)
        .await;
    assert_eq!(
        (resumed[0]["type"].as_str(), resumed[0]["resumed"].as_bool()),
        (Some("hello"), Some(true))
    );
    assert_eq!(resumed[0]["session_id"], session["session_id"]);
    assert!(over(&resumed), "{resumed:#?}");
    // Cut off right after the greeting of a resumed stream: nothing either.
    let again = up
        .follow("player_id=p", resumed[0]["id"].as_str(), SECOND, over)
        .await;
    assert!(over(&again), "{again:#?}");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_for_all_is_heard_by_all() {
    let up = world().up(with_rules(rules(4, 4))).await;
    up.join(json!({"players": ["a", "b"]})).await.is(200);
    let over = |e: &[Value]| e.iter().any(|e| e["type"] == "lost");
    let (events, ()) = tokio::join!(up.follow("player_id=b", None, 60 * SECOND, over), async {
        tokio::time::sleep(3 * SECOND).await;
        up.call("DELETE", "/api/match/join?player_id=a", None, None)
            .await
            .is(200);
    });
    assert_eq!(events.last().unwrap()["code"], "ticket_left", "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_are_told_with_one_request_each() {
    const PLAYERS: usize = 1_000;
    let up = world().up(with_rules(rules(100, 100))).await;
    let joins = (0..PLAYERS - 1).map(|n| up.join(json!({"player_id": format!("p{n}")})));
    // The last of each hundred completes a match; those of the last hundred wait for one more.
    futures::future::join_all(joins).await;
    let waiting: Vec<usize> = {
        let mut all = Vec::new();
        for n in 0..PLAYERS - 1 {
            if up.status(&format!("p{n}")).await["status"] == "queued" {
                all.push(n);
            }
        }
        all
    };
    assert_eq!(waiting.len(), 99);
    let polls = waiting
        .iter()
        .map(|n| up.get_owned(format!("/api/match/status?player_id=p{n}&wait=60")));
    let (told, last) = tokio::join!(futures::future::join_all(polls), async {
        tokio::time::sleep(30 * SECOND).await;
        up.join(json!({"player_id": "last"})).await.is(200)
    });
    for t in told {
        assert_eq!(id(&t.is(200)), id(&last));
    }
    assert_eq!(total(&up).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_long_polls_and_streams_end_with_the_match() {
    const EACH: usize = 500;
    // Everybody waits for a partner of their own, who comes later.
    let limit = Limit {
        start: 0.0,
        per_second: 0.0,
        most: 0.0,
    };
    let up = world()
        .up(with_rules(
            Rules::new(2, 2, 10 * SECOND, Some(limit), None).unwrap(),
        ))
        .await;
    let join = |name: String, skill: usize| {
        up.join(json!({"player_id": name, "attributes": {"skill": skill}}))
    };
    futures::future::join_all((0..EACH * 2).map(|n| join(format!("p{n}"), n))).await;
    assert_eq!(arena(&up).await["tickets"], EACH * 2);
    let polls =
        (0..EACH).map(|n| up.get_owned(format!("/api/match/status?player_id=p{n}&wait=60")));
    // Streams open before the partners come; events of others must not push theirs out.
    let over = |e: &[Value]| {
        e.iter().any(|e| {
            e["type"] == "matched" || (e["type"] == "hello" && e.get("session_id").is_some())
        })
    };
    let queries: Vec<String> = (EACH..EACH * 2)
        .map(|n| format!("player_id=p{n}"))
        .collect();
    let streams = queries
        .iter()
        .map(|q| up.follow(q, None, 60 * SECOND, over));
    let (told, heard, partners) = tokio::join!(
        futures::future::join_all(polls),
        futures::future::join_all(streams),
        async {
            tokio::time::sleep(5 * SECOND).await;
            futures::future::join_all((0..EACH * 2).map(|n| join(format!("q{n}"), n))).await
        }
    );
    let matched = partners
        .into_iter()
        .filter(|a| a.body["status"] == "matched")
        .count();
    assert_eq!(matched, EACH * 2);
    assert!(told.into_iter().all(|t| t.is(200)["status"] == "matched"));
    let deaf = heard.iter().filter(|e| !over(e)).count();
    assert_eq!(deaf, 0);
    assert_eq!(total(&up).await, EACH as u64 * 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_drops_no_ticket() {
    let up = world().up(with_rules(rules(2, 2))).await;
    let a = up.join(json!({"player_id": "a"})).await.is(200);
    up.server.reload(with_rules(rules(3, 3)));
    assert_eq!(up.status("a").await["ticket_id"], a["ticket_id"]);
    assert_eq!(
        up.join(json!({"player_id": "b"})).await.is(200)["status"],
        "queued"
    );
    // The queue is gone from the file while they wait: they go on waiting by its last rules.
    let mut without = config(vec![fleet("arena")]);
    without.queues = vec![Arc::new(QueueConfig {
        name: "other".parse().unwrap(),
        ..queue("arena", 2)
    })];
    up.server.reload(without);
    assert_eq!(
        up.get("/api/match/status?player_id=a&queue=arena")
            .await
            .is(200)["status"],
        "queued"
    );
    up.server.reload(with_rules(rules(2, 2)));
    let matched = up.until_status("a", "matched", SECOND).await;
    assert_eq!(matched["ticket_id"], a["ticket_id"]);
    // A party that fits in no match any more is told so.
    let party = up.join(json!({"players": ["c", "d"]})).await.is(200);
    assert_eq!(party["status"], "matched");
    up.server.reload(with_rules(rules(3, 3)));
    let party = up.join(json!({"players": ["e", "f"]})).await.is(200);
    up.server.reload(with_rules(rules(1, 1)));
    let path = format!(
        "/api/match/status?player_id=e&ticket_id={}",
        party["ticket_id"].as_str().unwrap()
    );
    let lost = up.get(&path).await.is(200);
    assert_eq!(
        (&lost["status"], &lost["code"]),
        (&json!("lost"), &json!("ticket_lost"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_nobody_asks_after_is_dropped_and_one_that_is_asked_after_is_not() {
    let up = world().up(with_rules(rules(2, 2))).await;
    let gone = up.join(json!({"player_id": "gone"})).await.is(200);
    tokio::time::sleep(30 * SECOND).await;
    tokio::time::sleep(45 * SECOND).await;
    let path = format!(
        "/api/match/status?player_id=gone&ticket_id={}",
        gone["ticket_id"].as_str().unwrap()
    );
    let lost = up.get(&path).await.is(200);
    assert_eq!(
        (&lost["status"], &lost["code"]),
        (&json!("lost"), &json!("ticket_expired"))
    );
    assert_eq!(
        up.status("gone").await["code"],
        "ticket_expired",
        "also to who asks by name"
    );
    assert_eq!(
        up.join(json!({"player_id": "new"})).await.is(200)["status"],
        "queued",
        "not matched with who is gone"
    );
    // A call that waits, and a stream, are somebody who asks.
    let up = world()
        .up(with_queue(|q| {
            q.rules = rules(2, 2);
            q.unattended = 12 * SECOND;
        }))
        .await;
    up.join(json!({"player_id": "polls"})).await.is(200);
    assert_eq!(
        up.get("/api/match/status?player_id=polls&wait=60")
            .await
            .is(200)["status"],
        "queued"
    );
    up.call("DELETE", "/api/match/join?player_id=polls", None, None)
        .await
        .is(200);
    up.join(json!({"player_id": "hears"})).await.is(200);
    let events = up
        .follow("player_id=hears", None, 60 * SECOND, |_| false)
        .await;
    assert!(events.iter().all(|e| e["type"] != "lost"), "{events:#?}");
    assert_eq!(up.status("hears").await["status"], "queued");
}

#[tokio::test(start_paused = true)]
async fn a_full_fleet_is_no_failure_the_session_waits() {
    let mut f = fleet("arena");
    f.max_instances = Some(1);
    let up = world().up(config(vec![f])).await;
    let s = up.play("busy").await;
    up.join(json!({"player_id": "a"})).await.is(200);
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(
        (&b["status"], &b["phase"]),
        (&json!("matched"), &json!("queued")),
        "{b:#}"
    );
    assert_eq!(b["session_queue"]["waiting_for"], "capacity");
    up.call("DELETE", &format!("/api/sessions/{}", id(&s)), None, None)
        .await
        .is(200);
    // Once matched, waiting is for the game to accept.
    let ready = up
        .get("/api/match/status?player_id=a&wait=30")
        .await
        .is(200);
    assert_eq!((ready["ready"].as_bool(), id(&ready)), (Some(true), id(&b)));
    assert_eq!(arena(&up).await["failures"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_takes_so_many_tickets_and_no_more() {
    let up = world()
        .up(with_queue(|q| {
            q.rules = rules(100, 100);
            q.max_tickets = 3;
        }))
        .await;
    for p in ["a", "b", "c"] {
        up.join(json!({"player_id": p})).await.is(200);
    }
    let p = up
        .join(json!({"player_id": "d"}))
        .await
        .code(503, "matchmaking_full");
    assert!(p["retry_after"].as_u64().is_some());
    assert_eq!(
        up.join(json!({"player_id": "a"})).await.is(200)["status"],
        "queued"
    );
    up.call("DELETE", "/api/match/join?player_id=a", None, None)
        .await
        .is(200);
    up.join(json!({"player_id": "d"})).await.is(200);
}

#[tokio::test(start_paused = true)]
async fn queues_are_counted_and_never_by_player() {
    let up = world()
        .up(config(vec![fleet("arena"), fleet("other")]))
        .await;
    up.join(json!({"player_id": "secret-name"})).await.is(200);
    up.join(json!({"player_id": "b"})).await.is(200);
    up.join(json!({"player_id": "alone", "queue": "other"}))
        .await
        .is(200);
    tokio::time::sleep(3 * SECOND).await;
    let text = up
        .send(On::Admin, Up::request("GET", "/metrics", None, None))
        .await
        .text;
    for line in [
        "spawnpoint_queue_tickets{queue=\"arena\"} 0",
        "spawnpoint_queue_tickets{queue=\"other\"} 1",
        "spawnpoint_queue_players{queue=\"other\"} 1",
        "spawnpoint_matches_total{queue=\"arena\",kind=\"whole\"} 1",
        "spawnpoint_match_wait_seconds_bucket{queue=\"arena\",le=\"1\"} 2",
        "spawnpoint_match_wait_seconds_bucket{queue=\"arena\",le=\"+Inf\"} 2",
        "spawnpoint_match_wait_seconds_count{queue=\"arena\"} 2",
        "spawnpoint_tickets_lost_total{queue=\"arena\"} 0",
        "spawnpoint_http_requests_total{listener=\"public\"} 3",
        "spawnpoint_http_requests_total{listener=\"admin\"} 1",
        "spawnpoint_http_requests_total{listener=\"sdk\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("secret-name") && !text.contains("alone"));
    let other = text
        .lines()
        .find(|l| l.starts_with("spawnpoint_queue_oldest_wait_seconds{queue=\"other\"}"))
        .unwrap();
    let oldest: f64 = other.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((3.0..4.0).contains(&oldest), "{other}");
}
