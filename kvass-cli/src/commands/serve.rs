//! `kvass serve`: becomes kvassd in the foreground, with a door for other devices.

use std::os::unix::process::CommandExt;
use std::process;

use crate::cli::Serve;
use crate::error::Error;
use crate::place::Place;
use crate::start;

pub(crate) fn run(place: &Place, arguments: Serve) -> Result<(), Error> {
    place.refuse_second_store()?;
    let program = start::find()?;
    let mut command = process::Command::new(&program);
    command.args(start::naming(place)).arg("--server");
    let Serve { bind, tls_cert, tls_key } = arguments;
    for (flag, value) in [("--bind", bind), ("--tls-cert", tls_cert), ("--tls-key", tls_key)] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    let cause = command.exec();
    Err(Error::failed(format!("cannot start {}", program.display())).because(cause))
}
