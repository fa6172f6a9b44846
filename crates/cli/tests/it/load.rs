//! `spawnpoint load` against the real server, real games and real signals.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::world::{Called, Up, World, arena, eventually, spice};

/// The TCP game, with matches of so many players.
fn matches_of(players: usize, more: &str) -> String {
    format!(
        "[[fleet]]\nname = \"arena\"\nrun.command = [{:?}]\nprotocol = \"tcp\"\non_crash = \"end\"\n{more}\n\
         [[queue]]\nfleet = \"arena\"\nsession_size = {players}\nflush_wait = \"1s\"\n",
        arena().display().to_string()
    )
}

/// A load test of this server, not started.
fn load(world: &World, up: &Up<'_>, words: &[&str]) -> Command {
    let mut command = world.command(&["load"]);
    command
        .env("TARGET_URL", up.ready["url"].as_str().unwrap())
        .args(words);
    command
}

fn finished(mut command: Command) -> Called {
    Called::from(command.output().unwrap())
}

fn report(called: &Called) -> Value {
    serde_json::from_str(&called.out).unwrap_or_else(|e| panic!("{e}: {called:#?}"))
}

#[test]
fn two_hundred_clients_play_and_the_records_agree() {
    let world = World::new(&matches_of(10, ""));
    let up = world.up(&[]);
    let mut command = load(&world, &up, &["--output", "json", "--report", "load.html"]);
    command.env("CLIENTS", "200").env("MATCH_DURATION", "1.5");
    let called = finished(command).fine();
    let report = report(&called);
    assert_eq!(report["clients"]["done"], 200, "{called:#?}");
    assert_eq!(report["matches"], 20);
    assert_eq!(report["records"]["found"], 20);
    assert_eq!(report["records"]["mismatched"], 0);
    assert_eq!(report["config"]["fleet"], "arena");
    for phase in report["phases"].as_array().unwrap() {
        assert_eq!(phase["passed"], 200, "{phase}");
    }
    assert!(report["round_trip"]["count"].as_u64().unwrap() >= 200);
    assert!(report["tester"]["cpu_s"].as_f64().unwrap() > 0.0);
    // What the tester says of the records is what the records say.
    let listed = up
        .ask(&["matches", "ls", "--fleet", "arena", "--output", "json"])
        .json();
    let listed = listed["matches"].as_array().unwrap();
    assert_eq!(listed.len(), 20);
    for record in listed {
        assert_eq!(record["players"].as_array().unwrap().len(), 10);
        assert_eq!(record["results"]["duration"], 1.5, "{record}");
        let session = &record["session_id"];
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(
            rows.iter()
                .filter(|row| row["session_id"] == *session)
                .count(),
            10
        );
    }
    asked_of_the_api(&up, &report);
    let page = std::fs::read_to_string(world.dir.path().join("load.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("passed"));
}

/// Who plays over TCP asks nothing of the API meanwhile: it joins, waits and ends, as docs/load-testing.md says. What the clients have
/// counted is what the server counted.
#[track_caller]
fn asked_of_the_api(up: &Up<'_>, report: &Value) {
    let requests = &report["requests"];
    let number = |of: &Value| of.as_u64().unwrap_or_else(|| panic!("{requests}"));
    assert_eq!(number(&requests["playing"]), 0, "{requests}");
    assert_eq!(requests["per_player_s"], 0.0, "{requests}");
    let calls = &requests["calls"];
    let (joins, ends) = ("POST /api/match/join", "POST /api/match/{id}/end");
    assert_eq!((number(&calls[joins]), number(&calls[ends])), (200, 200));
    let waits = number(&calls["GET /api/match/status"]);
    // A question is held for 25 s, and the last player of a match need not ask at all; whose connection ends before the match's time has
    // passed for them asks whether it is over.
    assert!((1..=600).contains(&waits), "{requests}");
    for row in report["rows"].as_array().unwrap() {
        assert!((2..=6).contains(&number(&row["requests"])), "{row}");
    }
    let url = format!("{}/metrics", up.ready["admin_url"].as_str().unwrap());
    let metrics = ureq::get(url).call().unwrap().body_mut().read_to_string();
    let counted = format!(
        "spawnpoint_http_requests_total{{listener=\"public\"}} {}\n",
        number(&requests["total"]) + number(&requests["own"])
    );
    let metrics = metrics.unwrap();
    assert!(metrics.contains(&counted), "{counted}{metrics}");
}

#[test]
fn an_odd_one_out_plays_in_a_partial_match_and_all_end_by_themselves() {
    let world = World::new(&matches_of(2, ""));
    let up = world.up(&[]);
    let words = ["--clients", "9", "--match-duration", "1", "--wait-only"];
    let called = finished(load(&world, &up, &words)).fine();
    assert!(
        called
            .out
            .contains("9 clients, all at once; 1 s matches; 5 matches"),
        "{called:#?}"
    );
    assert!(
        called
            .out
            .contains("records: 5 of 5 sessions have one, ended_by_server 5"),
        "{called:#?}"
    );
    assert!(called.out.contains("failures: none") && called.out.trim_end().ends_with("passed"));
}

#[test]
fn refused_matches_fail_the_run_and_are_named() {
    // One game at a time, and nobody waits long for it.
    let world = World::new(&matches_of(2, "max_instances = 1\nqueue_timeout = \"1s\""));
    let up = world.up(&[]);
    let words = [
        "--clients",
        "4",
        "--match-duration",
        "3",
        "--timeout",
        "20",
        "--output",
        "json",
    ];
    let called = finished(load(&world, &up, &words));
    assert_eq!(called.code, Some(1), "{called:#?}");
    let report = report(&called);
    assert_eq!(report["verdict"]["passed"], false);
    let tally = &report["clients"];
    assert_eq!(
        tally["done"].as_u64().unwrap() + tally["failed"].as_u64().unwrap(),
        4
    );
    assert_eq!(tally["failed"], 2, "{called:#?}");
    let cause = report["verdict"]["causes"][0].as_str().unwrap();
    assert!(cause.starts_with("2 of 4 clients failed in "), "{cause}");
    assert!(called.err.contains(cause), "{called:#?}");
}

#[test]
fn a_server_that_stands_still_for_five_seconds_cannot_hide_it() {
    let world = World::new(&matches_of(4, ""));
    let up = world.up(&[]);
    let words = [
        "--clients",
        "80",
        "--spawn-rate",
        "20",
        // Longer than the stop: who is late has still a match to come to.
        "--match-duration",
        "8",
        "--poll",
        "0.5",
        "--output",
        "json",
    ];
    let mut tester = load(&world, &up, &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first are playing, most are still to come.
    eventually("somebody plays", || {
        let sessions = up.ask(&["sessions", "ls", "--output", "json"]).json();
        (sessions["total"].as_u64()? >= 3).then_some(())
    });
    up.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(5));
    up.signal(Signal::CONT);
    let mut out = String::new();
    std::io::Read::read_to_string(tester.stdout.as_mut().unwrap(), &mut out).unwrap();
    let status = tester.wait().unwrap();
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status.code(), Some(0), "{}", report["verdict"]);
    let p99 = |of: &Value| of["p99_ms"].as_f64().unwrap();
    let queue = &report["phases"][0]["times"];
    assert!(p99(queue) >= 4000.0, "{queue}");
    assert!(
        p99(&report["round_trip"]) >= 4000.0,
        "{}",
        report["round_trip"]
    );
    // Starts went on as they were meant to.
    assert!(p99(&report["tester"]["start_lag"]) < 4000.0);
}

#[test]
fn ctrl_c_ends_early_with_a_summary_and_leaves_nothing() {
    let world = World::new(&matches_of(2, ""));
    let up = world.up(&[]);
    let words = ["--clients", "21", "--match-duration", "60"];
    let tester = load(&world, &up, &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let live = || {
        let sessions = up.ask(&["sessions", "ls", "--output", "json"]).json();
        sessions["total"].as_u64().unwrap()
    };
    eventually("all play", || (live() >= 11).then_some(()));
    let pid = Pid::from_raw(tester.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let called = Called::from(tester.wait_with_output().unwrap());
    assert_eq!(called.code, Some(1), "{called:#?}");
    assert!(called.out.contains("21 interrupted"), "{called:#?}");
    assert!(
        called
            .out
            .contains("ended early: 21 of 21 clients were not finished"),
        "{called:#?}"
    );
    eventually("all have ended", || (live() == 0).then_some(()));
}

#[test]
fn spice_is_played_over_websocket() {
    let fleets = format!(
        "[[fleet]]\nname = \"spice\"\nrun.command = [{:?}]\n",
        spice().display().to_string()
    );
    let world = World::new(&fleets);
    let up = world.up(&[]);
    let words = [
        "--mode",
        "websocket",
        "--clients",
        "6",
        // A heartbeat when it begins and one after 5 s, which may come almost 3 s late.
        "--match-duration",
        "8",
        "--poll",
        "0.25",
        "--output",
        "json",
    ];
    let called = finished(load(&world, &up, &words)).fine();
    let report = report(&called);
    assert_eq!(report["clients"]["done"], 6, "{called:#?}");
    assert_eq!(report["config"]["fleet"], "spice");
    assert!(report["round_trip"]["count"].as_u64().unwrap() >= 12);
    assert!(
        report["input_to_state"]["count"].as_u64().unwrap() >= 6,
        "{}",
        report["input_to_state"]
    );
    assert_eq!(report["records"]["reasons"]["ended_by_client"], 3);
    // The documented figure: a heartbeat each 5 s and no other request while playing, 0.2 a second, with the first one at once.
    let requests = &report["requests"];
    for row in report["rows"].as_array().unwrap() {
        let playing = row["requests_playing"].as_u64().unwrap();
        assert!((1..=2).contains(&playing), "{row}");
    }
    let beats = &requests["calls"]["POST /api/sessions/{id}/heartbeat"];
    assert_eq!(&requests["playing"], beats, "{requests}");
    let rate = requests["per_player_s"].as_f64().unwrap();
    assert!((0.1..=0.3).contains(&rate), "{requests}");
}

#[test]
fn games_at_their_own_port_are_dialled_directly() {
    let world = World::new(&matches_of(2, "expose = \"host_port\""));
    let up = world.up(&[]);
    let words = [
        "--clients",
        "6",
        "--match-duration",
        "1",
        "--output",
        "json",
    ];
    let mut command = load(&world, &up, &words);
    command.env("GAME_SERVER_HOST_OVERRIDE", "127.0.0.1");
    let called = finished(command).fine();
    assert_eq!(report(&called)["records"]["found"], 3, "{called:#?}");
}

#[test]
fn numbers_that_cannot_be_are_refused_with_their_flag() {
    let world = World::new("");
    for (variable, flag, bad) in [
        ("CLIENTS", "--clients", &["0", "-1", "abc", "1.5"][..]),
        ("SPAWN_RATE", "--spawn-rate", &["-1", "abc", "inf"]),
        (
            "MATCH_DURATION",
            "--match-duration",
            &["0", "-1", "abc", "NaN"],
        ),
        ("TARGET_URL", "--target-url", &["localhost:8080", "ftp://x"]),
    ] {
        for value in bad {
            let mut command = world.command(&["load"]);
            command.env(variable, value);
            let called = finished(command);
            assert_eq!(called.code, Some(2), "{variable}={value}: {called:#?}");
            assert!(
                called.err.contains(flag) && called.err.contains(value),
                "{called:#?}"
            );
            let given = format!("{flag}={value}");
            assert_eq!(world.call(&["load", &given]).code, Some(2), "{given}");
        }
    }
    let help = world.call(&["load", "--help"]).fine().out;
    for (variable, default) in [
        ("CLIENTS", "50"),
        ("TARGET_URL", "http://localhost:8080"),
        ("MATCH_DURATION", "30.0"),
        ("SPAWN_RATE", "0"),
    ] {
        // The value in the brackets is the variable's own, if it is set.
        assert!(help.contains(&format!("[env: {variable}=")), "{help}");
        assert!(help.contains(&format!("[default: {default}]")), "{help}");
    }
    assert!(help.contains("[env: GAME_SERVER_HOST_OVERRIDE="), "{help}");
}

#[test]
fn nobody_there_is_exit_3_and_too_few_files_are_advice() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let world = World::new("");
    let called = world.call(&["load", "--target-url", &url]);
    assert_eq!(called.code, Some(3), "{called:#?}");
    assert!(
        called.err.contains(&url) && called.err.contains("spawnpoint up"),
        "{called:#?}"
    );
    let mut limited = Command::new("sh");
    let line = format!(
        "ulimit -n 100; exec {} load --clients 5000",
        env!("CARGO_BIN_EXE_spawnpoint")
    );
    limited.args(["-c", &line]).env("CLIENTS", "1");
    let called = finished(limited);
    assert_eq!(called.code, Some(2), "{called:#?}");
    // The flag wins over the variable.
    assert!(
        called.err.contains("5000 clients need 10064 open files"),
        "{called:#?}"
    );
    assert!(called.err.contains("ulimit -n 10064"), "{called:#?}");
}

/// A TLS front in the way of many deployments.
async fn front(listener: TcpListener, acceptor: TlsAcceptor, to: String) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, to) = (acceptor.clone(), to.clone());
        connections.spawn(async move {
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut tls, &mut server).await;
            }
        });
    }
}

#[test]
fn https_with_an_authority_of_ones_own() {
    let world = World::new(&matches_of(2, ""));
    let up = world.up(&[]);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authority = world.dir.path().join("authority.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let to = up.ready["url"].as_str().unwrap();
    let port = to.rsplit(':').next().unwrap().trim_end_matches('/');
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = executor.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    executor.spawn(front(
        listener,
        TlsAcceptor::from(Arc::new(config)),
        format!("127.0.0.1:{port}"),
    ));
    let words = [
        "load",
        "--clients",
        "4",
        "--match-duration",
        "1",
        "--target-url",
        &url,
    ];
    let mut trusting = world.command(&words);
    trusting.env("SSL_CERT_FILE", &authority);
    finished(trusting).fine();
    let called = world.call(&words);
    assert_eq!(
        called.code,
        Some(3),
        "a certificate of nobody's: {called:#?}"
    );
    assert!(called.err.contains("certificate"), "{called:#?}");
}

#[test]
fn a_killed_server_that_comes_back_costs_no_match() {
    let world = World::new(&matches_of(2, "run.env = { EMPTY_GRACE = \"30\" }"));
    let mut up = world.up(&[]);
    let public = up.ready["url"].as_str().unwrap().to_owned();
    let port = public
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let words = [
        "--clients",
        "20",
        "--match-duration",
        "8",
        "--reconnect",
        "30",
        "--output",
        "json",
    ];
    let tester = load(&world, &up, &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("all play", || {
        let sessions = up
            .ask(&["sessions", "ls", "--phase", "running", "--output", "json"])
            .json();
        (sessions["total"].as_u64()? == 10).then_some(())
    });
    up.signal(Signal::KILL);
    let _ = up.wait();
    // On the same port: that is where the players look for it.
    up = world.up(&["--port", &port]);
    let called = Called::from(tester.wait_with_output().unwrap()).fine();
    let report = report(&called);
    assert_eq!(report["clients"]["done"], 20, "{called:#?}");
    assert!(report["reconnects"].as_u64().unwrap() >= 20, "{called:#?}");
    assert_eq!(report["records"]["found"], 10);
    drop(up);
}

#[test]
fn a_progress_bar_is_for_terminals_only() {
    let world = World::new(&matches_of(2, ""));
    let up = world.up(&[]);
    let mut tester = load(&world, &up, &["--clients", "2", "--match-duration", "0.5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said: Vec<String> = BufReader::new(tester.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert!(tester.wait().unwrap().success());
    assert_eq!(said, Vec::<String>::new());
}

/// Five thousand clients need so many files each, and some besides; a machine that allows fewer is given fewer.
#[allow(clippy::print_stderr)] // a test that does less says so
fn as_many_as_allowed() -> usize {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let allowed = hard
        .map_or(5_000, |files| files.saturating_sub(64) / 2)
        .min(5_000);
    if allowed < 5_000 {
        eprintln!("only {allowed} clients instead of 5000: this machine allows no more open files");
    }
    usize::try_from(allowed).unwrap()
}

#[test]
fn five_thousand_clients_finish_and_the_tester_says_what_it_took() {
    let world = World::new(&matches_of(25, ""));
    // More matches than this process has ports for its other tests.
    let ports = [("SPAWNPOINT_INSTANCE_PORTS", "24000-24999")];
    let up = Up::start_with(&world, &["up", "--output", "json"], &ports);
    let clients = as_many_as_allowed();
    let number = clients.to_string();
    let words = [
        "--clients",
        &number,
        "--spawn-rate",
        "125",
        "--match-duration",
        "5",
        "--poll",
        "5",
        "--wait-only",
        // However slow this machine and whatever else it does.
        "--timeout",
        "300",
        "--output",
        "json",
    ];
    let called = finished(load(&world, &up, &words));
    let report = report(&called);
    assert_eq!(called.code, Some(0), "{}", report["verdict"]);
    assert_eq!(report["clients"]["done"], clients, "{}", report["faults"]);
    let matches = clients.div_ceil(25);
    assert!(report["matches"].as_u64().unwrap() >= matches as u64);
    assert_eq!(report["records"]["found"], report["matches"]);
    // What it took itself stands beside: it is one process of a few threads, and far from being a processor's worth for each client.
    let tester = &report["tester"];
    let cpu = tester["cpu_s"].as_f64().unwrap();
    let share = tester["cpu_share"].as_f64().unwrap();
    assert!(cpu > 0.0 && share > 0.0 && share <= 1.0, "{tester}");
    let each = cpu * 1000.0 / clients as f64;
    assert!(each < 50.0, "{each} ms of processor a client: {tester}");
    assert_eq!(tester["start_lag"]["count"], clients, "{tester}");
}
