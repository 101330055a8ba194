//! Sealing and opening of records: the header under the record key, and the authentication of the whole.
//!
//! Pure. XChaCha20-Poly1305 (crate chacha20poly1305) seals the header with the clear part as associated data.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use kvass_proto::v1::Header;
use prost::Message;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::keys::{Keys, Token};
use crate::record::{Auth, Clear, Kind, Record, RecordError, RecordId};

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
/// A record of the wrong form, or an authentication that does not match.
pub fn verify(keys: &Keys, record: &Record) -> Result<Clear, RecordError> {
    let Auth(expected) = keys.auth(&record.clear, &record.sealed);
    if !bool::from(expected.ct_eq(&record.auth.0)) {
        return Err(RecordError::Auth);
    }
    record.parse()
}

/// Opens the header of a record that was verified: its plaintext, as its writer encoded it.
///
/// # Errors
/// A header that does not open under the account's keys.
pub fn open_bytes(keys: &Keys, clear: &Clear, record: &Record) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    open_with(&keys.record_key(clear.id, clear.generation), record)
}

fn open_with(record_key: &[u8; 32], record: &Record) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let (nonce, boxed) = record.sealed.split_first_chunk::<24>().ok_or(RecordError::Header)?;
    let cipher = XChaCha20Poly1305::new(record_key.into());
    let payload = Payload { msg: boxed, aad: &record.clear };
    cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| RecordError::Header)
}

/// Opens the header of a record that was verified, and checks that the record's id belongs to its name, or to its token
/// where it is a link or what is left of one.
///
/// # Errors
/// A header that does not open or decode, or one of another record.
pub fn open(keys: &Keys, clear: &Clear, record: &Record) -> Result<Header, RecordError> {
    let header = Header::decode(open_bytes(keys, clear, record)?.as_slice()).map_err(|_| RecordError::Header)?;
    let is_share = !header.token.is_empty();
    let fits_kind = match clear.kind {
        Kind::VALUE => !is_share,
        Kind::LINK => is_share,
        _ => true,
    };
    match id_of(keys, &header) {
        Some(id) if id == clear.id && fits_kind => Ok(header),
        _ => Err(RecordError::Name),
    }
}

/// The id of the record that a header belongs to; `None` where its token is none.
#[must_use]
pub fn id_of(keys: &Keys, header: &Header) -> Option<RecordId> {
    match header.token.is_empty() {
        true => Some(keys.record_id(&header.name)),
        false => Token::from_bytes(&header.token).map(|token| token.locator()),
    }
}

/// Opens the header of an entry's record with the record key alone, as whoever serves a link does. The key fits one id
/// and generation, so the name is not checked against the id.
///
/// # Errors
/// A header that does not open or decode.
pub fn open_by(record_key: &[u8; 32], record: &Record) -> Result<Header, RecordError> {
    Header::decode(open_with(record_key, record)?.as_slice()).map_err(|_| RecordError::Header)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::keys::EncryptionKey;
    use crate::record::{CLEAR, tests::clear};

    fn keys(byte: u8) -> Keys {
        Keys::derive(&EncryptionKey::new([byte; 32]))
    }

    fn header() -> impl Strategy<Value = Header> {
        (".{0,40}", any::<[u8; 32]>()).prop_map(|(name, key)| Header {
            name,
            content_key: key.into(),
            token: Vec::new(),
            reads: 0,
            pin: false,
        })
    }

    /// A clear part and the header that belongs to it.
    fn version() -> impl Strategy<Value = (Clear, Header)> {
        (clear(), header()).prop_map(|(clear, header)| (Clear { id: keys(1).record_id(&header.name), ..clear }, header))
    }

    fn sealed((clear, header): &(Clear, Header)) -> Record {
        seal(&keys(1), clear, &header.encode_to_vec())
    }

    fn flip(bytes: &mut [u8], bit: Index) {
        let bit = bit.index(8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    proptest! {
        #[test]
        fn what_was_sealed_verifies_and_opens(version in version()) {
            let record = sealed(&version);
            let (clear, header) = version;
            let bytes = header.encode_to_vec();
            prop_assert_eq!(verify(&keys(1), &record), Ok(clear));
            prop_assert_eq!(record.sealed.len(), bytes.len() + 24 + 16, "nonce and tag");
            prop_assert_eq!(&*open_bytes(&keys(1), &clear, &record).unwrap(), &bytes);
            prop_assert_eq!(open(&keys(1), &clear, &record), Ok(header));
        }

        #[test]
        fn sealing_again_gives_the_same_bytes(version in version()) {
            let record = sealed(&version);
            let header = open_bytes(&keys(1), &version.0, &record).unwrap();
            prop_assert_eq!(seal(&keys(1), &version.0, &header), record);
        }

        #[test]
        fn other_input_has_another_nonce(version in version(), counter in 0..9u64) {
            let mut other = version.clone();
            other.0.stamp.counter = counter;
            prop_assume!(version != other);
            prop_assert_ne!(&sealed(&version).sealed[..24], &sealed(&other).sealed[..24]);
            other = version.clone();
            other.1.content_key[0] ^= 1;
            prop_assert_ne!(&sealed(&version).sealed[..24], &sealed(&other).sealed[..24]);
        }

        #[test]
        fn a_flipped_bit_does_not_verify(version in version(), bit in any::<Index>()) {
            let record = sealed(&version);
            let mut changed = record.clone();
            flip(&mut changed.clear, bit);
            prop_assert_eq!(verify(&keys(1), &changed), Err(RecordError::Auth));
            changed = record.clone();
            flip(&mut changed.sealed, bit);
            prop_assert_eq!(verify(&keys(1), &changed), Err(RecordError::Auth));
            changed = record;
            flip(&mut changed.auth.0, bit);
            prop_assert_eq!(verify(&keys(1), &changed), Err(RecordError::Auth));
        }

        #[test]
        fn bytes_moved_between_the_parts_do_not_verify(version in version(), moved in 1..CLEAR) {
            let mut record = sealed(&version);
            let tail = record.clear.split_off(CLEAR - moved);
            record.sealed.splice(..0, tail);
            prop_assert_eq!(verify(&keys(1), &record), Err(RecordError::Auth));
        }

        /// The header is bound to its clear part by itself, whatever the authentication says.
        #[test]
        fn a_flipped_bit_does_not_open(version in version(), bit in any::<Index>()) {
            let record = sealed(&version);
            let mut changed = record.clone();
            flip(&mut changed.sealed, bit);
            prop_assert_eq!(open(&keys(1), &version.0, &changed), Err(RecordError::Header));
            changed = record;
            flip(&mut changed.clear, bit);
            prop_assert_eq!(open(&keys(1), &version.0, &changed), Err(RecordError::Header));
        }

        #[test]
        fn another_key_neither_verifies_nor_opens(version in version(), byte in 2..=u8::MAX) {
            let record = sealed(&version);
            prop_assert_eq!(verify(&keys(byte), &record), Err(RecordError::Auth));
            prop_assert_eq!(open(&keys(byte), &version.0, &record), Err(RecordError::Header));
        }

        #[test]
        fn a_header_does_not_open_under_another_clear_part(version in version(), other in clear()) {
            let (clear, header) = version;
            for other in [
                Clear { id: other.id, ..clear },
                Clear { generation: clear.generation ^ 1, ..clear },
                Clear { stamp: other.stamp, ..clear },
                Clear { expiry_us: clear.expiry_us ^ 1, ..clear },
                Clear { size: clear.size ^ 1, ..clear },
            ] {
                prop_assume!(other != clear);
                let sealed = seal(&keys(1), &clear, &header.encode_to_vec()).sealed;
                let bytes = other.encode().to_vec();
                let record = Record { auth: keys(1).auth(&bytes, &sealed), clear: bytes, sealed };
                prop_assert_eq!(open(&keys(1), &other, &record), Err(RecordError::Header));
            }
        }

        #[test]
        fn the_id_of_another_name_is_refused(version in version(), id in any::<[u8; 16]>()) {
            let clear = Clear { id: RecordId(id), ..version.0 };
            let record = sealed(&(clear, version.1));
            prop_assert_eq!(open(&keys(1), &clear, &record), Err(RecordError::Name));
        }

        #[test]
        fn random_bytes_neither_verify_nor_open(
            bytes in vec(any::<u8>(), 0..2 * CLEAR), sealed in vec(any::<u8>(), 0..99), auth: [u8; 32], clear in clear()
        ) {
            let record = Record { clear: bytes, sealed, auth: Auth(auth) };
            prop_assert_eq!(verify(&keys(1), &record), Err(RecordError::Auth));
            prop_assert_eq!(open(&keys(1), &clear, &record), Err(RecordError::Header));
        }

        /// A device of the same account, but a faulty one, wrote this.
        #[test]
        fn authentic_nonsense_does_not_panic(
            bytes in vec(any::<u8>(), 0..2 * CLEAR), sealed in vec(any::<u8>(), 0..99), clear in clear()
        ) {
            let record = Record { auth: keys(1).auth(&bytes, &sealed), clear: bytes, sealed };
            prop_assert_eq!(verify(&keys(1), &record), record.parse());
            let record = seal(&keys(1), &clear, &record.sealed);
            prop_assert_eq!(verify(&keys(1), &record), Ok(clear));
            prop_assert!(open(&keys(1), &clear, &record).is_err());
        }

        #[test]
        fn unknown_formats_verify_as_they_were_written(
            clear in clear(), format in 2..=u8::MAX, kind in 4..=u8::MAX, more in vec(any::<u8>(), 0..50), sealed in vec(any::<u8>(), 40..99)
        ) {
            let clear = Clear { format, kind: crate::record::Kind(kind), ..clear };
            let bytes = [&clear.encode()[..], &more].concat();
            let record = Record { auth: keys(1).auth(&bytes, &sealed), clear: bytes, sealed };
            prop_assert_eq!(verify(&keys(1), &record), Ok(clear));
        }
    }

    /// A newer program's header has fields that this one does not know: they are part of what is sealed again.
    #[test]
    fn unknown_fields_of_a_header_survive_sealing_again() {
        let name = "hello";
        let header = Header { name: name.into(), content_key: vec![1; 32], token: Vec::new(), reads: 0, pin: false };
        let bytes = [header.encode_to_vec(), vec![0xfa, 0x01, 2, 8, 9]].concat();
        let clear = Clear {
            id: keys(1).record_id(name),
            ..Clear::parse(&[&[1, 1][..], &[0; 20], &[0; 19], &[1], &[0; 16], &[5; 32]].concat()).unwrap()
        };
        let record = seal(&keys(1), &clear, &bytes);
        assert_eq!(open(&keys(1), &clear, &record), Ok(header));
        assert_eq!(&*open_bytes(&keys(1), &clear, &record).unwrap(), &bytes);
    }
}
