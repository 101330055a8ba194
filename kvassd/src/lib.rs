//! The daemon of kvass.
pub mod clock;
pub mod keys;
pub mod record;
pub mod seal;
pub mod stamp;
pub mod store;
pub mod value;
