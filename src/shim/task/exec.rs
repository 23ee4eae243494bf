//! `Exec`: describe a further process; `Start` runs it.

use std::path::Path;

use containerd_shim_protos::api::{Empty, ExecProcessRequest};
use containerd_shim_protos::events::task::TaskExecAdded;
use containerd_shim_protos::types::task::Status;
use serde_json::Value;

use super::Tasks;
use crate::shim::error::Error;
use crate::shim::invocation::is_identifier;
use crate::shim::io::Stdio;
use crate::shim::process::Process;
use crate::shim::{edit, events};

impl Tasks {
    pub(super) fn exec(&self, request: ExecProcessRequest) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        // It becomes the name of files in the bundle.
        if !is_identifier(&request.exec_id) || taken_by_the_bundle(&container.bundle, &request.exec_id) {
            return Err(Error::Invalid(format!("exec id {:?}", request.exec_id)));
        }
        match container.init.status() {
            Status::RUNNING => {}
            Status::CREATED if container.checkpoint.is_none() => {}
            Status::PAUSED | Status::PAUSING => {
                return Err(Error::Precondition(format!("container {} is paused", container.id)));
            }
            _ => return Err(Error::Precondition(format!("container {} does not run", container.id))),
        }
        if let Some(reason) = container.barred() {
            return Err(Error::Barred(reason));
        }
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default();
        let spec = process_spec(&spec.value, request.terminal)
            .and_then(|spec| edit::exec(spec, &container.edits))
            .map_err(|error| {
                Error::Invalid(format!(
                    "the specification of exec {} is not an OCI process: {error}",
                    request.exec_id
                ))
            })?;
        container.add_exec(Process::new(request.exec_id.clone(), stdio, spec))?;
        let event = TaskExecAdded {
            container_id: container.id.clone(),
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        };
        container.services.publisher.publish(events::EXEC_ADDED, &event);
        Ok(Empty::default())
    }
}

/// The terminal of the request decides, not the one of the specification.
fn process_spec(json: &[u8], terminal: bool) -> serde_json::Result<Vec<u8>> {
    let mut process: serde_json::Map<String, Value> = serde_json::from_slice(json)?;
    process.insert("terminal".to_owned(), Value::Bool(terminal));
    serde_json::to_vec(&process)
}

/// Whether the files of an exec would replace others: `init.pid`, `config.json`, `log.json` and their like.
fn taken_by_the_bundle(bundle: &Path, exec_id: &str) -> bool {
    exec_id == "init" || bundle.join(format!("{exec_id}.json")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_terminal_decides_and_nothing_else_is_lost() {
        let spec = process_spec(br#"{"terminal":true,"args":["a"],"user":{"uid":7}}"#, false).unwrap();
        let spec: Value = serde_json::from_slice(&spec).unwrap();
        assert_eq!(
            spec,
            serde_json::json!({"terminal": false, "args": ["a"], "user": {"uid": 7}})
        );
        assert!(process_spec(b"[]", false).is_err());
        assert!(process_spec(b"", false).is_err());
    }

    #[test]
    fn an_exec_cannot_take_the_name_of_a_file_of_the_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), "{}").unwrap();
        assert!(taken_by_the_bundle(bundle.path(), "config"));
        assert!(taken_by_the_bundle(bundle.path(), "init"));
        assert!(!taken_by_the_bundle(bundle.path(), "shell"));
    }
}
