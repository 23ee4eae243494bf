//! The layers of a snapshot, seen as the one tree that overlayfs makes of them.
//!
//! Names come from whoever made the image, so a path is never handed to the kernel as a whole: each step opens one name
//! in a directory that is already open, without following a link and without entering another mount.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Error;
use super::record::{Attributes, OVERLAY};
use crate::tree::MAX_NODES;

/// Most layers: what overlayfs takes, less the one that is added.
pub(super) const MAX_LAYERS: usize = 499;
/// Most bytes of names of extended attributes of one file, and of one value: the kernel's own limits.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Room for what the kernel writes about extended attributes, used again for each file.
pub(super) struct Scratch {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; MAX_ATTRIBUTE],
            value: vec![0; MAX_ATTRIBUTE],
        }
    }
}

/// A directory of the merged tree: the layers that have a part in it, top-most first.
pub(super) struct Directory {
    parts: Vec<OwnedFd>,
    /// Owner, mode and times: those of the top-most part.
    pub(super) stat: Stat,
    /// Extended attributes of the top-most part, without those of overlayfs.
    pub(super) attributes: Attributes,
}

/// What a name in a directory stands for.
pub(super) struct Entry {
    pub(super) stat: Stat,
    /// Which part of the directory has it.
    part: usize,
}

impl Entry {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Whether overlayfs takes this for a name that is not there.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Directory {
    /// The root of what `layers` make, top-most first. Their own paths come from the snapshotter and are followed.
    pub(super) fn root(layers: &[PathBuf], scratch: &mut Scratch) -> Result<Self, Error> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers(layers.len()));
        }
        let mut opened = Vec::with_capacity(layers.len());
        for layer in layers {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let part =
                rustix::fs::open(layer, flags, Mode::empty()).map_err(|e| Error::at("open the layer", layer, e))?;
            opened.push(part);
        }
        // An opaque root hides nothing: overlayfs does not look at it.
        Self::of(opened, false, Path::new("/"), scratch)
    }

    /// What `name` stands for; `None` where no layer has it, or an upper one has taken it away.
    pub(super) fn find(&self, name: &OsStr, path: &Path) -> Result<Option<Entry>, Error> {
        for (part, directory) in self.parts.iter().enumerate() {
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_whiteout(&stat) => return Ok(None),
                Ok(stat) => return Ok(Some(Entry { stat, part })),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(Error::at("look up", path, e)),
            }
        }
        Ok(None)
    }

    /// The directory `name`, which [`Directory::find`] has found.
    pub(super) fn enter(&self, name: &OsStr, entry: &Entry, path: &Path, scratch: &mut Scratch) -> Result<Self, Error> {
        let mut opened = Vec::new();
        for part in self.parts.iter().skip(entry.part) {
            match open_one(part.as_fd(), name, OFlags::DIRECTORY) {
                Ok(below) => opened.push(below),
                Err(Errno::NOENT) => {}
                // A whiteout, a link or a file: what is below it does not count.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(e) => return Err(Error::at("open", path, e)),
            }
        }
        Self::of(opened, true, path, scratch)
    }

    fn of(mut opened: Vec<OwnedFd>, cut: bool, path: &Path, scratch: &mut Scratch) -> Result<Self, Error> {
        let mut top = None;
        let mut used = opened.len();
        for (at, part) in opened.iter().enumerate() {
            let (attributes, opaque) = attributes(Subject::Open(part.as_fd()), at == 0, path, scratch)?;
            if at == 0 {
                let stat = rustix::fs::fstat(part).map_err(|e| Error::at("look at", path, e))?;
                top = Some((stat, attributes));
            }
            if opaque && cut {
                used = at + 1;
                break;
            }
        }
        opened.truncate(used);
        let (stat, attributes) = top.ok_or_else(|| Error::Missing(path.to_owned()))?;
        Ok(Self {
            parts: opened,
            stat,
            attributes,
        })
    }

    /// Every name, each once, with those that stand for nothing.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<CString>, Error> {
        let mut names = Vec::new();
        for part in &self.parts {
            for entry in rustix::fs::Dir::read_from(part).map_err(|e| Error::at("list", path, e))? {
                let entry = entry.map_err(|e| Error::at("list", path, e))?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    names.push(entry.file_name().to_owned());
                }
                if names.len() > MAX_NODES {
                    return Err(Error::TooManyNames);
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Extended attributes of a file, link or node in it, without those of overlayfs.
    pub(super) fn attributes_of(
        &self,
        name: &OsStr,
        entry: &Entry,
        path: &Path,
        scratch: &mut Scratch,
    ) -> Result<Attributes, Error> {
        let Some(part) = self.parts.get(entry.part) else {
            return Ok(Attributes::default());
        };
        let place = beside(part.as_raw_fd(), name);
        Ok(attributes(Subject::Named(&place), true, path, scratch)?.0)
    }

    /// Where the link `name` leads.
    pub(super) fn target_of(&self, name: &OsStr, entry: &Entry, path: &Path) -> Result<CString, Error> {
        let part = self
            .parts
            .get(entry.part)
            .ok_or_else(|| Error::Missing(path.to_owned()))?;
        rustix::fs::readlinkat(part, name, Vec::new()).map_err(|e| Error::at("read the link", path, e))
    }
}

/// A path for calls that take no descriptor of a directory. Only its last component is of the image, and those calls do
/// not follow it.
pub(super) fn beside(directory: i32, name: &OsStr) -> Vec<u8> {
    let mut place = format!("/proc/self/fd/{directory}/").into_bytes();
    place.extend_from_slice(name.as_bytes());
    place
}

/// Opens one name in a directory: no link, no other mount, no way up.
pub(super) fn open_one(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    loop {
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
            // A rename elsewhere on the system can make the kernel lose its way.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What extended attributes are read from.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// A path of which the last component is not followed.
    Named(&'a [u8]),
}

impl Subject<'_> {
    fn list(self, names: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::flistxattr(file, names),
            Self::Named(path) => rustix::fs::llistxattr(path, names),
        }
    }

    fn value(self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::fgetxattr(file, name, value),
            Self::Named(path) => rustix::fs::lgetxattr(path, name, value),
        }
    }

    /// All extended attributes in the order of their names; each name goes through `wanted` first.
    pub(super) fn read(
        self,
        scratch: &mut Scratch,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Attributes, Errno> {
        let mut read = Vec::new();
        let length = match self.list(&mut scratch.names) {
            // A file system without them.
            Err(Errno::OPNOTSUPP) => 0,
            result => result?,
        };
        let names = scratch.names.get(..length).unwrap_or_default();
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            if !wanted(name.to_bytes()) {
                continue;
            }
            let length = match self.value(name, &mut scratch.value) {
                // Gone since it was listed.
                Err(Errno::NODATA) => continue,
                result => result?,
            };
            let value = scratch.value.get(..length).unwrap_or_default();
            read.push((name.to_owned(), value.to_vec()));
        }
        Ok(Attributes::new(read))
    }
}

/// Reads the extended attributes of a file of a layer, those of overlayfs apart: what it says is whether the file is an
/// opaque directory. Others of its attributes make a layer show something else than the files in it, and no image's
/// layer has a use for them.
fn attributes(
    subject: Subject<'_>,
    copied: bool,
    path: &Path,
    scratch: &mut Scratch,
) -> Result<(Attributes, bool), Error> {
    let mut opaque = false;
    let mut foreign = None;
    let read = subject.read(scratch, |name| match name.strip_prefix(OVERLAY) {
        Some(b"opaque") => {
            opaque = true;
            false
        }
        Some(own @ (b"redirect" | b"metacopy" | b"whiteout")) => {
            foreign = Some(String::from_utf8_lossy(own).into_owned());
            false
        }
        // Left behind by the mount under which the layer was written; without a meaning in a lower layer.
        Some(_) => false,
        // A keyed hash over inode number and owner, which cannot be copied.
        None => copied && name != b"security.evm",
    });
    let read = read.map_err(|e| Error::at("read the extended attributes of", path, e))?;
    if opaque {
        let mut value = [0; 1];
        let length = subject
            .value(c"trusted.overlay.opaque", &mut value)
            .map_err(|e| Error::at("read the extended attributes of", path, e));
        if !matches!(length, Ok(1)) || value != *b"y" {
            foreign = Some("opaque".to_owned());
        }
    }
    match foreign {
        Some(attribute) => Err(Error::Foreign {
            path: path.to_owned(),
            attribute,
        }),
        None => Ok((read, opaque)),
    }
}
