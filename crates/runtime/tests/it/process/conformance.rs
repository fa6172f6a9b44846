//! The suite that every runtime passes, with real processes.

use std::sync::Mutex;

use async_trait::async_trait;
use spawnpoint_runtime::conformance::{self, Fixture};

use super::*;

/// Every world of one run, kept until its end.
#[derive(Default)]
struct Processes {
    worlds: Mutex<Vec<(tempfile::TempDir, ProcessConfig, Arc<ProcessRuntime>)>>,
}

impl Processes {
    fn config(&self, of: &Arc<ProcessRuntime>) -> ProcessConfig {
        let worlds = self.worlds.lock().unwrap();
        let found = worlds
            .iter()
            .find(|(_, _, runtime)| Arc::ptr_eq(runtime, of));
        found.expect("one of ours").1.clone()
    }

    fn dir(&self, of: &ProcessRuntime, id: InstanceId) -> PathBuf {
        let worlds = self.worlds.lock().unwrap();
        let found = worlds
            .iter()
            .find(|(_, _, runtime)| std::ptr::eq(&raw const **runtime, of));
        let config = &found.expect("one of ours").1;
        config.state_dir.join("instances").join(id.to_string())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (dir, _, _) in self.worlds.lock().unwrap().iter() {
            for pid in processes_of(dir.path()) {
                kill(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[async_trait]
impl Fixture for Processes {
    type Runtime = ProcessRuntime;

    async fn start(&self) -> Arc<ProcessRuntime> {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            ProcessConfig::new(dir.path().join("state"), vec![game().into(), "shim".into()]);
        config.ports = own_ports();
        let runtime = ProcessRuntime::open(config.clone()).unwrap();
        let mut worlds = self.worlds.lock().unwrap();
        worlds.push((dir, config, Arc::clone(&runtime)));
        runtime
    }

    async fn reopen(&self, old: Arc<ProcessRuntime>) -> Arc<ProcessRuntime> {
        let config = self.config(&old);
        old.shutdown().await;
        let new = ProcessRuntime::open(config).unwrap();
        for world in self.worlds.lock().unwrap().iter_mut() {
            if Arc::ptr_eq(&world.2, &old) {
                world.2 = Arc::clone(&new);
            }
        }
        new
    }

    fn ready(&self) -> Template {
        template(&["listen"])
    }

    fn exits(&self, code: i32) -> Template {
        template(&["exit", &code.to_string()])
    }

    fn logs(&self, line: &str) -> Template {
        template(&["say-then-listen", line])
    }

    fn leaves_results(&self, text: &str) -> Template {
        template(&["results", text])
    }

    fn says_ready(&self) -> Template {
        Template {
            ready: ReadyRule::Sdk,
            ..template(&["listen"])
        }
    }

    async fn crash(&self, runtime: &ProcessRuntime, id: InstanceId) {
        let instance = runtime.get(id).await.unwrap();
        kill(pid(&instance), rustix::process::Signal::KILL);
    }

    fn restarts(&self) -> bool {
        true
    }

    async fn leftovers(&self, runtime: &ProcessRuntime, id: InstanceId) -> Vec<String> {
        let dir = self.dir(runtime, id);
        let mut left: Vec<_> = processes_of(&dir)
            .into_iter()
            .map(|pid| format!("process {pid}"))
            .collect();
        if dir.exists() {
            left.push(dir.display().to_string());
        }
        left
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_runtime_keeps_every_promise() {
    conformance::run(&Processes::default()).await;
}
