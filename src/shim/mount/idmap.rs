//! Mounts that show their files as owned by other users (mount_setattr(2), `MOUNT_ATTR_IDMAP`).

use std::fs::{self, File};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::mount::MountFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::MountError;

/// Most ranges in a mapping: what the kernel takes.
const RANGES_LIMIT: usize = 340;

/// A user namespace with the mappings `users` and `groups`, each `inside:outside:count`, separated by commas.
pub(super) fn user_namespace(users: &str, groups: &str) -> Result<OwnedFd, MountError> {
    let (users, groups) = (table(users)?, table(groups)?);
    make(&users, &groups).map_err(|source| MountError::Mapping { source })
}

/// A mapping in the form of `/proc/<pid>/uid_map`.
fn table(mapping: &str) -> Result<String, MountError> {
    let refuse = |reason| MountError::Option {
        option: mapping.chars().take(200).collect(),
        reason,
    };
    let mut lines = Vec::new();
    for range in mapping.split(',') {
        let numbers: Vec<Option<u32>> = range.split(':').map(|number| number.parse().ok()).collect();
        let [Some(inside), Some(outside), Some(count @ 1..)] = numbers[..] else {
            return Err(refuse(
                "is not a mapping of ids; expected inside:outside:count, separated by commas",
            ));
        };
        lines.push(format!("{inside} {outside} {count}\n"));
    }
    if lines.len() > RANGES_LIMIT {
        return Err(refuse("is a mapping of ids with too many ranges"));
    }
    Ok(lines.concat())
}

fn make(users: &str, groups: &str) -> io::Result<OwnedFd> {
    // A thread of a process with other threads cannot enter a new user namespace, so a child does.
    let child = Child::new()?;
    let path = |name: &str| format!("/proc/{}/{name}", child.pid);
    fs::write(path("uid_map"), users)?;
    fs::write(path("gid_map"), groups)?;
    File::open(path("ns/user")).map(OwnedFd::from)
}

/// A child in a new user namespace that does nothing; killed when dropped.
struct Child {
    pid: libc::pid_t,
    descriptor: OwnedFd,
}

impl Child {
    fn new() -> io::Result<Self> {
        let mut descriptor: RawFd = -1;
        // SAFETY: zero is a valid value for each field of this plain structure.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD).cast_unsigned().into();
        arguments.pidfd = (&raw mut descriptor).addr() as u64;
        arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        // SAFETY: without CLONE_VM this is a fork: the child has a copy of this thread and of its memory. The kernel
        // writes the descriptor to a variable that outlives the call.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => idle(),
            _ => {
                let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
                // SAFETY: the kernel has just made this descriptor for us.
                let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
                Ok(Self { pid, descriptor })
            }
        }
    }
}

/// What the child does: wait for its end. Locks of other threads may be held for ever here, so only system calls.
fn idle() -> ! {
    // SAFETY: system calls without memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It cannot have ended before, and whoever reaps all children of this process may be faster.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.descriptor.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Sets the mapping and flags of a mount that is not attached anywhere yet, and of those below it.
pub(super) fn set(tree: &OwnedFd, namespace: &OwnedFd, flags: MountFlags) -> io::Result<()> {
    let fd = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | attributes(flags),
        attr_clr: if flags.intersects(TIMES) {
            libc::MOUNT_ATTR__ATIME
        } else {
            0
        },
        propagation: 0,
        userns_fd: fd,
    };
    // SAFETY: the kernel reads a `struct mount_attr` of the given size and an empty path.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Flags that exclude each other in `struct mount_attr`.
const TIMES: MountFlags = MountFlags::NOATIME
    .union(MountFlags::STRICTATIME)
    .union(MountFlags::RELATIME);

fn attributes(flags: MountFlags) -> u64 {
    let table = [
        (MountFlags::RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, libc::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (MountFlags::NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
        (MountFlags::NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let mut attributes = table
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(0, |all, (_, bit)| all | bit);
    // As in mount(2), the strongest word counts.
    if flags.contains(MountFlags::STRICTATIME) {
        attributes |= libc::MOUNT_ATTR_STRICTATIME;
    } else if flags.contains(MountFlags::NOATIME) {
        attributes |= libc::MOUNT_ATTR_NOATIME;
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_and_others_refused() {
        assert_eq!(
            table("0:100000:65536,65536:7:1").unwrap(),
            "0 100000 65536\n65536 7 1\n"
        );
        for bad in [
            "",
            "0:1",
            "0:1:0",
            "0:1:2:3",
            "a:1:2",
            "0:-1:2",
            "0:1:2,",
            "0:4294967296:1",
        ] {
            assert!(matches!(table(bad), Err(MountError::Option { .. })), "{bad}");
        }
        assert!(table(&vec!["0:1:2"; RANGES_LIMIT + 1].join(",")).is_err());
    }

    #[test]
    fn a_namespace_has_the_mapping_and_leaves_no_child() {
        let namespace = user_namespace("0:100000:10", "0:200000:10").unwrap();
        let stat = rustix::fs::fstat(&namespace).unwrap();
        let own = rustix::fs::stat("/proc/self/ns/user").unwrap();
        assert_ne!(stat.st_ino, own.st_ino);
        let error = user_namespace("0:0:2,1:5:1", "0:0:1").unwrap_err();
        assert!(matches!(error, MountError::Mapping { .. }), "{error}");
    }
}
