//! What the gateway counts. Plain numbers; whoever prints them decides the format. Never by session or player.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::decide::Use;

/// A snapshot. Counters only grow within one run; gauges are marked so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Gauge: open connections of all kinds.
    pub connections: u64,
    /// Gauge: tunnels that carry a game.
    pub tunnels: u64,
    /// Gauge: requests that an HTTP game is answering.
    pub requests: u64,
    /// Gauge: free connections to HTTP games.
    pub idle_game_connections: u64,
    /// Gauge: connections parked before their handshake is answered.
    pub parked: u64,
    /// Gauge: connections that are told progress.
    pub progress: u64,
    /// Gauge: TCP sessions that are listened for.
    pub tcp_sessions: u64,
    /// Gauge: routes in the table.
    pub routes: u64,
    /// Gauge: whether the stream of routes is open.
    pub link_up: bool,
    /// Gauge: bytes that a receiver did not take yet, all tunnels.
    pub buffered_bytes: u64,
    /// The most that `buffered_bytes` ever was.
    pub buffered_bytes_peak: u64,
    /// Handshakes by outcome: `ok`, `client_gone`, or the code they were refused with.
    pub handshakes: BTreeMap<&'static str, u64>,
    /// Requests to HTTP games by outcome: `ok`, `client_gone`, `login` (a token was put into a cookie), or the code they were
    /// refused with.
    pub http_requests: BTreeMap<&'static str, u64>,
    /// Tunnels closed by close code; 1006 is without a Close frame. Codes of games that are not ours or standard count as 0.
    pub closes: BTreeMap<u16, u64>,
    /// Bytes from players to games.
    pub bytes_in: u64,
    /// Bytes from games to players.
    pub bytes_out: u64,
    /// Connections refused because there were too many, before a byte was read.
    pub connections_refused: u64,
    /// Attempts to reach a game that failed and were made again.
    pub dial_retries: u64,
    /// Questions to the control plane about sessions not in the table.
    pub resolves: u64,
    /// Such questions that the budget did not allow.
    pub resolves_over_budget: u64,
    /// Reports that arrived.
    pub reports: u64,
    /// Reports that did not, and were made again.
    pub reports_failed: u64,
}

/// The living counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Gauge,
    pub(crate) tunnels: Gauge,
    pub(crate) requests: Gauge,
    pub(crate) parked: Gauge,
    pub(crate) progress: Gauge,
    pub(crate) link_up: Gauge,
    buffered: AtomicI64,
    buffered_peak: AtomicI64,
    handshakes: Mutex<BTreeMap<&'static str, u64>>,
    http_requests: Mutex<BTreeMap<&'static str, u64>>,
    closes: Mutex<BTreeMap<u16, u64>>,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) dial_retries: AtomicU64,
    pub(crate) resolves: AtomicU64,
    pub(crate) resolves_over_budget: AtomicU64,
    pub(crate) reports: AtomicU64,
    pub(crate) reports_failed: AtomicU64,
}

/// Counts one thing for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a Gauge);

/// A number of things that exist now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(u64::from(value), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) -> Counted<'_> {
        self.up();
        Counted(self)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

impl Counters {
    pub(crate) fn handshake(&self, outcome: &'static str) {
        *lock(&self.handshakes).entry(outcome).or_default() += 1;
    }

    pub(crate) fn http_request(&self, outcome: &'static str) {
        *lock(&self.http_requests).entry(outcome).or_default() += 1;
    }

    /// The gauge of what carries a game in this way.
    pub(crate) const fn of(&self, wanted: Use) -> &Gauge {
        match wanted {
            Use::Tunnel | Use::Stream => &self.tunnels,
            Use::Request => &self.requests,
        }
    }

    /// Codes are the peer's to choose: only those with a meaning get a line of their own, or a game could grow the map.
    pub(crate) fn closed(&self, code: u16) {
        let known = matches!(code, 1000..=1015 | 4401 | 4403 | 4404 | 4408..=4411 | 4429 | 4500);
        *lock(&self.closes)
            .entry(if known { code } else { 0 })
            .or_default() += 1;
    }

    pub(crate) fn buffered(&self, change: i64) {
        let now = self.buffered.fetch_add(change, Ordering::Relaxed) + change;
        self.buffered_peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, routes: usize, idle: usize) -> Metrics {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let bytes = |a: &AtomicI64| u64::try_from(a.load(Ordering::Relaxed)).unwrap_or(0);
        Metrics {
            connections: self.connections.get(),
            tunnels: self.tunnels.get(),
            requests: self.requests.get(),
            idle_game_connections: idle as u64,
            parked: self.parked.get(),
            progress: self.progress.get(),
            tcp_sessions: 0,
            routes: routes as u64,
            link_up: self.link_up.get() != 0,
            buffered_bytes: bytes(&self.buffered),
            buffered_bytes_peak: bytes(&self.buffered_peak),
            handshakes: lock(&self.handshakes).clone(),
            http_requests: lock(&self.http_requests).clone(),
            closes: lock(&self.closes).clone(),
            bytes_in: n(&self.bytes_in),
            bytes_out: n(&self.bytes_out),
            connections_refused: n(&self.connections_refused),
            dial_retries: n(&self.dial_retries),
            resolves: n(&self.resolves),
            resolves_over_budget: n(&self.resolves_over_budget),
            reports: n(&self.reports),
            reports_failed: n(&self.reports_failed),
        }
    }
}

/// A lock whose holder panicked still guards consistent data here: every critical section only moves plain values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
