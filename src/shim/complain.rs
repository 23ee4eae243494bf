//! The listener of a container in complain mode: it lets every call go on that it is asked about, and counts them.
//!
//! The OCI runtime connects to a socket and hands over a descriptor for each process that it starts; the kernel then
//! asks there. A thread of its own answers, since a process waits meanwhile and the shim's one thread may be busy. What
//! it saw is a document of Assay's state, written when something new was seen and when the container ends.
//!
//! A call that is let go on is looked at by the kernel as if there had been no listener, so nothing that a process does
//! to its arguments in between gains it anything.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::io::receive_descriptor;
use super::socket;
use crate::seccomp::{Call, SEEN_DIRECTORY, SEEN_VERSION, Seen};
use crate::store::{self, StateDir};

/// Longest wait for what the OCI runtime sends after it has connected.
const PATIENCE: Duration = Duration::from_secs(1);
/// Something new is written after this time, and counts that grew after ten times as long.
const SETTLED: Duration = Duration::from_secs(1);
/// Most programs that are told apart, and most lines of a record.
const MAX_PROGRAMS: usize = 64;
const MAX_LINES: usize = 1024;
/// Most containers of a namespace that are remembered.
const MAX_RECORDS: usize = 256;
/// Longest path of a program that is kept, in bytes.
const MAX_PATH: usize = 256;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, in the type of the field that it goes into.
const CONTINUE: u32 = 1;
/// The thread calls nothing deep.
const STACK: usize = 128 << 10;

/// Why a container cannot be listened to. It must not start then: nobody would answer.
#[derive(Debug, thiserror::Error)]
pub enum ComplainError {
    /// The socket cannot be made.
    #[error("no socket for complain mode at {}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("another process listens for complaints at {}", .0.display())]
    Taken(PathBuf),
    /// The state directory cannot be used.
    #[error("what is seen in complain mode cannot be kept: {0}")]
    State(#[from] store::Error),
    /// No thread.
    #[error("no thread for complain mode: {0}")]
    Thread(#[from] io::Error),
}

/// A listener. Dropped, it writes what it saw and stops; calls that it would be asked about fail from then on.
#[derive(Debug)]
pub struct Complaints {
    socket: PathBuf,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Complaints {
    /// Listens at `socket` for one container, and keeps what it sees below `state`.
    ///
    /// # Errors
    /// [`ComplainError`].
    pub fn begin(socket: &Path, state: &Path, namespace: &str, container: &str) -> Result<Self, ComplainError> {
        let listener = match socket::bind(socket) {
            Ok(socket::Bound::New(listener)) => listener,
            Ok(socket::Bound::Running) => return Err(ComplainError::Taken(socket.to_owned())),
            Err(source) => {
                return Err(ComplainError::Socket {
                    path: socket.to_owned(),
                    source,
                });
            }
        };
        let records = StateDir::open(state)?.subdir(SEEN_DIRECTORY)?.subdir(namespace)?;
        forget_oldest(records.path());
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
        let stopped = stop.try_clone()?;
        let mut table = Table::new(namespace, container);
        let work = move || {
            if let Err(error) = serve(&listener, &stopped, &mut table, &records) {
                log::error!("complain mode of {} ends: {error}", table.seen.container);
            }
            table.write(&records);
        };
        let thread = Builder::new()
            .name("complain".to_owned())
            .stack_size(STACK)
            .spawn(work)?;
        Ok(Self {
            socket: socket.to_owned(),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the thread is told already.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// Makes room in a namespace: the records that were written longest ago go.
fn forget_oldest(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut records: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    records.sort_unstable();
    let surplus = (records.len() + 1).saturating_sub(MAX_RECORDS);
    for (_, path) in records.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

fn serve(listener: &UnixListener, stop: &OwnedFd, table: &mut Table, records: &StateDir) -> io::Result<()> {
    let mut asking: Vec<OwnedFd> = Vec::new();
    loop {
        let mut ready: Vec<PollFd<'_>> = [stop.as_fd(), listener.as_fd()]
            .into_iter()
            .chain(asking.iter().map(AsFd::as_fd))
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let timeout = table.due().map(timespec);
        match poll(&mut ready, timeout.as_ref()) {
            Err(Errno::INTR) => continue,
            result => result.map_err(io::Error::from)?,
        };
        let ready: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
        let [stopped, connected, questions @ ..] = ready.as_slice() else {
            return Ok(());
        };
        if table.due().is_some_and(|due| due.is_zero()) {
            table.write(records);
        }
        let mut ended = Vec::new();
        for (place, (question, state)) in asking.iter().zip(questions).enumerate() {
            if state.contains(PollFlags::IN) {
                answer(question, table)?;
            } else if !state.is_empty() {
                // The last process under this filter has ended.
                ended.push(place);
            }
        }
        for place in ended.into_iter().rev() {
            asking.swap_remove(place);
        }
        if connected.contains(PollFlags::IN) {
            match receive(listener) {
                Ok(Some(descriptor)) => {
                    wake_in_turn(&descriptor);
                    asking.push(descriptor);
                }
                Ok(None) => log::warn!("the OCI runtime sent no descriptor for complain mode"),
                Err(error) => log::warn!("nothing from the OCI runtime for complain mode: {error}"),
            }
        }
        if !stopped.is_empty() {
            return Ok(());
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn receive(listener: &UnixListener) -> io::Result<Option<OwnedFd>> {
    let (stream, _): (UnixStream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    receive_descriptor(&stream)
}

/// Lets the kernel hand a question over on the processor that asks, where it can (Linux 6.6): both sides wait for each
/// other in turn.
fn wake_in_turn(descriptor: &OwnedFd) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: takes a number, and changes nothing but how the descriptor wakes its reader.
    unsafe {
        libc::ioctl(
            descriptor.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SYNC_WAKE_UP,
        );
    }
}

/// Takes one question, counts the call, and lets it go on.
fn answer(question: &OwnedFd, table: &mut Table) -> io::Result<()> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure, which has the size that the request says.
    if unsafe { libc::ioctl(question.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
        return match io::Error::last_os_error() {
            // Whoever asked was killed meanwhile.
            error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(()),
            error => Err(error),
        };
    }
    let program = program(call.pid);
    // Before the answer, while the process still waits: its id cannot have passed on to another then.
    let id = call.id;
    // SAFETY: the kernel reads the number, which lives through the call.
    let alive = unsafe { libc::ioctl(question.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) } == 0;
    if alive {
        table.count(call.data.arch, call.data.nr.cast_unsigned(), call.pid, &program);
    }
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: CONTINUE,
    };
    // SAFETY: the kernel reads the structure, which has the size that the request says.
    if unsafe { libc::ioctl(question.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) } != 0 {
        return match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINPROGRESS)) => Ok(()),
            error => Err(error),
        };
    }
    Ok(())
}

/// Path of the program of a thread, as its own container names it.
fn program(thread: u32) -> Vec<u8> {
    let mut path = rustix::fs::readlink(format!("/proc/{thread}/exe"), Vec::new())
        .map(std::ffi::CString::into_bytes)
        .unwrap_or_default();
    path.truncate(MAX_PATH);
    path
}

/// What was seen, in as much memory as is given to it.
struct Table {
    seen: Seen,
    programs: Vec<Vec<u8>>,
    /// Place in `seen.calls` by architecture, number, and place of the program.
    lines: HashMap<(u32, u32, usize), usize>,
    /// When the oldest of what is not written yet was seen, and whether that is more than a count.
    unwritten: Option<(Instant, bool)>,
}

impl Table {
    fn new(namespace: &str, container: &str) -> Self {
        let now = now();
        Self {
            seen: Seen {
                version: SEEN_VERSION,
                namespace: namespace.to_owned(),
                container: container.to_owned(),
                since: now.clone(),
                until: now,
                calls: Vec::new(),
                further: 0,
            },
            programs: Vec::new(),
            lines: HashMap::new(),
            // That nothing was seen is worth knowing too.
            unwritten: Some((Instant::now(), true)),
        }
    }

    fn count(&mut self, architecture: u32, number: u32, thread: u32, program: &[u8]) {
        let known = self.programs.iter().position(|known| known == program);
        let place = known.unwrap_or_else(|| {
            if self.programs.len() < MAX_PROGRAMS {
                self.programs.push(program.to_owned());
                self.programs.len() - 1
            } else {
                MAX_PROGRAMS
            }
        });
        let line = self.lines.get(&(architecture, number, place)).copied();
        let is_new = line.is_none();
        if let Some(call) = line.and_then(|line| self.seen.calls.get_mut(line)) {
            call.count += 1;
            call.last.clear();
        } else if self.seen.calls.len() < MAX_LINES {
            self.lines.insert((architecture, number, place), self.seen.calls.len());
            let (process, name) = process(thread);
            let program = self
                .programs
                .get(place)
                .map(|program| String::from_utf8_lossy(program).into_owned());
            self.seen.calls.push(Call {
                architecture,
                number,
                program: program.unwrap_or_default(),
                process,
                name,
                count: 1,
                first: now(),
                last: String::new(),
            });
        } else {
            self.seen.further += 1;
        }
        match &mut self.unwritten {
            Some((_, anything_new)) => *anything_new |= is_new,
            None => self.unwritten = Some((Instant::now(), is_new)),
        }
    }

    /// How long until it is to be written.
    fn due(&self) -> Option<Duration> {
        let (since, anything_new) = self.unwritten?;
        let wait = if anything_new { SETTLED } else { SETTLED * 10 };
        Some(wait.saturating_sub(since.elapsed()))
    }

    fn write(&mut self, records: &StateDir) {
        let now = now();
        // A call that was counted since the last time, whose time is not looked up for every single one.
        for call in self.seen.calls.iter_mut().filter(|call| call.last.is_empty()) {
            call.last.clone_from(&now);
        }
        self.seen.until = now;
        self.unwritten = None;
        let written = serde_json::to_vec(&self.seen)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                let name = format!("{}.json", self.seen.container);
                records.write_volatile(&name, &bytes).map_err(io::Error::other)
            });
        if let Err(error) = written {
            log::warn!("what {} did in complain mode is not kept: {error}", self.seen.container);
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Id and name of the process that a thread is of.
fn process(thread: u32) -> (u32, String) {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let process = field("Tgid:").and_then(|id| id.parse().ok()).unwrap_or(thread);
    (process, field("Name:").unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new("n", "c")
    }

    #[test]
    fn calls_are_counted_by_number_and_program() {
        let mut table = table();
        for (number, program) in [(101, "/a"), (101, "/a"), (101, "/b"), (165, "/a")] {
            table.count(1, number, std::process::id(), program.as_bytes());
        }
        let counts: Vec<_> = table
            .seen
            .calls
            .iter()
            .map(|call| (call.number, call.program.as_str(), call.count))
            .collect();
        assert_eq!(counts, [(101, "/a", 2), (101, "/b", 1), (165, "/a", 1)]);
        assert_eq!(table.seen.calls[0].process, std::process::id());
    }

    #[test]
    fn a_process_that_does_everything_fills_a_bounded_table() {
        let mut table = table();
        for program in 0..100_u32 {
            for number in 0..100 {
                table.count(1, number, 1, program.to_string().as_bytes());
            }
        }
        assert_eq!(
            (table.seen.calls.len(), table.programs.len()),
            (MAX_LINES, MAX_PROGRAMS)
        );
        let counted: u64 = table.seen.calls.iter().map(|call| call.count).sum();
        assert_eq!(counted + table.seen.further, 10_000);
    }

    #[test]
    fn the_oldest_records_of_a_namespace_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let start = std::time::SystemTime::now() - Duration::from_secs(100_000);
        for number in 0..MAX_RECORDS + 10 {
            let file = fs::File::create(directory.path().join(number.to_string())).unwrap();
            file.set_modified(start + Duration::from_secs(number as u64)).unwrap();
        }
        forget_oldest(directory.path());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), MAX_RECORDS - 1);
        assert!(!directory.path().join("10").exists() && directory.path().join("11").exists());
    }
}
