//! Which `Host` and `Origin` a listener answers to. The same rules for the API and the gateway.
//!
//! The `Host` check stops DNS rebinding: a page of another name that resolves to this machine. The Origin check stops other sites'
//! pages from calling with a visitor's network position; there are no cookies to abuse.
//!
//! A host name that begins with a session id is that session's own: games are served there, and nothing else is.

use std::net::{IpAddr, SocketAddr};

use spawnpoint_core::SessionId;

/// The peer's address, put into a request's extensions by whoever owns the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The rules of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Host names answered to, besides `localhost`, its subdomains and IP addresses (an address cannot be rebound). `*` is any.
    pub hosts: Vec<String>,
    /// Origins of pages that may call, besides those of the very host that is asked (`https://games.example.com`).
    pub origins: Vec<String>,
    /// Pages of any loopback origin, on any port, may call (a development page served by something else).
    pub loopback_origins: bool,
}

impl Access {
    /// Whether a request with this `Host` is answered. Not on a session's own host name.
    #[must_use]
    pub fn host_allowed(&self, host: &str) -> bool {
        own_host(host).is_none() && self.answers_to(host)
    }

    /// The session whose own host name this is: `<session id>.<host>`, where `host` is a name (not an address) that is answered
    /// to.
    #[must_use]
    pub fn session_of_host(&self, host: &str) -> Option<SessionId> {
        let (session, rest) = own_host(host)?;
        self.answers_to(rest).then_some(session)
    }

    fn answers_to(&self, host: &str) -> bool {
        let name = host_name(host);
        if is_local_name(name) || address(name).is_some() {
            return true;
        }
        let listed = |h: &String| {
            h == "*" || host_name(h).eq_ignore_ascii_case(name) || h.eq_ignore_ascii_case(host)
        };
        !name.is_empty() && self.hosts.iter().any(listed)
    }

    /// Whether a page of this origin may call, given the request's own `Host`. `null` is any sandboxed page and never allowed.
    #[must_use]
    pub fn origin_allowed(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        if !matches!(scheme, "http" | "https") {
            return false;
        }
        if host.is_some_and(|h| Self::is_own_origin(origin, h)) {
            return true;
        }
        let own = with_port(authority, scheme);
        let name = host_name(authority);
        if own_host(authority).is_some() {
            // A game's page: it may call its own host, and neither other games nor the API.
            return false;
        }
        let loopback = is_local_name(name) || address(name).is_some_and(|a| a.is_loopback());
        if self.loopback_origins && loopback {
            return true;
        }
        self.origins.iter().any(|allowed| {
            allowed
                .trim_end_matches('/')
                .split_once("://")
                .is_some_and(|(s, a)| {
                    s.eq_ignore_ascii_case(scheme) && with_port(a, s).eq_ignore_ascii_case(&own)
                })
        })
    }

    /// Whether a page of this origin is one of the very host that is asked.
    #[must_use]
    pub fn is_own_origin(origin: &str, host: &str) -> bool {
        origin
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
            .is_some_and(|(scheme, authority)| {
                with_port(host, scheme).eq_ignore_ascii_case(&with_port(authority, scheme))
            })
    }
}

/// `<session id>.<rest>`: the session, and the rest with its port.
fn own_host(host: &str) -> Option<(SessionId, &str)> {
    let (label, rest) = host.split_once('.')?;
    let session = label.to_ascii_lowercase().parse().ok()?;
    // Behind an address there are no names: `<id>.127.0.0.1` is nobody's host.
    (!rest.is_empty() && address(host_name(rest)).is_none()).then_some((session, rest))
}

/// The name or address alone: without the port, and without the final dot of a whole name.
fn host_name(authority: &str) -> &str {
    let name = without_port(authority);
    name.strip_suffix('.').unwrap_or(name)
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            if name.contains(':') && !name.ends_with(']') {
                authority
            } else {
                name
            }
        }
        _ => authority,
    }
}

/// The authority with the scheme's own port, if it names none.
fn with_port(authority: &str, scheme: &str) -> String {
    if without_port(authority).len() < authority.len() {
        return authority.to_owned();
    }
    format!("{authority}:{}", if scheme == "https" { 443 } else { 80 })
}

fn is_local_name(name: &str) -> bool {
    let local = "localhost";
    name.eq_ignore_ascii_case(local)
        || name
            .len()
            .checked_sub(local.len() + 1)
            .and_then(|at| name.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(".localhost"))
}

/// The address that a host name is, if it is one.
fn address(name: &str) -> Option<IpAddr> {
    name.strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name)
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_rebound_are_refused() {
        let a = Access {
            hosts: vec!["games.example.com".into()],
            ..Access::default()
        };
        for ok in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:1",
            "a.localhost:8080",
            "localhost.",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "192.168.1.4",
            "games.example.com",
            "Games.Example.com:443",
            "games.example.com.",
        ] {
            assert!(a.host_allowed(ok), "{ok}");
        }
        for bad in [
            "",
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com:8080",
            "games.example.com.evil.com",
            "127.0.0.1.nip.io",
            "xgames.example.com",
            "notlocalhost",
        ] {
            assert!(!a.host_allowed(bad), "{bad}");
        }
        let any = Access {
            hosts: vec!["*".into()],
            ..Access::default()
        };
        assert!(any.host_allowed("x.y"));
    }

    #[test]
    fn a_session_has_a_host_name_of_its_own() {
        const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
        let id: SessionId = ID.parse().unwrap();
        let a = Access {
            hosts: vec!["games.example.com".into()],
            loopback_origins: true,
            ..Access::default()
        };
        for own in [
            format!("{ID}.localhost:8080"),
            format!("{ID}.localhost"),
            format!("{}.LOCALHOST:1", ID.to_uppercase()),
            format!("{ID}.games.example.com"),
            format!("{ID}.games.example.com:443"),
        ] {
            assert_eq!(a.session_of_host(&own), Some(id), "{own}");
            assert!(!a.host_allowed(&own), "{own}: nothing else lives there");
        }
        for other in [
            "localhost:8080".to_owned(),
            "games.example.com".to_owned(),
            "x.games.example.com".to_owned(),
            format!("{ID}.evil.com"),
            format!("{ID}.127.0.0.1:8080"),
            format!("{ID}.127.0.0.1."),
            format!("{ID}.[::1]:8080"),
            format!("{ID}."),
            ID.to_owned(),
            format!("{ID}x.localhost"),
            format!("x.{ID}.localhost"),
            format!("{}.localhost", ID.replace('-', "")),
        ] {
            assert_eq!(a.session_of_host(&other), None, "{other}");
        }
        let page = format!("http://{ID}.localhost:8080");
        assert!(!a.origin_allowed(&page, Some("localhost:8080")), "the API");
        assert!(
            !a.origin_allowed(&page, Some("localhost:8081")),
            "the console"
        );
        assert!(a.origin_allowed(&page, Some(&format!("{ID}.localhost:8080"))));
        assert!(!Access::is_own_origin("null", "null"));
        assert!(!Access::is_own_origin("ws://h", "h"));
    }

    #[test]
    fn origins_are_the_same_listed_or_loopback_in_development_and_never_null() {
        let dev = Access {
            loopback_origins: true,
            ..Access::default()
        };
        let prod = Access {
            origins: vec!["https://play.example.com/".into()],
            ..Access::default()
        };
        for a in [&dev, &prod] {
            assert!(a.origin_allowed("https://games.example.com", Some("games.example.com")));
            assert!(a.origin_allowed("https://games.example.com", Some("games.example.com:443")));
            assert!(a.origin_allowed("http://127.0.0.1:8080", Some("127.0.0.1:8080")));
            for bad in [
                "null",
                "",
                "https://evil.com",
                "file://",
                "https://games.example.com.evil.com",
                "https://games.example.com:444",
                "chrome-extension://games.example.com",
                "https://localhost.evil.com",
            ] {
                assert!(!a.origin_allowed(bad, Some("games.example.com")), "{bad}");
            }
        }
        assert!(prod.origin_allowed("https://play.example.com", Some("api.example.com")));
        assert!(!prod.origin_allowed("http://play.example.com", Some("api.example.com")));
        for local in [
            "http://localhost:5173",
            "http://127.0.0.1:9",
            "http://[::1]:5173",
        ] {
            assert!(dev.origin_allowed(local, Some("localhost:8080")), "{local}");
            assert!(
                !prod.origin_allowed(local, Some("localhost:8080")),
                "{local}"
            );
        }
        assert!(!dev.origin_allowed("http://192.168.1.9", Some("localhost:8080")));
    }
}
