//! A blob that comes from another store, in ranges of its file, each part verified before it is kept.
//!
//! The list of chunk hashes, which ends the file, comes first: its hash is the value's hash, and then each chunk can be
//! checked alone. A value of one chunk needs no list. What is here stays when a session breaks off, and the next one
//! goes on behind it. The list lies in the file and not in memory, however long it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::downloads::Turn;
use super::layout::{self, Layout};
use super::space::{Purpose, Space};
use super::value_reader::blob_length;
use super::value_writer::Sync;
use super::{Store, WriteError};
use crate::failpoint::reached;
use crate::record::{Clear, ValueHash};
use crate::value::{self, CHUNK, HASH, TAG};

/// Bytes of a sealed chunk that is not the last.
const SEALED: u64 = (CHUNK + TAG) as u64;

/// The most bytes that [`Download::wants`] asks for at once, in whole chunks.
const RANGE: u64 = 31 * SEALED;

/// The longest list of hashes that is taken, in bytes: that of a value of 128 GiB.
const LIST_MAX: u64 = 128 << 20;

/// Bytes between two syncs of what is written. A commit beside it waits for all that is dirty: this much being synced,
/// as much waiting for it, and as much again.
const SYNC_EVERY: u64 = 4 << 20;

/// Bytes of chunks that are written at once: a file takes few long writes in less time than many short ones.
const GATHER: usize = 8 * SEALED as usize;

/// A blob on its way here. Nobody else takes the same one meanwhile.
pub struct Download {
    layout: Layout,
    space: Space,
    file: File,
    hash: ValueHash,
    /// Bytes of all sealed chunks; the list of hashes stands behind them.
    sealed: u64,
    list: List,
    /// Bytes of verified chunks, from the beginning.
    position: u64,
    /// The last of these, which are not in the file yet; what is lost of them in a crash is asked for again.
    gathered: Vec<u8>,
    unsynced: u64,
    sync: Option<Sync>,
    turn: Turn,
}

/// The list of chunk hashes, as far as it is here.
struct List {
    bytes: u64,
    digest: Sha256,
    is_whole: bool,
}

impl List {
    fn new() -> Self {
        Self { bytes: 0, digest: Sha256::new(), is_whole: false }
    }
}

/// Why a part is not taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum DownloadError {
    #[error("what was sent of a value does not verify")]
    Wrong,
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What is lacking of a blob's file: the list of hashes from a place to the file's end, then chunks from another place
/// to where the list begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first byte of the list that is not here; the length of the file where the list is here, or not needed.
    pub list: u64,
    /// The first byte of the chunks that is not here.
    pub chunks: u64,
    /// Where the chunks end and the list begins.
    pub sealed: u64,
    /// The length of the file.
    pub end: u64,
}

impl Missing {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list >= self.end && self.chunks >= self.sealed
    }

    /// Takes the next range away, of at most about `most` bytes: an offset and a length. Chunks are taken whole.
    pub fn take(&mut self, most: u64) -> Option<(u64, u32)> {
        let (from, to, most) = match self.list < self.end {
            true => (&mut self.list, self.end, most.max(1)),
            false => (&mut self.chunks, self.sealed, (most / SEALED).max(1) * SEALED),
        };
        let (offset, length) = (*from, to.saturating_sub(*from).min(most));
        *from += length;
        (length > 0).then_some((offset, length as u32))
    }
}

impl Download {
    /// The value's hash.
    #[must_use]
    pub fn hash(&self) -> ValueHash {
        self.hash
    }

    /// What is not here yet.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let end = blob_length_of(self.sealed);
        let list = if self.list.is_whole || self.is_one_chunk() { end } else { self.sealed + self.list.bytes };
        Missing { list, chunks: self.position, sealed: self.sealed, end }
    }

    /// The range of the file that is needed next; `None` once all is here.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, u32)> {
        self.missing().take(RANGE)
    }

    /// Takes the bytes at an offset: the next of the list, or the next chunk.
    ///
    /// # Errors
    /// Bytes that are not the next, or do not verify; a full disk.
    pub fn push(&mut self, offset: u64, data: &[u8]) -> Result<(), DownloadError> {
        if !self.list.is_whole && !self.is_one_chunk() {
            return self.push_list(offset, data);
        }
        let length = (self.sealed - self.position).min(SEALED);
        if offset != self.position || data.len() as u64 != length || length == 0 {
            return Err(DownloadError::Wrong);
        }
        let hash = value::chunk_hash(data);
        if self.is_one_chunk() {
            if value::value_hash(&hash) != self.hash {
                return Err(DownloadError::Wrong);
            }
            self.write(&hash, self.sealed)?;
        } else if hash != self.listed(self.position)? {
            return Err(DownloadError::Wrong);
        }
        self.gathered.extend_from_slice(data);
        self.position += length;
        if self.gathered.len() < GATHER && self.position < self.sealed {
            return Ok(());
        }
        let written = self.gathered.len() as u64;
        self.write_gathered()?;
        self.sync_some(written)
    }

    fn write_gathered(&mut self) -> Result<(), WriteError> {
        self.write(&self.gathered, self.position - self.gathered.len() as u64)?;
        self.gathered.clear();
        reached("download.written");
        Ok(())
    }

    fn is_one_chunk(&self) -> bool {
        self.sealed <= SEALED
    }

    /// The hash of the chunk at an offset, from the list.
    fn listed(&self, offset: u64) -> Result<[u8; HASH], WriteError> {
        let mut hash = [0; HASH];
        let at = self.sealed + offset / SEALED * HASH as u64;
        self.file.read_exact_at(&mut hash, at).map_err(|error| self.failed(error))?;
        Ok(hash)
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<(), WriteError> {
        self.file.write_all_at(data, offset).map_err(|error| self.failed(error))
    }

    /// Syncs from time to time, so that commits beside a large value do not wait for all of it.
    fn sync_some(&mut self, written: u64) -> Result<(), DownloadError> {
        self.unsynced += written;
        if self.unsynced < SYNC_EVERY {
            return Ok(());
        }
        self.unsynced = 0;
        self.space.check(0, Purpose::Store)?;
        match &self.sync {
            Some(sync) if sync.ask() => {}
            Some(_) => self.end_sync()?,
            None => self.file.sync_data().map_err(|error| self.not_synced(error))?,
        }
        Ok(())
    }

    fn end_sync(&mut self) -> Result<(), WriteError> {
        let ended = self.sync.take().map_or(Ok(()), Sync::end);
        ended.map_err(|error| self.not_synced(error))
    }

    /// What the system could not write it may call written from then on, so none of it can be gone on with.
    fn not_synced(&self, error: io::Error) -> WriteError {
        self.turn.abandon();
        self.failed(error)
    }

    fn push_list(&mut self, offset: u64, data: &[u8]) -> Result<(), DownloadError> {
        let (at, end) = (self.sealed + self.list.bytes, blob_length_of(self.sealed));
        if offset != at || data.is_empty() || at + data.len() as u64 > end {
            return Err(DownloadError::Wrong);
        }
        self.write(data, offset)?;
        self.list.digest.update(data);
        self.list.bytes += data.len() as u64;
        if at + (data.len() as u64) < end {
            return Ok(());
        }
        if ValueHash(std::mem::replace(&mut self.list, List::new()).digest.finalize().into()) != self.hash {
            return Err(DownloadError::Wrong);
        }
        self.list.is_whole = true;
        reached("download.listed");
        Ok(())
    }

    /// Goes on behind what an earlier session left, as far as it verifies.
    fn resume(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; SEALED as usize];
        let (mut at, end) = (self.sealed, blob_length_of(self.sealed));
        let mut digest = Sha256::new();
        while at < end {
            let part = &mut buffer[..(end - at).min(SEALED) as usize];
            self.file.read_exact_at(part, at)?;
            digest.update(&*part);
            at += part.len() as u64;
        }
        if ValueHash(digest.finalize().into()) != self.hash {
            return Ok(());
        }
        self.list.is_whole = true;
        while self.position < self.sealed {
            let part = &mut buffer[..(self.sealed - self.position).min(SEALED) as usize];
            self.file.read_exact_at(part, self.position)?;
            if !self.listed(self.position).is_ok_and(|hash| hash == value::chunk_hash(part)) {
                break;
            }
            self.position += part.len() as u64;
        }
        Ok(())
    }

    /// Makes the whole file durable under its name.
    ///
    /// # Errors
    /// A full disk or a failed write.
    pub fn finish(self) -> Result<(), WriteError> {
        Self::finish_all(vec![self])
    }

    /// Makes several whole files durable under their names. One that was given up meanwhile, because its entry has another
    /// version or the key changed, is not kept: where it is needed after all, it is lacking, and taken once more.
    ///
    /// # Errors
    /// A full disk or a failed write.
    pub fn finish_all(mut downloads: Vec<Self>) -> Result<(), WriteError> {
        for download in &mut downloads {
            download.end_sync()?;
            download.file.sync_all().map_err(|error| download.not_synced(error))?;
            reached("download.synced");
        }
        let Some(first) = downloads.first() else { return Ok(()) };
        let placed = downloads.iter().try_for_each(Self::place);
        placed.and_then(|()| layout::sync_directory(&first.layout.blobs())).map_err(|error| {
            // Under its name a file counts as durable.
            for download in &downloads {
                let _ = layout::remove_file(&download.layout.blob(download.hash));
            }
            first.failed(error)
        })?;
        reached("download.placed");
        Ok(())
    }

    fn place(&self) -> io::Result<()> {
        self.turn.finish(&self.layout.blob(self.hash))?;
        reached("download.renamed");
        Ok(())
    }

    /// Gives the value up, and the space that it took.
    pub fn abandon(self) {
        self.turn.abandon();
    }

    fn failed(&self, error: io::Error) -> WriteError {
        cannot_write(&self.space, error)
    }
}

impl Drop for Download {
    /// Leaves to the next session all that came in this one.
    fn drop(&mut self) {
        if let Err(error) = self.write_gathered() {
            tracing::debug!(%error, "a part of a value is asked for again");
        }
    }
}

fn cannot_write(space: &Space, error: io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull => space.full(),
        _ => WriteError::Io { what: "write a value that another store sends", source: error },
    }
}

/// Bytes of a blob's file whose sealed chunks have so many bytes.
fn blob_length_of(sealed: u64) -> u64 {
    sealed + sealed.div_ceil(SEALED) * HASH as u64
}

impl Store {
    /// Begins to take a record's value from another store, or goes on where an earlier session broke off; `None` while
    /// another session takes it.
    ///
    /// # Errors
    /// A full disk, or a value whose list of hashes is too long.
    pub fn download(&self, clear: &Clear) -> Result<Option<Download>, WriteError> {
        let (layout, space, hash) = (self.shared.layout.clone(), self.shared.space.clone(), clear.value_hash);
        let sealed = value::sealed_length(clear.size);
        let length = blob_length(clear.size);
        if length - sealed > LIST_MAX {
            return Err(WriteError::TooLarge { size: clear.size, most: LIST_MAX / HASH as u64 * CHUNK as u64 });
        }
        space.check(length, Purpose::Store)?;
        let Some(turn) = self.shared.downloads.turn(clear) else { return Ok(None) };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&turn.path);
        let failed = |error| cannot_write(&space, error);
        let file = open.map_err(failed)?;
        let is_new = file.metadata().map_err(failed)?.len() != length;
        file.set_len(length).map_err(failed)?;
        reached("download.begun");
        let threads = self.shared.surroundings.threads && sealed > SYNC_EVERY;
        let sync = if threads { Some(Sync::start(&file).map_err(failed)?) } else { None };
        let (list, position, gathered, unsynced) = (List::new(), 0, Vec::new(), 0);
        let mut download =
            Download { layout, space, file, hash, sealed, list, position, gathered, unsynced, sync, turn };
        if !is_new {
            // What cannot be read would not be read the next time either.
            download.resume().map_err(|error| download.not_synced(error))?;
        }
        Ok(Some(download))
    }

    /// Watches for the end of downloads, well or not.
    #[must_use]
    pub fn downloads_ended(&self) -> watch::Receiver<()> {
        self.shared.downloads.ended()
    }

    /// Opens the file of a value, sealed as it is; `None` where it is not here.
    #[must_use]
    pub fn blob(&self, hash: ValueHash) -> Option<BlobFile> {
        File::open(self.shared.layout.blob(hash)).ok().map(BlobFile)
    }

    /// Whether there is space for what others send.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.shared.is_open() && self.shared.space.check(0, Purpose::Store).is_ok()
    }
}

/// The file of a sealed value.
pub struct BlobFile(File);

impl BlobFile {
    /// Reads the bytes at an offset into the whole of `to`.
    ///
    /// # Errors
    /// The file is shorter, or cannot be read.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(to, offset)
    }
}

/// Whether a download was left alone for so long that nobody will go on with it: a week.
pub(crate) fn is_forgotten(file: &fs::DirEntry) -> bool {
    let age = file.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    matches!(age, Ok(Ok(age)) if age.as_secs() > 7 * 24 * 60 * 60)
}
