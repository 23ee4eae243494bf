//! The installer's image: on a node by its own containerd, as its DaemonSet runs it, and off again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::apiserver::Cluster;
use crate::root::{OLD, PACKAGES, Root, done, eventually, files, listed, package, replace, repository, same};

/// The name that the image has where nobody has pushed it.
const IMAGE: &str = concat!("localhost/assay:", env!("CARGO_PKG_VERSION"));

static IMAGES: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    folder
});

fn make(folder: &Path) {
    let mut image = Command::new(repository("packaging/image"));
    done(&image.arg(PACKAGES.path().join(OLD)).arg(folder).output().unwrap());
}

fn archive(folder: &Path) -> Vec<u8> {
    let found = listed(folder);
    assert_eq!(found.len(), 1, "{found:?}");
    fs::read(&found[0]).unwrap()
}

/// A node whose kubelet has pulled the image.
fn node() -> Root {
    let folder = Root::unpacked();
    replace(
        &folder.path().join("etc/containerd/config.toml"),
        "[plugins.\"io.containerd.grpc.v1.cri\"]",
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n    restrict_oom_score_adj = true\n    disable_apparmor = true",
    );
    let root = Root::start(folder);
    let dump = done(&root.run(&["containerd", "config", "dump"]));
    let (_, pause) = dump.split_once("sandbox_image = \"").unwrap();
    let pause = pause.split('"').next().unwrap();
    let inside = root.folder.path().join("run-image.tar");
    fs::write(&inside, archive(IMAGES.path())).unwrap();
    done(&root.ctr(&["images", "import", "/run-image.tar"]));
    fs::remove_file(inside).unwrap();
    for (archive, name) in [("pause", pause), ("nginx", "registry.example/prod/nginx:1")] {
        done(&root.ctr(&["images", "import", &format!("/mnt/images/{archive}.tar")]));
        done(&root.ctr(&["images", "tag", &format!("assay.test/{archive}:latest"), name]));
    }
    root
}

/// Takes what a container says. containerd 1.6 loses what is said on one stream when both go into one file and the other
/// ends first, as they do when a program ends at once.
const LOGGER: &str = "#!/bin/sh
exec 5>&-
cat <&3 >>\"$2\" &
cat <&4 >>\"$2\"
wait
";

/// Runs the image as the DaemonSet's init container `install` does: privileged, with the processes of the node, on the
/// handler that containerd brings along. Its exit code and what it said.
fn step(root: &Root, id: &str, arguments: &[&str]) -> (String, String) {
    let log = format!("/run/{id}.log");
    let uri = format!("binary:///run/logger?log={log}");
    let logger = format!("printf '%s' '{LOGGER}' >/run/logger && chmod +x /run/logger");
    done(&root.run(&["sh", "-c", &logger]));
    let run = [
        "run",
        "--detach",
        "--privileged",
        "--read-only",
        "--with-ns",
        "pid:/proc/1/ns/pid",
        "--log-uri",
        &uri,
    ];
    let words = [IMAGE, id, "/usr/bin/assay", "node"];
    done(&root.ctr(&[&run[..], &words[..], arguments].concat()));
    // It restarts the containerd that is asked here.
    eventually("the end of the installer", || {
        let listed = root.ctr(&["tasks", "ls"]);
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let has_ended = |line: &str| line.starts_with(id) && line.contains("STOPPED");
        text.lines().any(has_ended).then_some(())
    });
    // Its shim may still be writing, and is gone with the task, written or not.
    let mut last = String::new();
    let said = eventually("what the installer said", || {
        let said = done(&root.run(&["cat", &log]));
        let before = std::mem::replace(&mut last, said);
        (!last.is_empty() && before == last).then(|| last.clone())
    });
    let code = eventually("the status of the installer", || {
        let deleted = root.ctr(&["tasks", "delete", id]);
        let status = String::from_utf8_lossy(&deleted.stderr).into_owned();
        let listed = root.ctr(&["tasks", "ls"]);
        let is_gone = listed.status.success() && !String::from_utf8_lossy(&listed.stdout).contains(id);
        is_gone.then_some(if status.is_empty() { "0".to_owned() } else { status })
    });
    done(&root.ctr(&["containers", "delete", id]));
    done(&root.run(&["rm", &log]));
    (code, said)
}

fn containerd(root: &Root) -> String {
    done(&root.run(&["cat", "/run/containerd.pid"]))
}

#[test]
fn the_installer_comes_to_a_node_and_goes_to_the_byte() {
    let root = node();
    let before = files(root.folder.path());

    let first = containerd(&root);
    let (code, said) = step(&root, "install-1", &["install"]);
    assert_eq!(code, "0", "{said}");
    for part in [
        "wrote /usr/local/bin/assay",
        "ok    self-test: a pod of the handler assay",
        ": 0 failed,",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let second = containerd(&root);
    assert_ne!(first, second, "containerd had to read its files again");

    let nginx = ["registry.example/prod/nginx:1", "web", "sleep", "1000"];
    done(&root.ctr(&[&["run", "--runtime", "io.containerd.assay.v1", "--detach"], &nginx[..]].concat()));

    // Nothing to do: the pod was started again.
    let (code, said) = step(&root, "install-2", &["install"]);
    assert_eq!(code, "0", "{said}");
    assert!(said.contains("unchanged /usr/local/bin/assay"), "{said}");
    assert_eq!(containerd(&root), second);

    // An older release is replaced under a container that runs.
    for program in ["assay", "containerd-shim-assay-v1"] {
        let path = root.folder.path().join("usr/local/bin").join(program);
        let mut older = fs::read(&path).unwrap();
        older.push(0);
        fs::remove_file(&path).unwrap();
        fs::write(&path, older).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (code, said) = step(&root, "install-3", &["install"]);
    assert_eq!(code, "0", "{said}");
    assert!(said.contains("wrote /usr/local/bin/assay"), "{said}");
    done(&root.ctr(&["tasks", "exec", "--exec-id", "survives", "web", "sleep", "0"]));

    // Not under a container that runs.
    let (code, said) = step(&root, "remove-1", &["remove"]);
    assert_ne!(code, "0", "{said}");
    assert!(
        said.contains("error: containers run through Assay: web; to fix: delete the pods"),
        "{said}"
    );
    done(&root.run(&["assay", "--version"]));
    done(&root.ctr(&["tasks", "kill", "--signal", "KILL", "web"]));
    eventually("the end of the container", || {
        root.ctr(&["tasks", "delete", "web"]);
        let listed = done(&root.ctr(&["tasks", "ls"]));
        (!listed.contains("web")).then_some(())
    });
    done(&root.ctr(&["containers", "delete", "web"]));

    let (code, said) = step(&root, "remove-2", &["remove"]);
    assert_eq!(code, "0", "{said}");
    assert!(said.contains("Assay is off this node"), "{said}");
    let dump = done(&root.run(&["containerd", "config", "dump"]));
    assert!(!dump.contains("assay"), "{dump}");
    assert!(!root.run(&["test", "-e", "/run/assay"]).status.success());
    same(&before, &files(root.folder.path()));
    let (code, said) = step(&root, "remove-3", &["remove"]);
    assert_eq!(
        (code.as_str(), said.trim()),
        ("0", "nothing of an installer's is on this node")
    );
}

#[test]
fn the_installer_leaves_a_node_with_the_package_alone() {
    let root = node();
    done(&root.run(&["dpkg", "--install", &package(OLD, "deb")]));
    let before = files(root.folder.path());
    let (code, said) = step(&root, "install", &["install"]);
    assert_ne!(code, "0", "{said}");
    assert!(
        said.contains("error: /usr/bin/assay is there, and no installer put it there"),
        "{said}"
    );
    same(&before, &files(root.folder.path()));
}

#[test]
fn the_same_package_gives_the_same_image() {
    let again = tempfile::tempdir().unwrap();
    make(again.path());
    assert!(archive(again.path()) == archive(IMAGES.path()));
}

const ASKED: &str = "/api/v1/nodes/worker-1.example application/merge-patch+json";

#[test]
fn a_node_has_its_label_for_as_long_as_its_pod() {
    let cluster = Cluster::start();
    let mut holds = cluster.step("label").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(holds.stdout.take().unwrap()).lines();
    assert_eq!(
        said.next().unwrap().unwrap(),
        "node worker-1.example is ready for pods of Assay"
    );
    assert_eq!(
        cluster.asked(),
        format!("allowed {ASKED} {{\"metadata\":{{\"labels\":{{\"assay.dev/ready\":\"true\"}}}}}}\n")
    );
    kill_process(Pid::from_child(&holds), Signal::TERM).unwrap();
    assert!(holds.wait().unwrap().success());
    let gone = format!("allowed {ASKED} {{\"metadata\":{{\"labels\":{{\"assay.dev/ready\":null}}}}}}\n");
    assert_eq!(cluster.asked(), gone);

    let unlabel = cluster.step("unlabel").output().unwrap();
    assert!(done(&unlabel).contains("node worker-1.example is not ready for pods of Assay"));
    assert_eq!(cluster.asked(), gone);
}

#[test]
fn who_may_not_label_a_node_is_told_why() {
    let cluster = Cluster::start();
    let failed = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let token = cluster.folder.path().join("credentials/token");
    fs::write(&token, "another").unwrap();
    let said = failed(&mut cluster.step("label"));
    for part in [
        "worker-1.example: 403",
        "nodes is forbidden",
        "to fix: apply the ClusterRole",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    // The secret is not sent to a server of another cluster.
    fs::write(&token, "secret").unwrap();
    cluster.asked();
    let stranger = Cluster::start();
    fs::copy(
        stranger.folder.path().join("ca.crt"),
        cluster.folder.path().join("credentials/ca.crt"),
    )
    .unwrap();
    let said = failed(&mut cluster.step("label"));
    assert!(said.contains("the API server cannot be asked: "), "{said}");
    assert_eq!(cluster.asked(), "");
    let said = failed(cluster.step("label").env("NODE_NAME", "../pods"));
    assert!(said.contains("NODE_NAME is not in the environment"), "{said}");
}

#[test]
fn outside_of_a_pod_nothing_is_installed() {
    let output = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["node", "remove"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Whether or not this test may look at process 1.
    assert!(said.contains("process 1") && said.contains("; to fix: "), "{said}");
}
