//! Health, readiness, metrics, insight.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use spawnpoint_core::Code;
use spawnpoint_core::session::Phase;
use spawnpoint_wire::api::{Done, Readiness, ReadinessCheck};
use spawnpoint_wire::problem::Problem;

use super::request::Call;
use super::{Ctx, Failure, Reply};
use crate::app::App;

/// The admin listener's front: the console comes later, the API page is what there is to see.
pub(super) fn root() -> Router<Ctx> {
    Router::new().route("/", get(|| async { Redirect::temporary("/api/docs/") }))
}

/// Alive.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process answers", body = Done)))]
pub(super) async fn healthz() -> Json<Done> {
    Json(Done { ok: true })
}

/// Ready, with each dependency's state.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; the checks say why", body = Readiness)
    )
)]
pub(super) async fn readyz(State(ctx): State<Ctx>) -> Response {
    let app = &ctx.app;
    let mut checks = Vec::new();
    let mut check = |name: &str, result: Result<String, String>| {
        let (ok, detail) = match result {
            Ok(d) => (true, d),
            Err(d) => (false, d),
        };
        checks.push(ReadinessCheck {
            name: name.to_owned(),
            ok,
            detail,
        });
    };
    let revived = app.revived.load(Ordering::Acquire);
    check(
        "sessions",
        if revived {
            Ok("taken over".to_owned())
        } else {
            Err("an earlier run's sessions are being taken over".to_owned())
        },
    );
    check(
        "records",
        app.records
            .healthy()
            .await
            .map(|()| "written to".to_owned())
            .map_err(|e| e.to_string()),
    );
    check(
        "runtime",
        app.runtime
            .list()
            .await
            .map(|l| format!("{} instances", l.len()))
            .map_err(|e| e.to_string()),
    );
    let draining = app.with_world(|w| w.draining);
    check(
        "draining",
        if draining {
            Err("shutting down".to_owned())
        } else {
            Ok("no".to_owned())
        },
    );
    let ready = checks.iter().all(|c| c.ok);
    let held = *app.held_by.lock().unwrap_or_else(PoisonError::into_inner);
    // Held culls are worth knowing and no reason to send players elsewhere.
    checks.push(ReadinessCheck {
        name: "culls".to_owned(),
        ok: true,
        detail: held.map_or_else(|| "free".to_owned(), |h| format!("held by {h}")),
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, checks })).into_response()
}

fn trusted(ctx: &Ctx, call: &Call) -> Result<(), Failure> {
    if call.caller(ctx, None)?.is_trusted() {
        return Ok(());
    }
    Err(Failure(Problem::new(
        Code::Forbidden,
        "only operators may look at this",
    )))
}

/// Metrics in Prometheus text form. Never labelled by session or player.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, description = "Prometheus text form 0.0.4", body = String, content_type = "text/plain"),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn metrics(State(ctx): State<Ctx>, call: Call) -> Reply<Response> {
    trusted(&ctx, &call)?;
    let mut text = render(&ctx.app);
    if let Some(more) = &ctx.app.more_metrics {
        text.push_str(&more());
    }
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response())
}

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
        let _ = writeln!(self.out, "{}{labels} {value}", self.name);
    }
}

fn render(app: &App) -> String {
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
    Family::new(
        &mut out,
        "spawnpoint_culls_held_total",
        "counter",
        "Times culls were held back (late tick, mass-end brake).",
    )
    .sample(&[], c.culls_held.load(Ordering::Relaxed));
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
    out
}

/// What the workers last decided.
#[utoipa::path(
    operation_id = "debug_workers",
    get, path = "/debug/workers", tag = "operations",
    responses(
        (status = 200, description = "Plans, holds and timers", body = serde_json::Value),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn workers(State(ctx): State<Ctx>, call: Call) -> Reply<Json<serde_json::Value>> {
    trusted(&ctx, &call)?;
    let app = &ctx.app;
    let held = *app.held_by.lock().unwrap_or_else(PoisonError::into_inner);
    let value = app.with_world(|w| {
        let plans: BTreeMap<_, _> =
            w.fleets.iter().map(|(n, f)| (n.to_string(), app.fleet_view(n, f).last_plan)).collect();
        serde_json::json!({
            "reaper": {
                "held_by": held,
                "timers": w.timers.len(),
                "next_look": w.timers.first().map(|(at, id)| serde_json::json!({"at": app.text(*at), "session_id": id.to_string()})),
            },
            "fleets": plans,
            "sessions": w.sessions.len(),
            "draining": w.draining,
        })
    });
    Ok(Json(value))
}
