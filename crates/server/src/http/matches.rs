//! What was played.

use axum::Json;
use axum::extract::State;
use spawnpoint_core::Code;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_store::Filter;
use spawnpoint_wire::api::{MatchPage, MatchView};
use spawnpoint_wire::problem::Problem;

use super::request::{Call, Path, player_id, session_id};
use super::{Ctx, Failure, Reply};
use crate::app::{Caller, match_view};

/// Match records, newest end first.
///
/// Players see their own; backends all.
#[utoipa::path(
    operation_id = "list_matches",
    get, path = "/api/matches", tag = "matches",
    params(
        ("fleet" = Option<String>, Query, description = "Only of this fleet"),
        ("player_id" = Option<String>, Query, description = "Only with this player"),
        ("reason" = Option<String>, Query, description = "Only those that ended for this"),
        ("ended_from" = Option<String>, Query, description = "Ended at or after this (RFC 3339)"),
        ("ended_until" = Option<String>, Query, description = "Ended before this (RFC 3339)"),
        ("limit" = Option<usize>, Query, description = "At most this many (50; 500 at most)"),
        ("cursor" = Option<String>, Query, description = "Where the page before ended")
    ),
    responses(
        (status = 200, description = "A page", body = MatchPage),
        (status = "4XX", description = "The call is wrong or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The database cannot be reached", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(ctx): State<Ctx>, call: Call) -> Reply<Json<MatchPage>> {
    call.only(&[
        "fleet",
        "player_id",
        "reason",
        "ended_from",
        "ended_until",
        "limit",
        "cursor",
    ])?;
    let caller = call.caller(&ctx, None)?;
    let mut player = call
        .param("player_id")
        .map(|p| player_id(p, "player_id"))
        .transpose()?;
    match &caller {
        c if c.is_trusted() => {}
        Caller::Player(c) if player.as_ref().is_none_or(|p| *p == c.sub) => {
            player = Some(c.sub.clone())
        }
        _ => {
            return Err(Failure(Problem::new(
                Code::Forbidden,
                "a player may only see their own matches",
            )));
        }
    }
    let reason = call
        .param("reason")
        .map(|r| {
            let names: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
            Reason::parse(r).ok_or_else(|| {
                Failure(
                    Problem::new(
                        Code::InvalidParameter,
                        format!("reason must be one of {}", names.join(", ")),
                    )
                    .on("reason"),
                )
            })
        })
        .transpose()?;
    let filter = Filter {
        fleet: call.parsed("fleet")?,
        player,
        reason,
        ended_from: call
            .parsed::<jiff::Timestamp>("ended_from")?
            .map(jiff::Timestamp::as_millisecond),
        ended_until: call
            .parsed::<jiff::Timestamp>("ended_until")?
            .map(jiff::Timestamp::as_millisecond),
    };
    let page = ctx
        .app
        .records
        .list(&filter, call.param("cursor"), call.limit()?)
        .await
        .map_err(Problem::from)?;
    Ok(Json(MatchPage {
        matches: page.records.iter().map(|r| match_view(r, false)).collect(),
        next_cursor: page.next,
    }))
}

/// One match record, with the end of its log.
#[utoipa::path(
    operation_id = "get_match",
    get, path = "/api/matches/{session_id}", tag = "matches",
    params(("session_id" = String, Path, description = "The match's session")),
    responses(
        (status = 200, description = "The record", body = MatchView),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The database cannot be reached", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    call: Call,
    Path(id): Path<String>,
) -> Reply<Json<MatchView>> {
    call.only(&[])?;
    let caller = call.caller(&ctx, None)?;
    let id = session_id(&id)?;
    let record = ctx.app.records.get(id).await.map_err(Problem::from)?;
    let own = |p: &spawnpoint_core::PlayerId| {
        record
            .as_ref()
            .is_some_and(|r| r.players.iter().any(|m| m.player == *p))
    };
    let with_log = match &caller {
        c if c.is_trusted() => true,
        Caller::Player(c) if own(&c.sub) => false,
        // Whether it exists is nobody else's business.
        Caller::Player(_) => {
            return Err(Failure(Problem::new(
                Code::Forbidden,
                "a player may only see their own matches",
            )));
        }
        _ => {
            return Err(Failure(Problem::new(
                Code::Unauthenticated,
                "send a backend key or your token",
            )));
        }
    };
    match record {
        Some(r) => Ok(Json(match_view(&r, with_log))),
        None => Err(Failure(Problem::new(
            Code::MatchNotFound,
            format!("there is no record of a match {id}; a live one is at /api/sessions/{id}"),
        ))),
    }
}
