//! Rows of the index, as a repair finds them in a damaged log.

use crate::KEYS;

/// Reads a row of each kind.
pub fn rows(bytes: &[u8]) {
    kvassd::fuzz::row(bytes, KEYS.account());
}
