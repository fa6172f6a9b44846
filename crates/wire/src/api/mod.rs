//! Bodies of the HTTP API, by topic. Replies are snake_case but for `wsUrl`; requests are read by [`crate::strict`].

mod audit;
mod calls;
mod fleets;
mod matches;
mod matching;
mod operations;
mod sdk;
mod sessions;

pub use audit::*;
pub use calls::*;
pub use fleets::*;
pub use matches::*;
pub use matching::*;
pub use operations::*;
pub use sdk::*;
pub use sessions::*;
