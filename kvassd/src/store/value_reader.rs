//! Reads a value in parts, each one verified before it is handed out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::ReadError;
use crate::value::{self, CHUNK, Chunks, ContentKey, HASH, TAG};

/// Sealed chunks that are read in one go where nothing else is said.
const BATCH: u64 = 16;

/// A value to be read in parts.
pub struct ValueReader {
    key: String,
    source: Source,
}

enum Source {
    Inline {
        plaintext: Vec<u8>,
        /// The next byte.
        position: usize,
    },
    Blob(Box<Blob>),
}

struct Blob {
    file: File,
    chunks: Chunks,
    /// Bytes before sealing.
    size: u64,
    /// The next chunk.
    position: u64,
    /// Bytes of it that are not wanted.
    skip: usize,
    /// Chunks that are read in one go.
    batch: u64,
}

impl ValueReader {
    pub(crate) fn new_inline(key: &str, plaintext: Vec<u8>) -> Self {
        Self { key: key.to_owned(), source: Source::Inline { plaintext, position: 0 } }
    }

    /// A reader of an open blob of `size` bytes before sealing; `None` where the file has another length.
    pub(crate) fn new_blob(key: &str, file: File, size: u64, content_key: &ContentKey) -> Option<Self> {
        if file.metadata().ok()?.len() != blob_length(size) {
            return None;
        }
        let blob = Blob { file, chunks: Chunks::new(content_key), size, position: 0, skip: 0, batch: BATCH };
        Some(Self { key: key.to_owned(), source: Source::Blob(Box::new(blob)) })
    }

    /// The whole value where it lies in the index, which it does up to 4,096 bytes; `None`: read it in parts.
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Inline { plaintext, .. } => Some(plaintext),
            Source::Blob(_) => None,
        }
    }

    /// Goes to a byte of the value: the next part begins there. Beyond the end there is none.
    pub fn seek(&mut self, offset: u64) {
        match &mut self.source {
            Source::Inline { plaintext, position } => *position = (offset as usize).min(plaintext.len()),
            Source::Blob(blob) => {
                let offset = offset.min(blob.size);
                blob.position = offset / CHUNK as u64;
                blob.skip = (offset % CHUNK as u64) as usize;
                if offset == blob.size {
                    blob.position = value::chunks(blob.size);
                }
            }
        }
    }

    /// Reads parts of at most so many bytes, or one chunk, from now on.
    pub fn limit_parts(&mut self, bytes: usize) {
        if let Source::Blob(blob) = &mut self.source {
            blob.batch = (bytes / CHUNK).max(1) as u64;
        }
    }

    /// Appends the next part of the value to `to`, at most 512 KiB; `false` at the end.
    ///
    /// # Errors
    /// A part that does not verify, or a file that cannot be read.
    pub fn next(&mut self, to: &mut Vec<u8>) -> Result<bool, ReadError> {
        let Self { key, source } = self;
        match source {
            Source::Inline { plaintext, position } => {
                let rest = &plaintext[*position..];
                to.extend_from_slice(rest);
                let more = !rest.is_empty();
                *position = plaintext.len();
                Ok(more)
            }
            Source::Blob(blob) => blob.next(key, to),
        }
    }
}

impl Blob {
    fn next(&mut self, key: &str, to: &mut Vec<u8>) -> Result<bool, ReadError> {
        let count = self.batch.min(value::chunks(self.size) - self.position);
        if count == 0 {
            return Ok(false);
        }
        let start = to.len();
        let read = self.read(to, count).map(|opened| start + opened);
        to.truncate(*read.as_ref().unwrap_or(&start));
        match read {
            Ok(_) => Ok(true),
            Err(Failed::Value(what)) => Err(ReadError::Value { key: key.to_owned(), what }),
            Err(Failed::Io(source)) => Err(ReadError::Io { key: key.to_owned(), source }),
        }
    }

    /// Reads chunks behind what is in `to`, and opens them there; how many bytes of them are the value's. Each lies over
    /// the tag of the one before it, so a part needs no second buffer, and what is opened is still near the processor.
    fn read(&mut self, to: &mut Vec<u8>, count: u64) -> Result<usize, Failed> {
        let all = value::chunks(self.size);
        let start = to.len();
        let (mut opened, end) = (0, self.position + count);
        to.resize(start + count as usize * CHUNK + TAG, 0);
        while self.position < end {
            let length = (self.size - self.position * CHUNK as u64).min(CHUNK as u64) as usize;
            let chunk = &mut to[start + opened..][..length + TAG];
            self.file.read_exact_at(chunk, self.position * (CHUNK + TAG) as u64).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::UnexpectedEof => Failed::Value("its file is cut short".into()),
                    _ => Failed::Io(source),
                }
            })?;
            let result = self.chunks.open(self.position, self.position + 1 == all, chunk);
            result.map_err(|error| Failed::Value(error.to_string()))?;
            let skip = std::mem::take(&mut self.skip);
            if skip > 0 {
                chunk.copy_within(skip..length, 0);
            }
            opened += length - skip;
            self.position += 1;
        }
        Ok(opened)
    }
}

/// Why a part cannot be read.
enum Failed {
    Value(String),
    Io(io::Error),
}

/// Bytes of the file of a value of `size` bytes: the sealed chunks and the list of their hashes.
pub(crate) fn blob_length(size: u64) -> u64 {
    value::sealed_length(size) + value::chunks(size) * HASH as u64
}
