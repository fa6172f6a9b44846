//! Ids, names and networks as callers send them.

use std::fmt::Display;
use std::str::FromStr;

use spawnpoint_core::{FleetName, InstanceId, PlayerId, SessionId, TicketId};
use spawnpoint_gateway::Network;

/// Longest sentence about an id, characters.
const MAX_SENTENCE: usize = 200;

pub(super) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    uuid::<SessionId>(&text);
    uuid::<InstanceId>(&text);
    uuid::<TicketId>(&text);
    if one_spelling::<PlayerId>(&text) {
        assert!((1..=256).contains(&text.chars().count()));
        assert!(!text.chars().any(char::is_control));
    }
    if one_spelling::<FleetName>(&text) {
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        assert!((1..=63).contains(&text.len()) && text.bytes().all(label));
        assert!(!text.starts_with('-') && !text.ends_with('-'));
    }
    if let Ok(network) = text.parse::<Network>() {
        let base = text.split('/').next().unwrap_or_default();
        let held = base.parse().is_ok_and(|ip| network.contains(ip));
        assert!(held, "{text} does not hold its own address");
    }
}

fn uuid<T: FromStr<Err: Display> + Display>(text: &str) {
    if one_spelling::<T>(text) {
        let form = |(i, c): (usize, u8)| match i {
            8 | 13 | 18 | 23 => c == b'-',
            _ => matches!(c, b'0'..=b'9' | b'a'..=b'f'),
        };
        assert!(text.len() == 36 && text.bytes().enumerate().all(form));
    }
}

/// Whether it is one; then it prints as it was read.
fn one_spelling<T: FromStr<Err: Display> + Display>(text: &str) -> bool {
    match text.parse::<T>() {
        Ok(id) => {
            assert_eq!(id.to_string(), text);
            true
        }
        Err(e) => {
            assert!(e.to_string().chars().count() <= MAX_SENTENCE);
            false
        }
    }
}
