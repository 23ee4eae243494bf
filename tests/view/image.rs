//! An image in layers, views of it, and what can be told of a mounted root file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use assay::digest::Digest;
use assay::identity::Mount;
use assay::shim::mount::{mount_all, unmount_recursive};
use assay::store::StateDir;
use assay::view::{Cache, Snapshot, View, Way};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use tempfile::TempDir;

/// Permitted and effective: CAP_NET_RAW, as setcap(8) writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// user::rw-, user:7:r--, group::r--, mask::r--, other::---.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0,
    255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// Layers of an image in directories, with places for mounts of them.
pub struct Image {
    pub place: TempDir,
    pub layers: Vec<PathBuf>,
}

impl Image {
    /// Two layers with one of everything.
    pub fn new() -> Self {
        let mut image = Self::empty(2);
        let base = image.layers.pop().unwrap();
        let top = image.layers.pop().unwrap();
        for folder in [
            "usr/bin",
            "usr/lib/deep/er",
            "etc",
            "var/empty",
            "var/old",
            "was-file-dir/x",
            "tmp",
        ] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("usr/bin/busybox")).unwrap();
        fs::copy("/bin/busybox", base.join("usr/bin/busybox-capable")).unwrap();
        for (name, content) in [
            ("usr/bin/app", "app"),
            ("usr/bin/sh", "secret shell"),
            ("usr/bin/suid", "suid"),
            ("usr/bin/first", "linked"),
            ("usr/lib/libc.so", "libc"),
            ("usr/lib/deep/er/secret", "secret"),
            ("usr/lib/deep/er/kept", "kept"),
            ("etc/passwd", "root"),
            ("etc/shadow", "secret"),
            ("etc/replaced", "old"),
            ("etc/removed", "removed"),
            ("etc/empty", ""),
            ("etc/acl", "acl"),
            ("var/old/gone", "gone"),
            ("becomes-directory", "file"),
            ("was-file-dir/x/y", "y"),
        ] {
            fs::write(base.join(name), content).unwrap();
        }
        fs::hard_link(base.join("usr/bin/first"), base.join("usr/bin/second")).unwrap();
        fs::hard_link(base.join("usr/bin/first"), base.join("usr/bin/third")).unwrap();
        symlink("usr/bin", base.join("bin")).unwrap();
        symlink("/etc/passwd", base.join("etc/link")).unwrap();
        symlink("nowhere", base.join("etc/dangling")).unwrap();
        let node = |name: &str, kind, device| {
            mknodat(CWD, base.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        };
        node("etc/fifo", FileType::Fifo, 0);
        node("etc/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("etc/disk", FileType::BlockDevice, rustix::fs::makedev(7, 99));
        chown(base.join("usr/bin/suid"), Some(5), Some(6)).unwrap();
        std::os::unix::fs::lchown(base.join("etc/link"), Some(7), Some(8)).unwrap();
        for (name, mode) in [
            ("usr/bin/suid", 0o6755),
            ("usr/bin/app", 0o755),
            ("usr/bin/sh", 0o755),
            ("etc/shadow", 0o600),
            ("tmp", 0o1777),
            ("var", 0o2775),
        ] {
            fs::set_permissions(base.join(name), Permissions::from_mode(mode)).unwrap();
        }
        attribute(
            &base.join("usr/bin/busybox-capable"),
            "security.capability",
            &CAPABILITY,
        );
        attribute(&base.join("etc/acl"), "system.posix_acl_access", &ACL);
        attribute(&base.join("etc"), "user.note", b"of a directory");
        attribute(&base.join("etc/passwd"), "user.note", b"of a file");
        attribute(&base.join("etc/link"), "trusted.note", b"of a link");

        fs::create_dir_all(top.join("etc")).unwrap();
        fs::create_dir_all(top.join("var/old")).unwrap();
        fs::create_dir_all(top.join("becomes-directory")).unwrap();
        fs::write(top.join("etc/replaced"), "new").unwrap();
        fs::write(top.join("var/old/fresh"), "fresh").unwrap();
        fs::write(top.join("becomes-directory/inside"), "inside").unwrap();
        fs::write(top.join("was-file-dir"), "now a file").unwrap();
        attribute(&top.join("var/old"), "trusted.overlay.opaque", b"y");
        // Left behind by the mount that a layer was written through.
        attribute(&top.join("var"), "trusted.overlay.origin", b"x");
        mknodat(
            CWD,
            top.join("etc/removed"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        image.layers = vec![top, base];
        image
    }

    pub fn empty(layers: usize) -> Self {
        let place = TempDir::new().unwrap();
        // Another user runs a program in it.
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let layers = (0..layers).map(|n| place.path().join(format!("snapshots/{n}/fs")));
        let image = Self {
            layers: layers.collect(),
            place,
        };
        for layer in &image.layers {
            fs::create_dir_all(layer).unwrap();
        }
        image
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn dir(&self, name: &str) -> StateDir {
        StateDir::open(&self.place.path().canonicalize().unwrap().join(name)).unwrap()
    }

    /// The mounts of a snapshot `name` on these layers, as containerd writes them.
    pub fn request(&self, name: &str, more: &[&str]) -> Vec<Mount> {
        for part in ["fs", "work"] {
            fs::create_dir_all(self.path(&format!("snapshots/{name}/{part}"))).unwrap();
        }
        let of = |part: &str| self.path(&format!("snapshots/{name}/{part}")).display().to_string();
        let mut options = vec![
            "index=off".to_owned(),
            format!("workdir={}", of("work")),
            format!("upperdir={}", of("fs")),
            self.lower(),
        ];
        options.extend(more.iter().map(ToString::to_string));
        vec![overlay(options)]
    }

    pub fn lower(&self) -> String {
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.display().to_string()).collect();
        format!("lowerdir={}", layers.join(":"))
    }

    pub fn upper(&self, name: &str) -> PathBuf {
        self.path(&format!("snapshots/{name}/fs"))
    }

    pub fn cache(&self, mounts: &[Mount]) -> Cache {
        let snapshot = Snapshot::of(mounts, true).unwrap();
        Cache::open(&self.dir("state"), &self.dir("run"), &snapshot).unwrap()
    }

    pub fn view(&self, mounts: &[Mount], way: Way, keep: &[&str]) -> View {
        let snapshot = Snapshot::of(mounts, true).unwrap();
        self.cache(mounts)
            .build(
                &Digest::of(format!("{:?} {keep:?}", snapshot.layers).as_bytes()),
                way,
                &snapshot,
                &set(keep),
            )
            .unwrap()
    }

    /// Mounts at a new place.
    pub fn mount(&self, mounts: &[Mount], view: Option<&View>) -> Root {
        let place = self.path(&format!("root-{}", fs::read_dir(self.place.path()).unwrap().count()));
        mount_all(mounts, view, &place).unwrap();
        Root(place)
    }

    pub fn shown(&self, name: &str, way: Way, keep: &[&str]) -> Root {
        let mounts = self.request(name, &[]);
        let view = self.view(&mounts, way, keep);
        self.mount(&mounts, Some(&view))
    }
}

/// A mounted root file system.
pub struct Root(pub PathBuf);

impl Root {
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        unmount_recursive(&self.0).unwrap();
    }
}

pub fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(ToString::to_string).collect()
}

pub fn overlay(options: Vec<String>) -> Mount {
    Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    }
}

pub fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Extended attributes of a name, without those that overlayfs has to itself.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    names
        .split_terminator('\0')
        .filter(|name| !name.starts_with("trusted.overlay."))
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_owned(), value[..length].to_vec())
        })
        .collect()
}

/// Everything there is to know about a name, but its inode number.
pub fn facts(path: &Path, name: &str) -> Facts {
    let seen = fs::symlink_metadata(path).unwrap();
    Facts {
        name: name.to_owned(),
        mode: seen.mode(),
        owner: (seen.uid(), seen.gid()),
        size: if seen.is_dir() { 0 } else { seen.size() },
        device: seen.rdev(),
        content: match seen.file_type() {
            kind if kind.is_file() => fs::read(path).map(|bytes| Digest::of(&bytes).to_string()).unwrap(),
            kind if kind.is_symlink() => fs::read_link(path).unwrap().display().to_string(),
            _ => String::new(),
        },
        attributes: attributes(path),
        modified: Some((seen.mtime(), seen.mtime_nsec())),
    }
}

/// What [`facts`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    name: String,
    mode: u32,
    pub owner: (u32, u32),
    size: u64,
    device: u64,
    content: String,
    attributes: BTreeMap<String, Vec<u8>>,
    pub modified: Option<(i64, i64)>,
}

/// Every name below `root` as [`facts`]; the root itself is the upper directory's, where there is one.
pub fn listing(root: &Path) -> BTreeMap<String, Facts> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![(root.to_owned(), "/".to_owned())];
    while let Some((path, name)) = waiting.pop() {
        if name != "/" {
            all.insert(name.clone(), facts(&path, &name));
        }
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                let below = assay::tree::join(&name, entry.file_name().to_str().unwrap());
                waiting.push((entry.path(), below));
            }
        }
    }
    all
}

/// With what is above each path.
pub fn closed(keep: &[&str]) -> BTreeSet<String> {
    keep.iter()
        .flat_map(|path| Path::new(path).ancestors().map(|path| path.display().to_string()))
        .filter(|path| path != "/")
        .collect()
}

pub const KEEP: [&str; 24] = [
    "/bin",
    "/becomes-directory/inside",
    "/etc/acl",
    "/etc/dangling",
    "/etc/disk",
    "/etc/empty",
    "/etc/fifo",
    "/etc/link",
    "/etc/null",
    "/etc/passwd",
    "/etc/replaced",
    "/tmp",
    "/usr/bin/app",
    "/usr/bin/busybox",
    "/usr/bin/busybox-capable",
    "/usr/bin/first",
    "/usr/bin/second",
    "/usr/bin/suid",
    "/usr/lib/deep/er/kept",
    "/usr/lib/libc.so",
    "/var/empty",
    "/var/old/fresh",
    "/was-file-dir",
    "/",
];
