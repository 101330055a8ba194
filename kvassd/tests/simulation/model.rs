//! What must be so: the writes that were made, and what each machine has been seen to hold.
//!
//! It knows the order of writes from the documents, not from the code under test.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many names there are; few, so that machines write the same ones.
pub const NAMES: usize = 6;

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Name(usize),
    /// A link, by the order in which links were made.
    Link(usize),
}

/// The place of a write in the order: time, counter, and the lower pid. Only the authentication could come after it.
pub type Place = (u64, u64, Reverse<u32>);

/// A version of an entry, or of a link, as a store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub place: Place,
    pub removed: bool,
    /// Nothing for a link, whose value is sealed anew with each key.
    pub hash: [u8; 32],
}

/// What was written; `None` where it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub size: usize,
}

impl Content {
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        crate::chance::Chance::new(self.seed).fill(&mut bytes);
        bytes
    }
}

/// The newest version of everything that a store has.
pub type State = BTreeMap<Subject, Version>;

/// What differs between two states.
pub fn changes(before: &State, after: &State) -> BTreeMap<Subject, Version> {
    after.iter().filter(|(what, version)| before.get(what) != Some(version)).map(|(what, to)| (*what, *to)).collect()
}

/// All writes of a place: more than one where machines with one process id, copies, write at the same time.
type Writes = Vec<(Version, Option<Content>)>;

#[derive(Default)]
pub struct Model {
    writes: BTreeMap<Subject, BTreeMap<Place, Writes>>,
    /// The most that each machine has acknowledged or was seen to hold, since its store was last put back.
    held: Vec<State>,
}

impl Model {
    /// Adds a machine that holds what is in `state`.
    pub fn add_machine(&mut self, state: State) {
        self.held.push(state);
    }

    /// A write was made. Whether it was acknowledged, [`Model::acknowledge`] says.
    pub fn write(&mut self, what: Subject, version: Version, content: Option<Content>) {
        self.writes.entry(what).or_default().entry(version.place).or_default().push((version, content));
    }

    /// A machine has promised that it has a version which it has written.
    pub fn acknowledge(&mut self, machine: usize, what: Subject, version: Version) {
        let held = self.held[machine].insert(what, version);
        assert!(held.is_none_or(|held| held.place < version.place), "a write does not beat what its writer had seen");
    }

    /// Others were told that a machine has a version, or a newer one.
    pub fn promise(&mut self, machine: usize, what: Subject, version: Version) {
        let held = self.held[machine].entry(what).or_insert(version);
        if held.place < version.place {
            *held = version;
        }
    }

    /// A machine was looked at: it must have all that it ever had, or what is newer.
    pub fn observe(&mut self, machine: usize, seen: &State) {
        for (what, held) in &self.held[machine] {
            let now = seen.get(what);
            let is_there = now.is_some_and(|now| now.place >= held.place);
            assert!(is_there, "{what:?}: machine {machine} had {held:?}, and has {now:?}");
        }
        for (what, version) in seen {
            self.content(*what, version);
        }
        self.held[machine].clone_from(seen);
    }

    /// A machine's store was replaced by one that may have less.
    pub fn replace(&mut self, machine: usize, state: State) {
        self.held[machine] = state;
    }

    /// What was written with a version.
    pub fn content(&self, what: Subject, version: &Version) -> Option<Content> {
        let written = self.writes.get(&what).and_then(|writes| writes.get(&version.place));
        let written = written.and_then(|all| all.iter().find(|(one, _)| one == version));
        written.unwrap_or_else(|| panic!("{what:?}: nobody wrote {version:?}")).1
    }

    /// What all must have in the end, at least: the greatest write of each subject that is still anywhere.
    pub fn expected(&self) -> BTreeMap<Subject, Place> {
        let mut expected = BTreeMap::new();
        for (what, version) in self.held.iter().flatten() {
            let greatest = expected.entry(*what).or_insert(version.place);
            *greatest = version.place.max(*greatest);
        }
        expected
    }
}

/// What a change must do to a store that has `before`: which subjects get a new version, and whether it is a removal.
/// `links` are those that were made, by the name that each leads to.
pub fn effects(before: &State, links: &[usize], name: usize, is_removal: bool) -> BTreeMap<Subject, bool> {
    let entry = before.get(&Subject::Name(name));
    let is_live = entry.is_some_and(|entry| !entry.removed);
    let mut effects = BTreeMap::new();
    if is_live || !is_removal {
        effects.insert(Subject::Name(name), is_removal);
    }
    // A removal takes the links with it. Where an entry that was removed comes again, those that were made elsewhere
    // meanwhile do not come to life with it.
    if is_removal || entry.is_some_and(|entry| entry.removed) {
        effects.extend(live_links(before, links, name).into_iter().map(|link| (link, true)));
    }
    effects
}

/// The links of a name that were not revoked.
pub fn live_links(state: &State, links: &[usize], name: usize) -> BTreeSet<Subject> {
    let of_name = links.iter().enumerate().filter(|(_, leads_to)| **leads_to == name);
    let of_name = of_name.map(|(at, _)| Subject::Link(at));
    of_name.filter(|link| state.get(link).is_some_and(|link| !link.removed)).collect()
}
