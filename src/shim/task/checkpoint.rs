//! `Checkpoint`: write a container's state to files, through the OCI runtime and criu.

use std::path::PathBuf;

use containerd_shim_protos::api::{CheckpointTaskRequest, Empty};
use containerd_shim_protos::events::task::TaskCheckpointed;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::types::task::Status;
use protobuf::Message;

use super::Tasks;
use crate::runtime::{self, Criu, Meaning};
use crate::shim::error::Error;
use crate::shim::events;

impl Tasks {
    pub(super) async fn checkpoint(&self, request: &CheckpointTaskRequest) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        if !matches!(container.init.status(), Status::RUNNING | Status::PAUSED) {
            return Err(Error::Precondition(format!("container {} does not run", container.id)));
        }
        let options = match request.options.as_ref() {
            Some(any) => CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|error| Error::Invalid(format!("checkpoint options: {error}")))?,
            None => CheckpointOptions::default(),
        };
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

/// Tells a node without criu from a checkpoint that failed.
pub(super) fn criu_missing(error: Error) -> Error {
    match error {
        Error::Runtime { reason, .. } if runtime::meaning(&reason) == Meaning::NoCriu => {
            Error::NotImplemented("checkpoint and restore need criu, which is not installed on this node".to_owned())
        }
        error => error,
    }
}
