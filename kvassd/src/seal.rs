//! Sealing and opening of records: the header under the record key, and the authentication of the whole.
//!
//! Pure. XChaCha20-Poly1305 (crate chacha20poly1305) seals the header with the clear part as associated data.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use kvass_proto::v1::Header;
use prost::Message;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::keys::Keys;
use crate::record::{Auth, Clear, Record, RecordError};

/// Bytes by which a sealed header is longer than the header: its nonce and its tag.
pub const HEADER_OVERHEAD: usize = 24 + 16;

/// Seals an encoded header and authenticates the record. The same input gives the same bytes on every device.
#[must_use]
pub fn seal(keys: &Keys, clear: &Clear, header: &[u8]) -> Record {
    let bytes = clear.encode();
    let nonce = keys.header_nonce(&bytes, header);
    let cipher = XChaCha20Poly1305::new((&*keys.record_key(clear.id, clear.generation)).into());
    #[allow(clippy::expect_used, reason = "the cipher refuses only messages of over 256 GiB")]
    let boxed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: header, aad: &bytes }).expect("a short header");
    let sealed = [&nonce[..], &boxed].concat();
    let auth = keys.auth(&bytes, &sealed);
    Record { clear: bytes.to_vec(), sealed, auth }
}

/// Verifies a record and reads its clear part. What does not verify is never merged, served or counted.
///
/// # Errors
/// A clear part that does not parse, or an authentication that does not match.
pub fn verify(keys: &Keys, record: &Record) -> Result<Clear, RecordError> {
    let Auth(expected) = keys.auth(&record.clear, &record.sealed);
    if !bool::from(expected.ct_eq(&record.auth.0)) {
        return Err(RecordError::Auth);
    }
    Clear::parse(&record.clear)
}

/// Opens the header of a record that was verified: its plaintext, as its writer encoded it.
///
/// # Errors
/// A header that does not open under the account's keys.
pub fn open_bytes(keys: &Keys, clear: &Clear, record: &Record) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let (nonce, boxed) = record.sealed.split_first_chunk::<24>().ok_or(RecordError::Header)?;
    let cipher = XChaCha20Poly1305::new((&*keys.record_key(clear.id, clear.generation)).into());
    let payload = Payload { msg: boxed, aad: &record.clear };
    cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| RecordError::Header)
}

/// Opens the header of a record that was verified, and checks that the record's id belongs to its name.
///
/// # Errors
/// A header that does not open or decode, or the name of another entry.
pub fn open(keys: &Keys, clear: &Clear, record: &Record) -> Result<Header, RecordError> {
    let header = Header::decode(open_bytes(keys, clear, record)?.as_slice()).map_err(|_| RecordError::Header)?;
    if keys.record_id(&header.name) != clear.id {
        return Err(RecordError::Name);
    }
    Ok(header)
}
