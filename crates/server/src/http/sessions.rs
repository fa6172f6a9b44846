//! Live sessions: look, keep alive, extend, explain, read the log.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::StreamExt;
use spawnpoint_core::record::MatchRecord;
use spawnpoint_core::session::{Phase, Status};
use spawnpoint_core::{Code, PlayerId, SessionId};
use spawnpoint_runtime::{LogRange, RuntimeError};
use spawnpoint_wire::api::{
    EndReply, EndView, ExtendBody, ExtendReply, HeartbeatBody, HeartbeatReply, MatchView,
    SessionPage, SessionView, Why,
};
use spawnpoint_wire::problem::Problem;

use super::request::{Call, Path, Raw, duration, player_id, session_id};
use super::{Ctx, Failure, Reply};
use crate::app::world::Entry;
use crate::app::{App, Beat, Caller, match_view, unknown_session};

/// What `sort=` takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Newest,
    Idle,
}

/// List live sessions.
///
/// Newest first, or the longest idle first with `sort=idle`. A player sees only theirs.
#[utoipa::path(
    operation_id = "list_sessions",
    get, path = "/api/sessions", tag = "sessions",
    params(
        ("fleet" = Option<String>, Query, description = "Only of this fleet"),
        ("phase" = Option<String>, Query, description = "Only in this phase"),
        ("player_id" = Option<String>, Query, description = "Only with this player"),
        ("sort" = Option<String>, Query, description = "`newest` (default) or `idle`"),
        ("limit" = Option<usize>, Query, description = "At most this many (50; 500 at most)"),
        ("cursor" = Option<String>, Query, description = "Where the page before ended")
    ),
    responses(
        (status = 200, description = "A page", body = SessionPage),
        (status = "4XX", description = "The call is wrong", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(ctx): State<Ctx>, call: Call) -> Reply<Json<SessionPage>> {
    call.only(&["fleet", "phase", "player_id", "sort", "limit", "cursor"])?;
    let caller = call.caller(&ctx, None)?;
    let own = match &caller {
        Caller::Player(c) => Some(c.sid),
        Caller::Guest => {
            return Err(Failure(Problem::new(
                Code::Unauthenticated,
                "send your token as Authorization: Bearer ...",
            )));
        }
        _ => None,
    };
    let phase = call
        .param("phase")
        .map(|p| {
            let names: Vec<_> = Phase::ALL.iter().map(|p| p.as_str()).collect();
            Phase::parse(p).ok_or_else(|| {
                Failure(
                    Problem::new(
                        Code::InvalidParameter,
                        format!("phase must be one of {}", names.join(", ")),
                    )
                    .on("phase"),
                )
            })
        })
        .transpose()?;
    let sort = match call.param("sort") {
        None | Some("newest") => Sort::Newest,
        Some("idle") => Sort::Idle,
        Some(_) => {
            return Err(Failure(
                Problem::new(Code::InvalidParameter, "sort must be newest or idle").on("sort"),
            ));
        }
    };
    let player = call
        .param("player_id")
        .map(|p| player_id(p, "player_id"))
        .transpose()?;
    let after = call
        .param("cursor")
        .map(|c| read_cursor(c, sort))
        .transpose()?;
    let limit = call.limit()?;
    let fleet = call.param("fleet");
    let at = call.addressing(&ctx);
    let wanted = |e: &Entry| {
        own.is_none_or(|id| e.session.id == id)
            && fleet.is_none_or(|f| e.session.fleet.as_str() == f)
            && phase.is_none_or(|p| e.session.phase == p)
            && player
                .as_ref()
                .is_none_or(|p| e.session.player(p).is_some())
    };
    let app = &ctx.app;
    let page = app.with_world(|w| {
        let mut keys: Vec<(i64, SessionId)> = w
            .sessions
            .values()
            .filter(|e| wanted(e))
            .map(|e| (sort_key(e, sort), e.session.id))
            .collect();
        let total = keys.len();
        keys.sort_unstable();
        if let Some(after) = after {
            keys.retain(|k| *k > after);
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next_cursor = keys.last().filter(|_| more).map(|k| cursor(*k, sort));
        let sessions = keys
            .iter()
            .filter_map(|(_, id)| w.sessions.get(id))
            .map(|e| app.session_view(w, e, &at))
            .collect();
        SessionPage {
            sessions,
            next_cursor,
            total,
        }
    });
    Ok(Json(page))
}

/// Ascending order of this is the order wanted.
fn sort_key(e: &Entry, sort: Sort) -> i64 {
    match sort {
        Sort::Newest => -e.session.created_at.0,
        Sort::Idle => e.session.last_activity().unwrap_or(e.session.created_at).0,
    }
}

fn cursor((key, id): (i64, SessionId), sort: Sort) -> String {
    let kind = if sort == Sort::Idle { "i" } else { "n" };
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("1{kind}:{key}:{id}"))
}

fn read_cursor(text: &str, sort: Sort) -> Result<(i64, SessionId), Failure> {
    let bad = || {
        Failure(
            Problem::new(
                Code::InvalidCursor,
                "the cursor is not one of this listing's; begin without one",
            )
            .on("cursor"),
        )
    };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let kind = if sort == Sort::Idle { "1i:" } else { "1n:" };
    let rest = text.strip_prefix(kind).ok_or_else(bad)?;
    let (key, id) = rest.split_once(':').ok_or_else(bad)?;
    Ok((
        key.parse().map_err(|_| bad())?,
        id.parse().map_err(|_| bad())?,
    ))
}

/// One session, live or ended.
#[utoipa::path(
    operation_id = "get_session",
    get, path = "/api/sessions/{session_id}", tag = "sessions",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("wait" = Option<f64>, Query, description = "Hold the reply until its phase changes, at most this many seconds (60)")
    ),
    responses(
        (status = 200, description = "The session", body = SessionView),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
) -> Reply<Json<SessionView>> {
    call.only(&["wait"])?;
    let caller = call.caller(&ctx, None)?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    if let Some(wait) = call.wait()? {
        let before = ctx
            .app
            .with_world(|w| w.sessions.get(&id).map(|e| e.session.phase));
        ctx.app
            .wait_for(id, wait, |e| Some(e.session.phase) != before)
            .await;
    }
    let at = call.addressing(&ctx);
    let app = &ctx.app;
    if let Some(view) = app.with_world(|w| w.sessions.get(&id).map(|e| app.session_view(w, e, &at)))
    {
        return Ok(Json(view));
    }
    Ok(Json(ended_view(app, &recorded(app, id).await?)))
}

/// The record of a session that is not live (any more).
async fn recorded(app: &App, id: SessionId) -> Result<MatchRecord, Failure> {
    let record = app.records.get(id).await.map_err(Problem::from)?;
    record.ok_or_else(|| Failure(unknown_session(id)))
}

fn end_of(m: &MatchView) -> EndView {
    EndView {
        reason: m.reason.clone(),
        by: m.ended_by.clone(),
        code: m.code.clone(),
        at: m.ended_at.clone(),
        exit_code: m.exit_code,
    }
}

/// A record as a session that has ended, so that one id is answered the same way for ever.
fn ended_view(app: &App, r: &MatchRecord) -> SessionView {
    let m = match_view(r, false);
    let end = end_of(&m);
    let connection = app.ended_connection(r, None);
    SessionView {
        session_id: m.session_id,
        fleet: m.fleet,
        phase: "ended".to_owned(),
        ready: false,
        generation: m.generation,
        owner: None,
        players: m
            .players
            .into_iter()
            .map(|p| spawnpoint_wire::api::PlayerView {
                player_id: p.player_id,
                joined_at: p.joined_at,
                connections: Some(0),
                last_active_at: None,
            })
            .collect(),
        joinable: "closed".to_owned(),
        ws_url: None,
        connect_host: None,
        connect_port: None,
        protocol: connection.protocol,
        instance: None,
        queue: None,
        created_at: m.created_at,
        started_at: m.started_at,
        first_joined_at: None,
        last_active_at: None,
        cull_at: None,
        cull_reason: None,
        extends: 0,
        receipt: m.receipt,
        end: Some(end),
    }
}

/// Why a session is alive, and when and why it would end.
#[utoipa::path(
    operation_id = "explain_session",
    get, path = "/api/sessions/{session_id}/why", tag = "sessions",
    params(("session_id" = String, Path, description = "The session")),
    responses(
        (status = 200, description = "In words and fields, with the decisions taken", body = Why),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn why(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
) -> Reply<Json<Why>> {
    call.only(&[])?;
    let caller = call.caller(&ctx, None)?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    let app = &ctx.app;
    if let Some(why) = app.with_world(|w| w.sessions.get(&id).map(|e| app.why(e))) {
        return Ok(Json(why));
    }
    let m = match_view(&recorded(app, id).await?, false);
    let end = end_of(&m);
    Ok(Json(Why {
        session_id: m.session_id,
        phase: "ended".to_owned(),
        summary: format!(
            "It ended at {}: {} (by {}).",
            m.ended_at, m.reason, m.ended_by
        ),
        cull_at: None,
        cull_reason: None,
        deadlines: Vec::new(),
        held_by: None,
        idle_s: None,
        connected: Some(0),
        client_claims: Vec::new(),
        recent_crashes: 0,
        receipt: m.receipt,
        end: Some(end),
        decisions: Vec::new(),
    }))
}

/// Say that a player is active, inactive, or that quiet work goes on.
///
/// From a player, the game or a backend. Any content type, token in the body too, so that `navigator.sendBeacon` works.
#[utoipa::path(
    operation_id = "send_heartbeat",
    post, path = "/api/sessions/{session_id}/heartbeat", tag = "sessions",
    params(("session_id" = String, Path, description = "The session")),
    request_body = HeartbeatBody,
    responses(
        (status = 200, description = "Taken; says when it would be culled", body = HeartbeatReply),
        (status = "4XX", description = "The call is wrong, not allowed, or the session unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn heartbeat(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<HeartbeatReply>> {
    call.only(&[])?;
    let body: HeartbeatBody = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    if let Some(sent) = &body.session_id
        && *sent != id.to_string()
    {
        return Err(Failure(
            Problem::new(
                Code::InvalidField,
                "session_id in the body is not the one in the path",
            )
            .on("session_id"),
        ));
    }
    number(body.timestamp.as_ref(), "timestamp", true)?;
    let beat = Beat {
        player: beat_player(&ctx, id, &caller, body.player_id.as_deref())?,
        status: status(body.status.as_deref())?,
        idle_ms: number(body.idle_time.as_ref(), "idle_time", false)?,
        duration_ms: number(body.session_duration.as_ref(), "session_duration", false)?,
        ttl: body
            .ttl
            .as_ref()
            .map(|t| duration(t, "ttl"))
            .transpose()?
            .map(|t| t.min(MAX_TTL)),
    };
    Ok(Json(ctx.app.heartbeat(id, &beat)?))
}

/// A `busy` believed for longer than this would outlive a forgotten worker by too much.
const MAX_TTL: Duration = Duration::from_secs(3600);

/// What a heartbeat, or the game itself, says of its players.
pub(super) fn status(text: Option<&str>) -> Result<Status, Failure> {
    match text {
        None | Some("active") => Ok(Status::Active),
        Some("inactive") => Ok(Status::Inactive),
        Some("busy") => Ok(Status::Busy),
        Some(_) => Err(Failure(
            Problem::new(
                Code::InvalidField,
                "status must be active, inactive or busy",
            )
            .on("status"),
        )),
    }
}

/// Whom a heartbeat speaks for: the token's player, the one a backend names, the only player there is, or the session as a whole.
fn beat_player(
    ctx: &Ctx,
    id: SessionId,
    caller: &Caller,
    named: Option<&str>,
) -> Result<Option<PlayerId>, Failure> {
    match (caller, named) {
        (Caller::Player(c), Some(p)) if c.sub.as_str() != p => Err(Failure(
            Problem::new(Code::Forbidden, "a player may only speak for themselves").on("player_id"),
        )),
        (Caller::Player(c), _) => Ok(Some(c.sub.clone())),
        (_, Some(p)) => Ok(Some(player_id(p, "player_id")?)),
        (_, None) => Ok(ctx.app.with_world(|w| {
            let roster = &w.sessions.get(&id)?.session.roster;
            match roster.as_slice() {
                [only] => Some(only.id.clone()),
                _ => None,
            }
        })),
    }
}

/// A number, or a text that is one (metrics libraries send texts). Timestamps may be any text: nothing depends on them.
fn number(
    value: Option<&serde_json::Value>,
    field: &str,
    any_text: bool,
) -> Result<Option<f64>, Failure> {
    let bad = || {
        Failure(
            Problem::new(
                Code::InvalidField,
                format!("{field} must be a number of milliseconds, not negative"),
            )
            .on(field),
        )
    };
    let n = match value {
        None | Some(serde_json::Value::Null) => return Ok(None),
        Some(serde_json::Value::Number(n)) => n.as_f64(),
        Some(serde_json::Value::String(s)) if any_text => return Ok(s.parse().ok()),
        Some(serde_json::Value::String(s)) => s.trim().parse().ok(),
        Some(_) => None,
    };
    match n {
        Some(n) if n.is_finite() && n >= 0.0 => Ok(Some(n)),
        _ => Err(bad()),
    }
}

/// Push the absolute deadline, up to its ceiling.
#[utoipa::path(
    operation_id = "extend_session",
    post, path = "/api/sessions/{session_id}/extend", tag = "sessions",
    params(("session_id" = String, Path, description = "The session")),
    request_body = ExtendBody,
    responses(
        (status = 200, description = "The deadlines now; `extended` says whether they moved", body = ExtendReply),
        (status = "4XX", description = "The call is wrong, not allowed, or the session over or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn extend(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<ExtendReply>> {
    call.only(&[])?;
    let body: ExtendBody = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    if body.raise_limit && !caller.is_trusted() {
        return Err(Failure(
            Problem::new(Code::Forbidden, "only a backend key may raise the limit")
                .on("raise_limit"),
        ));
    }
    let by = body.by.as_ref().map(|by| duration(by, "by")).transpose()?;
    Ok(Json(ctx.app.extend(id, by, body.raise_limit).await?))
}

/// End a session.
#[utoipa::path(
    operation_id = "end_session",
    delete, path = "/api/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session")),
    responses(
        (status = 200, description = "Ended (now or before), or left", body = EndReply),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not written down yet", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn end(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<EndReply>> {
    call.only(&[])?;
    super::games::end(&ctx, &call, &id, &raw).await
}

/// The game server's log, also after its end.
#[utoipa::path(
    operation_id = "read_log",
    get, path = "/api/sessions/{session_id}/logs", tag = "sessions",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("follow" = Option<bool>, Query, description = "Go on with what is written later, until the end"),
        ("tail" = Option<u64>, Query, description = "At most this many of the last bytes")
    ),
    responses(
        (status = 200, description = "Output as it was written", body = String, content_type = "text/plain"),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn logs(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
) -> Reply<Response> {
    call.only(&["follow", "tail"])?;
    let caller = call.caller(&ctx, None)?;
    let id = session_id(&id)?;
    if !caller.is_trusted() {
        return Err(Failure(Problem::new(
            Code::Forbidden,
            "only a backend key may read a game server's log",
        )));
    }
    let follow = call.flag("follow")?;
    let tail_bytes = call.parsed::<u64>("tail")?;
    let instance = ctx
        .app
        .with_world(|w| w.sessions.get(&id).and_then(|e| e.session.instance));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    if let Some(instance) = instance {
        let permit = follow
            .then(|| ctx.streams.clone().try_acquire_owned())
            .transpose()
            .map_err(|_| {
                Failure(Problem::new(
                    Code::TooManyConnections,
                    "too many streams are open; close some or try again",
                ))
            })?;
        match ctx
            .app
            .runtime
            .logs(instance, LogRange { tail_bytes, follow })
            .await
        {
            Ok(stream) => {
                let stream = stream.map(move |chunk| {
                    let _open = &permit;
                    chunk
                });
                return Ok((plain, Body::from_stream(stream)).into_response());
            }
            Err(RuntimeError::NotFound | RuntimeError::NoLog) => {}
            Err(e) => return Err(Failure(e.into())),
        }
    }
    let mut tail = recorded(&ctx.app, id).await?.log_tail;
    if let Some(most) = tail_bytes.and_then(|t| usize::try_from(t).ok())
        && tail.len() > most
    {
        tail.drain(..tail.len() - most);
    }
    Ok((plain, tail).into_response())
}
