//! What a verified start costs, beside the stock shim on the same machine, containerd, OCI runtime and image:
//! pairs in turn, medians, ratios. Verification is on: the image is signed and policy enforces it.
// A benchmark that meets a surprise stops and shows it.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the benchmark of verification uses the rest")]
mod node;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assay::admission::{Decision, Verdict};
use node::{IMAGE, NAMESPACE, NGINX, Node, Shim};

/// Pairs of each measurement of time.
const PAIRS: usize = 40;
/// Runs before the first that counts: page cache, memo, connections.
const WARM_UP: usize = 3;
/// Containers that sit idle while memory is read.
const IDLE: u32 = 50;
/// Decisions taken afresh, each under a policy of its own.
const FIRST: usize = 20;
/// Whole runs of `assay admit` about one container.
const REPEATED: usize = 200;
/// What all phases of a decision take.
const SUM: &str = "sum";
/// Programs of the image that only one container starts.
const PROGRAMS: [&str; 16] = [
    "/usr/bin/cat",
    "/usr/bin/cut",
    "/usr/bin/date",
    "/usr/bin/df",
    "/usr/bin/env",
    "/usr/bin/find",
    "/usr/bin/grep",
    "/usr/bin/gzip",
    "/usr/bin/ls",
    "/usr/bin/mv",
    "/usr/bin/sed",
    "/usr/bin/sort",
    "/usr/bin/stat",
    "/usr/bin/tar",
    "/usr/bin/wc",
    "/usr/bin/xargs",
];

fn main() {
    let node = Node::start();
    println!(
        "{}, {}, {PAIRS} interleaved pairs, medians, signature verification enforced",
        first_line(Command::new(node::programs().join("containerd")).arg("--version")),
        first_line(Command::new("runc").arg("--version")),
    );

    println!("\n{:<28}{:>12}{:>12}{:>8}", "", "stock shim", "Assay", "ratio");
    time("ctr run --rm /bin/true", |shim, id| {
        let since = Instant::now();
        node.ctr(["run", "--rm", "--runtime", shim.runtime(), IMAGE, id, "/bin/true"]);
        since.elapsed()
    });
    time("create", |shim, id| {
        node.ctr([
            "container",
            "create",
            "--runtime",
            shim.runtime(),
            IMAGE,
            id,
            "/bin/true",
        ]);
        let took = node.create_task(id, node.mounts(id));
        node.delete_task(id);
        node.ctr(["container", "delete", id]);
        took
    });
    node.start_idle(Shim::Stock, "idle-stock");
    node.start_idle(Shim::Assay, "idle-assay");
    time("exec /bin/true", |shim, id| match shim {
        Shim::Stock => node.exec("idle-stock", id),
        Shim::Assay => node.exec("idle-assay", id),
    });
    node.remove("idle-stock");
    node.remove("idle-assay");

    let stock = memory(&node, Shim::Stock);
    let assay = memory(&node, Shim::Assay);
    compare("private memory per idle pod", stock.private, assay.private, "kB");
    compare("PSS per idle pod", stock.pss, assay.pss, "kB");
    compare(
        "shim program",
        size(&node::programs().join(Shim::Stock.program())),
        size(&node::assay_programs().join(Shim::Assay.program())),
        "kB",
    );

    admission(&node);
    whole_program(&node);
    minimized(&node);
}

/// Measures both shims in turn, each first every other time.
fn time(what: &str, mut measure: impl FnMut(Shim, &str) -> Duration) {
    let mut stock = Vec::new();
    let mut assay = Vec::new();
    for round in 0..WARM_UP + PAIRS {
        let order = if round % 2 == 0 {
            [Shim::Stock, Shim::Assay]
        } else {
            [Shim::Assay, Shim::Stock]
        };
        for shim in order {
            let name = what.split(' ').next().unwrap_or(what);
            let took = measure(shim, &format!("{name}-{}-{round}", shim.program()));
            if round >= WARM_UP {
                match shim {
                    Shim::Stock => stock.push(took.as_secs_f64() * 1e3),
                    Shim::Assay => assay.push(took.as_secs_f64() * 1e3),
                }
            }
        }
    }
    compare(what, median(stock), median(assay), "ms");
}

fn compare(what: &str, stock: f64, assay: f64, unit: &str) {
    println!("{what:<28}{stock:>9.1} {unit}{assay:>9.1} {unit}{:>8.2}", assay / stock);
}

#[derive(Debug)]
struct Memory {
    private: f64,
    pss: f64,
}

/// Memory per container of the shims alone, in kB; each container has a shim of its own.
fn memory(node: &Node, shim: Shim) -> Memory {
    let ids: Vec<String> = (0..IDLE)
        .map(|index| format!("idle-{}-{index}", shim.program()))
        .collect();
    for id in &ids {
        node.start_idle(shim, id);
    }
    let pids = node.shims(shim);
    assert_eq!(pids.len(), ids.len(), "one shim for each container");
    let mut private = 0.0;
    let mut pss = 0.0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        private += field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
        pss += field(&rollup, "Pss:");
    }
    for id in &ids {
        node.remove(id);
    }
    Memory {
        private: private / f64::from(IDLE),
        pss: pss / f64::from(IDLE),
    }
}

fn field(rollup: &str, name: &str) -> f64 {
    let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn size(program: &std::path::Path) -> f64 {
    fs::metadata(program).unwrap().len() as f64 / 1024.0
}

/// Where the time of a decision goes, taken afresh and repeated, from the decisions themselves.
fn admission(node: &Node) {
    for index in 0..FIRST {
        node.apply_policy(&format!("bench {index}"), "");
        for time in ["first", "repeated"] {
            let id = format!("admit-{time}-{index}");
            node.ctr([
                "run",
                "--rm",
                "--runtime",
                Shim::Assay.runtime(),
                IMAGE,
                &id,
                "/bin/true",
            ]);
        }
    }
    by_phase(node, "admit by phase", &["admit-first-", "admit-repeated-"]);
}

/// What an image costs whose containers get a view and a profile of their own: run beside the bare one with containerd's
/// default profile, and decided about once it was prepared, again, with other arguments, and with a program that nobody has
/// started yet.
fn minimized(node: &Node) {
    node.import("nginx");
    let enforce = "[rule.filesystem]\nmode = \"enforce\"\n[rule.seccomp]\nmode = \"enforce\"\n";
    node.apply_policy("minimized", enforce);
    println!(
        "\n{:<28}{:>12}{:>12}{:>8}",
        "files and calls enforced", "stock shim", "Assay", "ratio"
    );
    let run = |shim: Shim, id: &str, command: &[&str]| {
        let words = ["run", "--rm", "--seccomp", "--runtime", shim.runtime(), NGINX, id];
        node.ctr(words.iter().chain(command));
    };
    time("ctr run --rm nginx -v", |shim, id| {
        let since = Instant::now();
        run(shim, id, &["/usr/sbin/nginx", "-v"]);
        since.elapsed()
    });
    let socket = node.folder().join("containerd.sock").display().to_string();
    for (index, program) in PROGRAMS.iter().enumerate() {
        node.apply_policy(&format!("minimized {index}"), enforce);
        node.assay(["prepare", "--address", &socket, "--namespace", NAMESPACE, NGINX]);
        for time in ["prepared", "repeated"] {
            let id = format!("{time}-{index}");
            node.ctr([
                "run",
                "--detach",
                "--seccomp",
                "--runtime",
                Shim::Assay.runtime(),
                NGINX,
                &id,
            ]);
            node.remove(&id);
        }
        let prefix = format!("/srv/{index}");
        run(
            Shim::Assay,
            &format!("arguments-{index}"),
            &["/usr/sbin/nginx", "-v", "-p", &prefix],
        );
        run(Shim::Assay, &format!("program-{index}"), &[program, "--version"]);
    }
    let groups = ["prepared-", "repeated-", "arguments-", "program-"];
    by_phase(node, "files and calls, by phase", &groups);
}

/// Prints the medians of each phase of the decisions about the containers whose names begin alike.
fn by_phase(node: &Node, what: &str, groups: &[&str]) {
    let log = node.decisions();
    // Execs are other lines.
    let decisions: Vec<Decision> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let columns: Vec<_> = groups
        .iter()
        .map(|group| {
            let of_group = decisions
                .iter()
                .filter(|decision| decision.container.starts_with(group));
            phases(&of_group.collect::<Vec<_>>())
        })
        .collect();
    print!("\n{what:<28}");
    for group in groups {
        let name = group.trim_end_matches('-').trim_start_matches("admit-");
        print!("{name:>12}");
    }
    println!();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if name != SUM && !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names.into_iter().map(String::as_str).chain([SUM]) {
        print!("{name:<28}");
        for column in &columns {
            print!("{:>12}", cell(column, name));
        }
        println!();
    }
}

/// The whole program from its start to its end, started as the shim starts it, for a decision that is repeated; beside it,
/// in turn, a program that does nothing.
fn whole_program(node: &Node) {
    let request = node.request("whole");
    let mut admit = Vec::new();
    let mut nothing = Vec::new();
    for round in 0..WARM_UP + REPEATED {
        let (took, answer) = run(&mut node.admit(), &request);
        let decision: Decision = serde_json::from_slice(&answer).unwrap();
        assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
        let (floor, _) = run(Command::new("/bin/true").env_clear(), b"");
        if round >= WARM_UP {
            assert!(decision.repeated, "{decision:?}");
            admit.push(took.as_secs_f64() * 1e3);
            nothing.push(floor.as_secs_f64() * 1e3);
        }
    }
    println!("\n{:<28}{:>12}{:>12}", "whole program, repeated", "median", "fastest");
    for (what, samples) in [("assay admit", admit), ("/bin/true", nothing)] {
        let fastest = samples.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{what:<28}{:>9.2} ms{fastest:>9.2} ms", median(samples));
    }
}

/// Runs a program and tells how long it took and what it wrote.
fn run(command: &mut Command, input: &[u8]) -> (Duration, Vec<u8>) {
    let since = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Dropped at once, which ends the input.
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    (since.elapsed(), output.stdout)
}

/// Median of each phase in milliseconds, in the order in which they ran, and of their sum.
fn phases(decisions: &[&Decision]) -> Vec<(String, f64)> {
    assert!(!decisions.is_empty(), "no decision of this kind was logged");
    let mut order: Vec<String> = Vec::new();
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for decision in decisions {
        let total: u64 = decision.phases.iter().map(|(_, micros)| micros).sum();
        for (name, micros) in decision.phases.iter().chain([&(SUM.to_owned(), total)]) {
            if !order.contains(name) {
                order.push(name.clone());
            }
            samples.entry(name.clone()).or_default().push(*micros as f64 / 1e3);
        }
    }
    order
        .into_iter()
        .map(|name| (name.clone(), median(samples.remove(&name).unwrap())))
        .collect()
}

fn cell(phases: &[(String, f64)], name: &str) -> String {
    phases
        .iter()
        .find(|(phase, _)| phase == name)
        .map_or_else(|| "-".to_owned(), |(_, millis)| format!("{millis:.2} ms"))
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len() % 2 == 1 {
        samples[middle]
    } else {
        (samples[middle - 1] + samples[middle]) / 2.0
    }
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
