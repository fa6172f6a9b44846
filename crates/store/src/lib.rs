//! What was: match records, behind one trait.
//!
//! [`Records`] is the seam; [`sqlite`] is the embedded default, [`memory`] the one for tests, [`flaky`] wraps any of them in
//! failures, and [`conformance`] is the suite that every one of them passes. Nothing live is kept here.

pub mod conformance;
mod contract;
mod cursor;
pub mod flaky;
pub mod memory;
pub mod sqlite;

pub use contract::*;
