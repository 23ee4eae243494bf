//! What a test may not leave on the machine.

use std::fs;
use std::path::Path;

use super::daemon::Daemon;
use super::eventually;

/// Fails when anything is left whose name starts with `prefix`: tasks, bundles, mounts, cgroups, processes, files of
/// the OCI runtime.
#[track_caller]
pub fn assert_none(daemon: &Daemon, prefix: &str) {
    // containerd and the shim finish their own cleaning after they have answered.
    eventually(&format!("nothing of {prefix} to be left"), || {
        let left = find(daemon, prefix);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    });
}

fn find(daemon: &Daemon, prefix: &str) -> Vec<String> {
    let mut left = Vec::new();
    let marked = |path: &str| path.split('/').any(|part| part.starts_with(prefix));

    for mount in mounts() {
        if Path::new(&mount).starts_with(&daemon.folder) && marked(&mount) {
            left.push(format!("mount {mount}"));
        }
    }
    for pid in processes() {
        let command = command_line(pid);
        // A container's own processes have the id in their cgroup, shims and runtimes in their arguments.
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let ours = cgroup.lines().any(|line| line.contains(&daemon.scope) && marked(line));
        let serves = command
            .iter()
            .any(|argument| argument.contains(daemon.folder.to_str().unwrap()))
            && command.iter().any(|argument| marked(argument));
        if ours || serves {
            left.push(format!("process {pid}: {}", command.join(" ")));
        }
    }
    let folders = [
        daemon
            .folder
            .join("state/io.containerd.runtime.v2.task")
            .join(&daemon.scope),
        daemon.folder.join("state/io.containerd.runtime.v2.task/k8s.io"),
        daemon
            .folder
            .join("root/io.containerd.runtime.v2.task")
            .join(&daemon.scope),
        daemon.folder.join("root/io.containerd.runtime.v2.task/k8s.io"),
        Path::new("/run/containerd/runc").join(&daemon.scope),
        Path::new("/run/containerd/runc/k8s.io").to_path_buf(),
        daemon.folder.join("assay/run"),
    ];
    for folder in folders
        .into_iter()
        .chain(cgroup_roots().into_iter().map(|root| root.join(&daemon.scope)))
    {
        for name in names(&folder).into_iter().filter(|name| name.starts_with(prefix)) {
            left.push(folder.join(name).display().to_string());
        }
    }
    left
}

/// Every mount point of this mount namespace.
pub fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(ToOwned::to_owned)
        .collect()
}

pub fn processes() -> Vec<u32> {
    names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Arguments of a process; none when it is gone.
pub fn command_line(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// True while the process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

pub fn parent(pid: u32) -> u32 {
    parent_of(pid).unwrap_or_else(|| panic!("process {pid} is gone"))
}

/// None when the process is gone.
pub fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?[1].parse().ok()
}

/// How many sockets a process holds.
pub fn sockets_of(pid: u32) -> usize {
    descriptors(pid)
        .iter()
        .filter(|target| target.starts_with("socket:"))
        .count()
}

/// State, parent and what follows.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(ToOwned::to_owned).collect())
}

/// What the open descriptors of a process refer to, sorted.
pub fn descriptors(pid: u32) -> Vec<String> {
    let folder = format!("/proc/{pid}/fd");
    let mut targets: Vec<_> = names(Path::new(&folder))
        .iter()
        .filter_map(|name| fs::read_link(format!("{folder}/{name}")).ok())
        .map(|target| target.display().to_string())
        .collect();
    targets.sort();
    targets
}

/// Where controllers are mounted: one folder each for version 1, one for version 2.
pub fn cgroup_roots() -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_path_buf()];
    }
    names(root).iter().map(|name| root.join(name)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}
