//! The cgroup of a container: where it is, what it used, which processes are in it.

mod v1;
mod v2;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::mount::table::{self, Entry};

/// Most bytes read of one file of a cgroup; only a list of processes can be long.
const FILE_LIMIT: u64 = 32 << 20;
/// Deepest nesting below a container's cgroup that is looked at.
const DEPTH_LIMIT: usize = 64;
/// Type of the metrics as containerd knows it, without a prefix.
const V1_METRICS: &str = "io.containerd.cgroups.v1.Metrics";
const V2_METRICS: &str = "io.containerd.cgroups.v2.Metrics";

/// Why a cgroup gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// It is gone, its process is gone, or the process has none of its own.
    #[error("the cgroup of process {pid} does not exist")]
    NotFound {
        /// Process it was looked for by.
        pid: i32,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container has no cgroup of the memory controller.
    #[error("process {pid} has no memory cgroup of its own")]
    NoMemory {
        /// Process it was looked for by.
        pid: i32,
    },
    /// The metrics could not be encoded.
    #[error("metrics: {0}")]
    Encode(#[from] protobuf::Error),
}

impl StatsError {
    /// Whether it means that there is no such cgroup.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// The cgroup of a container, found by one of its processes. It stays valid when that process has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    pid: i32,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A directory for each controller.
    V1(Vec<(String, PathBuf)>),
    /// One directory, below the mount point of the hierarchy.
    V2 { mount: PathBuf, path: PathBuf },
}

impl Cgroup {
    /// The cgroup that `pid` is in.
    ///
    /// # Errors
    /// [`StatsError::NotFound`] when the process has ended, or is in no cgroup but the root.
    pub fn of(pid: i32) -> Result<Self, StatsError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let Some(membership) = read(&file)? else {
            return Err(StatsError::NotFound { pid });
        };
        let mounts = table::read().map_err(|source| StatsError::Read {
            path: PathBuf::from("/proc/self/mountinfo"),
            source,
        })?;
        let place = locate(&String::from_utf8_lossy(&membership), &mounts).ok_or(StatsError::NotFound { pid })?;
        Ok(Self { pid, place })
    }

    /// What the container used, as an `Any` of containerd's metrics for this version of cgroups.
    ///
    /// # Errors
    /// [`StatsError::NotFound`] when the cgroup is gone.
    pub fn metrics(&self) -> Result<Any, StatsError> {
        let (type_url, value) = match &self.place {
            Place::V1(directories) => (V1_METRICS, v1::collect(directories)?.write_to_bytes()?),
            Place::V2 { path, .. } => (V2_METRICS, v2::collect(path)?.write_to_bytes()?),
        };
        // Asked last: what was read from a cgroup that went away meanwhile is not a measurement.
        if !self.exists() {
            return Err(StatsError::NotFound { pid: self.pid });
        }
        Ok(Any {
            type_url: type_url.to_owned(),
            value,
            ..Any::default()
        })
    }

    /// All processes in the cgroup and below it, in ascending order.
    ///
    /// # Errors
    /// [`StatsError::NotFound`] when the cgroup is gone.
    pub fn pids(&self) -> Result<Vec<u32>, StatsError> {
        let directory = match &self.place {
            Place::V1(directories) => ["devices", "freezer", "pids", "memory"]
                .iter()
                .find_map(|name| find(directories, name))
                .or_else(|| directories.first().map(|(_, path)| path.as_path())),
            Place::V2 { path, .. } => Some(path.as_path()),
        };
        let Some(directory) = directory.filter(|path| path.is_dir()) else {
            return Err(StatsError::NotFound { pid: self.pid });
        };
        let mut pids = BTreeSet::new();
        collect_pids(directory, DEPTH_LIMIT, &mut pids)?;
        Ok(pids.into_iter().collect())
    }

    /// With cgroup v2, enables every controller on the way down to the container, as the stock shim does: the OCI
    /// runtime enables only those for which a limit is set, and without a controller there is nothing to measure and
    /// no memory event. What cannot be enabled is logged: the container runs without it.
    pub fn enable_controllers(&self) {
        let Place::V2 { mount, path } = &self.place else { return };
        let mut ancestors: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|path| path.starts_with(mount))
            .collect();
        ancestors.reverse();
        for directory in ancestors {
            for controller in missing_controllers(directory) {
                let file = directory.join("cgroup.subtree_control");
                // One by one: a single one that is refused would make the kernel refuse the others too.
                let written = fs::OpenOptions::new()
                    .write(true)
                    .open(&file)
                    .and_then(|mut file| file.write_all(format!("+{controller}").as_bytes()));
                if let Err(error) = written {
                    log::info!("cannot enable {controller} in {}: {error}", file.display());
                }
            }
        }
    }

    /// Directory whose files tell of memory events, and whether it is of cgroup v2.
    pub(super) fn memory(&self) -> Result<(&Path, bool), StatsError> {
        match &self.place {
            Place::V1(directories) => find(directories, "memory").map(|path| (path, false)),
            Place::V2 { path, .. } => Some((path.as_path(), true)),
        }
        .ok_or(StatsError::NoMemory { pid: self.pid })
    }

    fn exists(&self) -> bool {
        match &self.place {
            Place::V1(directories) => directories.iter().any(|(_, path)| path.is_dir()),
            Place::V2 { path, .. } => path.is_dir(),
        }
    }
}

/// Finds the directories of a process from its `/proc/<pid>/cgroup`. The root of a hierarchy is nobody's own and does
/// not count.
fn locate(membership: &str, mounts: &[Entry]) -> Option<Place> {
    let mut unified = None;
    let mut directories: Vec<(String, PathBuf)> = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if path == "/" {
            continue;
        }
        if controllers.is_empty() {
            unified = mounts
                .iter()
                .filter(|mount| mount.fs_type == "cgroup2")
                .find_map(|mount| {
                    let path = directory(mount, path)?;
                    Some(Place::V2 {
                        mount: mount.point.clone(),
                        path,
                    })
                });
            continue;
        }
        // A named hierarchy is for bookkeeping and has no controller.
        for controller in controllers.split(',').filter(|name| !name.starts_with("name=")) {
            let path = mounts
                .iter()
                .filter(|mount| mount.fs_type == "cgroup")
                .filter(|mount| mount.super_options.split(',').any(|option| option == controller))
                .find_map(|mount| directory(mount, path));
            directories.extend(path.map(|path| (controller.to_owned(), path)));
        }
    }
    if directories.is_empty() {
        unified
    } else {
        Some(Place::V1(directories))
    }
}

/// Where the cgroup `path` is below a mount of its hierarchy, of which perhaps only a part is mounted.
fn directory(mount: &Entry, path: &str) -> Option<PathBuf> {
    let below = Path::new(path).strip_prefix(&mount.root).ok()?;
    // A process outside the root of this process's cgroup namespace has a path with dots.
    below
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| mount.point.join(below))
}

fn find<'a>(directories: &'a [(String, PathBuf)], controller: &str) -> Option<&'a Path> {
    directories
        .iter()
        .find(|(name, _)| name == controller)
        .map(|(_, path)| path.as_path())
}

fn missing_controllers(directory: &Path) -> Vec<String> {
    let words = |name| {
        let bytes = read(&directory.join(name)).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let enabled = words("cgroup.subtree_control");
    words("cgroup.controllers")
        .into_iter()
        .filter(|name| !enabled.contains(name))
        .collect()
}

fn collect_pids(directory: &Path, depth: usize, pids: &mut BTreeSet<u32>) -> Result<(), StatsError> {
    let bytes = read(&directory.join("cgroup.procs"))?.unwrap_or_default();
    // 0 stands for a process outside this PID namespace.
    let here = String::from_utf8_lossy(&bytes);
    pids.extend(
        here.lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    if depth == 0 {
        return Ok(());
    }
    // Children may be removed while they are looked at.
    let Ok(children) = fs::read_dir(directory) else {
        return Ok(());
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&child.path(), depth - 1, pids)?;
        }
    }
    Ok(())
}

/// A file's bytes; `None` when it does not exist, is going away, or means nothing for this cgroup.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StatsError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::ESRCH) => Ok(None),
            _ => Err(StatsError::Read {
                path: path.to_owned(),
                source: error,
            }),
        },
    }
}

/// Lines of a name and a number.
#[derive(Debug, Default)]
struct Table(Vec<(String, u64)>);

impl Table {
    fn read(path: &Path) -> Result<Option<Self>, StatsError> {
        Ok(read(path)?.map(|bytes| Self::parse(&bytes)))
    }

    /// Lines of another form are left out: kernels add some.
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), number(value)?))
        });
        Self(lines.collect())
    }

    fn find(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn get(&self, name: &str) -> u64 {
        self.find(name).unwrap_or(0)
    }
}

/// A number; a negative one, which some kernels show for a moment, counts as 0.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<i64>().ok().map(|_| 0))
}

/// The number in a file, `max` for the word "max".
fn read_number(path: &Path, max: u64) -> Result<Option<u64>, StatsError> {
    Ok(read(path)?.and_then(|bytes| {
        let text = String::from_utf8_lossy(&bytes);
        if text.trim() == "max" { Some(max) } else { number(&text) }
    }))
}

/// Sizes of huge pages as cgroup files spell them, `2MB` for example.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut sizes: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| huge_page_kilobytes(entry.file_name().to_str()?))
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(huge_page_size).collect()
}

fn huge_page_kilobytes(name: &str) -> Option<u64> {
    name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
}

fn huge_page_size(kilobytes: u64) -> String {
    match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..0x10_0000 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    }
}

/// Lines of a device name and its RDMA resources.
fn rdma(bytes: &[u8]) -> Vec<(String, u32, u32)> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next()?.to_owned();
        let (mut handles, mut objects) = (0, 0);
        for word in words {
            let (name, value) = word.split_once('=')?;
            let value = if value == "max" { u32::MAX } else { value.parse().ok()? };
            match name {
                "hca_handle" => handles = value,
                "hca_object" => objects = value,
                _ => {}
            }
        }
        Some((device, handles, objects))
    });
    lines.collect()
}

#[cfg(test)]
mod tests;
