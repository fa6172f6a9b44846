//! Players with names that a pattern, a separator, a path or a query would take apart or for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use spawnpoint_core::lifecycle::Joinable;
use spawnpoint_runtime::simulated::SimulatedConfig;

use crate::harness::{Up, World, config, fleet, id, with_policy};

fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "1",
        "11",
        "111",
        "1%",
        "%31",
        "%2F",
        "_",
        "a",
        "A",
        "a,b",
        "b",
        "a/b",
        "a?b",
        "a#b",
        "a&player_id=1",
        "a=b",
        "a+b",
        "a b",
        " ",
        "..",
        "'",
        "\"",
        "\\",
        "null",
        "\u{e9}",
        "e\u{301}",
        "\u{1f9c2}",
        "\u{1f468}\u{200d}\u{1f33e}",
        "\u{fffd}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(256));
    names.push("\u{1f9c2}".repeat(256));
    names
}

/// Every byte but letters and digits, as a careful client sends it.
fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").unwrap();
        }
        out
    })
}

fn roster(session: &Value) -> BTreeSet<String> {
    session["players"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["player_id"].as_str().unwrap().to_owned())
        .collect()
}

fn ids(page: &Value, of: &str) -> Vec<String> {
    page[of].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn each_finds_their_own_game_and_record() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![fleet("arena")])).await;
    let mut sessions = BTreeMap::new();
    for name in names() {
        let reply = up.play(&name).await;
        assert_eq!(reply["player_id"], name.as_str());
        assert_eq!(id(&up.play(&name).await), id(&reply), "{name:?} comes back");
        assert!(sessions.insert(name, reply).is_none());
    }
    let different: BTreeSet<String> = sessions.values().map(id).collect();
    assert_eq!(different.len(), sessions.len());
    for (name, reply) in &sessions {
        let who = encoded(name);
        let way = format!("/api/players/{who}/session");
        assert_eq!(id(&up.get(&way).await.is(200)), id(reply), "{name:?}");
        let own = up
            .call("GET", &way, reply["token"].as_str(), None)
            .await
            .is(200);
        assert_eq!(id(&own), id(reply), "{name:?} by token");
        let page = up
            .get(&format!("/api/sessions?player_id={who}"))
            .await
            .is(200);
        assert_eq!(ids(&page, "sessions"), [id(reply)], "{name:?}");
        // Nobody else's token opens it.
        let other = &sessions[if name == "1" { "11" } else { "1" }];
        up.call("GET", &way, other["token"].as_str(), None)
            .await
            .code(403, "forbidden");
    }
    for (name, reply) in &sessions {
        let end = format!("/api/match/{}/end", id(reply));
        up.post(&end, json!({"player_id": name})).await.is(200);
        up.record(&id(reply), Duration::from_secs(30)).await;
    }
    for (name, reply) in &sessions {
        let path = format!("/api/matches?player_id={}", encoded(name));
        let page = up.get(&path).await.is(200);
        assert_eq!(ids(&page, "matches"), [id(reply)], "{name:?}");
        assert_eq!(roster(&page["matches"][0]), BTreeSet::from([name.clone()]));
        let own = up
            .call("GET", "/api/matches", reply["token"].as_str(), None)
            .await
            .is(200);
        assert_eq!(ids(&own, "matches"), [id(reply)], "{name:?} by token");
    }
}

async fn look(up: &Up, session: &str) -> Value {
    up.get(&format!("/api/sessions/{session}")).await.is(200)
}

#[tokio::test(start_paused = true)]
async fn in_one_game_each_is_kept_alive_and_taken_out_alone() {
    let names = names();
    let roomy = with_policy(fleet("arena"), |p| {
        p.max_players = names.len() + 1;
        p.joinable = Joinable::Open;
    });
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![roomy])).await;
    let session = id(&up.play("host").await);
    let players = format!("/api/sessions/{session}/players");
    let mut tokens = BTreeMap::new();
    for name in &names {
        let joined = up.post(&players, json!({"playerId": name})).await.is(200);
        assert_eq!(joined["player_id"], name.as_str());
        tokens.insert(name.clone(), joined["token"].as_str().unwrap().to_owned());
    }
    let mut there: BTreeSet<String> = names.iter().cloned().collect();
    there.insert("host".to_owned());
    assert_eq!(roster(&look(&up, &session).await), there);

    // A heartbeat, by token or by a backend that names the player, is that player's alone.
    for (i, name) in names.iter().enumerate() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut beat = json!({"status": "active", "idleTime": 0, "sessionDuration": i});
        let who = if i % 2 == 0 { "token" } else { "player_id" };
        beat[who] = if i % 2 == 0 {
            tokens[name].as_str().into()
        } else {
            name.as_str().into()
        };
        up.post(&format!("/api/sessions/{session}/heartbeat"), beat)
            .await
            .is(200);
        let view = look(&up, &session).await;
        let newest = view["players"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["last_active_at"].is_string())
            .max_by_key(|p| p["last_active_at"].as_str().unwrap().to_owned())
            .unwrap();
        assert_eq!(newest["player_id"], name.as_str());
    }
    for name in &names {
        let seat = format!("{players}/{}", encoded(name));
        // A token of another player takes out nobody.
        let other = &tokens[if name == "1" { "11" } else { "1" }];
        if there.contains("1") && there.contains("11") {
            up.call("DELETE", &seat, Some(other), None)
                .await
                .code(403, "forbidden");
        }
        up.call("DELETE", &seat, Some(&tokens[name]), None)
            .await
            .is(200);
        there.remove(name);
        assert_eq!(roster(&look(&up, &session).await), there, "{name:?} left");
        up.call("DELETE", &seat, None, None)
            .await
            .code(404, "player_not_in_session");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_name_is_refused_in_our_words() {
    let world = World::new(SimulatedConfig::default());
    let up = world.up(config(vec![fleet("arena")])).await;
    let session = id(&up.play("\u{fffd}").await);
    // Bytes that are no text are nobody: least of all the player named like their replacement.
    for path in [
        "/api/players/%FF/session".to_owned(),
        "/api/sessions?player_id=%FF".to_owned(),
        "/api/matches?player_id=%FF".to_owned(),
        "/api/events?player_id=%FF".to_owned(),
        format!("/api/sessions/{session}?wait=%FF"),
        "/api/matches/%FF".to_owned(),
        "/api/fleets/%FF".to_owned(),
    ] {
        up.get(&path).await.code(400, "invalid_parameter");
    }
    let seat = format!("/api/sessions/{session}/players/%FF");
    up.call("DELETE", &seat, None, None)
        .await
        .code(400, "invalid_parameter");
    let long = "x".repeat(257);
    for bad in ["", "a\u{0}b", "a\nb", long.as_str()] {
        up.post("/api/new-game", json!({"playerId": bad}))
            .await
            .code(400, "invalid_field");
        up.get(&format!("/api/matches?player_id={}", encoded(bad)))
            .await
            .code(400, "invalid_field");
    }
    assert_eq!(roster(&look(&up, &session).await).len(), 1);
}
