//! The program itself, on a store that was made before.

use std::net::SocketAddr;
use std::path::Path;

use kvassd::store::{Options, ShareOptions, Store};
use tempfile::TempDir;

use crate::common::{Process, directory};
use crate::site::path;

/// `kvassd --server`, killed when it is dropped.
pub(crate) struct Program {
    process: Process,
    directory: TempDir,
    pub(crate) address: SocketAddr,
    /// The paths of links to the values.
    pub(crate) links: Vec<String>,
}

impl Program {
    /// Starts it with these values, and a link to each.
    pub(crate) fn serving(values: &[(&str, &[u8])], arguments: &[&str]) -> Self {
        let directory = directory();
        let store = Store::open(directory.path(), Options { value_max: 1 << 30, reserve: 0 }, &|_| {}).unwrap();
        let share = |(name, value): &(&str, &[u8])| {
            let mut writer = store.writer(None).unwrap();
            writer.push(value).unwrap();
            store.set(name, writer.finish().unwrap(), 0).unwrap();
            path(&store.share(name, ShareOptions::default()).unwrap().unwrap().token)
        };
        let links = values.iter().map(share).collect();
        store.close();
        let arguments = [&["--server", "--bind", "127.0.0.1:0"], arguments].concat();
        let mut process = Process::start(directory.path(), &arguments);
        let address = loop {
            let line = process.stderr_line();
            assert!(!line.is_empty(), "it ended before it served");
            if let Some((_, address)) = line.split_once("bound=") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        Self { process, directory, address, links }
    }

    /// Where the store's files lie.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The most memory that it has had, in KiB; `None` where the system does not say.
    pub(crate) fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Ends it, and gives what it has logged since it serves.
    pub(crate) fn ended(mut self) -> String {
        self.process.signal("TERM");
        self.process.stderr()
    }
}
