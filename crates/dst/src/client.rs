//! How clients reach the server: HTTP, whose requests and replies are lost, late and doubled; and what they hear is remembered.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use spawnpoint_core::SessionId;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::chance::Chance;
use crate::plan::Trouble;
use crate::site::Site;
use crate::world::World;

/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.body.get(key)?.as_str()
    }

    pub(crate) fn code(&self) -> &str {
        self.text("code").unwrap_or("")
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.text("session_id")?.parse().ok()
    }

    /// Status and code, for people.
    pub(crate) fn short(&self) -> String {
        let of = |k| self.text(k).map(|v| format!(" {v}")).unwrap_or_default();
        format!(
            "{}{}{}{}",
            self.status,
            of("code"),
            of("status"),
            of("phase")
        )
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) on: On,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) body: Option<&'a Value>,
}

/// On which listener.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Public,
    Admin,
    Sdk,
}

impl<'a> Ask<'a> {
    pub(crate) const fn get(path: &'a str) -> Self {
        Self {
            on: On::Public,
            method: "GET",
            path,
            token: None,
            key: None,
            body: None,
        }
    }

    pub(crate) const fn post(path: &'a str, body: &'a Value) -> Self {
        Self {
            method: "POST",
            body: Some(body),
            ..Self::get(path)
        }
    }

    pub(crate) const fn delete(path: &'a str) -> Self {
        Self {
            method: "DELETE",
            ..Self::get(path)
        }
    }

    pub(crate) const fn with_token(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }

    pub(crate) const fn with_key(mut self, key: Option<&'a str>) -> Self {
        self.key = key;
        self
    }

    pub(crate) const fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    fn request(&self) -> Option<Request<Body>> {
        let mut r = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("host", "127.0.0.1:8080");
        if let Some(t) = self.token {
            r = r.header("authorization", format!("Bearer {t}"));
        }
        if let Some(k) = self.key {
            r = r.header("idempotency-key", k);
        }
        let body = self
            .body
            .map_or_else(Body::empty, |b| Body::from(b.to_string()));
        r.body(body).ok()
    }
}

async fn once(router: Router, ask: &Ask<'_>) -> Option<Answer> {
    let response = router.oneshot(ask.request()?).await.ok()?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.ok()?.to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Some(Answer { status, body })
}

fn router(site: &Site, on: On) -> Router {
    match on {
        On::Public => site.public.clone(),
        On::Admin => site.admin.clone(),
        On::Sdk => site.sdk.clone(),
    }
}

/// Sends a request. `None`: there is no answer, and nobody can say what became of it.
pub(crate) async fn send(world: &Arc<World>, chance: &mut Chance, ask: Ask<'_>) -> Option<Answer> {
    let site = world.site()?;
    let bad = world.has(Trouble::Http);
    if bad && chance.permille(150) {
        // Lost on its way.
        sleep(chance.millis(100, 2_000)).await;
        return None;
    }
    if bad && chance.permille(200) {
        sleep(chance.millis(10, 1_500)).await;
    }
    let doubled = bad && chance.permille(150);
    let answered = async {
        if doubled {
            let (first, second) = futures::join!(
                once(router(&site, ask.on), &ask),
                once(router(&site, ask.on), &ask)
            );
            return first.or(second);
        }
        once(router(&site, ask.on), &ask).await
    };
    let answer = tokio::select! {
        biased;
        () = site.life.dead.cancelled() => None,
        answer = timeout(PATIENCE, answered) => answer.ok().flatten(),
    }?;
    if bad && chance.permille(150) {
        // The answer is lost.
        sleep(chance.millis(100, 2_000)).await;
        return None;
    }
    if answer.status == 500 {
        world.fail(
            "no internal error",
            &format!("{} {}: {}", ask.method, ask.path, answer.body),
        );
    }
    Some(answer)
}

/// The same past everything that can go wrong on the way.
pub(crate) async fn straight(world: &Arc<World>, ask: &Ask<'_>) -> Option<Answer> {
    let site = world.site()?;
    tokio::select! {
        biased;
        () = site.life.dead.cancelled() => None,
        answer = timeout(PATIENCE, once(router(&site, ask.on), ask)) => answer.ok().flatten(),
    }
}

/// A game says that it is ready.
pub(crate) async fn ready(world: &Arc<World>, token: &str) {
    let Some(site) = world.site() else { return };
    let ask = Ask {
        method: "POST",
        ..Ask::get("/v1/ready")
    }
    .with_token(token)
    .on(On::Sdk);
    let _ = tokio::select! {
        biased;
        () = site.life.dead.cancelled() => None,
        answer = timeout(Duration::from_secs(5), once(router(&site, On::Sdk), &ask)) => answer.ok().flatten(),
    };
}
