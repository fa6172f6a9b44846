//! Everything that crosses a border: HTTP bodies, join tokens, routes and gateway reports, the durable claim, the session file,
//! events, close codes and problem documents.
//!
//! Forms here are versioned and strict on the way in (unknown fields are errors that name them). Decisions live in
//! `spawnpoint-core`; this room only spells them. No I/O may enter.

pub mod access;
pub mod api;
pub mod claim;
pub mod close;
pub mod event;
pub mod journal;
pub mod link;
pub mod problem;
pub mod strict;
pub mod tables;
pub mod tcp;
pub mod text;
pub mod token;
