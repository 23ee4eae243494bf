//! The agent on a full node: 110 pods that run, the evidence of 5,000 images in the cache, 500 decisions a minute in the log.
//! Prints how much memory it has, and which part of a processor it takes: while nothing happens, and under this load.
#![allow(clippy::unwrap_used, reason = "a benchmark that meets a surprise stops and shows it")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the tests use the rest")]
#[path = "../../tests/containerd/harness/mod.rs"]
mod harness;
#[path = "../../tests/pki/mod.rs"]
mod pki;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use assay::admission::log;
use assay::digest::Digest;
use assay::store::StateDir;
use serde_json::{Value, json};

use harness::cri::Pod;
use harness::daemon::APPLICATION;
use harness::{Daemon, Version};
use pki::{Sigstore, Version as Format};

/// What a kubelet starts at most, unless it is told otherwise.
const PODS: usize = 110;
/// Images that there is evidence of.
const IMAGES: usize = 5000;
/// Decisions in a minute.
const DECISIONS: u32 = 500;
/// How long each figure is measured.
const TIME: Duration = Duration::from_secs(120);
/// How long the agent has to come to rest: it judges every container, and prepares every image.
const REST: Duration = Duration::from_secs(60);

fn main() {
    let daemon = Daemon::start(Version::V2_1);
    let folder = tempfile::tempdir().unwrap();
    fill(&daemon, folder.path());
    let pods: Vec<(Pod, String)> = thread::scope(|scope| {
        let start = |number: usize| {
            let daemon = &daemon;
            scope.spawn(move || {
                let pod = Pod::run(daemon, &format!("agent-{number}"), "").unwrap();
                let command = ["/bin/sleep", "2147483647"];
                let main = pod.create("main", &APPLICATION.name, &command).unwrap();
                pod.start(&main).unwrap();
                (pod, main)
            })
        };
        let threads: Vec<_> = (0..PODS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let build = if cfg!(debug_assertions) { "a debug" } else { "a release" };
    println!(
        "assay agent, {build} build: {PODS} pods of 2 containers, evidence of {IMAGES} images, each figure over {} s",
        TIME.as_secs()
    );
    println!("{:<28}{:>12}{:>12}{:>12}", "", "processor", "memory", "at most");
    let agent = Agent::start(&daemon);
    sleep(REST);
    agent.measure("nothing happens", || sleep(TIME));
    let decision = daemon.decisions(&pods[0].1).remove(0);
    let state = StateDir::open(&daemon.state()).unwrap();
    agent.measure(&format!("{DECISIONS} decisions a minute"), || {
        let begin = Instant::now();
        let mut number = 0;
        while begin.elapsed() < TIME {
            let mut another = decision.clone();
            another.container = format!("{number:064x}");
            another.time = jiff::Timestamp::now().to_string();
            log::record(&state, &another).unwrap();
            number += 1;
            sleep((Duration::from_secs(60) * number / DECISIONS).saturating_sub(begin.elapsed()));
        }
    });
    agent.measure("evidence of one more image", || {
        let more = tempfile::tempdir().unwrap();
        write(more.path(), IMAGES..=IMAGES);
        import(&daemon, more.path());
        sleep(TIME);
    });
}

/// Puts the evidence of as many images into the cache.
fn fill(daemon: &Daemon, layout: &Path) {
    write(layout, 0..=IMAGES - 1);
    import(daemon, layout);
}

fn import(daemon: &Daemon, layout: &Path) {
    let imported = daemon.assay(&["evidence", "import", layout.to_str().unwrap()]);
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
}

/// An image layout with a signature by a certificate for each image.
fn write(layout: &Path, images: std::ops::RangeInclusive<usize>) {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let keep = |kind: &str, bytes: &[u8]| -> Value {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest.to_string(), "size": bytes.len() })
    };
    let sigstore = Sigstore::new();
    let config = keep("application/vnd.oci.empty.v1+json", b"{}");
    let sign = |number: usize| {
        let image = Digest::of(format!("image {number}").as_bytes());
        let statement = pki::statement(&image.hex(), "https://sigstore.dev/cosign/sign/v1");
        let bundle = sigstore.keyless().statement(&statement).bundle(Format::V03).to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": config,
            "layers": [keep(BUNDLE, bundle.as_bytes())],
            "subject": { "mediaType": MANIFEST, "digest": image.to_string(), "size": 406 },
        });
        let mut listed = keep(MANIFEST, manifest.to_string().as_bytes());
        listed["artifactType"] = BUNDLE.into();
        listed
    };
    let manifests: Vec<Value> = images.map(sign).collect();
    fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// An agent that is ready, and ends with this.
struct Agent(Child);

impl Agent {
    fn start(daemon: &Daemon) -> Self {
        let socket = daemon.folder.join("notify.sock");
        let ready = UnixDatagram::bind(&socket).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(["agent", "--address"])
            .arg(daemon.socket())
            .env("ASSAY_CONFIG", daemon.folder.join("assay/config.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self(child);
        let mut message = [0; 1024];
        loop {
            let length = ready.recv(&mut message).unwrap();
            if message[..length].starts_with(b"READY=1") {
                // Nobody listens any more; that costs it nothing.
                return agent;
            }
        }
    }

    /// Does something, and says what the agent took meanwhile.
    fn measure(&self, what: &str, meanwhile: impl FnOnce()) {
        let (begin, spent) = (Instant::now(), self.spent());
        meanwhile();
        let share = (self.spent() - spent).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
        let memory = |name: &str| format!("{:.1} MB", self.status(name) * 1024.0 / 1e6);
        println!(
            "{what:<28}{:>12}{:>12}{:>12}",
            format!("{share:.2} %"),
            memory("VmRSS:"),
            memory("VmHWM:")
        );
    }

    /// The time of a processor that it and the processes that it waited for have taken.
    fn spent(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// A figure of its status, in KiB.
    fn status(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
