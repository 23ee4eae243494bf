//! Containers in which no further process may be started: a file that the agent puts below the directory for what dies
//! with the boot, and that is looked for at each exec. It says why.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::store;

/// Folder of these files below `run`.
pub const FOLDER: &str = "deny-exec";
/// Longest reason in bytes.
pub const MAX_REASON: usize = 2048;

/// Name of a container's file.
#[must_use]
pub fn name(namespace: &str, container: &str) -> String {
    Digest::of(format!("{namespace}\0{container}").as_bytes()).hex()
}

/// Where a container's file is; `run` is the directory for what dies with the boot.
#[must_use]
pub fn path(run: &Path, namespace: &str, container: &str) -> PathBuf {
    run.join(FOLDER).join(name(namespace, container))
}

/// Why no process may be started; none where it may. A file that cannot be read forbids it as well.
#[must_use]
pub fn reason(path: &Path) -> Option<String> {
    match store::read_bounded(path, MAX_REASON as u64) {
        Ok(reason) => Some(String::from_utf8_lossy(&reason).into_owned()),
        Err(error) if error.is_missing() => None,
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_forbids_and_its_absence_does_not() {
        let run = tempfile::tempdir().unwrap();
        let path = path(run.path(), "k8s.io", "web");
        assert_eq!(reason(&path), None);
        std::fs::create_dir(run.path().join(FOLDER)).unwrap();
        assert_eq!(reason(&path), None);
        std::fs::write(&path, "its key is distrusted").unwrap();
        assert_eq!(reason(&path).as_deref(), Some("its key is distrusted"));
        std::fs::write(&path, vec![b'x'; MAX_REASON + 1]).unwrap();
        assert!(reason(&path).is_some_and(|reason| reason.contains("deny-exec")));
        assert_ne!(name("a", "bc"), name("ab", "c"));
    }
}
