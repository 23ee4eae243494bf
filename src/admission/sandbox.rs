//! The cage in which a parser reads untrusted bytes.
//!
//! [`enter`] is called as the first thing in a process of its own. Afterwards that process has: standard input, output
//! and error, one directory, which is also its root (mounted read-only, `nosuid`, `nodev`, `noexec`), a user id that
//! nothing else on the node has, no capability (but that to read, for an image's files) and no way to get one, an empty network and IPC namespace, limits on
//! memory, time and files, and a list of about forty system calls that only read, allocate and end.
//!
//! The files below the directory stay root's own, modes 0600 and 0700: the parser's *file-system* user id, which counts
//! for opening files and nothing else, remains 0, and without any capability root is merely the owner of those files.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Address space of a parser in bytes.
pub(super) const MEMORY_LIMIT: u64 = 512 << 20;
/// Processor time of a parser in seconds; the broker's own deadline is normally shorter.
pub(super) const CPU_LIMIT: u64 = 10;
/// Open files of a parser.
const FILES_LIMIT: u64 = 64;
/// User ids of parsers start here and the process id is added, so that no two parsers share one. The range up to
/// 2³¹ is given to nobody by the distributions, systemd or container managers, and its ids are never mapped in a pod.
const FIRST_UID: u32 = 1_900_000_000;

/// Why the cage could not be closed. The process must end without having read anything.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} for the parser: {source}")]
pub struct SandboxError {
    step: &'static str,
    source: io::Error,
}

/// What becomes the root of a parser.
#[derive(Debug)]
pub enum Root {
    /// A directory of this process's mount namespace.
    Directory(OwnedFd),
    /// A mount that is attached nowhere yet.
    Mount(OwnedFd),
}

/// Shuts the calling process in with `directory`, and returns it again, opened below its new mount.
///
/// Call it first in a single-threaded process: it closes every descriptor but the first three and `directory`.
///
/// # Errors
///
/// The first step that the kernel refused; nothing weaker is tried instead.
pub fn enter(directory: OwnedFd) -> Result<OwnedFd, SandboxError> {
    shut_in(Root::Directory(directory), &[], CapabilitySet::empty())
}

/// As [`enter`], for the files of an image, and keeps the descriptors `further` too. The files belong to any user and
/// have any mode, so the process may read all of what it is given. It has that one capability, and no system call by
/// which it would reach further.
///
/// # Errors
///
/// As [`enter`].
pub fn enter_image(root: Root, further: &[RawFd]) -> Result<OwnedFd, SandboxError> {
    shut_in(root, further, CapabilitySet::DAC_READ_SEARCH)
}

fn shut_in(root: Root, further: &[RawFd], kept: CapabilitySet) -> Result<OwnedFd, SandboxError> {
    let (Root::Directory(descriptor) | Root::Mount(descriptor)) = &root;
    close_others(descriptor.as_fd(), further)?;
    let root = private_root(root)?;
    limits()?;
    become_nobody(kept)?;
    filter()?;
    Ok(root)
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError {
        step,
        source: source.into(),
    }
}

fn close_others(root: BorrowedFd<'_>, further: &[RawFd]) -> Result<(), SandboxError> {
    let mut kept: Vec<u32> = further
        .iter()
        .chain([&root.as_raw_fd()])
        .map(|fd| fd.unsigned_abs())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for kept in kept {
        close_range(first, kept.saturating_sub(1))?;
        first = kept.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), SandboxError> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the process has just started and owns no descriptor but the first three and those that are kept, so
    // nothing that is still in use is closed. No memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result != 0 {
        return Err(failed("close inherited files")(io::Error::last_os_error()));
    }
    Ok(())
}

/// Makes `root` the root of a mount namespace of this process.
fn private_root(root: Root) -> Result<OwnedFd, SandboxError> {
    const EMPTY: &CStr = c"";
    let tree = match root {
        // Before the namespace changes: afterwards the descriptor would name a mount of somebody else's.
        Root::Directory(directory) => rustix::mount::open_tree(
            &directory,
            EMPTY,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
        )
        .map_err(failed("clone the mount of its root"))?,
        Root::Mount(mount) => mount,
    };
    read_only(tree.as_fd())?;
    // SAFETY: the descriptor table is not unshared, so no descriptor that other code holds changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC) }
        .map_err(failed("create namespaces"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("make the mounts private"))?;
    rustix::mount::move_mount(
        &tree,
        EMPTY,
        rustix::fs::CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(failed("attach the mount of its root"))?;
    rustix::process::fchdir(&tree).map_err(failed("enter the mount of its root"))?;
    // Old and new root stacked on one place: what `.` names afterwards is the old one, which is then taken away.
    rustix::process::pivot_root(".", ".").map_err(failed("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("detach the old root"))?;
    rustix::process::chdir("/").map_err(failed("enter the new root"))?;
    rustix::fs::open("/", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the new root"))
}

pub(super) fn read_only(tree: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        attr_clr: 0,
        // What is cloned of a shared mount is shared, as nearly all mounts are where systemd runs, and nothing shared
        // becomes a root.
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a terminated string and the attributes live through the call, with their true size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result != 0 {
        return Err(failed("make a mount read-only")(io::Error::last_os_error()));
    }
    Ok(())
}

fn limits() -> Result<(), SandboxError> {
    for (resource, limit) in [
        (Resource::As, MEMORY_LIMIT),
        (Resource::Cpu, CPU_LIMIT + 1),
        (Resource::Nofile, FILES_LIMIT),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        // A hard limit that is lower already stays: raising it needs a capability that a service may lack.
        let maximum = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let maximum = limit.min(maximum);
        // A second before the kernel kills it, a signal says why.
        let current = if resource == Resource::Cpu {
            maximum.min(CPU_LIMIT)
        } else {
            maximum
        };
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(current),
                maximum: Some(maximum),
            },
        )
        .map_err(failed("set limits"))?;
    }
    Ok(())
}

fn become_nobody(kept: CapabilitySet) -> Result<(), SandboxError> {
    // Ids are unique only while the process lives, which is exactly as long as they are used.
    let id = FIRST_UID + rustix::process::getpid().as_raw_pid().unsigned_abs();
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(failed("drop capabilities")(error)),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(failed("drop ambient capabilities"))?;
    rustix::thread::set_thread_groups(&[]).map_err(failed("drop groups"))?;
    let gid = Gid::from_raw(id);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
    // The one capability that outlives the change of user, for the one call after it.
    rustix::thread::set_keep_capabilities(true).map_err(failed("change the user"))?;
    let uid = Uid::from_raw(id);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
    set_capabilities(kept | CapabilitySet::SETUID)?;
    // SAFETY: takes a number and returns the number before it.
    let changed = unsafe {
        libc::setfsuid(0);
        libc::setfsuid(u32::MAX)
    };
    if changed != 0 {
        return Err(failed("keep the file-system user")(io::Error::from_raw_os_error(
            libc::EPERM,
        )));
    }
    set_capabilities(kept)?;
    rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"))?;
    // After the change of user, which resets it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("bind to the broker"))
}

fn set_capabilities(set: CapabilitySet) -> Result<(), SandboxError> {
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(failed("drop capabilities"))
}

/// System calls that only read, allocate, or end the process. Everything else answers EPERM: a library that probes for
/// a faster way falls back, one that insists fails, and either way nothing happens.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fgetxattr,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // The mount is read-only and its flags lie in memory that a filter cannot look into.
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

fn filter() -> Result<(), SandboxError> {
    let program = program().map_err(|error| failed("build the system-call filter")(io::Error::other(error)))?;
    seccompiler::apply_filter(&program)
        .map_err(|error| failed("install the system-call filter")(io::Error::other(error)))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    // Bits that must be clear in one argument: opening for anything but reading, and memory that can be executed.
    let without = |argument, bits: libc::c_int| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(u64::from(bits.unsigned_abs())),
            0,
        )
        .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let argument_is = |argument, value: libc::c_int| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let writing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, vec![])).collect();
    // Ending itself with the signal that says that memory ran out; without it, it would end like a crash.
    let abort = vec![
        argument_is(0, rustix::process::getpid().as_raw_pid())?,
        argument_is(2, libc::SIGABRT)?,
    ];
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(abort)?]);
    rules.insert(libc::SYS_openat, vec![without(2, writing)?]);
    rules.insert(libc::SYS_mmap, vec![without(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_mprotect, vec![without(2, libc::PROT_EXEC)?]);
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}
