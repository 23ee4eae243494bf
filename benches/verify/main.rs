//! What verification costs: beside cosign, on the same image and in turn; the first decision about an image and those
//! after it; in a cache with ten thousand other images; and against ten thousand forged bundles.
// A benchmark that meets a surprise stops and shows it.
#![allow(clippy::unwrap_used)]

mod evidence;
#[path = "../shim/node.rs"]
#[allow(dead_code, reason = "the benchmark of the shim uses the rest")]
mod node;
#[path = "../../tests/pki/mod.rs"]
mod pki;
#[path = "../../tests/cosign/registry.rs"]
#[allow(dead_code, reason = "the test that compares verdicts uses the rest")]
mod registry;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assay::admission::{Decision, Verdict};
use evidence::{Bundles, FORGED, KEYLESS, OTHERS, SBOM, SIGN, rule};
use node::{IMAGE, NAMESPACE, Node};
use registry::{REPOSITORY, Registry};

/// Pairs of each measurement.
const PAIRS: usize = 40;
/// Runs before the first that counts.
const WARM_UP: usize = 3;
/// Runs against forged bundles.
const ATTACKS: usize = 10;

fn main() {
    let bundles = Bundles::new();
    let node = Node::start();
    bundles.trust(&node);
    beside_cosign(&node, &bundles);
    decisions(&node, &bundles);
    forged(&bundles);
}

/// The same image and the same evidence: in a registry on this machine for cosign, in the evidence cache for Assay.
fn beside_cosign(node: &Node, bundles: &Bundles) {
    let registry = Registry::start(node.folder());
    let tools = node::root().join("target/tools");
    let layout = format!("{}:latest", node::root().join("target/images/busybox").display());
    let copied = Command::new(tools.join("oras/bin/oras"))
        .args(["copy", "--from-oci-layout", "--to-plain-http", &layout])
        .arg(format!("{}/{REPOSITORY}:1", registry.address))
        .env("HOME", node.folder())
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let cosign = |words: &[&str]| {
        let mut command = Command::new(tools.join("cosign/bin/cosign"));
        command
            .args(words)
            .args(["--key", "trust.d/bench.pub", "--trusted-root", "trust.d/root.json"])
            .args(["--insecure-ignore-tlog=true", "--allow-http-registry"])
            .arg(format!("{}/{REPOSITORY}@{}", registry.address, bundles.index))
            .current_dir(node.folder())
            .env_clear()
            .env("HOME", node.folder());
        command
    };
    let address = node.folder().join("containerd.sock").display().to_string();
    let verify = || {
        let mut command = node.command();
        command.args(["verify", "--address", &address, "--namespace", NAMESPACE, IMAGE]);
        command
    };
    println!(
        "\n{:<36}{:>12}{:>12}{:>8}",
        "one key, one bundle", "cosign", "Assay", "ratio"
    );
    registry.attach(bundles.index, &[bundles.by_key(SIGN)]);
    node.apply(&rule("by a key", "[[rule.signature]]\nany = [{ key = \"bench\" }]"));
    compare("verify", || cosign(&["verify"]), verify);
    registry.attach(bundles.index, &[bundles.by_key(SBOM)]);
    let only = format!(
        "digest = [\"{}\"]\n[[rule.sbom]]\nany = [{{ key = \"bench\" }}]",
        bundles.index
    );
    node.apply(&rule("SBOM by a key", &only));
    compare(
        "verify-attestation",
        || cosign(&["verify-attestation", "--type", "spdxjson"]),
        verify,
    );
}

/// Runs two programs in turn, each first every other time.
fn compare(what: &str, cosign: impl Fn() -> Command, assay: impl Fn() -> Command) {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + PAIRS {
        let mut take = |is_ours: bool| {
            let mut command = if is_ours { assay() } else { cosign() };
            let since = Instant::now();
            let output = command.stdin(Stdio::null()).output().unwrap();
            let took = since.elapsed();
            assert!(output.status.success(), "{command:?}: {output:?}");
            if round >= WARM_UP {
                if is_ours { &mut ours } else { &mut theirs }.push(millis(took));
            }
        };
        take(round % 2 == 0);
        take(round % 2 == 1);
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!("{what:<36}{theirs:>9.1} ms{ours:>9.1} ms{:>8.1}", theirs / ours);
}

/// The whole program `assay admit`, as the shim starts it, for a rule that asks for a keyless signature and two keyless
/// attestations: alone, and in turn on a node whose evidence cache holds ten thousand other images.
fn decisions(small: &Node, bundles: &Bundles) {
    let large = Node::start();
    bundles.trust(&large);
    large.assay(["evidence", "import", bundles.others().to_str().unwrap()]);
    let nodes = [small, &large];
    let requests = nodes.map(|node| node.request("decided"));
    let mut first = [Vec::new(), Vec::new()];
    let mut repeated = [Vec::new(), Vec::new()];
    for round in 0..WARM_UP + PAIRS {
        for place in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let node = nodes[place];
            // A policy that was never in force, so that nothing is remembered.
            node.apply(&rule(&format!("round {round}"), KEYLESS));
            for expected in [false, true] {
                let (took, decision) = admit(node, &requests[place]);
                assert_eq!(
                    (decision.repeated, decision.evidence.len()),
                    (expected, 3),
                    "{decision:?}"
                );
                if round >= WARM_UP {
                    if expected {
                        &mut repeated[place]
                    } else {
                        &mut first[place]
                    }
                    .push(millis(took));
                }
            }
        }
    }
    println!(
        "\n{:<36}{:>12}{:>12}{:>8}",
        "signature and two attestations",
        "alone",
        format!("{OTHERS} more"),
        "ratio"
    );
    for (what, [alone, among]) in [("first decision", first), ("repeated decision", repeated)] {
        let (alone, among) = (median(alone), median(among));
        println!("{what:<36}{alone:>9.2} ms{among:>9.2} ms{:>8.2}", among / alone);
    }
}

fn admit(node: &Node, request: &[u8]) -> (Duration, Decision) {
    let since = Instant::now();
    let mut child = node
        .admit()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Dropped at once, which ends the input.
    child.stdin.take().unwrap().write_all(request).unwrap();
    let output = child.wait_with_output().unwrap();
    let took = since.elapsed();
    let decision: Decision = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
    (took, decision)
}

/// The whole program that judges an image with ten thousand bundles that are genuine as far as can be told without a
/// check of a signature, and one that is.
fn forged(bundles: &Bundles) {
    let test = bundles.forged();
    let (mut times, mut memory) = (Vec::new(), 0);
    for _ in 0..ATTACKS {
        let since = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(["policy", "test"]).arg(&test);
        command
            .env_clear()
            .env("ASSAY_CONFIG", test.with_file_name("config.toml"));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let (success, peak) = wait(child);
        times.push(millis(since.elapsed()));
        assert!(success, "the genuine signature is not found among the forged ones");
        memory = memory.max(peak);
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    println!(
        "\n{FORGED} forged bundles: {:.0} ms (median), {slowest:.0} ms (slowest), {} MB",
        median(times),
        memory / 1024
    );
}

/// Waits for a child; whether it succeeded, and the most memory that it ever had, in kB.
fn wait(child: Child) -> (bool, i64) {
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: all zeroes is a value of this structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types; the child is this process's own and waited for once.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid);
    (
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        usage.ru_maxrss,
    )
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
