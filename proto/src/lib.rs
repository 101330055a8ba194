//! The contract between the programs: messages, frames, and the paths where they meet.
//!
//! Owns nothing at run time. [`v1`] has the messages, [`frame`] says how they travel over the local socket, [`paths`]
//! where that socket is, [`key`] what a key may be, [`mod@line`] how what went wrong becomes one line, [`shell`] how a
//! hint writes what is to be copied. Both programs must agree on these, so they stand here once. What must not come here: anything that only one needs.

pub mod frame;
pub mod key;
pub mod line;
pub mod paths;
mod secret;
pub mod shell;

/// The messages; the comments in `proto/kvass/v1/` say who sends each and what empty means.
#[allow(missing_docs, unreachable_pub, reason = "generated; the comments are in the .proto files")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/kvass.v1.rs"));
}
