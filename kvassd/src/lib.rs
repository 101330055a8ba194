//! The daemon of kvass: one for each user and data directory.
//!
//! ```text
//! kvass ── Unix socket ── socket ── local ── store ── files
//!                           │         │        │
//!             directory, lock, bind   │     the only place that names sled
//!                                frames to calls, and errors to texts
//! ```
//!
//! [`config`] says what was asked for, [`process`] makes the process safe, [`socket`] takes the directory,
//! [`daemon::run`] opens the store, serves and drains, with handlers in `local`; [`store`] has all rules about keys
//! and values. [`record`], [`stamp`], [`keys`], [`seal`] and [`value`] are pure: bytes and laws, no clock and no files.
//! [`sync`] has the encrypted channel to a remote. [`serve`] puts these together for the program; tests put them
//! together themselves.

pub mod clock;
pub mod config;
pub mod daemon;
pub mod keys;
mod local;
pub mod logs;
pub mod process;
mod program;
pub mod record;
pub mod seal;
pub mod socket;
pub mod stamp;
pub mod store;
pub mod sync;
pub mod value;

pub use program::{RunError, repair, serve};
