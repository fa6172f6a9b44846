//! The address under test. Pure.

use std::fmt;
use std::str::FromStr;

/// `http` or `https`, a host, a port, and the path under which the API lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Speaks TLS.
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What comes before `/api`: empty, or begins with a slash and does not end with one.
    pub base: String,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address to test; it looks like http://localhost:8080 or https://games.example.com/base"
)]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError(text.to_owned());
        let uri: http::Uri = text.trim().parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let odd = authority.as_str().contains('@') || uri.query().is_some();
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if odd || host.is_empty() {
            return Err(bad());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` and ports beyond 65535.
            None if authority.as_str().len() > authority.host().len() => return Err(bad()),
            None if tls => 443,
            None => 80,
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Target {
    /// The value of a `Host` header, with brackets around IPv6.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_ports_bases_and_slashes() {
        for (text, host, port, base, shown) in [
            (
                "http://localhost:8080",
                "localhost",
                8080,
                "",
                "http://localhost:8080",
            ),
            (
                "http://localhost:8080/",
                "localhost",
                8080,
                "",
                "http://localhost:8080",
            ),
            (
                "https://games.example.com",
                "games.example.com",
                443,
                "",
                "https://games.example.com",
            ),
            (
                "https://h:8443/a/b/",
                "h",
                8443,
                "/a/b",
                "https://h:8443/a/b",
            ),
            ("http://h", "h", 80, "", "http://h"),
            ("http://[::1]:9/x", "::1", 9, "/x", "http://[::1]:9/x"),
            (
                " http://10.0.0.1:1 ",
                "10.0.0.1",
                1,
                "",
                "http://10.0.0.1:1",
            ),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(
                (&*target.host, target.port, &*target.base),
                (host, port, base)
            );
            assert_eq!(target.to_string(), shown);
        }
        for bad in [
            "",
            "localhost",
            "localhost:8080",
            "ftp://h",
            "http://",
            "http://h:99999",
            "http://h:x",
            "http://u:p@h",
            "http://h/?q",
            "http:///x",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
