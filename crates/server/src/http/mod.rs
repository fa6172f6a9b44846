//! The HTTP API on its three listeners, with its OpenAPI document.
//!
//! A handler reads a call strictly, asks who is calling, calls one use case and shows the result. Decisions live elsewhere.

mod audit;
mod auth;
mod events;
mod fleets;
mod games;
mod matches;
mod matching;
mod metrics;
mod ops;
mod play;
pub(crate) mod request;
mod sdk;
mod sessions;
mod shield;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use spawnpoint_core::Code;
use spawnpoint_wire::problem::Problem;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, Counters};

/// Event streams and followed logs open at once: each is a task and a socket.
const MAX_STREAMS: usize = 4_096;

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Players and backends.
    Public,
    /// Operators.
    Admin,
    /// Instances.
    Sdk,
}

impl Listener {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Public, Self::Admin, Self::Sdk];

    /// Its name in metrics, and where its requests are counted.
    pub(crate) const fn counted(self, c: &Counters) -> (&'static str, &AtomicU64) {
        match self {
            Self::Public => ("public", &c.requests_public),
            Self::Admin => ("admin", &c.requests_admin),
            Self::Sdk => ("sdk", &c.requests_sdk),
        }
    }
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Ctx {
    pub(crate) app: Arc<App>,
    pub(crate) listener: Listener,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) guests: Arc<auth::GuestLimiter>,
}

/// A problem as a response.
pub(crate) struct Failure(pub(crate) Problem);

impl From<Problem> for Failure {
    fn from(p: Problem) -> Self {
        Self(p)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let p = self.0;
        let status = StatusCode::from_u16(p.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&p).unwrap_or_default();
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        if let Some(s) = p.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, s.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        response.extensions_mut().insert(ProblemCode(p.code));
        response
    }
}

/// For the counter of problems.
#[derive(Clone)]
pub(crate) struct ProblemCode(pub(crate) String);

/// A handler's outcome.
pub(crate) type Reply<T> = Result<T, Failure>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Spawnpoint",
        description = "One click, one pod: a game server of their own for every game. Errors are RFC 9457 problem documents with a stable `code`; every request field is taken in snake_case and camelCase."
    ),
    tags(
        (name = "games", description = "Start, join and end games"),
        (name = "matchmaking", description = "Wait for others to play with"),
        (name = "sessions", description = "Live sessions: look, keep alive, extend, explain"),
        (name = "matches", description = "What was played"),
        (name = "fleets", description = "How game servers are run"),
        (name = "operations", description = "Health, metrics, insight"),
        (name = "sdk", description = "For game servers, on the sdk listener, with their own token")
    ),
    components(schemas(Problem, spawnpoint_wire::event::Event))
)]
struct Api;

fn ctx(app: &Arc<App>, listener: Listener) -> Ctx {
    Ctx {
        app: Arc::clone(app),
        listener,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        guests: Arc::new(auth::GuestLimiter::new(
            app.config.load().server.guest_starts_per_minute,
        )),
    }
}

fn player_api() -> OpenApiRouter<Ctx> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(games::new_game))
        .routes(routes!(matching::join, matching::leave))
        .routes(routes!(matching::status))
        .routes(routes!(matching::queues))
        .routes(routes!(games::end_match))
        .routes(routes!(games::join))
        .routes(routes!(games::leave))
        .routes(routes!(games::renew_token))
        .routes(routes!(games::player_session))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::get, sessions::end))
        .routes(routes!(sessions::why))
        .routes(routes!(sessions::heartbeat))
        .routes(routes!(sessions::extend))
        .routes(routes!(sessions::logs))
        .routes(routes!(events::events))
        .routes(routes!(fleets::list))
        .routes(routes!(fleets::get))
        .routes(routes!(matches::list))
        .routes(routes!(matches::get))
        .routes(routes!(ops::healthz))
        .routes(routes!(ops::readyz))
}

fn whole_api() -> OpenApiRouter<Ctx> {
    player_api()
        .routes(routes!(ops::metrics))
        .routes(routes!(ops::workers))
        .routes(routes!(audit::audit))
}

fn sdk_api() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(sdk::session))
        .routes(routes!(sdk::events))
        .routes(routes!(sdk::ready))
        .routes(routes!(sdk::activity))
        .routes(routes!(sdk::end))
}

/// The whole OpenAPI document, every listener's calls in one.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut whole) = whole_api().split_for_parts();
    let (_, sdk) = sdk_api().split_for_parts();
    whole.merge(sdk);
    whole
}

/// The document as it is committed and served.
///
/// # Errors
/// When it cannot be encoded, which would be a bug in the document.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&openapi())? + "\n")
}

fn docs() -> Router<Ctx> {
    utoipa_swagger_ui::SwaggerUi::new("/api/docs")
        .url("/api/openapi.json", openapi())
        .into()
}

fn finish(router: Router<Ctx>, ctx: Ctx) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(ctx.clone(), shield::guard))
        .with_state(ctx)
}

/// The public listener's router: player API and `/play`.
pub fn public(app: &Arc<App>) -> Router {
    let (api, _) = player_api().split_for_parts();
    finish(
        api.merge(docs()).merge(play::router()),
        ctx(app, Listener::Public),
    )
}

/// The admin listener's router: everything.
pub fn admin(app: &Arc<App>) -> Router {
    let (api, _) = whole_api().split_for_parts();
    finish(
        api.merge(docs()).merge(play::router()).merge(ops::root()),
        ctx(app, Listener::Admin),
    )
}

/// The sdk listener's router.
pub fn sdk(app: &Arc<App>) -> Router {
    let (api, _) = sdk_api().split_for_parts();
    finish(api, ctx(app, Listener::Sdk))
}

async fn not_found(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure(Problem::new(
        Code::NotFound,
        format!("there is no {path}; /api/docs lists what there is"),
    ))
}

async fn method_not_allowed(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure(Problem::new(
        Code::MethodNotAllowed,
        format!("{path} does not take this method; /api/docs says which"),
    ))
}
