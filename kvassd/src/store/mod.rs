//! The store: all that a data directory holds, and the only place that names sled.
//!
//! Small things lie in the index (sled), large values in files beside it. One thread commits (`commit`); what it has
//! answered survives a power cut. `open` decides whether an index is whole, `pass` verifies every record after a start,
//! `repair` makes a new store of what verifies, `rekey` and `switch` change the key. A store that was given a server key
//! alone is blind: it does all of this but reading and writing entries. docs/architecture.md has the picture,
//! docs/format.md the bytes.
//!
//! Every method of [`Store`] blocks; none may be called on an async thread.

mod check;
mod commit;
mod create;
mod differ;
mod download;
mod downloads;
mod error;
mod index;
mod jobs;
mod key_file;
mod labels;
mod layout;
mod merge;
mod names;
mod open;
mod pass;
mod peers;
mod places;
mod plan;
pub(crate) mod public_url;
mod read;
mod rekey;
mod remote;
mod repair;
mod rewrite;
pub(crate) mod row;
mod settings;
mod shares;
mod space;
mod subject;
mod surroundings;
mod switch;
mod value_reader;
mod value_writer;
mod witness;

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use check::{Checked, Finding};
pub use differ::Difference;
pub use download::{BlobFile, Download, DownloadError, Missing};
pub use error::{OpenError, ReadError, WriteError};
pub use merge::{Merged, Outgoing, Travelling};
pub use peers::{Cursor, Opening, Peer, RunId, StoreId};
pub use places::Places;
pub use public_url::PublicUrl;
pub use rekey::Rekeyed;
pub use remote::Waiting;
pub use repair::{Repaired, repair};
pub use shares::{Gone, Linked, Reads, Share, ShareError, ShareOptions};
pub use space::RESERVE_MIN;
pub use surroundings::{Disk, Surroundings};
pub use value_reader::ValueReader;
pub use value_writer::{NewValue, ValueWriter};

use crate::keys::{AccountId, EncryptionKey, Key};
use crate::logs::Seldom;
use crate::record::ValueHash;
use commit::{Answer, Committer, Job};
use downloads::Downloads;
use index::{Fault, Index};
use jobs::{Jobs, spawn};
use labels::Labels;
use layout::Layout;
use names::Names;
use pass::Turns;
use peers::Peers;
use plan::Change as Write;
use settings::Settings;
use space::Space;

/// How many jobs may wait for the committer; who comes later waits to be let in.
const JOBS: usize = 512;

/// Entries that are removed by one commit of a removal by prefix.
const REMOVE_BATCH: usize = 256;

/// Limits that the daemon sets.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The greatest value that a local write may store, in bytes.
    pub value_max: u64,
    /// Bytes of the disk that ordinary writes leave free.
    pub reserve: u64,
}

/// A place in the log of an account; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Seq(pub u64);

/// What is known of an entry without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key that the user gave it.
    pub name: String,
    /// Bytes of the value.
    pub size: u64,
    /// When it was written, in microseconds since 1970.
    pub time_us: u64,
    /// When it expires, likewise; 0 is never.
    pub expiry_us: u64,
}

/// When an imported entry is stored: where value or expiry differ, unless what is here is newer.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// When the imported entry was written, in microseconds since 1970.
    pub time_us: u64,
    /// Stores it though what is here is newer.
    pub force: bool,
    /// Stores nothing.
    pub dry_run: bool,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Stored,
    /// What was to be stored is here already.
    Unchanged,
    /// What is here is newer than what was to be imported.
    KeptNewer,
    /// What was to be removed is not here.
    Missing,
}

/// A place in the order of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    account: AccountId,
    seq: Seq,
}

impl Position {
    /// The position as bytes that mean something only to this store.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.account.0[..], &self.seq.0.to_be_bytes()].concat()
    }

    /// Reads a position; `None` where the bytes are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, seq) = bytes.split_first_chunk::<16>()?;
        let seq = <[u8; 8]>::try_from(seq).ok()?;
        Some(Self { account: AccountId(*account), seq: Seq(u64::from_be_bytes(seq)) })
    }
}

/// An entry's newest state, as it appears in the order of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the entry is gone.
    pub removed: bool,
    /// The entry; its size is 0 where it was removed.
    pub entry: Entry,
    /// The place after this change.
    pub position: Position,
}

/// What `status` shows of the store.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether the store was given a server key alone, so that entries are counted and not known.
    pub blind: bool,
    /// How many entries there are; on a blind store expired ones count.
    pub keys: u64,
    /// How many records there are, those of removals included.
    pub records: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Bytes that index and values take on the disk.
    pub disk_bytes: u64,
    /// What people compare to see that they use the same key.
    pub fingerprint: String,
    /// The process id that breaks ties between writers.
    pub pid: u32,
    /// Whether the pass over all records after the start has ended well.
    pub verified: bool,
}

/// What reader, pass and committer share.
struct Shared {
    layout: Layout,
    options: Options,
    surroundings: Surroundings,
    space: Space,
    /// `None` while the index waits for space, and after the end.
    index: RwLock<Option<Index>>,
    names: Names,
    labels: Labels,
    pass: Turns,
    commits: watch::Sender<Position>,
    pid: AtomicU32,
    key: RwLock<Key>,
    /// Records of peers that did not verify.
    refused: AtomicU64,
    run: RunId,
    peers: Mutex<Peers>,
    /// Changes with what is known of peers.
    peers_changed: watch::Sender<()>,
    downloads: Downloads,
    remote: watch::Sender<String>,
    public_url: watch::Sender<PublicUrl>,
    seldom: Seldom,
}

impl Shared {
    /// Reads from the index. A panic of sled is a fault, never the caller's.
    fn read_index<T>(&self, read: impl FnOnce(&Index) -> Result<T, Fault>) -> Result<T, Fault> {
        let slot = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let index = slot.as_ref().ok_or(Fault::Full)?;
        index::guarded(|| read(index))
    }

    /// Whether the index is open, and does not wait for space.
    fn is_open(&self) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn key(&self) -> Key {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_key(&self, key: Key) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of peers, and wakes those who wait for that.
    fn change_peers(&self, change: impl FnOnce(&mut Peers)) {
        change(&mut self.peers());
        self.peers_changed.send_replace(());
    }

    fn now_us(&self) -> u64 {
        self.surroundings.clock.now_us()
    }

    fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    fn settings(&self) -> Settings {
        let (remote, public_url) = (self.remote.borrow().clone(), self.public_url.borrow().own.clone());
        Settings { pid: self.pid(), remote, public_url }
    }

    fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }
}

/// An open store; a cheap clone of shared state.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: Jobs,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Store {
    /// Opens the store in a directory whose lock the caller holds, and makes one where there never was any. `doing` is
    /// told, in words for a person, what takes long.
    ///
    /// # Errors
    /// Damage, a newer format, a full disk, or what the system refuses. Nothing is changed then that a repair needs.
    pub fn open(directory: &Path, options: Options, doing: &dyn Fn(&str)) -> Result<Self, OpenError> {
        Self::open_in(directory, options, Surroundings::system(), doing)
    }

    /// Makes a store with a given key where there never was any; one that is there stays as it is.
    ///
    /// # Errors
    /// A full disk, or what the system refuses.
    pub fn make(directory: &Path, key: &Key) -> Result<(), OpenError> {
        open::make(&Layout::new(directory), &Surroundings::system().random, Some(key), &|_| {})
    }

    /// Opens the store as [`Store::open`] does, in other surroundings than the system's.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in(
        directory: &Path,
        options: Options,
        surroundings: Surroundings,
        doing: &dyn Fn(&str),
    ) -> Result<Self, OpenError> {
        let layout = Layout::new(directory);
        let space = Space::new(layout.clone(), options.reserve, surroundings.disk.clone());
        doing("opening the store");
        let opened = open::open(&layout, &space, &surroundings.random, doing)?;
        let account = opened.index.account.keys.account();
        let (jobs, queue) = sync_channel(JOBS);
        let blobs = layout.blobs();
        let shared = Arc::new(Shared {
            layout,
            options,
            surroundings,
            space,
            names: Names::default(),
            labels: Labels::default(),
            pass: Turns::new(opened.tally.digest),
            commits: watch::Sender::new(Position { account, seq: opened.tally.last }),
            pid: AtomicU32::new(opened.pid),
            run: RunId(opened.run),
            peers: Mutex::new(opened.peers),
            peers_changed: watch::Sender::new(()),
            downloads: Downloads::new(&blobs, opened.files.begun),
            remote: watch::Sender::new(opened.remote),
            public_url: watch::Sender::new(opened.public_url),
            seldom: Seldom::default(),
            key: RwLock::new(opened.key),
            refused: AtomicU64::new(0),
            index: RwLock::new(Some(opened.index)),
        });
        let committer = Committer {
            shared: Arc::clone(&shared),
            jobs: queue,
            witness: opened.witness,
            run: opened.run,
            state: opened.state,
            tally: opened.tally,
            rekey: None,
            forked_us: None,
            next: None,
        };
        Self::start(shared, jobs, committer, opened.files.whole)
    }

    /// Starts committer and pass; without threads, the pass is over when this returns.
    fn start(
        shared: Arc<Shared>,
        jobs: SyncSender<Job>,
        committer: Committer,
        files: Vec<ValueHash>,
    ) -> Result<Self, OpenError> {
        let mut threads = Vec::new();
        let directory = shared.layout.root();
        let jobs = if shared.surroundings.threads {
            threads.push(spawn("commit", directory, move || committer.run())?);
            Jobs { queue: jobs, here: None }
        } else {
            Jobs { queue: jobs, here: Some(Arc::new(Mutex::new(Some(committer)))) }
        };
        let (passing, sweeping) = (Arc::clone(&shared), jobs.clone());
        let pass = move || pass::run(&passing, &sweeping, files);
        if shared.surroundings.threads {
            threads.push(spawn("pass", directory, pass)?);
        } else {
            pass();
        }
        Ok(Self { shared, jobs, threads: Arc::new(Mutex::new(threads)) })
    }

    /// What the store was opened in, for those who work on it.
    #[must_use]
    pub fn surroundings(&self) -> &Surroundings {
        &self.shared.surroundings
    }

    /// Begins a new value. `size` is its size in bytes where that is known, so that a hopeless one is refused at once.
    ///
    /// # Errors
    /// A value over the limit, a full disk, or a blind store.
    pub fn writer(&self, size: Option<u64>) -> Result<ValueWriter, WriteError> {
        self.readable()?;
        let Shared { layout, space, options, surroundings, .. } = &*self.shared;
        ValueWriter::new(layout.clone(), space.clone(), surroundings.random.clone(), options.value_max, size)
    }

    /// Stores a value under a name; it is durable when this returns.
    ///
    /// # Errors
    /// A name that is no key, a full disk, or a damaged store; nothing is stored then.
    pub fn set(&self, name: &str, value: NewValue, expiry_us: u64) -> Result<(), WriteError> {
        kvass_proto::key::check(name)?;
        self.wait_where_gone(name)?;
        self.submit(vec![Write::Set { name: name.to_owned(), value, expiry_us, condition: None }]).map(drop)
    }

    /// Stores an imported entry under a condition.
    ///
    /// # Errors
    /// As [`Store::set`]; and what is here cannot be read, so that it cannot be compared.
    pub fn import(
        &self,
        name: &str,
        value: NewValue,
        expiry_us: u64,
        condition: Condition,
    ) -> Result<Outcome, WriteError> {
        kvass_proto::key::check(name)?;
        match self.compare(name, &value, expiry_us)? {
            Some((_, true)) => return Ok(Outcome::Unchanged),
            Some((entry, false)) if condition.dry_run && !condition.force && entry.time_us > condition.time_us => {
                return Ok(Outcome::KeptNewer);
            }
            _ if condition.dry_run => return Ok(Outcome::Stored),
            _ => {}
        }
        self.wait_where_gone(name)?;
        let change = Write::Set { name: name.to_owned(), value, expiry_us, condition: Some(condition) };
        Ok(self.submit(vec![change])?.first().copied().unwrap_or(Outcome::Stored))
    }

    /// Removes entries in one commit, and returns those that did not exist.
    ///
    /// # Errors
    /// A disk so full that not even the reserve helps, or a damaged store; nothing is removed then.
    pub fn remove(&self, names: Vec<String>) -> Result<Vec<String>, WriteError> {
        self.readable()?;
        // The links of an entry go with it, and only the pass finds all of them.
        self.shared.names.wait()?;
        let changes = names.iter().map(|name| Write::Remove { name: name.clone() }).collect();
        let outcomes = self.submit(changes)?;
        let missing = names.into_iter().zip(outcomes).filter(|(_, outcome)| *outcome == Outcome::Missing);
        Ok(missing.map(|(name, _)| name).collect())
    }

    /// Removes every entry whose name begins with `prefix`, a batch a commit, and returns how many there were.
    ///
    /// # Errors
    /// As [`Store::remove`]; what earlier batches removed stays removed.
    pub fn remove_prefix(&self, prefix: &str) -> Result<u64, WriteError> {
        self.readable()?;
        self.shared.names.wait()?;
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.shared.names.page(prefix, after.as_deref(), false, REMOVE_BATCH, self.shared.now_us());
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            let changes = page.into_iter().map(|entry| Write::Remove { name: entry.name }).collect();
            let outcomes = self.submit(changes)?;
            count += outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count() as u64;
        }
        // What has expired is on no page, and has its links still.
        for names in self.shared.labels.names(prefix).chunks(REMOVE_BATCH) {
            self.submit(names.iter().map(|name| Write::Remove { name: name.clone() }).collect())?;
        }
        Ok(count)
    }

    /// Watches commits: the newest position that is durable.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<Position> {
        self.shared.commits.subscribe()
    }

    /// The key in force.
    #[must_use]
    pub fn key(&self) -> Key {
        self.shared.key()
    }

    /// Puts another encryption key in force, a random one for `None`, where no entry is lost by it.
    ///
    /// # Errors
    /// As [`Store::change_key`].
    pub fn set_key(&self, key: Option<&[u8; 32]>) -> Result<(), WriteError> {
        let key = match key {
            Some(bytes) => EncryptionKey::new(*bytes),
            None => EncryptionKey::random(&self.shared.surroundings.random)?,
        };
        self.change_key(Key::Encryption(key), false).map(drop)
    }

    /// Puts another key in force. From one encryption key to another, every entry is kept and sealed anew. With a
    /// server key nothing can be read here any more; records of the same account stay. To or from the server key of
    /// another account, the store begins empty. A blind store that gets its account's encryption key keeps what
    /// verifies.
    ///
    /// # Errors
    /// What takes something away and is not `confirmed`, a record that cannot be sealed anew, a full disk, or a damaged
    /// store; the old key stays in force then.
    pub fn change_key(&self, key: Key, confirmed: bool) -> Result<Rekeyed, WriteError> {
        self.shared.names.wait()?;
        self.ask(|answer| Job::SetKey { key, remote: None, confirmed, answer })
    }

    /// Puts another encryption key and another remote in force, both or none. Every entry is kept and sealed anew.
    ///
    /// # Errors
    /// As [`Store::set_key`]; the old ones stay in force then.
    pub fn join(&self, key: EncryptionKey, remote: String) -> Result<(), WriteError> {
        self.shared.names.wait()?;
        let rekeyed = self.ask(|answer| Job::SetKey {
            key: Key::Encryption(key),
            remote: Some(remote),
            confirmed: false,
            answer,
        });
        rekeyed.map(drop)
    }

    /// Sets the process id that breaks ties between writers, at least 1.
    ///
    /// # Errors
    /// Zero, or a full disk.
    pub fn set_pid(&self, pid: u32) -> Result<(), WriteError> {
        if pid == 0 {
            return Err(WriteError::Refused("a process id is 1 to 4294967295".into()));
        }
        self.ask(|answer| Job::SetPid { pid, answer })
    }

    /// Whether the committer answers, or waits for space on a full disk. While it does neither, this does not return.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let (answer, wait) = sync_channel(1);
        if self.jobs.send(Job::Ping(answer)).is_err() {
            return false;
        }
        // One that waits for space answers nobody until there is some.
        while self.shared.is_open() {
            match wait.recv_timeout(commit::LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                answered => return answered.is_ok(),
            }
        }
        true
    }

    /// Ends: what was taken is answered, all is flushed, the files are closed.
    pub fn close(self) {
        let _ = self.jobs.send(Job::Close);
        self.shared.names.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn submit(&self, changes: Vec<Write>) -> Result<Vec<Outcome>, WriteError> {
        self.ask(|answer| Job::Write { changes, answer })
    }

    fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, WriteError> {
        let (answer, wait): (_, Receiver<_>) = sync_channel(1);
        self.jobs.send(job(answer))?;
        wait.recv().unwrap_or(Err(WriteError::Closed))
    }
}
