//! The command line of the OCI runtime (runc, crun): how each operation is asked for and how a failure is read.
//!
//! This file runs no process: the resident shim runs these commands asynchronously, the short-lived `delete`
//! synchronously, and both build them here. What a runtime needs of the kernel itself is in `base`, and `measure` finds it
//! out; `record` notes what any program calls.

mod base;
mod measure;
mod record;
mod trace;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

pub use base::{Base, base, keep, known, measured};
pub use measure::{MeasureError, Measured, measure};
pub use record::{Recorder, Recording, Wake};

/// Where runc-compatible runtimes keep their state unless the `Root` option says otherwise.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// Most bytes of the runtime's log that are read to find its last error.
const LOG_LIMIT: u64 = 1 << 20;

/// An OCI runtime and how this container uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Name (looked up in `PATH`) or path of the program.
    pub program: String,
    /// State directory, the containerd namespace included.
    pub root: PathBuf,
    /// Whether cgroups are made through systemd.
    pub systemd_cgroup: bool,
    /// Keep `chroot` semantics on RAM disks: no `pivot_root`.
    pub no_pivot_root: bool,
    /// Do not make a session keyring.
    pub no_new_keyring: bool,
}

/// What `runc checkpoint` and `runc restore` share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criu {
    /// Directory of the image files.
    pub image_path: PathBuf,
    /// Directory of criu's logs and work files.
    pub work_path: Option<PathBuf>,
    /// Parent image of an incremental checkpoint.
    pub parent_path: Option<PathBuf>,
    /// Keep open TCP connections.
    pub open_tcp: bool,
    /// Allow sockets whose other end is outside.
    pub external_unix_sockets: bool,
    /// Allow terminals.
    pub terminal: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Namespaces to leave empty.
    pub empty_namespaces: Vec<String>,
    /// `--manage-cgroups-mode`.
    pub cgroups_mode: String,
}

impl Runtime {
    /// State directory for a `Root` option (empty for the default) and a containerd namespace.
    #[must_use]
    pub fn root_for(root: &str, namespace: &str) -> PathBuf {
        let base = if root.is_empty() { DEFAULT_ROOT } else { root };
        Path::new(base).join(namespace)
    }

    /// `create`: set the container up and leave its first process waiting.
    #[must_use]
    pub fn create(&self, id: &str, bundle: &Path, pid_file: &Path, console: Option<&Path>) -> Command {
        let mut command = self.set_up(&["create"], bundle, pid_file, console);
        command.arg(id);
        command
    }

    /// `restore`: set the container up from a checkpoint and run it.
    #[must_use]
    pub fn restore(&self, id: &str, bundle: &Path, pid_file: &Path, console: Option<&Path>, criu: &Criu) -> Command {
        let mut command = self.set_up(&["restore", "--detach"], bundle, pid_file, console);
        criu.flags(&mut command);
        command.arg(id);
        command
    }

    /// `start`: let the waiting first process go on.
    #[must_use]
    pub fn start(&self, id: &str, bundle: &Path) -> Command {
        self.simple(bundle, &["start", id])
    }

    /// `exec --detach`: a further process, described by the JSON file `process`.
    #[must_use]
    pub fn exec(&self, id: &str, bundle: &Path, process: &Path, pid_file: &Path, console: Option<&Path>) -> Command {
        let mut command = self.command(Some(bundle));
        command
            .arg("exec")
            .arg("--process")
            .arg(process)
            .arg("--detach")
            .arg("--pid-file")
            .arg(pid_file);
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        command.arg(id);
        command
    }

    /// `kill`: a signal for the first process, or for all of them.
    #[must_use]
    pub fn kill(&self, id: &str, bundle: &Path, signal: u32, all: bool) -> Command {
        let signal = signal.to_string();
        if all {
            self.simple(bundle, &["kill", "--all", id, &signal])
        } else {
            self.simple(bundle, &["kill", id, &signal])
        }
    }

    /// `delete`: forget a stopped container; with `force`, kill it first.
    #[must_use]
    pub fn delete(&self, id: &str, bundle: Option<&Path>, force: bool) -> Command {
        let mut command = self.command(bundle);
        command.arg("delete");
        if force {
            command.arg("--force");
        }
        command.arg(id);
        command
    }

    /// `pause`: freeze all processes.
    #[must_use]
    pub fn pause(&self, id: &str, bundle: &Path) -> Command {
        self.simple(bundle, &["pause", id])
    }

    /// `resume`: thaw all processes.
    #[must_use]
    pub fn resume(&self, id: &str, bundle: &Path) -> Command {
        self.simple(bundle, &["resume", id])
    }

    /// `update`: new resource limits, JSON `LinuxResources` on standard input.
    #[must_use]
    pub fn update(&self, id: &str, bundle: &Path) -> Command {
        self.simple(bundle, &["update", "--resources", "-", id])
    }

    /// `ps`: the container's processes as a JSON array of pids on standard output.
    #[must_use]
    pub fn ps(&self, id: &str, bundle: &Path) -> Command {
        self.simple(bundle, &["ps", "--format", "json", id])
    }

    /// `checkpoint`: write the container's state to files; without `leave_running` it ends.
    #[must_use]
    pub fn checkpoint(&self, id: &str, bundle: &Path, criu: &Criu, leave_running: bool) -> Command {
        let mut command = self.command(Some(bundle));
        command.arg("checkpoint");
        if leave_running {
            command.arg("--leave-running");
        }
        criu.flags(&mut command);
        command.arg(id);
        command
    }

    /// `features`: what the runtime can do, JSON on standard output.
    #[must_use]
    pub fn features(program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("features");
        command
    }

    /// `--version`, text on standard output.
    #[must_use]
    pub fn version(program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--version");
        command
    }

    fn simple(&self, bundle: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(Some(bundle));
        command.args(arguments);
        command
    }

    fn set_up(&self, verb: &[&str], bundle: &Path, pid_file: &Path, console: Option<&Path>) -> Command {
        let mut command = self.command(Some(bundle));
        command
            .args(verb)
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(pid_file);
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        if self.no_pivot_root {
            command.arg("--no-pivot");
        }
        if self.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        command
    }

    fn command(&self, bundle: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        if let Some(bundle) = bundle {
            command
                .arg("--log")
                .arg(log_path(bundle))
                .args(["--log-format", "json"]);
        }
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
    }
}

impl Criu {
    fn flags(&self, command: &mut Command) {
        let mut path = |flag: &str, value: &Path| {
            command.arg(flag).arg::<&OsStr>(value.as_ref());
        };
        path("--image-path", &self.image_path);
        if let Some(work) = &self.work_path {
            path("--work-path", work);
        }
        if let Some(parent) = &self.parent_path {
            path("--parent-path", parent);
        }
        for (wanted, flag) in [
            (self.open_tcp, "--tcp-established"),
            (self.external_unix_sockets, "--ext-unix-sk"),
            (self.terminal, "--shell-job"),
            (self.file_locks, "--file-locks"),
        ] {
            if wanted {
                command.arg(flag);
            }
        }
        for namespace in &self.empty_namespaces {
            command.args(["--empty-ns", namespace]);
        }
        if !self.cgroups_mode.is_empty() {
            command.args(["--manage-cgroups-mode", &self.cgroups_mode]);
        }
    }
}

/// Where the runtime writes its log for a bundle.
#[must_use]
pub fn log_path(bundle: &Path) -> PathBuf {
    bundle.join("log.json")
}

/// Length of the runtime's log before a command is run, so that [`failure`] reads only what that command wrote.
#[must_use]
pub fn log_length(bundle: &Path) -> u64 {
    fs::metadata(log_path(bundle)).map_or(0, |log| log.len())
}

/// The last error that the runtime logged beyond `since` bytes, else what it printed.
#[must_use]
pub fn failure(bundle: &Path, since: u64, stderr: &[u8]) -> String {
    let mut log = Vec::new();
    if let Ok(mut file) = fs::File::open(log_path(bundle)) {
        // A log that cannot be read leaves what the runtime printed.
        let _ = file
            .seek(SeekFrom::Start(since))
            .and_then(|_| file.take(LOG_LIMIT).read_to_end(&mut log));
    }
    last_error(&log).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(stderr);
        let text = text.trim();
        if text.is_empty() {
            "it gave no reason".to_owned()
        } else {
            text.to_owned()
        }
    })
}

fn last_error(log: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    log.split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .filter(|line| matches!(line.level.as_str(), "error" | "fatal"))
        .map(|line| line.msg)
        .next_back()
}

/// What a failed OCI runtime command means for the caller. The runtimes have no codes, so this one function reads
/// their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The container or process is not there (any more).
    Gone,
    /// Checkpointing is not possible on this node.
    NoCriu,
    /// Anything else.
    Other,
}

/// Classifies the text of a failure.
#[must_use]
pub fn meaning(text: &str) -> Meaning {
    let text = text.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    if has(&[
        "process already finished",
        "no such process",
        "container not running",
        "container is not running",
        "does not exist",
        "init process isn't running",
    ]) {
        Meaning::Gone
    } else if has(&[
        "criu binary not found",
        "criu: executable file not found",
        "\"criu\": executable file not found",
    ]) {
        Meaning::NoCriu
    } else {
        Meaning::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &Command) -> String {
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|a| a.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn runc() -> Runtime {
        Runtime {
            program: "runc".into(),
            root: Runtime::root_for("", "k8s.io"),
            systemd_cgroup: true,
            no_pivot_root: true,
            no_new_keyring: true,
        }
    }

    #[test]
    fn commands_carry_every_option() {
        let bundle = Path::new("/b");
        insta::assert_snapshot!(
            line(&runc().create("c", bundle, Path::new("/b/init.pid"), Some(Path::new("/t")))),
            @"runc --root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /t --no-pivot --no-new-keyring c"
        );
        insta::assert_snapshot!(
            line(&runc().kill("c", bundle, 9, true)),
            @"runc --root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup kill --all c 9"
        );
        let criu = Criu {
            image_path: "/img".into(),
            work_path: Some("/work".into()),
            open_tcp: true,
            empty_namespaces: vec!["network".into()],
            cgroups_mode: "soft".into(),
            ..Criu::default()
        };
        insta::assert_snapshot!(
            line(&runc().checkpoint("c", bundle, &criu, true)),
            @"runc --root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup checkpoint --leave-running --image-path /img --work-path /work --tcp-established --empty-ns network --manage-cgroups-mode soft c"
        );
    }

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let log = br#"{"level":"warning","msg":"w","time":"t"}
{"level":"error","msg":"first","time":"t"}
not json
{"level":"error","msg":"runc create failed: no such file","time":"t"}
"#;
        assert_eq!(last_error(log).as_deref(), Some("runc create failed: no such file"));
        assert_eq!(last_error(b""), None);
    }

    #[test]
    fn texts_of_runc_and_crun_are_understood() {
        for gone in [
            "container not running",
            "os: process already finished",
            "container \"x\" does not exist",
            "kill container: No such process",
        ] {
            assert_eq!(meaning(gone), Meaning::Gone, "{gone}");
        }
        assert_eq!(
            meaning("exec: \"criu\": executable file not found in $PATH"),
            Meaning::NoCriu
        );
        assert_eq!(meaning("permission denied"), Meaning::Other);
    }
}
