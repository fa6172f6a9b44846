//! The calls a player makes, as one client. Answers are read leniently: only what a player needs, and unknown fields are not our business.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::fault::Fault;
use crate::http::{Answer, Call, Http};
use crate::requests::Sent;

/// Seconds a status call is held by the server; its documented value.
const HOLD_S: u64 = 25;
/// What an answer may take beyond the time it is held.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// Reply of join and status: a ticket, and once matched the way to the game.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) status: String,
    pub(crate) ticket_id: Option<String>,
    pub(crate) player_id: Option<String>,
    /// Why it was lost.
    pub(crate) code: Option<String>,
    pub(crate) detail: Option<String>,
    #[serde(flatten)]
    pub(crate) way: Way,
}

/// How to reach a session.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Way {
    pub(crate) session_id: Option<String>,
    pub(crate) fleet: Option<String>,
    pub(crate) connect_host: Option<String>,
    pub(crate) connect_port: Option<u16>,
    #[serde(rename = "wsUrl")]
    pub(crate) ws_url: Option<String>,
    pub(crate) token: Option<String>,
}

/// A live or ended session.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) phase: String,
    end: Option<serde_json::Value>,
}

impl Session {
    /// Nothing more will be played.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some() || matches!(self.phase.as_str(), "ending" | "ended")
    }
}

/// The reply to a heartbeat.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Beaten {
    next_heartbeat_s: Option<f64>,
}

impl Beaten {
    /// Never sooner than in a second, whatever the server wishes: as browsers do.
    fn next(self) -> Option<Duration> {
        let seconds = self.next_heartbeat_s.filter(|s| s.is_finite())?;
        Duration::try_from_secs_f64(seconds.max(1.0)).ok()
    }
}

/// A fleet, as far as a tester cares.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) expose: String,
}

#[derive(Debug, Deserialize)]
struct Fleets {
    fleets: Vec<Fleet>,
}

/// A match record.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Record {
    pub(crate) session_id: String,
    #[serde(default)]
    pub(crate) players: Vec<RecordedPlayer>,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RecordedPlayer {
    pub(crate) player_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Records {
    pub(crate) matches: Vec<Record>,
    pub(crate) next_cursor: Option<String>,
}

/// What a caller shows to be let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// Secret of a backend key.
    pub(crate) key: Option<String>,
    /// This player's own token, once there is one.
    pub(crate) token: Option<String>,
}

impl Credentials {
    /// A backend names players; without a key a player speaks for themselves.
    fn of_backend(&self) -> Option<&str> {
        self.key.as_deref().or(self.token.as_deref())
    }

    /// A player's own calls: what a real client would send.
    fn of_player(&self) -> Option<&str> {
        self.token.as_deref().or(self.key.as_deref())
    }
}

/// The API over one connection.
pub(crate) struct Api {
    http: Http,
    pub(crate) credentials: Credentials,
}

impl Api {
    pub(crate) const fn new(http: Http, credentials: Credentials) -> Self {
        Self { http, credentials }
    }

    /// Lets the connection go while it is not needed.
    pub(crate) fn rest(&mut self) {
        self.http.close();
    }

    /// What was sent so far.
    pub(crate) const fn sent(&mut self) -> &mut Sent {
        &mut self.http.sent
    }

    /// Whether a server is there; its answer shows its clock.
    pub(crate) async fn health(&mut self, limit: Duration) -> Result<Answer, Fault> {
        self.send("GET /healthz", Method::GET, "/healthz", None, None, limit)
            .await
    }

    pub(crate) async fn fleets(&mut self) -> Result<Vec<Fleet>, Fault> {
        let answer = self.get("GET /api/fleets", "/api/fleets", ANSWER).await?;
        Ok(answer.json::<Fleets>()?.fleets)
    }

    /// Joins a queue: as this player, or as a guest whom the server names.
    pub(crate) async fn join(
        &mut self,
        player: Option<&str>,
        queue: Option<&str>,
        limit: Duration,
    ) -> Result<Ticket, Fault> {
        let mut body = json!({});
        if let Some(player) = player {
            body["player_id"] = json!(player);
        }
        if let Some(queue) = queue {
            body["queue"] = json!(queue);
        }
        let path = "/api/match/join";
        let answer = self.post("POST /api/match/join", path, body, limit).await?;
        answer.json()
    }

    /// The ticket; held by the server until it changes.
    pub(crate) async fn status(
        &mut self,
        player: &str,
        ticket: &str,
        left: Duration,
    ) -> Result<Ticket, Fault> {
        let wait = left.as_secs_f64().min(HOLD_S as f64);
        let path = format!(
            "/api/match/status?player_id={}&ticket_id={}&wait={wait:.3}",
            encode(player),
            encode(ticket)
        );
        let limit = Duration::from_secs_f64(wait) + ANSWER;
        self.get("GET /api/match/status", &path, limit)
            .await?
            .json()
    }

    /// Leaves the queue. `matched` if a match came first.
    pub(crate) async fn leave(&mut self, player: &str, limit: Duration) -> Result<Ticket, Fault> {
        let bearer = self.credentials.of_backend().map(str::to_owned);
        let path = format!("/api/match/join?player_id={}", encode(player));
        let route = "DELETE /api/match/join";
        self.send(route, Method::DELETE, &path, None, bearer, limit)
            .await?
            .json()
    }

    /// Leaves a session.
    pub(crate) async fn quit(
        &mut self,
        session: &str,
        player: &str,
        limit: Duration,
    ) -> Result<(), Fault> {
        let bearer = self.credentials.of_player().map(str::to_owned);
        let (session, player) = (encode(session), encode(player));
        let path = format!("/api/sessions/{session}/players/{player}");
        let route = "DELETE /api/sessions/{id}/players/{player}";
        self.send(route, Method::DELETE, &path, None, bearer, limit)
            .await
            .map(|_| ())
    }

    /// The way to a session once its game accepts. The player is in it already; joining again changes nothing.
    pub(crate) async fn way(
        &mut self,
        session: &str,
        player: &str,
        left: Duration,
    ) -> Result<Way, Fault> {
        let wait = left.as_secs_f64().min(HOLD_S as f64);
        let path = format!("/api/sessions/{}/players?wait={wait:.3}", encode(session));
        let limit = Duration::from_secs_f64(wait) + ANSWER;
        let answer = self
            .post(
                "POST /api/sessions/{id}/players",
                &path,
                json!({ "player_id": player }),
                limit,
            )
            .await?;
        answer.json()
    }

    /// The session; held for so many seconds unless its phase changes.
    pub(crate) async fn session(&mut self, session: &str, wait: f64) -> Result<Session, Fault> {
        let path = format!("/api/sessions/{}?wait={wait:.3}", encode(session));
        let route = "GET /api/sessions/{id}";
        self.get_as_player(route, &path).await?.json()
    }

    /// Says that the player is there; how long until the next one is due, where the server says so.
    pub(crate) async fn heartbeat(&mut self, session: &str) -> Result<Option<Duration>, Fault> {
        let path = format!("/api/sessions/{}/heartbeat", encode(session));
        let route = "POST /api/sessions/{id}/heartbeat";
        let body = json!({ "status": "active" });
        let answer = self.post_as_player(route, &path, body, ANSWER).await?;
        Ok(answer.json::<Beaten>()?.next())
    }

    /// The end call, as a player makes it.
    pub(crate) async fn end(&mut self, session: &str, limit: Duration) -> Result<(), Fault> {
        let path = format!("/api/match/{}/end", encode(session));
        let route = "POST /api/match/{id}/end";
        self.post_as_player(route, &path, json!({}), limit)
            .await
            .map(|_| ())
    }

    /// A page of a fleet's records, newest end first.
    pub(crate) async fn records(
        &mut self,
        fleet: Option<&str>,
        from: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Records, Fault> {
        let mut path = "/api/matches?limit=500".to_owned();
        for (name, value) in [("fleet", fleet), ("ended_from", from), ("cursor", cursor)] {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", encode(value));
            }
        }
        self.get("GET /api/matches", &path, ANSWER).await?.json()
    }

    /// The records of this player alone.
    pub(crate) async fn own_records(&mut self, player: &str) -> Result<Records, Fault> {
        let path = format!("/api/matches?limit=500&player_id={}", encode(player));
        self.get_as_player("GET /api/matches", &path).await?.json()
    }

    async fn get(
        &mut self,
        route: &'static str,
        path: &str,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let bearer = self.credentials.of_backend().map(str::to_owned);
        self.send(route, Method::GET, path, None, bearer, limit)
            .await
    }

    async fn get_as_player(&mut self, route: &'static str, path: &str) -> Result<Answer, Fault> {
        let bearer = self.credentials.of_player().map(str::to_owned);
        self.send(route, Method::GET, path, None, bearer, ANSWER)
            .await
    }

    async fn post(
        &mut self,
        route: &'static str,
        path: &str,
        body: serde_json::Value,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let bearer = self.credentials.of_backend().map(str::to_owned);
        self.send(route, Method::POST, path, Some(body), bearer, limit)
            .await
    }

    async fn post_as_player(
        &mut self,
        route: &'static str,
        path: &str,
        body: serde_json::Value,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let bearer = self.credentials.of_player().map(str::to_owned);
        self.send(route, Method::POST, path, Some(body), bearer, limit)
            .await
    }

    async fn send(
        &mut self,
        route: &'static str,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        bearer: Option<String>,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let call = Call {
            route,
            method,
            path,
            body,
            bearer: bearer.as_deref(),
            limit,
        };
        self.http.call(&call).await
    }
}

/// Percent-encodes what is not unreserved in a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_whatever_else_it_says() {
        let queued: Ticket = serde_json::from_str(
            r#"{"status":"queued","ticket_id":"t","queue":"arena","position":3,"estimate_s":1.5,"waited_s":0.1}"#,
        )
        .unwrap();
        assert_eq!((&*queued.status, queued.way.session_id), ("queued", None));
        let matched: Ticket = serde_json::from_str(
            r#"{"status":"matched","session_id":"s","fleet":"arena","phase":"ready","ready":true,"wsUrl":null,
                "connect_host":"127.0.0.1","connect_port":25000,"token":"t","player_id":"p","queue":null}"#,
        )
        .unwrap();
        assert_eq!(matched.way.connect_port, Some(25000));
        assert_eq!(matched.player_id.as_deref(), Some("p"));
    }

    #[test]
    fn the_server_says_how_often_it_wants_to_hear() {
        let next = |text| serde_json::from_str::<Beaten>(text).unwrap().next();
        let seconds = Duration::from_secs_f64;
        assert_eq!(
            next(r#"{"next_heartbeat_s":2.5,"cull_at":null}"#),
            Some(seconds(2.5))
        );
        assert_eq!(next(r#"{"next_heartbeat_s":0.001}"#), Some(seconds(1.0)));
        assert_eq!(next("{}"), None);
        assert_eq!(next(r#"{"next_heartbeat_s":1e300}"#), None);
    }

    #[test]
    fn anything_can_be_a_player() {
        assert_eq!(encode("1%_,\u{1f9c2}"), "1%25_%2C%F0%9F%A7%82");
    }
}
