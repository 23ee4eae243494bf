//! What runs on a verified signature, what does not, and what a person then reads.

use std::fs;

use assay::admission::Verdict;
use containerd_client::tonic::{Code, Status};

use crate::harness::container::ContainerBuilder;
use crate::harness::cri::Pod;
use crate::harness::daemon::{DENIED, SIGNED, UNSIGNED, WANTED_BY_ANOTHER, set_up};
use crate::harness::image::Image;
use crate::harness::{Case, Version, assert_code, needs_assay, on_each_containerd};

on_each_containerd! {
    a_signed_image_runs,
    an_unsigned_image_is_refused,
    a_signature_by_a_key_that_policy_does_not_name,
    a_denied_image_is_refused_even_where_policy_only_audits,
    audit_runs_and_says_what_enforce_would_do,
    an_unsigned_image_under_a_signed_name,
    a_snapshot_of_another_image,
    a_snapshot_of_no_image,
    no_image_at_all,
    foreign_mounts,
    an_upper_directory_that_was_used,
    a_configuration_that_was_edited,
    nothing_activated,
    ctr_shows_the_refusal,
    a_pod_shows_the_refusal,
    every_container_of_a_pod_is_decided_on,
    verify_says_the_same,
    a_policy_diff_says_which_running_containers_would_be_refused,
}

/// Chain ID of the signed image's layer on this machine's architecture.
fn signed_chain_id(case: &Case) -> String {
    let manifest = case
        .daemon
        .ctr(&case.daemon.scope, &["images", "list", &format!("name=={SIGNED}")]);
    assert!(String::from_utf8_lossy(&manifest.stdout).contains(SIGNED));
    let blob = |digest: &str| -> serde_json::Value {
        let path = set_up("images/busybox/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let layout: serde_json::Value =
        serde_json::from_slice(&fs::read(set_up("images/busybox/index.json")).unwrap()).unwrap();
    let index = blob(layout["manifests"][0]["digest"].as_str().unwrap());
    // The image for this architecture is the first one.
    let manifest = blob(index["manifests"][0]["digest"].as_str().unwrap());
    let config = blob(manifest["config"]["digest"].as_str().unwrap());
    config["rootfs"]["diff_ids"][0].as_str().unwrap().to_owned()
}

/// A container of the image that the release key has signed.
pub fn signed(case: &Case, name: &str) -> ContainerBuilder<'static> {
    case.shell(name, "echo ran; exit 3")
        .image_name(SIGNED)
        .snapshot_parent(&signed_chain_id(case))
}

/// Fails unless Create was refused, with this code in Assay's one line, and the log says so too.
#[track_caller]
pub fn assert_refusal(case: &Case, name: &str, result: Result<impl std::fmt::Debug, Status>, code: &str) -> Status {
    let status = result.expect_err("Create had to be refused");
    // The errors of containerd before 2.0 have no word for a denied permission.
    let denied = if case.daemon.version == Version::V2_1 {
        Code::PermissionDenied
    } else {
        Code::Unknown
    };
    assert!(
        status.code() == denied || status.code() == Code::FailedPrecondition,
        "{status}"
    );
    let message = status.message();
    assert!(
        message.contains("assay refused") && message.contains(&format!("{code}: ")),
        "{message}"
    );
    assert!(message.contains("; to fix: "), "{message}");
    assert!(!message.trim_end().contains('\n'), "{message:?}");
    let decisions = case.daemon.decisions(&case.id(name));
    let last = decisions.last().expect("a decision in the log");
    assert_eq!((last.verdict, last.code.as_str()), (Verdict::Refuse, code));
    assert_code(case.client.state(&case.id(name), ""), Code::NotFound);
    status
}

fn a_signed_image_runs(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    for name in ["first", "again"] {
        let outcome = signed(case, name).run();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (3, "ran\n"));
        let decisions = case.daemon.decisions(&case.id(name));
        let [decision] = decisions.as_slice() else {
            panic!("{decisions:?}")
        };
        assert_eq!(
            (decision.verdict, decision.code.as_str()),
            (Verdict::Allow, "signature-verified")
        );
        assert_eq!(decision.rule.as_deref(), Some("release images"));
        assert_eq!(decision.evidence.len(), 1, "{decision:?}");
    }
}

fn an_unsigned_image_is_refused(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = case.shell("unsigned", "echo ran").image(&UNSIGNED).create();
    let status = assert_refusal(case, "unsigned", result, "signature-missing");
    assert_ne!(status.code(), Code::FailedPrecondition);
    for part in [
        &UNSIGNED.name,
        &UNSIGNED.manifest.to_string(),
        "\"release images\"",
        "assay evidence import",
    ] {
        assert!(status.message().contains(part), "no {part} in {status}");
    }
}

fn a_signature_by_a_key_that_policy_does_not_name(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = signed(case, "stranger").image_name(WANTED_BY_ANOTHER).create();
    assert_refusal(case, "stranger", result, "signer-not-wanted");
}

fn a_denied_image_is_refused_even_where_policy_only_audits(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = case.shell("denied", "echo ran").image(&DENIED).create();
    assert_refusal(case, "denied", result, "digest-denied");
}

fn audit_runs_and_says_what_enforce_would_do(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    // That this snapshot is not the image's would be refused by an enforce rule; here it is only noted.
    let container = case.shell("lied", "exit 3").snapshot_parent(&signed_chain_id(case));
    assert_eq!(container.run().status, 3);
    let decisions = case.daemon.decisions(&case.id("lied"));
    let [decision] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert_eq!(
        (decision.verdict, decision.code.as_str()),
        (Verdict::Allow, "audit-only")
    );
    assert_eq!(decision.audit[0].verdict, Verdict::Refuse, "{decision:?}");
}

fn an_unsigned_image_under_a_signed_name(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let image = Image::busybox("assay.test/plain/retagged:latest", "retagged", &["/bin/sh"]);
    case.daemon.import(&image, &case.daemon.scope);
    let name = format!("assay.test/enforced/{}:latest", case.id("signed"));
    case.daemon.tag(&case.daemon.scope, &image.name, &name);
    let result = case
        .shell("retagged", "echo ran")
        .image(&image)
        .image_name(&name)
        .create();
    assert_refusal(case, "retagged", result, "signature-missing");
}

fn a_snapshot_of_another_image(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = case
        .shell("foreign", "echo ran")
        .image(&UNSIGNED)
        .image_name(SIGNED)
        .create();
    // The same as if the name had been given to another image meanwhile.
    assert_refusal(case, "foreign", result, "image-retagged");
}

fn a_snapshot_of_no_image(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = case
        .shell("orphan", "echo ran")
        .image_name(SIGNED)
        .snapshot_parent("")
        .create();
    assert_refusal(case, "orphan", result, "snapshot-no-parent");
}

/// As `ctr run --rootfs`. What has no name can be matched by audit rules only.
fn no_image_at_all(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    assert_eq!(case.shell("nameless", "exit 3").image_name("").run().status, 3);
    let decisions = case.daemon.decisions(&case.id("nameless"));
    let [decision] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert!(decision.image.is_none(), "{decision:?}");
    assert_eq!(
        (decision.audit[0].verdict, decision.audit[0].code.as_str()),
        (Verdict::Refuse, "no-image")
    );
}

fn foreign_mounts(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let result = signed(case, "bind")
        .edit_mounts(|mounts| {
            "bind".clone_into(&mut mounts[0].r#type);
            "/".clone_into(&mut mounts[0].source);
            mounts[0].options = vec!["rbind".to_owned()];
        })
        .create();
    assert_refusal(case, "bind", result, "mounts-foreign");
    let result = signed(case, "lower")
        .edit_mounts(|mounts| {
            for option in &mut mounts[0].options {
                if let Some(lower) = option.strip_prefix("lowerdir=") {
                    *option = format!("lowerdir=/usr:{lower}");
                }
            }
        })
        .create();
    assert_refusal(case, "lower", result, "mounts-foreign");
    let result = signed(case, "option")
        .edit_mounts(|mounts| mounts[0].options.push("metacopy=on".to_owned()))
        .create();
    assert_refusal(case, "option", result, "mount-option-unknown");
}

fn an_upper_directory_that_was_used(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let mut container = signed(case, "used")
        .edit(|spec| spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "echo changed >/etc/passwd"]))
        .start();
    assert_eq!(container.wait(), 0);
    container.delete().unwrap();
    let result = container.create_again();
    assert_refusal(case, "used", result, "upper-reused");
}

fn a_configuration_that_was_edited(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let name = format!("assay.test/enforced/{}:latest", case.id("edited"));
    let image = Image::busybox(&name, &case.id("edited"), &["/bin/sh"]);
    case.daemon.import(&image, &case.daemon.scope);
    let blobs = case
        .daemon
        .folder
        .join("root/io.containerd.content.v1.content/blobs/sha256");
    let config = blobs.join(image.config.hex());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("amd64", "AMD64")).unwrap();
    let result = case.shell("edited", "echo ran").image(&image).create();
    assert_refusal(case, "edited", result, "config-edited");
}

/// A node whose administrator has not said anything yet.
fn nothing_activated(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let home = case.daemon.folder.join("assay").join(case.id("empty"));
    fs::create_dir(&home).unwrap();
    let config = home.join("config.toml");
    let dir = home.display();
    fs::write(
        &config,
        format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n"),
    )
    .unwrap();
    let options = crate::options::toml_options("", &config, "");
    let status = case
        .shell("unruled", "echo ran")
        .options_any(options)
        .create()
        .unwrap_err();
    assert!(status.message().contains("assay policy apply"), "{status}");
}

fn ctr_shows_the_refusal(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let (scope, runtime) = (&case.daemon.scope, crate::harness::runtime());
    let run = |image: &str, name: &str| {
        let id = case.id(name);
        case.daemon.ctr(
            scope,
            &["run", "--rm", "--runtime", &runtime, image, &id, "/bin/echo", "ran"],
        )
    };
    let allowed = run(SIGNED, "allowed");
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    assert_eq!(allowed.stdout, b"ran\n");
    assert!(
        allowed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&allowed.stderr)
    );

    let refused = run(&UNSIGNED.name, "refused");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    let line = text
        .lines()
        .find(|line| line.contains("assay refused"))
        .unwrap_or_else(|| panic!("{text}"));
    for part in [
        &UNSIGNED.name,
        &UNSIGNED.manifest.to_string(),
        "\"release images\"",
        "signature-missing",
        "to fix:",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

fn a_pod_shows_the_refusal(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let allowed = pod.create("allowed", SIGNED, &["/bin/sh", "-c", "exit 4"]).unwrap();
    pod.start(&allowed).unwrap();
    assert_eq!(pod.wait(&allowed).exit_code, 4);

    let refused = pod.create("refused", &UNSIGNED.name, &["/bin/sh"]).unwrap();
    let status = pod.start(&refused).unwrap_err();
    let state = pod.wait(&refused);
    assert_eq!(state.reason, "StartError");
    for text in [status.message(), &state.message] {
        for part in [
            &UNSIGNED.name,
            &UNSIGNED.manifest.to_string(),
            "\"release images\"",
            "signature-missing",
            "to fix:",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.trim_end().contains('\n'), "{text:?}");
    }
}

/// Init and ephemeral containers are told apart from others by when a kubelet asks for them, a static pod by where the
/// kubelet read of it. None of that is a way around.
fn every_container_of_a_pod_is_decided_on(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let from_a_file = [("kubernetes.io/config.source".to_owned(), "file".to_owned())];
    let pod = Pod::run_with(case.daemon, &case.id("pod"), "", |pod| {
        pod.annotations = from_a_file.into()
    })
    .unwrap();
    let refused = |name: &str| {
        let container = pod.create(name, &UNSIGNED.name, &["/bin/sh"]).unwrap();
        let status = pod.start(&container).unwrap_err();
        assert!(status.message().contains("signature-missing"), "{name}: {status}");
        assert_eq!(pod.wait(&container).reason, "StartError", "{name}");
    };
    refused("init");
    let main = pod.create("main", SIGNED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&main).unwrap();
    refused("ephemeral");
    let helper = pod.create("helper", SIGNED, &["/bin/sh", "-c", "exit 4"]).unwrap();
    pod.start(&helper).unwrap();
    assert_eq!(pod.wait(&helper).exit_code, 4);
}

fn verify_says_the_same(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let socket = case.daemon.socket();
    for (image, status, code) in [
        (SIGNED, 0, "signature-verified"),
        (UNSIGNED.name.as_str(), 4, "signature-missing"),
        (WANTED_BY_ANOTHER, 3, "signer-not-wanted"),
        (DENIED.name.as_str(), 3, "digest-denied"),
    ] {
        let output = case.daemon.assay(&[
            "verify",
            "--address",
            socket.to_str().unwrap(),
            "--namespace",
            &case.daemon.scope,
            image,
        ]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(text.contains(code), "{text}");
    }
}

fn a_policy_diff_says_which_running_containers_would_be_refused(case: &Case) {
    if !needs_assay("a verdict") {
        return;
    }
    let running = case
        .shell("running", "exec sleep 1000")
        .image_name(SIGNED)
        .snapshot_parent(&signed_chain_id(case))
        .start();
    let policy = case.daemon.folder.join(format!("{}.toml", case.id("new")));
    let rule = |key: &str| {
        format!(
            "[[rule]]\nname = 'new'\nmatch = {{ image = ['assay.test/enforced/**'] }}\n[[rule.signature]]\n\
             any = [{{ key = '{key}' }}]\n"
        )
    };
    let socket = case.daemon.socket();
    let diff = |more: &[&str]| {
        let arguments = [
            "policy",
            "diff",
            "--address",
            socket.to_str().unwrap(),
            "active",
            policy.to_str().unwrap(),
        ];
        let output = case.daemon.assay(&[&arguments[..], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    fs::write(&policy, rule("stranger")).unwrap();
    let (code, text) = diff(&["-o", "json"]);
    assert_eq!(code, Some(3), "{text}");
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of_ours = |change: &&serde_json::Value| change["container"] == case.id("running").as_str();
    let changes: Vec<_> = said["changes"].as_array().unwrap().iter().filter(of_ours).collect();
    let [change] = changes.as_slice() else {
        panic!("{said:#}")
    };
    assert_eq!(change["old"]["code"], "signature-verified");
    assert_eq!(change["old"]["rule"], "release images");
    assert_eq!(
        (change["new"]["verdict"].as_str(), change["new"]["code"].as_str()),
        (Some("refuse"), Some("signer-not-wanted"))
    );
    let (_, table) = diff(&[]);
    let line = table
        .lines()
        .find(|line| line.contains(&case.id("running")))
        .unwrap_or_else(|| panic!("{table}"));
    assert!(line.contains("refuse signer-not-wanted by \"new\""), "{line}");
    // Another rule with the same verdict is a difference; the container runs on whatever is said.
    fs::write(&policy, rule("release")).unwrap();
    let (_, text) = diff(&["-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let change = said["changes"].as_array().unwrap().iter().find(of_ours).unwrap();
    assert_eq!(
        (change["new"]["verdict"].as_str(), change["new"]["rule"].as_str()),
        (Some("allow"), Some("new"))
    );
    assert_eq!(case.daemon.decisions(&case.id("running")).len(), 1);
    running.kill(9).unwrap();
    running.wait();
    running.delete().unwrap();
    fs::remove_file(policy).unwrap();
}
