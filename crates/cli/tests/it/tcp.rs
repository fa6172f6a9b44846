//! A match over raw TCP from the call to the record, through the gateway, and over a `kill -9` in its middle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Up, World, arena, eventually, missing};

fn fleet(more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\nrun.command = [{:?}]\n{more}\n",
        arena().display().to_string()
    )
}

/// A player's connection, as `nc` would make it.
struct Line(BufReader<TcpStream>);

impl Line {
    #[track_caller]
    fn dial(session: &Value) -> Self {
        let host = session["connect_host"].as_str().unwrap();
        let port = u16::try_from(session["connect_port"].as_u64().unwrap()).unwrap();
        let stream = TcpStream::connect((host, port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(40)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// One line there, one line back.
    fn ask(&mut self, line: &str) -> String {
        self.say(&format!("{line}\n"));
        self.hear().trim_end().to_owned()
    }
}

fn record(up: &Up<'_>, session: &Value) -> Value {
    let id = session["session_id"].as_str().unwrap();
    eventually("the record", || {
        let called = up.ask(&["matches", "get", id, "-o", "json"]);
        (called.code == Some(0)).then(|| called.json())
    })
}

#[test]
fn a_match_from_the_call_to_the_record() {
    let w = World::new(&fleet("warm = 1\n"));
    let up = w.up(&[]);
    let session = up.new_game("alice");
    let id = session["session_id"].as_str().unwrap();
    assert_eq!(
        (&session["protocol"], &session["wsUrl"]),
        (&"tcp".into(), &Value::Null)
    );
    let mut alice = Line::dial(&session);
    assert_eq!(alice.ask("GET_STATE"), "open");
    let token = session["token"].as_str().unwrap();
    let mut named = Line::dial(&session);
    named.say(&format!("SPAWNPOINT {token}\nGET_STATE\n"));
    assert_eq!(named.hear(), "open\n");
    let mut stranger = Line::dial(&session);
    assert_eq!(
        stranger.ask("SPAWNPOINT v4.public.guess"),
        "ERROR invalid_credentials"
    );
    assert_eq!(stranger.hear(), "", "and the end");
    let shown = up.ask(&["sessions", "get", id]).fine().out;
    assert!(shown.contains("alice"), "{shown}");
    assert_eq!(alice.ask("REQUEST_MATCH 1"), "running");
    assert_eq!(named.ask("REQUEST_MATCH 99"), "running");
    for client in [&mut alice, &mut named] {
        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "an end like the game's own");
    }
    let record = record(&up, &session);
    assert_eq!(
        (&record["reason"], &record["exit_code"]),
        (&"ended_by_server".into(), &0.into()),
        "{record:#}"
    );
    assert_eq!(record["results"]["why"], "time_up");
    eventually("nobody listens there any more", || {
        let port = session["connect_port"].as_u64().unwrap();
        TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap()))
            .is_err()
            .then_some(())
    });
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
}

#[test]
fn a_kill_in_the_middle_of_a_match_changes_no_address() {
    // Players are cut off with the gateway: the game has to give them time to come back.
    let w = World::new(&fleet("run.env = { EMPTY_GRACE = \"60\" }\n"));
    let up = w.up(&[]);
    let session = up.new_game("alice");
    let id = session["session_id"].as_str().unwrap();
    let mut before = Line::dial(&session);
    assert_eq!(before.ask("REQUEST_MATCH 3600"), "running");
    up.signal(Signal::KILL);
    up.wait();
    let mut rest = Vec::new();
    let _ = before.0.read_to_end(&mut rest);
    assert!(rest.is_empty());
    let up = w.up(&[]);
    let again = up.new_game("alice");
    for field in ["session_id", "connect_host", "connect_port", "generation"] {
        assert_eq!(again[field], session[field], "{field}");
    }
    let mut after = Line::dial(&session);
    after.say(&format!(
        "SPAWNPOINT {}\r\n",
        session["token"].as_str().unwrap()
    ));
    assert_eq!(after.ask("GET_STATE"), "running", "the same match");
    up.ask(&["sessions", "end", id]).fine();
    assert_eq!(after.hear(), "", "its end is heard");
    assert_eq!(record(&up, &session)["reason"], "ended_by_client");
}

#[test]
fn run_gives_a_tcp_server_an_address() {
    let w = World::new("");
    let words = [
        "run",
        "--output",
        "json",
        "--port=0",
        "--admin-port=0",
        "--sdk-port=0",
        "--protocol",
        "tcp",
        "--",
        arena().to_str().unwrap(),
    ];
    let mut up = Up::start(&w, &words);
    let session = up.event()["session"].clone();
    assert_eq!(Line::dial(&session).ask("GET_STATE"), "open");
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
}

#[test]
fn exit_0_ends_the_session_whatever_grace_the_platform_would_give() {
    let world = World::new(&fleet("on_crash = \"end\"\nreconnect_grace = \"10m\""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let mut ann = Line::dial(&session);
    assert_eq!(ann.ask("REQUEST_MATCH 60"), "running");
    drop(ann);
    let record = record(&up, &session);
    assert_eq!(
        (&record["reason"], &record["exit_code"]),
        (&"ended_by_server".into(), &0.into())
    );
    assert_eq!(record["results"]["why"], "empty");
    // Known at start: it was started for this session.
    assert_eq!(record["results"]["session_id"], session["session_id"]);
}

#[test]
fn with_a_grace_of_its_own_a_lost_connection_ends_nothing() {
    let world = World::new(&fleet(
        "on_crash = \"end\"\nwarm = 1\nrun.env = { EMPTY_GRACE = \"60\" }",
    ));
    let up = world.up(&[]);
    eventually("one is warm", || {
        let fleet = up
            .ask(&["fleets", "get", "arena", "--output", "json"])
            .json();
        (fleet["warm"] == 1).then_some(())
    });
    let session = up.new_game("ann");
    let mut ann = Line::dial(&session);
    assert_eq!(ann.ask("GET_STATE"), "open");
    assert_eq!(ann.ask("REQUEST_MATCH 4"), "running");
    drop(ann);
    let mut again = Line::dial(&session);
    assert_eq!(again.ask("REQUEST_MATCH 60"), "running");
    let record = record(&up, &session);
    assert_eq!(record["reason"], "ended_by_server");
    assert_eq!(
        (&record["results"]["why"], &record["results"]["duration"]),
        (&"time_up".into(), &4.0.into())
    );
    // A warm server learns its session from the file.
    assert_eq!(record["results"]["session_id"], session["session_id"]);
}

#[test]
fn a_match_nobody_comes_to_is_ended_by_the_platform() {
    let world = World::new(&fleet("on_crash = \"end\"\njoin_timeout = \"2s\""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let record = record(&up, &session);
    assert_eq!(record["reason"], "never_joined");
    assert_eq!(record["results"]["why"], "terminated");
}

#[test]
fn a_crashed_match_is_over_and_not_begun_anew() {
    let world = World::new(&fleet("on_crash = \"end\""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let mut ann = Line::dial(&session);
    assert_eq!(ann.ask("REQUEST_MATCH 60"), "running");
    let id = session["session_id"].as_str().unwrap();
    let shown = up.ask(&["sessions", "get", id, "--output", "json"]).json();
    // The process's id is in its name; it is nobody's child but its shim's.
    let pid = pid_listening_at(shown["instance"]["address"].as_str().unwrap());
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let record = record(&up, &session);
    assert_eq!(
        (&record["reason"], &record["generation"]),
        (&"crashed".into(), &1.into())
    );
    assert_eq!(record["exit_signal"], 9);
}

/// Whose listening socket this is, by the kernel's tables.
pub(crate) fn pid_listening_at(address: &str) -> i32 {
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let wanted = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let inode = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|f| f.len() > 9 && f[1].ends_with(&wanted) && f[3] == "0A")
        .map(|f| format!("socket:[{}]", f[9]))
        .unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let owns = files
            .flatten()
            .filter_map(|f| std::fs::read_link(f.path()).ok())
            .any(|link| link.to_string_lossy() == inode);
        if owns {
            return pid;
        }
    }
    panic!("nobody listens at {address}");
}

const PAGE: &str = include_str!("../../../../docs/writing-a-tcp-game.md");

/// The page's Python blocks: the game, and the reading of the PROXY header.
fn page_code() -> (&'static str, &'static str) {
    let blocks = PAGE.split("```python\n").skip(1);
    let mut blocks = blocks.map(|b| b.split("```").next().unwrap());
    (blocks.next().unwrap(), blocks.next().unwrap())
}

#[test]
fn the_pages_game_is_played_as_the_page_starts_it() {
    if let Some(program) = missing(&["python3"]) {
        eprintln!("not run: there is no {program} here");
        return;
    }
    let (game, _) = page_code();
    let w = World::new("");
    std::fs::write(w.dir.path().join("score.py"), game).unwrap();
    let words = [
        "run",
        "--output=json",
        "--port=0",
        "--admin-port=0",
        "--sdk-port=0",
        "--protocol",
        "tcp",
        "--",
        "python3",
        "score.py",
    ];
    let mut up = Up::start(&w, &words);
    let session = up.event()["session"].clone();
    let (mut ann, mut ben) = (Line::dial(&session), Line::dial(&session));
    assert_eq!(ann.ask("hello"), "ERROR say: point");
    assert_eq!(ben.ask("point"), "score 1");
    assert_eq!(ann.hear(), "score 1\n");
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
}

#[test]
fn the_pages_game_is_told_who_connects() {
    if let Some(program) = missing(&["python3"]) {
        eprintln!("not run: there is no {program} here");
        return;
    }
    let (game, introduction) = page_code();
    let world = World::new(
        "[[fleet]]\nname = \"score\"\nprotocol = \"tcp\"\nproxy_protocol = true\nrun.command = [\"python3\", \"./score.py\"]\n",
    );
    let begin = "    players.add(writer)\n";
    assert!(game.contains(begin));
    let introduced = game.replace(
        begin,
        "    try:\n        who = await introduction(reader)\n    except EOFError:\n        return writer.close()\n    \
         writer.write(json.dumps(who).encode() + b\"\\n\")\n    players.add(writer)\n",
    );
    std::fs::write(
        world.dir.path().join("score.py"),
        format!("{introduction}\n{introduced}"),
    )
    .unwrap();
    let up = world.up(&[]);
    let session = up.new_game("ann \u{1f9c2}");
    let mut ann = Line::dial(&session);
    ann.say(&format!(
        "SPAWNPOINT {}\n",
        session["token"].as_str().unwrap()
    ));
    let who: Value = serde_json::from_str(&ann.hear()).unwrap();
    assert_eq!(
        (&who["session"], &who["player"], &who["generation"]),
        (&session["session_id"], &"ann \u{1f9c2}".into(), &"1".into())
    );
    assert_eq!(ann.ask("point"), "score 1");
    let id = session["session_id"].as_str().unwrap();
    up.ask(&["sessions", "end", id]).fine();
    assert_eq!(
        record(&up, &session)["results"],
        serde_json::json!({"score": 1})
    );
}
