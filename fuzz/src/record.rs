//! Records as they come from another store: any bytes.

use kvassd::record::{Auth, Clear, FORMAT, Record};
use kvassd::seal;

use crate::KEYS;

/// Reads a clear part, and a record of what follows it.
pub fn record(bytes: &[u8]) {
    let (clear, sealed) = bytes.split_at(bytes.len().min(kvassd::record::CLEAR));
    if let Ok(read) = Clear::parse(clear) {
        assert_eq!(read.encode(), clear, "what is read is written as it was");
        assert!(read.format != FORMAT || read.is_known() == read.kind.is_known());
        assert!(!(read.has_blob() && read.has_inline()));
    }
    // Newer formats have longer clear parts, which begin alike.
    if let Ok(read) = Clear::parse(bytes) {
        assert!(bytes.starts_with(&read.encode()));
    }
    let (sealed, auth) = sealed.split_at(sealed.len().saturating_sub(32));
    let auth = Auth(auth.try_into().unwrap_or_default());
    let record = Record { clear: clear.to_vec(), sealed: sealed.to_vec(), auth };
    assert!(record.parse().is_err() || Clear::parse(clear).is_ok());
    // It would have to guess 32 bytes. The seeds have true ones, and those are of this key.
    if seal::verify(&KEYS, &record).is_ok() {
        assert!(
            seal::open_bytes(&KEYS, &Clear::parse(clear).expect("a clear part that was verified"), &record).is_ok()
        );
        let mut other = record;
        other.auth.0[31] ^= 1;
        assert!(seal::verify(&KEYS, &other).is_err());
    }
}
