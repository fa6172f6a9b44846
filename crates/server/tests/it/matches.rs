//! Ending a match: whose call means what, and that all of them together mean it once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_core::lifecycle::EndRule;
use spawnpoint_runtime::simulated::SimulatedConfig;

use crate::harness::{Up, World, config, fleet, id, queue, with_policy};

const SECOND: Duration = Duration::from_secs(1);
const PLAYERS: [&str; 4] = ["a", "b", "c", "d"];

/// A match of four under this rule, and each player's own view of it.
async fn matched(rule: EndRule) -> (Up, Vec<Value>) {
    let mut c = config(vec![with_policy(fleet("arena"), |p| p.end_by = rule)]);
    c.queues = vec![std::sync::Arc::new(queue("arena", 4))];
    let up = World::new(SimulatedConfig::default()).up(c).await;
    for p in PLAYERS {
        up.join(json!({"player_id": p})).await.is(200);
    }
    let mut views = Vec::new();
    for p in PLAYERS {
        views.push(up.status(p).await);
    }
    (up, views)
}

async fn end(up: &Up, view: &Value) -> Value {
    let path = format!("/api/match/{}/end", id(view));
    up.call("POST", &path, view["token"].as_str(), None)
        .await
        .is(200)
}

#[tokio::test(start_paused = true)]
async fn all_players_end_at_once_and_it_ends_once() {
    for rule in [EndRule::Owner, EndRule::Any, EndRule::All] {
        let (up, views) = matched(rule).await;
        let answers = futures::future::join_all(views.iter().map(|v| end(&up, v))).await;
        assert!(
            answers.iter().any(|a| a["ended"] == true),
            "{rule:?}: {answers:#?}"
        );
        let record = up.record(&id(&views[0]), 30 * SECOND).await;
        assert_eq!(
            (&record["reason"], &record["ended_by"]),
            (&json!("ended_by_client"), &json!("player")),
            "{rule:?}"
        );
        assert_eq!(record["players"].as_array().unwrap().len(), 4);
        let all = up.get("/api/matches").await.is(200);
        assert_eq!(all["matches"].as_array().unwrap().len(), 1, "{rule:?}");
        // Again, after everything is over.
        let after = futures::future::join_all(views.iter().map(|v| end(&up, v))).await;
        assert!(
            after
                .iter()
                .all(|a| a["ended"] == true && a["reason"] == "ended_by_client")
        );
        for p in PLAYERS {
            assert_eq!(up.status(p).await["status"], "none", "{rule:?} {p}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_players_call_is_that_player_leaving() {
    let (up, views) = matched(EndRule::Owner).await;
    assert_eq!(end(&up, &views[1]).await["ended"], false);
    assert_eq!(up.status("b").await["status"], "none", "b is free again");
    assert_eq!(up.status("a").await["status"], "matched");
    assert_eq!(
        end(&up, &views[0]).await["ended"],
        true,
        "the owner ends it"
    );
    assert_eq!(up.status("c").await["status"], "none");

    let (up, views) = matched(EndRule::All).await;
    for v in &views[..3] {
        assert_eq!(end(&up, v).await["ended"], false);
    }
    assert_eq!(end(&up, &views[3]).await["ended"], true, "the last one");

    let (up, views) = matched(EndRule::Any).await;
    assert_eq!(end(&up, &views[2]).await["ended"], true);
    let record = up.record(&id(&views[0]), 30 * SECOND).await;
    assert_eq!(record["players"].as_array().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_ends_a_match_of_others() {
    let (up, views) = matched(EndRule::Owner).await;
    let other = up.play("stranger").await;
    let path = format!("/api/match/{}/end", id(&views[0]));
    let theirs = up.call("POST", &path, other["token"].as_str(), None).await;
    theirs.code(403, "forbidden");
    // Who has left is a stranger from then on.
    end(&up, &views[1]).await;
    let again = up
        .call("POST", &path, views[1]["token"].as_str(), None)
        .await;
    assert_eq!(again.status, 403, "{}", again.text);
    assert_eq!(up.status("a").await["status"], "matched");
}

/// In virtual time one call follows the other; here they run at once, on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_cross_are_all_answered_that_it_has_ended() {
    let f = with_policy(fleet("arena"), |p| p.end_by = EndRule::Owner);
    let up = Arc::new(
        World::new(SimulatedConfig::default())
            .up(config(vec![f]))
            .await,
    );
    for round in 0..60 {
        let players: Vec<String> = (0..12).map(|n| format!("{round}-{n}")).collect();
        let body = json!({"playerId": players[0], "players": players});
        let session = id(&up.post("/api/new-game", body).await.is(201));
        // Those who leave first: they are the ones whom the owner's call may overtake.
        let mut calls = tokio::task::JoinSet::new();
        for player in players.into_iter().rev() {
            let (up, path) = (Arc::clone(&up), format!("/api/match/{session}/end"));
            calls.spawn(async move { up.post(&path, json!({"player_id": player})).await });
        }
        for answer in calls.join_all().await {
            answer.is(200);
        }
    }
}
