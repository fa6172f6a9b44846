//! The real binary over real sockets: what a gateway, a player, a load tester and a hostile stranger would do to it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail loudly

mod crowd;
mod identity;
mod server;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use server::Server;

#[test]
fn one_match_from_open_to_exit() {
    let server = Server::start(&[("SESSION_ID", "s1")]);
    let (mut ann, mut bob) = (server.dial(), server.dial());
    assert_eq!(ann.ask("GET_STATE"), "open\n");
    assert_eq!(bob.ask("GET_STATE"), "open\n");
    assert_eq!(ann.ask("REQUEST_MATCH 0.4"), "running\n");
    assert_eq!(bob.ask("REQUEST_MATCH 99"), "running\n");
    // Nobody is told unasked; who asks hears `stop` before the server hangs up.
    let mut heard = bob.ask("GET_STATE");
    while heard == "running\n" {
        heard = bob.ask("GET_STATE");
    }
    assert_eq!(heard, "stop\n");
    assert_eq!(bob.ask("REQUEST_MATCH 5"), "stop\n");
    assert_eq!(server.dial().ask("GET_STATE"), "stop\n");
    assert_eq!(ann.rest(), "");
    let (code, log, results) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(results["session_id"], "s1");
    assert_eq!(
        (&results["why"], &results["state"]),
        (&"time_up".into(), &"stop".into())
    );
    assert_eq!(results["duration"], 0.4);
    assert_eq!(
        (&results["clients"], &results["most_at_once"]),
        (&2.into(), &2.into())
    );
}

#[test]
fn pieces_and_line_ends_do_not_matter() {
    let server = Server::start(&[]);
    let mut keeper = server.dial();
    assert_eq!(keeper.ask("GET_STATE"), "open\n");
    let said = b"GET_STATE\r\nGET_STATE\nnonsense\r\nGET_STATE\n";
    let heard = |client: &mut server::Client| (0..4).map(|_| client.line()).collect::<Vec<_>>();
    let whole = {
        let mut client = server.dial();
        client.send(said);
        heard(&mut client)
    };
    assert_eq!(
        (&*whole[0], &*whole[1], &*whole[3]),
        ("open\n", "open\n", "open\n")
    );
    assert!(whole[2].starts_with("ERROR unknown_command: "), "{whole:?}");
    for cut in 1..said.len() {
        let mut client = server.dial();
        client.send(&said[..cut]);
        client.send(&said[cut..]);
        assert_eq!(heard(&mut client), whole, "cut at {cut}");
    }
    let mut client = server.dial();
    for byte in said {
        client.send([*byte]);
    }
    assert_eq!(heard(&mut client), whole);
}

#[test]
fn a_durations_nonsense_leaves_the_match_open() {
    let server = Server::start(&[]);
    let mut client = server.dial();
    for bad in [
        "0", "-1", "1e12", "NaN", "inf", "-inf", "text", "", "3600.1", "5 5", "1e-9",
    ] {
        let answer = client.ask(&format!("REQUEST_MATCH {bad}"));
        assert!(
            answer.starts_with("ERROR bad_duration: "),
            "{bad}: {answer}"
        );
        assert_eq!(client.ask("GET_STATE"), "open\n", "{bad}");
    }
    assert_eq!(client.ask("REQUEST_MATCH 3600"), "running\n");
}

#[test]
fn a_megabyte_without_an_end_is_one_error_and_the_connection_lives() {
    let server = Server::start(&[]);
    let mut client = server.dial();
    client.send(vec![b'x'; 1 << 20]);
    assert!(client.line().starts_with("ERROR line_too_long: "));
    client.send("still the same line\r\nGET_STATE\n");
    assert_eq!(client.line(), "open\n");
    assert!(
        server.resident_kib() < 16 * 1024,
        "{}",
        server.resident_kib()
    );
}

#[test]
fn random_bytes_are_answered_and_survived() {
    let mut server = Server::start(&[("ARENA_MAX_CLIENTS", "10000"), ("EMPTY_GRACE", "60")]);
    let config = Config::with_cases(300);
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let bytes = prop::collection::vec(
        prop_oneof![4 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b' ')],
        0..2000,
    );
    let outcome = runner.run(&bytes, |bytes| {
        let mut client = server.dial();
        client.send(&bytes);
        client.send("\nGET_STATE\n");
        client.finish();
        let heard = client.rest();
        let mut lines: Vec<&str> = heard.lines().collect();
        prop_assert_eq!(lines.pop(), Some("open"));
        prop_assert!(
            lines.iter().all(|line| line.starts_with("ERROR ")),
            "{:?}",
            lines
        );
        Ok(())
    });
    outcome.unwrap();
    assert!(server.is_running());
}

#[test]
fn of_two_who_race_one_fixes_the_duration_for_both() {
    for _ in 0..10 {
        let server = Server::start(&[]);
        let barrier = std::sync::Barrier::new(2);
        let answers: Vec<String> = std::thread::scope(|scope| {
            let race = |seconds: &'static str| {
                let (mut client, barrier) = (server.dial(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let answer = client.ask(&format!("REQUEST_MATCH {seconds}"));
                    client.rest();
                    answer
                })
            };
            let (short, long) = (race("0.2"), race("0.3"));
            vec![short.join().unwrap(), long.join().unwrap()]
        });
        assert_eq!(answers, ["running\n", "running\n"]);
        let (code, _, results) = server.end();
        assert_eq!(code, Some(0));
        let (duration, played) = (&results["duration"], results["played"].as_f64().unwrap());
        assert!(*duration == 0.2 || *duration == 0.3, "{results}");
        assert!(
            played >= duration.as_f64().unwrap(),
            "never early: {results}"
        );
        assert_eq!(results["why"], "time_up");
    }
}

#[test]
fn when_all_clients_have_left_it_exits_0() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.dial(), server.dial());
    assert_eq!(ann.ask("REQUEST_MATCH 3600"), "running\n");
    assert_eq!(bob.ask("GET_STATE"), "running\n");
    drop(ann);
    assert_eq!(bob.ask("GET_STATE"), "running\n");
    drop(bob);
    let (code, _, results) = server.end();
    assert_eq!((code, &results["why"]), (Some(0), &"empty".into()));
}

#[test]
fn the_answer_to_who_only_asks_comes_before_the_end() {
    // printf 'GET_STATE\n' | nc -N
    let server = Server::start(&[]);
    let mut client = server.dial();
    client.send("GET_STATE\nREQUEST_MATCH 9\n");
    client.finish();
    assert_eq!(client.rest(), "open\nrunning\n");
    let (code, _, results) = server.end();
    assert_eq!((code, &results["why"]), (Some(0), &"empty".into()));
}

#[test]
fn who_never_said_anything_valid_is_no_client() {
    let server = Server::start(&[]);
    drop(server.dial());
    let mut stranger = server.dial();
    assert!(stranger.ask("HELLO").starts_with("ERROR "));
    drop(stranger);
    let silent = server.dial();
    let mut client = server.dial();
    assert_eq!(client.ask("GET_STATE"), "open\n");
    drop(client);
    let (code, _, results) = server.end();
    drop(silent);
    assert_eq!(code, Some(0));
    assert_eq!(
        (&results["clients"], &results["connections"]),
        (&1.into(), &4.into())
    );
}

#[test]
fn within_the_grace_a_match_waits_for_who_lost_the_network() {
    let server = Server::start(&[("EMPTY_GRACE", "60")]);
    let mut ann = server.dial();
    assert_eq!(ann.ask("REQUEST_MATCH 2.5"), "running\n");
    drop(ann);
    let mut again = server.dial();
    assert_eq!(again.ask("REQUEST_MATCH 60"), "running\n");
    assert_eq!(again.rest(), "");
    let (code, _, results) = server.end();
    assert_eq!((code, &results["why"]), (Some(0), &"time_up".into()));
    assert_eq!(results["duration"], 2.5);

    let server = Server::start(&[("EMPTY_GRACE", "0.2")]);
    drop(server.dial()); // nobody yet: the grace has not begun
    assert_eq!(server.dial().ask("GET_STATE"), "open\n");
    let (code, _, results) = server.end();
    assert_eq!((code, &results["why"]), (Some(0), &"empty".into()));
}

#[test]
fn told_to_stop_it_says_so_and_exits_0() {
    let server = Server::start(&[]);
    let mut client = server.dial();
    assert_eq!(client.ask("REQUEST_MATCH 3600"), "running\n");
    server.terminate();
    while client.ask("GET_STATE") == "running\n" {}
    client.rest();
    let (code, _, results) = server.end();
    assert_eq!((code, &results["why"]), (Some(0), &"terminated".into()));

    let idle = Server::start(&[]);
    idle.terminate();
    let (code, _, results) = idle.end();
    assert_eq!((code, &results["why"]), (Some(0), &"terminated".into()));
}

#[test]
fn who_reads_nothing_holds_no_memory_and_nobody_up() {
    use std::io::Write;
    let server = Server::start(&[]);
    let mut deaf = server.dial();
    let mut other = server.dial();
    assert_eq!(other.ask("GET_STATE"), "open\n");
    let before = server.resident_kib();
    let tcp = deaf.tcp.get_mut();
    tcp.set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // Until the server stops taking, and that it does.
    let flood = b"GET_STATE\n".repeat(10_000);
    let stopped = (0..10_000).any(|_| tcp.write_all(&flood).is_err());
    assert!(
        stopped,
        "it took a gigabyte of questions and gave no answer"
    );
    assert_eq!(other.ask("GET_STATE"), "open\n");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB");
}

#[test]
fn limits_are_told() {
    let server = Server::start(&[("ARENA_MAX_CLIENTS", "1"), ("ARENA_MAX_CONNECTIONS", "2")]);
    let (mut ann, mut bob) = (server.dial(), server.dial());
    assert_eq!(ann.ask("GET_STATE"), "open\n");
    assert!(bob.ask("GET_STATE").starts_with("ERROR too_many_clients: "));
    let third = server.dial().rest();
    assert!(third.starts_with("ERROR too_many_connections: "), "{third}");
    assert!(
        bob.ask("REQUEST_MATCH 5")
            .starts_with("ERROR too_many_clients: ")
    );
    assert_eq!(ann.ask("GET_STATE"), "open\n");
}

#[test]
fn the_exit_status_says_what_was_wrong() {
    let server = Server::start(&[]);
    let taken = server.address.port().to_string();
    assert_eq!(server::run(&[("PORT", &taken)], &[]).status.code(), Some(1));
    let wrong = server::run(&[("PORT", "http"), ("EMPTY_GRACE", "x")], &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&wrong.stderr).lines().count(), 2);
    assert_eq!(server::run(&[], &["--bogus"]).status.code(), Some(2));
    let help = server::run(&[], &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("REQUEST_MATCH"));
}
