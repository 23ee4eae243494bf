//! A private node: containerd 2.1 in a temporary folder, a signed image, a policy that enforces its signature.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assay::admission::{Request as Question, VERSION};
use containerd_client::services::v1::snapshots::{MountsRequest, snapshots_client::SnapshotsClient};
use containerd_client::services::v1::{
    CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest, StartRequest,
    WaitRequest, tasks_client::TasksClient,
};
use containerd_client::tonic::Request;
use containerd_client::tonic::transport::Channel;
use containerd_client::types::Mount;
use containerd_client::with_namespace;
use prost_types::Any;
use tempfile::TempDir;

/// The image that every container is started from.
pub const IMAGE: &str = "assay.test/busybox:latest";

/// An image with packages, for [`Node::import`].
pub const NGINX: &str = "assay.test/nginx:latest";
/// containerd's namespace.
pub const NAMESPACE: &str = "assay-bench";
const PATIENCE: Duration = Duration::from_secs(20);

/// The shims that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shim {
    /// containerd's own, written in Go.
    Stock,
    /// Assay's.
    Assay,
}

impl Shim {
    /// The name that containerd knows it by.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Stock => "io.containerd.runc.v2",
            Self::Assay => "io.containerd.assay.v1",
        }
    }

    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Stock => "containerd-shim-runc-v2",
            Self::Assay => "containerd-shim-assay-v1",
        }
    }
}

/// The node; dropping it ends its containerd and removes its folder.
#[derive(Debug)]
pub struct Node {
    folder: TempDir,
    containerd: Child,
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Node {
    /// Starts containerd and puts the policy in force.
    pub fn start() -> Self {
        let images = root().join("target/images");
        let folder = tempfile::Builder::new().prefix("assay-bench.").tempdir().unwrap();
        let dir = folder.path();
        for name in ["policy.d", "trust.d"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let place = dir.display();
        fs::write(
            dir.join("config.toml"),
            format!(
                "state = '{place}/assay'\nrun = '{place}/assay-run'\npolicy = '{place}/policy.d'\ntrust = '{place}/trust.d'\n"
            ),
        )
        .unwrap();
        fs::copy(images.join("signed/release.pub"), dir.join("trust.d/release.pub")).unwrap();
        fs::write(
            dir.join("trust.d/release.toml"),
            "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\"]\n",
        )
        .unwrap();
        fs::write(
            dir.join("containerd.toml"),
            format!(
                "version = 2\nroot = '{place}/containerd'\nstate = '{place}/containerd-state'\n\
                 disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', \
                 'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri', \
                 'io.containerd.podsandbox.controller.v1.podsandbox']\n\
                 [grpc]\naddress = '{place}/containerd.sock'\n\
                 [plugins.'io.containerd.internal.v1.opt']\npath = '{place}/opt'\n"
            ),
        )
        .unwrap();
        let log = File::create(dir.join("containerd.log")).unwrap();
        let containerd = Command::new(programs().join("containerd"))
            .arg("--config")
            .arg(dir.join("containerd.toml"))
            .env("PATH", path())
            .env("ASSAY_CONFIG", dir.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is not in target/tools: run `make setup`");
        let socket = dir.join("containerd.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let since = Instant::now();
        let channel = loop {
            match runtime.block_on(containerd_client::connect(&socket)) {
                Ok(channel) => break channel,
                Err(error) => assert!(since.elapsed() < PATIENCE, "containerd does not start: {error}"),
            }
            sleep(Duration::from_millis(50));
        };
        let node = Self {
            folder,
            containerd,
            runtime,
            channel,
        };
        node.apply_policy("bench", "");
        node.import("busybox");
        node
    }

    /// Brings an image of the tests, with its signature, to the node.
    pub fn import(&self, name: &str) {
        let images = root().join("target/images");
        self.ctr(["image", "import", images.join(format!("{name}.tar")).to_str().unwrap()]);
        self.assay(["evidence", "import", images.join("signed").join(name).to_str().unwrap()]);
    }

    /// Puts a policy in force that differs from any with another name, so that nothing decided before counts; `tables` are
    /// further ones of its rule.
    pub fn apply_policy(&self, rule: &str, tables: &str) {
        self.apply(&format!(
            "[[rule]]\nname = \"{rule}\"\nmatch = {{ image = [\"assay.test/**\"] }}\nmode = \"enforce\"\n\n\
             [[rule.signature]]\nany = [{{ key = \"release\" }}]\n{tables}"
        ));
    }

    /// Puts this policy in force.
    pub fn apply(&self, policy: &str) {
        fs::write(self.folder.path().join("policy.d/bench.toml"), policy).unwrap();
        self.assay(["policy", "apply"]);
    }

    /// The folder that holds all of the node.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `ctr`, which must succeed, and returns what it wrote.
    pub fn ctr<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
        succeed(
            Command::new(programs().join("ctr"))
                .arg("--address")
                .arg(self.folder.path().join("containerd.sock"))
                .args(["--namespace", NAMESPACE])
                .args(arguments),
        )
        .stdout
    }

    /// Runs `assay`, which must succeed.
    pub fn assay<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) {
        succeed(self.command().args(arguments));
    }

    /// `assay`, with the environment that the shim gives it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command
            .env_clear()
            .env("ASSAY_CONFIG", self.folder.path().join("config.toml"));
        command
    }

    /// Starts a container that does nothing for as long as the benchmark lasts.
    pub fn start_idle(&self, shim: Shim, id: &str) {
        self.ctr([
            "run",
            "--detach",
            "--runtime",
            shim.runtime(),
            IMAGE,
            id,
            "/bin/sleep",
            "2147483647",
        ]);
    }

    /// Kills and removes a container, whether or not it was started.
    pub fn remove(&self, id: &str) {
        self.ctr(["task", "delete", "--force", id]);
        self.ctr(["container", "delete", id]);
    }

    /// The mounts of a container's snapshot, as a client passes them on.
    pub fn mounts(&self, id: &str) -> Vec<Mount> {
        let request = MountsRequest {
            snapshotter: "overlayfs".to_owned(),
            key: id.to_owned(),
        };
        let mut client = SnapshotsClient::new(self.channel.clone());
        self.runtime
            .block_on(client.mounts(with_namespace!(request, NAMESPACE)))
            .unwrap()
            .into_inner()
            .mounts
    }

    /// Creates a container and words the question that its shim would put to `assay admit`.
    pub fn request(&self, id: &str) -> Vec<u8> {
        self.ctr([
            "container",
            "create",
            "--runtime",
            Shim::Assay.runtime(),
            IMAGE,
            id,
            "/bin/true",
        ]);
        let bundle = self.folder.path().join(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let spec = self.ctr(["container", "info", "--spec", id]);
        fs::write(bundle.join("config.json"), spec).unwrap();
        let rootfs = self.mounts(id).into_iter().map(|mount| assay::admission::Mount {
            r#type: mount.r#type,
            source: mount.source,
            target: mount.target,
            options: mount.options,
        });
        let question = Question {
            version: VERSION,
            containerd: self.folder.path().join("containerd.sock").display().to_string(),
            namespace: NAMESPACE.to_owned(),
            container: id.to_owned(),
            bundle: bundle.display().to_string(),
            rootfs: rootfs.collect(),
            checkpoint: false,
            runtime: "runc".to_owned(),
        };
        serde_json::to_vec(&question).unwrap()
    }

    /// `assay admit`.
    pub fn admit(&self) -> Command {
        let mut command = self.command();
        command.arg("admit");
        command
    }

    /// Creates the task of a container and tells how long the call took.
    pub fn create_task(&self, id: &str, rootfs: Vec<Mount>) -> Duration {
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            ..Default::default()
        };
        let mut client = TasksClient::new(self.channel.clone());
        let since = Instant::now();
        self.runtime
            .block_on(client.create(with_namespace!(request, NAMESPACE)))
            .unwrap();
        since.elapsed()
    }

    /// Ends and deletes a task that was created only.
    pub fn delete_task(&self, id: &str) {
        let kill = KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            all: true,
            ..Default::default()
        };
        let wait = WaitRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let delete = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        let mut client = TasksClient::new(self.channel.clone());
        self.runtime.block_on(async {
            client.kill(with_namespace!(kill, NAMESPACE)).await.unwrap();
            client.wait(with_namespace!(wait, NAMESPACE)).await.unwrap();
            client.delete(with_namespace!(delete, NAMESPACE)).await.unwrap();
        });
    }

    /// Runs `/bin/true` in a running container, from the exec call to its deletion.
    pub fn exec(&self, id: &str, exec: &str) -> Duration {
        let process = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: br#"{"args":["/bin/true"],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]}"#.to_vec(),
        };
        let (container, exec) = (id.to_owned(), exec.to_owned());
        let add = ExecProcessRequest {
            container_id: container.clone(),
            exec_id: exec.clone(),
            spec: Some(process),
            ..Default::default()
        };
        let start = StartRequest {
            container_id: container.clone(),
            exec_id: exec.clone(),
        };
        let wait = WaitRequest {
            container_id: container.clone(),
            exec_id: exec.clone(),
        };
        let delete = DeleteProcessRequest {
            container_id: container,
            exec_id: exec,
        };
        let mut client = TasksClient::new(self.channel.clone());
        let since = Instant::now();
        self.runtime.block_on(async {
            client.exec(with_namespace!(add, NAMESPACE)).await.unwrap();
            client.start(with_namespace!(start, NAMESPACE)).await.unwrap();
            let waited = client.wait(with_namespace!(wait, NAMESPACE)).await.unwrap();
            assert_eq!(waited.into_inner().exit_status, 0);
            client.delete_process(with_namespace!(delete, NAMESPACE)).await.unwrap();
        });
        since.elapsed()
    }

    /// Process ids of this node's shims of one kind.
    pub fn shims(&self, shim: Shim) -> Vec<u32> {
        let socket = self.folder.path().join("containerd.sock");
        let (socket, program) = (socket.to_str().unwrap(), shim.program());
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                let mut words = line.split('\0');
                words.next().is_some_and(|first| first.ends_with(program)) && words.any(|word| word == socket)
            })
            .collect()
    }

    /// The decision log, one JSON document a line.
    pub fn decisions(&self) -> String {
        fs::read_to_string(self.folder.path().join("assay/decisions.jsonl")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let shims = [Shim::Stock, Shim::Assay].map(|shim| self.shims(shim)).concat();
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        for pid in shims {
            // Left only when a measurement failed: the workload is in the shim's care.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        // The OCI runtime removes a container's control groups, not the ones that it made above them.
        let above = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in above.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            let _ = fs::remove_dir(hierarchy.join(NAMESPACE));
        }
    }
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where containerd 2.1 and its stock shim are.
pub fn programs() -> PathBuf {
    root().join("target/tools/containerd-2.1/bin")
}

/// Where Assay's programs are, as built for this benchmark.
pub fn assay_programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap()
}

fn path() -> String {
    format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        assay_programs().display(),
        programs().display()
    )
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
