//! `Pause` and `Resume`.

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};

use super::Tasks;
use crate::shim::error::Error;
use crate::shim::events;
use crate::shim::process::Phase;

impl Tasks {
    pub(super) async fn pause(&self, id: &str) -> Result<Empty, Error> {
        let container = self.container(id)?;
        let step = container.init.step("pause", &[Phase::Running], Phase::Pausing)?;
        container
            .run("pause", &mut container.runtime.pause(id, &container.bundle), b"")
            .await?;
        step.finish(Phase::Paused);
        let event = TaskPaused {
            container_id: id.to_owned(),
            ..TaskPaused::default()
        };
        container.services.publisher.publish(events::PAUSED, &event);
        Ok(Empty::default())
    }

    pub(super) async fn resume(&self, id: &str) -> Result<Empty, Error> {
        let container = self.container(id)?;
        let step = container.init.step("resume", &[Phase::Paused], Phase::Resuming)?;
        container
            .run("resume", &mut container.runtime.resume(id, &container.bundle), b"")
            .await?;
        step.finish(Phase::Running);
        let event = TaskResumed {
            container_id: id.to_owned(),
            ..TaskResumed::default()
        };
        container.services.publisher.publish(events::RESUMED, &event);
        Ok(Empty::default())
    }
}
