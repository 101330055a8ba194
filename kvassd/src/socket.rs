//! Who serves a data directory: the directory itself, its lock, the socket in it, and who may connect.
//!
//! The lock comes first. Only its holder binds, and only its holder replaces a socket that a dead daemon left.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use kvass_proto::paths;
use listenfd::ListenFd;

use crate::config::Config;
use crate::failpoint::reached;

mod directory;
mod holder;
mod lock;

pub use directory::DirectoryError;
pub use holder::HolderError;
pub use lock::{Lock, LockError};

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SocketError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Holder(#[from] HolderError),
    #[error("the socket path {path} has {length} bytes, and the system takes {most} at most", path = path.display(),
        length = path.as_os_str().len(), most = paths::SOCKET_PATH_MAX)]
    TooLong { path: PathBuf },
    #[error("{path} is there and is no socket", path = .0.display())]
    NotASocket(PathBuf),
    #[error("another program listens on {path}", path = .0.display())]
    Taken(PathBuf),
    #[error("the socket {path} cannot be made", path = path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("descriptor {number} from the service manager is no Unix stream socket")]
    Inherited { number: usize, source: io::Error },
}

impl SocketError {
    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Directory(error) => error.hint(),
            Self::Holder(error) => error.hint().into(),
            Self::TooLong { .. } => "name a shorter one with --socket PATH or KVASS_SOCKET".into(),
            Self::NotASocket(path) => format!("move {} away, or name another with --socket PATH", path.display()),
            Self::Taken(_) => "name another with --socket PATH".into(),
            _ => String::new(),
        }
    }
}

/// A data directory that this process may serve, and the sockets to serve it on.
#[derive(Debug)]
pub struct Place {
    /// The directory, absolute, with no symbolic links.
    pub directory: PathBuf,
    /// Held for as long as the store is open.
    pub lock: Lock,
    /// Where clients connect.
    pub listeners: Vec<UnixListener>,
    /// The socket that this process made; `None` where the service manager made them.
    pub bound: Option<Bound>,
}

/// Takes the sockets that a service manager has passed, if any.
///
/// # Errors
/// A descriptor that is no Unix stream socket.
pub fn inherited() -> Result<Vec<UnixListener>, SocketError> {
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .filter_map(|number| passed.take_unix_listener(number).map_err(|source| (number, source)).transpose())
        .map(|taken| taken.map_err(|(number, source)| SocketError::Inherited { number, source }))
        .collect()
}

/// Prepares the directory and takes its lock: its path without symbolic links, and the lock.
///
/// `None` where this daemon was started on demand and another one serves already.
///
/// # Errors
/// A socket path that is too long, a directory that cannot be used safely, or another daemon that does not give way.
pub fn claim(config: &Config, inherited: bool) -> Result<Option<(PathBuf, Lock)>, SocketError> {
    if !inherited {
        check_length(&config.socket)?;
    }
    let directory = directory::prepare(&config.directory)?;
    let lock = holder::take_over(config, &directory, inherited)?;
    Ok(lock.map(|lock| (directory, lock)))
}

/// Binds the socket, unless some are `inherited`. From here on clients connect.
///
/// # Errors
/// A socket that cannot be made.
pub fn listen(
    config: &Config,
    (directory, lock): (PathBuf, Lock),
    inherited: Vec<UnixListener>,
) -> Result<Place, SocketError> {
    if !inherited.is_empty() {
        return Ok(Place { directory, lock, listeners: inherited, bound: None });
    }
    remove_unfinished(&directory);
    let (listener, bound) = bind(&config.socket)?;
    Ok(Place { directory, lock, listeners: vec![listener], bound: Some(bound) })
}

/// Takes the lock of a directory that exists, to work on the store without serving it.
///
/// # Errors
/// As [`claim`]; a daemon that serves it is not asked to end.
pub fn claim_quietly(config: &Config) -> Result<(PathBuf, Lock), SocketError> {
    let directory = directory::check(&config.directory)?;
    match Lock::try_take(&directory)? {
        Some(lock) => Ok((directory, lock)),
        None => Err(HolderError::Busy { pid: lock::written_pid(&directory).unwrap_or(0), directory }.into()),
    }
}

/// A socket that this process bound.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    identity: (u64, u64),
}

impl Bound {
    /// Removes the socket, unless another one has taken its path.
    pub fn remove(&self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn check_length(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().len() > paths::SOCKET_PATH_MAX || temporary(path).as_os_str().len() > paths::SOCKET_PATH_MAX {
        return Err(SocketError::TooLong { path: path.into() });
    }
    Ok(())
}

/// Binds beside `path` and renames, so that whoever finds a socket at `path` can connect to it.
fn bind(path: &Path) -> Result<(UnixListener, Bound), SocketError> {
    check_old(path)?;
    let new = temporary(path);
    let bind = || {
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600))?;
        let identity = identity(&new)?;
        reached("socket.bound");
        std::fs::rename(&new, path)?;
        reached("socket.placed");
        Ok((listener, Bound { path: path.into(), identity }))
    };
    bind().map_err(|source| SocketError::Bind { path: path.into(), source })
}

/// Removes sockets that daemons of this directory left which were killed before [`bind`] renamed them. The lock is held,
/// so nobody else binds here.
fn remove_unfinished(directory: &Path) {
    let Ok(files) = std::fs::read_dir(directory) else { return };
    for file in files.filter_map(Result::ok) {
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('.'));
        let is_process = number.is_some_and(|number| number.parse::<u32>().is_ok());
        if is_process && file.file_type().is_ok_and(|kind| kind.is_socket()) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Checks that what is at `path`, if anything, is a socket on which nobody listens.
fn check_old(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Taken(path.into())),
        Err(_) => Ok(()),
    }
}

/// Short, so that it fits where the path does; the process id keeps apart daemons that share a socket directory.
fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", std::process::id()))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_another_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvassd.sock");
        drop(bind(&path).unwrap());
        let (_listener, bound) = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(SocketError::Taken(_))));
        bound.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvassd.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn only_the_own_socket_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvassd.sock");
        let (listener, old) = bind(&path).unwrap();
        drop(listener);
        let (_listener, _new) = bind(&path).unwrap();
        old.remove();
        assert!(path.exists());
    }
}
