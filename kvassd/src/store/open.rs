//! Opening a store: what is checked before anybody is served, in order.
//!
//! An index that is behind its witness, that does not open, or whose parts are missing is never used as if it were
//! whole, and never replaced by an empty one.

use std::fs;
use std::path::Path;

use super::create::{self, failed};
use super::index::{self, FORMAT, Fault, Index, meta};
use super::layout::{self, Layout, StorePaths};
use super::peers::Peers;
use super::row::{State, Tally};
use super::settings::Settings;
use super::space::Space;
use super::witness::{Mark, Witness};
use super::{OpenError, PublicUrl, Seq, key_file, pass, rewrite, space};
use crate::failpoint::reached;
use crate::keys::{AccountId, EncryptionKey, Key};
use crate::random::Random;

/// The greatest log of sled that is copied before it is opened, in bytes: about 25 ms of a start.
const COPY_MAX: u64 = 64 << 20;

/// A store that was opened and checked, and whose run is written.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) key: Key,
    pub(crate) witness: Witness,
    pub(crate) run: [u8; 16],
    pub(crate) state: State,
    pub(crate) tally: Tally,
    pub(crate) pid: u32,
    pub(crate) peers: Peers,
    pub(crate) remote: String,
    pub(crate) public_url: PublicUrl,
    /// Files under `blobs/`.
    pub(crate) files: pass::Files,
}

/// Opens the store of a data directory, or makes one where there never was any.
pub(crate) fn open(layout: &Layout, space: &Space, random: &Random, doing: &dyn Fn(&str)) -> Result<Opened, OpenError> {
    make(layout, random, None, doing)?;
    let opened = match open_existing(layout, random, doing) {
        Err(OpenError::DiskFull { .. }) => {
            space.drop_ballast().map_err(OpenError::io("remove", &layout.ballast()))?;
            open_existing(layout, random, doing)?
        }
        other => other?,
    };
    space.lay_ballast();
    Ok(opened)
}

/// Makes a store where there never was any, with a random key where none is given.
pub(crate) fn make(layout: &Layout, random: &Random, key: Option<&Key>, doing: &dyn Fn(&str)) -> Result<(), OpenError> {
    settle_directories(layout).map_err(OpenError::io("put in order", layout.root()))?;
    if layout.store().0.exists() || layout.key().exists() {
        return Ok(());
    }
    doing("making a new store");
    match key {
        Some(key) => create::create(layout, random, key),
        None => create::create(layout, random, &Key::Encryption(EncryptionKey::random(random)?)),
    }
}

fn open_existing(layout: &Layout, random: &Random, doing: &dyn Fn(&str)) -> Result<Opened, OpenError> {
    let (index, key, mark, witness) = open_checked(layout)?;
    let (index, witness) = if rewrite::has_outgrown(&index) {
        doing("rewriting the store, which has outgrown its content");
        drop(witness);
        rewrite::rewrite(layout, index, mark)?;
        let (index, _, _, witness) = open_checked(layout)?;
        (index, witness)
    } else {
        (index, witness)
    };
    finish(layout, index, key, witness, random.bytes()?)
}

/// Opens the index and compares it with its witness.
fn open_checked(layout: &Layout) -> Result<(Index, Key, Mark, Witness), OpenError> {
    let damaged = |what: &str| OpenError::damaged(layout.root(), what);
    let paths = layout.store();
    for (path, what) in
        [(&paths.0, "its index, store, is missing"), (&paths.db(), "its index, store/sled/db, is missing")]
    {
        if !path.exists() {
            return Err(damaged(what));
        }
    }
    let (witness, mark) =
        Witness::open(&paths.witness()).map_err(|_| damaged("its witness, store/witness, is missing"))?;
    let mark = mark.ok_or_else(|| damaged("its witness, store/witness, does not verify"))?;
    let keys = read_keys(layout)?;
    if !layout.blobs().exists() {
        layout::make_directory(&layout.blobs())
            .and_then(|()| layout::sync_directory(layout.root()))
            .map_err(OpenError::io("make", &layout.blobs()))?;
    }
    keep_log(&paths).map_err(OpenError::io("open", &paths.db()))?;
    reached("open.kept");
    let opened = match open_index(&paths, &keys, &mark) {
        Err(Trouble::Fault(Fault::Other(first))) => match retry_without_snapshots(layout, &keys, &mark)? {
            Some(opened) => Ok(opened),
            None => return Err(damaged(&first)),
        },
        other => other.map_err(|trouble| trouble.into_error(layout)),
    };
    reached("open.opened");
    let (index, key) = opened?;
    layout::remove_file(&paths.db_before()).map_err(OpenError::io("remove", &paths.db_before()))?;
    reached("open.cleared");
    Ok((index, key, mark, witness))
}

/// Copies sled's log before sled sees it: where a part does not verify, sled wipes what was written after that part,
/// and a repair could not find it any more. The copy goes once the index is found to be whole, and an older one stays.
///
/// Without room it is done without: a store must be readable on a full disk. So it is for a log over [`COPY_MAX`].
fn keep_log(paths: &StorePaths) -> std::io::Result<()> {
    // Also for what may be wrong with the file itself, such as its owner: that is no damage.
    let mut log = fs::File::options().read(true).write(true).open(paths.db())?;
    let (to, part) = (paths.db_before(), paths.0.join("db.part"));
    let length = log.metadata()?.len();
    layout::remove_file(&part)?;
    if to.exists() || length > COPY_MAX || space::available(&paths.0)? < length + space::RESERVE_MIN {
        return Ok(());
    }
    let copied = layout::create_file(&part)
        .and_then(|mut part| std::io::copy(&mut log, &mut part))
        .inspect(|_| reached("open.copied"))
        .and_then(|_| fs::rename(&part, &to));
    if let Err(error) = copied {
        tracing::warn!(%error, "the index is opened without a copy of its log");
        let _ = layout::remove_file(&part);
    }
    Ok(())
}

fn read_keys(layout: &Layout) -> Result<Vec<Key>, OpenError> {
    match key_file::read(&layout.key()) {
        Ok(keys) => keys.ok_or_else(|| OpenError::key(layout.root(), "holds no key")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::key(layout.root(), "is missing")),
        Err(error) => Err(OpenError::io("read", &layout.key())(error)),
    }
}

/// Why an index is not used.
enum Trouble {
    Fault(Fault),
    OtherFormat(u32),
    OtherKey,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Trouble {
    fn into_error(self, layout: &Layout) -> OpenError {
        match self {
            Self::Fault(fault) => failed(layout, fault),
            Self::OtherKey => OpenError::key(layout.root(), "holds the key of another store"),
            Self::OtherFormat(found) => {
                let (directory, known) = (layout.root().to_path_buf(), FORMAT);
                match found > known {
                    true => OpenError::NewerFormat { directory, found, known },
                    false => OpenError::OlderFormat { directory, found, known },
                }
            }
        }
    }
}

/// Opens sled and reads what says whether the index is the one that the witness saw.
fn open_index(paths: &StorePaths, keys: &[Key], mark: &Mark) -> Result<(Index, Key), Trouble> {
    let wrong = |what: &str| Trouble::Fault(Fault::Other(what.into()));
    remove_half_written_snapshots(&paths.sled())?;
    let db = index::open_sled(&paths.sled())?;
    let row = |key: &[u8]| -> Result<Option<sled::IVec>, Fault> {
        index::guarded(|| Ok(db.open_tree(meta::TREE)?.get(key)?))
    };
    let format = row(meta::FORMAT)?.and_then(|row| <[u8; 4]>::try_from(&row[..]).ok()).map(u32::from_be_bytes);
    match format {
        Some(FORMAT) => {}
        Some(other) => return Err(Trouble::OtherFormat(other)),
        None => return Err(wrong("its index has no format row")),
    }
    let account = row(meta::ACCOUNT)?.and_then(|row| <[u8; 16]>::try_from(&row[..]).ok()).map(AccountId);
    let account = account.ok_or_else(|| wrong("its index names no account"))?;
    let key = keys.iter().find(|key| key.access().account() == account);
    // A key that the witness knows is right, so an index that does not is one from before a change of key.
    let key = key.ok_or_else(|| match keys.iter().any(|key| key.access().account() == mark.account) {
        true => wrong("its index is older than its key"),
        false => Trouble::OtherKey,
    })?;
    let key = key.clone();
    let index = Index::new(db, paths, key.access())?;
    let (state, tally) = (index.state()?, index.tally(account)?);
    if mark.commit > state.commit {
        return Err(wrong("its index is older than the last acknowledged write"));
    }
    if mark.commit == state.commit && (mark.account, mark.digest) != (account, tally.digest) {
        return Err(wrong("its index is not the one that the last commit left"));
    }
    Ok((index, key))
}

/// Opens the index again inside a running daemon, after sled met a full disk.
pub(crate) fn reopen(layout: &Layout) -> Result<(Index, Key), Fault> {
    let other = |what: &str| Fault::Other(what.into());
    let paths = layout.store();
    let (_, mark) = Witness::open(&paths.witness())?;
    let mark = mark.ok_or_else(|| other("the witness does not verify"))?;
    let keys = key_file::read(&layout.key())?.ok_or_else(|| other("the key file holds no key"))?;
    open_index(&paths, &keys, &mark).map_err(|trouble| match trouble {
        Trouble::Fault(fault) => fault,
        Trouble::OtherFormat(_) => other("the index is of another format"),
        Trouble::OtherKey => other("the key file holds the key of another store"),
    })
}

/// Tries a copy of the index without sled's snapshots, which are only a shortcut; takes it where it is whole.
fn retry_without_snapshots(layout: &Layout, keys: &[Key], mark: &Mark) -> Result<Option<(Index, Key)>, OpenError> {
    let (from, to) = (layout.store(), layout.store_new());
    let snapshots = files(&from.sled(), "snap.").map_err(OpenError::io("read", &from.sled()))?;
    if snapshots.is_empty() {
        return Ok(None);
    }
    tracing::warn!("the index does not open; trying a copy without snapshots");
    copy_without_snapshots(&from, &to)
        .and_then(|()| fs::copy(from.witness(), to.witness()))
        .map_err(OpenError::io("copy the index to", &to.0))?;
    match open_index(&to, keys, mark) {
        Ok((index, _)) => drop(index),
        Err(_) => {
            layout::remove_directory(&to.0).map_err(OpenError::io("remove", &to.0))?;
            return Ok(None);
        }
    }
    create::seal_off(&to)
        .and_then(|()| replace_store(layout))
        .map_err(OpenError::io("replace the index in", layout.root()))?;
    open_index(&layout.store(), keys, mark).map(Some).map_err(|trouble| trouble.into_error(layout))
}

/// Copies what sled needs, the log as it was before sled wiped any of it.
pub(crate) fn copy_without_snapshots(from: &StorePaths, to: &StorePaths) -> std::io::Result<()> {
    layout::remove_directory(&to.0)?;
    layout::make_directory(&to.0)?;
    layout::make_directory(&to.sled())?;
    layout::make_directory(&to.sled().join("blobs"))?;
    fs::copy(from.sled().join("conf"), to.sled().join("conf"))?;
    let log = [from.db_before(), from.db()].into_iter().find(|log| log.exists()).unwrap_or(from.db());
    fs::copy(log, to.db()).map(drop)
}

/// Puts a whole and durable `store.new` in the place of the store. A crash in between is finished by the next opening.
pub(crate) fn replace_store(layout: &Layout) -> std::io::Result<()> {
    let sync = || layout::sync_directory(layout.root());
    layout::remove_directory(&layout.store_old())?;
    fs::rename(layout.store_new().0, layout.store_next().0)?;
    reached("replace.next");
    sync()?;
    fs::rename(layout.store().0, layout.store_old())?;
    reached("replace.old");
    sync()?;
    fs::rename(layout.store_next().0, layout.store().0)?;
    reached("replace.placed");
    sync()?;
    layout::remove_directory(&layout.store_old()).inspect(|()| reached("replace.cleared"))
}

/// Finishes or undoes what a crash interrupted.
pub(crate) fn settle_directories(layout: &Layout) -> std::io::Result<()> {
    let (store, next) = (layout.store().0, layout.store_next().0);
    // They hold keys, among them such as were never put in force.
    layout::remove_unfinished(&layout.key())?;
    layout::remove_unfinished(&layout.key_new())?;
    if !store.exists() && next.exists() {
        fs::rename(&next, &store)?;
        layout::sync_directory(layout.root())?;
    }
    if store.exists() {
        layout::remove_directory(&next)?;
        layout::remove_directory(&layout.store_old())?;
        if layout.key().exists() {
            layout::remove_file(&layout.key_new())?;
        } else if layout.key_new().exists() {
            fs::rename(layout.key_new(), layout.key())?;
            layout::sync_directory(layout.root())?;
        }
    }
    layout::remove_directory(&layout.store_new().0)
}

/// sled refuses to open beside a snapshot that it had not finished when it died.
fn remove_half_written_snapshots(sled: &Path) -> Result<(), Fault> {
    for path in files(sled, "snap.")? {
        if path.extension().is_some_and(|extension| extension == "generating") {
            layout::remove_file(&path)?;
        }
    }
    Ok(())
}

fn files(directory: &Path, prefix: &str) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Cleans up after an earlier life and writes the run of this one, durably.
fn finish(layout: &Layout, index: Index, key: Key, witness: Witness, run: [u8; 16]) -> Result<Opened, OpenError> {
    let account = index.account.keys.account();
    let failed = |fault| failed(layout, fault);
    index.drop_other_accounts().map_err(failed)?;
    let (state, tally) = (index.state().map_err(failed)?, index.tally(account).map_err(failed)?);
    let state = State { commit: state.commit + 1, ..state };
    let settings = index.settings().map_err(failed)?;
    let settings = settings.ok_or_else(|| failed(Fault::Other("its index names no process id".into())))?;
    let written = index.next_run().and_then(|number| {
        let mut changes = index::Changes::default();
        settings.write(&mut changes.meta, state.commit, account);
        index::write_run(&mut changes.meta, account, number, run, Seq(tally.last.0 + 1));
        index::write_progress(&mut changes.meta, state, account, tally);
        index.apply(&index.account.trees, &changes)?;
        index.make_durable()
    });
    written.map_err(failed)?;
    reached("open.run");
    witness
        .write(index::mark(run, state, account, &tally))
        .map_err(OpenError::io("write", &layout.store().witness()))?;
    reached("open.witnessed");
    if key_file::read(&layout.key()).is_ok_and(|keys| keys.is_some_and(|keys| keys.len() > 1))
        && let Err(error) = key_file::write(&layout.key(), &[&key])
    {
        tracing::warn!(%error, "the key file keeps a key that is not in force");
    }
    let files = pass::list_files(layout).map_err(OpenError::io("read", &layout.blobs()))?;
    let peers = index::guarded(|| Peers::read(&index)).map_err(failed)?;
    let remote_public_url = index::guarded(|| index::text(&index.meta, meta::REMOTE_PUBLIC_URL)).map_err(failed)?;
    let Settings { pid, remote, public_url: own } = settings;
    let public_url = PublicUrl { own, remote: remote_public_url };
    Ok(Opened { index, key, witness, run, state, tally, pid, peers, remote, public_url, files })
}
