//! The key file: the encryption key in force, and during a change of key the other one too.
//!
//! One key a line, 64 hex digits; which one is in force says the account in the index. Mode 0600.

use std::fs;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::layout;
use crate::keys::EncryptionKey;

/// Reads the keys; `None` where a line is no key or there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<EncryptionKey>>> {
    let bytes = Zeroizing::new(fs::read(path)?);
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let keys: Option<Vec<_>> = text.lines().map(EncryptionKey::from_hex).collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
}

/// Replaces the file; it is durable afterwards.
pub(crate) fn write(path: &Path, keys: &[&EncryptionKey]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(65 * keys.len()));
    for key in keys {
        text.push_str(&key.to_hex());
        text.push('\n');
    }
    layout::replace_file(path, text.as_bytes())
}
