//! Sealing, opening and hashing of values, chunk by chunk.
//!
//! Pure. A value is cut into chunks of 32 KiB, sealed with AES-256-GCM by the STREAM construction (Hoang, Reyhanitabar,
//! Rogaway, Vizár 2015; crate aead-stream): truncation, reordering and mixing are refused, and a range can be opened
//! alone. Each version of a value has a random key of its own, used once, so the nonce prefix is zero.

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{self, Buffer};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::record::ValueHash;

/// Bytes of a chunk before sealing; the last one of a value may have fewer.
pub const CHUNK: usize = 32 << 10;

/// Bytes by which a sealed chunk is longer.
pub const TAG: usize = 16;

/// The greatest value that lies beside its record, in bytes; a greater one is a file of its own.
pub const INLINE_MAX: u64 = 4_096;

/// Bytes of a chunk's hash.
pub const HASH: usize = 32;

/// The greatest value that the construction can seal, in bytes: 2^32 chunks.
pub const SIZE_MAX: u64 = (CHUNK as u64) << 32;

/// How many chunks a value of `size` bytes has. An empty value is one empty chunk.
#[must_use]
pub fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64).max(1)
}

/// Bytes of a sealed value of `size` bytes, without the list of hashes that ends a blob.
#[must_use]
pub fn sealed_length(size: u64) -> u64 {
    size + chunks(size) * TAG as u64
}

/// The random key of one version of a value.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// Makes a key from the system's random source.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Takes a key from an opened header; `None` where it has not 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The key's bytes, for the header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A chunk that does not open: it was changed, moved, or sealed under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk {0} does not open")]
pub struct ChunkError(pub u64);

/// Seals and opens the chunks of one value, in any order.
pub struct Chunks(StreamBE32<Aes256Gcm>);

impl Chunks {
    /// The chunks of the value that has this key.
    #[must_use]
    pub fn new(key: &ContentKey) -> Self {
        Self(StreamBE32::new((&key.0).into(), &Default::default()))
    }

    /// Seals the chunk at `position`, from 0, in place: `buffer` holds `length` bytes of plaintext and [`TAG`] bytes of
    /// room. `last` says that no chunk follows.
    ///
    /// # Panics
    /// A position from 2^32 on: values are limited to [`SIZE_MAX`] before.
    pub fn seal(&self, position: u64, last: bool, buffer: &mut [u8], length: usize) {
        let mut part = Part { bytes: &mut buffer[..length + TAG], length };
        #[allow(clippy::expect_used, reason = "the room for the tag is there, and sizes are limited before")]
        self.0.encrypt_in_place(position.try_into().expect("limited size"), last, b"", &mut part).expect("room");
    }

    /// Opens the chunk at `position` in place; its plaintext is what comes before the last [`TAG`] bytes.
    ///
    /// # Errors
    /// A chunk that does not open.
    pub fn open(&self, position: u64, last: bool, sealed: &mut [u8]) -> Result<(), ChunkError> {
        let at = u32::try_from(position).map_err(|_| ChunkError(position))?;
        let length = sealed.len();
        let mut part = Part { bytes: sealed, length };
        self.0.decrypt_in_place(at, last, b"", &mut part).map_err(|_| ChunkError(position))
    }
}

/// The hash of one sealed chunk.
#[must_use]
pub fn chunk_hash(sealed: &[u8]) -> [u8; HASH] {
    Sha256::digest(sealed).into()
}

/// The hash of a sealed value, from the hashes of its chunks one after the other.
#[must_use]
pub fn value_hash(chunk_hashes: &[u8]) -> ValueHash {
    ValueHash(Sha256::digest(chunk_hashes).into())
}

/// Seals a short value, of at most one chunk, as a whole.
#[must_use]
pub fn seal_short(key: &ContentKey, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plaintext.len() + TAG);
    sealed.extend_from_slice(plaintext);
    sealed.resize(plaintext.len() + TAG, 0);
    Chunks::new(key).seal(0, true, &mut sealed, plaintext.len());
    sealed
}

/// Opens what [`seal_short`] sealed.
///
/// # Errors
/// A chunk that does not open.
pub fn open_short(key: &ContentKey, sealed: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut plaintext = sealed.to_vec();
    Chunks::new(key).open(0, true, &mut plaintext)?;
    plaintext.truncate(sealed.len() - TAG);
    Ok(plaintext)
}

/// A slice that the cipher may grow by a tag and shrink again, so that chunks are worked on where they lie.
struct Part<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl AsRef<[u8]> for Part<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Part<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Buffer for Part<'_> {
    fn extend_from_slice(&mut self, other: &[u8]) -> aead::Result<()> {
        let room = self.bytes.get_mut(self.length..self.length + other.len()).ok_or(aead::Error)?;
        room.copy_from_slice(other);
        self.length += other.len();
        Ok(())
    }

    fn truncate(&mut self, length: usize) {
        self.length = length;
    }
}
