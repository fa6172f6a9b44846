//! The decisions against their rules: exhaustively where the cases can be listed, by property where they cannot.

mod fleet;
mod invariants;
mod lifecycle;
mod session;
mod table;
