//! The seeded world: server, gateway tables, matchmaker, reaper, recorder and simulated games on one thread in virtual time, with all
//! chance from one seed, behind everything that goes wrong; and the checkers that watch.
//!
//! Dev-only. Without the feature `simulation` there is nothing here, so that no build of the workspace turns on what it needs in the
//! roles (fault points that can be armed, bugs that can be switched on).
#![cfg(feature = "simulation")]

mod audit;
pub mod chance;
mod client;
pub mod day;
mod decisions;
mod doors;
mod history;
mod ledger;
mod life;
pub mod mutants;
mod nature;
pub mod plan;
mod players;
pub mod run;
pub mod shrink;
mod site;
mod truth;
mod world;

pub use plan::{Crowd, Cut, Plan, Trouble};
pub use run::{Outcome, run, run_seed};
pub use world::Finding;
