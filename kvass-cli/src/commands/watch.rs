//! `kvass watch`: a line for each change, across restarts of the daemon.

use std::thread;
use std::time::Duration;

use kvass_proto::v1::{self, Change, error::Code, reply::Reply, request::Command};

use crate::cli::Watch;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::json::Object;
use crate::output::Output;
use crate::time;

/// The pause before a daemon that went away is looked for again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(client: &mut Client, arguments: Watch) -> Result<(), Error> {
    let mut output = Output::stdout()?;
    let prefix = arguments.prefix.unwrap_or_default();
    let mut after = Vec::new();
    loop {
        let error = follow(client, &prefix, &mut after, |change| {
            output.line(&line(change, arguments.json))?;
            output.flush()
        });
        if !went_away(&error) {
            return Err(error);
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the daemon ended, so that another one can go on from there.
pub(crate) fn went_away(error: &Error) -> bool {
    matches!(error, Error::Lost { .. }) || error.is(Code::Stopping)
}

/// Reads changes until the connection ends, and keeps the place where it ended.
fn follow(
    client: &mut Client,
    prefix: &str,
    after: &mut Vec<u8>,
    mut each: impl FnMut(&Change) -> Result<(), Error>,
) -> Error {
    let watch = v1::Watch { prefix: prefix.into(), after: after.clone() };
    let mut connection = match client.open(Command::Watch(watch)) {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    loop {
        match connection.reply() {
            Ok(Reply::Position(position)) => *after = position.position,
            Ok(Reply::Change(change)) => match each(&change) {
                Ok(()) => *after = change.position,
                Err(error) => return error,
            },
            Ok(_) => return unexpected(),
            Err(error) => return error,
        }
    }
}

fn line(change: &Change, json: bool) -> String {
    let event = if change.removed { "rm" } else { "set" };
    let entry = change.entry.clone().unwrap_or_default();
    if !json {
        return format!("{event}\t{}", entry.key);
    }
    let object = Object::new().text("event", event).text("key", &entry.key);
    let object = if change.removed { object } else { object.number("size", entry.size) };
    object.text("time", &time::microseconds(entry.time_us)).end()
}
