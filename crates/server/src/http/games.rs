//! Starting, joining and ending games.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use spawnpoint_core::lifecycle::EndedBy;
use spawnpoint_core::limits::{MAX_IDEMPOTENCY_KEY, MAX_PAYLOAD, MAX_PLAYERS};
use spawnpoint_core::record::IdempotencyMark;
use spawnpoint_core::{Code, PlayerId, SessionId};
use spawnpoint_wire::api::{Connection, EndBody, EndReply, JoinBody, NewGame, TokenBody};
use spawnpoint_wire::claim::MaxAsked;
use spawnpoint_wire::problem::Problem;

use super::request::{Call, Path, Raw, duration, player_id, session_id};
use super::{Ctx, Failure, Reply};
use crate::app::{Caller, NewSession, Started, check_results, joinable_parse, unknown_session};
use crate::config::FleetConfig;

/// Start (or return) a player's game.
///
/// Idempotent per (fleet, player) while that session lives, and per `Idempotency-Key` header for 24 hours. The answer comes at once;
/// `wait` holds it until the game accepts connections.
#[utoipa::path(
    post, path = "/api/new-game", tag = "games",
    params(
        ("wait" = Option<f64>, Query, description = "Hold the reply until the game accepts, at most this many seconds (60)"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating the call with the same key and body returns the same session")
    ),
    request_body(content = NewGame, description = "All fields are optional in dev mode but `player_id`"),
    responses(
        (status = 201, description = "A new session", body = Connection),
        (status = 200, description = "The player's live session, or what this key led to before", body = Connection),
        (status = "4XX", description = "The call is wrong; `code` says how", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; `retry_after` says when", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn new_game(State(ctx): State<Ctx>, call: Call, raw: Raw) -> Reply<Response> {
    call.only(&["wait"])?;
    let wait = call.wait()?;
    let body: NewGame = raw.parse()?;
    let caller = call.caller(&ctx, None)?;
    let (player, _) = who(&ctx, &call, &caller, body.player_id.as_deref())?;
    let asked = checked(&ctx, &call, &caller, &body, player.clone())?;
    let at = call.addressing(&ctx);
    let (id, created) = match ctx.app.new_session(asked).await? {
        Started::New(id) => (id, true),
        Started::Existing(id) => (id, false),
        Started::Ended(record) => {
            return Ok(Json(ctx.app.ended_connection(&record, Some(&player))).into_response());
        }
    };
    if let Some(wait) = wait {
        ctx.app
            .wait_for(id, wait, |e| {
                e.session.phase.accepts() || !e.session.phase.is_live()
            })
            .await;
    }
    let connection = ctx.app.connection_or_record(id, &player, &at).await?;
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(connection)).into_response())
}

/// Who the game is for: the one a trusted caller names, the one a token proves, or a new guest. True: just minted.
pub(super) fn who(
    ctx: &Ctx,
    call: &Call,
    caller: &Caller,
    named: Option<&str>,
) -> Result<(PlayerId, bool), Failure> {
    match caller {
        Caller::Operator | Caller::Backend { .. } => match named {
            Some(p) => Ok((player_id(p, "player_id")?, false)),
            None => Err(Failure(Problem::new(Code::MissingField, "the field \"player_id\" is required").on("player_id"))),
        },
        Caller::Player(claims) => match named {
            Some(p) if p != claims.sub.as_str() => {
                Err(Failure(Problem::new(Code::Forbidden, "a player may only ask for themselves").on("player_id")))
            }
            _ => Ok((claims.sub.clone(), false)),
        },
        Caller::Guest if named.is_some() => Err(Failure(
            Problem::new(
                Code::Unauthenticated,
                "guests are given a player id: leave player_id out, or send the token you were given as Authorization: Bearer ...",
            )
            .on("player_id"),
        )),
        Caller::Guest => {
            ctx.guests.check(call.peer)?;
            let mut bytes = [0_u8; 16];
            ctx.app.ids.fill(&mut bytes);
            let id = format!("guest-{}", uuid::Builder::from_random_bytes(bytes).into_uuid().simple());
            Ok((player_id(&id, "player_id")?, true))
        }
    }
}

fn checked(
    ctx: &Ctx,
    call: &Call,
    caller: &Caller,
    body: &NewGame,
    player: PlayerId,
) -> Result<NewSession, Failure> {
    let config = ctx.app.config.load();
    let fleet = match &body.fleet {
        None => config.fleets.first().cloned(),
        Some(name) => name.parse().ok().and_then(|n| config.fleet(&n).cloned()),
    };
    let Some(fleet) = fleet else {
        let names: Vec<_> = config.fleets.iter().map(|f| f.name.as_str()).collect();
        let shown: String = body
            .fleet
            .as_deref()
            .unwrap_or("")
            .chars()
            .take(64)
            .collect();
        return Err(Failure(
            Problem::new(
                Code::FleetNotFound,
                format!(
                    "there is no fleet {shown:?}; there are: {}",
                    names.join(", ")
                ),
            )
            .on("fleet"),
        ));
    };
    let forbid = |field: &str| {
        Failure(
            Problem::new(
                Code::Forbidden,
                format!("only a backend key may send {field}"),
            )
            .on(field),
        )
    };
    if !caller.is_trusted() {
        may_start(caller, &fleet)?;
        for (sent, field) in [
            (!body.players.is_empty(), "players"),
            (body.payload.is_some(), "payload"),
            (body.max_duration.is_some(), "max_duration"),
        ] {
            if sent {
                return Err(forbid(field));
            }
        }
    }
    Ok(NewSession {
        players: roster(&player, &body.players, fleet.policy.max_players)?,
        payload: payload(body)?,
        max: max_asked(body)?,
        joinable: joinable(body)?,
        key: match caller {
            Caller::Backend { name } if name != "dev" => Some(name.clone()),
            _ => None,
        },
        mark: mark(call, caller, body)?,
        fresh: body.fresh,
        by: match caller {
            Caller::Operator => EndedBy::Operator,
            Caller::Backend { .. } => EndedBy::Backend,
            Caller::Player(_) | Caller::Guest => EndedBy::Player,
        },
        player,
        fleet,
        matched: None,
    })
}

/// Whether the caller may have a session of this fleet at all: guests only where it takes them.
pub(super) fn may_start(caller: &Caller, fleet: &FleetConfig) -> Result<(), Failure> {
    let known = matches!(caller, Caller::Player(c) if c.fleet == fleet.name);
    if caller.is_trusted() || fleet.guests || known {
        return Ok(());
    }
    Err(Failure(
        Problem::new(
            Code::Forbidden,
            format!("the fleet {} does not take guests", fleet.name),
        )
        .on("fleet"),
    ))
}

fn roster(player: &PlayerId, others: &[String], most: usize) -> Result<Vec<PlayerId>, Failure> {
    let most = most.min(MAX_PLAYERS);
    let mut all = vec![player.clone()];
    for p in others {
        let p = player_id(p, "players")?;
        if !all.contains(&p) {
            all.push(p);
        }
        if all.len() > most {
            return Err(Failure(
                Problem::new(
                    Code::InvalidField,
                    format!("a session takes at most {most} players"),
                )
                .on("players"),
            ));
        }
    }
    Ok(all)
}

fn payload(body: &NewGame) -> Result<Option<serde_json::Value>, Failure> {
    match &body.payload {
        Some(p) if p.to_string().len() > MAX_PAYLOAD => Err(Failure(
            Problem::new(
                Code::InvalidField,
                format!("payload must be at most {MAX_PAYLOAD} bytes of JSON"),
            )
            .on("payload"),
        )),
        p => Ok(p.clone()),
    }
}

fn max_asked(body: &NewGame) -> Result<Option<MaxAsked>, Failure> {
    match &body.max_duration {
        None => Ok(None),
        Some(serde_json::Value::String(s)) if s == "none" => Ok(Some(MaxAsked::None)),
        Some(v) => {
            let d = duration(v, "max_duration")?;
            Ok(Some(MaxAsked::Millis(
                u64::try_from(d.as_millis()).unwrap_or(u64::MAX),
            )))
        }
    }
}

fn joinable(body: &NewGame) -> Result<Option<spawnpoint_core::lifecycle::Joinable>, Failure> {
    let Some(text) = &body.joinable else {
        return Ok(None);
    };
    joinable_parse(text).map(Some).ok_or_else(|| {
        Failure(
            Problem::new(
                Code::InvalidField,
                "joinable must be open, invite or closed",
            )
            .on("joinable"),
        )
    })
}

fn mark(call: &Call, caller: &Caller, body: &NewGame) -> Result<Option<IdempotencyMark>, Failure> {
    let Some(value) = call.headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or("");
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
        let detail = format!(
            "Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        );
        return Err(Failure(
            Problem::new(Code::InvalidParameter, detail).on("Idempotency-Key"),
        ));
    }
    let who = match caller {
        Caller::Operator => "operator".to_owned(),
        Caller::Backend { name } => format!("key:{name}"),
        Caller::Player(c) => format!("player:{}", c.sub),
        // A stranger cannot be told from another one, so a key of theirs would let one have the other's game.
        Caller::Guest => return Ok(None),
    };
    let canonical = serde_json::to_string(body).unwrap_or_default();
    Ok(Some(IdempotencyMark {
        key_hash: hash(&[&who, key]),
        body_hash: hash(&[&canonical]),
    }))
}

fn hash(parts: &[&str]) -> String {
    let mut h = Sha256::new();
    for p in parts {
        h.update(p.as_bytes());
        h.update([0]);
    }
    h.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// End a game, or leave it.
///
/// By the owner, a backend key or the last player it ends the session; by another player it is that player leaving. Repeating is
/// harmless.
#[utoipa::path(
    post, path = "/api/match/{session_id}/end", tag = "games",
    params(("session_id" = String, Path, description = "The session")),
    request_body(content = EndBody, description = "May be empty"),
    responses(
        (status = 200, description = "Ended (now or before), or left", body = EndReply),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn end_match(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<EndReply>> {
    call.only(&[])?;
    end(&ctx, &call, &id, &raw).await
}

/// The end call, for both of its paths.
pub(super) async fn end(ctx: &Ctx, call: &Call, id: &str, raw: &Raw) -> Reply<Json<EndReply>> {
    let body: EndBody = raw.parse()?;
    let caller = call.caller(ctx, body.token.as_deref())?;
    let id = session_id(id)?;
    ctx.app.allow(id, &caller)?;
    let spoken_for = body
        .player_id
        .as_deref()
        .map(|p| player_id(p, "player_id"))
        .transpose()?;
    if body.results.is_some() && !caller.is_trusted() {
        return Err(Failure(
            Problem::new(Code::Forbidden, "only a backend key may send results").on("results"),
        ));
    }
    let results = check_results(body.results.as_ref())?;
    Ok(Json(
        ctx.app
            .end(id, &caller, spoken_for.as_ref(), results)
            .await?,
    ))
}

/// Join somebody's game.
///
/// By invite code (of the share link), freely where the game is open, or by a backend for anybody.
#[utoipa::path(
    post, path = "/api/sessions/{session_id}/players", tag = "games",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("wait" = Option<f64>, Query, description = "Hold the reply until the game accepts, at most this many seconds (60)")
    ),
    request_body = JoinBody,
    responses(
        (status = 200, description = "In it; the joiner's own connection", body = Connection),
        (status = "4XX", description = "Not allowed, full, over or unknown", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn join(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<Connection>> {
    call.only(&["wait"])?;
    let wait = call.wait()?;
    let body: JoinBody = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let id = session_id(&id)?;
    let (player, _) = who(&ctx, &call, &caller, body.player_id.as_deref())?;
    // An invite is what lets a stranger in; dev mode's local callers show it too, so that the link is tried as friends will use it.
    let trusted = caller.is_trusted() && body.invite.is_none();
    ctx.app
        .join(id, &player, body.invite.as_deref(), trusted)
        .await?;
    if let Some(wait) = wait {
        ctx.app
            .wait_for(id, wait, |e| {
                e.session.phase.accepts() || !e.session.phase.is_live()
            })
            .await;
    }
    Ok(Json(ctx.app.connection(
        id,
        Some(&player),
        &call.addressing(&ctx),
    )?))
}

/// Leave a game, or take a player out of it.
///
/// Players take out themselves, the owner anybody, backends anybody. Their connections are closed.
#[utoipa::path(
    delete, path = "/api/sessions/{session_id}/players/{player_id}", tag = "games",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("player_id" = String, Path, description = "Who leaves")
    ),
    responses(
        (status = 200, description = "They are out; the last one's leaving ends the session after the reconnect grace", body = EndReply),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn leave(
    State(ctx): State<Ctx>,
    call: Call,
    Path((id, player)): Path<(String, String)>,
) -> Reply<Json<EndReply>> {
    call.only(&[])?;
    let caller = call.caller(&ctx, None)?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    let player = player_id(&player, "player_id")?;
    if let Caller::Player(c) = &caller
        && c.sub != player
        && !ctx.app.owns(id, &c.sub)
    {
        return Err(Failure(Problem::new(
            Code::Forbidden,
            "only the owner may take others out",
        )));
    }
    ctx.app.leave(id, &player)?;
    Ok(Json(ctx.app.left(id)))
}

/// Renew a join token.
#[utoipa::path(
    post, path = "/api/sessions/{session_id}/token", tag = "games",
    params(("session_id" = String, Path, description = "The session")),
    request_body = TokenBody,
    responses(
        (status = 200, description = "The connection with a new token", body = Connection),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn renew_token(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
    raw: Raw,
) -> Reply<Json<Connection>> {
    call.only(&[])?;
    let body: TokenBody = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let id = session_id(&id)?;
    ctx.app.allow(id, &caller)?;
    let player = match (&caller, &body.player_id) {
        (Caller::Player(c), _) => c.sub.clone(),
        (_, Some(p)) => player_id(p, "player_id")?,
        (_, None) => {
            return Err(Failure(
                Problem::new(Code::MissingField, "the field \"player_id\" is required")
                    .on("player_id"),
            ));
        }
    };
    Ok(Json(ctx.app.connection(
        id,
        Some(&player),
        &call.addressing(&ctx),
    )?))
}

/// The way back: a player's live session.
#[utoipa::path(
    get, path = "/api/players/{player_id}/session", tag = "games",
    params(
        ("player_id" = String, Path, description = "Who"),
        ("fleet" = Option<String>, Query, description = "In which fleet; any by default")
    ),
    responses(
        (status = 200, description = "Their session, with a token of theirs", body = Connection),
        (status = "4XX", description = "Not allowed, or in no session", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn player_session(
    State(ctx): State<Ctx>,
    call: Call,
    Path(player): Path<String>,
) -> Reply<Json<Connection>> {
    call.only(&["fleet"])?;
    let caller = call.caller(&ctx, None)?;
    let player = player_id(&player, "player_id")?;
    match &caller {
        Caller::Player(c) if c.sub == player => {}
        c if c.is_trusted() => {}
        Caller::Guest => {
            return Err(Failure(Problem::new(
                Code::Unauthenticated,
                "send your token as Authorization: Bearer ...",
            )));
        }
        _ => {
            return Err(Failure(Problem::new(
                Code::Forbidden,
                "a player may only ask for themselves",
            )));
        }
    }
    let id = ctx
        .app
        .session_of(&player, call.param("fleet"))
        .ok_or_else(|| {
            Failure(Problem::new(
                Code::PlayerNotInSession,
                format!("the player {:?} is in no live session", player.as_str()),
            ))
        })?;
    Ok(Json(ctx.app.connection(
        id,
        Some(&player),
        &call.addressing(&ctx),
    )?))
}

impl crate::app::App {
    /// The connection of a live session, or of its record when it was over before the answer was written.
    async fn connection_or_record(
        &self,
        id: SessionId,
        player: &PlayerId,
        at: &crate::app::Addressing,
    ) -> Result<Connection, Problem> {
        match self.connection(id, Some(player), at) {
            Err(p) if p.code == Code::SessionNotFound.as_str() => {}
            other => return other,
        }
        for _ in 0..20 {
            match self.records.get(id).await {
                Ok(Some(record)) => return Ok(self.ended_connection(&record, Some(player))),
                Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(e) => return Err(e.into()),
            }
        }
        Err(unknown_session(id))
    }

    fn owns(&self, id: SessionId, player: &PlayerId) -> bool {
        self.with_world(|w| {
            w.sessions
                .get(&id)
                .is_some_and(|e| e.session.owner.as_ref() == Some(player))
        })
    }

    fn left(&self, id: SessionId) -> EndReply {
        let phase = self.with_world(|w| {
            w.sessions
                .get(&id)
                .map_or("ended", |e| e.session.phase.as_str())
        });
        EndReply {
            session_id: id.to_string(),
            ended: phase == "ended",
            reason: None,
            phase: phase.to_owned(),
        }
    }

    fn session_of(&self, player: &PlayerId, fleet: Option<&str>) -> Option<SessionId> {
        let config = self.config.load();
        self.with_world(|w| {
            config
                .fleets
                .iter()
                .filter(|f| fleet.is_none_or(|n| n == f.name.as_str()))
                .find_map(|f| w.by_player.get(&(f.name.clone(), player.clone())).copied())
        })
    }
}
