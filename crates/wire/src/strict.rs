//! Reading request bodies strictly and kindly: JSON whatever the content type says, both spellings of every field, unknown and
//! missing fields named, a field sent twice with different values refused.

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use spawnpoint_core::Code;

use crate::problem::Problem;

/// The fields of a body, in snake_case. Keeps serde's own list in one place for both "unknown field" and documents.
pub trait Body: DeserializeOwned {
    /// Fields this body knows, snake_case.
    const FIELDS: &'static [&'static str];
    /// Other names accepted, as (alias in snake_case, field).
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
}

/// Parses a request body.
///
/// # Errors
/// A [`Problem`] (400) that names the field.
pub fn parse<T: Body>(bytes: &[u8]) -> Result<T, Problem> {
    let blank = bytes.iter().all(u8::is_ascii_whitespace);
    let pairs: Pairs = if blank {
        Pairs(Vec::new())
    } else {
        serde_json::from_slice(bytes).map_err(|e| {
            Problem::new(
                Code::MalformedBody,
                format!(
                    "the body must be one JSON object: {}",
                    short(&e.to_string())
                ),
            )
        })?
    };
    let object = normalise::<T>(pairs)?;
    serde_path(Value::Object(object))
}

/// Most of a parser's own words that come back, characters: they repeat what was sent, which may be the whole body.
const MAX_WORDS: usize = 200;

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn serde_path<T: Body>(value: Value) -> Result<T, Problem> {
    // One field at a time tells which one is wrong, without a dependency for error paths.
    let Value::Object(object) = value else {
        return Err(Problem::new(
            Code::MalformedBody,
            "the body must be a JSON object",
        ));
    };
    T::deserialize(Value::Object(object.clone())).map_err(|e| {
        let text = e.to_string();
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|r| r.split('`').next());
        if let Some(field) = missing {
            return Problem::new(
                Code::MissingField,
                format!("the field {field:?} is required"),
            )
            .on(field);
        }
        let field = object.iter().find_map(|(k, _)| {
            let mut without = object.clone();
            without.remove(k);
            match T::deserialize(Value::Object(without)) {
                Ok(_) => Some(k.clone()),
                Err(other) if other.to_string() != text => Some(k.clone()),
                Err(_) => None,
            }
        });
        match field {
            Some(f) => Problem::new(
                Code::InvalidField,
                format!("the field {f:?} is not valid: {}", short(&text)),
            )
            .on(f),
            None => Problem::new(
                Code::InvalidField,
                format!("the body is not valid: {}", short(&text)),
            ),
        }
    })
}

fn normalise<T: Body>(pairs: Pairs) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for (sent, value) in pairs.0 {
        let mut name = snake(&sent);
        if let Some((_, field)) = T::ALIASES.iter().find(|(alias, _)| *alias == name) {
            (*field).clone_into(&mut name);
        }
        if !T::FIELDS.contains(&name.as_str()) {
            let known = T::FIELDS.join(", ");
            let shown: String = sent.chars().take(64).collect();
            return Err(Problem::new(
                Code::UnknownField,
                format!("the field {shown:?} is not known; this call takes: {known}"),
            )
            .on(shown));
        }
        match object.get(&name) {
            Some(before) if *before != value => {
                return Err(Problem::new(
                    Code::ConflictingFields,
                    format!("{:?} and {name:?} (or one of them twice) were sent with different values; send one", camel(&name)),
                )
                .on(name));
            }
            _ => {
                object.insert(name, value);
            }
        }
    }
    Ok(object)
}

/// `playerId` -> `player_id`; what is snake_case already stays.
#[must_use]
pub fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() {
            if i > 0 {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// `player_id` -> `playerId`.
#[must_use]
pub fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        if c == '_' {
            up = true;
        } else if up {
            out.push(c.to_ascii_uppercase());
            up = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// An object as it was sent: a map would silently keep the last of two equal keys.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        d.deserialize_map(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct NewGame {
        player_id: String,
        #[serde(default)]
        players: Vec<String>,
        payload: Option<Value>,
    }

    impl Body for NewGame {
        const FIELDS: &'static [&'static str] = &["player_id", "players", "payload"];
        const ALIASES: &'static [(&'static str, &'static str)] = &[("user_id", "player_id")];
    }

    fn code(text: &str) -> (String, Option<String>) {
        let p = parse::<NewGame>(text.as_bytes()).unwrap_err();
        (p.code, p.field)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let a = parse::<NewGame>(br#"{"playerId":"x","payload":{"keepMe":1}}"#).unwrap();
        let b = parse::<NewGame>(br#"{"player_id":"x","payload":{"keepMe":1}}"#).unwrap();
        assert_eq!(a, b);
        assert_eq!(
            a.payload.unwrap()["keepMe"],
            1,
            "what is inside the payload is the game's"
        );
        assert!(
            parse::<NewGame>(br#"{"player_id":"x","playerId":"x"}"#).is_ok(),
            "both and equal"
        );
        assert!(parse::<NewGame>(br#"{"userId":"x"}"#).is_ok());
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(
            code(r#"{"player_id":"x","playerId":"y"}"#),
            ("conflicting_fields".into(), Some("player_id".into()))
        );
        assert_eq!(
            code(r#"{"player_id":"x","player_id":"y"}"#).0,
            "conflicting_fields"
        );
        assert_eq!(
            code(r#"{"playerId":"x","nope":1}"#),
            ("unknown_field".into(), Some("nope".into()))
        );
        assert_eq!(
            code(r#"{"playerId":7}"#),
            ("invalid_field".into(), Some("player_id".into()))
        );
        assert_eq!(
            code(r#"{"playerId":"x","players":{"a":1}}"#),
            ("invalid_field".into(), Some("players".into()))
        );
        assert_eq!(
            code("{}"),
            ("missing_field".into(), Some("player_id".into()))
        );
        assert_eq!(code(""), ("missing_field".into(), Some("player_id".into())));
        for bad in [
            "[]",
            "{",
            "null",
            "1",
            "{\"playerId\":\"x\"} trailing",
            "\u{feff}{}",
        ] {
            assert_eq!(code(bad).0, "malformed_body", "{bad}");
        }
    }

    #[test]
    fn a_number_of_the_games_is_passed_on_as_it_was_sent() {
        for sent in [
            "0.11711111111111111",
            "0.10700000000000001",
            "6.100029174392375e177",
        ] {
            let body = format!(r#"{{"player_id":"x","payload":{sent}}}"#);
            let read = parse::<NewGame>(body.as_bytes()).unwrap().payload.unwrap();
            assert_eq!(read.as_f64(), sent.parse().ok(), "{sent}");
            let again: Value = serde_json::from_str(&read.to_string()).unwrap();
            assert_eq!(again, read);
        }
    }

    #[test]
    fn a_body_does_not_come_back_in_its_error() {
        let long = "\u{1f9c2}".repeat(10_000);
        for body in [
            format!("{long:?}"),
            format!("{{\"players\":{long:?}}}"),
            format!("{{\"player_id\":[{long:?}]}}"),
        ] {
            let p = parse::<NewGame>(body.as_bytes()).unwrap_err();
            assert!(p.detail.chars().count() < 300, "{}", p.detail.len());
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!(
            "{{\"payload\":{}{}}}",
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(code(&deep).0, "malformed_body");
    }
}
