//! One run of the server's process: it can die between any two of its effects, and whoever was inside never comes out.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::world::World;

/// One run.
#[derive(Debug)]
pub(crate) struct Life {
    /// Which, counted from 1.
    pub(crate) number: u32,
    /// It has died.
    pub(crate) dead: CancellationToken,
}

impl Life {
    pub(crate) fn new(number: u32) -> Arc<Self> {
        Arc::new(Self {
            number,
            dead: CancellationToken::new(),
        })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Carries one call of this run out into the world: before it and after it the process may die, and a dead process does nothing
    /// and hears nothing.
    pub(crate) async fn call<O>(
        &self,
        world: &World,
        (before, after): (&'static str, &'static str),
        call: impl Future<Output = O>,
    ) -> O {
        world.passes(self, before);
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        let answer = call.await;
        world.passes(self, after);
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// The places at which a run may die besides the server's own fault points: before and after each of its calls.
pub(crate) const CALLS: [&str; 24] = [
    "order>",
    "order<",
    "release>",
    "release<",
    "bind>",
    "bind<",
    "restart>",
    "restart<",
    "stop>",
    "stop<",
    "forget>",
    "forget<",
    "list>",
    "list<",
    "insert>",
    "insert<",
    "lobby.join>",
    "lobby.join<",
    "lobby.leave>",
    "lobby.leave<",
    "lobby.take>",
    "lobby.take<",
    "lobby.settle>",
    "lobby.settle<",
];
