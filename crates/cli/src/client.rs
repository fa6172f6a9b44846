//! Asking a running server over its admin listener.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use spawnpoint_wire::problem::Problem;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body, SendBody};

use crate::args::Global;
use crate::exit::Failure;

/// Reaching the server takes at most this long: it is on this machine or near.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An answer takes at most this long to begin; longer than any `wait=` of the API.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
/// Largest answer read whole, bytes: a page of 500 sessions with full rosters stays far below.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// A running server, as seen from here.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    key: Option<String>,
}

impl Client {
    /// For the server that `--server` names, with the key of `SPAWNPOINT_KEY`.
    ///
    /// # Errors
    /// When the address is no address.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        Self::at(&global.server, key())
    }

    /// For a server at this address.
    pub(crate) fn at(server: &str, key: Option<String>) -> Result<Self, Failure> {
        let base = server.trim_end_matches('/');
        match base.split_once("://") {
            Some(("http", rest)) if !rest.is_empty() => {}
            Some(("https", _)) => {
                return Err(Failure::Usage(format!(
                    "--server {base}: this client speaks plain HTTP, for this machine or a tunnel (ssh -L 8081:127.0.0.1:8081 host)"
                )));
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "--server {base:?} is no address; it looks like http://127.0.0.1:8081"
                )));
            }
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The admin listener is here or at the end of a tunnel; a proxy of the web has no part in it.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .user_agent(concat!("spawnpoint/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base: base.to_owned(),
            key,
        })
    }

    /// A GET whose answer is JSON.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.json(self.call(Method::GET, path, query, None, &[])?)
    }

    /// A call with a JSON body whose answer is JSON.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Value, Failure> {
        self.json(self.call(method, path, query, Some(body), &[])?)
    }

    /// A GET whose answer comes bit by bit.
    pub(crate) fn stream(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<impl Read + use<>, Failure> {
        let response = self.call(Method::GET, path, query, None, headers)?;
        Ok(response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader())
    }

    fn json(&self, response: Response<Body>) -> Result<Value, Failure> {
        let text = response
            .into_body()
            .into_with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(|e| self.failure(&e))?;
        serde_json::from_str(&text).map_err(|_| {
            Failure::Failed(format!(
                "{} answered with something that is not Spawnpoint's: is --server right?",
                self.base
            ))
        })
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, Failure> {
        let mut uri = format!("{}{path}", self.base);
        for (i, (name, value)) in query.iter().enumerate() {
            uri.push(if i == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.push_str(&encode(value));
        }
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => SendBody::none(),
            Some(value) => {
                SendBody::from_owned_reader(std::io::Cursor::new(value.to_string().into_bytes()))
            }
        };
        let request = request
            .body(body)
            .map_err(|e| Failure::Usage(format!("--server {}: {e}", self.base)))?;
        let mut response = self.agent.run(request).map_err(|e| self.failure(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .unwrap_or_default();
        Err(match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => refused(&problem),
            Err(_) => Failure::Failed(format!(
                "{} answered {status} to {path}, and not as Spawnpoint does: is --server right?",
                self.base
            )),
        })
    }

    fn failure(&self, e: &ureq::Error) -> Failure {
        let why = match e {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                "nothing listens there".to_owned()
            }
            other => other.to_string(),
        };
        Failure::Unreachable(format!(
            "no server answers at {}: {why}. Start one with `spawnpoint up` (or `make play` in the repository), or name another with --server",
            self.base
        ))
    }
}

/// The secret of `SPAWNPOINT_KEY`. `name:secret` is how the server is given its keys; the secret alone is what it is asked for.
pub(crate) fn key() -> Option<String> {
    let key = std::env::var("SPAWNPOINT_KEY")
        .ok()
        .filter(|k| !k.is_empty())?;
    Some(match key.split_once(':') {
        Some((_, secret)) => secret.to_owned(),
        None => key,
    })
}

fn refused(problem: &Problem) -> Failure {
    let mut text = format!("{} ({})", problem.detail, problem.code);
    if problem.status == 401 {
        text.push_str("; set SPAWNPOINT_KEY to the secret of one of the server's keys");
    }
    if let Some(seconds) = problem.retry_after {
        text.push_str(&format!("; try again in {seconds} s"));
    }
    if problem.status == 404 {
        Failure::NotFound(text)
    } else {
        Failure::Failed(text)
    }
}

/// Percent-encodes what is not unreserved in a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for bad in ["", "localhost:8081", "ftp://x", "http://"] {
            assert!(
                matches!(Client::at(bad, None), Err(Failure::Usage(_))),
                "{bad}"
            );
        }
        let Err(e) = Client::at("https://games.example.com", None) else {
            panic!("accepted")
        };
        assert!(e.to_string().contains("ssh -L"));
    }

    #[test]
    fn anything_can_be_part_of_a_path() {
        assert_eq!(
            encode("a/b?c=\u{1f9c2} .."),
            "a%2Fb%3Fc%3D%F0%9F%A7%82%20.."
        );
    }

    #[test]
    fn problems_become_exit_codes_and_advice() {
        let not_found = Problem::new(spawnpoint_core::Code::SessionNotFound, "no such session");
        assert_eq!(refused(&not_found).exit_code(), crate::exit::NOT_FOUND);
        let keyless = Problem::new(spawnpoint_core::Code::Unauthenticated, "who are you");
        assert!(refused(&keyless).to_string().contains("SPAWNPOINT_KEY"));
        let full = Problem::new(spawnpoint_core::Code::QueueFull, "full");
        assert!(refused(&full).to_string().ends_with("try again in 10 s"));
    }
}
