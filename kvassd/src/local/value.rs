//! Values between the socket and the store. Two buffers, one on its way through the socket while the store works on
//! the other, so that memory does not grow with a value and a slow client holds no thread.

use kvass_proto::frame::INLINE_MAX;
use kvass_proto::v1::{self, error::Code, reply::Reply};
use tokio::task::{JoinHandle, spawn_blocking};

use super::failure::Failure;
use super::state::Shared;
use super::wire::{Incoming, Outgoing};
use crate::store::{Entry, NewValue, ReadError, Store, ValueReader, ValueWriter, WriteError};

/// Encodes an entry.
pub(super) fn entry(entry: Entry, sync: v1::entry::Sync) -> v1::Entry {
    v1::Entry {
        key: entry.name,
        size: entry.size,
        time_us: entry.time_us,
        expiry_us: entry.expiry_us,
        sync: sync.into(),
    }
}

/// Queues a value: inline where it is short, else in data frames.
pub(super) async fn send(
    shared: &Shared,
    out: &mut Outgoing<'_>,
    (known, mut reader): (Entry, ValueReader),
    sync: v1::entry::Sync,
) -> Result<(), Failure> {
    let size = known.size;
    let entry = Some(entry(known, sync));
    let inline = match reader.inline() {
        Some(value) => Some(value.to_vec()),
        None if size <= INLINE_MAX as u64 => Some(shared.call(|| read_all(&mut reader)).await?),
        None => None,
    };
    let streamed = inline.is_none();
    out.reply(Reply::Value(v1::Value { entry, inline })).await?;
    if streamed { stream(out, reader).await } else { Ok(()) }
}

fn read_all(reader: &mut ValueReader) -> Result<Vec<u8>, ReadError> {
    let mut value = Vec::new();
    while reader.next(&mut value)? {}
    Ok(value)
}

async fn stream(out: &mut Outgoing<'_>, reader: ValueReader) -> Result<(), Failure> {
    let mut reading = read_part(reader, Vec::new());
    let mut spare = Vec::new();
    loop {
        let (reader, part, more) = reading.await?;
        if !more? {
            out.data(&part).await?;
            return Ok(out.end().await?);
        }
        reading = read_part(reader, spare);
        out.data(&part).await?;
        spare = part;
    }
}

type Read = (ValueReader, Vec<u8>, Result<bool, ReadError>);

fn read_part(mut reader: ValueReader, mut part: Vec<u8>) -> JoinHandle<Read> {
    spawn_blocking(move || {
        part.clear();
        let more = reader.next(&mut part);
        (reader, part, more)
    })
}

/// Takes the value that follows a request in frames. Dropped, or where the client leaves, nothing is stored.
pub(super) async fn receive(
    shared: &Shared,
    store: &Store,
    from: &mut Incoming<'_>,
    size: Option<u64>,
) -> Result<NewValue, Failure> {
    let mut writer = shared.call(|| store.writer(size)).await?;
    let (mut part, mut next) = (Vec::new(), Vec::new());
    let mut ended = from.part(&mut part).await?;
    let mut length = part.len() as u64;
    while !ended {
        // The first error of either side ends both: a value over the limit is refused while it still arrives.
        (ended, (writer, part)) = tokio::try_join!(from.part(&mut next), written(write_part(writer, part)))?;
        std::mem::swap(&mut part, &mut next);
        length += part.len() as u64;
    }
    if size.is_some_and(|size| size != length) {
        return Err(Failure::new(Code::BadInput, format!("the value has {length} bytes and not the size announced")));
    }
    let finish = move || {
        writer.push(&part)?;
        writer.finish()
    };
    Ok(shared.wait(finish).await?)
}

type Written = (ValueWriter, Vec<u8>, Result<(), WriteError>);

fn write_part(mut writer: ValueWriter, part: Vec<u8>) -> JoinHandle<Written> {
    spawn_blocking(move || {
        let pushed = writer.push(&part);
        (writer, part, pushed)
    })
}

async fn written(writing: JoinHandle<Written>) -> Result<(ValueWriter, Vec<u8>), Failure> {
    let (writer, part, pushed) = writing.await?;
    pushed?;
    Ok((writer, part))
}
