//! `assay grant`: what an administrator's key opens on a node, and what it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assay::admission::Verdict;
use containerd_client::tonic::Code;
use serde_json::json;

use crate::harness::daemon::{NARROWED, UNSIGNED};
use crate::harness::{Case, Daemon, Version, assert_code, needs_assay};
use crate::refusals::{assert_refusal, signed};

const WHY: &str = "the mirror is down";

/// Makes a key, has the node trust it for `uses`, and answers its file. The policy is applied.
pub fn administrator(daemon: &Daemon, name: &str, uses: &str) -> PathBuf {
    let private = daemon.folder.join(format!("{name}.pem"));
    let public = daemon.folder.join(format!("{name}.pub"));
    let openssl = |arguments: &[&str], input: Option<&Path>, output: &Path| {
        let mut command = Command::new("openssl");
        command.args(arguments).arg("-out").arg(output);
        if let Some(input) = input {
            command.arg("-in").arg(input);
        }
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let curve = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    openssl(&curve, None, &private);
    openssl(&["pkey", "-pubout"], Some(&private), &public);
    succeeds(
        daemon,
        &["trust", "add-key", name, public.to_str().unwrap(), "--use", uses],
    );
    succeeds(daemon, &["policy", "apply"]);
    private
}

/// What a command of the node writes.
#[track_caller]
pub fn succeeds(daemon: &Daemon, arguments: &[&str]) -> String {
    let done = daemon.assay(arguments);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// The identifier of the only grant that is in this state.
pub fn only(daemon: &Daemon, state: &str) -> String {
    let listed: serde_json::Value = serde_json::from_str(&succeeds(daemon, &["grant", "ls", "-o", "json"])).unwrap();
    let mut found = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|grant| grant["state"] == state);
    let (Some(grant), None) = (found.next(), found.next()) else {
        panic!("{listed:#}")
    };
    grant["grant"]["id"].as_str().unwrap().to_owned()
}

fn node(name: &str) -> Case {
    Case::on(Box::leak(Box::new(Daemon::start(Version::V2_1))), name)
}

#[test]
fn an_image_that_nobody_signed_runs_on_a_grant_until_it_is_revoked() {
    if !needs_assay("assay grant") {
        return;
    }
    let case = node("opened");
    let daemon = case.daemon;
    let ops = administrator(daemon, "ops", "grant");
    let builder = administrator(daemon, "builder", "image,provenance");
    let create = |name: &str| {
        let container = case.shell(name, "echo ran; exit 3").image(&UNSIGNED);
        // Whatever its author writes is no grant.
        let opens = json!({ "assay.dev/grant": "all", "dev.assay.grant": "true" });
        container.edit(move |spec| spec["annotations"] = opens).create()
    };
    assert_refusal(&case, "before", create("before"), "signature-missing");
    let image = format!("{}@{}", UNSIGNED.name, UNSIGNED.manifest);
    let grant = |key: &Path| {
        let key = key.to_str().unwrap();
        daemon.assay(&[
            "grant", "--image", &image, "--for", "30m", "--reason", WHY, "--key", key,
        ])
    };
    let refused = grant(&builder);
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("error[grant-key-use]: key builder signed it"), "{said}");
    assert_refusal(&case, "builder", create("builder"), "signature-missing");

    assert!(grant(&ops).status.success());
    let id = only(daemon, "active");
    let container = create("granted").unwrap();
    container.start().unwrap();
    assert_eq!(container.wait(), 3);
    let decision = daemon.decisions(&case.id("granted")).remove(0);
    assert_eq!((decision.verdict, decision.code.as_str()), (Verdict::Allow, "granted"));
    let granted = decision.grant.as_ref().unwrap();
    assert_eq!(
        (granted.id.as_str(), granted.reason.as_str(), granted.key.as_str()),
        (id.as_str(), WHY, "ops")
    );
    assert!(decision.evidence.is_empty(), "{decision:?}");
    assert!(
        decision.reason.contains("without it: signature-missing: "),
        "{decision:?}"
    );
    let explained = succeeds(daemon, &["explain", &case.id("granted")]);
    for part in [WHY, "signed by key ops", "refused: signature-missing: "] {
        assert!(explained.contains(part), "{explained}");
    }
    let verified = daemon.assay(&[
        "verify",
        "--namespace",
        &daemon.scope,
        "--address",
        daemon.socket().to_str().unwrap(),
        &UNSIGNED.name,
    ]);
    assert!(
        String::from_utf8_lossy(&verified.stdout).contains("granted: nothing but grant"),
        "{verified:?}"
    );
    drop(container);

    // What is denied stays denied.
    let policy = daemon.folder.join("assay/policy.d/50-tests.toml");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(
        &policy,
        format!("[[deny]]\ndigest = ['{}']\n\n{text}", UNSIGNED.manifest),
    )
    .unwrap();
    succeeds(daemon, &["policy", "apply"]);
    assert_refusal(&case, "denied", create("denied"), "digest-denied");
    fs::write(&policy, text).unwrap();
    succeeds(daemon, &["policy", "apply"]);
    drop(create("again").unwrap());
    let listed = succeeds(daemon, &["grant", "ls"]);
    let row = listed.lines().find(|line| line.contains(&id[..12])).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[1..3], ["active", "2"], "{listed}");

    succeeds(daemon, &["grant", "revoke", &id[..12]]);
    let status = assert_refusal(&case, "after", create("after"), "signature-missing");
    assert!(status.message().contains("does not count: grant-revoked: "), "{status}");
    let told = succeeds(daemon, &["decisions"]);
    for part in ["added: start of image", "revoked: start of image"] {
        assert!(told.contains(&format!("grant {id} {part}")), "{told}");
    }
    case.leaves_nothing();
}

#[test]
fn a_grant_for_exec_opens_what_the_rule_lets_nobody_start() {
    if !needs_assay("assay grant") {
        return;
    }
    let case = node("grant-exec");
    let daemon = case.daemon;
    let rule = format!(
        "[[rule]]\nname = '{NARROWED}'\nmatch = {{ image = ['{NARROWED}'] }}\nmode = 'enforce'\n\
         [[rule.signature]]\nany = [{{ key = 'release' }}]\n[rule.exec]\nmode = 'deny'\n"
    );
    fs::write(daemon.folder.join("assay/policy.d/50-tests.toml"), rule).unwrap();
    let ops = administrator(daemon, "ops", "grant");
    let container = signed(&case, "sleeper")
        .image_name(NARROWED)
        .edit(|spec| spec["process"]["args"] = json!(["/bin/sh", "-c", "sleep 1000"]))
        .start();
    let refused = |id: &str| assert_code(container.exec(id, &["/bin/true"]), Code::PermissionDenied);
    assert!(refused("before").contains("exec-denied"));
    let key = ops.to_str().unwrap();
    let named = [
        "grant",
        "--container",
        container.id.as_str(),
        "--namespace",
        daemon.scope.as_str(),
    ];
    let grant = |more: &[&str]| {
        let about = ["--for", "1h", "--reason", WHY, "--key", key];
        succeeds(daemon, &[named.as_slice(), about.as_slice(), more].concat());
    };
    // One that does not say so opens no further process.
    grant(&[]);
    assert!(refused("start-only").contains("exec-denied"));
    succeeds(daemon, &["grant", "revoke", &only(daemon, "active")]);
    grant(&["--exec"]);
    let id = only(daemon, "active");
    for exec in ["first", "second"] {
        let exec = container.exec(exec, &["/bin/true"]).unwrap();
        exec.start().unwrap();
        assert_eq!(exec.finish().status, 0);
    }
    let records = daemon.execs(&container.id);
    let opened: Vec<_> = records.iter().filter(|record| record.code == "granted").collect();
    assert_eq!(opened.len(), 2, "each use is on record: {records:?}");
    for record in opened {
        let granted = record.grant.as_ref().unwrap();
        assert_eq!(
            (granted.id.as_str(), granted.refused.as_str()),
            (id.as_str(), "exec-denied")
        );
    }
    succeeds(daemon, &["grant", "revoke", &id]);
    assert!(refused("after").contains("grant-revoked"));
    drop(container);
    case.leaves_nothing();
}
