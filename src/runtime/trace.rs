//! Processes followed by ptrace(2): each call that one of their threads makes, and what becomes of them.
//!
//! All of it happens in the thread that began to follow: the kernel tells nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

/// Something that a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It enters the kernel.
    Call {
        thread: i32,
        process: i32,
        /// `AUDIT_ARCH_…` number of the kernel.
        architecture: u32,
        number: u64,
        arguments: [u64; 6],
    },
    /// It comes back from the kernel.
    Return { thread: i32, process: i32, value: i64 },
    /// It has made a thread, of its own or another process.
    New { process: i32, of: i32 },
    /// Anything else.
    Other,
}

/// Threads that are followed, with all that they make.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Process of each traced thread.
    threads: HashMap<i32, i32>,
    /// Those that have stopped before.
    met: HashSet<i32>,
    /// How each thread that has ended did: its status, or 128 and the signal.
    ended: BTreeMap<i32, i32>,
    /// They end when this process does.
    hold: bool,
}

impl Trace {
    /// Follows processes that are killed when this one ends.
    pub fn holding() -> Self {
        Self {
            hold: true,
            ..Self::default()
        }
    }

    fn options(&self) -> i32 {
        OPTIONS | if self.hold { libc::PTRACE_O_EXITKILL } else { 0 }
    }

    /// Starts a program and follows it from its first instruction on; its number.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, command: &mut Command) -> io::Result<i32> {
        // SAFETY: between fork and exec only one system call is made, which touches no memory.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        // The wait of [`Trace::step`] collects it.
        let process = command.spawn()?.id().cast_signed();
        self.threads.insert(process, process);
        Ok(process)
    }

    /// Follows a process that runs already, with all its threads.
    ///
    /// # Errors
    /// It cannot be traced. One that has ended is no error.
    pub fn attach(&mut self, process: i32) -> io::Result<()> {
        // A thread that is made while its siblings are listed is made by one that is traced, or listed the next time.
        loop {
            let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else {
                return Ok(());
            };
            let threads = entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let new: Vec<i32> = threads.filter(|thread| !self.threads.contains_key(thread)).collect();
            let mut attached = false;
            for thread in new {
                // SAFETY: takes numbers.
                if unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0, self.options()) } != 0 {
                    let error = io::Error::last_os_error();
                    // Ended meanwhile, or made by a traced thread: the kernel does not let it be attached twice.
                    if error.raw_os_error() == Some(libc::ESRCH) || tracer_of(thread) == std::process::id() {
                        continue;
                    }
                    return Err(error);
                }
                // SAFETY: takes numbers. From its stop on, its calls are told.
                unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0) };
                self.threads.insert(thread, process);
                attached = true;
            }
            if !attached {
                return Ok(());
            }
        }
    }

    /// Whether nothing is followed any more.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// How a thread has ended, if it has.
    pub fn ended(&self, thread: i32) -> Option<i32> {
        self.ended.get(&thread).copied()
    }

    /// Kills everything that is followed.
    pub fn kill(&self) {
        for thread in self.threads.keys() {
            // SAFETY: takes numbers; a thread that is traced cannot be another one by now.
            unsafe { libc::kill(*thread, libc::SIGKILL) };
        }
    }

    /// Handles one stop of one thread and says what it was; none when no thread has stopped.
    ///
    /// # Errors
    /// The kernel does not let it wait.
    pub fn step(&mut self) -> io::Result<Option<Event>> {
        let mut status = 0;
        // SAFETY: the status lives through the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        if thread == 0 {
            return Ok(None);
        }
        if thread < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) {
                self.threads.clear();
                return Ok(Some(Event::Other));
            }
            return Err(error);
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            self.threads.remove(&thread);
            self.met.remove(&thread);
            let status = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            self.ended.insert(thread, status);
            return Ok(Some(Event::Other));
        }
        if !libc::WIFSTOPPED(status) {
            return Ok(Some(Event::Other));
        }
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        let is_first = self.met.insert(thread);
        let process = *self.threads.entry(thread).or_insert_with(|| process_of(thread));
        let (mut told, mut request, mut delivered) = (Event::Other, libc::PTRACE_SYSCALL, 0);
        if signal == SYSCALL_STOP {
            told = call(thread, process);
        } else if event == libc::PTRACE_EVENT_EXEC {
            // Its other threads are gone, and it has the first one's number.
            self.threads.retain(|other, of| *of != process || *other == thread);
        } else if event == libc::PTRACE_EVENT_STOP {
            // The stop of an attached thread, of a new one, or of a whole process by a signal, which stays stopped.
            if signal != libc::SIGTRAP {
                request = libc::PTRACE_LISTEN;
            }
        } else if event != 0 {
            let child = message(thread);
            let of = *self.threads.entry(child).or_insert_with(|| process_of(child));
            told = Event::New { process, of };
        } else if signal == libc::SIGTRAP && is_first {
            // It was started by this process, and stops at its program.
            // SAFETY: takes numbers.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0, self.options()) };
        } else if signal != libc::SIGSTOP || !is_first {
            delivered = signal;
        }
        // SAFETY: takes numbers. A thread that was killed meanwhile is waited for next.
        unsafe { libc::ptrace(request, thread, 0, delivered) };
        Ok(Some(told))
    }
}

/// What a thread that stopped at a call is about.
fn call(thread: i32, process: i32) -> Event {
    // SAFETY: a structure of numbers, for which all zeroes are a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the structure lives through the call and has the size that is passed.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info) };
    if got <= 0 {
        return Event::Other;
    }
    if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
        // SAFETY: this is what the kernel fills for this kind of stop.
        let entry = unsafe { info.u.entry };
        Event::Call {
            thread,
            process,
            architecture: info.arch,
            number: entry.nr,
            arguments: entry.args,
        }
    } else if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
        // SAFETY: as above.
        let exit = unsafe { info.u.exit };
        Event::Return {
            thread,
            process,
            value: exit.sval,
        }
    } else {
        Event::Other
    }
}

/// The number that comes with an event: that of a new thread.
fn message(thread: i32) -> i32 {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the number lives through the call.
    unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, thread, 0, &raw mut message) };
    i32::try_from(message).unwrap_or_default()
}

/// The process that a thread belongs to.
fn process_of(thread: i32) -> i32 {
    status_of(thread, "Tgid:").unwrap_or(thread)
}

/// The process that traces a thread; 0 for none.
fn tracer_of(thread: i32) -> u32 {
    status_of(thread, "TracerPid:").unwrap_or_default()
}

fn status_of<T: std::str::FromStr>(thread: i32, field: &str) -> Option<T> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
}
