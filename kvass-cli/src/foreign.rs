//! What other users may have put in the way: a symbolic link where this user names a path, a socket where a daemon's
//! should be.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::geteuid;

/// Refuses a symbolic link of another user but root, who could lead this one to a file of its own.
///
/// In a directory that everybody writes, as `/tmp`, the system refuses to open such a link; looking where it leads, as
/// a rename to there needs, it does not refuse.
pub(crate) fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(link) if link.is_symlink() && !is_trusted(link.uid()) => {
            Err(refused("it is a symbolic link of", link.uid()))
        }
        _ => Ok(()),
    }
}

/// Refuses a socket that another user but root listens on: it would be given values and keys.
pub(crate) fn refuse_socket(stream: &UnixStream) -> io::Result<()> {
    match owner(stream)? {
        uid if is_trusted(uid) => Ok(()),
        uid => Err(refused("it belongs to", uid)),
    }
}

/// Root can do anything anyway, and may listen for a service.
fn is_trusted(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

fn refused(what: &str, uid: u32) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, format!("{what} another user (uid {uid})"))
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

    /// `proof/secrets.sh` does it with the programs and sockets, too.
    #[test]
    fn a_link_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        if std::os::unix::fs::lchown(&link, Some(60_001), None).is_err() {
            return; // Only root can make one.
        }
        let error = refuse_link(&link).unwrap_err();
        assert_eq!(error.to_string(), "it is a symbolic link of another user (uid 60001)");
    }
}
