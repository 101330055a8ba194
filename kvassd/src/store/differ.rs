//! Comparing what another account holds with what is here, before this store joins it.

use super::merge::Travelling;
use super::read::{Found, Try};
use super::{ReadError, Store};
use crate::keys::Keys;
use crate::record::{Clear, Kind};
use crate::value::{self, ContentKey};
use crate::{record, seal};

/// An entry that is another one there than here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// Whether what is there is newer, so that it wins everywhere once both are of one account.
    pub theirs_is_newer: bool,
}

impl Store {
    /// Compares a record of another account, whose keys these are, with the entry of the same name here. `None` where
    /// nothing is lost by joining: they are the same, only one side has the entry, or the record is of no use here.
    ///
    /// Two large values are the same where their sealed bytes are; else they count as different.
    ///
    /// # Errors
    /// What is here cannot be read.
    pub fn differs(&self, keys: &Keys, theirs: &Travelling) -> Result<Option<Difference>, ReadError> {
        let Ok(clear) = seal::verify(keys, &theirs.record) else { return Ok(None) };
        if !clear.is_known() {
            return Ok(None);
        }
        let Ok(header) = seal::open(keys, &clear, &theirs.record) else { return Ok(None) };
        if !header.token.is_empty() {
            return Ok(None);
        }
        let Some(ours) = self.find(&header.name)? else { return Ok(None) };
        let is_same = match (self.shows(&ours.clear), self.shows(&clear)) {
            (false, false) => true,
            (true, true) => self.is_same(&header.name, &ours, &clear, theirs.value.as_deref(), &header.content_key)?,
            _ => false,
        };
        // One stamp has two values only where a process wrote twice in a past that was undone.
        let theirs_is_newer = clear.stamp > ours.clear.stamp;
        let name = header.name.clone();
        Ok((!is_same).then_some(Difference { name, theirs_is_newer }))
    }

    /// Whether an entry is there to be seen.
    fn shows(&self, clear: &Clear) -> bool {
        clear.kind == Kind::VALUE && !clear.is_expired(self.shared.now_us())
    }

    fn is_same(
        &self,
        name: &str,
        ours: &Found,
        theirs: &record::Clear,
        sealed: Option<&[u8]>,
        key: &[u8],
    ) -> Result<bool, ReadError> {
        if ours.clear.size != theirs.size || ours.clear.value_hash == theirs.value_hash {
            return Ok(ours.clear.size == theirs.size);
        }
        let (Some(key), Some(sealed)) = (ContentKey::from_bytes(key), sealed) else { return Ok(false) };
        let Ok(theirs) = value::open_short(&key, sealed) else { return Ok(false) };
        let mut reader = match self.try_value(name, ours) {
            Try::Read(reader) => reader,
            failed => return Err(self.cannot_read(name, failed)),
        };
        let mut ours = Vec::new();
        while reader.next(&mut ours)? {}
        Ok(ours == theirs)
    }
}
