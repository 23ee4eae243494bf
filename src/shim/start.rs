//! `start`: one resident shim per pod; print its address.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::bootstrap::{Bootstrap, BootstrapError};
use super::bundle::{self, Spec};
use super::error::Error;
use super::invocation::Invocation;
use super::socket::{self, Bound};

/// `oom_score_adj` of a process that the kernel kills before all others.
const MOST_KILLABLE: i32 = 1000;

/// Why no shim was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// containerd's input.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] Error),
    /// The socket.
    #[error("shim socket: {0}")]
    Socket(io::Error),
    /// The resident process.
    #[error("cannot start the resident shim: {0}")]
    Spawn(io::Error),
    /// `ShimCgroup`.
    #[error("ShimCgroup '{path}': {source}")]
    Cgroup {
        /// As configured.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Starts the shim of this container's pod, or finds the one that runs, and writes its address to standard output.
///
/// The answer is the plain address, which every containerd from 1.6 on understands as task API version 2: with it
/// containerd runs `delete` for each container of a pod, not only for the sandbox.
///
/// # Errors
/// When the bundle or the options cannot be read or the shim cannot be started; nothing is left running then.
pub fn start(invocation: &Invocation) -> Result<(), StartError> {
    let bootstrap = Bootstrap::read(io::stdin(), &invocation.id, &invocation.namespace)?;
    let bundle = env::current_dir().map_err(Error::system("current directory"))?;
    let spec = Spec::read(&bundle)?;
    let group = socket::group(&invocation.id, &invocation.namespace, &spec);
    let path = socket::path(
        bootstrap.socket_dir.as_deref(),
        &invocation.address,
        &invocation.namespace,
        group,
    )
    .map_err(StartError::Socket)?;
    let address = format!("unix://{}", path.display());
    if let Bound::New(listener) = socket::bind(&path).map_err(StartError::Socket)? {
        let placed = spawn(invocation, group, &path, listener.into()).and_then(|pid| {
            let placed = place(pid, &bootstrap.options.shim_cgroup);
            if placed.is_err() {
                kill(pid);
            }
            placed
        });
        if let Err(error) = placed {
            // The error that stopped the start is worth more than one about the socket.
            let _ = socket::remove(&path);
            return Err(error);
        }
    }
    bundle::write_address(&bundle, &address)?;
    io::stdout().write_all(address.as_bytes()).map_err(StartError::Spawn)
}

fn spawn(
    invocation: &Invocation,
    group: &str,
    socket: &Path,
    listener: std::os::fd::OwnedFd,
) -> Result<u32, StartError> {
    let program = env::current_exe().map_err(StartError::Spawn)?;
    let mut command = Command::new(program);
    command.args([
        "-namespace",
        &invocation.namespace,
        "-id",
        group,
        "-address",
        &invocation.address,
    ]);
    if invocation.debug {
        command.arg("-debug");
    }
    command
        .env(super::serve::SOCKET, socket)
        .stdin(listener)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if env::var_os("SCHED_CORE").is_some() {
        // SAFETY: the closure makes one system call and touches no memory of the parent.
        unsafe { command.pre_exec(own_core_scheduling_group) };
    }
    Ok(command.spawn().map_err(StartError::Spawn)?.id())
}

/// Gives the shim and all that it starts a core-scheduling cookie of their own, as containerd asks with `SCHED_CORE`.
fn own_core_scheduling_group() -> io::Result<()> {
    // SAFETY: PR_SCHED_CORE takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE, 0, 1, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Puts the resident shim where the administrator wants it: its cgroup, and before containerd in the order in which
/// the kernel kills when memory runs out.
fn place(pid: u32, cgroup: &str) -> Result<(), StartError> {
    if !cgroup.is_empty() {
        join_cgroup(Path::new("/sys/fs/cgroup"), cgroup, pid).map_err(|source| StartError::Cgroup {
            path: cgroup.to_owned(),
            source,
        })?;
    }
    // Best effort: without the right to change scores the shim keeps containerd's own.
    if let Some(score) = parent_oom_score() {
        let _ = fs::write(
            format!("/proc/{pid}/oom_score_adj"),
            (score + 1).min(MOST_KILLABLE).to_string(),
        );
    }
    Ok(())
}

fn parent_oom_score() -> Option<i32> {
    let parent = std::os::unix::process::parent_id();
    fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Moves a process into `cgroup`, which must exist: in the one hierarchy of cgroup v2, or in each of v1 that has it.
fn join_cgroup(root: &Path, cgroup: &str, pid: u32) -> io::Result<()> {
    let relative = cgroup.trim_start_matches('/');
    let pid = pid.to_string();
    if root.join("cgroup.controllers").exists() {
        return fs::write(root.join(relative).join("cgroup.procs"), pid);
    }
    let mut joined = false;
    for hierarchy in fs::read_dir(root)? {
        let procs = hierarchy?.path().join(relative).join("cgroup.procs");
        if procs.exists() {
            fs::write(procs, &pid)?;
            joined = true;
        }
    }
    if joined {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no such cgroup in any hierarchy",
        ))
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // Our own child, which nobody else has reaped: the id cannot mean another process.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_must_exist_in_some_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        for hierarchy in ["memory", "cpu"] {
            fs::create_dir_all(root.path().join(hierarchy).join("shims")).unwrap();
        }
        let procs = root.path().join("memory/shims/cgroup.procs");
        fs::write(&procs, "").unwrap();
        join_cgroup(root.path(), "/shims", 42).unwrap();
        assert_eq!(fs::read_to_string(&procs).unwrap(), "42");
        assert!(!root.path().join("cpu/shims/cgroup.procs").exists());
        assert!(join_cgroup(root.path(), "/elsewhere", 42).is_err());
    }
}
