//! What `filesystem.mode = "audit"` sees: the container has all of its files, and every use of one that `enforce` would
//! have hidden is counted.
//!
//! fanotify(7) on the file system of the container's root: a mark on a mount would see nothing, because the OCI runtime
//! clones the mounts. Seen are opens, execs and opened directories. Not seen are stat, access, readlink and names that
//! only a directory's listing tells: no event exists for them. The listener is a process beside each audited container, so
//! it keeps hashes of the hidden paths and sums of what it saw, nothing else.
//!
//! The OCI runtime opens files of the container before the container's program runs; what a process opens while it still
//! is that program is left out. What it executes is not: that is how the container's programs start.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most different uses that are told apart; of more, only their number is known.
pub const MAX_USES: usize = 4096;
/// Most bytes of all their paths together.
const MAX_PATHS: usize = 1 << 20;
/// Folder below the state that holds lists of hidden paths, each under its digest, with a NUL between two paths.
pub const LISTS: &str = "hidden";
/// Folder below the state that holds a [`Record`] for each container.
pub const RECORDS: &str = "audit";
/// Version of a [`Record`]. A reader refuses any other.
pub const VERSION: u32 = 1;
/// Most characters of a process's name, as the kernel keeps them.
const MAX_COMMAND: usize = 16;
/// Bytes of events read at once.
const BUFFER: usize = 8192;
/// Bytes of `struct fanotify_event_metadata`.
const METADATA: usize = 24;

/// Paths that `enforce` would hide, as hashes: they are held for as long as the container runs. Two paths with the same
/// hash of 64 bits would make one report too many.
#[derive(Debug, Default)]
pub struct Hidden(Vec<u64>);

impl Hidden {
    /// Of paths of the image, absolute and without links.
    pub fn new<'p>(paths: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut hashes: Vec<u64> = paths.map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.shrink_to_fit();
        Self(hashes)
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.0.binary_search(&hash(path)).is_ok()
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// How a hidden file was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Opened.
    Open,
    /// Executed, or loaded as the interpreter of a program.
    Exec,
    /// A directory that was opened, to list it or to work in it.
    Directory,
}

/// Uses of one file by processes of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Path in the image.
    pub path: String,
    /// How it was used.
    pub r#use: Use,
    /// Name of the processes (proc_pid_comm(5)); empty for those that had ended when it was looked up.
    pub process: String,
    /// How often. The kernel counts equal events of one process as one while they wait.
    pub count: u64,
    /// When it was seen first.
    pub first: Timestamp,
}

/// What was seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Each use, in the order of paths.
    pub uses: Vec<Count>,
    /// How many uses came after [`MAX_USES`] different ones.
    pub more: u64,
    /// True when the kernel had to drop events: there were more uses than are told.
    pub overflow: bool,
}

/// What is kept about a container whose files were audited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Name of the rule that says what would be visible.
    pub rule: String,
    /// When it was watched from.
    pub since: Timestamp,
    /// Until when; none while it is still watched.
    pub until: Option<Timestamp>,
    /// What was seen.
    pub seen: Report,
}

/// Name of the file that holds the record of a container.
#[must_use]
pub fn record_name(namespace: &str, container: &str) -> String {
    format!(
        "{}.json",
        Digest::of(format!("{namespace}/{container}").as_bytes()).hex()
    )
}

/// A listener.
#[derive(Debug)]
pub struct Watch {
    events: OwnedFd,
    root: PathBuf,
    runtime: PathBuf,
    hidden: Hidden,
    uses: BTreeMap<(Vec<u8>, Use, String), (u64, Timestamp)>,
    /// Bytes of the paths in `uses`.
    paths: usize,
    more: u64,
    overflow: bool,
}

impl AsFd for Watch {
    /// Readable when there are events to [`Watch::drain`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Watch {
    /// Listens to what happens on the file system that is mounted at `root`, whoever does it and in whatever mount
    /// namespace. `runtime` is the program of the OCI runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(root: &Path, runtime: &Path, hidden: Hidden) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // Opening a fifo for an event must not wait for its other end.
        let opened = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NONBLOCK | libc::O_NOATIME;
        // SAFETY: numbers only.
        let events = unsafe { libc::fanotify_init(flags, opened.cast_unsigned()) };
        if events < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let events = unsafe { OwnedFd::from_raw_fd(events) };
        let path = std::ffi::CString::new(root.as_os_str().as_bytes())?;
        // SAFETY: the path ends with a NUL and outlives the call.
        let marked = unsafe {
            libc::fanotify_mark(
                events.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM | libc::FAN_MARK_ONLYDIR,
                libc::FAN_OPEN | libc::FAN_OPEN_EXEC | libc::FAN_ONDIR,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        if marked < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            events,
            root: fs::canonicalize(root)?,
            runtime: fs::canonicalize(runtime).unwrap_or_else(|_| runtime.to_owned()),
            hidden,
            uses: BTreeMap::new(),
            paths: 0,
            more: 0,
            overflow: false,
        })
    }

    /// Reads what has happened since the last time, without waiting for more. Answers whether the report has changed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drain(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = [0; BUFFER];
        loop {
            let length = match rustix::io::read(&self.events, &mut buffer) {
                Err(Errno::AGAIN) => return Ok(changed),
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(event) = Event::first(rest) {
                rest = rest.get(event.length..).unwrap_or_default();
                changed |= self.count(&event);
            }
        }
    }

    fn count(&mut self, event: &Event) -> bool {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            self.overflow = true;
            return true;
        }
        let Some(file) = &event.file else {
            return false;
        };
        let Ok(path) = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
            return false;
        };
        // As the opener's mount namespace has it: the container's, or the node's before the container has its own.
        let path = match path.strip_prefix(&self.root) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path,
        };
        let path = path.as_os_str().as_bytes();
        if !self.hidden.contains(path) {
            return false;
        }
        let how = if event.mask & libc::FAN_OPEN_EXEC != 0 {
            Use::Exec
        } else if fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd())).is_ok_and(|file| file.is_dir()) {
            Use::Directory
        } else {
            Use::Open
        };
        if how != Use::Exec && self.is_runtime(event.process) {
            return false;
        }
        let key = (path.to_vec(), how, command(event.process));
        if let Some((count, _)) = self.uses.get_mut(&key) {
            *count += 1;
        } else if self.uses.len() >= MAX_USES || self.paths + path.len() > MAX_PATHS {
            self.more += 1;
        } else {
            self.paths += path.len();
            self.uses.insert(key, (1, Timestamp::now()));
        }
        true
    }

    /// runc runs as a copy of itself in memory, under a name that the kernel makes of the file's.
    fn is_runtime(&self, process: i32) -> bool {
        let Ok(program) = fs::read_link(format!("/proc/{process}/exe")) else {
            return false;
        };
        program == self.runtime || program.as_os_str().as_bytes().starts_with(b"/memfd:runc_cloned:")
    }

    /// What was seen so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let counts = self.uses.iter().map(|((path, how, process), (count, first))| Count {
            path: String::from_utf8_lossy(path).into_owned(),
            r#use: *how,
            process: process.clone(),
            count: *count,
            first: *first,
        });
        Report {
            uses: counts.collect(),
            more: self.more,
            overflow: self.overflow,
        }
    }
}

/// The name of a process, without what a terminal would take for more than text.
fn command(process: i32) -> String {
    let name = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name)
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_COMMAND)
        .collect()
}

/// One event.
struct Event {
    length: usize,
    mask: u64,
    process: i32,
    file: Option<OwnedFd>,
}

impl Event {
    /// The first event in what the kernel wrote. Takes its descriptor over.
    fn first(bytes: &[u8]) -> Option<Self> {
        let metadata: &[u8; METADATA] = bytes.first_chunk()?;
        let [
            l0,
            l1,
            l2,
            l3,
            version,
            _,
            _,
            _,
            mask @ ..,
            f0,
            f1,
            f2,
            f3,
            p0,
            p1,
            p2,
            p3,
        ] = *metadata;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        if version != libc::FANOTIFY_METADATA_VERSION || length < METADATA {
            return None;
        }
        let file = i32::from_ne_bytes([f0, f1, f2, f3]);
        Some(Self {
            length,
            mask: u64::from_ne_bytes(mask),
            process: i32::from_ne_bytes([p0, p1, p2, p3]),
            // SAFETY: the kernel has opened this descriptor for the reader of the event, who is us.
            file: (file >= 0).then(|| unsafe { OwnedFd::from_raw_fd(file) }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::identity::Mount;
    use crate::shim::mount::{mount_all, unmount_recursive};

    struct Root(tempfile::TempDir);

    impl Root {
        /// An image with busybox under some names, mounted.
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let at = |name: &str| place.path().join(name);
            for folder in ["layer/bin", "layer/secret/deep", "upper", "work", "runtime"] {
                fs::create_dir_all(at(folder)).unwrap();
            }
            for name in ["layer/bin/busybox", "layer/bin/sh", "runtime/busybox"] {
                fs::copy("/bin/busybox", at(name)).unwrap();
            }
            for name in ["layer/kept", "layer/hidden", "layer/secret/deep/file"] {
                fs::write(at(name), name).unwrap();
            }
            let option = |key: &str, name: &str| format!("{key}={}", at(name).display());
            let request = Mount {
                r#type: "overlay".to_owned(),
                source: "overlay".to_owned(),
                target: String::new(),
                options: vec![
                    option("lowerdir", "layer"),
                    option("upperdir", "upper"),
                    option("workdir", "work"),
                ],
            };
            mount_all(&[request], None, &at("root")).unwrap();
            Self(place)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn watch(&self) -> Watch {
            let hidden = [
                &b"/bin/sh"[..],
                b"/hidden",
                b"/secret",
                b"/secret/deep",
                b"/secret/deep/file",
            ];
            Watch::new(
                &self.path("root"),
                &self.path("runtime/busybox"),
                Hidden::new(hidden.into_iter()),
            )
            .unwrap()
        }

        /// Runs a script in a mount namespace of its own with the image as its root.
        fn run(&self, arguments: &[&str]) {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "chroot"])
                .arg(self.path("root"))
                .args(arguments);
            assert!(command.output().unwrap().status.code().is_some());
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            unmount_recursive(&self.path("root")).unwrap();
        }
    }

    #[test]
    fn each_use_of_what_enforce_would_hide_is_counted_with_path_and_process() {
        let root = Root::new();
        let mut watch = root.watch();
        root.run(&["/bin/busybox", "cat", "/kept", "/hidden", "/hidden"]);
        root.run(&["/bin/busybox", "ls", "/secret/deep", "/"]);
        root.run(&["/bin/sh", "-c", "exec /bin/busybox cat /secret/deep/file"]);
        watch.drain().unwrap();
        let report = watch.report();
        let seen: Vec<_> = report
            .uses
            .iter()
            .map(|count| (count.path.as_str(), count.r#use))
            .collect();
        assert_eq!(
            seen,
            [
                ("/bin/sh", Use::Exec),
                ("/hidden", Use::Open),
                ("/secret/deep", Use::Directory),
                ("/secret/deep/file", Use::Open),
            ],
            "{report:?}"
        );
        assert!(!report.overflow && report.more == 0);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn the_oci_runtime_s_own_opens_are_left_out_and_its_execs_are_not() {
        let root = Root::new();
        let mut watch = root.watch();
        let mut hold = |program: &str| {
            // It lives until the event is read.
            let script = format!("exec 3<{}; read line", root.path("root/hidden").display());
            let mut command = Command::new(root.path(program));
            let child = command
                .args(["sh", "-c", &script])
                .stdin(std::process::Stdio::piped())
                .spawn();
            let mut child = child.unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
            watch.drain().unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            watch.report().uses
        };
        assert_eq!(hold("runtime/busybox"), []);
        let seen = hold("root/bin/busybox");
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(
            (seen[0].path.as_str(), seen[0].process.as_str(), seen[0].count),
            ("/hidden", "busybox", 1)
        );
    }

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        assert!(Event::first(&[]).is_none());
        assert!(Event::first(&[0; METADATA]).is_none());
        let mut bytes = [0; METADATA];
        bytes[..4].copy_from_slice(&24_u32.to_ne_bytes());
        bytes[4] = libc::FANOTIFY_METADATA_VERSION;
        bytes[8..16].copy_from_slice(&libc::FAN_Q_OVERFLOW.to_ne_bytes());
        bytes[16..20].copy_from_slice(&libc::FAN_NOFD.to_ne_bytes());
        let event = Event::first(&bytes).unwrap();
        assert_eq!((event.length, event.mask), (24, libc::FAN_Q_OVERFLOW));
        assert!(event.file.is_none());
    }

    #[test]
    fn more_uses_than_are_kept_are_still_counted() {
        let root = Root::new();
        let mut watch = root.watch();
        for n in 0..MAX_USES {
            watch.uses.insert(
                (n.to_string().into_bytes(), Use::Open, String::new()),
                (1, Timestamp::now()),
            );
        }
        fs::read(root.path("root/hidden")).unwrap();
        watch.drain().unwrap();
        assert_eq!((watch.uses.len(), watch.more), (MAX_USES, 1));
    }
}
