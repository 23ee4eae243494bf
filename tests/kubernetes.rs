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

fn rendered() -> Vec<u8> {
    let mut kustomize = Command::new(repository("target/tools/kustomize/bin/kustomize"));
    answer(kustomize.arg("build").arg(repository("packaging/kubernetes")), b"")
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", repository("target/tools/kubernetes-validate"));
    python
}

/// The objects, as JSON.
fn objects() -> Vec<Value> {
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    serde_json::from_slice(&answer(python().args(["-c", script]), &rendered())).unwrap()
}

#[test]
fn everything_fits_the_published_schemas() {
    for release in RELEASES {
        let mut validate = python();
        validate.args(["-m", "kubernetes_validate", "--strict", "-k", release, "-"]);
        answer(&mut validate, &rendered());
    }
}

/// Whether every validation of the policy holds for a request.
fn admitted(operation: &str, old: Option<&Value>, new: &Value) -> bool {
    let policies: Vec<Value> = objects()
        .into_iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy")
        .collect();
    assert_eq!(policies.len(), 1);
    let validations = policies[0]["spec"]["validations"].as_array().unwrap();
    assert!(!validations.is_empty());
    validations.iter().all(|validation| {
        let program = Program::compile(validation["expression"].as_str().unwrap()).unwrap();
        let mut context = Context::default();
        context.add_variable("object", new).unwrap();
        context.add_variable("oldObject", old).unwrap();
        context
            .add_variable("request", json!({ "operation": operation }))
            .unwrap();
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
