//! The containerd of this node: which process serves a socket, which file it reads, and what it makes of that file.
//!
//! Nothing is guessed from paths alone: whoever listens on the socket is asked for its command line, and its own
//! program is asked what it would read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use toml::Table;

use crate::oci;
use crate::policy::glob;

/// Where the distributions of Kubernetes put containerd's socket.
const SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// What containerd reads when its command line names no file.
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// Longest time that a socket may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest file of containerd's configuration that is read.
const MAX_CONFIG: u64 = 1 << 20;

/// Who keeps containerd's configuration, and therefore where a handler has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The administrator.
    Administrator,
    /// k3s or RKE2, which write the file anew from a template at every start.
    Rancher,
    /// k0s, which merges the files of a folder at every start.
    K0s,
    /// MicroK8s, which fills in a template at every start.
    MicroK8s,
}

/// A release of containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Major, minor and patch number.
    pub number: (u32, u32, u32),
    /// As the program says it.
    pub text: String,
}

/// A running containerd.
#[derive(Debug)]
pub struct Node {
    /// Its socket.
    pub socket: String,
    /// Its process.
    pub pid: i32,
    /// The file that it reads.
    pub config: PathBuf,
    /// Its release.
    pub release: Release,
    /// Who keeps its configuration.
    pub keeper: Keeper,
    /// Its environment, which its shims inherit.
    pub environment: BTreeMap<OsString, OsString>,
}

/// Why it is not known what this node's containerd reads.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No containerd answers.
    #[error("no containerd answers on {}", .0.join(", "))]
    None(Vec<String>),
    /// More than one does.
    #[error("more than one containerd runs on this node: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The socket's process cannot be seen from here.
    #[error("the process that serves {0} is not in this PID namespace")]
    Hidden(String),
    /// Something about the process cannot be read.
    #[error("{path} of the process that serves {socket} cannot be read: {source}", path = path.display())]
    Process {
        /// The socket.
        socket: String,
        /// What was to be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else than containerd listens there.
    #[error("{socket} is served by process {pid}, which is not containerd: {said}")]
    Other {
        /// The socket.
        socket: String,
        /// The process.
        pid: i32,
        /// What it said when it was asked for its version.
        said: String,
    },
    /// containerd sees another folder under this path.
    #[error(
        "{folder} is not the folder that this node's containerd (process {pid}) reads: it runs in another mount \
         namespace or root",
        folder = folder.display()
    )]
    Elsewhere {
        /// The folder.
        folder: PathBuf,
        /// containerd's process.
        pid: i32,
    },
    /// containerd cannot read its configuration, or what would become of it.
    #[error("containerd {release} cannot read {what}: {said}")]
    Rejected {
        /// containerd's release.
        release: String,
        /// What it was given.
        what: String,
        /// What it said.
        said: String,
    },
    /// A file of containerd's cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl NodeError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::None(_) => "start containerd (systemctl start containerd), or name its socket with --address".into(),
            Self::Several(_) => "say which one is meant with --address".into(),
            Self::Hidden(_) => "run this on the node itself, or in a container with the node's PID namespace".into(),
            Self::Process { .. } => "run this as root".into(),
            Self::Other { .. } => "name containerd's own socket with --address".into(),
            Self::Elsewhere { .. } => {
                "run this where containerd runs: on the node itself, not in a container or behind another mount".into()
            }
            Self::Rejected { .. } => "mend what containerd says, and see with: containerd config dump".into(),
            Self::Unreadable { .. } => "run this as root".into(),
        }
    }
}

impl Node {
    /// The containerd that serves `address`, or else the only one that answers on one of the usual sockets.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn find(address: Option<&str>) -> Result<Self, NodeError> {
        if let Some(address) = address {
            let socket = address.strip_prefix("unix://").unwrap_or(address);
            let Some(pid) = listener(socket) else {
                return Err(NodeError::None(vec![socket.to_owned()]));
            };
            return Self::of(socket, pid);
        }
        let found: Vec<(&str, i32)> = SOCKETS
            .iter()
            .filter_map(|socket| Some((*socket, listener(socket)?)))
            .collect();
        match found.as_slice() {
            [] => Err(NodeError::None(SOCKETS.map(str::to_owned).to_vec())),
            [(socket, pid)] => Self::of(socket, *pid),
            several => Err(NodeError::Several(
                several.iter().map(|(socket, _)| (*socket).to_owned()).collect(),
            )),
        }
    }

    fn of(socket: &str, pid: i32) -> Result<Self, NodeError> {
        if pid <= 0 {
            return Err(NodeError::Hidden(socket.to_owned()));
        }
        let process = PathBuf::from(format!("/proc/{pid}"));
        let read = |name: &str| {
            let path = process.join(name);
            fs::read(&path).map_err(|source| NodeError::Process {
                socket: socket.to_owned(),
                path,
                source,
            })
        };
        let arguments = split(&read("cmdline")?);
        let environment = split(&read("environ")?)
            .into_iter()
            .filter_map(|pair| {
                let bytes = pair.into_vec();
                let at = bytes.iter().position(|byte| *byte == b'=')?;
                let (name, value) = bytes.split_at(at);
                Some((
                    OsString::from_vec(name.to_vec()),
                    OsString::from_vec(value.get(1..)?.to_vec()),
                ))
            })
            .collect();
        let mut config = config_argument(&arguments).unwrap_or_else(|| DEFAULT_CONFIG.into());
        if config.is_relative() {
            let path = process.join("cwd");
            let folder = fs::read_link(&path).map_err(|source| NodeError::Process {
                socket: socket.to_owned(),
                path,
                source,
            })?;
            config = folder.join(config);
        }
        let mut node = Self {
            socket: socket.to_owned(),
            pid,
            keeper: keeper(&config),
            config,
            release: Release {
                number: (0, 0, 0),
                text: String::new(),
            },
            environment,
        };
        let said = node
            .program()
            .arg("--version")
            .output()
            .map_err(|source| NodeError::Process {
                socket: socket.to_owned(),
                path: process.join("exe"),
                source,
            })?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        node.release = release(&said).ok_or_else(|| NodeError::Other {
            socket: socket.to_owned(),
            pid,
            said: oci::shorten(said.trim()),
        })?;
        node.same_folder()?;
        Ok(node)
    }

    /// Whether containerd sees the same folder of configuration as this process.
    fn same_folder(&self) -> Result<(), NodeError> {
        let folder = self.config.parent().unwrap_or(Path::new("/"));
        let inside = PathBuf::from(format!("/proc/{}/root", self.pid)).join(folder.strip_prefix("/").unwrap_or(folder));
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        if identity(folder) == identity(&inside) {
            Ok(())
        } else {
            Err(NodeError::Elsewhere {
                folder: folder.to_owned(),
                pid: self.pid,
            })
        }
    }

    /// containerd's own program, also where its file was replaced since it started.
    fn program(&self) -> Command {
        let mut command = Command::new(format!("/proc/{}/exe", self.pid));
        // k3s and RKE2 are many programs in one file and go by the name.
        command.arg0("containerd").stdin(Stdio::null());
        command
    }

    /// What the file says now; `None` when there is none, which containerd accepts.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn text(&self) -> Result<Option<String>, NodeError> {
        read_text(&self.config)
    }

    /// A file that says what this containerd takes where there is none: its version and what it imports.
    ///
    /// # Errors
    /// When it does not say.
    pub fn defaults(&self) -> Result<String, NodeError> {
        let rejected = |said: String| NodeError::Rejected {
            release: self.release.text.clone(),
            what: "its own defaults".to_owned(),
            said,
        };
        let output = self
            .program()
            .args(["config", "default"])
            .output()
            .map_err(|error| rejected(error.to_string()))?;
        let all: Table = String::from_utf8_lossy(&output.stdout)
            .parse()
            .map_err(|error: toml::de::Error| rejected(error.to_string()))?;
        let mut blank = Table::new();
        for key in ["version", "imports"] {
            if let Some(value) = all.get(key)
                && value.as_array().is_none_or(|list| !list.is_empty())
            {
                blank.insert(key.to_owned(), value.clone());
            }
        }
        Ok(blank.to_string())
    }

    /// What containerd makes of the text `main` and of all that it imports.
    ///
    /// # Errors
    /// When it cannot read them.
    pub fn reads_as_it_is(&self, main: &str) -> Result<Table, NodeError> {
        let document: toml_edit::DocumentMut =
            main.parse()
                .map_err(|error: toml_edit::TomlError| NodeError::Rejected {
                    release: self.release.text.clone(),
                    what: self.config.display().to_string(),
                    said: error.to_string(),
                })?;
        let patterns = document.get("imports").and_then(toml_edit::Item::as_array);
        let patterns: Vec<String> = patterns
            .into_iter()
            .flatten()
            .filter_map(|pattern| pattern.as_str().map(str::to_owned))
            .collect();
        let base = self.config.parent().unwrap_or(Path::new("/"));
        let imports: Vec<Import> = expand(&patterns, base).into_iter().map(Import::File).collect();
        self.reads(main, &imports)
    }

    /// What containerd would make of the text `main` in place of its file and of the files `imports`, each a path or a
    /// text: all keys, with the defaults.
    ///
    /// # Errors
    /// When it cannot read them.
    pub fn reads(&self, main: &str, imports: &[Import]) -> Result<Table, NodeError> {
        let what = self.config.display().to_string();
        let rejected = |said: String| NodeError::Rejected {
            release: self.release.text.clone(),
            what: what.clone(),
            said,
        };
        let failed = |error: io::Error| rejected(error.to_string());
        let mut held = Vec::new();
        let mut paths = toml_edit::Array::new();
        for import in imports {
            match import {
                Import::File(path) => paths.push(path.clone()),
                Import::Text(text) => {
                    let file = in_memory(text).map_err(failed)?;
                    paths.push(path_of(&file));
                    held.push(file);
                }
            }
        }
        let mut document: toml_edit::DocumentMut = main
            .parse()
            .map_err(|error: toml_edit::TomlError| rejected(error.to_string()))?;
        document.remove("imports");
        if !paths.is_empty() {
            document.insert("imports", toml_edit::value(paths));
        }
        let file = in_memory(&document.to_string()).map_err(failed)?;
        let output = self
            .program()
            .arg("--config")
            .arg(path_of(&file))
            .args(["config", "dump"])
            .output()
            .map_err(failed)?;
        drop(held);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(rejected(oci::shorten(last)));
        }
        String::from_utf8_lossy(&output.stdout)
            .parse()
            .map_err(|error: toml::de::Error| rejected(error.to_string()))
    }
}

/// What containerd reads besides its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Import {
    /// A file that is there.
    File(String),
    /// What a file would say.
    Text(String),
}

/// A file as text; `None` when there is none.
///
/// # Errors
/// Any other reason why it cannot be read.
pub fn read_text(path: &Path) -> Result<Option<String>, NodeError> {
    let unreadable = |source| NodeError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_CONFIG || !found.is_file() => {
            return Err(unreadable(io::Error::other("not a plain file of at most 1 MiB")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    fs::read_to_string(path).map(Some).map_err(unreadable)
}

/// The files that patterns of a list of imports stand for, in the order in which containerd reads them. A pattern whose
/// folder is one too is left as it is.
#[must_use]
pub fn expand(patterns: &[String], base: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for pattern in patterns {
        let path = base.join(pattern);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
            continue;
        };
        if !name.contains('*') || folder.to_string_lossy().contains('*') {
            files.push(path.display().to_string());
            continue;
        }
        let mut found: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let text = entry.file_name();
                text.to_str().is_some_and(|text| glob::component(name, text))
            })
            .map(|entry| entry.path().display().to_string())
            .collect();
        found.sort();
        files.append(&mut found);
    }
    files
}

/// The process that listens on a socket; 0 when it is not to be seen from here.
fn listener(socket: &str) -> Option<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .ok()?;
    runtime.block_on(async {
        let connecting = tokio::net::UnixStream::connect(socket);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.ok()?.ok()?;
        Some(stream.peer_cred().ok()?.pid().unwrap_or(0))
    })
}

/// What Linux keeps of arguments and environments: texts that each end with a zero byte.
fn split(bytes: &[u8]) -> Vec<OsString> {
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| OsString::from_vec(part.to_vec())).collect()
}

/// The file that a command line of containerd names.
fn config_argument(arguments: &[OsString]) -> Option<PathBuf> {
    let mut found = None;
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str() else {
            continue;
        };
        let flag = text.trim_start_matches('-');
        if flag.len() == text.len() {
            continue;
        }
        match flag.split_once('=') {
            Some(("config" | "c", value)) => found = Some(PathBuf::from(value)),
            None if matches!(flag, "config" | "c") => found = rest.next().map(PathBuf::from),
            _ => {}
        }
    }
    found
}

/// Who keeps a file of containerd's configuration, by where it lies.
fn keeper(config: &Path) -> Keeper {
    let folder = config.parent().unwrap_or(Path::new("/"));
    if config.ends_with("agent/etc/containerd/config.toml") {
        Keeper::Rancher
    } else if config.ends_with("k0s/containerd.toml") {
        Keeper::K0s
    } else if folder.join(MICROK8S_TEMPLATE).exists() {
        Keeper::MicroK8s
    } else {
        Keeper::Administrator
    }
}

/// What MicroK8s makes its file from.
pub const MICROK8S_TEMPLATE: &str = "containerd-template.toml";

/// What `containerd --version` said: `containerd github.com/containerd/containerd 1.6.20~ds1 …`.
fn release(said: &str) -> Option<Release> {
    let mut words = said.split_whitespace();
    if words.next()? != "containerd" {
        return None;
    }
    words.next()?;
    let text = words.next()?.trim_start_matches('v').to_owned();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Release {
        number: (next()?, next()?, next().unwrap_or(0)),
        text,
    })
}

fn in_memory(text: &str) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("containerd.toml", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// How another process opens a file of this one.
fn path_of(file: &File) -> String {
    let mut path = String::new();
    // Writing to a text cannot fail.
    let _ = write!(path, "/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_says_which_file_containerd_reads() {
        for (line, file) in [
            ("containerd", None),
            ("containerd --config /a.toml", Some("/a.toml")),
            ("containerd --log-level debug -c /a.toml --root /r", Some("/a.toml")),
            ("containerd --config=/a.toml", Some("/a.toml")),
            ("containerd -config a.toml", Some("a.toml")),
            ("containerd --root config", None),
        ] {
            assert_eq!(config_argument(&arguments(line)), file.map(PathBuf::from), "{line}");
        }
    }

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        for (said, number) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                (1, 6, 20),
            ),
            ("containerd github.com/containerd/containerd/v2 v2.3.0 abc", (2, 3, 0)),
            ("containerd github.com/k3s-io/containerd v1.7.27-k3s1", (1, 7, 27)),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9+unknown ",
                (2, 1, 9),
            ),
        ] {
            assert_eq!(release(said).unwrap().number, number, "{said}");
        }
        for said in ["", "dockerd version 24", "containerd", "containerd x y"] {
            assert_eq!(release(said), None, "{said}");
        }
    }

    #[test]
    fn distributions_are_told_apart_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| keeper(&folder.path().join(path));
        assert_eq!(at("etc/containerd/config.toml"), Keeper::Administrator);
        assert_eq!(at("k3s/agent/etc/containerd/config.toml"), Keeper::Rancher);
        assert_eq!(at("rke2/agent/etc/containerd/config.toml"), Keeper::Rancher);
        assert_eq!(at("etc/k0s/containerd.toml"), Keeper::K0s);
        fs::create_dir(folder.path().join("args")).unwrap();
        assert_eq!(at("args/containerd.toml"), Keeper::Administrator);
        fs::write(folder.path().join("args").join(MICROK8S_TEMPLATE), "").unwrap();
        assert_eq!(at("args/containerd.toml"), Keeper::MicroK8s);
    }

    #[test]
    fn imports_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", "c.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let here = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(
            expand(&["*.toml".to_owned(), "/x/y.toml".to_owned()], folder.path()),
            [here("a.toml"), here("b.toml"), "/x/y.toml".to_owned()]
        );
    }

    #[test]
    fn a_socket_that_nobody_serves_is_named() {
        let error = Node::find(Some("/nonexistent/containerd.sock")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no containerd answers on /nonexistent/containerd.sock"
        );
        // This process serves the socket, and is not containerd.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Node::find(path.to_str()).unwrap_err();
        assert!(matches!(error, NodeError::Other { .. }), "{error}");
    }
}
