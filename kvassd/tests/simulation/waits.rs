//! Those who wait for the link: `set --wait`, `sync`, and what `status` says is not at the remote yet.
//!
//! What they are told must be so whatever happens then.

use std::pin::Pin;
use std::task::{Context, Waker};

use kvassd::sync::remote::Goal;

use crate::machine::name;
use crate::model::{State, Subject, Version};
use crate::world::World;

/// Somebody who waits on a device.
pub struct Wait {
    pub at: usize,
    until: Pin<Box<dyn Future<Output = ()>>>,
    /// What the server holds at least once the wait is over, and what the device holds.
    there: State,
    here: State,
}

impl World {
    /// Waits until the server holds a version of a name, or a newer one.
    pub fn wait_for_held(&mut self, at: usize, which: usize, version: Version) {
        let there = State::from([(Subject::Name(which), version)]);
        self.wait(at, Goal::Held(name(which)), there, State::new());
    }

    /// Waits until both sides hold what each of them has now.
    pub fn wait_for_both(&mut self, at: usize) {
        if self.is_up(0) && !self.machines[0].trap.is_sprung() {
            let (there, here) = (self.state(at), self.state(0));
            self.wait(at, Goal::Both, there, here);
        }
    }

    /// Waits until the device holds what the server has now.
    pub fn wait_for_taken(&mut self, at: usize) {
        let here = self.state(0);
        self.wait(at, Goal::Taken, State::new(), here);
    }

    fn wait(&mut self, at: usize, goal: Goal, there: State, here: State) {
        let remote = self.machines[at].life.as_ref().and_then(|life| life.remote.clone());
        let Some(remote) = remote.filter(|_| !self.is_replaced) else { return };
        let question = remote.ask();
        let until = Box::pin(async move { remote.reached(question, &goal).await });
        self.waits.push(Wait { at, until, there, here });
    }

    /// Looks who waits for nothing any more, and notes what the server has promised with it.
    pub fn look_at_waits(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for mut wait in std::mem::take(&mut self.waits) {
            if !self.is_up(wait.at) || self.machines[wait.at].trap.is_sprung() {
                continue;
            }
            if wait.until.as_mut().poll(&mut context).is_pending() {
                self.waits.push(wait);
                continue;
            }
            self.note(wait.at, "waits no more");
            self.promised(&wait.there);
            let now = self.state(wait.at);
            for (what, version) in &wait.here {
                let is_here = now.get(what).is_some_and(|now| now.place >= version.place);
                assert!(is_here, "{what:?}: {} has waited for {version:?}", self.machines[wait.at].name);
            }
        }
    }

    /// Where a device says that nothing is on its way, all that it has is at the server.
    pub fn look_at_pending(&mut self) {
        for at in 1..self.machines.len() {
            let life = self.machines[at].life.as_ref().filter(|_| !self.machines[at].trap.is_sprung());
            let link = life.and_then(|life| life.remote.as_ref()?.link());
            if link.is_some_and(|link| link.pending == 0) && !self.is_replaced {
                let state = self.state(at);
                self.promised(&state);
            }
        }
    }

    fn promised(&mut self, there: &State) {
        there.iter().for_each(|(what, version)| self.model.promise(0, *what, *version));
        if self.is_up(0) && !self.machines[0].trap.is_sprung() {
            self.observe(0);
        }
    }
}
