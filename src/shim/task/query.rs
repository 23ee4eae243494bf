//! Calls that change nothing in the OCI runtime; only `Pids` asks it.

use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, Empty, PidsResponse, ProcessInfo, ResizePtyRequest, StateRequest,
    StateResponse, StatsResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::Tasks;
use crate::runtime::{self, Meaning};
use crate::shim::container::Container;
use crate::shim::error::Error;
use crate::shim::socket;

/// Type of the details that `Pids` gives for an exec.
const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";

impl Tasks {
    pub(super) fn state(&self, request: &StateRequest) -> Result<StateResponse, Error> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.exit();
        Ok(StateResponse {
            id: request.id.clone(),
            exec_id: request.exec_id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: process.message_pid(),
            status: container.status(&process).into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.as_ref().map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at).into(),
            ..StateResponse::default()
        })
    }

    pub(super) async fn wait(&self, request: &WaitRequest) -> Result<WaitResponse, Error> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.ended().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(exit.at).into(),
            ..WaitResponse::default()
        })
    }

    pub(super) async fn pids(&self, id: &str) -> Result<PidsResponse, Error> {
        let container = self.container(id)?;
        let pids = if container.init.exit().is_none() && container.init.pid() != 0 {
            ask_runtime(&container).await?
        } else {
            // The OCI runtime may have forgotten it; what is left of it is in its cgroup.
            container.cgroup()?.pids()?
        };
        let execs = container.execs_by_pid();
        let processes = pids.into_iter().map(|pid| {
            let info = execs.get(&pid).and_then(|exec_id| {
                let details = ProcessDetails {
                    exec_id: exec_id.clone(),
                    ..ProcessDetails::default()
                };
                let value = details.write_to_bytes().ok()?;
                Some(Any {
                    type_url: PROCESS_DETAILS.to_owned(),
                    value,
                    ..Any::default()
                })
            });
            ProcessInfo {
                pid,
                info: info.into(),
                ..ProcessInfo::default()
            }
        });
        Ok(PidsResponse {
            processes: processes.collect(),
            ..PidsResponse::default()
        })
    }

    pub(super) fn stats(&self, id: &str) -> Result<StatsResponse, Error> {
        let container = self.container(id)?;
        let cgroup = container.cgroup()?;
        Ok(StatsResponse {
            stats: Some(cgroup.metrics()?).into(),
            ..StatsResponse::default()
        })
    }

    pub(super) fn resize_pty(&self, request: &ResizePtyRequest) -> Result<Empty, Error> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if let Some(io) = process.io() {
            let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
            io.resize(side(request.width), side(request.height))?;
        }
        Ok(Empty::default())
    }

    pub(super) fn close_io(&self, request: &CloseIORequest) -> Result<Empty, Error> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::default())
    }

    pub(super) fn connect(&self, request: &ConnectRequest) -> ConnectResponse {
        ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self
                .container(&request.id)
                .map_or(0, |container| container.init.message_pid()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        }
    }

    pub(super) fn shut_down(&self) -> Empty {
        if self.containers().is_empty() {
            // Gone before the answer, so that a `start` that comes now begins a new shim instead of finding this one.
            if let Err(error) = socket::remove(&self.socket) {
                log::warn!("{}: {error}", self.socket.display());
            }
            self.shutdown.notify_one();
        }
        Empty::default()
    }
}

/// The OCI runtime knows which processes are the container's, wherever it keeps them.
async fn ask_runtime(container: &Container) -> Result<Vec<u32>, Error> {
    let mut ps = container.runtime.ps(&container.id, &container.bundle);
    let output = match container.run("ps", &mut ps, b"").await {
        Err(Error::Runtime { reason, .. }) if runtime::meaning(&reason) == Meaning::Gone => {
            return Err(Error::NotFound(format!("processes of container {}", container.id)));
        }
        output => output?,
    };
    // Without any process it says `null`.
    let pids: Result<Option<Vec<u32>>, _> = serde_json::from_slice(&output.stdout);
    pids.map(Option::unwrap_or_default).map_err(|error| Error::Runtime {
        verb: "ps",
        reason: format!("its answer is not a list of pids: {error}"),
    })
}
