//! `assay rollout`: what enforcing would refuse on a real node, and that it does.

use std::fs;

use serde_json::Value;

use crate::harness::cri::Pod;
use crate::harness::daemon::{SIGNED, UNSIGNED, WANTED_BY_ANOTHER};
use crate::harness::{Daemon, Version, needs_assay};

fn rollout(daemon: &Daemon) -> (Option<i32>, Value) {
    let socket = daemon.socket();
    let output = daemon.assay(&["rollout", "-o", "json", "--address", socket.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
    (output.status.code(), json)
}

/// Names and containers under a code.
fn refused(rollout: &Value, code: &str) -> Vec<(String, String)> {
    let reasons = rollout["refused"].as_array().unwrap().iter();
    let mut found: Vec<_> = reasons
        .filter(|reason| reason["code"] == code)
        .flat_map(|reason| reason["refused"].as_array().unwrap())
        .map(|change| {
            let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
            (text("image"), text("container"))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn an_audited_node_learns_what_enforcing_would_refuse() {
    if !needs_assay("assay rollout") {
        return;
    }
    let daemon = Daemon::start(Version::V2_1);
    let policy = daemon.folder.join("assay/policy.d/50-tests.toml");
    let enforce = fs::read_to_string(&policy).unwrap();
    // A node that looks first: the same rules, none of which refuses.
    let (rules, _) = enforce.split_once("[[rule]]\nname = 'everything else'").unwrap();
    let (_, rules) = rules.split_once("[[rule]]").unwrap();
    let audit = format!("[[rule]]{rules}\n[[rule]]\nname = 'pods'\nmatch = {{ kind = 'sandbox' }}\nmode = 'off'\n")
        .replace(
            "mode = 'enforce'\n[[rule.signature]]",
            "mode = 'audit'\n[[rule.signature]]",
        );
    fs::write(&policy, &audit).unwrap();
    assert!(daemon.assay(&["policy", "apply"]).status.success());

    let pod = Pod::run(&daemon, "rollout", "").unwrap();
    let signed = pod.create("signed", SIGNED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&signed).unwrap();
    let unsigned = pod.create("unsigned", &UNSIGNED.name, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&unsigned).unwrap();

    let (code, json) = rollout(&daemon);
    assert_eq!(code, Some(3));
    assert_eq!(
        refused(&json, "signature-missing"),
        [
            (UNSIGNED.name.clone(), String::new()),
            (UNSIGNED.name.clone(), unsigned.clone())
        ],
        "{json:#}"
    );
    let all: Vec<&str> = json["refused"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|reason| reason["refused"].as_array().unwrap())
        .map(|change| change["image"].as_str().unwrap())
        .collect();
    assert!(all.contains(&WANTED_BY_ANOTHER), "{json:#}");
    assert!(!all.contains(&SIGNED), "{json:#}");
    // Every reason comes with a next step.
    for reason in json["refused"].as_array().unwrap() {
        assert!(!reason["fixes"].as_array().unwrap().is_empty(), "{reason:#}");
    }

    // What it said is what happens.
    fs::write(&policy, audit.replace("mode = 'audit'", "mode = 'enforce'")).unwrap();
    assert!(daemon.assay(&["policy", "apply"]).status.success());
    let again = pod.create("again", &UNSIGNED.name, &["/bin/sleep", "1000"]).unwrap();
    let error = pod.start(&again).unwrap_err();
    assert!(error.message().contains("signature-missing"), "{error}");
    let again = pod.create("signed-again", SIGNED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&again).unwrap();
}

#[test]
fn mistakes_are_named() {
    if !needs_assay("assay rollout") {
        return;
    }
    let daemon = Daemon::start(Version::V2_1);
    let said = |arguments: &[&str]| {
        let output = daemon.assay(arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // Another containerd's socket.
    let (code, text) = said(&["rollout", "--address", "/nonexistent.sock"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("containerd does not answer on /nonexistent.sock"),
        "{text}"
    );
    // A relative path.
    let (code, text) = said(&["rollout", "--address", "c.sock"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("expected the absolute path of a socket"), "{text}");
    // Policy that was never activated.
    fs::remove_dir_all(daemon.folder.join("assay/state/active")).unwrap();
    let (code, text) = said(&["rollout"]);
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("assay policy apply"), "{text}");
}
