//! The root file system of a container: mounting what containerd asks for, and unmounting it.
//!
//! Each mount is a type, a source, a target below the root and options. Every option works or is refused with its name;
//! none is left out. An overlay of more layers than fit in a page of options is mounted from the directory that its
//! layers have in common. `loop` puts a loop device in between that goes away with the mount. `uidmap` and `gidmap`
//! show the layers of an overlay, or another mount as a whole, as owned by other users, as containerd does.
//!
//! Options for containerd's mount manager (`X-containerd.*`), its types (`format/…`, `mkdir/…`) and FUSE helpers are
//! refused: this shim does not announce that it takes them.

mod idmap;
mod loop_device;
mod options;
pub mod table;

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, open, openat2, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::thread::UnshareFlags;

use crate::admission::Mount;
use crate::view::mount::{Rootfs, in_thread};
use crate::view::snapshot::{Snapshot, Unsuitable, lower_directories, unescaped};
use crate::view::{self, View};
use loop_device::LoopDevice;
use options::{Options, with_lower_directories};

/// Mode of a root directory that has to be made.
const ROOT_MODE: u32 = 0o711;

/// Why a root file system could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// An option cannot be honoured.
    #[error("mount option '{}' {reason}", option.escape_debug())]
    Option {
        /// Its beginning.
        option: String,
        /// Why.
        reason: &'static str,
    },
    /// A type cannot be mounted.
    #[error("mount type '{}' {reason}", fs_type.escape_debug())]
    Type {
        /// It.
        fs_type: String,
        /// Why.
        reason: &'static str,
    },
    /// The place of the mount cannot be found below the root.
    #[error("mount target '{}' below {}: {source}", target.escape_debug(), root.display())]
    Target {
        /// It.
        target: String,
        /// The root.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The options do not fit in the page that the kernel takes.
    #[error("the options of a mount of type {fs_type} are {length} bytes long; the kernel takes less than {limit}")]
    TooLong {
        /// Type of the mount.
        fs_type: String,
        /// How long.
        length: usize,
        /// How long they may be.
        limit: usize,
    },
    /// The kernel refused.
    #[error("cannot {verb} {subject} at {}: {source}", target.display())]
    Mount {
        /// What was tried.
        verb: &'static str,
        /// Source and type.
        subject: String,
        /// Where.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No loop device could be set up.
    #[error("loop device for {}: {source}", file.display())]
    Loop {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No user namespace could be made for a mapping of ids.
    #[error("user namespace for uidmap and gidmap: {source}")]
    Mapping {
        /// Why.
        source: io::Error,
    },
    /// A mount stays.
    #[error("cannot unmount {}: {source}", path.display())]
    Unmount {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The table of mounts could not be read.
    #[error("/proc/self/mountinfo: {0}")]
    Table(#[source] io::Error),
    /// A root file system cannot be shown through a view.
    #[error("the root file system cannot be shown through a view: {0}")]
    View(#[from] Unsuitable),
}

/// Mounts all of `mounts`, in their order, at or below `root`, which is made if it is missing. When one fails, those
/// before it are unmounted again. With a view, the one mount that there is shows only what the view keeps.
///
/// # Errors
/// When one cannot be mounted as it is asked for.
pub fn mount_all(mounts: &[Mount], view: Option<&View>, root: &Path) -> Result<(), MountError> {
    if let Err(error) = DirBuilder::new().mode(ROOT_MODE).create(root)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(MountError::Target {
            target: String::new(),
            root: root.to_owned(),
            source: error,
        });
    }
    if let Some(view) = view {
        let target = Target::find(root, "")?;
        return mount_view(mounts, view, &target);
    }
    let mut done = Vec::new();
    for mount in mounts {
        match mount_one(mount, root) {
            Ok(target) => done.push(target),
            Err(error) => {
                for target in done.iter().rev() {
                    if let Err(error) = detach(target) {
                        log::error!("{error}");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Unmounts everything at and below `root`, what was mounted last first. What is busy is detached: it goes away with
/// its last user.
///
/// # Errors
/// When something stays mounted.
pub fn unmount_recursive(root: &Path) -> Result<(), MountError> {
    let root = match (root.parent().map(fs::canonicalize), root.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        (Some(Err(error)), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        (Some(Err(source)), _) => {
            return Err(MountError::Unmount {
                path: root.to_owned(),
                source,
            });
        }
        _ => root.to_owned(),
    };
    let mut points: Vec<PathBuf> = table::read()
        .map_err(MountError::Table)?
        .into_iter()
        .map(|entry| entry.point)
        .filter(|point| point.starts_with(&root))
        .collect();
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    let mut result = Ok(());
    for point in points {
        result = result.and(detach(&point));
    }
    result
}

fn detach(point: &Path) -> Result<(), MountError> {
    let unmounted = match unmount(point, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        result => result,
    };
    match unmounted {
        // Not a mount any more: its parent went, or someone was faster.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(MountError::Unmount {
            path: point.to_owned(),
            source: error.into(),
        }),
    }
}

/// The place of a mount, found once.
struct Target {
    descriptor: OwnedFd,
    /// For the kernel.
    path: PathBuf,
    /// For people, and for unmounting.
    name: PathBuf,
}

impl Target {
    /// Finds `target` without leaving `root`, whatever links are on the way.
    fn find(root: &Path, target: &str) -> Result<Self, MountError> {
        let failed = |source| MountError::Target {
            target: target.to_owned(),
            root: root.to_owned(),
            source,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let mut descriptor =
            open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(|error| failed(error.into()))?;
        if !target.is_empty() {
            descriptor = openat2(&descriptor, target, flags, Mode::empty(), ResolveFlags::IN_ROOT)
                .map_err(|error| failed(error.into()))?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        let name = fs::read_link(&path).map_err(failed)?;
        Ok(Self { descriptor, path, name })
    }
}

/// Makes one mount and says where it is.
fn mount_one(request: &Mount, root: &Path) -> Result<PathBuf, MountError> {
    let refuse = |reason| MountError::Type {
        fs_type: request.r#type.chars().take(200).collect(),
        reason,
    };
    if request.r#type.contains('/') {
        return Err(refuse(
            "is for containerd's mount manager, which should have mounted it",
        ));
    }
    if request.r#type.starts_with("fuse.") || request.r#type.starts_with("fuse3.") {
        return Err(refuse(
            "needs a FUSE helper, which this shim does not run; use another snapshotter",
        ));
    }
    let options = Options::parse(&request.r#type, &request.options)?;
    let target = Target::find(root, &request.target)?;
    let failed = |verb: &'static str, source: io::Error| MountError::Mount {
        verb,
        subject: format!(
            "'{}' ({})",
            request.source.escape_debug(),
            request.r#type.escape_debug()
        ),
        target: target.name.clone(),
        source,
    };
    let failed_errno = |verb| move |error: Errno| failed(verb, error.into());

    if let Some((users, groups)) = &options.mapping {
        let namespace = idmap::user_namespace(users, groups)?;
        let tree = mapped_tree(request, &options, &target.name, &namespace)
            .map_err(|error| error.in_place(|source| failed("map the ids of", source)))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &target.descriptor, "", flags).map_err(failed_errno("attach"))?;
    } else if let Some(recursive) = options.bind.filter(|_| !options.remount) {
        let bound = if recursive {
            mount_bind_recursive(&request.source, &target.path)
        } else {
            mount_bind(&request.source, &target.path)
        };
        bound.map_err(failed_errno("bind"))?;
    } else if options.remount {
        let data = joined(&request.r#type, &options.data)?;
        let mut flags = options.flags;
        flags.set(MountFlags::BIND, options.bind.is_some());
        mount_remount(&target.path, flags, data).map_err(failed_errno("remount"))?;
        // There was something before, which a failure of a later mount must not take away.
        return Ok(target.name);
    } else {
        mount_file_system(request, &options, &target.path)
            .map_err(|error| error.in_place(|source| failed("mount", source)))?;
    }

    let finished = finish(&options, root, request).map_err(|(verb, source)| failed(verb, source));
    if finished.is_err() {
        detach(&target.name)?;
    }
    finished.map(|()| target.name.clone())
}

/// Mounts the root file system of `mounts` through a view. What it adds to the mount that was asked for only hides: a
/// layer on top, and the others as places where the view's files have their content.
fn mount_view(mounts: &[Mount], view: &View, target: &Target) -> Result<(), MountError> {
    // Without an upper directory the kernel makes it read-only, whoever asked for what.
    let snapshot = Snapshot::of(mounts, true)?;
    let [request] = mounts else {
        return Err(Unsuitable::Mounts(mounts.len()).into());
    };
    let failed = |source| MountError::Mount {
        verb: "mount",
        subject: format!("the view {}", view.layer.display()),
        target: target.name.clone(),
        source,
    };
    let options = Options::parse(&request.r#type, &request.options)?;
    let namespace = match &options.mapping {
        Some((users, groups)) => Some(idmap::user_namespace(users, groups)?),
        None => None,
    };
    let map = namespace
        .as_ref()
        .map(|namespace| move |tree: &OwnedFd| idmap::set(tree, namespace, MountFlags::empty()));
    let rootfs = Rootfs {
        view,
        layers: &snapshot.layers,
        source: "overlay",
        options: &options.data,
        flags: options.flags,
        mapping: map.as_ref().map(|map| map as &view::mount::Mapping<'_>),
    };
    rootfs.mount(target.descriptor.as_fd(), &target.name).map_err(failed)?;
    if let Some(propagation) = options.propagation {
        let set = mount_change(&target.name, propagation).map_err(|error| failed(error.into()));
        if set.is_err() {
            detach(&target.name)?;
        }
        return set;
    }
    Ok(())
}

/// What takes a second call once the mount is there.
fn finish(options: &Options, root: &Path, request: &Mount) -> Result<(), (&'static str, io::Error)> {
    let binds = options.bind.is_some() && options.mapping.is_none() && !options.flags.is_empty();
    if !binds && options.propagation.is_none() {
        return Ok(());
    }
    // Found again: the descriptor from before is of the directory underneath.
    let place = Target::find(root, &request.target).map_err(|error| ("find", io::Error::other(error)))?;
    if binds {
        // Binding ignores these flags. What the source's own mount forbids stays forbidden.
        let flags = options.flags | current_flags(&place.path).map_err(|error| ("inspect", error))? | MountFlags::BIND;
        mount_remount(&place.path, flags, "").map_err(|error| ("restrict", error.into()))?;
    }
    if let Some(propagation) = options.propagation {
        mount_change(&place.path, propagation).map_err(|error| ("set the propagation of", error.into()))?;
    }
    Ok(())
}

fn current_flags(path: &Path) -> io::Result<MountFlags> {
    let found = statvfs(path)?.f_flag;
    let table = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    ];
    let set = table.iter().filter(|(flag, _)| found.contains(*flag));
    Ok(set.fold(MountFlags::empty(), |all, (_, flag)| all | *flag))
}

/// A failure, of which some have to be told where they happened.
enum Failure {
    Whole(MountError),
    Kernel(io::Error),
}

impl Failure {
    fn in_place(self, place: impl FnOnce(io::Error) -> MountError) -> MountError {
        match self {
            Self::Whole(error) => error,
            Self::Kernel(source) => place(source),
        }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::Whole(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Kernel(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Mounts something that is not a bind.
fn mount_file_system(request: &Mount, options: &Options, target: &Path) -> Result<(), Failure> {
    let mut device = None;
    if options.loop_device {
        let file = PathBuf::from(&request.source);
        let read_only = options.flags.contains(MountFlags::RDONLY);
        let attached = LoopDevice::attach(&file, read_only, options.direct_io);
        device = Some(attached.map_err(|source| MountError::Loop { file, source })?);
    }
    let source = device
        .as_ref()
        .map_or(Path::new(&request.source), |device| &device.path);
    let call = |data: CString| mount(source, target, request.r#type.as_str(), options.flags, data.as_c_str());

    match joined(&request.r#type, &options.data) {
        Ok(data) => Ok(call(data)?),
        Err(too_long) => {
            let Some((directory, layers)) = relative_layers(&options.data) else {
                return Err(too_long.into());
            };
            let data = joined(&request.r#type, &with_lower_directories(&options.data, &layers))?;
            // The working directory belongs to the process unless a thread asks for one of its own.
            in_thread(UnshareFlags::FS, || {
                rustix::process::chdir(&directory)?;
                Ok(call(data)?)
            })
        }
    }
}

/// The options as the kernel takes them.
fn joined(fs_type: &str, data: &[String]) -> Result<CString, MountError> {
    let limit = rustix::param::page_size();
    let joined = data.join(",");
    let length = joined.len();
    // The kernel would cut them off.
    match CString::new(joined) {
        Ok(joined) if length < limit => Ok(joined),
        _ => Err(MountError::TooLong {
            fs_type: fs_type.to_owned(),
            length,
            limit,
        }),
    }
}

/// The directory that all layers are in, and the layers as seen from there.
fn relative_layers(data: &[String]) -> Option<(PathBuf, String)> {
    let layers = lower_directories(data)?;
    let mut directory: Option<&Path> = None;
    for layer in layers.iter().filter(|layer| !layer.is_empty()) {
        let parent = Path::new(layer).parent().filter(|_| layer.starts_with('/'))?;
        directory = Some(match directory {
            None => parent,
            Some(known) => known.ancestors().find(|ancestor| parent.starts_with(ancestor))?,
        });
    }
    let directory = directory?;
    let relative: Option<Vec<&str>> = layers
        .iter()
        .map(|layer| {
            if layer.is_empty() {
                Some("")
            } else {
                Path::new(layer).strip_prefix(directory).ok()?.to_str()
            }
        })
        .collect();
    Some((PathBuf::from(unescaped(directory.to_str()?)), relative?.join(":")))
}

/// Makes a mount with mapped ids that is not attached anywhere yet.
fn mapped_tree(request: &Mount, options: &Options, stage: &Path, namespace: &OwnedFd) -> Result<OwnedFd, Failure> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if let Some(recursive) = options.bind {
        let depth = if recursive {
            OpenTreeFlags::AT_RECURSIVE
        } else {
            OpenTreeFlags::empty()
        };
        let tree = open_tree(CWD, &request.source, clone | depth)?;
        idmap::set(&tree, namespace, options.flags)?;
        return Ok(tree);
    }
    // In a mount namespace of its own, so that the steps on the way are seen by nobody and left behind by nothing.
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
        fs::create_dir("mount")?;
        let mut staged = options.clone();
        if request.r#type == "overlay" {
            let layers = lower_directories(&options.data).ok_or(Errno::INVAL)?;
            let mut names = Vec::new();
            for (n, layer) in layers.iter().enumerate() {
                let name = n.to_string();
                if !layer.is_empty() {
                    let tree = open_tree(CWD, unescaped(layer), clone)?;
                    idmap::set(&tree, namespace, MountFlags::empty())?;
                    fs::create_dir(&name)?;
                    move_mount(&tree, "", CWD, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
                }
                names.push(if layer.is_empty() { String::new() } else { name });
            }
            staged.data = with_lower_directories(&options.data, &names.join(":"));
        }
        mount_file_system(request, &staged, Path::new("mount"))?;
        let tree = open_tree(CWD, "mount", clone)?;
        if request.r#type != "overlay" {
            idmap::set(&tree, namespace, options.flags)?;
        }
        Ok(tree)
    })
}

/// A mount of a request as a mount of ours.
#[must_use]
pub fn plain(mount: &containerd_shim_protos::api::Mount) -> Mount {
    Mount {
        r#type: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    }
}

#[cfg(test)]
mod tests;
