//! Seccomp profiles: what they let through, what is left of two of them together, which calls belong together.
//!
//! Bytes and sets in, profiles out: nothing here reads a file, asks a kernel or decides.

mod complain;
mod export;
mod intersect;
mod profile;
mod rules;
mod runtime_default;
mod siblings;
mod within;

pub use complain::{Call, MAX_SEEN, SEEN_DIRECTORY, SEEN_VERSION, Seen, SeenError, complain, listener};
pub use export::{artifact, operator, union};
pub use intersect::{intersect, narrow, without};
pub use profile::{
    Action, Architecture, Argument, Entry, Error, Flag, MAX_BYTES, MAX_RULES, Operator, Permission, Profile,
};
pub use rules::{Outcome, Rules};
pub use runtime_default::runtime_default;
pub use siblings::{Group, Sibling, siblings};
pub use within::is_within;

use crate::syscalls::Machine;

/// The machine of an `AUDIT_ARCH_…` number of the kernel.
#[must_use]
pub fn machine_of(architecture: u32) -> Option<Machine> {
    match architecture {
        0xc000_003e => Some(Machine::X86_64),
        0xc000_00b7 => Some(Machine::Aarch64),
        _ => None,
    }
}
