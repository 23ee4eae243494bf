//! `Exec`: describe a further process; `Start` runs it.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api::{Empty, ExecProcessRequest};
use containerd_shim_protos::events::task::TaskExecAdded;
use containerd_shim_protos::types::task::Status;
use serde_json::Value;

use super::Tasks;
use crate::admission::Verdict;
use crate::admission::exec::{Asked, ExecRecord};
use crate::shim::container::Container;
use crate::shim::error::Error;
use crate::shim::hidden::{self, Program};
use crate::shim::invocation::is_identifier;
use crate::shim::io::Stdio;
use crate::shim::process::Process;
use crate::shim::{config, edit, events, gate};

/// How long a grant is waited for where the configuration cannot be read, of which `assay` says more.
const PATIENCE: Duration = Duration::from_secs(10);

impl Tasks {
    pub(super) async fn exec(&self, request: ExecProcessRequest) -> Result<Empty, Error> {
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
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default();
        let malformed = |error| {
            Error::Invalid(format!(
                "the specification of exec {} is not an OCI process: {error}",
                request.exec_id
            ))
        };
        let spec = process_spec(&spec.value, request.terminal)
            .and_then(|spec| edit::exec(spec, &container.edits))
            .map_err(malformed)?;
        let program: Program = serde_json::from_slice(&spec).map_err(malformed)?;
        let asked = Asked {
            id: &request.exec_id,
            arguments: &program.args,
            terminal: request.terminal,
            user: program.user(),
        };
        self.decide(&container, &program, asked).await.map_err(|record| {
            // Of a program that is not there more may be known.
            let is_missing = record.code == gate::NOT_FOUND;
            let error = Error::ExecRefused(record);
            if is_missing {
                hidden::explain(&container, &spec, error)
            } else {
                error
            }
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

    /// Whether the process may be started, which is on record either way.
    async fn decide(&self, container: &Container, program: &Program, asked: Asked<'_>) -> Result<(), Box<ExecRecord>> {
        let mut record = ExecRecord {
            namespace: container.services.namespace.clone(),
            container: container.id.clone(),
            ..container.gate.judge(asked, program, container.init.pid())
        };
        if let Some(plea) = container.gate.plea(&record) {
            let children = &container.services.children;
            let patience = config(&container.options).map_or(PATIENCE, |config| config.admit_timeout);
            let path = &container.options.config_path;
            record.open(self.admission.plead(children, &plea, path, patience).await);
        }
        let written = container.gate.record(record.clone(), asked.arguments);
        if let (Err(error), Some(granted)) = (written, &record.grant) {
            let reason = format!(
                "grant {} would allow it, and its use cannot be recorded: {error}",
                granted.id
            );
            record.refuse(
                "exec-unrecorded",
                reason,
                "free space on the file system of Assay's state directory",
            );
        }
        match record.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Refuse => Err(Box::new(record)),
        }
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
