//! The witness: a small file that says what the index must hold.
//!
//! sled opens an older state without an error when the tail of its log is damaged. The witness is written after each
//! durable commit and before anybody is answered, so an index that is behind it has lost acknowledged writes.
//!
//! Two slots, 4 KiB apart, are written in turn, each with a checksum: a write that is cut short leaves the other one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::layout;
use crate::keys::AccountId;

const SLOT: u64 = 4_096;
const MAGIC: &[u8; 8] = b"kvassW1\n";
const LENGTH: usize = 8 + 16 + 8 + 16 + 32 + 32;

/// What was durable when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The opening of the store that wrote it.
    pub(crate) run: [u8; 16],
    /// The number of the commit.
    pub(crate) commit: u64,
    /// The account in force.
    pub(crate) account: AccountId,
    /// The XOR of the authentications of all its records.
    pub(crate) digest: [u8; 32],
}

/// The open witness file of a store.
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Makes the file with both slots valid, and makes it durable.
    pub(crate) fn create(path: &Path, mark: Mark) -> io::Result<()> {
        let file = layout::create_file(path)?;
        file.set_len(2 * SLOT)?;
        for at in [0, SLOT] {
            file.write_all_at(&encode(mark), at)?;
        }
        file.sync_all()
    }

    /// Opens the file and reads the newest valid slot; `None` where no slot is valid.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Mark>)> {
        let file = File::options().read(true).write(true).open(path)?;
        let newest = [0, SLOT].into_iter().filter_map(|at| read_slot(&file, at)).max_by_key(|mark| mark.commit);
        Ok((Self { file }, newest))
    }

    /// Writes the mark into the slot whose turn it is. It is not synced: a process that dies loses nothing of it, and
    /// after a power cut the index is whole by its own syncs.
    pub(crate) fn write(&self, mark: Mark) -> io::Result<()> {
        self.file.write_all_at(&encode(mark), mark.commit % 2 * SLOT)
    }

    /// Makes the last mark survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(mark: Mark) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&mark.run);
    bytes[24..32].copy_from_slice(&mark.commit.to_be_bytes());
    bytes[32..48].copy_from_slice(&mark.account.0);
    bytes[48..80].copy_from_slice(&mark.digest);
    let checksum = Sha256::digest(&bytes[..80]);
    bytes[80..].copy_from_slice(&checksum);
    bytes
}

fn read_slot(file: &File, at: u64) -> Option<Mark> {
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, at).ok()?;
    let (run, rest) = bytes[8..].split_first_chunk::<16>()?;
    let (commit, rest) = rest.split_first_chunk::<8>()?;
    let (account, rest) = rest.split_first_chunk::<16>()?;
    let (digest, _) = rest.split_first_chunk::<32>()?;
    let mark = Mark { run: *run, commit: u64::from_be_bytes(*commit), account: AccountId(*account), digest: *digest };
    (encode(mark) == bytes).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(commit: u64) -> Mark {
        Mark { run: [1; 16], commit, account: AccountId([2; 16]), digest: [3; 32] }
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        Witness::create(&path, mark(1)).unwrap();
        let (witness, newest) = Witness::open(&path).unwrap();
        assert_eq!(newest, Some(mark(1)));
        witness.write(mark(2)).unwrap();
        witness.write(mark(3)).unwrap();
        assert_eq!(Witness::open(&path).unwrap().1, Some(mark(3)));

        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"x", SLOT + 50).unwrap();
        assert_eq!(Witness::open(&path).unwrap().1, Some(mark(2)), "a torn slot leaves the other");
        file.write_all_at(b"x", 50).unwrap();
        assert_eq!(Witness::open(&path).unwrap().1, None);
    }
}
