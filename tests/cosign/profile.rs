//! A seccomp profile that the publisher attests to an image with cosign, as `docs/seccomp.md` says, from the registry to
//! the verdict.

use std::fs;
use std::path::Path;
use std::process::Command;

use assay::seccomp::Profile;
use assay::syscalls::Machine;

use crate::registry::{self, REPOSITORY, Registry};
use crate::verdict;

#[test]
fn a_profile_that_cosign_attests_is_pulled_and_meets_its_rule() {
    let keep = tempfile::tempdir().unwrap();
    let folder = keep.path();
    for name in ["policy", "trust", "docker"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &[u8]| fs::write(folder.join(name), text).unwrap();
    let registry = Registry::start(folder);
    let image = registry.image(&registry::image("profiled"));
    let name = format!("{}/{REPOSITORY}@{image}", registry.address);
    let cosign = |arguments: &[&str]| {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cosign/bin/cosign");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env_clear();
        command.env("HOME", folder).env("COSIGN_PASSWORD", "");
        let output = command
            .output()
            .expect("cosign is not in target/tools: run `make setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    cosign(&["generate-key-pair", "--output-key-prefix", "profile"]);
    fs::copy(folder.join("profile.pub"), folder.join("trust/profile.pub")).unwrap();
    write(
        "trust/trust.toml",
        b"[[key]]\nid = \"profile\"\nfile = \"profile.pub\"\nuse = [\"profile\"]\n",
    );
    write(
        "policy/rules.toml",
        format!(
            "[[rule]]\nname = \"all\"\nmatch = {{ image = [\"**\"] }}\nmode = \"enforce\"\ndigest = [\"{image}\"]\n\
             [[rule.profile]]\nany = [{{ key = \"profile\" }}]\n[rule.seccomp]\nmode = \"enforce\"\n"
        )
        .as_bytes(),
    );
    let setting = |name: &str| format!("{name} = \"{}\"\n", folder.join(name).display());
    let settings = ["state", "run", "policy", "trust"].map(setting).concat();
    write("config.toml", settings.as_bytes());
    write(
        "test.toml",
        format!(
            "[[test]]\nname = \"it\"\nimage = \"{name}\"\ndigest = \"{image}\"\nevidence = \"state/evidence\"\n\
             expect = \"allow\"\n"
        )
        .as_bytes(),
    );
    let assay = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(arguments).current_dir(folder).env_clear();
        command.env("ASSAY_CONFIG", folder.join("config.toml"));
        command.env("DOCKER_CONFIG", folder.join("docker"));
        verdict(&command.output().unwrap())
    };
    let judged = || {
        let pulled = assay(&["evidence", "pull", "--plain-http", &name]).1;
        fs::create_dir_all(folder.join("state/evidence")).unwrap();
        let (allowed, said) = assay(&["policy", "test", folder.join("test.toml").to_str().unwrap()]);
        (allowed, format!("{said}{pulled}"))
    };

    // No log: cosign would ask one that this machine cannot reach. A publisher has one.
    cosign(&["signing-config", "create", "--out", "signing.json"]);
    let attest = |kind: &str| {
        cosign(&[
            "attest",
            "--yes",
            "--key",
            "profile.key",
            "--signing-config",
            "signing.json",
            "--predicate",
            "predicate.json",
            "--type",
            kind,
            "--allow-http-registry",
            &name,
        ]);
    };
    write(
        "predicate.json",
        &Profile::allow(Machine::native(), ["read", "write", "exit_group"]).to_json(),
    );
    attest("https://example.com/another/v1");
    let (allowed, said) = judged();
    assert!(!allowed && said.contains("profile"), "{said}");
    attest("https://assay.dev/seccomp-profile/v1");
    let (allowed, said) = judged();
    assert!(allowed, "{said}");
}
