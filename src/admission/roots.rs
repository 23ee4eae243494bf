//! Where the closure of a container starts, in the form in which it is compared: what differs between the pods of one
//! workload without meaning anything for its files (addresses, numbers, names that are drawn) is taken out, so that
//! they share one view.
//!
//! What is taken out here is never seen by the parser either: equal [`Roots`] have equal needs.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::layers;
use crate::digest::Digest;
use crate::identity::{SpecMount, Workload};

/// Stands for what was taken out.
const ANY: &str = "_";
/// What containerd and the kubelet mount into every container, different in each pod.
const SHARED_MEMORY: &str = "/dev/shm";
/// The same, and nothing that is run.
const OF_THE_POD: &[&str] = &[
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/termination-log",
    "/run/secrets/kubernetes.io/serviceaccount",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];
/// Variables that Kubernetes sets for each service of a namespace.
const OF_SERVICES: &[&str] = &["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
/// What may follow a number: units of time and size, as programs read them. `1.sh` and `7z` are names.
const UNITS: &[&str] = &[
    "", "%", "b", "d", "g", "h", "k", "m", "s", "t", "w", "B", "G", "K", "M", "T", "ms", "us", "ns", "min", "sec",
    "kb", "mb", "gb", "tb", "kB", "KB", "MB", "GB", "TB", "Ki", "Mi", "Gi", "Ti", "KiB", "MiB", "GiB", "TiB",
];
/// Most names in a mounted directory; a larger one is data, and only what a root names is missed in it.
const MAX_NAMES: usize = 2000;
/// Deepest nesting of mounted directories.
const MAX_DEPTH: usize = 16;
/// Largest file whose content is compared; of a larger one, size and times are.
const MAX_HASHED: u64 = 256 << 10;
/// Most bytes of one mount whose content is compared.
const MAX_TOTAL: u64 = 4 << 20;
/// Most mounts that are looked into.
const MAX_MOUNTS: usize = 32;

/// Where a closure starts, as far as it does not depend on the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Roots {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) mounts: Vec<Mounted>,
}

/// Something that is mounted over the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mounted {
    pub(super) destination: String,
    pub(super) writable: bool,
    /// Files can be there that somebody put there.
    pub(super) programs: bool,
    /// What is there when the container is created; nothing where there are no such files or not all were looked at.
    pub(super) content: Option<Content>,
}

/// What is in a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// Permission bits of a file; none for a directory.
    pub(super) file: Option<u32>,
    /// Over names, modes and contents.
    pub(super) digest: Digest,
}

/// The roots of a container, and the descriptors of what is mounted, in the order of the mounts that have content.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) roots: Roots,
    pub(super) contents: Vec<OwnedFd>,
}

/// Reads what a container starts from its specification and from what is mounted.
pub(super) fn prepare(workload: &Workload) -> Prepared {
    let process = &workload.process;
    let mut prepared = Prepared {
        roots: Roots {
            // The program itself is always a name.
            args: process
                .args
                .iter()
                .take(1)
                .cloned()
                .chain(process.args.iter().skip(1).map(|arg| plain(arg)))
                .collect(),
            env: process.env.iter().filter_map(|entry| variable(entry)).collect(),
            cwd: process.cwd.clone(),
            mounts: Vec::new(),
        },
        contents: Vec::new(),
    };
    prepared.roots.env.sort();
    for mount in &workload.mounts {
        let found = if prepared.contents.len() < MAX_MOUNTS {
            content(mount)
        } else {
            None
        };
        let (content, descriptor) = found.unzip();
        prepared.roots.mounts.push(Mounted {
            destination: mount.destination.clone(),
            writable: !mount
                .options
                .iter()
                .any(|option| matches!(option.as_str(), "ro" | "rro")),
            programs: is_bound(mount) && !is_configuration_of_the_pod(mount),
            content,
        });
        prepared.contents.extend(descriptor);
    }
    prepared
}

/// An argument without what cannot be the name of a file.
fn plain(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, value)) if is_value(value) && !name.contains(char::is_whitespace) => format!("{name}={ANY}"),
        _ if is_value(argument) => ANY.to_owned(),
        _ => argument.to_owned(),
    }
}

/// A variable without a value that cannot be the name of a file; nothing where it is Kubernetes' own.
fn variable(entry: &str) -> Option<String> {
    let (name, value) = entry.split_once('=')?;
    if name == "HOSTNAME" || name.starts_with("KUBERNETES_") {
        return None;
    }
    let of_service = |part: &&&str| name.ends_with(**part) || name.contains(&format!("{part}_"));
    if OF_SERVICES.iter().find(of_service).is_some() && (is_value(value) || value.contains("://")) {
        return None;
    }
    Some(format!("{name}={}", if is_value(value) { ANY } else { value }))
}

/// A number, an address, a URL of another host, or an identifier that was drawn.
fn is_value(text: &str) -> bool {
    let is_number = |text: &str| {
        let number = text.trim_start_matches(['-', '+']);
        let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let unit = number.get(digits.len()..).unwrap_or_default();
        digits.ends_with(|c: char| c.is_ascii_digit())
            && digits
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '_'))
            && UNITS.contains(&unit)
    };
    let is_address = |text: &str| {
        text.parse::<IpAddr>().is_ok()
            || text.parse::<SocketAddr>().is_ok()
            || text.rsplit_once(':').is_some_and(|(host, port)| {
                port.parse::<u16>().is_ok()
                    && host
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '*'))
            })
    };
    let is_drawn = |text: &str| {
        text.len() >= 16
            && text.chars().any(|c| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
    };
    let is_url = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, rest)| {
            !matches!(scheme, "file" | "unix")
                && scheme.chars().all(|c| c.is_ascii_alphanumeric())
                && !rest.contains(char::is_whitespace)
        })
    };
    is_number(text) || is_address(text) || is_drawn(text) || is_url(text)
}

/// Whether an OCI runtime binds the source: with such an option it does, whatever the type says. All others are file
/// systems of the kernel, or are empty when the container starts.
fn is_bound(mount: &SpecMount) -> bool {
    let binds = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    mount.options.iter().any(binds) || matches!(mount.fs_type.as_str(), "bind" | "none")
}

fn is_configuration_of_the_pod(mount: &SpecMount) -> bool {
    OF_THE_POD
        .iter()
        .any(|path| Path::new(&mount.destination).starts_with(path))
}

/// Whether every container of a node has it: a file system of the kernel, or what the kubelet and containerd mount.
pub(super) fn is_of_every_container(mount: &SpecMount) -> bool {
    let is_shared_memory = Path::new(&mount.destination).starts_with(SHARED_MEMORY);
    !is_bound(mount) || is_configuration_of_the_pod(mount) || is_shared_memory
}

/// What a bind mount brings, with the descriptor through which it is read. Whatever cannot be looked at brings nothing
/// that is known.
fn content(mount: &SpecMount) -> Option<(Content, OwnedFd)> {
    let is_shared_memory = Path::new(&mount.destination).starts_with(SHARED_MEMORY);
    if !is_bound(mount) || is_configuration_of_the_pod(mount) || is_shared_memory {
        return None;
    }
    // The OCI runtime follows links in a source, and so does this; what is then read is what it is bound to.
    let found = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let reopen = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
            let file = rustix::fs::open(reopen, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let mut hasher = Sha256::new();
            let mut left = MAX_TOTAL;
            file_into(&mut hasher, &file, &stat, &mut left)?;
            let content = Content {
                file: Some(stat.st_mode & 0o7777),
                digest: Digest::of_stream(hasher),
            };
            Some((content, file))
        }
        FileType::Directory => {
            let tree = layers::detached(&found).ok()?;
            let mut fingerprint = Fingerprint {
                hasher: Sha256::new(),
                names: 0,
                left: MAX_TOTAL,
            };
            fingerprint.directory(&tree, ".", 0)?;
            let content = Content {
                file: None,
                digest: Digest::of_stream(fingerprint.hasher),
            };
            Some((content, tree))
        }
        _ => None,
    }
}

/// Walks a mounted directory.
struct Fingerprint {
    hasher: Sha256,
    names: usize,
    left: u64,
}

impl Fingerprint {
    /// `None` where there is too much of it, or something cannot be read.
    fn directory(&mut self, tree: &OwnedFd, path: &str, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let directory = open(tree, path, OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).ok()? {
            let name = entry.ok()?.file_name().to_str().ok()?.to_owned();
            if !matches!(name.as_str(), "." | "..") {
                names.push(name);
            }
            if names.len() + self.names > MAX_NAMES {
                return None;
            }
        }
        self.names += names.len();
        names.sort_unstable();
        for name in names {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let below = format!("{path}/{name}");
            // The kubelet writes a volume into a directory that is named after the time, and links to it.
            let shown = if name.starts_with("..") { ".." } else { name.as_str() };
            self.hasher
                .update(format!("{depth} {shown:?} {:o} {} {}\n", stat.st_mode, stat.st_uid, stat.st_gid).as_bytes());
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.directory(tree, &below, depth + 1)?,
                FileType::RegularFile => {
                    let file = open(tree, &below, OFlags::NONBLOCK)?;
                    file_into(&mut self.hasher, &file, &stat, &mut self.left)?;
                }
                FileType::Symlink if !name.starts_with("..") => {
                    let target = rustix::fs::readlinkat(&directory, &name, Vec::new()).ok()?;
                    self.hasher.update(format!("{target:?}\n").as_bytes());
                }
                _ => {}
            }
        }
        Some(())
    }
}

fn open(tree: &OwnedFd, path: &str, flags: OFlags) -> Option<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(
        tree.as_fd(),
        path,
        flags | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
    .ok()
}

/// Adds what tells a file from another one.
fn file_into(hasher: &mut Sha256, file: &OwnedFd, stat: &Stat, left: &mut u64) -> Option<()> {
    let size = u64::try_from(stat.st_size).ok()?;
    hasher.update(format!("{size} ").as_bytes());
    if size > MAX_HASHED || size > *left {
        let times = format!(
            "{} {} {} {} {} {}\n",
            stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec
        );
        hasher.update(times.as_bytes());
        return Some(());
    }
    *left -= size;
    let mut bytes = Vec::new();
    File::from(file.try_clone().ok()?)
        .take(MAX_HASHED)
        .read_to_end(&mut bytes)
        .ok()?;
    // The descriptor goes on to the parser, which reads from the start.
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).ok()?;
    hasher.update(&bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::identity::Process;

    fn roots(args: &[&str], env: &[&str]) -> Roots {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let workload = Workload {
            process: Process {
                args: own(args),
                env: own(env),
                cwd: "/".to_owned(),
                ..Process::default()
            },
            ..Workload::default()
        };
        prepare(&workload).roots
    }

    #[test]
    fn what_differs_between_pods_without_meaning_a_file_is_taken_out() {
        let roots = roots(
            &[
                "/bin/app",
                "10.0.0.1:80",
                "--port=8080",
                "8080",
                "5m",
                "https://a.example/x",
                "db.example:5432",
                "0f3a9c1d2e4b5a6978",
            ],
            &[
                "HOSTNAME=web-7d9f-x2x",
                "KUBERNETES_SERVICE_HOST=10.96.0.1",
                "REDIS_SERVICE_HOST=10.0.0.7",
                "REDIS_PORT_6379_TCP=tcp://10.0.0.7:6379",
                "POD_IP=10.1.2.3",
            ],
        );
        assert_eq!(roots.args, ["/bin/app", "_", "--port=_", "_", "_", "_", "_", "_"]);
        assert_eq!(roots.env, ["POD_IP=_"]);
    }

    #[test]
    fn what_can_name_a_file_or_a_command_stays() {
        let args = [
            "8080",
            "/etc/app.conf",
            "--config=/etc/app.conf",
            "-c",
            "echo 1; exec server",
            "python3.11",
            "app:main",
            "file:///srv/site",
            "2to3",
            "1.sh",
            "7z",
            "postgres",
        ];
        let env = ["APP=/srv/app:/opt/app", "LANG=C.UTF-8", "PATH=/usr/local/bin:/bin"];
        let roots = roots(&args, &env);
        assert_eq!(roots.args, args);
        assert_eq!(roots.env, env);
    }

    fn mounted(source: &Path, options: &[&str]) -> Mounted {
        mounted_as("bind", source, options)
    }

    fn mounted_as(fs_type: &str, source: &Path, options: &[&str]) -> Mounted {
        let workload = Workload {
            mounts: vec![SpecMount {
                destination: "/config".to_owned(),
                source: source.display().to_string(),
                fs_type: fs_type.to_owned(),
                options: options.iter().map(ToString::to_string).collect(),
            }],
            ..Workload::default()
        };
        let prepared = prepare(&workload);
        let mounted = prepared.roots.mounts.into_iter().next().unwrap();
        assert_eq!(prepared.contents.len(), usize::from(mounted.content.is_some()));
        mounted
    }

    /// A volume as the kubelet writes it.
    fn volume(time: &str, script: &str) -> tempfile::TempDir {
        let volume = tempfile::tempdir().unwrap();
        let data = volume.path().join(format!("..{time}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("run.sh"), script).unwrap();
        symlink(format!("..{time}"), volume.path().join("..data")).unwrap();
        symlink("..data/run.sh", volume.path().join("run.sh")).unwrap();
        volume
    }

    #[test]
    fn equal_volumes_are_equal_whenever_they_were_written_and_a_changed_script_is_another() {
        let (one, same) = (volume("2026_01_01", "echo"), volume("2026_02_02", "echo"));
        let other = volume("2026_01_01", "curl");
        let options = ["rbind", "ro"];
        assert_eq!(mounted(one.path(), &options), mounted(same.path(), &options));
        assert_ne!(mounted(one.path(), &options), mounted(other.path(), &options));
        assert_ne!(mounted(one.path(), &options), mounted(one.path(), &["rbind", "rw"]));
        assert!(mounted(one.path(), &options).content.is_some());
    }

    #[test]
    fn what_cannot_be_looked_through_has_no_content() {
        let large = tempfile::tempdir().unwrap();
        for number in 0..=MAX_NAMES {
            fs::write(large.path().join(number.to_string()), "").unwrap();
        }
        for source in [large.path(), Path::new("/no/such"), Path::new("/dev/null")] {
            let mounted = mounted(source, &["bind"]);
            assert_eq!(mounted.content, None, "{}", source.display());
            assert!(mounted.programs, "what was not looked at can hold programs");
        }
        assert!(!mounted_as("tmpfs", Path::new("tmpfs"), &["nosuid"]).programs);
    }

    #[test]
    fn what_is_bound_is_looked_at_whatever_its_type_says() {
        let volume = volume("2026_01_01", "echo");
        assert!(mounted_as("proc", volume.path(), &["rbind"]).content.is_some());
    }

    #[test]
    fn the_target_of_a_link_is_not_taken_for_what_follows_it() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = other.path().join("b");
        fs::write(&file, "echo").unwrap();
        symlink("x", other.path().join("a")).unwrap();
        let stat = rustix::fs::stat(&file).unwrap();
        let rest = format!("x0 \"b\" {:o} {} {}\n4 echo", stat.st_mode, stat.st_uid, stat.st_gid);
        symlink(rest, one.path().join("a")).unwrap();
        assert_ne!(mounted(one.path(), &["bind"]), mounted(other.path(), &["bind"]));
    }
}
