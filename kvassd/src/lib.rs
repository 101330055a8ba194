//! The daemon of kvass.
pub mod keys;
pub mod record;
pub mod seal;
pub mod stamp;
pub mod value;
