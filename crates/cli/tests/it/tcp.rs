//! A match over raw TCP from the call to the record, through the gateway, and over a `kill -9` in its middle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Up, World, arena, eventually};

fn fleet(more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"arena\"\nprotocol = \"tcp\"\nrun.command = [{:?}]\n{more}",
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

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.hear()
    }
}

fn record(up: &Up<'_>, id: &str) -> Value {
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
    assert_eq!(alice.ask("GET_STATE\n"), "open\n");
    let token = session["token"].as_str().unwrap();
    let mut named = Line::dial(&session);
    named.say(&format!("SPAWNPOINT {token}\nGET_STATE\n"));
    assert_eq!(named.hear(), "open\n");
    let mut stranger = Line::dial(&session);
    assert_eq!(
        stranger.ask("SPAWNPOINT v4.public.guess\n"),
        "ERROR invalid_credentials\n"
    );
    assert_eq!(stranger.hear(), "", "and the end");
    let shown = up.ask(&["sessions", "get", id]).fine().out;
    assert!(shown.contains("alice"), "{shown}");
    assert_eq!(alice.ask("REQUEST_MATCH 1\n"), "running\n");
    assert_eq!(named.ask("REQUEST_MATCH 99\n"), "running\n");
    for client in [&mut alice, &mut named] {
        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "an end like the game's own");
    }
    let record = record(&up, id);
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
    assert_eq!(before.ask("REQUEST_MATCH 3600\n"), "running\n");
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
    assert_eq!(after.ask("GET_STATE\n"), "running\n", "the same match");
    up.ask(&["sessions", "end", id]).fine();
    assert_eq!(after.hear(), "", "its end is heard");
    assert_eq!(record(&up, id)["reason"], "ended_by_client");
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
    assert_eq!(Line::dial(&session).ask("GET_STATE\n"), "open\n");
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
}
