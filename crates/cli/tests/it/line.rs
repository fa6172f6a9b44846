//! The command line by itself: help, usage, exit codes, configuration errors.

use crate::world::World;

const FLEET: &str = "[[fleet]]\nname = \"a\"\nrun = { command = [\"sh\"] }\n";

#[test]
fn help_is_worth_reading_and_usage_errors_are_2() {
    let w = World::new(FLEET);
    let help = w.call(&["--help"]).fine().out;
    for part in [
        "Exit codes:",
        "spawnpoint run -- ./my-server",
        "sessions",
        "doctor",
        "--output",
    ] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    assert!(!help.contains("shim"), "{help}");
    assert!(
        w.call(&["run", "--help"])
            .fine()
            .out
            .contains("spawnpoint run -- python3 server.py")
    );
    assert!(w.call(&["--version"]).fine().out.starts_with("spawnpoint "));
    for words in [
        &[][..],
        &["fly"],
        &["up", "--prot", "1"],
        &["sessions"],
        &["new", "--wait", "long"],
        &["run"],
        &["up", "--port", "70000"],
    ] {
        assert_eq!(w.call(words).code, Some(2), "{words:?}");
    }
    assert!(
        w.call(&["up", "--prot", "1"]).err.contains("--port"),
        "the nearest flag is named"
    );
}

#[test]
fn a_server_that_does_not_answer_is_3_and_says_what_to_do() {
    let w = World::new(FLEET);
    for words in [
        &["sessions", "ls"][..],
        &["new"],
        &["fleets", "get", "a"],
        &["matches", "ls"],
    ] {
        let called = w.call(&[words, &["--server", "http://127.0.0.1:9"]].concat());
        assert_eq!(called.code, Some(3), "{called:?}");
        assert!(
            called.err.contains("spawnpoint up") && called.err.contains("http://127.0.0.1:9"),
            "{called:?}"
        );
    }
    let by_variable = w
        .command(&["sessions", "ls"])
        .env("SPAWNPOINT_ADMIN_URL", "http://127.0.0.1:9")
        .output()
        .unwrap();
    assert_eq!(by_variable.status.code(), Some(3));
    assert_eq!(
        w.call(&["sessions", "ls", "--server", "localhost:8081"])
            .code,
        Some(2)
    );
    assert_eq!(
        w.call(&["new", "--payload", "{", "--server", "http://127.0.0.1:9"])
            .code,
        Some(2)
    );
}

#[test]
fn every_error_of_a_file_is_shown_at_once_without_its_secrets() {
    let w = World::new(&format!(
        "keys = [\"hunter2hunter2hunter2\"]\nprot = 1\n{FLEET}idle_timeout = 0\n"
    ));
    let called = w.call(&["up"]);
    assert_eq!(called.code, Some(2), "{called:?}");
    for part in [
        "3 errors",
        "server.keys (line 6)",
        "did you mean \"port\"?",
        "fleet.a.idle_timeout = 0 (line 11)",
    ] {
        assert!(called.err.contains(part), "{part} is not in {}", called.err);
    }
    assert!(!called.err.contains("hunter2"), "{}", called.err);
    assert_eq!(called.out, "");
    let missing = w.call(&["up", "--config", "nowhere.toml"]);
    assert!(
        missing.code == Some(2) && missing.err.contains("nowhere.toml"),
        "{missing:?}"
    );
}

#[test]
fn off_loopback_needs_a_lock() {
    let w = World::new(FLEET);
    let called = w.call(&["up", "--host", "0.0.0.0"]);
    assert_eq!(called.code, Some(2));
    assert!(
        called.err.contains("--guests") && called.err.contains("SPAWNPOINT_KEYS"),
        "{called:?}"
    );
}

#[test]
fn completions_are_printed_and_a_closed_pipe_is_no_error() {
    let w = World::new(FLEET);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            w.call(&["completions", shell])
                .fine()
                .out
                .contains("spawnpoint")
        );
    }
    let binary = env!("CARGO_BIN_EXE_spawnpoint");
    let piped = std::process::Command::new("bash")
        .args(["-c", &format!("set -o pipefail; for i in 1 2 3 4 5; do '{binary}' completions zsh | head -c 1 >/dev/null; done")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
    assert!(piped.status.success());
}

#[test]
fn doctor_names_what_is_wrong_and_what_mends_it() {
    let w = World::new(FLEET);
    let offline = ["--server", "http://127.0.0.1:9", "--output", "json"];
    let fine = w.call(&[&["doctor"], &offline[..]].concat()).json();
    assert_eq!(fine["ok"], true, "{fine:#}");
    let settings = fine["settings"].as_array().unwrap();
    let source = |key: &str| {
        settings
            .iter()
            .find(|s| s["key"] == key)
            .map(|s| s["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(source("server.port").as_deref(), Some("line 2"));
    assert_eq!(source("fleet.a.idle_timeout").as_deref(), Some("default"));

    w.configure("[[fleet]]\nname = \"a\"\nrun = { command = [\"./not-built\"] }\n");
    let bad = w.call(&[&["doctor"], &offline[..]].concat());
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let report: serde_json::Value = serde_json::from_str(&bad.out).unwrap();
    let failed: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["status"] == "failure")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert!(
        failed[0]["detail"].as_str().unwrap().contains("not-built")
            && failed[0]["fix"].as_str().unwrap().contains("chmod +x")
    );
}

#[test]
fn colours_are_for_terminals_only() {
    let w = World::new(FLEET);
    let called = w.call(&["doctor", "--server", "http://127.0.0.1:9"]);
    assert!(
        !called.out.contains('\u{1b}') && !called.err.contains('\u{1b}'),
        "{called:?}"
    );
}
