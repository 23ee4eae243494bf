//! The files of a bundle: what containerd wrote, what the shim keeps there for `delete`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::runtime::Runtime;

/// Largest `config.json` that is read. etcd limits a pod's specification to 1.5 MiB; this is far above it.
pub(super) const SPEC_LIMIT: u64 = 16 << 20;
/// Largest of the shim's own small files.
const RECORD_LIMIT: u64 = 1 << 16;

const RECORD: &str = "assay.json";
const ADDRESS: &str = "address";

/// The parts of `config.json` that the shim itself acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Spec {
    /// Annotations, those of CRI included.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    #[serde(default)]
    linux: Linux,
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Process {
    terminal: bool,
}

impl Spec {
    /// Reads `config.json` of a bundle.
    ///
    /// # Errors
    /// When it is missing, larger than 16 MiB, or not an OCI runtime configuration.
    pub fn read(bundle: &Path) -> Result<Self, Error> {
        let path = bundle.join("config.json");
        let bytes = read(&path, SPEC_LIMIT).map_err(Error::file(&path))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
            path,
            reason: error.to_string(),
        })
    }

    /// Whether other processes can outlive the first one: it has no PID namespace of its own.
    #[must_use]
    pub fn shares_pid_namespace(&self) -> bool {
        !self
            .linux
            .namespaces
            .iter()
            .any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty())
    }

    /// Whether the cgroup path is in systemd's form, `slice:prefix:name`.
    #[must_use]
    pub fn systemd_cgroups_path(&self) -> bool {
        let mut parts = self.linux.cgroups_path.split(':');
        matches!((parts.next(), parts.next(), parts.next(), parts.next()), (Some(slice), Some(_), Some(_), None)
            if slice.is_empty() || slice.ends_with(".slice"))
    }

    /// Whether the first process has a terminal.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.terminal)
    }
}

/// What `delete` needs to know when the shim that made the container is dead. Later versions of the shim read it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The OCI runtime and its options.
    pub runtime: Runtime,
}

impl Record {
    /// Writes the record into the bundle.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, bundle: &Path) -> Result<(), Error> {
        let path = bundle.join(RECORD);
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Malformed {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        fs::write(&path, bytes).map_err(Error::file(&path))
    }

    /// Reads the record of a bundle; none when no container was made there.
    ///
    /// # Errors
    /// When the file cannot be read or is not a record.
    pub fn read(bundle: &Path) -> Result<Option<Self>, Error> {
        let path = bundle.join(RECORD);
        match read(&path, RECORD_LIMIT) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Error::Malformed {
                    path,
                    reason: error.to_string(),
                }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }
}

/// Writes the address of the shim where containerd 1.6 and 1.7 look for it after a restart.
///
/// # Errors
/// When the file cannot be written.
pub fn write_address(bundle: &Path, address: &str) -> Result<(), Error> {
    let path = bundle.join(ADDRESS);
    let temporary = bundle.join(".address");
    fs::write(&temporary, address)
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(Error::file(&path))
}

/// The address that [`write_address`] wrote.
#[must_use]
pub fn read_address(bundle: &Path) -> Option<String> {
    String::from_utf8(read(&bundle.join(ADDRESS), RECORD_LIMIT).ok()?).ok()
}

/// The pid that the OCI runtime wrote for the first process (`init.pid`) or for an exec (`<id>.pid`).
///
/// # Errors
/// When the file is missing or holds no positive number.
pub fn read_pid(path: &Path) -> Result<i32, Error> {
    let bytes = read(path, RECORD_LIMIT).map_err(Error::file(path))?;
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(Error::Malformed {
            path: path.to_owned(),
            reason: format!("'{}' is not a process id", text.trim()),
        }),
    }
}

/// Where the OCI runtime writes the pid of the first process.
#[must_use]
pub fn init_pid(bundle: &Path) -> PathBuf {
    bundle.join("init.pid")
}

/// The root file system of a bundle.
#[must_use]
pub fn rootfs(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_pid_namespace_with_a_path_is_shared() {
        assert!(!spec(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#).shares_pid_namespace());
        assert!(spec(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#).shares_pid_namespace());
        assert!(spec("{}").shares_pid_namespace());
    }

    #[test]
    fn systemds_cgroup_paths_are_recognised() {
        for (path, systemd) in [
            ("kubepods-besteffort.slice:cri-containerd:abc", true),
            (":cri-containerd:abc", true),
            ("/kubepods/besteffort/abc", false),
            ("/a:b:c", false),
            ("", false),
        ] {
            let spec = spec(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#));
            assert_eq!(spec.systemd_cgroups_path(), systemd, "{path}");
        }
    }

    #[test]
    fn a_pid_file_holds_a_positive_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.pid");
        for (text, pid) in [
            ("42", Some(42)),
            ("42\n", Some(42)),
            ("-1", None),
            ("0", None),
            ("", None),
            ("x", None),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_pid(&path).ok(), pid, "{text}");
        }
    }
}
