//! What tests stand on: a clock they turn. Dev-only; nothing that ships may depend on it.

pub mod clock;

pub use clock::VirtualClock;
