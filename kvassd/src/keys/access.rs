//! What a store was given of its account: all keys, or the server key alone.

use zeroize::Zeroizing;

use super::{AccountId, EncryptionKey, Keys, SyncKey};
use crate::record::{Clear, Record, RecordError};
use crate::seal;

/// A key as a user gives it to a store, and as the key file holds it. By design not `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// The store is a device: it reads and writes.
    Encryption(EncryptionKey),
    /// The store is blind: it authenticates, merges and forwards.
    Server(SyncKey),
}

impl Key {
    /// Reads 64 hex digits or the text of a server key; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let encryption = EncryptionKey::from_hex(text).map(Self::Encryption);
        encryption.or_else(|| SyncKey::from_text(text).map(Self::Server))
    }

    /// The key as [`Key::from_text`] reads it.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        match self {
            Self::Encryption(key) => key.to_hex(),
            Self::Server(key) => key.to_text(),
        }
    }

    /// The key of the account's sync channel.
    #[must_use]
    pub fn sync_key(&self) -> SyncKey {
        match self {
            Self::Encryption(key) => SyncKey::derive(key),
            Self::Server(key) => key.clone(),
        }
    }

    /// What a store with this key can do.
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Encryption(key) => Access::Full(Keys::derive(key)),
            Self::Server(key) => Access::Blind(key.account()),
        }
    }
}

/// What a store can do with the records of its account. Whatever names, opens or seals one has to ask for
/// [`Access::full`].
#[derive(Clone)]
pub enum Access {
    /// It has all keys.
    Full(Keys),
    /// It can tell whose records these are, and no more.
    Blind(AccountId),
}

impl Access {
    /// Whose records these are.
    #[must_use]
    pub fn account(&self) -> AccountId {
        match self {
            Self::Full(keys) => keys.account(),
            Self::Blind(account) => *account,
        }
    }

    /// All keys; `None` on a blind store.
    #[must_use]
    pub fn full(&self) -> Option<&Keys> {
        match self {
            Self::Full(keys) => Some(keys),
            Self::Blind(_) => None,
        }
    }

    /// Verifies a record as far as these keys go, and reads its clear part: a blind store cannot tell a true record
    /// from a made-up one of the right form.
    ///
    /// # Errors
    /// A record of the wrong form or, with all keys, an authentication that does not match.
    pub fn verify(&self, record: &Record) -> Result<Clear, RecordError> {
        match self {
            Self::Full(keys) => seal::verify(keys, record),
            Self::Blind(_) => record.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_kind_that_its_text_says() {
        let key = EncryptionKey::new([3; 32]);
        let (full, blind) = (Key::Encryption(key.clone()), Key::Server(SyncKey::derive(&key)));
        for key in [&full, &blind] {
            assert!(Key::from_text(&key.to_text()).as_ref() == Some(key));
        }
        assert!(full.access().full().is_some() && blind.access().full().is_none());
        assert_eq!(full.access().account(), blind.access().account());
        assert!(full.sync_key() == blind.sync_key());
        assert!(Key::from_text("").is_none() && Key::from_text(&full.to_text()[1..]).is_none());
    }
}
