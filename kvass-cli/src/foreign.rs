//! What other users may have put in the way: a symbolic link where this user names a path, a socket where a daemon's
//! should be.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Refuses a symbolic link of another user but root, who could lead this one to a file of its own.
///
/// In a directory that everybody writes, as `/tmp`, the system refuses to open such a link; looking where it leads, as
/// a rename to there needs, it does not refuse.
pub(crate) fn refuse_link(path: &Path) -> io::Result<()> {
    // Without a slash at its end, behind which the system follows.
    match fs::symlink_metadata(path.components().collect::<PathBuf>()) {
        Ok(link) if link.is_symlink() => trust(link.uid(), "it is a symbolic link of"),
        _ => Ok(()),
    }
}

/// Refuses a socket that another user but root listens on: it would be given values and keys.
pub(crate) fn refuse_socket(stream: &UnixStream) -> io::Result<()> {
    trust(owner(stream)?, "it belongs to")
}

fn trust(owner: u32, what: &str) -> io::Result<()> {
    trust_as(geteuid().as_raw(), owner, what)
}

/// Root can do anything anyway, and may listen for a service.
fn trust_as(own: u32, owner: u32, what: &str) -> io::Result<()> {
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, format!("{what} another user (uid {owner})")))
}

#[cfg(target_os = "linux")]
fn owner(stream: &UnixStream) -> io::Result<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

#[cfg(not(target_os = "linux"))]
fn owner(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_links_and_sockets_are_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        refuse_link(&link).unwrap();
        refuse_link(&directory.path().join("nothing")).unwrap();
        refuse_socket(&UnixStream::pair().unwrap().0).unwrap();
    }

    #[test]
    fn only_oneself_and_root_are_trusted() {
        assert!(trust_as(1_000, 1_000, "it belongs to").is_ok() && trust_as(1_000, 0, "it belongs to").is_ok());
        assert!(trust_as(0, 0, "it belongs to").is_ok());
        let refused = trust_as(1_000, 1_001, "it belongs to").unwrap_err();
        assert_eq!(refused.to_string(), "it belongs to another user (uid 1001)");
        assert!(trust_as(0, 1_000, "it belongs to").is_err());
    }

    /// `proof/secrets.sh` does it with the programs and sockets, too.
    #[test]
    fn a_link_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        if std::os::unix::fs::lchown(&link, Some(60_001), None).is_err() {
            return; // Only root can make one.
        }
        for path in [link.clone(), link.join("")] {
            let error = refuse_link(&path).unwrap_err();
            assert_eq!(error.to_string(), "it is a symbolic link of another user (uid 60001)");
        }
    }
}
