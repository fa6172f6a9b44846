//! Any store or lobby, with failures put in: by seed for simulations, by call number for one exact moment.
//!
//! The two failures differ where it matters: one comes before the effect, the other after it (the caller cannot know that it was
//! done). Which call fails how depends only on the seed and the call's number, so a run can be repeated.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use spawnpoint_core::{SessionId, TicketId};

use crate::lobby::{Held, Joined, Left, Lobby, LobbyError, Taken};
use crate::{Filter, Inserted, Inspection, Page, Records, StoreError};

/// What is done to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing was done.
    Before,
    /// It is done and fails nevertheless: outcome unknown.
    After,
    /// It is done this much later.
    Delay(Duration),
}

/// How often calls fail by chance, in thousandths. Together at most 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// [`Fault::Before`].
    pub before: u16,
    /// [`Fault::After`].
    pub after: u16,
    /// [`Fault::Delay`], between nothing and `longest_delay`.
    pub delay: u16,
    /// See `delay`.
    pub longest_delay: Duration,
}

/// What an injected failure says.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a failure injected into call {call}")]
pub struct Injected {
    /// Which call, counted from 1.
    pub call: u64,
}

/// An error that says a call's outcome is unknown.
trait OutcomeUnknown {
    fn of(what: &'static str, source: Injected) -> Self;
}

impl OutcomeUnknown for StoreError {
    fn of(what: &'static str, source: Injected) -> Self {
        let source = Box::new(source);
        Self::Unavailable { what, source }
    }
}

impl OutcomeUnknown for LobbyError {
    fn of(what: &'static str, source: Injected) -> Self {
        let source = Box::new(source);
        Self::Unavailable { what, source }
    }
}

/// A store or lobby with failures put in.
#[derive(Debug)]
pub struct Flaky<T> {
    inner: T,
    seed: u64,
    rates: Mutex<Rates>,
    script: Mutex<HashMap<u64, Fault>>,
    outage: AtomicBool,
    calls: AtomicU64,
}

impl<T> Flaky<T> {
    /// Wraps a store or lobby; calls fail by chance at these rates.
    #[must_use]
    pub fn new(inner: T, seed: u64, rates: Rates) -> Self {
        Self {
            inner,
            seed,
            rates: Mutex::new(rates),
            script: Mutex::default(),
            outage: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        }
    }

    /// Wraps one that fails only as told.
    #[must_use]
    pub fn quiet(inner: T) -> Self {
        Self::new(inner, 0, Rates::default())
    }

    /// Does this to the call with this number (the first is 1), whatever chance says.
    pub fn script(&self, call: u64, fault: Fault) {
        self.script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(call, fault);
    }

    /// Does this to the next call.
    pub fn script_next(&self, fault: Fault) {
        self.script(self.calls() + 1, fault);
    }

    /// While on, every call fails before its effect.
    pub fn outage(&self, on: bool) {
        self.outage.store(on, Ordering::SeqCst);
    }

    /// From now on calls fail at these rates.
    pub fn set_rates(&self, rates: Rates) {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// What is wrapped, for looking behind the failures.
    #[must_use]
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn fault(&self, call: u64) -> Option<Fault> {
        if self.outage.load(Ordering::SeqCst) {
            return Some(Fault::Before);
        }
        let scripted = self
            .script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&call);
        let rates = *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        scripted.or_else(|| by_chance(rates, self.seed, call))
    }

    async fn call<O, E: OutcomeUnknown>(
        &self,
        what: &'static str,
        inner: impl Future<Output = Result<O, E>> + Send,
    ) -> Result<O, E> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let failure = || E::of(what, Injected { call });
        match self.fault(call) {
            None => inner.await,
            Some(Fault::Before) => Err(failure()),
            Some(Fault::After) => {
                inner.await?;
                Err(failure())
            }
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                inner.await
            }
        }
    }
}

fn by_chance(rates: Rates, seed: u64, call: u64) -> Option<Fault> {
    let draw = mix(seed ^ mix(call));
    let pick = u16::try_from(draw % 1_000).unwrap_or(u16::MAX);
    if pick < rates.before {
        return Some(Fault::Before);
    }
    if pick < rates.before + rates.after {
        return Some(Fault::After);
    }
    if pick < rates.before + rates.after + rates.delay {
        let part = u32::try_from(mix(draw) % 1_000).unwrap_or(0);
        return Some(Fault::Delay(rates.longest_delay * part / 1_000));
    }
    None
}

/// SplitMix64's finaliser: neighbouring numbers come out unrelated.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[async_trait]
impl<T: Records> Records for Flaky<T> {
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError> {
        self.call("write a record", self.inner.insert(record)).await
    }

    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError> {
        self.call("read a record", self.inner.get(session)).await
    }

    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.call("list records", self.inner.list(filter, cursor, limit))
            .await
    }

    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError> {
        let inner = self.inner.by_idempotency(key_hash, not_before);
        self.call("look up an idempotency key", inner).await
    }

    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError> {
        self.call("prune old records", self.inner.prune(ended_before, limit))
            .await
    }

    async fn recorded(&self, sessions: &[SessionId]) -> Result<HashSet<SessionId>, StoreError> {
        let inner = self.inner.recorded(sessions);
        self.call("look records up", inner).await
    }

    async fn inspect(&self) -> Result<Inspection, StoreError> {
        self.call("inspect the records", self.inner.inspect()).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.call("write a probe", self.inner.healthy()).await
    }
}

#[async_trait]
impl<T: Lobby> Lobby for Flaky<T> {
    async fn join(&self, ticket: &Ticket) -> Result<Joined, LobbyError> {
        self.call("let a ticket join", self.inner.join(ticket))
            .await
    }

    async fn leave(&self, ticket: TicketId) -> Result<Left, LobbyError> {
        self.call("let a ticket leave", self.inner.leave(ticket))
            .await
    }

    async fn take(&self, session: SessionId, tickets: &[TicketId]) -> Result<Taken, LobbyError> {
        let inner = self.inner.take(session, tickets);
        self.call("take tickets for a match", inner).await
    }

    async fn settle(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        self.call("settle a match", self.inner.settle(session))
            .await
    }

    async fn give_back(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        let inner = self.inner.give_back(session);
        self.call("give tickets back", inner).await
    }

    async fn list(&self, after: Option<TicketId>, limit: usize) -> Result<Vec<Held>, LobbyError> {
        self.call("list tickets", self.inner.list(after, limit))
            .await
    }

    async fn touch(&self, tickets: &[TicketId]) -> Result<Vec<TicketId>, LobbyError> {
        self.call("touch tickets", self.inner.touch(tickets)).await
    }

    async fn healthy(&self) -> Result<(), LobbyError> {
        self.call("write a probe", self.inner.healthy()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::record;
    use crate::memory::MemoryRecords;

    #[tokio::test]
    async fn before_does_nothing_and_after_does_it() {
        let store = Flaky::quiet(MemoryRecords::new());
        let r = record(1, 10);
        store.script(1, Fault::Before);
        store.script(2, Fault::After);
        assert!(store.insert(&r).await.is_err());
        assert_eq!(store.inner().get(r.session).await.unwrap(), None);
        let e = store.insert(&r).await.unwrap_err();
        assert_eq!(e.code(), spawnpoint_core::Code::DatabaseUnavailable);
        assert_eq!(store.inner().get(r.session).await.unwrap(), Some(r.clone()));
        assert_eq!(store.insert(&r).await.unwrap(), Inserted::Before);
        assert_eq!(store.calls(), 3);
    }

    #[tokio::test]
    async fn an_outage_lasts_as_long_as_told() {
        let store = Flaky::quiet(MemoryRecords::new());
        store.outage(true);
        for _ in 0..3 {
            assert!(store.healthy().await.is_err());
        }
        store.outage(false);
        store.healthy().await.unwrap();
    }

    #[test]
    fn chance_is_a_function_of_seed_and_call_and_keeps_its_rates() {
        let rates = Rates {
            before: 100,
            after: 50,
            delay: 200,
            longest_delay: Duration::from_secs(1),
        };
        let draw = |seed| (1..=10_000).map(move |c| by_chance(rates, seed, c));
        assert!(draw(7).eq(draw(7)));
        assert!(!draw(7).eq(draw(8)));
        let count = |want: fn(&Fault) -> bool| draw(7).flatten().filter(want).count();
        assert!((800..1_200).contains(&count(|f| *f == Fault::Before)));
        assert!((350..650).contains(&count(|f| *f == Fault::After)));
        assert!((1_700..2_300).contains(&count(|f| matches!(f, Fault::Delay(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_delays() {
        let store = Flaky::quiet(MemoryRecords::new());
        store.script_next(Fault::Delay(Duration::from_secs(3)));
        let t = tokio::time::Instant::now();
        store.healthy().await.unwrap();
        assert!(t.elapsed() >= Duration::from_secs(3));
    }
}
