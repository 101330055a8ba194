//! A new, empty store: made under another name and renamed when it is whole and durable.
//!
//! The key is renamed into its place last, so a key without a store, or a store without its format row, is damage and
//! never a new store.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::index::{self, FORMAT, Fault, meta};
use super::layout::{self, Layout, StorePaths};
use super::row::{State, Tally};
use super::settings::Settings;
use super::witness::Witness;
use super::{OpenError, key_file};
use crate::failpoint::reached;
use crate::keys::{AccountId, Key};
use crate::random::{self, Random};

/// What a new store begins with.
pub(crate) struct Seed {
    pub(crate) account: AccountId,
    pub(crate) store: [u8; 16],
    pub(crate) settings: Settings,
    pub(crate) counter: u64,
}

impl Seed {
    /// A store with an id and a process id that no other has.
    pub(crate) fn random(account: AccountId, random: &Random) -> Result<Self, OpenError> {
        let settings = Settings { pid: random_pid(random)?, ..Settings::default() };
        Ok(Self { account, store: random_store(random)?, settings, counter: 0 })
    }
}

/// An id that no other store has.
pub(crate) fn random_store(random: &Random) -> Result<[u8; 16], random::Error> {
    random.bytes()
}

/// A process id that hardly any other store has, at least 1.
pub(crate) fn random_pid(random: &Random) -> Result<u32, random::Error> {
    Ok(u32::from_be_bytes(random.bytes()?).max(1))
}

/// Makes the store of a data directory that has none.
pub(crate) fn create(layout: &Layout, random: &Random, key: &Key) -> Result<(), OpenError> {
    let at = layout.store_new();
    key_file::write(&layout.key_new(), &[key]).map_err(OpenError::io("write", &layout.key_new()))?;
    reached("create.key");
    layout::remove_directory(&at.0).map_err(OpenError::io("remove", &at.0))?;
    let seed = Seed::random(key.access().account(), random)?;
    let db = begin(&at, &seed).map_err(|fault| failed(layout, fault))?;
    drop(db);
    reached("create.begun");
    seal_off(&at).map_err(OpenError::io("make", &at.0))?;
    reached("create.sealed");
    let placed = layout::make_directory(&layout.blobs())
        .and_then(|()| fs::rename(&at.0, layout.store().0))
        .inspect(|()| reached("create.placed"))
        .and_then(|()| layout::sync_directory(layout.root()))
        .and_then(|()| fs::rename(layout.key_new(), layout.key()))
        .inspect(|()| reached("create.keyed"))
        .and_then(|()| layout::sync_directory(layout.root()));
    placed.map_err(OpenError::io("make the store in", layout.root()))
}

/// Opens a new index with nothing but its seed in it, and its witness.
pub(crate) fn begin(at: &StorePaths, seed: &Seed) -> Result<sled::Db, Fault> {
    layout::make_directory(&at.0)?;
    layout::make_directory(&at.sled())?;
    let db = index::open_sled(&at.sled())?;
    let state = State { commit: 1, counter: seed.counter };
    let tally = Tally::default();
    index::guarded(|| {
        let mut batch = sled::Batch::default();
        batch.insert(meta::FORMAT, &FORMAT.to_be_bytes()[..]);
        batch.insert(meta::ACCOUNT, &seed.account.0[..]);
        batch.insert(meta::STORE, &seed.store[..]);
        batch.insert(meta::PID, &seed.settings.pid.to_be_bytes()[..]);
        batch.insert(meta::REMOTE, seed.settings.remote.as_bytes());
        batch.insert(meta::PUBLIC_URL, seed.settings.public_url.as_bytes());
        seed.settings.write(&mut batch, state.commit, seed.account);
        index::write_progress(&mut batch, state, seed.account, tally);
        db.open_tree(meta::TREE)?.apply_batch(batch)?;
        db.flush()?;
        Ok(())
    })?;
    reached("create.seeded");
    Witness::create(&at.witness(), index::mark([0; 16], state, seed.account, &tally))?;
    Ok(db)
}

/// Makes a closed store directory survive a power cut, file by file: sled syncs no directory, and not its `conf`.
pub(crate) fn seal_off(at: &StorePaths) -> io::Result<()> {
    sync_tree(&at.0)
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    layout::sync_directory(path)
}

/// A fault of sled at an opening, as the error that it is there.
pub(crate) fn failed(layout: &Layout, fault: Fault) -> OpenError {
    match fault {
        Fault::Full => OpenError::DiskFull { directory: layout.root().to_path_buf() },
        Fault::Other(what) => OpenError::damaged(layout.root(), what),
    }
}
