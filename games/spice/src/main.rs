//! The command `spice`; all of it is in the library beside this file, so that its parsers can be tried from outside too.

fn main() -> std::process::ExitCode {
    spice::main()
}
