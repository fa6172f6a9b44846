//! What a route means for a connection: wait, dial, refuse; and for a tunnel: go on or close. Pure.

use std::net::SocketAddr;

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Code, PlayerId};
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::{Protocol, Route};
use spawnpoint_wire::token::TokenError;

use crate::config::Network;

/// Why a connection is refused, before its handshake is answered or after.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token anywhere.
    #[error(
        "no join token: send it as ?token=, Authorization: Bearer or subprotocol spawnpoint.token.<token>"
    )]
    NoToken,
    /// A token that is not accepted. Says nothing about the session.
    #[error("the join token is not accepted; ask for a new one and connect again")]
    BadToken(#[source] TokenError),
    /// A good token, for another session or player.
    #[error("this token is for another session")]
    OtherSession,
    /// The player is not (any more) on the roster.
    #[error("this player is not in the session; join it first")]
    NotOnRoster,
    /// A good token for a session that is not there.
    #[error("there is no such session (any more)")]
    Unknown,
    /// It has ended; why, if that is still known.
    #[error("the session has ended")]
    Ended(Option<Reason>),
    /// It did not become ready while we waited.
    #[error(
        "the session is still starting; connect again, or offer the subprotocol spawnpoint.progress to be told how it goes"
    )]
    StillStarting,
    /// The table says ready and nothing accepts.
    #[error("the game server does not accept connections right now; try again")]
    GameUnreachable,
    /// The game answered with something else than a WebSocket.
    #[error("the game server refused the WebSocket handshake ({0})")]
    GameRefused(String),
    /// The route points where games may not be.
    #[error("the session's address is outside the networks that this gateway dials")]
    TargetNotAllowed,
    /// Too many connections of one kind.
    #[error("too many connections; close some and try again")]
    Limit,
    /// A newer connection of the same player came meanwhile.
    #[error("a newer connection of the same player took over")]
    Superseded,
    /// The session is not known here and the control plane cannot be asked now.
    #[error("whether there is such a session cannot be known right now; try again")]
    CannotKnow,
    /// We are going away.
    #[error("this gateway is shutting down; connect again")]
    Draining,
    /// The game speaks neither WebSocket nor HTTP.
    #[error("this session's game speaks {0}, which does not go through this address")]
    OtherProtocol(&'static str),
    /// A request without an upgrade.
    #[error(
        "this address speaks WebSocket: open it with a WebSocket client (in a browser: new WebSocket(url)), not as a page"
    )]
    UpgradeRequired,
    /// Not a GET.
    #[error("a WebSocket handshake is a GET request")]
    Method,
    /// The handshake lacks something.
    #[error("not a WebSocket handshake: {0}")]
    Handshake(&'static str),
    /// `Host` is not ours.
    #[error("this server does not answer to that host name; add it to SPAWNPOINT_ALLOWED_HOSTS")]
    Host,
    /// `Origin` is not allowed.
    #[error("pages of that origin may not connect; add it to SPAWNPOINT_ALLOWED_ORIGINS")]
    Origin,
    /// The path cannot be read.
    #[error("the path must be /session/<session id> or /session/<player id>")]
    Path,
    /// On a session's own host name: a page of another origin is behind it.
    #[error("only pages of this session's own host name may do that")]
    ForeignPage,
    /// Two readers could take it for two different requests.
    #[error("this is not one plain HTTP request: {0}")]
    Malformed(&'static str),
    /// The client stopped sending in the middle of a body.
    #[error("the body stopped coming; send it again")]
    UploadStalled,
    /// An HTTP game hung up, or what it said is not HTTP.
    #[error("the game server failed to answer: {0}")]
    GameFailed(&'static str),
    /// An HTTP game did not begin to answer.
    #[error("the game server took too long to answer; try again")]
    GameTimeout,
    /// The instance was replaced while it was being asked.
    #[error("the game server was replaced in the middle of the request; send it again")]
    Replaced,
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NoToken => Code::Unauthenticated,
            Self::BadToken(_) => Code::InvalidCredentials,
            Self::OtherSession | Self::NotOnRoster => Code::Forbidden,
            Self::Ended(Some(Reason::StartFailed)) => Code::StartFailed,
            Self::Unknown | Self::Ended(_) => Code::SessionNotFound,
            Self::StillStarting => Code::StillStarting,
            Self::GameUnreachable => Code::GameUnreachable,
            Self::GameRefused(_) => Code::GameRefused,
            Self::TargetNotAllowed => Code::Internal,
            Self::Limit | Self::Superseded => Code::TooManyConnections,
            Self::CannotKnow => Code::Unknown,
            Self::Draining => Code::ShuttingDown,
            Self::OtherProtocol(_) | Self::Path => Code::NotFound,
            Self::UpgradeRequired => Code::UpgradeRequired,
            Self::Method => Code::MethodNotAllowed,
            Self::Handshake(_) => Code::InvalidParameter,
            Self::Malformed(_) => Code::MalformedRequest,
            Self::UploadStalled => Code::UploadStalled,
            Self::GameFailed(_) => Code::GameFailed,
            Self::GameTimeout => Code::GameTimeout,
            Self::Replaced => Code::GameUnreachable,
            Self::Host => Code::HostNotAllowed,
            Self::Origin | Self::ForeignPage => Code::OriginNotAllowed,
        }
    }

    /// The same for a client whose handshake has been answered already.
    #[must_use]
    pub const fn close(&self) -> Close {
        match self {
            Self::NoToken | Self::BadToken(_) => Close::TOKEN,
            Self::OtherSession | Self::NotOnRoster => Close::OTHER_SESSION,
            Self::Unknown | Self::OtherProtocol(_) => Close::UNKNOWN,
            Self::Ended(reason) => ended(*reason),
            Self::Limit => Close::LIMIT,
            Self::Superseded => Close::NEWER_CONNECTION,
            Self::Draining => Close::DRAIN,
            Self::StillStarting => Close::TRY_AGAIN,
            other => Close {
                code: 1013,
                reason: other.code().as_str(),
            },
        }
    }
}

/// The close for a session that has ended.
#[must_use]
pub(crate) const fn ended(reason: Option<Reason>) -> Close {
    match reason {
        Some(reason) => Close::for_end(reason),
        None => Close {
            code: 4411,
            reason: Code::SessionEnded.as_str(),
        },
    }
}

/// What a new connection does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Connect to the game there.
    Dial(SocketAddr),
    /// Wait for the route to change.
    Wait,
    /// Give up.
    Refuse(Refusal),
}

/// What a place in a session is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Both sockets, for as long as the two ends like.
    Tunnel,
    /// The same without any handshake: raw TCP.
    Stream,
    /// One request and its answer.
    Request,
}

/// Why this kind of game cannot be reached in this way.
fn unspoken(protocol: Protocol, wanted: Use) -> Option<Refusal> {
    match (protocol, wanted) {
        (Protocol::Http, Use::Tunnel | Use::Request)
        | (Protocol::WebSocket, Use::Tunnel)
        | (Protocol::Tcp, Use::Stream) => None,
        (Protocol::WebSocket, Use::Request) => Some(Refusal::UpgradeRequired),
        (_, Use::Stream) | (Protocol::Tcp | Protocol::Udp, _) => {
            Some(Refusal::OtherProtocol(protocol.as_str()))
        }
    }
}

/// Whether a player's new connection takes the place of their older ones: they have one to a WebSocket or TCP game; a page of an
/// HTTP game may open several.
pub(crate) fn takes_over(protocol: Protocol, wanted: Use) -> bool {
    wanted != Use::Request && protocol != Protocol::Http
}

/// What this route means for a new connection of this player (`None`: nobody said whose it is).
pub(crate) fn connect(
    route: &Route,
    player: Option<&PlayerId>,
    targets: &[Network],
    wanted: Use,
) -> Next {
    if matches!(route.phase, Phase::Ending | Phase::Ended) {
        return Next::Refuse(Refusal::Ended(route.ended));
    }
    let on_roster = match player {
        Some(player) => route.players.contains(player),
        None => !route.players.is_empty(),
    };
    if !on_roster {
        return Next::Refuse(Refusal::NotOnRoster);
    }
    if let Some(refusal) = unspoken(route.protocol, wanted) {
        return Next::Refuse(refusal);
    }
    match route.address {
        Some(address) if route.phase.accepts() => {
            if targets.iter().any(|n| n.contains(address.ip())) {
                Next::Dial(address)
            } else {
                Next::Refuse(Refusal::TargetNotAllowed)
            }
        }
        _ => Next::Wait,
    }
}

/// Whether a tunnel of this player to this generation must be closed, and how.
pub(crate) fn verdict(route: &Route, generation: u32, player: &PlayerId) -> Option<Close> {
    if matches!(route.phase, Phase::Ending | Phase::Ended) {
        return Some(ended(route.ended));
    }
    if route.generation < generation {
        return None;
    }
    if route.generation > generation || !route.phase.accepts() {
        return Some(Close::REPLACED);
    }
    (!route.players.contains(player)).then_some(Close::OTHER_SESSION)
}

/// The phase as a client that is not connected to the game yet may hear it: `running` is said once, when it is.
pub(crate) const fn told(phase: Phase) -> Phase {
    match phase {
        Phase::Running => Phase::Ready,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(phase: Phase) -> Route {
        Route {
            session: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            fleet: "spice".parse().unwrap(),
            generation: 2,
            phase,
            address: Some("127.0.0.1:9".parse().unwrap()),
            protocol: Protocol::WebSocket,
            players: ["a".parse().unwrap()].into(),
            position: None,
            waiting_for: None,
            ended: None,
        }
    }

    #[test]
    fn connections_are_made_only_to_sessions_that_accept() {
        let (a, b): (PlayerId, PlayerId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let local = Network::loopback();
        for phase in Phase::ALL {
            let next = connect(&route(phase), Some(&a), &local, Use::Tunnel);
            let expected = match phase {
                Phase::Ready | Phase::Running => Next::Dial("127.0.0.1:9".parse().unwrap()),
                Phase::Queued | Phase::Starting | Phase::Replacing => Next::Wait,
                Phase::Ending | Phase::Ended => Next::Refuse(Refusal::Ended(None)),
            };
            assert_eq!(next, expected, "{phase:?}");
            let stranger = connect(&route(phase), Some(&b), &local, Use::Tunnel);
            assert!(matches!(stranger, Next::Refuse(_)), "{phase:?}");
            let nobody = connect(&route(phase), None, &local, Use::Tunnel);
            assert_eq!(nobody, next, "{phase:?}: the session is open to somebody");
        }
        let mut empty = route(Phase::Ready);
        empty.players = [].into();
        assert_eq!(
            connect(&empty, None, &local, Use::Tunnel),
            Next::Refuse(Refusal::NotOnRoster)
        );
        let mut r = route(Phase::Ready);
        r.address = None;
        assert_eq!(connect(&r, Some(&a), &local, Use::Tunnel), Next::Wait);
        r.address = Some("169.254.169.254:80".parse().unwrap());
        assert_eq!(
            connect(&r, Some(&a), &local, Use::Tunnel),
            Next::Refuse(Refusal::TargetNotAllowed)
        );
        r.protocol = Protocol::Tcp;
        assert_eq!(
            connect(&r, Some(&a), &local, Use::Tunnel),
            Next::Refuse(Refusal::OtherProtocol("tcp"))
        );
    }

    #[test]
    fn what_a_game_does_not_speak_is_refused() {
        let a: PlayerId = "a".parse().unwrap();
        let next = |protocol, wanted| {
            let r = Route {
                protocol,
                ..route(Phase::Ready)
            };
            connect(&r, Some(&a), &Network::loopback(), wanted)
        };
        for wanted in [Use::Tunnel, Use::Request] {
            assert!(matches!(next(Protocol::Http, wanted), Next::Dial(_)));
            let refused = Next::Refuse(Refusal::OtherProtocol("udp"));
            assert_eq!(next(Protocol::Udp, wanted), refused);
        }
        assert_eq!(
            next(Protocol::WebSocket, Use::Request),
            Next::Refuse(Refusal::UpgradeRequired)
        );
        assert!(takes_over(Protocol::WebSocket, Use::Tunnel));
        assert!(
            !takes_over(Protocol::Http, Use::Tunnel),
            "a notebook has a socket for each kernel"
        );
    }

    #[test]
    fn tunnels_close_when_their_incarnation_session_or_player_goes() {
        let (a, b): (PlayerId, PlayerId) = ("a".parse().unwrap(), "b".parse().unwrap());
        for phase in Phase::ALL {
            let expected = match phase {
                Phase::Ready | Phase::Running => None,
                Phase::Ending | Phase::Ended => Some(4411),
                Phase::Queued | Phase::Starting | Phase::Replacing => Some(1012),
            };
            assert_eq!(
                verdict(&route(phase), 2, &a).map(|c| c.code),
                expected,
                "{phase:?}"
            );
        }
        let running = route(Phase::Running);
        assert_eq!(verdict(&running, 1, &a), Some(Close::REPLACED));
        assert_eq!(
            verdict(&running, 3, &a),
            None,
            "an older update about an older incarnation"
        );
        assert_eq!(verdict(&running, 2, &b), Some(Close::OTHER_SESSION));
        let mut over = route(Phase::Ending);
        for reason in Reason::ALL {
            over.ended = Some(reason);
            assert_eq!(verdict(&over, 2, &b), Some(Close::for_end(reason)));
        }
    }

    #[test]
    fn running_is_not_said_before_it_is_true_for_this_client() {
        assert_eq!(told(Phase::Running), Phase::Ready);
        assert_eq!(told(Phase::Queued), Phase::Queued);
    }

    #[test]
    fn a_bad_token_reads_the_same_whatever_is_wrong_with_it() {
        let texts: std::collections::HashSet<String> = [
            TokenError::Invalid,
            TokenError::UnknownKey,
            TokenError::Expired,
        ]
        .map(|e| Refusal::BadToken(e).to_string())
        .into();
        assert_eq!(texts.len(), 1);
    }
}
