//! `delete`: remove what a container left when its shim is dead, and say how it ended.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;

use super::bundle::{self, Record};
use super::clock;
use super::error::Error;
use super::invocation::Invocation;
use super::{mount, socket};
use crate::runtime::{self, Meaning};

/// Exit status of a process that SIGKILL ended.
const KILLED: u32 = 128 + 9;

/// Kills and deletes the container in the OCI runtime, unmounts its root file system, and writes a `DeleteResponse` to
/// standard output. Every step is tried, whatever became of the one before it.
///
/// # Errors
/// When something could not be removed; containerd then tries again later.
pub fn delete(invocation: &Invocation) -> Result<(), Error> {
    let bundle = if invocation.bundle.is_empty() {
        env::current_dir().map_err(Error::system("current directory"))?
    } else {
        PathBuf::from(&invocation.bundle)
    };
    let deleted = Record::read(&bundle)
        .and_then(|record| record.map_or(Ok(()), |record| delete_in_runtime(&record, &invocation.id, &bundle)));
    let unmounted = mount::unmount_recursive(&bundle::rootfs(&bundle)).map_err(Error::from);
    if let Some(path) = bundle::read_address(&bundle)
        .as_deref()
        .and_then(|address| address.strip_prefix("unix://"))
    {
        socket::remove_dead(Path::new(path)).map_err(Error::file(Path::new(path)))?;
    }
    deleted.and(unmounted)?;
    let response = DeleteResponse {
        // A container that never got as far as a process has none.
        pid: bundle::read_pid(&bundle::init_pid(&bundle)).map_or(0, i32::cast_unsigned),
        exit_status: KILLED,
        exited_at: Some(clock::now()).into(),
        ..DeleteResponse::default()
    };
    let bytes = response.write_to_bytes().map_err(|error| Error::System {
        what: "DeleteResponse",
        source: io::Error::other(error),
    })?;
    io::stdout().write_all(&bytes).map_err(Error::system("standard output"))
}

fn delete_in_runtime(record: &Record, id: &str, bundle: &Path) -> Result<(), Error> {
    let mut command = record
        .runtime
        .delete(id, Some(bundle).filter(|bundle| bundle.is_dir()), true);
    let since = runtime::log_length(bundle);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::NoRuntime {
            program: record.runtime.program.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let reason = runtime::failure(bundle, since, &output.stderr);
    if runtime::meaning(&reason) == Meaning::Gone {
        Ok(())
    } else {
        Err(Error::Runtime { verb: "delete", reason })
    }
}
