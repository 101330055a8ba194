//! Randomness, taken in one place: for keys, ids, and waits that shall differ.

use std::fmt;
use std::sync::Arc;

/// The system has no randomness to give.
pub type Error = getrandom::Error;

type Fill = dyn Fn(&mut [u8]) -> Result<(), Error> + Send + Sync;

/// Gives random bytes; a cheap clone.
#[derive(Clone)]
pub struct Random(Arc<Fill>);

impl Random {
    /// The system's random source.
    #[must_use]
    pub fn system() -> Self {
        Self::new(getrandom::fill)
    }

    /// A source that fills bytes in another way. Whoever can foresee them can open what is sealed with them.
    pub fn new(fill: impl Fn(&mut [u8]) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// Fills bytes.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        (self.0)(bytes)
    }

    /// New bytes.
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Random")
    }
}
