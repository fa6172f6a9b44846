//! Work on the repository itself: `gen` writes the generated documents (and `gen --check` compares them), `tidy` checks house
//! rules that clippy cannot see, `test` runs every suite, `requirements` holds a document to what ran, `fuzz` looks for inputs that break a parser.
//! The Makefile calls them; nothing here ships.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a tool of the terminal

mod fuzz;
mod generate;
mod requirements;
mod suites;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "\
usage: cargo run -p xtask -- <task>

  gen           write every generated file
  gen --check   fail when a committed file differs from what would be written
  tidy          check the house rules that clippy does not
  test [SUITE]  every suite (or those named), and at the end which ran, which did not and why
  requirements  hold docs/requirements.md to what the last runs of the suites showed
  fuzz          look for inputs that break a parser's promise; `make fuzz` says how
";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root()?;
    match args.as_slice() {
        ["gen"] => generate::write(&root),
        ["gen", "--check"] => generate::check(&root),
        ["tidy"] => tidy::run(&root),
        ["test", only @ ..] => suites::run(&root, only),
        ["requirements"] => Ok(if requirements::run(&root)? {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        ["fuzz", arguments @ ..] => fuzz::run(&root, arguments),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown task `{}`\n\n{USAGE}", other.join(" ")),
    }
}

/// The workspace, wherever the command was typed.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.context("xtask is not inside a workspace")?;
    Ok(root.to_owned())
}
