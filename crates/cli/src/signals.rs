//! Signals that mean stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::exit::Failure;

/// For so long after a signal more of them are its echo.
const ECHO: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP, as a person, a supervisor and a closing terminal send them.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on; until then the process dies of them as usual.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::because("cannot listen for signals", &e));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// The next that is no echo of the last: whoever signals a whole process group is joined by those in it who pass it on (`make`,
    /// `npm`, a shell), and a person needs longer to press a key again.
    pub(crate) async fn next_wish(&mut self) -> &'static str {
        let echoes_until = Instant::now() + ECHO;
        loop {
            let signal = self.next().await;
            if Instant::now() >= echoes_until {
                return signal;
            }
        }
    }

    /// The next of them, by name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
