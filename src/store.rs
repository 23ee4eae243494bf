//! Directories and files of Assay's own state: owner and mode checks, bounded reads, atomic writes, rotated logs.
//!
//! Every function that opens a file refuses symbolic links and anything that is not a regular file, and reads
//! at most as many bytes as its caller names.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Mode of every state directory.
pub const DIRECTORY_MODE: RawMode = 0o700;
/// Mode of every state file.
pub const FILE_MODE: RawMode = 0o600;

/// Start of the names under which files are written before they get their own.
const TEMPORARY_PREFIX: &str = ".new-";
/// Longest name of a file that is written here; leaves room for the temporary prefix below the kernel's 255.
const MAX_NAME: usize = 200;

/// Why a state directory or file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "always written with its module: store::Error")]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}: {source}{}", path.display(), as_root(*source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// The file system has no room, or the quota is used up.
    #[error("cannot write {}: no space left; free some on this file system and try again", path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// A path that must be absolute and without `..` is not.
    #[error("'{}' cannot be a state directory: write an absolute path without '..'", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A name that is to become a file below a state directory is not a plain name.
    #[error("'{name}' is not a plain file name of at most {MAX_NAME} bytes")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A component is a symbolic link.
    #[error("{} is a symbolic link; name the real path instead", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A component is no directory.
    #[error("{} is not a directory; move it away or name another path", path.display())]
    NotDirectory {
        /// The component.
        path: PathBuf,
    },
    /// What should be a regular file is something else.
    #[error("{} is not a regular file; remove it", path.display())]
    NotFile {
        /// The file.
        path: PathBuf,
    },
    /// Someone else owns a directory that Assay relies on.
    #[error("{} belongs to user {owner}, who could change what Assay trusts; run: chown {expected} {}", path.display(), path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        expected: u32,
    },
    /// Someone else can write to a directory that Assay relies on, or look into one that holds its state.
    #[error("{} has mode {mode:04o}, open to other users; run: chmod {needed} {}", path.display(), path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: RawMode,
        /// What chmod should be told.
        needed: &'static str,
    },
    /// A file is larger than its reader accepts.
    #[error("{} has {size} bytes, more than the {limit} that are accepted", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl Error {
    /// True when the file or directory does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Io {
                source: Errno::NOENT,
                ..
            }
        )
    }

    /// True when the user who runs this may not do it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_denied(*source))
    }

    fn io(action: &'static str, path: &Path, source: Errno) -> Self {
        match source {
            Errno::NOSPC | Errno::DQUOT => Self::Full { path: path.to_owned() },
            _ => Self::Io {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }

    fn std(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::io(action, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

fn is_denied(source: Errno) -> bool {
    matches!(source, Errno::ACCESS | Errno::PERM)
}

/// What to do about what only root may do.
fn as_root(source: Errno) -> &'static str {
    if is_denied(source) && !rustix::process::geteuid().is_root() {
        "; run it as root"
    } else {
        ""
    }
}

/// A directory that only the running user (root, in service) can read or change, down from the root directory.
#[derive(Debug)]
pub struct StateDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl StateDir {
    /// Opens the directory at the absolute path `path`, creating what is missing of it with mode 0700.
    ///
    /// # Errors
    /// A symbolic link on the way, a parent that another user owns or can write to (a sticky directory like
    /// `/tmp` may be written to), or a directory that itself is not the running user's alone.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let invalid = || Error::Path { path: path.to_owned() };
        let mut components = path.components();
        if components.next() != Some(Component::RootDir) {
            return Err(invalid());
        }
        let root = Path::new("/");
        let fd = rustix::fs::open(root, directory_flags(), Mode::empty()).map_err(|e| Error::io("open", root, e))?;
        let mut here = Self {
            fd,
            path: root.to_owned(),
        };
        here.check_parent()?;
        let mut components = components.peekable();
        if components.peek().is_none() {
            return Err(invalid());
        }
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else {
                return Err(invalid());
            };
            here = here.enter(Path::new(name))?;
            if components.peek().is_some() {
                here.check_parent()?;
            }
        }
        here.check_own()?;
        Ok(here)
    }

    /// Opens the directory `name` directly below this one, creating it when it is missing.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn subdir(&self, name: &str) -> Result<Self, Error> {
        plain(name)?;
        let dir = self.enter(Path::new(name))?;
        dir.check_own()?;
        Ok(dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file `name`, at most `limit` of them; `None` when there is no such file.
    ///
    /// # Errors
    /// A larger file, one that is not regular, or a failing system call.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        plain(name)?;
        match read_beneath(self.as_fd(), &self.path, Path::new(name), limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file `name` by `bytes`. A reader sees the old file or the new one, never a part, and after
    /// a crash one of the two is there.
    ///
    /// # Errors
    /// A failing system call; the old file is then still in place.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write_unsynced(name, bytes)?;
        self.sync()
    }

    /// As [`StateDir::write`], except that the new name may be lost in a crash until [`StateDir::sync`] is
    /// called: for many files at once.
    ///
    /// # Errors
    /// As [`StateDir::write`].
    pub fn write_unsynced(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.replace(name, bytes, true)
    }

    /// As [`StateDir::write_unsynced`], except that the file may be empty after a crash until
    /// [`StateDir::sync_file_system`] is called.
    ///
    /// # Errors
    /// As [`StateDir::write`].
    pub fn write_volatile(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.replace(name, bytes, false)
    }

    /// Makes everything on this directory's file system durable: for more files than can be waited for one by one.
    ///
    /// # Errors
    /// A failing system call.
    pub fn sync_file_system(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.fd).map_err(|e| Error::io("sync", &self.path, e))
    }

    fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> Result<(), Error> {
        plain(name)?;
        write_in(&self.fd, &self.path, name, bytes, FILE_MODE, durable)
    }

    /// Makes all names in this directory durable.
    ///
    /// # Errors
    /// A failing system call.
    pub fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Gives the file `from` the name `to`, replacing what had it: how a corrupt file is set aside.
    ///
    /// # Errors
    /// A failing system call.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        plain(from)?;
        plain(to)?;
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|e| Error::io("rename", &self.path.join(from), e))?;
        self.sync()
    }

    /// Hands each line of the log `name` to `line`, in order and without its line break; nothing when there is no such
    /// log. Lines of more than `limit` bytes are skipped. Answers how many were.
    ///
    /// # Errors
    /// A file that is not regular, or a failing system call.
    pub fn lines(&self, name: &str, limit: usize, mut line: impl FnMut(&[u8])) -> Result<usize, Error> {
        let Some((file, _)) = self.open_log(name)? else {
            return Ok(0);
        };
        Ok(read_lines(file, &self.path.join(name), limit, true, &mut line)?.skipped)
    }

    /// Hands each whole line that was appended to the log `name` since `at` to `line`, as [`StateDir::lines`] does, also
    /// where the log was rotated meanwhile, and moves `at` behind the last of them. A new bookmark stands before the
    /// first line that is left. Answers how many lines were skipped.
    ///
    /// # Errors
    /// A file that is not regular, or a failing system call.
    pub fn lines_after(
        &self,
        name: &str,
        at: &mut Bookmark,
        limit: usize,
        mut line: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        use std::io::Seek as _;
        let older = format!("{name}.1");
        // The current one first: what is rotated away after this is found as the older one next time.
        let current = self.open_log(name)?;
        let mut skipped = 0;
        if !current.as_ref().is_some_and(|(_, stat)| at.is_in(stat))
            && let Some((mut file, stat)) = self.open_log(&older)?
            // Nobody writes to it any more, unless it is what was just opened as the current one.
            && current.as_ref().is_none_or(|(_, current)| current.st_ino != stat.st_ino)
        {
            let path = self.path.join(&older);
            let from = if at.is_in(&stat) { at.offset } else { 0 };
            file.seek(std::io::SeekFrom::Start(from))
                .map_err(|e| Error::std("read", &path, &e))?;
            let read = read_lines(file, &path, limit, true, &mut line)?;
            skipped += read.skipped;
            *at = Bookmark::new(&stat, from + read.bytes);
        }
        let Some((mut file, stat)) = current else {
            return Ok(skipped);
        };
        let path = self.path.join(name);
        let from = if at.is_in(&stat) { at.offset } else { 0 };
        file.seek(std::io::SeekFrom::Start(from))
            .map_err(|e| Error::std("read", &path, &e))?;
        let read = read_lines(file, &path, limit, false, &mut line)?;
        *at = Bookmark::new(&stat, from + read.bytes);
        Ok(skipped + read.skipped)
    }

    /// Opens a log for reading; `None` where there is none.
    fn open_log(&self, name: &str) -> Result<Option<(File, Stat)>, Error> {
        plain(name)?;
        let path = self.path.join(name);
        let fd = match open_beneath(self.as_fd(), &path, Path::new(name), OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("read the state of", &path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotFile { path });
        }
        Ok(Some((File::from(fd), stat)))
    }

    /// Size of the file `name` in bytes; 0 when it is not there.
    ///
    /// # Errors
    /// A failing system call.
    pub fn size(&self, name: &str) -> Result<u64, Error> {
        plain(name)?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_size.unsigned_abs()),
            Err(Errno::NOENT) => Ok(0),
            Err(e) => Err(Error::io("read the state of", &self.path.join(name), e)),
        }
    }

    /// Removes the file `name`, if it is there. The removal may be lost in a crash until [`StateDir::sync`] is called.
    ///
    /// # Errors
    /// A failing system call.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        plain(name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", &self.path.join(name), e)),
        }
    }

    /// Removes what writers left behind when they were killed. Only for a caller that holds the lock under
    /// which all writers of this directory work.
    ///
    /// # Errors
    /// A failing system call.
    pub fn remove_abandoned(&self) -> Result<(), Error> {
        for name in names(self.as_fd(), &self.path)? {
            let name = name?;
            if name.starts_with(TEMPORARY_PREFIX) {
                rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty())
                    .map_err(|e| Error::io("remove", &self.path.join(&name), e))?;
            }
        }
        Ok(())
    }

    /// Waits for the lock file `name` and holds it until the returned value is dropped or the process ends.
    ///
    /// # Errors
    /// A failing system call.
    pub fn lock(&self, name: &str) -> Result<Lock, Error> {
        plain(name)?;
        let fd = self.open_own(name, OFlags::RDWR)?;
        loop {
            match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock { _fd: fd }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::io("lock", &self.path.join(name), e)),
            }
        }
    }

    /// As [`StateDir::lock`], without waiting: `None` while someone else holds it.
    ///
    /// # Errors
    /// A failing system call.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        plain(name)?;
        let fd = self.open_own(name, OFlags::RDWR)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _fd: fd })),
            Err(Errno::AGAIN) => Ok(None),
            Err(e) => Err(Error::io("lock", &self.path.join(name), e)),
        }
    }

    /// Appends `line` and a line break to the log `name`. When the log would grow beyond `limit` bytes it is
    /// first renamed to `name.1`, replacing the one before. Concurrent writers never mix their lines and the
    /// line is in the log as a whole or not at all. No sync: a line that a crash of the machine takes away
    /// documents a container that the crash took away too.
    ///
    /// # Errors
    /// A failing system call; [`Error::Full`] on a full disk.
    pub fn append(&self, name: &str, line: &str, limit: u64) -> Result<(), Error> {
        plain(name)?;
        let path = self.path.join(name);
        let fail = |action| move |e| (action, e);
        loop {
            let fd = self.open_own(name, OFlags::RDWR | OFlags::APPEND)?;
            match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::io("lock", &path, e)),
            }
            let done = (|| {
                let opened = rustix::fs::fstat(&fd).map_err(fail("read the state of"))?;
                // Between open and lock another writer may have rotated it away.
                match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(named) if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) => {}
                    Ok(_) | Err(Errno::NOENT) => return Ok(false),
                    Err(e) => return Err(("read the state of", e)),
                }
                let size = u64::try_from(opened.st_size).unwrap_or(0);
                let mut record = String::with_capacity(line.len() + 2);
                // A writer that was killed, or a machine that crashed, may have left half a line.
                let mut last = [0];
                if size > 0 && rustix::io::pread(&fd, &mut last, size - 1).map_err(fail("read"))? == 1 && last != *b"\n"
                {
                    record.push('\n');
                }
                record.push_str(line);
                record.push('\n');
                if size > 0 && size + record.len() as u64 > limit {
                    rustix::fs::renameat(&self.fd, name, &self.fd, format!("{name}.1")).map_err(fail("rotate"))?;
                    return Ok(false);
                }
                let mut rest = record.as_bytes();
                while !rest.is_empty() {
                    let written = match rustix::io::write(&fd, rest) {
                        Ok(0) => Err(Errno::IO),
                        Err(Errno::INTR) => continue,
                        other => other,
                    };
                    match written {
                        Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                        Err(e) => {
                            // Half a line is worse than none.
                            let _ = rustix::fs::ftruncate(&fd, size);
                            return Err(("write", e));
                        }
                    }
                }
                Ok(true)
            })();
            match done {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err((action, e)) => return Err(Error::io(action, &path, e)),
            }
        }
    }

    /// Opens or creates a regular file of this directory for in-place use.
    fn open_own(&self, name: &str, access: OFlags) -> Result<OwnedFd, Error> {
        let path = self.path.join(name);
        let flags = access | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(FILE_MODE)).map_err(|e| match e {
            Errno::LOOP => Error::Symlink { path: path.clone() },
            e => Error::io("open", &path, e),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("read the state of", &path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotFile { path });
        }
        Ok(fd)
    }

    fn enter(&self, name: &Path) -> Result<Self, Error> {
        let path = self.path.join(name);
        let mut created = false;
        loop {
            match rustix::fs::openat(&self.fd, name, directory_flags(), Mode::empty()) {
                Ok(fd) => return Ok(Self { fd, path }),
                Err(Errno::NOENT) if !created => {
                    created = true;
                    match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(Error::io("create", &path, e)),
                    }
                }
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| Error::io("read the state of", &path, e))?;
                    return Err(match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Symlink => Error::Symlink { path },
                        _ => Error::NotDirectory { path },
                    });
                }
                Err(e) => return Err(Error::io("open", &path, e)),
            }
        }
    }

    fn check_parent(&self) -> Result<(), Error> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| Error::io("read the state of", &self.path, e))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != 0 && stat.st_uid != own {
            return Err(Error::Owner {
                path: self.path.clone(),
                owner: stat.st_uid,
                expected: own,
            });
        }
        let sticky = stat.st_mode & 0o1000 != 0;
        if stat.st_mode & 0o022 != 0 && !sticky {
            return Err(Error::Open {
                path: self.path.clone(),
                mode: stat.st_mode & 0o7777,
                needed: "go-w",
            });
        }
        Ok(())
    }

    fn check_own(&self) -> Result<(), Error> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| Error::io("read the state of", &self.path, e))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != own {
            return Err(Error::Owner {
                path: self.path.clone(),
                owner: stat.st_uid,
                expected: own,
            });
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(Error::Open {
                path: self.path.clone(),
                mode: stat.st_mode & 0o7777,
                needed: "0700",
            });
        }
        Ok(())
    }
}

/// How far a log was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// Device and inode of the file that was the log then.
    file: Option<(u64, u64)>,
    offset: u64,
}

impl Bookmark {
    fn new(stat: &Stat, offset: u64) -> Self {
        Self {
            file: Some((stat.st_dev, stat.st_ino)),
            offset,
        }
    }

    /// Whether it is a place in this file. One that is shorter is another, with a number that was free again.
    fn is_in(&self, stat: &Stat) -> bool {
        self.file == Some((stat.st_dev, stat.st_ino)) && self.offset <= stat.st_size.unsigned_abs()
    }
}

/// What changes whenever the content of a file does, at the latest some milliseconds later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file `name` below `dir`, of which the last component is not followed; `None` when it is not
    /// there.
    #[must_use]
    pub fn of(dir: BorrowedFd<'_>, name: &str) -> Option<Self> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Self::from(&stat))
    }

    /// Whether the file was last changed before `time`.
    #[must_use]
    pub fn is_older_than(&self, time: SystemTime) -> bool {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed < (seconds, time.subsec_nanos().into())
    }
}

impl From<&Stat> for Stamp {
    fn from(stat: &Stat) -> Self {
        let nanoseconds = |value| i64::try_from(value).unwrap_or_default();
        Self {
            size: stat.st_size.unsigned_abs(),
            inode: stat.st_ino,
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }
}

/// A held lock file.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
}

/// Replaces a file that belongs to an administrator, as [`StateDir::write`] does in a directory of Assay's own. A new
/// file gets the mode `mode`, one that is replaced keeps its own.
///
/// # Errors
/// A failing system call; the old file is then still in place.
pub fn replace(path: &Path, bytes: &[u8], mode: RawMode) -> Result<(), Error> {
    let invalid = || Error::Name {
        name: path.display().to_string().chars().take(80).collect(),
    };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    plain(name)?;
    let folder = path.parent().ok_or_else(invalid)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| Error::io("open", folder, e))?;
    let mode = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => stat.st_mode & 0o777,
        Ok(_) => return Err(Error::NotFile { path: path.to_owned() }),
        Err(Errno::NOENT) => mode,
        Err(e) => return Err(Error::io("read the state of", path, e)),
    };
    write_in(&fd, folder, name, bytes, mode, true)?;
    rustix::fs::fsync(&fd).map_err(|e| Error::io("sync", folder, e))
}

fn write_in(dir: &OwnedFd, folder: &Path, name: &str, bytes: &[u8], mode: RawMode, durable: bool) -> Result<(), Error> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (temporary, path, fd) = loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY_PREFIX}{}-{count}", std::process::id());
        let path = folder.join(&temporary);
        match rustix::fs::openat(dir, &temporary, flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => break (temporary, path, fd),
            // Left by a crashed process that had the same id.
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("create", &path, e)),
        }
    };
    let mut file = File::from(fd);
    let written = file
        .write_all(bytes)
        .map_err(|e| Error::std("write", &path, &e))
        .and_then(|()| {
            if durable {
                rustix::fs::fsync(&file).map_err(|e| Error::io("sync", &path, e))
            } else {
                Ok(())
            }
        })
        .and_then(|()| {
            rustix::fs::renameat(dir, &temporary, dir, name).map_err(|e| Error::io("replace", &folder.join(name), e))
        });
    if written.is_err() {
        // The first error is the one to report.
        let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
    }
    written
}

/// The bytes of the file `name` below the directory `dir`, at most `limit` of them. The path is resolved
/// without leaving the directory and without following any link; `shown` is what errors call the directory.
///
/// # Errors
/// A larger file, a link on the way, a file that is not regular, or a failing system call.
pub fn read_beneath(dir: BorrowedFd<'_>, shown: &Path, name: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let path = shown.join(name);
    let fd = open_beneath(dir, &path, name, OFlags::NONBLOCK)?;
    read_fd(fd, &path, limit)
}

/// The bytes of the file at `path`, at most `limit` of them. The last component may not be a link.
///
/// # Errors
/// A larger file, a link, a file that is not regular, or a failing system call.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
        Errno::LOOP => Error::Symlink { path: path.to_owned() },
        e => Error::io("open", path, e),
    })?;
    read_fd(fd, path, limit)
}

/// Opens `name` below `dir` for reading, never leaving it and never following a link.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &Path, name: &Path, extra: OFlags) -> Result<OwnedFd, Error> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            // A rename elsewhere on the system can make the kernel lose its way.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::LOOP) => return Err(Error::Symlink { path: path.to_owned() }),
            Err(e) => return Err(Error::io("open", path, e)),
        }
    }
}

/// When the file `name` below `dir` was last written; `None` when it is not there.
pub(crate) fn modified(dir: BorrowedFd<'_>, name: &Path) -> Option<SystemTime> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The names in a directory, without `.` and `..` and without those that are not UTF-8.
pub(crate) fn names(
    dir: BorrowedFd<'_>,
    path: &Path,
) -> Result<impl Iterator<Item = Result<String, Error>> + use<>, Error> {
    let path = path.to_owned();
    let entries = rustix::fs::Dir::read_from(dir).map_err(|e| Error::io("list", &path, e))?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) => match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => None,
            Ok(name) => Some(Ok(name.to_owned())),
        },
        Err(e) => Some(Err(Error::io("list", &path, e))),
    }))
}

/// What [`read_lines`] read.
struct Lines {
    skipped: usize,
    /// Length of all whole lines.
    bytes: u64,
}

/// Hands lines to `line`; `half` says whether one without a line break at the end is one.
fn read_lines(file: File, path: &Path, limit: usize, half: bool, line: &mut dyn FnMut(&[u8])) -> Result<Lines, Error> {
    let mut reader = BufReader::new(file);
    let mut lines = Lines { skipped: 0, bytes: 0 };
    let (mut bytes, mut length, mut too_long) = (Vec::new(), 0, false);
    loop {
        let part = reader.fill_buf().map_err(|e| Error::std("read", path, &e))?;
        let (used, breaks) = match part.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (part.len(), false),
        };
        let text = part.get(..used).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        too_long |= bytes.len() + text.len() > limit;
        if !too_long {
            bytes.extend_from_slice(text);
        }
        reader.consume(used);
        length += used as u64;
        if !breaks && used > 0 {
            continue;
        }
        if breaks || half {
            if too_long {
                lines.skipped += 1;
            } else if !bytes.is_empty() {
                line(&bytes);
            }
            lines.bytes += length;
        }
        if used == 0 {
            return Ok(lines);
        }
        bytes.clear();
        (length, too_long) = (0, false);
    }
}

fn read_fd(fd: OwnedFd, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("read the state of", path, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::NotFile { path: path.to_owned() });
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    let too_large = |size| Error::TooLarge {
        path: path.to_owned(),
        size,
        limit,
    };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large(size))?);
    // The file may have grown since its size was read.
    File::from(fd)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Error::std("read", path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn plain(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > MAX_NAME || matches!(name, "." | "..") || name.contains(['/', '\0']) {
        return Err(Error::Name {
            name: name.chars().take(80).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn directory() -> (tempfile::TempDir, StateDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temporary.path().canonicalize().unwrap().join("a/state")).unwrap();
        (temporary, dir)
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_missing_directory_is_created_for_its_owner_alone() {
        let (_keep, dir) = directory();
        for path in [
            dir.path(),
            dir.path().parent().unwrap(),
            dir.subdir("x").unwrap().path(),
        ] {
            assert_eq!(
                path.metadata().unwrap().permissions().mode() & 0o7777,
                0o700,
                "{path:?}"
            );
        }
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let (_keep, dir) = directory();
        for open in [0o750, 0o702, 0o755, 0o777, 0o1777] {
            mode(dir.path(), open);
            let error = StateDir::open(dir.path()).unwrap_err();
            assert!(matches!(error, Error::Open { .. }), "{open:o}: {error}");
            assert!(error.to_string().contains("chmod 0700"), "{error}");
        }
    }

    #[test]
    fn a_parent_that_others_can_write_to_is_refused() {
        let (_keep, dir) = directory();
        let parent = dir.path().parent().unwrap();
        for open in [0o722, 0o770, 0o707] {
            mode(parent, open);
            let error = StateDir::open(dir.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Open { path, .. } if path == parent),
                "{open:o}: {error}"
            );
        }
        mode(parent, 0o755);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_keep, dir) = directory();
        std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Owner { owner: 65534, .. }), "{error}");
        let (_keep, dir) = directory();
        std::os::unix::fs::chown(dir.path().parent().unwrap(), Some(65534), None).unwrap();
        assert!(matches!(
            StateDir::open(dir.path()).unwrap_err(),
            Error::Owner { owner: 65534, .. }
        ));
    }

    #[test]
    fn links_relative_paths_and_other_things_are_refused() {
        let (keep, dir) = directory();
        let base = keep.path().canonicalize().unwrap();
        symlink(dir.path(), base.join("last")).unwrap();
        symlink(dir.path().parent().unwrap(), base.join("middle")).unwrap();
        std::fs::write(base.join("file"), b"").unwrap();
        for link in ["last", "middle/state"] {
            assert!(
                matches!(StateDir::open(&base.join(link)).unwrap_err(), Error::Symlink { .. }),
                "{link}"
            );
        }
        assert!(matches!(
            StateDir::open(&base.join("file/x")).unwrap_err(),
            Error::NotDirectory { .. }
        ));
        for path in ["state", "", "/", "/tmp/../tmp/state"] {
            assert!(
                matches!(StateDir::open(Path::new(path)).unwrap_err(), Error::Path { .. }),
                "{path}"
            );
        }
        symlink("/etc", dir.path().join("etc")).unwrap();
        assert!(matches!(dir.subdir("etc").unwrap_err(), Error::Symlink { .. }));
    }

    #[test]
    fn names_are_plain() {
        let (_keep, dir) = directory();
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "/etc/passwd",
            "a\0b",
            &"n".repeat(MAX_NAME + 1),
        ] {
            assert!(matches!(dir.read(name, 1).unwrap_err(), Error::Name { .. }), "{name}");
            assert!(
                matches!(dir.write(name, b"").unwrap_err(), Error::Name { .. }),
                "{name}"
            );
            assert!(matches!(dir.subdir(name).unwrap_err(), Error::Name { .. }), "{name}");
            assert!(
                matches!(dir.append(name, "", 9).unwrap_err(), Error::Name { .. }),
                "{name}"
            );
        }
    }

    #[test]
    fn reads_are_bounded_and_take_regular_files_only() {
        let (_keep, dir) = directory();
        assert_eq!(dir.read("f", 9).unwrap(), None);
        dir.write("f", b"12345").unwrap();
        assert_eq!(dir.read("f", 5).unwrap().as_deref(), Some(&b"12345"[..]));
        assert!(matches!(
            dir.read("f", 4).unwrap_err(),
            Error::TooLarge { size: 5, limit: 4, .. }
        ));
        symlink("f", dir.path().join("link")).unwrap();
        assert!(matches!(dir.read("link", 5).unwrap_err(), Error::Symlink { .. }));
        assert!(matches!(
            read_bounded(&dir.path().join("link"), 5).unwrap_err(),
            Error::Symlink { .. }
        ));
        assert_eq!(read_bounded(&dir.path().join("f"), 5).unwrap(), b"12345");
        rustix::fs::mkfifoat(dir.as_fd(), "fifo", Mode::from_raw_mode(0o600)).unwrap();
        assert!(matches!(dir.read("fifo", 5).unwrap_err(), Error::NotFile { .. }));
        dir.subdir("d").unwrap();
        assert!(matches!(dir.read("d", 5).unwrap_err(), Error::NotFile { .. }));
        // Pseudo files say that they are empty.
        assert!(matches!(
            read_bounded(Path::new("/proc/self/status"), 5).unwrap_err(),
            Error::TooLarge { limit: 5, .. }
        ));
    }

    #[test]
    fn reading_never_leaves_the_directory() {
        let (_keep, dir) = directory();
        dir.write("secret", b"s").unwrap();
        let sub = dir.subdir("sub").unwrap();
        symlink("..", sub.path().join("up")).unwrap();
        for name in ["../secret", "up/secret", "/etc/hostname"] {
            assert!(
                read_beneath(sub.as_fd(), sub.path(), Path::new(name), 9).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_write_replaces_and_leaves_nothing_else() {
        let (_keep, dir) = directory();
        dir.write("f", b"old").unwrap();
        dir.write("f", b"new").unwrap();
        assert_eq!(dir.read("f", 9).unwrap().unwrap(), b"new");
        assert_eq!(
            dir.path().join("f").metadata().unwrap().permissions().mode() & 0o7777,
            0o600
        );
        // A link that stands where the file goes is replaced, not followed.
        dir.write("other", b"untouched").unwrap();
        symlink("other", dir.path().join("g")).unwrap();
        dir.write("g", b"g").unwrap();
        assert_eq!(dir.read("other", 9).unwrap().unwrap(), b"untouched");
        dir.subdir("occupied").unwrap();
        dir.write("occupied", b"").unwrap_err();
        let mut left: Vec<_> = names(dir.as_fd(), dir.path()).unwrap().map(Result::unwrap).collect();
        left.sort();
        assert_eq!(left, ["f", "g", "occupied", "other"]);
    }

    #[test]
    fn abandoned_files_are_removed() {
        let (_keep, dir) = directory();
        dir.write("f", b"").unwrap();
        std::fs::write(dir.path().join(".new-1-1"), b"half").unwrap();
        dir.remove_abandoned().unwrap();
        assert_eq!(
            names(dir.as_fd(), dir.path())
                .unwrap()
                .map(Result::unwrap)
                .collect::<Vec<_>>(),
            ["f"]
        );
    }

    #[test]
    fn a_log_rotates_by_size_and_mends_half_a_line() {
        let (_keep, dir) = directory();
        for n in 0..5 {
            dir.append("log", &format!("line {n}"), 21).unwrap();
        }
        assert_eq!(dir.read("log", 99).unwrap().unwrap(), b"line 3\nline 4\n");
        assert_eq!(dir.read("log.1", 99).unwrap().unwrap(), b"line 0\nline 1\nline 2\n");
        std::fs::write(dir.path().join("log"), b"half").unwrap();
        dir.append("log", "whole", 21).unwrap();
        assert_eq!(dir.read("log", 99).unwrap().unwrap(), b"half\nwhole\n");
        // A line larger than the limit still has its place.
        dir.append("log", &"x".repeat(50), 21).unwrap();
        assert_eq!(dir.read("log", 99).unwrap().unwrap().len(), 51);
    }

    #[test]
    fn a_log_is_read_line_by_line() {
        let (_keep, dir) = directory();
        let read = |limit| {
            let mut lines = Vec::new();
            let skipped = dir.lines("log", limit, |line| {
                lines.push(String::from_utf8_lossy(line).into_owned())
            });
            (lines, skipped.unwrap())
        };
        assert_eq!(read(9), (vec![], 0));
        let long = "x".repeat(20_000);
        dir.write("log", format!("one\n\n{long}\ntwo\n{long}\nhalf").as_bytes())
            .unwrap();
        let short = ["one", "two", "half"].map(str::to_owned);
        assert_eq!(read(9), (short.to_vec(), 2));
        assert_eq!(read(19_999).1, 2);
        assert_eq!(read(20_000).0.len(), 5);
        dir.write("log", long.as_bytes()).unwrap();
        assert_eq!(read(9), (vec![], 1));
        symlink("log", dir.path().join("link")).unwrap();
        assert!(dir.lines("link", 9, |_| ()).is_err());
        dir.subdir("d").unwrap();
        assert!(dir.lines("d", 9, |_| ()).is_err());
    }

    #[test]
    fn a_log_is_followed_through_its_rotations() {
        let (_keep, dir) = directory();
        let mut at = Bookmark::default();
        let read = |at: &mut Bookmark| {
            let mut lines = Vec::new();
            let skipped = dir
                .lines_after("log", at, 20, |line| {
                    lines.push(String::from_utf8_lossy(line).into_owned())
                })
                .unwrap();
            (lines.join(" "), skipped)
        };
        assert_eq!(read(&mut at), (String::new(), 0));
        let append = |line: &str| dir.append("log", line, 30).unwrap();
        append("one");
        append("two");
        assert_eq!(read(&mut at), ("one two".to_owned(), 0));
        assert_eq!(read(&mut at), (String::new(), 0));
        // What is only half there is not read yet.
        let half = |text: &str| {
            let mut file = std::fs::File::options()
                .append(true)
                .open(dir.path().join("log"))
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        half("thr");
        assert_eq!(read(&mut at), (String::new(), 0));
        half("ee\n");
        assert_eq!(read(&mut at), ("three".to_owned(), 0));
        append("four");
        append("five five five five");
        append("six");
        assert_eq!(read(&mut at), ("four five five five five six".to_owned(), 0));
        append("a line of more than twenty bytes");
        assert_eq!(read(&mut at), (String::new(), 1));
        // Who comes too late for a log that is gone reads what is left.
        for number in 0..9 {
            append(&format!("{number}123456789"));
        }
        assert_eq!(read(&mut at).0, "6123456789 7123456789 8123456789");
        assert_eq!(read(&mut Bookmark::default()).0, "6123456789 7123456789 8123456789");
    }

    #[test]
    fn concurrent_lines_do_not_mix_and_none_is_lost() {
        let (_keep, dir) = directory();
        std::thread::scope(|scope| {
            for t in 0..4 {
                let dir = &dir;
                scope.spawn(move || {
                    for n in 0..50 {
                        dir.append("log", &format!("{t} {n} {}", "x".repeat(100)), 15_000)
                            .unwrap();
                    }
                });
            }
        });
        let mut lines = Vec::new();
        for name in ["log.1", "log"] {
            let bytes = dir.read(name, 1 << 20).unwrap().unwrap();
            lines.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_owned));
        }
        assert_eq!(lines.len(), 200);
        assert!(
            lines
                .iter()
                .all(|line| line.ends_with(&"x".repeat(100)) && line.len() < 110)
        );
    }

    #[test]
    fn a_full_disk_has_its_own_error() {
        let error = Error::io("write", Path::new("/var/lib/assay/x"), Errno::NOSPC);
        insta::assert_snapshot!(error, @"cannot write /var/lib/assay/x: no space left; free some on this file system and try again");
    }

    #[test]
    fn a_lock_is_exclusive() {
        let (_keep, dir) = directory();
        let held = dir.lock(".lock").unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _held = dir.lock(".lock").unwrap();
                send.send(()).unwrap();
            });
            assert!(receive.recv_timeout(std::time::Duration::from_millis(100)).is_err());
            drop(held);
            receive.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        });
    }
}
