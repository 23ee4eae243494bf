//! What a rule takes out of the specification of a container that it allows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::container::ContainerBuilder;
use crate::harness::cri::Pod;
use crate::harness::daemon::{DEBIAN, MINIMIZED, NARROWED, REHEARSED, debian};
use crate::harness::leftovers::{alive, command_line, parent_of, processes};
use crate::harness::{Case, Version, eventually, needs_assay, on_each_containerd};
use crate::refusals::{assert_refusal, signed};

on_each_containerd! {
    a_container_gets_less_than_it_asked_for,
    what_asks_for_less_already_stays_as_it_is,
    user_0_is_refused,
    a_container_sees_only_what_it_needs,
    equal_needs_share_a_view,
    the_report_compares_an_image_with_its_view,
    what_an_audited_container_uses_becomes_a_policy,
    an_audit_rule_takes_no_file_away,
    a_watch_ends_with_the_shim_that_is_killed,
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
    for part in [
        "/bin/cat is in the image and hidden",
        "exec = [\"/bin/cat\"]",
        "rule \"minimized\"",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    // By name too, as a probe writes it; and what is not in the image is not said to be.
    let named = container.exec("named", &["id"]).unwrap();
    let error = named.start().unwrap_err();
    assert!(error.message().contains("exec = [\"/bin/id\"]"), "{error}");
    let missing = container.exec("missing", &["/bin/no-such-program"]).unwrap();
    let error = missing.start().unwrap_err();
    assert!(!error.message().contains("hidden"), "{error}");
    // A kubelet is told the same. Of an image with several names, containerd before 2 tells another one than was asked for.
    let pod = Pod::run(case.daemon, &case.id("pod"), "").unwrap();
    let probed = pod.create("probed", MINIMIZED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&probed).unwrap();
    let minimized = case.daemon.decisions(&probed)[0].rule.as_deref() == Some("minimized");
    assert!(minimized || case.daemon.version != Version::V2_1);
    if minimized {
        let error = pod.exec(&probed, &["cat", "/etc/passwd"]).unwrap_err();
        assert!(error.message().contains("exec = [\"/bin/cat\"]"), "{error}");
    }
    pod.stop(&probed).unwrap();

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

fn the_report_compares_an_image_with_its_view(case: &Case) {
    if !needs_assay("a report") {
        return;
    }
    case.daemon.import_debian();
    let scope = &case.daemon.scope;
    let socket = case.daemon.socket();
    let report = |further: &[&str]| {
        let of = ["report", DEBIAN, "--namespace", scope, "--address"];
        let arguments = [&of[..], &[socket.to_str().unwrap()], further].concat();
        let output = case.daemon.assay(&arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&report(&["-o", "json"])).unwrap();
    let figure = |name: &str| {
        let all = json["figures"].as_array().unwrap();
        let found = all.iter().find(|figure| figure["name"] == name).unwrap();
        let listed = |key: &str| found[key].as_array().unwrap().clone();
        (
            found["image"].as_u64().unwrap(),
            found["visible"].as_u64().unwrap(),
            listed("shown"),
            listed("hidden"),
        )
    };
    for name in [
        "files",
        "packages",
        "executables",
        "set-uid and set-gid",
        "shells",
        "package managers",
    ] {
        let (image, visible, shown, hidden) = figure(name);
        assert_eq!((shown.len() + hidden.len()) as u64, image, "{name}");
        assert_eq!(shown.len() as u64, visible, "{name}");
        assert!(image > 0 && visible < image, "{name}: {visible} of {image}");
    }
    assert_eq!(figure("set-uid and set-gid").1, 0);
    assert!(
        figure("shells").3.contains(&json!("/usr/bin/bash")),
        "{:?}",
        figure("shells")
    );
    assert!(figure("executables").2.contains(&json!("/usr/sbin/nginx")));
    let unreachable = json["unreachable"].as_array().unwrap();
    let dpkg = unreachable
        .iter()
        .find(|package| package["name"] == "dpkg")
        .expect("dpkg is hidden");
    assert!(
        !unreachable.iter().any(|package| package["name"] == "nginx"),
        "{unreachable:?}"
    );

    let text = report(&[]);
    assert!(
        text.contains("package managers, hidden:") && text.contains("  /usr/bin/dpkg\n"),
        "{text}"
    );
    let page = report(&["-o", "html"]);
    assert!(
        page.starts_with("<!doctype html>") && page.ends_with("</html>\n"),
        "{page}"
    );

    // What hides a package for good says so to a scanner, for this image in this view.
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("scan.json");
    let found = |id: &str, purl: &Value| json!({ "vulnerability": { "id": id }, "artifact": { "purl": purl } });
    let matches = [
        found("CVE-1", &dpkg["purl"]),
        found("CVE-2", &json!("pkg:deb/debian/nginx@1?arch=amd64")),
    ];
    fs::write(&scan, json!({ "matches": matches }).to_string()).unwrap();
    let vex: Value = serde_json::from_str(&report(&["--openvex", scan.to_str().unwrap()])).unwrap();
    let statements = vex["statements"].as_array().unwrap();
    assert_eq!(statements.len(), 1, "{vex}");
    assert_eq!(statements[0]["vulnerability"]["name"], "CVE-1");
    let product = statements[0]["products"][0]["@id"].as_str().unwrap();
    let view = json["view"].as_str().unwrap();
    assert!(
        product.contains(json["manifest"].as_str().unwrap()) && product.contains(view),
        "{product}"
    );
    // What it looked at is given back at once, not when its lease ends.
    eventually("the end of all looks", || {
        let listed = case.daemon.ctr(scope, &["snapshots", "ls"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        if listed.contains("View") { Err(listed) } else { Ok(()) }
    });
}

/// A container of a Debian image that sleeps, under a rule that audits its file system.
fn audited(case: &Case, name: &str) -> ContainerBuilder<'static> {
    case.daemon.import_debian();
    case.container(name, &["/usr/bin/sleep", "1000"])
        .image_name(DEBIAN)
        .snapshot_parent(&debian().layer)
}

/// What `assay view suggest` says about a container.
fn suggested(case: &Case, name: &str) -> String {
    let (id, scope) = (case.id(name), case.daemon.scope.as_str());
    let output = case.daemon.assay(&["view", "suggest", &id, "--namespace", scope]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The process that watches what a container uses.
fn watcher(shim: u32) -> Option<u32> {
    let is_watcher =
        |pid: &u32| parent_of(*pid) == Some(shim) && command_line(*pid).get(1).is_some_and(|word| word == "watch");
    processes().into_iter().find(is_watcher)
}

fn what_an_audited_container_uses_becomes_a_policy(case: &Case) {
    if !needs_assay("an audit of files") {
        return;
    }
    let container = audited(case, "audited").start();
    let decision = case.daemon.decisions(&case.id("audited")).remove(0);
    assert!(decision.view.is_none(), "{decision:?}");
    let files = decision.files.expect("what enforce would hide");
    let audit = files.audit.expect("what enforce would hide");
    assert_eq!((audit.rule.as_str(), audit.refuse.as_str()), ("audited", ""));
    assert!(audit.names > 100 && !audit.first.is_empty(), "{audit:?}");

    // It sees everything, and what it uses of the hidden is told.
    let script = "id >/dev/null; id >/dev/null; ls /usr/share/doc/dpkg >/dev/null; head -c 1 /usr/bin/perl >/dev/null; sleep 1; echo done";
    let seen = container.run("use", script);
    assert_eq!((seen.status, seen.stdout.as_str()), (0, "done\n"), "{seen:?}");
    eventually("what was used", || {
        let fragment = suggested(case, "audited");
        if fragment.contains("\"/usr/bin/id\"") {
            Ok(())
        } else {
            Err(fragment)
        }
    });
    assert!(watcher(container.shim()).is_some());
    // A report about a container is about what it was started with.
    let socket = case.daemon.socket();
    let of = [
        "report",
        &case.id("audited"),
        "--namespace",
        &case.daemon.scope,
        "--address",
    ];
    let report = case
        .daemon
        .assay(&[&of[..], &[socket.to_str().unwrap(), "-o", "json"]].concat());
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let executables = &report["figures"][3];
    assert_eq!(
        (&executables["name"], &report["enforced"]),
        (&json!("executables"), &json!(false))
    );
    let shown = executables["shown"].as_array().unwrap();
    assert!(
        shown.contains(&json!("/usr/bin/sleep")) && !shown.contains(&json!("/usr/sbin/nginx")),
        "{shown:?}"
    );
    drop(container);

    // The record outlives the container, and the watcher does not.
    let fragment = suggested(case, "audited");
    assert!(!fragment.contains("no end is recorded"), "{fragment}");
    assert!(
        fragment.contains("# For rule \"audited\":\n[rule.filesystem]\nexec = ["),
        "{fragment}"
    );
    let line = |path: &str| {
        let found = fragment
            .lines()
            .find(|line| line.starts_with(&format!("  \"{path}\", #")));
        found.unwrap_or_else(|| panic!("no {path} in {fragment}")).to_owned()
    };
    // Who it was is known of those that live a little longer, by the name before the exec or after it.
    assert!(line("/usr/bin/dash").contains("executed 1 times by '"), "{fragment}");
    assert!(line("/usr/bin/id").contains("first at 20"), "{fragment}");
    assert!(
        line("/usr/share/doc/dpkg").contains("opened as a directory 1 times by "),
        "{fragment}"
    );
    let policy: toml::Table = toml::from_str(&fragment.replace("[rule.filesystem]", "")).unwrap();
    let has = |key: &str, path: &str| policy[key].as_array().unwrap().contains(&path.into());
    assert!(
        has("exec", "/usr/bin/dash") && has("keep", "/usr/bin/perl"),
        "{fragment}"
    );
    // What it needs anyway is not in it, and nothing that it did not use.
    assert!(
        !has("exec", "/usr/bin/sleep") && !has("exec", "/usr/bin/env"),
        "{fragment}"
    );

    let none = case
        .daemon
        .assay(&["view", "suggest", "nobody", "--namespace", &case.daemon.scope]);
    assert_eq!(none.status.code(), Some(7), "{none:?}");
}

fn an_audit_rule_takes_no_file_away(case: &Case) {
    if !needs_assay("an audit of files") {
        return;
    }
    let outcome = signed(case, "rehearsed")
        .image_name(REHEARSED)
        .edit(|spec| spec["process"]["args"] = json!(["/bin/sh", "-c", "/bin/id -u"]))
        .run();
    assert_eq!(outcome.stdout, "0\n", "{outcome:?}");
    let decision = case.daemon.decisions(&case.id("rehearsed")).remove(0);
    assert_eq!(decision.code, "audit-only");
    let audit = decision
        .files
        .and_then(|files| files.audit)
        .expect("what enforce would hide");
    assert_eq!(audit.rule, "to be minimized");
    assert!(audit.names > 100, "{audit:?}");
    assert!(decision.view.is_none() && decision.evidence.is_empty());
}

fn a_watch_ends_with_the_shim_that_is_killed(case: &Case) {
    if !needs_assay("an audit of files") {
        return;
    }
    let container = audited(case, "killed").start();
    let shim = container.shim();
    let watcher = watcher(shim).expect("a watcher");
    let shim = rustix::process::Pid::from_raw(shim.cast_signed()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    eventually("the end of the watcher", || {
        if alive(watcher) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
    // It had its last word.
    let fragment = suggested(case, "killed");
    assert!(!fragment.contains("no end is recorded"), "{fragment}");
}
