//! `[rule.exec]`: which further processes may be started in a container.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use assay::admission::Verdict;
use containerd_client::tonic::Code;
use serde_json::json;

use crate::harness::container::ContainerBuilder;
use crate::harness::daemon::{MINIMIZED, NARROWED};
use crate::harness::{Case, Container, Daemon, Version, assert_code, needs_assay};
use crate::refusals::signed;

const CLOSURE: &str = MINIMIZED;
const DENY: &str = NARROWED;

fn rule(image: &str, mode: &str) -> String {
    format!(
        "[[rule]]\nname = '{image}'\nmatch = {{ image = ['{image}'] }}\nmode = 'enforce'\n[[rule.signature]]\n\
         any = [{{ key = 'release' }}]\n[rule.filesystem]\nmode = 'enforce'\nexec = ['/bin/date']\n\
         [rule.exec]\nmode = '{mode}'\n"
    )
}

/// A node of its own, since its policy is.
fn node(name: &str) -> Case {
    let daemon: &'static Daemon = Box::leak(Box::new(Daemon::start(Version::V2_1)));
    let policy = [rule(CLOSURE, "closure"), rule(DENY, "deny")].concat();
    fs::write(daemon.folder.join("assay/policy.d/50-tests.toml"), policy).unwrap();
    let applied = daemon.assay(&["policy", "apply"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    Case::on(daemon, name)
}

fn sleeper(case: &Case, name: &str) -> ContainerBuilder<'static> {
    signed(case, name).edit(|spec| spec["process"]["args"] = json!(["/bin/sh", "-c", "sleep 1000"]))
}

#[track_caller]
fn runs(container: &Container, id: &str, arguments: &[&str]) {
    let exec = container.exec(id, arguments).unwrap();
    exec.start().unwrap();
    assert_eq!(exec.finish().status, 0, "{arguments:?}");
}

#[track_caller]
fn refused(container: &Container, id: &str, arguments: &[&str], code: &str) {
    let said = assert_code(container.exec(id, arguments), Code::PermissionDenied);
    let program = arguments[0];
    assert!(
        said.contains(&format!("assay refused exec of {program}: {code}: "))
            && said.contains("policy.d/50-tests.toml:"),
        "{said}"
    );
}

#[test]
fn only_programs_of_the_closure_are_started_and_every_exec_is_on_record() {
    if !needs_assay("[rule.exec]") {
        return;
    }
    let case = node("gate-closure");
    let volume = tempfile::tempdir().unwrap();
    let tool = |path: &std::path::Path| {
        fs::copy("/bin/busybox", path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool(&volume.path().join("true"));
    let source = volume.path().to_str().unwrap().to_owned();
    let container = sleeper(&case, "closure")
        .image_name(CLOSURE)
        .edit(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", "rw"],
            }));
        })
        .start();
    runs(&container, "path", &["/bin/sleep", "0"]);
    runs(&container, "name", &["sleep", "0"]);
    runs(&container, "shell", &["/bin/sh", "-c", "exit 0"]);
    runs(&container, "listed", &["date"]);

    let root = std::path::PathBuf::from(format!("/proc/{}/root", container.pid));
    tool(&root.join("true"));
    fs::create_dir(root.join("dir")).unwrap();
    symlink("/mnt/true", root.join("dir/true")).unwrap();
    symlink("/bin/sleep", root.join("dir/sleep")).unwrap();
    refused(&container, "written", &["/true"], "exec-written");
    refused(&container, "mounted", &["/mnt/true"], "exec-on-mount");
    refused(&container, "link", &["/dir/true"], "exec-on-mount");
    refused(&container, "memory", &["/proc/1/exe"], "exec-unreadable");
    refused(&container, "missing", &["/bin/no-such-program"], "exec-not-found");
    // By another name it is still a program of the image.
    runs(&container, "alias", &["/dir/sleep", "0"]);
    let hidden = container.exec("hidden", &["/bin/cat", "/etc/passwd"]).unwrap_err();
    assert!(hidden.message().contains("exec = [\"/bin/cat\"]"), "{hidden}");

    let records = case.daemon.execs(&container.id);
    let said: Vec<_> = records.iter().map(|record| record.code.as_str()).collect();
    assert_eq!(
        said,
        [
            "exec-in-closure",
            "exec-in-closure",
            "exec-in-closure",
            "exec-listed",
            "exec-written",
            "exec-on-mount",
            "exec-on-mount",
            "exec-unreadable",
            "exec-not-found",
            "exec-in-closure",
            "exec-not-found",
        ]
    );
    let shell = &records[2];
    assert_eq!(
        (shell.command.as_str(), shell.terminal, shell.user),
        ("/bin/sh -c exit 0", false, 0)
    );
    assert_eq!((shell.rule.as_deref(), shell.name.as_str()), (Some(CLOSURE), CLOSURE));

    // As a probe does.
    for number in 0..5 {
        runs(&container, &format!("again-{number}"), &["/bin/sleep", "0"]);
    }
    assert_eq!(case.daemon.execs(&container.id).len(), records.len());

    // Once anything about a file was changed, it is no more what the image says.
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    refused(&container, "touched", &["/bin/sh", "-c", "exit 0"], "exec-written");
    drop(container);
    case.leaves_nothing();
}

#[test]
fn nothing_is_started_but_what_the_rule_names() {
    if !needs_assay("[rule.exec]") {
        return;
    }
    let case = node("gate-deny");
    let container = sleeper(&case, "deny").image_name(DENY).start();
    runs(&container, "probe", &["/bin/date"]);
    refused(&container, "shell", &["/bin/sh", "-c", "token=secret"], "exec-denied");
    let said = assert_code(
        container.exec("quiet", &["sh", "-c", "token=secret"]),
        Code::PermissionDenied,
    );
    assert!(!said.contains("secret"), "{said}");
    let records = case.daemon.execs(&container.id);
    let verdicts: Vec<_> = records.iter().map(|record| record.verdict).collect();
    assert_eq!(verdicts, [Verdict::Allow, Verdict::Refuse, Verdict::Refuse]);
    // What it sees from another root is not what is started.
    let mut moved = sleeper(&case, "moved")
        .image_name(DENY)
        .edit(|spec| {
            spec["process"]["args"] = json!(["/bin/sh", "-c", "mkdir -p /tmp/j/bin; cp /bin/busybox /tmp/j/bin/date; cp /bin/busybox /tmp/j/bin/sleep; echo ready; exec chroot /tmp/j /bin/sleep 1000"]);
        })
        .start();
    moved.stdio().expect("ready");
    crate::harness::eventually("another root", || {
        let root = fs::read_link(format!("/proc/{}/root", moved.pid)).unwrap();
        if root.ends_with("j") {
            Ok(())
        } else {
            Err(root.display().to_string())
        }
    });
    refused(&moved, "date", &["/bin/date"], "exec-unreadable");
    drop(moved);
    let listed = case.daemon.assay(&["decisions", "--denied"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("exec-denied") && listed.contains("exec by user 0: /bin/sh -c token=secret"),
        "{listed}"
    );
    drop(container);
    case.leaves_nothing();
}
