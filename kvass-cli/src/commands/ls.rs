//! `kvass ls`: lists keys, entries, or values.

use std::os::unix::ffi::OsStringExt;

use kvass_proto::v1::list::Detail;
use kvass_proto::v1::{self, Entry, reply::Reply, request::Command};

use super::get::LOOKED_AT;
use crate::cli::Ls;
use crate::client::Client;
use crate::connection::{Part, unexpected};
use crate::error::Error;
use crate::json::{self, Object};
use crate::output::{Output, is_binary};
use crate::time;
use crate::value::Incoming;

/// Values up to this size, in bytes, are held in memory to tell text from other bytes in JSON.
const HELD: u64 = 1 << 20;

/// How a record is written.
struct Style {
    long: bool,
    json: bool,
    delimiter: Option<Vec<u8>>,
    end: u8,
}

pub(crate) fn run(client: &mut Client, arguments: Ls) -> Result<(), Error> {
    let detail = match (arguments.values, arguments.long || arguments.json) {
        (true, _) => Detail::Values,
        (false, true) => Detail::Entries,
        (false, false) => Detail::Names,
    };
    let style = Style {
        long: arguments.long,
        json: arguments.json,
        delimiter: arguments.delimiter.map(OsStringExt::into_vec),
        end: if arguments.null { 0 } else { b'\n' },
    };
    let mut connection = client.open(Command::List(v1::List {
        prefix: arguments.prefix.unwrap_or_default(),
        detail: detail.into(),
        reverse: arguments.reverse,
        terminator: style.end.into(),
    }))?;
    let mut output = Output::stdout()?;
    loop {
        let reply = match connection.next()? {
            Part::End => return output.finish(),
            Part::Data(names) => {
                output.write(names)?;
                continue;
            }
            Part::Reply(reply) => reply,
        };
        match reply {
            Reply::Value(value) => style.value(Incoming::new(value, &mut connection), &mut output)?,
            Reply::Listing(listing) => {
                listing.entries.iter().try_for_each(|entry| style.entry(entry, &mut output))?;
            }
            _ => return Err(unexpected()),
        }
    }
}

/// The number of keys that begin with `prefix`.
pub(crate) fn count(client: &mut Client, prefix: &str) -> Result<usize, Error> {
    let list = v1::List { prefix: prefix.into(), terminator: b'\n'.into(), ..v1::List::default() };
    let mut connection = client.open(Command::List(list))?;
    let mut count = 0;
    loop {
        match connection.next()? {
            Part::Data(names) => count += names.iter().filter(|byte| **byte == b'\n').count(),
            Part::End => return Ok(count),
            Part::Reply(_) => return Err(unexpected()),
        }
    }
}

impl Style {
    fn entry(&self, entry: &Entry, output: &mut Output) -> Result<(), Error> {
        if self.json {
            return output.line(&Object::new().entry(entry).end());
        }
        self.columns(entry, output)?;
        output.write(&[self.end])
    }

    fn value(&self, mut value: Incoming<'_>, output: &mut Output) -> Result<(), Error> {
        if self.json {
            return json_value(value, output);
        }
        self.columns(&value.entry, output)?;
        output.write(self.delimiter.as_deref().unwrap_or(b"\t"))?;
        let (size, cut) = (value.entry.size, !value.is_inline());
        let mut first = true;
        while let Some(bytes) = value.piece()? {
            let looked_at = if cut { &bytes[..bytes.len().min(LOOKED_AT)] } else { bytes };
            if first && output.terminal && is_binary(looked_at, cut) {
                output.write(format!("(binary, {size} bytes)").as_bytes())?;
                value.skip()?;
                break;
            }
            first = false;
            output.write(bytes)?;
        }
        output.write(&[self.end])
    }

    /// Everything of a record up to its key.
    fn columns(&self, entry: &Entry, output: &mut Output) -> Result<(), Error> {
        if self.long {
            let (time, sync) = (time::seconds(entry.time_us), json::sync_word(entry.sync()));
            match &self.delimiter {
                None => output.write(format!("{:>11}  {time}  {sync:<7}  ", entry.size).as_bytes())?,
                Some(delimiter) => {
                    for column in [entry.size.to_string().as_str(), &time, sync] {
                        output.write(column.as_bytes())?;
                        output.write(delimiter)?;
                    }
                }
            }
        }
        output.write(entry.key.as_bytes())
    }
}

/// An object with the value; a long one always as base64, which needs no look at the whole.
fn json_value(mut value: Incoming<'_>, output: &mut Output) -> Result<(), Error> {
    let object = Object::new().entry(&value.entry);
    if value.entry.size <= HELD {
        return output.line(&object.value(&value.whole()?).end());
    }
    output.write(object.open_value().as_bytes())?;
    value.chunks(3 << 16, |chunk| output.write(json::base64(chunk).as_bytes()))?;
    output.line("\"}")
}
