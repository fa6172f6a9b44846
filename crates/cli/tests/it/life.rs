//! `up` from start to drain, with the bundled game and a player.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Socket, Up, World, closed, connect, eventually, spice};

fn game(more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"spice\"\nrun = {{ command = [{:?}] }}\n{more}",
        spice().display().to_string()
    )
}

fn text<'v>(v: &'v Value, field: &str) -> &'v str {
    v[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {v:#}"))
}

/// The gateway says `ended`, unless the game, told to stop in the same moment, said goodbye first.
fn told_of_the_end(socket: &mut Socket) {
    let (code, reason) = closed(socket);
    assert!(matches!(code, 4411 | 1001), "{code} {reason}");
}

/// A verb that goes on, and its first line.
fn follow(up: &Up<'_>, words: &[&str]) -> (Following, String) {
    let mut child = up.asking(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    (Following { child, out }, first)
}

struct Following {
    child: Child,
    out: BufReader<ChildStdout>,
}

/// What it still says, to its end, which is a good one.
fn rest(following: &mut Following) -> String {
    let mut rest = String::new();
    following.out.read_to_string(&mut rest).unwrap();
    assert!(following.child.wait().unwrap().success());
    rest
}

/// Sessions that the server has now, by id.
fn ids(up: &Up<'_>) -> Vec<String> {
    let list = up.ask(&["sessions", "ls", "-o", "json"]).json();
    list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| text(s, "session_id").to_owned())
        .collect()
}

#[test]
fn a_game_is_started_looked_at_watched_and_ended() {
    let w = World::new(&game("warm = 1\n"));
    let up = w.up(&[]);
    let new = up.new_game("alice");
    let id = text(&new, "session_id");
    assert_eq!(
        (&new["ready"], text(&new, "player_id")),
        (&Value::Bool(true), "alice")
    );
    assert_eq!(
        up.new_game("alice")["session_id"],
        new["session_id"],
        "the same player gets the same session"
    );
    let mut socket = connect(text(&new, "wsUrl"));
    eventually("the session runs", || {
        (up.ask(&["sessions", "get", id, "-o", "json"]).json()["phase"] == "running").then_some(())
    });

    let table = up.ask(&["sessions", "ls"]).fine().out;
    assert!(
        table.lines().next().unwrap().starts_with("SESSION") && table.contains(id),
        "{table}"
    );
    assert!(
        up.ask(&["sessions", "get", id])
            .fine()
            .out
            .contains("alice (connected)")
    );
    assert!(
        up.ask(&["sessions", "why", id])
            .fine()
            .out
            .contains("Deadlines")
    );
    assert!(
        up.ask(&["sessions", "logs", id])
            .fine()
            .out
            .contains("listening")
    );
    assert!(
        up.ask(&["sessions", "extend", id, "1m"])
            .fine()
            .out
            .contains("its limit")
    );
    assert!(
        up.ask(&["sessions", "extend", id, "1m", "--raise-limit"])
            .fine()
            .out
            .contains("may go on until")
    );
    assert!(up.ask(&["fleets", "ls"]).fine().out.contains("spice"));
    assert!(
        up.ask(&["fleets", "get", "spice"])
            .fine()
            .out
            .contains("last plan")
    );

    let (mut watching, first_event) = follow(&up, &["sessions", "watch", id, "-o", "json"]);
    assert_eq!(
        text(&serde_json::from_str(&first_event).unwrap(), "type"),
        "hello"
    );
    let (mut following, first_line) = follow(&up, &["sessions", "logs", "-f", id]);
    assert!(first_line.contains("listening"), "{first_line}");
    assert!(
        up.ask(&["sessions", "end", id])
            .fine()
            .out
            .contains("ended_by_client")
    );
    told_of_the_end(&mut socket);
    let last_event = rest(&mut watching).lines().last().unwrap().to_owned();
    assert_eq!(
        text(&serde_json::from_str(&last_event).unwrap(), "type"),
        "ended"
    );
    // The log ends with the instance.
    rest(&mut following);

    let record = eventually("the record", || {
        let called = up.ask(&["matches", "get", id, "-o", "json"]);
        (called.code == Some(0)).then(|| called.json())
    });
    assert_eq!(
        (
            text(&record, "reason"),
            text(&record, "ended_by"),
            &record["exit_code"]
        ),
        ("ended_by_client", "operator", &Value::from(0))
    );
    assert!(
        up.ask(&["matches", "ls", "--player", "alice"])
            .fine()
            .out
            .contains(id)
    );
    assert!(
        !up.ask(&["matches", "ls", "--reason", "crashed"])
            .fine()
            .out
            .contains(id)
    );
    assert!(
        up.ask(&["matches", "logs", id])
            .fine()
            .out
            .contains("listening")
    );
    for words in [
        &["sessions", "get", "nonsense"][..],
        &["sessions", "end", "../fleets"],
        &["fleets", "get", "x"],
        &["matches", "get", "01890a5d-ac96-774b-bcce-b302099a8057"],
    ] {
        assert_eq!(up.ask(words).code, Some(4), "{words:?}");
    }
}

#[test]
fn ctrl_c_tells_players_writes_records_and_leaves_nothing_running() {
    let w = World::new(&game("warm = 2\n"));
    let up = w.up(&[]);
    let new = up.new_game("alice");
    let mut socket = connect(text(&new, "wsUrl"));
    up.signal(Signal::INT);
    told_of_the_end(&mut socket);
    let log = up.log();
    let (status, _) = up.wait();
    assert!(status.success(), "{log}");

    let up = w.up(&[]);
    assert_eq!(up.ready["taken_over"], 0);
    let record = up
        .ask(&["matches", "get", text(&new, "session_id"), "-o", "json"])
        .json();
    assert_eq!(
        (text(&record, "reason"), text(&record, "ended_by")),
        ("shutdown", "system")
    );
    up.signal(Signal::HUP);
    assert!(up.wait().0.success());
    let instances = std::fs::read_dir(w.dir.path().join(".spawnpoint/instances"))
        .unwrap()
        .count();
    assert_eq!(instances, 0, "no instance is left behind");
}

#[test]
fn a_second_signal_does_not_wait_for_a_stubborn_game() {
    let stubborn = format!(
        "trap '' TERM; {} & while :; do sleep 0.1; done",
        spice().display()
    );
    let w = World::new(&format!(
        "[[fleet]]\nname = \"a\"\nrun = {{ command = [\"sh\", \"-c\", {stubborn:?}] }}\ntermination_grace = \"8s\"\n"
    ));
    let mut up = w.up(&[]);
    up.new_game("alice");
    up.signal(Signal::TERM);
    eventually("the drain", || {
        up.log().contains("ending 1 games").then_some(())
    });
    let pid = up.pid();
    // What follows the first at once is its echo.
    eventually("somebody who insists", || {
        up.signal(Signal::TERM);
        up.is_over(1).then_some(())
    });
    let (status, _) = up.wait();
    assert_eq!(status.code(), Some(1));
    // The shim still ends its game: nothing outlives the grace.
    let up = w.up(&[]);
    assert_ne!(up.pid(), pid);
    eventually("the record", || {
        (up.ask(&["matches", "ls", "-o", "json"]).json()["matches"]
            .as_array()
            .unwrap()
            .len()
            == 1)
            .then_some(())
    });
}

/// A supervisor that stops `make play` signals the whole group, and make passes it on.
#[test]
fn a_signal_and_its_echo_are_one_wish() {
    let w = World::new(&game("warm = 2\n"));
    let up = w.up(&[]);
    up.new_game("alice");
    up.signal(Signal::TERM);
    eventually("the drain", || {
        up.log().contains("ending 1 games").then_some(())
    });
    up.signal(Signal::TERM);
    let (status, _) = up.wait();
    assert!(status.success(), "{status}");
    let instances = std::fs::read_dir(w.dir.path().join(".spawnpoint/instances"));
    assert_eq!(instances.unwrap().count(), 0, "no instance is left behind");
}

#[test]
fn kill_9_loses_nothing_and_detach_leaves_games_on_purpose() {
    let w = World::new(&game(""));
    let mut up = w.up(&["--detach"]);
    let new = up.new_game("alice");
    let id = text(&new, "session_id").to_owned();
    let game = text(
        &up.ask(&["sessions", "get", &id, "-o", "json"]).json()["instance"],
        "label",
    )
    .to_owned();
    for signal in [Signal::KILL, Signal::TERM] {
        up.signal(signal);
        let (status, _) = up.wait();
        assert_eq!(status.success(), signal == Signal::TERM);
        up = w.up(&["--detach"]);
        assert_eq!(up.ready["taken_over"], 1, "{}", up.log());
        let session = up.ask(&["sessions", "get", &id, "-o", "json"]).json();
        assert_eq!(
            (text(&session["instance"], "label"), &session["generation"]),
            (game.as_str(), &Value::from(1)),
            "the very same process"
        );
        // The token of before still opens the door, on the port of now.
        let url = text(&new, "wsUrl")
            .rsplit_once("/session/")
            .map(|(_, rest)| {
                format!(
                    "{}/session/{rest}",
                    text(&up.ready, "url").replacen("http", "ws", 1)
                )
            });
        connect(&url.unwrap());
    }
    up.ask(&["sessions", "end", &id]).fine();
    eventually("no session is left", || ids(&up).is_empty().then_some(()));
}

#[test]
fn one_state_directory_has_one_server_and_a_taken_port_names_its_flag() {
    let w = World::new(&game(""));
    let up = w.up(&[]);
    let second = w.call(&["up"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(
        second.err.contains(&format!("process {}", up.pid())) && second.err.contains("--state-dir"),
        "{second:?}"
    );
    let port = text(&up.ready, "url")
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let taken = w.call(&["up", "--state-dir", "other", "--port", &port]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(
        taken.err.contains(&format!("port {port} is taken")) && taken.err.contains("--port"),
        "{taken:?}"
    );
    let both = w.call(&["up", "--port", &port]);
    assert!(
        both.err.contains(&format!("process {}", up.pid())),
        "{both:?}"
    );
}

#[test]
fn a_changed_file_takes_effect_without_dropping_a_session() {
    let w = World::new(&game(""));
    let up = w.up(&[]);
    let new = up.new_game("alice");
    let mut socket = connect(text(&new, "wsUrl"));
    let fleets = || -> Vec<String> {
        let list = up.ask(&["fleets", "ls", "-o", "json"]).json();
        list["fleets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| text(f, "name").to_owned())
            .collect()
    };
    w.configure(&format!(
        "{}{}",
        game(""),
        game("idle_timeout = \"1m\"\n").replace("\"spice\"\nrun", "\"second\"\nrun")
    ));
    eventually("the second fleet", || {
        fleets().contains(&"second".to_owned()).then_some(())
    });
    w.configure("[[fleet]]\nname = \"spice\"\n");
    eventually("the complaint", || {
        up.log()
            .contains("fleet.spice.run.command: is required")
            .then_some(())
    });
    assert_eq!(
        fleets(),
        ["spice", "second"],
        "a broken file changes nothing"
    );
    w.configure(&game("").replace("\"spice\"\nrun", "\"third\"\nrun"));
    eventually("the first fleet is gone", || {
        (fleets().first().map(String::as_str) == Some("third")).then_some(())
    });
    assert_eq!(ids(&up), [text(&new, "session_id")], "its session lives on");
    socket.send("{}".into()).unwrap();
    let second = up
        .ask(&["new", "--fleet", "third", "--wait", "30", "-o", "json"])
        .json();
    assert_eq!(text(&second, "fleet"), "third");
}

#[test]
fn keys_are_asked_for_and_guests_are_let_in() {
    let secret = "0123456789abcdefXYZ";
    let w = World::new(&format!(
        "keys = [\"ci:{secret}\"]\nguests = true\n{}",
        game("")
    ));
    let up = w.up(&[]);
    let refused = up.ask(&["sessions", "ls"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("SPAWNPOINT_KEY"), "{refused:?}");
    for key in [secret.to_owned(), format!("ci:{secret}")] {
        let fine = up
            .asking(&["sessions", "ls"])
            .env("SPAWNPOINT_KEY", key)
            .output()
            .unwrap();
        assert!(fine.status.success());
    }
    assert!(!up.log().contains(secret), "no secret in the log");
}
