//! What all connections share: the match behind a lock that is never held over an await, and word of its changes.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::game::{Game, State};
use crate::results::Tally;
use crate::session_file;
use crate::token::Keys;

/// The match and the counts about it.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) game: Game,
    pub(crate) tally: Tally,
}

/// Shared by every connection.
#[derive(Debug)]
pub(crate) struct House {
    inner: Mutex<Inner>,
    started: Instant,
    /// The match changed: look again when it needs attention.
    pub(crate) changed: Notify,
    /// `true`: say nothing more and hang up.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) longest: Duration,
    pub(crate) proxy: bool,
    pub(crate) keys: Option<Keys>,
    session_id: OnceLock<String>,
    session_file: Option<PathBuf>,
}

impl House {
    pub(crate) fn new(config: &Config) -> Self {
        let session_id = OnceLock::new();
        if let Some(id) = &config.session_id {
            let _ = session_id.set(id.clone());
        }
        Self {
            inner: Mutex::new(Inner {
                game: Game::new(config.rules),
                tally: Tally::default(),
            }),
            started: Instant::now(),
            changed: Notify::new(),
            closing: watch::Sender::new(false),
            longest: config.longest,
            proxy: config.proxy,
            keys: config.keys.clone(),
            session_id,
            session_file: config.session_file.clone(),
        }
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment that is so long after the start.
    pub(crate) fn moment(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// Looks at the match or changes it. The driver looks again if its state or its next moment became another one.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut Inner, Duration) -> T) -> T {
        let now = self.now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = |game: &Game| (game.state(), game.wakes_at(), game.is_over(now));
        let before = facts(&inner.game);
        let done = act(&mut inner, now);
        let after = facts(&inner.game);
        drop(inner);
        if before != after {
            self.changed.notify_one();
        }
        if after.0 == State::Running && before.0 == State::Open {
            crate::log("the match is running");
        }
        done
    }

    /// The session this server is for; waits a moment for the session file if it is not known yet.
    pub(crate) async fn session_id(&self) -> Option<&str> {
        if self.session_id.get().is_none()
            && let Some(path) = &self.session_file
            && let Some(id) = session_file::session_id(path).await
        {
            let _ = self.session_id.set(id);
        }
        self.session_id.get().map(String::as_str)
    }

    /// The same without waiting, for the results of a match nobody came to.
    pub(crate) async fn session_id_now(&self) -> Option<&str> {
        if self.session_id.get().is_none()
            && let Some(path) = &self.session_file
            && let Some(id) = session_file::read(path).await
        {
            let _ = self.session_id.set(id);
        }
        self.session_id.get().map(String::as_str)
    }
}
