//! Opening the FIFOs and files that containerd names.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::copy::Sink;
use super::{IoError, Stream, watched};

/// First and longest pause between two looks for a reader.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Both ends of the FIFO that feeds standard input.
#[derive(Debug)]
pub(super) struct Input {
    /// Read by the copy.
    pub(super) reader: AsyncFd<OwnedFd>,
    /// Held so that a client may come and go; without it the process would see an end when the first one leaves.
    pub(super) writer: OwnedFd,
}

impl Input {
    /// Opens `path` without waiting for a client.
    pub(super) fn open(path: &Path) -> Result<Self, IoError> {
        let node = Node::find(Stream::Stdin, path)?;
        if !node.is_fifo {
            return Err(IoError::NotFifo { path: path.to_owned() });
        }
        // In this order neither blocks.
        let reader = node.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
        let writer = node.open(OFlags::WRONLY | OFlags::NONBLOCK)?;
        Ok(Self {
            reader: watched(reader).map_err(IoError::Watch)?,
            writer,
        })
    }
}

impl Sink {
    /// Opens a FIFO, or a file that exists.
    ///
    /// Waits until a client has the FIFO open for reading: what was written before, by a process that ends at once,
    /// would be gone before the client came.
    pub(super) async fn open(stream: Stream, path: &Path, patience: Duration) -> Result<Self, IoError> {
        let node = Node::find(stream, path)?;
        if !node.is_fifo {
            let file = node.open(OFlags::WRONLY | OFlags::APPEND | OFlags::NOCTTY)?;
            return Ok(Self::File(Arc::new(File::from(file))));
        }
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let writer = loop {
            match node.try_open(OFlags::WRONLY | OFlags::NONBLOCK) {
                Ok(writer) => break writer,
                // No reader. There is no event to wait for.
                Err(Errno::NXIO) if Instant::now() < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(Errno::NXIO) => {
                    return Err(IoError::NoReader {
                        stream,
                        path: path.to_owned(),
                        patience,
                    });
                }
                Err(error) => return Err(node.failed(error)),
            }
        };
        let reader = node.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
        Ok(Self::Fifo {
            writer: watched(writer).map_err(IoError::Watch)?,
            _reader: reader,
        })
    }

    /// Opens a log file for appending; makes it and its directories.
    pub(super) fn open_log(stream: Stream, path: &Path) -> Result<Self, IoError> {
        let failed = |source| IoError::Open {
            stream,
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(failed)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .map_err(failed)?;
        Ok(Self::File(Arc::new(file)))
    }
}

/// A file system object, found once so that all its openings are of the same one.
struct Node<'a> {
    stream: Stream,
    path: &'a Path,
    handle: OwnedFd,
    is_fifo: bool,
}

impl<'a> Node<'a> {
    fn find(stream: Stream, path: &'a Path) -> Result<Self, IoError> {
        let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|handle| fstat(&handle).map(|stat| (handle, FileType::from_raw_mode(stat.st_mode))));
        let (handle, kind) = found.map_err(|error| IoError::Open {
            stream,
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Self {
            stream,
            path,
            handle,
            is_fifo: kind == FileType::Fifo,
        })
    }

    fn try_open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/self/fd/{}", self.handle.as_fd().as_raw_fd());
        open(path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, IoError> {
        self.try_open(flags).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Errno) -> IoError {
        IoError::Open {
            stream: self.stream,
            path: self.path.to_owned(),
            source: error.into(),
        }
    }
}
