//! Child processes without races on process ids.
//!
//! The shim is a child subreaper: the first process of every container, execs, and orphans of both become its
//! children. A process that the shim knows is awaited through a pidfd. All others are reaped in a sweep, but never
//! while a command is running that is about to tell the pid of a new process: an unreaped zombie keeps its pid, so
//! that the pid in that answer cannot mean another process than the one that the OCI runtime started.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protobuf::well_known_types::timestamp::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use super::clock;

/// Most bytes kept of what a command prints.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Added to a signal's number when that signal ended a process, as shells do.
const SIGNALLED: i32 = 128;
/// Status of a process whose real status nobody can know.
const UNKNOWN_STATUS: u32 = 255;

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Exit status, 128 + n for signal n.
    pub status: u32,
    /// When the shim saw it.
    pub at: Timestamp,
}

impl Exit {
    /// An end that happened now.
    #[must_use]
    pub fn now(status: u32) -> Self {
        Self {
            status,
            at: clock::now(),
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, up to a mebibyte.
    pub stdout: Vec<u8>,
    /// Standard error, up to a mebibyte.
    pub stderr: Vec<u8>,
}

/// All children of the shim.
#[derive(Debug, Default)]
pub struct Children {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Processes that a [`Child`] stands for; only it reaps them.
    watched: HashSet<i32>,
    /// Commands about to tell a pid.
    held: usize,
    /// Whether every child of this process is ours to reap.
    sweeping: bool,
}

impl Children {
    /// Makes this process the reaper of its descendants. Needs a running event loop.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn adopt() -> io::Result<Arc<Self>> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let children = Arc::new(Self::default());
        children.lock().sweeping = true;
        let mut signals = signal(SignalKind::child())?;
        let sweeper = Arc::clone(&children);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sweeper.sweep();
            }
        });
        Ok(children)
    }

    /// Keeps every pid that is in use from being used again until the answer is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.lock().held += 1;
        Hold(Arc::clone(self))
    }

    /// Watches a process that is, or will be, a child of this one. While a [`Hold`] from before its start is alive,
    /// `pid` cannot mean another process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn watch(self: &Arc<Self>, pid: i32) -> io::Result<Child> {
        let id = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(id, PidfdFlags::NONBLOCK)?;
        self.lock().watched.insert(pid);
        // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, and AsyncFd owns it.
        let fd = unsafe { AsyncFd::register(fd) }.inspect_err(|_| {
            self.lock().watched.remove(&pid);
        })?;
        Ok(Child {
            fd,
            pid,
            reaped: false,
            children: Arc::clone(self),
        })
    }

    /// Starts a command that the kernel kills when the shim dies.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(self: &Arc<Self>, command: &mut Command) -> io::Result<(Child, std::process::Child)> {
        // SAFETY: the closure makes one system call and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            })
        };
        let child = command.spawn()?;
        let watched = self.watch(i32::try_from(child.id()).map_err(io::Error::other)?)?;
        Ok((watched, child))
    }

    /// Runs a command to its end; `input` goes to its standard input. Dropped before the end, it kills the command.
    ///
    /// A descendant that keeps the output open does not hold the answer up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(self: &Arc<Self>, command: &mut Command, input: &[u8]) -> io::Result<Output> {
        command.stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, mut std) = self.spawn(command)?;
        let _killed_if_given_up = KillOnDrop(child.handle()?);
        let mut stdin = std
            .stdin
            .take()
            .map(|fd| pipe::Sender::from_owned_fd(fd.into()))
            .transpose()?;
        let mut stdout = std
            .stdout
            .take()
            .map(|fd| pipe::Receiver::from_owned_fd(fd.into()))
            .transpose()?;
        let mut stderr = std
            .stderr
            .take()
            .map(|fd| pipe::Receiver::from_owned_fd(fd.into()))
            .transpose()?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = {
            let feed = async {
                if let Some(stdin) = stdin.as_mut() {
                    // A command that does not read its input says so by its exit status.
                    let _ = stdin.write_all(input).await;
                }
                stdin = None;
                std::future::pending::<Infallible>().await
            };
            tokio::select! {
                exit = child.wait() => exit,
                never = async { tokio::join!(feed, collect(stdout.as_mut(), &mut out), collect(stderr.as_mut(), &mut err)).0 } => match never {},
            }
        };
        drain(stdout.as_mut(), &mut out);
        drain(stderr.as_mut(), &mut err);
        Ok(Output {
            exit,
            stdout: out,
            stderr: err,
        })
    }

    fn sweep(&self) {
        loop {
            let inner = self.lock();
            if inner.held > 0 || !inner.sweeping {
                return;
            }
            match first_zombie() {
                // Its own watcher reaps it and sweeps again.
                Some(pid) if inner.watched.contains(&pid) => return,
                Some(pid) => reap(pid),
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Both fields are valid whatever happened while they were locked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn collect(from: Option<&mut pipe::Receiver>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut chunk).await {
            keep(&chunk[..n], into);
        }
    }
}

fn drain(from: Option<&mut pipe::Receiver>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = from.try_read(&mut chunk) {
            keep(&chunk[..n], into);
        }
    }
}

fn keep(bytes: &[u8], into: &mut Vec<u8>) {
    let room = OUTPUT_LIMIT.saturating_sub(into.len());
    into.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// The first child that has ended, left as it is.
fn first_zombie() -> Option<i32> {
    // SAFETY: an all-zero siginfo_t is a valid value of that plain structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing, and is read only after the call has filled it.
    let pid = unsafe {
        if libc::waitid(
            libc::P_ALL,
            0,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        ) != 0
        {
            return None;
        }
        info.si_pid()
    };
    Some(pid).filter(|pid| *pid > 0)
}

fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Just seen as a zombie, and nobody else reaps it.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// While it lives, no orphan is reaped.
#[derive(Debug)]
pub struct Hold(Arc<Children>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().held -= 1;
        self.0.sweep();
    }
}

/// A process that is awaited. Dropped before its end, it is left to the sweep.
#[derive(Debug)]
pub struct Child {
    fd: AsyncFd<OwnedFd>,
    pid: i32,
    reaped: bool,
    children: Arc<Children>,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor for signals to exactly this process.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn handle(&self) -> io::Result<Handle> {
        Ok(Handle(self.fd.get_ref().try_clone()?))
    }

    /// Waits for the end and reaps.
    pub async fn wait(&mut self) -> Exit {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return Exit::now(UNKNOWN_STATUS);
            };
            let result = waitid(
                WaitId::PidFd(std::os::fd::AsFd::as_fd(self.fd.get_ref())),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
            let status = match result {
                Ok(None) => {
                    ready.clear_ready();
                    continue;
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Ok(Some(status)) => {
                    let code = status
                        .exit_status()
                        .or_else(|| status.terminating_signal().map(|s| s + SIGNALLED));
                    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(UNKNOWN_STATUS)
                }
                // Not a child of this process: the OCI runtime named a process that is none of ours.
                Err(_) => UNKNOWN_STATUS,
            };
            self.reaped = true;
            self.children.lock().watched.remove(&self.pid);
            self.children.sweep();
            return Exit::now(status);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.children.lock().watched.remove(&self.pid);
            self.children.sweep();
        }
    }
}

/// Sends signals to one process, never to another that got its id.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// Sends a signal.
    ///
    /// # Errors
    /// ESRCH when the process has ended; EINVAL for a number that is no signal.
    pub fn signal(&self, signal: u32) -> io::Result<()> {
        let signal = i32::try_from(signal)
            .ok()
            .and_then(Signal::from_named_raw)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.0, signal)?)
    }
}

/// Kills a process that nobody waits for any more.
struct KillOnDrop(Handle);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Fails when the process has ended, which is the usual case.
        let _ = self.0.signal(libc::SIGKILL.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_loop<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_arrive_whole() {
        on_loop(async {
            let children = Arc::new(Children::default());
            let output = children
                .run(&mut shell("cat; echo oops >&2; exit 7"), b"input")
                .await
                .unwrap();
            assert_eq!(
                (output.stdout.as_slice(), output.stderr.as_slice()),
                (&b"input"[..], &b"oops\n"[..])
            );
            assert_eq!(output.exit.status, 7);
            let output = children.run(&mut shell("kill -KILL $$"), b"").await.unwrap();
            assert_eq!(output.exit.status, 137);
            let output = children.run(&mut shell("head -c 300000 /dev/zero"), b"").await.unwrap();
            assert_eq!(output.stdout.len(), 300_000);
        });
    }

    #[test]
    fn a_descendant_that_keeps_the_output_open_does_not_hold_the_answer_up() {
        on_loop(async {
            let children = Arc::new(Children::default());
            let output = children.run(&mut shell("sleep 30 & echo $!"), b"").await.unwrap();
            let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        });
    }

    #[test]
    fn a_command_that_is_given_up_is_killed() {
        on_loop(async {
            let children = Arc::new(Children::default());
            let dir = tempfile::tempdir().unwrap();
            let pid_file = dir.path().join("pid");
            let mut command = shell(&format!("echo $$ > {}; exec sleep 30", pid_file.display()));
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), children.run(&mut command, b""));
            assert!(given_up.await.is_err());
            let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
            let mut child = children.watch(pid).unwrap();
            assert_eq!(child.wait().await.status, 137);
        });
    }

    /// A sweep reaps whatever child of the process has ended, those of other tests too: this one runs alone.
    #[test]
    fn a_zombie_keeps_its_pid_while_held() {
        const ALONE: &str = "ASSAY_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            alone
                .args(["--exact", "shim::child::tests::a_zombie_keeps_its_pid_while_held"])
                .env(ALONE, "1");
            let output = alone.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        on_loop(async {
            let children = Children::adopt().unwrap();
            let hold = children.hold();
            let zombie = shell("exit 3").spawn().unwrap().id().cast_signed();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            children.sweep();
            // Still there: it can be watched, and its status is its own.
            let mut child = children.watch(zombie).unwrap();
            let orphan = shell("exit 4").spawn().unwrap().id().cast_signed();
            drop(hold);
            assert_eq!(child.wait().await.status, 3);
            assert!(children.watch(zombie).is_err());
            // Nobody knows this one, so that the sweep reaps it.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            assert!(children.watch(orphan).is_err());
        });
    }
}
