//! When all is quiet in a world, and what must be so then.

use std::time::Duration;

use kvass_proto::v1::link;

use crate::machine::{Machine, name};
use crate::model::NAMES;
use crate::world::{TICK, World};

/// How long machines may need until all have everything: the longest pause between two attempts, and what it takes to
/// notice that a connection is dead, some times over.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl World {
    /// Waits until all machines have everything, and know it.
    pub fn wait_for_quiet(&mut self) {
        let end = self.ticks + (PATIENCE.as_millis() / TICK.as_millis()) as u64;
        while !self.is_quiet() {
            assert!(self.ticks < end, "not quiet in time:\n{}", self.report());
            for _ in 0..5 {
                self.step();
            }
            self.check_alarms();
        }
        self.note(0, "all is quiet");
    }

    /// Nobody may need the comparison of digests: it is an alarm.
    pub fn check_alarms(&self) {
        for machine in self.machines.iter().filter(|machine| machine.life.is_some()) {
            let store = machine.store();
            let alarmed = store.peers().keys().any(|peer| store.is_in_full_pass(*peer));
            assert!(!alarmed, "{} was found to lack something:\n{}", machine.name, self.report());
        }
    }

    fn is_quiet(&self) -> bool {
        let digest = |machine: &Machine| machine.store().digest().unwrap();
        let server = self.machines[0].store();
        self.waits.is_empty()
            && self.machines[1..].iter().all(|machine| {
                let link = machine.life.as_ref().unwrap().remote.as_ref().unwrap().link().unwrap();
                digest(machine) == digest(&self.machines[0])
                    && link.state() == link::State::Connected
                    && link.pending == 0
                    && server.pending(machine.store().identity().0).unwrap() == 0
            })
    }

    fn report(&self) -> String {
        let one = |machine: &Machine| {
            let link = machine.life.as_ref().and_then(|life| life.remote.as_ref()?.link());
            let (id, account) = machine.store().identity();
            let peers = machine.store().peers();
            format!(
                "{}: {:02x?} of {}, {:?}\n  {link:?}\n  {peers:?}\n",
                machine.name,
                &id.0[..4],
                account.fingerprint(),
                machine.store().head()
            )
        };
        self.machines.iter().map(one).collect()
    }

    /// Checks that all machines have the same, and nothing is missing that must be there.
    pub fn check(&mut self) {
        self.is_replaced = false;
        self.look_at_pending();
        self.observe_all();
        let state = self.state(0);
        for at in 0..self.machines.len() {
            assert_eq!(self.state(at), state, "{}", self.machines[at].name);
        }
        for (what, expected) in self.model.expected() {
            let place = state.get(&what).map(|version| version.place);
            assert!(place >= Some(expected), "{what:?}: {place:?} and not {expected:?}");
        }
        for at in usize::from(self.is_blind)..self.machines.len() {
            (0..NAMES).for_each(|which| self.read(at, which));
        }
        self.check_links();
    }
}

/// What a machine has under a name.
pub fn read(machine: &Machine, at: usize) -> Option<Vec<u8>> {
    let (_, mut reader) = machine.store().read(&name(at)).unwrap()?;
    let mut value = Vec::new();
    while reader.next(&mut value).unwrap() {}
    Some(value)
}
