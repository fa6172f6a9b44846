//! The same command with fault points, for the kill matrix alone: built only with the feature `faults`, under a name of its own, so that
//! no build ever puts it where the command is looked for.

use std::process::ExitCode;

fn main() -> ExitCode {
    spawnpoint::main()
}
