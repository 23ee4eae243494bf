//! Decisions in systemd's journal.

use std::process::Command;

use assay::admission::Verdict;
use serde_json::Value;

use crate::harness::daemon::{SIGNED, UNSIGNED};
use crate::harness::{Case, Daemon, Version, eventually, needs_assay};
use crate::refusals::{assert_refusal, signed};

/// Says that this process has a journal of its own.
const INSIDE: &str = "ASSAY_TEST_JOURNAL";
/// Starts a journal of nothing but this test, and the test.
const SCRIPT: &str = "mount -t tmpfs none /run && mkdir -p /run/log/journal /run/systemd || exit
/lib/systemd/systemd-journald >/dev/null 2>&1 &
journal=$!
\"$@\"
status=$?
kill $journal
exit $status";

#[test]
fn decisions_are_in_the_journal_with_their_fields() {
    if !needs_assay("the journal") {
        return;
    }
    if std::env::var_os(INSIDE).is_some() {
        inside();
        return;
    }
    // The journal listens at one place of a machine, so this runs again among mounts of its own.
    let output = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", SCRIPT, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["journal::decisions_are_in_the_journal_with_their_fields", "--exact"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What the journal says that matches.
fn entries(matches: &[String]) -> Vec<Value> {
    let output = Command::new("journalctl")
        .args(["--directory=/run/log/journal", "--output=json", "--quiet"])
        .args(matches)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn entry(matches: &[String]) -> Value {
    let mut found = Vec::new();
    eventually(&format!("{matches:?}"), || {
        found = entries(matches);
        if found.len() == 1 {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    });
    found.remove(0)
}

fn inside() {
    let daemon: &'static Daemon = Box::leak(Box::new(Daemon::start(Version::V2_1)));
    let case = Case::on(daemon, "journal");
    let allowed = signed(&case, "allowed").start();
    assert_eq!(allowed.wait(), 3);
    let of = |container: &str| format!("ASSAY_CONTAINER={container}");

    let told = entry(&[of(&allowed.id)]);
    let log = std::fs::read_to_string(daemon.state().join("decisions.jsonl")).unwrap();
    let line = log.lines().find(|line| line.contains(&allowed.id)).unwrap();
    let decision = daemon.decisions(&allowed.id).remove(0);
    assert_eq!(decision.verdict, Verdict::Allow);
    for (field, value) in [
        ("MESSAGE_ID", "15bbd137d66a42248a667d64a52bbbd3"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "assay"),
        ("_TRANSPORT", "journal"),
        ("_UID", "0"),
        ("_COMM", "assay"),
        ("ASSAY_VERDICT", "allow"),
        ("ASSAY_CODE", "signature-verified"),
        ("ASSAY_RULE", "release images"),
        ("ASSAY_IMAGE", SIGNED),
        ("ASSAY_NAMESPACE", &daemon.scope),
        (
            "ASSAY_DIGEST",
            &decision.image.as_ref().unwrap().manifests[0].to_string(),
        ),
        (
            "ASSAY_DECISION",
            assay::digest::Digest::of(line.as_bytes()).hex().get(..12).unwrap(),
        ),
    ] {
        assert_eq!(told[field], value, "{field}: {told:#}");
    }

    let refused = case.id("refused");
    let result = case.shell("refused", "true").image(&UNSIGNED).create();
    assert_refusal(&case, "refused", result, "signature-missing");
    let told = entry(&["ASSAY_VERDICT=refuse".to_owned(), of(&refused)]);
    assert_eq!(
        (&told["PRIORITY"], &told["ASSAY_CODE"]),
        (&"4".into(), &"signature-missing".into())
    );
    let message = told["MESSAGE"].as_str().unwrap();
    assert!(
        message.ends_with(&daemon.decisions(&refused).remove(0).line()),
        "{message}"
    );

    // A process in a container is told by its shim, without its arguments.
    let running = signed(&case, "running")
        .edit(|spec| spec["process"]["args"] = serde_json::json!(["/bin/sleep", "1000"]))
        .start();
    assert_eq!(running.run("further", "exit 4").status, 4);
    let told = entry(&[
        "MESSAGE_ID=6075fc461af74bbbbadda3c4c18e7960".to_owned(),
        of(&running.id),
    ]);
    assert_eq!(told["ASSAY_PROGRAM"], "/bin/sh");
    assert!(!told.to_string().contains("exit 4"), "{told:#}");
}
