//! What is fuzzed: for each target a function that takes any bytes, and panics where kvass breaks a law.
//!
//! A target in `fuzz_targets/` is one line, so that this is compiled once for all of them. What kvass does not show to
//! others it shows here, in modules that exist only where the compiler is told `--cfg fuzzing`, as cargo-fuzz does.
//!
//! A variant with a number at its end, as `Own2`, and `Again`, is the same as the one before it: a fuzzer chooses among
//! variants evenly, so that what is the more worth trying stands there more than once.

#![cfg(fuzzing)]
#![warn(missing_docs)]

mod arguments;
mod blob;
mod chunks;
mod frames;
mod handshake;
mod header;
mod http;
mod import;
mod keys;
mod link;
mod local;
mod place;
mod protobuf;
mod proxy;
mod record;
mod remote;
mod rows;
pub mod seeds;
mod session;
mod wire;

use std::sync::LazyLock;

use kvassd::keys::{EncryptionKey, Keys};

pub use self::arguments::arguments;
pub use self::blob::blob;
pub use self::chunks::chunks;
pub use self::frames::frames;
pub use self::handshake::handshake;
pub use self::header::header;
pub use self::http::http;
pub use self::import::import;
pub use self::keys::keys;
pub use self::link::link;
pub use self::local::local;
pub use self::protobuf::protobuf;
pub use self::proxy::proxy;
pub use self::record::record;
pub use self::remote::remote;
pub use self::rows::rows;
pub use self::session::session;

/// The encryption key of everything that is fuzzed.
fn key() -> EncryptionKey {
    EncryptionKey::new([5; 32])
}

/// What follows from it.
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::derive(&key()));

/// What follows from another one.
static OTHERS: LazyLock<Keys> = LazyLock::new(|| Keys::derive(&EncryptionKey::new([6; 32])));

/// Flips one bit, counted round and round; of no bytes none.
pub(crate) fn flip(bytes: &mut [u8], bit: usize) {
    if !bytes.is_empty() {
        let bit = bit % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
