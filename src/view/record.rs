//! What one name of a view is, in a form that is hashed: the digest of a view says what it shows, and a view that was
//! built before a crash is compared with it before it is used again.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::merge::{Scratch, Subject, beside, is_whiteout, open_one};
use super::{Error, MAX_DEPTH};
use crate::digest::Digest;
use crate::tree::MAX_NODES;

/// Extended attributes that are overlayfs's own.
pub(super) const OVERLAY: &[u8] = b"trusted.overlay.";

/// Extended attributes in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<(CString, Vec<u8>)>);

impl Attributes {
    pub(super) fn new(mut all: Vec<(CString, Vec<u8>)>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub(super) fn with(mut self, name: CString, value: Vec<u8>) -> Self {
        self.0.push((name, value));
        self.0.sort_unstable();
        self
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CString, &[u8])> {
        self.0.iter().map(|(name, value)| (name, value.as_slice()))
    }

    /// Bytes of all values.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(_, value)| value.len()).sum()
    }
}

/// Hashes the names of a view: a directory after what is in it, the rest in the order of their bytes.
pub(super) struct Recorder {
    hash: Sha256,
    /// How many there were.
    pub(super) names: usize,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            hash: Sha256::new(),
            names: 0,
        }
    }

    /// Adds one name. `target` is where a link leads.
    pub(super) fn add(
        &mut self,
        path: &Path,
        stat: &Stat,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Error> {
        if is_whiteout(stat) {
            return self.add_whiteout(path);
        }
        self.name(path, 1)?;
        self.number(stat.st_mode.into());
        self.number(stat.st_uid.into());
        self.number(stat.st_gid.into());
        self.number(stat.st_rdev);
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        self.number(if is_file { stat.st_size.unsigned_abs() } else { 0 });
        self.number(stat.st_mtime.cast_unsigned());
        self.number(stat.st_mtime_nsec);
        self.bytes(target);
        self.number(attributes.0.len() as u64);
        for (name, value) in attributes.iter() {
            self.bytes(name.to_bytes());
            self.bytes(value);
        }
        Ok(())
    }

    /// Adds a whiteout. All of them may be one file, whose owner and times say nothing.
    pub(super) fn add_whiteout(&mut self, path: &Path) -> Result<(), Error> {
        self.name(path, 0)
    }

    fn name(&mut self, path: &Path, kind: u64) -> Result<(), Error> {
        self.names += 1;
        if self.names > MAX_NODES {
            return Err(Error::TooManyNames);
        }
        self.bytes(path.as_os_str().as_bytes());
        self.number(kind);
        Ok(())
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
    }

    pub(super) fn digest(self) -> Digest {
        Digest::of_stream(self.hash)
    }
}

/// The digest of a view's layer as it lies on disk, and how many names it has.
pub(super) fn of_layer(layer: &OwnedFd) -> Result<(Digest, usize), Error> {
    let mut walk = Walk {
        recorder: Recorder::new(),
        scratch: Scratch::new(),
    };
    let mut path = PathBuf::from("/");
    walk.directory(layer.as_fd(), &mut path, 0)?;
    let names = walk.recorder.names;
    Ok((walk.recorder.digest(), names))
}

struct Walk {
    recorder: Recorder,
    scratch: Scratch,
}

impl Walk {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &mut PathBuf, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep(path.clone()));
        }
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory).map_err(|e| Error::at("list", path, e))? {
            let entry = entry.map_err(|e| Error::at("list", path, e))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
            if names.len() > MAX_NODES {
                return Err(Error::TooManyNames);
            }
        }
        names.sort_unstable();
        for name in names {
            let name = OsStr::from_bytes(name.to_bytes());
            path.push(name);
            let failed = |e| Error::at("look at", path, e);
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                let below = open_one(directory, name, OFlags::DIRECTORY).map_err(failed)?;
                self.directory(below.as_fd(), path, depth + 1)?;
            } else {
                let target = match kind {
                    FileType::Symlink => rustix::fs::readlinkat(directory, name, Vec::new()).map_err(failed)?,
                    _ => CString::default(),
                };
                let place = beside(directory.as_raw_fd(), name);
                let attributes = Subject::Named(&place)
                    .read(&mut self.scratch, |_| true)
                    .map_err(failed)?;
                self.recorder.add(path, &stat, target.to_bytes(), &attributes)?;
            }
            path.pop();
        }
        let failed = |e| Error::at("look at", path, e);
        let stat = rustix::fs::fstat(directory).map_err(failed)?;
        let attributes = Subject::Open(directory)
            .read(&mut self.scratch, |_| true)
            .map_err(failed)?;
        self.recorder.add(path, &stat, b"", &attributes)
    }
}
