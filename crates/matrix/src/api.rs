//! The HTTP API, as a player or an operator calls it.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};

/// Longest answer: some calls are held by the server for seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer; a page of 500 records with their logs' ends.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// An answer: its status and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn text(&self, field: &str) -> Option<String> {
        self.body[field].as_str().map(str::to_owned)
    }
}

/// One listener of a server that comes and goes.
#[derive(Clone)]
pub(crate) struct Api {
    agent: Agent,
    base: String,
}

impl Api {
    pub(crate) fn at(base: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .timeout_global(Some(ANSWER))
            .build()
            .new_agent();
        Self { agent, base }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, String> {
        self.call(Method::GET, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.call(Method::POST, path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer, String> {
        self.call(Method::DELETE, path, None)
    }

    /// The error is that nobody answered, or not whole: what was asked for may have been done.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let name = method.to_string();
        let failed = |e: &dyn std::fmt::Display| format!("{name} {path}: {e}");
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        let response = match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(body.to_string())
                .map_err(|e| failed(&e))
                .and_then(|r| self.agent.run(r).map_err(|e| failed(&e))),
            None => request
                .body(())
                .map_err(|e| failed(&e))
                .and_then(|r| self.agent.run(r).map_err(|e| failed(&e))),
        }?;
        let status = response.status().as_u16();
        let text = response
            .into_body()
            .into_with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(|e| failed(&e))?;
        // What is no JSON (metrics) is kept as text.
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }
}
