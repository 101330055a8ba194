//! The token of a link: what stands in its URL, and all that whoever opens it has to have.
//!
//! It is independent of the account, so that a link outlives a change of key.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{AccountId, base32, derive};
use crate::random::{self, Random};
use crate::record::RecordId;
use crate::value::ContentKey;

/// Bytes of a token.
const BYTES: usize = 16;

/// The token of a link. Whoever has it can read through the link, so it is never logged, and by design not `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; BYTES]);

impl Token {
    /// Makes a token from a random source.
    ///
    /// # Errors
    /// The source has no randomness to give.
    pub fn random(random: &Random) -> Result<Self, random::Error> {
        random.bytes().map(Self)
    }

    /// Takes a token from an opened header or a request; `None` where it has not 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The token's bytes, for the header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// The token as it stands in a URL: 26 letters and digits.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        base32::encode(&self.0, &mut text);
        text
    }

    /// Reads the text of a token, in either case, with 0 for o and 1 for i and l; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        base32::decode(text).map(|bytes| Self(*bytes))
    }

    /// The id of the link's record.
    #[must_use]
    pub fn locator(&self) -> RecordId {
        RecordId(derive(&self.0, &[b"kvass v1 link id"]))
    }

    /// The key that seals the link's grant in an account. In another account the grant has another plaintext.
    #[must_use]
    pub(crate) fn grant_key(&self, account: AccountId) -> ContentKey {
        ContentKey::new(derive(&self.0, &[b"kvass v1 link grant", &account.0]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_from_its_text(bytes: [u8; BYTES]) {
            let token = Token(bytes);
            let text = token.to_text();
            prop_assert_eq!(text.len(), 26);
            prop_assert!(text.bytes().all(|digit| base32::DIGITS.contains(&digit)));
            for text in [text.to_string(), text.to_uppercase(), text.replace('0', "o").replace('1', "l")] {
                prop_assert!(Token::from_text(&text) == Some(token.clone()), "{}", text);
            }
            prop_assert!(Token::from_bytes(token.as_bytes()) == Some(token));
        }

        #[test]
        fn any_text_is_a_token_or_none(text in "\\PC{0,40}", digits in "[0-9a-z]{26}") {
            let _ = (Token::from_text(&text), Token::from_text(&digits));
            prop_assert!(Token::from_text(&digits[1..]).is_none());
            prop_assert!(Token::from_text(&(digits + "0")).is_none());
        }

        /// Nothing of one link follows from another, or from the same link in another account.
        #[test]
        fn what_follows_from_a_token_differs_by_token_and_account(a: [u8; BYTES], b: [u8; BYTES], c: [u8; 16], d: [u8; 16]) {
            prop_assume!(a != b && c != d);
            let (a, b, c, d) = (Token(a), Token(b), AccountId(c), AccountId(d));
            let key = |token: &Token, account| *token.grant_key(account).as_bytes();
            prop_assert_ne!(a.locator(), b.locator());
            prop_assert_ne!(key(&a, c), key(&b, c));
            prop_assert_ne!(key(&a, c), key(&a, d));
            prop_assert_ne!(&key(&a, c)[..16], &a.locator().0[..]);
            prop_assert_ne!(&a.locator().0, a.as_bytes());
        }
    }
}
