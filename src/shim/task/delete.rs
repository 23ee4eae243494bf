//! `Delete`: forget a process that has ended, or a container that never ran.

use std::time::Duration;

use containerd_shim_protos::api::{DeleteRequest, DeleteResponse};
use containerd_shim_protos::events::task::TaskDelete;
use tokio::time::timeout;

use super::Tasks;
use crate::runtime::{self, Meaning};
use crate::shim::container::Container;
use crate::shim::error::Error;
use crate::shim::process::{Phase, Process};
use crate::shim::{bundle, events, mount};

/// Longest wait for the last output of a process whose reader is slow, or whose descendants keep it open.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest wait for the end of a process that was killed because it never ran.
const KILLED: Duration = Duration::from_secs(10);

impl Tasks {
    pub(super) async fn delete(&self, request: &DeleteRequest) -> Result<DeleteResponse, Error> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let step = process.step("delete", &[Phase::Created], Phase::Deleting)?;
        process.signalled().await;
        drain(&process).await;
        if request.exec_id.is_empty() {
            delete_in_runtime(&container).await?;
            if process.pid() != 0 {
                // Late only for a container that never ran and was killed just now.
                let _ = timeout(KILLED, process.ended()).await;
            }
            container.end_hearing();
            container.gate.end();
            container.end_watch().await;
            mount::unmount_recursive(&bundle::rootfs(&container.bundle))?;
        }
        step.finish(Phase::Deleting);
        process.close_io();
        let response = response(&process);
        if request.exec_id.is_empty() {
            self.containers().remove(&request.id);
            let event = TaskDelete {
                container_id: container.id.clone(),
                pid: response.pid,
                exit_status: response.exit_status,
                exited_at: response.exited_at.clone(),
                ..TaskDelete::default()
            };
            container.services.publisher.publish(events::DELETE, &event);
        } else {
            container.remove_exec(&request.exec_id);
        }
        Ok(response)
    }
}

async fn drain(process: &Process) {
    if let Some(io) = process.io()
        && process.exit().is_some()
        && timeout(DRAIN, io.drained()).await.is_err()
    {
        log::warn!(
            "output of process {} is cut off: nobody reads it, or another process keeps it open",
            process.pid()
        );
    }
}

async fn delete_in_runtime(container: &Container) -> Result<(), Error> {
    let mut command = container.runtime.delete(&container.id, Some(&container.bundle), false);
    match container.run("delete", &mut command, b"").await {
        Err(Error::Runtime { reason, .. }) if runtime::meaning(&reason) == Meaning::Gone => Ok(()),
        result => result.map(drop),
    }
}

fn response(process: &Process) -> DeleteResponse {
    let exit = process.exit();
    DeleteResponse {
        pid: process.message_pid(),
        exit_status: exit.as_ref().map_or(0, |exit| exit.status),
        exited_at: exit.map(|exit| exit.at).into(),
        ..DeleteResponse::default()
    }
}
