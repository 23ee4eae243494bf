//! A node's fill of pods at once, as after a reboot: 110 through CRI, and their end, twice with each shim. All are decided
//! on, enforced, with a view each, and nothing is left; a surprise ends it.
#![allow(clippy::unwrap_used, reason = "a benchmark that meets a surprise stops and shows it")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the tests use the rest")]
#[path = "../../tests/containerd/harness/mod.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use assay::admission::Verdict;
use k8s_cri::v1::ContainerState;

use harness::cri::Pod;
use harness::daemon::{APPLICATION, STOCK_HANDLER};
use harness::{Daemon, Version, eventually, leftovers};

/// What a kubelet starts at most, unless it is told otherwise.
const PODS: usize = 110;
/// The handler of Assay: the default one.
const ASSAY: &str = "";

fn main() {
    let daemon = Daemon::start(Version::V2_1);
    println!(
        "{PODS} pods at once through CRI, containerd {}, each twice",
        daemon.version
    );
    println!(
        "{:<12}{:>14}{:>14}{:>14}{:>14}",
        "", "all running", "median pod", "slowest pod", "all deleted"
    );
    for (round, handler) in [STOCK_HANDLER, ASSAY, ASSAY, STOCK_HANDLER].into_iter().enumerate() {
        let name = if handler == ASSAY { "Assay" } else { "stock shim" };
        fill(&daemon, handler, &format!("round{round}")).print(name);
    }
}

/// How long things took.
struct Times {
    all: Duration,
    each: Vec<Duration>,
    end: Duration,
}

impl Times {
    fn print(mut self, name: &str) {
        self.each.sort();
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        println!(
            "{name:<12}{:>14}{:>14}{:>14}{:>14}",
            seconds(self.all),
            seconds(self.each[PODS / 2]),
            seconds(self.each[PODS - 1]),
            seconds(self.end),
        );
    }
}

fn fill(daemon: &Daemon, handler: &str, prefix: &str) -> Times {
    let mounts = mounts(daemon);
    let since = Instant::now();
    let (pods, each): (Vec<(Pod, String)>, Vec<Duration>) = at_once((0..PODS).collect(), |number| {
        let since = Instant::now();
        let pod = Pod::run(daemon, &format!("{prefix}-{number}"), handler).unwrap();
        let main = pod
            .create("main", &APPLICATION.name, &["/bin/sleep", "2147483647"])
            .unwrap();
        pod.start(&main).unwrap();
        ((pod, main), since.elapsed())
    })
    .into_iter()
    .unzip();
    let all = since.elapsed();

    let mut sockets = Vec::new();
    for (pod, main) in &pods {
        assert_eq!(pod.status(main).state(), ContainerState::ContainerRunning);
        for id in [&pod.id, main] {
            let decisions = daemon.decisions(id);
            let verdicts: Vec<Verdict> = decisions.iter().map(|decision| decision.verdict).collect();
            let expected: &[Verdict] = if handler == ASSAY { &[Verdict::Allow] } else { &[] };
            assert_eq!(verdicts, expected, "{decisions:#?}");
        }
        sockets.extend(socket(daemon, &pod.id));
    }
    assert!(handler != ASSAY || sockets.len() == PODS);

    let since = Instant::now();
    at_once(pods, |(pod, _)| drop(pod));
    let end = since.elapsed();
    leftovers::assert_none(daemon, prefix);
    eventually("no socket to be left", || {
        let left: Vec<_> = sockets.iter().filter(|path| path.exists()).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    assert_eq!(self::mounts(daemon), mounts);
    Times { all, each, end }
}

/// How much is mounted below the folder that holds all of the node.
fn mounts(daemon: &Daemon) -> usize {
    let below = |mount: &String| Path::new(mount).starts_with(&daemon.folder);
    leftovers::mounts().iter().filter(|mount| below(mount)).count()
}

/// What becomes of each, a thread for each.
fn at_once<A: Send, B: Send>(all: Vec<A>, one: impl Fn(A) -> B + Sync) -> Vec<B> {
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = all.into_iter().map(|each| scope.spawn(move || one(each))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Where the shim of a pod listens, as Assay's notes it in its bundle.
fn socket(daemon: &Daemon, pod: &str) -> Option<PathBuf> {
    let address = fs::read_to_string(daemon.bundle("k8s.io", pod).join("address")).ok()?;
    Some(address.trim().strip_prefix("unix://")?.into())
}
