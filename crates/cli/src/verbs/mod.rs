//! One file a verb.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod fleets;
pub(crate) mod load;
pub(crate) mod matches;
pub(crate) mod new;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod sessions;
pub(crate) mod up;

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::exit::Failure;

/// `shim`, when it was not called the one way that takes the fast path.
pub(crate) fn shim(dir: &Path) -> Result<(), Failure> {
    if spawnpoint_runtime::process::shim::main(dir) == ExitCode::SUCCESS {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

/// An answer of the server in the form this release knows.
pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value)
        .map_err(|e| Failure::Failed(format!("the server's answer is of another release: {e}")))
}

/// The value, or a dash where there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}
