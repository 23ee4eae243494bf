//! What a rule takes out of the specification of a container that it allows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::container::ContainerBuilder;
use crate::harness::daemon::{MINIMIZED, NARROWED};
use crate::harness::{Case, needs_assay, on_each_containerd};
use crate::refusals::{assert_refusal, signed};

on_each_containerd! {
    a_container_gets_less_than_it_asked_for,
    what_asks_for_less_already_stays_as_it_is,
    user_0_is_refused,
    a_container_sees_only_what_it_needs,
    equal_needs_share_a_view,
}

/// A container of user 1000 that asks for more than its rule leaves it.
fn narrowed(case: &Case, name: &str) -> ContainerBuilder<'static> {
    signed(case, name).image_name(NARROWED).edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["noNewPrivileges"] = false.into();
        spec["root"]["readonly"] = false.into();
    })
}

fn a_container_gets_less_than_it_asked_for(case: &Case) {
    if !needs_assay("a rule that narrows") {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy("/bin/busybox", volume.path().join("true")).unwrap();
    let source = volume.path().to_str().unwrap().to_owned();
    let container = narrowed(case, "narrowed")
        .edit(|spec| {
            spec["process"]["args"] = json!(["/bin/sleep", "60"]);
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", "rw"],
            }));
        })
        .start();
    let seen = container.run(
        "look",
        "touch /written; touch /mnt/written && echo volume; /mnt/true; grep NoNewPrivs /proc/self/status",
    );
    assert_eq!(seen.stdout, "volume\nNoNewPrivs:\t1\n", "{seen:?}");
    assert!(seen.stderr.contains("/written: Read-only file system"), "{seen:?}");
    assert!(seen.stderr.contains("/mnt/true: Permission denied"), "{seen:?}");
    let decisions = case.daemon.decisions(&case.id("narrowed"));
    let edits = &decisions[0].edits;
    assert!(edits.read_only_root && edits.noexec_mounts && edits.no_new_privileges);
}

fn what_asks_for_less_already_stays_as_it_is(case: &Case) {
    if !needs_assay("a rule that narrows") {
        return;
    }
    let outcome = narrowed(case, "narrow")
        .edit(|spec| {
            spec["process"]["noNewPrivileges"] = true.into();
            spec["root"]["readonly"] = true.into();
        })
        .run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (3, "ran\n"));
}

fn user_0_is_refused(case: &Case) {
    if !needs_assay("a rule that wants another user") {
        return;
    }
    let result = signed(case, "root").image_name(NARROWED).create();
    let status = assert_refusal(case, "root", result, "user-root");
    assert!(status.message().contains("runAsUser"), "{status}");
}

fn a_container_sees_only_what_it_needs(case: &Case) {
    if !needs_assay("a view") {
        return;
    }
    let container = signed(case, "minimized")
        .image_name(MINIMIZED)
        .edit(|spec| spec["process"]["args"] = json!(["/bin/sh", "-c", "sleep 60"]))
        .start();
    let root = format!("/proc/{}/root", container.pid);
    let mut programs: Vec<_> = fs::read_dir(format!("{root}/bin"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    programs.sort();
    // Of some three hundred; busybox itself names /bin/login.
    assert_eq!(programs, ["busybox", "login", "sh", "sleep"]);
    // What the container writes is its own, under whatever name.
    fs::write(format!("{root}/bin/ls"), "mine").unwrap();
    assert_eq!(fs::read_to_string(format!("{root}/bin/ls")).unwrap(), "mine");
    let hidden = container.exec("hidden", &["/bin/cat", "/etc/passwd"]).unwrap();
    let error = hidden.start().unwrap_err();
    assert!(error.message().contains("/bin/cat"), "{error}");
    let decisions = case.daemon.decisions(&case.id("minimized"));
    let files = decisions[0].files.clone().expect("what the view shows");
    assert_eq!((files.sbom, files.unfollowed), (None, Vec::new()));
    assert!(files.counts.files.0 >= files.counts.files.1, "{:?}", files.counts);
}

fn equal_needs_share_a_view(case: &Case) {
    if !needs_assay("a view") {
        return;
    }
    let mut views = Vec::new();
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        let name = format!("pod-{}", views.len());
        let outcome = signed(case, &name)
            .image_name(MINIMIZED)
            .edit(|spec| {
                spec["process"]["args"] = json!(["/bin/sh", "-c", "echo $0", address]);
                spec["process"]["env"] = json!(["PATH=/bin", format!("KUBERNETES_SERVICE_HOST={address}")]);
            })
            .run();
        assert_eq!(outcome.stdout, format!("{address}\n"), "{outcome:?}");
        views.push(case.daemon.decisions(&case.id(&name))[0].view.clone().expect("a view"));
    }
    assert_eq!(views[0], views[1]);
}
