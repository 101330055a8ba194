//! The program itself, on a store that was made before.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use kvassd::store::{Options, ShareOptions, Store};
use tempfile::TempDir;

use crate::site::path;

/// `kvassd --server`, killed when it is dropped.
pub(crate) struct Program {
    directory: TempDir,
    child: Child,
    log: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
    /// The paths of links to the values.
    pub(crate) links: Vec<String>,
}

impl Program {
    /// Starts it with these values, and a link to each.
    pub(crate) fn serving(values: &[(&str, &[u8])], arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap();
        let store = Store::open(directory.path(), Options { value_max: 1 << 30, reserve: 0 }, &|_| {}).unwrap();
        let share = |(name, value): &(&str, &[u8])| {
            let mut writer = store.writer(None).unwrap();
            writer.push(value).unwrap();
            store.set(name, writer.finish().unwrap(), 0).unwrap();
            path(&store.share(name, ShareOptions::default()).unwrap().unwrap().token)
        };
        let links = values.iter().map(share).collect();
        store.close();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvassd"));
        for variable in ["KVASS_DB", "KVASS_SOCKET", "KVASS_LOG", "KVASS_BIND", "LISTEN_FDS", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command.arg("--db").arg(directory.path()).args(["--server", "--bind", "127.0.0.1:0"]).args(arguments);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it served");
            if let Some((_, address)) = line.split_once("bound=") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        Self { directory, child, log, address, links }
    }

    /// Where the store's files lie.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The most memory that it has had, in KiB; `None` where the system does not say.
    pub(crate) fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Ends it, and gives what it has logged since it serves.
    pub(crate) fn ended(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
