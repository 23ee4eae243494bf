//! The administrator's rules.

pub mod pattern;
