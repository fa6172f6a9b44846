//! The stores against the world: the shared suite, real files, killed processes, full disks.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it skipped, in its helpers too"
)]

mod conformance;
mod damage;
mod durability;
mod equal;
mod full_disk;
mod lobby;
mod schema;
