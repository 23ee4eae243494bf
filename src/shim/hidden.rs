//! Why a program that should run in a container is not there: whether the image has it and the view hides it. Only names
//! are looked up, after the OCI runtime has failed.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::bundle;
use super::container::Container;
use super::error::Error;
use crate::diagnostic::printable;
use crate::view::Snapshot;

/// Where programs are looked for when the process has no PATH, as runc does.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most directories of a PATH that are looked into.
const MAX_SEARCHED: usize = 64;
/// Directories that are links into /usr in most images, in one layer of them.
const MERGED: &[&str] = &["/bin/", "/sbin/", "/lib/", "/lib64/"];

/// The parts of an OCI process that say which program it is.
#[derive(Debug, Deserialize)]
pub struct Program {
    /// Its name or path, and its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Default, Deserialize)]
struct User {
    #[serde(default)]
    uid: u32,
}

impl Program {
    /// Its user id in the container.
    #[must_use]
    pub fn user(&self) -> u32 {
        self.user.uid
    }

    /// Absolute paths that the program may have.
    #[must_use]
    pub fn candidates(&self) -> Vec<String> {
        let Some(program) = self.args.first().filter(|program| !program.is_empty()) else {
            return Vec::new();
        };
        if program.starts_with('/') {
            return vec![program.clone()];
        }
        let below = |directory: &str| format!("{}/{program}", directory.trim_end_matches('/'));
        if program.contains('/') {
            return vec![below(&self.cwd)];
        }
        let search = self.env.iter().find_map(|entry| entry.strip_prefix("PATH="));
        let search = search.unwrap_or(SEARCH).split(':').take(MAX_SEARCHED);
        search
            .filter(|directory| directory.starts_with('/'))
            .map(below)
            .collect()
    }

    /// Whether it is looked for in more places than [`candidates`](Self::candidates) names.
    #[must_use]
    pub fn is_searched_beyond(&self) -> bool {
        let search = self.env.iter().filter_map(|entry| entry.strip_prefix("PATH="));
        search
            .max_by_key(|search| search.len())
            .is_some_and(|search| search.split(':').count() > MAX_SEARCHED)
    }
}

/// The error for an exec that failed: `error`, or that its program is hidden.
pub fn explain(container: &Container, process: &[u8], error: Error) -> Error {
    let Some(rule) = container.narrowing() else {
        return error;
    };
    match hidden(container, process) {
        Some(program) => Error::Hidden {
            program: printable(&program).into_owned(),
            rule: printable(rule).into_owned(),
        },
        None => error,
    }
}

fn hidden(container: &Container, process: &[u8]) -> Option<String> {
    let program: Program = serde_json::from_slice(process).ok()?;
    let candidates = program.candidates();
    let root = open(&bundle::rootfs(&container.bundle))?;
    // It is there, so something else is wrong.
    if candidates.iter().any(|path| find(&root, path) == Found::File) {
        return None;
    }
    let mounts: Vec<_> = container.rootfs.iter().map(super::mount::plain).collect();
    let layers: Vec<OwnedFd> = Snapshot::of(&mounts, true)
        .ok()?
        .layers
        .iter()
        .filter_map(|layer| open(layer))
        .collect();
    candidates.into_iter().find(|path| is_in(&layers, path))
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    File,
    /// A later layer has removed it.
    Whiteout,
    Nothing,
}

/// Whether the layers, top-most first, have a file at `path`.
fn is_in(layers: &[OwnedFd], path: &str) -> bool {
    let merged = MERGED.iter().any(|directory| path.starts_with(directory));
    let paths = [Some(path.to_owned()), merged.then(|| format!("/usr{path}"))];
    paths.into_iter().flatten().any(|path| {
        let mut found = layers.iter().map(|layer| find(layer, &path));
        found.find(|found| *found != Found::Nothing) == Some(Found::File)
    })
}

fn find(root: &OwnedFd, path: &str) -> Found {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let stat = opened.and_then(|file| rustix::fs::statat(&file, c"", AtFlags::EMPTY_PATH));
    match stat {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
            FileType::RegularFile => Found::File,
            _ => Found::Nothing,
        },
        Err(_) => Found::Nothing,
    }
}

fn open(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    fn process(json: &str) -> Vec<String> {
        serde_json::from_str::<Program>(json).unwrap().candidates()
    }

    #[test]
    fn a_program_is_looked_for_where_the_oci_runtime_looks() {
        assert_eq!(process(r#"{"args":["/bin/cat","x"]}"#), ["/bin/cat"]);
        assert_eq!(process(r#"{"args":["./cat"],"cwd":"/srv/"}"#), ["/srv/./cat"]);
        assert_eq!(
            process(r#"{"args":["cat"],"env":["A=b","PATH=/x:rel:/y/"]}"#),
            ["/x/cat", "/y/cat"]
        );
        assert_eq!(process(r#"{"args":["cat"]}"#).len(), 6);
        assert!(process("{}").is_empty() && process(r#"{"args":[""]}"#).is_empty());
    }

    #[test]
    fn a_program_is_in_the_image_where_a_layer_has_it_and_no_later_one_removed_it() {
        let dir = tempfile::tempdir().unwrap();
        let [low, high]: [PathBuf; 2] = ["low", "high"].map(|name| dir.path().join(name));
        fs::create_dir_all(low.join("usr/bin")).unwrap();
        fs::create_dir_all(high.join("usr/bin")).unwrap();
        symlink("usr/bin", low.join("bin")).unwrap();
        symlink("/usr/bin/one", low.join("usr/bin/link")).unwrap();
        symlink("../../../../../etc/passwd", low.join("usr/bin/out")).unwrap();
        for name in ["one", "gone"] {
            fs::write(low.join("usr/bin").join(name), "").unwrap();
        }
        fs::write(high.join("usr/bin/two"), "").unwrap();
        let gone = high.join("usr/bin/gone");
        rustix::fs::mknodat(rustix::fs::CWD, &gone, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let layers = [open(&high).unwrap(), open(&low).unwrap()];
        for path in ["/bin/one", "/usr/bin/one", "/bin/two", "/bin/link"] {
            assert!(is_in(&layers, path), "{path}");
        }
        for path in ["/usr/bin/gone", "/usr/bin/none", "/usr/bin", "/usr/bin/out", "/"] {
            assert!(!is_in(&layers, path), "{path}");
        }
    }
}
