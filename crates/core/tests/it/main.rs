//! The decisions against their rules: exhaustively where the cases can be listed, by property where they cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what broke by panicking

mod fleet;
mod invariants;
mod lifecycle;
mod matching;
mod requests;
mod session;
mod table;
