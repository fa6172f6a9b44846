//! How many HTTP requests the clients made of the API, and what that is for a playing client and for a live session a second. Pure.
//!
//! Counted is what was sent, whatever the answer. The WebSocket of a game is no request of the API, and neither is what the tester asks
//! for itself (`own`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::report::{ClientRow, ms};

/// What one client has sent so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    calls: BTreeMap<&'static str, u64>,
    playing: u64,
    played: Duration,
    plays_since: Option<Instant>,
}

impl Sent {
    /// A request goes out.
    pub(crate) fn note(&mut self, route: &'static str) {
        *self.calls.entry(route).or_default() += 1;
        self.playing += u64::from(self.plays_since.is_some());
    }

    /// Nothing of it reached the server: it will be sent again, and is one request.
    pub(crate) fn take_back(&mut self, route: &'static str) {
        if let Some(count) = self.calls.get_mut(route) {
            *count = count.saturating_sub(1);
        }
        if self.plays_since.is_some() {
            self.playing = self.playing.saturating_sub(1);
        }
    }

    /// The client plays from now on, or no longer.
    pub(crate) fn plays(&mut self, plays: bool, now: Instant) {
        if let Some(since) = self.plays_since.take() {
            self.played += now.saturating_duration_since(since);
        }
        self.plays_since = plays.then_some(now);
    }

    /// All requests.
    pub(crate) fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Those that were made while it played.
    pub(crate) const fn while_playing(&self) -> u64 {
        self.playing
    }
}

/// The requests of all clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Requests {
    /// All that the clients made.
    pub total: u64,
    /// The same by call.
    pub calls: BTreeMap<&'static str, u64>,
    /// Of those, how many were made by clients while they played.
    pub playing: u64,
    /// Seconds that clients played, all together.
    pub played_s: f64,
    /// `playing` by `played_s`: requests of a playing client a second. None if nobody played.
    pub per_player_s: Option<f64>,
    /// Seconds that sessions were live, all together: each from its first client's match to its last client's end.
    pub live_s: f64,
    /// `total` by `live_s`: requests a live session and second, with joining, waiting and ending. None without a session.
    pub per_session_s: Option<f64>,
    /// What the tester asked for itself: whether a server is there, its fleets, its records.
    pub own: u64,
}

impl Requests {
    /// Of these clients.
    pub(crate) fn of(rows: &[ClientRow], own: u64) -> Self {
        let mut calls: BTreeMap<&'static str, u64> = BTreeMap::new();
        for row in rows {
            for (route, count) in &row.sent.calls {
                *calls.entry(route).or_default() += count;
            }
        }
        calls.retain(|_, count| *count > 0);
        let total = calls.values().sum();
        let playing = rows.iter().map(|row| row.sent.playing).sum();
        let played: Duration = rows.iter().map(|row| row.sent.played).sum();
        let (played_s, live_s) = (played.as_secs_f64(), live_s(rows));
        Self {
            total,
            calls,
            playing,
            played_s,
            per_player_s: rate(playing, played_s),
            live_s,
            per_session_s: rate(total, live_s),
            own,
        }
    }
}

fn rate(requests: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| requests as f64 / seconds)
}

/// Seconds of all sessions, as far as their clients saw them.
fn live_s(rows: &[ClientRow]) -> f64 {
    let mut spans: HashMap<&str, (f64, f64)> = HashMap::new();
    for row in rows {
        let (Some(session), Some(queue_ms)) = (row.session_id.as_deref(), row.queue_ms) else {
            continue;
        };
        let (from, to) = (row.intended_ms + queue_ms, row.finished_ms);
        let span = spans.entry(session).or_insert((from, to));
        *span = (span.0.min(from), span.1.max(to));
    }
    let total_ms: f64 = spans.values().map(|(from, to)| (to - from).max(0.0)).sum();
    ms(Duration::from_secs_f64(total_ms / 1000.0)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::report::tests::row;

    const JOIN: &str = "POST /api/match/join";
    const HEARTBEAT: &str = "POST /api/sessions/{id}/heartbeat";

    #[test]
    fn what_a_player_sends_is_counted_once_and_apart_while_playing() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut sent = Sent::default();
        sent.note(JOIN);
        // A kept connection was closed by the server: the same request goes out on another.
        sent.note(JOIN);
        sent.take_back(JOIN);
        sent.plays(true, at(1));
        sent.note(HEARTBEAT);
        sent.note(HEARTBEAT);
        sent.plays(false, at(11));
        sent.note(JOIN);
        // The way back, and on.
        sent.plays(true, at(20));
        sent.note(HEARTBEAT);
        sent.note(HEARTBEAT);
        sent.take_back(HEARTBEAT);
        sent.plays(true, at(25));
        sent.plays(false, at(30));
        assert_eq!((sent.total(), sent.while_playing()), (5, 3));
        assert_eq!(sent.played, Duration::from_secs(20));
    }

    #[test]
    fn rates_are_of_seconds_played_and_of_seconds_that_sessions_lived() {
        let now = Instant::now();
        let mut rows: Vec<ClientRow> = (0..4).map(|n| row(n, Outcome::Done)).collect();
        for row in &mut rows {
            row.intended_ms = 0.0;
            row.queue_ms = Some(1_000.0);
            row.finished_ms = 11_000.0;
            row.sent.note(JOIN);
            row.sent.plays(true, now);
            row.sent.note(HEARTBEAT);
            row.sent.note(HEARTBEAT);
            row.sent.plays(false, now + Duration::from_secs(10));
        }
        // Two sessions of two clients; one is seen for a second longer by one of them.
        rows[3].finished_ms = 12_000.0;
        let requests = Requests::of(&rows, 3);
        assert_eq!((requests.total, requests.playing, requests.own), (12, 8, 3));
        assert_eq!(requests.calls[JOIN], 4);
        assert_eq!((requests.played_s, requests.live_s), (40.0, 21.0));
        assert_eq!(requests.per_player_s, Some(0.2));
        assert_eq!(requests.per_session_s, Some(12.0 / 21.0));
        let nobody = Requests::of(&[], 1);
        assert_eq!((nobody.per_player_s, nobody.per_session_s), (None, None));
    }
}
