//! The bundled TCP game as a fleet: how its own end and the platform's rules meet.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Up, World, arena, eventually};

fn fleet(env: &str, more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"arena\"\nrun = {{ command = [{:?}], env = {{ {env} }} }}\nprotocol = \"tcp\"\non_crash = \"end\"\n{more}\n",
        arena().display().to_string()
    )
}

/// A player at a session's own port.
struct Player {
    tcp: BufReader<TcpStream>,
}

impl Player {
    fn dial(session: &Value) -> Self {
        let port = u16::try_from(session["connect_port"].as_u64().unwrap()).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut player = Self {
            tcp: BufReader::new(tcp),
        };
        let line = format!("SPAWNPOINT {}\n", session["token"].as_str().unwrap());
        player.tcp.get_mut().write_all(line.as_bytes()).unwrap();
        player
    }

    fn ask(&mut self, line: &str) -> String {
        let line = format!("{line}\n");
        self.tcp.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.tcp.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

fn record(up: &Up<'_>, session: &Value) -> Value {
    let id = session["session_id"].as_str().unwrap();
    eventually("it is recorded", || {
        let called = up.ask(&["matches", "get", id, "--output", "json"]);
        (called.code == Some(0)).then(|| called.json())
    })
}

#[test]
fn exit_0_ends_the_session_whatever_grace_the_platform_would_give() {
    let world = World::new(&fleet("", "reconnect_grace = \"10m\""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let mut ann = Player::dial(&session);
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
    let world = World::new(&fleet("EMPTY_GRACE = \"60\"", "warm = 1"));
    let up = world.up(&[]);
    eventually("one is warm", || {
        let fleet = up
            .ask(&["fleets", "get", "arena", "--output", "json"])
            .json();
        (fleet["warm"] == 1).then_some(())
    });
    let session = up.new_game("ann");
    let mut ann = Player::dial(&session);
    assert_eq!(ann.ask("GET_STATE"), "open");
    assert_eq!(ann.ask("REQUEST_MATCH 4"), "running");
    drop(ann);
    let mut again = Player::dial(&session);
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
    let world = World::new(&fleet("", "join_timeout = \"2s\""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let record = record(&up, &session);
    assert_eq!(record["reason"], "never_joined");
    assert_eq!(record["results"]["why"], "terminated");
}

#[test]
fn a_crashed_match_is_over_and_not_begun_anew() {
    let world = World::new(&fleet("", ""));
    let up = world.up(&[]);
    let session = up.new_game("ann");
    let mut ann = Player::dial(&session);
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
fn pid_listening_at(address: &str) -> i32 {
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
