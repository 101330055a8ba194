//! What a commit will change of links.

use super::{Content, Known, NewValue, Outcome, Place, Plan, Seen, Subject, WriteError};
use crate::keys::Keys;
use crate::record::{Clear, Kind, Record, RecordId};
use crate::seal;
use crate::share::{Grant, Label, Reach};
use crate::store::index;
use crate::store::row::RecordRow;
use crate::value::ContentKey;

impl Plan<'_> {
    /// Makes a link to an entry that is `target`; a plain one only where the entry has none.
    pub(super) fn share(
        &mut self,
        keys: &Keys,
        label: Label,
        expiry_us: u64,
        target: Known,
        seen: &Seen,
    ) -> Result<Outcome, WriteError> {
        let Some(target) = target.current.filter(|target| target.is_live(self.now_us)) else {
            return Ok(Outcome::Missing);
        };
        if label.is_plain(expiry_us) && self.has_plain(&label.name) {
            return Ok(Outcome::Unchanged);
        }
        let grant = self.grant(keys, &label, &target.clear)?.seal(&label.token, keys.account());
        let (key, place) = (label.token.grant_key(keys.account()), Place::Inline(grant.bytes));
        let value = NewValue { key, size: grant.size, hash: grant.hash, place };
        let id = label.token.locator();
        let content = Content { kind: Kind::LINK, value: Some(value), expiry_us };
        self.write(keys, id, Subject::Share(label), content, self.known(id, seen));
        Ok(Outcome::Stored)
    }

    /// What a link gives away of an entry.
    fn grant(&self, keys: &Keys, label: &Label, target: &Clear) -> Result<Grant, WriteError> {
        let Clear { id, generation, size, value_hash: hash, .. } = *target;
        let reach = match label.pin {
            false => Reach::Entry(keys.record_key(id, generation)),
            true => {
                let damaged = || WriteError::Damaged(format!("what is stored of '{}' cannot be read", label.name));
                let record = self.record(id).ok_or_else(damaged)?;
                let header = seal::open(keys, target, &record).map_err(|_| damaged())?;
                let key = ContentKey::from_bytes(&header.content_key).ok_or_else(damaged)?;
                Reach::Version { key, hash, size, name: label.name.clone() }
            }
        };
        Ok(Grant { target: id, generation, reads: label.reads, reach })
    }

    /// A record as it is after what was planned so far; it was verified before.
    fn record(&self, id: RecordId) -> Option<Record> {
        if let Some(step) = self.steps.get(&id) {
            return Some(step.row.record.clone());
        }
        let row = index::guarded(|| self.index.record(id)).ok()??;
        RecordRow::decode(&row).map(|row| row.record)
    }

    /// The links of an entry: those in force, and those that this plan makes; it may have revoked some of them.
    pub(super) fn links_of(&self, name: &str) -> Vec<Label> {
        let made = self.steps.values().filter_map(|step| match &step.subject {
            Subject::Share(label) if label.name == name && step.new.clear.kind == Kind::LINK => Some(label.clone()),
            _ => None,
        });
        self.labels.of(name).into_iter().map(|link| link.label).chain(made).collect()
    }

    /// Whether an entry has a plain link after what was planned so far.
    fn has_plain(&self, name: &str) -> bool {
        let made = self.steps.values().any(|step| match &step.subject {
            Subject::Share(label) => {
                let Clear { kind, expiry_us, .. } = step.new.clear;
                label.name == name && kind == Kind::LINK && label.is_plain(expiry_us)
            }
            _ => false,
        });
        let is_in_force = |label: &Label| !self.steps.contains_key(&label.token.locator());
        made || self.labels.plain(name).is_some_and(|link| is_in_force(&link.label))
    }

    pub(super) fn revoke_all(&mut self, keys: &Keys, name: &str, seen: &Seen) {
        for label in self.links_of(name) {
            self.revoke(keys, label, seen);
        }
    }

    pub(super) fn revoke(&mut self, keys: &Keys, label: Label, seen: &Seen) -> Outcome {
        let id = label.token.locator();
        let known = self.known(id, seen);
        if known.current.is_none_or(|current| current.clear.kind != Kind::LINK) {
            return Outcome::Missing;
        }
        let subject = Subject::Share(Label { reads: 0, pin: false, ..label });
        self.write(keys, id, subject, Content::REMOVED, known);
        Outcome::Stored
    }
}
