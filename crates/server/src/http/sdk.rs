//! For instances: their own session, over plain HTTP with their own token.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use spawnpoint_core::{Code, InstanceId, SessionId};
use spawnpoint_wire::api::{Done, SdkActivity, SdkEnd, SdkReady, SdkSession};
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::InstanceClaims;

use super::auth::token_problem;
use super::events::{Filter, follow};
use super::request::{Call, Raw, duration, player_id};
use super::sessions::status;
use super::{Ctx, Failure, Reply};
use crate::app::{App, Beat, check_results};

fn instance(ctx: &Ctx, call: &Call) -> Result<InstanceClaims, Failure> {
    let needs = || {
        Failure(Problem::new(
            Code::Unauthenticated,
            "send SPAWNPOINT_TOKEN as Authorization: Bearer ...",
        ))
    };
    let value = call.header(header::AUTHORIZATION).ok_or_else(needs)?;
    let token = value
        .split_once(' ')
        .filter(|(s, _)| s.eq_ignore_ascii_case("bearer"))
        .map(|(_, t)| t.trim())
        .ok_or_else(needs)?;
    let claims = ctx
        .app
        .keys
        .ring
        .verify_instance(token)
        .map_err(|e| Failure(token_problem(e)))?;
    // The token dies with its instance.
    if !ctx.app.with_world(|w| w.holders.contains_key(&claims.iid)) {
        return Err(Failure(Problem::new(
            Code::InvalidCredentials,
            "this instance is over",
        )));
    }
    Ok(claims)
}

fn bound(app: &App, id: InstanceId) -> Option<SessionId> {
    app.with_world(|w| match w.holders.get(&id) {
        Some(crate::app::world::Holder::Session(s))
            if w.sessions
                .get(s)
                .is_some_and(|e| e.session.instance == Some(id)) =>
        {
            Some(*s)
        }
        _ => None,
    })
}

fn view(app: &App, claims: &InstanceClaims) -> SdkSession {
    let session = bound(app, claims.iid);
    app.with_world(|w| {
        let entry = session.and_then(|s| w.sessions.get(&s));
        SdkSession {
            instance: claims.iid.to_string(),
            fleet: claims.fleet.to_string(),
            session_id: entry.map(|e| e.session.id.to_string()),
            generation: entry.map(|e| e.session.generation.0),
            phase: entry.map(|e| e.session.phase.as_str().to_owned()),
            players: entry
                .map(|e| e.session.roster.iter().map(|p| p.id.to_string()).collect())
                .unwrap_or_default(),
            payload: entry.and_then(|e| e.payload.clone()),
            deadline: entry.and_then(|e| e.session.max_at).map(|m| app.text(m)),
        }
    })
}

/// The instance's own session; `wait` holds the reply until it has one.
#[utoipa::path(
    operation_id = "sdk_session",
    get, path = "/v1/session", tag = "sdk",
    params(("wait" = Option<f64>, Query, description = "At most this many seconds (60)")),
    responses(
        (status = 200, description = "`session_id` is null while the instance is warm", body = SdkSession),
        (status = "4XX", description = "Not an instance of ours", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn session(State(ctx): State<Ctx>, call: Call) -> Reply<Json<SdkSession>> {
    call.only(&["wait"])?;
    let claims = instance(&ctx, &call)?;
    let deadline = call.wait()?.map(|w| tokio::time::Instant::now() + w);
    while let Some(deadline) = deadline {
        let mut live = ctx.app.events.listen(None).live;
        if bound(&ctx.app, claims.iid).is_some() {
            break;
        }
        // Any event may be the claim of this instance; looking again is cheap.
        match tokio::time::timeout_at(deadline, live.recv()).await {
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(Json(view(&ctx.app, &claims)))
}

/// The events of the instance's own session.
#[utoipa::path(
    operation_id = "sdk_events",
    get, path = "/v1/events", tag = "sdk",
    params(("Last-Event-ID" = Option<String>, Header, description = "Resume after this event")),
    responses(
        (status = 200, description = "A stream; empty and over at once while warm", body = spawnpoint_wire::event::Event, content_type = "text/event-stream"),
        (status = "4XX", description = "Not an instance of ours", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(State(ctx): State<Ctx>, call: Call) -> Reply<Response> {
    call.only(&[])?;
    let claims = instance(&ctx, &call)?;
    let Some(id) = bound(&ctx.app, claims.iid) else {
        return Ok(Sse::new(stream::empty::<Result<_, Infallible>>()).into_response());
    };
    let last = call.header(axum::http::HeaderName::from_static("last-event-id"));
    let stream = follow(&ctx, Filter::Session(id), last).await?;
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// The game accepts players (rule `ready = "sdk"`).
#[utoipa::path(
    operation_id = "sdk_ready",
    post, path = "/v1/ready", tag = "sdk",
    request_body = SdkReady,
    responses(
        (status = 200, description = "Taken", body = Done),
        (status = "4XX", description = "Not an instance of ours", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ready(State(ctx): State<Ctx>, call: Call, raw: Raw) -> Reply<Json<Done>> {
    let claims = instance(&ctx, &call)?;
    let SdkReady {} = raw.parse()?;
    ctx.app
        .runtime
        .mark_ready(claims.iid)
        .await
        .map_err(Problem::from)?;
    Ok(Json(Done { ok: true }))
}

/// The game reports activity, or that quiet work goes on.
#[utoipa::path(
    operation_id = "sdk_activity",
    post, path = "/v1/activity", tag = "sdk",
    request_body = SdkActivity,
    responses(
        (status = 200, description = "Taken", body = Done),
        (status = "4XX", description = "The call is wrong, or the instance has no session", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn activity(State(ctx): State<Ctx>, call: Call, raw: Raw) -> Reply<Json<Done>> {
    let claims = instance(&ctx, &call)?;
    let body: SdkActivity = raw.parse()?;
    let id = own_session(&ctx, &claims)?;
    let beat = Beat {
        player: body
            .player_id
            .as_deref()
            .map(|p| player_id(p, "player_id"))
            .transpose()?,
        status: status(body.status.as_deref())?,
        idle_ms: None,
        duration_ms: None,
        ttl: body.ttl.as_ref().map(|t| duration(t, "ttl")).transpose()?,
    };
    ctx.app.heartbeat(id, &beat)?;
    Ok(Json(Done { ok: true }))
}

/// The game is over; exiting 0 says the same.
#[utoipa::path(
    operation_id = "sdk_end",
    post, path = "/v1/end", tag = "sdk",
    request_body = SdkEnd,
    responses(
        (status = 200, description = "Taken; SIGTERM follows, with the grace period", body = Done),
        (status = "4XX", description = "The call is wrong, or the instance has no session", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn end(State(ctx): State<Ctx>, call: Call, raw: Raw) -> Reply<Json<Done>> {
    let claims = instance(&ctx, &call)?;
    let body: SdkEnd = raw.parse()?;
    let id = own_session(&ctx, &claims)?;
    ctx.app
        .end_by_server(id, check_results(body.results.as_ref())?);
    Ok(Json(Done { ok: true }))
}

fn own_session(ctx: &Ctx, claims: &InstanceClaims) -> Result<SessionId, Failure> {
    bound(&ctx.app, claims.iid).ok_or_else(|| {
        Failure(Problem::new(
            Code::SessionNotFound,
            "this instance has no session (yet)",
        ))
    })
}
