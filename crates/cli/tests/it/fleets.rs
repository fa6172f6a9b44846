//! `spawnpoint fleets watch` against the real server: what a person and a script see while games come and go.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Up, World, arena};

/// The TCP game, with one warm instance.
fn fleets() -> String {
    format!(
        "[[fleet]]\nname = \"arena\"\nrun.command = [{:?}]\nprotocol = \"tcp\"\nwarm = 1\n",
        arena().display().to_string()
    )
}

/// The verb as somebody left it running.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watching {
    fn start(up: &Up<'_>, words: &[&str]) -> Self {
        let mut child = up
            .asking(&[&["fleets", "watch"], words].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line; fails when there is none any more.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        let n = self.out.read_line(&mut line).unwrap();
        assert!(n > 0, "it has ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    /// Lines up to the first one for which this holds.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.line());
            if wanted(lines.last().unwrap()) {
                return lines;
            }
            assert!(lines.len() < 200, "in vain: {lines:#?}");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit code, and what it still said on standard output and standard error.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

#[test]
fn a_line_for_each_change_with_time_numbers_and_reason() {
    let world = World::new(&fleets());
    let up = world.up(&[]);
    let mut person = Watching::start(&up, &[]);
    let mut script = Watching::start(&up, &["arena", "--output", "json"]);
    person.until(|l| l.contains("warm 1 of 1") || l.contains("warm 0->1 of 1"));
    let started = up.new_game("p");
    let session = started["session_id"].as_str().unwrap();
    // The warm one is taken and another one started: one line says both, and why.
    let lines = person.until(|l| l.contains("claimed 0->1"));
    let claim = lines.last().unwrap();
    let words: Vec<&str> = claim.split_whitespace().collect();
    let at: jiff::Timestamp = words[0].parse().unwrap();
    assert!(at > jiff::Timestamp::from_second(1_700_000_000).unwrap());
    assert_eq!(words[1], "arena", "{claim}");
    assert!(
        claim.ends_with(')') && claim.contains("warm") && claim.contains(" ("),
        "{claim}"
    );
    person.until(|l| l.contains("starting 1->0"));
    up.ask(&["sessions", "end", session]).fine();
    person.until(|l| l.contains("claimed 1->0"));

    let told: Vec<Value> = script
        .until(|l| {
            let change: Value = serde_json::from_str(l).unwrap();
            change["claims_warm"] == 1 && change["claimed"] == 0
        })
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let claimed: Vec<u64> = told
        .iter()
        .map(|c| c["claimed"].as_u64().unwrap())
        .collect();
    let mut steps = claimed.clone();
    steps.dedup();
    assert_eq!(steps, [0, 1, 0], "{told:#?}");
    // A claim leaves the pool one short: whoever scrolls back sees which plan made it whole again.
    let refill = told
        .iter()
        .find(|c| c["claimed"] == 1 && c["last_plan"]["start"] == 1);
    let because = &refill.unwrap_or_else(|| panic!("{told:#?}"))["last_plan"]["because"];
    assert_eq!(because, "0 of 1 warm: 1 more");
    for change in &told {
        assert!(
            change["at"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
        assert_eq!(
            (&change["name"], &change["gone"]),
            (&"arena".into(), &false.into())
        );
    }

    // Ctrl-C is how it ends, and no failure.
    person.signal(Signal::INT);
    let (code, _, err) = person.wait();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    script.signal(Signal::TERM);
    assert_eq!(script.wait().0, Some(0));
}

#[test]
fn it_goes_on_over_a_restart_and_waits_for_a_server_that_is_away() {
    let world = World::new(&fleets());
    let mut up = world.up(&[]);
    let port = up.ready["admin_url"].as_str().unwrap();
    let port = port
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let mut watching = Watching::start(&up, &[]);
    watching.until(|l| l.contains("warm 1 of 1") || l.contains("warm 0->1 of 1"));
    up.signal(Signal::KILL);
    let _ = up.wait();
    up = world.up(&["--admin-port", &port]);
    up.new_game("p");
    watching.until(|l| l.contains("claimed 0->1"));
    up.signal(Signal::TERM);
    let _ = up.wait();
    // The games that the drain ends, and then nothing: it waits for the server to come back, and Ctrl-C is still no failure.
    let mut err = BufReader::new(watching.child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Trying again") {
        let n = err.read_line(&mut said).unwrap();
        assert!(n > 0, "{said}");
    }
    watching.signal(Signal::INT);
    let status = watching.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn a_fleet_that_is_not_there_is_said_at_once() {
    let world = World::new(&fleets());
    let up = world.up(&[]);
    let (code, out, err) = Watching::start(&up, &["nowhere"]).wait();
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(
        err.contains("fleet_not_found") && err.contains("arena"),
        "{err}"
    );
}
