//! A private node: containerd 2.1 in a temporary folder, a name server, and a policy that enforces signature and SBOM.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, process};

use containerd_client::tonic::transport::Channel;
use serde_json::Value;

use crate::definition::Definition;
use crate::{root, target};

const PATIENCE: Duration = Duration::from_secs(30);

/// The shims that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// containerd's own, written in Go.
    Stock,
    /// Assay's.
    Assay,
}

impl Runtime {
    /// The name that containerd knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "io.containerd.runc.v2",
            Self::Assay => "io.containerd.assay.v1",
        }
    }
}

/// A table of a rule that takes something away from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Enforced {
    /// `[rule.filesystem]`
    Filesystem,
    /// `[rule.seccomp]`
    Seccomp,
}

/// The node. Dropping it takes everything away that it and its shims made.
#[derive(Debug)]
pub struct Node {
    /// Everything that it writes is below this folder, except what [`Node::scope`] names.
    pub folder: PathBuf,
    /// containerd namespace and name of the cgroup above all containers: unique on the machine.
    pub scope: String,
    /// Address of a name server that knows every name below corpus.test as 127.0.0.1.
    pub nameserver: Ipv4Addr,
    pub runtime: tokio::runtime::Runtime,
    pub channel: Channel,
    containerd: Child,
    names: Child,
    broom: Child,
}

impl Node {
    /// Starts containerd and the name server, and puts the policy in force.
    pub fn start(enforced: &[Enforced]) -> Self {
        let scope = format!("assay-corpus-{}", process::id());
        let folder = env::temp_dir().join(&scope);
        fs::create_dir(&folder).unwrap();
        let broom = Command::new("/bin/sh")
            .args(["-c", include_str!("../containerd/harness/sweep.sh")])
            .env("DIR", &folder)
            .env("SCOPE", &scope)
            // Ctrl-C must end this process only: that is when the broom begins its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        write_policy(&folder, enforced);
        make_certificate(&folder);
        let containerd = start_containerd(&folder);
        let [_, _, high, low] = process::id().to_be_bytes();
        let nameserver = Ipv4Addr::new(127, 83, high, low.clamp(1, 254));
        let names = start_names(&folder, nameserver);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let since = Instant::now();
        let channel = loop {
            match runtime.block_on(containerd_client::connect(folder.join("c.sock"))) {
                Ok(channel) => break channel,
                Err(error) => assert!(since.elapsed() < PATIENCE, "containerd does not start: {error}"),
            }
            sleep(Duration::from_millis(50));
        };
        Self {
            folder,
            scope,
            nameserver,
            runtime,
            channel,
            containerd,
            names,
            broom,
        }
    }

    /// `ctr` and its options, as words.
    pub fn ctr_words(&self) -> Vec<String> {
        vec![
            programs().join("ctr").display().to_string(),
            "--address".to_owned(),
            self.folder.join("c.sock").display().to_string(),
            "--namespace".to_owned(),
            self.scope.clone(),
        ]
    }

    /// Runs `ctr`.
    ///
    /// # Errors
    /// What it wrote when it failed.
    pub fn ctr<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<(), String> {
        let words = self.ctr_words();
        succeed(Command::new(&words[0]).args(&words[1..]).args(arguments))
    }

    /// Gives containerd the image, and Assay its evidence.
    ///
    /// # Errors
    /// What `ctr` or `assay` said.
    pub fn import(&self, definition: &Definition) -> Result<(), String> {
        let layout = definition.kept().join("layout");
        let archive = self.folder.join("image.tar");
        write_archive(&layout, &definition.image_name(), &archive);
        self.ctr(["images", "import", "--local", archive.to_str().unwrap()])?;
        fs::remove_file(archive).unwrap();
        succeed(&mut assay(
            &self.folder,
            ["evidence", "import", layout.to_str().unwrap()],
        ))
    }

    /// The calls of a container by where `assay seccomp show` says that they come from: its files, the OCI runtime, and
    /// those that only belong to one of both.
    ///
    /// # Errors
    /// What `assay` said.
    pub fn calls(&self, container: &str) -> Result<[BTreeSet<String>; 3], String> {
        let socket = self.folder.join("c.sock");
        let words = [
            "seccomp",
            "show",
            "--namespace",
            &self.scope,
            "--output",
            "json",
            "--address",
        ];
        let output = assay(&self.folder, words).arg(socket).arg(container).output().unwrap();
        let shown: Value =
            serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let because = |what: &str| {
            let all = shown["allowed"].as_object().into_iter().flatten();
            all.filter(|(_, reason)| reason["because"] == what)
                .map(|(name, _)| name.clone())
                .collect()
        };
        Ok([because("files"), because("runtime"), because("sibling")])
    }

    /// Checks that `assay seccomp explain` says of every call of this machine why a container can make it, or why not, as
    /// its profile has it: a way through its files or a fact, or another reason.
    ///
    /// # Errors
    /// The first call for which it does not.
    pub fn explained(&self, container: &str, allowed: &BTreeSet<String>) -> Result<(), String> {
        let socket = self.folder.join("c.sock");
        let words = [
            "seccomp",
            "explain",
            "--namespace",
            &self.scope,
            "--output",
            "json",
            "--address",
        ];
        let machine = assay::syscalls::Machine::native();
        let names: Vec<&str> = assay::syscalls::all(machine).map(|(_, name)| name).collect();
        let output = assay(&self.folder, words)
            .arg(socket)
            .arg(container)
            .args(&names)
            .output()
            .unwrap();
        let explained: Value =
            serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let calls = explained["calls"].as_array().cloned().unwrap_or_default();
        for name in names {
            let call = calls.iter().find(|call| call["call"] == name);
            let call = call.ok_or_else(|| format!("{name} is not explained"))?;
            let sentence = call["sentence"].as_str().unwrap_or_default();
            let is_allowed = call["allowed"] == true;
            let has_way = call["path"].as_array().is_some_and(|path| !path.is_empty()) && call["site"].is_u64();
            let is_known = call["fact"].is_string();
            if is_allowed != allowed.contains(name)
                || sentence.starts_with("not allowed") == is_allowed
                || call["reason"]["because"] == "files" && !has_way && !is_known
            {
                return Err(format!("{name} is explained as what it is not: {call}"));
            }
        }
        Ok(())
    }

    /// The last decision about a container.
    pub fn decision(&self, container: &str) -> Option<Value> {
        let log = fs::read_to_string(self.folder.join("assay/state/decisions.jsonl")).ok()?;
        log.lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|decision| decision["container"] == container)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.names.kill();
        let _ = self.names.wait();
        drop(self.broom.stdin.take());
        let _ = self.broom.wait();
        let _ = self.containerd.wait();
    }
}

/// containerd, with a `PATH` that offers both shims.
fn start_containerd(folder: &Path) -> Child {
    let dir = folder.display();
    fs::write(
        folder.join("containerd.toml"),
        format!(
            "version = 3\nroot = '{dir}/root'\nstate = '{dir}/state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', \
             'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri', \
             'io.containerd.podsandbox.controller.v1.podsandbox']\n\
             [grpc]\naddress = '{dir}/c.sock'\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = '{dir}/opt'\n"
        ),
    )
    .unwrap();
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-assay-v1"));
    let path = format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        shim.parent().unwrap().display(),
        programs().display()
    );
    let log = File::create(folder.join("containerd.log")).unwrap();
    let child = Command::new(programs().join("containerd"))
        .arg("--config")
        .arg(folder.join("containerd.toml"))
        .env_clear()
        .env("PATH", path)
        .env("ASSAY_CONFIG", folder.join("assay/config.toml"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("containerd is not in target/tools: `make setup` puts it there");
    write!(File::create(folder.join("containerd.pid")).unwrap(), "{}", child.id()).unwrap();
    child
}

fn start_names(folder: &Path, address: Ipv4Addr) -> Child {
    let log = File::create(folder.join("names.log")).unwrap();
    Command::new("dnsmasq")
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ])
        .args(["--bind-interfaces", "--pid-file=", "--user=root", "--log-facility=-"])
        .arg(format!("--listen-address={address}"))
        .args(["--address=/corpus.test/127.0.0.1", "--local=/invalid/"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("dnsmasq does not start: `tests/setup/corpus` installs it")
}

/// A key, and a certificate that is its own authority, for every name that a workload uses.
fn make_certificate(folder: &Path) {
    succeed(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=corpus.test",
            ])
            .args([
                "-addext",
                "subjectAltName=DNS:localhost,DNS:corpus.test,DNS:*.corpus.test,IP:127.0.0.1",
            ])
            .args(["-keyout", "tls.key", "-out", "tls.pem"])
            .current_dir(folder),
    )
    .unwrap();
}

fn write_policy(folder: &Path, enforced: &[Enforced]) {
    let home = folder.join("assay");
    for name in ["policy.d", "trust.d"] {
        fs::create_dir_all(home.join(name)).unwrap();
    }
    let dir = home.display();
    fs::write(
        home.join("config.toml"),
        format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n"),
    )
    .unwrap();
    fs::copy(target().join("release.pub"), home.join("trust.d/release.pub")).unwrap();
    fs::write(
        home.join("trust.d/release.toml"),
        "[[key]]\nid = 'release'\nfile = 'release.pub'\nuse = ['image', 'sbom']\n",
    )
    .unwrap();
    let mut policy = "[[rule]]\nname = 'corpus'\nmatch = { image = ['assay.test/corpus/**'] }\nmode = 'enforce'\n\n\
                      [[rule.signature]]\nany = [{ key = 'release' }]\n\n\
                      [[rule.sbom]]\nany = [{ key = 'release' }]\n"
        .to_owned();
    for table in enforced {
        policy.push_str(match table {
            Enforced::Filesystem => "\n[rule.filesystem]\nmode = 'enforce'\n",
            Enforced::Seccomp => "\n[rule.seccomp]\nmode = 'enforce'\n",
        });
    }
    fs::write(home.join("policy.d/corpus.toml"), policy).unwrap();
    succeed(&mut assay(folder, ["policy", "apply"])).unwrap();
}

/// `assay` with the configuration below a node's folder.
fn assay<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command
        .args(arguments)
        .env("ASSAY_CONFIG", folder.join("assay/config.toml"));
    command
}

/// The image of a layout, and nothing else of it, as an archive for `ctr images import`.
fn write_archive(layout: &Path, name: &str, archive: &Path) {
    let read = |digest: &Value| {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        format!("blobs/sha256/{hex}")
    };
    let json = |path: &str| -> Value { serde_json::from_slice(&fs::read(layout.join(path)).unwrap()).unwrap() };
    let mut entry = json("index.json")["manifests"][0].clone();
    entry["annotations"] = serde_json::json!({ "io.containerd.image.name": name });
    let top = read(&entry["digest"]);
    let manifest = json(&top);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let mut tar = tar::Builder::new(File::create(archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(index.len() as u64);
    tar.append_data(&mut header, "index.json", index.as_bytes()).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let blobs = layers.map(|layer| read(&layer["digest"]));
    for path in ["oci-layout".to_owned(), top, read(&manifest["config"]["digest"])]
        .into_iter()
        .chain(blobs)
    {
        tar.append_path_with_name(layout.join(&path), &path).unwrap();
    }
    tar.finish().unwrap();
}

/// Where containerd 2.1 and its stock shim are.
fn programs() -> PathBuf {
    root().join("target/tools/containerd-2.1/bin")
}

/// Runs a command that must succeed.
///
/// # Errors
/// What it wrote.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} ends with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
