//! `Host` and `Origin`: the first two lines of the input.

use std::net::IpAddr;

use spawnpoint_wire::access::Access;

/// Configured names of the two servers that are asked.
const HOST: &str = "games.example.com";
const ORIGIN: &str = "https://play.example.com";

pub(super) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let host = lines.next().unwrap_or_default();
    let origin = lines.next().unwrap_or_default();
    let public = Access {
        hosts: vec![HOST.into()],
        origins: vec![ORIGIN.into()],
        loopback_origins: false,
    };
    let dev = Access {
        loopback_origins: true,
        ..Access::default()
    };
    for access in [&public, &dev] {
        hosts(access, host);
        origins(access, origin, host);
    }
    if dev.host_allowed(host) {
        assert!(public.host_allowed(host), "more names, fewer hosts");
    }
}

fn hosts(access: &Access, host: &str) {
    let allowed = access.host_allowed(host);
    let session = access.session_of_host(host);
    assert!(
        !(allowed && session.is_some()),
        "a session's host is its own"
    );
    assert_eq!(allowed, access.host_allowed(&host.to_ascii_uppercase()));
    assert_eq!(session, access.session_of_host(&host.to_ascii_uppercase()));
    if allowed {
        let listed = access.hosts.iter().any(|h| h == name(host));
        assert!(listed || is_local(host), "{host:?} could be rebound");
    }
    if let Some(session) = session {
        let (label, rest) = host.split_once('.').unwrap_or_default();
        assert_eq!(label.to_ascii_lowercase(), session.to_string());
        let named = access.hosts.iter().any(|h| h == name(rest));
        assert!(named || is_local(rest), "{rest:?} is not ours");
        assert!(address(rest).is_none(), "an address has no names");
    }
    if !host.contains(':') && !host.contains('[') {
        let with_port = format!("{host}:8080");
        assert_eq!(
            allowed,
            access.host_allowed(&with_port),
            "a port changes nothing"
        );
    }
}

fn origins(access: &Access, origin: &str, host: &str) {
    let Some((scheme, authority)) = origin.split_once("://") else {
        assert!(!access.origin_allowed(origin, Some(host)), "no origin");
        return;
    };
    let own = access.origin_allowed(origin, Some(host));
    let elsewhere = access.origin_allowed(origin, None);
    assert!(
        own || !elsewhere,
        "a host in the request only adds its own pages"
    );
    if !matches!(scheme, "http" | "https") {
        assert!(!own, "{scheme}");
    }
    let listed = access
        .origins
        .iter()
        .any(|o| same_origin(o, scheme, authority));
    if elsewhere {
        let local = access.loopback_origins && is_loopback(authority);
        assert!(listed || local, "{origin:?}");
    }
    if own && !elsewhere {
        // It is a page of that very host then: the same name.
        assert!(
            name(authority).eq_ignore_ascii_case(name(host)),
            "{origin:?} at {host:?}"
        );
    }
    // A game's page, wherever it is, calls neither the API nor another game.
    if access.session_of_host(authority).is_some() {
        assert!(!access.origin_allowed(origin, Some("localhost:8080")));
        assert!(!access.origin_allowed(origin, Some(HOST)));
    }
}

fn same_origin(listed: &str, scheme: &str, authority: &str) -> bool {
    let Some((s, a)) = listed.split_once("://") else {
        return false;
    };
    let port = if s == "https" { ":443" } else { ":80" };
    let plain = authority.strip_suffix(port).unwrap_or(authority);
    s == scheme && a.eq_ignore_ascii_case(plain)
}

/// Written apart from the code under test: the name without port and final dot, in lower case where it is compared.
fn name(authority: &str) -> &str {
    let bare = match authority.rfind(':') {
        Some(at) if authority.matches(':').count() == 1 || authority[..at].ends_with(']') => {
            let (name, port) = authority.split_at(at);
            if port[1..].bytes().all(|b| b.is_ascii_digit()) {
                name
            } else {
                authority
            }
        }
        _ => authority,
    };
    bare.strip_suffix('.').unwrap_or(bare)
}

fn address(authority: &str) -> Option<IpAddr> {
    let name = name(authority);
    let name = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    name.parse().ok()
}

fn is_local(authority: &str) -> bool {
    let name = name(authority).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address(authority).is_some()
        || name == HOST
}

fn is_loopback(authority: &str) -> bool {
    let name = name(authority).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address(authority).is_some_and(|ip| ip.is_loopback())
}
