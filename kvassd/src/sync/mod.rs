//! Keeping a store in step with a remote.
//!
//! [`channel`] makes two ends that hold the same sync key sure of each other and seals what they say. It is pure: bytes
//! in, bytes out, no socket, clock or store.

pub mod channel;
