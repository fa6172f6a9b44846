//! What every request passes: `Host` and Origin checks, CORS for allowed origins, security headers, a request id, one log line.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use spawnpoint_core::Code;
use spawnpoint_wire::access::Access;
use spawnpoint_wire::problem::Problem;

use super::{Ctx, Failure, ProblemCode};
use crate::app::App;

/// Nothing from elsewhere, no inline script: the page's own files only. `connect-src ws:` because direct modes dial other ports.
const CSP: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub(super) async fn guard(State(ctx): State<Ctx>, request: Request, next: Next) -> Response {
    App::bump(ctx.listener.counted(&ctx.app.counters).1);
    let config = ctx.app.config.load_full();
    let access = config.server.access();
    let host = text(request.headers(), header::HOST).map(ToOwned::to_owned);
    let origin = text(request.headers(), header::ORIGIN).map(ToOwned::to_owned);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = uuid::Uuid::now_v7();
    let mut response = match check(&access, host.as_deref(), origin.as_deref()) {
        Err(p) => Failure(p).into_response(),
        Ok(()) if method == Method::OPTIONS && origin.is_some() => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(()) => next.run(request).await,
    };
    if let Some(code) = response
        .extensions()
        .get::<ProblemCode>()
        .map(|c| c.0.clone())
    {
        if let Some(known) = Code::ALL.iter().find(|c| c.as_str() == code) {
            ctx.app.count_problem(known.as_str());
        }
        tracing::debug!(request = %id, %method, path, code, "request refused");
    }
    let status = response.status();
    tracing::trace!(request = %id, %method, path, status = status.as_u16(), "request");
    let headers = response.headers_mut();
    if let Some(origin) = origin
        .as_deref()
        .filter(|o| access.origin_allowed(o, host.as_deref()))
        && let Ok(value) = HeaderValue::from_str(origin)
    {
        cors(headers, value);
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("x-request-id", value);
    }
    harden(headers, &path);
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn check(access: &Access, host: Option<&str>, origin: Option<&str>) -> Result<(), Problem> {
    let Some(host) = host else {
        return Err(Problem::new(
            Code::HostNotAllowed,
            "the request has no Host header",
        ));
    };
    if !access.host_allowed(host) {
        return Err(Problem::new(
            Code::HostNotAllowed,
            format!(
                "this server does not answer to {host:?}; add the name to allowed_hosts or set public_url"
            ),
        ));
    }
    if let Some(origin) = origin
        && !access.origin_allowed(origin, Some(host))
    {
        return Err(Problem::new(
            Code::OriginNotAllowed,
            format!(
                "pages of {origin:?} may not call this server; add the origin to allowed_origins"
            ),
        ));
    }
    Ok(())
}

fn cors(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, idempotency-key, last-event-id"),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
}

fn harden(headers: &mut HeaderMap, path: &str) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(CSP));
    if path.starts_with("/api/") && !path.starts_with("/api/docs") {
        // Replies carry tokens and live state: nobody keeps a copy.
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
}
