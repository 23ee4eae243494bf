//! `Checkpoint`: write a container's state to files, through the OCI runtime and criu.

use std::path::PathBuf;

use containerd_shim_protos::api::{CheckpointTaskRequest, Empty};
use containerd_shim_protos::events::task::TaskCheckpointed;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::types::task::Status;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::Tasks;
use crate::runtime::{self, Criu, Meaning};
use crate::shim::error::Error;
use crate::shim::events;

/// Type of the options that clients of containerd 1.x send for a runtime whose name does not begin with
/// `io.containerd.runc`.
const OPTIONS_OF_VERSION_1: &str = "containerd.linux.runc.CheckpointOptions";

impl Tasks {
    pub(super) async fn checkpoint(&self, request: &CheckpointTaskRequest) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        if !matches!(container.init.status(), Status::RUNNING | Status::PAUSED) {
            return Err(Error::Precondition(format!("container {} does not run", container.id)));
        }
        let options = request
            .options
            .as_ref()
            .map_or_else(|| Ok(CheckpointOptions::default()), decode);
        let options = options.map_err(|error| Error::Invalid(format!("checkpoint options: {error}")))?;
        let first = |paths: [&str; 2]| paths.into_iter().find(|path| !path.is_empty()).map(PathBuf::from);
        let criu = Criu {
            image_path: first([&options.image_path, &request.path])
                .ok_or_else(|| Error::Invalid("a checkpoint needs a path for its image".to_owned()))?,
            work_path: first([&options.work_path, &container.options.criu_work_path]),
            parent_path: None,
            open_tcp: options.open_tcp,
            external_unix_sockets: options.external_unix_sockets,
            terminal: options.terminal,
            file_locks: options.file_locks,
            empty_namespaces: options.empty_namespaces,
            cgroups_mode: options.cgroups_mode,
        };
        let mut command = container
            .runtime
            .checkpoint(&container.id, &container.bundle, &criu, !options.exit);
        container
            .run("checkpoint", &mut command, b"")
            .await
            .map_err(criu_missing)?;
        let event = TaskCheckpointed {
            container_id: container.id.clone(),
            checkpoint: criu.image_path.display().to_string(),
            ..TaskCheckpointed::default()
        };
        container.services.publisher.publish(events::CHECKPOINTED, &event);
        Ok(Empty::default())
    }
}

fn decode(any: &Any) -> protobuf::Result<CheckpointOptions> {
    let mut options = CheckpointOptions::parse_from_bytes(&any.value)?;
    if any.type_url.rsplit('/').next() == Some(OPTIONS_OF_VERSION_1) {
        // The same message but for these two fields, whose numbers are the other way round.
        std::mem::swap(&mut options.image_path, &mut options.work_path);
    }
    Ok(options)
}

/// Tells a node without criu from a checkpoint that failed.
pub(super) fn criu_missing(error: Error) -> Error {
    match error {
        Error::Runtime { reason, .. } if runtime::meaning(&reason) == Meaning::NoCriu => {
            Error::NotImplemented("checkpoint and restore need criu, which is not installed on this node".to_owned())
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_both_kinds_of_options_are_told_apart() {
        let options = |name: &str| {
            let any = Any {
                type_url: name.into(),
                value: vec![0x08, 1, 0x42, 1, b'8', 0x4a, 1, b'9'],
                ..Any::default()
            };
            let options = decode(&any).unwrap();
            (options.exit, options.image_path, options.work_path)
        };
        let expected = |image: &str, work: &str| (true, image.to_owned(), work.to_owned());
        assert_eq!(options("containerd.runc.v1.CheckpointOptions"), expected("8", "9"));
        assert_eq!(options(OPTIONS_OF_VERSION_1), expected("9", "8"));
    }
}
