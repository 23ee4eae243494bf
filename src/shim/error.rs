//! One table from what went wrong to the codes that containerd acts on.
//!
//! containerd decides by code whether it retries, cleans up or ignores: NOT_FOUND, ALREADY_EXISTS,
//! FAILED_PRECONDITION and UNIMPLEMENTED are read by it, anything else is shown to the user as it is.

use std::io;
use std::path::{Path, PathBuf};

use ttrpc::Code;

use crate::admission::Decision;
use crate::admission::exec::ExecRecord;

/// Why a call of the task service failed.
#[expect(clippy::error_impl_error, reason = "the one error of this room")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container, exec or cgroup is not there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The id is taken.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// The call does not fit the state that the process is in.
    #[error("{0}: failed precondition")]
    Precondition(String),
    /// The request itself is wrong.
    #[error("{0}: invalid argument")]
    Invalid(String),
    /// This node cannot do that.
    #[error("{0}: not implemented")]
    NotImplemented(String),
    /// Admission said no.
    #[error("{}", .0.line())]
    Refused(Box<Decision>),
    /// A further process may not be started.
    #[error("{}", .0.line())]
    ExecRefused(Box<ExecRecord>),
    /// The program of an exec is in the image, and the container's view hides it.
    #[error(
        "{program} is in the image and hidden from this container: nothing that it starts needs it; to keep it, an \
         administrator adds exec = [\"{program}\"] to [rule.filesystem] of rule \"{rule}\", runs assay policy apply, and \
         the container is created again"
    )]
    Hidden {
        /// Its path.
        program: String,
        /// The rule that has the view.
        rule: String,
    },
    /// The OCI runtime failed; the text is its own.
    #[error("OCI runtime {verb} failed: {reason}")]
    Runtime {
        /// What it was asked to do.
        verb: &'static str,
        /// Its last error.
        reason: String,
    },
    /// The OCI runtime could not be run at all.
    #[error("cannot run the OCI runtime {program:?}: {source}; install it or correct BinaryName or oci_runtime")]
    NoRuntime {
        /// Program as configured.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A file of the bundle could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the bundle does not say what it should.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The root file system could not be mounted or unmounted.
    #[error("rootfs: {0}")]
    Mount(#[from] super::mount::MountError),
    /// Standard input, output or the terminal could not be set up.
    #[error("container io: {0}")]
    Io(#[from] super::io::IoError),
    /// The cgroup could not be read.
    #[error("cgroup: {0}")]
    Cgroup(#[from] super::stats::StatsError),
    /// A system call that should not fail did.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A handler ended without an answer: a defect, kept away from the containers.
    #[error("assay: internal fault in {0}; the shim goes on, please report this")]
    Panicked(&'static str),
}

impl Error {
    /// Wraps the failure to read or write `path`.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// Wraps the failure of a system call.
    pub fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// The ttrpc code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NOT_FOUND,
            Self::AlreadyExists(_) => Code::ALREADY_EXISTS,
            Self::Precondition(_) => Code::FAILED_PRECONDITION,
            Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::NotImplemented(_) => Code::UNIMPLEMENTED,
            Self::Refused(decision) if decision.policy => Code::PERMISSION_DENIED,
            Self::ExecRefused(_) => Code::PERMISSION_DENIED,
            Self::Refused(_) => Code::FAILED_PRECONDITION,
            Self::Cgroup(error) if error.is_not_found() => Code::NOT_FOUND,
            Self::Panicked(_) => Code::INTERNAL,
            _ => Code::UNKNOWN,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error))
    }
}
