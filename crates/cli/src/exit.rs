//! How a command ends: its exit code, and the words on standard error.

use std::io;
use std::process::ExitCode;

/// It did what it was asked.
pub(crate) const OK: u8 = 0;
/// It failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// No server answers.
pub(crate) const UNREACHABLE: u8 = 3;
/// What was asked for does not exist.
pub(crate) const NOT_FOUND: u8 = 4;

/// An audit or a replay found something.
pub(crate) const FINDINGS: u8 = 5;

/// The codes in words, for `--help` and the documentation.
pub(crate) const CODES: &str = "\
Exit codes:
  0  done
  1  failed (the reason is on standard error)
  2  the command line or the configuration is wrong; nothing was done
  3  no server answers at --server
  4  what was asked for does not exist
  5  an audit or a replay has findings";

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Anything without a code of its own.
    #[error("{0}")]
    Failed(String),
    /// The command line or the configuration.
    #[error("{0}")]
    Usage(String),
    /// No server answers.
    #[error("{0}")]
    Unreachable(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// Everything was said already; only the code is left to give.
    #[error("")]
    Said,
    /// An audit or a replay found something, and said it.
    #[error("")]
    Findings,
    /// Nobody reads our output any more (`| head`).
    #[error("nobody reads the output")]
    OutputClosed,
}

impl Failure {
    /// A failure with its cause's words behind it.
    pub(crate) fn because(what: impl std::fmt::Display, cause: &dyn std::error::Error) -> Self {
        let mut text = what.to_string();
        let mut next = Some(cause);
        while let Some(e) = next {
            text.push_str(": ");
            text.push_str(&e.to_string());
            next = e.source();
        }
        Self::Failed(text)
    }

    /// The exit code.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Said => FAILED,
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::NotFound(_) => NOT_FOUND,
            Self::Findings => FINDINGS,
            Self::OutputClosed => OK,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Failed(e.to_string())
        }
    }
}

/// Says what went wrong and gives the exit code.
pub(crate) fn finish(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::from(OK);
    };
    if !matches!(
        failure,
        Failure::Said | Failure::Findings | Failure::OutputClosed
    ) {
        crate::output::complain(&failure.to_string());
    }
    ExitCode::from(failure.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once_and_a_closed_pipe_is_no_failure() {
        let cause = io::Error::other("disk on fire");
        assert_eq!(
            Failure::because("cannot write", &cause).to_string(),
            "cannot write: disk on fire"
        );
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(),
            OK
        );
        assert_eq!(Failure::from(cause).exit_code(), FAILED);
    }
}
