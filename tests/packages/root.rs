//! A Debian with containerd, in namespaces of its own, in which packages and images are tried.

use std::collections::BTreeMap;
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

pub const SANE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
pub fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// The packages of the programs under test, of two revisions, as `make packages` makes them of a release.
pub static PACKAGES: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for revision in [OLD, NEW] {
        build(&folder.path().join(revision), revision);
    }
    folder
});

pub const OLD: &str = "1";
pub const NEW: &str = "2";

pub fn build(folder: &Path, revision: &str) {
    let programs = Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap();
    let mut build = Command::new(repository("packaging/build"));
    build.arg(programs).arg(folder).env("REVISION", revision);
    done(&build.output().unwrap());
}

/// The files in a folder, by name.
pub fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

/// Where a root has a package.
pub fn package(revision: &str, extension: &str) -> String {
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
pub struct Root {
    pub folder: TempDir,
    unshare: Child,
    init: u32,
}

impl Root {
    pub fn unpacked() -> TempDir {
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

    pub fn start(folder: TempDir) -> Self {
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

    pub fn run(&self, arguments: &[&str]) -> Output {
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

    pub fn answers(&self) {
        eventually("containerd", || {
            let plugins = self.run(&["ctr", "plugins", "ls"]);
            let text = String::from_utf8_lossy(&plugins.stdout).into_owned();
            text.lines()
                .any(|line| line.contains("cri") && line.trim_end().ends_with("ok"))
                .then_some(())
        });
    }

    pub fn restart_containerd(&self) {
        done(&self.run(&["sh", "-c", "kill -KILL $(cat /run/containerd.pid)"]));
        sleep(Duration::from_millis(500));
        self.answers();
    }

    pub fn ctr(&self, arguments: &[&str]) -> Output {
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
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = found() {
            return found;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{what} does not come")
}

/// Owner, mode and content, by name.
pub type Files = BTreeMap<String, (u32, u32, String)>;

/// Owner, mode and content of everything below a root but what package managers and containerd keep about themselves.
pub fn files(root: &Path) -> Files {
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
pub fn same(before: &Files, after: &Files) {
    let differs: Vec<_> = before
        .iter()
        .filter(|(name, what)| after.get(*name) != Some(what))
        .chain(after.iter().filter(|(name, _)| !before.contains_key(*name)))
        .collect();
    assert!(differs.is_empty(), "{differs:#?}");
}

pub fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}: {text}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}
