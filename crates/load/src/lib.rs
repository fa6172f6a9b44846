//! The load tester: simulated players who join, play and end, and a report that does not flatter.
//!
//! It speaks what any client speaks: the public HTTP API, TCP and WebSocket. Nothing of the server is linked in, so a mistake that both
//! sides share cannot hide here. It neither prints nor decides what a terminal shows: `run` takes a [`Plan`], tells of its progress
//! through a [`Progress`], and gives a [`Report`].
//!
//! Three rules keep it honest. Clients start at intended times that do not depend on how the server is doing, and what they wait is
//! counted from those times (`schedule`). Every client has exactly one outcome, and one that is not good fails the run (`report`).
//! What the server recorded is compared with what was seen (`records`).

mod api;
mod client;
mod descriptors;
mod dial;
mod fault;
mod http;
mod lines;
mod page;
pub mod plan;
mod play;
mod plots;
mod progress;
mod records;
mod report;
mod requests;
mod run;
mod schedule;
mod spice;
mod stats;
mod summary;
mod target;
mod usage;

pub use fault::{Fault, LoadError, Phase};
pub use page::html;
pub use plan::{Mode, Plan, TokenLine};
pub use progress::{Progress, Snapshot};
pub use records::{Mismatch, RecordsCheck};
pub use report::{ClientRow, FaultCount, Outcome, Report, Verdict};
pub use requests::Requests;
pub use run::run;
pub use stats::Spread;
pub use summary::text;
pub use target::{Target, TargetError};
