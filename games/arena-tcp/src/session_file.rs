//! The session file: which session this server is for, where it was not known at start.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// The platform's payload limit is 16 KiB; the rest is ids of up to 100 players.
const MAX_BYTES: u64 = 256 * 1024;
/// A warm instance's file appears within about 0.2 s of the claim.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What this game takes from the file; everything else in it is somebody else's business.
#[derive(Debug, Deserialize)]
struct Facts {
    session_id: Option<String>,
}

/// The session's id, waiting a moment for the file to appear; `None` if it does not or is unreadable.
pub(crate) async fn session_id(path: &Path) -> Option<String> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(id) = read(path).await {
            return Some(id);
        }
    }
    None
}

/// As it is now.
pub(crate) async fn read(path: &Path) -> Option<String> {
    let meta = tokio::fs::metadata(path).await.ok()?;
    if meta.len() > MAX_BYTES {
        return None;
    }
    let text = tokio::fs::read_to_string(path).await.ok()?;
    parse(&text)
}

/// What a file of this text says.
pub(crate) fn parse(text: &str) -> Option<String> {
    serde_json::from_str::<Facts>(text).ok()?.session_id
}
