//! Any runtime, with failures put in: by seed for simulations, by call number for one exact moment.
//!
//! Which call fails how depends only on the seed and the call's number, so a run can be repeated. Watches are cut as a network would
//! cut them: what happens meanwhile is missed, and then everything is told anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use spawnpoint_core::InstanceId;
use spawnpoint_core::audit::Holding;
use tokio::sync::watch;

use crate::chance::mix;
use crate::{Change, Facts, Instance, LogRange, LogStream, Order, Runtime, RuntimeError, Version};

/// What is done to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the caller is told that the outcome is unknown.
    Before,
    /// It is done, and the caller is told that the outcome is unknown.
    After,
    /// The state cannot be written: nothing is done, and that is certain. On a call that only reads: as `Before`.
    Storage,
    /// Nothing is done and the version is said to be stale. On a call that takes no version: no fault.
    Conflict,
    /// It is done this much later.
    Delay(Duration),
}

/// How often calls fail by chance, in thousandths. Those of calls together at most 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// [`Fault::Before`].
    pub before: u16,
    /// [`Fault::After`].
    pub after: u16,
    /// [`Fault::Storage`].
    pub storage: u16,
    /// [`Fault::Conflict`].
    pub conflict: u16,
    /// [`Fault::Delay`], between nothing and `longest_delay`.
    pub delay: u16,
    /// See `delay`.
    pub longest_delay: Duration,
    /// After this many in a thousand changes a watch is cut, for at most `longest_cut`.
    pub cut: u16,
    /// See `cut`.
    pub longest_cut: Duration,
}

/// A runtime with failures put in.
#[derive(Debug)]
pub struct Flaky<R> {
    inner: Arc<R>,
    seed: u64,
    /// Shared with the watches.
    rates: Arc<Mutex<Rates>>,
    script: Mutex<HashMap<u64, Fault>>,
    outage: AtomicBool,
    calls: AtomicU64,
    /// Every send is a cut of all watches, for this long.
    cuts: watch::Sender<Duration>,
    watches: AtomicU64,
    /// So many more listings of watches have nothing in them.
    hollow: Arc<AtomicU64>,
}

/// What kind of call a fault meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Versioned,
}

impl<R: Runtime> Flaky<R> {
    /// Wraps a runtime; calls fail by chance at these rates.
    #[must_use]
    pub fn new(inner: Arc<R>, seed: u64, rates: Rates) -> Self {
        Self {
            inner,
            seed,
            rates: Arc::new(Mutex::new(rates)),
            script: Mutex::default(),
            outage: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            cuts: watch::Sender::new(Duration::ZERO),
            watches: AtomicU64::new(0),
            hollow: Arc::default(),
        }
    }

    /// Wraps a runtime that fails only as told.
    #[must_use]
    pub fn quiet(inner: Arc<R>) -> Self {
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

    /// While on, every call fails before its effect, outcome unknown to the caller; also one that was delayed until then.
    pub fn outage(&self, on: bool) {
        self.outage.store(on, Ordering::SeqCst);
    }

    /// Cuts every open watch for this long; then each is told everything anew.
    pub fn cut_watches(&self, for_: Duration) {
        self.cuts.send_replace(for_);
    }

    /// So many of the next listings that watches tell have nothing in them; the true one follows at once. As a lagging cache does it.
    pub fn hollow_listings(&self, n: u64) {
        self.hollow.store(n, Ordering::SeqCst);
    }

    /// From now on calls and watches fail at these rates.
    pub fn set_rates(&self, rates: Rates) {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The runtime itself, for looking behind the failures.
    #[must_use]
    pub fn inner(&self) -> &Arc<R> {
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
        scripted.or_else(|| by_chance(present(&self.rates), self.seed, call))
    }

    async fn call<O: Send>(
        &self,
        kind: Kind,
        inner: impl Future<Output = Result<O, RuntimeError>> + Send,
    ) -> Result<O, RuntimeError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let unknown = || RuntimeError::OutcomeUnknown(format!("injected into call {call}"));
        match self.fault(call) {
            Some(Fault::Before) => Err(unknown()),
            Some(Fault::Storage) if kind == Kind::Read => Err(unknown()),
            Some(Fault::Storage) => {
                let full = std::io::ErrorKind::StorageFull.into();
                Err(RuntimeError::Storage(full))
            }
            Some(Fault::Conflict) if kind == Kind::Versioned => Err(RuntimeError::Conflict),
            Some(Fault::After) => {
                inner.await?;
                Err(unknown())
            }
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                if self.outage.load(Ordering::SeqCst) {
                    return Err(unknown());
                }
                inner.await
            }
            Some(Fault::Conflict) | None => inner.await,
        }
    }
}

fn present(rates: &Mutex<Rates>) -> Rates {
    *rates.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_chance(rates: Rates, seed: u64, call: u64) -> Option<Fault> {
    let draw = mix(seed ^ mix(call));
    let mut pick = draw % 1_000;
    for (rate, fault) in [
        (rates.before, Fault::Before),
        (rates.after, Fault::After),
        (rates.storage, Fault::Storage),
        (rates.conflict, Fault::Conflict),
        (
            rates.delay,
            Fault::Delay(part_of(rates.longest_delay, draw)),
        ),
    ] {
        match pick.checked_sub(u64::from(rate)) {
            None => return Some(fault),
            Some(rest) => pick = rest,
        }
    }
    None
}

/// Some part of a length of time, drawn anew from what was drawn.
fn part_of(longest: Duration, draw: u64) -> Duration {
    longest * u32::try_from(mix(draw) % 1_001).unwrap_or(0) / 1_000
}

/// A watch that is cut by chance and on command.
struct CutWatch<R> {
    inner: Arc<R>,
    changes: Option<BoxStream<'static, Change>>,
    cuts: watch::Receiver<Duration>,
    seed: u64,
    rates: Arc<Mutex<Rates>>,
    /// Changes passed on so far.
    passed: u64,
    /// A cut drawn for after the last change.
    pending: Option<Duration>,
    hollow: Arc<AtomicU64>,
    /// What an empty listing was told instead of.
    held_back: Option<Change>,
}

impl<R: Runtime> CutWatch<R> {
    async fn next(&mut self) -> Option<Change> {
        if let Some(change) = self.held_back.take() {
            return Some(change);
        }
        loop {
            if let Some(cut) = self.pending.take() {
                // Dropped first: what happens during the cut is missed for good.
                self.changes = None;
                tokio::time::sleep(cut).await;
            }
            let Some(changes) = &mut self.changes else {
                // A runtime that refuses a watch has come to its end, and so does this.
                self.changes = Some(self.inner.watch().await.ok()?);
                continue;
            };
            tokio::select! {
                biased;
                // Never an error before the end: the sender lives in the wrapper; without it there are no more cuts.
                Ok(()) = self.cuts.changed() => self.pending = Some(*self.cuts.borrow_and_update()),
                change = changes.next() => {
                    let change = change?;
                    self.passed += 1;
                    let draw = mix(self.seed ^ mix(self.passed));
                    let rates = present(&self.rates);
                    if draw % 1_000 < u64::from(rates.cut) {
                        self.pending = Some(part_of(rates.longest_cut, draw));
                    }
                    if matches!(change, Change::All(_)) && take_one(&self.hollow) {
                        self.held_back = Some(change);
                        return Some(Change::All(Vec::new()));
                    }
                    return Some(change);
                }
            }
        }
    }
}

/// Counts down; false at zero.
fn take_one(n: &AtomicU64) -> bool {
    n.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

#[async_trait]
impl<R: Runtime> Runtime for Flaky<R> {
    async fn order(&self, order: Order) -> Result<Instance, RuntimeError> {
        self.call(Kind::Write, self.inner.order(order)).await
    }

    async fn release(&self, id: InstanceId, expect: Version) -> Result<Version, RuntimeError> {
        self.call(Kind::Versioned, self.inner.release(id, expect))
            .await
    }

    async fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: Facts,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        let inner = self.inner.bind(id, expect, facts, session_file);
        self.call(Kind::Versioned, inner).await
    }

    async fn restart(
        &self,
        id: InstanceId,
        expect: Version,
        session_file: Option<Bytes>,
    ) -> Result<Version, RuntimeError> {
        let inner = self.inner.restart(id, expect, session_file);
        self.call(Kind::Versioned, inner).await
    }

    async fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError> {
        self.call(Kind::Write, self.inner.mark_ready(id)).await
    }

    async fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError> {
        self.call(Kind::Versioned, self.inner.stop(id, expect, grace))
            .await
    }

    async fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError> {
        self.call(Kind::Versioned, self.inner.forget(id, expect))
            .await
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        self.call(Kind::Read, self.inner.list()).await
    }

    async fn holdings(&self) -> Result<Vec<Holding>, RuntimeError> {
        self.call(Kind::Read, self.inner.holdings()).await
    }

    async fn get(&self, id: InstanceId) -> Result<Instance, RuntimeError> {
        self.call(Kind::Read, self.inner.get(id)).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, RuntimeError> {
        let changes = self.call(Kind::Read, self.inner.watch()).await?;
        let serial = self.watches.fetch_add(1, Ordering::SeqCst);
        let watch = CutWatch {
            inner: self.inner.clone(),
            changes: Some(changes),
            cuts: self.cuts.subscribe(),
            seed: self.seed ^ mix(!serial),
            rates: Arc::clone(&self.rates),
            passed: 0,
            pending: None,
            hollow: Arc::clone(&self.hollow),
            held_back: None,
        };
        Ok(Box::pin(stream::unfold(watch, |mut watch| async move {
            let change = watch.next().await?;
            Some((change, watch))
        })))
    }

    async fn logs(&self, id: InstanceId, range: LogRange) -> Result<LogStream, RuntimeError> {
        self.call(Kind::Read, self.inner.logs(id, range)).await
    }

    async fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        self.call(Kind::Read, self.inner.results(id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_a_function_of_seed_and_call_and_keeps_its_rates() {
        let rates = Rates {
            before: 50,
            after: 50,
            storage: 100,
            conflict: 100,
            delay: 200,
            longest_delay: Duration::from_secs(1),
            ..Rates::default()
        };
        let draw = |seed| (1..=10_000).map(move |c| by_chance(rates, seed, c));
        assert!(draw(7).eq(draw(7)));
        assert!(!draw(7).eq(draw(8)));
        let count = |want: fn(&Fault) -> bool| draw(7).flatten().filter(want).count();
        assert!((350..650).contains(&count(|f| *f == Fault::Before)));
        assert!((350..650).contains(&count(|f| *f == Fault::After)));
        assert!((800..1_200).contains(&count(|f| *f == Fault::Storage)));
        assert!((800..1_200).contains(&count(|f| *f == Fault::Conflict)));
        assert!((1_700..2_300).contains(&count(|f| matches!(f, Fault::Delay(_)))));
        let none = (1..1_000).all(|c| by_chance(Rates::default(), 7, c).is_none());
        assert!(none);
    }
}
