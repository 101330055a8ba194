//! The links of a world: making, revoking and opening them, and what each opening must come to.

use kvassd::keys::Token;
use kvassd::store::{Gone, Linked, ReadError, ShareError, ShareOptions, WriteError};

use crate::machine::name;
use crate::model::{State, Subject, changes, live_links};
use crate::world::World;

/// A link as it was made.
pub struct Link {
    pub token: Token,
    /// The name that it leads to.
    pub name: usize,
    pub options: ShareOptions,
    /// The value hash of the version that a pinned one leads to.
    hash: [u8; 32],
}

impl Link {
    fn is_plain(&self) -> bool {
        self.options == ShareOptions::default()
    }
}

/// How often a link was read through a machine: at least, and at most. A kill in the middle leaves it open whether a
/// read was counted that nobody got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reads {
    answered: u64,
    asked: u64,
}

/// What an opening comes to.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    /// The value of the version that the machine has of the link's name.
    Value,
    Unknown,
    Gone(Gone),
}

impl World {
    /// Makes a link, or finds the plain one.
    pub fn share(&mut self, at: usize, which: usize, options: ShareOptions) {
        let before = self.state(at);
        let store = self.machines[at].store().clone();
        let made = match store.share(&name(which), options) {
            Err(WriteError::DiskFull { .. }) => return self.note(at, "has no space for a link"),
            made => made.unwrap(),
        };
        let target = before.get(&Subject::Name(which)).filter(|entry| !entry.removed);
        assert_eq!(made.is_some(), target.is_some(), "a link to name {which}, which is {target:?}");
        let (Some(made), Some(target)) = (made, target) else { return };
        if let Some(known) = self.links.iter().position(|link| link.token == made.token) {
            let links: Vec<_> = self.links.iter().map(|link| link.name).collect();
            let is_there = live_links(&before, &links, which).contains(&Subject::Link(known));
            assert!(is_there && self.links[known].is_plain(), "link {known} was given out again");
            return;
        }
        let link = Subject::Link(self.links.len());
        self.links.push(Link { token: made.token, name: which, options, hash: target.hash });
        let after = self.state(at);
        let changed = changes(&before, &after);
        assert!(changed.len() == 1 && changed.get(&link).is_some_and(|link| !link.removed), "{changed:?}");
        self.written(at, &changed, None);
        self.note(at, &format!("{link:?} to name {which}: {options:?}"));
    }

    /// Revokes a link.
    pub fn revoke(&mut self, at: usize, which: usize) {
        let before = self.state(at);
        let link = Subject::Link(which);
        let was_live = before.get(&link).is_some_and(|link| !link.removed);
        let token = self.links[which].token.clone();
        match self.machines[at].store().revoke(&token) {
            Err(WriteError::DiskFull { .. }) => return self.note(at, "has no space for a removal"),
            revoked => assert_eq!(revoked.unwrap(), was_live, "{link:?}"),
        }
        let changed = changes(&before, &self.state(at));
        let is_right = changed.iter().all(|(what, version)| *what == link && version.removed);
        assert!(is_right && changed.len() == usize::from(was_live), "{changed:?}");
        self.written(at, &changed, None);
        self.note(at, &format!("{link:?} is revoked: {was_live}"));
    }

    /// Opens a link as a machine that is shown its token; takes a read of one that has a number of them.
    pub fn open_link(&mut self, at: usize, which: usize) {
        let state = self.state(at);
        let Link { token, options, .. } = &self.links[which];
        let (token, is_limited) = (token.clone(), options.reads > 0);
        let (expected, may_be_used_up) = self.opening(at, which, &state);
        let store = self.machines[at].store().clone();
        let counts = is_limited && expected == Opening::Value;
        if counts {
            self.reads[at].entry(which).or_default().asked += 1;
        }
        let found = store.count_read(&token);
        if self.machines[at].trap.is_sprung() {
            // It was killed before it answered.
            return;
        }
        let found = match found {
            Err(ShareError::Read(ReadError::DiskFull)) => return self.note(at, "has no space for a count"),
            found => found,
        };
        let is_used_up = matches!(found, Err(ShareError::Gone(Gone::UsedUp)));
        if !(is_used_up && may_be_used_up) {
            self.check_opening(at, which, &state, found, &expected);
            if counts {
                self.reads[at].entry(which).or_default().answered += 1;
            }
        }
        self.note(at, &format!("link {which} is opened: {expected:?}"));
    }

    /// What an opening must come to, and whether its reads may be used up as well.
    fn opening(&self, at: usize, which: usize, state: &State) -> (Opening, bool) {
        let link = &self.links[which];
        let ShareOptions { expiry_us, reads: allowed, pin } = link.options;
        let Some(record) = state.get(&Subject::Link(which)) else { return (Opening::Unknown, false) };
        if record.removed {
            return (Opening::Gone(Gone::Revoked), false);
        }
        let is_expired = |expiry_us| expiry_us != 0 && expiry_us <= self.time_of(at);
        if is_expired(expiry_us) {
            return (Opening::Gone(Gone::Expired), false);
        }
        let reads = self.reads[at].get(&which).copied().unwrap_or_default();
        if allowed > 0 && reads.answered >= allowed {
            return (Opening::Gone(Gone::UsedUp), true);
        }
        let may_be_used_up = allowed > 0 && reads.asked >= allowed;
        let opening = match state.get(&Subject::Name(link.name)) {
            None => Opening::Unknown,
            Some(entry) if entry.removed => Opening::Gone(Gone::Removed),
            Some(entry) if pin && entry.hash != link.hash => Opening::Gone(Gone::Replaced),
            Some(_) => Opening::Value,
        };
        (opening, may_be_used_up)
    }

    fn check_opening(
        &self,
        at: usize,
        which: usize,
        state: &State,
        found: Result<Linked, ShareError>,
        expected: &Opening,
    ) {
        let found = match found {
            Ok(linked) => {
                self.check_value(which, state, linked);
                Opening::Value
            }
            Err(ShareError::Unknown) => Opening::Unknown,
            Err(ShareError::Gone(gone)) => Opening::Gone(gone),
            Err(error) => panic!("link {which} on {}: {error}", self.machines[at].name),
        };
        let reads = self.reads[at].get(&which);
        assert_eq!(found, *expected, "link {which} on {}, read {reads:?}", self.machines[at].name);
    }

    /// A link gives the value of its entry as the machine has it, and no other.
    fn check_value(&self, which: usize, state: &State, mut linked: Linked) {
        let name_of = self.links[which].name;
        assert_eq!(linked.name, name(name_of), "link {which}");
        let entry = state.get(&Subject::Name(name_of)).expect("an entry that a link leads to");
        let content = self.model.content(Subject::Name(name_of), entry).expect("a value");
        let mut value = Vec::new();
        while linked.reader.next(&mut value).unwrap() {}
        assert!(value == content.bytes(), "link {which} gives something else than name {name_of}");
    }

    /// Looks through all links at all machines, and takes every read that is left at the server.
    pub fn check_links(&mut self) {
        let states: Vec<_> = (0..self.machines.len()).map(|at| self.state(at)).collect();
        for which in 0..self.links.len() {
            let token = self.links[which].token.clone();
            for (at, state) in states.iter().enumerate() {
                let (expected, may_be_used_up) = self.opening(at, which, state);
                let found = self.machines[at].store().open_share(&token);
                if !(may_be_used_up && matches!(found, Err(ShareError::Gone(Gone::UsedUp)))) {
                    self.check_opening(at, which, state, found, &expected);
                }
            }
            for _ in 0..self.links[which].options.reads {
                self.open_link(0, which);
            }
        }
    }
}
