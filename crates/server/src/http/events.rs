//! The one resumable stream of events.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Code, PlayerId, SessionId, TicketId};
use spawnpoint_wire::event::{Event, EventBody};
use spawnpoint_wire::problem::Problem;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior};

use super::request::{Call, player_id, session_id};
use super::{Ctx, Failure, Reply};
use crate::app::hub::Heard;
use crate::app::world::Commit;
use crate::app::{App, Caller, unknown_session};

/// A player who waits is told this often where they stand, if that has changed.
const POSITIONS_EVERY: Duration = Duration::from_secs(2);
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
        ("player_id" = Option<String>, Query, description = "Events of this player's tickets and of every session they are in"),
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
    /// What was sent last: what is said besides the numbered events leaves the place to resume from where it is.
    last_id: String,
    /// What was last said of each ticket.
    shown: HashMap<TicketId, EventBody>,
    positions: Interval,
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
    let heard = app.events.listen(last);
    let resumed = heard.backlog.is_some();
    let mut backlog: VecDeque<Event> = VecDeque::new();
    let mut over = false;
    if let Some(kept) = heard.backlog {
        backlog.extend(
            kept.iter()
                .filter(|h| filter.wants(h))
                .map(|h| h.event.clone()),
        );
        over = backlog.back().is_some_and(|e| filter.ends_with(e));
    }
    // Whoever is cut off after the greeting has not heard what follows it.
    let place = last.filter(|_| resumed).map_or(heard.place, str::to_owned);
    let (hello, ended) = hello(&app, &filter, resumed, place).await?;
    if ended && !over {
        backlog.push_back(hello);
        over = true;
    } else {
        backlog.push_front(hello);
    }
    let mut positions = tokio::time::interval(POSITIONS_EVERY);
    positions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = Following {
        app,
        filter,
        backlog,
        live: heard.live,
        over,
        last_id: String::new(),
        shown: HashMap::new(),
        positions,
        _open: open,
    };
    Ok(stream::unfold(state, |mut s| async move {
        let event = next(&mut s).await?;
        s.last_id.clone_from(&event.id);
        let sse = SseEvent::default()
            .id(&event.id)
            .data(serde_json::to_string(&event).unwrap_or_default());
        Some((Ok(sse), s))
    }))
}

async fn next(s: &mut Following) -> Option<Event> {
    loop {
        if let Some(event) = s.backlog.pop_front() {
            s.note(&event);
            return Some(event);
        }
        if s.over {
            return None;
        }
        let received = tokio::select! {
            biased;
            r = s.live.recv() => r,
            _ = s.positions.tick(), if matches!(s.filter, Filter::Player(_)) => {
                s.say_positions();
                continue;
            }
            () = s.app.stop.cancelled() => return None,
        };
        match received {
            Ok(heard) if s.filter.wants(&heard) => {
                s.over = s.filter.ends_with(&heard.event);
                s.backlog.push_back(heard.event.clone());
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                // Too slow for the live events: a fresh start says so, instead of a silent gap.
                let anew = s.app.events.listen(None);
                s.live = anew.live;
                s.shown.clear();
                let (event, ended) = hello(&s.app, &s.filter, false, anew.place).await.ok()?;
                s.over = ended;
                s.backlog.push_back(event);
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

impl Following {
    /// Keeps what a client knows of its tickets.
    fn note(&mut self, event: &Event) {
        let Some(id) = event.ticket_id.as_deref().and_then(|t| t.parse().ok()) else {
            return;
        };
        match &event.body {
            body @ EventBody::Queued { .. } => {
                self.shown.insert(id, body.clone());
            }
            _ => {
                self.shown.remove(&id);
            }
        }
    }

    /// Says of each ticket where it stands now, if the client does not know. Each stream for itself: told to everybody, the places of
    /// many would push all other events out of memory.
    fn say_positions(&mut self) {
        let Filter::Player(player) = &self.filter else {
            return;
        };
        for (id, body) in self.app.queued_now(player) {
            if same_place(self.shown.get(&id), &body) {
                continue;
            }
            self.backlog.push_back(Event {
                v: 1,
                id: self.last_id.clone(),
                at: self.app.text(self.app.clock.now()),
                session_id: None,
                ticket_id: Some(id.to_string()),
                body,
            });
        }
    }
}

/// An estimate that counts down second by second is no news.
fn same_place(shown: Option<&EventBody>, now: &EventBody) -> bool {
    let place = |b: &EventBody| match b {
        EventBody::Queued {
            position,
            estimate_s,
            ..
        } => Some((*position, estimate_s.is_some())),
        _ => None,
    };
    shown.is_some_and(|shown| place(shown) == place(now))
}

/// The first event: what holds now. True when the session has ended.
async fn hello(
    app: &Arc<App>,
    filter: &Filter,
    resumed: bool,
    place: String,
) -> Result<(Event, bool), Failure> {
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
                .fleets
                .keys()
                .find_map(|f| w.sessions.get(w.by_player.get(&(f.clone(), p.clone()))?))
                // What is not durable yet may not come to be.
                .filter(|e| *e.commit.borrow() == Commit::Durable);
            (found.map(|e| e.session.id), found.map(|e| e.session.phase))
        }),
    };
    let event = Event {
        v: 1,
        id: place,
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
