//! The daemon of kvass: one for each user and data directory.
//!
//! ```text
//! kvass ── Unix socket ── socket ── local ── store ── files
//!                           │         │        │
//!             directory, lock, bind   │        │
//!              frames to calls, errors to texts │ the only place that names sled
//!                                               │
//! kvassd ──────── gRPC ─────────── sync ────────┘
//! ```
//!
//! What each part owns, and what it must not do:
//!
//! - [`config`]: what was asked for, by flags and environment; never invalid once it is made.
//! - [`serve`] and [`repair`]: the program. They put the parts together, where tests do it themselves, and have no
//!   rules of their own.
//! - [`process`], [`logs`]: what the process does to itself, and where its log goes. No name, value or key is ever
//!   logged.
//! - [`clock`], [`random`]: what time it is, and what nobody can foresee. They are given to the store at its opening,
//!   and all others ask the store, so that tests can bring their own.
//! - [`socket`]: the data directory, its lock, and the socket in it; it does not look into the store.
//! - [`daemon`]: the life, from opening to closing; nothing is spawned that it does not wait for.
//! - `failpoint`: where a proof lets the process die; empty in any program that is used.
//! - [`given`]: a key in a file, from a service manager or by hand.
//! - `local`: the client's requests, each decoded, one call, encoded; the one map from errors to answers. It decides
//!   nothing about keys and values.
//! - [`store`]: all rules about keys and values, and all that lies on the disk. Its calls block.
//! - [`record`], [`stamp`], [`keys`], [`seal`], [`share`], [`value`], `aes`: the bytes of records, links and values, and
//!   their laws. Pure: they know no clock, file or runtime.
//! - [`sync`]: sessions with other stores: the encrypted channel, what is said over it, the link to the remote, the
//!   server for devices. It changes the store only through the store's own commits.
//! - [`network`], `accept`, `http`: how bytes come in and go out, connections and their limits, and what the port of the
//!   server answers to those who are no devices. Only links, in `http`, know the store, which they read.
//!
//! docs/architecture.md follows a request through these, docs/decisions.md says why they are so.

pub mod accept;
mod aes;
pub mod clock;
pub mod config;
pub mod daemon;
mod failpoint;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
pub mod given;
pub mod http;
pub mod keys;
mod local;
pub mod logs;
pub mod network;
pub mod process;
mod program;
pub mod random;
pub mod record;
pub mod seal;
pub mod share;
pub mod socket;
pub mod stamp;
pub mod store;
pub mod sync;
pub mod value;

pub use program::{RunError, repair, serve};
