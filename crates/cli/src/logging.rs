//! The log: to standard error, so that standard output stays for results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::exit::Failure;

/// What is logged when nobody says otherwise: what we do, and only warnings of what we are built from.
const DEFAULT_FILTER: &str = "warn,spawnpoint=info";

/// Starts the log as `SPAWNPOINT_LOG` says.
///
/// # Errors
/// When `SPAWNPOINT_LOG` cannot be understood.
pub(crate) fn start(format: LogFormat) -> Result<(), Failure> {
    let wanted = std::env::var("SPAWNPOINT_LOG")
        .ok()
        .filter(|v| !v.trim().is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(DEFAULT_FILTER))
        .map_err(|e| Failure::Usage(format!("SPAWNPOINT_LOG is no level (error, warn, info, debug, trace) and no list of directives: {e}")))?;
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    let outcome = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|e| Failure::Failed(format!("cannot start the log: {e}")))
}
