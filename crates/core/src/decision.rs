//! The decision log's record: each decision once, with its inputs, output and reason. `why`, receipts, `/debug/workers` and plan
//! reasons are views of it.

use crate::{FleetName, Moment, SessionId};

/// What was decided about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One session.
    Session(SessionId),
    /// A fleet's pool.
    Fleet(FleetName),
    /// A worker as a whole (brake, late tick).
    Worker(&'static str),
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Moment,
    /// About what.
    pub subject: Subject,
    /// Which pure function decided: `session::step`, `fleet::plan`, `lifecycle::brake`, ...
    pub function: &'static str,
    /// Its inputs, short.
    pub input: String,
    /// Its output, short.
    pub output: String,
    /// Its reason, in words.
    pub because: String,
}
