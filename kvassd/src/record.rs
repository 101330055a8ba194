//! A record: one version of one entry, as bytes that are stored, forwarded and authenticated as they were written.
//!
//! Pure. This module has the part in clear and the order of records; `seal` has the rest. docs/format.md is the
//! specification.

use std::cmp::Ordering;

use crate::stamp::Stamp;
use crate::value;

/// The format of records that this program writes.
pub const FORMAT: u8 = 1;

/// Bytes of the part in clear in format 1, and the least in any format.
pub const CLEAR: usize = 90;

/// The id of an entry's record, derived from its name: the same on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 16]);

/// The authentication of a record, an HMAC-SHA256 over the clear part and the sealed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Auth(pub [u8; 32]);

/// The hash of a sealed value: SHA-256 over the SHA-256 of each sealed chunk. All zeros where there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueHash(pub [u8; 32]);

impl ValueHash {
    /// The hash of a record that has no value.
    pub const NONE: Self = Self([0; 32]);
}

/// What a record is; numbers that are not listed are kept, ordered and forwarded all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// The entry has a value.
    pub const VALUE: Self = Self(1);
    /// The entry was removed.
    pub const REMOVAL: Self = Self(2);
}

/// The part of a record that anybody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    /// The format of the whole record.
    pub format: u8,
    /// What the record is.
    pub kind: Kind,
    /// Which entry it belongs to.
    pub id: RecordId,
    /// The generation of the entry's record key.
    pub generation: u32,
    /// When and by whom it was written.
    pub stamp: Stamp,
    /// When the entry expires, in microseconds since 1970; 0 is never.
    pub expiry_us: u64,
    /// Bytes of the value before sealing.
    pub size: u64,
    /// The hash of the sealed value.
    pub value_hash: ValueHash,
}

/// Why bytes are not a record, or not one of this account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RecordError {
    #[error("a clear part of {0} bytes")]
    Length(usize),
    #[error("a stamp outside of what a store accepts")]
    Stamp,
    #[error("a removal that has a value")]
    RemovalWithValue,
    #[error("an authentication that does not match")]
    Auth,
    #[error("a header that does not open")]
    Header,
    #[error("a header of another entry")]
    Name,
}

impl Clear {
    /// Encodes the clear part of format 1; numbers are big endian.
    #[must_use]
    pub fn encode(&self) -> [u8; CLEAR] {
        let mut bytes = [0; CLEAR];
        bytes[0] = self.format;
        bytes[1] = self.kind.0;
        bytes[2..18].copy_from_slice(&self.id.0);
        bytes[18..22].copy_from_slice(&self.generation.to_be_bytes());
        bytes[22..30].copy_from_slice(&self.stamp.time_us.to_be_bytes());
        bytes[30..38].copy_from_slice(&self.stamp.counter.to_be_bytes());
        bytes[38..42].copy_from_slice(&self.stamp.pid.to_be_bytes());
        bytes[42..50].copy_from_slice(&self.expiry_us.to_be_bytes());
        bytes[50..58].copy_from_slice(&self.size.to_be_bytes());
        bytes[58..90].copy_from_slice(&self.value_hash.0);
        bytes
    }

    /// Reads a clear part. Formats and kinds that this program does not know begin alike and are read as far.
    ///
    /// # Errors
    /// Too few bytes (in format 1 also too many), a stamp that no store accepts, a removal with a value.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() < CLEAR || (bytes[0] == FORMAT && bytes.len() > CLEAR) {
            return Err(RecordError::Length(bytes.len()));
        }
        let clear = Self {
            format: bytes[0],
            kind: Kind(bytes[1]),
            id: RecordId(array(bytes, 2)),
            generation: u32::from_be_bytes(array(bytes, 18)),
            stamp: Stamp {
                time_us: u64::from_be_bytes(array(bytes, 22)),
                counter: u64::from_be_bytes(array(bytes, 30)),
                pid: u32::from_be_bytes(array(bytes, 38)),
            },
            expiry_us: u64::from_be_bytes(array(bytes, 42)),
            size: u64::from_be_bytes(array(bytes, 50)),
            value_hash: ValueHash(array(bytes, 58)),
        };
        if !clear.stamp.is_valid() {
            return Err(RecordError::Stamp);
        }
        if clear.kind == Kind::REMOVAL && (clear.size != 0 || clear.value_hash != ValueHash::NONE) {
            return Err(RecordError::RemovalWithValue);
        }
        Ok(clear)
    }

    /// Whether this program knows the record's format and kind, and so can open and seal it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.format == FORMAT && (self.kind == Kind::VALUE || self.kind == Kind::REMOVAL)
    }

    /// Whether the record has a value that lies in a file of its own.
    #[must_use]
    pub fn has_blob(&self) -> bool {
        self.value_hash != ValueHash::NONE && self.size > value::INLINE_MAX
    }

    /// Whether the record has a value that lies beside it in the index.
    #[must_use]
    pub fn has_inline(&self) -> bool {
        self.value_hash != ValueHash::NONE && self.size <= value::INLINE_MAX
    }

    /// Whether the entry had expired at a time, in microseconds since 1970.
    #[must_use]
    pub fn is_expired(&self, now_us: u64) -> bool {
        self.expiry_us != 0 && self.expiry_us <= now_us
    }
}

/// A record as written, but for its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The encoded [`Clear`].
    pub clear: Vec<u8>,
    /// The sealed header.
    pub sealed: Vec<u8>,
    /// The authentication of both.
    pub auth: Auth,
}

impl Record {
    /// Compares two records of one entry, read to their clear parts: the greater one is the newer.
    #[must_use]
    pub fn order(a: (&Clear, &Auth), b: (&Clear, &Auth)) -> Ordering {
        (a.0.stamp, a.1).cmp(&(b.0.stamp, b.1))
    }
}

/// The `N` bytes at an offset; the caller has checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
