//! Moving bytes between descriptors that never block, without a buffer while nothing moves.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;

/// Most bytes moved by one call: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Most bytes read into memory by one call, where splicing is impossible.
const BUFFER: usize = 16 << 10;

/// Why a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source has no writer left and everything was delivered.
    Complete,
    /// The destination has no reader left.
    Broken,
}

/// Moves everything from one pipe into another inside the kernel.
///
/// A full destination stops the source and nothing else.
pub(super) async fn splice_all(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<End> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let mut readable = from.readable().await?;
        let mut writable = to.writable().await?;
        // A stream that is never idle must not starve the others.
        consume_budget().await;
        match splice(from, None, to, None, CHUNK, flags) {
            Ok(0) => return Ok(End::Complete),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::PIPE) => return Ok(End::Broken),
            Err(Errno::AGAIN) => {
                // The kernel does not say which side was not ready. Asked after the guards were taken: what becomes
                // ready later is a new event, which the guards do not clear.
                let (has_data, has_room) = ready(from, to)?;
                if !has_data {
                    if readable.ready().is_read_closed() {
                        // All writers were gone. One that came since then is too late, and the event loop would
                        // report the end for ever.
                        return Ok(End::Complete);
                    }
                    readable.clear_ready();
                }
                if !has_room {
                    writable.clear_ready();
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the first can be read and the second can be written now.
fn ready(from: impl AsFd, to: impl AsFd) -> io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(&to, PollFlags::OUT)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => return Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// A FIFO, held open for reading too, so that its writer never fails while a reader is away.
    Fifo { writer: AsyncFd<OwnedFd>, _reader: OwnedFd },
    /// A pipe to a logging binary.
    Pipe(AsyncFd<OwnedFd>),
    /// A file, written by a short-lived thread because a disk can be slow.
    File(Arc<File>),
    /// Nowhere.
    Null,
}

impl Sink {
    /// Moves everything from a pipe to here.
    pub(super) async fn take_all(&self, from: &AsyncFd<OwnedFd>) -> io::Result<()> {
        match self {
            Self::Fifo { writer, .. } | Self::Pipe(writer) => match splice_all(from, writer).await? {
                End::Complete => Ok(()),
                // The workload is not to be stopped because its logger died.
                End::Broken => discard(from).await,
            },
            Self::File(_) => {
                let mut failed = false;
                while let Some(bytes) = read_some(from).await? {
                    if let Err(error) = self.write(bytes).await {
                        // Nor because a disk is full; what comes next is tried again.
                        if !std::mem::replace(&mut failed, true) {
                            log::warn!("output is lost: {error}");
                        }
                    }
                }
                Ok(())
            }
            Self::Null => discard(from).await,
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(&self, bytes: Vec<u8>) -> io::Result<End> {
        match self {
            Self::Fifo { writer, .. } | Self::Pipe(writer) => write_all(writer, &bytes).await,
            Self::File(file) => {
                let file = Arc::clone(file);
                let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await;
                written.map_err(io::Error::other)?.map(|()| End::Complete)
            }
            Self::Null => Ok(End::Complete),
        }
    }
}

async fn discard(from: &AsyncFd<OwnedFd>) -> io::Result<()> {
    while read_some(from).await?.is_some() {}
    Ok(())
}

/// Copies through memory, which works for terminals too.
pub(super) async fn copy_all(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<End> {
    while let Some(bytes) = read_some(from).await? {
        if write_all(to, &bytes).await? == End::Broken {
            return Ok(End::Broken);
        }
    }
    Ok(End::Complete)
}

/// What can be read, as soon as something can; `None` at the end.
async fn read_some(from: &AsyncFd<OwnedFd>) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut readable = from.readable().await?;
        consume_budget().await;
        match read_now(from) {
            Read::Bytes(bytes) => return Ok(Some(bytes)),
            Read::End => return Ok(None),
            Read::Nothing if readable.ready().is_read_closed() => return Ok(None),
            Read::Nothing => readable.clear_ready(),
            Read::Failed(error) => return Err(error),
        }
    }
}

/// What one read found.
#[derive(Debug)]
pub(super) enum Read {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
    /// An error.
    Failed(io::Error),
}

/// Reads once.
pub(super) fn read_now(from: &AsyncFd<OwnedFd>) -> Read {
    let mut bytes = Vec::with_capacity(BUFFER);
    loop {
        return match rustix::io::read(from, rustix::buffer::spare_capacity(&mut bytes)) {
            // A terminal says EIO when its other side is closed.
            Ok(0) | Err(Errno::IO) => Read::End,
            Ok(_) => {
                bytes.shrink_to_fit();
                Read::Bytes(bytes)
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Read::Nothing,
            Err(error) => Read::Failed(error.into()),
        };
    }
}

async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<End> {
    while !bytes.is_empty() {
        let mut writable = to.writable().await?;
        consume_budget().await;
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => writable.clear_ready(),
            Err(Errno::PIPE | Errno::IO) => return Ok(End::Broken),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(End::Complete)
}
