//! The command line of the Sigstore project's conformance suite, over the directories in
//! `tests/fixtures/sigstore-conformance`, each with the signed file and with its digest.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the suite signs with where a directory does not say otherwise.
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sigstore-conformance")
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The signed file as far as it is there, and its digest.
fn artifacts(directory: &Path) -> Vec<String> {
    if let Some(hex) = text(&directory.join("digest")) {
        return vec![format!("sha256:{hex}")];
    }
    let mut path = directory.join("artifact");
    if !path.exists() {
        path = assets().join("a.txt");
    }
    let digest = assay::digest::Digest::of(&fs::read(&path).unwrap());
    vec![path.display().to_string(), digest.to_string()]
}

fn command(directory: &Path, artifact: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.env_clear().arg("verify-bundle");
    command.arg("--bundle").arg(directory.join("bundle.sigstore.json"));
    let key = directory.join("key.pub");
    if key.exists() {
        command.arg("--key").arg(key);
    } else {
        let or = |name: &str, default: &str| text(&directory.join(name)).unwrap_or_else(|| default.to_owned());
        command.args(["--certificate-identity", &or("identity", IDENTITY)]);
        command.args(["--certificate-oidc-issuer", &or("issuer", ISSUER)]);
    }
    let root = directory.join("trusted_root.json");
    if root.exists() {
        command.arg("--trusted-root").arg(root);
    } else if directory.join("staging").exists() {
        command.arg("--staging");
    }
    command.arg(artifact);
    command
}

#[test]
fn every_directory_is_judged_as_the_suite_says() {
    let mut directories: Vec<PathBuf> = fs::read_dir(assets())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for directory in &directories {
        let name = directory.file_name().unwrap().to_string_lossy();
        for artifact in artifacts(directory) {
            let output = command(directory, &artifact).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            match (output.status.code(), name.ends_with("_fail")) {
                (Some(0), false) => accepted += 1,
                // A refusal says why; anything else is a crash.
                (Some(1), true) if said.starts_with("error: ") => refused += 1,
                (code, _) => wrong.push(format!("{name} {artifact}: {code:?} {said}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // An empty folder would pass as well.
    assert!(
        accepted >= 15 && refused >= 15,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    let directory = assets().join("managed-key-happy-path");
    for (extra, expected) in [
        (&["--certificate-identity", "x"][..], 2),
        (&["--staging", "--trusted-root", "x"], 2),
        (&[], 0),
    ] {
        let mut command = command(&directory, &artifacts(&directory)[1]);
        assert_eq!(
            command.args(extra).status().unwrap().code(),
            Some(expected),
            "{extra:?}"
        );
    }
}
