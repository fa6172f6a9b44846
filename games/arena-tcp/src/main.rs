//! The command `arena-tcp`; all of it is in the library beside this file, so that its parsers can be tried from outside too.

fn main() -> std::process::ExitCode {
    arena_tcp::main()
}
