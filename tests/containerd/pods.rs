//! Pods: containerd's CRI plugin as a kubelet drives it.

use std::thread;

use k8s_cri::v1::{ContainerState, PodSandboxState};

use crate::harness::cri::Pod;
use crate::harness::daemon::{PATH_HANDLER, STOCK_HANDLER, TOML_HANDLER};
use crate::harness::{BUSYBOX, Case, Version, eventually, leftovers, needs_assay, on_each_containerd};

on_each_containerd! {
    the_life_of_a_pod,
    containers_of_one_pod_share_a_shim,
    twenty_pods_at_once,
    stop_ends_what_does_not_listen,
    memory_runs_out_in_a_pod,
    a_program_that_is_missing_in_a_pod,
    the_runc_runtime_with_a_path,
    options_of_a_handler,
    features_of_a_handler,
}

const SLEEP: [&str; 2] = ["/bin/sleep", "1000"];

fn the_life_of_a_pod(case: &Case) {
    whole_life(case, "");
}

/// Everything that a kubelet does with a pod.
fn whole_life(case: &Case, handler: &str) {
    let pod = Pod::run(case.daemon, &case.id("pod"), handler).unwrap();
    assert_eq!(pod.sandbox_state(), PodSandboxState::SandboxReady);

    let script = "echo to the log; echo to the error log >&2; exec sleep 1000";
    let container = pod.create("main", &BUSYBOX.name, &["/bin/sh", "-c", script]).unwrap();
    assert_eq!(pod.status(&container).state(), ContainerState::ContainerCreated);
    pod.start(&container).unwrap();
    assert_eq!(pod.status(&container).state(), ContainerState::ContainerRunning);
    eventually("the log", || {
        let log = pod.log("main");
        let complete = log.contains(" stdout F to the log\n") && log.contains(" stderr F to the error log\n");
        if complete { Ok(()) } else { Err(log) }
    });

    let answer = pod
        .exec(&container, &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
        .unwrap();
    assert_eq!(answer.exit_code, 7);
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );

    let job = pod.create("job", &BUSYBOX.name, &["/bin/sh", "-c", "exit 3"]).unwrap();
    pod.start(&job).unwrap();
    let status = pod.wait(&job);
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert_eq!(pod.status(&container).state(), ContainerState::ContainerRunning);

    pod.stop(&container).unwrap();
    assert_eq!(pod.wait(&container).exit_code, 137);
    pod.remove(&container).unwrap();
    pod.remove(&job).unwrap();
    pod.stop_sandbox().unwrap();
    assert_eq!(pod.sandbox_state(), PodSandboxState::SandboxNotready);
}

fn containers_of_one_pod_share_a_shim(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let other = Pod::run(case.daemon, &case.id("other"), "").unwrap();
    let shims: Vec<_> = ["first", "second"]
        .iter()
        .map(|name| {
            let container = pod.create(name, &BUSYBOX.name, &SLEEP).unwrap();
            pod.start(&container).unwrap();
            leftovers::parent(pod.pid(&container))
        })
        .collect();
    let sandbox = leftovers::parent(pod.sandbox_pid());
    assert_eq!(shims, [sandbox; 2]);
    assert_ne!(leftovers::parent(other.sandbox_pid()), sandbox);
}

fn twenty_pods_at_once(case: &Case) {
    thread::scope(|scope| {
        let pods: Vec<_> = (0..20)
            .map(|number| {
                scope.spawn(move || {
                    let pod = Pod::run(case.daemon, &case.id(&format!("pod-{number}")), "").unwrap();
                    let container = pod.create("main", &BUSYBOX.name, &SLEEP).unwrap();
                    pod.start(&container).unwrap();
                    assert_eq!(pod.status(&container).state(), ContainerState::ContainerRunning);
                    let answer = pod.exec(&container, &["/bin/echo", &number.to_string()]).unwrap();
                    assert_eq!(answer.stdout, format!("{number}\n").into_bytes());
                })
            })
            .collect();
        for pod in pods {
            pod.join().unwrap();
        }
    });
}

fn stop_ends_what_does_not_listen(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    for (name, on_term, status) in [("deaf", "", 137), ("kind", "exit 5", 5)] {
        let script = format!("trap '{on_term}' TERM; echo ready; while :; do sleep 0.05; done");
        let container = pod.create(name, &BUSYBOX.name, &["/bin/sh", "-c", &script]).unwrap();
        pod.start(&container).unwrap();
        eventually("a trap for the signal", || {
            let log = pod.log(name);
            if log.contains("ready") { Ok(()) } else { Err(log) }
        });
        pod.stop(&container).unwrap();
        assert_eq!(pod.wait(&container).exit_code, status, "{name}");
    }
}

fn memory_runs_out_in_a_pod(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let greedy = pod
        .create_with("greedy", &BUSYBOX.name, &["/bin/tail", "/dev/zero"], |config| {
            let linux = config.linux.as_mut().unwrap();
            linux.resources.as_mut().unwrap().memory_limit_in_bytes = 16 << 20;
        })
        .unwrap();
    pod.start(&greedy).unwrap();
    let status = pod.wait(&greedy);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

fn a_program_that_is_missing_in_a_pod(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let container = pod.create("missing", &BUSYBOX.name, &["/no/such/program"]).unwrap();
    let status = pod.start(&container).unwrap_err();
    assert!(status.message().contains("/no/such/program"), "{status}");
    assert_eq!(pod.wait(&container).reason, "StartError");
}

/// The way that keeps everything that containerd does for runc only: `runtime_type = "io.containerd.runc.v2"`.
fn the_runc_runtime_with_a_path(case: &Case) {
    if !needs_assay("runc's runtime type with the path of another shim") {
        return;
    }
    if case.daemon.version == Version::V1_6 {
        println!("skipped: containerd 1.6.20 ignores runtime_path, 1.6.21 is the first that does not");
        return;
    }
    whole_life(case, PATH_HANDLER);
    let pod = Pod::run(case.daemon, &case.id("own"), PATH_HANDLER).unwrap();
    let shim = leftovers::command_line(leftovers::parent(pod.sandbox_pid()));
    assert!(shim[0].ends_with("containerd-shim-assay-v1"), "{shim:?}");
}

/// containerd sends the options of a runtime that it does not know as a TOML document.
fn options_of_a_handler(case: &Case) {
    if !needs_assay("options as a TOML document") {
        return;
    }
    if case.daemon.version == Version::V1_6 {
        println!("skipped: containerd 1.6 passes no options on to a runtime that it does not know");
        return;
    }
    let root = case.daemon.folder.join("toml-root/k8s.io");
    let pod = Pod::run(case.daemon, &case.id("pod"), TOML_HANDLER).unwrap();
    assert!(root.join(&pod.id).exists(), "{}", root.display());
    let id = pod.id.clone();
    drop(pod);
    assert!(!root.join(id).exists());
}

/// A kubelet refuses user namespaces and recursive read-only mounts to a handler that does not announce them.
/// containerd asks only shims whose runtime type is runc's, at whatever path they are.
fn features_of_a_handler(case: &Case) {
    if case.daemon.version != Version::V2_1 {
        println!("skipped: containerd announces features of handlers from 2.0 on");
        return;
    }
    let stock = crate::harness::cri::features(case.daemon, STOCK_HANDLER);
    assert!(
        stock.recursive_read_only_mounts,
        "runc's own features are missing: {stock:?}"
    );
    assert_eq!(crate::harness::cri::features(case.daemon, PATH_HANDLER), stock);
}
