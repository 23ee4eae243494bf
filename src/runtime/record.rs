//! What programs call while they run: every process and thread of them followed, each call noted by name.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::trace::{Event, Trace};
use crate::seccomp;
use crate::syscalls::{self, Machine};

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// Calls by name, with how often each was made.
    pub calls: BTreeMap<String, u64>,
    /// Calls that have no name here: those of another architecture (`int 0x80`, x32) or newer than this program.
    pub unnamed: BTreeSet<(u32, u64)>,
    /// How many processes made one.
    pub processes: usize,
    /// How many threads did.
    pub threads: usize,
    /// From the first to the last moment of following.
    pub time: Duration,
}

/// Most events that are handled at once, so that who asks for an end is heard while programs are busy.
const MAX_EVENTS: usize = 4096;

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something happened, or time has passed.
    Going,
    /// This process was sent a signal: `SIGINT` or `SIGTERM`.
    Signal(i32),
}

/// Follows programs in the thread that made it, from which all of its functions must be called.
#[derive(Debug)]
pub struct Recorder {
    trace: Trace,
    since: Instant,
    seen: Recording,
    processes: HashSet<i32>,
    threads: HashSet<i32>,
}

impl Recorder {
    /// A recorder. From here on `SIGINT` and `SIGTERM` end nothing in this thread: [`Recorder::wait`] tells them.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the set lives through the calls, and is filled by the first one.
        let failed = unsafe {
            let mut signals = signals();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw mut signals, std::ptr::null_mut())
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(Self {
            trace: Trace::default(),
            since: Instant::now(),
            seen: Recording::default(),
            processes: HashSet::new(),
            threads: HashSet::new(),
        })
    }

    /// Starts a program and follows it; its number. The call that starts it counts: under a filter it is made as well.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, command: &mut Command) -> io::Result<i32> {
        let process = self.trace.start(command)?;
        self.count("execve");
        self.processes.insert(process);
        self.threads.insert(process);
        Ok(process)
    }

    /// Follows a process that runs, with all its threads. One that is followed already stays so.
    ///
    /// # Errors
    /// It cannot be traced.
    pub fn attach(&mut self, process: i32) -> io::Result<()> {
        self.trace.attach(process)
    }

    /// Whether everything that was followed has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.trace.is_empty()
    }

    /// How a process has ended, if it has: its status, or 128 and the signal.
    #[must_use]
    pub fn ended(&self, process: i32) -> Option<i32> {
        self.trace.ended(process)
    }

    /// Notes what happens, for no longer than `time`.
    ///
    /// # Errors
    /// The kernel does not let it wait.
    pub fn wait(&mut self, time: Duration) -> io::Result<Wake> {
        let busy = self.note()?;
        if self.trace.is_empty() {
            return Ok(Wake::Going);
        }
        let time = if busy { Duration::ZERO } else { time };
        let time = libc::timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let signals = signals();
        // SAFETY: set and time live through the call; what is told of the signal is not asked for.
        match unsafe { libc::sigtimedwait(&raw const signals, std::ptr::null_mut(), &raw const time) } {
            signal @ (libc::SIGINT | libc::SIGTERM) => Ok(Wake::Signal(signal)),
            _ => Ok(Wake::Going),
        }
    }

    /// Notes what has happened; whether more may have.
    fn note(&mut self) -> io::Result<bool> {
        for _ in 0..MAX_EVENTS {
            let Some(event) = self.trace.step()? else {
                return Ok(false);
            };
            let Event::Call {
                thread,
                process,
                architecture,
                number,
                ..
            } = event
            else {
                continue;
            };
            self.threads.insert(thread);
            self.processes.insert(process);
            let machine = seccomp::machine_of(architecture).filter(|machine| *machine == Machine::native());
            let name = machine.and_then(|machine| syscalls::name(machine, u32::try_from(number).ok()?));
            match name {
                Some(name) => self.count(name),
                None => {
                    self.seen.unnamed.insert((architecture, number));
                }
            }
        }
        Ok(true)
    }

    fn count(&mut self, name: &str) {
        match self.seen.calls.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.seen.calls.insert(name.to_owned(), 1);
            }
        }
    }

    /// What was seen so far. What is followed goes on unfollowed once this thread's process ends.
    #[must_use]
    pub fn recording(&self) -> Recording {
        Recording {
            processes: self.processes.len(),
            threads: self.threads.len(),
            time: self.since.elapsed(),
            ..self.seen.clone()
        }
    }
}

/// What is waited for: a traced thread that stops tells by `SIGCHLD`.
fn signals() -> libc::sigset_t {
    // SAFETY: a set of bits, for which zero is a value; it lives through the calls.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&raw mut signals, signal);
        }
        signals
    }
}
