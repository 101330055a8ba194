//! The lock file: held by `flock` for the life of the daemon, its first line the holder's process id.
//!
//! It is never removed: a removed one would let two daemons hold two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kvass_proto::paths::LOCK;
use nix::fcntl::OFlag;

/// Why a lock can be neither taken nor found taken.
#[derive(Debug, thiserror::Error)]
#[error("the lock {path} cannot be taken", path = path.display())]
pub struct LockError {
    path: PathBuf,
    source: io::Error,
}

/// The lock of a data directory; dropped, it is free.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock and writes this process's id into it; `None` where another process holds it.
    ///
    /// # Errors
    /// A file that cannot be opened, locked or written.
    pub fn try_take(directory: &Path) -> Result<Option<Self>, LockError> {
        let path = directory.join(LOCK);
        let taken = open(&path).and_then(|file| match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match taken.and_then(|file| file.map(|file| Self::begin(file, &path)).transpose()) {
            // Somebody removed the file while it was opened: another one has its name, or none.
            Ok(Some(lock)) if !lock.is_in_place() => Self::try_take(directory),
            Ok(lock) => Ok(lock),
            Err(source) => Err(LockError { path, source }),
        }
    }

    /// Whether the file that is locked is still the one that others would lock.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let identity = |metadata: io::Result<std::fs::Metadata>| metadata.map(|it| (it.dev(), it.ino())).ok();
        let held = identity(self.file.metadata());
        held.is_some() && held == identity(std::fs::symlink_metadata(&self.path))
    }

    fn begin(file: File, path: &Path) -> io::Result<Self> {
        // Over what is there, and only then cut off: an empty file would need space again, on a disk that may have none.
        let line = format!("{}\n", std::process::id());
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(line.len() as u64)?;
        Ok(Self { file, path: path.into() })
    }
}

/// The process id that the last holder wrote.
pub(super) fn written_pid(directory: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(directory.join(LOCK)).ok()?;
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time_and_its_process_id_is_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOCK), "12345678901234567890\n").unwrap();
        let lock = Lock::try_take(directory.path()).unwrap().unwrap();
        assert!(Lock::try_take(directory.path()).unwrap().is_none());
        assert_eq!(written_pid(directory.path()), Some(std::process::id() as i32));
        drop(lock);
        assert!(Lock::try_take(directory.path()).unwrap().is_some());
    }

    #[test]
    fn a_removed_lock_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::try_take(directory.path()).unwrap().unwrap();
        assert!(lock.is_in_place());
        std::fs::remove_file(directory.path().join(LOCK)).unwrap();
        assert!(!lock.is_in_place());
        let _other = Lock::try_take(directory.path()).unwrap().unwrap();
        assert!(!lock.is_in_place());
    }
}
