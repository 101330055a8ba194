//! A change of the encryption key: the new account is built beside the old one, and one commit switches.
//!
//! Every record is sealed anew under its old stamp; values keep their content key, hash and place. It is done in
//! batches between other writes; what they change meanwhile is sealed anew again before the switch. A crash before the
//! switch leaves the old key in force, and the key file holds both keys around it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use kvass_proto::v1::Header;
use prost::Message;

use super::commit::{Answer, Committer, fatal};
use super::index::{self, Account, Changes, Fault, Index, Trees};
use super::peers::RemotePeer;
use super::plan::{self, Step, Version};
use super::row::{self, RecordRow, State, Tally};
use super::space::Purpose;
use super::{Seq, WriteError, key_file};
use crate::keys::{EncryptionKey, Keys};
use crate::record::{Clear, RecordId};
use crate::seal;

/// Records of one batch.
const BATCH: usize = 128;

/// A change of key under way.
pub(crate) struct Rekey {
    key: EncryptionKey,
    keys: Keys,
    trees: Trees,
    /// The last record of the old account that was taken.
    position: Option<RecordId>,
    scanned: bool,
    /// Records that changed after they were taken.
    changed: BTreeSet<RecordId>,
    tally: Tally,
    /// The remote that comes in force with the key; `None`: it stays.
    remote: Option<String>,
    /// Everything goes to the remote anew, from when the change began.
    remote_peer: RemotePeer,
    answer: Answer<()>,
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
        let old = &index.account;
        let row = index.record(id)?.and_then(|row| RecordRow::decode(&row)).ok_or(Refusal::Damaged)?;
        let clear = seal::verify(&old.keys, &row.record).map_err(|_| Refusal::Damaged)?;
        if !clear.is_known() {
            return Err(Refusal::Unknown);
        }
        let header = seal::open_bytes(&old.keys, &clear, &row.record).map_err(|_| Refusal::Damaged)?;
        let name = Header::decode(header.as_slice()).map_err(|_| Refusal::Damaged)?.name.clone();
        let new_id = self.keys.record_id(&name);
        let clear = Clear { id: new_id, ..clear };
        let replaced = self.version(new_id)?;
        self.tally.last = Seq(self.tally.last.0 + 1);
        let row = RecordRow { seq: self.tally.last, record: seal::seal(&self.keys, &clear, &header) };
        let sealed_value = if clear.has_inline() {
            let value = old.trees.values.get(id.0).map_err(Fault::from)?.ok_or(Refusal::Damaged)?;
            Some(row::decode_value(&value).ok_or(Refusal::Damaged)?.1.to_vec())
        } else {
            None
        };
        let new = Version::new(&row, clear);
        if let Some(old) = &replaced {
            row::toggle(&mut self.tally.digest, &old.auth);
            self.tally.content = self.tally.content.saturating_sub(old.bytes);
        }
        row::toggle(&mut self.tally.digest, &new.auth);
        self.tally.content += new.bytes;
        plan::write_step(
            changes,
            new_id,
            &Step { name, old: replaced, new, row, sealed_value, blob: None, via: row::HERE },
        );
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
    pub(crate) fn start_rekey(&mut self, key: EncryptionKey, remote: Option<String>, answer: Answer<()>) {
        let keys = Keys::derive(&key);
        let account = keys.account();
        if self.rekey.is_some() {
            let _ = answer.send(Err(WriteError::Refused("another change of the key is under way".into())));
            return;
        }
        let trees = self.shared.read_index(|index| {
            if index.account.keys.account() == account {
                return Ok(None);
            }
            // What an earlier change of key may have left unfinished.
            index.drop_other_accounts()?;
            Trees::open(&index.db, account).map(Some)
        });
        match trees {
            Ok(Some(trees)) => {
                let tally = Tally::default();
                let (position, scanned, changed) = (None, false, BTreeSet::new());
                let remote_peer = RemotePeer::unknown(self.shared.now_us());
                self.rekey =
                    Some(Rekey { key, keys, trees, position, scanned, changed, tally, remote, remote_peer, answer });
            }
            Ok(None) => drop(answer.send(remote.map_or(Ok(()), |remote| self.set_remote(remote)))),
            Err(fault) => drop(answer.send(Err(self.refused(fault)))),
        }
    }

    /// Does the next batch of a change of key, or the switch.
    pub(crate) fn continue_rekey(&mut self) {
        let Some(mut rekey) = self.rekey.take() else { return };
        let step = self.shared.space.check(0, Purpose::Store).and_then(|()| {
            if rekey.scanned && rekey.changed.is_empty() {
                self.switch(&rekey).map(|()| true)
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
                applied => applied.map(Ok),
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

    /// Puts the new account in force. It is so when the commit is durable; everything after it is cleaning up.
    fn switch(&mut self, rekey: &Rekey) -> Result<(), WriteError> {
        let account = rekey.keys.account();
        let state = State { commit: self.state.commit + 1, ..self.state };
        let key_path = self.shared.layout.key();
        key_file::write(&key_path, &[&self.shared.key(), &rekey.key])
            .map_err(|source| WriteError::Io { what: "write the key file", source })?;
        let done = self.shared.read_index(|index| {
            let mut changes = Changes::default();
            changes.meta.insert(index::meta::ACCOUNT, &account.0[..]);
            if let Some(remote) = &rekey.remote {
                changes.meta.insert(index::meta::REMOTE, remote.as_bytes());
            }
            changes.meta.insert(index::meta::REMOTE_PEER, &rekey.remote_peer.encode(account)[..]);
            index::write_progress(&mut changes.meta, state, account, rekey.tally);
            index::write_run(&mut changes.meta, account, 0, self.run, Seq(rekey.tally.last.0 + 1));
            index.apply(&rekey.trees, &changes).and_then(|()| index.make_durable())
        });
        match done {
            Ok(()) => {}
            // The commit may be on the disk or not, so the next opening must say which key is in force.
            Err(Fault::Full) => fatal("the disk filled while the key was changed"),
            Err(Fault::Other(what)) => fatal(&what),
        }
        (self.state, self.tally) = (state, rekey.tally);
        Ok(())
    }

    fn end_rekey(&mut self, rekey: Rekey) {
        let Rekey { key, keys, trees, remote, remote_peer, answer, .. } = rekey;
        {
            let mut pass = self.shared.pass.lock();
            pass.expected = self.tally.digest;
            let mut slot = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = &mut *slot {
                index.account = Account { keys, trees };
            }
        }
        if let Err(error) = key_file::write(&self.shared.layout.key(), &[&key]) {
            tracing::warn!(%error, "the key file keeps the old key beside the new one");
        }
        self.shared.set_key(key);
        // The log of the new account has other places; who syncs begins anew.
        let own = self.shared.peers().own();
        self.shared.change_peers(|peers| peers.begin_anew(own, remote_peer));
        self.write_witness();
        self.announce();
        if let Some(remote) = remote {
            self.shared.remote.send_replace(remote);
        }
        if let Err(fault) = self.shared.read_index(Index::drop_other_accounts) {
            tracing::warn!(%fault, "what the old key sealed stays until the next start");
        }
        let _ = answer.send(Ok(()));
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

    fn refused(&self, fault: Fault) -> WriteError {
        match fault {
            Fault::Full => self.shared.space.full(),
            Fault::Other(what) => WriteError::Damaged(what),
        }
    }
}
