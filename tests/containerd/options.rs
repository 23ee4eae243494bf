//! What an administrator sets for a runtime: `runc.v1.Options`, and for other runtimes a TOML document.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::CodedOutputStream;
use containerd_shim_protos::shim::oci::Options;
use prost_types::Any;

use crate::harness::{Case, eventually, leftovers, needs_assay, on_each_containerd};
use crate::streams::script;

on_each_containerd! {
    another_program_as_oci_runtime,
    another_folder_for_the_oci_runtime,
    flags_reach_the_oci_runtime,
    a_systemd_cgroup_reaches_the_oci_runtime,
    the_shim_joins_a_cgroup,
    pipes_belong_to_the_given_user,
    options_as_toml,
    options_in_a_file,
    options_that_make_no_sense_are_refused,
}

/// An OCI runtime that notes what it was asked and then does it, without the arguments that `drop` names.
fn recorder(case: &Case, drop: &str) -> (String, PathBuf) {
    let notes = case.daemon.folder.join(case.id("notes"));
    let body = format!(
        "echo \"$@\" >>{}\nfor argument; do shift; case $argument in {drop}) ;; *) set -- \"$@\" \"$argument\" ;; esac; done\nexec runc \"$@\"",
        notes.display()
    );
    (script(case, "recorder", &body), notes)
}

fn another_program_as_oci_runtime(case: &Case) {
    let (program, notes) = recorder(case, "''");
    let options = Options {
        binary_name: program,
        ..Options::default()
    };
    let container = case
        .container("recorded", &["/bin/sleep", "1000"])
        .options(&options)
        .start();
    assert_eq!(container.run("exec", "exit 3").status, 3);
    drop(container);
    let notes = fs::read_to_string(notes).unwrap();
    for verb in [" create ", " start ", " exec ", " kill ", " delete "] {
        assert!(notes.contains(verb), "no{verb}in {notes}");
    }
}

fn another_folder_for_the_oci_runtime(case: &Case) {
    let root = case.daemon.folder.join(case.id("root"));
    let options = Options {
        root: root.to_str().unwrap().to_owned(),
        ..Options::default()
    };
    let container = case
        .container("moved", &["/bin/sleep", "1000"])
        .options(&options)
        .start();
    let state = root.join(&case.daemon.scope).join(&container.id);
    assert!(state.join("state.json").exists());
    assert_eq!(container.run("exec", "exit 3").status, 3);
    drop(container);
    assert!(!state.exists());
}

fn flags_reach_the_oci_runtime(case: &Case) {
    let (program, notes) = recorder(case, "''");
    let options = Options {
        binary_name: program,
        no_pivot_root: true,
        no_new_keyring: true,
        ..Options::default()
    };
    let outcome = case.shell("flags", "exit 4").options(&options).run();
    assert_eq!(outcome.status, 4);
    let notes = fs::read_to_string(notes).unwrap();
    let create = notes.lines().find(|line| line.contains(" create ")).unwrap();
    assert!(
        create.contains("--no-pivot") && create.contains("--no-new-keyring"),
        "{create}"
    );
    let plain = recorder(case, "''");
    let options = Options {
        binary_name: plain.0,
        ..Options::default()
    };
    fs::remove_file(&plain.1).unwrap();
    case.shell("plain", "exit 4").options(&options).run();
    let notes = fs::read_to_string(plain.1).unwrap();
    assert!(
        !notes.contains("--no-pivot") && !notes.contains("--no-new-keyring"),
        "{notes}"
    );
}

/// There may be no systemd here, so the recorder takes the flag away and a cgroup path that runc understands goes on.
fn a_systemd_cgroup_reaches_the_oci_runtime(case: &Case) {
    let (program, notes) = recorder(case, "--systemd-cgroup");
    let options = Options {
        binary_name: program,
        systemd_cgroup: true,
        ..Options::default()
    };
    let outcome = case.shell("systemd", "exit 5").options(&options).run();
    assert_eq!(outcome.status, 5);
    let notes = fs::read_to_string(notes).unwrap();
    let create = notes.lines().find(|line| line.contains(" create ")).unwrap();
    assert!(create.contains("--systemd-cgroup"), "{create}");
}

fn the_shim_joins_a_cgroup(case: &Case) {
    let cgroup = format!("{}/{}", case.daemon.scope, case.id("shim"));
    let folders: Vec<_> = leftovers::cgroup_roots()
        .iter()
        .map(|root| root.join(&cgroup))
        .collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        for name in ["cpuset.cpus", "cpuset.mems"] {
            // A new cpuset of version 1 is empty, and takes no process.
            let root = folder.parent().unwrap().parent().unwrap();
            if let Ok(all) = fs::read_to_string(root.join(name)) {
                fs::write(folder.parent().unwrap().join(name), &all).unwrap();
                fs::write(folder.join(name), all).unwrap();
            }
        }
    }
    let options = Options {
        shim_cgroup: format!("/{cgroup}"),
        ..Options::default()
    };
    let container = case
        .container("joined", &["/bin/sleep", "1000"])
        .options(&options)
        .start();
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", container.shim())).unwrap();
    drop(container);
    for folder in folders {
        eventually("an empty cgroup", || match fs::remove_dir(&folder) {
            Err(error) => Err(error.to_string()),
            Ok(()) => Ok(()),
        });
    }
    for controller in ["memory", "cpu"] {
        let joined = membership
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
            .any(|(controllers, path)| {
                (controllers.is_empty() || controllers.split(',').any(|name| name == controller))
                    && path == format!("/{cgroup}")
            });
        assert!(joined, "{controller} in {membership}");
    }
}

/// The OCI runtime sees them that way; runc itself then gives them to the user of the process.
fn pipes_belong_to_the_given_user(case: &Case) {
    let notes = case.daemon.folder.join(case.id("owners"));
    let body = format!(
        "owners=$(for i in 0 1 2; do stat -L -c '%u:%g' /proc/$$/fd/$i; done)\necho \"$owners\" >>{}\nexec runc \"$@\"",
        notes.display()
    );
    let options = Options {
        binary_name: script(case, "owners.sh", &body),
        io_uid: 1234,
        io_gid: 5678,
        ..Options::default()
    };
    let container = case
        .container("owned", &["/bin/sleep", "1000"])
        .options(&options)
        .start();
    let owners = fs::read_to_string(notes).unwrap();
    // The first runtime call is create.
    assert_eq!(owners.lines().take(3).collect::<Vec<_>>(), ["1234:5678"; 3]);
    for descriptor in 0..3 {
        let pipe = fs::metadata(format!("/proc/{}/fd/{descriptor}", container.pid)).unwrap();
        assert_eq!(pipe.gid(), 5678, "descriptor {descriptor}");
    }
}

/// `runtimeoptions.v1.Options`: what containerd's CRI plugin sends to a runtime that it does not know.
pub fn toml_options(type_url: &str, config_path: &Path, config_body: &str) -> Any {
    let mut value = Vec::new();
    let mut stream = CodedOutputStream::vec(&mut value);
    stream.write_string(1, type_url).unwrap();
    stream.write_string(2, config_path.to_str().unwrap()).unwrap();
    stream.write_bytes(3, config_body.as_bytes()).unwrap();
    stream.flush().unwrap();
    drop(stream);
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value,
    }
}

fn options_as_toml(case: &Case) {
    if !needs_assay("options as a TOML document") {
        return;
    }
    let (program, notes) = recorder(case, "''");
    let root = case.daemon.folder.join(case.id("root"));
    let body = format!(
        "BinaryName = '{program}'\nRoot = '{}'\nNoPivotRoot = true\n",
        root.display()
    );
    let options = toml_options("io.containerd.assay.v1.options", Path::new(""), &body);
    let container = case
        .container("toml", &["/bin/sleep", "1000"])
        .options_any(options)
        .start();
    assert!(root.join(&case.daemon.scope).join(&container.id).exists());
    drop(container);
    let notes = fs::read_to_string(notes).unwrap();
    assert!(notes.contains("--no-pivot"), "{notes}");
}

/// The runtime option `ConfigPath` is Assay's own configuration.
fn options_in_a_file(case: &Case) {
    if !needs_assay("a configuration named by the runtime option ConfigPath") {
        return;
    }
    let (program, notes) = recorder(case, "''");
    let config = case.daemon.folder.join("assay").join(case.id("config.toml"));
    let own = fs::read_to_string(case.daemon.folder.join("assay/config.toml")).unwrap();
    fs::write(&config, format!("{own}oci_runtime = '{program}'\n")).unwrap();
    let options = toml_options("", &config, "");
    assert_eq!(case.shell("file", "exit 6").options_any(options).run().status, 6);
    assert!(fs::read_to_string(notes).unwrap().contains(" create "));
}

fn options_that_make_no_sense_are_refused(case: &Case) {
    if !needs_assay("that options of an unknown type are refused") {
        return;
    }
    let options = Any {
        type_url: "example.com/Options".to_owned(),
        value: vec![1, 2, 3],
    };
    let status = case
        .shell("unknown", "exit 0")
        .options_any(options)
        .create()
        .unwrap_err();
    assert!(status.message().contains("unknown type 'Options'"), "{status}");
    let broken = toml_options("", Path::new(""), "BinaryName = [\n");
    let status = case.shell("broken", "exit 0").options_any(broken).create().unwrap_err();
    assert!(status.message().contains("options"), "{status}");
}
