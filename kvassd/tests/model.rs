//! The store against a map: whatever is done in whatever order, it holds what the map holds, and what it counts agrees
//! with what it keeps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kvassd::store::{Condition, Options, Outcome, Store, repair};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };

/// Sizes on both sides of everything that matters inside.
const SIZES: [usize; 9] = [0, 1, 300, 4_095, 4_096, 4_097, 32_768, 40_000, 600_000];

/// A time at which every entry has expired, and one at which none has.
const EXPIRIES: [u64; 3] = [0, 1, u64::MAX];

#[derive(Clone, Debug)]
enum Action {
    Set {
        key: u8,
        size: usize,
        expiry_us: u64,
    },
    Remove(Vec<u8>),
    RemovePrefix(u8),
    Import {
        key: u8,
        size: usize,
        newer: bool,
        force: bool,
    },
    /// Writers at once: each has its own key, and all fight for one.
    Burst {
        writers: u8,
        rounds: u8,
    },
    Rekey,
    RekeyUnderLoad,
    SetPid(u32),
    Reopen,
    Repair,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let key = 0..12_u8;
    let size = prop::sample::select(&SIZES[..]);
    let expiry = prop::sample::select(&EXPIRIES[..]);
    let set =
        (key.clone(), size.clone(), expiry).prop_map(|(key, size, expiry_us)| Action::Set { key, size, expiry_us });
    let import = (key.clone(), size, any::<bool>(), any::<bool>());
    let action = prop_oneof![
        12 => set,
        4 => prop::collection::vec(key.clone(), 1..5).prop_map(Action::Remove),
        2 => (0..3_u8).prop_map(Action::RemovePrefix),
        4 => import.prop_map(|(key, size, newer, force)| Action::Import { key, size, newer, force }),
        3 => (1..6_u8, 1..6_u8).prop_map(|(writers, rounds)| Action::Burst { writers, rounds }),
        1 => Just(Action::Rekey),
        1 => Just(Action::RekeyUnderLoad),
        1 => (1..u32::MAX).prop_map(Action::SetPid),
        3 => Just(Action::Reopen),
        1 => Just(Action::Repair),
    ];
    prop::collection::vec(action, 1..40)
}

/// Keys in three namespaces.
fn name(key: u8) -> String {
    format!("{}/{key}", key % 3)
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    bytes: Vec<u8>,
    expiry_us: u64,
}

impl Value {
    fn is_live(&self) -> bool {
        self.expiry_us != 1
    }
}

/// The store and the map beside it.
struct Model {
    directory: tempfile::TempDir,
    store: Option<Store>,
    entries: BTreeMap<String, Value>,
    pid: Option<u32>,
    written: u64,
}

impl Model {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Some(Store::open(directory.path(), OPTIONS, &|_| {}).unwrap());
        Self { directory, store, entries: BTreeMap::new(), pid: None, written: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Bytes that no other value has, but where they are too few.
    fn bytes(&mut self, size: usize) -> Vec<u8> {
        self.written += 1;
        self.written.to_le_bytes().into_iter().cycle().take(size).collect()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Set { key, size, expiry_us } => {
                let bytes = self.bytes(size);
                set(self.store(), &name(key), &bytes, expiry_us);
                self.entries.insert(name(key), Value { bytes, expiry_us });
            }
            Action::Remove(keys) => self.remove(keys.into_iter().map(name).collect()),
            Action::RemovePrefix(space) => self.remove_prefix(&format!("{space}/")),
            Action::Import { key, size, newer, force } => self.import(&name(key), size, newer, force),
            Action::Burst { writers, rounds } => self.burst(writers, rounds),
            Action::Rekey => self.store().set_key(None).unwrap(),
            Action::RekeyUnderLoad => {
                let store = self.store().clone();
                let changing = std::thread::spawn(move || store.set_key(None).unwrap());
                self.burst(3, 5);
                changing.join().unwrap();
            }
            Action::SetPid(pid) => {
                self.store().set_pid(pid).unwrap();
                self.pid = Some(pid);
            }
            Action::Reopen => self.reopen(|_| {}),
            Action::Repair => self.reopen(|directory| {
                let repaired = repair(directory, &mut |_| {}).unwrap();
                assert_eq!(repaired.lost, [""; 0]);
            }),
        }
    }

    fn remove(&mut self, names: BTreeSet<String>) {
        let missing = self.store().remove(names.iter().cloned().collect()).unwrap();
        let is_missing = |name: &&String| !self.entries.get(*name).is_some_and(Value::is_live);
        assert_eq!(missing, names.iter().filter(is_missing).cloned().collect::<Vec<_>>());
        self.entries.retain(|name, value| !names.contains(name) || !value.is_live());
    }

    fn remove_prefix(&mut self, prefix: &str) {
        let count = self.store().remove_prefix(prefix).unwrap();
        let before = self.entries.len();
        self.entries.retain(|name, value| !name.starts_with(prefix) || !value.is_live());
        assert_eq!(count as usize, before - self.entries.len());
    }

    fn import(&mut self, name: &str, size: usize, newer: bool, force: bool) {
        let bytes = self.bytes(size);
        let known = self.entries.get(name).filter(|known| known.is_live());
        let same = known.is_some_and(|known| known.bytes == bytes && known.expiry_us == 0);
        let expected = match known {
            _ if same => Outcome::Unchanged,
            Some(_) if !newer && !force => Outcome::KeptNewer,
            _ => Outcome::Stored,
        };
        let mut writer = self.store().writer(None).unwrap();
        writer.push(&bytes).unwrap();
        let condition = Condition { time_us: if newer { u64::MAX >> 2 } else { 1 }, force, dry_run: false };
        assert_eq!(self.store().import(name, writer.finish().unwrap(), 0, condition).unwrap(), expected);
        if expected == Outcome::Stored {
            self.entries.insert(name.into(), Value { bytes, expiry_us: 0 });
        }
    }

    /// What is written at once is committed together: set, removal and set of one key in one commit among it.
    fn burst(&mut self, writers: u8, rounds: u8) {
        let last: Vec<_> = (0..writers).map(|_| self.bytes(5_000)).collect();
        std::thread::scope(|scope| {
            for (writer, last) in last.iter().enumerate() {
                let store = self.store().clone();
                scope.spawn(move || {
                    let own = format!("own/{writer}");
                    for round in 0..rounds {
                        set(&store, "fought for", &[round; 5_000], 0);
                        set(&store, &own, b"short", 0);
                        assert_eq!(store.remove(vec![own.clone()]).unwrap(), [""; 0]);
                        store.remove(vec!["fought for".into()]).unwrap();
                    }
                    set(&store, &own, last, 0);
                });
            }
        });
        set(self.store(), "fought for", &last[0], 0);
        for (writer, bytes) in last.iter().enumerate() {
            self.entries.insert(format!("own/{writer}"), Value { bytes: bytes.clone(), expiry_us: 0 });
        }
        self.entries.insert("fought for".into(), Value { bytes: last[0].clone(), expiry_us: 0 });
    }

    /// Closes the store, compares what it counts with what it keeps, and opens it again.
    fn reopen(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.verify();
        self.store.take().unwrap().close();
        Kept::read(self.directory.path()).verify(self.directory.path());
        meanwhile(self.directory.path());
        self.store = Some(Store::open(self.directory.path(), OPTIONS, &|_| {}).unwrap());
        self.verify();
    }

    fn verify(&self) {
        let live: BTreeMap<_, _> = self.entries.iter().filter(|(_, value)| value.is_live()).collect();
        let listed = self.store().entries("", None, false, usize::MAX).unwrap();
        let known: Vec<_> = live.iter().map(|(name, value)| ((*name).clone(), value.bytes.len() as u64)).collect();
        assert_eq!(listed.into_iter().map(|entry| (entry.name, entry.size)).collect::<Vec<_>>(), known);
        for (name, value) in &self.entries {
            let read = self.store().read(name).unwrap().map(|(entry, mut reader)| {
                let mut bytes = Vec::new();
                while reader.next(&mut bytes).unwrap() {}
                Value { bytes, expiry_us: entry.expiry_us }
            });
            assert!(read.as_ref() == Some(value).filter(|value| value.is_live()), "{name} is not what was set");
        }
        self.store().check(&mut |finding| panic!("{finding:?}")).unwrap();
        let summary = self.store().summary().unwrap();
        assert_eq!(summary.keys as usize, live.len());
        assert!(self.pid.is_none_or(|pid| pid == summary.pid));
    }
}

fn set(store: &Store, name: &str, bytes: &[u8], expiry_us: u64) {
    let mut writer = store.writer(Some(bytes.len() as u64)).unwrap();
    writer.push(bytes).unwrap();
    store.set(name, writer.finish().unwrap(), expiry_us).unwrap();
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The rows of a closed store, read as docs/format.md says, with nothing of the store's own code.
struct Kept {
    account: Vec<u8>,
    meta: Rows,
    trees: BTreeMap<String, Rows>,
}

impl Kept {
    fn read(directory: &Path) -> Self {
        let db = sled::open(directory.join("store/sled")).unwrap();
        let rows = |tree: &[u8]| -> Rows {
            let rows = db.open_tree(tree).unwrap();
            rows.iter().map(|row| row.map(|(key, row)| (key.to_vec(), row.to_vec())).unwrap()).collect()
        };
        let meta = rows(b"meta");
        let trees = db.tree_names().into_iter().map(|name| (String::from_utf8_lossy(&name).into_owned(), rows(&name)));
        Self { account: meta[&b"account"[..]].clone(), trees: trees.collect(), meta }
    }

    fn tree(&self, tree: &str) -> &Rows {
        &self.trees[&format!("{tree}/{}", hex(&self.account))]
    }

    fn verify(&self, directory: &Path) {
        let (records, values, blobs, log) =
            (self.tree("records"), self.tree("values"), self.tree("blobs"), self.tree("log"));
        let tally = &self.meta[&[b"tally/", &self.account[..]].concat()];
        let (digest, last, content) = (&tally[..32], number(&tally[32..40]), number(&tally[40..48]));
        let mut expected = ([0; 32], 0, 0);
        let (mut inline, mut files, mut places) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for (id, row) in records {
            let (seq, clear, auth) = (number(&row[8..16]), &row[20..110], &row[row.len() - 40..row.len() - 8]);
            assert_eq!(&clear[2..18], &id[..]);
            let (written, sum) = row.split_at(row.len() - 8);
            assert_eq!(sum, &Sha256::new().chain_update(&self.account).chain_update(written).finalize()[..8]);
            places.insert(row[8..16].to_vec(), [&id[..], &[0; 16]].concat());
            expected.0.iter_mut().zip(auth).for_each(|(byte, other)| *byte ^= other);
            expected.1 = expected.1.max(number(&clear[30..38]));
            expected.2 += row.len() as u64;
            assert!(seq <= last);
            if clear[1] == 1 && number(&clear[50..58]) > 4_096 {
                files.insert(clear[58..90].to_vec(), id.clone());
            } else if clear[1] == 1 {
                inline.insert(id.clone());
                expected.2 += values[id].len() as u64;
                assert_eq!(&values[id][8..40], &clear[58..90]);
            }
        }
        assert_eq!(digest, expected.0, "the digest");
        assert!(number(&self.meta[&b"state"[..]][8..16]) >= expected.1, "the counter");
        assert_eq!(content, expected.2, "the bytes of all rows");
        assert_eq!(&places, log, "one row of the log for each record");
        assert_eq!(inline, values.keys().cloned().collect(), "a value row for each short value");
        assert_eq!(&files, blobs, "a blob row for each large value");
        let names =
            fs::read_dir(directory.join("blobs")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            files.keys().map(|hash| hex(hash)).collect(),
            "a file for each large value"
        );
        assert_eq!(self.trees.keys().filter(|tree| tree.contains('/')).count(), 5, "trees of one account");
        assert_eq!(fs::read_to_string(directory.join("key")).unwrap().lines().count(), 1);
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_a_map_holds(actions in actions()) {
        let mut model = Model::new();
        for action in actions {
            model.act(action);
        }
        model.reopen(|_| {});
    }
}
