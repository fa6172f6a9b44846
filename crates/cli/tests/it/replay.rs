//! `spawnpoint replay` over what real runs of `up` wrote, through games, crashes and a `kill -9`.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Called, Up, World, arena, connect, eventually, spice};

fn games() -> String {
    format!(
        "[[fleet]]\nname = \"spice\"\nwarm = 1\nrun = {{ command = [{:?}] }}\n\
         [[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\nrun = {{ command = [{:?}] }}\n",
        spice().display().to_string(),
        arena().display().to_string()
    )
}

const LOGGED: &[&str] = &["--decision-log", "64Mi"];

fn directory(w: &World) -> PathBuf {
    w.dir.path().join(".spawnpoint/decisions")
}

fn files(w: &World) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory(w)).unwrap();
    let mut all: Vec<PathBuf> = all.map(|f| f.unwrap().path()).collect();
    all.sort();
    all
}

#[track_caller]
fn replay(w: &World, code: i32) -> Value {
    let called = w.call(&["replay", "--output", "json"]);
    assert_eq!(called.code, Some(code), "{called:#?}");
    serde_json::from_str(&called.out).unwrap_or_else(|e| panic!("{e}: {called:#?}"))
}

fn same(replayed: &Value, function: &str) -> u64 {
    let mut all = replayed["functions"].as_array().unwrap().iter();
    let found = all.find(|f| f["function"] == function).unwrap();
    found["same"].as_u64().unwrap()
}

fn end(up: &Up<'_>, session: &Value) -> Called {
    up.ask(&["sessions", "end", session["session_id"].as_str().unwrap()])
}

#[test]
fn what_real_runs_decided_comes_out_the_same() {
    let w = World::new(&games());
    let up = w.up(LOGGED);
    let alice = up.new_game("alice");
    let bob = up.new_game("bob");
    let socket = connect(alice["wsUrl"].as_str().unwrap());
    eventually("alice is seen", || {
        let id = alice["session_id"].as_str().unwrap();
        let view = up.ask(&["sessions", "get", id, "-o", "json"]).json();
        (view["phase"] == "running").then_some(())
    });
    let public = up.ready["url"].as_str().unwrap().to_owned();
    let load = w
        .command(&["load", "--match-duration", "1", "--target-url", &public])
        .env("CLIENTS", "6")
        .output()
        .unwrap();
    Called::from(load).fine();
    // The server reads it itself, while it is being written.
    replay(&w, 0);
    end(&up, &bob).fine();
    up.signal(Signal::KILL);
    up.wait();
    drop(socket);

    let replayed = replay(&w, 0);
    assert_eq!(replayed["same"], true, "{replayed:#}");
    for function in ["session::step", "fleet::plan", "matching::propose"] {
        assert!(same(&replayed, function) > 0, "{function}: {replayed:#}");
    }
    let up = w.up(LOGGED);
    end(&up, &alice).fine();
    up.signal(Signal::TERM);
    up.wait();
    let after = replay(&w, 0);
    assert_eq!(after["runs"], 2, "{after:#}");
    assert!(same(&after, "session::step") > same(&replayed, "session::step"));

    let id = alice["session_id"].as_str().unwrap();
    let shown = w.call(&["replay", "--session", id]).fine().out;
    for words in ["Granted", "Connections(\"alice\", 1)", "Recorded", "same:"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let unknown = w.call(&[
        "replay",
        "--session",
        "01890a5d-ac96-774b-bcce-b302099a8057",
    ]);
    assert_eq!(unknown.code, Some(4), "{unknown:#?}");

    // One bit of one player's name.
    let file = files(&w).swap_remove(0);
    let mut text = std::fs::read(&file).unwrap();
    let at = text.windows(5).position(|w| w == b"alice").unwrap();
    text[at + 1] ^= 1;
    std::fs::write(&file, text).unwrap();
    let changed = w.call(&["replay"]);
    assert_eq!(
        (changed.code, changed.err.as_str()),
        (Some(5), ""),
        "{changed:#?}"
    );
    assert!(
        changed.out.contains("the log was changed"),
        "{}",
        changed.out
    );
}

#[test]
fn without_a_log_it_says_how_to_get_one() {
    let w = World::new(&games());
    let called = w.call(&["replay"]);
    assert_eq!((called.code, called.out.as_str()), (Some(1), ""));
    assert!(called.err.contains("--decision-log"), "{}", called.err);
}

/// A game's process dies under a session: what was decided about it is logged like everything else.
#[test]
fn a_crash_and_its_replacement_are_in_it() {
    let w = World::new(&games());
    let up = w.up(LOGGED);
    let alice = up.new_game("alice");
    let id = alice["session_id"].as_str().unwrap();
    let get = || up.ask(&["sessions", "get", id, "-o", "json"]).json();
    let label = get()["instance"]["label"].as_str().unwrap().to_owned();
    let pid: i32 = label
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("it is replaced", || {
        let view = get();
        (view["generation"] == 2 && view["ready"] == true).then_some(())
    });
    end(&up, &alice).fine();
    up.signal(Signal::TERM);
    up.wait();
    let shown = w.call(&["replay", "--session", id]).fine().out;
    assert!(shown.contains("another incarnation takes over"), "{shown}");
}
