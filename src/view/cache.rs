//! Views on disk: built once, shared by all containers, never changed, removed when nothing shows them any more.
//!
//! ```text
//! views/<key>.<form>/layer/       what is mounted
//! views/<key>.<form>/view.json    what it is, with the digest of what it shows
//! run/views/<key>.<form>          this boot has built it or compared it with its digest; its time is that of the last use
//! run/views/<key>.<form>.lock     held by whoever builds, hands out or removes it
//! ```
//!
//! Views lie on the file system of the snapshotter, so that a container sees one device and files keep their inode
//! numbers when they are copied up: in `views/` of Assay's state where that is on the same file system, else in a
//! directory `assay-views` beside the snapshotter's `snapshots`; where that cannot be, in the state after all.
//!
//! A view is built under another name and renamed when it is whole. One from before this boot may have lost a part in a
//! crash, so it is read and compared with its digest once; a broken one is set aside and built again. No lease is kept
//! for a view: it is in use when any mount names its key, and for [`GRACE`] after it was handed out.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::merge::open_one;
use super::snapshot::Snapshot;
use super::{Error, Form, View, Way, build, record};
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// How long a view stays after it was handed out, mounted or not: longer than any `Create` takes.
pub const GRACE: Duration = Duration::from_secs(600);
/// Most views of one place, in use or not, before unused ones are removed.
pub const MAX_VIEWS: usize = 256;
/// Most names of all views of one place together, before unused views are removed.
pub const MAX_NAMES: usize = 2_000_000;

/// Directory of views, in the state and in the directory for what dies with the boot.
const VIEWS: &str = "views";
/// Directory of views beside a snapshotter's own.
const BESIDE: &str = "assay-views";
/// File in `views/` of the state that lists the places outside of it.
const PLACES: &str = "places";
/// Most bytes of that file, and of a view's description.
const MAX_FILE: u64 = 64 << 10;
/// Most bytes read of one process's table of mounts.
const MAX_TABLE: u64 = 32 << 20;
const LAYER: &str = "layer";
const DESCRIPTION: &str = "view.json";
/// Start of the name of a view that is not whole yet, of one that is broken, and of one that is being removed.
const NEW: &str = ".new-";
const BROKEN: &str = ".broken-";
const GONE: &str = ".gone-";

/// What a view says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    key: Digest,
    form: Form,
    digest: Digest,
    names: usize,
}

/// What tells a layer's directory from one that took its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    device: u64,
    inode: u64,
    changed: (i64, u64),
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Whole views.
    pub views: usize,
    /// Their names together.
    pub names: usize,
    /// Views that were never finished or were broken.
    pub leftovers: usize,
}

/// How much may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most views.
    pub views: usize,
    /// Most names of all views together.
    pub names: usize,
    /// Views that were handed out within this time stay.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            views: MAX_VIEWS,
            names: MAX_NAMES,
            grace: GRACE,
        }
    }
}

/// The views of one place.
#[derive(Debug)]
pub struct Cache {
    home: StateDir,
    run: StateDir,
}

impl Cache {
    /// Opens the place for views of `snapshot`. `state` and `run` are Assay's own directories.
    ///
    /// # Errors
    /// A directory that cannot be made or that others can change.
    pub fn open(state: &StateDir, run: &StateDir, snapshot: &Snapshot) -> Result<Self, Error> {
        let own = state.subdir(VIEWS)?;
        let home = match beside(&own, snapshot) {
            Some(place) => match StateDir::open(&place) {
                Ok(home) => {
                    remember(&own, &place)?;
                    home
                }
                Err(error) => {
                    log::debug!("views go to {}: {error}", own.path().display());
                    own
                }
            },
            None => own,
        };
        Ok(Self {
            home,
            run: run.subdir(VIEWS)?,
        })
    }

    /// Every place that has views.
    ///
    /// # Errors
    /// A directory that others can change.
    pub fn all(state: &StateDir, run: &StateDir) -> Result<Vec<Self>, Error> {
        let own = state.subdir(VIEWS)?;
        let mut homes = Vec::new();
        for place in places(&own)? {
            // With its snapshotter gone.
            if place.is_dir() {
                homes.push(StateDir::open(&place)?);
            }
        }
        homes.push(own);
        homes
            .into_iter()
            .map(|home| {
                Ok(Self {
                    home,
                    run: run.subdir(VIEWS)?,
                })
            })
            .collect()
    }

    /// The best way of this kernel to show the views of this place.
    ///
    /// # Errors
    /// [`Error::NoWay`].
    pub fn way(&self) -> Result<Way, Error> {
        super::probe::way(&self.run, &self.home)
    }

    /// The view `key`, if it is there and whole.
    ///
    /// # Errors
    /// A failing system call.
    pub fn find(&self, key: &Digest, way: Way) -> Result<Option<View>, Error> {
        let name = name_of(key, way.form());
        let _lock = self.lock(&name)?;
        self.find_locked(&name, key, way)
    }

    /// The view `key` of `snapshot`, which shows `keep`; built if it is not there. The caller answers for the key: equal
    /// keys have equal layers and equal keep sets.
    ///
    /// # Errors
    /// Layers or a keep set that no view can be made of, a full disk, or a failing system call. Nothing half is left.
    pub fn build(&self, key: &Digest, way: Way, snapshot: &Snapshot, keep: &BTreeSet<String>) -> Result<View, Error> {
        let name = name_of(key, way.form());
        let lock = self.lock(&name)?;
        if let Some(view) = self.find_locked(&name, key, way)? {
            return Ok(view);
        }
        let staging = temporary(NEW);
        let made = self
            .build_in(&staging, key, way.form(), snapshot, keep)
            .and_then(|built| {
                rustix::fs::renameat(&self.home, &staging, &self.home, &name)
                    .map_err(|e| Error::at("rename", &self.home.path().join(&staging), e))?;
                Ok(built)
            });
        let built = match made {
            Ok(built) => built,
            Err(error) => {
                // The first error is the one to report.
                let _ = fs::remove_dir_all(self.home.path().join(&staging));
                return Err(error);
            }
        };
        let layer = self
            .layer(&name)?
            .ok_or_else(|| Error::Missing(self.home.path().join(&name)))?;
        self.mark(&name, &layer)?;
        drop(lock);
        self.collect_if_full();
        Ok(self.view(&name, key, way, built.digest))
    }

    fn build_in(
        &self,
        staging: &str,
        key: &Digest,
        form: Form,
        snapshot: &Snapshot,
        keep: &BTreeSet<String>,
    ) -> Result<build::Built, Error> {
        let place = self.home.subdir(staging)?;
        let layer = place.subdir(LAYER)?;
        let layer: OwnedFd = layer
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::at("open", layer.path(), Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        let built = build::build(&snapshot.layers, keep, form, &layer)?;
        let description = Description {
            key: *key,
            form,
            digest: built.digest,
            names: built.names,
        };
        place.write_volatile(
            DESCRIPTION,
            serde_json::to_string(&description).unwrap_or_default().as_bytes(),
        )?;
        Ok(built)
    }

    fn find_locked(&self, name: &str, key: &Digest, way: Way) -> Result<Option<View>, Error> {
        let Some(layer) = self.layer(name)? else {
            if rustix::fs::statat(&self.home, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                self.set_aside(name)?;
            }
            return Ok(None);
        };
        let description = self.describe(name)?.filter(|d| d.key == *key && d.form == way.form());
        let seen = self.run.read(name, MAX_FILE)?;
        let seen = seen.and_then(|bytes| serde_json::from_slice::<Seen>(&bytes).ok());
        let whole = match (&description, seen) {
            (None, _) => false,
            (Some(_), Some(seen)) if seen == self.seen(name, &layer)? => {
                self.touch(name)?;
                true
            }
            (Some(description), _) => {
                let whole = matches!(record::of_layer(&layer), Ok((digest, _)) if digest == description.digest);
                if whole {
                    self.mark(name, &layer)?;
                }
                whole
            }
        };
        match description {
            Some(description) if whole => Ok(Some(self.view(name, key, way, description.digest))),
            _ => {
                self.set_aside(name)?;
                Ok(None)
            }
        }
    }

    fn set_aside(&self, name: &str) -> Result<(), Error> {
        let aside = format!("{}{name}", temporary(BROKEN));
        log::warn!(
            "the view {} is not what it was when it was built; it is set aside as {aside} and built again",
            self.home.path().join(name).display()
        );
        Ok(self.home.rename(name, &aside)?)
    }

    fn view(&self, name: &str, key: &Digest, way: Way, digest: Digest) -> View {
        View {
            key: *key,
            way,
            layer: self.home.path().join(name).join(LAYER),
            digest,
        }
    }

    fn lock(&self, name: &str) -> Result<store::Lock, Error> {
        Ok(self.run.lock(&format!("{name}.lock"))?)
    }

    fn layer(&self, name: &str) -> Result<Option<OwnedFd>, Error> {
        let at = |e| Error::at("open", &self.home.path().join(name).join(LAYER), e);
        let opened = open_one(self.home.as_fd(), name.as_ref(), OFlags::DIRECTORY)
            .and_then(|place| open_one(place.as_fd(), LAYER.as_ref(), OFlags::DIRECTORY));
        match opened {
            Ok(layer) => Ok(Some(layer)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(at(e)),
        }
    }

    fn describe(&self, name: &str) -> Result<Option<Description>, Error> {
        let bytes = self.home.subdir(name)?.read(DESCRIPTION, MAX_FILE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn seen(&self, name: &str, layer: &OwnedFd) -> Result<Seen, Error> {
        let stat = rustix::fs::fstat(layer).map_err(|e| Error::at("look at", &self.home.path().join(name), e))?;
        #[expect(clippy::useless_conversion, reason = "their types differ between architectures")]
        Ok(Seen {
            device: u64::from(stat.st_dev),
            inode: u64::from(stat.st_ino),
            // The number of a directory that was removed is given to the next one within the same second.
            changed: (i64::from(stat.st_ctime), u64::from(stat.st_ctime_nsec)),
        })
    }

    /// Notes that the view is whole, and used now.
    fn mark(&self, name: &str, layer: &OwnedFd) -> Result<(), Error> {
        let seen = serde_json::to_string(&self.seen(name, layer)?).unwrap_or_default();
        Ok(self.run.write_volatile(name, seen.as_bytes())?)
    }

    fn touch(&self, name: &str) -> Result<(), Error> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(&self.run, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::at("touch", &self.run.path().join(name), e))
    }

    fn collect_if_full(&self) {
        let collected = self
            .views()
            .map(|views| (views.len(), views.iter().map(|(_, names)| names).sum::<usize>()))
            .and_then(|(views, names)| {
                if views > MAX_VIEWS || names > MAX_NAMES {
                    self.collect(&Limits::default()).map(|_| ())
                } else {
                    Ok(())
                }
            });
        // A container does not wait for room that the next one needs.
        if let Err(error) = collected {
            log::warn!("unused views are not removed: {error}");
        }
    }

    /// Every whole view by name, with the number of its names.
    fn views(&self) -> Result<Vec<(String, usize)>, Error> {
        let mut views = Vec::new();
        for name in store::names(self.home.as_fd(), self.home.path())? {
            let name = name?;
            if key_in(&name).is_some() {
                let names = self.describe(&name)?.map_or(0, |description| description.names);
                views.push((name, names));
            }
        }
        Ok(views)
    }

    /// Removes what is not in use, longest unused first, until what stays is within `limits`; and what was never
    /// finished.
    ///
    /// # Errors
    /// A failing system call; what was removed before stays removed.
    pub fn collect(&self, limits: &Limits) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let now = SystemTime::now();
        let is_young = |time: Option<SystemTime>| {
            time.is_some_and(|time| now.duration_since(time).unwrap_or_default() < limits.grace)
        };
        for name in store::names(self.home.as_fd(), self.home.path())? {
            let name = name?;
            let left = [NEW, BROKEN, GONE, ".probe-"]
                .iter()
                .any(|start| name.starts_with(start));
            if left && !is_young(store::modified(self.home.as_fd(), Path::new(&name))) {
                self.remove(&name)?;
                collected.leftovers += 1;
            }
        }
        let mut views: Vec<_> = self
            .views()?
            .into_iter()
            .map(|(name, names)| (self.used(&name), name, names))
            .collect();
        views.sort_unstable();
        let (mut count, mut total) = (views.len(), views.iter().map(|(_, _, names)| names).sum::<usize>());
        if count <= limits.views && total <= limits.names {
            return Ok(collected);
        }
        let mounted = mounted_keys().map_err(|e| Error::at("read the tables of mounts in", Path::new("/proc"), e))?;
        for (_, name, names) in views {
            if count <= limits.views && total <= limits.names {
                break;
            }
            if key_in(&name).is_some_and(|key| mounted.contains(key)) {
                continue;
            }
            let lock = self.lock(&name)?;
            if is_young(self.used(&name)) {
                continue;
            }
            let gone = format!("{}{name}", temporary(GONE));
            self.home.rename(&name, &gone)?;
            self.run.remove(&name)?;
            drop(lock);
            self.remove(&gone)?;
            count -= 1;
            total -= names;
            collected.views += 1;
            collected.names += names;
        }
        Ok(collected)
    }

    /// When the view was last handed out; before this boot, when it was built.
    fn used(&self, name: &str) -> Option<SystemTime> {
        store::modified(self.run.as_fd(), Path::new(name))
            .or_else(|| store::modified(self.home.as_fd(), Path::new(name)))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.home.path().join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(
                "remove",
                &path,
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
            )),
            _ => Ok(()),
        }
    }
}

fn name_of(key: &Digest, form: Form) -> String {
    format!("{}.{}", key.hex(), form.name())
}

/// The key in the name of a view.
fn key_in(name: &str) -> Option<&str> {
    let (key, form) = name.split_once('.')?;
    let known = [Form::Metadata, Form::Whiteouts]
        .iter()
        .any(|known| known.name() == form);
    (known && key.len() == 64).then_some(key)
}

fn temporary(start: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!("{start}{}-{time:x}-{count}-", std::process::id())
}

/// Where views of `snapshot` go when the state is on another file system; `None` where it is on the same.
fn beside(own: &StateDir, snapshot: &Snapshot) -> Option<PathBuf> {
    let anchor = snapshot.upper.as_ref().or(snapshot.layers.first())?;
    let device = rustix::fs::stat(anchor).ok()?.st_dev;
    if rustix::fs::fstat(own).ok()?.st_dev == device {
        return None;
    }
    let snapshots = anchor.ancestors().find(|path| path.ends_with("snapshots"))?;
    // containerd's directory may be a link to another disk.
    let root = fs::canonicalize(snapshots.parent()?).ok()?;
    let same = rustix::fs::stat(&root).ok()?.st_dev == device;
    same.then(|| root.join(BESIDE))
}

/// Places outside of the state, one a line.
fn places(own: &StateDir) -> Result<BTreeSet<PathBuf>, Error> {
    let bytes = own.read(PLACES, MAX_FILE)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn remember(own: &StateDir, place: &Path) -> Result<(), Error> {
    if places(own)?.contains(place) {
        return Ok(());
    }
    let _lock = own.lock("places.lock")?;
    let mut known = places(own)?;
    known.insert(place.to_owned());
    let lines: Vec<String> = known.iter().map(|place| place.display().to_string()).collect();
    Ok(own.write(PLACES, (lines.join("\n") + "\n").as_bytes())?)
}

/// Everything in the tables of mounts that could be the key of a view: what is mounted in any mount namespace that a
/// process is in. The options of an overlay name its layers, and the key is in the path of each view's layer and in the
/// name of the first of two mounts.
fn mounted_keys() -> Result<BTreeSet<String>, Errno> {
    let failed = |e: io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let mut namespaces = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for process in fs::read_dir("/proc").map_err(failed)? {
        let process = process.map_err(failed)?.path();
        // Processes end while this is read, and kernel threads have nothing.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if namespaces.contains(&namespace) {
            continue;
        }
        let Ok(file) = fs::File::open(process.join("mountinfo")) else {
            continue;
        };
        let mut table = Vec::new();
        if file.take(MAX_TABLE).read_to_end(&mut table).is_ok() {
            namespaces.insert(namespace);
            collect_keys(&table, &mut keys);
        }
    }
    Ok(keys)
}

fn collect_keys(table: &[u8], keys: &mut BTreeSet<String>) {
    for word in table.split(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        if word.len() == 64 {
            keys.insert(String::from_utf8_lossy(word).into_owned());
        }
    }
}

#[cfg(test)]
mod tests;
