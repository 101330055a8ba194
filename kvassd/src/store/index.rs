//! sled, and nothing but sled: trees, transactions, and what makes a commit durable.
//!
//! All other modules go through here, so that the rules for sled stand in one place: it is opened with panics caught,
//! one transaction is one commit, and a flush is followed by a sync of our own.

use std::any::Any;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use sled::transaction::{TransactionError, TransactionResult, Transactional};
use sled::{Batch, Db, Tree};

use super::Seq;
use super::layout::StorePaths;
use super::row::{RecordRow, State, Tally};
use super::settings::Settings;
use super::subject::Subject;
use super::witness::Mark;
use crate::failpoint::reached;
use crate::keys::{Access, AccountId};
use crate::record::{Clear, RecordError};

/// The format of the whole store. In 1 rows of records had no sum, and those of the log told less of where a record
/// came from.
pub(crate) const FORMAT: u32 = 2;

/// What sled may keep in memory, in bytes: the index of 100,000 short values. Ids are spread evenly, so an index that
/// has outgrown it is read from the file for every record that is merged; it is taken only where there is so much.
const CACHE: u64 = 64 << 20;

/// How long an index that was closed may still be locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why sled did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The disk is full.
    Full,
    /// Anything else, in words for a log or a report.
    Other(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => to.write_str("the disk is full"),
            Self::Other(what) => to.write_str(what),
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => error.into(),
            sled::Error::Corruption { .. } => Self::Other("a part of the index does not match its checksum".into()),
            sled::Error::Unsupported(_) => Self::Other("the index was written in another format".into()),
            _ => Self::Other("the index cannot be read".into()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let nested = || error.to_string().contains("No space left on device");
        match error.kind() {
            io::ErrorKind::StorageFull => Self::Full,
            io::ErrorKind::Other if nested() => Self::Full,
            _ => Self::Other(format!("the index cannot be read or written: {}", system_words(&error.to_string()))),
        }
    }
}

/// What the system said, out of how Rust shows it: sled keeps a fault of its log as that text.
fn system_words(text: &str) -> &str {
    let inner = text.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    inner.map_or(text, |(words, _)| words)
}

/// Runs what may panic inside sled, and turns a panic into a fault.
pub(crate) fn guarded<T>(what: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| Err(panic_fault(&*panic)))
}

fn panic_fault(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or_default(), "the index gave up");
    match text {
        Some(text) if text.contains("No space left on device") || text.contains("StorageFull") => Fault::Full,
        _ => Fault::Other("a part of the index makes no sense".into()),
    }
}

/// The trees of one account.
#[derive(Clone)]
pub(crate) struct Trees {
    /// Record id → record row.
    pub(crate) records: Tree,
    /// Place in the log → record id and through which peer it came.
    pub(crate) log: Tree,
    /// Record id → value row, for values that are no blob.
    pub(crate) values: Tree,
    /// Value hash → record id, for values that are a blob.
    pub(crate) blobs: Tree,
    /// Record id of a link → row of how often it was read here.
    pub(crate) reads: Tree,
}

const TREES: [&str; 5] = ["records", "log", "values", "blobs", "reads"];

impl Trees {
    pub(crate) fn open(db: &Db, account: AccountId) -> Result<Self, Fault> {
        let open = |tree: &str| db.open_tree(tree_name(tree, account));
        let [records, log, values, blobs, reads] = TREES;
        Ok(Self {
            records: open(records)?,
            log: open(log)?,
            values: open(values)?,
            blobs: open(blobs)?,
            reads: open(reads)?,
        })
    }
}

fn tree_name(tree: &str, account: AccountId) -> String {
    format!("{tree}/{}", account.to_hex())
}

/// The changes of one commit.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) records: Batch,
    pub(crate) log: Batch,
    pub(crate) values: Batch,
    pub(crate) blobs: Batch,
    pub(crate) reads: Batch,
    pub(crate) meta: Batch,
}

/// The tree of what is no account's alone, and the keys of its rows.
pub(crate) mod meta {
    use crate::keys::AccountId;

    pub(crate) const TREE: &str = "meta";

    pub(crate) const FORMAT: &[u8] = b"format";
    pub(crate) const STATE: &[u8] = b"state";
    pub(crate) const ACCOUNT: &[u8] = b"account";
    pub(crate) const STORE: &[u8] = b"store";
    pub(crate) const PID: &[u8] = b"pid";
    /// What was set, once more in one row.
    pub(crate) const SETTINGS: &[u8] = b"settings";
    /// The remote as a URL; empty or missing: none.
    pub(crate) const REMOTE: &[u8] = b"remote";
    /// What was set to stand before links, and what the remote says; empty or missing: nothing.
    pub(crate) const PUBLIC_URL: &[u8] = b"public-url";
    /// See [`PUBLIC_URL`].
    pub(crate) const REMOTE_PUBLIC_URL: &[u8] = b"remote-public-url";
    /// Which peer the remote is, and since when.
    pub(crate) const REMOTE_PEER: &[u8] = b"remote-peer";

    pub(crate) fn tally(account: AccountId) -> Vec<u8> {
        [b"tally/", &account.0[..]].concat()
    }

    pub(crate) fn runs(account: AccountId) -> Vec<u8> {
        [b"run/", &account.0[..]].concat()
    }

    pub(crate) fn peers(account: AccountId) -> Vec<u8> {
        [b"peer/", &account.0[..]].concat()
    }

    /// What is known of a peer.
    pub(crate) fn peer(account: AccountId, peer: [u8; 16]) -> Vec<u8> {
        [&peers(account)[..], &peer].concat()
    }

    /// The `number`th opening of the store with this account in force.
    pub(crate) fn run(account: AccountId, number: u32) -> Vec<u8> {
        [&runs(account)[..], &number.to_be_bytes()].concat()
    }
}

/// An account in force: what this store has of its keys, and its trees.
pub(crate) struct Account {
    pub(crate) keys: Access,
    pub(crate) trees: Trees,
}

impl Account {
    /// Reads a row of `records` and verifies it: by its authentication, or on a blind store by its form and its sum.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<(RecordRow, Clear), RecordError> {
        let row = RecordRow::decode(bytes).ok_or(RecordError::Row)?;
        let clear = row.verify(bytes, &self.keys)?;
        Ok((row, clear))
    }

    /// What a verified record is of, as far as the keys tell.
    pub(crate) fn subject(&self, row: &RecordRow, clear: &Clear) -> Result<Subject, RecordError> {
        match self.keys.full() {
            Some(keys) => Subject::open(keys, clear, &row.record),
            None => Ok(Subject::Unknown),
        }
    }
}

/// An open index.
pub(crate) struct Index {
    pub(crate) db: Db,
    pub(crate) meta: Tree,
    pub(crate) account: Account,
    /// A handle of our own on sled's log: sled only logs a failed sync of its own thread.
    log_file: File,
}

/// Opens sled in a directory; whatever goes wrong in there is a fault.
pub(crate) fn open_sled(path: &Path) -> Result<Db, Fault> {
    wait_for(&path.join("db"));
    guarded(|| Ok(sled::Config::new().path(path).cache_capacity(CACHE).open()?))
}

/// Waits until sled's lock on its log is free: the pool of an index that this process has just closed may hold it a
/// little longer, and sled gives up at once. No other process has it, because ours is on the directory.
fn wait_for(log: &Path) {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let is_held = || File::open(log).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    while is_held() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Index {
    pub(crate) fn new(db: Db, paths: &StorePaths, keys: Access) -> Result<Self, Fault> {
        guarded(|| {
            let meta = db.open_tree(meta::TREE)?;
            let trees = Trees::open(&db, keys.account())?;
            let log_file = File::open(paths.db())?;
            Ok(Self { db, meta, account: Account { keys, trees }, log_file })
        })
    }

    /// Applies the changes to an account's trees, all or none. They are durable after [`Index::make_durable`].
    pub(crate) fn apply(&self, trees: &Trees, changes: &Changes) -> Result<(), Fault> {
        guarded(|| {
            let result: TransactionResult<(), ()> =
                (&trees.records, &trees.log, &trees.values, &trees.blobs, &trees.reads, &self.meta).transaction(
                    |(records, log, values, blobs, reads, meta)| {
                        records.apply_batch(&changes.records)?;
                        log.apply_batch(&changes.log)?;
                        values.apply_batch(&changes.values)?;
                        blobs.apply_batch(&changes.blobs)?;
                        reads.apply_batch(&changes.reads)?;
                        meta.apply_batch(&changes.meta)?;
                        Ok(())
                    },
                );
            match result {
                Ok(()) => {
                    reached("index.applied");
                    Ok(())
                }
                Err(TransactionError::Storage(error)) => Err(error.into()),
                Err(TransactionError::Abort(())) => Err(Fault::Other("the index refused a commit".into())),
            }
        })
    }

    /// Makes every change that was applied survive a power cut.
    pub(crate) fn make_durable(&self) -> Result<(), Fault> {
        guarded(|| {
            self.db.flush()?;
            reached("index.flushed");
            self.log_file.sync_data()?;
            reached("index.synced");
            Ok(())
        })
    }

    /// Reads what `meta` holds of the whole store.
    pub(crate) fn state(&self) -> Result<State, Fault> {
        let row = self.meta.get(meta::STATE)?;
        row.and_then(|row| State::decode(&row)).ok_or_else(|| Fault::Other("the index has no state row".into()))
    }

    /// Reads what is set for the whole store; `None` where a part makes no sense.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, Fault> {
        guarded(|| settings(&self.meta))
    }

    /// Reads what `meta` holds of an account.
    pub(crate) fn tally(&self, account: AccountId) -> Result<Tally, Fault> {
        let row = self.meta.get(meta::tally(account))?;
        row.and_then(|row| Tally::decode(&row)).ok_or_else(|| Fault::Other("the account's tally is missing".into()))
    }

    /// Reads the record row of an id.
    pub(crate) fn record(&self, id: crate::record::RecordId) -> Result<Option<sled::IVec>, Fault> {
        Ok(self.account.trees.records.get(id.0)?)
    }

    /// The number that the account's next run takes.
    pub(crate) fn next_run(&self) -> Result<u32, Fault> {
        let last = self.meta.scan_prefix(meta::runs(self.account.keys.account())).next_back().transpose()?;
        let number = last.and_then(|(key, _)| key.last_chunk::<4>().map(|number| u32::from_be_bytes(*number)));
        Ok(number.map_or(0, |number| number + 1))
    }

    /// Removes the trees of every account but the one in force: what a change of key left behind.
    pub(crate) fn drop_other_accounts(&self) -> Result<(), Fault> {
        let account = self.account.keys.account();
        let keep: Vec<String> = TREES.iter().map(|tree| tree_name(tree, account)).collect();
        let names = self.db.tree_names();
        let stale = names.iter().filter(|name| {
            let ours = TREES.iter().any(|tree| name.starts_with(format!("{tree}/").as_bytes()));
            ours && !keep.iter().any(|keep| keep.as_bytes() == &name[..])
        });
        guarded(|| {
            for name in stale {
                self.db.drop_tree(name)?;
                reached("tree.dropped");
            }
            for prefix in [&b"tally/"[..], b"run/", b"peer/"] {
                for row in self.meta.scan_prefix(prefix) {
                    let (key, _) = row?;
                    if !key[prefix.len()..].starts_with(&account.0) {
                        self.meta.remove(key)?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Reads what is set from the rows that each of it has.
pub(crate) fn settings(meta: &Tree) -> Result<Option<Settings>, Fault> {
    let pid = meta.get(meta::PID)?.and_then(|row| <[u8; 4]>::try_from(&row[..]).ok()).map(u32::from_be_bytes);
    let (remote, public_url) = (text(meta, meta::REMOTE)?, text(meta, meta::PUBLIC_URL)?);
    Ok(pid.filter(|pid| *pid > 0).map(|pid| Settings { pid, remote, public_url }))
}

/// Reads a text; one that is absent is empty.
pub(crate) fn text(meta: &Tree, key: &[u8]) -> Result<String, Fault> {
    Ok(meta.get(key)?.map_or(String::new(), |row| String::from_utf8_lossy(&row).into_owned()))
}

/// The changes that write a run: an opening of the store, with the place in the log where it begins.
pub(crate) fn write_run(batch: &mut Batch, account: AccountId, number: u32, run: [u8; 16], first: Seq) {
    batch.insert(meta::run(account, number), [&run[..], &first.0.to_be_bytes()].concat());
}

/// The changes that every commit to an account writes.
pub(crate) fn write_progress(batch: &mut Batch, state: State, account: AccountId, tally: Tally) {
    batch.insert(meta::STATE, &state.encode()[..]);
    batch.insert(meta::tally(account), &tally.encode()[..]);
}

/// What the witness has to say after a commit.
pub(crate) fn mark(run: [u8; 16], state: State, account: AccountId, tally: &Tally) -> Mark {
    Mark { run, commit: state.commit, account, digest: tally.digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_broken_disk_is_told_in_its_words_alone() {
        let system = io::Error::from_raw_os_error(nix::libc::EIO);
        // So sled keeps a fault of its log for all who come after it.
        let kept = io::Error::other(format!("{system:?}"));
        for error in [system, kept] {
            let told = Fault::from(error).to_string();
            assert!(told.starts_with("the index cannot be read or written: Input/output error"), "{told}");
        }
        let full = io::Error::other(format!("{:?}", io::Error::from_raw_os_error(nix::libc::ENOSPC)));
        assert!(matches!(Fault::from(full), Fault::Full));
        let other = io::Error::other("something else");
        assert!(Fault::from(other).to_string().ends_with(": something else"));
    }
}
