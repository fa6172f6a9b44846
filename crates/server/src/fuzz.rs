//! What the private parsers of this crate promise, for the workspace member `fuzz`: functions from bytes that panic when a promise
//! is broken.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::config::{
    Config, MAX_DURATION, Overrides, Parsed, parse, parse_duration, show_duration, units,
};
use crate::http::request::{duration, parse_query};

/// Longest text of one configuration error, characters.
const MAX_ERROR: usize = 2_000;
/// A size is a number of bytes that the kernel takes.
const MAX_SIZE: u64 = 9_000_000_000_000_000_000;
/// Longest duration a request may name, seconds.
const CENTURY: f64 = 3.2e9;

/// A configuration file. Lines such as `#env NAME=VALUE` and `#flag PATH=VALUE` are its environment and its flags.
pub fn config_file(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut env = BTreeMap::from([("HOME".to_owned(), "home".to_owned())]);
    let mut overrides = Overrides::at(Some("base".into()), Some("caller".into()));
    for line in text.lines() {
        let said = |word: &str| line.strip_prefix(word)?.split_once('=');
        if let Some((name, value)) = said("#env ") {
            env.insert(name.trim().to_owned(), value.to_owned());
        }
        if let Some((path, value)) = said("#flag ") {
            overrides.set(path.trim(), "--flag", value);
        }
    }
    let env = |name: &str| env.get(name).cloned();
    let read = parse(&text, &env, &overrides);
    assert_eq!(read, parse(&text, &env, &overrides), "twice the same");
    match read {
        Ok(parsed) => {
            holds(&parsed.config);
            hides(&parsed);
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for e in errors {
                assert!(e.code().starts_with("config_"));
                let text = e.to_string();
                assert!(text.chars().count() <= MAX_ERROR, "{} bytes", text.len());
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
}

fn holds(config: &Config) {
    let server = &config.server;
    assert!(!config.fleets.is_empty());
    assert!(!server.public.is_empty() && !server.admin.is_empty() && !server.sdk.is_empty());
    for (first, last) in [server.instance_ports, server.tcp_ports] {
        assert!(first > 0 && first <= last);
    }
    for key in &server.keys {
        assert!(key.secret.chars().count() >= 16 && !key.name.is_empty());
    }
    let names: BTreeSet<_> = config.fleets.iter().map(|f| &f.name).collect();
    assert_eq!(names.len(), config.fleets.len(), "one fleet of a name");
    for fleet in &config.fleets {
        assert!(!fleet.template.command.is_empty());
        assert!(fleet.max_instances.is_none_or(|most| most >= fleet.warm));
    }
    let queues: BTreeSet<_> = config.queues.iter().map(|q| &q.name).collect();
    assert_eq!(queues.len(), config.queues.len(), "one queue of a name");
    for queue in &config.queues {
        assert!(names.contains(&queue.fleet));
    }
    // Whatever the public address is, this machine's own names are answered and `null` never is.
    let access = server.access();
    assert!(access.host_allowed("localhost:8080") && !access.origin_allowed("null", None));
}

fn hides(parsed: &Parsed) {
    let keys = parsed.settings.iter().filter(|s| s.path == "server.keys");
    for setting in keys {
        assert!(
            matches!(setting.value.as_str(), "(hidden)" | ""),
            "{setting:?}"
        );
    }
}

/// Durations, sizes and cores as people write them, and durations in requests.
pub fn config_units(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(d) = parse_duration(&text) {
        assert!(d <= MAX_DURATION);
        assert_eq!(parse_duration(&show_duration(d)), Some(d), "{text:?}");
    }
    if let Some(bytes) = units::size(&text) {
        assert!(bytes <= MAX_SIZE);
    }
    if let Some(millis) = units::cpu(&text) {
        assert_eq!(units::cpu(&format!("{millis}m")), Some(millis));
    }
    in_a_request(&Value::String(text.clone().into_owned()));
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        in_a_request(&value);
    }
}

fn in_a_request(value: &Value) {
    match duration(value, "by") {
        Ok(d) => {
            assert!(d > Duration::ZERO, "{value} is nothing");
            assert!(d.as_secs_f64() <= CENTURY);
        }
        Err(refused) => {
            assert_eq!(refused.0.code, "invalid_field");
            assert_eq!(refused.0.field.as_deref(), Some("by"));
        }
    }
}

/// The query of a request.
pub fn query_string(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some(pairs) = parse_query(text) else {
        return;
    };
    assert!(pairs.len() <= text.split('&').count());
    let encode = |s: &str| {
        percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let written: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    assert_eq!(parse_query(&written.join("&")), Some(pairs));
}
