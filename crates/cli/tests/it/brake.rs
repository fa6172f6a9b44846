//! The mass-end brake for real: ten games whose players all vanish at once are held while nobody has confirmed it, and end as soon as
//! somebody has; whoever came back in the meantime plays on.

use std::net::Shutdown;

use serde_json::Value;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;

use crate::world::{Socket, Up, World, connect, eventually, spice};

const GAMES: usize = 10;
/// The gateway says in one report what happens within some milliseconds; torn in two, the second confirms the first at once, and
/// nothing is held that long. Then another crowd is asked.
const CROWDS: usize = 6;

fn fleet() -> String {
    format!(
        "[[fleet]]\nname = \"spice\"\nreconnect_grace = \"1s\"\ntermination_grace = \"2s\"\nrun = {{ command = [{:?}] }}\n",
        spice().display().to_string()
    )
}

struct Game {
    id: String,
    url: String,
    socket: Socket,
}

fn games(up: &Up<'_>, crowd: usize) -> Vec<Game> {
    let mut all = Vec::new();
    for n in 0..GAMES {
        let new = up.new_game(&format!("player-{crowd}-{n}"));
        let url = new["wsUrl"].as_str().unwrap().to_owned();
        all.push(Game {
            id: new["session_id"].as_str().unwrap().to_owned(),
            socket: connect(&url),
            url,
        });
    }
    for game in &all {
        eventually("somebody plays", || {
            (phase(up, &game.id)? == "running").then_some(())
        });
    }
    all
}

fn view(up: &Up<'_>, id: &str, what: &str) -> Option<Value> {
    let called = up.ask(&["sessions", what, id, "-o", "json"]);
    (called.code == Some(0)).then(|| called.json())
}

fn phase(up: &Up<'_>, id: &str) -> Option<String> {
    Some(view(up, id, "get")?["phase"].as_str()?.to_owned())
}

/// As a cable that is pulled: no close frame.
fn vanish(game: &Game) {
    if let MaybeTlsStream::Plain(tcp) = game.socket.get_ref() {
        tcp.shutdown(Shutdown::Both).unwrap();
    }
}

fn reaper(up: &Up<'_>) -> Value {
    let url = format!("{}/debug/workers", up.ready["admin_url"].as_str().unwrap());
    let text = ureq::get(url).call().unwrap().body_mut().read_to_string();
    let workers: Value = serde_json::from_str(&text.unwrap()).unwrap();
    workers["reaper"].clone()
}

fn held_times(up: &Up<'_>) -> u64 {
    reaper(up)["held_times"]["mass_end_brake"].as_u64().unwrap()
}

/// Whether the brake holds one of these that would have ended by now.
fn is_held_back(up: &Up<'_>, game: &Game) -> bool {
    let Some(why) = view(up, &game.id, "why").filter(|_| reaper(up)["held_by"] == "mass_end_brake")
    else {
        return false;
    };
    let due = why["cull_at"]
        .as_str()
        .map(|at| at.parse::<jiff::Timestamp>().unwrap());
    why["held_by"] == "mass_end_brake"
        && why["cull_reason"] == "empty"
        && due.is_some_and(|at| at < jiff::Timestamp::now())
}

fn record(up: &Up<'_>, id: &str) -> Option<Value> {
    let called = up.ask(&["matches", "get", id, "-o", "json"]);
    (called.code == Some(0)).then(|| called.json())
}

fn ends_for_empty(up: &Up<'_>, game: &Game) {
    let record = eventually("its record", || record(up, &game.id));
    assert_eq!(record["reason"], "empty", "{record:#}");
}

#[test]
fn a_mass_end_is_held_until_somebody_confirms_it() {
    let w = World::new(&fleet());
    let up = w.up(&["--decision-log", "64Mi"]);
    let (mut back, gone) = (0..CROWDS)
        .find_map(|crowd| {
            let mut all = games(&up, crowd);
            let before = held_times(&up);
            all.iter().for_each(vanish);
            let held = eventually("they are held back, or end", || {
                if is_held_back(&up, &all[GAMES - 1]) {
                    return Some(true);
                }
                record(&up, &all[GAMES - 1].id).map(|_| false)
            });
            assert!(held_times(&up) > before, "{}", up.log());
            if !held {
                for game in &all {
                    ends_for_empty(&up, game);
                }
                return None;
            }
            let gone = all.split_off(2);
            // Their time is up, and they are let in all the same; their coming back is the report that was waited for.
            for game in &mut all {
                game.socket = connect(&game.url);
            }
            Some((all, gone))
        })
        .expect("a crowd that is held back");
    for game in &gone {
        ends_for_empty(&up, game);
    }
    eventually("nothing is held any more", || {
        reaper(&up)["held_by"].is_null().then_some(())
    });
    for game in &back {
        assert_eq!(phase(&up, &game.id).as_deref(), Some("running"));
        assert!(record(&up, &game.id).is_none());
    }
    let list = up
        .ask(&["matches", "ls", "--limit", "500", "-o", "json"])
        .json();
    let all: Vec<&str> = list["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["session_id"].as_str().unwrap())
        .collect();
    for game in &gone {
        assert_eq!(
            all.iter().filter(|id| **id == game.id).count(),
            1,
            "one record each"
        );
    }
    up.ask(&["audit"]).fine();
    let log = up.log();
    for words in [
        "mass-end brake",
        "waiting for fresh reports",
        "mass_end_brake",
    ] {
        assert!(log.contains(words), "{words}\n{log}");
    }
    let metrics = ureq::get(format!(
        "{}/metrics",
        up.ready["admin_url"].as_str().unwrap()
    ))
    .call()
    .unwrap()
    .body_mut()
    .read_to_string()
    .unwrap();
    let held = format!(
        "spawnpoint_culls_held_total{{by=\"mass_end_brake\"}} {}",
        held_times(&up)
    );
    assert!(metrics.contains(&held), "{held}\n{metrics}");
    for game in &mut back {
        drop(game.socket.close(None));
        up.ask(&["sessions", "end", &game.id]).fine();
    }
    up.signal(rustix::process::Signal::TERM);
    up.wait();
    // What the brake decided, decided again.
    let replayed = w.call(&["replay", "-o", "json"]).json();
    let functions = replayed["functions"].as_array().unwrap();
    let brake = functions
        .iter()
        .find(|f| f["function"] == "lifecycle::brake")
        .unwrap();
    assert!(
        brake["same"].as_u64() >= Some(2) && brake["different"] == 0,
        "{replayed:#}"
    );
}
