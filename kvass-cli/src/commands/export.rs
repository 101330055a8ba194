//! `kvass export`: all entries as lines of JSON; docs/export.md describes them.

use kvass_proto::v1::list::Detail;
use kvass_proto::v1::{self, Entry, reply::Reply, request::Command};

use crate::cli::Export;
use crate::client::Client;
use crate::connection::{Part, unexpected};
use crate::error::Error;
use crate::json::Object;
use crate::output::Output;
use crate::time;
use crate::value::Incoming;

/// The bytes of a value that one line holds at most.
const PART: usize = 1 << 20;

/// The version of the format.
pub(crate) const FORMAT: u64 = 1;

pub(crate) fn run(client: &mut Client, arguments: Export) -> Result<(), Error> {
    let list = v1::List { detail: Detail::Values.into(), terminator: b'\n'.into(), ..v1::List::default() };
    let mut connection = client.open(Command::List(list))?;
    let mut output = Output::named(arguments.file.as_deref(), 0o600, true)?;
    output.line(&Object::new().number("kvass_export", FORMAT).end())?;
    let mut entries = 0;
    loop {
        match connection.next()? {
            Part::End => break,
            Part::Reply(Reply::Value(value)) => write(Incoming::new(value, &mut connection), &mut output)?,
            Part::Reply(_) | Part::Data(_) => return Err(unexpected()),
        }
        entries += 1;
    }
    output.line(&Object::new().number("entries", entries).end())?;
    output.finish()
}

fn write(mut value: Incoming<'_>, output: &mut Output) -> Result<(), Error> {
    let entry = value.entry.clone();
    if entry.size <= PART as u64 {
        let bytes = value.whole()?;
        check(&entry, bytes.len() as u64)?;
        let object = described(Object::new().text("key", &entry.key), &entry);
        return output.line(&object.value(&bytes).end());
    }
    let parts = entry.size.div_ceil(PART as u64);
    let (mut part, mut size) = (0, 0);
    value.chunks(PART, |bytes| {
        part += 1;
        size += bytes.len() as u64;
        let object = Object::new().text("key", &entry.key);
        let object = if part == 1 { described(object, &entry) } else { object };
        output.line(&object.number("part", part).number("parts", parts).base64(bytes).end())
    })?;
    check(&entry, size)
}

fn described(object: Object, entry: &Entry) -> Object {
    object.number("size", entry.size).text("time", &time::microseconds(entry.time_us)).expiry(entry.expiry_us)
}

fn check(entry: &Entry, size: u64) -> Result<(), Error> {
    if size == entry.size {
        return Ok(());
    }
    Err(Error::failed(format!("the value of '{}' has {size} bytes, not {}", entry.key, entry.size))
        .hint("look into it: kvass doctor"))
}
