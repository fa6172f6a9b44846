//! Others in one's game: share link, kick, leave, tokens, the way back, and who may end it.

use std::time::Duration;

use serde_json::json;
use spawnpoint_core::lifecycle::{EndRule, Joinable};
use spawnpoint_runtime::simulated::SimulatedConfig;

use crate::harness::{World, config, fleet, id, with_policy};

#[tokio::test(start_paused = true)]
async fn a_friend_joins_by_link_and_leaves() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![fleet("arena")])).await;
    let host = up.play("host").await;
    let session = id(&host);
    let invite = host["invite"].as_str().unwrap();
    let players = format!("/api/sessions/{session}/players");
    up.post(&players, json!({"playerId": "friend", "invite": "wrong"}))
        .await
        .code(403, "invite_required");
    let token = host["token"].as_str().unwrap();
    let friend = up
        .post(&players, json!({"playerId": "friend", "invite": invite}))
        .await
        .is(200);
    assert_eq!(friend["players"], json!(["host", "friend"]));
    assert_eq!(id(&friend), session);
    assert_ne!(friend["token"], host["token"]);
    up.post(&players, json!({"playerId": "friend", "invite": invite}))
        .await
        .is(200);
    let busy = up.play("busy").await;
    up.post(&players, json!({"playerId": "busy", "invite": invite}))
        .await
        .code(409, "players_in_other_session");
    assert_ne!(id(&busy), session);
    // The friend leaves by the end call; the owner's would end it.
    let left = up
        .call(
            "POST",
            &format!("/api/match/{session}/end"),
            friend["token"].as_str(),
            Some(json!({})),
        )
        .await
        .is(200);
    assert_eq!(left["ended"], false);
    let view = up.get(&format!("/api/sessions/{session}")).await.is(200);
    assert_eq!(view["players"].as_array().unwrap().len(), 1);
    // A token of somebody who left renews nothing.
    up.call(
        "POST",
        &format!("/api/sessions/{session}/token"),
        friend["token"].as_str(),
        Some(json!({})),
    )
    .await
    .code(404, "player_not_in_session");
    // Back in, and kicked by the owner; not the other way round.
    let friend = up
        .post(&players, json!({"playerId": "friend", "invite": invite}))
        .await
        .is(200);
    up.call(
        "DELETE",
        &format!("{players}/host"),
        friend["token"].as_str(),
        None,
    )
    .await
    .code(403, "forbidden");
    up.call("DELETE", &format!("{players}/friend"), Some(token), None)
        .await
        .is(200);
    up.call("DELETE", &format!("{players}/friend"), Some(token), None)
        .await
        .code(404, "player_not_in_session");
    let ended = up
        .call(
            "POST",
            &format!("/api/match/{session}/end"),
            Some(token),
            Some(json!({})),
        )
        .await
        .is(200);
    assert_eq!(
        (ended["ended"].as_bool(), ended["reason"].as_str()),
        (Some(true), Some("ended_by_client"))
    );
    let again = up
        .call(
            "POST",
            &format!("/api/match/{session}/end"),
            Some(token),
            Some(json!({})),
        )
        .await
        .is(200);
    assert_eq!(again["ended"], true, "repeating is harmless");
    let record = up.record(&session, Duration::from_secs(30)).await;
    let names: Vec<_> = record["players"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["player_id"].clone())
        .collect();
    assert_eq!(
        names,
        [json!("host"), json!("friend")],
        "everybody who was ever in it"
    );
    assert_eq!(record["ended_by"], "player");
}

#[tokio::test(start_paused = true)]
async fn joinable_rules_hold() {
    let open = with_policy(fleet("open"), |p| p.joinable = Joinable::Open);
    let closed = with_policy(fleet("closed"), |p| p.joinable = Joinable::Closed);
    let small = with_policy(fleet("small"), |p| {
        p.max_players = 2;
        p.joinable = Joinable::Open;
    });
    let mut c = config(vec![open, closed, small]);
    c.server.keys = vec![crate::harness::key("k")];
    c.server.guests = true;
    for f in &mut c.fleets {
        std::sync::Arc::make_mut(f).guests = true;
    }
    let world = World::new(SimulatedConfig::default());
    let up = world.up(c).await;
    let k = crate::harness::secret("k");
    for (fleet, status) in [("open", 200), ("closed", 403)] {
        let s = up
            .call(
                "POST",
                "/api/new-game",
                Some(&k),
                Some(json!({"playerId": "h", "fleet": fleet})),
            )
            .await
            .is(201);
        let joined = up
            .post(&format!("/api/sessions/{}/players", id(&s)), json!({}))
            .await;
        assert_eq!(joined.status, status, "{fleet}: {}", joined.text);
        assert!(s["invite"].is_null(), "none is needed, or none would help");
    }
    let s = up
        .call(
            "POST",
            "/api/new-game",
            Some(&k),
            Some(json!({"playerId": "h", "fleet": "small"})),
        )
        .await
        .is(201);
    up.post(&format!("/api/sessions/{}/players", id(&s)), json!({}))
        .await
        .is(200);
    up.post(&format!("/api/sessions/{}/players", id(&s)), json!({}))
        .await
        .code(409, "session_full");
}

#[tokio::test(start_paused = true)]
async fn whose_call_ends_a_game_is_a_rule() {
    for (rule, first, second) in [
        (EndRule::Owner, false, true),
        (EndRule::Any, true, true),
        (EndRule::All, false, true),
    ] {
        let world = World::new(SimulatedConfig::default());
        let up = world
            .up(config(vec![with_policy(fleet("arena"), |p| {
                p.end_by = rule
            })]))
            .await;
        let s = up
            .post(
                "/api/new-game?wait=9",
                json!({"playerId": "a", "players": ["b"]}),
            )
            .await
            .is(201);
        let end = format!("/api/match/{}/end", id(&s));
        let b = up.post(&end, json!({"player_id": "b"})).await.is(200);
        assert_eq!(b["ended"], first, "{rule:?}: b is not the owner");
        let a = up.post(&end, json!({"player_id": "a"})).await.is(200);
        assert_eq!(a["ended"], second, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_back_and_a_new_token() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![fleet("arena")])).await;
    let s = up.play("p \u{1f9c2}").await;
    let back = up
        .get("/api/players/p%20%F0%9F%A7%82/session")
        .await
        .is(200);
    assert_eq!(id(&back), id(&s));
    up.get("/api/players/nobody/session")
        .await
        .code(404, "player_not_in_session");
    let renewed = up
        .call(
            "POST",
            &format!("/api/sessions/{}/token", id(&s)),
            s["token"].as_str(),
            Some(json!({})),
        )
        .await
        .is(200);
    assert!(renewed["token"].as_str().unwrap().starts_with("v4.public."));
    // In the body, as a beacon sends it.
    let body = json!({"token": s["token"]});
    up.post(&format!("/api/sessions/{}/token", id(&s)), body)
        .await
        .is(200);
}
