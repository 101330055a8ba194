//! `kvass run`: becomes a program that has values in its environment.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process;

use kvass_proto::v1::{self, reply::Reply, request::Command};

use crate::cli::Run;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::value::Incoming;

/// The exit codes of a shell that cannot run a program.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(crate) fn run(client: &mut Client, arguments: Run) -> Result<(), Error> {
    let mut words = arguments.command.into_iter();
    let Some(program) = words.next() else { return Err(Error::input("no program was given")) };
    let mut command = process::Command::new(&program);
    command.args(words);
    for (variable, key) in arguments.env {
        command.env(variable, value(client, &key)?);
    }
    let cause = command.exec();
    let what = format!("cannot run {}", program.display());
    Error::failed(what).because(&cause).print();
    Err(Error::Silent(if cause.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }))
}

fn value(client: &mut Client, key: &str) -> Result<OsString, Error> {
    let get = Command::Get(v1::Get { key: key.into() });
    let mut connection = client.open(get).map_err(|error| error.of_key(key))?;
    let Reply::Value(value) = connection.reply()? else { return Err(unexpected()) };
    let bytes = Incoming::new(value, &mut connection).whole()?;
    if bytes.contains(&0) {
        return Err(Error::input(format!("the value of '{key}' holds a NUL byte, which no variable can")));
    }
    Ok(OsString::from_vec(bytes))
}
