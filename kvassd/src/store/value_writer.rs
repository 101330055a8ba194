//! Takes a value in parts, seals it, and makes it durable before anything refers to it.
//!
//! A short value stays in memory. A longer one goes to a temporary file under `blobs/` and is renamed to its hash when
//! it is whole. A very long one is sealed by two threads and written by a third; batches go to the sealers in turn, so
//! they come back in order, and empty buffers go round. A fourth thread syncs the file every 8 MiB on the way: a commit
//! beside it would otherwise wait for all its dirty pages.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::WriteError;
use super::layout::{self, Layout};
use super::space::{Purpose, Space};
use crate::failpoint::reached;
use crate::keys::encode_hex;
use crate::random::Random;
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
    random: Random,
    key: ContentKey,
    /// What is not handed on: at most a batch.
    batch: Batch,
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
    pub(crate) fn new(
        layout: Layout,
        space: Space,
        random: Random,
        limit: u64,
        size: Option<u64>,
    ) -> Result<Self, WriteError> {
        let limit = limit.min(value::SIZE_MAX);
        let size = size.unwrap_or(0);
        if size > limit {
            return Err(WriteError::TooLarge { size, most: limit });
        }
        space.check(size, Purpose::Store)?;
        let key = ContentKey::random(&random)?;
        Ok(Self { layout, space, limit, random, key, batch: Batch::default(), sealed: 0, pipeline: None })
    }

    /// Adds bytes to the value.
    ///
    /// # Errors
    /// A value over the limit, a full disk, or a failed write.
    pub fn push(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        let size = self.size() + data.len() as u64;
        if size > self.limit {
            return Err(WriteError::TooLarge { size, most: self.limit });
        }
        while !data.is_empty() {
            // A full batch is handed on only when more follows: its last chunk might be the value's last.
            if self.batch.length == BATCH {
                self.hand_on()?;
            }
            data = self.batch.fill(data);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.sealed + self.batch.length as u64
    }

    fn hand_on(&mut self) -> Result<(), WriteError> {
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            none => none.insert(Pipeline::start(Part::create(&self.layout, &self.space, &self.random)?, &self.key)?),
        };
        let batch = std::mem::replace(&mut self.batch, pipeline.empty_batch());
        self.sealed += batch.length as u64;
        if pipeline.send(batch, false) {
            return Ok(());
        }
        // A stage that ended early has the reason.
        let ended = self.pipeline.take().map(Pipeline::finish);
        Err(ended.and_then(Result::err).unwrap_or(WriteError::Closed))
    }

    /// Seals what is left and, for a long value, makes its file durable under its final name.
    ///
    /// # Errors
    /// A full disk or a failed write.
    pub fn finish(mut self) -> Result<NewValue, WriteError> {
        let size = self.size();
        let mut batch = std::mem::take(&mut self.batch);
        let part = match self.pipeline.take() {
            Some(mut pipeline) => {
                pipeline.send(batch, true);
                pipeline.finish()?
            }
            None => {
                let hashes = batch.seal(&Chunks::new(&self.key), 0, true);
                if size <= value::INLINE_MAX {
                    let (hash, place) = (value::value_hash(&hashes), Place::Inline(batch.bytes));
                    return Ok(NewValue { key: self.key, size, hash, place });
                }
                let mut part = Part::create(&self.layout, &self.space, &self.random)?;
                part.write(&batch.bytes, &hashes)?;
                part
            }
        };
        let (hash, file) = part.finish(&self.layout)?;
        Ok(NewValue { key: self.key, size, hash, place: Place::Blob(file) })
    }
}

/// Chunks that are sealed where they lie: each has room for its tag behind it.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Bytes of plaintext.
    length: usize,
}

impl Batch {
    /// Takes as much of `data` as there is room for, and returns what is left of it.
    fn fill<'a>(&mut self, mut data: &'a [u8]) -> &'a [u8] {
        while !data.is_empty() && self.length < BATCH {
            if self.length > 0 && self.length.is_multiple_of(CHUNK) {
                self.bytes.extend_from_slice(&[0; TAG]);
            }
            let (now, later) = data.split_at(data.len().min(CHUNK - self.length % CHUNK));
            self.bytes.extend_from_slice(now);
            self.length += now.len();
            data = later;
        }
        data
    }

    /// Seals the chunks, the first of which stands at `first`, and returns their hashes, one after the other.
    fn seal(&mut self, chunks: &Chunks, first: u64, last: bool) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; TAG]);
        let count = self.length.div_ceil(CHUNK).max(1);
        let mut hashes = Vec::with_capacity(count * HASH);
        for (at, sealed) in self.bytes.chunks_mut(CHUNK + TAG).enumerate() {
            let length = sealed.len() - TAG;
            chunks.seal(first + at as u64, last && at + 1 == count, sealed, length);
            hashes.extend_from_slice(&value::chunk_hash(sealed));
        }
        hashes
    }
}

/// The threads of a very long value.
struct Pipeline {
    sealers: Vec<SyncSender<Unsealed>>,
    sent: usize,
    /// Buffers that were written.
    empty: Receiver<Batch>,
    threads: Vec<JoinHandle<()>>,
    writer: JoinHandle<Result<Part, WriteError>>,
}

struct Unsealed {
    batch: Batch,
    first: u64,
    last: bool,
}

struct Sealed {
    batch: Batch,
    hashes: Vec<u8>,
}

impl Pipeline {
    fn start(mut part: Part, key: &ContentKey) -> Result<Self, WriteError> {
        part.sync_beside()?;
        let (mut sealers, mut threads, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SEALERS {
            let (sealer, input) = sync_channel(1);
            let (output, sealed) = sync_channel(1);
            let chunks = Chunks::new(key);
            sealers.push(sealer);
            outputs.push(sealed);
            threads.push(spawn("seal", move || seal_all(&chunks, &input, &output))?);
        }
        let (written, empty) = channel();
        let writer = spawn("write", move || write_all(part, &outputs, &written))?;
        Ok(Self { sealers, sent: 0, empty, threads, writer })
    }

    fn empty_batch(&self) -> Batch {
        let mut batch = self.empty.try_recv().unwrap_or_default();
        batch.bytes.clear();
        batch.length = 0;
        batch
    }

    /// Hands a batch on; `false` where a stage has ended.
    fn send(&mut self, batch: Batch, last: bool) -> bool {
        let first = (self.sent * (BATCH / CHUNK)) as u64;
        let sealer = &self.sealers[self.sent % SEALERS];
        self.sent += 1;
        sealer.send(Unsealed { batch, first, last }).is_ok()
    }

    /// Waits until everything is written.
    fn finish(self) -> Result<Part, WriteError> {
        drop(self.sealers);
        let written = self.writer.join();
        let sealed = self.threads.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok());
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

fn seal_all(chunks: &Chunks, input: &Receiver<Unsealed>, output: &SyncSender<Sealed>) {
    for Unsealed { mut batch, first, last } in input {
        let hashes = batch.seal(chunks, first, last);
        if output.send(Sealed { batch, hashes }).is_err() {
            return;
        }
    }
}

/// Writes the batches in the order in which they went to the sealers.
fn write_all(mut part: Part, outputs: &[Receiver<Sealed>], written: &Sender<Batch>) -> Result<Part, WriteError> {
    for output in outputs.iter().cycle() {
        let Ok(Sealed { batch, hashes }) = output.recv() else { break };
        part.write(&batch.bytes, &hashes)?;
        // At the end nobody takes them any more.
        let _ = written.send(batch);
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
    sync: Option<Sync>,
}

/// A thread that syncs a file while it is written.
pub(crate) struct Sync {
    due: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Sync {
    /// At most two syncs wait, so what is not on the disk stays bounded.
    pub(crate) fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (due, wait) = sync_channel(1);
        let syncing =
            move || wait.into_iter().try_for_each(|()| file.sync_data().inspect(|()| reached("blob.part-synced")));
        let thread = thread::Builder::new().name("sync".into()).spawn(syncing)?;
        Ok(Self { due, thread })
    }

    /// Asks for a sync of what was written up to now; `false` where one failed.
    pub(crate) fn ask(&self) -> bool {
        self.due.send(()).is_ok()
    }

    /// Waits for the syncs that were asked for.
    pub(crate) fn end(self) -> io::Result<()> {
        drop(self.due);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    }
}

impl Part {
    fn create(layout: &Layout, space: &Space, random: &Random) -> Result<Self, WriteError> {
        let path = layout.blobs().join(encode_hex(&random.bytes::<16>()?) + PART);
        let file = layout::create_file(&path).map_err(|error| failed(space, error))?;
        reached("blob.created");
        let path = Unreferenced::new(path);
        Ok(Self { file, path, space: space.clone(), hashes: Vec::new(), unsynced: 0, sync: None })
    }

    /// Syncs on a thread of its own from now on.
    fn sync_beside(&mut self) -> Result<(), WriteError> {
        self.sync = Some(Sync::start(&self.file).map_err(|error| failed(&self.space, error))?);
        Ok(())
    }

    fn write(&mut self, sealed: &[u8], hashes: &[u8]) -> Result<(), WriteError> {
        self.hashes.extend_from_slice(hashes);
        self.unsynced += sealed.len() as u64;
        self.file.write_all(sealed).map_err(|error| failed(&self.space, error))?;
        reached("blob.written");
        if self.unsynced < SYNC_EVERY {
            return Ok(());
        }
        self.unsynced = 0;
        self.space.check(0, Purpose::Store)?;
        if self.sync.as_ref().is_some_and(|sync| !sync.ask()) {
            return self.end_sync();
        }
        Ok(())
    }

    fn end_sync(&mut self) -> Result<(), WriteError> {
        self.sync.take().map_or(Ok(()), Sync::end).map_err(|error| failed(&self.space, error))
    }

    fn finish(mut self, layout: &Layout) -> Result<(ValueHash, Unreferenced), WriteError> {
        self.end_sync()?;
        let hash = value::value_hash(&self.hashes);
        let to = layout.blob(hash);
        let whole = self
            .file
            .write_all(&self.hashes)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| {
                reached("blob.synced");
                fs::rename(&self.path.path, &to)
            })
            .and_then(|()| {
                reached("blob.renamed");
                self.path.path.clone_from(&to);
                layout::sync_directory(&layout.blobs())
            });
        whole.map_err(|error| failed(&self.space, error))?;
        reached("blob.placed");
        Ok((hash, self.path))
    }
}

fn failed(space: &Space, error: io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull => space.full(),
        _ => WriteError::Io { what: "write the value to the disk", source: error },
    }
}
