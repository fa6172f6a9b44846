//! Every task of one server: its drain waits for them, and in a simulation they are gone with its process.

use std::future::Future;

use tokio::task::JoinHandle;
#[cfg(feature = "simulation")]
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// The simulated process is dead: what it was in the middle of is never done, and holds nothing.
    #[cfg(feature = "simulation")]
    dead: CancellationToken,
}

impl Tasks {
    /// Starts one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "simulation")]
        let task = {
            let dead = self.dead.clone();
            async move {
                tokio::select! {
                    biased;
                    () = dead.cancelled() => {}
                    () = task => {}
                }
            }
        };
        self.tracker.spawn(task);
    }

    /// Starts one that blocks its thread.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn_blocking(work)
    }

    /// No wait for more than there are now.
    pub(crate) fn close(&self) {
        self.tracker.close();
    }

    /// Until all are over; [`close`](Self::close) first.
    pub(crate) async fn wait(&self) {
        self.tracker.wait().await;
    }

    /// The process is no more.
    pub(crate) fn abandon(&self) {
        self.close();
        #[cfg(feature = "simulation")]
        self.dead.cancel();
    }
}
