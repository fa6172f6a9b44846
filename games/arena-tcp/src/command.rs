//! One line of text, and what it asks for. Pure.

use std::time::Duration;

/// Shorter matches would be over before their answer is read.
pub(crate) const MIN_SECONDS: f64 = 0.001;

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `GET_STATE`
    GetState,
    /// `REQUEST_MATCH <seconds>`
    RequestMatch(Duration),
}

/// Why a line is not done; `ERROR <code>: <sentence>` is what its sender reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownCommand,
    BadDuration,
    LineTooLong,
    TooManyClients,
    TooManyConnections,
    BadProxyHeader,
    OtherSession,
    TokenRequired,
    BadToken,
    TokenExpired,
}

impl Refusal {
    /// Stable, for programs.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown_command",
            Self::BadDuration => "bad_duration",
            Self::LineTooLong => "line_too_long",
            Self::TooManyClients => "too_many_clients",
            Self::TooManyConnections => "too_many_connections",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::OtherSession => "other_session",
            Self::TokenRequired => "token_required",
            Self::BadToken => "bad_token",
            Self::TokenExpired => "token_expired",
        }
    }

    /// What to do about it, for people. Nothing the client sent is repeated.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::UnknownCommand => "send GET_STATE or REQUEST_MATCH <seconds>",
            Self::BadDuration => "send a number of seconds above 0 and within the limit",
            Self::LineTooLong => "the rest of the line is skipped",
            Self::TooManyClients => "try again when somebody has left",
            Self::TooManyConnections => "try again later",
            Self::BadProxyHeader => "a PROXY protocol header must come first",
            Self::OtherSession => "this server is for another session",
            Self::TokenRequired => "send SPAWNPOINT <token> first",
            Self::BadToken => "the token is not valid here",
            Self::TokenExpired => "ask for a new token",
        }
    }

    /// The whole answer, with its newline.
    pub(crate) fn line(self) -> String {
        format!("ERROR {}: {}\n", self.code(), self.advice())
    }
}

/// Reads one line without its end. Words are separated by any ASCII white space; case counts. `longest` bounds a match.
pub(crate) fn parse(line: &[u8], longest: Duration) -> Result<Command, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| Refusal::UnknownCommand)?;
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("GET_STATE"), None, _) => Ok(Command::GetState),
        (Some("REQUEST_MATCH"), Some(seconds), None) => duration(seconds, longest)
            .map(Command::RequestMatch)
            .ok_or(Refusal::BadDuration),
        (Some("REQUEST_MATCH"), _, _) => Err(Refusal::BadDuration),
        _ => Err(Refusal::UnknownCommand),
    }
}

/// NaN and the infinities fall through the range; so does everything a `Duration` cannot hold.
fn duration(text: &str, longest: Duration) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    if !(MIN_SECONDS..=longest.as_secs_f64()).contains(&seconds) {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn fractions_are_durations_and_nonsense_is_not() {
        for (line, ms) in [
            ("REQUEST_MATCH 30", 30_000),
            ("REQUEST_MATCH 1.5", 1_500),
            ("REQUEST_MATCH .25", 250),
            ("  REQUEST_MATCH\t2.0  ", 2_000),
            ("REQUEST_MATCH 1e1", 10_000),
            ("REQUEST_MATCH 3600", 3_600_000),
            ("REQUEST_MATCH 0.001", 1),
        ] {
            let wanted = Ok(Command::RequestMatch(Duration::from_millis(ms)));
            assert_eq!(parse(line.as_bytes(), HOUR), wanted, "{line}");
        }
        for bad in [
            "",
            " 0",
            " -0",
            " -1",
            " 1e12",
            " 1e400",
            " 3600.001",
            " 0.0009",
            " NaN",
            " nan",
            " inf",
            " -inf",
            " infinity",
            " text",
            " 5s",
            " 5 5",
            " 0x10",
            " 1,5",
            " ٣",
        ] {
            let line = format!("REQUEST_MATCH{bad}");
            assert_eq!(
                parse(line.as_bytes(), HOUR),
                Err(Refusal::BadDuration),
                "{line}"
            );
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        assert_eq!(parse(b"GET_STATE", HOUR), Ok(Command::GetState));
        assert_eq!(parse(b"\tGET_STATE ", HOUR), Ok(Command::GetState));
        for bad in [
            &b""[..],
            b" ",
            b"get_state",
            b"GET_STATE now",
            b"GET_STATE\0",
            b"GETSTATE",
            b"REQUEST_MATCHES 5",
            b"SPAWNPOINT x",
            b"\xff\xfe",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(parse(bad, HOUR), Err(Refusal::UnknownCommand), "{bad:?}");
        }
    }

    #[test]
    fn every_answer_is_one_line() {
        let line = Refusal::LineTooLong.line();
        assert_eq!(
            line,
            "ERROR line_too_long: the rest of the line is skipped\n"
        );
    }
}
