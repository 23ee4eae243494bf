//! One shim for the containers of a pod, and nobody else's.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use containerd_client::types::v1::Status as State;

use crate::harness::{Case, Container, assert_code, eventually, leftovers, needs_assay, on_each_containerd};

on_each_containerd! {
    containers_of_a_pod_share_a_shim,
    containers_of_a_group_share_a_shim,
    nobody_joins_a_pod_by_a_group_annotation,
    a_socket_is_for_root_alone,
    a_shim_ends_with_its_last_container,
}

const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
const GROUP: &str = "io.containerd.runc.v2.group";

fn sleeper(case: &Case, name: &str, annotation: &str, group: &str) -> Container {
    case.container(name, &["/bin/sleep", "1000"])
        .annotation(annotation, group)
        .start()
}

fn containers_of_a_pod_share_a_shim(case: &Case) {
    let pod = case.id("pod");
    let sandbox = sleeper(case, "pod", SANDBOX, &pod);
    let first = sleeper(case, "first", SANDBOX, &pod);
    let second = sleeper(case, "second", SANDBOX, &pod);
    assert_eq!([first.shim(), second.shim()], [sandbox.shim(); 2]);
    assert_eq!(first.shim_socket(), sandbox.shim_socket());

    let shim = sandbox.shim();
    drop(first);
    assert!(leftovers::alive(shim));
    assert_eq!(sandbox.status(), State::Running);
    assert_eq!(second.run("exec", "exit 3").status, 3);
    drop(second);
    assert!(leftovers::alive(shim));
    drop(sandbox);
    gone(shim);
}

fn containers_of_a_group_share_a_shim(case: &Case) {
    let first = sleeper(case, "first", GROUP, &case.id("group"));
    let second = sleeper(case, "second", GROUP, &case.id("group"));
    let other = sleeper(case, "other", GROUP, &case.id("other-group"));
    assert_eq!(first.shim(), second.shim());
    assert_ne!(first.shim(), other.shim());
}

/// Annotations that pass from a pod to its containers must not lead into another pod's shim.
fn nobody_joins_a_pod_by_a_group_annotation(case: &Case) {
    if !needs_assay("that the group annotation counts for nothing in the namespace of pods") {
        return;
    }
    let pod = case.id("pod");
    let in_pods = |name: &str, annotation: &str| {
        case.container(name, &["/bin/sleep", "1000"])
            .namespace("k8s.io")
            .annotation(annotation, &pod)
            .start()
    };
    let sandbox = in_pods("pod", SANDBOX);
    let stranger = in_pods("stranger", GROUP);
    assert_ne!(sandbox.shim(), stranger.shim());
}

fn a_socket_is_for_root_alone(case: &Case) {
    let container = case.container("sleeper", &["/bin/sleep", "1000"]).start();
    let socket = container.shim_socket();
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    drop(container);
    eventually("the socket to go", || {
        if socket.exists() {
            Err(socket.display().to_string())
        } else {
            Ok(())
        }
    });
}

fn a_shim_ends_with_its_last_container(case: &Case) {
    let container = case.container("only", &["/bin/sleep", "1000"]).start();
    let shim = container.shim();
    assert!(leftovers::alive(shim));
    // Neither the end of the process nor a refused deletion ends it, deletion does.
    container.delete().unwrap_err();
    container.kill(crate::harness::container::KILL).unwrap();
    container.wait();
    assert!(leftovers::alive(shim));
    container.delete().unwrap();
    gone(shim);
    assert_code(container.state(), containerd_client::tonic::Code::NotFound);
}

fn gone(shim: u32) {
    eventually("the shim to end", || {
        if leftovers::alive(shim) {
            Err(format!("{:?}", leftovers::command_line(shim)))
        } else {
            Ok(())
        }
    });
}
