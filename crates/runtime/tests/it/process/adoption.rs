//! What a new owner finds after the old one was killed, at every point where it can have been.

use super::*;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use spawnpoint_core::{Clock, Moment};
use spawnpoint_runtime::clock::SystemClock;

/// An owner in a process of its own.
struct Owner {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Owner {
    fn spawn(state: &Path, count: usize, crash: &str) -> Self {
        let mut child = Command::new(game())
            .arg("owner")
            .arg(state)
            .arg(count.to_string())
            .arg(crash)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Its orders, once all are ready.
    fn until_ready(&mut self) -> Vec<InstanceId> {
        let mut ids = Vec::new();
        loop {
            let line = self.line();
            match line.strip_prefix("order ") {
                Some(id) => ids.push(id.parse().unwrap()),
                None if line == "ready" => return ids,
                None => panic!("the owner said {line:?}"),
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn config(dir: &tempfile::TempDir) -> ProcessConfig {
    let mut config =
        ProcessConfig::new(dir.path().join("state"), vec![game().into(), "shim".into()]);
    config.ports = own_ports();
    config
}

/// A world whose first owner was another process.
fn inherit(dir: tempfile::TempDir, config: ProcessConfig) -> World {
    let runtime = ProcessRuntime::open(config.clone()).unwrap();
    World {
        _sweep: Sweep(dir.path().to_owned()),
        dir,
        config,
        runtime,
    }
}

/// How often the game of an instance has begun.
fn starts(world: &World, id: InstanceId) -> usize {
    std::fs::read_to_string(world.instance_dir(id).join("log"))
        .unwrap_or_default()
        .matches("listening\n")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _sweep = Sweep(dir.path().to_owned());
    let config = config(&dir);
    let mut owner = Owner::spawn(&config.state_dir, 8, "-");
    let ids = owner.until_ready();
    assert_eq!(ids.len(), 8);
    owner.kill();
    // Everything goes on; meanwhile one game ends, one is killed, one loses its shim.
    let games: Vec<(i32, u16)> = ids
        .iter()
        .map(|id| {
            let path = config.state_dir.join("instances").join(id.to_string());
            let record: serde_json::Value =
                serde_json::from_slice(&std::fs::read(path.join("record.json")).unwrap()).unwrap();
            let port = u16::try_from(record["port"].as_u64().unwrap()).unwrap();
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(ask(at, "env SPAWNPOINT_INSTANCE"), id.to_string());
            let pid = processes_of(&path)
                .into_iter()
                .find(|pid| {
                    std::fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| line.ends_with(b"listen\0"))
                })
                .unwrap();
            (pid, port)
        })
        .collect();
    let at = |n: usize| SocketAddr::from(([127, 0, 0, 1], games[n].1));
    let shim_of = |n: usize| parent(games[n].0);
    let shims = [shim_of(0), shim_of(1)];
    ask(at(0), "exit 3");
    kill(games[1].0, Signal::KILL);
    kill(shim_of(2), Signal::KILL);
    eventually("what ended meanwhile is gone", || {
        shims.iter().chain([&games[2].0]).all(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |s| s.contains(") Z "))
        })
    });

    let world = inherit(dir, config);
    let all = world.runtime.list().await.unwrap();
    assert_eq!(all.len(), 8);
    let state = |n: usize| all.iter().find(|i| i.id == ids[n]).unwrap().state;
    assert!(matches!(state(0), State::Exited(e) if e.code == Some(3) && !e.lost));
    assert!(matches!(state(1), State::Exited(e) if e.signal == Some(9) && !e.lost));
    assert!(matches!(state(2), State::Exited(e) if e.lost));
    for n in 3..8 {
        let found = all.iter().find(|i| i.id == ids[n]).unwrap();
        assert_eq!(found.state, State::Ready, "ready at the first look");
        assert_eq!(address(found), at(n));
        assert_eq!(pid(found), games[n].0, "the same process");
        assert_eq!(ask(at(n), "still?"), "still?");
        assert_eq!(starts(&world, ids[n]), 1);
    }
    // Adopted ones end like any other, by themselves and when told.
    ask(at(3), "exit 4");
    assert_eq!(world.until_exit(ids[3]).await.code, Some(4));
    assert_eq!(world.stop(ids[4], PATIENCE).await.signal, Some(15));
    kill(shim_of(5), Signal::KILL);
    assert!(world.until_exit(ids[5]).await.lost);
    // Ports in use are not given out again.
    let fresh = world.start(order(&["listen"])).await;
    assert!(
        games
            .iter()
            .all(|(_, port)| *port != address(&fresh).port())
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_in_the_middle_of_a_start_starts_it_once() {
    for crash in ["recorded", "shim-started"] {
        let dir = tempfile::tempdir().unwrap();
        let _sweep = Sweep(dir.path().to_owned());
        let config = config(&dir);
        let mut owner = Owner::spawn(&config.state_dir, 1, crash);
        let id = owner
            .line()
            .strip_prefix("order ")
            .unwrap()
            .parse()
            .unwrap();
        owner.child.wait().unwrap();
        let world = inherit(dir, config);
        let ready = world.until_ready(id).await;
        assert_eq!(ask(address(&ready), "x"), "x", "{crash}");
        assert_eq!(starts(&world, id), 1, "{crash}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_at_any_point_leaves_one_answer_and_no_process() {
    for (step, never_ran) in [
        ("locked", true),
        ("claimed", false),
        ("spawned", false),
        ("running", false),
        ("over", false),
    ] {
        let world =
            World::with(|c| c.shim_command = vec![game().into(), "shim-crash".into(), step.into()]);
        let mut o = order(&["fork"]);
        if step == "over" {
            o.template.command = vec![game().display().to_string(), "exit".into(), "0".into()];
        }
        let id = world.runtime.order(o).await.unwrap().id;
        let exit = world.until_exit(id).await;
        assert_eq!(
            (exit.never_ran, exit.lost),
            (never_ran, !never_ran),
            "{step}"
        );
        assert!(!exit.is_clean(), "{step}");
        eventually("nothing is left", || {
            processes_of(world.dir.path()).is_empty()
        });
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_wakes_late_finds_its_attempt_taken() {
    let mut world = World::new();
    let gate = world.path("gate");
    world.runtime.shutdown().await;
    world.config.shim_command = vec![game().into(), "shim-held".into(), gate.clone().into()];
    world.reopen().await;
    let id = world.runtime.order(order(&["listen"])).await.unwrap().id;
    eventually("a shim that sleeps", || {
        !processes_of(world.dir.path()).is_empty()
    });
    let held = processes_of(world.dir.path());
    world.config.shim_command = vec![game().into(), "shim".into()];
    world.reopen().await;
    let ready = world.until_ready(id).await;
    std::fs::write(&gate, "").unwrap();
    reap_all(&held);
    assert_eq!(ask(address(&ready), "x"), "x");
    assert_eq!(starts(&world, id), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_wakes_after_the_end_starts_nothing() {
    let mut world = World::new();
    let gate = world.path("gate");
    world.runtime.shutdown().await;
    world.config.shim_command = vec![game().into(), "shim-held".into(), gate.clone().into()];
    world.reopen().await;
    let id = world.runtime.order(order(&["listen"])).await.unwrap().id;
    eventually("a shim that sleeps", || {
        !processes_of(world.dir.path()).is_empty()
    });
    let held = processes_of(world.dir.path());
    world.config.shim_command = vec![game().into(), "shim-gone".into()];
    world.reopen().await;
    assert!(world.until_exit(id).await.never_ran);
    std::fs::write(&gate, "").unwrap();
    reap_all(&held);
    assert_eq!(starts(&world, id), 0);
    world.end().await;
}

/// Waits for shims whose owner let go of them: they are children of this test's process.
fn reap_all(pids: &[i32]) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_gates_stops_and_session_files_survive() {
    let mut world = World::new();
    let warm = world.start(order(&["listen"])).await;
    let mut gated = order(&["listen"]);
    gated.gated = true;
    gated.facts = Some(facts("queued"));
    let held = world.runtime.order(gated).await.unwrap();
    let deaf = world.start(order(&["ignore-term"])).await;
    let claimed = world
        .runtime
        .bind(warm.id, warm.version, facts("claimed"), document("session"))
        .await
        .unwrap();
    let stopping = world
        .runtime
        .stop(deaf.id, deaf.version, Duration::from_secs(3600))
        .await
        .unwrap();
    world.runtime.shutdown().await;
    // As if killed between the record's rename and the session file's.
    let file = world.instance_dir(warm.id).join("session.json");
    std::fs::write(&file, "older").unwrap();
    world.reopen().await;

    let now = world.runtime.get(warm.id).await.unwrap();
    assert_eq!((now.version, now.state), (claimed, State::Ready));
    assert_eq!(now.facts, Some(facts("claimed")));
    assert_eq!(now.timings, warm.timings);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "session");
    let now = world.runtime.get(held.id).await.unwrap();
    assert_eq!((now.version, now.state), (held.version, State::Gated));
    assert_eq!(now.facts, Some(facts("queued")));
    let now = world.runtime.get(deaf.id).await.unwrap();
    assert_eq!((now.version, now.state), (stopping, State::Stopping));
    world
        .runtime
        .stop(deaf.id, stopping, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(world.until_exit(deaf.id).await.signal, Some(9));
    world.runtime.release(held.id, held.version).await.unwrap();
    world.until_ready(held.id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_runtime_lets_its_games_play_on() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    let World {
        dir,
        config,
        runtime,
        _sweep,
    } = world;
    let mut watch = runtime.watch().await.unwrap();
    drop(runtime);
    tokio::time::timeout(PATIENCE, async { while watch.next().await.is_some() {} })
        .await
        .expect("a watch ends with its runtime");
    assert_eq!(ask(address(&ready), "still?"), "still?");
    let world = inherit(dir, config);
    let found = world.runtime.get(ready.id).await.unwrap();
    assert_eq!(found, ready);
    world.end().await;
}

/// The same machine after a reboot, as far as a clock can tell.
struct Rebooted(SystemClock);

impl Clock for Rebooted {
    fn now(&self) -> Moment {
        self.0.now()
    }
    fn wall(&self, moment: Moment) -> i64 {
        self.0.wall(moment)
    }
    fn boot_id(&self) -> &str {
        "another boot"
    }
    fn monotonic(&self, moment: Moment) -> i64 {
        moment.0 % 1_000
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_what_ran_is_lost_and_what_waited_waits() {
    let mut world = World::new();
    let ran = world.start(order(&["listen"])).await;
    let mut gated = order(&["listen"]);
    gated.gated = true;
    let held = world.runtime.order(gated).await.unwrap();
    let ended = world.start(order(&["listen"])).await;
    ask(address(&ended), "exit 6");
    world.until_exit(ended.id).await;
    world.runtime.shutdown().await;
    // A reboot ends the games; here that is ours to do.
    let shim = parent(pid(&ran));
    kill(shim, Signal::KILL);
    eventually("it is gone", || {
        std::fs::read_to_string(format!("/proc/{shim}/stat")).map_or(true, |s| s.contains(") Z "))
    });
    world.config.clock = std::sync::Arc::new(Rebooted(SystemClock::new()));
    world.reopen().await;
    let all = world.runtime.list().await.unwrap();
    let state = |id| all.iter().find(|i| i.id == id).unwrap().state;
    assert!(matches!(state(ran.id), State::Exited(e) if e.lost));
    assert!(matches!(state(ended.id), State::Exited(e) if e.code == Some(6) && !e.lost));
    assert_eq!(state(held.id), State::Gated);
    world.end().await;
}
