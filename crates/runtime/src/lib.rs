//! What starts, watches and stops instances.
//!
//! [`Runtime`] is the seam; `process` is the embedded default, `simulated` the one for tests and planning, `flaky` wraps any of
//! them in failures, and `conformance` is the suite that every one of them passes. Nothing here knows what a session is for: the
//! facts of a claim are an opaque, versioned document that the runtime keeps durably and returns unchanged.

pub mod chance;
pub mod clock;
pub mod conformance;
mod contract;
pub mod fault;
pub mod flaky;
#[cfg(feature = "fuzz")]
pub use process::fuzz;
pub mod process;
pub mod simulated;

pub use contract::*;
