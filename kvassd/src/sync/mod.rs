//! Keeping a store in step with a remote.
//!
//! [`channel`] makes two ends that hold the same sync key sure of each other and seals what they say; [`backoff`] says
//! how long to wait between two attempts. Both are pure: bytes in, bytes out, no socket, clock or store. [`session`]
//! is what two stores say over a channel; it needs a runtime and a store, and no socket. [`remote`] keeps this store's
//! link to its remote, which [`connect`] reaches, [`server`] answers devices; both carry frames over gRPC.

pub mod backoff;
pub mod channel;
pub mod connect;
mod grpc;
mod jump;
pub mod preview;
pub mod remote;
pub mod server;
pub mod session;
