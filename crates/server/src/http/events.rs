//! The one resumable stream of events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Code, PlayerId, SessionId};
use spawnpoint_wire::event::{Event, EventBody};
use spawnpoint_wire::problem::Problem;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::request::{Call, player_id, session_id};
use super::{Ctx, Failure, Reply};
use crate::app::hub::Heard;
use crate::app::{App, Caller, unknown_session};

/// A comment this often keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follow a session or a player.
///
/// Server-sent events; each `data` is one event. Resume with `Last-Event-ID` (or `last_event_id=`): what is still kept is sent again,
/// else the stream begins with `hello` and the state as it is now. The stream of a session ends with it.
#[utoipa::path(
    operation_id = "follow_events",
    get, path = "/api/events", tag = "sessions",
    params(
        ("session_id" = Option<String>, Query, description = "This session's events (`session` is taken too)"),
        ("player_id" = Option<String>, Query, description = "Events of every session this player is in"),
        ("token" = Option<String>, Query, description = "The player's token, where a header cannot be set"),
        ("last_event_id" = Option<String>, Query, description = "Resume after this event"),
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event")
    ),
    responses(
        (status = 200, description = "A stream", body = Event, content_type = "text/event-stream"),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(State(ctx): State<Ctx>, call: Call) -> Reply<Response> {
    call.only(&["session_id", "session", "player_id", "last_event_id"])?;
    let caller = call.caller(&ctx, None)?;
    let session = call
        .param("session_id")
        .or_else(|| call.param("session"))
        .map(session_id)
        .transpose()?;
    let player = call
        .param("player_id")
        .map(|p| player_id(p, "player_id"))
        .transpose()?;
    let filter = match (session, player) {
        (Some(id), None) => {
            ctx.app.allow(id, &caller)?;
            Filter::Session(id)
        }
        (None, Some(p)) => {
            allow_player(&caller, &p)?;
            Filter::Player(p)
        }
        _ => {
            return Err(Failure(
                Problem::new(
                    Code::InvalidParameter,
                    "send session_id or player_id, and not both",
                )
                .on("session_id"),
            ));
        }
    };
    let last = call
        .header(axum::http::HeaderName::from_static("last-event-id"))
        .or_else(|| call.param("last_event_id"));
    let stream = follow(&ctx, filter, last).await?;
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn allow_player(caller: &Caller, player: &PlayerId) -> Result<(), Failure> {
    match caller {
        c if c.is_trusted() => Ok(()),
        Caller::Player(c) if c.sub == *player => Ok(()),
        Caller::Guest => Err(Failure(Problem::new(
            Code::Unauthenticated,
            "send your token (token=...)",
        ))),
        _ => Err(Failure(Problem::new(
            Code::Forbidden,
            "a player may only follow themselves",
        ))),
    }
}

/// Whose events.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    /// One session's.
    Session(SessionId),
    /// One player's.
    Player(PlayerId),
}

impl Filter {
    fn wants(&self, heard: &Heard) -> bool {
        match self {
            Self::Session(id) => heard.event.session_id == Some(*id),
            Self::Player(p) => heard.players.contains(p),
        }
    }

    fn ends_with(&self, event: &Event) -> bool {
        matches!(self, Self::Session(_))
            && matches!(
                event.body,
                EventBody::Phase {
                    phase: Phase::Ended,
                    ..
                }
            )
    }
}

struct Following {
    app: Arc<App>,
    filter: Filter,
    backlog: VecDeque<Event>,
    live: Receiver<Arc<Heard>>,
    over: bool,
    _open: tokio::sync::OwnedSemaphorePermit,
}

/// A stream of events, begun or resumed.
pub(super) async fn follow(
    ctx: &Ctx,
    filter: Filter,
    last: Option<&str>,
) -> Result<impl Stream<Item = Result<SseEvent, Infallible>> + use<>, Failure> {
    let open = ctx.streams.clone().try_acquire_owned().map_err(|_| {
        Failure(Problem::new(
            Code::TooManyConnections,
            "too many streams are open; close some or try again",
        ))
    })?;
    let app = Arc::clone(&ctx.app);
    let (kept, live) = app.events.listen(last);
    let resumed = kept.is_some();
    let mut backlog: VecDeque<Event> = VecDeque::new();
    let mut over = false;
    if let Some(kept) = kept {
        backlog.extend(
            kept.iter()
                .filter(|h| filter.wants(h))
                .map(|h| h.event.clone()),
        );
        over = backlog.back().is_some_and(|e| filter.ends_with(e));
    }
    let (hello, ended) = hello(&app, &filter, resumed).await?;
    if ended && !over {
        backlog.push_back(hello);
        over = true;
    } else {
        backlog.push_front(hello);
    }
    let state = Following {
        app,
        filter,
        backlog,
        live,
        over,
        _open: open,
    };
    Ok(stream::unfold(state, |mut s| async move {
        let event = next(&mut s).await?;
        let sse = SseEvent::default()
            .id(&event.id)
            .data(serde_json::to_string(&event).unwrap_or_default());
        Some((Ok(sse), s))
    }))
}

async fn next(s: &mut Following) -> Option<Event> {
    if let Some(event) = s.backlog.pop_front() {
        return Some(event);
    }
    if s.over {
        return None;
    }
    loop {
        let received = tokio::select! {
            r = s.live.recv() => r,
            () = s.app.stop.cancelled() => return None,
        };
        match received {
            Ok(heard) if s.filter.wants(&heard) => {
                s.over = s.filter.ends_with(&heard.event);
                return Some(heard.event.clone());
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                // Too slow for the live events: a fresh start says so, instead of a silent gap.
                let (_, live) = s.app.events.listen(None);
                s.live = live;
                let (event, ended) = hello(&s.app, &s.filter, false).await.ok()?;
                s.over = ended;
                return Some(event);
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

/// The first event: what holds now. True when the session has ended.
async fn hello(app: &Arc<App>, filter: &Filter, resumed: bool) -> Result<(Event, bool), Failure> {
    let (session, phase) = match filter {
        Filter::Session(id) => {
            let live = app.with_world(|w| w.sessions.get(id).map(|e| e.session.phase));
            let phase = match live {
                Some(p) => p,
                None => match app.records.get(*id).await.map_err(Problem::from)? {
                    Some(_) => Phase::Ended,
                    None => return Err(Failure(unknown_session(*id))),
                },
            };
            (Some(*id), Some(phase))
        }
        Filter::Player(p) => app.with_world(|w| {
            let found = w
                .sessions
                .values()
                .find(|e| e.session.phase.is_live() && e.session.player(p).is_some());
            (found.map(|e| e.session.id), found.map(|e| e.session.phase))
        }),
    };
    let event = Event {
        v: 1,
        id: app.events.place(),
        at: app.text(app.clock.now()),
        session_id: session,
        ticket_id: None,
        body: EventBody::Hello { phase, resumed },
    };
    Ok((
        event,
        matches!(filter, Filter::Session(_)) && phase == Some(Phase::Ended),
    ))
}
