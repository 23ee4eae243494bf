//! Complain mode with the real runc: what enforcing would refuse succeeds and is seen.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use assay::seccomp::{Call, Profile, SEEN_DIRECTORY, Seen, complain, listener, narrow, runtime_default};
use assay::shim::complain::Complaints;
use assay::syscalls::{self, Machine};
use tempfile::TempDir;

use crate::container::Container;

struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn begin(&self) -> Complaints {
        Complaints::begin(&self.socket(), &self.folder.path().join("state"), "n", "c").unwrap()
    }

    fn socket(&self) -> std::path::PathBuf {
        listener(&self.folder.path().join("run"), "n", "c")
    }

    /// The record; none before it is written for the first time.
    fn seen(&self) -> Option<Seen> {
        let path = self.folder.path().join("state").join(SEEN_DIRECTORY).join("n/c.json");
        fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// The profile of a container that is derived to need everything but some calls.
    fn profile(&self, own: Option<&Profile>, but: &[&str]) -> Profile {
        let needed = syscalls::all(Machine::X86_64).map(|(_, name)| name.to_owned());
        let needed = needed.filter(|name| !but.contains(&name.as_str()));
        let enforced = narrow(own, needed, &BTreeSet::new(), Machine::X86_64);
        complain(own, &enforced, Machine::X86_64, self.socket().to_str().unwrap()).unwrap()
    }
}

fn call<'a>(seen: &'a Seen, name: &str) -> Option<&'a Call> {
    seen.calls.iter().find(|call| call.call() == Some(name))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn calls_that_enforcing_would_refuse_succeed_and_are_counted_by_program_and_process() {
    for own in [None, Some(runtime_default(None, Machine::X86_64, []))] {
        for no_new_privileges in [false, true] {
            let node = Node::new();
            // Calls of the OCI runtime itself are among them: it must not wait for a listener that it has not told yet.
            let profile = node.profile(
                own.as_ref(),
                &["sync", "close", "read", "fcntl", "prctl", "capset", "execve"],
            );
            let complaints = node.begin();
            let script = "/busybox sync; /busybox sync; echo done; exec /busybox sleep 1000";
            let container = Container::run(&profile, no_new_privileges, &["/busybox", "sh", "-c", script]);
            until("the program goes on", || {
                container.output().contains("done").then_some(())
            });
            assert_eq!(container.output(), "done\n");
            let seen = until("the record is written while the container runs", || {
                node.seen()
                    .filter(|seen| call(seen, "sync").is_some_and(|call| call.count == 2))
            });
            let sync = call(&seen, "sync").unwrap();
            assert_eq!((sync.program.as_str(), sync.name.as_str()), ("/busybox", "busybox"));
            assert!(sync.process > 1);
            assert!(call(&seen, "execve").is_some() && call(&seen, "write").is_none());
            // An exec brings a descriptor of its own.
            let output = container.exec(&["/busybox", "sync"]);
            assert!(output.status.success(), "{output:?}");
            drop(complaints);
            assert_eq!(call(&node.seen().unwrap(), "sync").unwrap().count, 3);
            assert!(!node.socket().exists());
        }
    }
}

#[test]
fn what_the_container_was_refused_before_is_refused_in_complain_mode_too() {
    let node = Node::new();
    let own = runtime_default(None, Machine::X86_64, []);
    let profile = node.profile(Some(&own), &["uname"]);
    let complaints = node.begin();
    let container = Container::run(&profile, true, &["/busybox", "sleep", "1000"]);
    let output = container.exec(&["/busybox", "unshare", "-n", "/busybox", "true"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"),
        "{output:?}"
    );
    drop(container);
    drop(complaints);
    assert_eq!(node.seen().unwrap().calls, []);
}

#[test]
fn without_a_listener_calls_fail_and_nothing_waits() {
    let node = Node::new();
    let profile = node.profile(None, &["sched_getaffinity"]);
    let complaints = node.begin();
    let script = "while :; do if /busybox taskset -p 1 >/dev/null 2>&1; then echo up; else echo down; fi; /busybox sleep 0.1; done";
    let container = Container::run(&profile, true, &["/busybox", "sh", "-c", script]);
    until("calls go on", || container.output().contains("up").then_some(()));
    assert!(!container.output().contains("down"));
    drop(complaints);
    until("calls fail", || container.output().ends_with("down\n").then_some(()));
}
