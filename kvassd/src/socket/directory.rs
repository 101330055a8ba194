//! The data directory: only its owner may look into it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use kvass_proto::shell;
use nix::unistd::geteuid;

/// Why a directory cannot hold a store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum DirectoryError {
    #[error("the data directory {path} cannot be made", path = path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("the data directory {path} cannot be used", path = path.display())]
    Use { path: PathBuf, source: io::Error },
    #[error("{path} is no directory", path = .0.display())]
    NotADirectory(PathBuf),
    #[error("the data directory {path} belongs to another user (uid {owner})", path = path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("other users can look into the data directory {path} (mode {mode:04o})", path = path.display())]
    Mode { path: PathBuf, mode: u32 },
}

impl DirectoryError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Mode { path, .. } => format!("chmod 700 {}", shell::word(&path.to_string_lossy())),
            Self::Owner { .. } | Self::NotADirectory(_) => "name another with --db DIR or KVASS_DB".into(),
            _ => String::new(),
        }
    }
}

/// Makes the directory where it is missing, so that it survives a power cut, checks it, and returns its path without
/// symbolic links.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, DirectoryError> {
    let missing: Vec<_> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(DirectoryError::NotADirectory(path.into())),
        Err(source) => Err(DirectoryError::Make { path: path.into(), source }),
        Ok(()) => {
            missing.into_iter().filter_map(Path::parent).for_each(sync);
            check(path)
        }
    }
}

/// A file system that syncs no directories, or one that may not be read, is no reason not to start.
fn sync(directory: &Path) {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    if let Err(error) = synced {
        tracing::debug!(%error, path = %directory.display(), "a directory cannot be synced");
    }
}

/// Checks that the directory is there, is this user's, and closed to others.
///
/// A symbolic link may lead to it, as people who move their data to another disk leave one, if nobody else made it.
pub(super) fn check(path: &Path) -> Result<PathBuf, DirectoryError> {
    let failed = |source| DirectoryError::Use { path: path.into(), source };
    let real = path.canonicalize().map_err(failed)?;
    let own = geteuid().as_raw();
    let target = real.symlink_metadata().map_err(failed)?;
    for owner in [path.symlink_metadata().map_err(failed)?.uid(), target.uid()] {
        if owner != own {
            return Err(DirectoryError::Owner { path: path.into(), owner });
        }
    }
    if !target.is_dir() {
        return Err(DirectoryError::NotADirectory(path.into()));
    }
    let mode = target.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DirectoryError::Mode { path: real, mode });
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_missing_directory_is_made_for_its_owner_alone() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let real = prepare(&path).unwrap();
        assert_eq!(std::fs::metadata(real).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let base = tempfile::tempdir().unwrap();
        std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let error = prepare(base.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::Mode { mode: 0o750, .. }));
        assert!(error.hint().starts_with("chmod 700 /"));
    }

    #[test]
    fn an_own_symbolic_link_is_followed_and_a_file_is_no_directory() {
        let base = tempfile::tempdir().unwrap();
        let real = prepare(&base.path().join("real")).unwrap();
        symlink(&real, base.path().join("link")).unwrap();
        assert_eq!(prepare(&base.path().join("link")).unwrap(), real);
        std::fs::write(base.path().join("file"), "").unwrap();
        assert!(matches!(prepare(&base.path().join("file")), Err(DirectoryError::NotADirectory(_))));
    }
}
