//! Addresses, names of hosts, origins and the keys that open doors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Converted, list, loose_structure, wants};
use crate::config::ApiKey;
use crate::config::value::Value;

/// Shortest secret of a backend key, characters: shorter ones can be guessed.
const MIN_SECRET: usize = 16;
/// Longest secret of a backend key, characters.
const MAX_SECRET: usize = 512;

/// Addresses to listen on; "localhost" is both loopback addresses.
pub(in crate::config) fn bind_addresses(v: &Value) -> Converted<Vec<IpAddr>> {
    const FORM: &str = "\"localhost\", an IP address such as \"0.0.0.0\", or a list of them";
    let Some(names) = list(v).filter(|l| !l.is_empty()) else {
        return wants(FORM);
    };
    let mut all = Vec::new();
    for name in names {
        if name == "localhost" {
            all.extend([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]);
        } else {
            let bare = name
                .strip_prefix('[')
                .and_then(|n| n.strip_suffix(']'))
                .unwrap_or(&name);
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
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

/// Host names answered to.
pub(in crate::config) fn hosts(v: &Value) -> Converted<Vec<String>> {
    const FORM: &str =
        "a list of host names without scheme, port or wildcard, such as [\"games.example.com\"]";
    let Some(names) = list(v) else {
        return wants(FORM);
    };
    names
        .into_iter()
        .map(|n| {
            if is_host(&n) {
                Ok(n.to_ascii_lowercase())
            } else {
                wants(FORM)
            }
        })
        .collect()
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
pub(in crate::config) fn origins(v: &Value) -> Converted<Vec<String>> {
    const FORM: &str = "a list of origins such as [\"https://example.com\"]; \"*\" and \"null\" would let any page in";
    let Some(names) = list(v) else {
        return wants(FORM);
    };
    names
        .iter()
        .map(|n| origin(n).map_or_else(|| wants(FORM), Ok))
        .collect()
}

/// The public URL.
pub(in crate::config) fn public_url(v: &Value) -> Converted<String> {
    match v {
        Value::Text(s) | Value::Loose(s) => origin(s).map_or_else(
            || wants("a URL of scheme and host only, such as \"https://games.example.com\""),
            Ok,
        ),
        _ => wants("a URL such as \"https://games.example.com\""),
    }
}

/// Backend keys. No error shows what was given.
pub(in crate::config) fn keys(v: &Value) -> Converted<Vec<ApiKey>> {
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
            .and_then(|l| {
                l.iter()
                    .map(|p| {
                        p.split_once(':')
                            .map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()))
                    })
                    .collect()
            })
            .map_or_else(|| wants(FORM), Ok)?,
    };
    let mut all: Vec<ApiKey> = Vec::new();
    for (at, (name, secret)) in pairs.into_iter().enumerate() {
        let at = at + 1;
        if name.is_empty()
            || name.len() > 64
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            // The name is not shown: with the two swapped by mistake it is the secret.
            return Err(format!(
                "entry {at}: the name before the colon must be 1 to 64 letters, digits, '-', '_' or '.'"
            ));
        }
        let length = secret.chars().count();
        if !(MIN_SECRET..=MAX_SECRET).contains(&length)
            || !secret.chars().all(|c| c.is_ascii_graphic())
        {
            return Err(format!(
                "entry {at}: the secret must be {MIN_SECRET} to {MAX_SECRET} printable ASCII characters without spaces; `openssl rand -hex 24` makes one"
            ));
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
