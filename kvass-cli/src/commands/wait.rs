//! `kvass wait`: returns once a key exists, or once it changes.

use std::thread;
use std::time::Instant;

use kvass_proto::v1::{self, reply::Reply, request::Command};

use super::get;
use super::watch::{PAUSE, went_away};
use crate::cli::Wait;
use crate::client::Client;
use crate::connection::{Connection, unexpected};
use crate::error::Error;
use crate::output::Output;

pub(crate) fn run(client: &mut Client, arguments: Wait) -> Result<(), Error> {
    let end = arguments.timeout.map(|timeout| Instant::now() + timeout);
    let mut after = Vec::new();
    let (value, mut connection) = loop {
        match wait(client, &arguments, &mut after, end) {
            Err(error) if went_away(&error) => thread::sleep(PAUSE),
            other => break other?,
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(late(&arguments));
        }
    };
    let mut output = Output::stdout()?;
    get::show(value, &mut connection, &mut output, false)?;
    output.finish()
}

/// Asks once, and keeps the place from which a wait for a change goes on.
fn wait(
    client: &mut Client,
    arguments: &Wait,
    after: &mut Vec<u8>,
    end: Option<Instant>,
) -> Result<(v1::Value, Connection), Error> {
    let (key, change) = (arguments.key.clone(), arguments.change);
    let request = v1::Wait { key, change, after: if change { after.clone() } else { Vec::new() } };
    let mut connection = client.open(Command::Wait(request))?;
    loop {
        let reply = match end {
            None => connection.reply(),
            Some(end) => match connection.reply_within(end.saturating_duration_since(Instant::now())) {
                Ok(None) => return Err(late(arguments)),
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(error),
            },
        };
        match reply.map_err(|error| error.of_key(&arguments.key))? {
            // A wait that goes on from an earlier place keeps it until that change came.
            Reply::Position(position) if after.is_empty() => *after = position.position,
            Reply::Position(_) => {}
            Reply::Value(value) => {
                connection.unlimited()?;
                return Ok((value, connection));
            }
            _ => return Err(unexpected()),
        }
    }
}

fn late(arguments: &Wait) -> Error {
    let what = if arguments.change { "change" } else { "appear" };
    Error::late(format!("'{}' did not {what} in the time allowed", arguments.key))
}
