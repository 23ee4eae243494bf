//! The kinds of containers and volumes that people write into pods, as a kubelet asks for them. Every container is of an
//! image under an `enforce` rule, and sees only the files that it needs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_cri::v1::{ContainerConfig, IdMapping, Mount, NamespaceMode, NamespaceOption, PodSandboxState, UserNamespace};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::cri::{Pod, image_volume, network_ready};
use crate::harness::daemon::{APPLICATION, PATH_HANDLER, STOCK_HANDLER, UNSIGNED};
use crate::harness::leftovers::{alive, cgroup_roots, mounts, parent, parent_of, processes};
use crate::harness::{ASSAY, Case, Daemon, Version, eventually, needs_assay, on_each_containerd};

on_each_containerd! {
    init_containers_run_one_after_the_other,
    a_sidecar_is_started_again_beside_its_application,
    an_ephemeral_container_joins_the_processes_of_its_target,
    probes_and_hooks_run_what_policy_keeps,
    a_pod_in_the_namespaces_of_its_node,
    scripts_and_data_come_from_volumes,
    an_image_volume_has_a_rule_of_its_own,
    an_image_by_tag_and_by_digest,
    a_static_pod_is_a_pod,
}

const SLEEP: [&str; 2] = ["/bin/sleep", "1000"];

/// A directory or file of the node at a path of the container.
fn bind(host: &Path, container: &str, readonly: bool) -> Mount {
    Mount {
        container_path: container.to_owned(),
        host_path: host.display().to_string(),
        readonly,
        ..Mount::default()
    }
}

/// A folder of this test that every user of a container may write to.
fn folder(case: &Case, name: &str) -> std::path::PathBuf {
    let folder = case.daemon.folder.join("volumes").join(case.id(name));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Creates, starts and waits; the exit code.
fn done(pod: &Pod, name: &str, script: &str, edit: impl FnOnce(&mut ContainerConfig)) -> i32 {
    let command = ["/bin/sh", "-c", script];
    let container = pod.create_with(name, &APPLICATION.name, &command, edit).unwrap();
    pod.start(&container).unwrap();
    pod.wait(&container).exit_code
}

/// Fails unless a container was decided on by the rule for applications.
#[track_caller]
fn decided(case: &Case, container: &str) {
    if crate::harness::runtime() != crate::harness::ASSAY {
        return;
    }
    let decisions = case.daemon.decisions(container);
    assert_eq!(decisions.len(), 1, "{decisions:#?}");
    assert_eq!(decisions[0].rule.as_deref(), Some("applications"), "{decisions:#?}");
    assert_eq!(decisions[0].code, "digest-listed", "{decisions:#?}");
}

/// What a namespace of a process is; the same text, the same namespace.
fn namespace(pid: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.display().to_string()
}

fn init_containers_run_one_after_the_other(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let shared = folder(case, "shared");
    for name in ["first", "second"] {
        let code = done(&pod, name, &format!("echo {name} >>/shared/order"), |config| {
            config.mounts = vec![bind(&shared, "/shared", false)];
        });
        assert_eq!(code, 0, "{}", pod.log(name));
    }
    let main = pod
        .create_with("main", &APPLICATION.name, &SLEEP, |config| {
            config.mounts = vec![bind(&shared, "/shared", true)];
        })
        .unwrap();
    pod.start(&main).unwrap();
    decided(case, &main);
    assert_eq!(fs::read_to_string(shared.join("order")).unwrap(), "first\nsecond\n");
    // One that fails is made again by the kubelet, with a number of its own.
    for attempt in [1, 2] {
        let code = done(&pod, "first", "exit 9", |config| {
            config.metadata.as_mut().unwrap().attempt = attempt;
        });
        assert_eq!(code, 9);
    }
}

fn a_sidecar_is_started_again_beside_its_application(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let sidecar = |attempt, script: &str| {
        let command = ["/bin/sh", "-c", script];
        let container = pod.create_with("sidecar", &APPLICATION.name, &command, |config| {
            config.metadata.as_mut().unwrap().attempt = attempt;
        });
        let container = container.unwrap();
        pod.start(&container).unwrap();
        container
    };
    let first = sidecar(0, "sleep 0.3; exit 6");
    let main = pod.create("main", &APPLICATION.name, &SLEEP).unwrap();
    pod.start(&main).unwrap();
    assert_eq!(pod.wait(&first).exit_code, 6);
    let second = sidecar(1, "exec sleep 1000");
    pod.remove(&first).unwrap();
    for container in [&first, &second, &main] {
        decided(case, container);
    }
    // It outlives the application.
    pod.stop(&main).unwrap();
    pod.wait(&main);
    assert!(alive(pod.pid(&second)));
    pod.stop(&second).unwrap();
    pod.wait(&second);
}

fn an_ephemeral_container_joins_the_processes_of_its_target(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let main = pod.create("main", &APPLICATION.name, &SLEEP).unwrap();
    pod.start(&main).unwrap();
    let script = "read marker </proc/1/root/etc/marker; echo it has $marker; exec sleep 1000";
    let ephemeral = |name: &str, image: &str| {
        pod.create_with(name, image, &["/bin/sh", "-c", script], |config| {
            let linux = config.linux.as_mut().unwrap();
            let context = linux.security_context.as_mut().unwrap();
            context.namespace_options = Some(NamespaceOption {
                network: NamespaceMode::Node.into(),
                pid: NamespaceMode::Target.into(),
                target_id: main.clone(),
                ..NamespaceOption::default()
            });
        })
        .unwrap()
    };
    let debugger = ephemeral("debugger", &APPLICATION.name);
    pod.start(&debugger).unwrap();
    decided(case, &debugger);
    let pids = [pod.pid(&main), pod.pid(&debugger)];
    let [its, own] = pids.map(|pid| namespace(&pid.to_string(), "pid"));
    assert_eq!(its, own);
    eventually("a file of the target", || {
        let log = pod.log("debugger");
        if log.contains("it has application") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(parent(pids[0]), parent(pids[1]), "a pod has one shim");
    if needs_assay("a verdict") {
        let tools = ephemeral("tools", &UNSIGNED.name);
        let status = pod.start(&tools).unwrap_err();
        assert!(status.message().contains("signature-missing"), "{status}");
        assert_eq!(pod.wait(&tools).reason, "StartError");
    }
    pod.stop(&debugger).unwrap();
    pod.wait(&debugger);
    assert!(alive(pids[0]), "the target goes on without its debugger");
}

fn probes_and_hooks_run_what_policy_keeps(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let main = pod
        .create("main", &APPLICATION.name, &["/bin/sh", "-c", script])
        .unwrap();
    pod.start(&main).unwrap();
    // A hook after the start, and probes that succeed and fail.
    for _ in 0..10 {
        assert_eq!(pod.exec(&main, &["test", "1", "=", "1"]).unwrap().exit_code, 0);
        assert_eq!(pod.exec(&main, &["/bin/test", "1", "=", "2"]).unwrap().exit_code, 1);
    }
    if needs_assay("a view") {
        let status = pod.exec(&main, &["cat", "/etc/passwd"]).unwrap_err();
        for part in [
            "/bin/cat is in the image and hidden",
            "exec = [\"/bin/cat\"]",
            "rule \"applications\"",
        ] {
            assert!(status.message().contains(part), "{status}");
        }
    }
    eventually("a trap for the signal", || {
        let log = pod.log("main");
        if log.contains("ready") { Ok(()) } else { Err(log) }
    });
    // A hook before the end, and the end.
    assert_eq!(pod.exec(&main, &["sleep", "0"]).unwrap().exit_code, 0);
    pod.stop(&main).unwrap();
    assert_eq!(pod.wait(&main).exit_code, 5);
    assert!(pod.exec(&main, &["test", "1"]).is_err(), "a probe of what has ended");
}

fn a_pod_in_the_namespaces_of_its_node(case: &Case) {
    let on_node = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..NamespaceOption::default()
    };
    let pod = Pod::run_with(case.daemon, &case.id("pod"), "", |pod| {
        let linux = pod.linux.as_mut().unwrap();
        linux.security_context.as_mut().unwrap().namespace_options = Some(on_node);
    })
    .unwrap();
    let main = pod.create("main", &APPLICATION.name, &SLEEP).unwrap();
    pod.start(&main).unwrap();
    decided(case, &main);
    for pid in [pod.sandbox_pid(), pod.pid(&main)] {
        for kind in ["net", "pid", "ipc"] {
            assert_eq!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
        }
        assert_ne!(namespace(&pid.to_string(), "mnt"), namespace("self", "mnt"));
    }
}

/// A ConfigMap as a kubelet writes it: a link to a link to a folder that is replaced as a whole.
fn config_map(case: &Case, name: &str, file: &str, content: &str) -> std::path::PathBuf {
    let volume = folder(case, name);
    let data = volume.join("..2026_01_01_00_00_00.1");
    fs::create_dir(&data).unwrap();
    fs::write(data.join(file), content).unwrap();
    std::os::unix::fs::symlink("..2026_01_01_00_00_00.1", volume.join("..data")).unwrap();
    std::os::unix::fs::symlink(Path::new("..data").join(file), volume.join(file)).unwrap();
    volume
}

fn scripts_and_data_come_from_volumes(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let script =
        "wc -l </secret/token >/out/lines; tr a-z A-Z </sub >>/out/lines; echo x >/secret/token && exit 1; exit 0";
    let config = config_map(case, "config", "start.sh", script);
    let secret = config_map(case, "secret", "token", "one\ntwo\n");
    let out = folder(case, "out");
    let single = folder(case, "node").join("single");
    fs::write(&single, "from the node\n").unwrap();
    let container = pod
        .create_with("main", &APPLICATION.name, &["/bin/sh", "/config/start.sh"], |main| {
            main.mounts = vec![
                bind(&config, "/config", true),
                bind(&secret, "/secret", true),
                bind(&out, "/out", false),
                bind(&single, "/sub", true),
            ];
        })
        .unwrap();
    pod.start(&container).unwrap();
    assert_eq!(pod.wait(&container).exit_code, 0, "{}", pod.log("main"));
    decided(case, &container);
    // The programs that only the script in the ConfigMap names were there.
    assert_eq!(fs::read_to_string(out.join("lines")).unwrap(), "2\nFROM THE NODE\n");
    assert_eq!(fs::read_to_string(secret.join("token")).unwrap(), "one\ntwo\n");
}

fn an_image_volume_has_a_rule_of_its_own(case: &Case) {
    if case.daemon.version != Version::V2_1 {
        println!("skipped: containerd {} has no image volumes", case.daemon.version);
        return;
    }
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let code = done(
        &pod,
        "main",
        "read marker </data/etc/marker; [ $marker = application ]",
        |config| {
            config.mounts = vec![image_volume(&APPLICATION.name, "/data")];
        },
    );
    assert_eq!(code, 0, "{}", pod.log("main"));
    if needs_assay("a verdict") {
        let container = pod
            .create_with("refused", &APPLICATION.name, &SLEEP, |config| {
                config.mounts = vec![image_volume(&UNSIGNED.name, "/data")];
            })
            .unwrap();
        let status = pod.start(&container).unwrap_err();
        for part in ["no-rule", "/data", &UNSIGNED.name] {
            assert!(status.message().contains(part), "no {part} in {status}");
        }
    }
}

fn an_image_by_tag_and_by_digest(case: &Case) {
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let digest = format!("assay.test/applications/app@{}", APPLICATION.manifest);
    for (name, written) in [("by-tag", APPLICATION.name.as_str()), ("by-digest", &digest)] {
        let container = pod
            .create_with(name, "", &SLEEP, |config| {
                // A kubelet has asked for the image before, and names it by its ID.
                let image = config.image.as_mut().unwrap();
                image.image = APPLICATION.config.to_string();
                image.user_specified_image = written.to_owned();
            })
            .unwrap();
        pod.start(&container).unwrap();
        decided(case, &container);
        if needs_assay("a verdict") && case.daemon.version == Version::V2_1 {
            assert_eq!(case.daemon.decisions(&container)[0].name, written);
        }
        pod.stop(&container).unwrap();
    }
}

fn a_static_pod_is_a_pod(case: &Case) {
    let hash = "3b1f5f0c6a1e4b0e8a9d7c6b5a493827";
    let annotations = [
        ("kubernetes.io/config.source", "file"),
        ("kubernetes.io/config.seen", "2026-01-01T00:00:00.000000000Z"),
        ("kubernetes.io/config.hash", hash),
        ("kubernetes.io/config.mirror", hash),
    ];
    let run = |attempt| {
        Pod::run_with(case.daemon, &case.id("pod"), "", |pod| {
            let metadata = pod.metadata.as_mut().unwrap();
            metadata.namespace = "kube-system".to_owned();
            metadata.uid = hash.to_owned();
            metadata.attempt = attempt;
            pod.annotations = annotations
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        })
        .unwrap()
    };
    let pod = run(0);
    let manifests = folder(case, "manifests");
    let main = pod
        .create_with("main", &APPLICATION.name, &SLEEP, |config| {
            config.annotations = annotations
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            config.mounts = vec![bind(&manifests, "/etc/kubernetes", true)];
        })
        .unwrap();
    pod.start(&main).unwrap();
    decided(case, &main);
    if needs_assay("a verdict") {
        let refused = pod.create("refused", &UNSIGNED.name, &SLEEP).unwrap();
        let status = pod.start(&refused).unwrap_err();
        assert!(status.message().contains("signature-missing"), "{status}");
    }
    // Its file was changed: the kubelet ends the pod and makes another of the same name.
    pod.stop(&main).unwrap();
    drop(pod);
    let again = run(1);
    let main = again.create("main", &APPLICATION.name, &SLEEP).unwrap();
    again.start(&main).unwrap();
    decided(case, &main);
}

/// What a reboot leaves: everything on disks, nothing that runs, nothing below `/run`, no cgroup.
fn reboot(daemon: &Daemon, pod: &str, shim: u32) {
    let folder = &daemon.folder;
    daemon.restart(|| {
        // Those of a shim that is killed go on, until their own end.
        let mut ends: Vec<u32> = processes()
            .into_iter()
            .filter(|pid| parent_of(*pid) == Some(shim))
            .collect();
        ends.push(shim);
        for pid in &ends {
            kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        eventually("the end of what ran", || {
            let left: Vec<_> = ends.iter().filter(|pid| alive(**pid)).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
        for mount in mounts()
            .iter()
            .rev()
            .filter(|mount| Path::new(mount).starts_with(folder))
        {
            unmount(mount.as_str(), UnmountFlags::DETACH).unwrap();
        }
        for run in ["state", "assay/run"] {
            fs::remove_dir_all(folder.join(run)).unwrap();
        }
        for entry in fs::read_dir("/run/containerd/runc/k8s.io").unwrap() {
            let path = entry.unwrap().path();
            let state = fs::read_to_string(path.join("state.json")).unwrap_or_default();
            if state.contains(folder.to_str().unwrap()) {
                fs::remove_dir_all(path).unwrap();
            }
        }
        for root in cgroup_roots() {
            for entry in fs::read_dir(root.join(&daemon.scope).join(pod)).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    fs::remove_dir(entry.path()).unwrap();
                }
            }
        }
    });
}

fn after_a_reboot(version: Version) {
    let daemon = Daemon::start(version);
    let mut old = Pod::run(&daemon, "before", "").unwrap();
    let main = old.create("main", &APPLICATION.name, &SLEEP).unwrap();
    old.start(&main).unwrap();
    reboot(&daemon, "before", parent(old.sandbox_pid()));

    old.reconnect(&daemon);
    assert_eq!(old.sandbox_state(), PodSandboxState::SandboxNotready);
    assert_ne!(old.wait(&main).exit_code, 0);
    // The kubelet makes the pod anew, and removes what is left of the old one.
    let new = Pod::run_with(&daemon, "before", "", |pod| pod.metadata.as_mut().unwrap().attempt = 1).unwrap();
    let again = new
        .create_with("main", &APPLICATION.name, &SLEEP, |config| {
            config.metadata.as_mut().unwrap().attempt = 1;
        })
        .unwrap();
    new.start(&again).unwrap();
    if crate::harness::runtime() == crate::harness::ASSAY {
        let decision = &daemon.decisions(&again)[0];
        assert_eq!(decision.rule.as_deref(), Some("applications"), "{}", decision.line());
        let refused = new.create("refused", &UNSIGNED.name, &SLEEP).unwrap();
        let status = new.start(&refused).unwrap_err();
        assert!(status.message().contains("signature-missing"), "{status}");
    }
    assert!(alive(new.pid(&again)));
    old.remove(&main).unwrap();
}

#[test]
fn a_pod_comes_again_after_a_reboot_of_containerd_1_6() {
    after_a_reboot(Version::V1_6);
}

#[test]
fn a_pod_comes_again_after_a_reboot_of_containerd_1_7() {
    after_a_reboot(Version::V1_7);
}

#[test]
fn a_pod_comes_again_after_a_reboot_of_containerd_2() {
    after_a_reboot(Version::V2_1);
}

/// A network of its own for each pod, which containerd asks for where users are mapped: a bridge that leads nowhere.
struct Bridge(String);

impl Bridge {
    fn new(daemon: &Daemon) -> Self {
        let name = format!("assay{}", std::process::id());
        let cni = daemon.folder.join("cni");
        for folder in ["bin", "net.d"] {
            fs::create_dir_all(cni.join(folder)).unwrap();
        }
        for plugin in ["bridge", "host-local", "loopback"] {
            std::os::unix::fs::symlink(Path::new("/usr/lib/cni").join(plugin), cni.join("bin").join(plugin)).unwrap();
        }
        let ranges = serde_json::json!([[{ "subnet": "192.0.2.0/24" }]]);
        let network = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": name,
            "plugins": [{
                "type": "bridge",
                "bridge": name,
                "ipam": { "type": "host-local", "dataDir": cni.join("addresses"), "ranges": ranges },
            }],
        });
        // containerd looks at what is written, not at what is created.
        fs::write(cni.join("net.d/10-bridge.conflist"), network.to_string()).unwrap();
        eventually("the network", || network_ready(daemon));
        Self(name)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", &self.0])
            .status();
    }
}

#[test]
fn a_pod_whose_users_are_mapped() {
    let daemon = Daemon::start(Version::V2_1);
    let _bridge = Bridge::new(&daemon);
    // containerd knows how to ask about mapped users only where the type is that of its own shim.
    let handler = match crate::harness::runtime().as_str() {
        ASSAY => PATH_HANDLER,
        _ => STOCK_HANDLER,
    };
    let map = || {
        vec![IdMapping {
            host_id: 524_288,
            container_id: 0,
            length: 65_536,
        }]
    };
    let pod = Pod::run_with(&daemon, "mapped", handler, |pod| {
        let linux = pod.linux.as_mut().unwrap();
        linux.security_context.as_mut().unwrap().namespace_options = Some(NamespaceOption {
            network: NamespaceMode::Pod.into(),
            pid: NamespaceMode::Container.into(),
            userns_options: Some(UserNamespace {
                mode: NamespaceMode::Pod.into(),
                uids: map(),
                gids: map(),
            }),
            ..NamespaceOption::default()
        });
    })
    .unwrap();
    let script = "read marker </etc/marker; id -u; echo it has $marker; echo own >/etc/own; exec sleep 1000";
    let main = pod
        .create("main", &APPLICATION.name, &["/bin/sh", "-c", script])
        .unwrap();
    pod.start(&main).unwrap();
    eventually("its output", || {
        let log = pod.log("main");
        if log.contains("it has application") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(pod.log("main").contains(" 0\n"), "{}", pod.log("main"));
    let pid = pod.pid(&main).to_string();
    assert_ne!(namespace(&pid, "user"), namespace("self", "user"));
    let mapped = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let mapped: Vec<&str> = mapped.split_whitespace().collect();
    assert_eq!(mapped, ["0", "524288", "65536"]);
    let files = Path::new("/proc").join(&pid).join("root");
    for (path, user) in [("etc/marker", 524_288), ("etc/own", 524_288)] {
        assert_eq!(fs::metadata(files.join(path)).unwrap().uid(), user, "{path}");
    }
    if needs_assay("a verdict") {
        let decision = &daemon.decisions(&main)[0];
        assert_eq!(decision.rule.as_deref(), Some("applications"), "{}", decision.line());
        assert!(!files.join("bin/cat").exists());
        let refused = pod.create("refused", &UNSIGNED.name, &SLEEP).unwrap();
        let status = pod.start(&refused).unwrap_err();
        assert!(status.message().contains("signature-missing"), "{status}");
    }
}
