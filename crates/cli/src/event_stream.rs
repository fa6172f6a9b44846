//! Server-sent events, as the server tells what happens.

use std::io::{BufRead, Read};

use serde_json::Value;

/// Longest line of an event stream, bytes: events are small.
const MAX_EVENT: u64 = 256 * 1024;

/// The next event of a stream; `None` at its end or when it is cut. Comments and fields other than data are passed over.
pub(crate) fn next_event(reader: &mut impl BufRead) -> Option<Value> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        let n = reader.by_ref().take(MAX_EVENT).read_line(&mut line).ok()?;
        if n == 0 {
            return None;
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            if let Ok(event) = serde_json::from_str(&data) {
                return Some(event);
            }
            data.clear();
        } else if let Some(text) = line.strip_prefix("data:")
            && data.len() + text.len() < usize::try_from(MAX_EVENT).unwrap_or(usize::MAX)
        {
            data.push_str(text.strip_prefix(' ').unwrap_or(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_browsers_read_them() {
        let text = ": comment\n\nid: 1-1\nevent: phase\ndata: {\"type\":\"phase\",\ndata: \"phase\":\"ready\"}\n\n: keep\r\ndata:{\"type\":\"ended\"}\r\n\r\ndata: cut";
        let mut reader = text.as_bytes();
        assert_eq!(next_event(&mut reader).unwrap()["phase"], "ready");
        assert_eq!(next_event(&mut reader).unwrap()["type"], "ended");
        assert_eq!(next_event(&mut reader), None, "a cut event is none");
    }
}
