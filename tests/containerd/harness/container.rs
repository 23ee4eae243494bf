//! Containers made through containerd's API, the way its own client makes them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::{Container as Record, CreateTaskRequest, DeleteResponse, ExecProcessRequest};
use containerd_client::tonic::{Code, Status};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status as State};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::Options;
use prost_types::Any;
use serde_json::{Value, json};

use super::client::{Client, SNAPSHOTTER};
use super::daemon::{BUSYBOX, Daemon};
use super::eventually;
use super::image::Image;
use super::stdio::Stdio;

pub const KILL: u32 = 9;
pub const TERM: u32 = 15;

/// Where the standard streams of a process go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Streams {
    Pipes,
    Uri(String),
    Nowhere,
}

/// A container that is still being described.
#[derive(Debug)]
pub struct ContainerBuilder<'a> {
    daemon: &'a Daemon,
    namespace: String,
    id: String,
    image: String,
    runtime: String,
    options: Option<Any>,
    streams: Streams,
    spec: Value,
    parent: String,
    mounts: MountsEdit,
}

/// What a liar changes in the mounts of a snapshot before handing them over.
type MountsEdit = fn(&mut Vec<Mount>);

impl<'a> ContainerBuilder<'a> {
    pub fn new(daemon: &'a Daemon, id: &str, arguments: &[&str]) -> Self {
        Self {
            namespace: daemon.scope.clone(),
            id: id.to_owned(),
            image: BUSYBOX.name.clone(),
            runtime: super::runtime(),
            options: None,
            streams: Streams::Pipes,
            spec: spec(&format!("/{}/{id}", daemon.scope), arguments),
            parent: BUSYBOX.chain_id.to_string(),
            mounts: |_| {},
            daemon,
        }
    }

    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    pub fn image(mut self, image: &Image) -> Self {
        self.image.clone_from(&image.name);
        self.parent = image.chain_id.to_string();
        self
    }

    /// What the record says the image is; the snapshot stays what it was.
    pub fn image_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.image);
        self
    }

    /// Makes the snapshot a child of this one; of none, if it is empty.
    pub fn snapshot_parent(mut self, parent: &str) -> Self {
        parent.clone_into(&mut self.parent);
        self
    }

    pub fn edit_mounts(mut self, change: MountsEdit) -> Self {
        self.mounts = change;
        self
    }

    pub fn runtime(mut self, runtime: &str) -> Self {
        runtime.clone_into(&mut self.runtime);
        self
    }

    pub fn terminal(self) -> Self {
        self.edit(|spec| spec["process"]["terminal"] = true.into())
    }

    /// Sends the output to a `binary://` or `file://` address.
    pub fn log_to(mut self, uri: &str) -> Self {
        self.streams = Streams::Uri(uri.to_owned());
        self
    }

    pub fn without_streams(mut self) -> Self {
        self.streams = Streams::Nowhere;
        self
    }

    pub fn annotation(self, key: &str, value: &str) -> Self {
        self.edit(|spec| spec["annotations"][key] = value.into())
    }

    pub fn options(mut self, options: &Options) -> Self {
        self.options = Some(Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().unwrap(),
        });
        self
    }

    /// Options of another type than runc's.
    pub fn options_any(mut self, options: Any) -> Self {
        self.options = Some(options);
        self
    }

    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Makes snapshot, record and task. A refusal of the record is a fault of the test, one of the task is an answer.
    pub fn create(self) -> Result<Container, Status> {
        let client = self.daemon.client(&self.namespace);
        let terminal = self.spec["process"]["terminal"] == true;
        let stdio = match self.streams {
            Streams::Pipes => Some(Stdio::new(self.daemon.folder.join("io").join(&self.id), terminal)),
            Streams::Uri(_) | Streams::Nowhere => None,
        };
        let (stdin, stdout, stderr) = match (&self.streams, &stdio) {
            (_, Some(stdio)) => (stdio.stdin_path(), stdio.stdout_path(), stdio.stderr_path()),
            (Streams::Uri(uri), None) => (String::new(), uri.clone(), uri.clone()),
            _ => Default::default(),
        };
        let mut rootfs = client.prepare_snapshot(&self.id, &self.parent).unwrap();
        (self.mounts)(&mut rootfs);
        client
            .create_record(Record {
                id: self.id.clone(),
                image: self.image.clone(),
                runtime: Some(Runtime {
                    name: self.runtime.clone(),
                    options: self.options,
                }),
                spec: Some(Any {
                    type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
                    value: serde_json::to_vec(&self.spec).unwrap(),
                }),
                snapshotter: SNAPSHOTTER.to_owned(),
                snapshot_key: self.id.clone(),
                ..Record::default()
            })
            .unwrap();
        let mut container = Container {
            bundle: self.daemon.bundle(&self.namespace, &self.id),
            client,
            id: self.id,
            pid: 0,
            stdio,
            io: self.daemon.folder.join("io"),
            socket: self.daemon.socket(),
        };
        container.pid = container.client.create_task(CreateTaskRequest {
            container_id: container.id.clone(),
            rootfs,
            stdin,
            stdout,
            stderr,
            terminal,
            ..CreateTaskRequest::default()
        })?;
        Ok(container)
    }

    /// Creates and starts.
    pub fn start(self) -> Container {
        let container = self.create().unwrap();
        container.start().unwrap();
        container
    }

    /// Creates, starts, waits and deletes.
    pub fn run(self) -> Outcome {
        self.start().finish()
    }
}

/// What a process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: u32,
    pub stdout: String,
    pub stderr: String,
}

/// A container with its task. Dropping it takes everything of it away.
#[derive(Debug)]
pub struct Container {
    pub client: Client,
    pub id: String,
    /// The first process.
    pub pid: u32,
    pub bundle: PathBuf,
    pub stdio: Option<Stdio>,
    io: PathBuf,
    socket: PathBuf,
}

impl Container {
    pub fn start(&self) -> Result<u32, Status> {
        self.client.start(&self.id, "")
    }

    pub fn state(&self) -> Result<Process, Status> {
        self.client.state(&self.id, "")
    }

    pub fn status(&self) -> State {
        self.state().unwrap().status()
    }

    pub fn kill(&self, signal: u32) -> Result<(), Status> {
        self.client.kill(&self.id, "", signal, false)
    }

    pub fn wait(&self) -> u32 {
        self.client.wait(&self.id, "").unwrap()
    }

    pub fn delete(&self) -> Result<DeleteResponse, Status> {
        self.client.delete_task(&self.id)
    }

    pub fn stdio(&mut self) -> &mut Stdio {
        self.stdio.as_mut().expect("a container without pipes")
    }

    /// A connection of its own, for another thread.
    pub fn another_client(&self) -> Client {
        Client::connect(&self.socket, self.client.namespace())
    }

    /// Connects again, to a containerd that was restarted.
    pub fn reconnect(&mut self) {
        self.client = self.another_client();
    }

    /// Creates the task of this container once more, on the snapshot that it has used.
    pub fn create_again(&mut self) -> Result<u32, Status> {
        let rootfs = self.client.snapshot_mounts(&self.id)?;
        self.client.create_task(CreateTaskRequest {
            container_id: self.id.clone(),
            rootfs,
            ..CreateTaskRequest::default()
        })
    }

    /// Waits for the end, deletes the task and collects the output.
    pub fn finish(mut self) -> Outcome {
        let status = self.wait();
        let deleted = self.delete().unwrap();
        assert_eq!(deleted.exit_status, status, "Wait and Delete disagree");
        let (stdout, stderr) = self.stdio.as_mut().map(Stdio::finish).unwrap_or_default();
        Outcome { status, stdout, stderr }
    }

    /// Adds a process; it is not started yet.
    pub fn exec(&self, id: &str, arguments: &[&str]) -> Result<Exec<'_>, Status> {
        self.exec_with(id, arguments, false)
    }

    pub fn exec_terminal(&self, id: &str, arguments: &[&str]) -> Result<Exec<'_>, Status> {
        self.exec_with(id, arguments, true)
    }

    fn exec_with(&self, id: &str, arguments: &[&str], terminal: bool) -> Result<Exec<'_>, Status> {
        let mut process = process(arguments);
        process["terminal"] = terminal.into();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::SeqCst);
        let stdio = Stdio::new(self.io.join(format!("{}-{id}-{number}", self.id)), terminal);
        self.client.exec(ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: id.to_owned(),
            stdin: stdio.stdin_path(),
            stdout: stdio.stdout_path(),
            stderr: stdio.stderr_path(),
            terminal,
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: serde_json::to_vec(&process).unwrap(),
            }),
        })?;
        Ok(Exec {
            container: self,
            id: id.to_owned(),
            stdio,
        })
    }

    /// Runs a shell script in the container and waits for it.
    pub fn run(&self, id: &str, script: &str) -> Outcome {
        let exec = self.exec(id, &["/bin/sh", "-c", script]).unwrap();
        exec.start().unwrap();
        exec.finish()
    }

    /// The shim: whoever adopted the first process.
    pub fn shim(&self) -> u32 {
        super::leftovers::parent(self.pid)
    }

    /// Address of the shim's socket, as containerd or the shim noted it in the bundle.
    pub fn shim_socket(&self) -> PathBuf {
        let address = fs::read_to_string(self.bundle.join("address")).unwrap_or_else(|_| {
            let bootstrap = fs::read(self.bundle.join("bootstrap.json")).unwrap();
            let bootstrap: Value = serde_json::from_slice(&bootstrap).unwrap();
            bootstrap["address"].as_str().unwrap().to_owned()
        });
        PathBuf::from(
            address
                .trim()
                .strip_prefix("unix://")
                .expect("an address of another kind"),
        )
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !matches!(self.client.delete_task(&self.id), Err(status) if status.code() == Code::NotFound) {
            eventually(&format!("the end of {}", self.id), || {
                // A paused container takes no signal.
                drop(self.client.resume(&self.id));
                drop(self.client.kill(&self.id, "", KILL, true));
                match self.client.delete_task(&self.id) {
                    Err(status) if status.code() == Code::NotFound => Ok(()),
                    Err(status) => Err(status.to_string()),
                    Ok(_) => Ok(()),
                }
            });
        }
        drop(self.client.delete_record(&self.id));
        drop(self.client.remove_snapshot(&self.id));
    }
}

/// A process that was added to a container.
#[derive(Debug)]
pub struct Exec<'a> {
    container: &'a Container,
    pub id: String,
    pub stdio: Stdio,
}

impl Exec<'_> {
    pub fn start(&self) -> Result<u32, Status> {
        self.container.client.start(&self.container.id, &self.id)
    }

    pub fn wait(&self) -> u32 {
        self.container.client.wait(&self.container.id, &self.id).unwrap()
    }

    pub fn state(&self) -> Result<Process, Status> {
        self.container.client.state(&self.container.id, &self.id)
    }

    pub fn kill(&self, signal: u32) -> Result<(), Status> {
        self.container.client.kill(&self.container.id, &self.id, signal, false)
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.container
            .client
            .resize(&self.container.id, &self.id, width, height)
            .unwrap();
    }

    /// Closes both ends of the input, so that the process sees it end.
    pub fn end_stdin(&mut self) {
        self.container.client.close_stdin(&self.container.id, &self.id).unwrap();
        self.stdio.close_stdin();
    }

    pub fn delete(&self) -> Result<DeleteResponse, Status> {
        self.container.client.delete_exec(&self.container.id, &self.id)
    }

    pub fn finish(mut self) -> Outcome {
        let status = self.wait();
        let deleted = self.delete().unwrap();
        assert_eq!(deleted.exit_status, status, "Wait and Delete disagree");
        let (stdout, stderr) = self.stdio.finish();
        Outcome { status, stdout, stderr }
    }
}

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn process(arguments: &[&str]) -> Value {
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": arguments,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        "noNewPrivileges": true,
    })
}

/// What containerd's client makes when nothing is asked for.
fn spec(cgroup: &str, arguments: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": process(arguments),
        "root": { "path": "rootfs" },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        "annotations": {},
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}
