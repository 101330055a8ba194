//! `kvass set`: stores a value from an argument, a file, standard input or a prompt.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use kvass_proto::frame::{DATA_MAX, HEADER, INLINE_MAX};
use kvass_proto::v1::{self, error::Code, reply::Reply, request::Command};

use super::sync::{self, Wait};
use crate::cli::Set;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::terminal;

pub(crate) fn run(client: &mut Client, mut arguments: Set) -> Result<(), Error> {
    let held = arguments.wait.take().map(|limit| (arguments.key.clone(), limit));
    set(client, arguments)?;
    match held {
        None => Ok(()),
        Some((key, limit)) => sync::wait(client, &Wait::held(&key, limit)).map_err(|error| {
            if !error.is(Code::NoRemote) {
                return error;
            }
            let hint = error.advice();
            Error::late(format!("'{key}' is stored here, but there is no remote")).hint(hint)
        }),
    }
}

fn set(client: &mut Client, arguments: Set) -> Result<(), Error> {
    let request = v1::Set { key: arguments.key, ..v1::Set::default() };
    if arguments.prompt {
        let value = prompt(&format!("Value of {}", request.key))?;
        return store_bytes(client, request, &value);
    }
    if let Some(path) = arguments.file.filter(|path| path.as_os_str() != "-") {
        let name = path.display().to_string();
        let file = File::open(&path).map_err(|cause| unread(&name, &cause))?;
        return store_file(client, request, file, &name);
    }
    match arguments.value {
        Some(value) if value != "-" => store_bytes(client, request, &value.into_vec()),
        _ => {
            if io::stdin().is_terminal() {
                client.note("reading the value from the terminal; end with Ctrl-D");
            }
            let name = "standard input";
            let file = io::stdin().as_fd().try_clone_to_owned().map_err(|cause| unread(name, &cause))?;
            store_file(client, request, file.into(), name)
        }
    }
}

fn prompt(question: &str) -> Result<Vec<u8>, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::input("--prompt needs a terminal").hint("without it, standard input is the value"));
    }
    terminal::hidden_line(question)
}

fn store_bytes(client: &mut Client, request: v1::Set, mut value: &[u8]) -> Result<(), Error> {
    let size = value.len() as u64;
    store(client, request, &mut value, Some(size), "the value")
}

fn store_file(client: &mut Client, request: v1::Set, mut file: File, name: &str) -> Result<(), Error> {
    let size = remaining(&mut file);
    store(client, request, &mut file, size, name)
}

/// The bytes that a regular file has left to read.
fn remaining(file: &mut File) -> Option<u64> {
    let meta = file.metadata().ok().filter(|meta| meta.is_file())?;
    meta.len().checked_sub(file.stream_position().ok()?)
}

/// Sends the value in the request where it is short, else in frames as it is read.
fn store(
    client: &mut Client,
    mut request: v1::Set,
    input: &mut impl Read,
    size: Option<u64>,
    name: &str,
) -> Result<(), Error> {
    // The bytes are read behind the room for a header, so that a frame is one write.
    let mut buffer = vec![0; HEADER + DATA_MAX];
    let mut length = fill(input, &mut buffer[HEADER..=HEADER + INLINE_MAX], name)?;
    if length <= INLINE_MAX {
        request.value = Some(buffer[HEADER..HEADER + length].to_vec());
        return stored(client.ask(Command::Set(request))?);
    }
    // Files of the kernel claim sizes that mean nothing.
    request.size = size.filter(|size| *size > INLINE_MAX as u64);
    let announced = request.size;
    let mut connection = client.connect_serving(&Command::Set(request))?;
    let mut sent = 0;
    while length > 0 {
        length += fill(input, &mut buffer[HEADER + length..], name)?;
        sent += length as u64;
        if announced.is_some_and(|size| sent > size) {
            return Err(changed(name));
        }
        connection.send_data(&mut buffer[..HEADER + length])?;
        length = if length < DATA_MAX { 0 } else { fill(input, &mut buffer[HEADER..], name)? };
    }
    if announced.is_some_and(|size| sent < size) {
        return Err(changed(name));
    }
    connection.send_end()?;
    stored(connection.reply()?)
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8], name: &str) -> Result<usize, Error> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(unread(name, &cause)),
        }
    }
    Ok(length)
}

fn stored(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Stored(_) => Ok(()),
        _ => Err(unexpected()),
    }
}

fn unread(name: &str, cause: &io::Error) -> Error {
    Error::input(format!("cannot read {name}, nothing was stored")).because(cause)
}

fn changed(name: &str) -> Error {
    Error::input(format!("{name} changed while it was read, nothing was stored")).hint("try again")
}
