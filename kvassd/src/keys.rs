//! The encryption key and all that is derived from it.
//!
//! Pure, but for asking the system to keep the keys out of swap (`locked`). Every derivation is HKDF-SHA256 (RFC 5869)
//! with a label, every MAC is HMAC-SHA256 (RFC 2104) over a label and length-prefixed parts, so that no two uses can be
//! confused. docs/format.md has the labels and test vectors.

mod access;
mod base32;
mod locked;
mod server_key;
mod token;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use self::locked::Locked;
use crate::random::{self, Random};
use crate::record::{Auth, RecordId};
pub use access::{Access, Key};
pub use server_key::PREFIX as SERVER_KEY_PREFIX;
pub use token::Token;

/// The key that a user's devices share, 32 bytes. Never shown but by `config show`, and by design not `Debug`.
#[derive(Clone)]
pub struct EncryptionKey(Locked<1>);

impl EncryptionKey {
    /// Takes the 32 bytes of a key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(taken(bytes))
    }

    /// Makes a key from a random source.
    ///
    /// # Errors
    /// The source has no randomness to give.
    pub fn random(random: &Random) -> Result<Self, random::Error> {
        random.bytes().map(Self::new)
    }

    /// Reads 64 hex digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut is_one = false;
        let key = Locked::write(|[bytes]| is_one = decode_hex(text, bytes));
        is_one.then_some(Self(key))
    }

    /// The key as 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_hex(self.as_bytes()))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.show()[0]
    }
}

/// The key that authenticates the sync channel, 32 bytes: all that a server needs which shall not read. No other key
/// follows from it. By design not `Debug`.
#[derive(Clone)]
pub struct SyncKey(Locked<1>);

impl SyncKey {
    /// Takes the 32 bytes of a sync key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(taken(bytes))
    }

    /// Derives an account's sync key from its encryption key.
    #[must_use]
    pub fn derive(key: &EncryptionKey) -> Self {
        Self(Locked::write(|[bytes]| derive_into(key.as_bytes(), &[b"kvass v1 sync"], bytes)))
    }

    /// The account whose sync key this is.
    #[must_use]
    pub fn account(&self) -> AccountId {
        AccountId(derive(self.as_bytes(), &[b"kvass v1 account"]))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.show()[0]
    }
}

macro_rules! compare_bytes {
    ($($key:ty),+) => {$(
        impl PartialEq for $key {
            fn eq(&self, other: &Self) -> bool {
                bool::from(self.as_bytes().ct_eq(other.as_bytes()))
            }
        }

        impl Eq for $key {}
    )+};
}

compare_bytes!(EncryptionKey, SyncKey);

/// Puts the bytes of a key where they stay, and wipes those that were given.
fn taken(mut bytes: [u8; 32]) -> Locked<1> {
    let key = Locked::write(|[place]| place.copy_from_slice(&bytes));
    bytes.zeroize();
    key
}

/// Which account a store's content belongs to: derived from the sync key, so that a blind server knows the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct AccountId(pub [u8; 16]);

impl AccountId {
    /// The id as 32 lower-case hex digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        encode_hex(&self.0)
    }

    /// What people compare: the first 16 hex digits in groups of four.
    #[must_use]
    pub fn fingerprint(self) -> String {
        let digits = encode_hex(&self.0[..8]);
        format!("{}-{}-{}-{}", &digits[..4], &digits[4..8], &digits[8..12], &digits[12..])
    }
}

/// The keys of an account: records are named, sealed and authenticated with them, and its sync channel is.
#[derive(Clone)]
pub struct Keys {
    account: AccountId,
    sync: SyncKey,
    /// What only devices have: the keys of ids, records, authentications and nonces.
    own: Locked<4>,
}

impl Keys {
    /// Derives an account's keys from its encryption key.
    #[must_use]
    pub fn derive(key: &EncryptionKey) -> Self {
        let sync = SyncKey::derive(key);
        let own = Locked::write(|[id, record, auth, nonce]| {
            derive_into(key.as_bytes(), &[b"kvass v1 id"], id);
            derive_into(key.as_bytes(), &[b"kvass v1 record"], record);
            derive_into(key.as_bytes(), &[b"kvass v1 auth"], auth);
            derive_into(key.as_bytes(), &[b"kvass v1 nonce"], nonce);
        });
        Self { account: sync.account(), sync, own }
    }

    /// The account that these keys belong to.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The key of the account's sync channel.
    #[must_use]
    pub fn sync_key(&self) -> &SyncKey {
        &self.sync
    }

    /// The id of the record that holds the entry with this name.
    #[must_use]
    pub fn record_id(&self, name: &str) -> RecordId {
        let ([key, ..], mut id) = (self.own.show(), [0; 16]);
        id.copy_from_slice(&mac(key, b"kvass v1 id", &[name.as_bytes()])[..16]);
        RecordId(id)
    }

    /// The key that seals the header of a record.
    #[must_use]
    pub(crate) fn record_key(&self, id: RecordId, generation: u32) -> Zeroizing<[u8; 32]> {
        let [_, key, ..] = self.own.show();
        Zeroizing::new(derive(key, &[b"kvass v1 header", &id.0, &generation.to_be_bytes()]))
    }

    /// The nonce of a sealed header: the same input gives the same bytes on every device.
    #[must_use]
    pub(crate) fn header_nonce(&self, clear: &[u8], header: &[u8]) -> [u8; 24] {
        let ([.., key], mut nonce) = (self.own.show(), [0; 24]);
        nonce.copy_from_slice(&mac(key, b"kvass v1 nonce", &[clear, header])[..24]);
        nonce
    }

    /// The authentication of a record.
    #[must_use]
    pub(crate) fn auth(&self, clear: &[u8], sealed: &[u8]) -> Auth {
        let [_, _, key, _] = self.own.show();
        Auth(mac(key, b"kvass v1 auth", &[clear, sealed]))
    }
}

/// Encodes bytes as lower-case hex digits.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Decodes hex digits of either case into the whole of `bytes`; `false` where they do not fit.
#[must_use]
pub fn decode_hex(text: &str, bytes: &mut [u8]) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16);
    text.len() == 2 * bytes.len()
        && text.as_bytes().chunks_exact(2).zip(bytes).all(|(pair, byte)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = (high << 4 | low) as u8;
                true
            }
            _ => false,
        })
}

fn derive<const N: usize>(secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    let mut okm = [0; N];
    derive_into(secret, info, &mut okm);
    okm
}

fn derive_into(secret: &[u8], info: &[&[u8]], okm: &mut [u8]) {
    #[allow(clippy::expect_used, reason = "HKDF-SHA256 gives up to 8,160 bytes")]
    Hkdf::<Sha256>::new(None, secret).expand_multi_info(info, okm).expect("a short output");
}

fn mac(key: &[u8; 32], label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length");
    for part in std::iter::once(&label).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_reads_back_from_its_digits(bytes: [u8; 32]) {
            let key = EncryptionKey::new(bytes);
            prop_assert!(EncryptionKey::from_hex(&key.to_hex()) == Some(key));
        }

        #[test]
        fn any_text_is_a_key_or_none(text in ".{0,70}") {
            prop_assert_eq!(EncryptionKey::from_hex(&text).is_some(), text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        }

        #[test]
        fn bytes_moved_between_the_parts_give_another_mac(text in "[a-z]{2,20}", cut in 1..9usize) {
            let (bytes, cut) = (text.as_bytes(), cut.min(text.len() - 1));
            let parts: [&[&[u8]]; 4] = [&[bytes], &[&bytes[..cut], &bytes[cut..]], &[b"", bytes], &[bytes, b""]];
            for (at, part) in parts.iter().enumerate() {
                for other in &parts[at + 1..] {
                    prop_assert_ne!(mac(&[1; 32], b"label", part), mac(&[1; 32], b"label", other));
                }
            }
        }

        #[test]
        fn record_keys_differ_by_id_and_generation(id: [u8; 16], other: [u8; 16], generation: u32) {
            prop_assume!(id != other);
            let keys = Keys::derive(&EncryptionKey::new([1; 32]));
            let key = keys.record_key(RecordId(id), generation);
            prop_assert!(key != keys.record_key(RecordId(other), generation));
            prop_assert!(key != keys.record_key(RecordId(id), generation ^ 1));
        }
    }

    #[test]
    fn hex_reads_both_cases_and_nothing_else() {
        let mut bytes = [0; 2];
        assert!(decode_hex("0aFF", &mut bytes));
        assert_eq!(bytes, [10, 255]);
        assert_eq!(encode_hex(&bytes), "0aff");
        for wrong in ["0aF", "0aFF0", "0aFg", "+aff", "é00"] {
            assert!(!decode_hex(wrong, &mut bytes), "{wrong}");
        }
    }

    #[test]
    fn the_same_name_has_the_same_id_under_one_key_only() {
        let (a, b) = (EncryptionKey::new([1; 32]), EncryptionKey::new([2; 32]));
        let (a, b) = (Keys::derive(&a), Keys::derive(&b));
        assert_eq!(a.record_id("x"), a.record_id("x"));
        assert_ne!(a.record_id("x"), a.record_id("y"));
        assert_ne!(a.record_id("x"), b.record_id("x"));
        assert_ne!(a.account(), b.account());
    }
}
