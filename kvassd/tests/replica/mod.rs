//! Stores in directories of their own, and their logs from one to the other without a session.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kvassd::keys::{EncryptionKey, Key, SyncKey};
use kvassd::record::Clear;
use kvassd::store::{Cursor, Download, Options, Seq, Store, Travelling};
use kvassd::value::{CHUNK, TAG};
use tempfile::TempDir;

pub const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };

pub fn full_key(byte: u8) -> Key {
    Key::Encryption(EncryptionKey::new([byte; 32]))
}

pub fn server_key(byte: u8) -> Key {
    Key::Server(SyncKey::derive(&EncryptionKey::new([byte; 32])))
}

/// Opens a store, and waits until the pass after the start has seen every record.
pub fn open(directory: &Path) -> Store {
    let store = Store::open(directory, OPTIONS, &|_| {}).unwrap();
    // The same key changes nothing, but waits.
    store.change_key(store.key(), false).unwrap();
    store
}

/// A store that can be closed and opened again.
pub struct Replica {
    pub directory: TempDir,
    pub store: Store,
}

impl Replica {
    pub fn new(key: &Key) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.change_key(key.clone(), false).unwrap();
        Self { directory, store }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn restart(&mut self) {
        self.restart_after(|_| ());
        self.store.change_key(self.store.key(), false).unwrap();
    }

    /// Closes the store, does something to its directory, and opens it again, damaged or not.
    pub fn restart_after(&mut self, change: impl FnOnce(&Path)) {
        self.store.clone().close();
        change(self.directory.path());
        self.store = Store::open(self.directory.path(), OPTIONS, &|_| {}).unwrap();
    }

    pub fn set(&self, name: &str, value: &[u8]) {
        let mut writer = self.store.writer(None).unwrap();
        writer.push(value).unwrap();
        self.store.set(name, writer.finish().unwrap(), 0).unwrap();
    }

    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let (_, mut reader) = self.store.read(name).unwrap()?;
        let mut value = Vec::new();
        while reader.next(&mut value).unwrap() {}
        Some(value)
    }

    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = self.store.entries("", None, false, usize::MAX).unwrap();
        entries.into_iter().map(|entry| (entry.name.clone(), self.get(&entry.name).unwrap())).collect()
    }

    pub fn blobs(&self) -> Vec<String> {
        let files = fs::read_dir(self.path().join("blobs")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// How many files of values there are, whole or not.
    pub fn files(&self) -> usize {
        self.blobs().len()
    }

    pub fn key_file(&self) -> String {
        fs::read_to_string(self.path().join("key")).unwrap()
    }

    /// All records here, as they travel.
    pub fn records(&self) -> Vec<Travelling> {
        let all = self.store.outgoing_all(Seq(0), 10_000).unwrap();
        all.records.into_iter().map(|(_, record)| record).collect()
    }

    /// The last record of another store whose value is not here, and how far its log goes with it.
    pub fn lacking(&self, other: &Self) -> (Clear, Travelling, Option<Cursor>) {
        let part = other.store.outgoing(Seq(0), self.store.opening(), 99).unwrap();
        let (_, record) = part.records.into_iter().last().unwrap();
        (Clear::parse(&record.record.clear).unwrap(), record, part.cursor)
    }

    /// Takes the value of the other's last record, but not the record.
    pub fn take(&self, other: &Self) -> (Clear, Travelling, Option<Cursor>) {
        let lacking = self.lacking(other);
        fetch(&self.store, &other.store, &lacking.0);
        lacking
    }

    /// Takes the first range of the chunks of the other's last value, then breaks off.
    pub fn begin(&self, other: &Self) {
        let (clear, ..) = self.lacking(other);
        let mut download = self.store.download(&clear).unwrap().unwrap();
        for _ in 0..2 {
            let range = download.wants().unwrap();
            push(&mut download, &other.store, &clear, range);
        }
        assert!(download.wants().is_some(), "the value is whole");
    }

    /// Takes all of the other's log that is not held here.
    pub fn pull(&self, other: &Self) {
        let from = other.store.opening();
        let held = self.store.peer(from.store).held.filter(|held| other.store.accepts(*held).unwrap());
        let after = held.map_or(Seq(0), |held| held.seq);
        let part = other.store.outgoing(after, self.store.opening(), 10_000).unwrap();
        let records: Vec<Travelling> = part.records.into_iter().map(|(_, record)| record).collect();
        let merged = self.store.merge(self.store.identity().1, records.clone(), from, part.cursor).unwrap();
        if merged.lacking.is_empty() {
            return;
        }
        let clears = records.iter().map(|record| Clear::parse(&record.record.clear).unwrap());
        for clear in clears.filter(|clear| merged.lacking.contains(&clear.value_hash)) {
            fetch(&self.store, &other.store, &clear);
        }
        assert!(self.store.merge(self.store.identity().1, records, from, part.cursor).unwrap().lacking.is_empty());
    }
}

/// Takes a value from another store, range by range.
pub fn fetch(to: &Store, from: &Store, clear: &Clear) {
    let mut download = to.download(clear).unwrap().unwrap();
    while let Some(range) = download.wants() {
        push(&mut download, from, clear, range);
    }
    download.finish().unwrap();
}

/// Hands over a range of a value's file, chunk by chunk.
pub fn push(download: &mut Download, from: &Store, clear: &Clear, (offset, length): (u64, u32)) {
    let mut bytes = vec![0; length as usize];
    from.blob(clear.value_hash).unwrap().read(offset, &mut bytes).unwrap();
    for (number, part) in bytes.chunks(CHUNK + TAG).enumerate() {
        download.push(offset + (number * (CHUNK + TAG)) as u64, part).unwrap();
    }
}

pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}
