//! Games, shims, disks and directories that misbehave.

use super::*;
use rustix::process::Signal;
use spawnpoint_runtime::process::OpenError;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_run_never_ran_and_says_why() {
    let world = World::new();
    let mut o = order(&[]);
    o.template.command = vec!["/no/such/game".into()];
    let id = world.runtime.order(o).await.unwrap().id;
    let exit = world.until_exit(id).await;
    assert!(exit.never_ran && !exit.lost && !exit.is_clean());
    let log = world.log(id).await;
    assert!(log.contains("cannot run /no/such/game"), "{log}");
    for command in [vec![], vec![String::new()], vec!["a\0b".into()]] {
        let mut o = order(&[]);
        o.template.command = command;
        let refused = world.runtime.order(o).await.unwrap_err();
        assert_eq!(refused.code().as_str(), "start_failed", "{refused}");
    }
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_exits_at_once_has_its_code() {
    let world = World::new();
    for code in [0, 1, 3, 255] {
        let id = world
            .runtime
            .order(order(&["exit", &code.to_string()]))
            .await
            .unwrap()
            .id;
        let exit = world.until_exit(id).await;
        assert_eq!(exit.code, Some(code));
        assert_eq!(exit.is_clean(), code == 0);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_blocks_nobody_and_fills_no_disk() {
    let world = World::with(|c| c.log_bytes = 256 * 1024);
    let ready = world
        .start(order(&["flood", &(64 << 20).to_string()]))
        .await;
    assert_eq!(ask(address(&ready), "hello"), "hello");
    // The game listens before the shim has read all that it said; the log is not turned after its last line.
    world.until_logged(ready.id, "listening\n").await;
    let dir = world.instance_dir(ready.id);
    for file in ["log", "log.1"] {
        let size = std::fs::metadata(dir.join(file)).unwrap().len();
        assert!(size <= 256 * 1024, "{file} has {size}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_then_grace_then_sigkill() {
    let world = World::new();
    let polite = world.start(order(&["listen"])).await;
    let exit = world.stop(polite.id, PATIENCE).await;
    assert_eq!(exit.signal, Some(15), "it was asked first");
    let deaf = world.start(order(&["ignore-term"])).await;
    let grace = Duration::from_millis(400);
    let asked = spawnpoint_core::Clock::now(&*world.config.clock);
    let exit = world.stop(deaf.id, grace).await;
    assert_eq!(exit.signal, Some(9));
    assert!(exit.at >= asked.after(grace), "it had its grace");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stop_can_be_shorter() {
    let world = World::new();
    let deaf = world.start(order(&["ignore-term"])).await;
    let v = world
        .runtime
        .stop(deaf.id, deaf.version, Duration::from_secs(3600))
        .await
        .unwrap();
    assert_eq!(
        world.runtime.get(deaf.id).await.unwrap().state,
        State::Stopping
    );
    let longer = world
        .runtime
        .stop(deaf.id, v, Duration::from_secs(7200))
        .await
        .unwrap();
    assert_eq!(longer, v, "stopping what is stopping is harmless");
    let sooner = world
        .runtime
        .stop(deaf.id, deaf.version, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(sooner, v, "and needs no version");
    assert_eq!(world.until_exit(deaf.id).await.signal, Some(9));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_game_hears_that_it_should_stop() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    kill(pid(&ready), Signal::STOP);
    assert_eq!(world.stop(ready.id, PATIENCE).await.signal, Some(15));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_game_forked_goes_with_it() {
    let world = World::new();
    // Stopped: a deaf child in the group, one in a group of its own, a daemon in a session of its own.
    let family = world.start(order(&["fork"])).await;
    eventually("the family is complete", || {
        processes_of(world.dir.path()).len() >= 5
    });
    world.stop(family.id, Duration::from_millis(100)).await;
    assert!(
        processes_of(world.dir.path()).is_empty(),
        "an exit is told when nothing is left"
    );
    // Gone by itself, leaving them behind, one of them holding its output open.
    let left = world
        .runtime
        .order(order(&["fork", "exit", "0"]))
        .await
        .unwrap();
    let exit = world.until_exit(left.id).await;
    assert!(exit.is_clean());
    assert!(processes_of(world.dir.path()).is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_game_is_a_crash_and_cannot_be_claimed() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    kill(pid(&ready), Signal::KILL);
    eventually("it is dead", || {
        std::fs::read_to_string(format!("/proc/{}/stat", pid(&ready)))
            .map_or(true, |s| s.contains(") Z "))
    });
    is_over(
        world
            .runtime
            .bind(ready.id, ready.version, facts("late"), None)
            .await,
    );
    let exit = world.until_exit(ready.id).await;
    assert_eq!((exit.code, exit.signal, exit.lost), (None, Some(9), false));
    assert_eq!(world.runtime.get(ready.id).await.unwrap().facts, None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_the_game_and_its_family_along() {
    let world = World::new();
    let family = world.start(order(&["fork"])).await;
    kill(parent(pid(&family)), Signal::KILL);
    let exit = world.until_exit(family.id).await;
    assert!(exit.lost && !exit.is_clean() && exit.code.is_none());
    assert!(processes_of(world.dir.path()).is_empty());
    // In its place it can start again.
    let version = world.runtime.get(family.id).await.unwrap().version;
    world
        .runtime
        .restart(family.id, version, None)
        .await
        .unwrap();
    world.until_ready(family.id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_paused_for_good_does_not_hold_up_a_stop() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    kill(parent(pid(&ready)), Signal::STOP);
    let exit = world.stop(ready.id, Duration::ZERO).await;
    assert!(exit.lost);
    assert!(processes_of(world.dir.path()).is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_cannot_be_started_is_a_failed_start() {
    for shim in [
        vec!["/no/such/shim".into()],
        vec![game().into(), "shim-gone".into()],
    ] {
        let world = World::with(|c| c.shim_command = shim);
        let id = world.runtime.order(order(&["listen"])).await.unwrap().id;
        let exit = world.until_exit(id).await;
        assert!(exit.never_ran);
        let log = world.log(id).await;
        assert!(log.contains("supervisor"), "{log}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_that_removes_its_own_directory_can_still_be_stopped() {
    let world = World::new();
    for by_itself in [false, true] {
        let ready = world.start(order(&["fork"])).await;
        std::fs::remove_dir_all(world.instance_dir(ready.id)).unwrap();
        let exit = if by_itself {
            ask(address(&ready), "exit 0");
            world.until_exit(ready.id).await
        } else {
            world.stop(ready.id, Duration::ZERO).await
        };
        assert!(exit.lost && !exit.is_clean());
        assert!(processes_of(world.dir.path()).is_empty());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_has_one_owner() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    let second = ProcessRuntime::open(world.config.clone()).unwrap_err();
    assert_eq!(second.code(), "state_locked");
    let text = second.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert_eq!(
        ask(address(&ready), "x"),
        "x",
        "the owner's games are untouched"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_record_is_refused_and_a_torn_one_set_aside() {
    let world = World::new();
    let mut gated = order(&["listen"]);
    gated.gated = true;
    let kept = world.runtime.order(gated.clone()).await.unwrap();
    gated.id = new_id();
    let other = world.runtime.order(gated).await.unwrap();
    world.runtime.shutdown().await;
    let path = world.instance_dir(other.id).join("record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"version\":1", "\"version\":9", 1)).unwrap();
    let newer = ProcessRuntime::open(world.config.clone()).unwrap_err();
    assert_eq!(newer.code(), "state_newer");
    assert!(matches!(newer, OpenError::NewerVersion { version: 9, .. }));
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let runtime = ProcessRuntime::open(world.config.clone()).unwrap();
    let all = runtime.list().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].id, kept.id);
    assert!(
        world
            .config
            .state_dir
            .join("torn")
            .join(other.id.to_string())
            .exists()
    );
    runtime.shutdown().await;
}

/// A file system of one mebibyte, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at)),
            other => {
                println!("SKIPPED: a small tmpfs cannot be mounted here ({other:?})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_starts_nothing_loses_nothing_and_stops_everything() {
    let outside = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(outside.path().join("disk")) else {
        return;
    };
    let state = disk.0.join("state");
    let world = World::with(|c| c.state_dir = state);
    let mut o = order(&["listen"]);
    o.facts = Some(facts("kept"));
    let playing = world.start(o).await;
    let filler = disk.0.join("filler");
    let full = std::fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let refused = world.runtime.order(order(&["listen"])).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::Storage(_)), "{refused:?}");
    assert_eq!(refused.code().as_str(), "storage_full");
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
    let dirs = std::fs::read_dir(world.config.state_dir.join("instances")).unwrap();
    assert_eq!(dirs.count(), 1, "nothing of it is left");

    let claim = world
        .runtime
        .bind(playing.id, playing.version, facts("lost"), document("x"))
        .await;
    assert!(matches!(claim, Err(RuntimeError::Storage(_))), "{claim:?}");
    let now = world.runtime.get(playing.id).await.unwrap();
    assert_eq!(
        (now.version, now.facts),
        (playing.version, Some(facts("kept")))
    );
    for n in 0..2_000 {
        assert_eq!(ask(address(&playing), &format!("say {n}")), n.to_string());
    }
    ask(address(&playing), "exit 5");
    let exit = world.until_exit(playing.id).await;
    assert_eq!(exit.code, Some(5), "there was room for how it ended");

    // With room again, another one; then full again, and it stops all the same.
    std::fs::remove_file(&filler).unwrap();
    let next = world.start(order(&["listen"])).await;
    let _ = std::fs::write(&filler, vec![0; 2 << 20]);
    assert_eq!(world.stop(next.id, PATIENCE).await.signal, Some(15));
    let over = world.runtime.get(next.id).await.unwrap();
    world.runtime.forget(over.id, over.version).await.unwrap();
    world.end().await;
    drop(disk);
}
