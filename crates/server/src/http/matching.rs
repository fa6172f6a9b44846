//! Waiting for a match.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use spawnpoint_core::matching::{Attribute, MAX_REGIONS};
use spawnpoint_core::{Code, FleetName, PlayerId, TicketId};
use spawnpoint_wire::api::{MatchJoin, MatchLeave, QueueList, TicketStatus};
use spawnpoint_wire::problem::Problem;

use super::games::{may_start, who};
use super::request::{Call, Raw, player_id};
use super::{Ctx, Failure, Reply};
use crate::app::Caller;
use crate::app::matching::{Ask, JoinQueue, SKILL};
use crate::config::QueueConfig;

/// Most attributes of a ticket: they are kept while it waits and shown to the game.
const MAX_ATTRIBUTES: usize = 16;
/// Longest name or text of an attribute, characters.
const MAX_ATTRIBUTE_CHARS: usize = 128;
/// A latency above this is no measurement, milliseconds.
const MAX_LATENCY_MS: f64 = 60_000.0;

/// Wait for a match.
///
/// Answers `matched` with how to play, or `queued` with place and estimate; `wait` holds the answer until the match. The same players
/// again get the same ticket. A player who is in a game of the queue's fleet is `matched` to it. Needs no `Idempotency-Key`.
#[utoipa::path(
    operation_id = "join_match",
    post, path = "/api/match/join", tag = "matchmaking",
    params(("wait" = Option<f64>, Query, description = "Hold the reply until the match, at most this many seconds (60)")),
    request_body = MatchJoin,
    responses(
        (status = 200, description = "The ticket", body = TicketStatus),
        (status = "4XX", description = "The call is wrong or not allowed; `code` says how", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; `retry_after` says when", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn join(
    State(ctx): State<Ctx>,
    call: Call,
    raw: Raw,
) -> Reply<Json<TicketStatus>> {
    call.only(&["wait"])?;
    let wait = call.wait()?;
    let body: MatchJoin = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let queue = queue(&ctx, body.queue.as_deref())?;
    if !caller.is_trusted() {
        for (sent, field) in [
            (!body.players.is_empty(), "players"),
            (!body.attributes.is_empty(), "attributes"),
        ] {
            if sent {
                let detail = format!("only a backend key may send {field}");
                return Err(Failure(Problem::new(Code::Forbidden, detail).on(field)));
            }
        }
    }
    let attributes = attributes(&body.attributes)?;
    let latencies = latencies(&body.latencies, &queue)?;
    let first = body.player_id.as_deref();
    let named = first.or_else(|| body.players.first().map(String::as_str));
    // Nothing is minted for a call that is refused: this is the last thing that can be wrong with a guest's.
    let fleet = ctx.app.config.load().fleet(&queue.fleet).cloned();
    if let Some(fleet) = &fleet {
        may_start(&caller, fleet)?;
    }
    let (player, _) = who(&ctx, &call, &caller, named)?;
    let players = party(&player, &body.players, &queue)?;
    let ask = Ask {
        player,
        queue: Some(queue.name.clone()),
        ticket: None,
    };
    let join = JoinQueue {
        queue,
        players,
        attributes,
        latencies,
        key: match &caller {
            Caller::Backend { name } if name != "dev" => Some(name.clone()),
            _ => None,
        },
        caller: match caller {
            Caller::Operator => "operator".to_owned(),
            Caller::Backend { name } => format!("key:{name}"),
            Caller::Player(_) => "player".to_owned(),
            Caller::Guest => "guest".to_owned(),
        },
    };
    ctx.app.join_queue(join).await?;
    let at = call.addressing(&ctx);
    Ok(Json(ctx.app.ticket_status(&ask, wait, &at).await?))
}

/// How a ticket stands.
///
/// `matched` is read off the live game, so it is right however long the match lasts, and after a restart. `wait` holds the answer
/// while the ticket is queued.
#[utoipa::path(
    operation_id = "match_status",
    get, path = "/api/match/status", tag = "matchmaking",
    params(
        ("player_id" = Option<String>, Query, description = "Whose; with a player's token that player's by default"),
        ("queue" = Option<String>, Query, description = "In which queue; by default the one the player is in"),
        ("ticket_id" = Option<String>, Query, description = "The ticket the caller was told of: if it is not known any more the answer is `lost`"),
        ("wait" = Option<f64>, Query, description = "Hold the reply while queued, at most this many seconds (60)")
    ),
    responses(
        (status = 200, description = "The ticket, or none", body = TicketStatus),
        (status = "4XX", description = "The call is wrong or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn status(State(ctx): State<Ctx>, call: Call) -> Reply<Json<TicketStatus>> {
    call.only(&["player_id", "queue", "ticket_id", "wait"])?;
    let caller = call.caller(&ctx, None)?;
    let ask = Ask {
        player: whose(&caller, call.param("player_id"))?,
        queue: named_queue(&ctx, call.param("queue"))?,
        // What cannot be a ticket is one that nobody knows: the same answer as for any other of those.
        ticket: call.param("ticket_id").map(|t| {
            t.parse()
                .unwrap_or_else(|_| TicketId::new(uuid::Uuid::nil()))
        }),
    };
    let wait = call.wait()?;
    let at = call.addressing(&ctx);
    let mut status = ctx.app.ticket_status(&ask, wait, &at).await?;
    if status.status == "lost" && status.ticket_id.is_some() && call.param("ticket_id").is_some() {
        // As it was asked for.
        status.ticket_id = call
            .param("ticket_id")
            .map(|t| t.chars().take(64).collect());
    }
    Ok(Json(status))
}

/// Wait no longer.
///
/// A party leaves together. Repeating is harmless. If a match came first the answer is `matched`: then it is a game to leave.
#[utoipa::path(
    operation_id = "leave_match",
    delete, path = "/api/match/join", tag = "matchmaking",
    params(
        ("player_id" = Option<String>, Query, description = "Whose ticket, as in the body"),
        ("queue" = Option<String>, Query, description = "In which queue, as in the body; every one by default")
    ),
    request_body(content = MatchLeave, description = "May be empty"),
    responses(
        (status = 200, description = "`none`, with the ticket that was left; or `matched`", body = TicketStatus),
        (status = "4XX", description = "The call is wrong or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn leave(
    State(ctx): State<Ctx>,
    call: Call,
    raw: Raw,
) -> Reply<Json<TicketStatus>> {
    call.only(&["player_id", "queue"])?;
    let body: MatchLeave = raw.parse()?;
    let caller = call.caller(&ctx, body.token.as_deref())?;
    let named = body
        .player_id
        .as_deref()
        .or_else(|| call.param("player_id"));
    let player = whose(&caller, named)?;
    let queue = body.queue.as_deref().or_else(|| call.param("queue"));
    let queue = named_queue(&ctx, queue)?;
    let left = ctx.app.leave_queue(&player, queue.as_ref()).await?;
    let ask = Ask {
        player,
        queue,
        ticket: left,
    };
    let at = call.addressing(&ctx);
    let mut status = ctx.app.ticket_status(&ask, None, &at).await?;
    if status.status == "none" {
        status.ticket_id = left.map(|id| id.to_string());
    }
    Ok(Json(status))
}

/// All match queues: who waits, how long, and why the latest match was formed.
#[utoipa::path(
    operation_id = "list_queues",
    get, path = "/api/queues", tag = "matchmaking",
    responses(
        (status = 200, description = "In the order of the configuration", body = QueueList),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn queues(State(ctx): State<Ctx>, call: Call) -> Reply<Json<QueueList>> {
    call.only(&[])?;
    if !call.caller(&ctx, None)?.is_trusted() {
        return Err(Failure(Problem::new(
            Code::Forbidden,
            "only a backend key may look at queues",
        )));
    }
    Ok(Json(ctx.app.queue_list()))
}

/// Whom a caller asks about: themselves, or whomever a trusted one names.
fn whose(caller: &Caller, named: Option<&str>) -> Result<PlayerId, Failure> {
    match (caller, named) {
        (Caller::Guest, _) => Err(Failure(Problem::new(
            Code::Unauthenticated,
            "send the token you were given as Authorization: Bearer ... (or token=...)",
        ))),
        (Caller::Player(c), None) => Ok(c.sub.clone()),
        (Caller::Player(c), Some(p)) if c.sub.as_str() == p => Ok(c.sub.clone()),
        (Caller::Player(_), Some(_)) => Err(Failure(
            Problem::new(Code::Forbidden, "a player may only ask for themselves").on("player_id"),
        )),
        (Caller::Operator | Caller::Backend { .. }, Some(p)) => player_id(p, "player_id"),
        (Caller::Operator | Caller::Backend { .. }, None) => Err(Failure(
            Problem::new(Code::MissingField, "\"player_id\" is required").on("player_id"),
        )),
    }
}

/// A queue by its name; or, when nothing is named, the default one.
fn queue(ctx: &Ctx, named: Option<&str>) -> Result<Arc<QueueConfig>, Failure> {
    let config = ctx.app.config.load();
    let found = match named {
        None => config.default_queue(),
        Some(name) => name.parse().ok().and_then(|n| config.queue(&n)),
    };
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = config.queues.iter().map(|q| q.name.as_str()).collect();
        let shown: String = named.unwrap_or("").chars().take(64).collect();
        let there = names.join(", ");
        Failure(
            Problem::new(
                Code::QueueNotFound,
                format!("there is no queue {shown:?}; there are: {there}"),
            )
            .on("queue"),
        )
    })
}

/// The name of a queue to ask in: one that is configured, or one that is gone and still has tickets.
fn named_queue(ctx: &Ctx, named: Option<&str>) -> Result<Option<FleetName>, Failure> {
    let Some(text) = named else { return Ok(None) };
    if let Ok(name) = text.parse::<FleetName>()
        && ctx.app.tickets().look(&name, ctx.app.now()).is_some()
    {
        return Ok(Some(name));
    }
    queue(ctx, Some(text)).map(|q| Some(q.name.clone()))
}

/// Who waits together.
fn party(
    player: &PlayerId,
    others: &[String],
    queue: &QueueConfig,
) -> Result<Vec<PlayerId>, Failure> {
    let most = queue.rules.size() as usize;
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
                    format!(
                        "a match of the queue {} has {most} players: a larger party fits in none",
                        queue.name
                    ),
                )
                .on("players"),
            ));
        }
    }
    Ok(all)
}

fn attributes(sent: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Attribute>, Failure> {
    let bad = |detail: String| Failure(Problem::new(Code::InvalidField, detail).on("attributes"));
    if sent.len() > MAX_ATTRIBUTES {
        return Err(bad(format!("at most {MAX_ATTRIBUTES} attributes")));
    }
    let short = |s: &str| s.chars().count() <= MAX_ATTRIBUTE_CHARS;
    let attribute = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Number(n) => n.as_f64().filter(|n| n.is_finite()).map(Attribute::Number),
            Value::String(s) if name != SKILL && short(s) => Some(Attribute::Text(s.clone())),
            _ => None,
        };
        match value {
            Some(value) if short(name) => Ok((name.clone(), value)),
            _ => {
                let shown: String = name.chars().take(64).collect();
                let form = if name == SKILL {
                    "a number".to_owned()
                } else {
                    format!("a number, or a text of at most {MAX_ATTRIBUTE_CHARS} characters")
                };
                Err(bad(format!("the attribute {shown:?} must be {form}")))
            }
        }
    };
    sent.iter().map(attribute).collect()
}

fn latencies(
    sent: &BTreeMap<String, Value>,
    queue: &QueueConfig,
) -> Result<BTreeMap<String, u32>, Failure> {
    let bad = |detail: String| Failure(Problem::new(Code::InvalidField, detail).on("latencies"));
    if sent.len() > usize::from(MAX_REGIONS) {
        return Err(bad(format!("at most {MAX_REGIONS} regions")));
    }
    let mut all = BTreeMap::new();
    for (region, value) in sent {
        if !queue.regions.contains(region) {
            // A queue without regions asks nothing of them: what a client always sends does no harm.
            if queue.regions.is_empty() {
                continue;
            }
            let shown: String = region.chars().take(64).collect();
            let there = queue.regions.join(", ");
            return Err(bad(format!(
                "the queue {} knows no region {shown:?}; it knows: {there}",
                queue.name
            )));
        }
        let ms = value
            .as_f64()
            .filter(|ms| (0.0..=MAX_LATENCY_MS).contains(ms));
        let Some(ms) = ms else {
            return Err(bad(format!(
                "the latency to {region:?} must be 0 to {MAX_LATENCY_MS} milliseconds"
            )));
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to fit"
        )]
        all.insert(region.clone(), ms.ceil() as u32);
    }
    Ok(all)
}
