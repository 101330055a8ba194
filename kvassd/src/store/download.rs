//! A blob that comes from another store, in ranges of its file, each part verified before it is kept.
//!
//! The list of chunk hashes, which ends the file, comes first: its hash is the value's hash, and then each chunk can be
//! checked alone. What is here stays when a session breaks off, and the next one goes on behind it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use super::layout::{self, Layout};
use super::space::{Purpose, Space};
use super::value_reader::blob_length;
use super::{Store, WriteError};
use crate::keys::encode_hex;
use crate::record::{Clear, ValueHash};
use crate::value::{self, CHUNK, HASH, TAG};

/// What the end of an unfinished download's name is.
pub(crate) const DOWN: &str = ".down";

/// The most bytes that are asked for at once.
const RANGE: u64 = 1 << 20;

/// The longest list of hashes that is taken, in bytes: that of a value of 128 GiB.
const LIST_MAX: u64 = 128 << 20;

/// Bytes between two syncs of what is written.
const SYNC_EVERY: u64 = 8 << 20;

/// A blob on its way here.
pub struct Download {
    layout: Layout,
    space: Space,
    file: File,
    path: PathBuf,
    hash: ValueHash,
    /// Bytes of all sealed chunks; the list of hashes stands behind them.
    sealed: u64,
    list: Vec<u8>,
    /// Bytes of verified chunks, from the beginning.
    position: u64,
    unsynced: u64,
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

impl Download {
    /// The range of the file that is needed next; `None` once all is here.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, u32)> {
        let end = blob_length_of(self.sealed);
        let listed = self.sealed + self.list.len() as u64;
        let (from, to) = if listed < end { (listed, end) } else { (self.position, self.sealed) };
        let whole = RANGE / (CHUNK + TAG) as u64 * (CHUNK + TAG) as u64;
        let length = (to - from).min(if listed < end { RANGE } else { whole });
        (length > 0).then_some((from, length as u32))
    }

    /// Takes the bytes at an offset: the next of the list, or the next chunk.
    ///
    /// # Errors
    /// Bytes that are not the next, or do not verify; a full disk.
    pub fn push(&mut self, offset: u64, data: &[u8]) -> Result<(), DownloadError> {
        let end = blob_length_of(self.sealed);
        if self.sealed + (self.list.len() as u64) < end {
            return self.push_list(offset, data, end);
        }
        let length = (self.sealed - self.position).min((CHUNK + TAG) as u64);
        let at = (self.position / (CHUNK + TAG) as u64) as usize * HASH;
        if offset != self.position || data.len() as u64 != length || value::chunk_hash(data) != self.list[at..at + HASH]
        {
            return Err(DownloadError::Wrong);
        }
        self.file.write_all_at(data, offset).map_err(|error| self.failed(error))?;
        self.position += length;
        self.unsynced += length;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(|error| self.failed(error))?;
            self.space.check(0, Purpose::Store)?;
        }
        Ok(())
    }

    fn push_list(&mut self, offset: u64, data: &[u8], end: u64) -> Result<(), DownloadError> {
        let listed = self.sealed + self.list.len() as u64;
        if offset != listed || data.is_empty() || listed + data.len() as u64 > end {
            return Err(DownloadError::Wrong);
        }
        self.list.extend_from_slice(data);
        if listed + (data.len() as u64) < end {
            return Ok(());
        }
        if value::value_hash(&self.list) != self.hash {
            self.list.clear();
            return Err(DownloadError::Wrong);
        }
        self.file.write_all_at(&self.list, self.sealed).map_err(|error| self.failed(error))?;
        self.resume().map_err(|error| self.failed(error).into())
    }

    /// Goes on behind what an earlier session left, as far as it verifies.
    fn resume(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK + TAG];
        while self.position < self.sealed {
            let part = &mut chunk[..(self.sealed - self.position).min((CHUNK + TAG) as u64) as usize];
            self.file.read_exact_at(part, self.position)?;
            let at = (self.position / (CHUNK + TAG) as u64) as usize * HASH;
            if value::chunk_hash(part) != self.list[at..at + HASH] {
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
        let to = self.layout.blob(self.hash);
        let whole = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, to))
            .and_then(|()| layout::sync_directory(&self.layout.blobs()));
        whole.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::StorageFull => self.space.full(),
            _ => WriteError::Io { what: "write a value that another store sends", source: error },
        }
    }
}

/// Bytes of a blob's file whose sealed chunks have so many bytes.
fn blob_length_of(sealed: u64) -> u64 {
    sealed + sealed.div_ceil((CHUNK + TAG) as u64) * HASH as u64
}

impl Store {
    /// Begins to take a record's value from another store, or goes on where an earlier session broke off.
    ///
    /// # Errors
    /// A full disk, or a value whose list of hashes is too long.
    pub fn download(&self, clear: &Clear) -> Result<Download, WriteError> {
        let (layout, space) = (self.shared.layout.clone(), self.shared.space.clone());
        let sealed = value::sealed_length(clear.size);
        let length = blob_length(clear.size);
        if length - sealed > LIST_MAX {
            return Err(WriteError::TooLarge { size: clear.size, most: LIST_MAX / HASH as u64 * CHUNK as u64 });
        }
        space.check(length, Purpose::Store)?;
        let path = layout.blobs().join(encode_hex(&clear.value_hash.0) + DOWN);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = open.and_then(|file| file.set_len(length).map(|()| file));
        let file =
            opened.map_err(|source| WriteError::Io { what: "write a value that another store sends", source })?;
        let hash = clear.value_hash;
        Ok(Download { layout, space, file, path, hash, sealed, list: Vec::new(), position: 0, unsynced: 0 })
    }

    /// Opens the file of a value, sealed as it is; `None` where it is not here.
    #[must_use]
    pub fn blob(&self, hash: ValueHash) -> Option<BlobFile> {
        File::open(self.shared.layout.blob(hash)).ok().map(BlobFile)
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
