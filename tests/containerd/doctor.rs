//! `assay doctor` on real nodes: green after `assay configure`, and every breach is found by its own check.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::configure::{IMPORTS, assay, done, untouched};
use crate::harness::cri::Pod;
use crate::harness::daemon::PAUSE;
use crate::harness::{Daemon, Version, eventually_within, needs_assay};

/// A node with Assay, as the installation page makes one.
fn configured(version: Version) -> Daemon {
    let daemon = untouched(version, IMPORTS);
    done(&assay(&daemon, &["configure"]));
    done(&daemon.assay(&["policy", "apply"]));
    daemon.restart(|| ());
    daemon
}

/// What each check came to, the worst where a check was made more than once, and what it said.
fn standings(output: &Output) -> BTreeMap<String, (String, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
    for check in report["checks"].as_array().unwrap() {
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let standing = text("standing");
        assert_eq!(standing == "pass", text("fix").is_empty(), "{check}");
        let old = found.get(&text("code")).map(|(standing, _)| standing.as_str());
        if old.is_none_or(|old| old == "pass" || standing == "fail") {
            found.insert(text("code"), (standing, text("reason")));
        }
    }
    let failed = found.values().any(|(standing, _)| standing == "fail");
    assert_eq!(report["healthy"], !failed);
    assert_eq!(output.status.code(), Some(i32::from(failed)));
    found
}

fn doctor(daemon: &Daemon) -> BTreeMap<String, (String, String)> {
    standings(&assay(daemon, &["doctor", "-o", "json"]))
}

#[track_caller]
fn found(daemon: &Daemon, code: &str, standing: &str, said: &str) {
    let standings = doctor(daemon);
    let check = standings
        .get(code)
        .unwrap_or_else(|| panic!("no {code} in {standings:#?}"));
    assert_eq!(check.0, standing, "{code}: {standings:#?}");
    assert!(check.1.contains(said), "{code}: {}", check.1);
}

fn healthy(version: Version) {
    if !needs_assay("assay doctor") {
        return;
    }
    let daemon = configured(version);
    let standings = doctor(&daemon);
    let not: Vec<_> = standings
        .iter()
        .filter(|(_, (standing, _))| standing != "pass")
        .collect();
    let codes: Vec<&str> = not.iter().map(|(code, _)| code.as_str()).collect();
    // The stock handler is there on purpose, and so are unsigned images and an audit rule that asks for nothing.
    assert_eq!(
        codes,
        ["default-handler", "evidence-images", "other-handlers", "policy-sources"],
        "{not:#?}"
    );
    let (_, said) = &standings["self-test"];
    assert!(
        said.contains("sandbox allowed by rule \"pause\" (digest-listed)"),
        "{said}"
    );
    let text = assay(&daemon, &["doctor"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("ok    self-test: a pod of the handler assay"));
    assert_eq!(
        doctor(&daemon)["pods-outside"].0,
        "pass",
        "the self-test leaves a pod behind"
    );
}

#[test]
fn a_configured_containerd_1_6_is_healthy() {
    healthy(Version::V1_6);
}

#[test]
fn a_configured_containerd_1_7_is_healthy() {
    healthy(Version::V1_7);
}

#[test]
fn a_configured_containerd_2_is_healthy() {
    healthy(Version::V2_1);
}

#[test]
fn every_breach_is_found_by_its_own_check() {
    if !needs_assay("assay doctor") {
        return;
    }
    let daemon = configured(Version::V2_1);
    let home = daemon.folder.join("assay");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    mode(&home.join("run"), 0o777);
    found(&daemon, "run-directory", "fail", "run");
    mode(&home.join("run"), 0o700);

    mode(&daemon.socket(), 0o666);
    found(&daemon, "socket-mode", "fail", "everyone can open");
    mode(&daemon.socket(), 0o660);

    let pod = Pod::run(&daemon, "outside", "").unwrap();
    found(&daemon, "pods-outside", "warn", "default/outside");
    drop(pod);

    // A typo in policy changes nothing that is in force, and is found.
    let typo = home.join("policy.d/60-typo.toml");
    fs::write(&typo, "[[rule]]\nname = 'x'\nmtch = {}\n").unwrap();
    found(&daemon, "policy-sources", "fail", "60-typo.toml");
    fs::write(
        &typo,
        "[[rule]]\nname = 'x'\nmatch = { image = ['example.com/x'] }\nmode = 'audit'\n",
    )
    .unwrap();
    found(&daemon, "policy-in-force", "warn", "changed since");
    fs::remove_file(&typo).unwrap();

    // An upgrade of containerd that brings another sandbox image: no pod starts.
    let rule = home.join("policy.d/10-pause.toml");
    let text = fs::read_to_string(&rule).unwrap();
    let listed = PAUSE.manifest.to_string();
    assert!(text.contains(&listed), "{text}");
    fs::write(&rule, text.replace(&listed, &format!("sha256:{}", "0".repeat(64)))).unwrap();
    done(&daemon.assay(&["policy", "apply"]));
    found(&daemon, "pause-rule", "fail", "digest-not-listed");
    found(&daemon, "self-test", "fail", "digest-not-listed");
    // What it says to do helps.
    done(&assay(&daemon, &["configure"]));
    done(&daemon.assay(&["policy", "apply"]));
    found(&daemon, "pause-rule", "pass", "digest-listed");

    // Nothing in force.
    fs::rename(home.join("state/active"), home.join("active")).unwrap();
    found(&daemon, "policy-active", "fail", "no policy is active");
    fs::rename(home.join("active"), home.join("state/active")).unwrap_or_else(|_| {
        fs::remove_dir_all(home.join("state/active")).unwrap();
        fs::rename(home.join("active"), home.join("state/active")).unwrap();
    });

    // Shims that read another configuration than this command.
    let output = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["doctor", "-o", "json", "--address"])
        .arg(daemon.socket())
        .env_remove("ASSAY_CONFIG")
        .output()
        .unwrap();
    assert_eq!(standings(&output)["configuration-same"].0, "fail");

    // Written and not loaded; loaded and no more written.
    done(&assay(&daemon, &["configure", "--set-as-default"]));
    found(&daemon, "handler-loaded", "fail", "another default handler");
    done(&assay(&daemon, &["configure", "--uninstall"]));
    found(&daemon, "handler-configured", "fail", "no handler of Assay");

    // A file that containerd could not start with.
    let config = daemon.folder.join("containerd.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}[plugins\n")).unwrap();
    found(&daemon, "containerd-files", "fail", "cannot read");
}

#[test]
fn a_path_that_containerd_ignores_is_found_twice() {
    if !needs_assay("assay doctor") {
        return;
    }
    let daemon = untouched(Version::V1_6, "");
    daemon.restart(|| {
        let path = daemon.folder.join("containerd.toml");
        let handler = format!(
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.assay]\nruntime_type = \
             'io.containerd.runc.v2'\nruntime_path = '{}'\n",
            env!("CARGO_BIN_EXE_containerd-shim-assay-v1")
        );
        fs::write(&path, fs::read_to_string(&path).unwrap() + &handler).unwrap();
    });
    found(&daemon, "runtime-path-ignored", "fail", "run without Assay");
    found(&daemon, "self-test", "fail", "it runs without Assay");
    found(&daemon, "handler-annotations", "warn", "keeps annotations");
}

#[test]
fn a_kernel_that_refuses_what_assay_needs_is_found_by_trying() {
    if !needs_assay("assay doctor") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("assay-doctor-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let config = folder.join("config.toml");
    fs::write(
        &config,
        format!("state = '{dir}/state'\nrun = '{dir}/run'\n", dir = folder.display()),
    )
    .unwrap();
    let run = |program: &str, before: &[&str]| {
        let output = Command::new(program)
            .args(before)
            .args(["doctor", "--pre", "-o", "json", "--address", "/nonexistent.sock"])
            .env("ASSAY_CONFIG", &config)
            .output()
            .unwrap();
        standings(&output)
    };
    let assay = env!("CARGO_BIN_EXE_assay");
    let free = run(assay, &[]);
    assert_eq!(free["containerd-running"].0, "fail");
    for code in ["kernel-views", "kernel-parser", "kernel-seccomp", "shim-program"] {
        assert_eq!(free[code].0, "pass", "{code}: {free:#?}");
    }
    // The same kernel, for a process that may not mount.
    let shut = run(
        "setpriv",
        &["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", assay],
    );
    for code in ["kernel-views", "kernel-parser"] {
        assert_eq!(shut[code].0, "fail", "{code}: {shut:#?}");
    }
    assert!(!folder.join("state").exists(), "looking made the state");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_containerd_without_kubernetes_is_found() {
    if !needs_assay("assay doctor") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("assay-bare-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let dir = folder.display();
    let config = folder.join("containerd.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = '{dir}/root'\nstate = '{dir}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{dir}/c.sock'\n[plugins.'io.containerd.internal.v1.opt']\npath = '{dir}/opt'\n"
        ),
    )
    .unwrap();
    let mut containerd = Command::new(Version::V1_7.programs().join("containerd"))
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = folder.join("c.sock");
    eventually_within(Duration::from_secs(30), "the socket", || {
        let there = socket.exists();
        there.then_some(()).ok_or_else(|| "not there".to_owned())
    });
    let output = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["doctor", "-o", "json", "--address"])
        .arg(&socket)
        .output()
        .unwrap();
    kill_process(Pid::from_child(&containerd), Signal::TERM).unwrap();
    containerd.wait().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(standings(&output)["containerd-cri"].0, "fail");
}
