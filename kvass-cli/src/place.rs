//! Where the data directory and its socket are: flags before environment before the default.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use kvass_proto::{paths, shell};

use crate::error::Error;
use crate::foreign;

/// A data directory and the socket of its daemon, both absolute.
#[derive(Debug)]
pub(crate) struct Place {
    /// The data directory, canonical; it may not exist yet.
    pub(crate) directory: PathBuf,
    /// The socket.
    pub(crate) socket: PathBuf,
    /// Whether the socket was named, so that a daemon has to be told.
    pub(crate) socket_named: bool,
    /// The base directories that a default place was made of.
    default: Option<Default>,
}

#[derive(Debug)]
struct Default {
    directory: PathBuf,
    base: PathBuf,
    home: PathBuf,
}

impl Place {
    /// Finds the place from `--db` and `--socket` as given, then `KVASS_DB` and `KVASS_SOCKET`, then the default.
    pub(crate) fn find(db: Option<PathBuf>, socket: Option<PathBuf>) -> Result<Self, Error> {
        let db = db.or_else(|| variable("KVASS_DB").map(PathBuf::from));
        let socket = socket.or_else(|| variable("KVASS_SOCKET").map(PathBuf::from));
        let (directory, default) = match db {
            Some(directory) => (directory, None),
            None => {
                let default = Default::find()?;
                (default.directory.clone(), Some(default))
            }
        };
        let found = foreign::refuse_link(&directory).and_then(|()| canonical(&directory));
        let directory = found.map_err(|cause| unusable(&directory).because(cause))?;
        if directory.to_str().is_none() {
            return Err(unusable(&directory).because("a request can name only a path that is UTF-8"));
        }
        let socket_named = socket.is_some();
        let socket = match socket {
            Some(path) => std::path::absolute(&path)
                .map_err(|cause| Error::input("the path of the socket is not valid").because(cause))?,
            None => paths::socket(&directory),
        };
        check_length(&socket)?;
        Ok(Self { directory, socket, socket_named, default })
    }

    /// Refuses to create a second store in a default place while the other default place holds one.
    pub(crate) fn refuse_second_store(&self) -> Result<(), Error> {
        let Some(default) = &self.default else { return Ok(()) };
        match paths::store_elsewhere(&default.directory, &default.base, &default.home) {
            None => Ok(()),
            Some(other) => Err(Error::failed(format!(
                "no store at {}, but there is one at {}: this would start a second, empty one",
                default.directory.display(),
                other.display()
            ))
            .hint(format!("name the one you mean: kvass --db {} …", shell::word(&other.to_string_lossy())))),
        }
    }

    /// The lock file, whose first line is the process id of the daemon that holds it.
    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join(paths::LOCK)
    }

    /// The process id that the lock file names.
    pub(crate) fn lock_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.lock()).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)
    }
}

impl Default {
    fn find() -> Result<Self, Error> {
        let unknown = || {
            let why = if variable("HOME").is_none() { "not set" } else { "no absolute path" };
            Error::failed(format!("the home directory is not known: HOME is {why}"))
                .hint("set HOME, or name the data directory: kvass --db DIR …")
        };
        let is_absolute = |name| variable(name).is_some_and(|path| Path::new(&path).is_absolute());
        if !is_absolute("HOME") && (cfg!(target_os = "macos") || !is_absolute("XDG_DATA_HOME")) {
            return Err(unknown());
        }
        let directories = directories::BaseDirs::new().ok_or_else(unknown)?;
        let base = directories.data_dir().to_path_buf();
        let home = directories.home_dir().to_path_buf();
        Ok(Self { directory: paths::default_directory(&base), base, home })
    }
}

fn unusable(directory: &Path) -> Error {
    Error::failed(format!("{} cannot be the data directory", directory.display()))
        .hint("name another with --db DIR or KVASS_DB")
}

/// An environment variable; an empty one counts as unset.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn check_length(socket: &Path) -> Result<(), Error> {
    let length = socket.as_os_str().as_bytes().len();
    if length <= paths::SOCKET_PATH_MAX {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the path of the socket has {length} bytes, more than the {} a socket can have: {}",
        paths::SOCKET_PATH_MAX,
        socket.display()
    ))
    .hint("name a shorter one with --socket PATH or KVASS_SOCKET"))
}

/// The canonical form of a path of which only a first part may exist.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let path = std::path::absolute(path)?;
    let (mut there, mut rest) = (path.as_path(), Vec::new());
    while let (Some(parent), Some(last)) = (there.parent(), there.components().next_back()) {
        match last {
            Component::Normal(name) => rest.push(name),
            _ => return Err(nix::errno::Errno::ENOENT.into()),
        }
        match fs::canonicalize(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => there = parent,
            Err(error) => return Err(error),
            Ok(mut whole) => {
                whole.extend(rest.iter().rev());
                return Ok(whole);
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_canonical_as_far_as_it_goes() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(canonical(&link).unwrap(), real);
        assert_eq!(canonical(&link.join("a/b")).unwrap(), real.join("a/b"));
        assert_eq!(canonical(&link.join("./a/")).unwrap(), real.join("a"));
        assert!(canonical(&link.join("a/../b")).is_err());
    }

    #[test]
    fn a_socket_path_at_the_limit_is_allowed_and_one_byte_more_is_not() {
        let long = format!("/{}", "x".repeat(paths::SOCKET_PATH_MAX - 1));
        assert!(check_length(Path::new(&long)).is_ok());
        let error = check_length(Path::new(&format!("{long}x"))).unwrap_err();
        assert!(error.sentence().contains(&format!("{} bytes", paths::SOCKET_PATH_MAX + 1)));
        assert!(error.advice().contains("--socket"));
    }
}
