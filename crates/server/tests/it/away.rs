//! Who closed the page while waiting is nobody's opponent; who comes back is where they were.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use spawnpoint_core::matching::Rules;
use spawnpoint_runtime::simulated::SimulatedConfig;

use crate::harness::{Up, World, config, fleet, queue};

const SECOND: Duration = Duration::from_secs(1);

/// One queue, for matches of two, or of one after this long.
async fn up(min: u32, flush: Duration) -> Up {
    let mut c = config(vec![fleet("arena")]);
    let mut q = queue("arena", 2);
    q.rules = Rules::new(2, min, flush, None, None).unwrap();
    c.queues = vec![Arc::new(q)];
    World::new(SimulatedConfig::default()).up(c).await
}

/// Joins and follows the lobby for so long, as a page does that is closed then.
async fn looked_in(up: &Up, player: &str, open: Duration) -> serde_json::Value {
    let ticket = up.join(json!({"player_id": player})).await.is(200);
    assert_eq!(ticket["status"], "queued");
    up.follow(&format!("player_id={player}"), None, open, |_| false)
        .await;
    ticket
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_closed_is_nobodys_opponent() {
    let up = up(2, 300 * SECOND).await;
    looked_in(&up, "gone", 20 * SECOND).await;
    tokio::time::sleep(8 * SECOND).await;
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(b["status"], "queued", "{b}");
    let c = up.join(json!({"player_id": "c"})).await.is(200);
    assert_eq!(
        (&c["status"], &c["players"]),
        (&json!("matched"), &json!(["b", "c"]))
    );
    // Nor is a game made for them alone.
    assert_eq!(up.get("/api/sessions").await.is(200)["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn no_game_is_started_for_a_page_that_was_closed() {
    let up = up(1, 10 * SECOND).await;
    looked_in(&up, "gone", 2 * SECOND).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(up.get("/api/sessions").await.is(200)["total"], 0);
    assert_eq!(up.get("/api/matches").await.is(200)["matches"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_has_their_ticket_and_is_matched_at_once() {
    let up = up(2, 300 * SECOND).await;
    let before = looked_in(&up, "back", 5 * SECOND).await;
    tokio::time::sleep(30 * SECOND).await;
    up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(up.status("b").await["status"], "queued");
    let after = up.status("back").await;
    assert_eq!(after["ticket_id"], before["ticket_id"]);
    let met = up
        .get("/api/match/status?player_id=back&wait=2")
        .await
        .is(200);
    assert_eq!(
        (&met["status"], &met["players"]),
        (&json!("matched"), &json!(["back", "b"]))
    );
    assert!(
        met["waited_s"].as_f64().unwrap() >= 35.0,
        "as old as it was: {met}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_and_a_change_of_means_are_no_absence() {
    let up = up(2, 300 * SECOND).await;
    looked_in(&up, "reloads", 5 * SECOND).await;
    tokio::time::sleep(3 * SECOND).await;
    let b = up.join(json!({"player_id": "b"})).await.is(200);
    assert_eq!(b["status"], "matched", "{b}");
    // The stream broke; the page asks by held questions from then on.
    looked_in(&up, "polls", 5 * SECOND).await;
    let (polled, joined) =
        tokio::join!(up.get("/api/match/status?player_id=polls&wait=25"), async {
            tokio::time::sleep(20 * SECOND).await;
            up.join(json!({"player_id": "d"})).await
        });
    assert_eq!(polled.is(200)["status"], "matched");
    assert_eq!(joined.is(200)["status"], "matched");
    // Who never followed may ask as seldom as they like.
    up.join(json!({"player_id": "seldom"})).await.is(200);
    tokio::time::sleep(40 * SECOND).await;
    let e = up.join(json!({"player_id": "e"})).await.is(200);
    assert_eq!(
        (&e["status"], &e["players"]),
        (&json!("matched"), &json!(["seldom", "e"]))
    );
}
