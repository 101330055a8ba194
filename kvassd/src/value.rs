//! Sealing, opening and hashing of values, chunk by chunk.
//!
//! Pure. A value is cut into chunks of 32 KiB, sealed with AES-256-GCM by the STREAM construction (Hoang, Reyhanitabar,
//! Rogaway, Vizár 2015; crate aead-stream): truncation, reordering and mixing are refused, and a range can be opened
//! alone. Each version of a value has a random key of its own, used once, so the nonce prefix is zero.

use aead_stream::aead::{self, Buffer};
use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aes::{self, Aes};
use crate::random::{self, Random};
use crate::record::ValueHash;

/// Bytes of a chunk before sealing; the last one of a value may have fewer.
pub const CHUNK: usize = 32 << 10;

/// Bytes by which a sealed chunk is longer.
pub const TAG: usize = aes::TAG;

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
    size.saturating_add(chunks(size) * TAG as u64)
}

/// The random key of one version of a value.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// Makes a key from a random source.
    ///
    /// # Errors
    /// The source has no randomness to give.
    pub fn random(random: &Random) -> Result<Self, random::Error> {
        random.bytes().map(Self)
    }

    /// Takes the 32 bytes of a key that follows from another secret.
    #[must_use]
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
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
pub struct Chunks(StreamBE32<Aes>);

impl Chunks {
    /// The chunks of the value that has this key.
    #[must_use]
    pub fn new(key: &ContentKey) -> Self {
        Self(StreamBE32::from_aead(Aes::new(&key.0), &Default::default()))
    }

    /// Seals the chunk at `position`, from 0, in place: `buffer` holds `length` bytes of plaintext and [`TAG`] bytes of
    /// room. `last` says that no chunk follows.
    ///
    /// # Panics
    /// A position from 2^32 on (values are limited to [`SIZE_MAX`] before), or a buffer without the room.
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

/// Seals a value of one chunk.
#[must_use]
pub fn seal_short(key: &ContentKey, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = [plaintext, &[0; TAG]].concat();
    Chunks::new(key).seal(0, true, &mut sealed, plaintext.len());
    sealed
}

/// Opens a sealed value of one chunk.
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    /// A value, its key, and its sealed chunks.
    #[derive(Debug)]
    struct Sealed {
        key: [u8; 32],
        plaintext: Vec<u8>,
        chunks: Vec<Vec<u8>>,
    }

    impl Sealed {
        fn new(key: [u8; 32], size: usize) -> Self {
            let plaintext: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (sealer, count) = (Chunks::new(&ContentKey(key)), chunks(size as u64));
            let chunks = (0..count).map(|position| {
                let plain = &plaintext[range(position, size)];
                let mut buffer = [plain, &[0; TAG]].concat();
                sealer.seal(position, position + 1 == count, &mut buffer, plain.len());
                buffer
            });
            Self { key, chunks: chunks.collect(), plaintext }
        }

        fn is_last(&self, position: usize) -> bool {
            position + 1 == self.chunks.len()
        }
    }

    fn range(position: u64, size: usize) -> Range<usize> {
        let start = position as usize * CHUNK;
        start..size.min(start + CHUNK)
    }

    fn open(key: [u8; 32], position: usize, last: bool, sealed: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let mut buffer = sealed.to_vec();
        Chunks::new(&ContentKey(key)).open(position as u64, last, &mut buffer)?;
        buffer.truncate(sealed.len() - TAG);
        Ok(buffer)
    }

    /// Sizes around every edge, and some between.
    fn size() -> impl Strategy<Value = usize> {
        let edges = vec![0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK];
        prop_oneof![3 => select(edges), 1 => 0..3 * CHUNK]
    }

    fn sealed() -> impl Strategy<Value = Sealed> {
        (any::<[u8; 32]>(), size()).prop_map(|(key, size)| Sealed::new(key, size))
    }

    fn sealed_in_several_chunks() -> impl Strategy<Value = Sealed> {
        (any::<[u8; 32]>(), CHUNK + 1..4 * CHUNK).prop_map(|(key, size)| Sealed::new(key, size))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_chunk_opens_alone(value in sealed()) {
            for (position, chunk) in value.chunks.iter().enumerate().rev() {
                let opened = open(value.key, position, value.is_last(position), chunk);
                prop_assert_eq!(opened.as_deref(), Ok(&value.plaintext[range(position as u64, value.plaintext.len())]));
            }
        }

        #[test]
        fn lengths_follow_from_the_size(value in sealed()) {
            let size = value.plaintext.len() as u64;
            prop_assert_eq!(value.chunks.len() as u64, chunks(size));
            prop_assert_eq!(value.chunks.concat().len() as u64, sealed_length(size));
        }

        #[test]
        fn a_flipped_bit_is_refused(value in sealed(), chunk in any::<Index>(), bit in any::<Index>()) {
            let position = chunk.index(value.chunks.len());
            let mut chunk = value.chunks[position].clone();
            let bit = bit.index(8 * chunk.len());
            chunk[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(
                open(value.key, position, value.is_last(position), &chunk), Err(ChunkError(position as u64))
            );
        }

        #[test]
        fn a_truncated_value_is_refused(value in sealed_in_several_chunks(), length in 0..CHUNK + TAG) {
            let kept = value.chunks.len() - 2;
            prop_assert!(open(value.key, kept, true, &value.chunks[kept]).is_err());
            prop_assert!(open(value.key, kept, false, &value.chunks[kept][..length]).is_err());
        }

        #[test]
        fn a_value_that_goes_on_is_refused(value in sealed()) {
            let last = value.chunks.len() - 1;
            prop_assert!(open(value.key, last, false, &value.chunks[last]).is_err());
        }

        #[test]
        fn a_chunk_elsewhere_is_refused(value in sealed_in_several_chunks(), other in 1..u64::from(u32::MAX)) {
            prop_assert!(open(value.key, 0, false, &value.chunks[1]).is_err());
            prop_assert!(open(value.key, 1, value.is_last(1), &value.chunks[0]).is_err());
            prop_assert!(open(value.key, other as usize, false, &value.chunks[0]).is_err());
        }

        #[test]
        fn another_key_is_refused(value in sealed(), key in any::<[u8; 32]>()) {
            prop_assume!(key != value.key);
            prop_assert!(open(key, 0, value.is_last(0), &value.chunks[0]).is_err());
        }

        #[test]
        fn the_hash_binds_order_number_and_content(hashes in prop::collection::vec(any::<[u8; HASH]>(), 2..9)) {
            let hash = value_hash(&hashes.concat());
            let mut swapped = hashes.clone();
            swapped.swap(0, 1);
            prop_assert_eq!(hash == value_hash(&swapped.concat()), hashes == swapped);
            prop_assert_ne!(hash, value_hash(&hashes[1..].concat()));
            prop_assert_ne!(hash, value_hash(&[&hashes[..], &hashes[..1]].concat().concat()));
        }
    }

    proptest! {
        #[test]
        fn a_short_value_is_a_value_of_one_chunk(
            key in any::<[u8; 32]>(), plaintext in prop::collection::vec(any::<u8>(), 0..INLINE_MAX as usize)
        ) {
            let key = ContentKey(key);
            let mut sealed = [&plaintext[..], &[0; TAG]].concat();
            Chunks::new(&key).seal(0, true, &mut sealed, plaintext.len());
            prop_assert_eq!(sealed.len() as u64, sealed_length(plaintext.len() as u64));
            prop_assert_eq!(open_short(&key, &sealed), Ok(plaintext));
        }

        #[test]
        fn random_bytes_do_not_open(
            key in any::<[u8; 32]>(), position in any::<u64>(), last: bool,
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let key = ContentKey(key);
            prop_assert!(open_short(&key, &bytes).is_err());
            prop_assert!(Chunks::new(&key).open(position, last, &mut bytes.clone()).is_err());
        }

        #[test]
        fn a_sealed_length_gives_the_size_back(size in 0..=SIZE_MAX) {
            let length = sealed_length(size);
            prop_assert_eq!(length - length.div_ceil((CHUNK + TAG) as u64) * TAG as u64, size);
            prop_assert!(sealed_length(size + 1) > length);
        }

        #[test]
        fn sizes_of_any_number_do_not_panic(size: u64) {
            prop_assert!(chunks(size) >= 1 && sealed_length(size) >= size);
        }
    }

    #[test]
    fn chunks_are_counted_at_the_edges() {
        let chunk = CHUNK as u64;
        let counted = [(0, 1), (1, 1), (chunk - 1, 1), (chunk, 1), (chunk + 1, 2), (2 * chunk, 2), (SIZE_MAX, 1 << 32)];
        for (size, count) in counted {
            assert_eq!(chunks(size), count, "{size}");
            assert_eq!(sealed_length(size), size + 16 * count, "{size}");
        }
    }

    #[test]
    fn the_last_position_can_be_sealed_and_no_position_wraps() {
        let chunks = Chunks::new(&ContentKey([1; 32]));
        let end = u64::from(u32::MAX);
        let mut sealed = [0; 1 + TAG];
        chunks.seal(end, true, &mut sealed, 1);
        assert_eq!(chunks.open(end, true, &mut sealed), Ok(()));
        chunks.seal(0, true, &mut sealed, 1);
        assert_eq!(chunks.open(end + 1, true, &mut sealed), Err(ChunkError(end + 1)));
    }

    #[test]
    fn random_content_keys_differ() {
        let (a, b) = (ContentKey::random(&Random::system()).unwrap(), ContentKey::random(&Random::system()).unwrap());
        assert_ne!(a.as_bytes(), b.as_bytes());
        assert_eq!(ContentKey::from_bytes(a.as_bytes()).unwrap().as_bytes(), a.as_bytes());
        assert!(ContentKey::from_bytes(&[0; 31]).is_none() && ContentKey::from_bytes(&[0; 33]).is_none());
    }
}
