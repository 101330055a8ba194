//! The rows of the index, as bytes.
//!
//! Record and value rows begin with a mark of their own, so that a repair finds them in the bytes of a log that sled
//! cannot open any more.

use sha2::{Digest, Sha256};

use super::Seq;
use crate::keys::{Access, AccountId};
use crate::record::{Auth, Clear, Record, RecordError, RecordId, ValueHash};

/// What a record row begins with.
pub(crate) const RECORD_MARK: &[u8; 8] = b"kvassR1\n";
/// What a value row begins with.
pub(crate) const VALUE_MARK: &[u8; 8] = b"kvassV1\n";

/// Bytes of a record row beside the record's clear and sealed parts: mark, place, two lengths, authentication and sum.
const RECORD_EXTRA: usize = 8 + 8 + 2 + 2 + 32 + SUM;

/// Bytes of the sum that ends rows of records, counts and settings.
pub(crate) const SUM: usize = 8;

/// Bytes of a value row before the sealed value: mark, hash and length.
pub(crate) const VALUE_EXTRA: usize = 8 + 32 + 2;

/// A row of `records`: a record and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordRow {
    pub(crate) seq: Seq,
    pub(crate) record: Record,
}

impl RecordRow {
    /// Encodes the row. Its sum binds it to an account, for a store that cannot check the authentication.
    pub(crate) fn encode(&self, account: AccountId) -> Vec<u8> {
        let Record { clear, sealed, auth } = &self.record;
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend_from_slice(RECORD_MARK);
        bytes.extend_from_slice(&self.seq.0.to_be_bytes());
        bytes.extend_from_slice(&(clear.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&(sealed.len() as u16).to_be_bytes());
        bytes.extend_from_slice(clear);
        bytes.extend_from_slice(sealed);
        bytes.extend_from_slice(&auth.0);
        bytes.extend_from_slice(&sum(account, &bytes));
        bytes
    }

    /// Verifies the record of a row, whose bytes these are, as far as the keys go.
    pub(crate) fn verify(&self, bytes: &[u8], keys: &Access) -> Result<Clear, RecordError> {
        match keys {
            Access::Blind(account) if !Self::is_of(bytes, *account) => Err(RecordError::Row),
            keys => keys.verify(&self.record),
        }
    }

    /// Whether the bytes of a row, its sum included, are as they were written for an account.
    fn is_of(bytes: &[u8], account: AccountId) -> bool {
        bytes.split_last_chunk::<SUM>().is_some_and(|(row, written)| *written == sum(account, row))
    }

    /// Bytes of the encoded row.
    pub(crate) fn length(&self) -> usize {
        RECORD_EXTRA + self.record.clear.len() + self.record.sealed.len()
    }

    /// Reads a row that is exactly `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (row, rest) = Self::decode_prefix(bytes)?;
        rest.is_empty().then_some(row)
    }

    /// Reads a row at the beginning of `bytes`; what follows it is returned.
    pub(crate) fn decode_prefix(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let rest = bytes.strip_prefix(RECORD_MARK)?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (clear_length, rest) = rest.split_first_chunk::<2>()?;
        let (sealed_length, rest) = rest.split_first_chunk::<2>()?;
        let (clear, rest) = rest.split_at_checked(u16::from_be_bytes(*clear_length).into())?;
        let (sealed, rest) = rest.split_at_checked(u16::from_be_bytes(*sealed_length).into())?;
        let (auth, rest) = rest.split_first_chunk::<32>()?;
        let (_, rest) = rest.split_first_chunk::<SUM>()?;
        let record = Record { clear: clear.to_vec(), sealed: sealed.to_vec(), auth: Auth(*auth) };
        Some((Self { seq: Seq(u64::from_be_bytes(*seq)), record }, rest))
    }

    pub(crate) fn clear(&self) -> Result<Clear, RecordError> {
        Clear::parse(&self.record.clear)
    }
}

/// Says that a row is whole and of an account.
pub(crate) fn sum(account: AccountId, row: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&Sha256::new().chain_update(account.0).chain_update(row).finalize()[..SUM]);
    sum
}

/// A row of `values`: a short sealed value, beside the record of the same id.
pub(crate) fn encode_value(hash: ValueHash, sealed: &[u8]) -> Vec<u8> {
    [&VALUE_MARK[..], &hash.0, &(sealed.len() as u16).to_be_bytes(), sealed].concat()
}

/// Reads a value row at the beginning of `bytes`.
pub(crate) fn decode_value(bytes: &[u8]) -> Option<(ValueHash, &[u8])> {
    let rest = bytes.strip_prefix(VALUE_MARK)?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (sealed, _) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((ValueHash(*hash), sealed))
}

/// What a row of `reads` begins with.
pub(crate) const READS_MARK: &[u8; 8] = b"kvassC1\n";

/// A row of `reads`: how often a link was read here. Its sum binds it to an account.
pub(crate) fn encode_reads(id: RecordId, count: u64, account: AccountId) -> Vec<u8> {
    let row = [&READS_MARK[..], &id.0, &count.to_be_bytes()].concat();
    [&row[..], &sum(account, &row)].concat()
}

/// Reads a row of `reads` at the beginning of `bytes`, where it is whole and of the account.
pub(crate) fn decode_reads(bytes: &[u8], account: AccountId) -> Option<(RecordId, u64)> {
    let (row, rest) = bytes.split_at_checked(READS_MARK.len() + 16 + 8)?;
    let (written, _) = rest.split_first_chunk::<SUM>()?;
    let (id, count) = row.strip_prefix(READS_MARK)?.split_first_chunk::<16>()?;
    let count = u64::from_be_bytes(count.try_into().ok()?);
    (*written == sum(account, row)).then_some((RecordId(*id), count))
}

/// Through which opening of which store a record came here; all zeros for what was written here.
pub(crate) type Via = [u8; 16];

/// The mark of what was written here.
pub(crate) const HERE: Via = [0; 16];

/// A row of `log`.
pub(crate) fn encode_log(id: RecordId, via: Via) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&id.0);
    bytes[16..].copy_from_slice(&via);
    bytes
}

/// The record that a row of `log` names, and through which store it came.
pub(crate) fn decode_log(bytes: &[u8]) -> Option<(RecordId, Via)> {
    let (id, via) = bytes.split_first_chunk::<16>()?;
    Some((RecordId(*id), via.try_into().ok()?))
}

/// What `meta` holds of the whole store; it changes with every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Grows by one with every transaction.
    pub(crate) commit: u64,
    /// The greatest Lamport counter that this store has seen.
    pub(crate) counter: u64,
}

impl State {
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.commit.to_be_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (commit, rest) = bytes.split_first_chunk::<8>()?;
        let counter = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self { commit: u64::from_be_bytes(*commit), counter: u64::from_be_bytes(counter) })
    }
}

/// What `meta` holds of an account; it changes with every commit to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// The XOR of the authentications of all records.
    pub(crate) digest: [u8; 32],
    /// The place of the newest row of the log; 0 before the first.
    pub(crate) last: Seq,
    /// Bytes of all rows of records and values.
    pub(crate) content: u64,
}

impl Tally {
    pub(crate) fn encode(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(&self.digest);
        bytes[32..40].copy_from_slice(&self.last.0.to_be_bytes());
        bytes[40..].copy_from_slice(&self.content.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let content = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self { digest: *digest, last: Seq(u64::from_be_bytes(*last)), content: u64::from_be_bytes(content) })
    }
}

/// Adds an authentication to a digest, or takes it out again.
pub(crate) fn toggle(digest: &mut [u8; 32], auth: &Auth) {
    for (byte, other) in digest.iter_mut().zip(&auth.0) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_written(
            seq in any::<u64>(), clear in prop::collection::vec(any::<u8>(), 0..200),
            sealed in prop::collection::vec(any::<u8>(), 0..2_000), auth in any::<[u8; 32]>(), tail in any::<[u8; 3]>(),
            account in any::<[u8; 16]>(), bit in any::<prop::sample::Index>()
        ) {
            prop_assume!(account != [0; 16]);
            let account = AccountId(account);
            let row = RecordRow { seq: Seq(seq), record: Record { clear, sealed: sealed.clone(), auth: Auth(auth) } };
            let mut bytes = row.encode(account);
            prop_assert_eq!(row.length(), bytes.len());
            prop_assert!(RecordRow::is_of(&bytes, account) && !RecordRow::is_of(&bytes, AccountId([0; 16])));
            let (mut flipped, bit) = (bytes.clone(), bit.index(8 * bytes.len()));
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!RecordRow::is_of(&flipped, account));
            prop_assert_eq!(RecordRow::decode(&bytes), Some(row.clone()));
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(RecordRow::decode(&bytes), None);
            prop_assert_eq!(RecordRow::decode_prefix(&bytes), Some((row, &tail[..])));
            let value = encode_value(ValueHash(auth), &sealed);
            prop_assert_eq!(value.len(), VALUE_EXTRA + sealed.len());
            prop_assert_eq!(decode_value(&value), Some((ValueHash(auth), &sealed[..])));
            let (id, other) = (RecordId(account.0), AccountId([0; 16]));
            let mut reads = encode_reads(id, seq, account);
            prop_assert_eq!(decode_reads(&[&reads[..], &tail].concat(), account), Some((id, seq)));
            prop_assert_eq!(decode_reads(&reads, other), None);
            let bit = bit % (8 * reads.len());
            reads[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_reads(&reads, account), None);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for mark in [&RECORD_MARK[..], VALUE_MARK, READS_MARK, b""] {
                let bytes = [mark, &bytes].concat();
                let _ = (RecordRow::decode(&bytes), decode_value(&bytes), decode_log(&bytes));
                let _ = (RecordRow::is_of(&bytes, AccountId([1; 16])), decode_reads(&bytes, AccountId([1; 16])));
                let _ = (State::decode(&bytes), Tally::decode(&bytes));
            }
        }
    }
}
