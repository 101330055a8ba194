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
    /// All that may still be needed, and the record that each is of: on their way, broken off, or whole and not stored.
    begun: Begun,
}

/// Values that did not come with their records, and the record that each is of.
pub(crate) type Begun = BTreeMap<ValueHash, RecordId>;

impl Files {
    /// The values of one record.
    fn of(&self, id: RecordId) -> Vec<ValueHash> {
        self.begun.iter().filter(|(_, of)| **of == id).map(|(hash, _)| *hash).collect()
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

    /// Begins to take the value of a record, which nobody takes. What is left of its other versions goes.
    pub(super) fn turn(&self, clear: &Clear) -> Option<Turn> {
        let (hash, path) = (clear.value_hash, self.path(clear.value_hash, clear.id));
        let mut files = self.files();
        if !files.taken.insert(hash) {
            return None;
        }
        for other in files.of(clear.id).into_iter().filter(|other| *other != hash && !files.taken.contains(other)) {
            remove(&self.path(other, clear.id));
        }
        files.begun.insert(hash, clear.id);
        Some(Turn { downloads: self.clone(), hash, path })
    }

    /// A version of an entry was stored: what is left of its values goes. Returns those whose files may be whole by now,
    /// and go as well where nothing refers to them.
    #[must_use]
    pub(crate) fn stored(&self, id: RecordId) -> Vec<ValueHash> {
        let mut files = self.files();
        let begun = files.of(id);
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
            if let Some(id) = files.begun.remove(hash)
                && !files.taken.contains(hash)
            {
                remove(&self.path(*hash, id));
            }
        }
    }

    fn path(&self, hash: ValueHash, id: RecordId) -> PathBuf {
        self.blobs.join(format!("{}-{}{DOWN}", encode_hex(&hash.0), encode_hex(&id.0)))
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
        let mut files = self.downloads.files();
        if !files.begun.contains_key(&self.hash) {
            remove(&self.path);
        }
        files.taken.remove(&self.hash);
        drop(files);
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
