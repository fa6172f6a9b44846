//! What can go wrong, and in which part of a client's life. Classes are stable words: they are counted, compared and shown.

use std::fmt;

use serde::Serialize;

/// The parts of a client's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From the intended start to being matched.
    Queue,
    /// From being matched to the game's first word, without `Connect`.
    Start,
    /// Dialling the game.
    Connect,
    /// From the game's first word to the end of the match.
    Play,
    /// The end call.
    End,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Queue,
        Self::Start,
        Self::Connect,
        Self::Play,
        Self::End,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Start => "start",
            Self::Connect => "connect",
            Self::Play => "play",
            Self::End => "end",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {detail}")]
pub struct Fault {
    /// What kind of thing, one stable word: the server's problem code where it gave one.
    pub class: String,
    /// In words, as far as known.
    pub detail: String,
    /// The other side is not there (any more): the same may succeed once it is back.
    pub transient: bool,
}

impl Fault {
    /// A fault that no waiting heals.
    pub(crate) fn new(class: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            class: class.into(),
            detail: detail.into(),
            transient: false,
        }
    }

    /// A fault of a connection.
    pub(crate) fn transport(class: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            transient: true,
            ..Self::new(class, detail)
        }
    }

    /// The class of an I/O error.
    pub(crate) fn io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let class = match error.kind() {
            Kind::ConnectionRefused => "connection_refused",
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                "connection_reset"
            }
            Kind::UnexpectedEof => "closed",
            Kind::TimedOut => "timed_out",
            Kind::HostUnreachable | Kind::NetworkUnreachable => "unreachable",
            Kind::AddrNotAvailable => "no_free_local_port",
            _ if too_many_files(error) => "too_many_open_files",
            _ => "io_error",
        };
        Self::transport(class, error.to_string())
    }

    /// Something that took longer than it may.
    pub(crate) fn timed_out(what: &str) -> Self {
        Self::transport("timed_out", format!("{what} took too long"))
    }
}

fn too_many_files(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .map(|e| Some(e.raw_os_error()))
        .contains(&error.raw_os_error())
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody answers.
    #[error("no server answers at {target}: {cause}")]
    Unreachable {
        /// Where.
        target: String,
        /// What happened.
        cause: String,
    },
    /// Somebody answers, and not as Spawnpoint does.
    #[error("{target} does not answer as Spawnpoint does: {cause}; is TARGET_URL right?")]
    Stranger {
        /// Where.
        target: String,
        /// What it answered.
        cause: String,
    },
    /// What was asked for cannot be done with this server.
    #[error("{0}")]
    Unfit(String),
    /// The operating system allows too few open files.
    #[error(
        "{clients} clients need {needed} open files and this process may have {allowed}: raise the limit (ulimit -n {needed}; \
         as root also above the hard one) or take fewer clients"
    )]
    Descriptors {
        /// How many clients.
        clients: usize,
        /// How many files they need.
        needed: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// This machine cannot do what any run needs.
    #[error("{what}: {cause}")]
    Machine {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: String,
    },
}
