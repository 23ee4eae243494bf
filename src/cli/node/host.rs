//! The node as seen from a pod with its processes: its files, and its containerd.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Fault;
use crate::cli::configure::node::Node;
use crate::cli::{doctor, print};

/// Where the node keeps Assay's programs: in everyone's `PATH`, and no package's.
pub(super) const FOLDER: &str = "/usr/local/bin";

/// Longest time that containerd, or the k3s that it is a part of, may take to come back.
const RESTART: Duration = Duration::from_secs(120);
/// Time between two looks at it.
const GLANCE: Duration = Duration::from_millis(250);

/// Moves this process among the files of the node, away from those of its image.
pub(super) fn enter() -> Result<(), Fault> {
    let mounts = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map_err(Fault::Enter);
    if mounts("self")?.ino() == mounts("1")?.ino() {
        return Err(Fault::NoPod);
    }
    let namespace = File::open("/proc/1/ns/mnt").map_err(Fault::Enter)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|errno| Fault::Enter(errno.into()))
}

/// The `assay` that is installed on the node. Variables of the pod mean nothing there.
pub(super) fn assay(arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(FOLDER).join("assay"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Becomes the agent of the node.
pub(super) fn agent(listen: &str) -> Result<(), Fault> {
    enter()?;
    let node = Node::find(None)?;
    let mut command = assay(&["agent", "--address", &node.socket, "--listen", listen, "--refusals"]);
    // These say where traces go, which is the pod's business.
    command.envs(std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"OTEL_")));
    let source = command.exec();
    Err(Fault::File {
        path: command.get_program().into(),
        verb: "started",
        source,
    })
}

/// Runs a command that says for itself what it does.
pub(super) fn done(mut command: Command) -> Result<(), Fault> {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let text = words.join(" ");
    print(format_args!("$ {text}"));
    // In order with what the command writes.
    drop(io::stdout().flush());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Fault::Command(text)),
        Err(source) => Err(Fault::File {
            path: words.first().cloned().unwrap_or_default().into(),
            verb: "started",
            source,
        }),
    }
}

/// Has containerd read its files again: by systemd, where its process is in a unit, and else by whoever starts a
/// containerd that has ended. Containers keep running. Returns when it serves pods again.
pub(super) fn restart(node: &Node) -> Result<(), Fault> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", node.pid)).unwrap_or_default();
    match unit(&groups) {
        Some(unit) if Path::new("/run/systemd/system").is_dir() => {
            let mut command = Command::new("systemctl");
            command.args(["restart", unit]);
            done(command)?;
        }
        _ => {
            print(format_args!(
                "ending containerd, process {}, to be started again",
                node.pid
            ));
            let Some(pid) = Pid::from_raw(node.pid) else {
                return Err(Fault::Away(node.pid));
            };
            kill_process(pid, Signal::TERM)
                .map_err(|errno| Fault::Cri(format!("containerd cannot be ended: {errno}")))?;
        }
    }
    let since = Instant::now();
    while since.elapsed() < RESTART {
        if Node::find(Some(&node.socket)).is_ok_and(|now| now.pid != node.pid && doctor::is_loaded(&now).is_ok()) {
            return Ok(());
        }
        sleep(GLANCE);
    }
    Err(Fault::Away(node.pid))
}

/// The systemd unit that a process is in, by its `/proc/PID/cgroup`. Seen from a cgroup namespace, only the end of the
/// path is of use.
fn unit(groups: &str) -> Option<&str> {
    groups
        .lines()
        .flat_map(|line| line.rsplit('/'))
        .find(|part| part.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_told_by_its_cgroup() {
        for (groups, name) in [
            ("0::/system.slice/containerd.service\n", Some("containerd.service")),
            ("0::/../../../system.slice/k3s.service\n", Some("k3s.service")),
            (
                "9:pids:/system.slice/containerd.service\n1:name=systemd:/system.slice/containerd.service\n",
                Some("containerd.service"),
            ),
            ("0::/system.slice/k0sworker.service/leaf\n", Some("k0sworker.service")),
            ("0::/user.slice/session-1.scope\n", None),
            ("", None),
        ] {
            assert_eq!(unit(groups), name, "{groups}");
        }
    }

    #[test]
    fn a_process_on_the_node_itself_is_no_pod() {
        // Whoever runs this test may not look at process 1; either way nothing was entered.
        assert!(matches!(enter(), Err(Fault::NoPod | Fault::Enter(_))));
    }
}
