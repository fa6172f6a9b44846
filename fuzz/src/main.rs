//! The engine that looks for inputs: libFuzzer around the target that `SPAWNPOINT_FUZZ_TARGET` names. `make fuzz` builds and starts it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use spawnpoint_fuzz::{TARGETS, Target, target};

/// Names the target.
const VARIABLE: &str = "SPAWNPOINT_FUZZ_TARGET";

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

#[allow(
    clippy::panic,
    reason = "how this engine is told that an input breaks a promise"
)]
fn chosen() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            let known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            panic!("{VARIABLE} must be one of: {}", known.join(", "))
        })
    })
}

fuzz_target!(|input: &[u8]| {
    chosen().run(input);
});
