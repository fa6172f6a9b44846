//! Games of different kinds and in numbers: many beside each other, jobs, none at all, and from another address of the machine.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::tcp::pid_listening_at;
use crate::world::{Called, Socket, Up, World, connect, eventually, spice};

fn game(more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"spice\"\nrun = {{ command = [{:?}] }}\n{more}\n",
        spice().display().to_string()
    )
}

fn text<'v>(v: &'v Value, field: &str) -> &'v str {
    v[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {v:#}"))
}

fn live(up: &Up<'_>) -> Vec<Value> {
    let list = up.ask(&["sessions", "ls", "-o", "json"]).json();
    list["sessions"].as_array().unwrap().clone()
}

fn record(up: &Up<'_>, id: &str) -> Value {
    eventually("the record", || {
        let called = up.ask(&["matches", "get", id, "-o", "json"]);
        (called.code == Some(0)).then(|| called.json())
    })
}

/// Messages of the game keep coming: this many more.
fn hears(socket: &mut Socket, messages: usize) {
    for _ in 0..messages {
        let heard = socket.read().unwrap();
        assert!(!heard.is_close(), "{heard:?}");
    }
}

/// One request, as a browser's address line makes it.
fn get(url: &str, path: &str) -> String {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn half_of_the_games_crash_and_the_others_play_on() {
    const GAMES: usize = 20;
    let w = World::new(&game("on_crash = \"end\""));
    let up = w.up(&[]);
    let mut games: Vec<(Value, Socket)> = (0..GAMES)
        .map(|n| {
            let session = up.new_game(&format!("p{n}"));
            let socket = connect(text(&session, "wsUrl"));
            (session, socket)
        })
        .collect();
    for (_, socket) in &mut games {
        hears(socket, 1);
    }
    let shown = live(&up);
    assert_eq!(shown.len(), GAMES);
    let crashing: BTreeSet<&str> = shown
        .iter()
        .step_by(2)
        .map(|s| text(s, "session_id"))
        .collect();
    for session in shown.iter().step_by(2) {
        let pid = pid_listening_at(text(&session["instance"], "address"));
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    for (session, socket) in &mut games {
        if !crashing.contains(text(session, "session_id")) {
            hears(socket, 30);
        }
    }
    for id in &crashing {
        assert_eq!(record(&up, id)["reason"], "crashed");
    }
    let left = live(&up);
    assert_eq!(left.len(), GAMES / 2);
    for session in left {
        assert_eq!(
            (&session["generation"], text(&session, "phase")),
            (&1.into(), "running")
        );
    }
}

#[test]
fn nothing_runs_while_nobody_plays() {
    let w = World::new(&game(""));
    let up = w.up(&[]);
    let processes = || {
        let instances = w.dir.path().join(".spawnpoint/instances");
        std::fs::read_dir(instances).map_or(0, Iterator::count)
    };
    let page = get(text(&up.ready, "url"), "/play");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let fleet = || up.ask(&["fleets", "get", "spice", "-o", "json"]).json();
    let idle = fleet();
    for none in ["warm", "starting", "claimed", "queued"] {
        assert_eq!(idle[none], 0, "{none}: {idle:#}");
    }
    assert_eq!((live(&up).len(), processes()), (0, 0));
    // The first one wakes it, and the last one's end puts it to sleep.
    let session = up.new_game("alice");
    hears(&mut connect(text(&session, "wsUrl")), 1);
    assert_eq!((live(&up).len(), processes()), (1, 1));
    assert_eq!(fleet()["claimed"], 1);
    up.ask(&["sessions", "end", text(&session, "session_id")])
        .fine();
    eventually("nothing runs again", || {
        (live(&up).is_empty() && processes() == 0).then_some(())
    });
    assert_eq!(fleet()["claimed"], 0);
}

#[test]
fn ten_games_and_the_api_have_ports_of_their_own() {
    let w = World::new(&game("warm = 2"));
    let up = w.up(&[]);
    let api: u16 = text(&up.ready, "url")
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for n in 0..10 {
        up.new_game(&format!("p{n}"));
    }
    let ports: BTreeSet<u16> = live(&up)
        .iter()
        .map(|s| {
            text(&s["instance"], "address")
                .parse::<SocketAddr>()
                .unwrap()
                .port()
        })
        .collect();
    assert_eq!(ports.len(), 10);
    assert!(!ports.contains(&api));
    assert!(ports.iter().all(|p| (20_000..25_000).contains(p)));
}

#[test]
fn cold_starts_are_dialled_at_once_and_none_fails() {
    const GAMES: usize = 12;
    let slow = format!("sleep 0.5; exec {}", spice().display());
    let w = World::new(&format!(
        "[[fleet]]\nname = \"spice\"\nrun = {{ command = [\"sh\", \"-c\", {slow:?}] }}\n"
    ));
    let up = w.up(&[]);
    std::thread::scope(|scope| {
        for n in 0..GAMES {
            let up = &up;
            scope.spawn(move || {
                let player = format!("p{n}");
                let new = up.ask(&["new", "--player", &player, "-o", "json"]).json();
                assert_eq!(new["ready"], false, "it does not run yet");
                hears(&mut connect(text(&new, "wsUrl")), 1);
            });
        }
    });
    let mut metrics = get(text(&up.ready, "admin_url"), "/metrics");
    metrics.retain(|c| c != '\r');
    let failed: Vec<&str> = metrics
        .lines()
        .filter(|l| l.starts_with("spawnpoint_problems_total") && !l.ends_with(" 0"))
        .collect();
    assert_eq!(failed, Vec::<&str>::new());
}

#[test]
fn a_job_that_never_listens_keeps_its_exit_code_and_its_log() {
    let job = |name: &str, script: &str| {
        format!(
            "[[fleet]]\nname = {name:?}\nready = \"none\"\non_crash = \"end\"\n\
             run = {{ command = [\"sh\", \"-c\", {script:?}] }}\n"
        )
    };
    // Each works until it is let go.
    let directory = tempfile::tempdir().unwrap();
    let let_go = directory.path().join("go");
    let script = |end: &str| {
        let go = let_go.display();
        format!("echo compiling; while [ ! -e {go} ]; do sleep 0.05; done; {end}")
    };
    let built = job("build", &script("echo linked >&2; exit 0"));
    let broken = job("broken", &script("echo cannot >&2; exit 7"));
    let w = World::new(&format!("{built}{broken}"));
    let up = w.up(&[]);
    let jobs = [
        ("build", "ended_by_server", 0, "linked"),
        ("broken", "crashed", 7, "cannot"),
    ]
    .map(|expected| {
        let words = ["new", "--fleet", expected.0, "--player", expected.0];
        let more = ["--wait", "30", "-o", "json"];
        (expected, up.ask(&[&words[..], &more[..]].concat()).json())
    });
    std::fs::write(&let_go, "").unwrap();
    for ((_, reason, code, said), session) in jobs {
        assert_eq!(session["ready"], true, "without listening anywhere");
        let record = record(&up, text(&session, "session_id"));
        assert_eq!(
            (text(&record, "reason"), &record["exit_code"]),
            (reason, &code.into())
        );
        let log = text(&record, "log_tail");
        assert!(log.contains("compiling") && log.contains(said), "{log}");
    }
}

#[test]
fn fifty_changes_of_the_file_cut_no_connection() {
    let with = |n: usize| {
        let other = game("").replace("\"spice\"\nrun", &format!("\"other-{n}\"\nrun"));
        format!("{}{other}", game(""))
    };
    let w = World::new(&with(0));
    let up = w.up(&[]);
    let session = up.new_game("alice");
    let mut socket = connect(text(&session, "wsUrl"));
    for n in 1..=50 {
        w.configure(&with(n));
        let other = format!("other-{n}");
        eventually("the change", || {
            (up.ask(&["fleets", "get", &other]).code == Some(0)).then_some(())
        });
        hears(&mut socket, 1);
    }
    let shown = live(&up);
    assert_eq!((shown.len(), &shown[0]["generation"]), (1, &Value::from(1)));
}

/// An address of this machine that is not loopback; where there is no network, another loopback address.
fn own_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // Nothing is sent: this only asks which address would be used.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
}

#[test]
fn by_the_machines_own_address_guests_play_and_strangers_do_not_name_players() {
    let secret = "0123456789abcdefXYZ";
    let w = World::new(&format!(
        "keys = [\"ci:{secret}\"]\nguests = true\n{}",
        game("access = [\"guest\", \"key\"]")
    ));
    let up = w.up(&["--host", "0.0.0.0"]);
    let port = text(&up.ready, "url")
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let url = format!("http://{}:{port}", own_address());
    let post = |body: &str| {
        let out = std::process::Command::new("curl")
            .args(["-sS", "-d", body, &format!("{url}/api/new-game?wait=30")])
            .output()
            .unwrap();
        Called::from(out).json()
    };
    assert_eq!(post(r#"{"playerId":"admin"}"#)["code"], "unauthenticated");
    let guest = post("{}");
    assert!(text(&guest, "player_id").starts_with("guest-"), "{guest:#}");
    let address = text(&guest, "wsUrl");
    assert!(
        address.starts_with(&url.replacen("http", "ws", 1)),
        "{address}"
    );
    hears(&mut connect(address), 1);
    // A load test comes with a key.
    let words = [
        "load",
        "--mode",
        "websocket",
        "--clients",
        "4",
        "--match-duration",
        "1",
        "--output",
        "json",
    ];
    let mut load = w.command(&words);
    load.env("TARGET_URL", &url);
    let refused = Called::from(load.output().unwrap());
    assert_ne!(refused.code, Some(0), "{refused:?}");
    load.env("SPAWNPOINT_KEY", secret);
    let report = Called::from(load.output().unwrap()).json();
    assert_eq!(report["clients"]["done"], 4, "{report:#}");
    assert!(!up.log().contains(secret));
}
