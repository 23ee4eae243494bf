//! Everything that verification needs is on the node: it works where there is no network interface at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::daemon::{SIGNED, WANTED_BY_ANOTHER, set_up};
use crate::harness::{Case, needs_assay, on_each_containerd};
use crate::refusals::signed;

on_each_containerd! {
    a_node_without_any_interface_verifies_all_the_same,
}

/// Runs `assay` in a network namespace of its own, in which not even the loopback interface is up.
fn without_network(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("/usr/bin/unshare")
        .args(["--net", "--", env!("CARGO_BIN_EXE_assay")])
        .args(arguments)
        .env_clear()
        .env("ASSAY_CONFIG", config)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), said)
}

/// A configuration that says whom to trust and what to enforce, and has no state yet.
fn configuration(folder: &Path) -> PathBuf {
    for name in ["", "policy.d", "trust.d"] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let dir = folder.display();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "config.toml",
        &format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n"),
    );
    fs::copy(set_up("images/signed/release.pub"), folder.join("trust.d/release.pub")).unwrap();
    write(
        "trust.d/trust.toml",
        "[[key]]\nid = 'release'\nfile = 'release.pub'\nuse = ['image']\n
[[root]]\nid = 'public-good'\nbuiltin = 'sigstore'\n",
    );
    write(
        "policy.d/rules.toml",
        "[[rule]]\nname = 'release images'\nmatch = { image = ['assay.test/enforced/**'] }\nmode = 'enforce'
[[rule.signature]]\nany = [{ key = 'release' }]\n
[[rule]]\nname = 'keyless'\nmatch = { image = ['assay.test/strangers/**'] }\nmode = 'enforce'
[[rule.signature]]\nany = [{ identity = 'https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*', \
         issuer = 'https://token.actions.githubusercontent.com', root = 'public-good' }]\n",
    );
    folder.join("config.toml")
}

fn a_node_without_any_interface_verifies_all_the_same(case: &Case) {
    if !needs_assay("verification") {
        return;
    }
    let interfaces = Command::new("/usr/bin/unshare")
        .args(["--net", "--", "/bin/cat", "/proc/net/dev"])
        .output()
        .unwrap();
    let interfaces = String::from_utf8_lossy(&interfaces.stdout).into_owned();
    let names: Vec<&str> = interfaces
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    // The loopback interface of a new namespace is always there, and down.
    assert_eq!(names, ["lo"], "{interfaces}");

    let config = configuration(&case.daemon.folder.join(case.id("node")));
    let does = |arguments: &[&str], code: i32, expected: &str| {
        let (exit, said) = without_network(&config, arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    let evidence = set_up("images/signed/busybox");
    does(&["policy", "check"], 0, "2 rules and 1 key are sound");
    does(&["policy", "apply"], 0, "");
    does(&["evidence", "import", evidence.to_str().unwrap()], 0, "1 imported");
    does(&["evidence", "ls"], 0, "image signature");
    does(&["trust", "show"], 0, "public-good");
    let socket = case.daemon.socket().display().to_string();
    for (image, code, expected) in [
        (SIGNED, 0, "signature-verified"),
        (WANTED_BY_ANOTHER, 3, "signer-not-wanted"),
    ] {
        does(
            &["verify", "--address", &socket, "--namespace", &case.daemon.scope, image],
            code,
            expected,
        );
    }

    let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sigstore-conformance/dsse-v0.3");
    let file = |name: &str| bundles.join(name).display().to_string();
    let text = |name: &str| fs::read_to_string(bundles.join(name)).unwrap().trim().to_owned();
    let (bundle, identity, issuer, artifact) = (
        file("bundle.sigstore.json"),
        text("identity"),
        text("issuer"),
        file("artifact"),
    );
    does(
        &[
            "verify-bundle",
            "--bundle",
            &bundle,
            "--certificate-identity",
            &identity,
            "--certificate-oidc-issuer",
            &issuer,
            &artifact,
        ],
        0,
        "",
    );

    // A decision that the shim asked for is explained, and its evidence verified again.
    let outcome = signed(case, "explained").run();
    assert_eq!(outcome.stdout, "ran\n", "{outcome:?}");
    let config = case.daemon.folder.join("assay/config.toml");
    let (exit, said) = without_network(&config, &["explain", &case.id("explained")]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("signature-verified"), "{said}");
}
