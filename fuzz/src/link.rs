//! Addresses, links, times, durations and names as people write them.

/// Reads a text as each of them.
pub fn link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    kvass_cli::fuzz::words(text);
    kvassd::fuzz::public_url(text);
}
