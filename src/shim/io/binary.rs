//! Logging binaries: programs that read a container's output from descriptors 3 and 4.
//!
//! The contract is containerd's: the program finds the container's id and namespace in its environment, which is
//! otherwise empty, reads standard output from descriptor 3 and standard error from 4, and says that it is ready by
//! writing a byte to descriptor 5 or closing it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use super::copy::{Read, read_now};
use super::uri::Binary;
use super::{IoError, PATIENCE, watched};

/// First descriptor of the three that a logging binary gets.
const FIRST: RawFd = 3;
/// How long it may read what is left before it is asked to end.
const GRACE: Duration = Duration::from_secs(2);
/// How long it may take to end once it is asked.
const TERMINATION: Duration = Duration::from_secs(10);

/// A running logging binary; dropped, it is given time to read what is left and then ended.
#[derive(Debug)]
pub(super) struct Logger {
    enough: watch::Sender<bool>,
}

impl Logger {
    /// Starts `binary` and waits until it is ready. `gone` is dropped when it has ended.
    pub(super) async fn start(
        binary: &Binary,
        id: &str,
        namespace: &str,
        output: OwnedFd,
        error: OwnedFd,
        gone: watch::Sender<()>,
    ) -> Result<Self, IoError> {
        let failed = |source| IoError::Logger {
            program: binary.program.clone(),
            source,
        };
        let (ready, signal) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let process = spawn(binary, id, namespace, [output, error, signal]).map_err(failed)?;
        let enough = watch::Sender::new(false);
        tokio::spawn(supervise(process, binary.program.clone(), enough.subscribe(), gone));
        let logger = Self { enough };

        rustix::io::ioctl_fionbio(&ready, true).map_err(|error| failed(error.into()))?;
        let ready = watched(ready).map_err(IoError::Watch)?;
        let confirmed = timeout(PATIENCE, confirmation(&ready)).await;
        let confirmed = confirmed.map_err(|_| IoError::LoggerSilent {
            program: binary.program.clone(),
        })?;
        if confirmed.map_err(failed)? || !binary.must_confirm {
            Ok(logger)
        } else {
            Err(IoError::LoggerSilent {
                program: binary.program.clone(),
            })
        }
    }

    /// All writers are gone: it should come to its end.
    pub(super) fn finish(&self) {
        self.enough.send_replace(true);
    }
}

/// Whether a byte came before the descriptor was closed.
async fn confirmation(ready: &AsyncFd<OwnedFd>) -> std::io::Result<bool> {
    loop {
        let mut readable = ready.readable().await?;
        match read_now(ready) {
            Read::Bytes(_) => return Ok(true),
            Read::End => return Ok(false),
            Read::Nothing => readable.clear_ready(),
            Read::Failed(error) => return Err(error),
        }
    }
}

/// A child that is signalled and awaited without naming it by a number that could be another's.
struct Process {
    pid: Pid,
    descriptor: AsyncFd<OwnedFd>,
}

fn spawn(binary: &Binary, id: &str, namespace: &str, descriptors: [OwnedFd; 3]) -> std::io::Result<Process> {
    // Out of the way of the numbers that they will have.
    let above = FIRST + 3;
    let moved: Vec<OwnedFd> = descriptors
        .iter()
        .map(|fd| fcntl_dupfd_cloexec(fd, above))
        .collect::<Result<_, Errno>>()?;
    drop(descriptors);
    let numbers: Vec<(RawFd, RawFd)> = moved.iter().map(AsRawFd::as_raw_fd).zip(FIRST..).collect();

    let mut command = Command::new(&binary.program);
    command
        .args(&binary.arguments)
        .env_clear()
        .envs(binary.environment.iter().map(|(name, value)| (name, value)))
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    // SAFETY: between fork and exec the closure only makes system calls, on descriptors that are open there: `moved`
    // lives until after the fork.
    unsafe {
        command.pre_exec(move || {
            for &(from, to) in &numbers {
                if libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    // No other task has run since the child was made, so it cannot have been reaped.
    let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    Ok(Process {
        pid,
        descriptor: watched(descriptor)?,
    })
}

impl Process {
    async fn ended(&self) {
        // A pidfd is readable from the end of its process on. Should waiting fail, nothing more can be known.
        let _ = self.descriptor.readable().await;
    }

    fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.descriptor, signal).is_ok()
    }
}

/// Sees to it that a logging binary ends some time after `enough`, and reaps it.
async fn supervise(process: Process, program: PathBuf, mut enough: watch::Receiver<bool>, gone: watch::Sender<()>) {
    tokio::select! {
        () = process.ended() => {}
        // Fails when the logger is dropped, which means the same.
        () = async { drop(enough.wait_for(|enough| *enough).await) } => {
            if timeout(GRACE, process.ended()).await.is_err()
                && process.signal(Signal::TERM)
                && timeout(TERMINATION, process.ended()).await.is_err()
                // While this succeeds it is not reaped, and its number still names its group.
                && process.signal(Signal::KILL)
            {
                log::warn!("logging binary {} did not end and was killed", program.display());
                // The group may consist of this process alone.
                let _ = kill_process_group(process.pid, Signal::KILL);
                process.ended().await;
            }
        }
    }
    // Whoever reaps all children of this process may have been faster.
    let _ = waitid(
        WaitId::PidFd(process.descriptor.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
    drop(gone);
}
