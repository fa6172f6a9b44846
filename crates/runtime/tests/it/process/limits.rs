//! CPU and memory limits, where this machine has them.

use super::*;
use spawnpoint_runtime::process::{LimitSupport, limits_available};

/// Control groups of an instance anywhere below `/sys/fs/cgroup`.
fn groups_of(id: InstanceId) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_str() == Some(name) {
                    found.push(entry.path());
                }
                walk(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(
        Path::new("/sys/fs/cgroup"),
        &format!("spawnpoint-{id}"),
        &mut found,
    );
    found
}

fn available(what: &str, support: &LimitSupport) -> bool {
    match support {
        LimitSupport::Available(version) => {
            println!("{what}: control groups {version:?}");
            true
        }
        LimitSupport::Missing(why) => {
            println!("SKIPPED: no {what} limits here: {why}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_an_oom_exit() {
    if !available("memory", &limits_available().memory) {
        return;
    }
    let world = World::new();
    let mut o = order(&["eat", &(512u64 << 20).to_string()]);
    o.template.memory_bytes = Some(64 << 20);
    let id = world.runtime.order(o).await.unwrap().id;
    let exit = world.until_exit(id).await;
    assert!(
        exit.oom && !exit.is_clean(),
        "{exit:?}; {}",
        world.log(id).await
    );
    assert_eq!(exit.signal, Some(9));
    assert!(groups_of(id).is_empty(), "{:?}", groups_of(id));
    // Enough is enough.
    let mut o = order(&["eat", &(16u64 << 20).to_string()]);
    o.template.memory_bytes = Some(256 << 20);
    let id = world.runtime.order(o).await.unwrap().id;
    let exit = world.until_exit(id).await;
    assert!(exit.is_clean(), "{exit:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_game_and_its_family_are_in_the_groups_and_the_groups_go_with_them() {
    let limits = limits_available();
    if !available("memory", &limits.memory) || !available("cpu", &limits.cpu) {
        return;
    }
    let world = World::new();
    for kill_shim in [false, true] {
        let mut o = order(&["fork"]);
        o.template.memory_bytes = Some(256 << 20);
        o.template.cpu_millis = Some(500);
        let ready = world.start(o).await;
        let groups = groups_of(ready.id);
        assert!(!groups.is_empty());
        let read = |file: &str| {
            groups
                .iter()
                .find_map(|g| std::fs::read_to_string(g.join(file)).ok())
        };
        let quota = read("cpu.cfs_quota_us")
            .or_else(|| read("cpu.max"))
            .unwrap();
        assert!(quota.starts_with("50000"), "{quota}");
        for group in &groups {
            let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
            assert_eq!(members.lines().count(), 4, "{members}");
        }
        if kill_shim {
            kill(parent(pid(&ready)), rustix::process::Signal::KILL);
            assert!(world.until_exit(ready.id).await.lost);
        } else {
            world.stop(ready.id, Duration::ZERO).await;
        }
        assert!(groups_of(ready.id).is_empty());
        assert!(processes_of(world.dir.path()).is_empty());
    }
    world.end().await;
}

#[test]
fn a_probe_leaves_no_group() {
    let before = limits_available();
    assert_eq!(before, limits_available());
    fn walk(dir: &Path) -> bool {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .any(|e| {
                e.file_type().is_ok_and(|t| t.is_dir())
                    && (e.file_name().to_string_lossy()
                        == format!("spawnpoint-probe-{}", std::process::id())
                        || walk(&e.path()))
            })
    }
    assert!(!walk(Path::new("/sys/fs/cgroup")));
}
