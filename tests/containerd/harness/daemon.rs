//! A private containerd: own configuration, state, sockets and cgroups.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::Duration;
use std::{env, fmt, process};

use assay::admission::Decision;
use assay::admission::again::Reevaluation;
use assay::admission::exec::ExecRecord;
use assay::grant::Record;
use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::events::Events;
use super::image::Image;
use super::{cri, policy, runtime};

/// A containerd release that the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    V1_6,
    V1_7,
    V2_1,
}

/// Where `make setup` unpacks what is not the system's.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

impl Version {
    pub fn programs(self) -> PathBuf {
        let tools = tools();
        match self {
            Self::V1_6 => tools.join("containerd-1.6/usr/bin"),
            Self::V1_7 => tools.join("containerd-1.7/usr/bin"),
            Self::V2_1 => tools.join("containerd-2.1/usr/bin"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_1 => "2.1",
        })
    }
}

/// A running containerd. Dropping it takes everything away that it and its shims made.
#[derive(Debug)]
pub struct Daemon {
    pub version: Version,
    /// Everything that it writes is below this folder, except what [`Daemon::scope`] names.
    pub folder: PathBuf,
    /// containerd namespace of the tests and name of the cgroup above all their containers: unique on the machine.
    pub scope: String,
    pub events: Events,
    containerd: Mutex<Child>,
    broom: Mutex<Child>,
}

/// The image that most containers of the tests run.
pub static BUSYBOX: LazyLock<Image> =
    LazyLock::new(|| Image::busybox("assay.test/plain/busybox:latest", "busybox", &["/bin/sh"]));

/// What pods are made of, where policy enforces its digest and shows it only the files that it needs.
pub static APPLICATION: LazyLock<Image> =
    LazyLock::new(|| Image::busybox("assay.test/applications/app:1", "application", &["/bin/sh"]));

/// A sandbox image that stays until it is killed.
pub static PAUSE: LazyLock<Image> =
    LazyLock::new(|| Image::busybox("assay.test/plain/pause:3.6", "pause", &["/bin/sleep", "2147483647"]));

/// A name of the image that the release key has signed. `make setup` builds and signs it, with cosign.
pub const SIGNED: &str = "assay.test/enforced/signed:latest";
/// The same, where policy wants another key.
pub const WANTED_BY_ANOTHER: &str = "assay.test/strangers/signed:latest";

/// The same, where policy narrows what the container gets.
pub const NARROWED: &str = "assay.test/narrowed/signed:latest";

/// The same, where the container sees only what it needs.
pub const MINIMIZED: &str = "assay.test/minimized/signed:latest";

/// The same, where the container makes only the system calls of its files.
pub const FILTERED: &str = "assay.test/filtered/signed:latest";

/// The same, where these must all be known.
pub const KNOWN: &str = "assay.test/known/signed:latest";
/// The same, where other calls are reported and succeed.
pub const COMPLAINING: &str = "assay.test/complaining/signed:latest";

/// An image of nginx on Debian, nearly five thousand files, of which what enforcing the file system would hide is watched.
pub const DEBIAN: &str = "assay.test/nginx:latest";

/// What [`DEBIAN`] is made of.
#[derive(Debug)]
pub struct Debian {
    /// Digest of the manifest.
    pub digest: String,
    /// Digest of its only layer, unpacked: the chain ID.
    pub layer: String,
}

/// Reads what `make setup` built.
pub fn debian() -> Debian {
    let folder = set_up("images/nginx");
    let read = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let blob = |digest: &str| {
        read(
            folder
                .join("blobs/sha256")
                .join(digest.strip_prefix("sha256:").unwrap()),
        )
    };
    let digest = text(&read(folder.join("index.json"))["manifests"][0]["digest"]);
    let config = blob(&text(&blob(&digest)["config"]["digest"]));
    Debian {
        digest,
        layer: text(&config["rootfs"]["diff_ids"][0]),
    }
}

/// The same, under a rule of mode audit that would enforce a view.
pub const REHEARSED: &str = "assay.test/rehearsed/signed:latest";

/// Nobody has signed this one.
pub static UNSIGNED: LazyLock<Image> =
    LazyLock::new(|| Image::busybox("assay.test/enforced/unsigned:latest", "unsigned", &["/bin/sh"]));

/// Its digest is on the deny list.
pub static DENIED: LazyLock<Image> =
    LazyLock::new(|| Image::busybox("assay.test/plain/denied:latest", "denied", &["/bin/sh"]));

/// Something that `make setup` puts below `target`.
pub fn set_up(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path);
    assert!(path.exists(), "{} is missing: `make setup` makes it", path.display());
    path
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    /// The containerd of this version that all tests of this process use together.
    pub fn shared(version: Version) -> &'static Self {
        static DAEMONS: LazyLock<HashMap<Version, OnceLock<Daemon>>> = LazyLock::new(|| {
            [Version::V1_6, Version::V1_7, Version::V2_1]
                .map(|version| (version, OnceLock::new()))
                .into()
        });
        DAEMONS[&version].get_or_init(|| Self::start(version))
    }

    /// A containerd for one test alone, which may do to it what it likes.
    pub fn start(version: Version) -> Self {
        let scope = format!("assay-e2e-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::SeqCst));
        let folder = env::temp_dir().join(&scope);
        fs::create_dir(&folder).unwrap();
        let mut broom = Command::new("/bin/sh");
        broom
            .args(["-c", include_str!("sweep.sh")])
            .env("DIR", &folder)
            .env("SCOPE", &scope);
        // Ctrl-C must end the test process only: that is when this one begins its work.
        broom
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let broom = broom.spawn().unwrap();

        fs::write(folder.join("containerd.toml"), configuration(version, &folder)).unwrap();
        policy::activate(&folder);

        let containerd = Mutex::new(spawn(version, &folder, &folder.join("containerd.toml")));
        answer(version, &folder);
        let daemon = Self {
            version,
            events: Events::record(folder.join("c.sock")),
            folder,
            scope,
            containerd,
            broom: Mutex::new(broom),
        };
        daemon.import(&BUSYBOX, &daemon.scope);
        daemon.import(&BUSYBOX, "k8s.io");
        daemon.import(&PAUSE, "k8s.io");
        daemon.import(&APPLICATION, "k8s.io");
        let by_digest = format!("assay.test/applications/app@{}", APPLICATION.manifest);
        daemon.tag("k8s.io", &APPLICATION.name, &by_digest);
        for namespace in [daemon.scope.as_str(), "k8s.io"] {
            daemon.import(&UNSIGNED, namespace);
            daemon.import(&DENIED, namespace);
            daemon.import_archive(&set_up("images/busybox.tar"), namespace);
            daemon.tag(namespace, "assay.test/busybox:latest", SIGNED);
            daemon.tag(namespace, "assay.test/busybox:latest", WANTED_BY_ANOTHER);
            daemon.tag(namespace, "assay.test/busybox:latest", NARROWED);
            for name in [MINIMIZED, REHEARSED, FILTERED, KNOWN, COMPLAINING] {
                daemon.tag(namespace, "assay.test/busybox:latest", name);
            }
        }
        cri::wait_for_image(&daemon.socket(), SIGNED);
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }

    pub fn client(&self, namespace: &str) -> Client {
        Client::connect(&self.socket(), namespace)
    }

    /// The program of the shim under test.
    pub fn shim_program(&self) -> PathBuf {
        match runtime().as_str() {
            super::ASSAY => PathBuf::from(env!("CARGO_BIN_EXE_containerd-shim-assay-v1")),
            super::STOCK => self.version.programs().join("containerd-shim-runc-v2"),
            other => panic!("no test knows the program of {other}"),
        }
    }

    /// The bundle of a task.
    pub fn bundle(&self, namespace: &str, id: &str) -> PathBuf {
        self.folder
            .join("state/io.containerd.runtime.v2.task")
            .join(namespace)
            .join(id)
    }

    /// Runs `ctr` in a namespace, with this containerd's own release of it.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> Output {
        Command::new(self.version.programs().join("ctr"))
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Imports and unpacks an image into a namespace.
    pub fn import(&self, image: &Image, namespace: &str) {
        let archive = self.folder.join(format!("{}-{namespace}.tar", image.manifest.hex()));
        fs::write(&archive, &image.archive).unwrap();
        self.import_archive(&archive, namespace);
        fs::remove_file(archive).unwrap();
        if namespace == "k8s.io" {
            cri::wait_for_image(&self.socket(), &image.name);
        }
    }

    /// Imports and unpacks [`DEBIAN`]: large, so only where a test needs it.
    pub fn import_debian(&self) {
        self.import_archive(&set_up("images/nginx.tar"), &self.scope);
    }

    fn import_archive(&self, archive: &Path, namespace: &str) {
        let imported = self.ctr(namespace, &["images", "import", archive.to_str().unwrap()]);
        assert!(
            imported.status.success(),
            "{}",
            String::from_utf8_lossy(&imported.stderr)
        );
    }

    /// Gives an image one more name.
    pub fn tag(&self, namespace: &str, image: &str, name: &str) {
        let tagged = self.ctr(namespace, &["images", "tag", image, name]);
        assert!(tagged.status.success(), "{}", String::from_utf8_lossy(&tagged.stderr));
    }

    /// Runs `assay` with the configuration of this containerd's shims.
    pub fn assay(&self, arguments: &[&str]) -> Output {
        policy::assay(&self.folder, arguments)
    }

    /// The state of its shims' admission.
    pub fn state(&self) -> PathBuf {
        self.folder.join("assay/state")
    }

    /// What was decided about a container, latest last.
    pub fn decisions(&self, container: &str) -> Vec<Decision> {
        let log = fs::read_to_string(self.state().join("decisions.jsonl")).unwrap_or_default();
        log.lines()
            .filter(|line| serde_json::from_str::<Reevaluation>(line).is_err())
            .filter(|line| serde_json::from_str::<ExecRecord>(line).is_err())
            .filter(|line| serde_json::from_str::<Record>(line).is_err())
            .map(|line| serde_json::from_str::<Decision>(line).expect("a line that is not a decision"))
            .filter(|decision| decision.container == container)
            .collect()
    }

    /// What became of further processes that were asked for in a container, latest last.
    pub fn execs(&self, container: &str) -> Vec<ExecRecord> {
        let log = fs::read_to_string(self.state().join("decisions.jsonl")).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str::<ExecRecord>(line).ok())
            .filter(|record| record.container == container)
            .collect()
    }

    /// What became of a container that was judged again, latest last.
    pub fn reevaluations(&self, container: &str) -> Vec<Reevaluation> {
        let log = fs::read_to_string(self.state().join("decisions.jsonl")).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Reevaluation>(line).ok())
            .filter(|record| record.container == container)
            .collect()
    }

    /// Kills containerd and does `meanwhile` before it starts again. Asked to end, it would wait for its clients.
    pub fn restart(&self, meanwhile: impl FnOnce()) {
        self.restart_with(&self.folder.join("containerd.toml"), meanwhile);
    }

    /// As [`Daemon::restart`], with another file of configuration.
    pub fn restart_with(&self, config: &Path, meanwhile: impl FnOnce()) {
        let mut containerd = self.containerd.lock().unwrap();
        kill_process(Pid::from_child(&containerd), Signal::KILL).unwrap();
        containerd.wait().unwrap();
        meanwhile();
        *containerd = spawn(self.version, &self.folder, config);
        answer(self.version, &self.folder);
        self.events.listening();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let broom = self.broom.get_mut().unwrap();
        drop(broom.stdin.take());
        broom.wait().unwrap();
        self.containerd.get_mut().unwrap().wait().unwrap();
    }
}

/// Starts containerd with a `PATH` that offers the shim under test, and this release's stock shim.
fn spawn(version: Version, folder: &Path, config: &Path) -> Child {
    let programs = version.programs();
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-assay-v1"));
    // Beside a containerd of today, a runc of today.
    let runc = (version == Version::V2_1).then(|| tools().join("runc-1.3/bin"));
    let path = env::join_paths(
        [shim.parent().unwrap(), &programs]
            .map(Path::to_path_buf)
            .into_iter()
            .chain(runc)
            .chain(env::split_paths(
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )),
    )
    .unwrap();
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_file(folder))
        .unwrap();
    let child = Command::new(programs.join("containerd"))
        .arg("--config")
        .arg(config)
        .env_clear()
        .env("PATH", path)
        .env("ASSAY_CONFIG", folder.join("assay/config.toml"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "containerd {version} does not start from {}: {error}; `make setup` installs it",
                programs.display()
            )
        });
    let mut pid = File::create(folder.join("containerd.pid")).unwrap();
    write!(pid, "{}", child.id()).unwrap();
    child
}

/// Where containerd writes its log: into a folder that stays, if `ASSAY_TEST_LOGS` names one.
fn log_file(folder: &Path) -> PathBuf {
    match env::var_os("ASSAY_TEST_LOGS") {
        Some(logs) => Path::new(&logs).join(folder.file_name().unwrap()).with_extension("log"),
        None => folder.join("containerd.log"),
    }
}

/// Waits until containerd and its CRI plugin answer.
fn answer(version: Version, folder: &Path) {
    super::eventually_within(Duration::from_secs(30), &format!("containerd {version}"), || {
        cri::ready(&folder.join("c.sock")).map_err(|error| {
            let log = fs::read_to_string(log_file(folder)).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            format!("{error}; the last lines of its log, latest first: {last:#?}")
        })
    });
}

/// Handlers that pods of the tests can select. The name of the default one is empty.
pub const STOCK_HANDLER: &str = "stock";
/// `runtime_type = "io.containerd.runc.v2"` with `runtime_path`.
pub const PATH_HANDLER: &str = "path";
/// Options as a TOML document, which is what containerd sends to runtimes that it does not know.
pub const TOML_HANDLER: &str = "toml";

fn configuration(version: Version, folder: &Path) -> String {
    let dir = folder.display();
    let runtime = runtime();
    let shim = env!("CARGO_BIN_EXE_containerd-shim-assay-v1");
    let pause = &PAUSE.name;
    let (schema, cri, images, plugins) = match version {
        Version::V1_6 | Version::V1_7 => (
            2,
            "io.containerd.grpc.v1.cri",
            format!("sandbox_image = '{pause}'"),
            format!("bin_dir = '{dir}/cni/bin'"),
        ),
        Version::V2_1 => (
            3,
            "io.containerd.cri.v1.runtime",
            String::new(),
            format!("bin_dirs = ['{dir}/cni/bin']"),
        ),
    };
    let mut text = format!(
        "version = {schema}
root = '{dir}/root'
state = '{dir}/state'
disabled_plugins = [
  'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing',
]
[grpc]
address = '{dir}/c.sock'
[debug]
level = 'debug'
[plugins.'io.containerd.internal.v1.opt']
path = '{dir}/opt'
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'{cri}']
{images}
# Without CAP_SYS_RESOURCE nothing may lower its score, which is what CRI asks for pause containers.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.'{cri}'.cni]
{plugins}
conf_dir = '{dir}/cni/net.d'
[plugins.'{cri}'.containerd]
default_runtime_name = 'default'
[plugins.'{cri}'.containerd.runtimes.default]
runtime_type = '{runtime}'
[plugins.'{cri}'.containerd.runtimes.{STOCK_HANDLER}]
runtime_type = 'io.containerd.runc.v2'
"
    );
    if version == Version::V2_1 {
        text.push_str(&format!(
            "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'\n"
        ));
    }
    if version != Version::V1_6 {
        text.push_str(&format!(
            "[plugins.'{cri}'.containerd.runtimes.{PATH_HANDLER}]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '{shim}'
[plugins.'{cri}'.containerd.runtimes.{TOML_HANDLER}]
runtime_type = 'io.containerd.assay.v1'
[plugins.'{cri}'.containerd.runtimes.{TOML_HANDLER}.options]
Root = '{dir}/toml-root'
"
        ));
    }
    text
}
