//! `assay configure` on real containerds: the handler comes, pods run through it, and it goes without a trace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assay::admission::Verdict;

use crate::harness::cri::Pod;
use crate::harness::daemon::PAUSE;
use crate::harness::{BUSYBOX, Daemon, Version, needs_assay};

/// A containerd that nobody has told of Assay, with a configuration that a person wrote.
pub(super) fn untouched(version: Version, imports: &str) -> Daemon {
    let daemon = Daemon::start(version);
    daemon.restart(|| {
        let path = daemon.folder.join("containerd.toml");
        let text = fs::read_to_string(&path).unwrap();
        let text = text
            .split("[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.path]")
            .next()
            .unwrap();
        let text = text
            .split("[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.path]")
            .next()
            .unwrap();
        let (version, rest) = text.split_once('\n').unwrap();
        let rest = rest.replace("io.containerd.assay.v1", "io.containerd.runc.v2");
        let text = format!("# kept by hand\n{version}   # of the file\n{imports}\n{rest}# the end\n");
        fs::write(&path, text).unwrap();
        fs::create_dir(daemon.folder.join("conf.d")).unwrap();
        fs::write(
            daemon.folder.join("conf.d/10-mine.toml"),
            format!("{version}\noom_score = 0\n"),
        )
        .unwrap();
    });
    daemon
}

pub(super) fn assay(daemon: &Daemon, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(arguments)
        .arg("--address")
        .arg(daemon.socket())
        .env("ASSAY_CONFIG", daemon.folder.join("assay/config.toml"))
        .output()
        .unwrap()
}

#[track_caller]
pub(super) fn done(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// Every file that is not Assay's own state, with its mode.
fn files(daemon: &Daemon) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut paths = vec![
        daemon.folder.join("containerd.toml"),
        daemon.folder.join("conf.d"),
        daemon.folder.join("assay/config.toml"),
        daemon.folder.join("assay/policy.d"),
        daemon.folder.join("assay/trust.d"),
    ];
    while let Some(path) = paths.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let bytes = if path.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path, (mode, bytes));
    }
    found
}

/// Runs a pod of two containers with a handler; what was decided about its sandbox and its container.
fn pod(daemon: &Daemon, name: &str, handler: &str) -> Vec<(Verdict, String)> {
    let pod = Pod::run(daemon, name, handler).unwrap();
    let container = pod.create("main", &BUSYBOX.name, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&container).unwrap();
    [pod.id.as_str(), &container]
        .iter()
        .flat_map(|id| daemon.decisions(id))
        .map(|decision| (decision.verdict, decision.rule.unwrap_or_default()))
        .collect()
}

fn comes_and_goes(version: Version, imports: &str) -> (Daemon, String) {
    let daemon = untouched(version, imports);
    let before = files(&daemon);
    assert_eq!(pod(&daemon, "before", ""), []);

    let said = done(&assay(&daemon, &["configure", "--dry-run", "--diff"]));
    assert!(said.contains("+digest = ["), "{said}");
    assert_eq!(files(&daemon), before, "a dry run wrote something");

    let said = done(&assay(&daemon, &["configure"]));
    let configured = files(&daemon);
    assert_ne!(configured, before);
    done(&daemon.assay(&["policy", "apply"]));
    daemon.restart(|| ());
    // The sandbox by the rule for this node's own image, the container by the rule for everything else.
    assert_eq!(
        pod(&daemon, "with", "assay"),
        [(Verdict::Allow, "pause".to_owned()), (Verdict::Allow, String::new())]
    );
    assert_eq!(
        pod(&daemon, "without", ""),
        [],
        "pods that name no handler are not touched"
    );

    let again = done(&assay(&daemon, &["configure"]));
    assert!(!again.contains("wrote"), "{again}");
    assert_eq!(files(&daemon), configured);

    done(&assay(&daemon, &["configure", "--set-as-default"]));
    daemon.restart(|| ());
    assert_eq!(pod(&daemon, "default", "").len(), 2);

    done(&assay(&daemon, &["configure", "--uninstall"]));
    let after = files(&daemon);
    for (path, was) in &before {
        assert_eq!(
            after
                .get(path)
                .map(|(mode, bytes)| (mode, String::from_utf8_lossy(bytes))),
            Some((&was.0, String::from_utf8_lossy(&was.1))),
            "{}",
            path.display()
        );
    }
    assert_eq!(after, before);
    assert!(!daemon.folder.join("assay/state/configure-assay.json").exists());
    daemon.restart(|| ());
    let refused = Pod::run(&daemon, "after", "assay").unwrap_err();
    assert!(refused.message().contains("assay"), "{refused}");
    assert_eq!(pod(&daemon, "bare", ""), []);
    // Nothing is left to take back, and that is said.
    let nothing = assay(&daemon, &["configure", "--uninstall"]);
    assert_eq!(nothing.status.code(), Some(7), "{nothing:?}");
    (daemon, said)
}

pub(super) const IMPORTS: &str = "imports = ['conf.d/*.toml']  # a folder of ours";

#[test]
fn containerd_2_gets_a_drop_in() {
    if needs_assay("assay configure") {
        let (daemon, said) = comes_and_goes(Version::V2_1, IMPORTS);
        let file = daemon.folder.join("conf.d/50-assay-assay.toml");
        assert!(said.contains(&format!("wrote {}", file.display())), "{said}");
        assert!(!said.contains("containerd.toml: "), "{said}");
    }
}

#[test]
fn containerd_2_that_imports_nothing_gets_the_handler_in_its_file() {
    if needs_assay("assay configure") {
        let (_, said) = comes_and_goes(Version::V2_1, "");
        assert!(said.contains("imports no folder of drop-ins"), "{said}");
    }
}

#[test]
fn containerd_1_7_would_lose_its_section_to_a_drop_in() {
    if needs_assay("assay configure") {
        let (_, said) = comes_and_goes(Version::V1_7, IMPORTS);
        assert!(said.contains("with a drop-in, containerd 1.7"), "{said}");
    }
}

#[test]
fn containerd_1_6_20_reads_no_runtime_path() {
    if needs_assay("assay configure") {
        comes_and_goes(Version::V1_6, "");
    }
}

/// As distributions deliver it: the file names no handler, and containerd has one for runc by itself.
#[test]
fn the_handler_that_containerd_brings_along_is_kept() {
    if !needs_assay("assay configure") {
        return;
    }
    for version in [Version::V1_6, Version::V1_7, Version::V2_1] {
        let daemon = untouched(version, "");
        daemon.restart(|| {
            let path = daemon.folder.join("containerd.toml");
            let text = fs::read_to_string(&path).unwrap();
            let (before, after) = text.split_once("default_runtime_name = 'default'\n").unwrap();
            // What follows the handlers, where anything does, is about other sections.
            let rest = after
                .find("[plugins.'io.containerd.cri.v1.images'")
                .map(|at| &after[at..]);
            fs::write(&path, format!("{before}{}", rest.unwrap_or_default())).unwrap();
        });
        let before = files(&daemon);
        done(&assay(&daemon, &["configure"]));
        let configured = files(&daemon);
        done(&daemon.assay(&["policy", "apply"]));
        daemon.restart(|| ());
        assert_eq!(pod(&daemon, "with", "assay").len(), 2);
        assert_eq!(pod(&daemon, "without", ""), []);
        assert_eq!(pod(&daemon, "named", "runc"), []);
        done(&assay(&daemon, &["configure"]));
        assert_eq!(files(&daemon), configured);
        done(&assay(&daemon, &["configure", "--uninstall"]));
        assert_eq!(files(&daemon), before);
    }
}

#[test]
fn options_of_the_nodes_own_handler_are_kept() {
    if !needs_assay("assay configure") {
        return;
    }
    for version in [Version::V1_6, Version::V2_1] {
        let daemon = untouched(version, IMPORTS);
        let root = daemon.folder.join("runc-root");
        daemon.restart(|| {
            let path = daemon.folder.join("containerd.toml");
            let cri = match version {
                Version::V2_1 => "io.containerd.cri.v1.runtime",
                _ => "io.containerd.grpc.v1.cri",
            };
            let options = format!(
                "[plugins.'{cri}'.containerd.runtimes.default.options]\nRoot = '{}'\n",
                root.display()
            );
            fs::write(&path, fs::read_to_string(&path).unwrap() + &options).unwrap();
        });
        let before = files(&daemon);
        done(&assay(&daemon, &["configure"]));
        done(&daemon.assay(&["policy", "apply"]));
        daemon.restart(|| ());
        let pod = Pod::run(&daemon, "options", "assay").unwrap();
        assert_eq!(daemon.decisions(&pod.id).len(), 1);
        assert!(
            root.join("k8s.io").join(&pod.id).exists(),
            "the option had no effect on {version}"
        );
        drop(pod);
        done(&assay(&daemon, &["configure", "--uninstall"]));
        assert_eq!(files(&daemon), before);
    }
}

/// Mistakes that administrators make: what they read, and that nothing was written.
#[test]
fn mistakes_are_named_and_change_nothing() {
    if !needs_assay("assay configure") {
        return;
    }
    let daemon = untouched(Version::V2_1, IMPORTS);
    let config = daemon.folder.join("containerd.toml");
    let good = fs::read_to_string(&config).unwrap();
    let mistake = |arguments: &[&str], code: i32, said: &str| {
        let before = files(&daemon);
        let output = assay(&daemon, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said) && text.contains("to fix: "), "{text} lacks {said}");
        assert_eq!(files(&daemon), before);
    };
    // A handler of another runtime has the name.
    mistake(&["configure", "--name", "stock"], 1, "has a handler stock already");
    mistake(
        &["configure", "--name", "No Name"],
        2,
        "cannot be the name of a handler",
    );
    // A file that containerd could not start with.
    fs::write(&config, format!("{good}[plugins.'x'\n")).unwrap();
    mistake(&["configure"], 1, "cannot be edited");
    // A version of long ago.
    fs::write(&config, good.replacen("version = 3", "version = 1", 1)).unwrap();
    mistake(&["configure"], 1, "config migrate");
    // Another program's file in the place of the drop-in.
    fs::write(&config, &good).unwrap();
    fs::write(daemon.folder.join("conf.d/50-assay-assay.toml"), "version = 3\n").unwrap();
    mistake(&["configure"], 1, "did not write it");
    fs::remove_file(daemon.folder.join("conf.d/50-assay-assay.toml")).unwrap();
    // The sandbox image is not there yet: the handler is written, and what is missing is said.
    fs::write(&config, good.replace(&PAUSE.name, "assay.test/plain/absent:1")).unwrap();
    let said = done(&assay(&daemon, &["configure"]));
    assert!(said.contains("no rule for the sandbox image was written"), "{said}");
    assert!(!Path::new(&daemon.folder).join("assay/policy.d/10-pause.toml").exists());
    done(&assay(&daemon, &["configure", "--uninstall"]));
}

/// k3s and RKE2 write containerd's file from a template; MicroK8s has one of its own.
#[test]
fn templates_of_distributions_are_extended() {
    if !needs_assay("assay configure") {
        return;
    }
    for (name, template, base) in [
        ("agent/etc/containerd/config.toml", "config-v3.toml.tmpl", None),
        (
            "args/containerd.toml",
            "containerd-template.toml",
            Some("version = 3 # ${SNAP}\n"),
        ),
    ] {
        let daemon = untouched(Version::V2_1, "");
        let config = daemon.folder.join(name);
        let template = config.with_file_name(template);
        daemon.restart_with(&config, || {
            fs::create_dir_all(config.parent().unwrap()).unwrap();
            fs::copy(daemon.folder.join("containerd.toml"), &config).unwrap();
            if let Some(base) = base {
                fs::write(&template, base).unwrap();
            }
        });
        done(&assay(&daemon, &["configure"]));
        let text = fs::read_to_string(&template).unwrap();
        assert!(text.contains("containerd.runtimes.assay]"), "{text}");
        assert!(
            text.starts_with(base.unwrap_or("{{ template \"base\" . }}\n")),
            "{text}"
        );
        done(&assay(&daemon, &["configure", "--uninstall"]));
        assert_eq!(fs::read_to_string(&template).ok().as_deref(), base);
    }
}
