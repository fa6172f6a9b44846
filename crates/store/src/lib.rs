//! What was, and who waits: match records and tickets, each behind one trait.
//!
//! [`Records`] is the seam of what was; [`sqlite`] is the embedded default, [`memory`] the one for tests, and [`conformance`] the suite
//! that every one of them passes. [`lobby`] has the same of who waits. [`flaky`] wraps any of them in failures. No session that lives
//! is kept here.

pub mod conformance;
mod contract;
mod cursor;
pub mod flaky;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod lobby;
pub mod memory;
pub mod sqlite;

pub use contract::*;
pub use lobby::{Lobby, LobbyError};
