//! What was set for the store as a whole, in one row with a mark of its own, so that a repair finds it in the bytes of a
//! log that sled cannot open any more.
//!
//! Each of them has a row in `meta` that counts while the store is whole; this one is written beside them, and anew at
//! each opening.

use sled::Batch;

use super::index::meta;
use super::row::{self, SUM};
use crate::keys::AccountId;

/// What the row begins with.
pub(crate) const SETTINGS_MARK: &[u8; 8] = b"kvassS1\n";

/// What a store is told beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) pid: u32,
    /// The remote as a URL; empty: none.
    pub(crate) remote: String,
    /// What was set to stand before links; empty: nothing.
    pub(crate) public_url: String,
}

impl Settings {
    /// Adds the row to a commit, whose number it bears.
    pub(crate) fn write(&self, batch: &mut Batch, commit: u64, account: AccountId) {
        batch.insert(meta::SETTINGS, self.encode(commit, account));
    }

    fn encode(&self, commit: u64, account: AccountId) -> Vec<u8> {
        let mut row = [&SETTINGS_MARK[..], &commit.to_be_bytes(), &self.pid.to_be_bytes()].concat();
        for text in [&self.remote, &self.public_url] {
            row.extend_from_slice(&(text.len() as u16).to_be_bytes());
            row.extend_from_slice(text.as_bytes());
        }
        let sum = row::sum(account, &row);
        row.extend_from_slice(&sum);
        row
    }

    /// Reads the row at the beginning of `bytes`, where it is whole and of the account, and the number of its commit.
    pub(crate) fn decode(bytes: &[u8], account: AccountId) -> Option<(u64, Self)> {
        let rest = bytes.strip_prefix(SETTINGS_MARK)?;
        let (commit, rest) = rest.split_first_chunk::<8>()?;
        let (pid, rest) = rest.split_first_chunk::<4>()?;
        let (remote, rest) = text(rest)?;
        let (public_url, rest) = text(rest)?;
        let (written, _) = rest.split_first_chunk::<SUM>()?;
        let is_whole = *written == row::sum(account, &bytes[..bytes.len() - rest.len()]);
        let settings = Self { pid: u32::from_be_bytes(*pid), remote, public_url };
        is_whole.then_some((u64::from_be_bytes(*commit), settings))
    }
}

/// Reads a text behind its length.
fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settings_come_back_from_before_anything_and_only_whole(
            commit in any::<u64>(), pid in any::<u32>(), remote in ".{0,40}", public_url in ".{0,40}",
            tail in prop::collection::vec(any::<u8>(), 0..9), bit in any::<prop::sample::Index>()
        ) {
            let (settings, account) = (Settings { pid, remote, public_url }, AccountId([1; 16]));
            let mut row = settings.encode(commit, account);
            let length = row.len();
            row.extend_from_slice(&tail);
            prop_assert_eq!(Settings::decode(&row, account), Some((commit, settings)));
            prop_assert_eq!(Settings::decode(&row, AccountId([2; 16])), None);
            let bit = bit.index(8 * length);
            row[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Settings::decode(&row, account), None);
        }

        #[test]
        fn random_bytes_are_no_settings_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Settings::decode(&[&SETTINGS_MARK[..], &bytes].concat(), AccountId([1; 16])), None);
        }
    }
}
