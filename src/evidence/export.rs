//! Writing evidence into one tar, for nodes that have no network.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsFd as _;

use super::import::{self, ImportError, LAYOUT, LAYOUT_VERSION, LOCK};
use super::inventory::{Inventory, LARGEST, Wanted, inventory, reachable};
use super::{IMAGE, import::INDEX};
use crate::digest::Digest;
use crate::oci::{Descriptor, Layout, LayoutError};
use crate::store::{self, StateDir};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is no evidence about some of what is wanted, so that the tar would be incomplete.
    #[error(
        "the cache holds no evidence about {}; what there is: assay evidence ls",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Absent(Vec<Wanted>),
    /// The cache cannot be read.
    #[error("{0}; run: assay evidence import PATH, with a whole copy of the evidence")]
    Layout(#[from] LayoutError),
    /// The cache cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The index of the tar cannot be written.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The tar cannot be written.
    #[error("cannot write the tar: {0}")]
    Write(#[from] std::io::Error),
}

/// What an export holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Manifests with evidence.
    pub evidence: usize,
    /// Blobs, all together.
    pub blobs: usize,
}

/// Writes the evidence about `wanted`, or all that there is, as a tar with an OCI image layout. The same evidence
/// gives the same bytes.
///
/// # Errors
/// See [`ExportError`].
pub fn export(evidence: &StateDir, wanted: &[Wanted], to: impl Write) -> Result<Exported, ExportError> {
    // What is being written must not be cleared away meanwhile.
    let _lock = evidence.lock(LOCK)?;
    let layout = Layout::new(evidence.as_fd());
    let mut entries = layout.index()?;
    if !wanted.is_empty() {
        let known = inventory(evidence)?;
        let absent = |one: &&Wanted| known.about(&known.digests(one)).is_empty();
        let absent: Vec<Wanted> = wanted.iter().filter(absent).cloned().collect();
        if !absent.is_empty() {
            return Err(ExportError::Absent(absent));
        }
        let chosen = chosen(&known, wanted);
        entries.retain(|entry| chosen.contains(&entry.digest));
    }
    entries.sort_by_key(|entry| entry.digest);
    let blobs = reachable(evidence, entries.iter())?;
    let mut tar = tar::Builder::new(to);
    add(&mut tar, LAYOUT, LAYOUT_VERSION)?;
    add(&mut tar, INDEX, &import::index(entries.iter())?)?;
    let mut count = 0;
    for digest in blobs {
        match layout.blob_by_digest(digest, LARGEST) {
            Ok(bytes) => add(&mut tar, &format!("blobs/sha256/{}", digest.hex()), &bytes)?,
            // An index lists platforms that this cache need not have.
            Err(error) if error.is_missing() => continue,
            // Nor does it need the layers of images that another tool put there.
            Err(LayoutError::Store(store::Error::TooLarge { .. })) => continue,
            Err(error) => return Err(error.into()),
        }
        count += 1;
    }
    tar.into_inner()?.flush()?;
    let is_evidence = |entry: &&Descriptor| !entry.annotations.contains_key(IMAGE);
    Ok(Exported {
        evidence: entries.iter().filter(is_evidence).count(),
        blobs: count,
    })
}

fn chosen(known: &Inventory, wanted: &[Wanted]) -> BTreeSet<Digest> {
    let digests: BTreeSet<Digest> = wanted.iter().flat_map(|one| known.digests(one)).collect();
    let evidence = known.about(&digests).into_iter().map(|piece| piece.manifest);
    // The image's own documents go along: its index for any of its platforms.
    let images = known.images.iter().filter(|image| {
        digests.contains(&image.digest) || image.manifests.iter().any(|manifest| digests.contains(manifest))
    });
    evidence.chain(images.map(|image| image.digest)).collect()
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, bytes)
}
