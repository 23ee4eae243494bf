//! The packages, installed, used, upgraded and removed in a Debian root of their own: what is left is what was there.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use assay::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Keeps a containerd running, as an init would, with this repository's `target` and the packages in sight.
const INIT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/run"
mount --bind "$TARGET" "$ROOT/mnt"
mount --bind "$PACKAGES" "$ROOT/media"
# A root that is no mount would let nobody make its mounts private.
cd "$ROOT"
pivot_root . srv
cd /
umount -l /srv
set +e
while :; do
  containerd >>/run/containerd.log 2>&1 &
  echo $! >/run/containerd.pid
  wait $!
  sleep 0.1
done
"#;

const SANE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// The packages of the programs under test, of two revisions, as `make packages` makes them of a release.
static PACKAGES: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for revision in [OLD, NEW] {
        build(&folder.path().join(revision), revision);
    }
    folder
});

const OLD: &str = "1";
const NEW: &str = "2";

fn build(folder: &Path, revision: &str) {
    let programs = Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap();
    let mut build = Command::new(repository("packaging/build"));
    build.arg(programs).arg(folder).env("REVISION", revision);
    done(&build.output().unwrap());
}

/// The files in a folder, by name.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

/// Where a root has a package.
fn package(revision: &str, extension: &str) -> String {
    let found = listed(&PACKAGES.path().join(revision));
    let found: Vec<&str> = found
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == extension))
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    format!("/media/{revision}/{}", found[0])
}

/// A Debian with containerd, in namespaces that end with it.
struct Root {
    folder: TempDir,
    unshare: Child,
    init: u32,
}

impl Root {
    fn unpacked() -> TempDir {
        LazyLock::force(&PACKAGES);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xf")
            .arg(repository("target/tools/debian-root.tar"))
            .arg("-C")
            .arg(folder.path());
        done(&tar.output().unwrap());
        // What the installer of a machine writes, and the kubelet's pods need.
        fs::write(folder.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(folder.path().join("etc/resolv.conf"), "").unwrap();
        folder
    }

    fn start(folder: TempDir) -> Self {
        let unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", INIT])
            .env("ROOT", folder.path())
            .env("TARGET", repository("target"))
            .env("PACKAGES", PACKAGES.path())
            .env("PATH", SANE_PATH)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{pid}/task/{pid}/children", pid = unshare.id());
        let init = eventually("the first process", || {
            fs::read_to_string(&children)
                .ok()?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        let root = Self { folder, unshare, init };
        root.answers();
        root
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--mount", "--pid"])
            .args(arguments)
            .env_clear()
            .env("PATH", SANE_PATH)
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn answers(&self) {
        eventually("containerd", || {
            let plugins = self.run(&["ctr", "plugins", "ls"]);
            let text = String::from_utf8_lossy(&plugins.stdout).into_owned();
            text.lines()
                .any(|line| line.contains("cri") && line.trim_end().ends_with("ok"))
                .then_some(())
        });
    }

    fn restart_containerd(&self) {
        done(&self.run(&["sh", "-c", "kill -KILL $(cat /run/containerd.pid)"]));
        sleep(Duration::from_millis(500));
        self.answers();
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["ctr", "--namespace", "k8s.io"];
        all.extend(arguments);
        self.run(&all)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.unshare), Signal::KILL);
        let _ = self.unshare.wait();
        // The namespaces end with their first process, a moment later.
        while Path::new(&format!("/proc/{}/ns/pid", self.init)).exists() {
            sleep(Duration::from_millis(20));
        }
        // The groups of containers are gone by now, and theirs are empty.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("k8s.io"));
        }
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = found() {
            return found;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{what} does not come")
}

/// Owner, mode and content, by name.
type Files = BTreeMap<String, (u32, u32, String)>;

/// Owner, mode and content of everything below a root but what package managers and containerd keep about themselves.
fn files(root: &Path) -> Files {
    const OTHERS: [&str; 7] = [
        "var/lib/containerd",
        "var/lib/dpkg/status",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/triggers",
        "var/lib/rpm",
        "var/log/dpkg.log",
    ];
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if OTHERS.contains(&name.as_str()) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                folders.push(path);
                "folder".to_owned()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if metadata.is_file() {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            } else {
                "special".to_owned()
            };
            found.insert(name, (metadata.uid(), metadata.mode(), content));
        }
    }
    found
}

#[track_caller]
fn same(before: &Files, after: &Files) {
    let differs: Vec<_> = before
        .iter()
        .filter(|(name, what)| after.get(*name) != Some(what))
        .chain(after.iter().filter(|(name, _)| !before.contains_key(*name)))
        .collect();
    assert!(differs.is_empty(), "{differs:#?}");
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}: {text}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

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
    assert!(checked > 3, "the examples are not where this test looks");
}
