//! One container from its start to its graceful end, with its workload in between.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use containerd_client::services::v1::snapshots::{MountsRequest, snapshots_client::SnapshotsClient};
use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, StartRequest, WaitRequest, tasks_client::TasksClient,
};
use containerd_client::tonic::{Code, Request, Status};
use containerd_client::types::Mount;
use containerd_client::types::v1::Status as State;
use containerd_client::with_namespace;
use rustix::fs::{FileType, Mode};
use serde_json::Value;

use crate::definition::{Definition, Ready};
use crate::node::{Node, Runtime, succeed};
use crate::root;
use crate::surface::{self, Surface};
use crate::trace::Tracer;

/// From its start until it listens; the slowest initialise a database, under a tracer.
const UNTIL_READY: Duration = Duration::from_secs(90);
/// A workload.
const UNTIL_WORKED: Duration = Duration::from_secs(240);
/// From the signal to the end.
const UNTIL_STOPPED: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);

/// What was seen of one run.
#[derive(Debug)]
pub struct Ran {
    /// From the create call until it was ready.
    pub ready: Duration,
    /// The files that it saw.
    pub surface: Surface,
    /// The system calls that its profile allows, if it has one.
    pub allowed: Option<BTreeSet<String>>,
    /// What Assay says of its decision.
    pub told: Option<Told>,
}

/// What Assay says of a decision: nothing that is counted as hidden or allowed is taken from it.
#[derive(Debug)]
pub struct Told {
    /// How long it took, in milliseconds.
    pub decided: u64,
    /// How much of that was the analysis of system calls.
    pub analysed: u64,
    /// Calls that were derived from its files, those that only the OCI runtime makes, and those that only belong to one
    /// of both; nothing where they are not all known.
    pub calls: Option<[BTreeSet<String>; 3]>,
    /// What could not be followed, and which calls are not known.
    pub unknown: Vec<String>,
}

/// Runs a container of the image with its workload, traced into a file where one is given.
///
/// # Errors
/// The first thing that was not as it should be, with the end of the container's log.
pub fn run(node: &Node, definition: &Definition, runtime: Runtime, trace: Option<&Path>) -> Result<Ran, String> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let id = format!("{}-{}", definition.name, COUNTER.fetch_add(1, Ordering::SeqCst));
    let folder = node.folder.join(&id);
    let environment = prepare(node, definition, &id, &folder)?;
    let container = Container {
        node,
        id: &id,
        log: folder.join("log"),
        copiers: RefCell::default(),
    };
    let ran = container.all(definition, runtime, trace, &folder, &environment);
    container.remove();
    ran.map_err(|reason| format!("{reason}\n{}", last_lines(&container.log)))
}

/// What hooks, workloads and texts of the definition know about a run.
type Environment = HashMap<String, String>;

/// Makes the folder of a run: what is mounted, certificate, key, and what the definition's own `prepare` makes.
fn prepare(node: &Node, definition: &Definition, id: &str, folder: &Path) -> Result<Environment, String> {
    fs::create_dir(folder).unwrap();
    let mut environment = Environment::from([
        ("RUN".to_owned(), folder.display().to_string()),
        ("LOG".to_owned(), folder.join("log").display().to_string()),
        ("ID".to_owned(), id.to_owned()),
        ("CTR".to_owned(), node.ctr_words().join(" ")),
        ("NAMESERVER".to_owned(), node.nameserver.to_string()),
        ("DEFINITION".to_owned(), definition.folder().display().to_string()),
        ("BUILT".to_owned(), definition.kept().display().to_string()),
    ]);
    let free: Vec<_> = (0..4)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    for (name, listener) in ["PORT", "PORT2", "PORT3", "PORT4"].iter().zip(&free) {
        environment.insert((*name).to_owned(), listener.local_addr().unwrap().port().to_string());
    }
    drop(free);
    for name in ["tls.pem", "tls.key"] {
        fs::copy(node.folder.join(name), folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(
        folder.join("resolv.conf"),
        format!("nameserver {}\noptions timeout:2\n", node.nameserver),
    )
    .unwrap();
    fs::write(folder.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    let mounted = definition.folder().join("mount");
    if mounted.exists() {
        copy(&mounted, folder, &environment);
    }
    if definition.folder().join("prepare").exists() {
        succeed(
            Command::new("bash")
                .arg("-euo")
                .arg("pipefail")
                .arg(definition.folder().join("prepare"))
                .current_dir(folder)
                .envs(&environment),
        )?;
    }
    Ok(environment)
}

/// Copies a folder's content, with names in braces replaced.
fn copy(from: &Path, to: &Path, environment: &Environment) {
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&from, &to, environment);
            continue;
        }
        let text = fs::read_to_string(&from).unwrap();
        fs::write(&to, fill(&text, environment)).unwrap();
        fs::set_permissions(&to, fs::metadata(&from).unwrap().permissions()).unwrap();
    }
}

fn fill(text: &str, environment: &Environment) -> String {
    environment.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    })
}

struct Container<'a> {
    node: &'a Node,
    id: &'a str,
    log: PathBuf,
    /// What copies its output into the log.
    copiers: RefCell<Vec<Child>>,
}

impl Container<'_> {
    fn all(
        &self,
        definition: &Definition,
        runtime: Runtime,
        trace: Option<&Path>,
        folder: &Path,
        environment: &Environment,
    ) -> Result<Ran, String> {
        let run = &definition.run;
        if !run.init.is_empty() {
            let init = Container {
                node: self.node,
                id: &format!("{}-init", self.id),
                log: folder.join("init.log"),
                copiers: RefCell::default(),
            };
            init.create(definition, runtime, run.init.clone(), folder, environment)?;
            let ended = init.task().and_then(|_| {
                init.call(init.start())?;
                init.ended(UNTIL_READY)
            });
            init.remove();
            match ended {
                Ok(0) => {}
                Ok(status) => return Err(format!("the init container ends with {status}")),
                Err(reason) => return Err(format!("the init container: {reason}")),
            }
        }
        // As the arguments of a pod: the image's entry point stays.
        let arguments = if run.arguments.is_empty() {
            Vec::new()
        } else {
            [definition.entrypoint(), run.arguments.clone()].concat()
        };
        self.create(definition, runtime, arguments, folder, environment)?;
        let since = Instant::now();
        let process = self.task()?;
        let created = since.elapsed();
        let told = (runtime == Runtime::Assay).then(|| self.decided()).transpose()?;
        let surface = surface::of(&PathBuf::from(format!("/proc/{process}/root")))?;
        let allowed = self.allowed();
        if let (Runtime::Assay, Some(allowed)) = (runtime, &allowed) {
            self.node.explained(self.id, allowed)?;
        }
        let tracer = trace.map(|file| Tracer::attach(process, file)).transpose()?;
        let since = Instant::now();
        self.call(self.start())?;
        match run.ready {
            Ready::Listens => self.listening(environment["PORT"].parse().unwrap())?,
            Ready::Ended => {
                let status = self.ended(UNTIL_WORKED)?;
                if status != run.exit {
                    return Err(format!("it ends with {status}, not with {}", run.exit));
                }
            }
        }
        let ready = created + since.elapsed();
        self.work(definition, folder, environment)?;
        if run.ready == Ready::Listens {
            if self.state()? != State::Running {
                return Err("it has ended by itself".to_owned());
            }
            let signal = definition.stop_signal();
            self.node.ctr(["task", "kill", "--signal", signal, self.id])?;
            let status = self
                .ended(UNTIL_STOPPED)
                .map_err(|reason| format!("it was asked to stop with {signal}: {reason}"))?;
            if status != run.exit {
                return Err(format!(
                    "it was stopped with {signal} and ends with {status}, not with {}",
                    run.exit
                ));
            }
        }
        if let Some(tracer) = tracer {
            tracer.finish()?;
        }
        Ok(Ran {
            ready,
            surface,
            allowed,
            told,
        })
    }

    /// The record of the container, and its snapshot.
    fn create(
        &self,
        definition: &Definition,
        runtime: Runtime,
        arguments: Vec<String>,
        folder: &Path,
        environment: &Environment,
    ) -> Result<(), String> {
        // The machine's network, but not its name server, which `--net-host` would bring along.
        let network = format!("network:/proc/{}/ns/net", std::process::id());
        let mut words: Vec<String> = [
            "container",
            "create",
            "--with-ns",
            &network,
            "--runtime",
            runtime.name(),
        ]
        .map(str::to_owned)
        .to_vec();
        for entry in &definition.run.env {
            words.extend(["--env".to_owned(), fill(entry, environment)]);
        }
        if definition.run.read_only {
            words.push("--read-only".to_owned());
        }
        let names = ["resolv.conf", "hosts"].map(|name| (format!("/etc/{name}"), name.to_owned()));
        let names = names.iter().map(|(destination, source)| (destination, source));
        for (destination, source) in definition.run.mounts.iter().chain(names) {
            let from = folder.join(source);
            let access = if source.ends_with('/') {
                if !from.exists() {
                    fs::create_dir(&from).unwrap();
                    fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();
                }
                "rw"
            } else {
                "ro"
            };
            words.extend([
                "--mount".to_owned(),
                format!(
                    "type=bind,src={},dst={destination},options=rbind:{access}",
                    from.display().to_string().trim_end_matches('/')
                ),
            ]);
        }
        words.extend([definition.image_name(), self.id.to_owned()]);
        words.extend(arguments.iter().map(|argument| fill(argument, environment)));
        self.node.ctr(words)
    }

    /// The task, not started yet; tells its process.
    fn task(&self) -> Result<u32, String> {
        let request = MountsRequest {
            snapshotter: "overlayfs".to_owned(),
            key: self.id.to_owned(),
        };
        let rootfs: Vec<Mount> = self.call(async {
            let mut client = SnapshotsClient::new(self.node.channel.clone());
            Ok(client
                .mounts(with_namespace!(request, self.node.scope))
                .await?
                .into_inner()
                .mounts)
        })?;
        let request = CreateTaskRequest {
            container_id: self.id.to_owned(),
            rootfs,
            stdout: self.pipe("stdout"),
            stderr: self.pipe("stderr"),
            ..Default::default()
        };
        self.call(async {
            let created = self.tasks().create(with_namespace!(request, self.node.scope)).await?;
            Ok(created.into_inner().pid)
        })
    }

    /// A named pipe whose content ends up in the log. Not a `file://` address: the stock shim opens that file once for
    /// both streams, and closes it as soon as the container closes one of them.
    fn pipe(&self, name: &str) -> String {
        let pipe = self.log.with_extension(name);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let copier = Command::new("sh")
            .args(["-c", "exec cat \"$0\" >>\"$1\""])
            .args([&pipe, &self.log])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.copiers.borrow_mut().push(copier);
        pipe.display().to_string()
    }

    async fn start(&self) -> Result<(), Status> {
        let request = StartRequest {
            container_id: self.id.to_owned(),
            ..Default::default()
        };
        self.tasks().start(with_namespace!(request, self.node.scope)).await?;
        Ok(())
    }

    fn state(&self) -> Result<State, String> {
        let request = GetRequest {
            container_id: self.id.to_owned(),
            ..Default::default()
        };
        self.call(async {
            let got = self.tasks().get(with_namespace!(request, self.node.scope)).await?;
            Ok(got.into_inner().process.unwrap_or_default().status())
        })
    }

    /// That Assay let it start on the word of the evidence, and not for some other reason.
    fn decided(&self) -> Result<Told, String> {
        let decision = self.node.decision(self.id).ok_or("the decision log does not know it")?;
        let evidence = decision["evidence"].as_array().map_or(0, Vec::len);
        if decision["verdict"] != "allow" || decision["rule"] != "corpus" || evidence < 2 {
            return Err(format!("not what the policy asks for: {decision}"));
        }
        let phases: Vec<(String, u64)> =
            serde_json::from_value(decision["phases"].clone()).map_err(|e| e.to_string())?;
        let spent = |wanted: fn(&str) -> bool| {
            let micros: u64 = phases
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(_, micros)| micros)
                .sum();
            micros.div_ceil(1000)
        };
        let is_derived = decision["syscalls"]["from"] == "files";
        Ok(Told {
            decided: spent(|_| true),
            analysed: spent(|name| name == "calls"),
            calls: is_derived.then(|| self.node.calls(self.id)).transpose()?,
            unknown: [&decision["files"]["unfollowed"], &decision["syscalls"]["unknown"]]
                .into_iter()
                .flat_map(|list| list.as_array().into_iter().flatten())
                .filter_map(|why| Some(why.as_str()?.to_owned()))
                .collect(),
        })
    }

    /// Waits for the end of its first process and tells the status.
    fn ended(&self, limit: Duration) -> Result<u32, String> {
        let request = WaitRequest {
            container_id: self.id.to_owned(),
            ..Default::default()
        };
        let waited = self.node.runtime.block_on(async {
            tokio::time::timeout(limit, self.tasks().wait(with_namespace!(request, self.node.scope))).await
        });
        match waited {
            Ok(Ok(answer)) => Ok(answer.into_inner().exit_status),
            Ok(Err(status)) => Err(worded(&status)),
            Err(_) => Err(format!("it does not end within {limit:?}")),
        }
    }

    /// Waits until somebody listens on the port.
    fn listening(&self, port: u16) -> Result<(), String> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let since = Instant::now();
        // A connection to oneself is nobody's answer: the kernel may choose the same port for the other end.
        let answers = || {
            TcpStream::connect_timeout(&address.into(), Duration::from_secs(1))
                .is_ok_and(|stream| stream.local_addr().ok() != Some(address.into()))
        };
        while !answers() {
            if self.state()? != State::Running {
                return Err("it ends before it listens".to_owned());
            }
            if since.elapsed() > UNTIL_READY {
                return Err(format!("nobody listens on port {port} after {UNTIL_READY:?}"));
            }
            sleep(GLANCE);
        }
        Ok(())
    }

    fn work(&self, definition: &Definition, folder: &Path, environment: &Environment) -> Result<(), String> {
        let said = folder.join("workload.log");
        let output = fs::File::create(&said).unwrap();
        let mut child = Command::new("bash")
            .arg(root().join("tests/corpus/workload.sh"))
            .arg(definition.folder().join("workload"))
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > UNTIL_WORKED {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "the workload takes longer than {UNTIL_WORKED:?}\n{}",
                    last_lines(&said)
                ));
            }
            sleep(GLANCE);
        };
        if status.success() {
            Ok(())
        } else {
            Err(last_lines(&said))
        }
    }

    /// Names that the profile in its bundle allows without condition on the arguments, or with one.
    fn allowed(&self) -> Option<BTreeSet<String>> {
        let bundle = self
            .node
            .folder
            .join("state/io.containerd.runtime.v2.task")
            .join(&self.node.scope)
            .join(self.id);
        let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
        let rules = spec["linux"]["seccomp"]["syscalls"].as_array()?;
        Some(
            rules
                .iter()
                .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
                .flat_map(|rule| rule["names"].as_array().into_iter().flatten())
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
        )
    }

    /// Ends and removes whatever there is of it.
    fn remove(&self) {
        let kill = KillRequest {
            container_id: self.id.to_owned(),
            signal: 9,
            all: true,
            ..Default::default()
        };
        let delete = DeleteTaskRequest {
            container_id: self.id.to_owned(),
        };
        let killed = self.call(async { self.tasks().kill(with_namespace!(kill, self.node.scope)).await });
        if killed.is_ok() {
            let _ = self.ended(UNTIL_STOPPED);
        }
        let _ = self.call(async { self.tasks().delete(with_namespace!(delete, self.node.scope)).await });
        let _ = self.node.ctr(["container", "delete", self.id]);
        for copier in self.copiers.borrow_mut().iter_mut() {
            // One whose pipe nobody has opened waits for ever.
            let since = Instant::now();
            while copier.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(1) {
                sleep(GLANCE);
            }
            let _ = copier.kill();
            let _ = copier.wait();
        }
    }

    fn tasks(&self) -> TasksClient<containerd_client::tonic::transport::Channel> {
        TasksClient::new(self.node.channel.clone())
    }

    fn call<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, String> {
        self.node.runtime.block_on(call).map_err(|status| worded(&status))
    }
}

fn worded(status: &Status) -> String {
    match status.code() {
        Code::Unknown => status.message().to_owned(),
        code => format!("{code:?}: {}", status.message()),
    }
}

/// The end of a log.
fn last_lines(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(25);
    lines[from..].join("\n")
}
