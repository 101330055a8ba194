//! A change of the encryption key: the new account is built beside the old one, and one commit switches.
//!
//! Every record is sealed anew under its old stamp; values keep their content key, hash and place. It is done in
//! batches between other writes; what they change meanwhile is sealed anew again before the switch. A crash before the
//! switch leaves the old key in force, and the key file holds both keys around it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use kvass_proto::v1::Header;
use prost::Message;

use super::commit::{Answer, Committer, fatal};
use super::index::{self, Changes, Fault, Index, Trees};
use super::peers::RemotePeer;
use super::plan::{self, Step, Version};
use super::row::{self, RecordRow, State, Tally};
use super::space::Purpose;
use super::subject::Subject;
use super::{Seq, WriteError, key_file};
use crate::failpoint::reached;
use crate::keys::{Access, EncryptionKey, Key, Keys};
use crate::record::{Clear, RecordId};
use crate::seal;
use crate::share::{Grant, SealedGrant};

/// Records of one batch.
const BATCH: usize = 128;

/// A change of key under way.
pub(crate) struct Rekey {
    old: Keys,
    key: EncryptionKey,
    keys: Keys,
    trees: Trees,
    /// The last record of the old account that was taken.
    position: Option<RecordId>,
    scanned: bool,
    /// Records that changed after they were taken.
    changed: BTreeSet<RecordId>,
    tally: Tally,
    /// The remote that comes in force with the key.
    moving: Moving,
    answer: Answer<Rekeyed>,
}

/// The remote that a change of account brings with it.
pub(crate) struct Moving {
    /// `None`: it stays.
    pub(crate) remote: Option<String>,
    /// Everything goes to the remote anew, from when the change began.
    pub(crate) peer: RemotePeer,
    /// Whether the links are the same, so that what was read through them counts on.
    pub(crate) keeps_reads: bool,
}

/// What a change of key came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Records that did not verify under the encryption key that a blind store was given, and are gone.
    pub dropped: u64,
}

impl Rekey {
    /// A record of the old account changed.
    pub(crate) fn changed(&mut self, id: RecordId) {
        if self.scanned || self.position.is_some_and(|position| id <= position) {
            self.changed.insert(id);
        }
    }

    /// Whether nothing is left but what changed after it was taken. Nothing may be written from then on to the end.
    pub(crate) fn is_ending(&self) -> bool {
        self.scanned
    }

    /// Gives up, and tells whoever asked.
    pub(crate) fn refuse(self, error: WriteError) {
        let Self { answer, trees, .. } = self;
        drop(trees);
        // Whoever asked may be gone.
        let _ = answer.send(Err(error));
    }

    /// The records of the old account to be taken next, at most a batch.
    fn next_ids(&mut self, index: &Index) -> Result<Vec<RecordId>, Fault> {
        if self.scanned {
            return Ok(std::iter::from_fn(|| self.changed.pop_first()).take(BATCH).collect());
        }
        let after = self.position.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
        let mut ids = Vec::with_capacity(BATCH);
        for key in index.account.trees.records.range::<[u8; 16], _>((after, Bound::Unbounded)).keys().take(BATCH) {
            let id = <[u8; 16]>::try_from(&key?[..]).map_err(|_| Fault::Other("an id has the wrong length".into()))?;
            ids.push(RecordId(id));
        }
        self.position = ids.last().copied().or(self.position);
        self.scanned = ids.len() < BATCH;
        Ok(ids)
    }

    /// Seals one record anew.
    fn take(&mut self, index: &Index, changes: &mut Changes, id: RecordId) -> Result<(), Refusal> {
        let row = index.record(id)?.and_then(|row| RecordRow::decode(&row)).ok_or(Refusal::Damaged)?;
        let clear = seal::verify(&self.old, &row.record).map_err(|_| Refusal::Damaged)?;
        if !clear.is_known() {
            return Err(Refusal::Unknown);
        }
        let bytes = seal::open_bytes(&self.old, &clear, &row.record).map_err(|_| Refusal::Damaged)?;
        let header = Header::decode(bytes.as_slice()).map_err(|_| Refusal::Damaged)?;
        let new_id = seal::id_of(&self.keys, &header).ok_or(Refusal::Damaged)?;
        let mut clear = Clear { id: new_id, ..clear };
        let mut sealed_value = sealed_value(index, id, &clear)?;
        let subject = Subject::of(&header);
        if let (Subject::Share(label), Some(sealed)) = (&subject, &mut sealed_value) {
            let grant = Grant::reseal(&label.token, &label.name, sealed, &self.old, &self.keys);
            let SealedGrant { size, hash, bytes } = grant.ok_or(Refusal::Unknown)?;
            (clear.size, clear.value_hash, *sealed) = (size, hash, bytes);
        }
        let replaced = self.version(new_id)?;
        self.tally.last = Seq(self.tally.last.0 + 1);
        let row = RecordRow { seq: self.tally.last, record: seal::seal(&self.keys, &clear, &bytes) };
        let new = Version::new(&row, clear);
        if let Some(old) = &replaced {
            row::toggle(&mut self.tally.digest, &old.auth);
            self.tally.content = self.tally.content.saturating_sub(old.bytes);
        }
        row::toggle(&mut self.tally.digest, &new.auth);
        self.tally.content += new.bytes;
        let step = Step { subject, old: replaced, new, row, sealed_value, blob: None, via: row::HERE };
        plan::write_step(changes, self.keys.account(), new_id, &step);
        Ok(())
    }

    /// The version that an earlier batch wrote to the new account.
    fn version(&self, id: RecordId) -> Result<Option<Version>, Refusal> {
        let Some(row) = self.trees.records.get(id.0).map_err(Fault::from)? else { return Ok(None) };
        let row = RecordRow::decode(&row).ok_or(Refusal::Damaged)?;
        let clear = row.clear().map_err(|_| Refusal::Damaged)?;
        Ok(Some(Version::new(&row, clear)))
    }
}

/// The sealed value that stands beside a record of the old account.
fn sealed_value(index: &Index, id: RecordId, clear: &Clear) -> Result<Option<Vec<u8>>, Refusal> {
    if !clear.has_inline() {
        return Ok(None);
    }
    let value = index.account.trees.values.get(id.0).map_err(Fault::from)?.ok_or(Refusal::Damaged)?;
    Ok(Some(row::decode_value(&value).ok_or(Refusal::Damaged)?.1.to_vec()))
}

/// Why a record is not sealed anew.
enum Refusal {
    Damaged,
    Unknown,
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Committer {
    pub(crate) fn start_rekey(&mut self, key: Key, remote: Option<String>, confirmed: bool, answer: Answer<Rekeyed>) {
        let before = self.shared.key();
        match (before.access(), key) {
            _ if self.rekey.is_some() => {
                let _ = answer.send(Err(WriteError::Refused("another change of the key is under way".into())));
            }
            (_, key) if key == before => {
                let set = remote.map_or(Ok(()), |remote| self.set_remote(remote));
                let _ = answer.send(set.map(|()| Rekeyed::default()));
            }
            (Access::Full(old), Key::Encryption(key)) => self.begin_rekey(old, key, remote, answer),
            (_, key) => drop(answer.send(self.replace_key(key, confirmed))),
        }
    }

    fn begin_rekey(&mut self, old: Keys, key: EncryptionKey, remote: Option<String>, answer: Answer<Rekeyed>) {
        let keys = Keys::derive(&key);
        let trees = self.shared.read_index(|index| {
            // What an earlier change of key may have left unfinished.
            index.drop_other_accounts()?;
            Trees::open(&index.db, keys.account())
        });
        match trees {
            Ok(trees) => {
                let tally = Tally::default();
                let (position, scanned, changed) = (None, false, BTreeSet::new());
                let peer = RemotePeer::unknown(self.shared.now_us());
                let moving = Moving { remote, peer, keeps_reads: true };
                self.rekey = Some(Rekey { old, key, keys, trees, position, scanned, changed, tally, moving, answer });
            }
            Err(fault) => drop(answer.send(Err(self.refused(fault)))),
        }
    }

    /// Does the next batch of a change of key, or the switch.
    pub(crate) fn continue_rekey(&mut self) {
        let Some(mut rekey) = self.rekey.take() else { return };
        let step = self.shared.space.check(0, Purpose::Store).and_then(|()| {
            if rekey.scanned && rekey.changed.is_empty() {
                self.switch(&Key::Encryption(rekey.key.clone()), &rekey.trees, rekey.tally, &rekey.moving)
                    .map(|()| true)
            } else {
                self.rekey_batch(&mut rekey).map(|()| false)
            }
        });
        match step {
            Ok(true) => self.end_rekey(rekey),
            Ok(false) => self.rekey = Some(rekey),
            Err(error) => self.abandon(rekey, error),
        }
    }

    fn rekey_batch(&mut self, rekey: &mut Rekey) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        let state = State { commit: self.state.commit + 1, ..self.state };
        let done = shared.read_index(|index| {
            let mut changes = Changes::default();
            for id in rekey.next_ids(index)? {
                match rekey.take(index, &mut changes, id) {
                    Ok(()) => {}
                    Err(Refusal::Fault(fault)) => return Err(fault),
                    Err(Refusal::Damaged) => return Ok(Err("a record cannot be read")),
                    Err(Refusal::Unknown) => return Ok(Err("there are records of a newer kvassd")),
                }
            }
            index::write_progress(&mut changes.meta, state, rekey.keys.account(), rekey.tally);
            match index.apply(&rekey.trees, &changes) {
                // What is in memory may not be what is on the disk any more.
                Err(Fault::Other(what)) => fatal(&what),
                applied => applied.inspect(|()| reached("rekey.batch")).map(Ok),
            }
        });
        match done {
            Ok(Ok(())) => {
                self.state = state;
                Ok(())
            }
            Ok(Err(why)) => Err(WriteError::Refused(format!("the key is not changed: {why}"))),
            Err(fault) => Err(self.refused(fault)),
        }
    }

    fn end_rekey(&mut self, rekey: Rekey) {
        let Rekey { key, trees, moving, answer, .. } = rekey;
        self.end_switch(Key::Encryption(key), trees, moving);
        let _ = answer.send(Ok(Rekeyed::default()));
    }

    /// Leaves the old key in force, as if nothing had been asked.
    fn abandon(&mut self, rekey: Rekey, error: WriteError) {
        let Rekey { answer, trees, .. } = rekey;
        drop(trees);
        match self.shared.read_index(Index::make_durable) {
            Ok(()) => {
                if let Err(fault) = self.shared.read_index(Index::drop_other_accounts) {
                    tracing::warn!(%fault, "what the new key sealed stays until the next start");
                }
            }
            Err(Fault::Full) => drop(self.recover(None)),
            Err(Fault::Other(what)) => fatal(&what),
        }
        if let Err(error) = key_file::write(&self.shared.layout.key(), &[&self.shared.key()]) {
            tracing::warn!(%error, "the key file keeps the new key beside the old one");
        }
        let _ = answer.send(Err(error));
    }
}
