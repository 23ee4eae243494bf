//! One container: its first process, its execs, its cgroup, and the order in which their ends are told.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use containerd_shim_protos::api::Mount;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::types::task::Status;
use tokio::sync::watch;

use super::bundle::Spec;
use super::child::{Child, Children, Exit, Output};
use super::complain::Complaints;
use super::error::Error;
use super::events::{self, Publisher};
use super::gate::Gate;
use super::oom::OomWatch;
use super::options::Options;
use super::process::Process;
use super::stats::Cgroup;
use super::watch::Watcher;
use crate::admission::Edits;
use crate::runtime::{self, Criu, Runtime};

/// What all containers of this shim share.
#[derive(Debug)]
pub struct Services {
    /// containerd namespace.
    pub namespace: String,
    /// Reaps.
    pub children: Arc<Children>,
    /// Tells containerd.
    pub publisher: Publisher,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Mounts of its root file system as they were asked for.
    pub rootfs: Vec<Mount>,
    /// Where it is restored from; empty for a new one.
    pub checkpoint: Option<Criu>,
    /// Options of the handler.
    pub options: Options,
    /// The OCI runtime.
    pub runtime: Runtime,
    /// What its configuration says that the shim acts on.
    pub spec: Spec,
    /// What was taken out of that configuration.
    pub edits: Edits,
    /// Which further processes may be started in it.
    pub gate: Gate,
    /// Its first process.
    pub init: Arc<Process>,
    /// What it shares with the others.
    pub services: Arc<Services>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    /// Execs that run or are being started; `None` once the first process has ended and no more may start.
    running: watch::Sender<Running>,
    oom: Mutex<Option<Arc<OomWatch>>>,
    cgroup: OnceLock<Cgroup>,
    watcher: Mutex<Option<Watcher>>,
    complaints: Mutex<Option<Complaints>>,
    /// Name of the rule by whose view it sees only a part of its image.
    narrowed_by: OnceLock<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Running {
    execs: usize,
    closed: bool,
}

impl Container {
    /// A container of which nothing exists yet.
    #[expect(clippy::too_many_arguments, reason = "each is a field and comes from another place")]
    #[must_use]
    pub fn new(
        id: String,
        bundle: PathBuf,
        rootfs: Vec<Mount>,
        checkpoint: Option<Criu>,
        options: Options,
        runtime: Runtime,
        spec: Spec,
        edits: Edits,
        gate: Gate,
        init: Process,
        services: Arc<Services>,
    ) -> Self {
        Self {
            id,
            bundle,
            rootfs,
            checkpoint,
            options,
            runtime,
            spec,
            edits,
            gate,
            init: Arc::new(init),
            services,
            execs: Mutex::default(),
            running: watch::Sender::new(Running::default()),
            oom: Mutex::default(),
            cgroup: OnceLock::new(),
            watcher: Mutex::default(),
            complaints: Mutex::default(),
            narrowed_by: OnceLock::new(),
        }
    }

    /// Takes note of the process that watches what it uses.
    pub fn watched_by(&self, watcher: Watcher) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    /// Takes note of who listens to its system calls.
    pub fn heard_by(&self, complaints: Complaints) {
        *self.complaints.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaints);
    }

    /// Ends the listening to its system calls, of which it makes no more.
    pub fn end_hearing(&self) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends the process that watches what it uses, if there is one.
    pub async fn end_watch(&self) {
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watcher) = watcher {
            watcher.end().await;
        }
    }

    /// Takes note of the rule by whose view it sees only a part of its image.
    pub fn narrowed_by(&self, rule: String) {
        // Told once, before anybody can ask.
        let _ = self.narrowed_by.set(rule);
    }

    /// The rule by whose view it sees only a part of its image; none where it sees all of it.
    #[must_use]
    pub fn narrowing(&self) -> Option<&str> {
        self.narrowed_by.get().map(String::as_str)
    }

    /// The first process for an empty id, else the exec.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>, Error> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let missing = || Error::NotFound(format!("process {exec_id} of container {}", self.id));
        self.execs().get(exec_id).cloned().ok_or_else(missing)
    }

    /// The state of one of its processes: a frozen container freezes its execs too.
    #[must_use]
    pub fn status(&self, process: &Process) -> Status {
        match (process.status(), self.init.status()) {
            (Status::RUNNING, frozen @ (Status::PAUSING | Status::PAUSED)) => frozen,
            (status, _) => status,
        }
    }

    /// Adds an exec that is not started yet.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub fn add_exec(&self, process: Process) -> Result<(), Error> {
        let mut execs = self.execs();
        if execs.contains_key(&process.exec_id) {
            return Err(Error::AlreadyExists(format!(
                "process {} of container {}",
                process.exec_id, self.id
            )));
        }
        execs.insert(process.exec_id.clone(), Arc::new(process));
        Ok(())
    }

    /// Forgets an exec.
    pub fn remove_exec(&self, exec_id: &str) {
        self.execs().remove(exec_id);
    }

    /// The execs by pid.
    #[must_use]
    pub fn execs_by_pid(&self) -> HashMap<u32, String> {
        self.execs()
            .values()
            .map(|process| (process.message_pid(), process.exec_id.clone()))
            .collect()
    }

    /// Counts an exec that is about to start, so that the first process's end is told after the exec's.
    ///
    /// # Errors
    /// [`Error::Precondition`] once the first process has ended.
    pub fn exec_starts(self: &Arc<Self>) -> Result<RunningExec, Error> {
        let entered = self.running.send_if_modified(|running| {
            if running.closed {
                return false;
            }
            running.execs += 1;
            true
        });
        if entered {
            Ok(RunningExec(Arc::clone(self)))
        } else {
            Err(Error::Precondition(format!("container {} has stopped", self.id)))
        }
    }

    /// Waits for the end of the first process in the background and tells it, as the last end of the container.
    pub fn await_init(self: &Arc<Self>, mut child: Child) {
        let container = Arc::clone(self);
        tokio::spawn(async move {
            let exit = child.wait().await;
            container.running.send_modify(|running| running.closed = true);
            if container.spec.shares_pid_namespace() {
                // With a PID namespace of its own the kernel has done this already.
                let mut kill =
                    container
                        .runtime
                        .kill(&container.id, &container.bundle, libc::SIGKILL.cast_unsigned(), true);
                if let Err(error) = container.services.children.run(&mut kill, b"").await {
                    log::warn!("processes of {} may be left: {error}", container.id);
                }
            }
            // Fails only when the sender is gone, and it is the container's own.
            let _ = container
                .running
                .subscribe()
                .wait_for(|running| running.execs == 0)
                .await;
            container.tell_end(&container.init, exit).await;
        });
    }

    /// Waits for the end of an exec in the background and tells it.
    pub fn await_exec(self: &Arc<Self>, process: Arc<Process>, mut child: Child, running: RunningExec) {
        let container = Arc::clone(self);
        tokio::spawn(async move {
            let exit = child.wait().await;
            container.tell_end(&process, exit).await;
            drop(running);
        });
    }

    async fn tell_end(&self, process: &Process, exit: Exit) {
        process.announced().await;
        if let Some(io) = process.io() {
            io.exited();
        }
        self.tell_oom();
        let id = if process.exec_id.is_empty() {
            &self.id
        } else {
            &process.exec_id
        };
        let event = TaskExit {
            container_id: self.id.clone(),
            id: id.clone(),
            pid: process.message_pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..TaskExit::default()
        };
        process.end(exit);
        self.services.publisher.publish(events::EXIT, &event);
    }

    /// Its cgroup, found once while its first process was certainly there: later the pid may be another's.
    ///
    /// # Errors
    /// [`Error::NotFound`] before the container runs, or when its first process ended at once.
    pub fn cgroup(&self) -> Result<&Cgroup, Error> {
        self.cgroup
            .get()
            .ok_or_else(|| Error::NotFound(format!("cgroup of container {}", self.id)))
    }

    /// Takes note of the cgroup of the first process, and watches it for kills for want of memory from now on.
    pub fn enter_cgroup(self: &Arc<Self>, pid: i32) {
        let watch = Cgroup::of(pid).and_then(|cgroup| {
            cgroup.enable_controllers();
            OomWatch::new(self.cgroup.get_or_init(|| cgroup))
        });
        let watch = match watch {
            Ok(watch) => Arc::new(watch),
            // A process that has ended already, or a container without a memory cgroup: nothing to watch.
            Err(error) => return log::info!("no memory events for {}: {error}", self.id),
        };
        *self.oom.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&watch));
        let container = Arc::downgrade(self);
        tokio::spawn(async move {
            while watch.wait().await {
                let Some(container) = container.upgrade() else { return };
                container.publish_oom();
            }
        });
    }

    fn tell_oom(&self) {
        let watch = self.oom.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if watch.is_some_and(|watch| watch.check_now()) {
            self.publish_oom();
        }
    }

    fn publish_oom(&self) {
        let event = TaskOOM {
            container_id: self.id.clone(),
            ..TaskOOM::default()
        };
        self.services.publisher.publish(events::OOM, &event);
    }

    /// Runs an OCI runtime command that must succeed.
    ///
    /// # Errors
    /// [`Error::Runtime`] with the runtime's own words.
    pub async fn run(
        &self,
        verb: &'static str,
        command: &mut std::process::Command,
        input: &[u8],
    ) -> Result<Output, Error> {
        let since = runtime::log_length(&self.bundle);
        let output = self
            .services
            .children
            .run(command, input)
            .await
            .map_err(|source| self.no_runtime(source))?;
        if output.exit.status == 0 {
            return Ok(output);
        }
        Err(self.failed(verb, since, &output.stderr))
    }

    /// Reads why the OCI runtime failed.
    #[must_use]
    pub fn failed(&self, verb: &'static str, since: u64, stderr: &[u8]) -> Error {
        Error::Runtime {
            verb,
            reason: runtime::failure(&self.bundle, since, stderr),
        }
    }

    /// The error for an OCI runtime that could not be run.
    #[must_use]
    pub fn no_runtime(&self, source: std::io::Error) -> Error {
        Error::NoRuntime {
            program: self.runtime.program.clone(),
            source,
        }
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        // The map is valid whatever happened while it was locked.
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, the end of the container's first process is not told.
#[derive(Debug)]
pub struct RunningExec(Arc<Container>);

impl Drop for RunningExec {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| running.execs -= 1);
    }
}
