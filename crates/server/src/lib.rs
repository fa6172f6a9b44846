//! The control plane role: the one writer of sessions, its workers, and its HTTP API.
//!
//! `config` parses what the operator asked for, `app` holds the use cases, `workers` look and act, `http` speaks. A role is a
//! library: [`build`] makes one, the same for `spawnpoint up`, the tests and deployed binaries. No sockets to players (the gateway's)
//! and no process or pod handling (the runtime's) may enter.

pub mod app;
pub mod config;
pub mod fault;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod http;
pub mod journal;
#[cfg_attr(
    not(feature = "simulation"),
    allow(dead_code, reason = "the names stay, the switch is not there")
)]
pub mod mutant;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spawnpoint_core::audit::Report;
use spawnpoint_core::lifecycle::{EndedBy, Reason};
use spawnpoint_core::session::Event;
use spawnpoint_runtime::RuntimeError;
use spawnpoint_wire::link::Link;
use spawnpoint_wire::tables::Tables;

pub use app::{App, Caller, Deps, Keys, Random, os_random};
pub use config::Config;

/// How a drain treats live games.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainMode {
    /// Every session ends with reason `shutdown`, its record is written, nothing is left running.
    EndGames,
    /// Games go on; the next start takes them over.
    LeaveGames,
}

/// A server that was built and is running.
pub struct Server {
    app: Arc<App>,
}

/// Builds a server over its parts, takes over what an earlier run left, and starts its workers.
///
/// # Errors
/// When the runtime cannot say what it holds: then nothing may be decided.
pub async fn build(config: Config, deps: Deps) -> Result<Server, RuntimeError> {
    let app = App::new(config, deps);
    app.revive().await?;
    // Before the first call, if it can be; the matchmaker tries again.
    if let Err(e) = app.load_lobby().await {
        tracing::warn!(code = %e.code(), error = %app::chain(&e), "the tickets of an earlier run cannot be read yet");
    }
    workers::start(&app);
    Ok(Server { app })
}

impl Server {
    /// The use cases.
    #[must_use]
    pub const fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// This server as a gateway in the same process sees it.
    #[must_use]
    pub fn link(&self) -> Arc<dyn Link> {
        Arc::new(app::LocalLink(Arc::clone(&self.app)))
    }

    /// This gateway says what it has when an audit asks. Without it an audit says that it cannot see the gateway.
    pub fn audit_gateway(&self, gateway: Arc<dyn Tables>) {
        self.app.audits.listen_to(gateway);
    }

    /// Looks at everything and says what is wrong and what cannot be seen. Takes up to some seconds; changes nothing.
    pub async fn audit(&self) -> Report {
        self.app.audit().await
    }

    /// One look at everything. What it finds may just be on its way: [`spawnpoint_core::audit::confirm`] it by another a while later.
    pub async fn look(&self) -> Report {
        self.app.first_look().await
    }

    /// The player API and `/play`.
    pub fn public_router(&self) -> axum::Router {
        http::public(&self.app)
    }

    /// Everything, for operators.
    pub fn admin_router(&self) -> axum::Router {
        http::admin(&self.app)
    }

    /// For instances.
    pub fn sdk_router(&self) -> axum::Router {
        http::sdk(&self.app)
    }

    /// Puts a new configuration in place; live sessions stay as they are.
    pub fn reload(&self, config: Config) {
        self.app.reload(config);
    }

    /// How many sessions have not ended.
    #[must_use]
    pub fn live(&self) -> usize {
        self.app.with_world(|w| w.sessions.len())
    }

    /// Stops: refuses new sessions, ends or leaves the games, and stops the workers. Returns how many sessions were not finished
    /// when the time was up; their records are written by the next start.
    pub async fn drain(&self, mode: DrainMode, limit: Duration) -> usize {
        let app = &self.app;
        if mode == DrainMode::EndGames {
            app.begin_drain();
            app.stop_warm();
            let ids = app.with_world(|w| w.sessions.keys().copied().collect::<Vec<_>>());
            for id in ids {
                let _ = app.apply(
                    id,
                    &Event::End {
                        reason: Reason::Shutdown,
                        by: EndedBy::System,
                    },
                );
            }
            let deadline = tokio::time::Instant::now() + limit;
            loop {
                let ended = app.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if app.is_empty() {
                    break;
                }
                tokio::select! {
                    biased;
                    () = ended => {}
                    () = tokio::time::sleep_until(deadline) => break,
                }
            }
        }
        let left = if mode == DrainMode::EndGames {
            self.live()
        } else {
            0
        };
        app.stop.cancel();
        app.tasks.close();
        // Drivers give up at their next pause; a blocked one must not keep the process from leaving.
        let _ = tokio::time::timeout(Duration::from_secs(5), app.tasks.wait()).await;
        left
    }

    /// Stops at once, as a `kill -9` would: nothing is ended, recorded or waited for. For tests of what a restart finds.
    pub fn abandon(&self) {
        self.app.stop.cancel();
        self.app.tasks.abandon();
    }

    /// Whether an earlier run's sessions have been taken over.
    #[must_use]
    pub fn is_revived(&self) -> bool {
        self.app.revived.load(Ordering::Acquire)
    }
}
