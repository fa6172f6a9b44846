//! Which `Host` and `Origin` a listener answers to. The same rules for the API and the gateway.
//!
//! The `Host` check stops DNS rebinding: a page of another name that resolves to this machine. The Origin check stops other sites'
//! pages from calling with a visitor's network position; there are no cookies to abuse.

use std::net::{IpAddr, SocketAddr};

/// The peer's address, put into a request's extensions by whoever owns the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The rules of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Host names answered to, besides loopback names, lower case, without port.
    pub hosts: Vec<String>,
    /// Origins allowed besides the request's own host, lower case (`https://games.example.com`).
    pub origins: Vec<String>,
    /// Loopback origins on any port are allowed (a development page on another port).
    pub loopback_origins: bool,
    /// Hosts that are IP addresses are answered to: bound off loopback, where no name need exist. An address cannot be rebound.
    pub ip_hosts: bool,
}

/// The name of a `host[:port]`, lower case, without brackets.
fn name(authority: &str) -> String {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority.rsplit_once(':').map_or(authority, |(h, _)| h),
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Access {
    /// Whether a request with this `Host` is answered.
    #[must_use]
    pub fn host_allowed(&self, host: &str) -> bool {
        let name = name(host);
        is_loopback(&name)
            || self.hosts.contains(&name)
            || (self.ip_hosts && name.parse::<IpAddr>().is_ok())
    }

    /// Whether a page of this origin may call, given the request's own `Host`. Never `null`.
    #[must_use]
    pub fn origin_allowed(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        if !matches!(scheme, "http" | "https") {
            return false;
        }
        if host.is_some_and(|h| h.eq_ignore_ascii_case(authority)) || self.origins.contains(&origin)
        {
            return true;
        }
        self.loopback_origins && is_loopback(&name(authority))
    }
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
            "127.0.0.1:8080",
            "[::1]:8080",
            "games.example.com",
            "Games.Example.com:443",
            "a.localhost:8080",
            "localhost.",
        ] {
            assert!(a.host_allowed(ok), "{ok}");
        }
        for bad in [
            "",
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com:8080",
            "10.0.0.1",
            "[::2]:80",
            "xgames.example.com",
        ] {
            assert!(!a.host_allowed(bad), "{bad}");
        }
        assert!(
            Access {
                ip_hosts: true,
                ..Access::default()
            }
            .host_allowed("192.168.1.5:8080")
        );
        assert!(
            !Access {
                ip_hosts: true,
                ..Access::default()
            }
            .host_allowed("evil.com")
        );
    }

    #[test]
    fn origins_are_own_listed_or_loopback_in_development() {
        let a = Access {
            origins: vec!["https://games.example.com".into()],
            ..Access::default()
        };
        assert!(
            a.origin_allowed("http://localhost:8080", Some("localhost:8080")),
            "same origin"
        );
        assert!(a.origin_allowed("https://games.example.com", Some("api.example.com")));
        for bad in [
            "null",
            "",
            "http://localhost:5173",
            "https://evil.com",
            "file://",
            "http://games.example.com",
        ] {
            assert!(!a.origin_allowed(bad, Some("localhost:8080")), "{bad}");
        }
        let dev = Access {
            loopback_origins: true,
            ..Access::default()
        };
        assert!(dev.origin_allowed("http://localhost:5173", Some("localhost:8080")));
        assert!(dev.origin_allowed("http://[::1]:5173", Some("localhost:8080")));
        assert!(!dev.origin_allowed("null", Some("localhost:8080")));
        assert!(!dev.origin_allowed("https://localhost.evil.com", Some("localhost:8080")));
    }
}
