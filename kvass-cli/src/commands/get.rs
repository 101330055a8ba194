//! `kvass get`: writes a value.

use std::os::unix::ffi::OsStrExt;

use kvass_proto::v1::{self, error::Code, reply::Reply, request::Command};

use super::sync::{self, Wait};
use crate::cli::Get;
use crate::client::Client;
use crate::connection::{Connection, unexpected};
use crate::error::Error;
use crate::output::{Output, is_binary};
use crate::value::Incoming;

/// How much of a long value is looked at to tell text from binary data.
pub(crate) const LOOKED_AT: usize = 8 << 10;

pub(crate) fn run(client: &mut Client, arguments: Get) -> Result<(), Error> {
    if let Some(limit) = arguments.fresh {
        sync::wait(client, &Wait::taken(limit))?;
    }
    let answer = client.open(Command::Get(v1::Get { key: arguments.key.clone() }));
    let open = || Output::named(arguments.output.as_deref(), 0o666, false);
    match (answer, arguments.default) {
        (Err(error), Some(value)) if error.is(Code::NoSuchKey) => {
            let mut output = open()?;
            show_bytes(value.as_bytes(), &mut output, arguments.raw)?;
            output.finish()
        }
        (Err(error), _) => Err(error.of_key(&arguments.key)),
        (Ok(mut connection), _) => {
            let Reply::Value(value) = connection.reply()? else { return Err(unexpected()) };
            let mut output = open()?;
            show(value, &mut connection, &mut output, arguments.raw)?;
            output.finish()
        }
    }
}

/// Writes a value; to a terminal only text, unless `raw`, and with a newline at the end.
pub(crate) fn show(value: v1::Value, connection: &mut Connection, output: &mut Output, raw: bool) -> Result<(), Error> {
    let mut value = Incoming::new(value, connection);
    let cut = !value.is_inline();
    let (mut first, mut last) = (true, None);
    while let Some(bytes) = value.piece()? {
        if first && output.terminal && !raw {
            refuse_binary(bytes, cut)?;
        }
        first = false;
        last = bytes.last().copied().or(last);
        output.write(bytes)?;
    }
    end_line(last, output)
}

fn show_bytes(bytes: &[u8], output: &mut Output, raw: bool) -> Result<(), Error> {
    if output.terminal && !raw {
        refuse_binary(bytes, false)?;
    }
    output.write(bytes)?;
    end_line(bytes.last().copied(), output)
}

fn refuse_binary(bytes: &[u8], cut: bool) -> Result<(), Error> {
    let looked_at = if cut { &bytes[..bytes.len().min(LOOKED_AT)] } else { bytes };
    if !is_binary(looked_at, cut) {
        return Ok(());
    }
    Err(Error::input("the value is binary data, which would garble the terminal")
        .hint("write it to a file with -o FILE, or show it all the same with --raw"))
}

fn end_line(last: Option<u8>, output: &mut Output) -> Result<(), Error> {
    if output.terminal && last != Some(b'\n') { output.write(b"\n") } else { Ok(()) }
}
