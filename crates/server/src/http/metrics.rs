//! `/metrics`: Prometheus text form. Never labelled by session or player.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use spawnpoint_core::session::Phase;
use spawnpoint_wire::api::QueueView;

use super::Listener;
use crate::app::matching::BUCKETS;
use crate::app::{App, Counters};

/// One metric family in text form.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { out, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, &value.to_string());
    }

    /// A sample under the family's name with something behind it.
    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(k, v)| {
                format!(
                    "{k}=\"{}\"",
                    v.replace('\\', "\\\\")
                        .replace('"', "\\\"")
                        .replace('\n', "\\n")
                )
            })
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.out, "{}{suffix}{labels} {value}", self.name);
    }
}

pub(super) fn render(app: &App) -> String {
    let mut out = String::new();
    let c = &app.counters;
    let mut sessions: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let mut fleets = Vec::new();
    app.with_world(|w| {
        for name in w.fleets.keys() {
            for phase in Phase::ALL {
                sessions.insert((name.to_string(), phase.as_str()), 0);
            }
        }
        for e in w.sessions.values() {
            *sessions
                .entry((e.session.fleet.to_string(), e.session.phase.as_str()))
                .or_default() += 1;
        }
        fleets.extend(w.fleets.iter().map(|(n, f)| app.fleet_view(n, f)));
    });
    fleets.sort_by(|a, b| a.name.cmp(&b.name));
    let mut f = Family::new(
        &mut out,
        "spawnpoint_sessions",
        "gauge",
        "Sessions that have not ended, by fleet and phase.",
    );
    for ((fleet, phase), n) in &sessions {
        f.sample(&[("fleet", fleet), ("phase", phase)], *n);
    }
    let mut f = Family::new(
        &mut out,
        "spawnpoint_instances",
        "gauge",
        "Instances by fleet and state.",
    );
    for v in &fleets {
        for (state, n) in [
            ("warm", v.warm),
            ("starting", v.starting),
            ("claimed", v.claimed),
            ("stopping", v.stopping),
        ] {
            f.sample(&[("fleet", &v.name), ("state", state)], n.into());
        }
    }
    let mut f = Family::new(
        &mut out,
        "spawnpoint_claims_total",
        "counter",
        "Instances given to sessions, by fleet and whether one was warm.",
    );
    for v in &fleets {
        f.sample(&[("fleet", &v.name), ("start", "warm")], v.claims_warm);
        f.sample(&[("fleet", &v.name), ("start", "cold")], v.claims_cold);
    }
    let mut f = Family::new(
        &mut out,
        "spawnpoint_fleet_degraded",
        "gauge",
        "1 while a fleet keeps failing to start and is held.",
    );
    for v in &fleets {
        f.sample(&[("fleet", &v.name)], v.degraded.into());
    }
    Family::new(
        &mut out,
        "spawnpoint_session_starts_total",
        "counter",
        "Sessions started.",
    )
    .sample(&[], c.starts.load(Ordering::Relaxed));
    let ends: BTreeMap<_, _> = c
        .ends
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|(k, v)| (k.clone(), *v))
        .collect();
    let mut f = Family::new(
        &mut out,
        "spawnpoint_session_ends_total",
        "counter",
        "Sessions ended and recorded, by fleet and reason.",
    );
    for ((fleet, reason), n) in &ends {
        f.sample(&[("fleet", fleet), ("reason", reason)], *n);
    }
    let problems: BTreeMap<_, _> = c
        .problems
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|(k, v)| (*k, *v))
        .collect();
    let mut f = Family::new(
        &mut out,
        "spawnpoint_problems_total",
        "counter",
        "Requests answered with a problem, by code.",
    );
    for (code, n) in &problems {
        f.sample(&[("code", code)], *n);
    }
    requests(&mut out, c);
    Family::new(
        &mut out,
        "spawnpoint_heartbeats_total",
        "counter",
        "Heartbeats taken.",
    )
    .sample(&[], c.heartbeats.load(Ordering::Relaxed));
    Family::new(
        &mut out,
        "spawnpoint_record_retries_total",
        "counter",
        "Match records that could not be written at once.",
    )
    .sample(&[], c.record_retries.load(Ordering::Relaxed));
    if let Some(journal) = &app.journal {
        let counts = journal.counts();
        let mut f = Family::new(
            &mut out,
            "spawnpoint_decisions_logged_total",
            "counter",
            "Decisions for the log of decisions, by what became of them.",
        );
        f.sample(&[("outcome", "written")], counts.written);
        f.sample(&[("outcome", "lost")], counts.lost);
    }
    let mut f = Family::new(
        &mut out,
        "spawnpoint_culls_held_total",
        "counter",
        "Times culls were held back.",
    );
    for (by, times) in c.culls_held() {
        f.sample(&[("by", by)], times);
    }
    let held = app
        .held_by
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some();
    Family::new(
        &mut out,
        "spawnpoint_culls_held",
        "gauge",
        "1 while culls are held back.",
    )
    .sample(&[], held.into());
    queues(&mut out, app);
    out
}

/// What came in, by listener.
fn requests(out: &mut String, counters: &Counters) {
    let mut f = Family::new(
        out,
        "spawnpoint_http_requests_total",
        "counter",
        "Requests that a listener took: API, page and health, and no game's.",
    );
    for listener in Listener::ALL {
        let (name, count) = listener.counted(counters);
        f.sample(&[("listener", name)], count.load(Ordering::Relaxed));
    }
}

/// The match queues, by their names.
fn queues(out: &mut String, app: &App) {
    let views = app.queue_list().queues;
    let mut gauge = |name, help: &str, value: &dyn Fn(&QueueView) -> u64| {
        let mut f = Family::new(out, name, "gauge", help);
        for q in &views {
            f.sample(&[("queue", &q.name)], value(q));
        }
    };
    gauge(
        "spawnpoint_queue_tickets",
        "Tickets that wait for a match.",
        &|q| q.tickets as u64,
    );
    gauge(
        "spawnpoint_queue_players",
        "Players that wait for a match.",
        &|q| q.players as u64,
    );
    gauge(
        "spawnpoint_queue_forming_tickets",
        "Tickets whose match is being started.",
        &|q| q.forming as u64,
    );
    let mut f = Family::new(
        out,
        "spawnpoint_queue_oldest_wait_seconds",
        "gauge",
        "How long the oldest ticket has waited.",
    );
    for q in &views {
        let seconds = q.oldest_wait_s.unwrap_or(0.0);
        f.line("", &[("queue", &q.name)], &format!("{seconds:.3}"));
    }
    let mut f = Family::new(
        out,
        "spawnpoint_matches_total",
        "counter",
        "Matches started, whole and partial.",
    );
    for q in &views {
        let whole = q.matches - q.partial_matches;
        f.sample(&[("queue", &q.name), ("kind", "whole")], whole);
        f.sample(
            &[("queue", &q.name), ("kind", "partial")],
            q.partial_matches,
        );
    }
    let mut counter = |name, help: &str, value: &dyn Fn(&QueueView) -> u64| {
        let mut f = Family::new(out, name, "counter", help);
        for q in &views {
            f.sample(&[("queue", &q.name)], value(q));
        }
    };
    counter(
        "spawnpoint_match_failures_total",
        "Matches that could not be started.",
        &|q| q.failures,
    );
    counter(
        "spawnpoint_tickets_lost_total",
        "Tickets gone without a match and without leaving.",
        &|q| q.lost,
    );
    let mut f = Family::new(
        out,
        "spawnpoint_match_wait_seconds",
        "histogram",
        "How long tickets waited for their match.",
    );
    app.each_pace(|queue, pace| {
        let mut sum = 0;
        for (i, n) in pace.waits.iter().enumerate() {
            sum += n;
            let bound = BUCKETS.get(i).map_or("+Inf".to_owned(), u32::to_string);
            f.line(
                "_bucket",
                &[("queue", queue), ("le", &bound)],
                &sum.to_string(),
            );
        }
        let seconds = format!("{}.{:03}", pace.waited_ms / 1_000, pace.waited_ms % 1_000);
        f.line("_sum", &[("queue", queue)], &seconds);
        f.line("_count", &[("queue", queue)], &sum.to_string());
    });
}
