//! The daemon of kvass.
