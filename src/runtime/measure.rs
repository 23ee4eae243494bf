//! Which system calls an OCI runtime makes itself between loading a container's filter and starting its program: what
//! every profile has to allow beside what the program needs.
//!
//! Measured, since it differs between runtimes and versions: a container of one instruction is created, a further process
//! is started in it, and it is started itself, all of it traced with ptrace(2). From where the kernel has accepted a
//! filter to where a program is started, each call of the process and its threads is noted. A runtime in Go makes some
//! calls only when its scheduler or collector happens to run then, so this is done several times.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::trace::{Event, Trace};
use crate::syscalls::{self, Machine};

/// How often each way is measured.
const ROUNDS: usize = 5;
/// How long one command of a runtime may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a tracee that has nothing to say is left alone.
const GLANCE: Duration = Duration::from_micros(200);

/// What a runtime calls under a filter, by whether the container forbids new privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// First line of what it says about its version.
    pub version: String,
    /// With `noNewPrivileges`: the filter is loaded last.
    pub no_new_privileges: BTreeSet<String>,
    /// Without: it is loaded while there are privileges to do so.
    pub privileges: BTreeSet<String>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A file or process.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// The runtime refuses to do something.
    #[error("{command} ended with status {status}: {said}")]
    Runtime {
        /// What it was asked to do.
        command: String,
        /// Its exit status.
        status: i32,
        /// The end of what it said.
        said: String,
    },
    /// It does not come to an end.
    #[error("{0} did not end within {limit} s", limit = PATIENCE.as_secs())]
    Late(String),
    /// No process loaded a filter, or none started a program under it.
    #[error("it started no program under a filter; is it an OCI runtime with seccomp?")]
    NoFilter,
}

fn system(step: &'static str) -> impl FnOnce(io::Error) -> MeasureError {
    move |error| MeasureError::System(step, error)
}

/// Measures a runtime. Needs root and a place for a cgroup, as the runtime itself does.
///
/// # Errors
/// See [`MeasureError`]; nothing is left behind.
pub fn measure(runtime: &Path) -> Result<Measured, MeasureError> {
    let said = Command::new(runtime)
        .arg("--version")
        .output()
        .map_err(system("run the OCI runtime"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut measured = Measured {
        version: said.lines().next().unwrap_or_default().to_owned(),
        ..Measured::default()
    };
    for round in 0..ROUNDS {
        for no_new_privileges in [true, false] {
            for user in [0, 1000] {
                let calls = once(runtime, round, no_new_privileges, user)?;
                if no_new_privileges {
                    measured.no_new_privileges.extend(calls);
                } else {
                    measured.privileges.extend(calls);
                }
            }
        }
    }
    Ok(measured)
}

/// One container: created, entered, started.
fn once(runtime: &Path, round: usize, no_new_privileges: bool, user: u32) -> Result<BTreeSet<String>, MeasureError> {
    let bundle = Bundle::new(runtime, round, no_new_privileges, user)?;
    let mut tracer = Tracer::new();
    let id = bundle.id.as_str();
    let folder = bundle.folder.display().to_string();
    tracer.run(bundle.command(&["create", "--bundle", &folder, id]))?;
    let process = bundle.folder.join("process.json").display().to_string();
    tracer.run(bundle.command(&["exec", "--process", &process, id]))?;
    tracer.run(bundle.command(&["start", id]))?;
    tracer.finish()?;
    // Init and the further process.
    if tracer.started < 2 {
        return Err(MeasureError::NoFilter);
    }
    let machine = Machine::native();
    let names = tracer
        .calls
        .iter()
        .filter_map(|number| syscalls::name(machine, *number));
    Ok(names.map(str::to_owned).collect())
}

/// A container that does nothing.
struct Bundle<'a> {
    runtime: &'a Path,
    folder: PathBuf,
    id: String,
}

impl<'a> Bundle<'a> {
    fn new(runtime: &'a Path, round: usize, no_new_privileges: bool, user: u32) -> Result<Self, MeasureError> {
        let id = format!(
            "assay-measure-{}-{round}-{no_new_privileges}-{user}",
            std::process::id()
        );
        let folder = PathBuf::from("/run").join(&id);
        let bundle = Self { runtime, folder, id };
        let folder = &bundle.folder;
        let step = system("make a bundle below /run");
        write(folder, &bundle.id, no_new_privileges, user).map_err(step)?;
        Ok(bundle)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.runtime);
        command
            .arg("--root")
            .arg(self.folder.join("state"))
            .args(arguments)
            .current_dir(&self.folder);
        command
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        // There may be none any more.
        let mut delete = self.command(&["delete", "--force", &self.id]);
        let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write(folder: &Path, id: &str, no_new_privileges: bool, user: u32) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let rootfs = folder.join("rootfs");
    for directory in ["proc", "dev", "sys", "work"] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    let program = rootfs.join("end");
    fs::write(&program, program_of_one_call())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let capabilities = [
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID",
    ];
    let process = json!({
        "terminal": false,
        "user": { "uid": user, "gid": user, "additionalGids": [user, 5] },
        "args": ["end"],
        "env": ["PATH=/"],
        "cwd": "/work",
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "noNewPrivileges": no_new_privileges,
    });
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": "rootfs" },
        "hostname": "measure",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            // Everything but one call that nothing makes: what is made is seen, not tried.
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["lookup_dcookie"], "action": "SCMP_ACT_ERRNO" }],
            },
        },
    });
    fs::write(folder.join("config.json"), spec.to_string())?;
    fs::write(folder.join("process.json"), process.to_string())
}

/// A static ELF program of this machine that ends with status 0.
fn program_of_one_call() -> Vec<u8> {
    let (machine, code): (u16, &[u8]) = match Machine::native() {
        // xor edi, edi; mov eax, 60; syscall
        Machine::X86_64 => (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]),
        // mov x0, #0; mov x8, #93; svc #0
        Machine::Aarch64 => (
            183,
            &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4],
        ),
    };
    let size = 0x78 + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0x40_0078u64, 0x40, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    let segment = [0u64, 0x40_0000, 0x40_0000, size, size, 0x1000];
    file.extend(segment.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(code);
    file
}

/// Follows processes and notes what those with a filter call until they start a program.
#[derive(Debug)]
struct Tracer {
    trace: Trace,
    /// Processes with a filter that have not started a program yet.
    filtered: HashSet<i32>,
    /// What they called.
    calls: BTreeSet<u32>,
    /// How many have started one.
    started: usize,
    /// Threads that are in a call which can load a filter.
    loading: HashSet<i32>,
}

impl Tracer {
    fn new() -> Self {
        Self {
            trace: Trace::holding(),
            filtered: HashSet::new(),
            calls: BTreeSet::new(),
            started: 0,
            loading: HashSet::new(),
        }
    }

    /// Runs a command of the runtime to its end. Processes that it leaves behind stay traced.
    fn run(&mut self, mut command: Command) -> Result<(), MeasureError> {
        let shown = format!("{command:?}");
        let said = tempfile_for_output().map_err(system("make a file in memory"))?;
        let copy = said.try_clone().map_err(system("make a file in memory"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(copy);
        let process = self
            .trace
            .start(&mut command)
            .map_err(system("start the OCI runtime"))?;
        let deadline = Instant::now() + PATIENCE;
        while self.trace.ended(process).is_none() {
            self.step(deadline, &shown)?;
        }
        match self.trace.ended(process).unwrap_or_default() {
            0 => Ok(()),
            status => {
                self.trace.kill();
                Err(MeasureError::Runtime {
                    command: shown,
                    status,
                    said: last_words(&said),
                })
            }
        }
    }

    /// Waits until every traced process has ended.
    fn finish(&mut self) -> Result<(), MeasureError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.trace.is_empty() {
            self.step(deadline, "the container")?;
        }
        Ok(())
    }

    /// Handles one stop of one thread, if there is one.
    fn step(&mut self, deadline: Instant, what: &str) -> Result<(), MeasureError> {
        if Instant::now() > deadline {
            self.trace.kill();
            return Err(MeasureError::Late(what.to_owned()));
        }
        match self.trace.step().map_err(system("wait for the OCI runtime"))? {
            None => std::thread::sleep(GLANCE),
            Some(Event::New { process, of }) => {
                if self.filtered.contains(&process) {
                    self.filtered.insert(of);
                }
            }
            Some(Event::Call {
                thread,
                process,
                number,
                arguments,
                ..
            }) => self.call(thread, process, number, arguments),
            Some(Event::Return { thread, process, value }) => {
                if self.loading.remove(&thread) && value == 0 {
                    self.filtered.insert(process);
                }
            }
            Some(Event::Other) => {}
        }
        Ok(())
    }

    fn call(&mut self, thread: i32, process: i32, number: u64, arguments: [u64; 6]) {
        let is = |call: libc::c_long| i64::try_from(number) == Ok(call);
        let loads = (is(libc::SYS_seccomp) && arguments[0] == u64::from(libc::SECCOMP_SET_MODE_FILTER))
            || (is(libc::SYS_prctl)
                && arguments[0] == u64::from(libc::PR_SET_SECCOMP.unsigned_abs())
                && arguments[1] == u64::from(libc::SECCOMP_MODE_FILTER));
        if loads {
            self.loading.insert(thread);
        }
        if self.filtered.contains(&process) {
            self.calls.extend(u32::try_from(number));
            if is(libc::SYS_execve) || is(libc::SYS_execveat) {
                self.filtered.remove(&process);
                self.started += 1;
            }
        }
    }
}

fn tempfile_for_output() -> io::Result<fs::File> {
    let memory = rustix::fs::memfd_create("said", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(fs::File::from(memory))
}

fn last_words(said: &fs::File) -> String {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; 1000];
    let size = said.metadata().map_or(0, |meta| meta.len());
    let count = said.read_at(&mut bytes, size.saturating_sub(1000)).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
    crate::diagnostic::printable(text.trim()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runc_needs_less_when_it_loads_the_filter_last() {
        let measured = measure(Path::new("/usr/sbin/runc")).unwrap();
        assert!(measured.version.starts_with("runc version"), "{measured:?}");
        assert!(measured.no_new_privileges.contains("execve"), "{measured:?}");
        assert!(measured.privileges.contains("setuid"), "{measured:?}");
        assert!(!measured.no_new_privileges.contains("setuid"), "{measured:?}");
    }
}
