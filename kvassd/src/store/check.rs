//! Verifies everything that the store holds, for `doctor`. Hashes are enough for values, so it needs no key for them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Bound;

use super::index::{Fault, Index};
use super::layout::Layout;
use super::row;
use super::value_reader::blob_length;
use super::{ReadError, Store};
use crate::keys::encode_hex;
use crate::record::{Clear, RecordId};
use crate::value::{self, CHUNK, HASH, TAG};

/// Records that are read from the index in one go.
const BATCH: usize = 64;

/// Something that is wrong in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, with the key where it is known.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// How much was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records, those of removals included.
    pub records: u64,
    /// Bytes of sealed values.
    pub bytes: u64,
}

/// A record that verifies, and the name of its entry where it has one.
struct Sound {
    clear: Clear,
    /// What to call its entry: the key in quotes, or its record where the key is not known.
    name: String,
    inline: Option<sled::IVec>,
}

impl Store {
    /// Verifies every record and every value. `report` is told of each finding, and returns `false` to stop.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn check(&self, report: &mut dyn FnMut(Finding) -> bool) -> Result<Checked, ReadError> {
        let mut checked = Checked::default();
        let mut position = None;
        loop {
            let batch = self.shared.read_index(|index| read_batch(index, position));
            let batch = batch.map_err(|fault| self.failed(fault))?;
            let Some((last, _)) = batch.last() else { break };
            position = Some(*last);
            for (_, sound) in batch {
                checked.records += 1;
                let problem = match sound {
                    Ok(sound) => check_value(&self.shared.layout, &sound, &mut checked.bytes),
                    Err(problem) => Some(in_index(&problem)),
                };
                if let Some(problem) = problem
                    && !report(finding(problem))
                {
                    return Ok(checked);
                }
            }
        }
        if let Some(problem) = self.shared.names.damage() {
            report(finding(in_index(&problem)));
        }
        Ok(checked)
    }
}

/// What is wrong in the index, with the file that it lies in.
fn in_index(problem: &str) -> String {
    format!("the index, store/sled/db: {problem}")
}

fn finding(problem: String) -> Finding {
    Finding { problem, hint: "run 'kvass doctor --repair'".into() }
}

type Batch = Vec<(RecordId, Result<Sound, String>)>;

fn read_batch(index: &Index, position: Option<RecordId>) -> Result<Batch, Fault> {
    let after = position.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
    let mut batch = Vec::with_capacity(BATCH);
    for row in index.account.trees.records.range::<[u8; 16], _>((after, Bound::Unbounded)).take(BATCH) {
        let (id, row) = row?;
        let id = <[u8; 16]>::try_from(&id[..]).map_err(|_| Fault::Other("an id has the wrong length".into()))?;
        batch.push((RecordId(id), read_record(index, RecordId(id), &row)));
    }
    Ok(batch)
}

fn read_record(index: &Index, id: RecordId, row: &[u8]) -> Result<Sound, String> {
    let wrong = |what: String| format!("record {}: {what}", encode_hex(&id.0));
    let (row, clear) = index.account.read(row).map_err(|error| wrong(format!("it does not verify: {error}")))?;
    if clear.id != id {
        return Err(wrong("it is another".into()));
    }
    let subject = index.account.subject(&row, &clear).map_err(|error| wrong(format!("it does not open: {error}")))?;
    let name = subject.words(id);
    let logged = index.account.trees.log.get(row.seq.0.to_be_bytes()).ok().flatten();
    if logged.and_then(|row| row::decode_log(&row)).map(|(id, _)| id) != Some(id) {
        return Err(format!("{name} is missing in the log"));
    }
    let inline = index.account.trees.values.get(id.0).ok().flatten();
    Ok(Sound { clear, name, inline })
}

/// What is wrong with a record's value, if anything is.
fn check_value(layout: &Layout, sound: &Sound, bytes: &mut u64) -> Option<String> {
    let Sound { clear, name, inline } = sound;
    if clear.has_blob() {
        *bytes += value::sealed_length(clear.size);
        let what = check_blob(layout, clear)?;
        let file = encode_hex(&clear.value_hash.0);
        return Some(format!("the value of {name} is damaged: its file, blobs/{file}, {what}"));
    }
    if !clear.has_inline() {
        return None;
    }
    let value = inline.as_deref().and_then(row::decode_value);
    let Some((_, sealed)) = value else { return Some(in_index(&format!("the value of {name} is missing"))) };
    *bytes += sealed.len() as u64;
    let is_whole = value::value_hash(&value::chunk_hash(sealed)) == clear.value_hash;
    (!is_whole).then(|| in_index(&format!("the value of {name} does not verify")))
}

/// What is wrong with the file of a value, if anything is.
fn check_blob(layout: &Layout, clear: &Clear) -> Option<String> {
    match verify_blob(layout, clear) {
        Ok(true) => None,
        Ok(false) => Some("does not verify".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".into()),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// Whether a record's blob is what its hash says, chunk by chunk.
pub(super) fn verify_blob(layout: &Layout, clear: &Clear) -> io::Result<bool> {
    let mut file = File::open(layout.blob(clear.value_hash))?;
    if file.metadata()?.len() != blob_length(clear.size) {
        return Ok(false);
    }
    let mut left = value::sealed_length(clear.size) as usize;
    let mut hashes = Vec::with_capacity(value::chunks(clear.size) as usize * HASH);
    let mut chunk = vec![0; CHUNK + TAG];
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK + TAG)];
        file.read_exact(part)?;
        hashes.extend_from_slice(&value::chunk_hash(part));
        left -= part.len();
    }
    let mut listed = Vec::with_capacity(hashes.len());
    file.read_to_end(&mut listed)?;
    Ok(listed == hashes && value::value_hash(&hashes) == clear.value_hash)
}
