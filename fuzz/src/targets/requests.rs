//! Bodies of the HTTP API.

use serde::Serialize;
use serde_json::{Map, Value};
use spawnpoint_wire::api::{
    EndBody, ExtendBody, HeartbeatBody, JoinBody, MatchJoin, MatchLeave, NewGame, SdkActivity,
    SdkEnd, SdkReady, TokenBody,
};
use spawnpoint_wire::strict::{Body, camel, parse};

/// The codes that a body can be refused with.
const CODES: [&str; 5] = [
    "malformed_body",
    "unknown_field",
    "missing_field",
    "invalid_field",
    "conflicting_fields",
];
/// Longest sentence about a body, characters: it goes into logs too.
const MAX_DETAIL: usize = 600;

/// Every type reads the same bytes: what is a body of one call is a mistake in another.
pub(super) fn check(bytes: &[u8]) {
    body::<NewGame>(bytes);
    body::<HeartbeatBody>(bytes);
    body::<ExtendBody>(bytes);
    body::<EndBody>(bytes);
    body::<JoinBody>(bytes);
    body::<TokenBody>(bytes);
    body::<MatchJoin>(bytes);
    body::<MatchLeave>(bytes);
    body::<SdkActivity>(bytes);
    body::<SdkEnd>(bytes);
    body::<SdkReady>(bytes);
}

fn body<T: Body + Serialize>(bytes: &[u8]) {
    match parse::<T>(bytes) {
        Ok(read) => {
            let value = value_of(&read);
            assert_eq!(reread::<T>(&value), value, "snake_case");
            let respelled: Map<String, Value> = match &value {
                Value::Object(fields) => {
                    fields.iter().map(|(k, v)| (camel(k), v.clone())).collect()
                }
                other => unreachable!("a body is an object, not {other}"),
            };
            assert_eq!(reread::<T>(&Value::Object(respelled)), value, "camelCase");
        }
        Err(problem) => {
            assert!(CODES.contains(&problem.code.as_str()), "{}", problem.code);
            assert_eq!(problem.status, 400);
            let said = problem.detail.chars().count();
            assert!(said <= MAX_DETAIL, "{said} characters: {}", problem.detail);
            assert!(problem.field.is_none_or(|f| f.chars().count() <= 64));
        }
    }
}

fn value_of<T: Serialize>(read: &T) -> Value {
    match serde_json::to_value(read) {
        Ok(value) => value,
        Err(e) => unreachable!("what was read cannot be written: {e}"),
    }
}

fn reread<T: Body + Serialize>(value: &Value) -> Value {
    match parse::<T>(value.to_string().as_bytes()) {
        Ok(read) => value_of(&read),
        Err(problem) => unreachable!("what was written is refused: {problem:?}"),
    }
}
