//! Which entries of the layout's index are about which digest, so that a question about one image need not read
//! about ten thousand others.
//!
//! Beside `index.json` lies a folder with a file per digest, and one for the entries that are not known to be about
//! anything. They are used only while a stamp says that they were made from the `index.json` that is there; a layout
//! that another tool wrote to, or that was left in the middle of a change, is read as a whole. They are a short cut
//! to the same entries, never evidence of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SUBJECTS;
use super::import::INDEX;
use crate::digest::Digest;
use crate::oci::{Descriptor, Layout, LayoutError, MAX_LAYOUT_INDEX, json};
use crate::store::{self, Stamp, StateDir};

const FOLDER: &str = "subjects";
const UNKNOWN: &str = "unknown.json";
const STAMP: &str = "stamp.json";
/// Largest stamp in bytes.
const MAX_STAMP: u64 = 4096;
/// Times of files move in steps of some milliseconds; after this wait, a change has another time.
const TICK: Duration = Duration::from_millis(20);
/// From this many files on, all are made durable together.
const MANY: usize = 32;

/// Entries of the index by their digest.
pub(super) type Entries = BTreeMap<Digest, Descriptor>;

/// What the index says about some digests.
#[derive(Debug)]
pub(super) struct Listed {
    /// Entries that may be about them, in the order of their digests where the short cut was used.
    pub(super) entries: Vec<Descriptor>,
    /// Whether the index has no entry at all.
    pub(super) empty: bool,
}

/// Proof that the other files of the folder belong to an `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    index: Stamp,
    /// How many entries it has.
    entries: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    manifests: Vec<Descriptor>,
}

/// The entries of the layout's index that may be about one of `subjects`; others may be among them.
///
/// # Errors
/// An index that is missing or unusable.
pub(super) fn listed<'a>(
    root: BorrowedFd<'_>,
    subjects: impl Iterator<Item = &'a Digest>,
) -> Result<Listed, LayoutError> {
    if let Some(Proof { entries: count, .. }) = proof(root)
        && let Some(entries) = short_cut(root, subjects)
    {
        return Ok(Listed {
            entries,
            empty: count == 0,
        });
    }
    let entries = Layout::new(root).index()?;
    Ok(Listed {
        empty: entries.is_empty(),
        entries,
    })
}

/// Names of the files that say which evidence there is about `subjects`; while all of them are as they were, or as
/// absent, so is the answer of [`listed`].
pub(super) fn rests_on(root: BorrowedFd<'_>, subjects: &[Digest]) -> Vec<String> {
    if proof(root).is_none() {
        return vec![INDEX.to_owned()];
    }
    let unknown = format!("{FOLDER}/{UNKNOWN}");
    subjects.iter().map(path).chain([unknown]).collect()
}

/// The stamp, when it fits the index that is there.
fn proof(root: BorrowedFd<'_>) -> Option<Proof> {
    let name = format!("{FOLDER}/{STAMP}");
    let bytes = store::read_beneath(root, Path::new(""), Path::new(&name), MAX_STAMP).ok()?;
    let proof: Proof = json::parse(&bytes).ok()?;
    (Stamp::of(root, INDEX).as_ref() == Some(&proof.index)).then_some(proof)
}

/// `None` when a file cannot be read: then the whole index has to be.
fn short_cut<'a>(root: BorrowedFd<'_>, subjects: impl Iterator<Item = &'a Digest>) -> Option<Vec<Descriptor>> {
    let unknown = format!("{FOLDER}/{UNKNOWN}");
    let mut entries = Entries::new();
    for name in subjects.map(path).chain([unknown]) {
        let bytes = match store::read_beneath(root, Path::new(""), Path::new(&name), MAX_LAYOUT_INDEX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => continue,
            Err(_) => return None,
        };
        let list: List = json::parse(&bytes).ok()?;
        entries.extend(list.manifests.into_iter().map(|entry| (entry.digest, entry)));
    }
    Some(entries.into_values().collect())
}

fn path(subject: &Digest) -> String {
    let (folder, name) = place(subject);
    format!("{FOLDER}/{folder}/{name}")
}

/// Folder and name of a digest's file: some file systems are slow with many names in one folder.
fn place(subject: &Digest) -> (String, String) {
    let hex = subject.hex();
    let (folder, name) = hex.split_at(2);
    (folder.to_owned(), format!("{name}.json"))
}

/// Whether the short cut fits the index that is there. Only for a caller that holds the lock of the cache.
pub(super) fn in_step(root: BorrowedFd<'_>) -> bool {
    proof(root).is_some()
}

/// Has everybody read the whole index until [`write`] is done.
///
/// # Errors
/// A cache that cannot be written.
pub(super) fn invalidate(root: &StateDir) -> Result<(), store::Error> {
    let folder = root.subdir(FOLDER)?;
    folder.remove(STAMP)?;
    folder.sync()
}

/// Brings the files into step with `index.json`, which has just been written as `bytes` from `after`. `before` is
/// what they were made from, where that is known.
///
/// # Errors
/// A cache that cannot be written.
pub(super) fn write(
    root: &StateDir,
    before: Option<&Entries>,
    after: &Entries,
    bytes: &[u8],
) -> Result<(), store::Error> {
    let folder = root.subdir(FOLDER)?;
    let old = before.map(by_subject).unwrap_or_default();
    let new = by_subject(after);
    let changed: Vec<&Key> = new
        .keys()
        .chain(old.keys())
        .filter(|key| before.is_none() || old.get(*key) != new.get(*key))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let many = changed.len() >= MANY;
    let mut touched: BTreeMap<String, StateDir> = BTreeMap::new();
    if before.is_none() {
        remove_strangers(&folder, &new)?;
    }
    for key in changed {
        let (name, folder) = match key {
            None => (UNKNOWN.to_owned(), &folder),
            Some(subject) => {
                let (place, name) = place(subject);
                let known = match touched.entry(place) {
                    std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::btree_map::Entry::Vacant(vacant) => {
                        let opened = folder.subdir(vacant.key())?;
                        vacant.insert(opened)
                    }
                };
                (name, &*known)
            }
        };
        match new.get(key) {
            None => folder.remove(&name)?,
            Some(entries) => {
                let list = List {
                    manifests: entries.iter().map(|entry| (*entry).clone()).collect(),
                };
                // Strings, numbers and lists: there is always a JSON form.
                let bytes = serde_json::to_vec(&list).unwrap_or_default();
                if many {
                    folder.write_volatile(&name, &bytes)?;
                } else {
                    folder.write_unsynced(&name, &bytes)?;
                }
            }
        }
    }
    if many {
        root.sync_file_system()?;
    } else {
        for folder in touched.values().chain([&folder]) {
            folder.sync()?;
        }
    }
    // Whoever changes the index from now on gives it another time than it has.
    std::thread::sleep(TICK);
    let stamp = Stamp::of(std::os::fd::AsFd::as_fd(root), INDEX);
    let same = root.read(INDEX, MAX_LAYOUT_INDEX)?.as_deref() == Some(bytes);
    if let (Some(index), true) = (stamp, same) {
        let proof = Proof {
            index,
            entries: after.len(),
        };
        folder.write(STAMP, &serde_json::to_vec(&proof).unwrap_or_default())?;
    }
    Ok(())
}

/// A digest, or `None` for entries that are not known to be about any.
type Key = Option<Digest>;

fn by_subject(entries: &Entries) -> BTreeMap<Key, Vec<&Descriptor>> {
    let mut lists: BTreeMap<Key, Vec<&Descriptor>> = BTreeMap::new();
    for entry in entries.values() {
        match entry.annotations.get(SUBJECTS) {
            None => lists.entry(None).or_default().push(entry),
            Some(subjects) => {
                let subjects: BTreeSet<Digest> = subjects.split(',').filter_map(|one| one.parse().ok()).collect();
                for subject in subjects {
                    lists.entry(Some(subject)).or_default().push(entry);
                }
            }
        }
    }
    lists
}

/// Removes the files of digests about which there is nothing.
fn remove_strangers(folder: &StateDir, lists: &BTreeMap<Key, Vec<&Descriptor>>) -> Result<(), store::Error> {
    use std::os::fd::AsFd as _;
    let wanted: BTreeSet<(String, String)> = lists.keys().flatten().map(place).collect();
    if !lists.contains_key(&None) {
        folder.remove(UNKNOWN)?;
    }
    for place in store::names(folder.as_fd(), folder.path())? {
        let place = place?;
        if place.len() != 2 {
            continue;
        }
        let inner = folder.subdir(&place)?;
        inner.remove_abandoned()?;
        for name in store::names(inner.as_fd(), inner.path())? {
            let key = (place.clone(), name?);
            if !wanted.contains(&key) {
                inner.remove(&key.1)?;
            }
        }
    }
    Ok(())
}
