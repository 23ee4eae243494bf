//! How long the system calls of a program and its libraries take to derive, with nothing kept and with summaries kept.
//!
//! `cargo bench --bench syscalls [PROGRAM …]`; without a program of this machine, nginx and `true` of Debian, from the image
//! that the tests use. Prints medians of processor time on one core: other work on the machine does not count.

#![expect(clippy::unwrap_used, reason = "a benchmark fails where it stands")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use assay::syscalls::{Object, Role, Summary, close, summarise};

const ROUNDS: usize = 15;
const DIRECTORIES: [&str; 2] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];

fn main() {
    let programs: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    for program in &programs {
        measure(Path::new("/"), program);
    }
    if programs.is_empty() {
        let root = tempfile::tempdir().unwrap();
        unpack(root.path());
        for program in ["/usr/sbin/nginx", "/usr/bin/true"] {
            measure(root.path(), program);
        }
    }
}

/// The one layer of the image is by far the largest of its blobs.
fn unpack(root: &Path) {
    let blobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/nginx/blobs/sha256");
    let blob = fs::read_dir(blobs)
        .expect("run make setup")
        .map(|blob| blob.unwrap())
        .max_by_key(|blob| blob.metadata().unwrap().len())
        .unwrap();
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(blob.path())
        .arg("-C")
        .arg(root)
        .status()
        .unwrap();
    assert!(unpacked.success());
}

fn measure(root: &Path, program: &str) {
    let files = files(root, program);
    let (mut cold, mut warm, mut calls) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let start = processor_time();
        let summaries: Vec<Summary> = files.iter().map(|(_, bytes, _)| summarise(bytes).unwrap()).collect();
        calls = join(&files, &summaries);
        cold.push(processor_time() - start);
        let kept: Vec<Vec<u8>> = summaries.iter().map(|summary| summary.encode().unwrap()).collect();
        let start = processor_time();
        let summaries: Vec<Summary> = kept.iter().map(|kept| Summary::decode(kept).unwrap()).collect();
        assert_eq!(join(&files, &summaries), calls);
        warm.push(processor_time() - start);
    }
    let bytes: usize = files.iter().map(|(_, bytes, _)| bytes.len()).sum();
    println!(
        "{program}: {} files, {:.1} MB, {calls} calls; nothing kept {:.1} ms, summaries kept {:.1} ms",
        files.len(),
        bytes as f64 / 1e6,
        median(cold),
        median(warm),
    );
}

fn join(files: &[(String, Vec<u8>, Role)], summaries: &[Summary]) -> usize {
    let objects: Vec<Object<'_>> = files
        .iter()
        .zip(summaries)
        .map(|((path, _, role), summary)| Object {
            path,
            summary,
            role: *role,
        })
        .collect();
    close(&objects).calls.len()
}

fn files(root: &Path, program: &str) -> Vec<(String, Vec<u8>, Role)> {
    let mut files: Vec<(String, Vec<u8>, Role)> = Vec::new();
    let mut wanted = vec![(program.to_owned(), Role::Program)];
    let mut at = 0;
    while let Some((path, role)) = wanted.get(at).cloned() {
        at += 1;
        let bytes = fs::read(root.join(&path[1..])).unwrap();
        let summary = summarise(&bytes).unwrap();
        let needed = summary
            .needed
            .iter()
            .filter(|name| !name.starts_with("ld-"))
            .filter_map(|name| {
                let mut paths = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
                paths.find(|path| root.join(&path[1..]).exists())
            });
        let mut new: Vec<(String, Role)> = needed.map(|path| (path, Role::Library)).collect();
        new.extend(
            summary
                .interpreter
                .filter(|_| role == Role::Program)
                .map(|path| (path, Role::Interpreter)),
        );
        for file in new {
            if !wanted.contains(&file) {
                wanted.push(file);
            }
        }
        files.push((path, bytes, role));
    }
    files
}

/// Time that this thread has run.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
