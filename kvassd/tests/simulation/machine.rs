//! A machine: a data directory, a clock that may be wrong, and, while it runs, a store with its link or its server.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use kvassd::accept::Door;
use kvassd::clock::Clock;
use kvassd::keys::{Key, Keys};
use kvassd::random::Random;
use kvassd::record::{Clear, Kind};
use kvassd::store::{Options, Seq, Store, Surroundings};
use kvassd::sync::remote::Remote;
use kvassd::sync::server;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

use crate::chance::Chance;
use crate::model::{NAMES, State, Version};
use crate::network::{Listener, Scissors};

/// The name of the server on the simulated network.
pub const SERVER: &str = "server";

pub const PORT: u16 = 8000;

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
}

/// What the simulated host runs.
async fn live(life: Option<Life>) -> turmoil::Result {
    let Some(Life { store, remote, stop }) = life else { return Ok(()) };
    match remote {
        Some(remote) => remote.run(stop).await?,
        None => {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
            server::serve(Door::default(), store, Listener(listener), stop).await?;
        }
    }
    Ok(())
}

/// Takes a copy of a machine's files in the middle of what it does, and cuts the machine off in the same moment: what
/// it does from then on nobody hears of. So the copy is what a kill at that moment leaves.
#[derive(Default)]
pub struct Trap {
    /// How often time or randomness may still be asked for; 0: it is not set.
    left: AtomicU64,
    sprung: AtomicBool,
    from: Mutex<PathBuf>,
    to: Mutex<PathBuf>,
    /// Whom the machine can reach.
    others: Mutex<Vec<String>>,
    name: String,
}

impl Trap {
    fn step(&self) {
        if self.left.load(Relaxed) == 0 || self.left.fetch_sub(1, Relaxed) > 1 {
            return;
        }
        self.sprung.store(true, Relaxed);
        copy(&self.from.lock().unwrap(), &self.to.lock().unwrap());
        if turmoil::in_simulation() {
            self.others.lock().unwrap().iter().for_each(|other| turmoil::partition(&self.name[..], &other[..]));
        }
    }

    /// Takes the trap away.
    pub fn disarm(&self) {
        self.left.store(0, Relaxed);
    }

    pub fn is_sprung(&self) -> bool {
        self.sprung.load(Relaxed)
    }
}

pub struct Machine {
    pub name: String,
    pub scissors: Scissors,
    pub trap: Arc<Trap>,
    /// By how much its clock is wrong, in microseconds.
    pub skew_us: Arc<AtomicI64>,
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
        let trap = Arc::new(Trap { name: name.into(), ..Trap::default() });
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
        let root = root.join(name);
        let mut machine = Self {
            name: name.into(),
            scissors: Scissors::default(),
            trap,
            skew_us,
            backups: Vec::new(),
            life: None,
            surroundings: Surroundings { clock, random, threads: false },
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
        self.trap.left.store(0, Relaxed);
        self.trap.sprung.store(false, Relaxed);
        lay_ballast(&self.directory);
        let store = Store::open_in(&self.directory, OPTIONS, self.surroundings.clone(), &|_| {});
        let store = store.unwrap_or_else(|error| panic!("{}: the store does not open: {error}", self.name));
        let remote = (!self.is_server()).then(|| Remote::over(Arc::new(self.scissors.clone()), store.clone()));
        let life = Life { store, remote, stop: CancellationToken::new() };
        *self.slot.borrow_mut() = Some(life.clone());
        self.life = Some(life);
    }

    /// Sets the trap: it springs when time or randomness is asked for the `count`th time from now.
    pub fn set_trap(&mut self, count: u64, others: Vec<String>) {
        let to = self.new_directory();
        *self.trap.from.lock().unwrap() = self.directory.clone();
        *self.trap.to.lock().unwrap() = to;
        *self.trap.others.lock().unwrap() = others;
        self.trap.left.store(count, Relaxed);
    }

    /// What a kill leaves: a copy of the files as they lie, or as they lay when the trap sprang.
    pub fn freeze(&mut self) -> PathBuf {
        if self.trap.is_sprung() {
            return self.trap.to.lock().unwrap().clone();
        }
        let to = self.new_directory();
        copy(&self.directory, &to);
        to
    }

    /// Forgets what ran, after the host was crashed or has ended.
    pub fn bury(&mut self) -> Option<Life> {
        self.trap.left.store(0, Relaxed);
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

    /// What its store has.
    pub fn state(&self) -> State {
        let store = self.store();
        let Key::Encryption(key) = store.key() else { panic!("a machine has a full key") };
        let keys = Keys::derive(&key);
        let ids: [_; NAMES] = std::array::from_fn(|at| keys.record_id(&name(at)));
        let mut state = State::default();
        let mut after = Seq(0);
        while after < store.head() {
            let part = store.outgoing_all(after, usize::MAX).unwrap();
            after = part.cursor.unwrap().seq;
            for (_, travelling) in part.records {
                let clear = Clear::parse(&travelling.record.clear).unwrap();
                let at = ids.iter().position(|id| *id == clear.id).expect("an id of a name that is used");
                state[at] = Some(version(&clear));
            }
        }
        state
    }
}

fn version(clear: &Clear) -> Version {
    let stamp = clear.stamp;
    let place = (stamp.time_us, stamp.counter, std::cmp::Reverse(stamp.pid));
    Version { place, removed: clear.kind == Kind::REMOVAL, hash: clear.value_hash.0 }
}

/// A ballast that takes no space: a thousand of them are laid.
fn lay_ballast(directory: &Path) {
    fs::File::create(directory.join("ballast")).unwrap().set_len(16 << 20).unwrap();
}

/// Copies a data directory in which nobody writes but sled's own threads, which move things about.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let (from, to) = (file.path(), to.join(file.file_name()));
        if file.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else if file.file_name() != "ballast" {
            copy_file(&from, &to);
        }
    }
}

/// Copies a file as it was in one moment.
fn copy_file(from: &Path, to: &Path) {
    let read = || match fs::read(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.unwrap()),
    };
    let mut bytes = read();
    loop {
        let again = read();
        if again == bytes {
            break;
        }
        bytes = again;
    }
    if let Some(bytes) = bytes {
        fs::write(to, bytes).unwrap();
    }
}
