//! Making the layer of a view: for a keep set, either the names that are kept, as overlayfs metadata whose content lies
//! in the snapshot's own layers, or a whiteout for each name that is not.
//!
//! Nothing is synced. A layer has hardly any data, only names and inodes, which journaling file systems bring to disk in
//! order, and a layer from before a crash is compared with its digest before it is used again.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::keep::Kept;
use super::merge::{Directory, Entry, Scratch, beside};
use super::record::{Attributes, Recorder};
use super::{Error, Form};
use crate::digest::Digest;

/// Most links to one whiteout; ext4 takes 65,000.
const MAX_LINKS: usize = 60_000;
/// Most bytes of extended attributes in one view.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 20;

/// What was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Built {
    /// Digest of what the layer shows.
    pub(super) digest: Digest,
    /// How many names it has.
    pub(super) names: usize,
}

/// Fills the empty directory `into`.
pub(super) fn build(layers: &[PathBuf], keep: &BTreeSet<String>, form: Form, into: &OwnedFd) -> Result<Built, Error> {
    let kept = Kept::parse(keep)?;
    let mut scratch = Scratch::new();
    let root = Directory::root(layers, &mut scratch)?;
    let mut build = Builder {
        top: into,
        recorder: Recorder::new(),
        scratch,
        linked: HashMap::new(),
        attribute_bytes: 0,
        whiteout: None,
    };
    let mut path = PathBuf::from("/");
    match form {
        Form::Metadata => {
            build.metadata(&root, &kept, into.as_fd(), &mut path)?;
            build.finish(&root, into.as_fd(), false, &path)?;
        }
        Form::Whiteouts => {
            let change = build.whiteouts(&root, &kept, into.as_fd(), &mut path)?;
            build.finish(&root, into.as_fd(), change == Change::Opaque, &path)?;
        }
    }
    let names = build.recorder.names;
    Ok(Built {
        digest: build.recorder.digest(),
        names,
    })
}

/// What a directory of a whiteout layer has to say about the one that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing: it need not exist.
    None,
    /// There are whiteouts at or below it.
    Below,
    /// All of its content is hidden.
    Opaque,
}

struct Builder<'b> {
    top: &'b OwnedFd,
    recorder: Recorder,
    scratch: Scratch,
    /// Where the first name of a file with several is, by device and inode.
    linked: HashMap<(u64, u64), (PathBuf, Made)>,
    attribute_bytes: usize,
    /// A whiteout that others can be links to, and how many are.
    whiteout: Option<(PathBuf, usize)>,
}

/// What was made of a file, for the record of its other names.
#[derive(Clone)]
struct Made {
    target: CString,
    attributes: Attributes,
}

impl Builder<'_> {
    fn metadata(
        &mut self,
        from: &Directory,
        kept: &Kept<'_>,
        into: BorrowedFd<'_>,
        path: &mut PathBuf,
    ) -> Result<(), Error> {
        for (name, below) in &kept.0 {
            let name = OsStr::new(name);
            path.push(name);
            let entry = from.find(name, path)?.ok_or_else(|| Error::Missing(path.clone()))?;
            if entry.kind() == FileType::Directory {
                let entered = from.enter(name, &entry, path, &mut self.scratch)?;
                let made = make_directory(into, name, path)?;
                self.metadata(&entered, below, made.as_fd(), path)?;
                self.finish(&entered, made.as_fd(), false, path)?;
            } else if below.0.is_empty() {
                self.leaf(from, &entry, name, into, path)?;
            } else {
                return Err(Error::NotDirectory(path.clone()));
            }
            path.pop();
        }
        Ok(())
    }

    /// Makes a name that is no directory.
    fn leaf(
        &mut self,
        from: &Directory,
        entry: &Entry,
        name: &OsStr,
        into: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), Error> {
        let stat = &entry.stat;
        #[expect(clippy::useless_conversion, reason = "their types differ between architectures")]
        let identity = (u64::from(stat.st_dev), u64::from(stat.st_ino));
        let has_more = stat.st_nlink > 1;
        if has_more && let Some((first, made)) = self.linked.get(&identity) {
            match rustix::fs::linkat(self.top, below_top(first), into, name, AtFlags::empty()) {
                Ok(()) => return self.recorder.add(path, stat, made.target.to_bytes(), &made.attributes),
                Err(Errno::MLINK) => {}
                Err(e) => return Err(Error::at("make a link at", path, e)),
            }
        }
        let mut made = Made {
            target: CString::default(),
            attributes: from.attributes_of(name, entry, path, &mut self.scratch)?,
        };
        match entry.kind() {
            FileType::RegularFile => {
                if stat.st_size > 0 {
                    let place = CString::new(path.as_os_str().as_bytes())
                        .map_err(|_| Error::Path(path.display().to_string()))?;
                    made.attributes = made
                        .attributes
                        .with(c"trusted.overlay.metacopy".to_owned(), Vec::new())
                        .with(c"trusted.overlay.redirect".to_owned(), place.into_bytes());
                }
                regular(into, name, stat, &made.attributes, path)?;
            }
            FileType::Symlink => {
                made.target = from.target_of(name, entry, path)?;
                rustix::fs::symlinkat(made.target.as_c_str(), into, name)
                    .map_err(|e| Error::at("make the link", path, e))?;
                dress(into, name, stat, &made.attributes, path)?;
            }
            kind => {
                rustix::fs::mknodat(into, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)
                    .map_err(|e| Error::at("make the node", path, e))?;
                dress(into, name, stat, &made.attributes, path)?;
            }
        }
        self.count(&made.attributes)?;
        self.recorder
            .add(path, stat, made.target.to_bytes(), &made.attributes)?;
        if has_more {
            self.linked.insert(identity, (path.to_owned(), made));
        }
        Ok(())
    }

    /// Hides what is not kept. Directories in which nothing is hidden are left out.
    fn whiteouts(
        &mut self,
        from: &Directory,
        kept: &Kept<'_>,
        into: BorrowedFd<'_>,
        path: &mut PathBuf,
    ) -> Result<Change, Error> {
        let names = from.names(path)?;
        let is_top = path.parent().is_none();
        let mut change = Change::None;
        let mut found = 0;
        for name in &names {
            let name = OsStr::from_bytes(name.to_bytes());
            path.push(name);
            let Some(entry) = from.find(name, path)? else {
                path.pop();
                continue;
            };
            let Some(below) = name.to_str().and_then(|name| kept.0.get(name)) else {
                // overlayfs does not look whether the root of a layer is opaque.
                if kept.0.is_empty() && !is_top {
                    path.pop();
                    return Ok(Change::Opaque);
                }
                self.hide(into, name, path)?;
                change = Change::Below;
                path.pop();
                continue;
            };
            found += 1;
            if entry.kind() == FileType::Directory {
                let entered = from.enter(name, &entry, path, &mut self.scratch)?;
                let made = make_directory(into, name, path)?;
                match self.whiteouts(&entered, below, made.as_fd(), path)? {
                    Change::None => rustix::fs::unlinkat(into, name, AtFlags::REMOVEDIR)
                        .map_err(|e| Error::at("remove", path, e))?,
                    inside => {
                        self.finish(&entered, made.as_fd(), inside == Change::Opaque, path)?;
                        change = Change::Below;
                    }
                }
            } else if !below.0.is_empty() {
                return Err(Error::NotDirectory(path.clone()));
            } else {
                // What is wrong with it must not depend on the way.
                from.attributes_of(name, &entry, path, &mut self.scratch)?;
            }
            path.pop();
        }
        if found < kept.0.len() {
            let missing = kept.0.keys().find(|name| {
                !names.iter().any(|other| other.to_bytes() == name.as_bytes())
                    || !matches!(from.find(OsStr::new(name), path), Ok(Some(_)))
            });
            return Err(Error::Missing(path.join(missing.copied().unwrap_or_default())));
        }
        Ok(change)
    }

    fn hide(&mut self, into: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let linked = match &mut self.whiteout {
            Some((first, links)) if *links < MAX_LINKS => {
                *links += 1;
                match rustix::fs::linkat(self.top, below_top(first), into, name, AtFlags::empty()) {
                    Ok(()) => true,
                    Err(Errno::MLINK) => false,
                    Err(e) => return Err(Error::at("make the whiteout", path, e)),
                }
            }
            _ => false,
        };
        if !linked {
            rustix::fs::mknodat(into, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(|e| Error::at("make the whiteout", path, e))?;
            self.whiteout = Some((path.to_owned(), 1));
        }
        self.recorder.add_whiteout(path)
    }

    /// Gives a directory its owner, mode, extended attributes and times, once everything in it is made.
    fn finish(&mut self, from: &Directory, made: BorrowedFd<'_>, opaque: bool, path: &Path) -> Result<(), Error> {
        let attributes = if opaque {
            from.attributes
                .clone()
                .with(c"trusted.overlay.opaque".to_owned(), b"y".to_vec())
        } else {
            from.attributes.clone()
        };
        dress_open(made, &from.stat, &attributes, path)?;
        self.count(&attributes)?;
        self.recorder.add(path, &from.stat, b"", &attributes)
    }

    fn count(&mut self, attributes: &Attributes) -> Result<(), Error> {
        self.attribute_bytes += attributes.size();
        if self.attribute_bytes > MAX_ATTRIBUTE_BYTES {
            return Err(Error::TooManyAttributes);
        }
        Ok(())
    }
}

/// A path in the layer as seen from its root.
fn below_top(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn make_directory(into: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::mkdirat(into, name, Mode::RWXU).map_err(|e| Error::at("make the directory", path, e))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(into, name, flags, Mode::empty()).map_err(|e| Error::at("open", path, e))
}

fn regular(into: BorrowedFd<'_>, name: &OsStr, stat: &Stat, attributes: &Attributes, path: &Path) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(into, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| Error::at("make the file", path, e))?;
    let size = stat.st_size.unsigned_abs();
    if size > 0 {
        rustix::fs::ftruncate(&file, size).map_err(|e| Error::at("set the size of", path, e))?;
    }
    dress_open(file.as_fd(), stat, attributes, path)
}

/// Owner before mode before extended attributes: a change of owner takes set-uid bits and capabilities away.
fn dress_open(file: BorrowedFd<'_>, stat: &Stat, attributes: &Attributes, path: &Path) -> Result<(), Error> {
    // Directories get their set-gid bit when they are full, so everything is root's at first.
    if stat.st_uid != 0 || stat.st_gid != 0 {
        rustix::fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .map_err(|e| Error::at("set the owner of", path, e))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode)).map_err(|e| Error::at("set the mode of", path, e))?;
    for (name, value) in attributes.iter() {
        rustix::fs::fsetxattr(file, name.as_c_str(), value, XattrFlags::empty())
            .map_err(|e| Error::at("set the extended attributes of", path, e))?;
    }
    rustix::fs::futimens(file, &times(stat)).map_err(|e| Error::at("set the times of", path, e))
}

/// As [`dress_open`], for what cannot be opened.
fn dress(into: BorrowedFd<'_>, name: &OsStr, stat: &Stat, attributes: &Attributes, path: &Path) -> Result<(), Error> {
    if stat.st_uid != 0 || stat.st_gid != 0 {
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(into, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::at("set the owner of", path, e))?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // Made a moment ago in a directory of root's own: no link.
        rustix::fs::chmodat(into, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
            .map_err(|e| Error::at("set the mode of", path, e))?;
    }
    let place = beside(into.as_raw_fd(), name);
    for (name, value) in attributes.iter() {
        rustix::fs::lsetxattr(place.as_slice(), name.as_c_str(), value, XattrFlags::empty())
            .map_err(|e| Error::at("set the extended attributes of", path, e))?;
    }
    rustix::fs::utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| Error::at("set the times of", path, e))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec.try_into().unwrap_or_default(),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
        },
    }
}
