//! `Start`: let a created container run, or run an exec.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use containerd_shim_protos::api::{StartRequest, StartResponse};
use containerd_shim_protos::events::task::{TaskExecStarted, TaskStart};

use super::Tasks;
use crate::shim::child::Exit;
use crate::shim::container::{Container, RunningExec};
use crate::shim::error::Error;
use crate::shim::process::{Phase, Process};
use crate::shim::{events, hidden};

/// Exit status of an exec that never ran.
const NEVER_RAN: u32 = 255;

impl Tasks {
    pub(super) async fn start(&self, request: &StartRequest) -> Result<StartResponse, Error> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if request.exec_id.is_empty() {
            start_init(&container).await?;
        } else {
            start_exec(&container, &process).await?;
        }
        Ok(StartResponse {
            pid: process.message_pid(),
            ..StartResponse::default()
        })
    }
}

async fn start_init(container: &Arc<Container>) -> Result<(), Error> {
    let init = &container.init;
    let step = init.step("start", &[Phase::Created], Phase::Starting)?;
    let announcing = init.announcing();
    if container.checkpoint.is_some() {
        super::create::restore(container).await?;
    } else {
        container
            .run(
                "start",
                &mut container.runtime.start(&container.id, &container.bundle),
                b"",
            )
            .await?;
    }
    step.finish(Phase::Running);
    let event = TaskStart {
        container_id: container.id.clone(),
        pid: init.message_pid(),
        ..TaskStart::default()
    };
    container.services.publisher.publish(events::START, &event);
    drop(announcing);
    Ok(())
}

async fn start_exec(container: &Arc<Container>, process: &Arc<Process>) -> Result<(), Error> {
    let step = process.step("start", &[Phase::Created], Phase::Starting)?;
    let running = container.exec_starts()?;
    let announcing = process.announcing();
    if let Err(error) = run_exec(container, process, running).await {
        step.finish(Phase::NeverRan);
        process.end(Exit::now(NEVER_RAN));
        return Err(error);
    }
    step.finish(Phase::Running);
    let event = TaskExecStarted {
        container_id: container.id.clone(),
        exec_id: process.exec_id.clone(),
        pid: process.message_pid(),
        ..TaskExecStarted::default()
    };
    container.services.publisher.publish(events::EXEC_STARTED, &event);
    drop(announcing);
    Ok(())
}

async fn run_exec(container: &Arc<Container>, process: &Arc<Process>, running: RunningExec) -> Result<(), Error> {
    let spec = Temporary(container.bundle.join(format!("{}.json", process.exec_id)));
    fs::write(&spec.0, &process.spec).map_err(Error::file(&spec.0))?;
    let pid_file = Temporary(container.bundle.join(format!("{}.pid", process.exec_id)));
    let started = super::create::run_detached(container, process, "exec", &pid_file.0, |console| {
        container
            .runtime
            .exec(&container.id, &container.bundle, &spec.0, &pid_file.0, console)
    });
    let started = started.await;
    let child = started.map_err(|error| hidden::explain(container, &process.spec, error))?;
    container.await_exec(Arc::clone(process), child, running);
    Ok(())
}

/// A file that is gone when its use is over.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}
