//! A container of the real runc, with a static busybox and nothing else.

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

use assay::seccomp::Profile;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A container. Dropped, it is deleted.
pub struct Container {
    folder: TempDir,
    pub id: String,
}

impl Container {
    /// Runs `/busybox` under a profile.
    pub fn run(profile: &Profile, no_new_privileges: bool, command: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        fs::create_dir_all(rootfs.join("proc")).unwrap();
        fs::copy("/bin/busybox", rootfs.join("busybox")).expect("the Debian package busybox-static");
        let seccomp: Value = serde_json::from_slice(&profile.to_json()).unwrap();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": command, "cwd": "/", "env": [], "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": no_new_privileges,
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
                "seccomp": seccomp,
            },
        });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let id = format!("assay-seccomp-{}", name.trim_start_matches('.'));
        let container = Self { id, folder };
        let path = container.folder.path();
        let log = File::create(path.join("log")).unwrap();
        let status = container
            .runc()
            .args(["run", "--detach", "--bundle"])
            .arg(path)
            .arg("--pid-file")
            .arg(path.join("pid"))
            .arg(&container.id)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(status.success(), "{}", container.output());
        container
    }

    /// Runs a further process to its end.
    pub fn exec(&self, command: &[&str]) -> Output {
        self.runc().args(["exec", &self.id]).args(command).output().unwrap()
    }

    /// The first process, as the node numbers it.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.folder.path().join("pid"))
            .unwrap()
            .parse()
            .unwrap()
    }

    /// What the first process and runc have written.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.path().join("state"));
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.runc().args(["delete", "--force", &self.id]).status();
        assert!(std::thread::panicking() || deleted.unwrap().success());
    }
}
