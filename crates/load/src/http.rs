//! One HTTP/1.1 connection of one client, as a player's own device would have it. Nothing is shared between clients, so that none
//! waits for another's answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::dial::Dialer;
use crate::fault::Fault;
use crate::requests::Sent;
use crate::target::Target;

/// Largest answer read, bytes: a page of 500 match records stays far below.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Read buffer of a connection: answers are a few kilobytes, and there are thousands of connections.
const READ_BUFFER: usize = 8 * 1024;
const AGENT: &str = concat!("spawnpoint-load/", env!("CARGO_PKG_VERSION"));

/// A call to make.
pub(crate) struct Call<'a> {
    /// Method and path as the API's document names them, by which it is counted.
    pub(crate) route: &'static str,
    pub(crate) method: Method,
    /// With its query, beginning with a slash.
    pub(crate) path: &'a str,
    pub(crate) body: Option<Value>,
    pub(crate) bearer: Option<&'a str>,
    /// For all of it, connecting included.
    pub(crate) limit: Duration,
}

/// An answer of the 2xx kind.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Fault::new("odd_answer", format!("not what the API answers: {e}")))
    }
}

/// The connection, made when it is first needed and again after it broke.
pub(crate) struct Http {
    dialer: Arc<Dialer>,
    target: Arc<Target>,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// What went over it.
    pub(crate) sent: Sent,
    /// Drives the connection; ends with it.
    driver: JoinSet<()>,
}

impl Http {
    pub(crate) fn new(dialer: Arc<Dialer>, target: Arc<Target>) -> Self {
        Self {
            dialer,
            target,
            sender: None,
            sent: Sent::default(),
            driver: JoinSet::new(),
        }
    }

    /// Hangs up; the next call dials again.
    pub(crate) fn close(&mut self) {
        self.sender = None;
        self.driver = JoinSet::new();
    }

    /// Makes a call. A kept connection that the server closed meanwhile is no failure of the server's: such a call is made once more,
    /// over a new one.
    pub(crate) async fn call(&mut self, call: &Call<'_>) -> Result<Answer, Fault> {
        let attempt = async {
            let kept = self.sender.is_some();
            match self.once(call).await {
                Err(Attempt::Unsent(_)) if kept => {
                    self.close();
                    self.once(call).await
                }
                other => other,
            }
        };
        let result = timeout(call.limit, attempt).await;
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Attempt::Refused(fault))) => Err(fault),
            Ok(Err(Attempt::Unsent(fault) | Attempt::Broken(fault))) => {
                self.close();
                Err(fault)
            }
            Err(_) => {
                // What comes late on this connection would be taken for the answer to the next call.
                self.close();
                Err(Fault::timed_out(call.path.split('?').next().unwrap_or("")))
            }
        }
    }

    async fn once(&mut self, call: &Call<'_>) -> Result<Answer, Attempt> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.connect(call.limit).await.map_err(Attempt::Broken)?,
        };
        sender
            .ready()
            .await
            .map_err(|e| Attempt::Unsent(broken(&e)))?;
        let request = self.request(call).map_err(Attempt::Refused)?;
        // Before the answer, which nobody may wait for to its end.
        self.sent.note(call.route);
        let response = sender.try_send_request(request).await.map_err(|mut e| {
            let unsent = e.take_message().is_some();
            let fault = broken(e.error());
            if unsent {
                self.sent.take_back(call.route);
                Attempt::Unsent(fault)
            } else {
                Attempt::Broken(fault)
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| Attempt::Broken(Fault::transport("closed", e.to_string())))?
            .to_bytes();
        self.sender = Some(sender);
        if head.status.is_success() {
            return Ok(Answer {
                headers: head.headers,
                body,
            });
        }
        Err(Attempt::Refused(refusal(head.status.as_u16(), &body)))
    }

    async fn connect(&mut self, limit: Duration) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let target = &self.target;
        let stream = self
            .dialer
            .dial(&target.host, target.port, target.tls, limit)
            .await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        self.driver = JoinSet::new();
        self.driver.spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.target.base, call.path))
            .header(HOST, self.target.authority())
            .header(USER_AGENT, AGENT);
        if let Some(bearer) = call.bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Full::new(Bytes::from(body.to_string()))
            }
            None => Full::default(),
        };
        request
            .body(body)
            .map_err(|e| Fault::new("bad_request", e.to_string()))
    }
}

enum Attempt {
    /// Nothing reached the server.
    Unsent(Fault),
    /// It may have.
    Broken(Fault),
    /// It answered, and not with success.
    Refused(Fault),
}

fn broken(error: &hyper::Error) -> Fault {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return Fault::io(io);
        }
        source = e.source();
    }
    let class = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed"
    } else {
        "http_error"
    };
    Fault::transport(class, error.to_string())
}

/// An answer that is no success: its problem code, or its status where there is none. A gateway's 502 or 503 in front of a server that
/// is away is as good as no answer.
fn refusal(status: u16, body: &[u8]) -> Fault {
    let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |field: &str| problem[field].as_str().map(str::to_owned);
    match text("code") {
        Some(code) => Fault {
            class: code,
            detail: format!("{status}: {}", text("detail").unwrap_or_default()),
            transient: status == 503 || status == 429,
        },
        None => Fault {
            class: format!("http_{status}"),
            detail: "an answer without a problem code".to_owned(),
            transient: matches!(status, 502..=504),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_named_by_their_code() {
        let full = refusal(
            503,
            br#"{"code":"queue_full","detail":"later","status":503}"#,
        );
        assert_eq!((&*full.class, &*full.detail), ("queue_full", "503: later"));
        assert!(full.transient);
        let gone = refusal(404, br#"{"code":"session_not_found"}"#);
        assert!(!gone.transient);
        assert_eq!(refusal(502, b"<html>").class, "http_502");
    }
}
