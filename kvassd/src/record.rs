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

/// The most bytes of a clear part and of a sealed header in any format: a row of the index has to stay small.
pub const CLEAR_MAX: usize = 512;
/// See [`CLEAR_MAX`].
pub const SEALED_MAX: usize = 4_096;

/// The least bytes of a sealed header: its nonce and its tag.
const SEALED_MIN: usize = 24 + 16;

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
    /// A link to an entry; its value is a grant.
    pub const LINK: Self = Self(3);

    /// Whether this program knows it, and so can open and seal it.
    #[must_use]
    pub fn is_known(self) -> bool {
        matches!(self, Self::VALUE | Self::REMOVAL | Self::LINK)
    }
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
    #[error("a row that makes no sense")]
    Row,
    #[error("a clear part of {0} bytes")]
    Length(usize),
    #[error("a sealed header of {0} bytes")]
    Sealed(usize),
    #[error("a stamp outside of what a store accepts")]
    Stamp,
    #[error("a removal that has a value")]
    RemovalWithValue,
    #[error("a size and a hash that no value has")]
    Value,
    #[error("an authentication that does not match")]
    Auth,
    #[error("a header that does not open")]
    Header,
    #[error("a header of another entry")]
    Name,
    #[error("a grant that is not what its header says")]
    Grant,
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
    /// Too few bytes or too many, a stamp that no store accepts, a removal with a value, a size beyond
    /// [`value::SIZE_MAX`] or without a hash, a value or a link without a hash, a link that is no short value.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if !(CLEAR..=CLEAR_MAX).contains(&bytes.len()) || (bytes[0] == FORMAT && bytes.len() > CLEAR) {
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
        let is_hashed = clear.value_hash != ValueHash::NONE;
        if clear.kind == Kind::REMOVAL && (clear.size != 0 || is_hashed) {
            return Err(RecordError::RemovalWithValue);
        }
        let needs_hash = clear.size != 0 || clear.kind == Kind::VALUE || clear.kind == Kind::LINK;
        let most = if clear.kind == Kind::LINK { value::INLINE_MAX } else { value::SIZE_MAX };
        if clear.size > most || (needs_hash && !is_hashed) {
            return Err(RecordError::Value);
        }
        Ok(clear)
    }

    /// Whether this program knows the record's format and kind, and so can open and seal it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.format == FORMAT && self.kind.is_known()
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
    /// Reads the clear part, and checks all that can be checked without a key.
    ///
    /// # Errors
    /// A clear part that does not parse, or a sealed header that is too short or too long.
    pub fn parse(&self) -> Result<Clear, RecordError> {
        let clear = Clear::parse(&self.clear)?;
        match (SEALED_MIN..=SEALED_MAX).contains(&self.sealed.len()) {
            true => Ok(clear),
            false => Err(RecordError::Sealed(self.sealed.len())),
        }
    }

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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, subsequence};

    use super::*;

    type Version = (Clear, Auth);

    prop_compose! {
        fn stamp()(time_us in 0..=Stamp::MAX, counter in 0..=Stamp::MAX, pid in 1..=u32::MAX) -> Stamp {
            Stamp { time_us, counter, pid }
        }
    }

    prop_compose! {
        /// A clear part that parses, of a value or a removal.
        pub(crate) fn clear()(
            id in any::<[u8; 16]>(), generation: u32, stamp in stamp(), expiry_us: u64,
            value in prop::option::of((0..=value::SIZE_MAX, vec(1..=u8::MAX, 32)))
        ) -> Clear {
            let kind = if value.is_some() { Kind::VALUE } else { Kind::REMOVAL };
            let (size, hash) = value.unwrap_or((0, vec![0; 32]));
            let value_hash = ValueHash(array(&hash, 0));
            Clear { format: FORMAT, kind, id: RecordId(id), generation, stamp, expiry_us, size, value_hash }
        }
    }

    prop_compose! {
        /// One of few versions of one entry, so that stamps and authentications meet.
        fn version()(time_us in 0..3u64, counter in 0..3u64, pid in 1..3u32, auth in 0..3u8) -> Version {
            (Clear { stamp: Stamp { time_us, counter, pid }, ..removal() }, Auth([auth; 32]))
        }
    }

    fn removal() -> Clear {
        Clear {
            format: FORMAT,
            kind: Kind::REMOVAL,
            id: RecordId([7; 16]),
            generation: 0,
            stamp: Stamp { time_us: 1, counter: 1, pid: 1 },
            expiry_us: 0,
            size: 0,
            value_hash: ValueHash::NONE,
        }
    }

    /// The law of the whole: a merge keeps the greater.
    fn merge(a: Version, b: Version) -> Version {
        if Record::order((&b.0, &b.1), (&a.0, &a.1)).is_gt() { b } else { a }
    }

    fn merged(versions: &[Version]) -> Option<Version> {
        versions.iter().copied().reduce(merge)
    }

    /// Versions, and the same ones shuffled with some of them repeated.
    fn two_histories() -> impl Strategy<Value = (Vec<Version>, Vec<Version>)> {
        vec(version(), 1..12)
            .prop_flat_map(|versions| (Just(versions.clone()), subsequence(versions.clone(), 0..=versions.len())))
            .prop_flat_map(|(versions, repeats)| {
                let other = [versions.clone(), repeats].concat();
                (Just(versions), Just(other).prop_shuffle())
            })
    }

    proptest! {
        #[test]
        fn what_was_encoded_parses_to_the_same(clear in clear()) {
            prop_assert_eq!(Clear::parse(&clear.encode()), Ok(clear));
        }

        #[test]
        fn random_bytes_parse_without_a_panic(bytes in vec(any::<u8>(), 0..2 * CLEAR)) {
            let _ = Clear::parse(&bytes);
        }

        #[test]
        fn what_parses_in_format_1_encodes_to_the_same_bytes(clear in clear(), at in any::<Index>(), byte: u8) {
            let mut bytes = clear.encode();
            *at.get_mut(&mut bytes) = byte;
            match Clear::parse(&bytes) {
                Ok(parsed) => prop_assert_eq!(parsed.encode(), bytes),
                Err(error) => prop_assert!(!matches!(error, RecordError::Length(_))),
            }
        }

        #[test]
        fn a_cut_clear_part_is_refused(clear in clear(), length in 0..CLEAR) {
            prop_assert_eq!(Clear::parse(&clear.encode()[..length]), Err(RecordError::Length(length)));
        }

        #[test]
        fn only_another_format_may_be_longer(clear in clear(), format in 2..=u8::MAX, more in vec(any::<u8>(), 1..50)) {
            let bytes = [&clear.encode()[..], &more].concat();
            prop_assert_eq!(Clear::parse(&bytes), Err(RecordError::Length(bytes.len())));
            let other = Clear { format, ..clear };
            prop_assert_eq!(Clear::parse(&[&other.encode()[..], &more].concat()), Ok(other));
            prop_assert!(!other.is_known());
        }

        #[test]
        fn a_value_is_in_one_place(clear in clear()) {
            prop_assert_eq!(clear.has_inline() != clear.has_blob(), clear.kind == Kind::VALUE);
        }

        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in version(), b in version(), c in version()) {
            prop_assert_eq!(merge(a, b), merge(b, a));
            prop_assert_eq!(merge(a, merge(b, c)), merge(merge(a, b), c));
            prop_assert_eq!(merge(a, a), a);
            prop_assert_eq!(merge(merge(a, b), b), merge(a, b));
        }

        #[test]
        fn any_order_and_any_repeats_end_equal((one, other) in two_histories()) {
            prop_assert_eq!(merged(&one), merged(&other));
        }

        #[test]
        fn the_stamp_decides_before_the_authentication(a in version(), b in version()) {
            let order = Record::order((&a.0, &a.1), (&b.0, &b.1));
            prop_assert_eq!(order, a.0.stamp.cmp(&b.0.stamp).then(a.1.cmp(&b.1)));
        }
    }

    #[test]
    fn a_record_that_is_too_short_or_too_long_is_refused_without_a_key() {
        let of = |clear: Vec<u8>, sealed: usize| Record { clear, sealed: vec![0; sealed], auth: Auth([0; 32]) };
        for length in [40, 1_101, SEALED_MAX] {
            assert_eq!(of(removal().encode().to_vec(), length).parse(), Ok(removal()));
        }
        for length in [0, 39, SEALED_MAX + 1, 70_000] {
            assert_eq!(of(removal().encode().to_vec(), length).parse(), Err(RecordError::Sealed(length)));
        }
        let other = Clear { format: 2, ..removal() };
        let prolonged = |length| [&other.encode()[..], &vec![0; length - CLEAR]].concat();
        assert_eq!(of(prolonged(CLEAR_MAX), 40).parse(), Ok(other));
        assert_eq!(of(prolonged(CLEAR_MAX + 1), 40).parse(), Err(RecordError::Length(CLEAR_MAX + 1)));
    }

    #[test]
    fn clear_parts_that_contradict_themselves_are_refused() {
        let hashed = ValueHash([1; 32]);
        let value = Clear { kind: Kind::VALUE, value_hash: hashed, ..removal() };
        let link = Clear { kind: Kind::LINK, value_hash: hashed, ..removal() };
        let other = Clear { kind: Kind(9), ..removal() };
        let late = Stamp { time_us: Stamp::MAX + 1, counter: 1, pid: 1 };
        for (clear, error) in [
            (Clear { stamp: late, ..value }, RecordError::Stamp),
            (Clear { size: 1, ..removal() }, RecordError::RemovalWithValue),
            (Clear { value_hash: hashed, ..removal() }, RecordError::RemovalWithValue),
            (Clear { value_hash: ValueHash::NONE, ..value }, RecordError::Value),
            (Clear { size: value::SIZE_MAX + 1, ..value }, RecordError::Value),
            (Clear { size: 1, ..other }, RecordError::Value),
            (Clear { value_hash: ValueHash::NONE, ..link }, RecordError::Value),
            (Clear { size: value::INLINE_MAX + 1, ..link }, RecordError::Value),
        ] {
            assert_eq!(Clear::parse(&clear.encode()), Err(error), "{clear:?}");
        }
        for clear in [value, link, other, removal(), Clear { size: value::SIZE_MAX, ..value }] {
            assert_eq!(Clear::parse(&clear.encode()), Ok(clear));
        }
    }

    #[test]
    fn an_entry_expires_at_its_time() {
        let clear = Clear { expiry_us: 5, ..removal() };
        assert!(!clear.is_expired(4) && clear.is_expired(5));
        assert!(!removal().is_expired(u64::MAX));
    }
}
