//! kvass: turns a command into one request to kvassd over its Unix socket, and prints the answer.
//!
//! `cli` is the command line, `usage` what clap found wrong with it, `place` says which store is meant, `client` brings
//! a request to a daemon that serves (`connection` one connection, `value` a value on it; `start`, `stop` and `replace`
//! the daemon's process), `commands` holds a file for each command, `error` every exit code, `foreign` what other users
//! may have put in the way. `output` is where data goes, `terminal` asks, `json` and `time` write what people and
//! programs read, `remote`, `public_url`, `pairing` and `link` read what people give, with `base32` and `crc32`; `qr`
//! and `png` draw.
//!
//! No store and no cryptography in here, and one thread, but for the one in `output` that waits for a signal.

mod base32;
mod cli;
mod client;
mod commands;
mod connection;
mod crc32;
mod error;
mod foreign;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod json;
mod link;
mod output;
mod pairing;
mod place;
mod png;
mod public_url;
mod qr;
mod remote;
mod replace;
mod start;
mod stop;
mod terminal;
mod time;
mod usage;
mod value;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::error::Error;

/// Does what the arguments of this process say, and returns what it ends with.
#[must_use]
pub fn main() -> ExitCode {
    keep_to_itself();
    // Set by a shell that asks what may stand where the cursor is.
    if std::env::var_os(commands::completions::VARIABLE).is_some() {
        commands::completions::complete();
    }
    match run(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit())
        }
    }
}

/// Keeps what passes through this process, values and keys, out of core dumps and from other processes of the user.
/// The limit of cores stays what it is: programs that are started from here would inherit it.
fn keep_to_itself() {
    // A system that refuses it is no reason not to serve the user.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

fn run(arguments: &[OsString]) -> Result<(), Error> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| usage::report(&error, arguments))?;
    commands::run(cli)
}
