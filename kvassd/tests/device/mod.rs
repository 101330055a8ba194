//! A store inside the process, without a daemon.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test program uses a part")]

use std::time::Duration;

use kvassd::store::{Options, Store};
use tempfile::TempDir;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Device {
    pub directory: TempDir,
    pub store: Store,
}

impl Device {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Options { value_max: 1 << 20, reserve: 0 }, &|_| {}).unwrap();
        store.set_key(Some(&[5; 32])).unwrap();
        Self { directory, store }
    }

    pub async fn set(&self, name: &'static str, value: &'static [u8]) {
        let store = self.store.clone();
        let set = move || {
            let mut writer = store.writer(None).unwrap();
            writer.push(value).unwrap();
            store.set(name, writer.finish().unwrap(), 0).unwrap();
        };
        tokio::task::spawn_blocking(set).await.unwrap();
    }

    pub async fn sees(&self, name: &str) {
        let mut commits = self.store.commits();
        let seen = async {
            while self.store.read(name).unwrap().is_none() {
                commits.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} did not come"));
    }
}
