//! A parser as a process: started with a question, caged, and ended at a deadline whatever it does.

use std::fmt::Display;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};

use super::sandbox::{CPU_LIMIT, MEMORY_LIMIT, SandboxError};
use crate::diagnostic::printable;

/// Exit status of a parser whose cage could not be closed.
pub(crate) const NO_SANDBOX: u8 = 71;
/// Exit status of a parser that could not read its question or write its answer.
pub(crate) const NO_PIPE: u8 = 74;
/// Longest word of a parser about its cage, in characters.
const MAX_WORD: usize = 256;

/// Why a parser gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChildFault {
    /// It could not be started.
    #[error("could not be started: {0}")]
    Start(#[source] io::Error),
    /// Its cage could not be closed, so it read nothing.
    #[error("could not be shut in: {0}")]
    Sandbox(String),
    /// It did not finish in time.
    #[error("had no answer after {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It died.
    #[error("died: {0}")]
    Crashed(String),
    /// It said more than an answer may have.
    #[error("answered with more than {0} bytes")]
    TooLarge(u64),
}

/// Starts a parser, gives it its question and collects what it says until it ends, or kills it at the deadline.
///
/// # Errors
/// See [`ChildFault`]; the child is dead when this returns.
pub(crate) fn run(command: Command, question: &[u8], most: u64, deadline: Instant) -> Result<Vec<u8>, ChildFault> {
    let io_fault = |error: rustix::io::Errno| ChildFault::Start(error.into());
    // A file in memory instead of a pipe: the question is there as a whole, however slowly it is read.
    let file = rustix::fs::memfd_create("question", MemfdFlags::CLOEXEC).map_err(io_fault)?;
    let mut file = std::fs::File::from(file);
    file.write_all(question).map_err(ChildFault::Start)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(io_fault)?;
    run_on(command, file, most, deadline)
}

/// As [`run`], with a question that is in a file already.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_on(
    mut command: Command,
    question: std::fs::File,
    most: u64,
    deadline: Instant,
) -> Result<Vec<u8>, ChildFault> {
    let started = Instant::now();
    let mut child = command
        .env_clear()
        .stdin(question)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ChildFault::Start)?;
    let collected = collect(&mut child, most, deadline, started);
    // Dead already, or not to live longer; either way its entry in the process table goes.
    let _ = child.kill();
    let status = child.wait().map_err(ChildFault::Start)?;
    let answer = collected?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(answer),
        // It had not read anything untrusted yet, so what it said is its own.
        (Some(code), _) if code == i32::from(NO_SANDBOX) => {
            let text = String::from_utf8_lossy(&answer);
            Err(ChildFault::Sandbox(printable(&text).chars().take(MAX_WORD).collect()))
        }
        (Some(code), _) => Err(ChildFault::Crashed(format!("exit status {code}"))),
        (None, Some(signal)) => Err(ChildFault::Crashed(ended_by(signal))),
        (None, None) => Err(ChildFault::Crashed(status.to_string())),
    }
}

/// What a signal that ended a parser says. One that breaks out of its code can choose it.
fn ended_by(signal: i32) -> String {
    match signal {
        libc::SIGXCPU => format!("it needed more than {CPU_LIMIT} s of processor time"),
        // A Rust program ends itself like this when an allocation fails or its stack ends.
        libc::SIGABRT => format!("it needed more than {} MiB of memory", MEMORY_LIMIT >> 20),
        signal => format!("signal {signal}"),
    }
}

/// Reads standard output until it ends and then waits until the process has.
fn collect(child: &mut Child, most: u64, deadline: Instant, started: Instant) -> Result<Vec<u8>, ChildFault> {
    let io_fault = |error: rustix::io::Errno| ChildFault::Start(error.into());
    let mut stdout = child
        .stdout
        .take()
        .ok_or(ChildFault::Start(io::ErrorKind::BrokenPipe.into()))?;
    let pid = Pid::from_child(child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io_fault)?;
    let mut answer = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        wait_for(stdout.as_fd(), deadline, started)?;
        let count = match stdout.read(&mut part) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ChildFault::Start(error)),
        };
        if count == 0 {
            break;
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if answer.len() as u64 > most {
            return Err(ChildFault::TooLarge(most));
        }
    }
    wait_for(process.as_fd(), deadline, started)?;
    Ok(answer)
}

/// Waits until `fd` can be read.
fn wait_for(fd: BorrowedFd<'_>, deadline: Instant, started: Instant) -> Result<(), ChildFault> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ChildFault::Timeout(started.elapsed()));
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ChildFault::Start(error.into())),
        }
    }
}

/// Shuts this process in, as the first thing that it does. `argument` is the number of the descriptor that becomes its
/// root.
///
/// # Errors
/// The exit status with which it has to end; why is on standard output.
pub(crate) fn enter(
    argument: &str,
    shut_in: impl FnOnce(OwnedFd) -> Result<OwnedFd, SandboxError>,
) -> Result<OwnedFd, ExitCode> {
    let no_sandbox = |why: &dyn Display| {
        // When not even this can be said, the exit status still says the most important part.
        let _ = write!(io::stdout(), "{why}");
        ExitCode::from(NO_SANDBOX)
    };
    let Some(descriptor) = inherited(argument) else {
        return Err(no_sandbox(&"its argument is not an inherited descriptor"));
    };
    shut_in(descriptor).map_err(|error| no_sandbox(&error))
}

/// A descriptor that the parent left open for this process.
pub(crate) fn inherited(argument: &str) -> Option<OwnedFd> {
    let number: RawFd = argument.parse().ok().filter(|number| *number > 2)?;
    // SAFETY: only asks whether the number stands for an open file.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: the process has just started, nothing in it owns the descriptor that its parent left open for it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let deadline = Instant::now() + Duration::from_secs(60);
        run(command, b"", 100, deadline).unwrap_err().to_string()
    }

    #[test]
    fn a_limit_that_was_reached_is_named() {
        assert_eq!(
            fault("kill -XCPU $$"),
            "died: it needed more than 10 s of processor time"
        );
        assert_eq!(fault("kill -ABRT $$"), "died: it needed more than 512 MiB of memory");
        assert_eq!(fault("kill -SEGV $$"), "died: signal 11");
        assert_eq!(fault("exit 3"), "died: exit status 3");
    }
}
