//! A world: a server and devices on a simulated network, what befalls them, and what must be so in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kvassd::keys::{AccountId, EncryptionKey, Keys};
use kvassd::record::RecordId;
use kvassd::store::Seq;
use tempfile::TempDir;

use crate::chance::Chance;
use crate::links::{Link, Reads};
use crate::machine::{Life, Machine, PLENTY, PORT, SERVER, name};
use crate::model::{Model, NAMES, State, Subject};
use crate::network::Boundary;
use crate::trace::Trace;
use crate::waits::Wait;

/// How much time passes at once.
pub const TICK: Duration = Duration::from_millis(20);

/// The right time at the beginning, in microseconds since 1970.
const BEGINNING_US: u64 = 1_700_000_000_000_000;

/// The state of a device's way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// What is sent is lost.
    Lost,
    /// What the device sends is lost, or what it is sent.
    LostOut,
    LostIn,
    /// What is sent waits.
    Held,
}

/// What was seen of a machine when something was last written about it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    head: Seq,
    store: [u8; 16],
}

pub struct World {
    pub chance: Chance,
    pub model: Model,
    pub machines: Vec<Machine>,
    pub ways: Vec<Way>,
    /// When a machine that is down starts again, in ticks.
    pub down_until: Vec<Option<u64>>,
    /// The keys that were in force, the newest last.
    pub keys: Vec<[u8; 32]>,
    pub ticks: u64,
    pub trace: Trace,
    /// Whether the server has the server key alone.
    pub is_blind: bool,
    /// The links that were made.
    pub links: Vec<Link>,
    /// How often each was read through each machine, and what that was when the machine was backed up.
    pub reads: Vec<BTreeMap<usize, Reads>>,
    pub kept_reads: Vec<Vec<BTreeMap<usize, Reads>>>,
    pub waits: Vec<Wait>,
    /// Whether the server's store was replaced by one that has less, of which some device may not know yet.
    pub is_replaced: bool,
    /// The names by their ids in each account.
    ids: BTreeMap<AccountId, BTreeMap<RecordId, Subject>>,
    seen: Vec<Seen>,
    time_us: Arc<AtomicU64>,
    sim: turmoil::Sim<'static>,
    root: TempDir,
}

impl World {
    /// A world with a server that has nothing in its store.
    pub fn new(seed: u64, print: bool, is_blind: bool) -> Self {
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .tcp_capacity(1 << 12)
            .simulation_duration(Duration::MAX)
            .build();
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut world = Self {
            chance: Chance::new(seed),
            model: Model::default(),
            machines: Vec::new(),
            ways: Vec::new(),
            down_until: Vec::new(),
            keys: Vec::new(),
            ticks: 0,
            trace: Trace { print, ..Trace::default() },
            is_blind,
            links: Vec::new(),
            reads: Vec::new(),
            kept_reads: Vec::new(),
            waits: Vec::new(),
            is_replaced: false,
            ids: BTreeMap::new(),
            seen: Vec::new(),
            time_us: Arc::new(AtomicU64::new(BEGINNING_US)),
            sim,
            root: root.unwrap(),
        };
        world.new_key();
        world.add(SERVER, None);
        // Nobody has met it yet.
        world.is_replaced = false;
        world
    }

    fn new_key(&mut self) {
        let mut key = [0; 32];
        self.chance.fill(&mut key);
        self.keys.push(key);
        let keys = Keys::derive(&EncryptionKey::new(key));
        let ids = (0..NAMES).map(|at| (keys.record_id(&name(at)), Subject::Name(at))).collect();
        self.ids.insert(keys.account(), ids);
    }

    /// Puts a new key in force, or one that was so before.
    pub fn choose_key(&mut self) {
        if self.chance.one_in(3) {
            let which = self.chance.index(self.keys.len());
            let key = self.keys[which];
            self.keys.push(key);
        } else {
            self.new_key();
        }
    }

    /// Adds a machine and starts it, with another's files where it is a clone.
    pub fn add(&mut self, name: &str, clone_of: Option<usize>) {
        let at = self.machines.len();
        let mut machine = Machine::new(name, self.root.path(), &self.time_us, self.chance.next());
        let mut reads = BTreeMap::new();
        if let Some(original) = clone_of {
            machine.clone_of(&self.machines[original]);
            reads.clone_from(&self.reads[original]);
        }
        self.reads.push(reads);
        self.kept_reads.push(Vec::new());
        self.sim.host(name, machine.software());
        self.machines.push(machine);
        self.ways.push(Way::Open);
        self.down_until.push(None);
        self.seen.push(Seen::default());
        if at > 0 {
            self.new_latency(at);
        }
        self.model.add_machine(State::default());
        self.start(at);
        if clone_of.is_none() {
            self.set_key(at);
        }
    }

    pub fn note(&mut self, at: usize, what: &str) {
        let seconds = self.seconds();
        let Self { trace, machines, .. } = self;
        trace.add(seconds, &machines[at].name, what);
    }

    pub fn seconds(&self) -> f64 {
        self.ticks as f64 * TICK.as_secs_f64()
    }

    /// One of the devices.
    pub fn a_device(&mut self) -> usize {
        1 + self.chance.index(self.machines.len() - 1)
    }

    pub fn is_up(&self, at: usize) -> bool {
        self.machines[at].life.is_some()
    }

    /// Lets one tick pass.
    pub fn step(&mut self) {
        self.time_us.store(BEGINNING_US + self.ticks * TICK.as_micros() as u64, Relaxed);
        self.reap();
        self.sim.step().expect("no part of a machine fails");
        self.ticks += 1;
        self.look_at_waits();
        for at in 0..self.machines.len() {
            self.look_at(at);
        }
        self.reap();
        for at in 0..self.machines.len() {
            if self.down_until[at].is_some_and(|until| until <= self.ticks) {
                self.start(at);
            }
        }
    }

    /// Kills the machines whose trap has sprung.
    fn reap(&mut self) {
        for at in 0..self.machines.len() {
            if self.is_up(at) && self.machines[at].trap.is_sprung() {
                self.note(at, "is killed in the middle of something");
                self.kill(at);
            }
        }
    }

    /// Writes down what has changed on a machine.
    fn look_at(&mut self, at: usize) {
        let Some(Life { store, .. }) = &self.machines[at].life else { return };
        let seen = Seen { head: store.head(), store: store.identity().0.0 };
        if seen != self.seen[at] {
            self.seen[at] = seen;
            self.note(at, &format!("head {} of {:02x?}", seen.head.0, &seen.store[..4]));
        }
    }

    /// Ends a machine as a kill does. It starts again after a while.
    pub fn kill(&mut self, at: usize) {
        if !self.machines[at].trap.is_sprung() {
            self.observe(at);
        }
        let left = self.machines[at].freeze();
        self.sim.crash(&self.machines[at].name[..]);
        drop(self.machines[at].bury());
        self.machines[at].move_to(left);
        self.waits.retain(|wait| wait.at != at);
        let pause = if self.chance.one_in(2) { 1 } else { self.chance.below(1_000) };
        self.down_until[at] = Some(self.ticks + pause);
    }

    /// Ends a machine as a power cut does, of which the others hear nothing.
    pub fn unplug(&mut self, at: usize) {
        self.cut_off(at);
        self.kill(at);
    }

    fn cut_off(&mut self, at: usize) {
        for other in self.others(at) {
            self.sim.partition(&self.machines[at].name[..], &other[..]);
        }
    }

    /// Whom a machine talks to.
    fn others(&self, at: usize) -> Vec<String> {
        let is_other = |other: &&Machine| other.is_server() != self.machines[at].is_server();
        self.machines.iter().filter(is_other).map(|other| other.name.clone()).collect()
    }

    /// Sets a trap that springs when time or randomness is asked for the `count`th time from now.
    pub fn set_trap(&mut self, at: usize, count: u64) {
        let others = self.others(at);
        self.machines[at].place_trap(others);
        self.machines[at].trap.set(count);
        self.note(at, &format!("will be killed when it asks for the {count}th time"));
    }

    /// Cuts a machine's connections, or kills it, behind a frame.
    pub fn cut_behind(&mut self, at: usize, boundary: Boundary) {
        let others = self.others(at);
        self.machines[at].place_trap(others);
        self.machines[at].scissors.cut_behind(Some(boundary));
        self.note(at, &format!("will meet {boundary:?}"));
    }

    /// Starts a machine with the files that it has.
    pub fn start(&mut self, at: usize) {
        self.down_until[at] = None;
        self.machines[at].open();
        self.observe(at);
        let store = self.machines[at].store();
        if at > 0 && store.remote().borrow().is_empty() {
            store.set_remote(format!("http://{SERVER}:{PORT}")).unwrap();
        }
        let known = store.identity().1;
        self.note(at, &format!("starts, of account {}", known.fingerprint()));
        self.sim.bounce(&self.machines[at].name[..]);
        let ways = if at == 0 { 1..self.machines.len() } else { at..at + 1 };
        for way in ways {
            self.set_way(way, self.ways[way]);
        }
    }

    /// Ends a machine as SIGTERM does, and starts it again.
    pub fn restart(&mut self, at: usize) {
        self.note(at, "is stopped");
        let name = self.machines[at].name.clone();
        self.machines[at].life.as_ref().unwrap().stop.cancel();
        while self.is_up(at) && self.sim.is_host_running(&name[..]) {
            self.step();
        }
        if !self.is_up(at) || self.down_until[at].is_some() {
            // It was killed while it stopped.
            return;
        }
        self.observe(at);
        self.waits.retain(|wait| wait.at != at);
        if let Some(Life { store, .. }) = self.machines[at].bury() {
            store.close();
        }
        self.start(at);
    }

    pub fn set_way(&mut self, at: usize, way: Way) {
        self.ways[at] = way;
        let (device, sim) = (&self.machines[at].name[..], &self.sim);
        // What was held goes on its way first; what was lost stays lost.
        sim.release(device, SERVER);
        match way {
            Way::Open => {}
            Way::Lost => sim.partition(device, SERVER),
            Way::LostOut => sim.partition_oneway(device, SERVER),
            Way::LostIn => sim.partition_oneway(SERVER, device),
            Way::Held => sim.hold(device, SERVER),
        }
    }

    pub fn new_latency(&mut self, at: usize) {
        let milliseconds = 1 + self.chance.below(200);
        self.sim.set_link_latency(&self.machines[at].name[..], SERVER, Duration::from_millis(milliseconds));
    }

    /// Looks at what a machine has: all that it had, or what is newer.
    pub fn observe(&mut self, at: usize) {
        let state = self.state(at);
        self.model.observe(at, &state);
    }

    /// What a machine has.
    pub fn state(&self, at: usize) -> State {
        let (_, account) = self.machines[at].store().identity();
        let link = |id| self.links.iter().position(|link| link.token.locator() == id).map(Subject::Link);
        let known = |id| self.ids.get(&account).and_then(|ids| ids.get(&id)).copied().or_else(|| link(id));
        self.machines[at].state(|id| known(id).expect("an id of a name or a link that is used"))
    }

    /// What time it is by a machine's clock.
    pub fn time_of(&self, at: usize) -> u64 {
        self.time_us.load(Relaxed).saturating_add_signed(self.machines[at].skew_us.load(Relaxed))
    }

    pub fn observe_all(&mut self) {
        for at in 0..self.machines.len() {
            if self.is_up(at) {
                self.observe(at);
            }
        }
    }

    /// Ends all that befalls the machines.
    pub fn heal(&mut self) {
        self.reap();
        for at in 0..self.machines.len() {
            if !self.is_up(at) {
                self.start(at);
            }
            let machine = &self.machines[at];
            machine.trap.disarm();
            machine.scissors.cut_behind(None);
            machine.slowness_ms.store(0, Relaxed);
            machine.free.store(PLENTY, Relaxed);
        }
        for at in 1..self.machines.len() {
            self.set_way(at, Way::Open);
        }
        for at in 0..self.machines.len() {
            self.set_key(at);
        }
        for at in 1..self.machines.len() {
            let life = self.machines[at].life.as_ref().unwrap();
            let _ = life.remote.as_ref().unwrap().ask();
        }
        self.note(0, "all is well again");
    }
}
