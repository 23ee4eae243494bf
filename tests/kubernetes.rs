//! What `packaging/kubernetes` tells a cluster: it fits the schemas that Kubernetes publishes, and lets in what it should.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cel::{Context, Program, Value as Answer};
use serde_json::{Value, json};

/// The first release that has everything that is used, and the newest.
const RELEASES: [&str; 2] = ["1.30.0", "1.37.0"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a program that is given `input` answers.
fn answer(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

/// What is there to be applied.
const KUSTOMIZATIONS: [&str; 5] = [
    "base",
    "overlays/default-handler",
    "overlays/installer",
    "overlays/monitoring",
    "overlays/uninstall",
];

fn rendered(kustomization: &str) -> Vec<u8> {
    let mut kustomize = Command::new(repository("target/tools/kustomize/bin/kustomize"));
    let folder = repository("packaging/kubernetes").join(kustomization);
    answer(kustomize.arg("build").arg(folder), b"")
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", repository("target/tools/kubernetes-validate"));
    python
}

/// The objects, as JSON.
fn objects(kustomization: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    serde_json::from_slice(&answer(python().args(["-c", script]), &rendered(kustomization))).unwrap()
}

#[test]
fn everything_fits_the_published_schemas() {
    for kustomization in KUSTOMIZATIONS {
        for release in RELEASES {
            let mut validate = python();
            validate.args(["-m", "kubernetes_validate", "--strict", "-k", release, "-"]);
            answer(&mut validate, &rendered(kustomization));
        }
    }
}

/// A container of the installer, by its name.
fn container(kustomization: &str, list: &str, name: &str) -> Value {
    let objects = objects(kustomization);
    let pod = &objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    let mut containers = pod[list].as_array().unwrap().iter();
    containers.find(|container| container["name"] == name).unwrap().clone()
}

#[test]
fn rights_on_the_node_and_credentials_of_the_cluster_are_never_in_one_container() {
    let monitoring = "overlays/monitoring";
    let steps = [
        ("initContainers", "unlabel"),
        ("initContainers", "install"),
        ("containers", "label"),
        ("containers", "agent"),
        ("containers", "events"),
    ];
    for (list, name) in steps {
        let container = container(monitoring, list, name);
        let args = container["args"].as_array().unwrap();
        assert_eq!(args[..2], [json!("node"), json!(name)]);
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        let has_credentials = container["volumeMounts"].is_array();
        assert_eq!(context["privileged"] == true, !has_credentials, "{name}");
        assert!(context["privileged"] == true || context["runAsNonRoot"] == true);
    }
}

#[test]
fn overlays_change_what_they_are_named_for() {
    let install = |kustomization| container(kustomization, "initContainers", "install");
    let image = concat!("registry.example/assay:", env!("CARGO_PKG_VERSION"));
    assert_eq!(install("overlays/installer")["image"], image);
    let by_default = install("overlays/default-handler");
    assert_eq!(by_default["args"], json!(["node", "install", "--set-as-default"]));
    let uninstall = "overlays/uninstall";
    assert_eq!(install(uninstall)["args"], json!(["node", "remove"]));
    assert_eq!(
        container(uninstall, "containers", "label")["args"],
        json!(["node", "unlabel", "--stay"])
    );
    let monitoring = "overlays/monitoring";
    for name in ["agent", "events"] {
        assert_eq!(
            container(monitoring, "containers", name)["image"],
            install(monitoring)["image"]
        );
    }
}

/// Whether every validation of a policy holds for a request.
fn admitted(policy: &str, request: &Value, old: Option<&Value>, new: &Value) -> bool {
    let policies: Vec<Value> = objects("overlays/monitoring")
        .into_iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == policy)
        .collect();
    assert_eq!(policies.len(), 1);
    let validations = policies[0]["spec"]["validations"].as_array().unwrap();
    assert!(!validations.is_empty());
    validations.iter().all(|validation| {
        let program = Program::compile(validation["expression"].as_str().unwrap()).unwrap();
        let mut context = Context::default();
        context.add_variable("object", new).unwrap();
        context.add_variable("oldObject", old).unwrap();
        context.add_variable("request", request).unwrap();
        match program.execute(&context) {
            Ok(Answer::Bool(holds)) => holds,
            // An error counts as no, since the policy fails closed.
            other => {
                assert!(other.is_err(), "{other:?}");
                false
            }
        }
    })
}

#[test]
fn a_pod_has_the_class_and_asks_for_nothing_more() {
    let pod = |class: Option<&str>, annotations: Value| {
        let mut pod = json!({ "metadata": {}, "spec": {} });
        if let Some(class) = class {
            pod["spec"]["runtimeClassName"] = class.into();
        }
        if !annotations.is_null() {
            pod["metadata"]["annotations"] = annotations;
        }
        pod
    };
    let admitted = |operation: &str, old: Option<&Value>, new: &Value| {
        admitted("require-assay", &json!({ "operation": operation }), old, new)
    };
    let plain = pod(Some("assay"), Value::Null);
    let noted = pod(Some("assay"), json!({ "example.org/owner": "web" }));
    let asking = pod(Some("assay"), json!({ "assay.dev/exec": "/bin/sh" }));
    let bare = pod(None, Value::Null);

    assert!(admitted("CREATE", None, &plain));
    assert!(admitted("CREATE", None, &noted));
    assert!(!admitted("CREATE", None, &bare));
    assert!(!admitted("CREATE", None, &pod(Some("runc"), Value::Null)));
    assert!(!admitted("CREATE", None, &asking));

    // What ran before the namespace was labelled can still be changed, and deleted in order.
    assert!(admitted(
        "UPDATE",
        Some(&bare),
        &pod(None, json!({ "example.org/owner": "web" }))
    ));
    assert!(admitted("UPDATE", Some(&asking), &asking));
    assert!(!admitted("UPDATE", Some(&plain), &asking));
    assert!(!admitted("UPDATE", Some(&noted), &asking));
    let more = pod(Some("assay"), json!({ "assay.dev/exec": "/bin/sh /bin/ls" }));
    assert!(!admitted("UPDATE", Some(&asking), &more));
}

#[test]
fn the_class_of_the_installer_is_for_the_installer() {
    let admitted = |namespace: &str, pod: Value| {
        let request = json!({ "operation": "CREATE", "namespace": namespace });
        admitted("assay-installer-class", &request, None, &pod)
    };
    let of = |class: &str| json!({ "spec": { "runtimeClassName": class } });
    assert!(admitted("assay-system", of("assay-installer")));
    assert!(!admitted("default", of("assay-installer")));
    assert!(admitted("default", of("assay")));
    assert!(admitted("default", json!({ "spec": {} })));
}

#[test]
fn the_installer_changes_one_label_of_its_own_node() {
    const POD: &str = "authentication.kubernetes.io/node-name";
    let node = |labels: Value| {
        json!({
            "metadata": { "name": "worker-1", "labels": labels, "annotations": { "a": "b" } },
            "spec": { "podCIDR": "10.0.0.0/24" },
        })
    };
    let admitted = |extra: Value, old: &Value, new: &Value| {
        let request = json!({ "operation": "UPDATE", "userInfo": { "extra": extra } });
        admitted("assay-installer-label", &request, Some(old), new)
    };
    let own = json!({ POD: ["worker-1"] });
    let plain = node(json!({ "kubernetes.io/os": "linux" }));
    let ready = node(json!({ "kubernetes.io/os": "linux", "assay.dev/ready": "true" }));
    assert!(admitted(own.clone(), &plain, &ready));
    assert!(admitted(own.clone(), &ready, &plain));
    assert!(!admitted(json!({ POD: ["worker-2"] }), &plain, &ready));
    assert!(!admitted(json!({}), &plain, &ready), "a token that is bound to no pod");

    let another = node(json!({ "kubernetes.io/os": "linux", "node-role": "trusted" }));
    let changed = node(json!({ "kubernetes.io/os": "windows" }));
    let none = node(json!({}));
    let mut cordoned = plain.clone();
    cordoned["spec"]["unschedulable"] = true.into();
    let mut annotated = plain.clone();
    annotated["metadata"]["annotations"]["a"] = "c".into();
    for new in [another, changed, none, cordoned, annotated] {
        assert!(!admitted(own.clone(), &plain, &new), "{new}");
    }
}

#[test]
fn events_are_about_pods_and_by_the_node_that_they_are_on() {
    let event = json!({
        "reportingController": "assay.dev/agent", "reportingInstance": "worker-1", "reason": "AssayRefused",
        "regarding": { "kind": "Pod", "name": "web" },
    });
    let admitted = |node: &str, event: &Value| {
        let extra = json!({ "authentication.kubernetes.io/node-name": [node] });
        let request = json!({ "operation": "CREATE", "userInfo": { "extra": extra } });
        admitted("assay-events", &request, None, event)
    };
    assert!(admitted("worker-1", &event));
    assert!(!admitted("worker-2", &event));
    for (place, value) in [
        ("/reportingController", "kubelet"),
        ("/reason", "Killing"),
        ("/regarding/kind", "Node"),
    ] {
        let mut other = event.clone();
        *other.pointer_mut(place).unwrap() = value.into();
        assert!(!admitted("worker-1", &other), "{place}");
    }
}
