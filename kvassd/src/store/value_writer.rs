//! Takes a value in parts, seals it, and makes it durable before anything refers to it.
//!
//! A short value stays in memory. A longer one goes to a temporary file under `blobs/`, is synced every 8 MiB on the
//! way (a commit beside it would otherwise wait for all its dirty pages), and is renamed to its hash when it is whole.
//! A very long one is sealed by two threads and written by a third; batches go to the sealers in turn, so they come
//! back in order.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::WriteError;
use super::layout::{self, Layout};
use super::space::{Purpose, Space};
use crate::keys::encode_hex;
use crate::record::ValueHash;
use crate::value::{self, CHUNK, Chunks, ContentKey, HASH, TAG};

/// Plaintext that is sealed in one go, in bytes: a whole number of chunks.
const BATCH: usize = 16 * CHUNK;

/// How much of a file may be written before it is synced, in bytes.
const SYNC_EVERY: u64 = 8 << 20;

/// How many threads seal a very long value.
const SEALERS: usize = 2;

/// What the end of a temporary file's name is.
pub(crate) const PART: &str = ".part";

/// Takes a value in parts; dropped unfinished, it leaves nothing.
pub struct ValueWriter {
    layout: Layout,
    space: Space,
    limit: u64,
    key: ContentKey,
    /// Plaintext that is not handed on: at most a batch.
    plain: Vec<u8>,
    /// Bytes that were handed on, whole batches.
    sealed: u64,
    pipeline: Option<Pipeline>,
}

/// A sealed value that no entry refers to yet; dropped unused, it leaves nothing.
pub struct NewValue {
    pub(crate) key: ContentKey,
    /// Bytes before sealing.
    pub(crate) size: u64,
    pub(crate) hash: ValueHash,
    pub(crate) place: Place,
}

pub(crate) enum Place {
    /// The sealed value itself.
    Inline(Vec<u8>),
    /// A file that goes when this is dropped, unless an entry refers to it by then.
    Blob(Unreferenced),
}

/// A file that no entry refers to.
pub(crate) struct Unreferenced {
    path: PathBuf,
    keep: bool,
}

impl Unreferenced {
    fn new(path: PathBuf) -> Self {
        Self { path, keep: false }
    }

    /// An entry refers to the file now.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Unreferenced {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = layout::remove_file(&self.path)
        {
            tracing::warn!(%error, "an unfinished value stays on the disk until the next start");
        }
    }
}

impl ValueWriter {
    /// `size` is the size of the value in bytes where it is known, so that a hopeless one is refused at once.
    pub(crate) fn new(layout: Layout, space: Space, limit: u64, size: Option<u64>) -> Result<Self, WriteError> {
        let limit = limit.min(value::SIZE_MAX);
        let size = size.unwrap_or(0);
        if size > limit {
            return Err(WriteError::TooLarge { size, most: limit });
        }
        space.check(size, Purpose::Store)?;
        let key = ContentKey::random()?;
        Ok(Self { layout, space, limit, key, plain: Vec::new(), sealed: 0, pipeline: None })
    }

    /// Adds bytes to the value.
    ///
    /// # Errors
    /// A value over the limit, a full disk, or a failed write.
    pub fn push(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        let size = self.sealed + (self.plain.len() + data.len()) as u64;
        if size > self.limit {
            return Err(WriteError::TooLarge { size, most: self.limit });
        }
        while !data.is_empty() {
            // A full batch is handed on only when more follows: its last chunk might be the value's last.
            if self.plain.len() == BATCH {
                self.hand_on()?;
            }
            let (now, later) = data.split_at(data.len().min(BATCH - self.plain.len()));
            self.plain.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), WriteError> {
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            none => none.insert(Pipeline::start(&self.layout, &self.space, &self.key)?),
        };
        let plain = std::mem::replace(&mut self.plain, Vec::with_capacity(BATCH));
        self.sealed += plain.len() as u64;
        if pipeline.send(plain, false) {
            return Ok(());
        }
        // A stage that ended early has the reason.
        Err(self
            .pipeline
            .take()
            .map_or(WriteError::Closed, |pipeline| pipeline.finish().err().unwrap_or(WriteError::Closed)))
    }

    /// Seals what is left and, for a long value, makes its file durable under its final name.
    ///
    /// # Errors
    /// A full disk or a failed write.
    pub fn finish(mut self) -> Result<NewValue, WriteError> {
        let size = self.sealed + self.plain.len() as u64;
        if size <= value::INLINE_MAX {
            let sealed = value::seal_short(&self.key, &self.plain);
            let hash = value::value_hash(&value::chunk_hash(&sealed));
            return Ok(NewValue { key: self.key, size, hash, place: Place::Inline(sealed) });
        }
        let plain = std::mem::take(&mut self.plain);
        let part = match self.pipeline.take() {
            Some(mut pipeline) => {
                pipeline.send(plain, true);
                pipeline.finish()?
            }
            None => {
                let mut part = Part::create(&self.layout, &self.space)?;
                part.write(seal_batch(&Chunks::new(&self.key), 0, true, &plain))?;
                part
            }
        };
        let (hash, file) = part.finish(&self.layout)?;
        Ok(NewValue { key: self.key, size, hash, place: Place::Blob(file) })
    }
}

/// A batch of sealed chunks and their hashes, one after the other.
struct Sealed {
    bytes: Vec<u8>,
    hashes: Vec<u8>,
}

fn seal_batch(chunks: &Chunks, first: u64, last: bool, plain: &[u8]) -> Sealed {
    let count = plain.chunks(CHUNK).count().max(1);
    let mut bytes = vec![0; plain.len() + count * TAG];
    let mut hashes = Vec::with_capacity(count * HASH);
    for (at, part) in plain.chunks(CHUNK).enumerate() {
        let start = at * (CHUNK + TAG);
        let sealed = &mut bytes[start..start + part.len() + TAG];
        sealed[..part.len()].copy_from_slice(part);
        chunks.seal(first + at as u64, last && at + 1 == count, sealed, part.len());
        hashes.extend_from_slice(&value::chunk_hash(sealed));
    }
    Sealed { bytes, hashes }
}

/// The threads of a very long value.
struct Pipeline {
    batches: Vec<SyncSender<Batch>>,
    sent: usize,
    sealers: Vec<JoinHandle<()>>,
    writer: JoinHandle<Result<Part, WriteError>>,
}

struct Batch {
    first: u64,
    last: bool,
    plain: Vec<u8>,
}

impl Pipeline {
    fn start(layout: &Layout, space: &Space, key: &ContentKey) -> Result<Self, WriteError> {
        let part = Part::create(layout, space)?;
        let (mut batches, mut sealers, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SEALERS {
            let (batch, input) = sync_channel(1);
            let (output, sealed) = sync_channel(1);
            let chunks = Chunks::new(key);
            batches.push(batch);
            outputs.push(sealed);
            sealers.push(spawn("seal", move || seal_all(&chunks, &input, &output))?);
        }
        let writer = spawn("write", move || write_all(part, &outputs))?;
        Ok(Self { batches, sent: 0, sealers, writer })
    }

    /// Hands a batch on; `false` where a stage has ended.
    fn send(&mut self, plain: Vec<u8>, last: bool) -> bool {
        let first = (self.sent * (BATCH / CHUNK)) as u64;
        let sealer = &self.batches[self.sent % SEALERS];
        self.sent += 1;
        sealer.send(Batch { first, last, plain }).is_ok()
    }

    /// Waits until everything is written.
    fn finish(self) -> Result<Part, WriteError> {
        drop(self.batches);
        let written = self.writer.join();
        let sealed = self.sealers.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok());
        match written {
            Ok(part) if sealed => part,
            _ => Err(WriteError::Closed),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, WriteError> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map_err(|source| WriteError::Io { what: "start a thread", source })
}

fn seal_all(chunks: &Chunks, input: &Receiver<Batch>, output: &SyncSender<Sealed>) {
    for Batch { first, last, plain } in input {
        if output.send(seal_batch(chunks, first, last, &plain)).is_err() {
            return;
        }
    }
}

/// Writes the batches in the order in which they went to the sealers.
fn write_all(mut part: Part, outputs: &[Receiver<Sealed>]) -> Result<Part, WriteError> {
    for output in outputs.iter().cycle() {
        match output.recv() {
            Ok(sealed) => part.write(sealed)?,
            Err(_) => break,
        }
    }
    Ok(part)
}

/// A blob's file while it is written.
struct Part {
    file: File,
    path: Unreferenced,
    space: Space,
    hashes: Vec<u8>,
    unsynced: u64,
}

impl Part {
    fn create(layout: &Layout, space: &Space) -> Result<Self, WriteError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name)?;
        let path = layout.blobs().join(encode_hex(&name) + PART);
        let file = layout::create_file(&path).map_err(|error| failed(space, error))?;
        Ok(Self { file, path: Unreferenced::new(path), space: space.clone(), hashes: Vec::new(), unsynced: 0 })
    }

    fn write(&mut self, sealed: Sealed) -> Result<(), WriteError> {
        self.hashes.extend_from_slice(&sealed.hashes);
        self.unsynced += sealed.bytes.len() as u64;
        self.file.write_all(&sealed.bytes).map_err(|error| failed(&self.space, error))?;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(|error| failed(&self.space, error))?;
            self.space.check(0, Purpose::Store)?;
        }
        Ok(())
    }

    fn finish(mut self, layout: &Layout) -> Result<(ValueHash, Unreferenced), WriteError> {
        let hash = value::value_hash(&self.hashes);
        let to = layout.blob(hash);
        let whole = self
            .file
            .write_all(&self.hashes)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.path.path, &to))
            .and_then(|()| {
                self.path.path.clone_from(&to);
                layout::sync_directory(&layout.blobs())
            });
        whole.map_err(|error| failed(&self.space, error))?;
        Ok((hash, self.path))
    }
}

fn failed(space: &Space, error: io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull => space.full(),
        _ => WriteError::Io { what: "write the value to the disk", source: error },
    }
}
