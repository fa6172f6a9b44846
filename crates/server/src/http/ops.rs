//! Health, readiness, metrics, insight.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use spawnpoint_core::Code;
use spawnpoint_wire::api::{Done, Readiness, ReadinessCheck};
use spawnpoint_wire::problem::Problem;

use super::request::Call;
use super::{Ctx, Failure, Reply};

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
    let loaded = app.lobby_loaded.load(Ordering::Acquire);
    let lobby = match app.lobby.healthy().await {
        Err(e) => Err(e.to_string()),
        Ok(()) if !loaded => Err("an earlier run's tickets are being read".to_owned()),
        Ok(()) => Ok("written to".to_owned()),
    };
    check("lobby", lobby);
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

/// Operators and backends only.
pub(super) fn trusted(ctx: &Ctx, call: &Call) -> Result<(), Failure> {
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
    let mut text = super::metrics::render(&ctx.app);
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
    let queues = app.queue_list().queues;
    let holds: BTreeMap<_, _> = app.counters.culls_held().into();
    let value = app.with_world(|w| {
        let plans: BTreeMap<_, _> =
            w.fleets.iter().map(|(n, f)| (n.to_string(), app.fleet_view(n, f).last_plan)).collect();
        serde_json::json!({
            "reaper": {
                "held_by": held,
                "held_times": holds,
                "timers": w.timers.len(),
                "next_look": w.timers.first().map(|(at, id)| serde_json::json!({"at": app.text(*at), "session_id": id.to_string()})),
            },
            "fleets": plans,
            "queues": queues,
            "sessions": w.sessions.len(),
            "draining": w.draining,
        })
    });
    Ok(Json(value))
}
