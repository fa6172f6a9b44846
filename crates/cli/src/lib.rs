//! The `spawnpoint` command: one file a verb. The only crate that speaks to a terminal, and the one that puts the roles together.
//!
//! Decisions about sessions, fleets and players have no place here: a verb reads its arguments, asks a role or a running server, and
//! shows the answer.

mod args;
mod banner;
mod client;
mod config_file;
mod event_stream;
mod exit;
mod gateway_metrics;
mod listen;
mod logging;
mod output;
mod reference;
mod reload;
mod roles;
mod signals;
mod signing_keys;
mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Verb};
use exit::Failure;

/// The whole command: reads its arguments, does what they say.
#[must_use]
pub fn main() -> ExitCode {
    // A shim stands between every game and its exit status, and a machine runs many: it parses nothing, starts no executor and
    // reads no configuration.
    if let Some(dir) = shim_dir(std::env::args_os()) {
        return spawnpoint_runtime::process::shim::main(&dir);
    }
    match Cli::try_parse() {
        Ok(cli) => exit::finish(dispatch(cli)),
        Err(e) => {
            let code = match e.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
                _ => exit::USAGE,
            };
            // A closed pipe is the reader's decision, not an error of ours.
            let _ = e.print();
            ExitCode::from(code)
        }
    }
}

/// The directory of `spawnpoint shim <dir>`.
fn shim_dir(mut args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let verb = args.nth(1)?;
    let dir = args.next()?;
    (verb == "shim" && args.next().is_none() && dir != "--help" && dir != "-h")
        .then(|| PathBuf::from(dir))
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Up(args) => verbs::up::run(&args, &global),
        Verb::Run(args) => verbs::run::run(&args, &global),
        Verb::New(args) => verbs::new::run(&args, &global),
        Verb::Sessions(verb) => verbs::sessions::run(&verb, &global),
        Verb::Fleets(verb) => verbs::fleets::run(&verb, &global),
        Verb::Matches(verb) => verbs::matches::run(&verb, &global),
        Verb::Load(args) => verbs::load::run(&args, &global),
        Verb::Audit => verbs::audit::run(&global),
        Verb::Replay(args) => verbs::replay::run(&args, &global),
        Verb::Doctor(args) => verbs::doctor::run(&args, &global),
        Verb::Completions { shell } => verbs::completions::run(shell),
        Verb::Shim { dir } => verbs::shim(&dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_shim_call_takes_the_fast_path() {
        let dir = |args: &[&str]| shim_dir(args.iter().map(OsString::from));
        assert_eq!(
            dir(&["spawnpoint", "shim", "/x"]),
            Some(PathBuf::from("/x"))
        );
        for other in [
            &["spawnpoint"][..],
            &["spawnpoint", "shim"],
            &["spawnpoint", "up", "shim"],
            &["spawnpoint", "shim", "a", "b"],
            &["spawnpoint", "shim", "--help"],
        ] {
            assert_eq!(dir(other), None, "{other:?}");
        }
    }
}
