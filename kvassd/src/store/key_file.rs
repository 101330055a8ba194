//! The key file: the key in force, and during a change of key the other one too.
//!
//! One key a line, 64 hex digits or the text of a server key; which one is in force says the account in the index.
//! Mode 0600.

use std::fs;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::layout;
use crate::keys::{AccountId, Key};

/// More than any line takes, in bytes.
const LINE: usize = 80;

/// Reads the keys; `None` where a line is no key or there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<Key>>> {
    let bytes = Zeroizing::new(fs::read(path)?);
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let keys: Option<Vec<_>> = text.lines().map(Key::from_text).collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
}

/// Looks for the key of an account in a file that has one wrong bit.
pub(crate) fn mend(path: &Path, account: AccountId) -> io::Result<Option<Key>> {
    let mut bytes = Zeroizing::new(fs::read(path)?);
    // Longer than any file of keys: more than one bit is wrong.
    if bytes.len() > 2 * LINE {
        return Ok(None);
    }
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let lines = std::str::from_utf8(&bytes).unwrap_or_default().lines();
        if let Some(key) = lines.filter_map(Key::from_text).find(|key| key.access().account() == account) {
            return Ok(Some(key));
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(None)
}

/// Replaces the file; it is durable afterwards.
pub(crate) fn write(path: &Path, keys: &[&Key]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(LINE * keys.len()));
    for key in keys {
        text.push_str(&key.to_text());
        text.push('\n');
    }
    layout::replace_file(path, text.as_bytes())
}
