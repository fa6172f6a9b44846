//! WebSocket close codes (CONTRACT, Close codes). The reason text is always the stable code.

use spawnpoint_core::lifecycle::Reason;

/// A close code with its reason text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The number on the wire.
    pub code: u16,
    /// The stable code as text.
    pub reason: &'static str,
}

impl Close {
    /// Game over, as the game itself would say it.
    pub const GAME_OVER: Self = Self {
        code: 1000,
        reason: "ended_by_server",
    };
    /// The platform goes away; the session does not come back.
    pub const DRAIN: Self = Self {
        code: 1001,
        reason: "shutdown",
    };
    /// Another incarnation takes over: reconnect to the same URL.
    pub const REPLACED: Self = Self {
        code: 1012,
        reason: "replaced",
    };
    /// It did not start in time, or nothing accepts right now: try again.
    pub const TRY_AGAIN: Self = Self {
        code: 1013,
        reason: "still_starting",
    };
    /// It could not be started.
    pub const START_FAILED: Self = Self {
        code: 1013,
        reason: "start_failed",
    };
    /// The token is missing, expired or not ours.
    pub const TOKEN: Self = Self {
        code: 4401,
        reason: "invalid_credentials",
    };
    /// The token is for another session, or the player was removed from this one.
    pub const OTHER_SESSION: Self = Self {
        code: 4403,
        reason: "forbidden",
    };
    /// No such session.
    pub const UNKNOWN: Self = Self {
        code: 4404,
        reason: "session_not_found",
    };
    /// A newer connection of the same player took over.
    pub const NEWER_CONNECTION: Self = Self {
        code: 4409,
        reason: "newer_connection",
    };
    /// A limit of connections is reached.
    pub const LIMIT: Self = Self {
        code: 4429,
        reason: "too_many_connections",
    };

    /// How tunnels are closed when their session ends for this reason.
    #[must_use]
    pub const fn for_end(reason: Reason) -> Self {
        let code = match reason {
            Reason::EndedByServer => 1000,
            Reason::Shutdown => 1001,
            Reason::StartFailed => 1013,
            Reason::Idle => 4408,
            Reason::MaxDuration => 4410,
            Reason::Empty | Reason::NeverJoined | Reason::EndedByClient | Reason::Evicted => 4411,
            Reason::Quota => 4429,
            Reason::Crashed => 4500,
        };
        Self {
            code,
            reason: reason.as_str(),
        }
    }
}
