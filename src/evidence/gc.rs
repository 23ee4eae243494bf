//! Clearing the cache of what nobody needs any more.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use super::IMAGE;
use super::import::{self, Cache, ImportError, LOCK, Report};
use super::inventory::{Inventory, Piece, inventory, reachable};
use super::source::Source;
use super::subjects::Entries;
use crate::digest::Digest;
use crate::oci::LayoutError;
use crate::store::{self, StateDir};

/// Why nothing was cleared, or not everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// The cache cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The cache cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The index cannot be brought up to date.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// What may go. Evidence goes when all that is asked for here holds of it; when nothing is asked for, none does.
#[derive(Debug, Clone, Default)]
pub struct Unneeded {
    /// Only what has been in the cache for longer.
    pub older_than: Option<Duration>,
    /// Only what is about none of these images, nor about evidence about them.
    pub not_about: Option<BTreeSet<Digest>>,
    /// Never these pieces, nor what they are about: a container that exists was decided on them.
    pub used: BTreeSet<Digest>,
    /// Never anything about these images: containers run that were made from them, and it is not known what they
    /// were decided on.
    pub in_use: BTreeSet<Digest>,
}

/// What was cleared, or would be.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Evidence.
    pub pieces: Vec<Piece>,
    /// Blobs, those of the evidence included.
    pub blobs: usize,
    /// Bytes of all blobs together.
    pub bytes: u64,
}

/// Removes from the cache what is not needed, and blobs that nothing leads to. `dry_run` only tells.
///
/// The index is written first and blobs go after it: whenever this is interrupted, a whole layout is left.
///
/// # Errors
/// See [`GcError`].
pub fn gc(evidence: &StateDir, unneeded: &Unneeded, dry_run: bool) -> Result<Cleared, GcError> {
    let _lock = evidence.lock(LOCK)?;
    let mut cache = Cache::open(evidence)?;
    // What another tool left in no index is evidence all the same.
    let mut entries = cache.index()?.unwrap_or_default();
    import::scan(
        &Source::folder(evidence).map_err(ImportError::from)?,
        &cache,
        &mut entries,
        &mut Report::default(),
    )?;
    if !dry_run {
        cache.write_index(&entries)?;
    }
    let known = inventory(evidence)?;
    let goes = going(&known, unneeded);
    let before = entries.clone();
    entries.retain(|digest, _| !goes.contains(digest));
    drop_images(&known, &before, &mut entries);
    if !dry_run {
        cache.note(&before)?;
        cache.write_index(&entries)?;
    }
    let needed = reachable(evidence, entries.values())?;
    let blobs = evidence.subdir("blobs")?.subdir("sha256")?;
    let mut cleared = Cleared {
        pieces: known
            .pieces
            .into_iter()
            .filter(|piece| goes.contains(&piece.manifest))
            .collect(),
        ..Cleared::default()
    };
    for name in store::names(blobs.as_fd(), blobs.path())? {
        let name = name?;
        let is_needed = format!("sha256:{name}")
            .parse()
            .is_ok_and(|digest| needed.contains(&digest));
        if is_needed {
            continue;
        }
        cleared.blobs += 1;
        cleared.bytes += blobs.size(&name)?;
        if !dry_run {
            blobs.remove(&name)?;
        }
    }
    if !dry_run {
        blobs.sync()?;
    }
    Ok(cleared)
}

fn going(known: &Inventory, unneeded: &Unneeded) -> BTreeSet<Digest> {
    if unneeded.older_than.is_none() && unneeded.not_about.is_none() {
        return BTreeSet::new();
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let young = |piece: &Piece| {
        unneeded
            .older_than
            .is_some_and(|age| now.saturating_sub(Duration::from_secs(piece.since)) <= age)
    };
    let set = |digests: &BTreeSet<Digest>| -> BTreeSet<Digest> {
        known.about(digests).into_iter().map(|piece| piece.manifest).collect()
    };
    let about_images = unneeded.not_about.as_ref().map(set).unwrap_or_default();
    let about_used = set(&unneeded.in_use);
    let mut stays: BTreeSet<Digest> = known
        .pieces
        .iter()
        .filter(|piece| {
            young(piece)
                || about_images.contains(&piece.manifest)
                || about_used.contains(&piece.manifest)
                || unneeded.used.contains(&piece.manifest)
                // Nobody knows whether an image on this node needs it.
                || (piece.about.is_empty() && unneeded.not_about.is_some())
        })
        .map(|piece| piece.manifest)
        .collect();
    let all: BTreeSet<Digest> = known.pieces.iter().map(|piece| piece.manifest).collect();
    // A signature of an attestation is worth nothing without the attestation.
    loop {
        let linked: Vec<Digest> = known
            .pieces
            .iter()
            .filter(|piece| stays.contains(&piece.manifest))
            .flat_map(|piece| &piece.about)
            .copied()
            .collect();
        let before = stays.len();
        stays.extend(linked.into_iter().filter(|digest| all.contains(digest)));
        if stays.len() == before {
            break;
        }
    }
    all.difference(&stays).copied().collect()
}

/// Takes images out of the index of which the last evidence goes. One that never had any stays.
fn drop_images(known: &Inventory, before: &Entries, after: &mut Entries) {
    let about = |entries: &Entries| -> BTreeSet<Digest> {
        let pieces = known
            .pieces
            .iter()
            .filter(|piece| entries.contains_key(&piece.manifest));
        pieces.flat_map(|piece| piece.about.iter().copied()).collect()
    };
    let (once, still) = (about(before), about(after));
    for image in &known.images {
        let is_in = |digests: &BTreeSet<Digest>| {
            digests.contains(&image.digest) || image.manifests.iter().any(|manifest| digests.contains(manifest))
        };
        let listed = after
            .get(&image.digest)
            .is_some_and(|entry| entry.annotations.contains_key(IMAGE));
        if listed && is_in(&once) && !is_in(&still) {
            after.remove(&image.digest);
        }
    }
}
