//! Where a data directory is, and what both programs look for in it. Both must agree, so the rules stand here once.

use std::path::{Path, PathBuf};

/// The name of the socket in the data directory.
pub const SOCKET: &str = "kvassd.sock";

/// The name of the lock file, which the daemon holds by `flock`; its first line is the holder's process id.
pub const LOCK: &str = "lock";

/// The name of the log of a daemon that a client started.
pub const LOG: &str = "kvassd.log";

/// The name of the key file; it exists exactly where a store was once made.
pub const KEY: &str = "key";

/// The name of the store's directory.
pub const STORE: &str = "store";

/// The longest path, in bytes, that a Unix socket can have.
pub const SOCKET_PATH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// The default data directory under the user's base directory for data (`$XDG_DATA_HOME`, else `~/.local/share`;
/// on macOS `~/Library/Application Support`).
#[must_use]
pub fn default_directory(base: &Path) -> PathBuf {
    base.join("kvass")
}

/// The socket of a data directory.
#[must_use]
pub fn socket(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

/// Whether a data directory holds a store, or once did: its key or its index is there.
#[must_use]
pub fn holds_store(directory: &Path) -> bool {
    directory.join(KEY).exists() || directory.join(STORE).exists()
}

/// The other default place that holds a store, where `directory` is a default place and holds none.
///
/// Cron and services often lack the variables of a login shell; without this check they would start a second,
/// empty store. `base` is the base directory for data as the environment gives it, `home` the home directory.
#[must_use]
pub fn store_elsewhere(directory: &Path, base: &Path, home: &Path) -> Option<PathBuf> {
    if holds_store(directory) {
        return None;
    }
    [base.to_path_buf(), home.join(".local/share")]
        .iter()
        .map(|base| default_directory(base))
        .find(|place| place != directory && holds_store(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_the_other_default_place_is_found() {
        let home = std::env::temp_dir().join(format!("kvass-paths-{}", std::process::id()));
        let xdg = home.join("xdg");
        let there = default_directory(&home.join(".local/share"));
        std::fs::create_dir_all(there.join("store")).unwrap();
        let here = default_directory(&xdg);
        assert_eq!(store_elsewhere(&here, &xdg, &home), Some(there.clone()));
        assert_eq!(store_elsewhere(&there, &home.join(".local/share"), &home), None);
        std::fs::create_dir_all(here.join("store")).unwrap();
        assert_eq!(store_elsewhere(&here, &xdg, &home), None);
        std::fs::remove_dir_all(&home).unwrap();
    }
}
