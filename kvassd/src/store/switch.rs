//! Which key is in force: changes of key that seal nothing anew, and the switch of accounts that all changes end with.
//!
//! Where the account stays, the key file alone decides, and replacing it is the switch: either key opens the store that
//! a crash leaves. Where it changes, the key file holds both keys before one commit names the other account; a crash
//! before that commit leaves the old key in force, after it the new one.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::commit::{Committer, fatal};
use super::index::{self, Account, Changes, Fault, Index, Trees};
use super::labels::Labels;
use super::layout::Layout;
use super::merge;
use super::names::Named;
use super::pass::Content;
use super::peers::RemotePeer;
use super::plan::Version;
use super::rekey::{Moving, Rekeyed};
use super::row::{self, RecordRow, State, Tally};
use super::space::Purpose;
use super::subject::Subject;
use super::{Seq, StoreId, WriteError, create, key_file};
use crate::failpoint::reached;
use crate::keys::{Access, AccountId, Key, Keys};
use crate::record::{Clear, Kind, RecordId, ValueHash};
use crate::seal;

/// Records that are dropped by one commit.
const BATCH: usize = 256;

impl Committer {
    /// Changes from or to a server key.
    pub(crate) fn replace_key(&mut self, key: Key, confirmed: bool) -> Result<Rekeyed, WriteError> {
        let before = self.shared.key();
        let content = self.shared.pass.lock().content;
        let is_same = before.access().account() == key.access().account();
        let is_meant = confirmed || content.records == 0;
        match &key {
            Key::Server(_) if is_same && !is_meant => Err(WriteError::Unconfirmed(format!(
                "with a server key, {} can no longer be read here",
                entries(&content)
            ))),
            Key::Server(_) if is_same => self.become_blind(key),
            Key::Encryption(_) if is_same => self.become_full(key),
            _ if !is_meant => Err(WriteError::Unconfirmed(format!(
                "this is the key of other entries: {} would be removed from this machine",
                entries(&content)
            ))),
            _ => self.begin_empty(key),
        }
    }

    /// Keeps every record, and forgets what is needed to read them.
    fn become_blind(&mut self, key: Key) -> Result<Rekeyed, WriteError> {
        self.write_key(&key)?;
        reached("switch.blind");
        self.put_in_force(key);
        self.forget_names();
        self.announce();
        Ok(Rekeyed::default())
    }

    /// Keeps the records that verify and have their values; what anybody made up who had the server key goes, and what
    /// that took the value away from, which peers send again.
    fn become_full(&mut self, key: Key) -> Result<Rekeyed, WriteError> {
        let Access::Full(keys) = key.access() else { return Ok(Rekeyed::default()) };
        let sorted = self.shared.read_index(|index| Sorted::read(index, &self.shared.layout, &keys));
        let sorted = sorted.map_err(|fault| self.refused(fault))?;
        let dropped = sorted.wrong.len() as u64;
        if dropped > 0 {
            self.drop_records(&sorted)?;
        }
        if self.state.counter != sorted.counter {
            // What was made up may have raised it.
            self.state.counter = sorted.counter;
            self.write_meta(|_, _| {})?;
        }
        self.write_key(&key)?;
        reached("switch.full");
        self.shared.pass.lock().content = sorted.content;
        self.shared.names.replace(sorted.names);
        self.shared.labels.replace(sorted.labels);
        self.put_in_force(key);
        self.announce();
        Ok(Rekeyed { dropped })
    }

    /// Begins another account with nothing in it, and drops the old one.
    fn begin_empty(&mut self, key: Key) -> Result<Rekeyed, WriteError> {
        self.shared.space.check(0, Purpose::Store)?;
        let account = key.access().account();
        let prepared = self.shared.read_index(|index| {
            // What an earlier change of key may have left unfinished.
            index.drop_other_accounts()?;
            let blobs = index.account.trees.blobs.iter().keys().collect::<Result<Vec<_>, _>>()?;
            Ok((Trees::open(&index.db, account)?, blobs))
        });
        let (trees, blobs) = prepared.map_err(|fault| self.refused(fault))?;
        let peer = RemotePeer::unknown(self.shared.now_us());
        let moving = Moving { remote: None, peer, keeps_reads: false };
        // Of this account no counter has been seen.
        let counter = std::mem::take(&mut self.state.counter);
        if let Err(error) = self.switch(&key, &trees, Tally::default(), &moving) {
            self.state.counter = counter;
            return Err(error);
        }
        self.shared.pass.lock().content = Content::default();
        self.forget_names();
        self.end_switch(key, trees, moving);
        for hash in blobs.iter().filter_map(|hash| <[u8; 32]>::try_from(&hash[..]).ok()) {
            self.remove_blob(ValueHash(hash));
        }
        Ok(Rekeyed::default())
    }

    /// Puts another account in force. It is so when the commit is durable; everything after it is cleaning up.
    pub(crate) fn switch(&mut self, key: &Key, trees: &Trees, tally: Tally, moving: &Moving) -> Result<(), WriteError> {
        let account = key.access().account();
        let state = State { commit: self.state.commit + 1, ..self.state };
        // The log begins anew. Under the run of this opening, a cursor of an earlier log of this account would fit it.
        let run = self.shared.surroundings.random.bytes()?;
        key_file::write(&self.shared.layout.key(), &[&self.shared.key(), key]).map_err(cannot_write)?;
        reached("switch.prepared");
        let mut settings = self.shared.settings();
        settings.remote = moving.remote.clone().unwrap_or(settings.remote);
        let done = self.shared.read_index(|index| {
            let mut changes = Changes::default();
            settings.write(&mut changes.meta, state.commit, account);
            changes.meta.insert(index::meta::ACCOUNT, &account.0[..]);
            if let Some(remote) = &moving.remote {
                changes.meta.insert(index::meta::REMOTE, remote.as_bytes());
                changes.meta.remove(index::meta::REMOTE_PUBLIC_URL);
            }
            changes.meta.insert(index::meta::REMOTE_PEER, &moving.peer.encode(account)[..]);
            if moving.keeps_reads {
                copy_reads(index, &mut changes, account)?;
            }
            index::write_progress(&mut changes.meta, state, account, tally);
            index::write_run(&mut changes.meta, account, 0, run, Seq(tally.last.0 + 1));
            index.apply(trees, &changes).and_then(|()| index.make_durable())
        });
        match done {
            Ok(()) => reached("switch.durable"),
            // The commit may be on the disk or not, so the next opening must say which key is in force.
            Err(Fault::Full) => fatal("the disk filled while the key was changed"),
            Err(Fault::Other(what)) => fatal(&what),
        }
        (self.state, self.tally) = (state, tally);
        Ok(())
    }

    /// Makes a switch known, and removes what was before it. The witness comes first: a repair takes its word for which
    /// account is in force.
    pub(crate) fn end_switch(&mut self, key: Key, trees: Trees, moving: Moving) {
        {
            let mut pass = self.shared.pass.lock();
            pass.expected = self.tally.digest;
            let mut slot = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = &mut *slot {
                index.account = Account { keys: key.access(), trees };
            }
        }
        self.write_witness();
        if let Err(error) = key_file::write(&self.shared.layout.key(), &[&key]) {
            tracing::warn!(%error, "the key file keeps the old key beside the new one");
        }
        reached("switch.key-alone");
        self.shared.set_key(key);
        // The log of the new account has other places; who syncs begins anew.
        let own = self.shared.peers().own();
        self.shared.change_peers(|peers| peers.begin_anew(own, moving.peer));
        self.announce();
        if let Some(remote) = moving.remote {
            self.shared.remote.send_replace(remote);
            self.forget_remote_public_url();
        }
        if let Err(fault) = self.shared.read_index(Index::drop_other_accounts) {
            tracing::warn!(%fault, "what belongs to the old key stays until the next start");
        }
        self.sweep(self.shared.downloads.forget_all());
        reached("switch.cleaned");
    }

    /// Replaces the key file, where both keys are of the account in force: this is the switch.
    fn write_key(&self, key: &Key) -> Result<(), WriteError> {
        key_file::write(&self.shared.layout.key(), &[key]).map_err(cannot_write)
    }

    /// What is in memory of the key follows the key file.
    fn put_in_force(&self, key: Key) {
        let mut slot = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &mut *slot {
            index.account.keys = key.access();
        }
        drop(slot);
        self.shared.set_key(key);
    }

    /// Removes records that do not verify, as if they had never come. The store takes a new id, so that its peers send
    /// again what those may have replaced.
    fn drop_records(&mut self, sorted: &Sorted) -> Result<(), WriteError> {
        let own = StoreId(create::random_store(&self.shared.surroundings.random)?);
        let known = self.shared.peers().written();
        // Which peer it is stays known; only how far each side is has to be learnt again.
        let remote = self.shared.peers().remote();
        for batch in sorted.wrong.chunks(BATCH) {
            let (mut tally, mut blobs) = (self.tally, Vec::new());
            let state = State { commit: self.state.commit + 1, ..self.state };
            let written = self.shared.read_index(|index| {
                let account = index.account.keys.account();
                let mut changes = Changes::default();
                for id in batch {
                    blobs.extend(drop_record(index, &mut changes, &mut tally, *id, &sorted.blobs)?);
                }
                changes.meta.insert(index::meta::STORE, &own.0[..]);
                known.iter().for_each(|peer| changes.meta.remove(index::meta::peer(account, peer.0)));
                index::write_progress(&mut changes.meta, state, account, tally);
                index.apply(&index.account.trees, &changes).and_then(|()| index.make_durable())
            });
            if !self.has_landed(written, state.commit) {
                return Err(self.shared.space.full());
            }
            (self.state, self.tally) = (state, tally);
            self.write_witness();
            self.shared.pass.lock().expected = tally.digest;
            self.shared.change_peers(|peers| peers.begin_anew(own, remote));
            blobs.into_iter().for_each(|hash| self.remove_blob(hash));
        }
        Ok(())
    }

    fn forget_names(&self) {
        self.shared.names.replace(BTreeMap::new());
        self.shared.labels.replace(Labels::default());
    }

    pub(crate) fn refused(&self, fault: Fault) -> WriteError {
        match fault {
            Fault::Full => self.shared.space.full(),
            Fault::Other(what) => WriteError::Damaged(what),
        }
    }
}

fn cannot_write(source: std::io::Error) -> WriteError {
    WriteError::Io { what: "write the key file", source }
}

/// Takes over how often links were read: their ids are the same under another key.
fn copy_reads(index: &Index, changes: &mut Changes, to: AccountId) -> Result<(), Fault> {
    let from = index.account.keys.account();
    for row in &index.account.trees.reads {
        let (_, row) = row?;
        let (id, count) = row::decode_reads(&row, from).ok_or_else(|| Fault::Other("a count makes no sense".into()))?;
        changes.reads.insert(&id.0, row::encode_reads(id, count, to));
    }
    Ok(())
}

/// Adds the removal of one record to a commit; returns its blob, if it has one that no record in `needed` has.
fn drop_record(
    index: &Index,
    changes: &mut Changes,
    tally: &mut Tally,
    id: RecordId,
    needed: &BTreeMap<ValueHash, RecordId>,
) -> Result<Option<ValueHash>, Fault> {
    let wrong = || Fault::Other("a record makes no sense".into());
    let bytes = index.record(id)?.ok_or_else(wrong)?;
    let (row, clear) = index.account.read(&bytes).map_err(|_| wrong())?;
    let version = Version::new(&row, clear);
    row::toggle(&mut tally.digest, &version.auth);
    tally.content = tally.content.saturating_sub(version.bytes);
    changes.records.remove(&id.0);
    changes.log.remove(&row.seq.0.to_be_bytes());
    changes.values.remove(&id.0);
    if clear.kind == Kind::LINK {
        changes.reads.remove(&id.0);
    }
    let Some(hash) = clear.has_blob().then_some(clear.value_hash) else { return Ok(None) };
    if let Some(owner) = needed.get(&hash) {
        changes.blobs.insert(&hash.0, &owner.0);
        return Ok(None);
    }
    changes.blobs.remove(&hash.0);
    Ok(Some(hash))
}

/// The records of a blind store, as they are seen with all keys.
#[derive(Default)]
struct Sorted {
    names: BTreeMap<Box<str>, Named>,
    labels: Labels,
    content: Content,
    /// The greatest counter of those that verify.
    counter: u64,
    /// Their blobs, and whose they are.
    blobs: BTreeMap<ValueHash, RecordId>,
    /// Those that do not.
    wrong: Vec<RecordId>,
}

impl Sorted {
    fn read(index: &Index, layout: &Layout, keys: &Keys) -> Result<Self, Fault> {
        let mut sorted = Self::default();
        for row in &index.account.trees.records {
            let (id, row) = row?;
            let id = <[u8; 16]>::try_from(&id[..]).map_err(|_| Fault::Other("an id has the wrong length".into()))?;
            let is_whole = |clear: &Clear| !clear.has_blob() || merge::has_blob(layout, clear);
            match verify(keys, RecordId(id), &row).filter(|(clear, _)| is_whole(clear)) {
                Some((clear, subject)) => sorted.take(&clear, subject),
                None => sorted.wrong.push(RecordId(id)),
            }
        }
        Ok(sorted)
    }

    fn take(&mut self, clear: &Clear, subject: Subject) {
        self.content.add(clear);
        self.counter = self.counter.max(clear.stamp.counter);
        if clear.has_blob() {
            self.blobs.insert(clear.value_hash, clear.id);
        }
        match subject {
            Subject::Entry(name) if clear.kind == Kind::VALUE => drop(self.names.insert(name.into(), Named::of(clear))),
            Subject::Share(label) if clear.kind == Kind::LINK => self.labels.insert(&label, clear),
            _ => {}
        }
    }
}

/// A record that verifies with all keys, and what it is of.
fn verify(keys: &Keys, id: RecordId, row: &[u8]) -> Option<(Clear, Subject)> {
    let row = RecordRow::decode(row)?;
    let clear = seal::verify(keys, &row.record).ok().filter(|clear| clear.id == id)?;
    let subject = Subject::open(keys, &clear, &row.record).ok()?;
    Some((clear, subject))
}

/// What is stored, in a few words.
fn entries(content: &Content) -> String {
    match content.entries {
        0 => "what is left of removed entries".into(),
        1 => "the entry that is stored here".into(),
        count => format!("the {count} entries that are stored here"),
    }
}
