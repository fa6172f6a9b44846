//! What was: match records, behind one trait.
//!
//! [`Records`] is the seam; `sqlite` is the embedded default, `memory` the one for tests, `flaky` wraps any of them in failures,
//! and `conformance` is the suite that every one of them passes. Nothing live is kept here.

mod contract;

pub use contract::*;
