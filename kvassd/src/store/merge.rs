//! Sync's view of the store: what is in its log, and merging what comes from another.
//!
//! It decides nothing about sessions. A record is verified before it goes to the committer, which keeps the greater of
//! two versions; the cursor of the peer is stored by the commit that stores what came before it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::commit::{Committer, Job};
use super::create;
use super::index::{self, Fault, Index};
use super::peers::{self, Cursor, Opening, Peer, Peers, RemotePeer, RunId, StoreId};
use super::plan::{Merging, Plan};
use super::row::{self, RecordRow};
use super::settings::Settings;
use super::space::Purpose;
use super::subject::Subject;
use super::value_reader::blob_length;
use super::{ReadError, Seq, Shared, Store, WriteError};
use crate::failpoint::reached;
use crate::keys::{Access, AccountId, Keys, SyncKey};
use crate::record::{Clear, Kind, Record, RecordError, RecordId, ValueHash};
use crate::value;

/// The least time between two forks of a store that is open: ten minutes.
const FORK_US: u64 = 10 * 60 * 1_000_000;

/// So many records are worth another thread.
const MANY: usize = 128;

/// A record on its way from one store to another, with its sealed value where that is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Travelling {
    /// The record as it was written.
    pub record: Record,
    /// The sealed value of a record whose value is no blob; `None` where it has none or is one.
    pub value: Option<Vec<u8>>,
}

/// A part of a store's log for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What the peer lacks, in the order of the log, each with its place.
    pub records: Vec<(Seq, Travelling)>,
    /// Up to where the peer holds the log once it has these; `None` in a store that has no run, which there is not.
    pub cursor: Option<Cursor>,
}

/// What became of records that came from another store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// How many are newer than what was here.
    pub stored: usize,
    /// Hashes of values that have to be here before their records can be merged.
    pub lacking: Vec<ValueHash>,
    /// Which did not verify, as their positions among all that came.
    pub refused: Vec<usize>,
}

/// What records were verified for: the store's id, its account, and whether with all keys of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    own: StoreId,
    account: AccountId,
    full: bool,
}

/// A record that was verified.
pub(crate) struct Arrival {
    pub(crate) clear: Clear,
    pub(crate) travelling: Travelling,
    pub(crate) subject: Subject,
}

impl Arrival {
    /// Verifies a record and its short value.
    fn verify(keys: &Access, travelling: Travelling) -> Result<Self, RecordError> {
        let clear = keys.verify(&travelling.record)?;
        let fits = |sealed: &Vec<u8>| {
            sealed.len() as u64 == value::sealed_length(clear.size)
                && value::value_hash(&value::chunk_hash(sealed)) == clear.value_hash
        };
        if travelling.value.as_ref().map(fits) != clear.has_inline().then_some(true) {
            return Err(RecordError::Value);
        }
        let subject = match keys.full() {
            Some(keys) => Subject::open(keys, &clear, &travelling.record)?,
            None => Subject::Unknown,
        };
        // Who changes the key has to seal the grant anew, and who serves the link to open it.
        if let (Some(keys), Subject::Share(label), Some(sealed)) = (keys.full(), &subject, &travelling.value)
            && !label.fits(keys, &clear, sealed)
        {
            return Err(RecordError::Grant);
        }
        Ok(Self { clear, travelling, subject })
    }

    /// Verifies records in their order; half of them on another thread where there are many.
    fn verify_all(
        keys: &Access,
        mut records: Vec<Travelling>,
        threads: bool,
    ) -> impl Iterator<Item = Result<Self, RecordError>> {
        let verify = |records: Vec<Travelling>| -> Vec<_> {
            records.into_iter().map(|record| Self::verify(keys, record)).collect()
        };
        let here = if threads && records.len() >= MANY { records.len() / 2 } else { records.len() };
        let rest = records.split_off(here);
        let (first, second) = if rest.is_empty() {
            (verify(records), Vec::new())
        } else {
            std::thread::scope(|scope| {
                let beside = scope.spawn(|| verify(rest));
                let first = verify(records);
                (first, beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        };
        first.into_iter().chain(second)
    }
}

impl Store {
    /// Which store this is, and of which account.
    #[must_use]
    pub fn identity(&self) -> (StoreId, AccountId) {
        (self.shared.peers().own(), self.position().account)
    }

    /// The last place of this store's log that is durable.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.position().seq
    }

    /// The run of this opening.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.shared.run
    }

    /// This opening of this store.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening { store: self.identity().0, run: self.run() }
    }

    /// What is known of a peer.
    #[must_use]
    pub fn peer(&self, id: StoreId) -> Peer {
        self.shared.peers().all().get(&id).copied().unwrap_or_default()
    }

    /// All peers that are known.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<StoreId, Peer> {
        self.shared.peers().all().clone()
    }

    /// The key that authenticates the account's sessions.
    #[must_use]
    pub fn sync_key(&self) -> SyncKey {
        self.shared.key().sync_key()
    }

    /// Whether a peer has said that it holds an entry as it is here.
    #[must_use]
    pub fn is_held(&self, name: &str, peer: StoreId) -> bool {
        self.is_record_held(|keys| keys.record_id(name), peer)
    }

    /// Whether a peer has said that it holds a record, whose id follows from the keys, as it is here.
    pub(super) fn is_record_held(&self, id: impl Fn(&Keys) -> RecordId, peer: StoreId) -> bool {
        let row = self.shared.read_index(|index| match index.account.keys.full() {
            Some(keys) => index.record(id(keys)),
            None => Ok(None),
        });
        let seq = row.ok().flatten().and_then(|row| RecordRow::decode(&row)).map(|row| row.seq);
        seq.is_some_and(|seq| self.shared.peers().held_by(peer).contains(seq))
    }

    /// Whether a cursor lies in this store's history. Where it does not, the history has forked.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn accepts(&self, cursor: Cursor) -> Result<bool, ReadError> {
        let last = self.position().seq;
        let accepted = self.shared.read_index(|index| Ok(peers::accepts(&peers::runs(index)?, last, cursor)));
        accepted.map_err(|fault| self.failed(fault))
    }

    /// The log after a place, at most `limit` rows and about 1 MiB of it, up to the last durable commit. What came
    /// through this very opening of the peer is left out.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn outgoing(&self, after: Seq, to: Opening, limit: usize) -> Result<Outgoing, ReadError> {
        let last = self.position().seq;
        let read = self.shared.read_index(|index| outgoing(index, after, last, Some(to), limit));
        read.map_err(|fault| self.failed(fault))
    }

    /// The whole log after a place, likewise: also what came through the peer that asks.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn outgoing_all(&self, after: Seq, limit: usize) -> Result<Outgoing, ReadError> {
        let last = self.position().seq;
        let read = self.shared.read_index(|index| outgoing(index, after, last, None, limit));
        read.map_err(|fault| self.failed(fault))
    }

    /// Begins to take all of a peer's log once more, from its beginning, because both hold different records though
    /// nothing is on its way; `false` where that was done within a day.
    #[must_use]
    pub fn begin_full_pass(&self, peer: StoreId) -> bool {
        let now_us = self.shared.now_us();
        let mut begins = false;
        self.shared.change_peers(|peers| begins = peers.begin_pass(peer, now_us));
        begins
    }

    /// Whether a full pass over a peer's log has begun and not ended.
    #[must_use]
    pub fn is_in_full_pass(&self, peer: StoreId) -> bool {
        self.shared.peers().is_passing(peer)
    }

    /// A full pass, if there was one, has ended.
    pub fn end_full_pass(&self, peer: StoreId) {
        self.shared.peers().end_pass(peer);
    }

    /// Merges records of an account that came from a peer, and notes how far its log is held with them. Nothing is
    /// noted while a value is lacking. Durable when it returns.
    ///
    /// # Errors
    /// Another account in force, a full disk or a damaged store; nothing is merged then.
    pub fn merge(
        &self,
        account: AccountId,
        records: Vec<Travelling>,
        from: Opening,
        cursor: Option<Cursor>,
    ) -> Result<Merged, WriteError> {
        // Before the keys, which are what is verified with: a change of either in between is noticed.
        let own = self.shared.peers().own();
        let keys = self.shared.read_index(|index| Ok(index.account.keys.clone()));
        let keys = keys.map_err(|fault| match fault {
            Fault::Full => self.shared.space.full(),
            Fault::Other(what) => WriteError::Damaged(what),
        })?;
        // Its records would not verify, and the cursor would pass them.
        if keys.account() != account {
            return Err(WriteError::Refused("the key changed meanwhile".into()));
        }
        let (mut arrivals, mut refused) = (Vec::with_capacity(records.len()), Vec::new());
        for (at, verified) in Arrival::verify_all(&keys, records, self.shared.surroundings.threads).enumerate() {
            match verified {
                Ok(arrival) => arrivals.push(arrival),
                Err(_) => refused.push(at),
            }
        }
        self.refuse(refused.len() as u64);
        let target = Target { own, account: keys.account(), full: keys.full().is_some() };
        let mut merged = self.ask(|answer| Job::Merge { target, arrivals, from, cursor, answer })?;
        merged.refused = refused;
        Ok(merged)
    }

    /// Counts records, or values of records, that did not verify.
    pub(crate) fn refuse(&self, count: u64) {
        self.shared.refused.fetch_add(count, Ordering::Relaxed);
    }

    /// How many records of any peer, or values of records, did not verify since the store was opened.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Notes what a peer says at the beginning of a session to hold of this store's log of an account.
    pub fn begin_peer(&self, account: AccountId, peer: StoreId, seq: Seq) {
        self.change_peers_of(account, |peers| peers.begin(peer, seq));
    }

    /// Notes up to which place of this store's log of an account a peer holds all, which is on the disk with the next
    /// commit, and ranges of places after it that the peer holds as well, which are not written.
    pub fn acknowledge(&self, account: AccountId, peer: StoreId, seq: Seq, beyond: &[(Seq, Seq)]) {
        self.change_peers_of(account, |peers| peers.acknowledge(peer, seq, beyond));
    }

    /// Does nothing where another account is in force: its log has other places.
    fn change_peers_of(&self, account: AccountId, change: impl FnOnce(&mut Peers)) {
        // No change of key gets past the index while it is read, and after one all peers begin anew.
        let _ = self.shared.read_index(|index| {
            if index.account.keys.account() == account {
                self.shared.change_peers(change);
            }
            Ok(())
        });
    }

    /// Watches what is known of peers: how far each holds this store's log, and how far theirs are held here.
    #[must_use]
    pub fn peers_changed(&self) -> watch::Receiver<()> {
        self.shared.peers_changed.subscribe()
    }

    /// Takes a new store id and a new process id, because the history of this store, under the id that it had, has
    /// forked; all peers begin anew. Nothing happens where it has another id already.
    ///
    /// Whoever has the server key can say that it has, and each time all peers would have to begin anew. Under an id
    /// that was taken just now it is hardly so.
    ///
    /// # Errors
    /// A full disk or a damaged store, or an id that is less than ten minutes old.
    pub fn fork(&self, own: StoreId) -> Result<(), WriteError> {
        self.ask(|answer| Job::Fork { own, answer })
    }

    /// Whether the value of that hash is here, whole.
    #[must_use]
    pub fn has_blob(&self, clear: &Clear) -> bool {
        self.shared.has_blob(clear)
    }

    /// The XOR of the authentications of all records, as the last commit left it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn digest(&self) -> Result<[u8; 32], ReadError> {
        self.tally().map(|(digest, _)| digest)
    }

    /// The digest, and the last place of the log, of one moment.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn tally(&self) -> Result<([u8; 32], Seq), ReadError> {
        let read = self.shared.read_index(|index| index.tally(index.account.keys.account()));
        read.map(|tally| (tally.digest, tally.last)).map_err(|fault| self.failed(fault))
    }
}

impl Committer {
    pub(super) fn merge(
        &mut self,
        target: Target,
        arrivals: Vec<Arrival>,
        from: Opening,
        cursor: Option<Cursor>,
    ) -> Result<Merged, WriteError> {
        let shared = Arc::clone(&self.shared);
        self.allow_merge(&arrivals)?;
        let guard = shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let index = guard.as_ref().ok_or_else(|| shared.space.full())?;
        let keys = &index.account.keys;
        let now = Target { own: shared.peers().own(), account: keys.account(), full: keys.full().is_some() };
        if now != target {
            return Err(WriteError::Refused("the key or the id of this store changed meanwhile".into()));
        }
        let mut plan = Plan::new(index, &shared, self.state, self.tally);
        let (mut merged, mut files) = (Merged::default(), Vec::new());
        for arrival in arrivals {
            let hash = arrival.clear.value_hash;
            let file = arrival.clear.has_blob().then_some(hash);
            match plan.merge(arrival, from.via(), |clear| shared.has_blob(clear))? {
                Merging::Stored => {
                    merged.stored += 1;
                    files.extend(file);
                }
                Merging::Older => files.extend(file),
                Merging::Lacking => merged.lacking.push(hash),
            }
        }
        let held = cursor.filter(|_| merged.lacking.is_empty());
        if plan.is_empty() {
            self.state.counter = plan.state.counter;
            // Merging the same again changes nothing, so the cursor may wait for the next commit.
            if let Some(held) = held {
                shared.change_peers(|peers| peers.hold(from.store, held));
                reached("merge.held");
            }
            drop(guard);
            self.sweep(files);
            return Ok(merged);
        }
        reached("merge.planned");
        let (mut changes, planned) = plan.finish();
        let mut peers = shared.peers().clone();
        held.into_iter().for_each(|held| peers.hold(from.store, held));
        let saved = peers.write(&mut changes.meta, target.account);
        let pass = shared.pass.lock();
        let committed = index.apply(&index.account.trees, &changes).and_then(|()| index.make_durable());
        drop(guard);
        if !self.land(committed, planned, pass, &saved) {
            return Err(shared.space.full());
        }
        shared.change_peers(|peers| {
            held.into_iter().for_each(|held| peers.hold(from.store, held));
            peers.saved(&saved);
        });
        reached("merge.landed");
        // The value of one that was replaced while it was on its way has come for nothing.
        self.sweep(files);
        Ok(merged)
    }

    fn allow_merge(&self, arrivals: &[Arrival]) -> Result<(), WriteError> {
        if let Some(what) = self.shared.names.damage() {
            return Err(WriteError::Damaged(what));
        }
        let removes = arrivals.iter().all(|arrival| arrival.clear.kind == Kind::REMOVAL);
        self.shared.space.check(0, if removes { Purpose::Remove } else { Purpose::Store })
    }

    pub(super) fn fork(&mut self, own: StoreId) -> Result<(), WriteError> {
        if self.shared.peers().own() != own {
            return Ok(());
        }
        let now_us = self.shared.now_us();
        if self.forked_us.is_some_and(|before_us| now_us.abs_diff(before_us) < FORK_US) {
            return Err(WriteError::Refused("a peer says that the history of this store has forked, once more".into()));
        }
        tracing::warn!("the history of this store has forked; it takes a new id");
        let random = &self.shared.surroundings.random;
        let (store, pid) = (StoreId(create::random_store(random)?), create::random_pid(random)?);
        let known = self.shared.peers().written();
        let remote = RemotePeer::unknown(now_us);
        let settings = Settings { pid, ..self.shared.settings() };
        self.write_settings(&settings, |meta, account| {
            meta.insert(index::meta::STORE, &store.0[..]);
            meta.insert(index::meta::PID, &pid.to_be_bytes()[..]);
            meta.insert(index::meta::REMOTE_PEER, &remote.encode(account)[..]);
            known.iter().for_each(|peer| meta.remove(index::meta::peer(account, peer.0)));
        })?;
        self.shared.set_pid(pid);
        self.shared.change_peers(|peers| peers.begin_anew(store, remote));
        self.forked_us = Some(now_us);
        Ok(())
    }

    /// Writes what was noted of peers since the last commit.
    pub(super) fn save_peers(&mut self) {
        if !self.shared.peers().has_unsaved() {
            return;
        }
        let peers = self.shared.peers().clone();
        if let Err(error) = self.write_meta(|meta, account| drop(peers.write(meta, account))) {
            tracing::warn!(%error, "peers will send again what they have sent");
        }
        reached("peers.saved");
    }
}

impl Shared {
    /// Whether the file of a record's value is here, and its name durable.
    fn has_blob(&self, clear: &Clear) -> bool {
        has_blob(&self.layout, clear) && !self.downloads.is_taken(clear.value_hash)
    }
}

/// Whether the file of a record's value is here; such a file is whole from the moment that it has its name.
pub(crate) fn has_blob(layout: &super::layout::Layout, clear: &Clear) -> bool {
    std::fs::metadata(layout.blob(clear.value_hash)).is_ok_and(|file| file.len() == blob_length(clear.size))
}

/// About how many bytes of records are taken from the log at once.
const BYTES: usize = 1 << 20;

fn outgoing(index: &Index, after: Seq, last: Seq, to: Option<Opening>, limit: usize) -> Result<Outgoing, Fault> {
    let wrong = |what: &str| Fault::Other(what.into());
    let (mut records, mut position, mut bytes, mut rows) = (Vec::new(), after, 0, 0);
    let range = (Bound::Excluded(after.0.to_be_bytes()), Bound::Included(last.0.to_be_bytes()));
    let mut whole = true;
    for row in index.account.trees.log.range::<[u8; 8], _>(range) {
        if rows == limit || bytes > BYTES {
            whole = false;
            break;
        }
        let (seq, row) = row?;
        position = Seq(u64::from_be_bytes(seq[..].try_into().map_err(|_| wrong("a place in the log makes no sense"))?));
        rows += 1;
        let (id, via) = row::decode_log(&row).ok_or_else(|| wrong("a row of the log makes no sense"))?;
        if to.is_some_and(|to| via == to.via()) {
            continue;
        }
        let Some(record) = index.record(id)?.and_then(|row| RecordRow::decode(&row)) else { continue };
        // A record that has changed since stands at a later place.
        if record.seq != position {
            continue;
        }
        let clear = record.clear().map_err(|_| wrong("a record makes no sense"))?;
        let value = match clear.has_inline() {
            true => match index.account.trees.values.get(id.0)?.as_deref().and_then(row::decode_value) {
                Some((hash, sealed)) if hash == clear.value_hash => Some(sealed.to_vec()),
                // A commit between the two rows: as above.
                _ => continue,
            },
            false => None,
        };
        bytes += record.record.sealed.len() + value.as_ref().map_or(0, Vec::len) + 160;
        records.push((position, Travelling { record: record.record, value }));
    }
    // Places whose rows have moved on are held as well.
    let seq = if whole { last.max(after) } else { position };
    Ok(Outgoing { records, cursor: peers::cursor(&peers::runs(index)?, seq) })
}

/// Whether a kind of record shows under a name.
pub(crate) fn is_entry(clear: &Clear) -> bool {
    clear.is_known() && clear.kind == Kind::VALUE
}
