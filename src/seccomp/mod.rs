//! Seccomp profiles: what they let through, what is left of two of them together, which calls belong together.
//!
//! Bytes and sets in, profiles out: nothing here reads a file, asks a kernel or decides.

mod intersect;
mod profile;
mod rules;
mod runtime_default;
mod siblings;

pub use intersect::{intersect, narrow, without};
pub use profile::{
    Action, Architecture, Argument, Entry, Error, Flag, MAX_BYTES, MAX_RULES, Operator, Permission, Profile,
};
pub use rules::{Outcome, Rules};
pub use runtime_default::runtime_default;
pub use siblings::{Group, Sibling, siblings};
