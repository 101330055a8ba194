//! Links over real sockets: what a server answers to those who have one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
mod gone;
mod limited;
mod logs;
mod parts;
mod program;
mod site;
mod stream;
mod values;
