//! `spawnpoint audit` against the real command: clean through games and a `kill -9`, and what does not belong there is found.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Called, Up, World, arena, connect, eventually, spice};

const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn games() -> String {
    format!(
        "[[fleet]]\nname = \"spice\"\nwarm = 1\nrun = {{ command = [{:?}] }}\n\
         [[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\nrun = {{ command = [{:?}] }}\n",
        spice().display().to_string(),
        arena().display().to_string()
    )
}

/// The report, whatever the exit code says of it.
#[track_caller]
fn audit(up: &Up<'_>) -> (Called, Value) {
    let called = up.ask(&["audit", "--output", "json"]);
    let report = serde_json::from_str(&called.out).unwrap_or_else(|e| panic!("{e}: {called:#?}"));
    (called, report)
}

#[track_caller]
fn clean(up: &Up<'_>) -> Value {
    let (called, report) = audit(up);
    assert_eq!(called.code, Some(0), "{report:#}\n{}", up.log());
    assert_eq!(report["clean"], true);
    report["counts"].clone()
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect()
}

#[test]
fn it_is_clean_through_games_and_a_kill() {
    let w = World::new(&games());
    let up = w.up(&[]);
    clean(&up);
    let alice = up.new_game("alice");
    let bob = up.new_game("bob");
    let carol = up
        .ask(&[
            "new", "--fleet", "arena", "--player", "carol", "--wait", "30", "-o", "json",
        ])
        .json();
    let mut socket = connect(alice["wsUrl"].as_str().unwrap());
    let counts = clean(&up);
    assert_eq!(
        (&counts["sessions"], &counts["starts"]),
        (&3.into(), &3.into())
    );
    assert_eq!(
        (&counts["tunnels"], &counts["listeners"]),
        (&1.into(), &1.into())
    );
    assert!(
        counts["holdings"].as_u64() >= Some(9),
        "ports, directories, processes: {counts:#}"
    );
    up.ask(&["sessions", "end", bob["session_id"].as_str().unwrap()])
        .fine();
    clean(&up);

    up.signal(Signal::KILL);
    up.wait();
    let up = w.up(&[]);
    let counts = clean(&up);
    assert_eq!(counts["sessions"], 2, "{counts:#}\n{}", up.log());
    drop(socket.close(None));
    for session in [&alice, &carol] {
        up.ask(&["sessions", "end", session["session_id"].as_str().unwrap()])
            .fine();
    }
    eventually("everything is recorded and gone", || {
        let counts = clean(&up);
        (counts["sessions"] == 0 && counts["records"] == 3).then_some(())
    });
    let shown = up.ask(&["audit"]).fine();
    assert!(
        shown
            .out
            .contains("clean: nothing lost, nothing double, nothing left over")
    );
    assert!(shown.out.contains("sessions  0 sessions;"), "{}", shown.out);
}

/// Games come and go by the dozen; audits one after the other all the while never take what is on its way for trouble.
#[test]
fn it_is_clean_while_games_come_and_go() {
    let w = World::new(&games());
    let up = w.up(&[]);
    let public = up.ready["url"].as_str().unwrap().to_owned();
    let mut load = w
        .command(&["load", "--match-duration", "1", "--target-url", &public])
        .env("CLIENTS", "24")
        .env("SPAWN_RATE", "6")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut audits, mut most) = (0, 0);
    let ended = loop {
        let counts = clean(&up);
        audits += 1;
        most = most.max(counts["sessions"].as_u64().unwrap());
        if let Some(ended) = load.try_wait().unwrap() {
            break ended;
        }
    };
    assert!(ended.success(), "the load: {ended}\n{}", up.log());
    assert!(
        audits >= 5 && most >= 1,
        "{audits} audits of at most {most}"
    );
    eventually("everything is recorded", || {
        (clean(&up)["records"].as_u64() >= Some(12)).then_some(())
    });
}

/// A process that says of itself that it is an instance's.
struct Pretender(Child);

impl Drop for Pretender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_does_not_belong_in_the_state_directory_is_found() {
    let w = World::new(&games());
    let up = w.up(&[]);
    up.new_game("alice");
    clean(&up);
    let instances: PathBuf = w
        .dir
        .path()
        .canonicalize()
        .unwrap()
        .join(".spawnpoint/instances");
    std::fs::write(instances.join("notes.txt"), "buy milk").unwrap();
    let (called, report) = audit(&up);
    assert_eq!(
        (called.code, codes(&report)),
        (Some(5), vec!["file_orphaned"])
    );
    let shown = up.ask(&["audit"]);
    assert_eq!(shown.code, Some(5));
    for words in [
        "file_orphaned",
        "instances/notes.txt",
        "look at it, then remove it",
        "1 finding",
    ] {
        assert!(shown.out.contains(words), "{words}: {}", shown.out);
    }
    assert_eq!(shown.err, "", "all of it was said already");
    std::fs::remove_file(instances.join("notes.txt")).unwrap();

    let left = instances.join(NOBODY);
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("log"), "hello").unwrap();
    let (_, report) = audit(&up);
    assert_eq!(codes(&report), ["file_orphaned", "log_orphaned"]);
    assert!(
        report["findings"][0]["ids"].to_string().contains(NOBODY),
        "{report:#}"
    );
    std::fs::remove_dir_all(&left).unwrap();
    clean(&up);

    let child = Command::new("sleep")
        .arg("600")
        .env("SPAWNPOINT_SESSION_FILE", left.join("session.json"))
        .spawn()
        .unwrap();
    let pretender = Pretender(child);
    let pid = pretender.0.id().to_string();
    let report = eventually("the process is another program by now", || {
        let (_, report) = audit(&up);
        (!codes(&report).is_empty()).then_some(report)
    });
    assert_eq!(codes(&report), ["process_orphaned"]);
    assert!(
        report["findings"][0]["ids"].to_string().contains(&pid),
        "{report:#}"
    );
    drop(pretender);
    clean(&up);
}

#[test]
fn without_a_server_nothing_is_proven() {
    let w = World::new("");
    let called = w.call(&["audit", "--server", "http://127.0.0.1:9"]);
    assert_eq!(
        (called.code, called.out.as_str()),
        (Some(3), ""),
        "{called:#?}"
    );
    assert!(called.err.contains("no server answers"), "{}", called.err);
}
