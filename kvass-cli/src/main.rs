//! `kvass`: the library as a program, so that what it reads can also be given to it by something else than a shell.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvass_cli::main()
}
