//! What can go wrong in the store, in the words that a user reads.

use std::io;
use std::path::{Path, PathBuf};

use kvass_proto::key::KeyError;

use crate::random;

const REPAIR: &str = "run 'kvass doctor --repair': it moves the damaged store aside and keeps all that can be read";

const KEY: &str = "'kvass doctor --repair' mends one wrong bit in it; else put the key back: that of a backup, or what 'kvass config show' says on another device";

const BLIND: &str =
    "ask on a device that has the encryption key; 'kvass config key' with that key makes this one of them";

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum OpenError {
    #[error("the store in {} is damaged: {what}", .directory.display())]
    Damaged { directory: PathBuf, what: String },
    #[error("the store in {} is damaged: its key file {what}", .directory.display())]
    Key { directory: PathBuf, what: &'static str },
    #[error("the store in {} was made by a newer kvassd (format {found}; this one knows {known})", .directory.display())]
    NewerFormat { directory: PathBuf, found: u32, known: u32 },
    #[error("the store in {} was made by an older kvassd (format {found}; this one knows {known})", .directory.display())]
    OlderFormat { directory: PathBuf, found: u32, known: u32 },
    #[error("the disk is too full to open the store in {}", .directory.display())]
    DiskFull { directory: PathBuf },
    #[error("cannot {what} {}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the system gives no random bytes")]
    Random(#[from] random::Error),
}

impl OpenError {
    pub(crate) fn damaged(directory: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { directory: directory.to_path_buf(), what: what.into() }
    }

    pub(crate) fn key(directory: &Path, what: &'static str) -> Self {
        Self::Key { directory: directory.to_path_buf(), what }
    }

    /// What the user can do, or an empty text.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Damaged { .. } => REPAIR,
            Self::Key { .. } => KEY,
            Self::NewerFormat { .. } => "install the newer kvass again",
            Self::OlderFormat { .. } => {
                "nothing was changed; 'kvass export' with the older kvass, then 'kvass import' here in another directory (--db)"
            }
            Self::DiskFull { .. } => "free some space; nothing was changed",
            Self::Io { .. } | Self::Random(_) => "",
        }
    }

    /// Whether the store is there and does not verify, so that a repair helps.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Key { .. })
    }

    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull { directory: path.parent().unwrap_or(path).to_path_buf() },
            _ => Self::Io { what, path: path.to_path_buf(), source },
        }
    }
}

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ReadError {
    #[error("the value of '{key}' is damaged: {what}")]
    Value { key: String, what: String },
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("this store cannot be read here: it was given only a server key")]
    Blind,
    #[error("the store is being closed")]
    Closed,
    #[error("the disk is full, and the store waits for space")]
    DiskFull,
    #[error("cannot read the value of '{key}'")]
    Io { key: String, source: io::Error },
}

impl ReadError {
    /// What the user can do, or an empty text.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Value { .. } | Self::Damaged(_) => REPAIR,
            Self::DiskFull => "free some space",
            Self::Blind => BLIND,
            Self::Closed | Self::Io { .. } => "",
        }
    }
}

/// Why something is not stored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum WriteError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("a value of {size} bytes or more is over the limit of {most}")]
    TooLarge { size: u64, most: u64 },
    #[error("{}", full(*.free, *.reserve))]
    DiskFull { free: u64, reserve: u64 },
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// What is here cannot be read, and what was asked for depends on it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It takes something away, and nobody has said that this is meant.
    #[error("{0}")]
    Unconfirmed(String),
    #[error("{0}")]
    Refused(String),
    #[error("the store is being closed")]
    Closed,
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
    #[error("the system gives no random bytes")]
    Random(#[from] random::Error),
}

impl WriteError {
    /// What the user can do, or an empty text.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::TooLarge { .. } => "the limit is a setting of kvassd: --value-max or KVASS_VALUE_MAX",
            Self::DiskFull { .. } => "free some space, then try again; 'kvass rm' may use most of what is kept back",
            Self::Damaged(_) => REPAIR,
            Self::Read(error) => error.hint(),
            Self::Unconfirmed(_) => "on a terminal 'kvass config key' asks whether that is meant; elsewhere -f says so",
            _ => "",
        }
    }

    /// The same for one who reads the value of `key`, where that writes something as well.
    pub(super) fn of_read(self, key: &str) -> ReadError {
        let failed = |source| ReadError::Io { key: key.to_owned(), source };
        match self {
            Self::Read(error) => error,
            Self::Damaged(what) => ReadError::Damaged(what),
            Self::DiskFull { .. } => ReadError::DiskFull,
            Self::Closed => ReadError::Closed,
            Self::Io { source, .. } => failed(source),
            other => failed(io::Error::other(other)),
        }
    }
}

/// A disk may also refuse what a quota does not allow, or what it has no room for but seems to have.
fn full(free: u64, reserve: u64) -> String {
    if free > reserve {
        return "the disk is full, or a quota on it is used up".into();
    }
    format!("the disk is full: {free} bytes are free, and {reserve} are kept back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_read_from_being_counted_is_called_damage_only_where_it_is() {
        let said = |error: WriteError| error.of_read("a link").to_string();
        assert_eq!(said(WriteError::Damaged("a row".into())), "the store is damaged: a row");
        let io = WriteError::Io { what: "write", source: io::ErrorKind::PermissionDenied.into() };
        for error in [io, WriteError::Refused("it may not be".into()), WriteError::Random(random::Error::UNSUPPORTED)] {
            assert_eq!(said(error), "cannot read the value of 'a link'");
        }
        assert!(matches!(WriteError::Read(ReadError::Blind).of_read(""), ReadError::Blind));
        assert!(matches!(WriteError::Closed.of_read(""), ReadError::Closed));
        assert!(matches!(WriteError::DiskFull { free: 0, reserve: 0 }.of_read(""), ReadError::DiskFull));
    }
}
