//! Links: what the token of one opens, and what a device reads in its header.
//!
//! Pure. A link is a record whose id follows from its token. Its value is a [`Grant`], sealed under a key that follows
//! from the token too: it names the entry and has what opens it, and nothing that opens another. docs/format.md is the
//! specification.

use std::fmt;

use kvass_proto::v1::{self, Header};
use prost::Message;
use zeroize::Zeroizing;

use crate::keys::{AccountId, Keys, Token};
use crate::record::{Clear, RecordId, ValueHash};
use crate::value::{self, ContentKey};

/// What a device knows of a link from its header, or from that of its removal.
#[derive(Clone, PartialEq, Eq)]
pub struct Label {
    /// The entry that it leads to.
    pub name: String,
    /// Its token.
    pub token: Token,
    /// How often the value may be read through it; 0 is any number of times.
    pub reads: u64,
    /// Whether it leads to one version of its entry.
    pub pin: bool,
}

impl fmt::Debug for Label {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Label").finish_non_exhaustive()
    }
}

impl Label {
    /// Reads a header; `None` where it is that of an entry.
    #[must_use]
    pub fn of(header: &Header) -> Option<Self> {
        let Header { name, token, reads, pin, .. } = header;
        let token = Token::from_bytes(token)?;
        Some(Self { name: name.clone(), token, reads: *reads, pin: *pin })
    }

    /// Whether a link with this end leads to its entry for good, as often as one likes.
    #[must_use]
    pub fn is_plain(&self, expiry_us: u64) -> bool {
        expiry_us == 0 && self.reads == 0 && !self.pin
    }

    /// The header as it is sealed.
    #[must_use]
    pub fn header(&self) -> Header {
        let Self { name, token, reads, pin } = self;
        let token = token.as_bytes().to_vec();
        Header { name: name.clone(), content_key: Vec::new(), token, reads: *reads, pin: *pin }
    }

    /// Whether a sealed value is a grant that does what this says, as every device makes it.
    #[must_use]
    pub fn fits(&self, keys: &Keys, clear: &Clear, sealed: &[u8]) -> bool {
        let Ok(grant) = Grant::open(&self.token, keys.account(), sealed) else { return false };
        let fits_reach = match &grant.reach {
            Reach::Entry(_) => !self.pin,
            Reach::Version { name, .. } => self.pin && *name == self.name,
        };
        grant.target == keys.record_id(&self.name)
            && grant.reads == self.reads
            && fits_reach
            && clear.id == self.token.locator()
    }
}

/// What whoever has the token may read.
pub struct Grant {
    /// The record of the entry.
    pub target: RecordId,
    /// The generation of the entry's record key.
    pub generation: u32,
    /// How often; 0 is any number of times.
    pub reads: u64,
    /// Which of the entry's versions.
    pub reach: Reach,
}

/// Which versions of an entry a link leads to.
pub enum Reach {
    /// The newest, whichever it is: the entry's record key.
    Entry(Zeroizing<[u8; 32]>),
    /// This one.
    Version {
        /// The content key.
        key: ContentKey,
        /// The hash of the sealed value.
        hash: ValueHash,
        /// Bytes of the value before sealing.
        size: u64,
        /// The entry's name.
        name: String,
    },
}

/// A sealed grant, which is the value of a link's record.
pub struct SealedGrant {
    /// Bytes before sealing.
    pub size: u64,
    /// The value hash.
    pub hash: ValueHash,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// A grant that does not open, or makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a grant that does not open")]
pub struct GrantError;

impl Grant {
    /// Seals the grant of a link in an account. The same grant has the same bytes on every device.
    #[must_use]
    pub fn seal(&self, token: &Token, account: AccountId) -> SealedGrant {
        let plain = self.encode();
        let bytes = value::seal_short(&token.grant_key(account), &plain);
        SealedGrant { size: plain.len() as u64, hash: value::value_hash(&value::chunk_hash(&bytes)), bytes }
    }

    /// Opens the grant of a link. Fields that this program does not know are passed over.
    ///
    /// # Errors
    /// Another token, account or grant, or one that makes no sense.
    pub fn open(token: &Token, account: AccountId, sealed: &[u8]) -> Result<Self, GrantError> {
        let plain = Zeroizing::new(value::open_short(&token.grant_key(account), sealed).map_err(|_| GrantError)?);
        Self::decode(&plain)
    }

    /// Seals the grant of a link anew under the keys of another account; `None` where it does not open, or has fields
    /// that this program would lose. `name` is that of the entry.
    #[must_use]
    pub fn reseal(token: &Token, name: &str, sealed: &[u8], from: &Keys, to: &Keys) -> Option<SealedGrant> {
        let plain = value::open_short(&token.grant_key(from.account()), sealed).ok().map(Zeroizing::new)?;
        let mut grant = Self::decode(&plain).ok()?;
        if *grant.encode() != *plain || grant.target != from.record_id(name) {
            return None;
        }
        grant.target = to.record_id(name);
        if let Reach::Entry(key) = &mut grant.reach {
            *key = to.record_key(grant.target, grant.generation);
        }
        Some(grant.seal(token, to.account()))
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Self { target, generation, reads, reach } = self;
        let mut grant = v1::Grant::default();
        (grant.target, grant.generation, grant.reads) = (target.0.to_vec(), *generation, *reads);
        match reach {
            Reach::Entry(key) => grant.record_key = key.to_vec(),
            Reach::Version { key, hash, size, name } => {
                grant.content_key = key.as_bytes().to_vec();
                (grant.value_hash, grant.size, grant.name) = (hash.0.to_vec(), *size, name.clone());
            }
        }
        Zeroizing::new(grant.encode_to_vec())
    }

    fn decode(plain: &[u8]) -> Result<Self, GrantError> {
        let grant = v1::Grant::decode(plain).map_err(|_| GrantError)?;
        let target = RecordId(grant.target.as_slice().try_into().map_err(|_| GrantError)?);
        let reach = match (ContentKey::from_bytes(&grant.content_key), grant.record_key.as_slice().try_into()) {
            (None, Ok(key)) if grant.content_key.is_empty() => Reach::Entry(Zeroizing::new(key)),
            (Some(key), _) if grant.record_key.is_empty() => {
                let hash = ValueHash(grant.value_hash.as_slice().try_into().map_err(|_| GrantError)?);
                Reach::Version { key, hash, size: grant.size, name: grant.name.clone() }
            }
            _ => return Err(GrantError),
        };
        Ok(Self { target, generation: grant.generation, reads: grant.reads, reach })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::keys::EncryptionKey;
    use crate::record::{FORMAT, Kind, RecordError};
    use crate::seal;
    use crate::stamp::Stamp;

    fn keys(byte: u8) -> Keys {
        Keys::derive(&EncryptionKey::new([byte; 32]))
    }

    fn token(bytes: [u8; 16]) -> Token {
        Token::from_bytes(&bytes).unwrap()
    }

    fn grant_of(keys: &Keys, label: &Label) -> Grant {
        let target = keys.record_id(&label.name);
        let reach = match label.pin {
            false => Reach::Entry(keys.record_key(target, 0)),
            true => Reach::Version {
                key: ContentKey::new([9; 32]),
                hash: ValueHash([8; 32]),
                size: 7,
                name: label.name.clone(),
            },
        };
        Grant { target, generation: 0, reads: label.reads, reach }
    }

    fn clear_of(label: &Label, sealed: &SealedGrant) -> Clear {
        Clear {
            format: FORMAT,
            kind: Kind::LINK,
            id: label.token.locator(),
            generation: 0,
            stamp: Stamp { time_us: 5, counter: 6, pid: 7 },
            expiry_us: 0,
            size: sealed.size,
            value_hash: sealed.hash,
        }
    }

    prop_compose! {
        fn label()(name in ".{1,40}", bytes: [u8; 16], reads in 0..9u64, pin: bool) -> Label {
            Label { name, token: token(bytes), reads, pin }
        }
    }

    proptest! {
        #[test]
        fn a_grant_opens_with_its_token_in_its_account_only(label in label(), other: [u8; 16], bit in any::<Index>()) {
            let (keys, account) = (keys(1), keys(1).account());
            let sealed = grant_of(&keys, &label).seal(&label.token, account);
            let opened = Grant::open(&label.token, account, &sealed.bytes).unwrap();
            prop_assert_eq!(opened.encode(), grant_of(&keys, &label).encode());
            prop_assert_eq!(opened.seal(&label.token, account).bytes, sealed.bytes.clone());
            prop_assert_eq!(sealed.bytes.len() as u64, value::sealed_length(sealed.size));
            prop_assume!(&other != label.token.as_bytes());
            prop_assert!(Grant::open(&token(other), account, &sealed.bytes).is_err());
            prop_assert!(Grant::open(&label.token, self::keys(2).account(), &sealed.bytes).is_err());
            let (mut flipped, bit) = (sealed.bytes.clone(), bit.index(8 * sealed.bytes.len()));
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Grant::open(&label.token, account, &flipped).is_err());
        }

        #[test]
        fn random_bytes_are_no_grant(bytes in vec(any::<u8>(), 0..99), label in label()) {
            prop_assert!(Grant::open(&label.token, keys(1).account(), &bytes).is_err());
            let sealed = value::seal_short(&label.token.grant_key(keys(1).account()), &bytes);
            let _ = Grant::open(&label.token, keys(1).account(), &sealed);
            let _ = Grant::reseal(&label.token, &label.name, &sealed, &keys(1), &keys(2));
        }

        /// What two devices seal anew, each by itself, is the same; and it is what a new device would make.
        #[test]
        fn a_grant_sealed_anew_is_that_of_the_new_account(label in label()) {
            let (old, new) = (keys(1), keys(2));
            let sealed = grant_of(&old, &label).seal(&label.token, old.account());
            let again = Grant::reseal(&label.token, &label.name, &sealed.bytes, &old, &new).unwrap();
            prop_assert_eq!(&again.bytes, &grant_of(&new, &label).seal(&label.token, new.account()).bytes);
            prop_assert!(label.fits(&new, &clear_of(&label, &again), &again.bytes));
            prop_assert!(!label.fits(&old, &clear_of(&label, &again), &again.bytes));
            let back = Grant::reseal(&label.token, &label.name, &again.bytes, &new, &old).unwrap();
            prop_assert_eq!(back.bytes, sealed.bytes);
        }

        #[test]
        fn a_label_fits_its_own_grant_only(label in label(), other in label()) {
            let keys = keys(1);
            let sealed = grant_of(&keys, &label).seal(&label.token, keys.account());
            let clear = clear_of(&label, &sealed);
            prop_assert!(label.fits(&keys, &clear, &sealed.bytes));
            for wrong in [
                Label { name: format!("{}x", label.name), ..label.clone() },
                Label { reads: label.reads + 1, ..label.clone() },
                Label { pin: !label.pin, ..label.clone() },
                Label { token: other.token.clone(), ..label.clone() },
            ] {
                prop_assert!(!wrong.fits(&keys, &clear, &sealed.bytes));
            }
            let elsewhere = Clear { id: other.token.locator(), ..clear };
            prop_assert!(!label.fits(&keys, &elsewhere, &sealed.bytes));
        }

        /// The key in the grant of one entry opens no other, and not the header of the link itself.
        #[test]
        fn a_granted_key_opens_its_entry_and_nothing_else(label in label(), other in ".{1,40}") {
            prop_assume!(label.name != other);
            let keys = keys(1);
            let record = |name: &str| {
                let header = Header {
                    name: name.into(), content_key: vec![3; 32], token: Vec::new(), reads: 0, pin: false
                };
                let sealed = grant_of(&keys, &label).seal(&label.token, keys.account());
                let clear = Clear { id: keys.record_id(name), kind: Kind::VALUE, ..clear_of(&label, &sealed) };
                seal::seal(&keys, &clear, &header.encode_to_vec())
            };
            let Reach::Entry(key) = grant_of(&keys, &Label { pin: false, ..label.clone() }).reach else { unreachable!() };
            prop_assert_eq!(&seal::open_by(&key, &record(&label.name)).unwrap().name, &label.name);
            prop_assert_eq!(seal::open_by(&key, &record(&other)), Err(RecordError::Header));
            let sealed = grant_of(&keys, &label).seal(&label.token, keys.account());
            let link = seal::seal(&keys, &clear_of(&label, &sealed), &label.header().encode_to_vec());
            prop_assert_eq!(seal::open_by(&key, &link), Err(RecordError::Header));
        }
    }

    #[test]
    fn a_grant_of_a_newer_program_opens_and_is_not_sealed_anew() {
        let (old, new) = (keys(1), keys(2));
        let label = Label { name: "hello".into(), token: token([4; 16]), reads: 0, pin: false };
        let plain = [&grant_of(&old, &label).encode()[..], &[0xfa, 0x01, 2, 8, 9]].concat();
        let sealed = value::seal_short(&label.token.grant_key(old.account()), &plain);
        assert!(Grant::open(&label.token, old.account(), &sealed).is_ok());
        assert!(Grant::reseal(&label.token, "hello", &sealed, &old, &new).is_none());
        let sealed = grant_of(&old, &label).seal(&label.token, old.account());
        assert!(Grant::reseal(&label.token, "other", &sealed.bytes, &old, &new).is_none());
    }

    #[test]
    fn the_header_of_a_link_belongs_to_its_token_and_kind() {
        let keys = keys(1);
        let label = Label { name: "hello".into(), token: token([4; 16]), reads: 3, pin: false };
        let sealed = grant_of(&keys, &label).seal(&label.token, keys.account());
        let clear = clear_of(&label, &sealed);
        let open = |clear: Clear, label: &Label| {
            let record = seal::seal(&keys, &clear, &label.header().encode_to_vec());
            seal::open(&keys, &clear, &record).map(|header| Label::of(&header) == Some(label.clone()))
        };
        let removal = Clear { kind: Kind::REMOVAL, size: 0, value_hash: ValueHash::NONE, ..clear };
        assert_eq!(open(clear, &label), Ok(true));
        assert_eq!(open(removal, &label), Ok(true));
        assert_eq!(open(clear, &Label { token: token([5; 16]), ..label.clone() }), Err(RecordError::Name));
        assert_eq!(open(Clear { kind: Kind::VALUE, ..clear }, &label), Err(RecordError::Name));
        let entry = Header { name: "hello".into(), content_key: vec![1; 32], token: Vec::new(), reads: 0, pin: false };
        let named = Clear { id: keys.record_id("hello"), ..clear };
        let record = seal::seal(&keys, &named, &entry.encode_to_vec());
        assert_eq!(seal::open(&keys, &named, &record), Err(RecordError::Name));
    }
}
