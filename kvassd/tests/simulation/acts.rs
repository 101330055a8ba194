//! What is done to the store of a machine, and what that must change in it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use kvassd::keys::{EncryptionKey, Key, SyncKey};
use kvassd::store::WriteError;

use crate::links::Reads;
use crate::machine::{PLENTY, name};
use crate::model::{Content, State, Subject, Version, changes, effects};
use crate::quiet::read;
use crate::world::World;

impl World {
    /// Gives a machine the newest key.
    pub fn set_key(&mut self, at: usize) {
        let key = EncryptionKey::new(self.keys[self.keys.len() - 1]);
        let is_blind = self.is_blind && at == 0;
        let (_, before) = self.machines[at].store().identity();
        let key = if is_blind { Key::Server(SyncKey::derive(&key)) } else { Key::Encryption(key) };
        match self.machines[at].store().change_key(key, is_blind) {
            Err(WriteError::DiskFull { .. }) => return self.note(at, "has no space for another key"),
            changed => drop(changed.unwrap()),
        }
        if is_blind && self.machines[at].store().identity().1 != before {
            // It can seal nothing anew, so it has nothing, and no counts.
            self.replaced(at, State::new(), BTreeMap::new());
        }
        let (_, account) = self.machines[at].store().identity();
        self.note(at, &format!("has the key of account {}", account.fingerprint()));
    }

    /// Stores a value, or removes an entry for `None`. Gives the version, where there is a new one.
    pub fn write(&mut self, at: usize, which: usize, content: Option<Content>) -> Option<Version> {
        let before = self.state(at);
        let store = self.machines[at].store().clone();
        let written = match content {
            Some(content) => store.writer(None).and_then(|mut writer| {
                content.bytes().chunks(50_000).try_for_each(|part| writer.push(part))?;
                store.set(&name(which), writer.finish()?, 0)
            }),
            None => store.remove(vec![name(which)]).map(drop),
        };
        let changed = changes(&before, &self.state(at));
        if let Err(WriteError::DiskFull { .. }) = written {
            assert!(changed.is_empty(), "{changed:?} though the disk is full");
            self.note(at, "has no space");
            return None;
        }
        written.unwrap();
        let leads_to: Vec<_> = self.links.iter().map(|link| link.name).collect();
        let expected = effects(&before, &leads_to, which, content.is_none());
        let is_right = changed.iter().map(|(what, version)| (*what, version.removed)).eq(expected.clone());
        assert!(is_right, "{changed:?} and not {expected:?}");
        self.written(at, &changed, content);
        let version = changed.get(&Subject::Name(which)).copied()?;
        let size = content.map_or_else(|| "removed".into(), |content| format!("{} bytes", content.size));
        self.note(at, &format!("name {which}: {size}, {:?}", version.place));
        Some(version)
    }

    /// A machine has made these versions.
    pub fn written(&mut self, at: usize, changed: &State, content: Option<Content>) {
        for (what, version) in changed {
            let content = if matches!(what, Subject::Name(_)) { content } else { None };
            self.model.write(*what, *version, content);
            // A machine that was killed meanwhile has told nobody.
            if !self.machines[at].trap.is_sprung() {
                self.model.acknowledge(at, *what, *version);
            }
        }
    }

    /// Reads an entry: it must be what was written with the version that the machine has.
    pub fn read(&mut self, at: usize, which: usize) {
        let version = self.state(at).get(&Subject::Name(which)).copied();
        let content = version.and_then(|version| self.model.content(Subject::Name(which), &version));
        let found = read(&self.machines[at], which);
        let name = &self.machines[at].name;
        assert!(found == content.map(Content::bytes), "name {which} is not what was written on {name}");
    }

    /// Keeps a copy of a machine's files.
    pub fn back_up(&mut self, at: usize) {
        self.note(at, "is backed up");
        self.machines[at].back_up();
        let reads = self.reads[at].clone();
        self.kept_reads[at].push(reads);
    }

    /// A machine's store has less than it had.
    fn replaced(&mut self, at: usize, state: State, reads: BTreeMap<usize, Reads>) {
        self.model.replace(at, state);
        self.reads[at] = reads;
        if at == 0 {
            self.is_replaced = true;
            self.waits.clear();
        }
    }

    /// Puts a machine's files back to what they once were, or away.
    pub fn put_back(&mut self, at: usize, backup: Option<usize>) {
        self.observe_all();
        self.kill(at);
        let reads = match backup {
            Some(which) => {
                let from = self.machines[at].backups[which].clone();
                self.machines[at].restore(&from);
                self.kept_reads[at][which].clone()
            }
            None => {
                self.machines[at].delete();
                self.machines[at].free.store(PLENTY, Relaxed);
                BTreeMap::new()
            }
        };
        // What nobody else had may be lost with it.
        self.machines[at].open();
        let state = self.state(at);
        drop(self.machines[at].bury());
        self.replaced(at, state, reads);
        if backup.is_none() {
            self.start(at);
            self.set_key(at);
        }
    }
}
