//! Kills in the middle of something: what they leave, and that nobody hears of what comes after them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Takes a copy of a machine's files in the middle of what it does, and cuts the machine off in the same moment: what
/// it does from then on nobody hears of. So the copy is what a kill at that moment leaves.
#[derive(Default)]
pub struct Trap {
    /// How often time or randomness may still be asked for; 0: it is not set.
    left: AtomicU64,
    sprung: AtomicBool,
    from: Mutex<PathBuf>,
    to: Mutex<PathBuf>,
    /// Whom the machine can reach.
    others: Mutex<Vec<String>>,
    name: String,
}

impl Trap {
    /// The trap of a machine that has this name.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Says where the files are, where the copy goes, and whom the machine can reach.
    pub fn place(&self, from: &Path, to: PathBuf, others: Vec<String>) {
        *self.from.lock().unwrap() = from.into();
        *self.to.lock().unwrap() = to;
        *self.others.lock().unwrap() = others;
    }

    /// It springs when time or randomness is asked for the `count`th time from now.
    pub fn set(&self, count: u64) {
        self.left.store(count, Relaxed);
    }

    /// Makes it ready for another life of the machine.
    pub fn clear(&self) {
        self.disarm();
        self.sprung.store(false, Relaxed);
    }

    /// Time or randomness is asked for.
    pub fn step(&self) {
        if self.left.load(Relaxed) > 0 && self.left.fetch_sub(1, Relaxed) == 1 {
            self.spring();
        }
    }

    /// Springs now.
    pub fn spring(&self) {
        if self.sprung.swap(true, Relaxed) {
            return;
        }
        copy(&self.from.lock().unwrap(), &self.to.lock().unwrap());
        if turmoil::in_simulation() {
            self.others.lock().unwrap().iter().for_each(|other| turmoil::partition(&self.name[..], &other[..]));
        }
    }

    /// Takes the trap away.
    pub fn disarm(&self) {
        self.left.store(0, Relaxed);
    }

    pub fn is_sprung(&self) -> bool {
        self.sprung.load(Relaxed)
    }

    /// Where the copy is.
    pub fn copy(&self) -> PathBuf {
        self.to.lock().unwrap().clone()
    }
}

/// Copies a data directory in which nobody writes but sled's own threads, which move things about.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let (from, to) = (file.path(), to.join(file.file_name()));
        if file.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else if file.file_name() != "ballast" {
            copy_file(&from, &to);
        }
    }
}

/// Copies a file as it was in one moment.
fn copy_file(from: &Path, to: &Path) {
    let read = || match fs::read(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.unwrap()),
    };
    let mut bytes = read();
    loop {
        let again = read();
        if again == bytes {
            break;
        }
        bytes = again;
    }
    if let Some(bytes) = bytes {
        fs::write(to, bytes).unwrap();
    }
}
