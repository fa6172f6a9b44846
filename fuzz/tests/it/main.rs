//! Replays the committed inputs of every target, and holds the corpora to their size.
//!
//! `SPAWNPOINT_REWRITE=1 cargo test -p spawnpoint-fuzz seeds` writes the real examples again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod replay;
mod seeds;
