//! The real binary, with real games, sockets and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests of their own, where a panic is the finding

mod audit;
mod brake;
mod faults;
mod fleets;
mod kinds;
mod life;
mod line;
mod load;
mod matching;
mod replay;
mod run;
mod tcp;
mod world;
