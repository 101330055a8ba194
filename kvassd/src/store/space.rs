//! Free space: what is kept back, and the ballast that is given up when the disk is full.

use std::fs::File;
use std::io;
use std::path::Path;

use super::layout::{self, Layout};
use super::{Disk, WriteError};
use crate::failpoint::reached;

/// The reserve is never smaller than this, in bytes: an index that met a full disk needs room to be opened again.
pub const RESERVE_MIN: u64 = 4 << 20;

/// Bytes of the ballast.
const BALLAST: u64 = 16 << 20;

/// What a write does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It stores something.
    Store,
    /// It removes something, and may use most of the reserve.
    Remove,
}

/// Watches the free space of a data directory's disk.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    layout: Layout,
    reserve: u64,
    disk: Disk,
}

impl Space {
    pub(crate) fn new(layout: Layout, reserve: u64, disk: Disk) -> Self {
        Self { layout, reserve: reserve.max(RESERVE_MIN), disk }
    }

    /// Checks that `need` more bytes leave the reserve whole.
    ///
    /// # Errors
    /// The disk is full, or its free space cannot be told.
    pub(crate) fn check(&self, need: u64, purpose: Purpose) -> Result<(), WriteError> {
        let reserve = match purpose {
            Purpose::Store => self.reserve,
            Purpose::Remove => self.reserve / 4,
        };
        let free = self
            .disk
            .free(self.layout.root())
            .map_err(|source| WriteError::Io { what: "tell the free space of the disk", source })?;
        if free < reserve.saturating_add(need) {
            return Err(WriteError::DiskFull { free, reserve });
        }
        Ok(())
    }

    /// What a full disk is called where the disk itself said so.
    pub(crate) fn full(&self) -> WriteError {
        WriteError::DiskFull { free: self.disk.free(self.layout.root()).unwrap_or(0), reserve: self.reserve }
    }

    /// Gives the ballast up.
    pub(crate) fn drop_ballast(&self) -> io::Result<()> {
        layout::remove_file(&self.layout.ballast())
    }

    /// Lays the ballast again where there is none and space is plenty; a failure only means that there is none.
    pub(crate) fn lay_ballast(&self) {
        let path = self.layout.ballast();
        // One that a crash left unfinished is laid again.
        if std::fs::metadata(&path).is_ok_and(|ballast| ballast.len() >= BALLAST)
            || self.check(2 * BALLAST, Purpose::Store).is_err()
        {
            return;
        }
        let laid = self.drop_ballast().and_then(|()| layout::create_file(&path)).and_then(|file| {
            reached("ballast.created");
            allocate(&file, BALLAST)
        });
        if let Err(error) = laid {
            tracing::debug!(%error, "no ballast");
            let _ = layout::remove_file(&path);
        }
    }
}

/// Bytes that this user may still write to the disk that holds `path`.
pub(crate) fn available(path: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
    Ok(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size())))
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    Ok(nix::fcntl::posix_fallocate(file, 0, length.cast_signed())?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut &*file).map(drop)
}
