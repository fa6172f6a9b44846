//! What a run gives: one row a client, distributions, faults, and whether all of it was good. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::fault::{Fault, Phase};
use crate::progress::Sample;
use crate::records::RecordsCheck;
use crate::requests::{Requests, Sent};
use crate::stats::Spread;
use crate::usage::Usage;

/// Version of the report's JSON.
pub(crate) const VERSION: u32 = 1;

/// How a client's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It joined, played and ended.
    Done,
    /// The same, but it had to end a match that outlived its time.
    Forced,
    /// Something went wrong.
    Failed,
    /// The run was ended early.
    Interrupted,
}

/// One client. Times are milliseconds; a phase that was not finished has none.
#[derive(Clone, Debug, Serialize)]
pub struct ClientRow {
    /// Its number, from 0.
    pub client: usize,
    /// Who it was.
    pub player_id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was meant to start, after the run's beginning.
    pub intended_ms: f64,
    /// When it did; none if the run ended before.
    pub started_ms: Option<f64>,
    /// From the intended start to being matched.
    pub queue_ms: Option<f64>,
    /// From being matched to the game's first word, without dialling.
    pub start_ms: Option<f64>,
    /// Dialling the game.
    pub connect_ms: Option<f64>,
    /// From the first word to the match's end.
    pub play_ms: Option<f64>,
    /// The end call.
    pub end_ms: Option<f64>,
    /// The session it was matched into.
    pub session_id: Option<String>,
    /// How often it found its way back.
    pub reconnects: u32,
    /// HTTP requests it made.
    pub requests: u64,
    /// Of those, how many while it played.
    pub requests_playing: u64,
    /// The phase in which it failed or was interrupted.
    pub stopped_in: Option<Phase>,
    /// The class of what went wrong.
    pub fault: Option<String>,
    /// The same in words.
    pub detail: Option<String>,
    /// When it was over, after the run's beginning.
    pub finished_ms: f64,
    /// Its fleet, as the server said.
    #[serde(skip)]
    pub(crate) fleet: Option<String>,
    /// Its token, for asking about its own records.
    #[serde(skip)]
    pub(crate) token: Option<String>,
    /// What it sent, by call.
    #[serde(skip)]
    pub(crate) sent: Sent,
}

impl ClientRow {
    pub(crate) fn new(client: usize, intended: Duration) -> Self {
        Self {
            client,
            player_id: None,
            outcome: Outcome::Interrupted,
            intended_ms: ms(intended),
            started_ms: None,
            queue_ms: None,
            start_ms: None,
            connect_ms: None,
            play_ms: None,
            end_ms: None,
            session_id: None,
            reconnects: 0,
            requests: 0,
            requests_playing: 0,
            stopped_in: None,
            fault: None,
            detail: None,
            finished_ms: 0.0,
            fleet: None,
            token: None,
            sent: Sent::default(),
        }
    }

    pub(crate) const fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::Forced)
    }

    pub(crate) fn failed(&mut self, phase: Phase, fault: Fault) {
        self.outcome = Outcome::Failed;
        self.stopped_in = Some(phase);
        self.fault = Some(fault.class);
        self.detail = Some(fault.detail);
    }

    const fn time_of(&self, phase: Phase) -> Option<f64> {
        match phase {
            Phase::Queue => self.queue_ms,
            Phase::Start => self.start_ms,
            Phase::Connect => self.connect_ms,
            Phase::Play => self.play_ms,
            Phase::End => self.end_ms,
        }
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn ms(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

/// How many clients ended how. They add up to `total`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All.
    pub total: usize,
    /// Joined, played, ended.
    pub done: usize,
    /// The same, with a forced end.
    pub forced: usize,
    /// Failed.
    pub failed: usize,
    /// Given up early.
    pub interrupted: usize,
}

/// One phase over all clients.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// Clients that got through it.
    pub passed: usize,
    /// Clients that failed in it.
    pub failed: usize,
    /// Clients that were interrupted in it.
    pub interrupted: usize,
    /// How long it took those who got through.
    pub times: Spread,
}

/// Equal faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// Where.
    pub phase: Phase,
    /// What.
    pub class: String,
    /// How often.
    pub count: usize,
    /// The words of the first.
    pub example: String,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The server.
    pub target: String,
    /// The fleet, where it is known.
    pub fleet: Option<String>,
    /// The queue, where one was named.
    pub queue: Option<String>,
    /// `tcp` or `websocket`.
    pub mode: &'static str,
    /// Clients.
    pub clients: usize,
    /// Clients a second; 0 is all at once.
    pub spawn_rate: f64,
    /// Seconds.
    pub match_duration_s: f64,
    /// Seconds between a playing client's questions.
    pub poll_s: f64,
    /// No end was forced and no end call made.
    pub wait_only: bool,
    /// Seconds a client tries to find its way back.
    pub reconnect_s: f64,
    /// Seed.
    pub seed: u64,
    /// What the players' names begin with; none for guests.
    pub players: Option<String>,
}

/// Whether the run was good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Every client did what it was to do, and the server's records agree.
    pub passed: bool,
    /// Why not, one sentence each.
    pub causes: Vec<String>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this shape: 1.
    pub version: u32,
    /// Whether it was good.
    pub verdict: Verdict,
    /// It was ended early.
    pub interrupted: bool,
    /// What was asked for.
    pub config: Config,
    /// RFC 3339.
    pub began_at: String,
    /// Seconds from the first intended start to the last client's end.
    pub wall_s: f64,
    /// How many clients ended how.
    pub clients: Tally,
    /// Sessions that clients were matched into.
    pub matches: usize,
    /// The phases in order.
    pub phases: Vec<PhaseReport>,
    /// From a client's intended start to the game's first word.
    pub to_first_word: Spread,
    /// From a question's intended time to its answer, while playing.
    pub round_trip: Spread,
    /// From an input's intended time to the state that shows it; only over WebSocket.
    pub input_to_state: Option<Spread>,
    /// What clients failed of.
    pub faults: Vec<FaultCount>,
    /// What clients met and overcame (with `--reconnect`).
    pub recovered: Vec<FaultCount>,
    /// How often clients found their way back.
    pub reconnects: u64,
    /// The HTTP requests of the clients.
    pub requests: Requests,
    /// What the server recorded.
    pub records: RecordsCheck,
    /// The tester's own costs.
    pub tester: Usage,
    /// What makes the numbers doubtful.
    pub doubts: Vec<String>,
    /// Where the clients were over time.
    pub timeline: Vec<Sample>,
    /// Every client.
    pub rows: Vec<ClientRow>,
}

/// What a run measured besides its rows.
pub(crate) struct Measured {
    pub(crate) config: Config,
    pub(crate) began_at: String,
    pub(crate) wall: Duration,
    pub(crate) interrupted: bool,
    pub(crate) round_trip: Spread,
    pub(crate) input_to_state: Option<Spread>,
    pub(crate) recovered: Vec<FaultCount>,
    /// Requests that the tester made for itself.
    pub(crate) own_requests: u64,
    pub(crate) records: RecordsCheck,
    pub(crate) tester: Usage,
    pub(crate) timeline: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(rows: Vec<ClientRow>, measured: Measured) -> Self {
        let Measured {
            config,
            records,
            tester,
            interrupted,
            ..
        } = measured;
        let clients = tally(&rows);
        let faults = faults(&rows);
        let sessions: BTreeSet<&str> = rows
            .iter()
            .filter_map(|r| r.session_id.as_deref())
            .collect();
        let to_first_word = rows.iter().filter_map(|r| {
            let total = r.queue_ms? + r.connect_ms? + r.start_ms?;
            Some(Duration::from_secs_f64(total.max(0.0) / 1000.0))
        });
        let mut doubts = tester.doubts();
        if let Some(why) = &records.unchecked {
            doubts.push(format!("the server's records were not compared: {why}"));
        }
        Self {
            version: VERSION,
            verdict: verdict(&clients, &faults, &records, interrupted),
            interrupted,
            began_at: measured.began_at,
            wall_s: measured.wall.as_secs_f64(),
            matches: sessions.len(),
            phases: phases(&rows),
            to_first_word: Spread::of(to_first_word),
            round_trip: measured.round_trip,
            input_to_state: measured.input_to_state,
            recovered: measured.recovered,
            reconnects: rows.iter().map(|r| u64::from(r.reconnects)).sum(),
            requests: Requests::of(&rows, measured.own_requests),
            timeline: measured.timeline,
            clients,
            faults,
            records,
            tester,
            doubts,
            config,
            rows,
        }
    }
}

fn tally(rows: &[ClientRow]) -> Tally {
    let count = |outcome| rows.iter().filter(|r| r.outcome == outcome).count();
    Tally {
        total: rows.len(),
        done: count(Outcome::Done),
        forced: count(Outcome::Forced),
        failed: count(Outcome::Failed),
        interrupted: count(Outcome::Interrupted),
    }
}

fn phases(rows: &[ClientRow]) -> Vec<PhaseReport> {
    let one = |phase: Phase| {
        let stopped = |outcome| {
            rows.iter()
                .filter(|r| r.outcome == outcome && r.stopped_in == Some(phase))
                .count()
        };
        let times = rows
            .iter()
            .filter_map(|r| r.time_of(phase))
            .map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1000.0));
        PhaseReport {
            phase,
            passed: rows.iter().filter(|r| r.time_of(phase).is_some()).count(),
            failed: stopped(Outcome::Failed),
            interrupted: stopped(Outcome::Interrupted),
            times: Spread::of(times),
        }
    };
    Phase::ALL.map(one).to_vec()
}

fn faults(rows: &[ClientRow]) -> Vec<FaultCount> {
    let mut counts = FaultLog::default();
    for row in rows {
        if let (Outcome::Failed, Some(phase), Some(class)) =
            (row.outcome, row.stopped_in, &row.fault)
        {
            counts.add(phase, class, row.detail.as_deref().unwrap_or_default());
        }
    }
    counts.most_first()
}

/// Counts equal faults.
#[derive(Debug, Default)]
pub(crate) struct FaultLog(BTreeMap<(Phase, String), (usize, String)>);

/// Kinds of faults told apart; a server that makes up codes must not grow our memory.
const MAX_KINDS: usize = 200;

impl FaultLog {
    pub(crate) fn add(&mut self, phase: Phase, class: &str, detail: &str) {
        let mut key = (phase, class.to_owned());
        if self.0.len() >= MAX_KINDS && !self.0.contains_key(&key) {
            key.1 = "other".to_owned();
        }
        let entry = self.0.entry(key).or_insert_with(|| (0, detail.to_owned()));
        entry.0 += 1;
    }

    pub(crate) fn most_first(&self) -> Vec<FaultCount> {
        let mut all: Vec<FaultCount> = self
            .0
            .iter()
            .map(|((phase, class), (count, example))| FaultCount {
                phase: *phase,
                class: class.clone(),
                count: *count,
                example: example.clone(),
            })
            .collect();
        all.sort_by_key(|fault| (std::cmp::Reverse(fault.count), fault.phase));
        all
    }
}

/// One client in a hundred that was refused is a failed run: there is no share of failures that is good enough.
fn verdict(
    clients: &Tally,
    faults: &[FaultCount],
    records: &RecordsCheck,
    interrupted: bool,
) -> Verdict {
    let mut causes = vec![];
    for fault in faults {
        causes.push(format!(
            "{} of {} clients failed in {}: {} ({})",
            fault.count, clients.total, fault.phase, fault.class, fault.example
        ));
    }
    if interrupted {
        causes.push(format!(
            "ended early: {} of {} clients were not finished",
            clients.interrupted, clients.total
        ));
    }
    causes.extend(records.causes());
    if clients.done + clients.forced + clients.failed + clients.interrupted != clients.total {
        causes.push("the counts of clients do not add up".to_owned());
    }
    Verdict {
        passed: causes.is_empty(),
        causes,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(client: usize, outcome: Outcome) -> ClientRow {
        let mut row = ClientRow::new(client, Duration::from_millis(client as u64 * 10));
        row.player_id = Some(format!("p{client}"));
        row.started_ms = Some(row.intended_ms + 0.2);
        row.session_id = Some(format!("s{}", client / 2));
        row.queue_ms = Some(5.0 + client as f64);
        row.connect_ms = Some(1.0);
        row.start_ms = Some(40.0);
        row.play_ms = Some(2000.0);
        row.end_ms = Some(2.0);
        row.finished_ms = row.intended_ms + 2050.0;
        row.outcome = outcome;
        row
    }

    pub(crate) fn report(rows: Vec<ClientRow>, records: RecordsCheck) -> Report {
        let progress = crate::progress::Progress::default();
        progress.begin(rows.len());
        for n in 0..20 {
            let _ = progress.sample(Duration::from_millis(250 * n));
        }
        Report::new(
            rows,
            Measured {
                config: Config {
                    target: "http://localhost:8080".into(),
                    fleet: Some("arena".into()),
                    queue: None,
                    mode: "tcp",
                    clients: 100,
                    spawn_rate: 0.0,
                    match_duration_s: 2.0,
                    poll_s: 1.0,
                    wait_only: false,
                    reconnect_s: 0.0,
                    seed: 0,
                    players: Some("load-x".into()),
                },
                began_at: "2026-11-21T12:00:00Z".into(),
                wall: Duration::from_secs(3),
                interrupted: false,
                round_trip: Spread::of((1..100).map(Duration::from_millis)),
                input_to_state: None,
                recovered: vec![],
                own_requests: 3,
                records,
                tester: Usage::default(),
                timeline: progress.samples(),
            },
        )
    }

    #[test]
    fn all_good_is_good_and_forced_is_counted_apart() {
        let mut rows: Vec<_> = (0..99).map(|n| row(n, Outcome::Done)).collect();
        rows.push(row(99, Outcome::Forced));
        let report = report(rows, RecordsCheck::default());
        assert!(report.verdict.passed, "{:?}", report.verdict);
        assert_eq!((report.clients.done, report.clients.forced), (99, 1));
        assert_eq!(report.matches, 50);
        assert!(
            report
                .phases
                .iter()
                .all(|p| p.passed == 100 && p.failed == 0)
        );
        assert_eq!(report.to_first_word.count, 100);
    }

    #[test]
    fn one_in_a_hundred_fails_the_run_and_is_named() {
        let mut rows: Vec<_> = (0..99).map(|n| row(n, Outcome::Done)).collect();
        let mut refused = ClientRow::new(99, Duration::ZERO);
        refused.failed(Phase::Queue, Fault::new("queue_full", "503: later"));
        rows.push(refused);
        let report = report(rows, RecordsCheck::default());
        assert!(!report.verdict.passed);
        let cause = "1 of 100 clients failed in queue: queue_full (503: later)";
        assert_eq!(report.verdict.causes, [cause]);
        assert_eq!(report.phases[0].failed, 1);
        assert_eq!(report.phases[0].passed, 99);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 100);
        assert!(json["rows"][0].get("token").is_none());
    }

    #[test]
    fn kinds_of_faults_are_bounded() {
        let mut log = FaultLog::default();
        for n in 0..1000 {
            log.add(Phase::Play, &format!("made_up_{n}"), "");
        }
        log.add(Phase::Queue, "queue_full", "");
        assert!(log.0.len() <= MAX_KINDS + 2);
        assert_eq!(log.most_first()[0].class, "other");
    }
}
