//! Mounting a root file system through a view: what the shim does with the mount that containerd asked for once a
//! decision has named a view. Small on purpose, and without a look at any file of the image.
//!
//! - [`Way::One`]: one overlay of the view's layer over data-only layers, made with fsconfig(2), which takes any number
//!   of layers.
//! - [`Way::Two`]: a read-only overlay with `metacopy=on`, and over it one with containerd's own options. A snapshot
//!   without an upper directory needs only the first.
//! - [`Way::Whiteouts`]: the view's layer is one more layer on top of the others.
//!
//! Where that takes more than one step (two mounts, mapped ids, layers whose paths do not fit in a page), the steps are
//! made in a mount namespace of a thread's own, so that nobody sees them and nothing of them is left, however this
//! process ends. What comes out is one mount, and unmounting it is all that is ever needed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount,
    open_tree,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{View, Way};

/// Longest value that fsconfig(2) takes.
const MAX_VALUE: usize = 255;
/// Directory of the stage on which the finished mount is made.
const MOUNT: &str = "mount";
/// What data-only layers need before 6.16; never beside an upper directory.
const METACOPY: &str = "metacopy=on,redirect_dir=follow";
/// Flags that belong to a mount, with what fsmount(2) calls them.
const PER_MOUNT: [(MountFlags, MountAttrFlags); 7] = [
    (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
    (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
    (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
    (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
    (MountFlags::RELATIME, MountAttrFlags::MOUNT_ATTR_RELATIME),
];
/// Options that label files. mount(2) takes their values in quotes, fsconfig(2) without.
const LABELS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// How ids of layers are mapped: told of a mount that is not attached anywhere yet.
pub type Mapping<'a> = dyn Fn(&OwnedFd) -> io::Result<()> + Sync + 'a;

/// A root file system to be mounted through a view.
pub struct Rootfs<'a> {
    /// What is shown.
    pub view: &'a View,
    /// Directories of the snapshot's layers, top-most first.
    pub layers: &'a [PathBuf],
    /// Source that the table of mounts shows.
    pub source: &'a str,
    /// Options of the overlay as mount(2) takes them; those that name layers are left out.
    pub options: &'a [String],
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Maps the ids of all layers.
    pub mapping: Option<&'a Mapping<'a>>,
}

impl std::fmt::Debug for Rootfs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rootfs")
            .field("view", self.view)
            .field("layers", &self.layers)
            .field("options", &self.options)
            .field("flags", &self.flags)
            .field("mapped", &self.mapping.is_some())
            .finish_non_exhaustive()
    }
}

impl Rootfs<'_> {
    /// Mounts it on the directory `target`, of which `name` is a path in this process's mount namespace.
    ///
    /// # Errors
    /// A view whose layer is not what a broker leaves, `metacopy=on` beside an upper directory, or the kernel's.
    pub fn mount(&self, target: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
        check(&self.view.layer)?;
        if self.writes() && self.options.iter().any(|option| option.starts_with("metacopy=")) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a view over an upper directory is never mounted with an option 'metacopy'",
            ));
        }
        if let Some(mounted) = self.by_data(target) {
            return mounted;
        }
        let tree = match self.in_one_step() {
            Some(tree) => tree?,
            None => self.staged(name)?,
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&tree, "", target, "", flags)?)
    }

    fn writes(&self) -> bool {
        self.options.iter().any(|option| option.starts_with("upperdir="))
    }

    /// The options that name no layers.
    fn others(&self) -> impl Iterator<Item = &str> {
        self.options
            .iter()
            .map(String::as_str)
            .filter(|option| !option.starts_with("lowerdir="))
    }

    /// By mount(2), where one overlay does whose options fit in a page.
    fn by_data(&self, target: BorrowedFd<'_>) -> Option<io::Result<()>> {
        if self.view.way == Way::One || self.mapping.is_some() || (self.view.way == Way::Two && self.writes()) {
            return None;
        }
        let mut options: Vec<String> = self.others().map(str::to_owned).collect();
        let mut lower = format!("lowerdir={}", plain(&self.view.layer)?);
        for layer in self.layers {
            lower.push_str(self.separator());
            lower.push_str(plain(layer)?);
        }
        options.push(lower);
        if self.view.way == Way::Two {
            options.push(METACOPY.to_owned());
        }
        let options = options.join(",");
        if options.len() >= rustix::param::page_size() {
            return None;
        }
        let place = format!("/proc/self/fd/{}", target.as_raw_fd());
        Some(overlay(self.source, &place, self.flags, options))
    }

    /// What stands between the layers in mount(2)'s options: two colons make those after them data only.
    fn separator(&self) -> &'static str {
        if self.view.way == Way::Whiteouts { ":" } else { "::" }
    }

    /// By fsconfig(2); `None` where that does not do.
    fn in_one_step(&self) -> Option<io::Result<OwnedFd>> {
        let mut attributes = MountAttrFlags::empty();
        let mut rest = self.flags;
        for (flag, attribute) in PER_MOUNT {
            if rest.contains(flag) {
                rest.remove(flag);
                attributes |= attribute;
            }
        }
        let fits = |text: &str| text.len() <= MAX_VALUE;
        if self.view.way != Way::One || self.mapping.is_some() || !rest.is_empty() || !self.others().all(fits) {
            return None;
        }
        let view = plain(&self.view.layer)?;
        let layers: Vec<&str> = self.layers.iter().map(|layer| plain(layer)).collect::<Option<_>>()?;
        Some(self.configured(view, &layers, attributes).map_err(io::Error::from))
    }

    fn configured(&self, view: &str, layers: &[&str], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", self.source)?;
        fsconfig_set_string(&context, "lowerdir+", view)?;
        for layer in layers {
            fsconfig_set_string(&context, "datadir+", *layer)?;
        }
        for option in self.others() {
            match option.split_once('=') {
                Some((key, value)) if LABELS.contains(&key) => {
                    fsconfig_set_string(&context, key, value.trim_matches('"'))?;
                }
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        if self.flags.contains(MountFlags::RDONLY) {
            fsconfig_set_flag(&context, "ro")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// In a mount namespace of its own, where `stage` becomes a directory in memory with a short name for each layer.
    fn staged(&self, stage: &Path) -> io::Result<OwnedFd> {
        in_thread(UnshareFlags::NEWNS, || {
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            let private = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", stage, "tmpfs", private, c"mode=0700")?;
            rustix::process::chdir(stage)?;
            let is_double = self.view.way == Way::Two && self.writes();
            // The key among the options of what is mounted in the end tells that the view is in use.
            let key = self.view.key.hex();
            let mut lower = if is_double { "view".to_owned() } else { key.clone() };
            self.place(&self.view.layer, &lower)?;
            for (number, layer) in self.layers.iter().enumerate() {
                let name = number.to_string();
                self.place(layer, &name)?;
                lower.push_str(self.separator());
                lower.push_str(&name);
            }
            if is_double {
                fs::create_dir(&key)?;
                let options = format!("lowerdir={lower},{METACOPY}");
                overlay("overlay", &key, MountFlags::RDONLY, options)?;
                lower = key;
            }
            fs::create_dir(MOUNT)?;
            let mut options: Vec<String> = self.others().map(str::to_owned).collect();
            options.push(format!("lowerdir={lower}"));
            if self.view.way == Way::Two && !is_double {
                options.push(METACOPY.to_owned());
            }
            overlay(self.source, MOUNT, self.flags, options.join(","))?;
            Ok(open_tree(CWD, MOUNT, CLONE)?)
        })
    }

    /// Gives a layer a short name in the working directory.
    fn place(&self, layer: &Path, name: &str) -> io::Result<()> {
        let Some(map) = self.mapping else {
            return symlink(layer, name);
        };
        let tree = open_tree(CWD, layer, CLONE)?;
        map(&tree)?;
        fs::create_dir(name)?;
        Ok(move_mount(
            &tree,
            "",
            CWD,
            name,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?)
    }
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

fn overlay(source: &str, target: &str, flags: MountFlags, options: String) -> io::Result<()> {
    let length = options.len();
    let limit = rustix::param::page_size();
    // The kernel would cut them off.
    match CString::new(options) {
        Ok(options) if length < limit => Ok(mount(source, target, "overlay", flags, options.as_c_str())?),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the options of the overlay are {length} bytes long; the kernel takes less than {limit}"),
        )),
    }
}

/// A path that fsconfig(2) takes as it is.
fn plain(path: &Path) -> Option<&str> {
    path.to_str()
        .filter(|path| path.len() <= MAX_VALUE && !path.contains(['\\', ':', ',']))
}

/// A layer lies in a directory that only root can change, and no link leads there.
fn check(layer: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = layer.parent().unwrap_or(Path::new("/"));
    let opened = rustix::fs::openat2(CWD, parent, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let stat = rustix::fs::fstat(opened.as_fd())?;
    if !layer.is_absolute() || stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is not root's alone: no view is mounted from there",
                parent.display()
            ),
        ));
    }
    Ok(())
}

/// Runs `work` in a thread with its own `what`.
///
/// # Errors
/// The kernel's, and those of `work`.
pub fn in_thread<T: Send, E: Send + From<io::Error>>(
    what: UnshareFlags,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let run = || {
            // SAFETY: descriptors are not unshared, the one thing that this call is unsafe for.
            unsafe { unshare_unsafe(what) }.map_err(io::Error::from)?;
            work()
        };
        let thread = thread::Builder::new().spawn_scoped(scope, run).map_err(E::from)?;
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the thread for a mount panicked").into()),
        }
    })
}
