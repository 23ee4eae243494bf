//! A command of `assay` as a process of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;

/// A command that runs. Its environment is the agent's: it says where credentials and proxies are.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    ended: AsyncFd<OwnedFd>,
}

impl Process {
    pub(super) fn start(arguments: &[&str], stderr: Stdio) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, and AsyncFd owns it.
        let ended = unsafe { AsyncFd::register(ended) }?;
        Ok(Self { child, ended })
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        // Where that cannot be waited for, `finish` waits.
        drop(self.ended.readable().await);
    }

    /// Its exit code; none where a signal ended it.
    pub(super) fn finish(mut self) -> Option<i32> {
        self.child.wait().ok().and_then(|status| status.code())
    }

    /// Ends it.
    pub(super) fn kill(mut self) {
        // Dead already, or not to live longer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
