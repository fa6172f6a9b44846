//! How game servers are run, and how that changes.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use spawnpoint_core::Code;
use spawnpoint_wire::api::{FleetChange, FleetList, FleetView};
use spawnpoint_wire::problem::Problem;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::request::{Call, Path};
use super::{Ctx, Failure, Reply};
use crate::app::App;

/// A comment this often keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// All fleets.
///
/// With `follow=true` the answer is a stream of server-sent events that goes on: each `data` is a fleet as it is after something about it
/// changed, beginning with how all are now.
#[utoipa::path(
    operation_id = "list_fleets",
    get, path = "/api/fleets", tag = "fleets",
    params(("follow" = Option<bool>, Query, description = "Go on with each change")),
    responses(
        (status = 200, description = "In the order of the configuration; followed, a stream of changes", content(
            (FleetList = "application/json"),
            (FleetChange = "text/event-stream")
        )),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(ctx): State<Ctx>, call: Call) -> Reply<Response> {
    call.only(&["follow"])?;
    trusted(&ctx, &call)?;
    if call.flag("follow")? {
        return follow(&ctx, None);
    }
    let fleets = ctx.app.fleets_shown();
    Ok(Json(FleetList { fleets }).into_response())
}

/// One fleet: warm, starting, queued, claimed, hit rate, last plan and its reason.
///
/// With `follow=true` the answer is a stream of server-sent events that goes on with each change of it, until it is gone.
#[utoipa::path(
    operation_id = "get_fleet",
    get, path = "/api/fleets/{name}", tag = "fleets",
    params(
        ("name" = String, Path, description = "The fleet"),
        ("follow" = Option<bool>, Query, description = "Go on with each change")
    ),
    responses(
        (status = 200, description = "The fleet; followed, a stream of changes", content(
            (FleetView = "application/json"),
            (FleetChange = "text/event-stream")
        )),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    call: Call,
    Path(name): Path<String>,
) -> Reply<Response> {
    call.only(&["follow"])?;
    trusted(&ctx, &call)?;
    let app = &ctx.app;
    let view = name
        .parse()
        .ok()
        .and_then(|n| app.with_world(|w| w.fleets.get(&n).map(|f| app.fleet_view(&n, f))));
    let Some(view) = view else {
        let config = app.config.load();
        let names: Vec<_> = config.fleets.iter().map(|f| f.name.as_str()).collect();
        let shown: String = name.chars().take(64).collect();
        return Err(Failure(Problem::new(
            Code::FleetNotFound,
            format!(
                "there is no fleet {shown:?}; there are: {}",
                names.join(", ")
            ),
        )));
    };
    if call.flag("follow")? {
        return follow(&ctx, Some(view.name));
    }
    Ok(Json(view).into_response())
}

/// A stream of changes; of one fleet, or of all.
fn follow(ctx: &Ctx, only: Option<String>) -> Reply<Response> {
    let open = ctx.streams.clone().try_acquire_owned().map_err(|_| {
        Failure(Problem::new(
            Code::TooManyConnections,
            "too many streams are open; close some or try again",
        ))
    })?;
    let (now, live) = ctx.app.follow_fleets();
    let following = Following {
        app: Arc::clone(&ctx.app),
        view: View {
            only,
            shown: HashMap::new(),
        },
        backlog: now.into(),
        live,
        _open: open,
    };
    Ok(Sse::new(following.stream())
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// What a follower was shown.
struct View {
    only: Option<String>,
    shown: HashMap<String, FleetView>,
}

impl View {
    /// Whether this is news, which it is not any more then.
    fn takes(&mut self, change: &FleetChange) -> bool {
        let name = &change.fleet.name;
        if self.only.as_ref().is_some_and(|only| only != name) {
            return false;
        }
        if change.gone {
            return self.shown.remove(name).is_some();
        }
        let news = self
            .shown
            .get(name)
            .is_none_or(|shown| shown.differs(&change.fleet));
        if news {
            self.shown.insert(name.clone(), change.fleet.clone());
        }
        news
    }
}

struct Following {
    app: Arc<App>,
    view: View,
    backlog: VecDeque<FleetChange>,
    live: Receiver<Arc<FleetChange>>,
    _open: tokio::sync::OwnedSemaphorePermit,
}

impl Following {
    fn stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> {
        stream::unfold(Some(self), |following| async move {
            let mut following = following?;
            let change = following.next().await?;
            let over = change.gone && following.view.only.is_some();
            let data = serde_json::to_string(&change).unwrap_or_default();
            let rest = (!over).then_some(following);
            Some((Ok(SseEvent::default().data(data)), rest))
        })
    }

    async fn next(&mut self) -> Option<FleetChange> {
        loop {
            while let Some(change) = self.backlog.pop_front() {
                if self.view.takes(&change) {
                    return Some(change);
                }
            }
            let told = tokio::select! {
                biased;
                told = self.live.recv() => told,
                () = self.app.stop.cancelled() => return None,
            };
            match told {
                Ok(change) => self.backlog.push_back((*change).clone()),
                Err(RecvError::Lagged(_)) => {
                    let (now, live) = self.app.follow_fleets();
                    self.backlog = now.into();
                    self.live = live;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn trusted(ctx: &Ctx, call: &Call) -> Result<(), Failure> {
    if call.caller(ctx, None)?.is_trusted() {
        return Ok(());
    }
    Err(Failure(Problem::new(
        Code::Forbidden,
        "only a backend key may look at fleets",
    )))
}
