//! The server key as people copy it: in base 32, with a checksum.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{SyncKey, base32};

/// What the text of a server key begins with.
pub const PREFIX: &str = "kvass-server-";

/// Bytes of the checksum.
const SUM: usize = 4;

/// Bytes behind the prefix; of the last digit two bits are left over.
const BYTES: usize = 32 + SUM;

impl SyncKey {
    /// The key as text: the prefix and 58 letters and digits.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + base32::length(BYTES)));
        text.push_str(PREFIX);
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..32].copy_from_slice(self.as_bytes());
        bytes[32..].copy_from_slice(&checksum(self.as_bytes()));
        base32::encode(&*bytes, &mut text);
        text
    }

    /// Reads the text of a key, in either case, with 0 for o and 1 for i and l; `None` where anything is wrong with it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (prefix, digits) = text.split_at_checked(PREFIX.len())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return None;
        }
        let bytes = base32::decode::<BYTES>(digits)?;
        let (key, sum) = bytes.split_first_chunk::<32>()?;
        (sum == checksum(key)).then(|| Self::new(*key))
    }
}

fn checksum(key: &[u8; 32]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&Sha256::new().chain_update(b"kvass v1 server key").chain_update(key).finalize()[..SUM]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::base32::DIGITS;
    use super::*;

    const LENGTH: usize = base32::length(BYTES);

    fn read(text: &str) -> Option<[u8; 32]> {
        SyncKey::from_text(text).map(|key| *key.as_bytes())
    }

    proptest! {
        #[test]
        fn a_server_key_reads_back_from_its_text(bytes: [u8; 32]) {
            let text = SyncKey::new(bytes).to_text();
            prop_assert_eq!(text.len(), 71);
            prop_assert_eq!(read(&text), Some(bytes));
            prop_assert_eq!(read(&text.to_uppercase()), Some(bytes));
            let (prefix, digits) = text.split_at(PREFIX.len());
            let misread = prefix.to_owned() + &digits.replace('0', "o").replace('1', "l");
            prop_assert_eq!(read(&misread), Some(bytes));
        }

        #[test]
        fn a_typing_error_is_noticed(bytes: [u8; 32], at in any::<Index>(), other in any::<Index>()) {
            let text = SyncKey::new(bytes).to_text();
            let mut wrong = text.as_bytes().to_vec();
            let at = PREFIX.len() + at.index(LENGTH);
            wrong[at] = *other.get(DIGITS);
            let wrong = String::from_utf8(wrong).unwrap();
            prop_assert_eq!(read(&wrong).is_some(), wrong == *text);
            prop_assert_eq!(read(&text[..at]), None);
            prop_assert_eq!(read(&format!("{}0", *text)), None);
        }

        #[test]
        fn two_digits_in_the_wrong_order_are_noticed(bytes: [u8; 32], at in any::<Index>()) {
            let text = SyncKey::new(bytes).to_text();
            let mut wrong = text.as_bytes().to_vec();
            let at = PREFIX.len() + at.index(LENGTH - 1);
            wrong.swap(at, at + 1);
            let wrong = String::from_utf8(wrong).unwrap();
            prop_assert_eq!(read(&wrong).is_some(), wrong == *text);
        }

        #[test]
        fn any_text_is_a_server_key_or_none(text in "\\PC{0,80}", digits in "[0-9a-z]{58}") {
            let _ = (read(&text), read(&(PREFIX.to_owned() + &text)), read(&(PREFIX.to_owned() + &digits)));
        }
    }

    #[test]
    fn what_begins_otherwise_is_no_server_key() {
        let text = SyncKey::new([7; 32]).to_text();
        assert_eq!(read(&text[PREFIX.len()..]), None);
        assert_eq!(read(&text.replacen("server", "device", 1)), None);
    }
}
