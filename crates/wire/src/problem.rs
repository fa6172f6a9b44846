//! Problem documents (RFC 9457).

use serde::{Deserialize, Serialize};
use spawnpoint_core::{Code, Coded, Retry};
use utoipa::ToSchema;

/// What every error body looks like, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `https://spawnpoint.dev/problems/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// One sentence that says what was wrong and what to do.
    pub detail: String,
    /// The field or parameter it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Try again after this many seconds; absent where retrying does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// Names this request in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// The problem for a code, with a sentence of the caller's.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let text = code.as_str();
        let mut title = text.replace('_', " ");
        if let Some(first) = title.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        Self {
            kind: format!("https://spawnpoint.dev/problems/{text}"),
            title,
            status: code.status(),
            code: text.to_owned(),
            detail: detail.into(),
            field: None,
            retry_after: match code.retry() {
                Retry::No => None,
                Retry::After(s) => Some(s),
            },
            request_id: None,
        }
    }

    /// Names the field it is about.
    #[must_use]
    pub fn on(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl<E: Coded> From<E> for Problem {
    fn from(e: E) -> Self {
        Self::new(e.code(), e.to_string())
    }
}
