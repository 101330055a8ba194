//! What must be so: the writes that were made, and what each machine has been seen to hold.
//!
//! It knows the order of writes from the documents, not from the code under test.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How many names there are; few, so that machines write the same ones.
pub const NAMES: usize = 6;

/// The place of a write in the order: time, counter, and the lower pid. Only the authentication could come after it.
pub type Place = (u64, u64, Reverse<u32>);

/// A version of an entry as a store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub place: Place,
    pub removed: bool,
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

/// The newest version of each name that a store has.
pub type State = [Option<Version>; NAMES];

/// All writes of a place: more than one where machines with one process id, copies, write at the same time.
type Writes = Vec<(Version, Option<Content>)>;

#[derive(Default)]
pub struct Model {
    writes: [BTreeMap<Place, Writes>; NAMES],
    /// The most that each machine has acknowledged or was seen to hold, since its store was last put back.
    held: Vec<State>,
}

impl Model {
    /// Adds a machine that holds what is in `state`.
    pub fn add_machine(&mut self, state: State) {
        self.held.push(state);
    }

    /// A write was made. Whether it was acknowledged, [`Model::acknowledge`] says.
    pub fn write(&mut self, name: usize, version: Version, content: Option<Content>) {
        self.writes[name].entry(version.place).or_default().push((version, content));
    }

    /// A machine has promised that it has a version.
    pub fn acknowledge(&mut self, machine: usize, name: usize, version: Version) {
        let held = &mut self.held[machine][name];
        assert!(held.is_none_or(|held| held.place < version.place), "a write does not beat what its writer had seen");
        *held = Some(version);
    }

    /// A machine was looked at: it must have all that it ever had, or what is newer.
    pub fn observe(&mut self, machine: usize, seen: &State) {
        for (name, seen) in seen.iter().enumerate() {
            let held = self.held[machine][name];
            let place = |version: &Option<Version>| version.map(|version| version.place);
            assert!(place(seen) >= place(&held), "name {name}: machine {machine} had {held:?}, and has {seen:?}");
            if let Some(seen) = seen {
                self.content(name, seen);
            }
            self.held[machine][name] = *seen;
        }
    }

    /// A machine's store was replaced by one that may have less.
    pub fn replace(&mut self, machine: usize, state: State) {
        self.held[machine] = state;
    }

    /// What was written with a version.
    pub fn content(&self, name: usize, version: &Version) -> Option<Content> {
        let written = self.writes[name].get(&version.place).and_then(|all| all.iter().find(|(one, _)| one == version));
        written.unwrap_or_else(|| panic!("name {name}: nobody wrote {version:?}")).1
    }

    /// What all must have in the end, at least: the greatest write of each name that is still anywhere.
    pub fn expected(&self) -> [Option<Place>; NAMES] {
        std::array::from_fn(|name| self.held.iter().filter_map(|state| state[name]).map(|version| version.place).max())
    }
}
