//! What a store does not decide for itself.

use crate::clock::Clock;
use crate::random::Random;

/// What a store takes from outside: time, randomness, threads.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Clock,
    /// Where keys and ids come from.
    pub random: Random,
    /// Whether the store may have threads. Without any, whoever calls does the work before the call returns; a
    /// simulation is the same each time only so.
    pub threads: bool,
}

impl Surroundings {
    /// Those of the system.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), random: Random::system(), threads: true }
    }
}
