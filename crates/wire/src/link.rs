//! Where gateway and server meet: routes flow one way, what the gateway sees flows the other.
//!
//! In one process the server implements [`Link`] directly; apart, the same messages travel over HTTP. Times in reports are ages, so
//! that clocks need not agree.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_core::{FleetName, PlayerId, SessionId};

use crate::text;

/// What travels between player and game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// WebSocket over HTTP/1.1.
    WebSocket,
    /// Plain HTTP/1.1.
    Http,
    /// Raw TCP.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl Protocol {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where one session's connections go now, and who may make them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The session.
    #[serde(with = "text")]
    pub session: SessionId,
    /// Its fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
    /// The incarnation that `address` belongs to. A tunnel of an older one is closed with 1012.
    pub generation: u32,
    /// The phase; connections are made in `ready` and `running`, parked before, refused after.
    #[serde(with = "text::phase")]
    pub phase: Phase,
    /// Where the game listens; `None` while it does not.
    pub address: Option<SocketAddr>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Players on the roster. A valid token of anybody else is refused (they left or were kicked).
    #[serde(with = "roster")]
    pub players: Arc<[PlayerId]>,
    /// Place in the queue, 1 is next, while `queued`.
    pub position: Option<u32>,
    /// What a queued session waits for.
    pub waiting_for: Option<String>,
    /// Why it ends, from `ending` on.
    #[serde(
        with = "text::reason::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ended: Option<Reason>,
}

/// A place in one server's stream of route updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which run of which server numbered it.
    pub incarnation: u64,
    /// How far.
    pub sequence: u64,
}

/// A route that was asked for, which may be newer than what the stream has brought so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The route.
    pub route: Route,
    /// The place in the stream that it includes: what comes there up to it is older.
    pub as_of: Cursor,
}

/// One message of the stream of routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RouteUpdate {
    /// The whole table; routes not in it are gone. First, unless the cursor could be resumed, and after a gap.
    All {
        /// Place after this message.
        cursor: Cursor,
        /// Every route.
        routes: Vec<Route>,
    },
    /// One route as it is now.
    Set {
        /// Place after this message.
        cursor: Cursor,
        /// The route.
        route: Box<Route>,
    },
    /// One route is gone: its session has ended.
    Gone {
        /// Place after this message.
        cursor: Cursor,
        /// Whose.
        #[serde(with = "text")]
        session: SessionId,
    },
}

/// A gateway reports at least this often, also when nothing has changed: an empty report says "still here, nothing new".
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A gateway that has been silent for this long cannot be heard: what its players do is unknown, which is not the same as gone.
pub const GATEWAY_SILENT: Duration = Duration::from_secs(15);

/// What one gateway sees. Sent on every change of presence, each second while data flows, and every [`REPORT_EVERY`] in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// This run of this gateway. A new value means that every tunnel of the old one is gone.
    pub gateway: String,
    /// Counts this run's reports; an older one arriving late is ignored.
    pub sequence: u64,
    /// Whether `sessions` is everything this gateway has (the first report is; then those with changes).
    pub full: bool,
    /// What it sees, per session.
    pub sessions: Vec<SessionReport>,
}

/// One session as one gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which.
    #[serde(with = "text")]
    pub session: SessionId,
    /// The incarnation its tunnels go to.
    pub generation: u32,
    /// Players with tunnels now, and those whose last one closed since the last report.
    pub players: Vec<PlayerReport>,
}

/// One player of one session as one gateway sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayerReport {
    /// Who.
    #[serde(with = "text")]
    pub player: PlayerId,
    /// Open tunnels.
    pub connections: u32,
    /// Milliseconds since the last data frame (or bytes) from the player; `None` if none since the tunnel opened.
    pub client_data_age_ms: Option<u64>,
    /// Milliseconds since the last data frame (or bytes) from the game to this player.
    pub server_data_age_ms: Option<u64>,
    /// Bytes from the player since the last report.
    pub bytes_in: u64,
    /// Bytes to the player since the last report.
    pub bytes_out: u64,
}

/// The other side could not be asked. Known routes keep working meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It cannot be reached or did not answer in time.
    #[error("the control plane cannot be reached: {0}")]
    Unavailable(String),
}

/// The server as a gateway sees it.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Routes from a cursor on; begins with [`RouteUpdate::All`] when there is none or it cannot be resumed.
    async fn routes(
        &self,
        from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError>;

    /// One session's route right now, for a miss. `None`: there is no such live session.
    async fn resolve(&self, session: SessionId) -> Result<Option<Resolved>, LinkError>;

    /// Takes a report. Returns once it is applied.
    async fn report(&self, report: Report) -> Result<(), LinkError>;
}

mod roster {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};
    use spawnpoint_core::PlayerId;

    pub(super) fn serialize<S: Serializer>(
        value: &Arc<[PlayerId]>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        crate::text::list::serialize(value, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Arc<[PlayerId]>, D::Error> {
        crate::text::list::deserialize::<PlayerId, D>(d).map(Into::into)
    }
}
