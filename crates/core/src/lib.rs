//! The decisions of Spawnpoint, and nothing else.
//!
//! Everything here is a value or a pure function of its arguments: `now`, seeds and limits are passed in. No async, no
//! clock, no randomness, no I/O, no logging and no serialisation may enter; stored and transmitted forms are versioned
//! mirrors in `spawnpoint-wire`. That is what lets every rule be tested exhaustively and replayed from its log.

pub mod audit;
pub mod code;
pub mod decision;
pub mod fleet;
pub mod id;
pub mod lifecycle;
pub mod limits;
pub mod matching;
pub mod ports;
pub mod record;
pub mod session;
pub mod time;

pub use code::{Code, Coded, Retry, Side};
pub use id::{FleetName, Generation, InstanceId, PlayerId, SessionId, TicketId};
pub use time::{Clock, Known, Moment};
