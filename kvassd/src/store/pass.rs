//! The pass over all records that follows a start: it verifies each, fills in the names, and checks that the records
//! are those that the last commit left.
//!
//! It runs beside readers and the committer, a batch at a time under a lock that the committer takes for a commit.

use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::commit::{Job, LOOK};
use super::downloads::Begun;
use super::index::{Fault, Index};
use super::plan::Version;
use super::row;
use super::value_reader::blob_length;
use super::{Jobs, Shared, download, downloads, merge, value_writer};
use crate::failpoint::reached;
use crate::keys::decode_hex;
use crate::record::{Clear, Kind, RecordId, ValueHash};

/// Records that are read under one lock.
const BATCH: usize = 256;

/// The pass, for whoever's turn it is. Who waits is let in before who was in last: the pass would otherwise take the
/// lock again and again before a committer that waits for it.
pub(crate) struct Turns {
    gate: Mutex<()>,
    pass: Mutex<Pass>,
}

impl Turns {
    pub(crate) fn new(expected: [u8; 32]) -> Self {
        Self { gate: Mutex::default(), pass: Mutex::new(Pass { expected, ..Pass::default() }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Pass> {
        let _next = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the pass has come.
#[derive(Default)]
pub(crate) struct Pass {
    /// The last record that was read.
    position: Option<RecordId>,
    /// The XOR of the authentications of what was read, kept up as it changes.
    digest: [u8; 32],
    /// What the digest of all records is by the last commit.
    pub(crate) expected: [u8; 32],
    /// What was read, kept up as it changes.
    pub(crate) content: Content,
    done: bool,
}

/// What all records come to, as anybody can see who has no key. Entries that have expired count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Records of any kind.
    pub(crate) records: u64,
    /// Those of entries that have a value.
    pub(crate) entries: u64,
    /// Bytes of all values, before sealing.
    pub(crate) value_bytes: u64,
    /// Bytes of the files of those that are files of their own.
    pub(crate) blob_bytes: u64,
}

impl Content {
    pub(crate) fn add(&mut self, clear: &Clear) {
        self.records += 1;
        self.entries += u64::from(merge::is_entry(clear));
        self.value_bytes = self.value_bytes.saturating_add(value_bytes(clear));
        self.blob_bytes = self.blob_bytes.saturating_add(blob_bytes(clear));
    }

    pub(crate) fn remove(&mut self, clear: &Clear) {
        self.records -= 1;
        self.entries -= u64::from(merge::is_entry(clear));
        self.value_bytes = self.value_bytes.saturating_sub(value_bytes(clear));
        self.blob_bytes = self.blob_bytes.saturating_sub(blob_bytes(clear));
    }
}

/// A grant is no value of anybody's.
fn value_bytes(clear: &Clear) -> u64 {
    if clear.kind == Kind::LINK { 0 } else { clear.size }
}

fn blob_bytes(clear: &Clear) -> u64 {
    if clear.has_blob() { blob_length(clear.size) } else { 0 }
}

impl Pass {
    /// A record changed after the pass may have read it.
    pub(crate) fn changed(&mut self, id: RecordId, old: Option<&Version>, new: &Version) {
        if !self.done && self.position.is_none_or(|position| id > position) {
            return;
        }
        if let Some(old) = old {
            row::toggle(&mut self.digest, &old.auth);
            self.content.remove(&old.clear);
        }
        row::toggle(&mut self.digest, &new.auth);
        self.content.add(&new.clear);
    }
}

/// Runs the pass. `files` are those that were there before anybody was served: when all is well, those that no row of
/// the index names go.
pub(crate) fn run(shared: &Shared, jobs: &Jobs, files: Vec<ValueHash>) {
    loop {
        if shared.names.is_closed() {
            return;
        }
        let mut pass = shared.pass.lock();
        match shared.read_index(|index| read_batch(shared, index, &mut pass)) {
            Ok(true) => {}
            Ok(false) => {
                pass.done = true;
                if pass.digest != pass.expected {
                    let what = "its records are not those of the last commit";
                    tracing::error!(what);
                    shared.names.set_damaged(what.into());
                    return;
                }
                drop(pass);
                shared.names.set_whole();
                let named =
                    |hash: &ValueHash| shared.read_index(|index| Ok(index.account.trees.blobs.contains_key(hash.0)?));
                let unnamed = files.into_iter().filter(|hash| matches!(named(hash), Ok(false))).collect();
                let _ = jobs.send(Job::Sweep(unnamed));
                return;
            }
            Err(Fault::Full) => {
                drop(pass);
                std::thread::sleep(LOOK);
            }
            Err(Fault::Other(what)) => {
                pass.done = true;
                tracing::error!(what, "the pass over all records ended");
                return shared.names.set_damaged(what);
            }
        }
    }
}

/// Reads a batch; `false` where it was the last.
fn read_batch(shared: &Shared, index: &Index, pass: &mut Pass) -> Result<bool, Fault> {
    let after = pass.position.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
    let mut count = 0;
    for row in index.account.trees.records.range::<[u8; 16], _>((after, Bound::Unbounded)).take(BATCH) {
        let (id, row) = row?;
        let id = <[u8; 16]>::try_from(&id[..]).map(RecordId).map_err(|_| wrong("an id has the wrong length"))?;
        let (row, clear) = index.account.read(&row).map_err(|_| wrong("a record does not verify"))?;
        if clear.id != id {
            return Err(wrong("a record stands in the place of another"));
        }
        let subject = index.account.subject(&row, &clear).map_err(|_| wrong("a record does not open"))?;
        if clear.kind != Kind::REMOVAL {
            shared.note(&subject, &clear);
        }
        row::toggle(&mut pass.digest, &row.record.auth);
        pass.content.add(&clear);
        pass.position = Some(id);
        count += 1;
    }
    Ok(count == BATCH)
}

fn wrong(what: &str) -> Fault {
    Fault::Other(what.into())
}

/// The files under `blobs/`.
#[derive(Default)]
pub(crate) struct Files {
    /// Those of whole values.
    pub(crate) whole: Vec<ValueHash>,
    /// Those that another store may send the rest of.
    pub(crate) begun: Begun,
}

/// The files under `blobs/`. Nobody writes yet, so those that nobody will go on with are removed at once.
pub(crate) fn list_files(layout: &super::layout::Layout) -> std::io::Result<Files> {
    let mut files = Files::default();
    for file in std::fs::read_dir(layout.blobs())? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        let mut hash = [0; 32];
        let begun = downloads::parse(&name).filter(|_| !download::is_forgotten(&file));
        if let Some((hash, id)) = begun {
            files.begun.insert(hash, (id, None));
        } else if name.ends_with(value_writer::PART) || name.ends_with(downloads::DOWN) {
            super::layout::remove_file(&file.path())?;
            reached("part.removed");
        } else if decode_hex(&name, &mut hash) {
            files.whole.push(ValueHash(hash));
        }
    }
    Ok(files)
}
