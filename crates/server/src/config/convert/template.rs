//! How an instance is run: its command and variables, its pool and how it is known to be ready.

use std::collections::BTreeMap;
use std::time::Duration;

use spawnpoint_runtime::ReadyRule;
use spawnpoint_wire::strict::{camel, snake};

use super::{Converted, count, is_none, loose_structure, positive_or_none, text, wants, whole};
use crate::config::error::nearest;
use crate::config::value::{Node, Value};

/// Longest argument or variable, bytes: what the kernel takes for one string.
const MAX_ARGUMENT: usize = 128 * 1_024 - 1;
/// Most arguments or variables of one command.
const MAX_ARGUMENTS: usize = 1_024;
/// Most warm instances of one fleet: each is a process.
const MAX_WARM: u32 = 10_000;

/// A program and its arguments.
pub(in crate::config) fn command(v: &Value) -> Converted<Vec<String>> {
    let structured = loose_structure(v)?;
    match structured.as_ref().unwrap_or(v) {
        Value::List(items) if !items.is_empty() && items.len() <= MAX_ARGUMENTS => {
            let words: Option<Vec<String>> = items
                .iter()
                .map(|n| match &n.value {
                    Value::Text(s) if s.len() <= MAX_ARGUMENT && !s.contains('\0') => {
                        Some(s.clone())
                    }
                    _ => None,
                })
                .collect();
            match words {
                Some(words) if words.first().is_some_and(|w| !w.is_empty()) => Ok(words),
                _ => wants(
                    "a list of texts, the program first: [\"./server\", \"--port\", \"$(PORT)\"]",
                ),
            }
        }
        Value::Text(s) if !s.trim().is_empty() => {
            let words: Vec<String> = s.split_whitespace().map(|w| format!("{w:?}")).collect();
            wants(format!("a list: [{}]", words.join(", ")))
        }
        _ => wants("a list of texts, the program first: [\"./server\", \"--port\", \"$(PORT)\"]"),
    }
}

/// Variables for the game. Values may be secrets: no error shows one.
pub(in crate::config) fn environment(v: &Value) -> Converted<BTreeMap<String, String>> {
    let structured = loose_structure(v)?;
    let Value::Table(pairs) = structured.as_ref().unwrap_or(v) else {
        return wants("a table of texts: { NAME = \"value\" }");
    };
    if pairs.len() > MAX_ARGUMENTS {
        return wants(format!("at most {MAX_ARGUMENTS} variables"));
    }
    pairs
        .iter()
        .map(|(name, node)| {
            let shown = name.escape_debug();
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{shown:?} is not a variable's name"));
            }
            if name == "PORT" || name == "SESSION_ID" || name.starts_with("SPAWNPOINT_") {
                return Err(format!(
                    "{shown} is given by Spawnpoint itself and cannot be set"
                ));
            }
            let value = match &node.value {
                Value::Text(s) => s.clone(),
                Value::Integer(i) => i.to_string(),
                Value::Float(f) => f.to_string(),
                Value::Bool(b) => b.to_string(),
                _ => return Err(format!("{shown} must be text")),
            };
            if value.contains('\0') || value.len() > MAX_ARGUMENT {
                return Err(format!("{shown} is too long or contains a NUL character"));
            }
            Ok((name.clone(), value))
        })
        .collect()
}

/// Free text labels.
pub(in crate::config) fn labels(v: &Value) -> Converted<BTreeMap<String, String>> {
    let structured = loose_structure(v)?;
    let form = || {
        wants(format!(
            "a table of at most {MAX_LABELS} texts: {{ team = \"a\" }}"
        ))
    };
    let Value::Table(pairs) = structured.as_ref().unwrap_or(v) else {
        return form();
    };
    if pairs.len() > MAX_LABELS {
        return form();
    }
    pairs
        .iter()
        .map(|(name, node)| Ok((name.clone(), text(&node.value)?)))
        .collect::<Converted<_>>()
        .or_else(|_| form())
}

/// Most labels of a fleet.
const MAX_LABELS: usize = 64;

/// What `warm` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Warm {
    pub(in crate::config) replicas: u32,
    pub(in crate::config) allowed: bool,
    pub(in crate::config) max_age: Option<Duration>,
}

/// The warm pool.
pub(in crate::config) fn warm(v: &Value) -> Converted<Warm> {
    const FORM: &str = "a number, { replicas = 2, max_age = \"1h\" }, or \"none\" for a server that must have everything in its environment";
    let structured = loose_structure(v)?;
    let v = structured.as_ref().unwrap_or(v);
    if is_none(v) {
        return Ok(Warm {
            replicas: 0,
            allowed: false,
            max_age: None,
        });
    }
    let number = |v: &Value| {
        count(v, 0, MAX_WARM).map_or_else(|| wants(format!("a number from 0 to {MAX_WARM}")), Ok)
    };
    match v {
        Value::Text(s) | Value::Loose(s) if s.trim() == "auto" => {
            Err("demand-sized pools are not in this release: give a number".into())
        }
        Value::Integer(_) | Value::Loose(_) => Ok(Warm {
            replicas: number(v).or_else(|e| {
                if whole(v).is_some() {
                    Err(e)
                } else {
                    wants(FORM)
                }
            })?,
            allowed: true,
            max_age: None,
        }),
        Value::Table(pairs) => {
            let fields = fields(pairs, &["replicas", "max_age"])?;
            let replicas = fields.get("replicas").map_or(Ok(0), |n| {
                number(&n.value).map_err(|e| format!("replicas {e}"))
            })?;
            let max_age = fields.get("max_age").map_or(Ok(None), |n| {
                positive_or_none(&n.value).map_err(|e| format!("max_age {e}"))
            })?;
            Ok(Warm {
                replicas,
                allowed: true,
                max_age,
            })
        }
        _ => wants(FORM),
    }
}

/// The fields of an inline table, by their snake_case names.
fn fields<'n>(
    pairs: &'n [(String, Node)],
    known: &[&str],
) -> Converted<BTreeMap<String, &'n Node>> {
    let mut all: BTreeMap<String, &Node> = BTreeMap::new();
    for (written, node) in pairs {
        let name = snake(written);
        if !known.contains(&name.as_str()) {
            let hint = nearest(&name, known.iter().copied()).map_or_else(
                || format!("it takes {}", known.join(", ")),
                |n| format!("did you mean {n:?}?"),
            );
            return Err(format!(
                "{:?} is not known in it; {hint}",
                written.escape_debug().to_string()
            ));
        }
        if let Some(before) = all.insert(name.clone(), node)
            && before.value != node.value
        {
            return Err(format!(
                "{name:?} and {:?} are both given and differ: keep one",
                camel(&name)
            ));
        }
    }
    Ok(all)
}

/// The ready rule.
pub(in crate::config) fn ready(v: &Value) -> Converted<ReadyRule> {
    const FORM: &str = "\"dial\", { http = \"/path\" }, { log = \"text\" }, \"sdk\" or \"none\"";
    let structured = loose_structure(v)?;
    match structured.as_ref().unwrap_or(v) {
        Value::Text(s) | Value::Loose(s) => match s.trim() {
            "dial" => Ok(ReadyRule::Dial),
            "sdk" => Ok(ReadyRule::Sdk),
            "none" => Ok(ReadyRule::None),
            _ => wants(FORM),
        },
        Value::Table(pairs) => {
            let fields = fields(pairs, &["http", "log"])?;
            match (fields.get("http"), fields.get("log")) {
                (Some(n), None) => {
                    let path = text(&n.value).unwrap_or_default();
                    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
                        Ok(ReadyRule::Http(path))
                    } else {
                        Err("http must be a path such as \"/healthz\"".into())
                    }
                }
                (None, Some(n)) => Ok(ReadyRule::Log(
                    text(&n.value).map_err(|e| format!("log {e}"))?,
                )),
                _ => wants(FORM),
            }
        }
        _ => wants(FORM),
    }
}
