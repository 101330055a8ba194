//! What a commit will change, worked out before anything is changed.
//!
//! Several writers' changes go into one plan, one after the other; a later one sees what an earlier one did.

mod shares;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use prost::Message;

use super::index::{self, Changes, Index};
use super::labels::Labels;
use super::merge::Arrival;
use super::row::{self, RecordRow, State, Tally, Via};
use super::subject::Subject;
use super::value_writer::{NewValue, Place, Unreferenced};
use super::{Condition, Outcome, ReadError, Seq, Shared, WriteError};
use crate::keys::{AccountId, Keys};
use crate::record::{Auth, Clear, FORMAT, Kind, Record, RecordId, ValueHash};
use crate::share::Label;
use crate::stamp::Stamp;
use crate::{seal, value};

/// What a user does to one entry, or to a link.
pub(crate) enum Change {
    Set {
        name: String,
        value: NewValue,
        expiry_us: u64,
        condition: Option<Condition>,
    },
    /// Revokes the links of the entry with it, also where it is gone already.
    Remove {
        name: String,
    },
    /// Makes a link; a plain one only where the entry has none. It comes alone.
    Share {
        label: Label,
        expiry_us: u64,
    },
    Revoke {
        label: Label,
    },
}

impl Change {
    /// The entry that it is about.
    fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Remove { name } => name,
            Self::Share { label, .. } | Self::Revoke { label } => &label.name,
        }
    }
}

/// What the index knows of the versions that a writer's changes meet.
type Seen = BTreeMap<RecordId, Option<Version>>;

/// What the index knows of a version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) seq: Seq,
    pub(crate) clear: Clear,
    pub(crate) auth: Auth,
    /// Bytes of its rows of `records` and `values`.
    pub(crate) bytes: u64,
}

impl Version {
    pub(crate) fn new(row: &RecordRow, clear: Clear) -> Self {
        let value_row = if clear.has_inline() { row::VALUE_EXTRA as u64 + value::sealed_length(clear.size) } else { 0 };
        Self { seq: row.seq, clear, auth: row.record.auth, bytes: row.length() as u64 + value_row }
    }

    fn is_live(&self, now_us: u64) -> bool {
        self.clear.kind != Kind::REMOVAL && !self.clear.is_expired(now_us)
    }
}

/// One entry's change from what is in the index to what will be.
pub(crate) struct Step {
    pub(crate) subject: Subject,
    pub(crate) old: Option<Version>,
    pub(crate) new: Version,
    pub(crate) row: RecordRow,
    pub(crate) sealed_value: Option<Vec<u8>>,
    pub(crate) blob: Option<Unreferenced>,
    /// Through which store it came.
    pub(crate) via: Via,
}

/// What a user's change makes of an entry.
struct Content {
    kind: Kind,
    value: Option<NewValue>,
    expiry_us: u64,
}

impl Content {
    const REMOVED: Self = Self { kind: Kind::REMOVAL, value: None, expiry_us: 0 };
}

/// What a change meets: the version in the index, and the newest, which an earlier change of the plan may have made.
#[derive(Clone, Copy)]
struct Known {
    in_index: Option<Version>,
    current: Option<Version>,
}

/// A commit that is being worked out.
pub(crate) struct Plan<'a> {
    index: &'a Index,
    labels: &'a Labels,
    now_us: u64,
    pid: u32,
    pub(crate) state: State,
    pub(crate) tally: Tally,
    steps: BTreeMap<RecordId, Step>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(index: &'a Index, shared: &'a Shared, state: State, tally: Tally) -> Self {
        let state = State { commit: state.commit + 1, ..state };
        let (labels, now_us, pid) = (&shared.labels, shared.now_us(), shared.pid());
        Self { index, labels, now_us, pid, state, tally, steps: BTreeMap::new() }
    }

    /// Adds all of one writer's changes, or, with an error, none.
    pub(crate) fn add(&mut self, changes: Vec<Change>) -> Result<Vec<Outcome>, WriteError> {
        let keys = self.index.account.keys.full().ok_or(ReadError::Blind)?;
        let mut seen = Seen::new();
        for change in &changes {
            for id in self.touched(keys, change) {
                if let Slot::Vacant(slot) = seen.entry(id) {
                    slot.insert(self.current(id, || format!("'{}'", change.name()))?);
                }
            }
        }
        changes.into_iter().map(|change| self.add_one(keys, change, &seen)).collect()
    }

    /// The records that a change may replace or look at.
    fn touched(&self, keys: &Keys, change: &Change) -> Vec<RecordId> {
        let entry = keys.record_id(change.name());
        match change {
            Change::Set { name, .. } | Change::Remove { name } => {
                let links = self.links_of(name).into_iter().map(|label| label.token.locator());
                std::iter::once(entry).chain(links).collect()
            }
            Change::Share { label, .. } => vec![entry, label.token.locator()],
            Change::Revoke { label } => vec![label.token.locator()],
        }
    }

    fn known(&self, id: RecordId, seen: &Seen) -> Known {
        let in_index = seen.get(&id).copied().flatten();
        Known { in_index, current: self.steps.get(&id).map(|step| step.new).or(in_index) }
    }

    /// Fails only for a link, which is the only change of its writer.
    fn add_one(&mut self, keys: &Keys, change: Change, seen: &Seen) -> Result<Outcome, WriteError> {
        let id = keys.record_id(change.name());
        let known = self.known(id, seen);
        let current = known.current;
        Ok(match change {
            Change::Remove { name } if !current.is_some_and(|current| current.is_live(self.now_us)) => {
                // An entry that has expired has its links still.
                self.revoke_all(keys, &name, seen);
                Outcome::Missing
            }
            Change::Remove { name } => {
                self.revoke_all(keys, &name, seen);
                self.write(keys, id, Subject::Entry(name), Content::REMOVED, known);
                Outcome::Stored
            }
            Change::Set { condition: Some(condition), .. } if self.is_newer(current, condition) => Outcome::KeptNewer,
            Change::Set { name, value, expiry_us, .. } => {
                // Made elsewhere before it was known there that the entry is gone, they must not come to life again.
                if current.is_some_and(|current| !current.is_live(self.now_us)) {
                    self.revoke_all(keys, &name, seen);
                }
                let content = Content { kind: Kind::VALUE, value: Some(value), expiry_us };
                self.write(keys, id, Subject::Entry(name), content, known);
                Outcome::Stored
            }
            Change::Share { label, expiry_us } => {
                return self.share(keys, label, expiry_us, known, seen);
            }
            Change::Revoke { label } => self.revoke(keys, label, seen),
        })
    }

    /// Whether an import must leave the entry alone.
    fn is_newer(&self, current: Option<Version>, condition: Condition) -> bool {
        !condition.force
            && current
                .is_some_and(|current| current.is_live(self.now_us) && current.clear.stamp.time_us > condition.time_us)
    }

    /// The version that a change would replace.
    fn current(&self, id: RecordId, words: impl FnOnce() -> String) -> Result<Option<Version>, WriteError> {
        if let Some(step) = self.steps.get(&id) {
            return Ok(step.old);
        }
        let read = index::guarded(|| self.index.record(id)).map_err(|fault| fault.to_string());
        let version = read.and_then(|row| match row {
            Some(row) => self.index.account.read(&row).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        });
        let damaged = |what| WriteError::Damaged(format!("what is stored of {} cannot be read: {what}", words()));
        Ok(version.map_err(damaged)?.map(|(row, clear)| Version::new(&row, clear)))
    }

    /// Seals a new version, whose stamp beats what it replaces.
    fn write(&mut self, keys: &Keys, id: RecordId, subject: Subject, content: Content, known: Known) {
        let Content { kind, value, expiry_us } = content;
        let replaced = known.current.map(|version| version.clear.stamp);
        let stamp = Stamp::next(self.now_us, replaced, self.state.counter, self.pid);
        self.state.counter = stamp.counter;
        self.tally.last = Seq(self.tally.last.0 + 1);
        let (size, value_hash) = value.as_ref().map_or((0, ValueHash::NONE), |value| (value.size, value.hash));
        let content_key = value.as_ref().map_or(Vec::new(), |value| value.key.as_bytes().to_vec());
        let clear = Clear { format: FORMAT, kind, id, generation: 0, stamp, expiry_us, size, value_hash };
        let header = zeroize::Zeroizing::new(subject.header(content_key).encode_to_vec());
        let row = RecordRow { seq: self.tally.last, record: seal::seal(keys, &clear, &header) };
        let (sealed_value, blob) = match value.map(|value| value.place) {
            Some(Place::Inline(sealed)) => (Some(sealed), None),
            Some(Place::Blob(file)) => (None, Some(file)),
            None => (None, None),
        };
        let new = Version::new(&row, clear);
        let via = row::HERE;
        self.put(id, Step { subject, old: known.in_index, new, row, sealed_value, blob, via }, known.current);
    }

    /// Adds a record that came from elsewhere where it is greater than what is here, and its value is here too, as
    /// `has_blob` knows.
    pub(crate) fn merge(
        &mut self,
        arrival: Arrival,
        via: Via,
        has_blob: impl FnOnce(&Clear) -> bool,
    ) -> Result<Merging, WriteError> {
        let Arrival { clear, travelling, subject } = arrival;
        let in_index = self.current(clear.id, || subject.words(clear.id))?;
        let current = self.steps.get(&clear.id).map(|step| step.new).or(in_index);
        let auth = travelling.record.auth;
        self.state.counter = self.state.counter.max(clear.stamp.counter);
        let is_older = |known: &Version| Record::order((&clear, &auth), (&known.clear, &known.auth)).is_le();
        if current.as_ref().is_some_and(is_older) {
            return Ok(Merging::Older);
        }
        if clear.has_blob() && !has_blob(&clear) {
            return Ok(Merging::Lacking);
        }
        self.tally.last = Seq(self.tally.last.0 + 1);
        let row = RecordRow { seq: self.tally.last, record: travelling.record };
        let new = Version::new(&row, clear);
        let step = Step { subject, old: in_index, new, row, sealed_value: travelling.value, blob: None, via };
        self.put(clear.id, step, current);
        Ok(Merging::Stored)
    }

    /// Adds a step, in place of an earlier one of the entry; `current` is what it replaces.
    fn put(&mut self, id: RecordId, step: Step, current: Option<Version>) {
        if let Some(version) = current {
            self.forget(&version);
        }
        row::toggle(&mut self.tally.digest, &step.new.auth);
        self.tally.content += step.new.bytes;
        self.steps.insert(id, step);
    }

    fn forget(&mut self, version: &Version) {
        row::toggle(&mut self.tally.digest, &version.auth);
        self.tally.content = self.tally.content.saturating_sub(version.bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The rows to be written, and the steps that they make.
    pub(crate) fn finish(self) -> (Changes, Planned) {
        let mut changes = Changes::default();
        let account = self.index.account.keys.account();
        let steps: Vec<_> = self.steps.into_iter().collect();
        for (id, step) in &steps {
            write_step(&mut changes, account, *id, step);
        }
        index::write_progress(&mut changes.meta, self.state, account, self.tally);
        (changes, Planned { state: self.state, tally: self.tally, steps })
    }
}

/// What becomes of a record that came from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    /// It is greater than what was here.
    Stored,
    /// It is what is here, or what that replaced.
    Older,
    /// It is greater, and its value is not here.
    Lacking,
}

/// What is so once a commit is durable.
pub(crate) struct Planned {
    pub(crate) state: State,
    pub(crate) tally: Tally,
    pub(crate) steps: Vec<(RecordId, Step)>,
}

/// Adds the rows of one step to a commit: those that come, and the removal of those that go.
pub(crate) fn write_step(changes: &mut Changes, account: AccountId, id: RecordId, step: &Step) {
    let Step { old, new, row, sealed_value, via, .. } = step;
    changes.records.insert(&id.0, row.encode(account));
    changes.log.insert(&new.seq.0.to_be_bytes(), &row::encode_log(id, *via)[..]);
    match sealed_value {
        Some(sealed) => changes.values.insert(&id.0, row::encode_value(new.clear.value_hash, sealed)),
        None if old.is_some_and(|old| old.clear.has_inline()) => changes.values.remove(&id.0),
        None => {}
    }
    if new.clear.kind == Kind::REMOVAL && old.is_some_and(|old| old.clear.kind == Kind::LINK) {
        changes.reads.remove(&id.0);
    }
    if new.clear.has_blob() {
        changes.blobs.insert(&new.clear.value_hash.0, &id.0);
    }
    if let Some(old) = old {
        changes.log.remove(&old.seq.0.to_be_bytes());
        if let Some(blob) = replaced_blob(old, new) {
            changes.blobs.remove(&blob.0);
        }
    }
}

/// What a replaced version leaves behind and nobody needs any more: its blob, where the new version has another.
///
/// Whoever wants to keep replaced versions for a while changes this, and only this.
pub(crate) fn replaced_blob(old: &Version, new: &Version) -> Option<ValueHash> {
    (old.clear.has_blob() && old.clear.value_hash != new.clear.value_hash).then_some(old.clear.value_hash)
}
