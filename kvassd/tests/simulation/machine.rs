//! A machine: a data directory, a clock that may be wrong, and, while it runs, a store with its link or its server.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvassd::accept::Door;
use kvassd::clock::Clock;
use kvassd::random::Random;
use kvassd::record::{Clear, Kind, RecordId};
use kvassd::store::{Disk, Options, Seq, Store, Surroundings};
use kvassd::sync::remote::Remote;
use kvassd::sync::server;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

use crate::chance::Chance;
use crate::model::{State, Subject, Version};
use crate::network::{Listener, Scissors};
use crate::trap::{Trap, copy};

/// The name of the server on the simulated network.
pub const SERVER: &str = "server";

pub const PORT: u16 = 8000;

/// Bytes that are free on a disk that is not full.
pub const PLENTY: u64 = 1 << 40;

const OPTIONS: Options = Options { value_max: 8 << 20, reserve: 0 };

pub fn name(at: usize) -> String {
    format!("name {at}")
}

/// What runs on a machine.
#[derive(Clone)]
pub struct Life {
    pub store: Store,
    /// The link of a device; `None` on the server.
    pub remote: Option<Remote>,
    pub stop: CancellationToken,
    scissors: Scissors,
}

/// What the simulated host runs.
async fn live(life: Option<Life>) -> turmoil::Result {
    let Some(Life { store, remote, stop, scissors }) = life else { return Ok(()) };
    match remote {
        Some(remote) => remote.run(stop).await?,
        None => {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
            server::serve(Door::default(), store, Listener { listener, scissors }, stop).await?;
        }
    }
    Ok(())
}

pub struct Machine {
    pub name: String,
    pub scissors: Scissors,
    pub trap: Arc<Trap>,
    /// By how much its clock is wrong, in microseconds.
    pub skew_us: Arc<AtomicI64>,
    /// The longest that a call into its store may take, in milliseconds.
    pub slowness_ms: Arc<AtomicU64>,
    /// Bytes that are free on its disk.
    pub free: Arc<AtomicU64>,
    pub backups: Vec<PathBuf>,
    pub life: Option<Life>,
    surroundings: Surroundings,
    directory: PathBuf,
    root: PathBuf,
    copies: u32,
    slot: Rc<RefCell<Option<Life>>>,
}

impl Machine {
    /// A machine that does not run, with an empty directory. `time_us` is the right time.
    pub fn new(name: &str, root: &Path, time_us: &Arc<AtomicU64>, chance: u64) -> Self {
        let trap = Arc::new(Trap::new(name));
        let skew_us = Arc::new(AtomicI64::new(0));
        let clock = {
            let (trap, skew_us, time_us) = (Arc::clone(&trap), Arc::clone(&skew_us), Arc::clone(time_us));
            Clock::new(move || {
                trap.step();
                time_us.load(Relaxed).saturating_add_signed(skew_us.load(Relaxed))
            })
        };
        let random = {
            let (trap, chance) = (Arc::clone(&trap), Mutex::new(Chance::new(chance)));
            Random::new(move |bytes| {
                trap.step();
                chance.lock().unwrap().fill(bytes);
                Ok(())
            })
        };
        let (slowness_ms, free) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(PLENTY)));
        let disk = {
            let (slowness_ms, free, time_us) = (Arc::clone(&slowness_ms), Arc::clone(&free), Arc::clone(time_us));
            let pause = move || pause(slowness_ms.load(Relaxed), chance ^ time_us.load(Relaxed));
            Disk::new(move |_| Ok(free.load(Relaxed)), pause)
        };
        let root = root.join(name);
        let mut machine = Self {
            name: name.into(),
            scissors: Scissors::new(Arc::clone(&trap)),
            trap,
            skew_us,
            slowness_ms,
            free,
            backups: Vec::new(),
            life: None,
            surroundings: Surroundings { clock, random, threads: false, disk },
            directory: PathBuf::new(),
            root,
            copies: 0,
            slot: Rc::default(),
        };
        machine.directory = machine.new_directory();
        fs::create_dir_all(&machine.directory).unwrap();
        machine
    }

    /// What the simulated host runs each time that it starts.
    pub fn software(&self) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = turmoil::Result>>> + 'static {
        let slot = Rc::clone(&self.slot);
        move || Box::pin(live(slot.borrow().clone()))
    }

    pub fn is_server(&self) -> bool {
        self.name == SERVER
    }

    fn new_directory(&mut self) -> PathBuf {
        self.copies += 1;
        self.root.join(self.copies.to_string())
    }

    /// Opens the store in the directory; the host has to be started then.
    pub fn open(&mut self) {
        self.trap.clear();
        lay_ballast(&self.directory);
        let store = Store::open_in(&self.directory, OPTIONS, self.surroundings.clone(), &|_| {});
        let store = store.unwrap_or_else(|error| panic!("{}: the store does not open: {error}", self.name));
        let remote = (!self.is_server()).then(|| Remote::over(Arc::new(self.scissors.clone()), store.clone()));
        let life = Life { store, remote, stop: CancellationToken::new(), scissors: self.scissors.clone() };
        *self.slot.borrow_mut() = Some(life.clone());
        self.life = Some(life);
    }

    /// Makes the trap ready to spring.
    pub fn place_trap(&mut self, others: Vec<String>) {
        let to = self.new_directory();
        self.trap.place(&self.directory, to, others);
    }

    /// What a kill leaves: a copy of the files as they lie, or as they lay when the trap sprang.
    pub fn freeze(&mut self) -> PathBuf {
        if self.trap.is_sprung() {
            return self.trap.copy();
        }
        let to = self.new_directory();
        copy(&self.directory, &to);
        to
    }

    /// Forgets what ran, after the host was crashed or has ended.
    pub fn bury(&mut self) -> Option<Life> {
        self.trap.disarm();
        self.scissors.cut_behind(None);
        self.slot.borrow_mut().take();
        self.life.take()
    }

    /// Has other files from now on.
    pub fn move_to(&mut self, directory: PathBuf) {
        fs::remove_dir_all(std::mem::replace(&mut self.directory, directory)).unwrap();
    }

    /// Keeps a copy of the files as they lie.
    pub fn back_up(&mut self) {
        let to = self.new_directory();
        copy(&self.directory, &to);
        self.backups.push(to);
    }

    /// Puts a copy back in the place of the files.
    pub fn restore(&mut self, backup: &Path) {
        let to = self.new_directory();
        copy(backup, &to);
        self.move_to(to);
    }

    /// Begins with an empty directory.
    pub fn delete(&mut self) {
        let to = self.new_directory();
        fs::create_dir_all(&to).unwrap();
        self.move_to(to);
    }

    /// Takes over another machine's files.
    pub fn clone_of(&mut self, other: &Self) {
        copy(&other.directory, &self.directory);
    }

    pub fn store(&self) -> &Store {
        &self.life.as_ref().expect("the machine runs").store
    }

    /// What its store has; `known` says what a record is of. Every value must be here, whole.
    pub fn state(&self, known: impl Fn(RecordId) -> Subject) -> State {
        let store = self.store();
        let mut state = State::default();
        let mut after = Seq(0);
        while after < store.head() {
            let part = store.outgoing_all(after, usize::MAX).unwrap();
            after = part.cursor.unwrap().seq;
            for (_, travelling) in part.records {
                let clear = Clear::parse(&travelling.record.clear).unwrap();
                let what = known(clear.id);
                assert!(!clear.has_blob() || store.has_blob(&clear), "{}: {what:?} has no value", self.name);
                state.insert(what, version(&clear));
            }
        }
        state
    }
}

fn version(clear: &Clear) -> Version {
    let stamp = clear.stamp;
    let place = (stamp.time_us, stamp.counter, std::cmp::Reverse(stamp.pid));
    let hash = if clear.kind == Kind::VALUE { clear.value_hash.0 } else { [0; 32] };
    Version { place, removed: clear.kind == Kind::REMOVAL, hash }
}

/// How long a call takes that is made at a time: most often hardly longer than no time, and sometimes long. Calls of
/// one moment take the same, because their order is none of this world.
fn pause(longest_ms: u64, moment: u64) -> Duration {
    let mut chance = Chance::new(moment);
    let most = if chance.one_in(4) { longest_ms } else { longest_ms.min(20) };
    Duration::from_millis(if most == 0 { 0 } else { chance.below(most + 1) })
}

/// A ballast that takes no space: a thousand of them are laid.
fn lay_ballast(directory: &Path) {
    fs::File::create(directory.join("ballast")).unwrap().set_len(16 << 20).unwrap();
}
