//! How long the system calls of a program and its libraries take to derive, with nothing kept and with summaries kept.
//!
//! `cargo bench --bench syscalls [PROGRAM …]`; without a program, this machine's nginx, or the one that the tests unpack.
//! Prints medians of processor time on one core: other work on the machine does not count.

#![expect(clippy::unwrap_used, reason = "a benchmark fails where it stands")]

use std::time::Duration;

use assay::syscalls::{Object, Role, Summary, close, summarise};

const ROUNDS: usize = 15;
const DIRECTORIES: [&str; 2] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];

fn main() {
    let mut programs: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if programs.is_empty() {
        programs.extend(["/usr/sbin/nginx", "/bin/true"].map(str::to_owned));
    }
    for program in programs.iter().filter(|program| std::path::Path::new(program).exists()) {
        measure(program);
    }
}

fn measure(program: &str) {
    let files = files(program);
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

fn files(program: &str) -> Vec<(String, Vec<u8>, Role)> {
    let mut files: Vec<(String, Vec<u8>, Role)> = Vec::new();
    let mut wanted = vec![(program.to_owned(), Role::Program)];
    let mut at = 0;
    while let Some((path, role)) = wanted.get(at).cloned() {
        at += 1;
        let bytes = std::fs::read(&path).unwrap();
        let summary = summarise(&bytes).unwrap();
        let needed = summary
            .needed
            .iter()
            .filter(|name| !name.starts_with("ld-"))
            .filter_map(|name| {
                let mut paths = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
                paths.find(|path| std::path::Path::new(path).exists())
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

/// Time that this thread has run; needs a kernel with scheduler statistics, as all distributions' have.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
