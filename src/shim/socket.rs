//! The socket on which containerd reaches the resident shim: path-based, mode 0600, one per pod.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::bundle::Spec;
use crate::digest::Digest;

/// Where every shim's socket is, unless containerd says otherwise (2.3 and later).
const DIRECTORY: &str = "/run/containerd/s";
/// Longest path that the kernel takes, less the terminating byte and one to spare.
const PATH_LIMIT: usize = 106;
/// Annotation by which `ctr` users put containers into one shim.
const GROUP: &str = "io.containerd.runc.v2.group";
/// Annotation by which CRI names the sandbox of a container.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
/// Namespace of CRI.
const KUBERNETES: &str = "k8s.io";

/// What listens at an address.
#[derive(Debug)]
pub enum Bound {
    /// This process does now.
    New(UnixListener),
    /// A shim that was there before.
    Running,
}

/// The id that all containers of one shim share. In the Kubernetes namespace only the sandbox counts: a pod's author
/// may be able to set the other annotation, and could join another pod's shim with it.
#[must_use]
pub fn group<'a>(id: &'a str, namespace: &str, spec: &'a Spec) -> &'a str {
    let group = spec.annotations.get(GROUP).filter(|_| namespace != KUBERNETES);
    group
        .or_else(|| spec.annotations.get(SANDBOX))
        .map_or(id, String::as_str)
}

/// Path of the socket for a group of containers of one containerd.
///
/// # Errors
/// When the path is too long for the kernel.
pub fn path(directory: Option<&str>, address: &str, namespace: &str, group: &str) -> io::Result<PathBuf> {
    let name = Digest::of(format!("assay\0{address}\0{namespace}\0{group}").as_bytes()).hex();
    let path = Path::new(directory.unwrap_or(DIRECTORY)).join(name);
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            format!(
                "{} is longer than the {PATH_LIMIT} bytes that a socket path may have",
                path.display()
            ),
        ));
    }
    Ok(path)
}

/// Listens at `path`, unless a living shim does already. A dead shim's socket is replaced.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<Bound> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    for _ in 0..2 {
        // Set before the socket exists, so that it never has another mode, not even for an instant.
        let before = rustix::process::umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        match bound {
            Ok(listener) => return Ok(Bound::New(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
                Ok(_) => return Ok(Bound::Running),
                Err(_) => remove(path)?,
            },
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Removes the socket if nobody listens any more.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_dead(path: &Path) -> io::Result<()> {
    if UnixStream::connect(path).is_ok() {
        Ok(())
    } else {
        remove(path)
    }
}

/// Removes the socket.
///
/// # Errors
/// When it cannot be removed; one that is not there is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pods_author_cannot_choose_the_shim() {
        let spec: Spec = serde_json::from_str(
            r#"{"annotations":{"io.containerd.runc.v2.group":"theirs","io.kubernetes.cri.sandbox-id":"pod"}}"#,
        )
        .unwrap();
        assert_eq!(group("c", "k8s.io", &spec), "pod");
        assert_eq!(group("c", "default", &spec), "theirs");
        assert_eq!(group("c", "default", &Spec::default()), "c");
    }

    #[test]
    fn a_living_shim_is_found_and_a_dead_ones_socket_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").join("x");
        let Bound::New(listener) = bind(&path).unwrap() else {
            panic!("nobody else listens")
        };
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(bind(&path).unwrap(), Bound::Running));
        remove_dead(&path).unwrap();
        assert!(path.exists());
        // Not merely dropped: a process that another test is just starting may hold a copy until it runs.
        let die = |listener: UnixListener| rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        die(listener);
        let Bound::New(next) = bind(&path).unwrap() else {
            panic!("the other is dead")
        };
        die(next);
        remove_dead(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        assert!(path(Some(&"x".repeat(60)), "a", "n", "g").is_err());
        assert!(path(None, "a", "n", "g").unwrap().starts_with("/run/containerd/s"));
    }
}
