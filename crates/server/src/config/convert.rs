//! From what was written to what it means: one function per form of value. The error is what is allowed, as a sentence's end.

mod network;
mod template;

use std::path::PathBuf;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::{ActivityRule, EndRule, Joinable, OnCrash};
use spawnpoint_core::limits::MAX_PLAYERS;
use spawnpoint_core::matching::{Limit, MAX_REGIONS};
use spawnpoint_runtime::Protocol;
use spawnpoint_wire::strict::snake;
use spawnpoint_wire::tcp::TokenRule;

use super::Expose;
use super::units::{self, CPU_FORM, DURATION_FORM, SIZE_FORM};
use super::value::Value;

pub(super) use network::{bind_addresses, hosts, keys, origins, public_url};
pub(super) use template::{Warm, command, environment, labels, ready, warm};

/// Longest text of a label, path or log pattern, characters.
const MAX_TEXT: usize = 1_024;
/// Most entries of a list such as allowed hosts or keys.
const MAX_LIST: usize = 1_024;
/// Least memory worth asking for, bytes: below it nothing starts, so it is a mistake in the unit.
const MIN_MEMORY: u64 = 1024 * 1024;

type Converted<T> = Result<T, String>;

fn wants<T>(form: impl Into<String>) -> Converted<T> {
    Err(format!("must be {}", form.into()))
}

/// Any text that is not empty.
pub(in crate::config) fn text(v: &Value) -> Converted<String> {
    match v {
        Value::Text(s) | Value::Loose(s)
            if !s.is_empty()
                && s.chars().count() <= MAX_TEXT
                && !s.chars().any(char::is_control) =>
        {
            Ok(s.clone())
        }
        _ => wants(format!("text of 1 to {MAX_TEXT} printable characters")),
    }
}

/// true or false.
pub(in crate::config) fn boolean(v: &Value) -> Converted<bool> {
    match v {
        Value::Bool(b) => Ok(*b),
        Value::Loose(s) => match s.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => wants("true or false"),
        },
        _ => wants("true or false"),
    }
}

fn whole(v: &Value) -> Option<i64> {
    match v {
        Value::Integer(i) => Some(*i),
        Value::Loose(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn count(v: &Value, from: u32, to: u32) -> Option<u32> {
    whole(v)
        .and_then(|i| u32::try_from(i).ok())
        .filter(|n| (from..=to).contains(n))
}

fn is_none(v: &Value) -> bool {
    matches!(v, Value::Text(s) | Value::Loose(s) if s.trim().eq_ignore_ascii_case("none"))
}

/// A TCP port; 0 lets the system pick.
pub(in crate::config) fn port(v: &Value) -> Converted<u16> {
    whole(v)
        .and_then(|i| u16::try_from(i).ok())
        .map_or_else(|| wants("a port from 0 (any free one) to 65535"), Ok)
}

/// A port that a game insists on.
pub(in crate::config) fn game_port(v: &Value) -> Converted<u16> {
    whole(v)
        .and_then(|i| u16::try_from(i).ok())
        .filter(|p| *p > 0)
        .map_or_else(|| wants("a port from 1 to 65535"), Ok)
}

/// First and last of a range of ports.
pub(in crate::config) fn port_range(v: &Value) -> Converted<(u16, u16)> {
    let parsed = match v {
        Value::Text(s) | Value::Loose(s) => s
            .split_once('-')
            .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?))),
        Value::List(items) => match items.as_slice() {
            [a, b] => port(&a.value).ok().zip(port(&b.value).ok()),
            _ => None,
        },
        _ => None,
    };
    match parsed {
        Some((a, b)) if a >= 1_024 && a <= b => Ok((a, b)),
        _ => wants(
            "a range such as \"20000-24999\", from 1024 up, the first port not above the last",
        ),
    }
}

/// A duration; 0 is allowed.
pub(in crate::config) fn duration(v: &Value) -> Converted<Duration> {
    let d = match v {
        Value::Text(s) | Value::Loose(s) => units::parse_duration(s),
        #[expect(
            clippy::cast_precision_loss,
            reason = "ten years of seconds are exact in f64; more is refused"
        )]
        Value::Integer(i) => units::seconds(Some(*i as f64)),
        Value::Float(f) => units::seconds(Some(*f)),
        _ => None,
    };
    d.map_or_else(|| wants(DURATION_FORM), Ok)
}

/// A duration longer than 0.
pub(in crate::config) fn positive(v: &Value) -> Converted<Duration> {
    match duration(v) {
        Ok(d) if d.is_zero() => wants(format!("longer than 0: {DURATION_FORM}")),
        other => other,
    }
}

/// A duration longer than 0, or "none" for unlimited.
pub(in crate::config) fn positive_or_none(v: &Value) -> Converted<Option<Duration>> {
    if is_none(v) {
        return Ok(None);
    }
    match duration(v) {
        Ok(d) if d.is_zero() => wants(format!(
            "longer than 0 (0 would end it at once; only \"none\" is unlimited): {DURATION_FORM}"
        )),
        Ok(d) => Ok(Some(d)),
        Err(_) => wants(format!("{DURATION_FORM}, or \"none\" for unlimited")),
    }
}

/// A list of durations, longest first.
pub(in crate::config) fn durations(v: &Value) -> Converted<Vec<Duration>> {
    let form = || {
        wants(format!(
            "a list of durations longer than 0, such as [\"60s\", \"10s\"], at most {MAX_WARNINGS}"
        ))
    };
    let mut all = match v {
        _ if is_none(v) => Vec::new(),
        Value::List(items) => items
            .iter()
            .map(|n| positive(&n.value))
            .collect::<Result<Vec<_>, _>>()
            .or_else(|_| form())?,
        Value::Loose(s) => {
            let items = s.split(',').filter(|p| !p.trim().is_empty());
            items
                .map(|p| positive(&Value::Loose(p.trim().to_owned())))
                .collect::<Result<Vec<_>, _>>()
                .or_else(|_| form())?
        }
        _ => return form(),
    };
    if all.len() > MAX_WARNINGS {
        return form();
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup();
    Ok(all)
}

/// Most warnings before a cull; more would be noise.
const MAX_WARNINGS: usize = 8;

/// Memory in bytes.
pub(in crate::config) fn memory(v: &Value) -> Converted<u64> {
    let bytes = match v {
        Value::Text(s) | Value::Loose(s) => units::size(s),
        Value::Integer(i) => u64::try_from(*i).ok(),
        _ => None,
    };
    match bytes {
        Some(b) if b >= MIN_MEMORY => Ok(b),
        Some(_) => wants(format!("at least 1Mi: {SIZE_FORM}")),
        None => wants(SIZE_FORM),
    }
}

/// How much of a log is kept, bytes, or none of it.
pub(in crate::config) fn log_size_or_none(v: &Value) -> Converted<Option<u64>> {
    const FORM: &str = "a size such as \"64Mi\" of at least 1Mi, or \"none\"";
    let bytes = match v {
        Value::Text(s) | Value::Loose(s) if s == "none" => return Ok(None),
        Value::Text(s) | Value::Loose(s) => units::size(s),
        Value::Integer(i) => u64::try_from(*i).ok(),
        _ => None,
    };
    match bytes.filter(|b| *b >= crate::journal::LEAST_KEPT) {
        Some(bytes) => Ok(Some(bytes)),
        None => wants(FORM),
    }
}

/// Thousandths of a core.
pub(in crate::config) fn cpu(v: &Value) -> Converted<u32> {
    let millis = match v {
        Value::Text(s) | Value::Loose(s) => units::cpu(s),
        #[expect(
            clippy::cast_precision_loss,
            reason = "more cores than f64 counts exactly are refused anyway"
        )]
        Value::Integer(i) => units::cores(*i as f64),
        Value::Float(f) => units::cores(*f),
        _ => None,
    };
    millis
        .filter(|m| *m > 0)
        .map_or_else(|| wants(CPU_FORM), Ok)
}

fn choice<T: Copy>(v: &Value, options: &[(&str, T)]) -> Converted<T> {
    if let Value::Text(s) | Value::Loose(s) = v {
        let wanted = snake(s.trim());
        if let Some((_, value)) = options
            .iter()
            .find(|(name, _)| *name == wanted || *name == s.trim().to_ascii_lowercase())
        {
            return Ok(*value);
        }
    }
    let names: Vec<String> = options
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    wants(format!("one of {}", names.join(", ")))
}

/// What the game speaks.
pub(in crate::config) fn protocol(v: &Value) -> Converted<Protocol> {
    choice(
        v,
        &[
            ("websocket", Protocol::WebSocket),
            ("http", Protocol::Http),
            ("tcp", Protocol::Tcp),
            ("udp", Protocol::Udp),
        ],
    )
}

/// How players reach it.
pub(in crate::config) fn expose(v: &Value) -> Converted<Expose> {
    if let Value::Text(s) | Value::Loose(s) = v
        && matches!(
            snake(s.trim()).as_str(),
            "node_port" | "dns" | "ingress" | "http_route"
        )
    {
        return Err("is for Kubernetes, which this release does not run on: use \"gateway\" or \"host_port\"".into());
    }
    choice(
        v,
        &[
            ("gateway", Expose::Gateway),
            ("host_port", Expose::HostPort),
        ],
    )
}

/// Who must bring a token to a TCP game.
pub(in crate::config) fn tcp_auth(v: &Value) -> Converted<TokenRule> {
    choice(
        v,
        &[("required", TokenRule::Always), ("none", TokenRule::Never)],
    )
}

/// What counts as activity.
pub(in crate::config) fn activity(v: &Value) -> Converted<ActivityRule> {
    choice(
        v,
        &[
            ("client_data", ActivityRule::ClientData),
            ("any", ActivityRule::Any),
            ("heartbeat", ActivityRule::Heartbeat),
        ],
    )
}

/// What a crash leads to.
pub(in crate::config) fn on_crash(v: &Value) -> Converted<OnCrash> {
    choice(
        v,
        &[
            ("replace", OnCrash::Replace),
            ("restart", OnCrash::Restart),
            ("end", OnCrash::End),
        ],
    )
}

/// Whose end call counts.
pub(in crate::config) fn end_by(v: &Value) -> Converted<EndRule> {
    choice(
        v,
        &[
            ("owner", EndRule::Owner),
            ("any", EndRule::Any),
            ("all", EndRule::All),
        ],
    )
}

/// Who may join.
pub(in crate::config) fn joinable(v: &Value) -> Converted<Joinable> {
    choice(
        v,
        &[
            ("open", Joinable::Open),
            ("invite", Joinable::Invite),
            ("closed", Joinable::Closed),
        ],
    )
}

/// Most players of one session.
pub(in crate::config) fn players(v: &Value) -> Converted<usize> {
    let most = u32::try_from(MAX_PLAYERS).unwrap_or(u32::MAX);
    count(v, 1, most).map_or_else(
        || wants(format!("a number from 1 to {MAX_PLAYERS}")),
        |n| Ok(n as usize),
    )
}

/// A number from 1 up, or "none" for unlimited.
pub(in crate::config) fn count_or_none(v: &Value) -> Converted<Option<u32>> {
    if is_none(v) {
        return Ok(None);
    }
    count(v, 1, 1_000_000).map_or_else(
        || wants("a number from 1 to 1000000, or \"none\" for unlimited"),
        |n| Ok(Some(n)),
    )
}

/// A rate per minute.
pub(in crate::config) fn rate(v: &Value) -> Converted<u32> {
    count(v, 1, 1_000_000).map_or_else(|| wants("a number from 1 to 1000000"), Ok)
}

/// A fleet's name.
pub(in crate::config) fn fleet_name(v: &Value) -> Converted<FleetName> {
    match v {
        Value::Text(s) | Value::Loose(s) => {
            s.parse().map_err(|e| format!("is not a fleet name: {e}"))
        }
        _ => wants("text: lower-case letters, digits and hyphens"),
    }
}

/// A queue's name.
pub(in crate::config) fn queue_name(v: &Value) -> Converted<FleetName> {
    match v {
        Value::Text(s) | Value::Loose(s) => s.parse().map_err(|_| QUEUE_NAME.to_owned()),
        _ => Err(QUEUE_NAME.to_owned()),
    }
}

const QUEUE_NAME: &str =
    "must be a queue's name: lower-case letters, digits and inner hyphens, at most 63";

/// Players of one match.
pub(in crate::config) fn session_size(v: &Value) -> Converted<u32> {
    let most = u32::try_from(MAX_PLAYERS).unwrap_or(u32::MAX);
    count(v, 1, most).map_or_else(|| wants(format!("a number from 1 to {MAX_PLAYERS}")), Ok)
}

/// Failed matches that a ticket lives through.
pub(in crate::config) fn failures(v: &Value) -> Converted<u32> {
    count(v, 1, 100).map_or_else(|| wants("a number from 1 to 100"), Ok)
}

/// A limit that relaxes with waiting, or "none".
pub(in crate::config) fn limit(v: &Value) -> Converted<Option<Limit>> {
    const FORM: &str =
        "{ start = 100, per_second = 10, most = 500 }, a number that never relaxes, or \"none\"";
    let number = |v: &Value| match v {
        #[expect(
            clippy::cast_precision_loss,
            reason = "skills and milliseconds are far below 2^52"
        )]
        Value::Integer(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        Value::Loose(s) => s.trim().parse().ok(),
        _ => None,
    };
    if is_none(v) {
        return Ok(None);
    }
    if let Some(n) = number(v) {
        return Ok(Some(Limit {
            start: n,
            per_second: 0.0,
            most: n,
        }));
    }
    let structured = loose_structure(v)?;
    let Value::Table(pairs) = structured.as_ref().unwrap_or(v) else {
        return wants(FORM);
    };
    let (mut start, mut per_second, mut most) = (None, None, None);
    for (name, node) in pairs {
        let slot = match snake(name).as_str() {
            "start" => &mut start,
            "per_second" => &mut per_second,
            "most" => &mut most,
            _ => return wants(FORM),
        };
        *slot = Some(number(&node.value).map_or_else(|| wants(FORM), Ok)?);
    }
    let start = start.map_or_else(|| wants(FORM), Ok)?;
    let per_second = per_second.unwrap_or(0.0);
    let most = match most {
        Some(most) => most,
        // It relaxes and nobody says how far: as far as it takes.
        None if per_second > 0.0 => f64::from(u32::MAX),
        None => start,
    };
    Ok(Some(Limit {
        start,
        per_second,
        most,
    }))
}

/// Names of regions, each once.
pub(in crate::config) fn regions(v: &Value) -> Converted<Vec<String>> {
    let structured = loose_structure(v)?;
    let names = list(structured.as_ref().unwrap_or(v));
    let fine = |name: &String| {
        (1..=MAX_REGION_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    match names {
        Some(mut names) if names.len() <= usize::from(MAX_REGIONS) && names.iter().all(fine) => {
            let mut seen = std::collections::HashSet::new();
            names.retain(|n| seen.insert(n.clone()));
            Ok(names)
        }
        _ => wants(format!(
            "a list of at most {MAX_REGIONS} names of 1 to {MAX_REGION_NAME} characters: [\"eu\", \"us\"]"
        )),
    }
}

/// Longest name of a region, characters.
const MAX_REGION_NAME: usize = 64;

/// A path.
pub(in crate::config) fn path(v: &Value) -> Converted<PathBuf> {
    match v {
        Value::Text(s) | Value::Loose(s)
            if !s.is_empty() && !s.contains('\0') && s.len() <= MAX_TEXT =>
        {
            Ok(PathBuf::from(s))
        }
        _ => wants("a path"),
    }
}

/// A list or table given in a variable or flag, as TOML.
fn loose_structure(v: &Value) -> Converted<Option<Value>> {
    match v {
        Value::Loose(s) => Value::structured(s).transpose(),
        _ => Ok(None),
    }
}

fn list(v: &Value) -> Option<Vec<String>> {
    let all: Vec<String> = match v {
        Value::Text(s) => vec![s.clone()],
        Value::Loose(s) => s
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        Value::List(items) => items
            .iter()
            .map(|n| match &n.value {
                Value::Text(s) => Some(s.clone()),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    };
    (all.len() <= MAX_LIST).then_some(all)
}

/// Who may start sessions of a fleet: whether guests are among them.
pub(in crate::config) fn access(v: &Value) -> Converted<bool> {
    const FORM: &str = "a list of \"key\" and \"guest\"";
    let mut guests = false;
    for word in list(v)
        .filter(|l| !l.is_empty())
        .map_or_else(|| wants(FORM), Ok)?
    {
        match word.as_str() {
            "key" => {}
            "guest" => guests = true,
            "oidc" => {
                return Err("\"oidc\" is not in this release: use \"key\" and \"guest\"".into());
            }
            _ => return wants(FORM),
        }
    }
    Ok(guests)
}

/// Anything at all, for keys that are always refused.
#[expect(
    clippy::unnecessary_wraps,
    reason = "has the form of every other conversion"
)]
pub(in crate::config) fn anything(_: &Value) -> Converted<()> {
    Ok(())
}
