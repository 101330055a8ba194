//! The contract between the programs: messages, frames, and the paths where they meet.
//!
//! Owns nothing at run time. `frame` says how messages travel over the local socket, `paths` where that socket is;
//! both programs must agree on these, so they stand here once. What must not come here: anything that only one
//! program needs.

pub mod frame;
pub mod key;
pub mod paths;
mod secret;

#[allow(missing_docs, unreachable_pub, reason = "generated; the comments are in the .proto files")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/kvass.v1.rs"));
}
