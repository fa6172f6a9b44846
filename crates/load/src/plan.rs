//! What to do, with every number checked. Pure; the bounds are stated here and nowhere else.

use std::time::Duration;

use crate::target::Target;

/// Clients of one run: each is two sockets and a few kilobytes.
pub const MAX_CLIENTS: usize = 100_000;
/// Starts a second.
pub const MAX_SPAWN_RATE: f64 = 100_000.0;
/// Longest match or wait, seconds.
pub const MAX_SECONDS: f64 = 86_400.0;
/// Shortest match and pause between two questions, seconds.
pub const MIN_SECONDS: f64 = 0.01;

/// What the game under test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Lines over TCP: `GET_STATE`, `REQUEST_MATCH`.
    Tcp,
    /// The bundled game `spice` over WebSocket.
    WebSocket,
}

impl Mode {
    /// As the API names the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
        }
    }
}

/// Whether a client begins a TCP connection with `SPAWNPOINT <token>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLine {
    /// Where the fleet is reached through the gateway, which takes the line; not at a game's own port.
    Auto,
    /// Always: the game reads it itself.
    Always,
    /// Never.
    Never,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many clients.
    pub clients: usize,
    /// Where.
    pub target: Target,
    /// How long a match is asked to last.
    pub match_duration: Duration,
    /// Clients started a second; 0 is all at once.
    pub spawn_rate: f64,
    /// Dial games here, whatever host the server answers.
    pub host_override: Option<String>,
    /// Secret of a backend key.
    pub key: Option<String>,
    /// Which fleet; the first one that speaks what `mode` does.
    pub fleet: Option<String>,
    /// Which queue; the fleet's own.
    pub queue: Option<String>,
    /// What is played.
    pub mode: Mode,
    /// Join without naming a player; the server mints one.
    pub guests: bool,
    /// Spreads the clients' questions over time and steers their players; the same seed, the same clients.
    pub seed: u64,
    /// Never end a match; one that does not end by itself is a failure.
    pub wait_only: bool,
    /// How long after its time a match may still run before its end is forced.
    pub margin: Duration,
    /// Longest any other step may take.
    pub timeout: Duration,
    /// Between two questions of a playing client.
    pub poll: Duration,
    /// How long a client tries to find its way back when a connection or the server goes away; zero is a failure at once.
    pub reconnect: Duration,
    /// Whether a TCP connection begins with the token.
    pub token_line: TokenLine,
}

impl Plan {
    /// A plan of the documented defaults.
    #[must_use]
    pub fn against(target: Target) -> Self {
        Self {
            clients: 50,
            target,
            match_duration: Duration::from_secs(30),
            spawn_rate: 0.0,
            host_override: None,
            key: None,
            fleet: None,
            queue: None,
            mode: Mode::Tcp,
            guests: false,
            seed: 0,
            wait_only: false,
            margin: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            poll: Duration::from_secs(1),
            reconnect: Duration::ZERO,
            token_line: TokenLine::Auto,
        }
    }
}

/// A number of clients.
///
/// # Errors
/// When it is no whole number from 1 to [`MAX_CLIENTS`].
pub fn clients(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(n) if (1..=MAX_CLIENTS).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_CLIENTS} is wanted")),
    }
}

/// Clients a second.
///
/// # Errors
/// When it is no number from 0 to [`MAX_SPAWN_RATE`].
pub fn spawn_rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(n) if (0.0..=MAX_SPAWN_RATE).contains(&n) => Ok(n),
        _ => Err(format!(
            "clients a second from 0 (all at once) to {MAX_SPAWN_RATE} are wanted"
        )),
    }
}

/// A span that cannot be nothing, in seconds with fractions.
///
/// # Errors
/// When it is no number from [`MIN_SECONDS`] to [`MAX_SECONDS`].
pub fn seconds(text: &str) -> Result<Duration, String> {
    span(text, MIN_SECONDS)
}

/// A span that may be nothing.
///
/// # Errors
/// When it is no number from 0 to [`MAX_SECONDS`].
pub fn seconds_or_none(text: &str) -> Result<Duration, String> {
    span(text, 0.0)
}

fn span(text: &str, least: f64) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(s) if (least..=MAX_SECONDS).contains(&s) => {
            Duration::try_from_secs_f64(s).map_err(|e| e.to_string())
        }
        _ => Err(format!("seconds from {least} to {MAX_SECONDS} are wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_fractions_are_not() {
        for bad in ["0", "-1", "abc", "", "1.5", "100001", "1e3"] {
            assert!(clients(bad).is_err(), "{bad}");
        }
        assert_eq!(clients("5000"), Ok(5000));
        for bad in ["-1", "abc", "", "NaN", "inf", "1e9"] {
            assert!(
                spawn_rate(bad).is_err() && seconds(bad).is_err() && seconds_or_none(bad).is_err(),
                "{bad}"
            );
        }
        assert_eq!(spawn_rate("0"), Ok(0.0));
        assert_eq!(spawn_rate("0.5"), Ok(0.5));
        assert!(seconds("0").is_err() && seconds_or_none("0").is_ok());
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
    }
}
