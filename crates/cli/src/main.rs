//! The `spawnpoint` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    spawnpoint::main()
}
