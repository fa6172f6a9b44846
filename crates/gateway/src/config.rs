//! What the gateway is told, and every limit it keeps with its reason.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use spawnpoint_wire::access::Access;

/// A request head larger than this is refused: a token is at most 4 KiB, browsers send a few KiB of cookies.
pub const MAX_HEAD: usize = 32 * 1024;
/// Default of [`GatewayConfig::header_timeout`].
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes one direction of one tunnel may keep when the receiver does not take them; then its sender is not read any more.
pub const RELAY_CHUNK: usize = 64 * 1024;
/// Probes on quiet connections begin after this: below the usual 60 s of home routers and load balancers.
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time between probes; three unanswered ones end the connection.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A player's machine that acknowledges nothing (or takes nothing) for this long is gone.
pub const CLIENT_UNACKNOWLEDGED: Duration = Duration::from_secs(120);
/// Connecting to a game takes at most this long: it is on this machine or in this cluster.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A game answers the handshake within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause between attempts to reach a game that does not accept; doubles up to [`DIAL_PAUSE_MAX`].
pub const DIAL_PAUSE: Duration = Duration::from_millis(20);
/// See [`DIAL_PAUSE`].
pub const DIAL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Default of [`GatewayConfig::answer_timeout`]: twice what people wait for a page, so that a long poll of a minute fits.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Default of [`GatewayConfig::upload_silence`]: as long as a machine that acknowledges nothing is believed to be there.
pub const UPLOAD_SILENCE: Duration = CLIENT_UNACKNOWLEDGED;
/// Unused connections to one HTTP game at most: more than a browser makes at once, few enough for a game of one thread.
pub const MAX_IDLE_CONNECTIONS: usize = 8;
/// An unused connection to an HTTP game is kept this long: less than the shortest usual patience of servers (Node: 5 s), so that
/// a request hardly ever meets one that is being closed.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// A connection that has just carried an answer is free for the next request within this time, else another is made.
pub const IDLE_SETTLES: Duration = Duration::from_millis(20);
/// In a drain the answer of an HTTP game may go on for this long: a page gets through, an endless stream is cut.
pub const DRAIN_ANSWERS: Duration = Duration::from_secs(2);
/// An old connection of the same player leaves the game within this time, else the new one does not wait for it.
pub const TAKEOVER_WAIT: Duration = Duration::from_secs(1);
/// From the wish to close until a Close frame is on its way; a game stalled in mid-frame or a client that reads nothing longer
/// than this loses the connection without one (1006).
pub const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// What a game had already sent is still carried before a Close of ours, but a flood does not put it off longer than this.
pub const CLOSE_DRAIN: Duration = Duration::from_millis(500);
/// After our Close the client has this long to answer it.
pub const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a client read and thrown away after its handshake was refused: more than any that means well sends before an answer.
pub const REFUSED_DISCARD: usize = 256 * 1024;
/// Connections that are refused as such, past a limit or in a drain, and are waited for until they have heard it, at once. Each is a
/// descriptor for up to [`LINGER`]; of the others only what has come already is read over.
pub const REFUSALS_AT_ONCE: usize = 256;
/// Connections that the kernel has made and nobody has accepted, of one listener at its end, that are still heard: as many as Linux
/// keeps unless told otherwise.
pub const BACKLOG_HEARD: usize = 4_096;
/// A game's socket died without a word: the control plane has this long to say why.
pub const WORD_WAIT: Duration = Duration::from_secs(2);
/// One side has finished; the other may go on for this long.
pub const HALF_CLOSED: Duration = Duration::from_secs(30);
/// How often a tunnel that is stuck or half closed is looked at; idle and flowing ones never are.
pub const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// Default of [`GatewayConfig::progress_period`].
pub const PROGRESS_PERIOD: Duration = Duration::from_secs(5);
/// A progress connection lasts at most this long: queue deadline, boot limit and something over.
pub const MAX_PROGRESS: Duration = Duration::from_secs(15 * 60);
/// Writing a small frame of ours to a client takes at most this long.
pub const CLIENT_WRITE: Duration = Duration::from_secs(5);
/// A session that the control plane does not know is not asked about again for this long.
pub const MISS_KEPT: Duration = Duration::from_secs(2);
/// The control plane could not be asked; it is not asked again about this session for this long.
pub const UNREACHABLE_KEPT: Duration = Duration::from_millis(500);
/// The end of a session is remembered for this long, so that late comers learn why.
pub const ENDED_KEPT: Duration = Duration::from_secs(60);
/// Ends and misses remembered at most.
pub const MAX_MISSES: usize = 16_384;
/// Asking the control plane about one session takes at most this long.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The control plane says that a player has joined; the stream of routes says so too within this time, or something is wrong with it.
pub const ROSTER_WAIT: Duration = Duration::from_secs(3);
/// Questions about unknown sessions per second ...
pub const RESOLVE_RATE: u32 = 50;
/// ... and at once.
pub const RESOLVE_BURST: u32 = 100;
/// Reports of presence are sent at most this often; edges in between travel together.
pub const REPORT_SPACING: Duration = Duration::from_millis(20);
/// While data flows a report goes out this often.
pub const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// The control plane takes a report within this time.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after the control plane could not be reached; doubles up to [`LINK_PAUSE_MAX`].
pub const LINK_PAUSE: Duration = Duration::from_millis(100);
/// See [`LINK_PAUSE`].
pub const LINK_PAUSE_MAX: Duration = Duration::from_secs(3);
/// Players who left and are not reported yet, at most; past it the oldest are dropped, the next full report says the same.
pub const MAX_DEPARTED: usize = 100_000;
/// A drain waits at most this long for tunnels and requests to end.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(6);
/// Pause after `accept` failed (no descriptors left), so that a full process does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the gateway is told. [`Default`] suits a laptop.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Which hosts and origins are answered to: the same rules as the API's.
    pub access: Access,
    /// Players reach us by TLS (ended in front of us): games learn `X-Forwarded-Proto: https`.
    pub secure: bool,
    /// Networks that games are dialled in. Anything else in a route is refused, so that a wrong table cannot turn the gateway
    /// against the network behind it.
    pub targets: Vec<Network>,
    /// A connection without progress frames is parked at most this long before its handshake is answered.
    pub park: Duration,
    /// A game that the table calls ready but that does not accept is dialled again for this long.
    pub dial_limit: Duration,
    /// A client has this long to send a whole request head; also how long an unused connection is kept.
    pub header_timeout: Duration,
    /// The line by which a TCP player says who they are is complete within this time.
    pub token_limit: Duration,
    /// A progress frame goes out at least this often, so that nothing on the way thinks the connection dead.
    pub progress_period: Duration,
    /// Connections of all kinds.
    pub max_connections: u32,
    /// Game connections from one address; of all kinds twice as many.
    pub max_per_address: u32,
    /// Whether `max_per_address` holds for loopback too. Usually not: a local proxy or load test stands there.
    pub limit_loopback: bool,
    /// Tunnels and waiting connections of one session.
    pub max_per_session: u32,
    /// Requests of one HTTP session at a time, with its tunnels.
    pub max_requests_per_session: u32,
    /// An HTTP game begins its answer within this time after the last byte of the request.
    pub answer_timeout: Duration,
    /// A client that is sending a body to an HTTP game may pause for this long.
    pub upload_silence: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            access: Access {
                loopback_origins: true,
                ..Access::default()
            },
            secure: false,
            targets: Network::loopback(),
            park: spawnpoint_core::limits::MAX_PARK,
            dial_limit: Duration::from_secs(5),
            header_timeout: HEADER_TIMEOUT,
            token_limit: crate::tcp::TOKEN_LIMIT,
            progress_period: PROGRESS_PERIOD,
            max_connections: 100_000,
            max_per_address: 512,
            limit_loopback: false,
            // Twice the largest roster: everybody may be taking over from an older connection of theirs.
            max_per_session: 200,
            // The largest roster, each with the six connections that a browser makes and some streams.
            max_requests_per_session: 1_024,
            answer_timeout: ANSWER_TIMEOUT,
            upload_silence: UPLOAD_SILENCE,
        }
    }
}

/// An IP network, `10.0.0.0/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP network such as 10.0.0.0/8 or fd00::/8")]
pub struct NetworkError;

impl Network {
    /// 127.0.0.0/8 and ::1.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        vec![
            Self {
                base: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)),
                bits: 8,
            },
            Self {
                base: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
                bits: 128,
            },
        ]
    }

    /// Whether the address is inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(a)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (u32::from(base) ^ u32::from(a)) & mask == 0
            }
            (IpAddr::V6(base), IpAddr::V6(a)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                (u128::from(base) ^ u128::from(a)) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(s: &str) -> Result<Self, NetworkError> {
        let (base, bits) = match s.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (s, None),
        };
        let base: IpAddr = base.parse().map_err(|_| NetworkError)?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            Some(bits) => bits.parse().map_err(|_| NetworkError)?,
            None => most,
        };
        if bits > most {
            return Err(NetworkError);
        }
        // Addresses are compared in their plain form, so a network of mapped ones is written down as what it is: IPv4.
        match (base.to_canonical(), base) {
            (v4 @ IpAddr::V4(_), IpAddr::V6(_)) => Ok(Self {
                base: v4,
                bits: bits.checked_sub(96).ok_or(NetworkError)?,
            }),
            _ => Ok(Self { base, bits }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_they_say() {
        let inside =
            |net: &str, a: &str| net.parse::<Network>().unwrap().contains(a.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.1.2"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.1.1"), "mapped");
        assert!(inside("::ffff:10.0.0.0/104", "10.1.1.1") && inside("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!inside("::ffff:10.0.0.0/104", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("192.168.1.7", "192.168.1.7") && !inside("192.168.1.7", "192.168.1.8"));
        assert!(inside("fd00::/8", "fd12::1") && !inside("fd00::/8", "fe80::1"));
        for bad in [
            "",
            "10.0.0.0/33",
            "x/8",
            "::/129",
            "10.0.0.0/-1",
            "::ffff:10.0.0.0/95",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let local = Network::loopback();
        assert!(
            local
                .iter()
                .any(|n| n.contains("127.3.2.1".parse().unwrap()))
        );
        assert!(
            !local
                .iter()
                .any(|n| n.contains("169.254.169.254".parse().unwrap()))
        );
    }
}
