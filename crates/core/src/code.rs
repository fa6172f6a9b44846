//! Problem codes: the one stable string for an error in HTTP bodies, metrics, close reasons, the command line and the SDK.

use std::fmt;

/// Whose side an error is on; only platform errors alert anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's request.
    Caller,
    /// The game server.
    Game,
    /// Spawnpoint or what it stands on.
    Platform,
}

/// Whether the same call can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never as it is.
    No,
    /// After about this many seconds.
    After(u32),
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $text:literal, $status:literal, $side:ident, $retry:expr;)*) => {
        /// A stable problem code. Never renamed; new ones are added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])* $variant,)* }

        impl Code {
            /// All codes, for documents and exhaustive tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable string.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What it means, in a sentence for people (the variant's own documentation).
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The HTTP status it is answered with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Whose side it is on.
            #[must_use]
            pub const fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }

            /// Whether trying again helps.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => $retry,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not the JSON that this call takes.
    MalformedBody = "malformed_body", 400, Caller, Retry::No;
    /// A field has a wrong type or value; the detail names it.
    InvalidField = "invalid_field", 400, Caller, Retry::No;
    /// A field this call does not know; the detail names it and those it knows.
    UnknownField = "unknown_field", 400, Caller, Retry::No;
    /// A field this call needs.
    MissingField = "missing_field", 400, Caller, Retry::No;
    /// Both spellings of a field were sent with different values.
    ConflictingFields = "conflicting_fields", 400, Caller, Retry::No;
    /// A query parameter is wrong.
    InvalidParameter = "invalid_parameter", 400, Caller, Retry::No;
    /// The cursor is not one of ours.
    InvalidCursor = "invalid_cursor", 400, Caller, Retry::No;
    /// The request is not one that HTTP allows, or that every reader would read alike.
    MalformedRequest = "malformed_request", 400, Caller, Retry::No;
    /// The body of a request stopped coming.
    UploadStalled = "upload_stalled", 408, Caller, Retry::After(1);
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", 413, Caller, Retry::No;
    /// The call needs a key or a token and has none.
    Unauthenticated = "unauthenticated", 401, Caller, Retry::No;
    /// The key or token is not valid (unknown, expired, badly signed).
    InvalidCredentials = "invalid_credentials", 401, Caller, Retry::No;
    /// The caller is known and may not do this.
    Forbidden = "forbidden", 403, Caller, Retry::No;
    /// The `Host` header is not one this server answers to.
    HostNotAllowed = "host_not_allowed", 403, Caller, Retry::No;
    /// The `Origin` header is not one this server allows.
    OriginNotAllowed = "origin_not_allowed", 403, Caller, Retry::No;
    /// The session does not let others in.
    NotJoinable = "not_joinable", 403, Caller, Retry::No;
    /// The invite code is wrong or missing.
    InviteRequired = "invite_required", 403, Caller, Retry::No;
    /// No such path.
    NotFound = "not_found", 404, Caller, Retry::No;
    /// No such session, live or recorded.
    SessionNotFound = "session_not_found", 404, Caller, Retry::No;
    /// No such fleet; the detail names those there are.
    FleetNotFound = "fleet_not_found", 404, Caller, Retry::No;
    /// No such queue; the detail names those there are.
    QueueNotFound = "queue_not_found", 404, Caller, Retry::No;
    /// The ticket is not known (any more): join again.
    TicketLost = "ticket_lost", 404, Caller, Retry::No;
    /// Nobody asked after the ticket for so long that it was dropped: join again.
    TicketExpired = "ticket_expired", 404, Caller, Retry::No;
    /// Somebody of the ticket left the queue, and parties leave together.
    TicketLeft = "ticket_left", 404, Caller, Retry::No;
    /// No such match record.
    MatchNotFound = "match_not_found", 404, Caller, Retry::No;
    /// That player is in no session.
    PlayerNotInSession = "player_not_in_session", 404, Caller, Retry::No;
    /// The log is not kept any more.
    LogNotFound = "log_not_found", 404, Caller, Retry::No;
    /// The path exists, not with this method.
    MethodNotAllowed = "method_not_allowed", 405, Caller, Retry::No;
    /// The path speaks WebSocket and the request asked for no upgrade.
    UpgradeRequired = "upgrade_required", 426, Caller, Retry::No;
    /// A named player is in another live session of the fleet.
    PlayersInOtherSession = "players_in_other_session", 409, Caller, Retry::No;
    /// A named player waits for a match already, alone or with others.
    PlayersInOtherTicket = "players_in_other_ticket", 409, Caller, Retry::No;
    /// The session has ended or is ending.
    SessionEnded = "session_ended", 409, Caller, Retry::No;
    /// The session has as many players as it takes.
    SessionFull = "session_full", 409, Caller, Retry::No;
    /// The same idempotency key came with another body.
    IdempotencyMismatch = "idempotency_mismatch", 422, Caller, Retry::No;
    /// Too many calls from this address or key.
    RateLimited = "rate_limited", 429, Caller, Retry::After(1);
    /// A quota of live sessions is used up.
    QuotaExceeded = "quota_exceeded", 429, Caller, Retry::After(10);
    /// Too many streams or connections of one kind.
    TooManyConnections = "too_many_connections", 429, Caller, Retry::After(5);
    /// Every place and every place in the queue is taken.
    QueueFull = "queue_full", 503, Platform, Retry::After(10);
    /// As many tickets wait in the queue as it takes.
    MatchmakingFull = "matchmaking_full", 503, Platform, Retry::After(10);
    /// The fleet is at its maximum; the session waits.
    Capacity = "capacity", 503, Platform, Retry::After(5);
    /// No port of the managed range is free.
    PortsExhausted = "ports_exhausted", 503, Platform, Retry::After(5);
    /// The instance did not start: bad command, never listened, exited at once.
    StartFailed = "start_failed", 503, Game, Retry::After(5);
    /// The fleet keeps failing to start and is held for a while.
    FleetDegraded = "fleet_degraded", 503, Game, Retry::After(10);
    /// The session is still starting and the wait is over.
    StillStarting = "still_starting", 503, Platform, Retry::After(2);
    /// The game server cannot be reached.
    GameUnreachable = "game_unreachable", 503, Game, Retry::After(1);
    /// The game server answered the handshake with something else.
    GameRefused = "game_refused", 502, Game, Retry::No;
    /// The game server closed the connection instead of answering a request, or its answer is not HTTP.
    GameFailed = "game_failed", 502, Game, Retry::After(1);
    /// The game server did not begin to answer a request in time.
    GameTimeout = "game_timeout", 504, Game, Retry::After(1);
    /// The disk is full or not writable: nothing was started.
    StorageFull = "storage_full", 503, Platform, Retry::After(30);
    /// The database cannot be reached; nothing is lost meanwhile.
    DatabaseUnavailable = "database_unavailable", 503, Platform, Retry::After(5);
    /// What keeps the waiting tickets cannot be reached; those that wait go on waiting.
    LobbyUnavailable = "lobby_unavailable", 503, Platform, Retry::After(2);
    /// What was asked cannot be known right now.
    Unknown = "unknown", 503, Platform, Retry::After(2);
    /// The process is shutting down.
    ShuttingDown = "shutting_down", 503, Platform, Retry::After(5);
    /// A request took longer than its limit.
    Timeout = "timeout", 504, Platform, Retry::After(1);
    /// Ours to fix; the log has the cause under the request id.
    Internal = "internal", 500, Platform, Retry::After(1);
}

/// An error of a boundary of ours: it has a stable code, and its `Display` is fit for whoever made the call.
pub trait Coded: std::error::Error {
    /// The stable code.
    fn code(&self) -> Code;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_spelled_alike() {
        let texts: HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(
            texts
                .iter()
                .all(|t| t.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }

    #[test]
    fn callers_errors_are_4xx_and_the_rest_5xx() {
        for c in Code::ALL {
            assert_eq!(
                c.side() == Side::Caller,
                (400..500).contains(&c.status()),
                "{c}"
            );
        }
    }
}
