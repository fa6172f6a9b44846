//! What the environment says, parsed whole before anything is bound; every error at once.
//!
//! `PORT`, `SESSION_ID` and the `SPAWNPOINT_*` names are the documented environment of any game server; `EMPTY_GRACE` and
//! `ARENA_*` are this game's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::game::Rules;
use crate::token::Keys;

/// A day: longer than any session lives.
const LONGEST_SECONDS: f64 = 86_400.0;
const DEFAULT_MAX_SECONDS: f64 = 3_600.0;
/// Players of one session on the platform.
const DEFAULT_MAX_CLIENTS: usize = 100;
/// Ten thousand and some, at about three kilobytes each.
const DEFAULT_MAX_CONNECTIONS: usize = 16_384;
/// Long enough for a client that asks a few times a second to hear `stop`.
const DEFAULT_LINGER_SECONDS: f64 = 0.5;
/// Inside any termination grace.
const LONGEST_LINGER_SECONDS: f64 = 8.0;
/// Longest boot delay a test may ask for.
const MAX_BOOT_DELAY_MS: u64 = 600_000;

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) rules: Rules,
    /// Longest match a client may ask for.
    pub(crate) longest: Duration,
    pub(crate) max_connections: usize,
    /// Every connection begins with a PROXY protocol header.
    pub(crate) proxy: bool,
    /// Players' tokens are checked with these, if at all.
    pub(crate) keys: Option<Keys>,
    pub(crate) session_id: Option<String>,
    pub(crate) session_file: Option<PathBuf>,
    pub(crate) results_file: Option<PathBuf>,
    pub(crate) boot_delay: Duration,
}

/// Reads variables, collecting what is wrong with them.
struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<String>,
}

/// Reads the variables through `get`; the error lists everything that is wrong, a line each.
pub(crate) fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let mut read = Reader {
        get: &get,
        errors: vec![],
    };
    let port = read.number("PORT", 8080u16, 0..=u16::MAX);
    let host = read.host();
    let config = Config {
        listen: SocketAddr::new(host, port),
        rules: Rules {
            empty_grace: read.seconds("EMPTY_GRACE", 0.0, 0.0..=3_600.0),
            linger: read.seconds(
                "ARENA_LINGER",
                DEFAULT_LINGER_SECONDS,
                0.0..=LONGEST_LINGER_SECONDS,
            ),
            max_clients: read.number("ARENA_MAX_CLIENTS", DEFAULT_MAX_CLIENTS, 1..=65_536),
        },
        longest: read.seconds(
            "ARENA_MAX_SECONDS",
            DEFAULT_MAX_SECONDS,
            1.0..=LONGEST_SECONDS,
        ),
        max_connections: read.number(
            "ARENA_MAX_CONNECTIONS",
            DEFAULT_MAX_CONNECTIONS,
            1..=1_000_000,
        ),
        proxy: read.switch("ARENA_PROXY"),
        keys: read.keys(),
        session_id: read.text("SESSION_ID"),
        session_file: read.text("SPAWNPOINT_SESSION_FILE").map(PathBuf::from),
        results_file: read.text("SPAWNPOINT_RESULTS_FILE").map(PathBuf::from),
        boot_delay: Duration::from_millis(read.number(
            "ARENA_BOOT_DELAY_MS",
            0,
            0..=MAX_BOOT_DELAY_MS,
        )),
    };
    if read.errors.is_empty() {
        Ok(config)
    } else {
        Err(read.errors.join("\n"))
    }
}

impl Reader<'_> {
    /// An empty variable is one that is not set.
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn number<T>(&mut self, name: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        let Some(text) = self.text(name) else {
            return default;
        };
        match text.trim().parse::<T>() {
            Ok(value) if range.contains(&value) => value,
            _ => {
                let (least, most) = range.into_inner();
                self.errors
                    .push(format!("{name} must be a number from {least} to {most}"));
                default
            }
        }
    }

    fn seconds(&mut self, name: &str, default: f64, range: RangeInclusive<f64>) -> Duration {
        Duration::try_from_secs_f64(self.number(name, default, range)).unwrap_or_default()
    }

    fn switch(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("0" | "false" | "off") => false,
            Some("1" | "true" | "on") => true,
            Some(_) => {
                self.errors.push(format!("{name} must be 1 or 0"));
                false
            }
        }
    }

    fn host(&mut self) -> IpAddr {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let Some(text) = self.text("ARENA_HOST") else {
            return everywhere;
        };
        text.parse().unwrap_or_else(|_| {
            self.errors
                .push("ARENA_HOST must be an IP address".to_owned());
            everywhere
        })
    }

    fn keys(&mut self) -> Option<Keys> {
        if !self.switch("ARENA_TOKENS") {
            return None;
        }
        let keys = self
            .text("SPAWNPOINT_PUBLIC_KEYS")
            .and_then(|text| Keys::parse(&text));
        if keys.is_none() {
            self.errors.push(
                "ARENA_TOKENS needs SPAWNPOINT_PUBLIC_KEYS: k4.public keys, separated by spaces"
                    .to_owned(),
            );
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, String> {
        parse(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_enough() {
        let config = with(&[("PORT", "")]).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.rules.empty_grace, Duration::ZERO);
        assert_eq!(config.longest, Duration::from_secs(3600));
        assert!(!config.proxy && config.keys.is_none());
    }

    #[test]
    fn every_error_is_told_at_once() {
        let errors = with(&[
            ("PORT", "http"),
            ("EMPTY_GRACE", "-1"),
            ("ARENA_LINGER", "NaN"),
            ("ARENA_MAX_CLIENTS", "0"),
            ("ARENA_PROXY", "maybe"),
            ("ARENA_HOST", "localhost"),
            ("ARENA_TOKENS", "1"),
        ])
        .unwrap_err();
        assert_eq!(errors.lines().count(), 7, "{errors}");
    }

    #[test]
    fn fractions_of_seconds_are_fine() {
        let config = with(&[("EMPTY_GRACE", "1.5"), ("PORT", "0")]).unwrap();
        assert_eq!(config.rules.empty_grace, Duration::from_millis(1500));
    }
}
