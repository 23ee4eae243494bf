//! The terminal of a process: getting it from the OCI runtime, and moving its bytes.

use std::fs::{self, DirBuilder};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, test_kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout};

use super::copy::{End, Read, Sink, copy_all, read_now};
use super::{IoError, PATIENCE, watched};

/// Where sockets for consoles are made: short enough for a socket address, gone with the boot.
const RUN: &str = "/run/assay";
/// Begins the name of a directory for a socket; the id of its process follows.
const PREFIX: &str = "pty-";
/// Pause between two looks at a terminal that nobody has open.
const HUNG_UP_PAUSE: Duration = Duration::from_millis(100);
/// Tells apart the sockets of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The socket over which the OCI runtime hands over a new terminal, in a directory that only root can enter.
#[derive(Debug)]
pub(super) struct Socket {
    directory: Directory,
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    pub(super) fn new() -> Result<Self, IoError> {
        let directory = Directory::new().map_err(IoError::Console)?;
        let path = directory.0.join("s");
        let listener = UnixListener::bind(&path).map_err(IoError::Console)?;
        Ok(Self {
            directory,
            path,
            listener,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal that the OCI runtime sent.
    pub(super) async fn receive(self) -> Result<Terminal, IoError> {
        let received = timeout(PATIENCE, async {
            let (stream, _) = self.listener.accept().await?;
            stream
                .async_io(Interest::READABLE, || receive_descriptor(&stream))
                .await
        });
        let master = received
            .await
            .map_err(|_| IoError::NoTerminal)?
            .map_err(IoError::Console)?;
        drop(self.directory);
        Terminal::new(master.ok_or(IoError::NoTerminal)?)
    }
}

/// A directory that goes away.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let run = Path::new(RUN);
        DirBuilder::new().recursive(true).mode(0o700).create(run)?;
        remove_orphans(run)?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = run.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left by a process that was killed, whose id is in use again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{}: {error}", self.0.display());
        }
    }
}

/// Removes what processes left that were killed while they waited for a terminal.
fn remove_orphans(run: &Path) -> io::Result<()> {
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        let Some(owner) = owner.and_then(Pid::from_raw) else {
            continue;
        };
        if test_kill_process(owner) == Err(Errno::SRCH) {
            // Another process may be at the same work.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// The descriptor in one message, of whose bytes no more than a buffer is read; `None` if there is none, or more than one.
pub(in crate::shim) fn receive_descriptor(stream: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let first = descriptors.next();
    Ok(if descriptors.next().is_none() { first } else { None })
}

/// A terminal whose other side belongs to a process.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: Arc<AsyncFd<OwnedFd>>,
    /// The process's side, held while the process lives: a process may close all its descriptors of the terminal and
    /// open it again later, which must not look like its end.
    pub(super) slave: OwnedFd,
}

impl Terminal {
    fn new(master: OwnedFd) -> Result<Self, IoError> {
        if !rustix::termios::isatty(&master) {
            return Err(IoError::NoTerminal);
        }
        rustix::io::ioctl_fionbio(&master, true).map_err(|error| IoError::Console(error.into()))?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).map_err(|error| IoError::Console(error.into()))?;
        Ok(Self {
            master: Arc::new(watched(master).map_err(IoError::Watch)?),
            slave,
        })
    }
}

/// Copies both ways until the process has ended and all it wrote is copied, or until its input ends: then the terminal
/// is hung up, as when a connection is lost.
pub(super) async fn serve(
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<AsyncFd<OwnedFd>>,
    sink: Sink,
    ended: watch::Sender<bool>,
) {
    let feed = async {
        match &input {
            Some(input) => copy_all(input, &master).await,
            None => Ok(End::Broken),
        }
    };
    let show = show(&master, &sink, ended.subscribe());
    tokio::pin!(show);
    let shown = tokio::select! {
        shown = &mut show => shown,
        fed = feed => {
            match fed {
                Ok(End::Complete) => {
                    ended.send_replace(true);
                }
                // The process is gone, which ends the output too. The FIFO stays open: its client must not fail.
                Ok(End::Broken) => {}
                Err(error) => log::warn!("terminal input: {error}"),
            }
            show.await
        }
    };
    if let Err(error) = shown {
        log::warn!("terminal output: {error}");
    }
}

/// Copies what the process writes, until no more is to come and nothing is left.
async fn show(master: &AsyncFd<OwnedFd>, sink: &Sink, mut ended: watch::Receiver<bool>) -> io::Result<()> {
    let mut broken = false;
    loop {
        let mut readable = tokio::select! {
            biased;
            // Fails only when the sender is gone, which means the same.
            _ = ended.wait_for(|ended| *ended) => break,
            readable = master.readable() => readable?,
        };
        match read_now(master) {
            Read::Bytes(bytes) => print(sink, bytes, &mut broken).await,
            // Hung up, but the process lives and may open its terminal again, which is no event.
            Read::Nothing | Read::End if readable.ready().is_read_closed() => sleep(HUNG_UP_PAUSE).await,
            Read::Nothing | Read::End => readable.clear_ready(),
            Read::Failed(error) => return Err(error),
        }
    }
    loop {
        match read_now(master) {
            Read::Bytes(bytes) => print(sink, bytes, &mut broken).await,
            Read::Nothing | Read::End => return Ok(()),
            Read::Failed(error) => return Err(error),
        }
    }
}

/// A process must not be stopped because its logger died or a disk is full.
async fn print(sink: &Sink, bytes: Vec<u8>, broken: &mut bool) {
    consume_budget().await;
    if let Err(error) = sink.write(bytes).await
        && !std::mem::replace(broken, true)
    {
        log::warn!("terminal output is lost: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn directories_of_dead_processes_are_removed_and_others_kept() {
        let run = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let dead = format!("pty-{}-0", dead.id());
        let kept = [
            format!("pty-{}-3", std::process::id()),
            "pty-x-1".to_owned(),
            "admit-1".to_owned(),
        ];
        for name in kept.iter().chain([&dead]) {
            fs::create_dir(run.path().join(name)).unwrap();
            fs::write(run.path().join(name).join("s"), "").unwrap();
        }
        remove_orphans(run.path()).unwrap();
        assert!(!run.path().join(dead).exists());
        assert!(kept.iter().all(|name| run.path().join(name).exists()));
    }
}
