//! The session file: who this game is for, and what the creator of the session wanted.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::config::ROUND_SECONDS;

/// The platform's payload limit is 16 KiB; the rest is ids of up to 100 players.
const MAX_BYTES: u64 = 256 * 1024;
/// A warm instance's file appears within about 0.2 s of the claim.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What this game takes from the file; everything else in it is somebody else's business.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SessionFacts {
    pub(crate) session_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) payload: Payload,
}

/// The creator's wishes, from the `payload` of `POST /api/new-game`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Payload {
    pub(crate) round_seconds: Option<u32>,
    pub(crate) seed: Option<u64>,
}

/// A payload that is not for this game is no reason to refuse to play.
fn lenient<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Payload, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let mut payload = Payload::deserialize(value).unwrap_or_default();
    payload.round_seconds = payload.round_seconds.filter(|s| ROUND_SECONDS.contains(s));
    Ok(payload)
}

pub(crate) fn parse(text: &str) -> Option<SessionFacts> {
    serde_json::from_str(text).ok()
}

/// Reads the file, waiting a moment for it to appear; `None` if it does not or is unreadable.
pub(crate) async fn read(path: &Path) -> Option<SessionFacts> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if let Ok(meta) = tokio::fs::metadata(path).await
            && meta.len() <= MAX_BYTES
            && let Ok(text) = tokio::fs::read_to_string(path).await
            && let Some(facts) = parse(&text)
        {
            return Some(facts);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_may_wish_and_may_be_anything() {
        let facts =
            parse(r#"{"version":1,"session_id":"s","payload":{"round_seconds":30,"seed":7}}"#);
        let payload = Payload {
            round_seconds: Some(30),
            seed: Some(7),
        };
        assert_eq!(
            facts,
            Some(SessionFacts {
                session_id: Some("s".into()),
                payload
            })
        );
        for text in [
            r#"{"session_id":"s","payload":null}"#,
            r#"{"session_id":"s","payload":"hi"}"#,
            r#"{"session_id":"s","payload":{"round_seconds":1}}"#,
            r#"{"session_id":"s"}"#,
        ] {
            assert_eq!(parse(text).unwrap().payload, Payload::default(), "{text}");
        }
        assert_eq!(parse("{"), None);
    }
}
