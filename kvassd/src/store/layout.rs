//! Where the parts of a store lie in its data directory, and the small file operations that must not be forgotten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kvass_proto::paths;

use crate::failpoint::reached;
use crate::keys;
use crate::record::ValueHash;

/// The paths of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The encryption key; it exists exactly when a store was once made here.
    pub(crate) fn key(&self) -> PathBuf {
        self.root.join(paths::KEY)
    }

    /// The key of a store that is being made.
    pub(crate) fn key_new(&self) -> PathBuf {
        self.root.join("key.new")
    }

    /// The store in force.
    pub(crate) fn store(&self) -> StorePaths {
        StorePaths(self.root.join(paths::STORE))
    }

    /// A store that is being made, and may be thrown away.
    pub(crate) fn store_new(&self) -> StorePaths {
        StorePaths(self.root.join("store.new"))
    }

    /// A whole store that replaces the one in force at the next opening.
    pub(crate) fn store_next(&self) -> StorePaths {
        StorePaths(self.root.join("store.next"))
    }

    /// A store that was replaced by a rewritten one.
    pub(crate) fn store_old(&self) -> PathBuf {
        self.root.join("store.old")
    }

    /// The files of large values.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The file of a large value.
    pub(crate) fn blob(&self, hash: ValueHash) -> PathBuf {
        self.blobs().join(keys::encode_hex(&hash.0))
    }

    /// The file that is given up when a store must be opened on a full disk.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

/// The paths of one store directory.
#[derive(Clone, Debug)]
pub(crate) struct StorePaths(pub(crate) PathBuf);

impl StorePaths {
    /// sled's directory.
    pub(crate) fn sled(&self) -> PathBuf {
        self.0.join("sled")
    }

    /// sled's log, which holds everything.
    pub(crate) fn db(&self) -> PathBuf {
        self.sled().join("db")
    }

    /// sled's log as it was before an opening that found damage, or did not end.
    pub(crate) fn db_before(&self) -> PathBuf {
        self.0.join("db.before")
    }

    pub(crate) fn witness(&self) -> PathBuf {
        self.0.join("witness")
    }
}

/// Makes what was created, renamed or removed in a directory survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory, mode 0700, where there is none.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a directory with all that is in it, where there is one.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

/// Removes a file, where there is one.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates a file that did not exist, mode 0600, writable and readable.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Replaces a file, mode 0600, so that after a power cut it has the old content or the new one, whole. A crash may leave
/// another one beside it, for [`remove_unfinished`].
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let temporary = unfinished(path);
    remove_file(&temporary)?;
    let mut file = create_file(&temporary)?;
    file.write_all(content)?;
    reached("file.written");
    file.sync_all()?;
    reached("file.synced");
    fs::rename(&temporary, path)?;
    reached("file.renamed");
    sync_directory(parent)
}

/// Removes what a crash in [`replace_file`] left of a new content.
pub(crate) fn remove_unfinished(path: &Path) -> io::Result<()> {
    remove_file(&unfinished(path))
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}
