//! `run -- CMD`: any server, no file.

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Up, World, connect, eventually, spice};

const PORTS: [&str; 8] = [
    "run",
    "--output",
    "json",
    "--port=0",
    "--admin-port=0",
    "--sdk-port=0",
    "--name",
    "mine",
];

#[test]
fn any_command_gets_a_session_and_an_address() {
    let w = World::new("");
    let script = format!("echo \"mark $MARK in $PWD\"; exec {}", spice().display());
    let words = [&PORTS[..], &["--", "sh", "-c", &script]].concat();
    // Its own file is not read: this one would be refused.
    let mut up = {
        let up = Up::start(&w, &words);
        assert_eq!(up.ready["fleets"], Value::from(vec!["mine"]));
        up
    };
    let session = up.event()["session"].clone();
    let id = session["session_id"].as_str().unwrap();
    assert_eq!(session["ready"], true);
    connect(session["wsUrl"].as_str().unwrap());
    let logs = eventually("its first line", || {
        Some(up.ask(&["sessions", "logs", id]).fine().out).filter(|l| l.contains("mark"))
    });
    assert!(
        logs.contains(&format!(
            "in {}",
            w.dir.path().canonicalize().unwrap().display()
        )),
        "{logs}"
    );
    assert_eq!(
        up.ask(&["fleets", "get", "mine", "-o", "json"]).json()["warm_target"],
        0,
        "a rebuilt program must not find old ones warm"
    );
    assert!(
        up.ask(&["sessions", "why", id])
            .fine()
            .out
            .lines()
            .all(|l| !l.contains("never_joined") && !l.contains("  idle"))
    );
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
}

#[test]
fn a_command_that_is_none_is_a_usage_error_and_one_that_fails_is_said() {
    let w = World::new("");
    let none = w.call(&["run", "--", "./not-there"]);
    assert!(
        none.code == Some(2) && none.err.contains("not-there"),
        "{none:?}"
    );
    let rule = w.call(&["run", "--ready", "soon", "--", "sh"]);
    assert!(
        rule.code == Some(2) && rule.err.contains("log:text"),
        "{rule:?}"
    );
    let failing = w.call(&[&PORTS[..], &["--", "sh", "-c", "echo broken >&2; exit 3"]].concat());
    assert_eq!(failing.code, Some(1), "{failing:?}");
    assert!(
        failing.err.contains("did not start, exit code 3"),
        "{failing:?}"
    );
}
