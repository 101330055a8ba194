//! A key that is given to the daemon in a file, by a service manager or by hand.
//!
//! A store that is made gets it; a store that is there must have it. It is never put in the place of another key: what
//! stands in a file may be outdated, and a change of key is a decision.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::keys::Key;

/// The name of the key among a service's credentials.
pub const CREDENTIAL: &str = "kvass-key";

/// More than any key takes, in bytes.
const LENGTH: u64 = 1_024;

/// Why a key that is given is not one to go on with.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum GivenError {
    #[error("the key file {path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds neither an encryption key of 64 hex digits nor a server key", path = .0.display())]
    NoKey(PathBuf),
    #[error("the key in {path} ({given}) is not the one of the store in {directory} ({own})", path = path.display(),
        directory = directory.display())]
    Other { path: PathBuf, given: String, directory: PathBuf, own: String },
}

impl GivenError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "the file must be readable by the user that kvassd runs as",
            Self::NoKey(_) => "'kvass config show' on a device shows the one, 'kvass config server-key' the other",
            Self::Other { .. } => {
                "put the store's own key back into the file; another one comes in force by 'kvass config key', while \
                 kvassd runs, and only then into the file"
            }
        }
    }
}

/// Reads the key from a file; space around it does not count.
///
/// # Errors
/// A file that cannot be read, or holds no key.
pub fn read(path: &Path) -> Result<Key, GivenError> {
    let bytes = bytes(path).map_err(|source| GivenError::Read { path: path.into(), source })?;
    let text = std::str::from_utf8(&bytes).map(str::trim);
    text.ok().and_then(Key::from_text).ok_or_else(|| GivenError::NoKey(path.into()))
}

/// Compares the key that was given with the one of the store in `directory`.
///
/// # Errors
/// They differ: in their account, or in what can be done with them.
pub fn compare(path: &Path, given: &Key, directory: &Path, own: &Key) -> Result<(), GivenError> {
    if given == own {
        return Ok(());
    }
    Err(GivenError::Other {
        path: path.into(),
        given: describe(given),
        directory: directory.into(),
        own: describe(own),
    })
}

fn bytes(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    warn_of_others(path);
    // Of the final size from the beginning: what is left behind when it grows is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH as usize));
    file.take(LENGTH).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Says aloud that a key in a file is anybody's, which is no reason not to go on.
pub(crate) fn warn_of_others(path: &Path) {
    if fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0) {
        tracing::warn!("everybody on this machine can read {}: chmod 600", path.display());
    }
}

fn describe(key: &Key) -> String {
    let kind = match key {
        Key::Encryption(_) => "encryption key",
        Key::Server(_) => "server key",
    };
    format!("{kind}, fingerprint {}", key.access().account().fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{EncryptionKey, SyncKey};

    fn read_text(text: &[u8]) -> Result<Key, GivenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn either_kind_of_key_is_read_with_space_around_it() {
        let encryption = EncryptionKey::new([7; 32]);
        for key in [Key::Encryption(encryption.clone()), Key::Server(SyncKey::derive(&encryption))] {
            let text = format!("\n {}\r\n", *key.to_text());
            assert!(read_text(text.as_bytes()).is_ok_and(|read| read == key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in [&b""[..], b"\xff", b"0123", &[b'a'; 5_000]] {
            let Err(error) = read_text(text) else { panic!("{text:?} is a key") };
            assert!(error.to_string().ends_with("holds neither an encryption key of 64 hex digits nor a server key"));
        }
        assert!(matches!(read(Path::new("/nowhere/key")), Err(GivenError::Read { .. })));
    }

    #[test]
    fn a_server_key_is_not_its_encryption_key() {
        let encryption = EncryptionKey::new([7; 32]);
        let (server, own) = (Key::Server(SyncKey::derive(&encryption)), Key::Encryption(encryption));
        let (file, directory) = (Path::new("/key"), Path::new("/data"));
        assert!(compare(file, &own, directory, &own).is_ok());
        let error = compare(file, &server, directory, &own).unwrap_err().to_string();
        assert!(
            error.contains("(server key, fingerprint ") && error.contains("(encryption key, fingerprint "),
            "{error}"
        );
    }
}
