//! The layers of an image as one read-only tree that is attached nowhere: what a parser gets as its root.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree};
use rustix::thread::UnshareFlags;

use crate::view::mount::in_thread;

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Merges `layers`, top-most first, without what the container writes. `stage` is a directory over which a mount
/// namespace that nobody else sees lays a file system in memory.
///
/// # Errors
/// The kernel's.
pub(super) fn merged(layers: &[PathBuf], stage: &Path) -> io::Result<OwnedFd> {
    if let [layer] = layers {
        return Ok(open_tree(CWD, layer, CLONE)?);
    }
    in_thread(UnshareFlags::NEWNS, || {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount(
            "tmpfs",
            stage,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=0700",
        )?;
        rustix::process::chdir(stage)?;
        // Short names: a page of options holds some hundred of them, and no character of a path is special in one.
        let mut names = Vec::with_capacity(layers.len());
        for (number, layer) in layers.iter().enumerate() {
            let name = number.to_string();
            symlink(layer, &name)?;
            names.push(name);
        }
        fs::create_dir("mount")?;
        let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":")))?;
        if options.as_bytes().len() >= rustix::param::page_size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} layers are more than one mount takes", layers.len()),
            ));
        }
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("overlay", "mount", "overlay", flags, options.as_c_str())?;
        Ok(open_tree(CWD, "mount", CLONE)?)
    })
}

/// A directory as a mount that is attached nowhere and read-only: nothing above it can be reached through it.
///
/// # Errors
/// The kernel's.
pub(super) fn detached(directory: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd as _;
    let tree = open_tree(directory, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?;
    super::sandbox::read_only(tree.as_fd()).map_err(io::Error::other)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn layers_are_one_tree_and_nothing_above_it_can_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("stage");
        fs::create_dir(&stage).unwrap();
        let layer = |name: &str, files: &[&str]| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            for file in files {
                fs::write(path.join(file), name).unwrap();
            }
            path
        };
        let layers = [
            layer("upper: and, odd", &["both", "high"]),
            layer("lower", &["both", "low"]),
        ];
        for (layers, expected) in [
            (&layers[..], vec!["/", "/both", "/high", "/low"]),
            (&layers[..1], vec!["/", "/both", "/high"]),
        ] {
            let root = merged(layers, &stage).unwrap();
            let up = rustix::fs::openat(&root, "..", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
            assert_eq!(inode(&up), inode(&root));
            let tree = Tree::scan(root).unwrap();
            assert_eq!(tree.nodes().map(|(path, _)| path).collect::<Vec<_>>(), expected);
            assert_eq!(tree.bytes("/both", 100).unwrap(), b"upper: and, odd");
        }
        assert_eq!(fs::read_dir(&stage).unwrap().count(), 0);
    }
}
