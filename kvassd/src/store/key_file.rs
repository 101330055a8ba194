//! The key file: the key in force, and during a change of key the other one too.
//!
//! One key a line, 64 hex digits or the text of a server key; which one is in force says the account in the index.
//! Mode 0600.

use std::fs;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::layout;
use crate::keys::Key;

/// More than any line takes, in bytes.
const LINE: usize = 80;

/// Reads the keys; `None` where a line is no key or there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<Key>>> {
    let bytes = Zeroizing::new(fs::read(path)?);
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let keys: Option<Vec<_>> = text.lines().map(Key::from_text).collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
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
