//! Where evidence is imported from: a folder or a tar.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::oci::Files;
use crate::store;

/// Most files of a folder or a tar that are looked at.
pub const MAX_FILES: usize = 200_000;
/// Most bytes of the headers of one file of a tar: its own, and those that extend its name and attributes.
const MAX_HEADERS: usize = 64 << 10;
/// Longest name of a file of a tar that is remembered; those of a layout are shorter.
const MAX_NAME: usize = 100;

const BLOBS: &str = "blobs/sha256";
const LAYOUT_FILE: &str = "oci-layout";
/// What `docker save` writes at the top, and older versions of it nothing else.
const DOCKER_FILE: &str = "manifest.json";
/// What skopeo puts beside the blobs of a `dir:`.
const SKOPEO_FILE: &str = "version";

/// Why a path is not a source of evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The folder or tar cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The tar is malformed.
    #[error("{} is not a readable tar: {source}", path.display())]
    Tar {
        /// The tar.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tar is compressed.
    #[error("{} is compressed; run: {tool} -d {}", path.display(), path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// The program that unpacks it.
        tool: &'static str,
    },
    /// `docker save` in its own format.
    #[error("{} is a 'docker save' archive, which holds no signatures; run: oras copy --recursive --to-oci-layout IMAGE FOLDER:TAG, or cosign save --dir FOLDER IMAGE, and import the folder", path.display())]
    Docker {
        /// The folder or file.
        path: PathBuf,
    },
    /// What skopeo writes as `dir:`.
    #[error("{} is in skopeo's own format; copy to oci:FOLDER or oci-archive:FILE instead, and import that", path.display())]
    Skopeo {
        /// The folder.
        path: PathBuf,
    },
    /// Something else.
    #[error("{} is not an OCI image layout: it has no file named oci-layout", path.display())]
    NotLayout {
        /// The folder or file.
        path: PathBuf,
    },
    /// Too many files.
    #[error("{} holds more than {MAX_FILES} files; split it", path.display())]
    TooManyFiles {
        /// The folder or file.
        path: PathBuf,
    },
}

/// A folder or tar with an OCI image layout in it.
#[derive(Debug)]
pub(crate) enum Source {
    Folder {
        path: PathBuf,
        fd: OwnedFd,
    },
    Tar {
        path: PathBuf,
        file: File,
        files: BTreeMap<String, Extent>,
    },
}

/// Where in a tar a file lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    offset: u64,
    size: u64,
}

impl Source {
    /// Opens what is at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |action| {
            move |source| store::Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        // A fifo must not make this wait.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&fd).map_err(failed("read the state of"))?;
        let path = path.to_owned();
        let source = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Folder { path, fd },
            FileType::RegularFile => Self::tar(path, File::from(fd))?,
            _ => return Err(SourceError::Store(store::Error::NotFile { path })),
        };
        let has = |name| match (&source).read(name, 0) {
            Ok(_) | Err(store::Error::TooLarge { .. }) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        };
        if has(LAYOUT_FILE)? {
            return Ok(source);
        }
        let path = source.path().to_owned();
        Err(if has(SKOPEO_FILE)? {
            SourceError::Skopeo { path }
        } else if has(DOCKER_FILE)? {
            SourceError::Docker { path }
        } else {
            SourceError::NotLayout { path }
        })
    }

    /// The evidence cache itself, of which every blob is looked at again.
    pub(super) fn folder(cache: &store::StateDir) -> Result<Self, SourceError> {
        Self::open(cache.path())
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder { path, .. } | Self::Tar { path, .. } => path,
        }
    }

    /// Digests of all blobs, in their order.
    pub(super) fn blobs(&self) -> Result<Vec<Digest>, SourceError> {
        let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
        match self {
            Self::Folder { path, fd } => {
                let path = path.join(BLOBS);
                let folder = store::open_beneath(fd.as_fd(), &path, Path::new(BLOBS), OFlags::DIRECTORY)?;
                let mut blobs = Vec::new();
                for (count, name) in store::names(folder.as_fd(), &path)?.enumerate() {
                    if count == MAX_FILES {
                        return Err(SourceError::TooManyFiles {
                            path: self.path().to_owned(),
                        });
                    }
                    blobs.extend(digest(&name?));
                }
                blobs.sort_unstable();
                Ok(blobs)
            }
            Self::Tar { files, .. } => Ok(files
                .keys()
                .filter_map(|name| digest(name.strip_prefix(BLOBS)?.strip_prefix('/')?))
                .collect()),
        }
    }

    fn tar(path: PathBuf, file: File) -> Result<Self, SourceError> {
        let malformed = |source| SourceError::Tar {
            path: path.clone(),
            source,
        };
        let mut start = [0; 4];
        let read = file.read_at(&mut start, 0).map_err(malformed)?;
        for (magic, tool) in [
            (&b"\x1f\x8b"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"\xfd7zX", "xz"),
            (b"BZh", "bzip2"),
        ] {
            if start.get(..read).is_some_and(|start| start.starts_with(magic)) {
                return Err(SourceError::Compressed { path, tool });
            }
        }
        let mut files = BTreeMap::new();
        let left = Cell::new(MAX_HEADERS);
        let mut archive = tar::Archive::new(Headers {
            file: &file,
            left: &left,
        });
        for (count, entry) in archive.entries_with_seek().map_err(malformed)?.enumerate() {
            if count == MAX_FILES {
                return Err(SourceError::TooManyFiles { path });
            }
            left.set(MAX_HEADERS);
            let entry = entry.map_err(malformed)?;
            // Links, sparse files and everything else that is not plain bytes can hold no blob.
            if entry.header().entry_type() != tar::EntryType::Regular {
                continue;
            }
            let name = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(name.strip_prefix(b"./").unwrap_or(&name)) else {
                continue;
            };
            if name.len() > MAX_NAME {
                continue;
            }
            let extent = Extent {
                offset: entry.raw_file_position(),
                size: entry.size(),
            };
            files.entry(name.to_owned()).or_insert(extent);
        }
        if !ends_as_a_tar(&file).map_err(malformed)? {
            return Err(malformed(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it does not end as a tar does: it was cut short, copy it again",
            )));
        }
        Ok(Self::Tar { path, file, files })
    }
}

/// Whether the end of a file is the empty block that ends a tar. The `tar` crate takes the end of the file for the end of
/// the tar, so one that was cut between two files, or in the last one, would seem to hold just less.
fn ends_as_a_tar(file: &File) -> io::Result<bool> {
    const BLOCK: usize = 512;
    let length = file.metadata()?.len();
    let Some(last) = length.checked_sub(BLOCK as u64) else {
        return Ok(false);
    };
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, last)?;
    Ok(block == [0; BLOCK])
}

/// Reads the headers of a tar. The `tar` crate takes the size of a header extension on trust and reads it into
/// memory; it skips the contents of files by seeking, so all that is read between two files are headers.
struct Headers<'a> {
    file: &'a File,
    left: &'a Cell<usize>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left.get());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the headers of one file in it have more than {MAX_HEADERS} bytes"),
            ));
        }
        let read = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(self.left.get().saturating_sub(read));
        Ok(read)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Files for &Source {
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, store::Error> {
        match self {
            Source::Folder { path, fd } => store::read_beneath(fd.as_fd(), path, Path::new(name), limit),
            Source::Tar { path, file, files } => {
                let path = path.join(name);
                let failed = |source| store::Error::Io {
                    action: "read",
                    path: path.clone(),
                    source,
                };
                let Extent { offset, size } = *files.get(name).ok_or_else(|| failed(Errno::NOENT))?;
                let too_large = || store::Error::TooLarge {
                    path: path.clone(),
                    size,
                    limit,
                };
                if size > limit {
                    return Err(too_large());
                }
                // A header may promise what the file does not hold; nothing is reserved before that is known.
                let end = file
                    .metadata()
                    .map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?
                    .len();
                if offset.checked_add(size).is_none_or(|last| last > end) {
                    return Err(failed(Errno::IO));
                }
                let mut bytes = vec![0; usize::try_from(size).map_err(|_| too_large())?];
                file.read_exact_at(&mut bytes, offset)
                    .map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
                Ok(bytes)
            }
        }
    }
}
