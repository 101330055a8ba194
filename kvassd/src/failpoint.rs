//! Points at which a proof lets the process die, each named by what has just happened.
//!
//! Only a build with the feature `failpoints` has them. There `KVASS_FAILPOINT=POINT:N` ends the process the Nth time
//! that it comes to the point, as `kill -9` would: nothing is flushed, answered or cleaned up. Of any other build they
//! are no part, not even by name.

#[cfg(feature = "failpoints")]
pub(crate) use armed::reached;

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn reached(_point: &'static str) {}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    static DEADLY: LazyLock<Option<Deadly>> = LazyLock::new(Deadly::from_environment);

    /// The point at which this process dies.
    struct Deadly {
        point: String,
        /// How often it is still to be reached.
        left: AtomicU64,
    }

    impl Deadly {
        fn from_environment() -> Option<Self> {
            let text = std::env::var("KVASS_FAILPOINT").ok()?;
            let (point, times) = text.split_once(':')?;
            Some(Self { point: point.into(), left: AtomicU64::new(times.parse().ok()?) })
        }
    }

    /// Ends the process where this is the point, and the time, at which it dies.
    pub(crate) fn reached(point: &'static str) {
        let Some(deadly) = &*DEADLY else { return };
        if deadly.point == point && deadly.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}
