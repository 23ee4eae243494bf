//! The packages, installed, used, upgraded and removed in a Debian root of their own: what is left is what was there.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

#[allow(dead_code, reason = "other tests ask for the rest")]
#[path = "../apiserver/mod.rs"]
mod apiserver;
mod installer;
mod root;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use assay::digest::Digest;

use root::{
    Files, NEW, OLD, PACKAGES, Root, build, done, eventually, files, listed, package, replace, repository, same,
};

#[test]
fn a_new_administrator_goes_from_nothing_to_enforcing_and_back() {
    let folder = Root::unpacked();
    // Where nothing may lower a process's score, and AppArmor has no parser, containerd has to be told.
    replace(
        &folder.path().join("etc/containerd/config.toml"),
        "[plugins.\"io.containerd.grpc.v1.cri\"]",
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n    restrict_oom_score_adj = true\n    disable_apparmor = true",
    );
    let root = Root::start(folder);
    let before = files(root.folder.path());
    let dump = done(&root.run(&["containerd", "config", "dump"]));
    let (_, pause) = dump.split_once("sandbox_image = \"").unwrap();
    let pause = pause.split('"').next().unwrap();
    for (archive, name) in [
        ("pause", pause),
        ("nginx", "registry.example/prod/nginx:1"),
        ("busybox", "registry.example/prod/tool:1"),
    ] {
        done(&root.ctr(&["images", "import", &format!("/mnt/images/{archive}.tar")]));
        done(&root.ctr(&["images", "tag", &format!("assay.test/{archive}:latest"), name]));
    }

    let said = done(&root.run(&["dpkg", "--install", &package(OLD, "deb")]));
    assert!(said.contains("next: assay configure"), "{said}");
    done(&root.run(&["assay", "doctor", "--pre"]));
    // The example for a key of one's own, enforced.
    let examples = "/usr/share/doc/assay/examples/cosign-key";
    done(&root.run(&[
        "cp",
        &format!("{examples}/trust.toml"),
        "/etc/assay/trust.d/release.toml",
    ]));
    done(&root.run(&["cp", "/mnt/images/signed/release.pub", "/etc/assay/trust.d/release.pub"]));
    done(&root.run(&[
        "cp",
        &format!("{examples}/policy.toml"),
        "/etc/assay/policy.d/50-release.toml",
    ]));
    replace(
        &root.folder.path().join("etc/assay/policy.d/50-release.toml"),
        "mode = \"audit\"",
        "filesystem = { mode = \"enforce\" }\nmode = \"enforce\"",
    );
    done(&root.run(&["assay", "evidence", "import", "/mnt/images/signed/nginx"]));
    done(&root.run(&["assay", "configure"]));
    done(&root.run(&["assay", "policy", "apply"]));
    root.restart_containerd();
    let doctor = done(&root.run(&["assay", "doctor"]));
    assert!(doctor.contains(": 0 failed,"), "{doctor}");
    let warnings: BTreeSet<&str> = doctor
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("warn "))
        .filter_map(|line| line.trim_start().split(':').next())
        .collect();
    // That one of the images is not signed, that pods have to ask for the handler, and that the rule of the package lets
    // everything run which no other rule is about.
    assert_eq!(
        warnings,
        BTreeSet::from(["evidence-images", "default-handler", "other-handlers", "policy-sources"]),
        "{doctor}"
    );
    assert!(
        doctor.contains("ok    self-test: a pod of the handler assay"),
        "{doctor}"
    );

    let assay = ["run", "--runtime", "io.containerd.assay.v1"];
    let signed = [
        &assay[..],
        &["--detach", "registry.example/prod/nginx:1", "signed", "sleep", "1000"],
    ]
    .concat();
    done(&root.ctr(&signed));
    let unsigned = [
        &assay[..],
        &["--rm", "registry.example/prod/tool:1", "unsigned", "true"],
    ]
    .concat();
    let refused = root.ctr(&unsigned);
    assert!(!refused.status.success());
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.contains("by rule \"release images\": signature-missing"),
        "{refused}"
    );
    assert!(refused.contains("; to fix: assay evidence"), "{refused}");

    // Installed again, and upgraded: handler and containers are left alone, and the new programs know what was kept.
    for revision in [OLD, NEW] {
        done(&root.run(&["dpkg", "--install", &package(revision, "deb")]));
        assert!(done(&root.ctr(&["tasks", "ls"])).contains("RUNNING"));
        done(&root.ctr(&["tasks", "exec", "--exec-id", revision, "signed", "sleep", "0"]));
        let why = done(&root.run(&["assay", "explain", "signed"]));
        assert!(why.contains("release images"), "{why}");
        let doctor = done(&root.run(&["assay", "doctor"]));
        assert!(doctor.contains("ok    policy-in-force"), "{doctor}");
    }

    // What the administrator wrote is the administrator's to delete.
    done(&root.run(&[
        "rm",
        "/etc/assay/policy.d/50-release.toml",
        "/etc/assay/trust.d/release.toml",
        "/etc/assay/trust.d/release.pub",
    ]));
    let said = done(&root.run(&["dpkg", "--remove", "assay"]));
    assert!(said.contains("restart containerd"), "{said}");
    assert!(said.contains("end them before containerd is restarted"), "{said}");
    let kept = files(root.folder.path());
    assert!(kept.contains_key("var/lib/assay/decisions.jsonl"));
    same(&before, &without(kept, &KEPT));

    // What a container that runs sees its image through outlives even a purge.
    let said = done(&root.run(&["dpkg", "--purge", "assay"]));
    assert!(said.contains("delete it when they have ended"), "{said}");
    let tasks = done(&root.ctr(&["tasks", "ls"]));
    let line = tasks.lines().find(|line| line.starts_with("signed")).unwrap();
    let process = line.split_whitespace().nth(1).unwrap();
    done(&root.run(&["cat", &format!("/proc/{process}/root/bin/sleep")]));
    done(&root.ctr(&["tasks", "kill", "--signal", "KILL", "signed"]));
    eventually("the end of the container", || {
        root.ctr(&["tasks", "rm", "signed"]).status.success().then_some(())
    });
    done(&root.ctr(&["containers", "rm", "signed"]));
    done(&root.run(&["rm", "-r", "/var/lib/assay"]));
    root.restart_containerd();
    same(&before, &files(root.folder.path()));

    // With nothing running, a purge leaves nothing.
    done(&root.run(&["dpkg", "--install", &package(OLD, "deb")]));
    done(&root.run(&["assay", "configure"]));
    done(&root.run(&["assay", "policy", "apply"]));
    root.restart_containerd();
    done(&root.run(&["assay", "doctor"]));
    done(&root.run(&["dpkg", "--purge", "assay"]));
    assert!(!root.run(&["test", "-e", "/run/assay"]).status.success());
    same(&before, &files(root.folder.path()));
}

fn without(mut files: Files, those: &[&str]) -> Files {
    files.retain(|name, _| !those.iter().any(|folder| Path::new(name).starts_with(folder)));
    files
}

/// What only a purge deletes: configuration, what Assay wrote, and what dpkg needs for the purge.
const KEPT: [&str; 4] = [
    "etc/assay",
    "var/lib/assay",
    "var/lib/dpkg/info/assay.list",
    "var/lib/dpkg/info/assay.postrm",
];

#[test]
fn an_rpm_package_comes_and_goes() {
    let folder = Root::unpacked();
    let root = Root::start(folder);
    let before = files(root.folder.path());
    let rpm = |arguments: &[&str]| {
        let rpm = ["rpm", "--dbpath", "/var/lib/rpm"];
        done(&root.run(&[&rpm[..], arguments].concat()))
    };
    let said = rpm(&["--install", "--nodeps", &package(OLD, "rpm")]);
    assert!(said.contains("next: assay configure"), "{said}");
    assert!(done(&root.run(&["assay", "--version"])).contains(env!("CARGO_PKG_VERSION")));
    done(&root.run(&["assay", "doctor", "--pre"]));
    done(&root.run(&["assay", "policy", "check"]));
    done(&root.run(&["assay", "configure"]));
    rpm(&["--upgrade", "--nodeps", &package(NEW, "rpm")]);
    assert!(
        done(&root.run(&["containerd", "config", "dump"])).contains("io.containerd.assay.v1"),
        "an upgrade takes nothing back"
    );
    let said = rpm(&["--erase", "assay"]);
    assert!(said.contains("restart containerd"), "{said}");
    same(&before, &files(root.folder.path()));
}

#[test]
fn the_same_programs_give_the_same_packages() {
    let again = tempfile::tempdir().unwrap();
    build(again.path(), OLD);
    let digests = |folder: &Path| -> Vec<Digest> {
        let files = listed(folder).into_iter();
        files.map(|path| Digest::of(&fs::read(path).unwrap())).collect()
    };
    let digests_again = digests(again.path());
    assert_eq!(digests_again.len(), 2);
    assert_eq!(digests_again, digests(&PACKAGES.path().join(OLD)));
}

#[test]
fn the_examples_and_the_default_policy_are_sound() {
    let key = repository("target/images/signed/release.pub");
    let mut checked = 0;
    let examples = listed(&repository("packaging/examples"));
    for example in examples.into_iter().chain([repository("packaging/default/policy.d")]) {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        for name in ["policy.d", "trust.d"] {
            fs::create_dir(place(name)).unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for file in listed(&example) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let to = if name == "trust.toml" { "trust.d" } else { "policy.d" };
            fs::copy(&file, place(to).join(name)).unwrap();
        }
        // The files that each example says to put beside it.
        let trust = fs::read_to_string(place("trust.d/trust.toml")).unwrap_or_default();
        for name in trust.split('"').filter(|word| word.ends_with(".pub")) {
            fs::copy(&key, place("trust.d").join(name)).unwrap();
        }
        for name in trust.split('"').filter(|word| word.ends_with(".json")) {
            let root = repository("fuzz/corpus/trusted_root/rekor2");
            fs::copy(root, place("trust.d").join(name)).unwrap();
        }
        for name in trust.split('"').filter(|word| word.ends_with(".pem")) {
            let mut certificate = Command::new("openssl");
            certificate
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                ])
                .args(["-subj", "/O=acme", "-keyout", "/dev/null", "-out"])
                .arg(place("trust.d").join(name));
            done(&certificate.output().unwrap());
        }
        let config = place("config.toml");
        let base = folder.path().display();
        fs::write(
            &config,
            format!("state = \"{base}/state\"\npolicy = \"{base}/policy.d\"\ntrust = \"{base}/trust.d\"\n"),
        )
        .unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_assay"));
        let check = check
            .args(["policy", "check"])
            .env("ASSAY_CONFIG", &config)
            .output()
            .unwrap();
        assert!(check.status.success(), "{}: {}", example.display(), done(&check));
        checked += 1;
    }
    assert!(checked > 6, "the examples are not where this test looks");
}
