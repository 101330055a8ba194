//! What a store does not decide for itself.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::space;
use crate::clock::Clock;
use crate::random::Random;

/// What a store takes from outside: time, randomness, threads, the disk.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Clock,
    /// Where keys and ids come from.
    pub random: Random,
    /// Whether the store may have threads. Without any, whoever calls does the work before the call returns; a
    /// simulation is the same each time only so.
    pub threads: bool,
    /// What the disk is like.
    pub disk: Disk,
}

impl Surroundings {
    /// Those of the system.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), random: Random::system(), threads: true, disk: Disk::system() }
    }
}

type Free = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Says how much is free on a disk, and how slow it is; a cheap clone.
#[derive(Clone)]
pub struct Disk {
    free: Arc<Free>,
    pause: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Disk {
    /// The system's disks, whose calls take their time by themselves.
    #[must_use]
    pub fn system() -> Self {
        Self::new(space::available, || Duration::ZERO)
    }

    /// A disk that tells in another way how many bytes are free at a path, and how long a session waits before and
    /// after each call into the store where there are no threads: so simulated time passes in it.
    pub fn new(
        free: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static,
        pause: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { free: Arc::new(free), pause: Arc::new(pause) }
    }

    pub(super) fn free(&self, at: &Path) -> io::Result<u64> {
        (self.free)(at)
    }

    /// How long to wait beside the next call.
    #[must_use]
    pub fn pause(&self) -> Duration {
        (self.pause)()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Disk")
    }
}
