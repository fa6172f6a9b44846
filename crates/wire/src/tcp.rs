//! TCP games: what the server asks of the gateway that listens for them, the line by which a player says who they are, and what
//! the PROXY header tells a game.
//!
//! A raw socket has no path to name its session, so each session has a port of its own. The port is in the reply that the caller
//! gets and must not change after, so it is opened before the answer and kept with the session's claim.

use spawnpoint_core::SessionId;

/// How the line begins that brings a token: `SPAWNPOINT <token>`, ended by LF or CRLF. What follows belongs to the game.
pub const TOKEN_LINE: &str = "SPAWNPOINT ";
/// How a refusal is said: `ERROR <stable code>` and LF, then the end of the connection.
pub const ERROR_LINE: &str = "ERROR ";
/// TLV of the PROXY header: the session's id.
pub const TLV_SESSION: u8 = 0xE0;
/// TLV of the PROXY header: the player's id. Absent when nobody said who they are.
pub const TLV_PLAYER: u8 = 0xE1;
/// TLV of the PROXY header: the generation, in decimal digits.
pub const TLV_GENERATION: u8 = 0xE2;

/// Who must bring a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenRule {
    /// Everybody but connections from this machine itself.
    #[default]
    OffLoopback,
    /// Everybody.
    Always,
    /// Nobody; who brings one is still known by it.
    Never,
}

/// What holds for the connections of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTerms {
    /// Who must bring a token.
    pub token: TokenRule,
    /// The game is told who connects, in a PROXY v2 header before the player's first byte.
    pub proxy_protocol: bool,
}

/// Why no port could be had.
#[derive(Debug, thiserror::Error)]
pub enum TcpPortError {
    /// Each is another session's, rests, or is taken by another program.
    #[error("no port of {from}-{to} is free for a TCP session")]
    Exhausted {
        /// First of the range.
        from: u16,
        /// Last of the range.
        to: u16,
    },
    /// The machine gives no socket (too many open files, no such address).
    #[error("a listener for a TCP session cannot be opened")]
    Socket(#[source] std::io::Error),
}

/// The gateway that listens for TCP sessions, as the server sees it.
pub trait TcpPorts: Send + Sync + 'static {
    /// Listens for a session, at exactly this port or at any of the range, and returns the port. Who connects from then on is kept
    /// waiting until the session's route says where to. Asking again for the same session returns the port it has.
    ///
    /// # Errors
    /// When it cannot be had (for a range: none can); nothing is open then.
    fn open(
        &self,
        session: SessionId,
        exactly: Option<u16>,
        terms: TcpTerms,
    ) -> Result<u16, TcpPortError>;

    /// Listens no more for a session; connections that were made are not touched. Unknown sessions are fine.
    fn close(&self, session: SessionId);
}
