//! Which values are being taken, and what is left of those that broke off.
//!
//! What is left of a value is worth its space while its record may still come, so that the next session goes on behind
//! it: until a week has gone, or its entry has another version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::layout;
use crate::keys::{decode_hex, encode_hex};
use crate::record::{Clear, RecordId, ValueHash};
use crate::stamp::Stamp;

/// What the end of an unfinished download's name is; before it stand the hash of the value and the id of the record.
pub(crate) const DOWN: &str = ".down";

/// The downloads of a store; a cheap clone.
#[derive(Clone)]
pub(crate) struct Downloads {
    blobs: Arc<Path>,
    files: Arc<Mutex<Files>>,
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Files {
    /// Those that a session writes.
    taken: BTreeSet<ValueHash>,
    begun: Begun,
}

/// Values that may still be needed, on their way, broken off, or whole and not stored, and the version of a record that
/// each is of; of one that was there at the start its time is not known.
pub(crate) type Begun = BTreeMap<ValueHash, (RecordId, Option<Stamp>)>;

impl Files {
    /// The values of one record up to a version.
    fn up_to(&self, id: RecordId, stamp: Stamp) -> Vec<ValueHash> {
        let is_older = |of: &(RecordId, Option<Stamp>)| of.0 == id && of.1.is_none_or(|known| known <= stamp);
        self.begun.iter().filter(|(_, of)| is_older(of)).map(|(hash, _)| *hash).collect()
    }
}

/// The right to take a value, and its file; another may once this is dropped.
pub(super) struct Turn {
    downloads: Downloads,
    hash: ValueHash,
    pub(super) path: PathBuf,
}

impl Downloads {
    /// Of a directory, with what is left there.
    pub(crate) fn new(blobs: &Path, begun: Begun) -> Self {
        let files = Files { taken: BTreeSet::new(), begun };
        Self { blobs: blobs.into(), files: Arc::new(Mutex::new(files)), ended: watch::Sender::new(()) }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to take the value of a record, which nobody takes. What is left of its older versions goes.
    pub(super) fn turn(&self, clear: &Clear) -> Option<Turn> {
        let (hash, path) = (clear.value_hash, self.path(clear.value_hash, clear.id));
        let mut files = self.files();
        if !files.taken.insert(hash) {
            return None;
        }
        for other in files.up_to(clear.id, clear.stamp).into_iter().filter(|other| !files.taken.contains(other)) {
            remove(&self.path(other, clear.id));
        }
        // A forger can give two records one value.
        if let Some((id, _)) = files.begun.insert(hash, (clear.id, Some(clear.stamp)))
            && id != clear.id
        {
            remove(&self.path(hash, id));
        }
        Some(Turn { downloads: self.clone(), hash, path })
    }

    /// A version of an entry was stored: what is left of it and of older ones goes. Returns those whose files may be
    /// whole by now, and go as well where nothing refers to them.
    #[must_use]
    pub(crate) fn stored(&self, id: RecordId, stamp: Stamp) -> Vec<ValueHash> {
        let mut files = self.files();
        let begun = files.up_to(id, stamp);
        self.forget(&mut files, &begun);
        begun
    }

    /// Records have other ids from now on: likewise.
    #[must_use]
    pub(crate) fn forget_all(&self) -> Vec<ValueHash> {
        let mut files = self.files();
        let begun: Vec<_> = files.begun.keys().copied().collect();
        self.forget(&mut files, &begun);
        begun
    }

    fn forget(&self, files: &mut Files, begun: &[ValueHash]) {
        for hash in begun {
            // One that is being taken goes with its turn.
            if let Some((id, _)) = files.begun.remove(hash)
                && !files.taken.contains(hash)
            {
                remove(&self.path(*hash, id));
            }
        }
    }

    fn path(&self, hash: ValueHash, id: RecordId) -> PathBuf {
        self.blobs.join(format!("{}-{}{DOWN}", encode_hex(&hash.0), encode_hex(&id.0)))
    }

    /// Whether a session takes a value, or has not made its name durable yet.
    pub(super) fn is_taken(&self, hash: ValueHash) -> bool {
        self.files().taken.contains(&hash)
    }

    /// Watches for the end of downloads, well or not.
    pub(super) fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }
}

impl Turn {
    /// Gives the whole file its name, unless it was given up meanwhile. Under the lock, so that who gives it up later
    /// knows of it.
    pub(super) fn finish(&self, to: &Path) -> io::Result<()> {
        let files = self.downloads.files();
        if files.begun.contains_key(&self.hash) { fs::rename(&self.path, to) } else { Ok(()) }
    }

    /// Nobody wants the value: nothing is left of it once this is dropped.
    pub(super) fn abandon(&self) {
        self.downloads.files().begun.remove(&self.hash);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Without the lock, for which commits wait: nobody begins what is taken.
        if !self.downloads.files().begun.contains_key(&self.hash) {
            remove(&self.path);
        }
        self.downloads.files().taken.remove(&self.hash);
        self.downloads.ended.send_replace(());
    }
}

fn remove(path: &Path) {
    if let Err(error) = layout::remove_file(path) {
        tracing::warn!(%error, "an unfinished value stays on the disk for a week");
    }
}

/// What the name of an unfinished download says; `None` for any other name.
pub(crate) fn parse(name: &str) -> Option<(ValueHash, RecordId)> {
    let (hash, id) = name.strip_suffix(DOWN)?.split_once('-')?;
    let (mut of_value, mut of_record) = ([0; 32], [0; 16]);
    let is_one = decode_hex(hash, &mut of_value) && decode_hex(id, &mut of_record);
    is_one.then_some((ValueHash(of_value), RecordId(of_record)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version of one record at a time, with a value of its own.
    fn version(time_us: u64) -> Clear {
        let bytes = [&[1, 1][..], &[0; 20], &[0; 19], &[1], &[0; 16], &[5; 32]].concat();
        let clear = Clear::parse(&bytes).unwrap();
        let stamp = Stamp { time_us, ..clear.stamp };
        Clear { stamp, value_hash: ValueHash([time_us as u8; 32]), ..clear }
    }

    #[test]
    fn an_older_version_that_is_stored_takes_nothing_from_a_newer_one_on_its_way() {
        let directory = tempfile::tempdir().unwrap();
        let downloads = Downloads::new(directory.path(), Begun::new());
        let (old, new) = (version(1), version(2));
        let turn = downloads.turn(&new).unwrap();
        fs::write(&turn.path, b"x").unwrap();
        assert!(downloads.turn(&old).is_some());
        assert_eq!(downloads.stored(old.id, old.stamp), [old.value_hash]);
        let whole = directory.path().join("whole");
        turn.finish(&whole).unwrap();
        assert!(whole.exists());
        drop(turn);
        assert_eq!(downloads.stored(new.id, new.stamp), [new.value_hash]);
    }
}
