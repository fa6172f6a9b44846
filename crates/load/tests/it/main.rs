//! Whole runs against a double: every way a run can fail has to be seen, named and counted.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail loudly

mod double;

use std::time::Duration;

use double::{Double, Faults};
use spawnpoint_load::{LoadError, Outcome, Phase, Plan, Progress, Report};
use tokio_util::sync::CancellationToken;

fn plan(double: &Double) -> Plan {
    Plan {
        clients: 100,
        match_duration: Duration::from_millis(300),
        margin: Duration::from_millis(300),
        poll: Duration::from_millis(50),
        timeout: Duration::from_secs(30),
        ..Plan::against(double.url().parse().unwrap())
    }
}

async fn run(plan: Plan) -> Report {
    spawnpoint_load::run(plan, Progress::default(), CancellationToken::new())
        .await
        .unwrap()
}

/// A run with these faults, after `change`.
async fn with(faults: Faults, change: impl FnOnce(&mut Plan)) -> Report {
    let double = Double::start("", faults).await;
    let mut plan = plan(&double);
    change(&mut plan);
    run(plan).await
}

fn causes(report: &Report) -> String {
    report.verdict.causes.join("\n")
}

#[tokio::test]
async fn a_good_run_is_counted_to_the_last_client() {
    let report = with(Faults::default(), |plan| plan.clients = 101).await;
    assert!(report.verdict.passed, "{}", causes(&report));
    assert_eq!((report.clients.total, report.clients.done), (101, 101));
    assert_eq!(report.matches, 51, "one plays alone");
    for phase in &report.phases {
        assert_eq!((phase.passed, phase.failed), (101, 0), "{:?}", phase.phase);
        assert_eq!(phase.times.count, 101);
    }
    assert_eq!((report.records.expected, report.records.found), (51, 51));
    assert!(report.round_trip.count >= 101, "{:?}", report.round_trip);
    let requests = &report.requests;
    assert_eq!(requests.calls["POST /api/match/join"], 101);
    assert_eq!(requests.calls["POST /api/match/{id}/end"], 101);
    assert_eq!(requests.playing, 0, "{requests:?}");
    assert!(requests.played_s > 0.0 && requests.live_s > 0.0);
    let by_client: u64 = report.rows.iter().map(|row| row.requests).sum();
    assert_eq!(requests.total, by_client);
    // Health, fleets, and at least one look at the records.
    assert!(requests.own >= 3, "{requests:?}");
    assert_eq!(report.config.fleet.as_deref(), Some("lines"));
    for row in &report.rows {
        assert_eq!(row.outcome, Outcome::Done);
        assert!(row.play_ms.unwrap() > 0.0 && row.end_ms.is_some() && row.session_id.is_some());
    }
    // Both players of a match were told of the same one.
    let first = &report.rows[0].session_id;
    assert_eq!(
        report
            .rows
            .iter()
            .filter(|row| row.session_id == *first)
            .count(),
        2
    );
}

#[tokio::test]
async fn one_refusal_in_a_hundred_fails_the_run() {
    let faults = Faults {
        refuse_every: Some(100),
        ..Faults::default()
    };
    let report = with(faults, |_| {}).await;
    assert!(!report.verdict.passed);
    assert_eq!((report.clients.done, report.clients.failed), (99, 1));
    assert_eq!(report.faults[0].class, "queue_full");
    assert_eq!(
        (report.faults[0].phase, report.faults[0].count),
        (Phase::Queue, 1)
    );
    assert!(causes(&report).contains("1 of 100 clients failed in queue: queue_full"));
}

#[tokio::test]
async fn games_that_cannot_be_reached_are_told_apart_from_matches_that_do_not_form() {
    let dead = Faults {
        dead_games: true,
        ..Faults::default()
    };
    let report = with(dead, |plan| plan.clients = 10).await;
    let seen: Vec<_> = report
        .faults
        .iter()
        .map(|f| (f.phase, f.class.as_str(), f.count))
        .collect();
    assert_eq!(seen, [(Phase::Connect, "connection_refused", 10)]);
    assert_eq!(report.phases[0].passed, 10);

    let silent = Faults {
        silent: true,
        ..Faults::default()
    };
    let report = with(silent, |plan| {
        plan.clients = 10;
        plan.timeout = Duration::from_millis(500);
    })
    .await;
    assert_eq!(
        (report.faults[0].phase, &*report.faults[0].class),
        (Phase::Start, "not_ready")
    );
    assert_eq!(report.clients.failed, 10);
}

#[tokio::test]
async fn a_match_that_never_stops_is_ended_and_counted_as_forced() {
    let stubborn = Faults {
        stubborn: true,
        ..Faults::default()
    };
    let report = with(stubborn.clone(), |plan| plan.clients = 20).await;
    assert!(report.verdict.passed, "{}", causes(&report));
    // The partner of who forces the end may see it come.
    assert!(report.clients.forced >= 10, "{:?}", report.clients);
    assert_eq!(report.clients.forced + report.clients.done, 20);
    assert_eq!(report.records.reasons["ended_by_client"], 10);

    let report = with(stubborn, |plan| {
        plan.clients = 20;
        plan.wait_only = true;
    })
    .await;
    assert!(!report.verdict.passed);
    assert_eq!((report.clients.forced, report.clients.failed), (0, 20));
    assert!(
        report.faults.iter().any(|f| f.class == "not_ended"),
        "{:?}",
        report.faults
    );
}

#[tokio::test]
async fn a_match_that_is_cut_short_is_no_match_played() {
    let hasty = Faults {
        hasty: true,
        ..Faults::default()
    };
    let report = with(hasty, |plan| plan.clients = 20).await;
    assert_eq!(report.faults[0].class, "ended_early", "{:?}", report.faults);
    // Of each pair the one who asked for it knows.
    assert!(report.faults[0].count >= 10 && !report.verdict.passed);
}

#[tokio::test]
async fn who_only_waits_makes_no_end_call() {
    let report = with(Faults::default(), |plan| plan.wait_only = true).await;
    assert!(report.verdict.passed, "{}", causes(&report));
    assert_eq!(report.records.reasons["ended_by_server"], 50);
    assert_eq!(report.phases[4].passed, 0);
}

#[tokio::test]
async fn records_that_do_not_fit_fail_the_run() {
    for (faults, kind) in [
        (
            Faults {
                two_records: true,
                ..Faults::default()
            },
            "twice",
        ),
        (
            Faults {
                reason: Some("idle"),
                ..Faults::default()
            },
            "reason",
        ),
    ] {
        let report = with(faults, |plan| plan.clients = 4).await;
        assert_eq!(report.clients.done, 4);
        assert!(
            !report.verdict.passed && causes(&report).contains(kind),
            "{}",
            causes(&report)
        );
        assert_eq!(report.records.mismatched, 2);
    }
    let faults = Faults {
        no_records: true,
        ..Faults::default()
    };
    let report = with(faults, |plan| {
        plan.clients = 4;
        plan.timeout = Duration::from_secs(2);
    })
    .await;
    assert!(causes(&report).contains("missing"), "{}", causes(&report));
}

#[tokio::test]
async fn a_stall_is_seen_by_everybody_who_came_into_it() {
    let stall = Duration::from_secs(2);
    let faults = Faults {
        stall: Some(stall),
        ..Faults::default()
    };
    let report = with(faults, |plan| {
        plan.clients = 40;
        plan.spawn_rate = 20.0;
    })
    .await;
    assert!(report.verdict.passed, "{}", causes(&report));
    // Starts did not wait for answers, and waiting counts from the intended start: the whole stall is there, not one sample of it.
    for row in &report.rows {
        let least = stall.as_secs_f64() * 1000.0 - row.intended_ms - 500.0;
        assert!(row.queue_ms.unwrap() >= least, "{row:?}");
    }
    assert!(
        report.phases[0].times.p99_ms >= 1500.0,
        "{:?}",
        report.phases[0].times
    );
}

#[tokio::test]
async fn a_rate_spaces_the_starts() {
    let report = with(Faults::default(), |plan| {
        plan.clients = 20;
        plan.spawn_rate = 40.0;
    })
    .await;
    assert!(report.verdict.passed, "{}", causes(&report));
    for (number, row) in report.rows.iter().enumerate() {
        assert_eq!(row.intended_ms, number as f64 * 25.0);
        assert!(row.started_ms.unwrap() >= row.intended_ms);
    }
}

#[tokio::test]
async fn the_override_replaces_the_host_and_keeps_the_port() {
    let elsewhere = Faults {
        host: Some("game.invalid"),
        ..Faults::default()
    };
    let report = with(elsewhere.clone(), |plan| plan.clients = 4).await;
    assert_eq!(report.faults[0].class, "name_not_found");
    let report = with(elsewhere, |plan| {
        plan.clients = 4;
        plan.host_override = Some("127.0.0.1".into());
    })
    .await;
    assert!(report.verdict.passed, "{}", causes(&report));
}

#[tokio::test]
async fn a_base_path_is_kept() {
    let double = Double::start("/games/eu", Faults::default()).await;
    for slash in ["", "/"] {
        let mut plan = plan(&double);
        plan.clients = 4;
        plan.target = format!("{}/games/eu{slash}", double.url()).parse().unwrap();
        let report = run(plan).await;
        assert!(report.verdict.passed, "{}", causes(&report));
    }
}

#[tokio::test]
async fn keys_and_guests() {
    let keyed = Faults {
        key: Some("secret"),
        ..Faults::default()
    };
    let double = Double::start("", keyed).await;
    let mut plan = plan(&double);
    plan.clients = 10;
    let error = spawnpoint_load::run(plan.clone(), Progress::default(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--fleet"), "{error}");
    let mut with_key = plan.clone();
    with_key.key = Some("secret".into());
    let report = run(with_key).await;
    assert!(report.verdict.passed, "{}", causes(&report));
    // Guests name a fleet, are named by the server, and each reads its own record.
    plan.fleet = Some("lines".into());
    plan.guests = true;
    let report = run(plan).await;
    assert!(report.verdict.passed, "{}", causes(&report));
    assert!(
        report
            .rows
            .iter()
            .all(|row| row.player_id.as_ref().unwrap().starts_with("guest-"))
    );
    assert_eq!(report.records.found, 5);
}

#[tokio::test]
async fn what_is_lost_is_a_failure_unless_clients_may_come_back() {
    let lossy = Faults {
        drop_first: true,
        ..Faults::default()
    };
    // Long enough that the loss is not at the match's end.
    let long = |plan: &mut Plan| {
        plan.clients = 4;
        plan.match_duration = Duration::from_secs(3);
    };
    let report = with(lossy.clone(), long).await;
    assert_eq!(
        report.faults[0].class, "connection_lost",
        "{:?}",
        report.faults
    );
    let report = with(lossy, |plan| {
        long(plan);
        plan.reconnect = Duration::from_secs(10);
    })
    .await;
    assert!(report.verdict.passed, "{}", causes(&report));
    assert_eq!(report.reconnects, 2);
    assert_eq!(report.recovered[0].class, "connection_lost");

    let forgetful = Faults {
        lose_tickets: true,
        ..Faults::default()
    };
    let report = with(forgetful.clone(), |plan| plan.clients = 5).await;
    assert!(
        report.faults.iter().any(|f| f.class == "ticket_lost"),
        "{:?}",
        report.faults
    );
    let report = with(forgetful, |plan| {
        plan.clients = 5;
        plan.reconnect = Duration::from_secs(10);
    })
    .await;
    assert!(report.verdict.passed, "{}", causes(&report));
}

#[tokio::test]
async fn an_early_end_leaves_nothing_behind_and_counts_everybody() {
    let double = Double::start("", Faults::default()).await;
    let mut plan = plan(&double);
    plan.clients = 60;
    plan.spawn_rate = 100.0;
    plan.match_duration = Duration::from_secs(60);
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let running = spawnpoint_load::run(plan, progress.clone(), cancel.clone());
    let stop = async {
        while progress.snapshot().play < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (report, ()) = tokio::join!(running, stop);
    let report = report.unwrap();
    assert!(report.interrupted && !report.verdict.passed);
    assert_eq!(report.rows.len(), 60);
    assert_eq!(report.clients.interrupted, 60);
    assert!(report.records.unchecked.is_some());
    assert_eq!((double.waiting(), double.live()), (0, 0));
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let at = |url: String| Plan::against(url.parse().unwrap());
    let start = |plan| spawnpoint_load::run(plan, Progress::default(), CancellationToken::new());
    let refused = start(at(format!("http://127.0.0.1:{port}"))).await;
    assert!(matches!(refused, Err(LoadError::Unreachable { .. })));
    let unknown = start(at("http://nobody.invalid".into())).await;
    assert!(matches!(unknown, Err(LoadError::Unreachable { .. })));
    let double = Double::start("", Faults::default()).await;
    let astray = start(at(format!("{}/elsewhere", double.url()))).await;
    assert!(matches!(astray, Err(LoadError::Stranger { .. })));
    let tls = start(at(format!("https://127.0.0.1:{}", double.port))).await;
    assert!(matches!(tls, Err(LoadError::Unreachable { .. })));
}
