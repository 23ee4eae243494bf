//! What programs call, as `assay seccomp record` notes it and as strace sees it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use assay::runtime::{Recorder, Recording};
use assay::seccomp::{Permission, Profile};
use assay::syscalls::{self, Machine};
use tempfile::TempDir;

use crate::container::Container;

/// Threads, processes of each kind, a program started, signals: each makes a call that nothing else here makes.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
static void on(int s) { (void)s; getpriority(PRIO_PROCESS, 0); }
static void *thread(void *a) { (void)a; return (void *)(long)sched_get_priority_max(SCHED_OTHER); }
int main(void) {
    signal(SIGUSR1, on);
    raise(SIGUSR1);
    for (int i = 0; i < 8; i++) { pthread_t t; pthread_create(&t, 0, thread, 0); pthread_join(t, 0); }
    if (fork() == 0) {
        pthread_t t; pthread_create(&t, 0, (void *(*)(void *))getppid, 0); pthread_join(t, 0);
        if (fork() == 0) { execl("/bin/busybox", "busybox", "true", (char *)0); _exit(1); }
        wait(0);
        timerfd_create(CLOCK_MONOTONIC, 0);
        raise(SIGKILL);
    }
    if (vfork() == 0) { sched_yield(); _exit(0); }
    while (wait(0) > 0) {}
    return 0;
}
"#;

fn program(folder: &Path) -> String {
    fs::write(folder.join("p.c"), SOURCE).unwrap();
    let program = folder.join("program").display().to_string();
    let built = Command::new("gcc")
        .args(["-O1", "-pthread", "-o", &program])
        .arg(folder.join("p.c"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

fn strace(folder: &Path, program: &str) -> BTreeSet<String> {
    let file = folder.join("strace");
    let traced = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "--signal=none", "--output"])
        .arg(&file)
        .arg(program)
        .status()
        .unwrap();
    assert!(traced.success());
    let text = fs::read_to_string(file).unwrap();
    let name = |line: &str| {
        let call = line.split_once(char::is_whitespace)?.1.trim_start();
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let end = call.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))?;
        Some(call[..end].to_owned()).filter(|name| !name.is_empty())
    };
    text.lines().filter_map(name).collect()
}

fn assay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["seccomp", "record"])
        .args(arguments)
        .output()
        .unwrap()
}

fn allowed(profile: &[u8]) -> BTreeSet<String> {
    let rules = Profile::parse(profile).unwrap().rules();
    let names = syscalls::all(Machine::native()).map(|(_, name)| name);
    let allowed = names.filter(|name| rules.permission(name) == Permission::Always);
    allowed.map(str::to_owned).collect()
}

#[test]
fn a_program_with_threads_and_processes_is_recorded_as_strace_shows_it() {
    let folder = TempDir::new().unwrap();
    let program = program(folder.path());
    let output = assay(&["--", &program]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // The first process, its child with a child of its own, the one of vfork; nine threads beside them.
    assert!(said.contains(" by 4 processes with 13 threads in "), "{said}");
    let recorded = allowed(&output.stdout);
    for call in [
        "timerfd_create",
        "getpriority",
        "sched_yield",
        "sched_get_priority_max",
        "getppid",
        "execve",
    ] {
        assert!(recorded.contains(call), "{call}: {recorded:?}");
    }
    assert_eq!(recorded, strace(folder.path(), &program));
}

#[test]
fn what_is_recorded_is_added_to_what_was() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("seen.json");
    let into = file.to_str().unwrap();
    let recorded = |command: &[&str]| {
        let output = assay(&[&["--into", into, "--", "/bin/busybox"], command].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, allowed(&fs::read(&file).unwrap()))
    };
    let (status, _, first) = recorded(&["true"]);
    assert_eq!(status, Some(0));
    let (_, said, both) = recorded(&["mkdir", folder.path().join("x").to_str().unwrap()]);
    assert!(said.contains(", new: ") && said.contains(" mkdir"), "{said}");
    assert!(both.is_superset(&first) && both.contains("mkdir") && !first.contains("mkdir"));
    let (status, said, again) = recorded(&["false"]);
    assert!(status == Some(1) && said.contains("ended with status 1"), "{said}");
    assert_eq!(again, both);
    fs::write(&file, "{").unwrap();
    let output = assay(&[
        "--into",
        into,
        "--",
        "/bin/busybox",
        "touch",
        folder.path().join("y").to_str().unwrap(),
    ]);
    assert!(!output.status.success());
    assert!(
        !folder.path().join("y").exists(),
        "nothing runs when it cannot be added"
    );
    assert_eq!(fs::read(&file).unwrap(), b"{");
}

#[test]
fn a_container_that_runs_is_followed_with_what_is_started_in_it() {
    let everything = Profile::parse(br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    let container = Container::run(
        &everything,
        true,
        &[
            "/busybox",
            "sh",
            "-c",
            "while :; do /busybox usleep 20000; /busybox uname; done",
        ],
    );
    let since = Instant::now();
    let mut recorder = Recorder::new().unwrap();
    recorder.attach(container.pid()).unwrap();
    let has = |recording: &Recording, call: &str| recording.calls.contains_key(call);
    // The shell's own start calls uname too, and may be what is heard first.
    let is_followed = |recording: &Recording| has(recording, "execve") && recording.processes > 1;
    while !(is_followed(&recorder.recording()) && has(&recorder.recording(), "uname")) {
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", recorder.recording());
        recorder.wait(Duration::from_millis(50)).unwrap();
    }
    // A process that is followed is gone once its follower has heard of its end, which runc waits for.
    let deleted = std::thread::spawn(move || drop(container));
    while !recorder.is_over() {
        assert!(since.elapsed() < Duration::from_secs(20));
        recorder.wait(Duration::from_millis(50)).unwrap();
    }
    deleted.join().unwrap();
}
