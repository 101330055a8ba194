//! Stores for fuzzing: each input has one of its own, a copy of one that was made once, without threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kvassd::clock::Clock;
use kvassd::keys::{EncryptionKey, Key, SyncKey};
use kvassd::random::Random;
use kvassd::record::{Clear, ValueHash};
use kvassd::store::{Disk, Options, Seq, ShareOptions, Store, Surroundings, Travelling};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::key;

const OPTIONS: Options = Options { value_max: 1 << 20, reserve: 0 };

/// How long anything may take where time is not simulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// What runs the tasks of a target whose time is not simulated.
pub(crate) static THREADS: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread"));

/// What the clocks of all stores show, in microseconds since 1970.
pub(crate) const NOW_US: u64 = 1_700_000_000_000_000;

/// A store and its directory, which goes with it.
pub(crate) struct Place {
    pub(crate) store: Store,
    pub(crate) directory: TempDir,
}

/// What there is only once: a closed store that others are copies of, and what is in it.
pub(crate) struct Original {
    directory: TempDir,
    pub(crate) records: Vec<Travelling>,
    /// The files of its large values.
    pub(crate) blobs: BTreeMap<ValueHash, Vec<u8>>,
    /// Its entries.
    pub(crate) content: BTreeMap<String, Vec<u8>>,
}

/// The store of the one who is spoken to.
pub(crate) static OWN: LazyLock<Original> = LazyLock::new(|| {
    Original::make(1, &key(), |place| {
        place.set("own", b"own value");
        place.set("both", b"of the one who is spoken to");
        place.set("large own", &bytes(70_000));
        place.share("own");
    })
});

/// The same with the server key alone.
pub(crate) static BLIND: LazyLock<Original> = LazyLock::new(|| {
    let directory = temporary();
    copy(OWN.directory.path(), directory.path());
    let store = open(directory.path(), 2);
    let server = Key::Server(SyncKey::derive(&key()));
    store.change_key(server, true).expect("a key of the same account");
    store.close();
    Original { directory, records: OWN.records.clone(), blobs: OWN.blobs.clone(), content: BTreeMap::new() }
});

/// The store of a device of the same account, from which records come.
pub(crate) static PEER: LazyLock<Original> = LazyLock::new(|| {
    Original::make(3, &key(), |place| {
        place.set("own", b"a newer value from elsewhere");
        place.set("short", b"a short value");
        place.set("empty", b"");
        place.set("edge", &bytes(4_096));
        place.set("one chunk", &bytes(5_000));
        place.set("chunks", &bytes(70_001));
        place.set("both", b"removed again");
        place.store.remove(vec!["both".into()]).expect("a removal");
        place.share("short");
        place.share("chunks");
    })
});

/// Records of another account.
pub(crate) static STRANGER: LazyLock<Original> =
    LazyLock::new(|| Original::make(4, &EncryptionKey::new([6; 32]), |place| place.set("short", b"of somebody else")));

impl Original {
    fn make(seed: u64, key: &EncryptionKey, fill: impl FnOnce(&Place)) -> Self {
        let directory = temporary();
        let place = Place { store: open(directory.path(), seed), directory };
        place.store.change_key(Key::Encryption(key.clone()), false).expect("a key for an empty store");
        fill(&place);
        let all = place.store.outgoing_all(Seq(0), 1_000).expect("a log");
        let records: Vec<_> = all.records.into_iter().map(|(_, record)| record).collect();
        let blobs = records.iter().filter_map(|record| place.blob(&record.record.clear)).collect();
        let content = place.content();
        place.store.close();
        Self { directory: place.directory, records, blobs, content }
    }

    /// A copy of it that is open.
    pub(crate) fn copy(&self) -> Place {
        let directory = temporary();
        copy(self.directory.path(), directory.path());
        Place { store: open(directory.path(), 5), directory }
    }
}

impl Place {
    pub(crate) fn set(&self, name: &str, value: &[u8]) {
        let mut writer = self.store.writer(None).expect("space");
        writer.push(value).expect("space");
        self.store.set(name, writer.finish().expect("space"), 0).expect("an entry");
    }

    fn share(&self, name: &str) {
        self.store.share(name, ShareOptions::default()).expect("a commit").expect("an entry");
    }

    /// All entries with their values; one that cannot be read is a fault.
    pub(crate) fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = self.store.entries("", None, false, usize::MAX).expect("names");
        entries.into_iter().map(|entry| (entry.name.clone(), self.get(&entry.name).expect("a value"))).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let (_, mut reader) = self.store.read(name).ok()??;
        let mut value = Vec::new();
        while reader.next(&mut value).ok()? {}
        Some(value)
    }

    fn blob(&self, clear: &[u8]) -> Option<(ValueHash, Vec<u8>)> {
        let clear = Clear::parse(clear).ok().filter(Clear::has_blob)?;
        let path = self.directory.path().join("blobs").join(kvassd::keys::encode_hex(&clear.value_hash.0));
        Some((clear.value_hash, fs::read(path).expect("a blob")))
    }

    /// The same store, closed and opened again.
    pub(crate) fn restarted(self) -> Self {
        self.store.close();
        Self { store: open(self.directory.path(), 6), directory: self.directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn open(directory: &Path, seed: u64) -> Store {
    let surroundings =
        Surroundings { clock: Clock::new(|| NOW_US), random: random(seed), threads: false, disk: Disk::system() };
    Store::open_in(directory, OPTIONS, surroundings, &|_| {}).expect("a store")
}

/// The same bytes for the same seed, and never twice: content keys and ids are drawn from it.
pub(crate) fn random(seed: u64) -> Random {
    let count = Arc::new(AtomicU64::new(seed << 32));
    Random::new(move |bytes| {
        for part in bytes.chunks_mut(8) {
            let number = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
        Ok(())
    })
}

pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// A directory where `TMPDIR` says. Those of what there is only once are never dropped: who starts this removes them.
fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Copies a directory. What is only ever replaced as a whole is the same file.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for file in fs::read_dir(from).expect("a directory") {
        let file = file.expect("a file");
        let target = to.join(file.file_name());
        if file.file_type().expect("a type").is_dir() {
            copy(&file.path(), &target);
        } else if file.file_name() == "ballast" {
            fs::hard_link(file.path(), target).expect("a link");
        } else {
            fs::copy(file.path(), target).expect("a copy");
        }
    }
}
