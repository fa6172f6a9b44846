//! A run from the first question to the report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Credentials, Fleet};
use crate::client::{self, Shared};
use crate::descriptors;
use crate::dial::Dialer;
use crate::fault::LoadError;
use crate::http::Http;
use crate::plan::{Mode, Plan};
use crate::progress::{Ended, Progress};
use crate::records::{self, RecordsCheck};
use crate::report::{ClientRow, Config, FaultLog, Measured, Report};
use crate::schedule::start_of;
use crate::stats::Times;
use crate::usage::Meter;

/// A server that is there answers its health at once; one that is not must not keep anybody waiting.
const HELLO: Duration = Duration::from_secs(5);
/// After an early end, for clients to leave queues and sessions.
const WIND_UP: Duration = Duration::from_secs(10);
/// Longest wait for the last records to be written.
const RECORDS: Duration = Duration::from_secs(30);
/// How far before the run's beginning records are looked for: the server's `Date` has whole seconds.
const CLOCK_SLACK_S: i64 = 2;

/// Runs the plan. Cancelling `cancel` ends it early, with a report of what was done until then.
///
/// # Errors
/// When it cannot begin: nobody answers, the server is not one, the fleet does not exist, too few open files are allowed.
pub async fn run(
    plan: Plan,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Report, LoadError> {
    descriptors::ensure(plan.clients)?;
    let target = Arc::new(plan.target.clone());
    let dialer = Arc::new(Dialer::default());
    let mut api = Api::new(
        Http::new(Arc::clone(&dialer), Arc::clone(&target)),
        Credentials {
            key: plan.key.clone(),
            token: None,
        },
    );
    let from = greet(&mut api, &plan).await?;
    let fleet = find_fleet(&mut api, &plan).await?;
    let name = fleet.as_ref().map(|f| f.name.clone());
    let name = name.or_else(|| plan.fleet.clone());
    let shared = Arc::new(Shared {
        queue: plan.queue.clone().or_else(|| name.clone()),
        through_gateway: fleet.as_ref().map(|f| f.expose == "gateway"),
        prefix: format!("load-{:08x}", run_id()?),
        began: Instant::now(),
        round_trips: Times::default(),
        inputs: Times::default(),
        start_lag: Times::default(),
        recovered: Mutex::new(FaultLog::default()),
        target,
        dialer,
        progress,
        cancel,
        plan,
    });
    let meter = Meter::start();
    let began_at = jiff::Timestamp::now();
    let rows = live(&shared).await;
    let wall = shared.began.elapsed();
    let tester = meter.read(shared.start_lag.spread());
    let interrupted = shared.cancel.is_cancelled();
    let plan = &shared.plan;
    let records = if interrupted {
        let sessions = rows.iter().filter(|r| r.session_id.is_some()).count();
        RecordsCheck::unchecked("the run was ended early", sessions)
    } else {
        let limit = RECORDS.min(plan.timeout);
        records::check(
            &mut api,
            &rows,
            from.as_deref(),
            ended_by_server_only(plan),
            limit,
        )
        .await
    };
    let recovered = shared
        .recovered
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Report::new(
        rows,
        Measured {
            config: config(&shared, name),
            began_at: began_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            wall,
            interrupted,
            round_trip: shared.round_trips.spread(),
            input_to_state: (plan.mode == Mode::WebSocket).then(|| shared.inputs.spread()),
            recovered: recovered.most_first(),
            own_requests: api.sent().total(),
            records,
            tester,
            timeline: shared.progress.samples(),
        },
    ))
}

/// Only a TCP match ends by itself.
fn ended_by_server_only(plan: &Plan) -> bool {
    plan.wait_only && plan.mode == Mode::Tcp
}

/// All clients, to the last one's end.
async fn live(shared: &Arc<Shared>) -> Vec<ClientRow> {
    let clients = shared.plan.clients;
    shared.progress.begin(clients);
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        tasks.spawn(client::live(number, Arc::clone(shared)));
    }
    let mut rows = Vec::with_capacity(clients);
    let collect = async {
        while let Some(done) = tasks.join_next().await {
            // A client that panicked has no row and is counted below.
            rows.extend(done.ok());
        }
    };
    let watch = async {
        loop {
            let next = shared.progress.sample(shared.began.elapsed());
            sleep(next).await;
        }
    };
    let overdue = async {
        shared.cancel.cancelled().await;
        sleep(WIND_UP).await;
    };
    tokio::select! {
        () = collect => {}
        () = watch => {}
        () = overdue => {}
    }
    shared.progress.sample(shared.began.elapsed());
    complete(shared, rows)
}

/// A row for every client, also for those that were cut off: the counts always add up.
fn complete(shared: &Shared, mut rows: Vec<ClientRow>) -> Vec<ClientRow> {
    rows.sort_by_key(|row| row.client);
    let mut there = vec![false; shared.plan.clients];
    for row in &rows {
        if let Some(there) = there.get_mut(row.client) {
            *there = true;
        }
    }
    let lost = there.iter().enumerate().filter(|(_, there)| !**there);
    for (number, _) in lost {
        let mut row = ClientRow::new(number, start_of(number, shared.plan.spawn_rate));
        row.finished_ms = crate::report::ms(shared.began.elapsed());
        if !shared.cancel.is_cancelled() {
            let fault = crate::Fault::new("tester_failed", "this client of the tester broke");
            row.failed(crate::Phase::Queue, fault);
            shared.progress.finish(Ended::Failed);
        }
        rows.push(row);
    }
    rows.sort_by_key(|row| row.client);
    rows
}

/// Whether anybody is there; the server's time, as it gives it.
async fn greet(api: &mut Api, plan: &Plan) -> Result<Option<String>, LoadError> {
    let target = plan.target.to_string();
    let greeting = timeout(HELLO, api.health(HELLO)).await;
    let answer = match greeting {
        Ok(Ok(answer)) => answer,
        Ok(Err(fault)) if fault.transient || fault.class == "tls_failed" => {
            return Err(LoadError::Unreachable {
                target,
                cause: fault.detail,
            });
        }
        Ok(Err(fault)) => {
            return Err(LoadError::Stranger {
                target,
                cause: format!("/healthz: {fault}"),
            });
        }
        Err(_) => {
            return Err(LoadError::Unreachable {
                target,
                cause: format!("no answer within {} s", HELLO.as_secs()),
            });
        }
    };
    Ok(server_time(answer.headers.get(http::header::DATE)))
}

/// Its `Date` less a little, as the API takes it.
fn server_time(date: Option<&http::HeaderValue>) -> Option<String> {
    let date = jiff::fmt::rfc2822::parse(date?.to_str().ok()?).ok()?;
    let from = date.timestamp().as_second().checked_sub(CLOCK_SLACK_S)?;
    Some(jiff::Timestamp::from_second(from).ok()?.to_string())
}

/// The fleet to play: the one that was named, or the first that speaks what is to be played. A caller who may not see fleets has to
/// name one.
async fn find_fleet(api: &mut Api, plan: &Plan) -> Result<Option<Fleet>, LoadError> {
    let fleets = match api.fleets().await {
        Ok(fleets) => fleets,
        Err(fault) if matches!(fault.class.as_str(), "unauthenticated" | "forbidden") => {
            return if plan.fleet.is_some() || plan.queue.is_some() {
                Ok(None)
            } else {
                Err(LoadError::Unfit(
                    "this server shows its fleets to backends only: give a key (SPAWNPOINT_KEY), or name a fleet with --fleet"
                        .to_owned(),
                ))
            };
        }
        Err(fault) if fault.class == "invalid_credentials" => {
            return Err(LoadError::Unfit(format!(
                "the key is not one of this server's (SPAWNPOINT_KEY): {}",
                fault.detail
            )));
        }
        Err(fault) => {
            return Err(LoadError::Stranger {
                target: plan.target.to_string(),
                cause: format!("/api/fleets: {fault}"),
            });
        }
    };
    choose(fleets, plan).map(Some)
}

fn choose(fleets: Vec<Fleet>, plan: &Plan) -> Result<Fleet, LoadError> {
    let wanted = plan.mode.as_str();
    let names = fleets
        .iter()
        .map(|f| format!("{} ({})", f.name, f.protocol))
        .collect::<Vec<_>>()
        .join(", ");
    let found = match &plan.fleet {
        Some(name) => fleets.into_iter().find(|f| f.name == *name),
        None => fleets.into_iter().find(|f| f.protocol == wanted),
    };
    match (found, &plan.fleet) {
        (Some(fleet), _) if fleet.protocol == wanted => Ok(fleet),
        (Some(fleet), _) => Err(LoadError::Unfit(format!(
            "the fleet {} speaks {} and --mode is {wanted}",
            fleet.name, fleet.protocol
        ))),
        (None, Some(name)) => Err(LoadError::Unfit(format!(
            "there is no fleet {name}; there are: {names}"
        ))),
        (None, None) => Err(LoadError::Unfit(format!(
            "no fleet of this server speaks {wanted}; there are: {names}"
        ))),
    }
}

/// Tells the players of this run from those of every other.
fn run_id() -> Result<u32, LoadError> {
    getrandom::u32().map_err(|e| LoadError::Machine {
        what: "no randomness",
        cause: e.to_string(),
    })
}

fn config(shared: &Shared, fleet: Option<String>) -> Config {
    let plan = &shared.plan;
    Config {
        target: plan.target.to_string(),
        fleet,
        queue: plan.queue.clone(),
        mode: plan.mode.as_str(),
        clients: plan.clients,
        spawn_rate: plan.spawn_rate,
        match_duration_s: plan.match_duration.as_secs_f64(),
        poll_s: plan.poll.as_secs_f64(),
        wait_only: plan.wait_only,
        reconnect_s: plan.reconnect.as_secs_f64(),
        seed: plan.seed,
        players: (!plan.guests).then(|| shared.prefix.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleets() -> Vec<Fleet> {
        [
            ("spice", "websocket"),
            ("udp", "udp"),
            ("arena", "tcp"),
            ("second", "tcp"),
        ]
        .map(|(name, protocol)| Fleet {
            name: name.into(),
            protocol: protocol.into(),
            expose: "gateway".into(),
        })
        .to_vec()
    }

    #[test]
    fn the_first_fleet_that_speaks_it() {
        let mut plan = Plan::against("http://h".parse().unwrap());
        assert_eq!(choose(fleets(), &plan).unwrap().name, "arena");
        plan.mode = Mode::WebSocket;
        assert_eq!(choose(fleets(), &plan).unwrap().name, "spice");
        plan.fleet = Some("second".into());
        let error = choose(fleets(), &plan).unwrap_err().to_string();
        assert!(error.contains("speaks tcp"), "{error}");
        plan.fleet = Some("gone".into());
        let error = choose(fleets(), &plan).unwrap_err().to_string();
        assert!(error.contains("arena (tcp)"), "{error}");
    }

    #[test]
    fn the_servers_clock_is_believed() {
        let date = http::HeaderValue::from_static("Sat, 21 Nov 2026 14:49:18 GMT");
        assert_eq!(
            server_time(Some(&date)).as_deref(),
            Some("2026-11-21T14:49:16Z")
        );
        assert_eq!(server_time(None), None);
        let odd = http::HeaderValue::from_static("yesterday");
        assert_eq!(server_time(Some(&odd)), None);
    }
}
