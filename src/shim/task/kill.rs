//! `Kill`: send a signal.

use containerd_shim_protos::api::{Empty, KillRequest};

use super::Tasks;
use crate::runtime::{self, Meaning};
use crate::shim::error::Error;

impl Tasks {
    pub(super) async fn kill(&self, request: &KillRequest) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _signalling = process.signalling();
        let finished = || Error::NotFound(format!("process already finished: {}", process.pid()));
        if request.exec_id.is_empty() {
            if process.pid() == 0 {
                return Err(Error::Precondition(format!(
                    "container {} is not restored yet",
                    container.id
                )));
            }
            // A stopped container goes to the OCI runtime all the same: others of its processes may be left.
            let mut kill = container
                .runtime
                .kill(&container.id, &container.bundle, request.signal, request.all);
            match container.run("kill", &mut kill, b"").await {
                Err(Error::Runtime { reason, .. }) if runtime::meaning(&reason) == Meaning::Gone => Err(finished()),
                result => result.map(|_| Empty::default()),
            }
        } else {
            if process.exit().is_some() {
                return Err(finished());
            }
            let Some(handle) = process.handle() else {
                return Err(Error::Precondition(format!(
                    "process {} is not started",
                    request.exec_id
                )));
            };
            match handle.signal(request.signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(finished()),
                result => result.map(|()| Empty::default()).map_err(Error::system("kill")),
            }
        }
    }
}
