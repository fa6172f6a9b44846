//! Matchmaking as its page tells it: every command of `docs/matchmaking.md`, as written, against the real binary and the real TCP game.

use std::process::Command;

use serde_json::Value;

use crate::world::{Called, Up, World, arena, missing};

const PAGE: &str = include_str!("../../../../docs/matchmaking.md");

fn world() -> World {
    let command = arena().display().to_string();
    World::new(&format!(
        "[[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\nrun = {{ command = [{command:?}] }}\n"
    ))
}

/// One block of the page, in the world's directory, with the address of this server for the default one.
fn shell(world: &World, up: &Up<'_>, block: &str) -> Called {
    let url = up.ready["url"].as_str().unwrap();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let script = block.replace("localhost:8080", address);
    let out = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(world.dir.path())
        .output()
        .unwrap();
    Called::from(out).fine()
}

/// The JSON objects in what a block printed, one behind the other.
fn objects(text: &str) -> Vec<Value> {
    let from = text.find('{').unwrap_or(text.len());
    serde_json::Deserializer::from_str(&text[from..])
        .into_iter()
        .map(|v| v.unwrap_or_else(|e| panic!("{e}: {text}")))
        .collect()
}

#[test]
fn every_command_of_the_page_works_as_written() {
    if let Some(program) = missing(&["curl", "nc", "grep", "cut"]) {
        eprintln!("not run: there is no {program} here");
        return;
    }
    let world = world();
    let up = world.up(&[]);
    let blocks: Vec<&str> = PAGE
        .split("```sh\n")
        .skip(1)
        .map(|b| b.split("```").next().unwrap())
        .collect();
    let [journey, play, alone, stream, queues] = blocks.as_slice() else {
        panic!("other commands than this test knows: {blocks:#?}")
    };

    let said = objects(&shell(&world, &up, journey).out);
    assert_eq!(
        (&said[0]["status"], &said[1]["status"]),
        (&"queued".into(), &"matched".into())
    );
    let text = std::fs::read_to_string(world.dir.path().join("match.json")).unwrap();
    let first: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(first["session_id"], said[1]["session_id"]);

    let done = shell(&world, &up, play).out;
    assert!(done.starts_with("open\nrunning\nrunning\n"), "{done}");
    let ends = objects(&done);
    assert!(
        ends[..2]
            .iter()
            .all(|e| e["session_id"] == first["session_id"])
    );
    assert_eq!(ends[2]["session_id"], first["session_id"], "the record");
    assert_eq!(ends[2]["players"].as_array().unwrap().len(), 2);
    assert!(ends[2]["reason"].is_string());

    let solo = &objects(&shell(&world, &up, alone).out)[0];
    assert_eq!(solo["status"], "matched");
    let waited = solo["waited_s"].as_f64().unwrap();
    assert!(waited >= 10.0, "never before the flush wait: {waited}");

    let heard = shell(&world, &up, stream).out;
    assert!(heard.contains("\"type\":\"hello\""), "{heard}");
    let all = &objects(&shell(&world, &up, queues).out)[0]["queues"];
    assert_eq!(
        (&all[0]["name"], &all[0]["matches"]),
        (&"arena".into(), &2.into())
    );
    assert_eq!(all[0]["partial_matches"], 1);
}

#[test]
fn bad_settings_are_refused_at_start_all_at_once() {
    let world = world();
    let mut command = world.command(&["up", "--flush-wait-seconds", "soon"]);
    let refused = command
        .env("SESSION_SIZE", "0")
        .env("MIN_PARTIAL_SESSION_SIZE", "many")
        .output()
        .unwrap();
    let refused = Called::from(refused);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for said in [
        "queue.arena.session_size = 0 (SESSION_SIZE)",
        "queue.arena.min_partial_session_size = many (MIN_PARTIAL_SESSION_SIZE)",
        "queue.arena.flush_wait = soon (--flush-wait-seconds)",
    ] {
        assert!(refused.err.contains(said), "{said}\n{}", refused.err);
    }
}
