//! The files of an image as one tree: names, kinds and links read once, contents read bounded, and every path resolved
//! inside the image.
//!
//! The root is the merged, read-only view of the image's layers, without what a container wrote. Names are attackers'
//! text, so nothing here follows a link through the kernel: links are resolved in memory, against the tree itself, and
//! a file is opened by a path that has none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

/// Most names of an image; more are refused, none is left out.
pub const MAX_NODES: usize = 1_000_000;
/// Deepest nesting of directories.
const MAX_DEPTH: usize = 128;
/// Longest path in bytes, as in Linux.
const MAX_PATH: usize = 4096;
/// Most links that a path may pass, as in Linux.
const MAX_LINKS: usize = 40;

/// Why the files of an image cannot be listed or read.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "always written with its module: tree::Error")]
pub enum Error {
    /// The kernel refused.
    #[error("{path:?} in the image cannot be read: {source}")]
    Read {
        /// Path in the image.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Larger than the reader allows.
    #[error("{path:?} in the image has more than {limit} bytes")]
    TooLarge {
        /// Path in the image.
        path: String,
        /// The reader's limit in bytes.
        limit: u64,
    },
    /// More than [`MAX_NODES`] names.
    #[error("the image has more than {MAX_NODES} files")]
    TooMany,
    /// Deeper or longer than any path that Linux can open at once.
    #[error("{0:?} in the image lies too deep")]
    TooDeep(String),
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target as it is written.
    Symlink(String),
    /// A device, fifo or socket.
    Special,
}

/// One name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-uid and the like included (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; of a link, of its target.
    pub size: u64,
    /// Number of the file: equal for names that are hard links of one file.
    pub inode: u64,
}

impl Node {
    /// A regular file that somebody may execute.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.kind == Kind::File && self.mode & 0o111 != 0
    }

    /// A regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// A directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links, `.`, `..` and doubled slashes; it exists.
    pub path: String,
    /// Every link that was passed on the way, by its own path without links, in order.
    pub links: Vec<String>,
}

/// All names of an image. A path in it is absolute, has no link before its last component, and is UTF-8.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    nodes: BTreeMap<String, Node>,
    /// Names that are not UTF-8, or that the kernel would not describe.
    unnamed: usize,
}

impl Tree {
    /// Lists everything below `root`, not crossing into what is mounted there.
    ///
    /// # Errors
    /// A directory that cannot be read, or more than the limits allow.
    pub fn scan(root: OwnedFd) -> Result<Self, Error> {
        let mut tree = Self {
            root,
            nodes: BTreeMap::new(),
            unnamed: 0,
        };
        let top = rustix::fs::fstat(&tree.root).map_err(|error| read_error("/", error))?;
        tree.nodes.insert("/".to_owned(), node(&top, Kind::Directory));
        let mut waiting = vec![("/".to_owned(), 0)];
        while let Some((directory, depth)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(Error::TooDeep(directory));
            }
            for child in tree.list(&directory)? {
                waiting.push((child, depth + 1));
            }
        }
        Ok(tree)
    }

    /// Adds what `directory` holds and returns the directories among it.
    fn list(&mut self, directory: &str) -> Result<Vec<String>, Error> {
        let fail = |error| read_error(directory, error);
        let opened = self.open_at(directory, OFlags::DIRECTORY).map_err(fail)?;
        let device = rustix::fs::fstat(&opened).map_err(fail)?.st_dev;
        let mut directories = Vec::new();
        for entry in Dir::read_from(&opened).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().to_str() else {
                self.unnamed += 1;
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let path = join(directory, name);
            if path.len() > MAX_PATH {
                return Err(Error::TooDeep(path));
            }
            let stat = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| read_error(&path, error))?;
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&opened, name, Vec::new())
                        .map_err(|error| read_error(&path, error))?
                        .into_string();
                    let Ok(target) = target else {
                        self.unnamed += 1;
                        continue;
                    };
                    Kind::Symlink(target)
                }
                _ => Kind::Special,
            };
            if kind == Kind::Directory && stat.st_dev == device {
                directories.push(path.clone());
            }
            if self.nodes.len() >= MAX_NODES {
                return Err(Error::TooMany);
            }
            self.nodes.insert(path, node(&stat, kind));
        }
        Ok(directories)
    }

    /// Names that are left out because they are not UTF-8.
    #[must_use]
    pub fn unnamed(&self) -> usize {
        self.unnamed
    }

    /// What stands at a path that has no link before its last component; a link itself is not followed.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Every name in byte order, `/` first.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Every name below a directory, at any depth, in byte order.
    pub fn below<'t>(&'t self, directory: &str) -> impl Iterator<Item = (&'t str, &'t Node)> {
        let prefix = join(directory, "");
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| path.as_str() != "/")
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Every name directly in a directory.
    pub fn children<'t>(&'t self, directory: &str) -> impl Iterator<Item = (&'t str, &'t Node)> {
        let prefix = join(directory, "");
        let mut from = Bound::Included(prefix.clone());
        std::iter::from_fn(move || {
            loop {
                let (path, node) = self.nodes.range((from.clone(), Bound::Unbounded)).next()?;
                let rest = path.strip_prefix(&prefix)?;
                // What lies deeper is passed over at once: `0` comes behind the slash.
                if let Some((name, _)) = rest.split_once('/') {
                    from = Bound::Included(format!("{prefix}{name}0"));
                    continue;
                }
                from = Bound::Excluded(path.clone());
                if !rest.is_empty() {
                    return Some((path.as_str(), node));
                }
            }
        })
    }

    /// Follows every link of `path`, the last one included, as the kernel would with the image as root; a relative path
    /// starts at `/`. `None` where it leads nowhere.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<Resolved> {
        self.walk(path, true)
    }

    /// Like [`Tree::resolve`], but leaves a link in the last place alone.
    #[must_use]
    pub fn resolve_parent(&self, path: &str) -> Option<Resolved> {
        self.walk(path, false)
    }

    fn walk(&self, path: &str, follow_last: bool) -> Option<Resolved> {
        let mut done = "/".to_owned();
        let mut links = Vec::new();
        let mut rest: Vec<String> = components(path);
        while let Some(component) = rest.pop() {
            if component == ".." {
                done.truncate(done.rfind('/').unwrap_or(0).max(1));
                continue;
            }
            let next = join(&done, &component);
            let node = self.nodes.get(&next)?;
            match &node.kind {
                Kind::Symlink(target) if follow_last || !rest.is_empty() => {
                    if links.len() == MAX_LINKS {
                        return None;
                    }
                    links.push(next);
                    if target.starts_with('/') {
                        done.truncate(1);
                    }
                    rest.extend(components(target));
                }
                Kind::Directory => done = next,
                _ if rest.is_empty() => done = next,
                _ => return None,
            }
        }
        Some(Resolved { path: done, links })
    }

    /// The bytes of a regular file; `path` as in [`Tree::node`].
    ///
    /// # Errors
    /// No such file, one that cannot be read, or one with more than `limit` bytes.
    pub fn bytes(&self, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let file = self.file(path)?;
        let mut bytes = Vec::new();
        let fail = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge {
                path: path.to_owned(),
                limit,
            });
        }
        Ok(bytes)
    }

    /// The first bytes of a regular file, at most `count`; `path` as in [`Tree::node`].
    ///
    /// # Errors
    /// No such file, or one that cannot be read.
    pub fn head(&self, path: &str, count: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let fail = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        self.file(path)?.take(count).read_to_end(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    /// Opens a regular file for reading; `path` as in [`Tree::node`].
    ///
    /// # Errors
    /// No such file, or one that cannot be read.
    pub fn file(&self, path: &str) -> Result<File, Error> {
        if !self.nodes.get(path).is_some_and(Node::is_file) {
            return Err(read_error(path, rustix::io::Errno::NOENT));
        }
        // A fifo that took the file's place meanwhile must not block.
        let opened = self
            .open_at(path, OFlags::NONBLOCK)
            .map_err(|error| read_error(path, error))?;
        Ok(File::from(opened))
    }

    fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let below = path.trim_start_matches('/');
        rustix::fs::openat2(
            &self.root,
            if below.is_empty() { "." } else { below },
            flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The components of a path, last one first, without empty ones and `.`.
fn components(path: &str) -> Vec<String> {
    path.split('/')
        .rev()
        .filter(|component| !component.is_empty() && *component != ".")
        .map(str::to_owned)
        .collect()
}

/// `directory` and `name` with one slash between them.
#[must_use]
pub fn join(directory: &str, name: &str) -> String {
    let directory = directory.strip_suffix('/').unwrap_or(directory);
    let mut path = String::with_capacity(directory.len() + 1 + name.len());
    path.push_str(directory);
    path.push('/');
    path.push_str(name);
    path
}

fn node(stat: &Stat, kind: Kind) -> Node {
    Node {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        inode: stat.st_ino,
    }
}

fn read_error(path: &str, error: rustix::io::Errno) -> Error {
    Error::Read {
        path: path.to_owned(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn sample() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("usr/bin-other")).unwrap();
        fs::create_dir_all(at("etc/alternatives")).unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        fs::write(at("usr/bin/mawk"), "awk").unwrap();
        fs::set_permissions(at("usr/bin/mawk"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc/alternatives/awk", at("usr/bin/awk")).unwrap();
        symlink("../../bin/./mawk", at("etc/alternatives/awk")).unwrap();
        symlink("../../../../../../../../etc/passwd", at("usr/bin/out")).unwrap();
        symlink("loop", at("etc/loop")).unwrap();
        let tree = Tree::scan(fs::File::open(dir.path()).unwrap().into()).unwrap();
        (dir, tree)
    }

    #[test]
    fn every_hop_of_a_path_is_known() {
        let (_dir, tree) = sample();
        let resolved = tree.resolve("/bin//awk").unwrap();
        assert_eq!(resolved.path, "/usr/bin/mawk");
        assert_eq!(
            resolved.links,
            ["/bin", "/usr/bin/awk", "/etc/alternatives/awk", "/bin"]
        );
        assert_eq!(tree.resolve_parent("bin/awk").unwrap().path, "/usr/bin/awk");
        assert_eq!(tree.resolve("/usr/../../bin/mawk/").unwrap().path, "/usr/bin/mawk");
        assert!(tree.node("/usr/bin/mawk").unwrap().is_executable());
    }

    #[test]
    fn no_path_leads_out_of_the_image() {
        let (_dir, tree) = sample();
        assert_eq!(
            tree.resolve("/usr/bin/out"),
            None,
            "the host has this file, the image has not"
        );
        assert_eq!(tree.resolve("/etc/loop"), None);
        assert_eq!(tree.resolve("/usr/bin/mawk/x"), None);
        assert!(tree.bytes("/usr/bin/out", 10).is_err());
        assert!(tree.bytes("/usr/bin/../../etc/passwd", 10).is_err());
    }

    #[test]
    fn contents_are_bounded() {
        let (_dir, tree) = sample();
        assert_eq!(tree.bytes("/usr/bin/mawk", 3).unwrap(), b"awk");
        assert!(matches!(tree.bytes("/usr/bin/mawk", 2), Err(Error::TooLarge { .. })));
        assert_eq!(tree.head("/usr/bin/mawk", 2).unwrap(), b"aw");
    }

    #[test]
    fn what_lies_below_a_directory_is_not_what_only_begins_like_it() {
        let (_dir, tree) = sample();
        let names = |names: Vec<(&str, &Node)>| names.into_iter().map(|(path, _)| path.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            names(tree.below("/usr/bin").collect()),
            ["/usr/bin/awk", "/usr/bin/mawk", "/usr/bin/out"]
        );
        assert_eq!(names(tree.children("/").collect()), ["/bin", "/etc", "/usr"]);
        // `-` comes before the slash, `0` behind it.
        assert_eq!(names(tree.children("/usr").collect()), ["/usr/bin", "/usr/bin-other"]);
        assert_eq!(names(tree.children("/usr/bin-other").collect()), <[&str; 0]>::default());
    }

    #[test]
    fn what_took_a_files_place_is_not_waited_for() {
        let (dir, tree) = sample();
        let path = dir.path().join("usr/bin/mawk");
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(tree.bytes("/usr/bin/mawk", 1 << 20).is_err());
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(tree.bytes("/usr/bin/mawk", 1 << 20).unwrap(), b"");
    }
}
