//! What the environment says, parsed whole before anything is bound; every error at once.
//!
//! `PORT`, `SESSION_ID`, `SPAWNPOINT_SESSION_FILE` and `SPAWNPOINT_RESULTS_FILE` are the documented
//! environment of any game server; `SPICE_*` are this game's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Longest boot delay a test may ask for.
const MAX_BOOT_DELAY_MS: u64 = 600_000;
/// A round shorter than this shows nothing; longer than an hour is no arcade game.
pub(crate) const ROUND_SECONDS: std::ops::RangeInclusive<u32> = 2..=3600;
const DEFAULT_ROUND_SECONDS: u32 = 120;
/// The platform's reconnect grace, so that both forget a player at about the same time.
const DEFAULT_GRACE_SECONDS: u32 = 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) session_id: Option<String>,
    pub(crate) session_file: Option<PathBuf>,
    pub(crate) results_file: Option<PathBuf>,
    pub(crate) boot_delay: Duration,
    pub(crate) round_seconds: u32,
    pub(crate) grace_seconds: u32,
    /// Fixed desert for tests and replays; chance otherwise.
    pub(crate) seed: Option<u64>,
}

/// Reads the variables through `get`; the error lists everything that is wrong, a line each.
pub(crate) fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let mut errors = Vec::new();
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let port: u16 = number(&get, "PORT", 8080, &(0..=u16::MAX), &mut errors);
    let host = match get("SPICE_HOST").map(|host| host.parse::<IpAddr>()) {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(Ok(host)) => host,
        Some(Err(_)) => {
            errors.push("SPICE_HOST must be an IP address".to_owned());
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        }
    };
    let delay = number(
        &get,
        "SPICE_BOOT_DELAY_MS",
        0,
        &(0..=MAX_BOOT_DELAY_MS),
        &mut errors,
    );
    let round_seconds = number(
        &get,
        "SPICE_ROUND_SECONDS",
        DEFAULT_ROUND_SECONDS,
        &ROUND_SECONDS,
        &mut errors,
    );
    let grace_seconds = number(
        &get,
        "SPICE_GRACE_SECONDS",
        DEFAULT_GRACE_SECONDS,
        &(0..=3600),
        &mut errors,
    );
    let seed =
        get("SPICE_SEED").map(|_| number(&get, "SPICE_SEED", 0, &(0..=u64::MAX), &mut errors));
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    Ok(Config {
        listen: SocketAddr::new(host, port),
        session_id: get("SESSION_ID"),
        session_file: get("SPAWNPOINT_SESSION_FILE").map(PathBuf::from),
        results_file: get("SPAWNPOINT_RESULTS_FILE").map(PathBuf::from),
        boot_delay: Duration::from_millis(delay),
        round_seconds,
        grace_seconds,
        seed,
    })
}

fn number<T>(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: T,
    range: &std::ops::RangeInclusive<T>,
    errors: &mut Vec<String>,
) -> T
where
    T: std::str::FromStr + PartialOrd + Copy + std::fmt::Display,
{
    let Some(text) = get(name) else {
        return default;
    };
    match text.trim().parse::<T>() {
        Ok(value) if range.contains(&value) => value,
        _ => {
            errors.push(format!(
                "{name} must be a whole number from {} to {}, not {text:?}",
                range.start(),
                range.end()
            ));
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, String> {
        parse(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_a_game_on_8080() {
        let config = with(&[]).unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.round_seconds, 120);
        assert_eq!(config.session_id, None);
        assert_eq!(with(&[("SESSION_ID", "")]).unwrap(), config);
    }

    #[test]
    fn every_error_is_named_at_once() {
        let error = with(&[
            ("PORT", "70000"),
            ("SPICE_ROUND_SECONDS", "1"),
            ("SPICE_HOST", "here"),
            ("SPICE_SEED", "-3"),
        ])
        .unwrap_err();
        for name in ["PORT", "SPICE_ROUND_SECONDS", "SPICE_HOST", "SPICE_SEED"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
