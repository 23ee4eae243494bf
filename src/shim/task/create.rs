//! `Create`: ask for admission, mount the root file system, let the OCI runtime set the container up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};

use super::Tasks;
use crate::admission::{Decision, FilesAudit, Mount, Request, VERSION, Verdict};
use crate::runtime::{self, Criu, Runtime};
use crate::seccomp;
use crate::shim::bundle::{self, Record, Spec};
use crate::shim::child::Child;
use crate::shim::complain::Complaints;
use crate::shim::container::Container;
use crate::shim::error::Error;
use crate::shim::gate::Gate;
use crate::shim::invocation::is_identifier;
use crate::shim::io::{Pending, Stdio};
use crate::shim::options::Options;
use crate::shim::process::Process;
use crate::shim::watch::{Watched, Watcher};
use crate::shim::{bar, config, edit, events, mount, program, unconfigured};
use crate::view::View;

impl Tasks {
    pub(super) async fn create(self: Arc<Self>, mut request: CreateTaskRequest) -> Result<CreateTaskResponse, Error> {
        if !is_identifier(&request.id) {
            return Err(Error::Invalid(format!("container id {:?}", request.id)));
        }
        let reservation = self.reserve(&request.id)?;
        let options = Options::decode(request.options.as_ref()).map_err(|error| Error::Invalid(error.to_string()))?;
        if request.checkpoint.is_empty() {
            // containerd does this itself, but 1.x only for runtimes that have one of its own names.
            request.checkpoint.clone_from(&options.criu_image_path);
        }
        let config = config(&options).map_err(|faults| Error::Precondition(unconfigured(&faults)))?;
        let bundle = PathBuf::from(&request.bundle);
        let spec = Spec::read(&bundle)?;
        let runtime = Runtime {
            program: program(&options, &config),
            root: Runtime::root_for(&options.root, &self.services.namespace),
            systemd_cgroup: options.systemd_cgroup || spec.systemd_cgroups_path(),
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        };
        let mounts: Vec<Mount> = request.rootfs.iter().map(mount::plain).collect();

        let decision = self
            .admit(&request, &mounts, &options, config.admit_timeout, &runtime.program)
            .await?;
        let listener = seccomp::listener(&config.run, &self.services.namespace, &request.id);
        let complains = edit::apply(&bundle, &decision.edits, &config.state, &listener)?;

        Record {
            runtime: runtime.clone(),
        }
        .write(&bundle)?;
        let checkpoint = (!request.checkpoint.is_empty()).then(|| Criu {
            image_path: PathBuf::from(&request.checkpoint),
            work_path: Some(&options.criu_work_path)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            parent_path: Some(&request.parent_checkpoint)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            ..Criu::default()
        });
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let bar = bar::path(&config.run, &self.services.namespace, &request.id);
        let gate = Gate::new(&decision, &mounts, bundle::rootfs(&bundle), config.state.clone(), bar);
        let container = Arc::new(Container::new(
            request.id.clone(),
            bundle,
            request.rootfs,
            checkpoint,
            options,
            runtime,
            spec,
            decision.edits,
            gate,
            Process::new(String::new(), stdio, Vec::new()),
            Arc::clone(&self.services),
        ));

        let rootfs = Mounted::new(&mounts, decision.view.as_ref(), bundle::rootfs(&container.bundle))?;
        if let (Some(_), Some(rule)) = (decision.view, decision.rule) {
            container.narrowed_by(rule);
        }
        if let Some(audit) = decision.files.and_then(|files| files.audit) {
            self.watch(&container, &audit).await;
        }
        if complains {
            // Without anybody who answers, its calls would fail.
            let complaints = Complaints::begin(&listener, &config.state, &self.services.namespace, &container.id);
            container.heard_by(complaints.map_err(|error| Error::Precondition(error.to_string()))?);
        }
        let announcing = container.init.announcing();
        // A container from a checkpoint begins to exist at `Start`.
        if container.checkpoint.is_none() {
            set_up(&container).await?;
        }
        rootfs.keep();
        reservation.fill(Arc::clone(&container));
        container
            .services
            .publisher
            .publish(events::CREATE, &created(&container));
        drop(announcing);
        Ok(CreateTaskResponse {
            pid: container.init.message_pid(),
            ..CreateTaskResponse::default()
        })
    }

    async fn admit(
        &self,
        request: &CreateTaskRequest,
        mounts: &[Mount],
        options: &Options,
        timeout: Duration,
        runtime: &str,
    ) -> Result<Decision, Error> {
        let question = Request {
            version: VERSION,
            containerd: self.admission.containerd.clone(),
            namespace: self.services.namespace.clone(),
            container: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: mounts.to_vec(),
            checkpoint: !request.checkpoint.is_empty(),
            runtime: runtime.to_owned(),
        };
        let decision = self
            .admission
            .ask(&self.services.children, &question, &options.config_path, timeout)
            .await;
        match decision.verdict {
            Verdict::Allow => {
                log::info!("{}", decision.line());
                Ok(decision)
            }
            Verdict::Refuse => Err(Error::Refused(Box::new(decision))),
        }
    }

    /// Has watched what a container uses, before there is anything that uses it. Audit takes nothing away: a container
    /// that cannot be watched runs all the same.
    async fn watch(&self, container: &Container, audit: &FilesAudit) {
        let watched = Watched {
            namespace: &self.services.namespace,
            container: &container.id,
            root: &bundle::rootfs(&container.bundle),
            runtime: &container.runtime.program,
            audit,
        };
        let config = &container.options.config_path;
        match Watcher::start(&self.services.children, &self.admission, config, watched).await {
            Ok(watcher) => container.watched_by(watcher),
            Err(error) => log::error!("what {} uses is not watched: {error}", container.id),
        }
    }
}

/// Lets the OCI runtime create the container.
async fn set_up(container: &Arc<Container>) -> Result<(), Error> {
    let pid_file = bundle::init_pid(&container.bundle);
    let started = run_detached(container, &container.init, "create", &pid_file, |console| {
        container
            .runtime
            .create(&container.id, &container.bundle, &pid_file, console)
    });
    match started.await {
        Ok(child) => {
            adopt(container, child);
            Ok(())
        }
        Err(error) => {
            // It may have got as far as a container that nobody would know of.
            let mut delete = container.runtime.delete(&container.id, Some(&container.bundle), true);
            if let Err(error) = container.services.children.run(&mut delete, b"").await {
                log::warn!("{} may be left in the OCI runtime: {error}", container.id);
            }
            Err(error)
        }
    }
}

/// Lets the OCI runtime restore the container from its checkpoint.
pub(super) async fn restore(container: &Arc<Container>) -> Result<(), Error> {
    let Some(criu) = &container.checkpoint else {
        return Ok(());
    };
    let pid_file = bundle::init_pid(&container.bundle);
    let started = run_detached(container, &container.init, "restore", &pid_file, |console| {
        container
            .runtime
            .restore(&container.id, &container.bundle, &pid_file, console, criu)
    });
    let child = started.await.map_err(super::checkpoint::criu_missing)?;
    adopt(container, child);
    Ok(())
}

fn adopt(container: &Arc<Container>, child: Child) {
    container.enter_cgroup(child.pid());
    container.await_init(child);
}

/// Runs an OCI runtime command that starts a process and comes back, with the process's streams, and gives back the
/// process.
pub(super) async fn run_detached(
    container: &Container,
    process: &Process,
    verb: &'static str,
    pid_file: &Path,
    command: impl FnOnce(Option<&Path>) -> Command,
) -> Result<Child, Error> {
    let services = &container.services;
    let options = &container.options;
    let id = if process.exec_id.is_empty() {
        &container.id
    } else {
        &process.exec_id
    };
    let mut io = Pending::prepare(id, &services.namespace, &process.stdio, options.io_uid, options.io_gid).await?;
    let mut command = command(io.console_socket());
    let [stdin, stdout, stderr] = io.runtime_stdio()?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);

    let since = runtime::log_length(&container.bundle);
    let held = services.children.hold();
    let (mut runner, _) = services
        .children
        .spawn(&mut command)
        .map_err(|source| container.no_runtime(source))?;
    // It holds copies of the streams, whose ends would never be seen.
    drop(command);
    if runner.wait().await.status != 0 {
        return Err(container.failed(verb, since, b""));
    }
    let pid = bundle::read_pid(pid_file)?;
    let child = services
        .children
        .watch(pid)
        .map_err(Error::system("watching the new process"))?;
    drop(held);
    let handle = child.handle().map_err(Error::system("watching the new process"))?;
    match io.start().await {
        Ok(io) => {
            process.started(pid, handle, io);
            Ok(child)
        }
        Err(error) => {
            // Nobody would know of it. One that has ended already is as good.
            let _ = handle.signal(libc::SIGKILL.cast_unsigned());
            Err(error.into())
        }
    }
}

fn created(container: &Container) -> TaskCreate {
    let stdio = &container.init.stdio;
    let mut event = TaskCreate {
        container_id: container.id.clone(),
        bundle: container.bundle.display().to_string(),
        io: Some(TaskIO {
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..TaskIO::default()
        })
        .into(),
        checkpoint: container
            .checkpoint
            .as_ref()
            .map_or_else(String::new, |criu| criu.image_path.display().to_string()),
        pid: container.init.message_pid(),
        ..TaskCreate::default()
    };
    // The mounts of an event are a type of their own, which the crate does not name.
    event.rootfs.resize_with(container.rootfs.len(), Default::default);
    for (to, from) in event.rootfs.iter_mut().zip(&container.rootfs) {
        to.type_.clone_from(&from.type_);
        to.source.clone_from(&from.source);
        to.target.clone_from(&from.target);
        to.options.clone_from(&from.options);
    }
    event
}

/// The mounts of a root file system, taken away again unless the container comes to be.
struct Mounted(Option<PathBuf>);

impl Mounted {
    fn new(mounts: &[Mount], view: Option<&View>, rootfs: PathBuf) -> Result<Self, Error> {
        if mounts.is_empty() {
            return Ok(Self(None));
        }
        mount::mount_all(mounts, view, &rootfs)?;
        Ok(Self(Some(rootfs)))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(rootfs) = &self.0
            && let Err(error) = mount::unmount_recursive(rootfs)
        {
            log::error!("{} stays mounted: {error}", rootfs.display());
        }
    }
}
