//! Every parser of bytes that somebody else wrote, with what it promises, as one function from bytes.
//!
//! A target asserts: whatever comes in, it neither panics nor allocates out of proportion, what it accepts survives being printed and
//! read again, and what it refuses has a stable code. The same functions are run by `make fuzz`, which looks for new inputs with a
//! coverage-guided engine, and by `cargo test`, which replays the committed ones in `fuzz/corpus`. Targets of what is private to a
//! crate stand in that crate's own `fuzz` module, behind its feature `fuzz`.
//!
//! Nothing of the product may depend on this crate.

pub mod allocation;
pub mod corpus;
mod seeds;
mod targets;

use allocation::{Allocated, measure};

/// One parser and what it promises.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: the folder in `fuzz/corpus`, the argument of `make fuzz`.
    pub name: &'static str,
    /// What it promises, in a sentence.
    pub promises: &'static str,
    /// Panics when an input breaks the promise.
    pub check: fn(&[u8]),
    /// Real examples to begin with, by name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// Longest input worth trying, bytes: the limit of whoever calls the parser, or a little more.
    pub longest: usize,
    /// Bytes that may be held at once for each byte of input, beside [`SLACK`].
    pub held: usize,
    /// Bytes that may be allocated over time for each byte of input, beside [`SLACK`].
    pub asked: usize,
}

/// What a run may allocate whatever its input: error texts, tables, a page of JSON.
pub const SLACK: usize = 1024 * 1024;

/// Every target.
pub use targets::TARGETS;

impl Target {
    /// Checks one input, and what that allocated.
    ///
    /// # Panics
    /// When the promise is broken.
    pub fn run(&self, input: &[u8]) {
        let input = input.get(..self.longest).unwrap_or(input);
        let ((), Allocated { peak, total }) = measure(|| (self.check)(input));
        let held = SLACK + self.held * input.len();
        let asked = 8 * SLACK + self.asked * input.len();
        assert!(
            peak <= held,
            "{}: {} bytes of input made it hold {peak} bytes, more than {held}",
            self.name,
            input.len()
        );
        assert!(
            total <= asked,
            "{}: {} bytes of input made it allocate {total} bytes in all, more than {asked}",
            self.name,
            input.len()
        );
    }
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
