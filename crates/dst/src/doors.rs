//! What the server stands on, in three layers. Inside, the ledger: what was really done, written down and checked as it happens. Around
//! it `Flaky`: what goes wrong. Outermost the door: through it a run of the process reaches the world, and dies at it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use spawnpoint_core::audit::Holding;
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use spawnpoint_core::{InstanceId, SessionId, TicketId};
use spawnpoint_runtime::flaky::Flaky;
use spawnpoint_runtime::simulated::SimulatedRuntime;
use spawnpoint_runtime::{
    Change, Facts, Instance, LogRange, LogStream, Order, Runtime, RuntimeError, Version,
};
use spawnpoint_store::flaky::Flaky as FlakyStore;
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::lobby::{Held, Joined, Left, Lobby, LobbyError, Taken};
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_store::{Filter, Inserted, Inspection, Page, Records, StoreError};

use crate::life::Life;
use crate::plan::Trouble;
use crate::world::World;

type Done<T> = Result<T, RuntimeError>;

/// The runtime itself, watched.
pub(crate) struct LedgerRuntime {
    pub(crate) inner: SimulatedRuntime,
    pub(crate) world: Arc<World>,
}

#[async_trait]
impl Runtime for LedgerRuntime {
    async fn order(&self, order: Order) -> Done<Instance> {
        let seen = self.inner.order(order.clone()).await?;
        self.world.ordered(&order);
        Ok(seen)
    }

    async fn release(&self, id: InstanceId, expect: Version) -> Done<Version> {
        let version = self.inner.release(id, expect).await?;
        self.world.released(id);
        Ok(version)
    }

    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Done<Version> {
        let version = self
            .inner
            .bind(id, expect, facts.clone(), session_file)
            .await?;
        self.world.bound(id, &facts);
        Ok(version)
    }

    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Done<Version> {
        let version = self.inner.restart(id, expect, session_file).await?;
        self.world.restarted(id);
        Ok(version)
    }

    async fn mark_ready(&self, id: InstanceId) -> Done<()> {
        self.inner.mark_ready(id).await
    }

    async fn stop(&self, id: InstanceId, expect: Version, grace: Duration) -> Done<Version> {
        let before = self.inner.get(id).await.ok();
        let version = self.inner.stop(id, expect, grace).await?;
        self.world.stopped(id, before.as_ref());
        Ok(version)
    }

    async fn forget(&self, id: InstanceId, expect: Version) -> Done<()> {
        self.inner.forget(id, expect).await?;
        self.world.forgotten(id);
        Ok(())
    }

    async fn list(&self) -> Done<Vec<Instance>> {
        self.inner.list().await
    }

    async fn get(&self, id: InstanceId) -> Done<Instance> {
        self.inner.get(id).await
    }

    async fn watch(&self) -> Done<BoxStream<'static, Change>> {
        let changes = self.inner.watch().await?;
        let world = Arc::clone(&self.world);
        // News told again: the last one twice, or one from a while ago once more.
        let state = (changes, world, Vec::<Change>::new(), Vec::<Change>::new());
        Ok(Box::pin(stream::unfold(
            state,
            |(mut changes, world, mut old, mut again)| async move {
                if let Some(change) = again.pop() {
                    return Some((change, (changes, world, old, again)));
                }
                let change = changes.next().await?;
                if world.has(Trouble::Watch) && matches!(change, Change::One(_)) {
                    if world.roll(150) {
                        again.push(change.clone());
                    }
                    if world.roll(100)
                        && let Some(older) = old.pop()
                    {
                        again.insert(0, older);
                    }
                    old.push(change.clone());
                }
                Some((change, (changes, world, old, again)))
            },
        )))
    }

    async fn logs(&self, id: InstanceId, range: LogRange) -> Done<LogStream> {
        self.inner.logs(id, range).await
    }

    async fn results(&self, id: InstanceId) -> Done<Option<Bytes>> {
        self.inner.results(id).await
    }

    async fn holdings(&self) -> Done<Vec<Holding>> {
        self.inner.holdings().await
    }
}

/// The records themselves, watched.
pub(crate) struct LedgerRecords {
    pub(crate) inner: MemoryRecords,
    pub(crate) world: Arc<World>,
}

#[async_trait]
impl Records for LedgerRecords {
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError> {
        let inserted = self.inner.insert(record).await?;
        self.world.recorded(record, inserted);
        Ok(inserted)
    }

    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError> {
        self.inner.get(session).await
    }

    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(filter, cursor, limit).await
    }

    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError> {
        self.inner.by_idempotency(key_hash, not_before).await
    }

    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError> {
        self.inner.prune(ended_before, limit).await
    }

    async fn recorded(&self, some: &[SessionId]) -> Result<HashSet<SessionId>, StoreError> {
        self.inner.recorded(some).await
    }

    async fn inspect(&self) -> Result<Inspection, StoreError> {
        self.inner.inspect().await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.inner.healthy().await
    }
}

/// A way of one run of the process into the world.
pub(crate) struct Door<T> {
    pub(crate) inner: Arc<T>,
    pub(crate) life: Arc<Life>,
    pub(crate) world: Arc<World>,
}

const QUIET: (&str, &str) = ("", "");

#[async_trait]
impl Runtime for Door<Flaky<LedgerRuntime>> {
    async fn order(&self, order: Order) -> Done<Instance> {
        let call = self.inner.order(order);
        self.life
            .call(&self.world, ("order>", "order<"), call)
            .await
    }

    async fn release(&self, id: InstanceId, expect: Version) -> Done<Version> {
        let call = self.inner.release(id, expect);
        self.life
            .call(&self.world, ("release>", "release<"), call)
            .await
    }

    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Done<Version> {
        let call = self.inner.bind(id, expect, facts, session_file);
        self.life.call(&self.world, ("bind>", "bind<"), call).await
    }

    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Done<Version> {
        let call = self.inner.restart(id, expect, session_file);
        self.life
            .call(&self.world, ("restart>", "restart<"), call)
            .await
    }

    async fn mark_ready(&self, id: InstanceId) -> Done<()> {
        let call = self.inner.mark_ready(id);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn stop(&self, id: InstanceId, expect: Version, grace: Duration) -> Done<Version> {
        let call = self.inner.stop(id, expect, grace);
        self.life.call(&self.world, ("stop>", "stop<"), call).await
    }

    async fn forget(&self, id: InstanceId, expect: Version) -> Done<()> {
        let call = self.inner.forget(id, expect);
        self.life
            .call(&self.world, ("forget>", "forget<"), call)
            .await
    }

    async fn list(&self) -> Done<Vec<Instance>> {
        let call = self.inner.list();
        self.life.call(&self.world, ("list>", "list<"), call).await
    }

    async fn get(&self, id: InstanceId) -> Done<Instance> {
        let call = self.inner.get(id);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn watch(&self) -> Done<BoxStream<'static, Change>> {
        let call = self.inner.watch();
        let changes = self.life.call(&self.world, QUIET, call).await?;
        let dead = self.life.dead.clone();
        Ok(changes.take_until(dead.cancelled_owned()).boxed())
    }

    async fn logs(&self, id: InstanceId, range: LogRange) -> Done<LogStream> {
        let call = self.inner.logs(id, range);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn results(&self, id: InstanceId) -> Done<Option<Bytes>> {
        let call = self.inner.results(id);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn holdings(&self) -> Done<Vec<Holding>> {
        let call = self.inner.holdings();
        self.life.call(&self.world, QUIET, call).await
    }
}

#[async_trait]
impl Records for Door<FlakyStore<LedgerRecords>> {
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError> {
        let call = self.inner.insert(record);
        self.life
            .call(&self.world, ("insert>", "insert<"), call)
            .await
    }

    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError> {
        let call = self.inner.get(session);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let call = self.inner.list(filter, cursor, limit);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError> {
        let call = self.inner.by_idempotency(key_hash, not_before);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError> {
        let call = self.inner.prune(ended_before, limit);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn recorded(&self, some: &[SessionId]) -> Result<HashSet<SessionId>, StoreError> {
        let call = self.inner.recorded(some);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn inspect(&self) -> Result<Inspection, StoreError> {
        let call = self.inner.inspect();
        self.life.call(&self.world, QUIET, call).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        let call = self.inner.healthy();
        self.life.call(&self.world, QUIET, call).await
    }
}

#[async_trait]
impl Lobby for Door<FlakyStore<MemoryLobby>> {
    async fn join(&self, ticket: &Ticket) -> Result<Joined, LobbyError> {
        let call = self.inner.join(ticket);
        self.life
            .call(&self.world, ("lobby.join>", "lobby.join<"), call)
            .await
    }

    async fn leave(&self, ticket: TicketId) -> Result<Left, LobbyError> {
        let call = self.inner.leave(ticket);
        self.life
            .call(&self.world, ("lobby.leave>", "lobby.leave<"), call)
            .await
    }

    async fn take(&self, session: SessionId, tickets: &[TicketId]) -> Result<Taken, LobbyError> {
        let call = self.inner.take(session, tickets);
        self.life
            .call(&self.world, ("lobby.take>", "lobby.take<"), call)
            .await
    }

    async fn settle(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        let call = self.inner.settle(session);
        self.life
            .call(&self.world, ("lobby.settle>", "lobby.settle<"), call)
            .await
    }

    async fn give_back(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        let call = self.inner.give_back(session);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn list(&self, after: Option<TicketId>, limit: usize) -> Result<Vec<Held>, LobbyError> {
        let call = self.inner.list(after, limit);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn touch(&self, tickets: &[TicketId]) -> Result<Vec<TicketId>, LobbyError> {
        let call = self.inner.touch(tickets);
        self.life.call(&self.world, QUIET, call).await
    }

    async fn healthy(&self) -> Result<(), LobbyError> {
        let call = self.inner.healthy();
        self.life.call(&self.world, QUIET, call).await
    }
}
