//! Decision replay: a server with churn writes its journal, and every function says the same again; what is changed in it is noticed.

use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use spawnpoint_core::Clock;
use spawnpoint_runtime::simulated::{End, SimulatedConfig};
use spawnpoint_server::DrainMode;
use spawnpoint_server::journal::{
    DifferenceKind, FileJournal, Journal, Made, Replay, Replayed, files,
};
use tokio::time::{advance, sleep};

use crate::harness::{Up, World, config, fleet, id, with_policy};

const KEEP: u64 = 256 * 1024 * 1024;

/// Runs a journal's directory again.
fn replay(directory: &Path) -> Replayed {
    let mut replay = Replay::new();
    for file in files(directory).unwrap() {
        let name = file.path.display().to_string();
        let from = BufReader::new(std::fs::File::open(&file.path).unwrap());
        replay.file(&name, from, |_| ()).unwrap();
    }
    replay.finish()
}

fn replay_text(text: &[u8]) -> Replayed {
    let mut replay = Replay::new();
    replay.file("journal", text, |_| ()).unwrap();
    replay.finish()
}

fn same(replayed: &Replayed, function: &str) -> u64 {
    let mut all = replayed.functions.iter();
    all.find(|f| f.function == function).unwrap().same
}

async fn instance(up: &Up, session: &str) -> String {
    let view = up.get(&format!("/api/sessions/{session}")).await.is(200);
    view["instance"]["id"].as_str().unwrap().to_owned()
}

async fn until_ready(up: &Up, session: &str) {
    while up.get(&format!("/api/sessions/{session}")).await.body["ready"] != true {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Starts, joins, heartbeats, a crash and its replacement, a full fleet, a match, a late tick, a mass end that the brake holds, culls.
async fn churn(world: &World) {
    let mut arena = with_policy(fleet("arena"), |p| p.reconnect = Duration::from_secs(3));
    arena.warm = 2;
    arena.max_instances = Some(10);
    let up = world.up(config(vec![arena])).await;
    let mut sessions = Vec::new();
    for n in 0..8 {
        let player = format!("p{n}");
        let session = id(&up.play(&player).await);
        up.gateway.connected(&session, &player, 1, true).await;
        let beat = json!({"sessionId": session, "status": "active", "idleTime": n * 10});
        let path = format!("/api/sessions/{session}/heartbeat");
        up.post(&path, beat).await.is(200);
        sessions.push((session, player));
    }
    let (crashing, _) = &sessions[0];
    let old = instance(&up, crashing).await;
    world.runtime.crash(old.parse().unwrap(), End::Code(3));
    sleep(Duration::from_millis(200)).await;
    until_ready(&up, crashing).await;
    up.gateway.connected(crashing, "p0", 1, true).await;
    for player in ["m1", "m2"] {
        up.join(json!({"player_id": player})).await.is(200);
    }
    up.until_status("m2", "matched", Duration::from_secs(20))
        .await;
    // More than there is room for: they wait in the queue, and one is refused what it asks.
    let waiting = up
        .post("/api/new-game", json!({"playerId": "w1"}))
        .await
        .is(201);
    up.post("/api/new-game", json!({"playerId": "w2"}))
        .await
        .is(201);
    let path = format!("/api/match/{}/end", sessions[7].0);
    up.post(&path, json!({})).await.is(200);
    up.record(&sessions[7].0, Duration::from_secs(60)).await;
    up.post(&path, json!({})).await;
    until_ready(&up, &id(&waiting)).await;
    // The process was not running for a while.
    advance(Duration::from_secs(7)).await;
    sleep(Duration::from_secs(6)).await;
    for (session, player) in &sessions[..7] {
        up.gateway.connected(session, player, 0, false).await;
    }
    for (session, _) in &sessions[..7] {
        let record = up.record(session, Duration::from_secs(120)).await;
        assert_eq!(record["reason"], "empty", "{record:#}");
    }
    let left = up
        .server
        .drain(DrainMode::EndGames, Duration::from_secs(60))
        .await;
    assert_eq!(left, 0);
}

/// The journal of such a run, as one text, once for all tests.
fn journal() -> &'static [u8] {
    static JOURNAL: OnceLock<Vec<u8>> = OnceLock::new();
    JOURNAL.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut world = World::new(SimulatedConfig::default());
            let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
            let journal = FileJournal::open(directory.path().join("d"), KEEP, clock).unwrap();
            let journal = Arc::new(journal);
            world.journal = Some(Arc::clone(&journal) as Arc<dyn Journal>);
            churn(&world).await;
            journal.close();
            let counts = journal.counts();
            assert!(counts.written > 100 && counts.lost == 0, "{counts:?}");
        });
        let all = files(&directory.path().join("d")).unwrap();
        assert_eq!(all.len(), 1);
        std::fs::read(&all[0].path).unwrap()
    })
}

#[test]
fn a_run_with_churn_replays_the_same() {
    let replayed = replay_text(journal());
    assert!(replayed.same, "{replayed:#?}");
    for f in &replayed.functions {
        assert!(f.same > 0, "{f:?}");
        assert_eq!((f.different, f.too_large, f.unknown), (0, 0, 0), "{f:?}");
    }
    assert!(same(&replayed, "session::step") > 80, "{replayed:#?}");
    assert_eq!(
        (
            replayed.runs,
            replayed.lost,
            replayed.torn,
            replayed.left_out
        ),
        (1, 0, 0, 0)
    );
}

#[test]
fn a_session_is_told_step_by_step() {
    let text = String::from_utf8(journal().to_vec()).unwrap();
    let first = text
        .lines()
        .find(|l| l.contains("\"session::step\""))
        .unwrap();
    let first: serde_json::Value = serde_json::from_str(first).unwrap();
    let wanted = first["session"].as_str().unwrap();
    let mut told = Vec::new();
    let mut replay = Replay::of(wanted.parse().unwrap(), |s| told.push(s.event.name()));
    replay.file("journal", text.as_bytes(), |_| ()).unwrap();
    let replayed = replay.finish();
    let steps = text
        .lines()
        .filter(|l| l.contains("\"session::step\"") && l.contains(wanted));
    assert!(replayed.same, "{replayed:#?}");
    assert_eq!(same(&replayed, "session::step"), steps.count() as u64);
    assert_eq!(same(&replayed, "fleet::plan"), 0, "not asked for");
    assert_eq!(told.first(), Some(&"granted"));
    assert_eq!(told.last(), Some(&"recorded"));
}

/// What is flipped is in a line with its function's inputs; nothing is computed anew for it.
fn flip(text: &mut [u8], at: usize) {
    text[at / 8] ^= 1 << (at % 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn one_flipped_bit_is_noticed(bit in any::<prop::sample::Index>()) {
        let mut text = journal().to_vec();
        // The last line's end is no input: without it the line is whole all the same, or torn.
        let at = bit.index((text.len() - 1) * 8);
        let line = text[..at / 8].iter().filter(|b| **b == b'\n').count() as u64 + 1;
        flip(&mut text, at);
        let replayed = replay_text(&text);
        prop_assert!(!replayed.same, "bit {at} in line {line}");
        let first = &replayed.differences[0];
        prop_assert_eq!(first.kind, DifferenceKind::Changed);
        prop_assert!(first.line == line, "line {line}, said {}", first.line);
        let wrong = replayed.differences.iter().find(|d| d.kind == DifferenceKind::Different);
        prop_assert!(wrong.is_none(), "no function is blamed: {wrong:#?}");
    }
}

/// A line whose check sum was made anew is as good as written: then the function is asked, and says something else.
#[test]
fn another_input_is_another_decision() {
    use spawnpoint_wire::journal::{Line, Numbered};
    let text = String::from_utf8(journal().to_vec()).unwrap();
    type Change = fn(&mut Line);
    let changes: [(&str, Change); 5] = [
        ("session::step", |l| match l {
            Line::Step(s) => s.now.0 ^= 1,
            _ => unreachable!(),
        }),
        ("fleet::plan", |l| match l {
            Line::Plan(p) => p.spec.warm ^= 16,
            _ => unreachable!(),
        }),
        ("lifecycle::brake", |l| match l {
            Line::Brake(b) => b.due = 0,
            _ => unreachable!(),
        }),
        ("lifecycle::hold_after", |l| match l {
            Line::Hold(h) => h.now.0 ^= 1,
            _ => unreachable!(),
        }),
        ("matching::propose", |l| match l {
            Line::Propose(p) => p.candidates.clear(),
            _ => unreachable!(),
        }),
    ];
    for (function, change) in changes {
        let mut done = false;
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                let mine = line.contains(&format!("\"function\":\"{function}\""));
                if done || !mine || (function == "session::step" && !line.contains("granted")) {
                    return line.to_owned();
                }
                done = true;
                let mut numbered = Numbered::read(line.as_bytes()).unwrap();
                change(&mut numbered.line);
                numbered.write()
            })
            .collect();
        let replayed = replay_text(format!("{}\n", lines.join("\n")).as_bytes());
        let first = &replayed.differences[0];
        assert_eq!(
            (replayed.differences.len(), first.kind, first.function),
            (1, DifferenceKind::Different, Some(function)),
            "{replayed:#?}"
        );
        assert!(first.what[0].contains("was"), "{first:#?}");
    }
}

#[test]
fn half_a_line_at_the_end_is_what_a_kill_leaves() {
    let whole = replay_text(journal());
    let text = &journal()[..journal().len() - 40];
    let replayed = replay_text(text);
    assert!(replayed.same, "{replayed:#?}");
    assert_eq!((replayed.torn, replayed.lines), (1, whole.lines - 1));
}

#[test]
fn lines_that_are_taken_out_are_missed() {
    let text = String::from_utf8(journal().to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut without = lines.clone();
    without.drain(50..53);
    let replayed = replay_text(format!("{}\n", without.join("\n")).as_bytes());
    let first = &replayed.differences[0];
    assert_eq!((first.kind, first.line), (DifferenceKind::Missing, 51));
    assert_eq!(first.what, ["lines 50 to 52 of this run are not there"]);
    let mut swapped = lines;
    swapped.swap(60, 61);
    let replayed = replay_text(format!("{}\n", swapped.join("\n")).as_bytes());
    assert_eq!(replayed.differences[0].kind, DifferenceKind::Missing);
    assert!(
        replayed
            .differences
            .iter()
            .all(|d| d.kind == DifferenceKind::Missing),
        "{replayed:#?}"
    );
}

/// A journal that remembers what it was told.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<Made>>);

impl Journal for Heard {
    fn note(&self, made: Made) {
        self.0.lock().unwrap().push(made);
    }
}

fn decisions() -> Vec<Made> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let heard = Arc::new(Heard::default());
    runtime.block_on(async {
        let mut world = World::new(SimulatedConfig::default());
        world.journal = Some(Arc::clone(&heard) as Arc<dyn Journal>);
        churn(&world).await;
    });
    std::mem::take(&mut *heard.0.lock().unwrap())
}

/// A file after another: states are written again in each, and are what the steps led to; the oldest go.
#[test]
fn it_goes_on_from_file_to_file_and_the_oldest_go() {
    let decisions = decisions();
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(spawnpoint_runtime::clock::SystemClock::new());
    let keep = 1024 * 1024;
    let mut written = 0;
    for times in [4, 20] {
        let journal =
            FileJournal::open(directory.path().to_owned(), keep, Arc::clone(&clock)).unwrap();
        for _ in 0..times {
            for made in &decisions {
                // No faster than it can be written.
                journal.note(made.clone());
                written += 1;
                while journal.counts().written + 1_000 < written {
                    std::thread::yield_now();
                }
            }
        }
        journal.close();
        assert_eq!(journal.counts().lost, 0);
        written = 0;
        let replayed = replay(directory.path());
        assert!(replayed.same, "{replayed:#?}");
    }
    let all = files(directory.path()).unwrap();
    let total: u64 = all.iter().map(|f| f.length).sum();
    assert!(all.len() > 3 && total < keep + keep / 4, "{all:?}");
    assert!(all[0].number > 1, "the oldest went");
    let replayed = replay(directory.path());
    assert!(replayed.states_compared > 0, "{replayed:#?}");
    use std::os::unix::fs::PermissionsExt as _;
    for file in files(directory.path()).unwrap() {
        let mode = std::fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // A file from the middle is missed.
    std::fs::remove_file(&all[all.len() - 2].path).unwrap();
    let replayed = replay(directory.path());
    assert_eq!(replayed.differences.len(), 1, "{replayed:#?}");
    assert_eq!(replayed.differences[0].kind, DifferenceKind::Missing);
}

/// More than can be written, and a disk that takes nothing: what is left out is said, and after it every state is known again.
#[test]
fn what_could_not_be_written_is_a_gap_and_no_difference() {
    let decisions = decisions();
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(spawnpoint_runtime::clock::SystemClock::new());
    let journal = FileJournal::open(directory.path().to_owned(), KEEP, Arc::clone(&clock)).unwrap();
    // As fast as they come: the writer cannot keep up with all of them.
    let mut noted = 0;
    while journal.counts().lost < 100 {
        assert!(noted < 50_000_000, "nothing is ever left out");
        for made in &decisions {
            journal.note(made.clone());
            noted += 1;
        }
    }
    journal.close();
    let counts = journal.counts();
    assert_eq!(counts.written + counts.lost, noted);
    let replayed = replay(directory.path());
    assert!(replayed.same, "{replayed:#?}");
    assert_eq!(replayed.lost, counts.lost);
}
