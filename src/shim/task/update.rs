//! `Update`: new resource limits.

use containerd_shim_protos::api::{Empty, UpdateTaskRequest};
use containerd_shim_protos::types::task::Status;

use super::Tasks;
use crate::shim::error::Error;

impl Tasks {
    pub(super) async fn update(&self, request: &UpdateTaskRequest) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        if container.init.status() == Status::STOPPED {
            return Err(Error::Precondition(format!("container {} has stopped", container.id)));
        }
        let Some(resources) = request.resources.as_ref() else {
            return Err(Error::Invalid("an update without resources".to_owned()));
        };
        let mut update = container.runtime.update(&container.id, &container.bundle);
        container.run("update", &mut update, &resources.value).await?;
        Ok(Empty::default())
    }
}
