//! x
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;
pub(crate) fn run(_root: &Path) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
