//! The ordinary life of an instance, and the compare-and-set of its facts.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_starts_listens_plays_and_ends_with_its_own_code() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    assert_eq!(ask(address(&ready), "hello"), "hello");
    assert_eq!(ask(address(&ready), "connections"), "2", "no probe came");
    let t = ready.timings;
    assert_eq!(t.ordered_at, t.released_at);
    assert!(t.ordered_at <= t.spawned_at && t.spawned_at <= t.ready_at);
    assert!(t.spawned_at.is_some());
    let dir = world.instance_dir(ready.id);
    assert_eq!(
        ask(address(&ready), "cwd"),
        dir.join("work").display().to_string()
    );
    ask(address(&ready), "exit 7");
    let exit = world.until_exit(ready.id).await;
    assert_eq!((exit.code, exit.signal), (Some(7), None));
    assert!(!exit.lost && !exit.oom && !exit.never_ran && !exit.is_clean());
    assert!(exit.at >= t.ready_at.unwrap());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_repeated_is_the_same_instance() {
    let world = World::new();
    let order = order(&["listen"]);
    let copies = (0..16).map(|_| world.runtime.order(order.clone()));
    for copy in futures::future::join_all(copies).await {
        assert_eq!(copy.unwrap().id, order.id);
    }
    let ready = world.until_ready(order.id).await;
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
    let again = world.runtime.order(order.clone()).await.unwrap();
    assert_eq!(again.address, ready.address);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_game_is_given_what_is_documented_and_none_of_our_secrets() {
    let world = World::new();
    let mut order = order(&["listen"]);
    order.template.env = BTreeMap::from([
        ("COLOUR".into(), "blue".into()),
        ("PORT".into(), "1".into()),
    ]);
    order.env = BTreeMap::from([("SPAWNPOINT_TOKEN".into(), "s3cret".into())]);
    order.facts = Some(facts("{}"));
    order.session_file = document("{\"version\":1}");
    let ready = world.start(order.clone()).await;
    let at = address(&ready);
    let dir = world.instance_dir(ready.id);
    for (name, want) in [
        ("PORT", at.port().to_string()),
        ("COLOUR", "blue".into()),
        ("SESSION_ID", "01890a5d-ac96-774b-bcce-b302099a8058".into()),
        ("SPAWNPOINT_FLEET", "test".into()),
        ("SPAWNPOINT_INSTANCE", ready.id.to_string()),
        ("SPAWNPOINT_TOKEN", "s3cret".into()),
        (
            "SPAWNPOINT_SESSION_FILE",
            dir.join("session.json").display().to_string(),
        ),
        (
            "SPAWNPOINT_RESULTS_FILE",
            dir.join("results.json").display().to_string(),
        ),
    ] {
        assert_eq!(ask(at, &format!("env {name}")), want, "{name}");
    }
    assert_eq!(ask(at, "file SPAWNPOINT_SESSION_FILE"), "{\"version\":1}");
    let environment = ask(at, "environment");
    let given: Vec<_> = environment.split(' ').collect();
    assert!(!given.iter().any(|n| n.starts_with("CARGO")), "{given:?}");
    // The token: in no command line and in no file that others can read.
    let shim = parent(pid(&ready));
    for p in [shim, pid(&ready)] {
        let line = std::fs::read(format!("/proc/{p}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("s3cret"));
    }
    assert!(!world.log(ready.id).await.contains("s3cret"));
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.config.state_dir), 0o700);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("record.json")), 0o600);
    assert_eq!(mode(&dir.join("run")), 0o600);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_expanded() {
    let world = World::new();
    let mut order = order(&[]);
    order.template.command = vec![
        "sh".into(),
        "-c".into(),
        "echo \"$0|$1|$2\"".into(),
        "$(PORT)".into(),
        "$$(PORT)".into(),
        "$(SPAWNPOINT_FLEET)-$(NOPE)".into(),
    ];
    order.template.ready = ReadyRule::None;
    let id = world.runtime.order(order).await.unwrap().id;
    let exit = world.until_exit(id).await;
    assert!(exit.is_clean());
    let log = world.log(id).await;
    let parts: Vec<_> = log.trim().split('|').collect();
    assert!(world.config.ports.contains(&parts[0].parse().unwrap()));
    assert_eq!(parts[1..], ["$(PORT)", "test-$(NOPE)"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_instance_is_claimed_once() {
    let world = World::new();
    let warm = world.start(order(&["listen"])).await;
    assert_eq!(warm.facts, None);
    assert_eq!(
        ask(address(&warm), "file SPAWNPOINT_SESSION_FILE"),
        "entity not found"
    );
    let claims = (0..8).map(|n| {
        world.runtime.bind(
            warm.id,
            warm.version,
            facts(&format!("claim {n}")),
            document(&format!("session {n}")),
        )
    });
    let results = futures::future::join_all(claims).await;
    let won: Vec<_> = (0..8).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    for (n, result) in results.into_iter().enumerate() {
        if n != won[0] {
            is_conflict(result);
        }
    }
    let bound = world.runtime.get(warm.id).await.unwrap();
    assert_eq!(bound.facts, Some(facts(&format!("claim {}", won[0]))));
    assert_eq!(bound.state, State::Ready);
    assert_eq!(
        ask(address(&warm), "file SPAWNPOINT_SESSION_FILE"),
        format!("session {}", won[0])
    );
    world.end().await;
}

/// What another session would write.
fn stranger() -> Facts {
    Facts {
        session: "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap(),
        ..facts("mine")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_needs_the_version_it_saw() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    let (id, stale) = (ready.id, wrong(ready.version));
    is_conflict(world.runtime.bind(id, stale, facts(""), None).await);
    is_conflict(world.runtime.stop(id, stale, Duration::ZERO).await);
    is_conflict(world.runtime.forget(id, ready.version).await);
    is_conflict(world.runtime.restart(id, ready.version, None).await);
    assert_eq!(
        world.runtime.get(id).await.unwrap(),
        ready,
        "nothing changed"
    );
    let bound = world
        .runtime
        .bind(id, ready.version, facts("a"), None)
        .await
        .unwrap();
    is_conflict(
        world
            .runtime
            .bind(id, ready.version, facts("b"), None)
            .await,
    );
    let stopping = world
        .runtime
        .stop(id, bound, Duration::from_secs(30))
        .await
        .unwrap();
    assert!(ready.version < bound && bound < stopping);
    is_over(world.runtime.bind(id, stopping, stranger(), None).await);
    is_conflict(world.runtime.restart(id, stopping, None).await);
    world.until_exit(id).await;
    assert_eq!(
        world
            .runtime
            .stop(id, stopping, Duration::ZERO)
            .await
            .unwrap(),
        stopping,
        "stopping what is over is harmless"
    );
    is_over(world.runtime.bind(id, stopping, stranger(), None).await);
    is_conflict(world.runtime.bind(id, bound, facts("c"), None).await);
    let written = world
        .runtime
        .bind(id, stopping, facts("c"), None)
        .await
        .unwrap();
    is_conflict(world.runtime.forget(id, stopping).await);
    world.runtime.forget(id, written).await.unwrap();
    let gone = world.runtime.get(id).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound)), "{gone:?}");
    let gone = world.runtime.forget(id, written).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound)), "{gone:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_instance_waits_for_its_release() {
    let world = World::new();
    let mut gated = order(&["listen"]);
    gated.gated = true;
    gated.facts = Some(facts("queued"));
    let held = world.runtime.order(gated).await.unwrap();
    assert_eq!(held.state, State::Gated);
    assert_eq!((held.address, held.timings.released_at), (None, None));
    is_conflict(world.runtime.release(held.id, wrong(held.version)).await);
    let bound = world
        .runtime
        .bind(held.id, held.version, facts("still queued"), None)
        .await
        .unwrap();
    world.runtime.release(held.id, bound).await.unwrap();
    let ready = world.until_ready(held.id).await;
    assert_eq!(ready.facts, Some(facts("still queued")));
    assert!(ready.timings.released_at >= ready.timings.ordered_at);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_instance_that_is_stopped_never_ran() {
    let world = World::new();
    let mut gated = order(&["listen"]);
    gated.gated = true;
    let held = world.runtime.order(gated).await.unwrap();
    let exit = world.stop(held.id, Duration::from_secs(30)).await;
    assert!(exit.never_ran && exit.code.is_none() && !exit.lost);
    let version = world.runtime.get(held.id).await.unwrap().version;
    is_over(world.runtime.release(held.id, version).await);
    is_over(world.runtime.restart(held.id, version, None).await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_in_place() {
    let world = World::new();
    let mut o = order(&["listen"]);
    o.facts = Some(facts("kept"));
    o.session_file = document("generation 1");
    let first = world.start(o).await;
    ask(address(&first), "say before");
    ask(address(&first), "exit 3");
    world.until_exit(first.id).await;
    let version = world.runtime.get(first.id).await.unwrap().version;
    is_conflict(world.runtime.restart(first.id, wrong(version), None).await);
    world
        .runtime
        .restart(first.id, version, document("generation 2"))
        .await
        .unwrap();
    let second = world.until_ready(first.id).await;
    assert_eq!(second.address, first.address);
    assert_eq!(
        (second.restarts, second.facts.clone()),
        (1, Some(facts("kept")))
    );
    assert_ne!(pid(&second), pid(&first));
    assert_eq!(
        ask(address(&second), "file SPAWNPOINT_SESSION_FILE"),
        "generation 2"
    );
    let log = world.log(first.id).await;
    assert!(log.contains("before"), "the log goes on: {log}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_what_the_game_left_and_bounded() {
    let world = World::new();
    let run = async |text: &str| {
        let mut o = order(&["results", text]);
        o.template.ready = ReadyRule::None;
        let id = world.runtime.order(o).await.unwrap().id;
        world.until_exit(id).await;
        world.runtime.results(id).await.unwrap()
    };
    assert_eq!(
        run("{\"winner\":1}").await.as_deref(),
        Some(&b"{\"winner\":1}"[..])
    );
    assert_eq!(run("").await, None);
    assert_eq!(run(&"x".repeat(100_000)).await.unwrap().len(), 4_097);
    let ready = world.start(order(&["listen"])).await;
    assert_eq!(world.runtime.results(ready.id).await.unwrap(), None);
    // What a hostile game puts in its place is neither followed nor waited for.
    let path = world.instance_dir(ready.id).join("results.json");
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert_eq!(world.runtime.results(ready.id).await.unwrap(), None);
    std::fs::remove_file(&path).unwrap();
    std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert_eq!(world.runtime.results(ready.id).await.unwrap(), None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_ends_with_the_instance_and_is_kept_until_forgotten() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    let follow = LogRange {
        tail_bytes: None,
        follow: true,
    };
    let log = world.runtime.logs(ready.id, follow).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let chunks: Vec<_> = log.map(Result::unwrap).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    });
    for n in 0..20 {
        ask(address(&ready), &format!("say line {n}"));
    }
    ask(address(&ready), "exit 0");
    let text = tokio::time::timeout(PATIENCE, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let want: String = std::iter::once("listening\n".to_owned())
        .chain((0..20).map(|n| format!("line {n}\n")))
        .collect();
    assert_eq!(text, want);
    let tail = LogRange {
        tail_bytes: Some(8),
        follow: false,
    };
    let chunks: Vec<_> = world
        .runtime
        .logs(ready.id, tail)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(chunks.concat(), b"line 19\n");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_with_everything_and_a_slow_reader_is_told_everything_again() {
    let world = World::new();
    let ready = world.start(order(&["listen"])).await;
    let mut changes = world.runtime.watch().await.unwrap();
    let Some(Change::All(all)) = changes.next().await else {
        panic!("not everything first");
    };
    assert_eq!(all, std::slice::from_ref(&ready));
    // More changes than are kept for a reader that does not come.
    let mut version = ready.version;
    for n in 0..1_500 {
        version = world
            .runtime
            .bind(ready.id, version, facts(&n.to_string()), None)
            .await
            .unwrap();
    }
    let Some(Change::All(all)) = changes.next().await else {
        panic!("a gap was not told");
    };
    assert_eq!(all[0].version, version);
    ask(address(&ready), "exit 0");
    world.until_exit(ready.id).await;
    world.runtime.forget(ready.id, version).await.unwrap();
    let last = tokio::time::timeout(PATIENCE, async {
        while let Some(change) = changes.next().await {
            if let Change::Gone(id) = change {
                return id;
            }
        }
        panic!("the watch ended");
    });
    assert_eq!(last.await.unwrap(), ready.id);
    world.runtime.shutdown().await;
    assert!(changes.next().await.is_none(), "it ends with the runtime");
}
