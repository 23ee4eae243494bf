//! The agent's unit under systemd itself, with everything that the unit takes away.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Far beyond what anything takes here; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A machine that has booted. Everything in it ends with it.
struct Machine {
    unshare: Child,
    systemd: String,
    _root: tempfile::TempDir,
}

impl Machine {
    fn boot() -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = tempfile::tempdir().unwrap();
        let unshare = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
                "--ipc",
                "--cgroup",
            ])
            .args(["--propagation=private", "sh"])
            .arg(repository.join("tests/systemd/boot.sh"))
            .env("ROOT", root.path())
            .env("REPOSITORY", repository)
            .env("ASSAY", env!("CARGO_BIN_EXE_assay"))
            .env("SHIM", env!("CARGO_BIN_EXE_containerd-shim-assay-v1"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let children = PathBuf::from(format!("/proc/{0}/task/{0}/children", unshare.id()));
        let mut machine = Self {
            unshare,
            systemd: String::new(),
            _root: root,
        };
        wait("the first process", || {
            let child = std::fs::read_to_string(&children).unwrap();
            machine.systemd = child.trim().to_owned();
            !machine.systemd.is_empty()
        });
        wait("systemd to run", || {
            // "degraded" is what a machine without a console is.
            let said = text(&machine.run(&["systemctl", "is-system-running"]).stdout);
            ["running", "degraded"].contains(&said.trim())
        });
        machine
    }

    /// Runs a command in it.
    fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .args([
                "--target",
                &self.systemd,
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--cgroup",
                "--",
            ])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn done(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}\n{}", self.journal());
        said
    }

    fn journal(&self) -> String {
        text(&self.run(&["journalctl", "--no-pager", "--unit=assay-agent"]).stdout)
    }

    fn is(&self, property: &str, value: &str) -> bool {
        let said = self.done(&["systemctl", "show", "assay-agent", "--value", "--property", property]);
        said.trim() == value
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.unshare.kill());
        drop(self.unshare.wait());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn wait(what: &str, mut is_there: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_there() {
        assert!(since.elapsed() < PATIENCE, "waited for {what}");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_agents_unit_starts_works_is_started_again_and_ends() {
    let machine = Machine::boot();
    machine.done(&["assay", "policy", "apply"]);
    machine.done(&["assay", "evidence", "import", "/mnt/target/images/signed/busybox"]);
    let programs = "/mnt/target/tools/containerd-2.1/usr/bin";
    machine.done(&[
        "systemd-run",
        "--unit=containerd",
        &format!("--setenv=PATH=/usr/sbin:/usr/bin:/sbin:/bin:{programs}"),
        &format!("{programs}/containerd"),
    ]);
    let ctr = format!("{programs}/ctr");
    wait("containerd to answer", || {
        machine.run(&[&ctr, "version"]).status.success()
    });

    // It says itself when it is ready: the command returns then.
    machine.done(&["systemctl", "start", "assay-agent"]);
    assert!(machine.is("SubState", "running"), "{}", machine.journal());
    assert!(machine.is("NotifyAccess", "main"));
    let watched = "0 containers are judged again when something changes";
    assert!(machine.is("StatusText", watched), "{}", machine.journal());

    // Evidence is judged, a view is built and machine code is read, with no more rights than the unit leaves.
    machine.done(&[&ctr, "images", "import", "/mnt/target/images/busybox.tar"]);
    wait("the image to be prepared", || {
        machine
            .journal()
            .contains("image default/assay.test/busybox:latest is prepared")
    });
    let made = machine.done(&["find", "/var/lib/assay/needs", "-type", "f"]);
    assert!(!made.trim().is_empty());

    // One that is killed is started again; one that is told to end does.
    let first = machine.done(&["systemctl", "show", "assay-agent", "--value", "--property=MainPID"]);
    machine.done(&["systemctl", "kill", "--signal=KILL", "assay-agent"]);
    wait("another agent", || {
        machine.is("SubState", "running") && !machine.is("MainPID", first.trim())
    });
    machine.done(&["systemctl", "stop", "assay-agent"]);
    assert!(machine.is("Result", "success"), "{}", machine.journal());
    assert!(machine.is("ExecMainStatus", "0"), "{}", machine.journal());
}
