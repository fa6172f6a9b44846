//! The suite every runtime passes: each promise of [`Runtime`] as a check.
//!
//! A runtime's test implements [`Fixture`] (how to make one, which templates behave how) and calls [`run`]. A failed promise panics
//! with the check's place and what was seen. It is meant for tests; nothing else calls it.
//!
//! What the trait's words leave open is fixed here:
//! * Over comes before Conflict: `bind` and `release` on an instance that is over or stopping are `Over` whatever the version.
//! * `stop` on an instance that is over or stopping succeeds whatever the version and changes nothing.
//! * `forget` of an instance that is not over is `Conflict`.
//! * What only happens to an instance (it gets ready, it exits) does not change its version; what its owner does changes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a check fails by panicking; only tests call this"
)]

mod claims;
mod lives;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spawnpoint_core::session::Exit;
use spawnpoint_core::{InstanceId, SessionId};
use uuid::Uuid;

use crate::{Facts, Instance, Order, Runtime, RuntimeError, State, Template};

/// How the suite gets at one kind of runtime.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The runtime under test.
    type Runtime: Runtime;

    /// One with nothing in it. Called once a check.
    async fn start(&self) -> Arc<Self::Runtime>;

    /// The owner died without a word (`kill -9`) and a new one opens the same durable state. `old` is the last handle.
    async fn reopen(&self, old: Arc<Self::Runtime>) -> Arc<Self::Runtime>;

    /// Becomes ready and serves until it is told to stop.
    fn ready(&self) -> Template;

    /// Runs, then exits by itself with this code, soon.
    fn exits(&self, code: i32) -> Template;

    /// Writes this line to its output, then goes on as [`Fixture::ready`].
    fn logs(&self, line: &str) -> Template;

    /// Leaves this text in its results file, then exits 0, soon.
    fn leaves_results(&self, text: &str) -> Template;

    /// Serves, but is ready only by [`Runtime::mark_ready`].
    fn says_ready(&self) -> Template;

    /// Kills the running game as a crash would, behind the runtime's back.
    async fn crash(&self, runtime: &Self::Runtime, id: InstanceId);

    /// Whether it can restart in place.
    fn restarts(&self) -> bool;

    /// What is still in the world of an instance that was forgotten (processes, files), in words.
    async fn leftovers(&self, runtime: &Self::Runtime, id: InstanceId) -> Vec<String>;

    /// How long to wait for what must happen.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

/// Runs every check, each on a runtime of its own.
pub async fn run<F: Fixture>(fixture: &F) {
    // Boxed: the suite is one long future otherwise.
    Box::pin(lives::run(fixture)).await;
    Box::pin(claims::run(fixture)).await;
    Box::pin(views::run(fixture)).await;
}

/// A check's world: the runtime, and the instances it made, to be cleared away at the end.
struct Bench<'a, F: Fixture> {
    fixture: &'a F,
    runtime: Arc<F::Runtime>,
    made: Vec<InstanceId>,
}

impl<'a, F: Fixture> Bench<'a, F> {
    async fn new(fixture: &'a F) -> Self {
        let runtime = fixture.start().await;
        let seen = runtime.list().await.unwrap();
        assert!(seen.is_empty(), "a new runtime has nothing: {seen:?}");
        Self {
            fixture,
            runtime,
            made: Vec::new(),
        }
    }

    fn plan(&mut self, template: Template) -> Order {
        let id = new_id();
        self.made.push(id);
        Order {
            id,
            fleet: "spice".parse().unwrap(),
            template,
            gated: false,
            facts: None,
            session_file: None,
            env: BTreeMap::new(),
        }
    }

    async fn order(&mut self, template: Template) -> Instance {
        let order = self.plan(template);
        self.runtime.order(order).await.unwrap()
    }

    async fn order_ready(&mut self) -> Instance {
        let made = self.order(self.fixture.ready()).await;
        self.until_ready(made.id).await
    }

    async fn get(&self, id: InstanceId) -> Instance {
        self.runtime.get(id).await.unwrap()
    }

    async fn until_ready(&self, id: InstanceId) -> Instance {
        self.until(id, "ready", |i| i.state == State::Ready).await
    }

    async fn until_exited(&self, id: InstanceId) -> (Instance, Exit) {
        let over = |i: &Instance| matches!(i.state, State::Exited(_));
        let i = self.until(id, "over", over).await;
        let State::Exited(exit) = i.state else {
            panic!("{i:?}")
        };
        (i, exit)
    }

    /// Waits until the instance is so; fails at once when it is over instead.
    async fn until(&self, id: InstanceId, what: &str, is: impl Fn(&Instance) -> bool) -> Instance {
        let deadline = tokio::time::Instant::now() + self.fixture.patience();
        loop {
            let i = self.get(id).await;
            if is(&i) {
                return i;
            }
            let over = matches!(i.state, State::Exited(_));
            assert!(!over, "is over instead of {what}: {i:?}");
            let late = tokio::time::Instant::now() >= deadline;
            assert!(!late, "is not {what} in time: {i:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn reopen(self) -> Self {
        let Self {
            fixture,
            runtime,
            made,
        } = self;
        let runtime = fixture.reopen(runtime).await;
        Self {
            fixture,
            runtime,
            made,
        }
    }

    /// Stops and forgets everything and looks whether anything is left.
    async fn clear(self) {
        let r = &self.runtime;
        for i in r.list().await.unwrap() {
            r.stop(i.id, i.version, Duration::from_secs(5))
                .await
                .unwrap();
            let (i, _) = self.until_exited(i.id).await;
            r.forget(i.id, i.version).await.unwrap();
        }
        let left = r.list().await.unwrap();
        assert!(left.is_empty(), "forgotten and still listed: {left:?}");
        for id in &self.made {
            let got = r.get(*id).await;
            assert!(matches!(got, Err(RuntimeError::NotFound)), "{got:?}");
            let left = self.fixture.leftovers(r, *id).await;
            assert!(left.is_empty(), "left of {id}: {left:?}");
        }
    }
}

fn new_id() -> InstanceId {
    InstanceId::new(Uuid::now_v7())
}

fn facts(document: &str) -> Facts {
    Facts {
        session: SessionId::new(Uuid::now_v7()),
        document: document.to_owned(),
    }
}

fn file(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn is_conflict<T>(r: &Result<T, RuntimeError>) -> bool {
    matches!(r, Err(RuntimeError::Conflict))
}

fn is_over<T>(r: &Result<T, RuntimeError>) -> bool {
    matches!(r, Err(RuntimeError::Over))
}

fn is_unknown<T>(r: &Result<T, RuntimeError>) -> bool {
    matches!(r, Err(RuntimeError::NotFound))
}
