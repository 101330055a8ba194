//! A world: a server and devices on a simulated network, what befalls them, and what must be so in the end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kvass_proto::v1::link;
use kvassd::store::Seq;
use tempfile::TempDir;

use crate::chance::Chance;
use crate::machine::{Life, Machine, PORT, SERVER, name};
use crate::model::{Content, Model, NAMES, State};
use crate::trace::Trace;

/// How much time passes at once.
const TICK: Duration = Duration::from_millis(20);

/// The right time at the beginning, in microseconds since 1970.
const BEGINNING_US: u64 = 1_700_000_000_000_000;

/// How long machines may need until all have everything: the longest pause between two attempts, and what it takes to
/// notice that a connection is dead, some times over.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

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
    seen: Vec<Seen>,
    time_us: Arc<AtomicU64>,
    sim: turmoil::Sim<'static>,
    root: TempDir,
}

impl World {
    /// A world in which all machines have the same key, and nothing in their stores.
    pub fn new(seed: u64, print: bool) -> Self {
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
            seen: Vec::new(),
            time_us: Arc::new(AtomicU64::new(BEGINNING_US)),
            sim,
            root: root.unwrap(),
        };
        world.new_key();
        world.add(SERVER, None);
        for device in 1..=3 + world.chance.below(4) {
            world.add(&format!("device{device}"), None);
        }
        world
    }

    fn new_key(&mut self) {
        let mut key = [0; 32];
        self.chance.fill(&mut key);
        self.keys.push(key);
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
        if let Some(original) = clone_of {
            machine.clone_of(&self.machines[original]);
        }
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

    pub fn is_up(&self, at: usize) -> bool {
        self.machines[at].life.is_some()
    }

    /// Lets one tick pass.
    pub fn step(&mut self) {
        self.time_us.store(BEGINNING_US + self.ticks * TICK.as_micros() as u64, Relaxed);
        self.reap();
        self.sim.step().expect("no part of a machine fails");
        self.ticks += 1;
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

    pub fn set_trap(&mut self, at: usize, count: u64) {
        let others = self.others(at);
        self.machines[at].set_trap(count, others);
        self.note(at, &format!("will be killed when it asks for the {count}th time"));
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
        let state = self.machines[at].state();
        self.model.observe(at, &state);
    }

    pub fn observe_all(&mut self) {
        for at in 0..self.machines.len() {
            if self.is_up(at) {
                self.observe(at);
            }
        }
    }

    /// Gives a machine the newest key.
    pub fn set_key(&mut self, at: usize) {
        let key = self.keys[self.keys.len() - 1];
        self.machines[at].store().set_key(Some(&key)).unwrap();
        let (_, account) = self.machines[at].store().identity();
        self.note(at, &format!("has the key of account {}", account.fingerprint()));
    }

    /// Stores a value, or removes an entry for `None`.
    pub fn write(&mut self, at: usize, which: usize, content: Option<Content>) {
        let store = self.machines[at].store();
        match content {
            Some(content) => {
                let mut writer = store.writer(None).unwrap();
                content.bytes().chunks(50_000).for_each(|part| writer.push(part).unwrap());
                store.set(&name(which), writer.finish().unwrap(), 0).unwrap();
            }
            None if !store.remove(vec![name(which)]).unwrap().is_empty() => return,
            None => {}
        }
        let version = self.machines[at].state()[which].expect("what was just written");
        self.model.write(which, version, content);
        // A machine that was killed meanwhile has told nobody.
        if !self.machines[at].trap.is_sprung() {
            self.model.acknowledge(at, which, version);
        }
        let size = content.map_or_else(|| "removed".into(), |content| format!("{} bytes", content.size));
        self.note(at, &format!("name {which}: {size}, {:?}", version.place));
    }

    /// Puts a machine's files back to what they once were, or away.
    pub fn put_back(&mut self, at: usize, backup: Option<&Path>) {
        self.observe_all();
        self.kill(at);
        match backup {
            Some(backup) => self.machines[at].restore(backup),
            None => self.machines[at].delete(),
        }
        // What nobody else had may be lost with it.
        self.machines[at].open();
        let state = self.machines[at].state();
        drop(self.machines[at].bury());
        self.model.replace(at, state);
        if backup.is_none() {
            self.start(at);
            self.set_key(at);
        }
    }

    /// Ends all that befalls the machines.
    pub fn heal(&mut self) {
        self.reap();
        for at in 0..self.machines.len() {
            if !self.is_up(at) {
                self.start(at);
            }
            self.machines[at].trap.disarm();
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
    fn check_alarms(&self) {
        for machine in self.machines.iter().filter(|machine| machine.life.is_some()) {
            let store = machine.store();
            let alarmed = store.peers().keys().any(|peer| store.is_in_full_pass(*peer));
            assert!(!alarmed, "{} was found to lack something:\n{}", machine.name, self.report());
        }
    }

    fn is_quiet(&self) -> bool {
        let digest = |machine: &Machine| machine.store().digest().unwrap();
        let server = self.machines[0].store();
        self.machines[1..].iter().all(|machine| {
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
                "{}: {:02x?} of {}, {:?}\n  {link:?}\n  {peers:?}\n  {:?}\n",
                machine.name,
                &id.0[..4],
                account.fingerprint(),
                machine.store().head(),
                machine.state()
            )
        };
        self.machines.iter().map(one).collect()
    }

    /// Checks that all machines have the same, and nothing is missing that must be there.
    pub fn check(&mut self) {
        self.observe_all();
        let expected = self.model.expected();
        let state = self.machines[0].state();
        for machine in &self.machines {
            assert_eq!(
                machine.store().digest().unwrap(),
                self.machines[0].store().digest().unwrap(),
                "{}",
                machine.name
            );
            assert_eq!(machine.state(), state, "{}", machine.name);
        }
        for at in 0..NAMES {
            let place = state[at].map(|version| version.place);
            assert!(place >= expected[at], "name {at}: {place:?} and not {:?}", expected[at]);
            let content = state[at].and_then(|version| self.model.content(at, &version));
            for machine in &self.machines {
                let found = read(machine, at);
                assert!(found == content.map(Content::bytes), "name {at} is not what was written on {}", machine.name);
            }
        }
    }
}

fn read(machine: &Machine, at: usize) -> Option<Vec<u8>> {
    let (_, mut reader) = machine.store().read(&name(at)).unwrap()?;
    let mut value = Vec::new();
    while reader.next(&mut value).unwrap() {}
    Some(value)
}
