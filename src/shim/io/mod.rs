//! Standard streams of container processes.
//!
//! A process without a terminal reads and writes anonymous pipes, and the shim moves the bytes between those and the
//! FIFOs that containerd names. The workload therefore never sees that a client or containerd itself goes away and
//! comes back: the shim holds both ends of every FIFO, output waits in FIFO and pipe until someone reads again, and
//! only a full pipe stops the writer. A process with a terminal has the same FIFOs at the other side of the terminal.
//!
//! | address | meaning |
//! |---|---|
//! | empty | `/dev/null` |
//! | `/path`, `fifo:///path` | FIFO; for output also a file that exists, which is appended to |
//! | `file:///path` | log file, made with its directories and appended to; output only |
//! | `binary:///path?name=value` | logging binary that gets output and errors; `binary-v2` must confirm that it is ready |
//!
//! The order of calls for one process:
//!
//! 1. [`Pending::prepare`] opens everything that containerd named and waits, up to [`PATIENCE`], until its readers are
//!    there.
//! 2. [`Pending::runtime_stdio`] and [`Pending::console_socket`] are given to the OCI runtime. The descriptors must be
//!    dropped when the runtime has been started, else the end of the output is never seen.
//! 3. [`Pending::start`] once the runtime came back; from here on bytes move.
//! 4. [`ProcessIo::resize`] and [`ProcessIo::close_stdin`] while the process lives.
//! 5. [`ProcessIo::exited`] when the process has ended: a terminal then ends too, and its client sees the end. Clients
//!    wait for that end before they ask for `Delete`.
//! 6. [`ProcessIo::drained`] before `Delete`, with a limit: descendants of the process may keep its output open.
//! 7. Dropping [`ProcessIo`] closes everything.
//!
//! Nothing here costs a thread or a buffer while no bytes move, except that writing to a file borrows a thread from
//! the event loop's pool for as long as the write takes.

mod binary;
mod console;
mod copy;
mod fifo;
mod uri;

use std::fmt;
use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(in crate::shim) use console::receive_descriptor;

use binary::Logger;
use console::Socket;
use copy::{End, Sink, splice_all};
use fifo::Input;
use uri::Target;

/// How long a client may take to open its end, a logging binary to be ready, and the OCI runtime to send a terminal.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The standard streams of a process as containerd asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Address of standard input; empty for none.
    pub stdin: String,
    /// Address of standard output; empty for none.
    pub stdout: String,
    /// Address of standard error; empty for none. A terminal has no standard error of its own.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// One of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// Why the streams of a process could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The address cannot be understood.
    #[error("{stream} '{}': {reason}", uri.escape_debug())]
    Address {
        /// Of which stream.
        stream: Stream,
        /// Its beginning.
        uri: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What it names cannot be opened.
    #[error("{stream}: cannot open {}: {source}", path.display())]
    Open {
        /// For which stream.
        stream: Stream,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard input is not a FIFO.
    #[error("stdin: {} is not a FIFO", path.display())]
    NotFifo {
        /// What it is.
        path: PathBuf,
    },
    /// Nobody reads.
    #[error("{stream}: no client opened {} for reading within {} s", path.display(), patience.as_secs())]
    NoReader {
        /// Which stream.
        stream: Stream,
        /// Its FIFO.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// A logging binary could not be started.
    #[error("cannot start the logging binary {}: {source}", program.display())]
    Logger {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A logging binary never became ready.
    #[error("the logging binary {} did not confirm that it is ready; see whether it writes to descriptor 5", program.display())]
    LoggerSilent {
        /// Which.
        program: PathBuf,
    },
    /// The socket for the terminal failed.
    #[error("console socket: {0}")]
    Console(io::Error),
    /// The OCI runtime did not send a terminal.
    #[error("the OCI runtime sent no terminal over the console socket")]
    NoTerminal,
    /// The size of the terminal could not be set.
    #[error("cannot resize the terminal: {0}")]
    Resize(io::Error),
    /// A pipe or `/dev/null` could not be opened.
    #[error("no descriptor for the process's streams: {0}")]
    Descriptor(io::Error),
    /// The event loop does not take the descriptor.
    #[error("cannot watch a descriptor: {0}")]
    Watch(io::Error),
}

/// Streams that are open, of a process that does not exist yet.
#[derive(Debug)]
pub struct Pending {
    input: Option<Input>,
    /// Where the process's pipes begin and end at the shim's side.
    ends: Ends,
    /// The process's own ends.
    runtime: [Option<OwnedFd>; 3],
    logger: Option<Logger>,
    copied: watch::Sender<()>,
}

#[derive(Debug)]
enum Ends {
    Pipes {
        stdin: Option<OwnedFd>,
        outputs: Vec<(OwnedFd, Sink)>,
    },
    Terminal {
        socket: Socket,
        sink: Sink,
    },
}

impl Pending {
    /// Opens the streams of the process `id` in the containerd namespace `namespace`; `uid` and `gid` will own its
    /// pipes.
    ///
    /// # Errors
    /// When an address is wrong, something cannot be opened, nobody reads, or a logging binary is not ready. What was
    /// opened is closed again.
    pub async fn prepare(id: &str, namespace: &str, stdio: &Stdio, uid: u32, gid: u32) -> Result<Self, IoError> {
        let copied = watch::Sender::new(());
        let stdout = Target::parse(Stream::Stdout, &stdio.stdout)?;
        // A terminal has only one output.
        let stderr = if stdio.terminal {
            Target::Null
        } else {
            Target::parse(Stream::Stderr, &stdio.stderr)?
        };
        let input = match Target::parse(Stream::Stdin, &stdio.stdin)? {
            Target::Null => None,
            Target::Path(path) => Some(Input::open(&path)?),
            Target::File(_) | Target::Binary(_) => {
                let reason = "only a FIFO can be standard input";
                return Err(IoError::Address {
                    stream: Stream::Stdin,
                    uri: stdio.stdin.clone(),
                    reason,
                });
            }
        };
        let mut runtime = [None, None, None];
        let mut logger = None;

        let ends = if stdio.terminal {
            let sink = match &stdout {
                Target::Binary(binary) => {
                    let (reader, writer) = pipe(PipeFlags::empty())?;
                    rustix::io::ioctl_fionbio(&writer, true).map_err(descriptor)?;
                    // Nothing will ever come from standard error.
                    let (nothing, _) = pipe(PipeFlags::empty())?;
                    logger = Some(Logger::start(binary, id, namespace, reader, nothing, copied.clone()).await?);
                    Sink::Pipe(watched(writer).map_err(IoError::Watch)?)
                }
                target => open_sink(Stream::Stdout, target).await?,
            };
            Ends::Terminal {
                socket: Socket::new()?,
                sink,
            }
        } else {
            let mut stdin = None;
            if input.is_some() {
                let (reader, writer) = pipe(PipeFlags::empty())?;
                rustix::io::ioctl_fionbio(&writer, true).map_err(descriptor)?;
                stdin = Some(writer);
                runtime[0] = Some(reader);
            }
            let mut outputs = Vec::new();
            if let Target::Binary(binary) = &stdout {
                if stderr != stdout && stderr != Target::Null {
                    let reason = "a logging binary takes both streams; give both the same address";
                    return Err(IoError::Address {
                        stream: Stream::Stderr,
                        uri: stdio.stderr.clone(),
                        reason,
                    });
                }
                let (output, output_writer) = pipe(PipeFlags::empty())?;
                let (error, error_writer) = pipe(PipeFlags::empty())?;
                logger = Some(Logger::start(binary, id, namespace, output, error, copied.clone()).await?);
                runtime[1] = Some(output_writer);
                runtime[2] = Some(error_writer);
            } else {
                for (n, stream, target) in [(1, Stream::Stdout, &stdout), (2, Stream::Stderr, &stderr)] {
                    let sink = match target {
                        Target::Null => continue,
                        Target::Binary(_) => {
                            let reason = "a logging binary takes both streams; give both the same address";
                            return Err(IoError::Address {
                                stream,
                                uri: stdio.stderr.clone(),
                                reason,
                            });
                        }
                        target => open_sink(stream, target).await?,
                    };
                    let (reader, writer) = pipe(PipeFlags::empty())?;
                    rustix::io::ioctl_fionbio(&reader, true).map_err(descriptor)?;
                    outputs.push((reader, sink));
                    runtime[n] = Some(writer);
                }
            }
            if (uid, gid) != (0, 0) {
                for end in runtime.iter().flatten() {
                    fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(descriptor)?;
                }
            }
            Ends::Pipes { stdin, outputs }
        };
        Ok(Self {
            input,
            ends,
            runtime,
            logger,
            copied,
        })
    }

    /// Standard input, output and error for the OCI runtime, which passes them on to the process. They are handed
    /// over once; where there is nothing to hand over it is `/dev/null`.
    ///
    /// # Errors
    /// When `/dev/null` cannot be opened.
    pub fn runtime_stdio(&mut self) -> Result<[OwnedFd; 3], IoError> {
        let end = |end: Option<OwnedFd>| match end {
            Some(end) => Ok(end),
            None => {
                let null = OpenOptions::new().read(true).write(true).open("/dev/null");
                null.map(OwnedFd::from).map_err(IoError::Descriptor)
            }
        };
        let [stdin, stdout, stderr] = std::mem::take(&mut self.runtime);
        Ok([end(stdin)?, end(stdout)?, end(stderr)?])
    }

    /// The socket over which the OCI runtime sends the terminal, for its `--console-socket`.
    #[must_use]
    pub fn console_socket(&self) -> Option<&Path> {
        match &self.ends {
            Ends::Terminal { socket, .. } => Some(socket.path()),
            Ends::Pipes { .. } => None,
        }
    }

    /// Lets the bytes move. To be called when the OCI runtime has set the process up.
    ///
    /// # Errors
    /// When the OCI runtime sent no terminal, or the event loop takes no more descriptors.
    pub async fn start(self) -> Result<ProcessIo, IoError> {
        // Ends that nobody took would keep the output open for ever.
        drop(self.runtime);
        let (reader, writer) = self
            .input
            .map_or((None, None), |input| (Some(input.reader), Some(input.writer)));
        let mut io = ProcessIo {
            stdin: Mutex::new(writer),
            terminal: None,
            ended: watch::Sender::new(false),
            pending: self.copied.subscribe(),
            copies: Vec::new(),
            logger: self.logger,
        };
        match self.ends {
            Ends::Pipes { stdin, outputs } => {
                if let (Some(from), Some(to)) = (reader, stdin) {
                    let to = watched(to).map_err(IoError::Watch)?;
                    io.spawn(feed(from, to));
                }
                for (from, sink) in outputs {
                    let from = watched(from).map_err(IoError::Watch)?;
                    io.spawn(collect(from, sink, self.copied.clone()));
                }
            }
            Ends::Terminal { socket, sink } => {
                let terminal = socket.receive().await?;
                let window = Arc::downgrade(&terminal.master);
                io.terminal = Some(Terminal {
                    window,
                    slave: Mutex::new(Some(terminal.slave)),
                });
                let (ended, copied) = (io.ended.clone(), self.copied.clone());
                io.spawn(async move {
                    console::serve(terminal.master, reader, sink, ended).await;
                    drop(copied);
                });
            }
        }
        Ok(io)
    }
}

/// Feeds a process's standard input.
async fn feed(from: AsyncFd<OwnedFd>, to: AsyncFd<OwnedFd>) {
    match splice_all(&from, &to).await {
        Ok(End::Complete) => {}
        // The process reads no more. The FIFO stays open: its client must not fail.
        Ok(End::Broken) => std::future::pending().await,
        Err(error) => log::warn!("standard input: {error}"),
    }
}

/// Collects one of a process's outputs.
async fn collect(from: AsyncFd<OwnedFd>, sink: Sink, copied: watch::Sender<()>) {
    if let Err(error) = sink.take_all(&from).await {
        log::warn!("output: {error}");
    }
    drop(copied);
}

/// Lets the event loop watch a descriptor.
///
/// # Errors
/// When it is of a kind that has no events, or there is no room.
pub fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so that it stays open and the same until the registration ends with it.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

async fn open_sink(stream: Stream, target: &Target) -> Result<Sink, IoError> {
    match target {
        Target::Path(path) => Sink::open(stream, path, PATIENCE).await,
        Target::File(path) => Sink::open_log(stream, path),
        Target::Null | Target::Binary(_) => Ok(Sink::Null),
    }
}

fn pipe(flags: PipeFlags) -> Result<(OwnedFd, OwnedFd), IoError> {
    pipe_with(flags | PipeFlags::CLOEXEC).map_err(descriptor)
}

fn descriptor(error: rustix::io::Errno) -> IoError {
    IoError::Descriptor(error.into())
}

/// The streams of a process. Dropping it closes them, and ends a logging binary after some time.
#[derive(Debug)]
pub struct ProcessIo {
    stdin: Mutex<Option<OwnedFd>>,
    terminal: Option<Terminal>,
    ended: watch::Sender<bool>,
    /// Closed when no copy of an output is left.
    pending: watch::Receiver<()>,
    copies: Vec<AbortHandle>,
    logger: Option<Logger>,
}

#[derive(Debug)]
struct Terminal {
    /// Gone when the terminal is hung up.
    window: Weak<AsyncFd<OwnedFd>>,
    slave: Mutex<Option<OwnedFd>>,
}

impl ProcessIo {
    /// Sets the size of the terminal, in characters; does nothing without one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), IoError> {
        let Some(window) = self.terminal.as_ref().and_then(|terminal| terminal.window.upgrade()) else {
            return Ok(());
        };
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(window.as_fd(), size).map_err(|error| IoError::Resize(error.into()))
    }

    /// No client comes to standard input any more. The process sees its end when the clients that are there have left
    /// and all they wrote is delivered; a terminal is hung up then.
    pub fn close_stdin(&self) {
        lock(&self.stdin).take();
    }

    /// The process has ended. What it left in a terminal is copied, then the terminal's client sees the end. Pipes are
    /// not concerned: they end when their last writer closes them.
    pub fn exited(&self) {
        if let Some(terminal) = &self.terminal {
            self.ended.send_replace(true);
            lock(&terminal.slave).take();
        }
    }

    /// Waits until all output has been copied and a logging binary has ended. To be called when the process has ended;
    /// does not wait for ever only if no descendant of the process keeps its output open and someone reads it.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        self.exited();
        if let Some(logger) = &self.logger {
            logger.finish();
        }
        let mut pending = self.pending.clone();
        // Nothing is ever sent: it is the end of the last sender that counts.
        async move { while pending.changed().await.is_ok() {} }
    }

    fn spawn(&mut self, copy: impl Future<Output = ()> + Send + 'static) {
        self.copies.push(tokio::spawn(copy).abort_handle());
    }
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        for copy in &self.copies {
            copy.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // Both states are valid whatever happened while it was locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
