//! From what was written to what it means: one function per form of value. The error is what is allowed, as a sentence's end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::{ActivityRule, EndRule, Joinable, OnCrash};
use spawnpoint_core::limits::MAX_PLAYERS;
use spawnpoint_runtime::{Protocol, ReadyRule};
use spawnpoint_wire::strict::{camel, snake};

use super::error::nearest;
use super::units::{self, CPU_FORM, DURATION_FORM, SIZE_FORM};
use super::value::{Node, Value};
use super::{ApiKey, Expose};

/// Longest text of a label, path or log pattern, characters.
const MAX_TEXT: usize = 1_024;
/// Longest argument or variable, bytes: what the kernel takes for one string.
const MAX_ARGUMENT: usize = 128 * 1_024 - 1;
/// Most arguments or variables of one command.
const MAX_ARGUMENTS: usize = 1_024;
/// Most entries of a list such as allowed hosts or keys.
const MAX_LIST: usize = 1_024;
/// Most warm instances of one fleet: each is a process.
const MAX_WARM: u32 = 10_000;
/// Shortest secret of a backend key, characters: shorter ones can be guessed.
const MIN_SECRET: usize = 16;
/// Longest secret of a backend key, characters.
const MAX_SECRET: usize = 512;
/// Least memory worth asking for, bytes: below it nothing starts, so it is a mistake in the unit.
const MIN_MEMORY: u64 = 1024 * 1024;

type Converted<T> = Result<T, String>;

fn wants<T>(form: impl Into<String>) -> Converted<T> {
    Err(format!("must be {}", form.into()))
}

/// Any text that is not empty.
pub(super) fn text(v: &Value) -> Converted<String> {
    match v {
        Value::Text(s) | Value::Loose(s) if !s.is_empty() && s.chars().count() <= MAX_TEXT && !s.chars().any(char::is_control) => Ok(s.clone()),
        _ => wants(format!("text of 1 to {MAX_TEXT} printable characters")),
    }
}

/// true or false.
pub(super) fn boolean(v: &Value) -> Converted<bool> {
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
    whole(v).and_then(|i| u32::try_from(i).ok()).filter(|n| (from..=to).contains(n))
}

fn is_none(v: &Value) -> bool {
    matches!(v, Value::Text(s) | Value::Loose(s) if s.trim().eq_ignore_ascii_case("none"))
}

/// A TCP port; 0 lets the system pick.
pub(super) fn port(v: &Value) -> Converted<u16> {
    whole(v).and_then(|i| u16::try_from(i).ok()).map_or_else(|| wants("a port from 0 (any free one) to 65535"), Ok)
}

/// A port that a game insists on.
pub(super) fn game_port(v: &Value) -> Converted<u16> {
    whole(v).and_then(|i| u16::try_from(i).ok()).filter(|p| *p > 0).map_or_else(|| wants("a port from 1 to 65535"), Ok)
}

/// First and last of a range of ports.
pub(super) fn port_range(v: &Value) -> Converted<(u16, u16)> {
    let parsed = match v {
        Value::Text(s) | Value::Loose(s) => s.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?))),
        Value::List(items) => match items.as_slice() {
            [a, b] => port(&a.value).ok().zip(port(&b.value).ok()),
            _ => None,
        },
        _ => None,
    };
    match parsed {
        Some((a, b)) if a >= 1_024 && a <= b => Ok((a, b)),
        _ => wants("a range such as \"20000-24999\", from 1024 up, the first port not above the last"),
    }
}

/// A duration; 0 is allowed.
pub(super) fn duration(v: &Value) -> Converted<Duration> {
    let d = match v {
        Value::Text(s) | Value::Loose(s) => units::parse_duration(s),
        #[expect(clippy::cast_precision_loss, reason = "ten years of seconds are exact in f64; more is refused")]
        Value::Integer(i) => units::seconds(Some(*i as f64)),
        Value::Float(f) => units::seconds(Some(*f)),
        _ => None,
    };
    d.map_or_else(|| wants(DURATION_FORM), Ok)
}

/// A duration longer than 0.
pub(super) fn positive(v: &Value) -> Converted<Duration> {
    match duration(v) {
        Ok(d) if d.is_zero() => wants(format!("longer than 0: {DURATION_FORM}")),
        other => other,
    }
}

/// A duration longer than 0, or "none" for unlimited.
pub(super) fn positive_or_none(v: &Value) -> Converted<Option<Duration>> {
    if is_none(v) {
        return Ok(None);
    }
    match duration(v) {
        Ok(d) if d.is_zero() => wants(format!("longer than 0 (0 would end it at once; only \"none\" is unlimited): {DURATION_FORM}")),
        Ok(d) => Ok(Some(d)),
        Err(_) => wants(format!("{DURATION_FORM}, or \"none\" for unlimited")),
    }
}

/// A list of durations, longest first.
pub(super) fn durations(v: &Value) -> Converted<Vec<Duration>> {
    let form = || wants(format!("a list of durations longer than 0, such as [\"60s\", \"10s\"], at most {MAX_WARNINGS}"));
    let mut all = match v {
        _ if is_none(v) => Vec::new(),
        Value::List(items) => items.iter().map(|n| positive(&n.value)).collect::<Result<Vec<_>, _>>().or_else(|_| form())?,
        Value::Loose(s) => {
            let items = s.split(',').filter(|p| !p.trim().is_empty());
            items.map(|p| positive(&Value::Loose(p.trim().to_owned()))).collect::<Result<Vec<_>, _>>().or_else(|_| form())?
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
pub(super) fn memory(v: &Value) -> Converted<u64> {
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

/// Thousandths of a core.
pub(super) fn cpu(v: &Value) -> Converted<u32> {
    let millis = match v {
        Value::Text(s) | Value::Loose(s) => units::cpu(s),
        #[expect(clippy::cast_precision_loss, reason = "more cores than f64 counts exactly are refused anyway")]
        Value::Integer(i) => units::cores(*i as f64),
        Value::Float(f) => units::cores(*f),
        _ => None,
    };
    millis.filter(|m| *m > 0).map_or_else(|| wants(CPU_FORM), Ok)
}

fn choice<T: Copy>(v: &Value, options: &[(&str, T)]) -> Converted<T> {
    if let Value::Text(s) | Value::Loose(s) = v {
        let wanted = snake(s.trim());
        if let Some((_, value)) = options.iter().find(|(name, _)| *name == wanted || *name == s.trim().to_ascii_lowercase()) {
            return Ok(*value);
        }
    }
    let names: Vec<String> = options.iter().map(|(name, _)| format!("{name:?}")).collect();
    wants(format!("one of {}", names.join(", ")))
}

/// What the game speaks.
pub(super) fn protocol(v: &Value) -> Converted<Protocol> {
    choice(v, &[("websocket", Protocol::WebSocket), ("http", Protocol::Http), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
}

/// How players reach it.
pub(super) fn expose(v: &Value) -> Converted<Expose> {
    if let Value::Text(s) | Value::Loose(s) = v
        && matches!(snake(s.trim()).as_str(), "node_port" | "dns" | "ingress" | "http_route")
    {
        return Err("is for Kubernetes, which this release does not run on: use \"gateway\" or \"host_port\"".into());
    }
    choice(v, &[("gateway", Expose::Gateway), ("host_port", Expose::HostPort)])
}

/// What counts as activity.
pub(super) fn activity(v: &Value) -> Converted<ActivityRule> {
    choice(v, &[("client_data", ActivityRule::ClientData), ("any", ActivityRule::Any), ("heartbeat", ActivityRule::Heartbeat)])
}

/// What a crash leads to.
pub(super) fn on_crash(v: &Value) -> Converted<OnCrash> {
    choice(v, &[("replace", OnCrash::Replace), ("restart", OnCrash::Restart), ("end", OnCrash::End)])
}

/// Whose end call counts.
pub(super) fn end_by(v: &Value) -> Converted<EndRule> {
    choice(v, &[("owner", EndRule::Owner), ("any", EndRule::Any), ("all", EndRule::All)])
}

/// Who may join.
pub(super) fn joinable(v: &Value) -> Converted<Joinable> {
    choice(v, &[("open", Joinable::Open), ("invite", Joinable::Invite), ("closed", Joinable::Closed)])
}

/// Most players of one session.
pub(super) fn players(v: &Value) -> Converted<usize> {
    let most = u32::try_from(MAX_PLAYERS).unwrap_or(u32::MAX);
    count(v, 1, most).map_or_else(|| wants(format!("a number from 1 to {MAX_PLAYERS}")), |n| Ok(n as usize))
}

/// A number from 1 up, or "none" for unlimited.
pub(super) fn count_or_none(v: &Value) -> Converted<Option<u32>> {
    if is_none(v) {
        return Ok(None);
    }
    count(v, 1, 1_000_000).map_or_else(|| wants("a number from 1 to 1000000, or \"none\" for unlimited"), |n| Ok(Some(n)))
}

/// A rate per minute.
pub(super) fn rate(v: &Value) -> Converted<u32> {
    count(v, 1, 1_000_000).map_or_else(|| wants("a number from 1 to 1000000"), Ok)
}

/// A fleet's name.
pub(super) fn fleet_name(v: &Value) -> Converted<FleetName> {
    match v {
        Value::Text(s) | Value::Loose(s) => s.parse().map_err(|e| format!("is not a fleet name: {e}")),
        _ => wants("text: lower-case letters, digits and hyphens"),
    }
}

/// A path.
pub(super) fn path(v: &Value) -> Converted<PathBuf> {
    match v {
        Value::Text(s) | Value::Loose(s) if !s.is_empty() && !s.contains('\0') && s.len() <= MAX_TEXT => Ok(PathBuf::from(s)),
        _ => wants("a path"),
    }
}

/// A program and its arguments.
pub(super) fn command(v: &Value) -> Converted<Vec<String>> {
    let structured = loose_structure(v)?;
    match structured.as_ref().unwrap_or(v) {
        Value::List(items) if !items.is_empty() && items.len() <= MAX_ARGUMENTS => {
            let words: Option<Vec<String>> = items
                .iter()
                .map(|n| match &n.value {
                    Value::Text(s) if s.len() <= MAX_ARGUMENT && !s.contains('\0') => Some(s.clone()),
                    _ => None,
                })
                .collect();
            match words {
                Some(words) if words.first().is_some_and(|w| !w.is_empty()) => Ok(words),
                _ => wants("a list of texts, the program first: [\"./server\", \"--port\", \"$(PORT)\"]"),
            }
        }
        Value::Text(s) if !s.trim().is_empty() => {
            let words: Vec<String> = s.split_whitespace().map(|w| format!("{w:?}")).collect();
            wants(format!("a list: [{}]", words.join(", ")))
        }
        _ => wants("a list of texts, the program first: [\"./server\", \"--port\", \"$(PORT)\"]"),
    }
}

/// A list or table given in a variable or flag, as TOML.
fn loose_structure(v: &Value) -> Converted<Option<Value>> {
    match v {
        Value::Loose(s) => Value::structured(s).transpose(),
        _ => Ok(None),
    }
}

/// Variables for the game. Values may be secrets: no error shows one.
pub(super) fn environment(v: &Value) -> Converted<BTreeMap<String, String>> {
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
                return Err(format!("{shown} is given by Spawnpoint itself and cannot be set"));
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
pub(super) fn labels(v: &Value) -> Converted<BTreeMap<String, String>> {
    let structured = loose_structure(v)?;
    let form = || wants(format!("a table of at most {MAX_LABELS} texts: {{ team = \"a\" }}"));
    let Value::Table(pairs) = structured.as_ref().unwrap_or(v) else {
        return form();
    };
    if pairs.len() > MAX_LABELS {
        return form();
    }
    pairs.iter().map(|(name, node)| Ok((name.clone(), text(&node.value)?))).collect::<Converted<_>>().or_else(|_| form())
}

/// Most labels of a fleet.
const MAX_LABELS: usize = 64;

fn list(v: &Value) -> Option<Vec<String>> {
    let all: Vec<String> = match v {
        Value::Text(s) => vec![s.clone()],
        Value::Loose(s) => s.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect(),
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

/// Addresses to listen on; "localhost" is both loopback addresses.
pub(super) fn bind_addresses(v: &Value) -> Converted<Vec<IpAddr>> {
    const FORM: &str = "\"localhost\", an IP address such as \"0.0.0.0\", or a list of them";
    let Some(names) = list(v).filter(|l| !l.is_empty()) else {
        return wants(FORM);
    };
    let mut all = Vec::new();
    for name in names {
        if name == "localhost" {
            all.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        } else {
            let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(&name);
            all.push(bare.parse().or_else(|_| wants(FORM))?);
        }
    }
    let mut seen = Vec::new();
    all.retain(|a| {
        let new = !seen.contains(a);
        seen.push(*a);
        new
    });
    Ok(all)
}

fn is_host(name: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

/// Host names answered to.
pub(super) fn hosts(v: &Value) -> Converted<Vec<String>> {
    const FORM: &str = "a list of host names without scheme, port or wildcard, such as [\"games.example.com\"]";
    let Some(names) = list(v) else {
        return wants(FORM);
    };
    names.into_iter().map(|n| if is_host(&n) { Ok(n.to_ascii_lowercase()) } else { wants(FORM) }).collect()
}

/// `scheme://host[:port]`, normalised; `None` when it is anything else.
fn origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    if scheme != "http" && scheme != "https" {
        return None;
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((h, p)) if !p.ends_with(']') => (h, Some(p)),
        _ => (rest, None),
    };
    let port_fine = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    (is_host(host) && port_fine).then(|| format!("{scheme}://{}", rest.to_ascii_lowercase()))
}

/// Origins of pages that may call.
pub(super) fn origins(v: &Value) -> Converted<Vec<String>> {
    const FORM: &str = "a list of origins such as [\"https://example.com\"]; \"*\" and \"null\" would let any page in";
    let Some(names) = list(v) else {
        return wants(FORM);
    };
    names.iter().map(|n| origin(n).map_or_else(|| wants(FORM), Ok)).collect()
}

/// The public URL.
pub(super) fn public_url(v: &Value) -> Converted<String> {
    match v {
        Value::Text(s) | Value::Loose(s) => origin(s).map_or_else(|| wants("a URL of scheme and host only, such as \"https://games.example.com\""), Ok),
        _ => wants("a URL such as \"https://games.example.com\""),
    }
}

/// Backend keys. No error shows what was given.
pub(super) fn keys(v: &Value) -> Converted<Vec<ApiKey>> {
    const FORM: &str = "a list of \"name:secret\" (SPAWNPOINT_KEYS=name:secret,...) or a table { name = \"secret\" }";
    let structured = loose_structure(v).or_else(|_| wants(FORM))?;
    let v = structured.as_ref().unwrap_or(v);
    let pairs: Vec<(String, String)> = match v {
        Value::Table(pairs) => pairs
            .iter()
            .map(|(name, n)| match &n.value {
                Value::Text(s) => Ok((name.clone(), s.clone())),
                _ => wants(FORM),
            })
            .collect::<Result<_, _>>()?,
        _ => list(v)
            .and_then(|l| l.iter().map(|p| p.split_once(':').map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()))).collect())
            .map_or_else(|| wants(FORM), Ok)?,
    };
    let mut all: Vec<ApiKey> = Vec::new();
    for (at, (name, secret)) in pairs.into_iter().enumerate() {
        let at = at + 1;
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            // The name is not shown: with the two swapped by mistake it is the secret.
            return Err(format!("entry {at}: the name before the colon must be 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        let length = secret.chars().count();
        if !(MIN_SECRET..=MAX_SECRET).contains(&length) || !secret.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("entry {at}: the secret must be {MIN_SECRET} to {MAX_SECRET} printable ASCII characters without spaces; `openssl rand -hex 24` makes one"));
        }
        if all.iter().any(|k| k.name == name) {
            return Err(format!("entry {at}: two keys have the same name"));
        }
        if all.iter().any(|k| k.secret == secret) {
            return Err(format!("entry {at}: two keys have the same secret"));
        }
        all.push(ApiKey { name, secret });
    }
    Ok(all)
}

/// What `warm` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Warm {
    pub(super) replicas: u32,
    pub(super) allowed: bool,
    pub(super) max_age: Option<Duration>,
}

/// The warm pool.
pub(super) fn warm(v: &Value) -> Converted<Warm> {
    const FORM: &str = "a number, { replicas = 2, max_age = \"1h\" }, or \"none\" for a server that must have everything in its environment";
    let structured = loose_structure(v)?;
    let v = structured.as_ref().unwrap_or(v);
    if is_none(v) {
        return Ok(Warm { replicas: 0, allowed: false, max_age: None });
    }
    let number = |v: &Value| count(v, 0, MAX_WARM).map_or_else(|| wants(format!("a number from 0 to {MAX_WARM}")), Ok);
    match v {
        Value::Text(s) | Value::Loose(s) if s.trim() == "auto" => Err("demand-sized pools are not in this release: give a number".into()),
        Value::Integer(_) | Value::Loose(_) => Ok(Warm { replicas: number(v).or_else(|e| if whole(v).is_some() { Err(e) } else { wants(FORM) })?, allowed: true, max_age: None }),
        Value::Table(pairs) => {
            let fields = fields(pairs, &["replicas", "max_age"])?;
            let replicas = fields.get("replicas").map_or(Ok(0), |n| number(&n.value).map_err(|e| format!("replicas {e}")))?;
            let max_age = fields.get("max_age").map_or(Ok(None), |n| positive_or_none(&n.value).map_err(|e| format!("max_age {e}")))?;
            Ok(Warm { replicas, allowed: true, max_age })
        }
        _ => wants(FORM),
    }
}

/// The fields of an inline table, by their snake_case names.
fn fields<'n>(pairs: &'n [(String, Node)], known: &[&str]) -> Converted<BTreeMap<String, &'n Node>> {
    let mut all: BTreeMap<String, &Node> = BTreeMap::new();
    for (written, node) in pairs {
        let name = snake(written);
        if !known.contains(&name.as_str()) {
            let hint = nearest(&name, known.iter().copied()).map_or_else(|| format!("it takes {}", known.join(", ")), |n| format!("did you mean {n:?}?"));
            return Err(format!("{:?} is not known in it; {hint}", written.escape_debug().to_string()));
        }
        if let Some(before) = all.insert(name.clone(), node)
            && before.value != node.value
        {
            return Err(format!("{name:?} and {:?} are both given and differ: keep one", camel(&name)));
        }
    }
    Ok(all)
}

/// The ready rule.
pub(super) fn ready(v: &Value) -> Converted<ReadyRule> {
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
                (None, Some(n)) => Ok(ReadyRule::Log(text(&n.value).map_err(|e| format!("log {e}"))?)),
                _ => wants(FORM),
            }
        }
        _ => wants(FORM),
    }
}

/// Who may start sessions of a fleet: whether guests are among them.
pub(super) fn access(v: &Value) -> Converted<bool> {
    const FORM: &str = "a list of \"key\" and \"guest\"";
    let mut guests = false;
    for word in list(v).filter(|l| !l.is_empty()).map_or_else(|| wants(FORM), Ok)? {
        match word.as_str() {
            "key" => {}
            "guest" => guests = true,
            "oidc" => return Err("\"oidc\" is not in this release: use \"key\" and \"guest\"".into()),
            _ => return wants(FORM),
        }
    }
    Ok(guests)
}

/// Anything at all, for keys that are always refused.
#[expect(clippy::unnecessary_wraps, reason = "has the form of every other conversion")]
pub(super) fn anything(_: &Value) -> Converted<()> {
    Ok(())
}
