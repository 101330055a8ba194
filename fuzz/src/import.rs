//! Files of entries.

/// Reads a file of entries.
pub fn import(bytes: &[u8]) {
    kvass_cli::fuzz::import(bytes);
}
