//! ELF files → functions → call graph → system calls, with a path for each.
//!
//! [`summarise`] reads one file, [`close`] joins summaries in the loader's way and follows what can run. Bytes in, sets
//! out: nothing here opens a file. The result is an over-approximation: a call that a program can make is in it, or the
//! result names the place whose number could not be found.

mod aarch64;
mod close;
mod code;
mod elf;
mod facts;
mod held;
mod link;
mod name;
mod pclntab;
mod slice;
mod summary;
mod unwind;
mod x86;

pub use close::{Calls, Object, Order, Path, Role, Step, UnknownSite, close, close_all};
pub use elf::MAX_CODE;
pub use facts::edition;
pub use name::{all, name, number};
pub use slice::{Place, Slice, Why};
pub use summary::{Edge, Export, Feed, Import, Reach, Site, Summary, VERSION, summarise};

use serde::{Deserialize, Serialize};

/// A machine whose instructions are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Machine {
    /// That of this program.
    #[must_use]
    pub fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }
}

/// Why a file cannot be analysed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "always written with its module: syscalls::Error")]
pub enum Error {
    /// Another format.
    #[error("it is not an ELF file")]
    NotElf,
    /// An ELF file that no process has as a program or library: an object file, a memory image.
    #[error("it is neither a program nor a library")]
    NotRun,
    /// A library of data.
    #[error("it has no machine code")]
    NoCode,
    /// An ELF file of a kind that is not analysed.
    #[error("{0}")]
    Unsupported(String),
    /// A table leads out of the file.
    #[error("it ends within {0}")]
    Truncated(&'static str),
    /// A limit of the analysis.
    #[error("it has more than {1} {0}")]
    TooMany(&'static str, usize),
    /// Kept bytes that this version did not write.
    #[error("it is not a summary that this version wrote")]
    Stored,
}
