//! What the cache holds, for people. Nothing here is verified: it is what the evidence says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::content::{Content, Look, Sort};
use super::import::{ImportError, MAX_CONFIG};
use super::{IMAGE, SUBJECTS};
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Index, Layout, LayoutError, Manifest};
use crate::store::{self, StateDir};

/// A manifest with signatures or attestations.
#[derive(Debug, Clone, Serialize)]
pub struct Piece {
    /// Its digest.
    pub manifest: Digest,
    /// What it is about, by its payloads, or where they cannot be read, by what is written around them.
    pub about: Vec<Digest>,
    /// What its layers are, in their order.
    pub contents: Vec<Look>,
    /// Bytes of manifest, configuration and layers together.
    pub size: u64,
    /// When it came into the cache, in seconds since 1970.
    pub since: u64,
    /// Why it cannot be used; empty where nothing was seen that keeps it from it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// An image that was pulled or imported with its evidence.
#[derive(Debug, Clone, Serialize)]
pub struct KnownImage {
    /// Its index, or its manifest.
    pub digest: Digest,
    /// Names under which it was pulled.
    pub names: Vec<String>,
    /// What the index lists.
    pub manifests: Vec<Digest>,
}

/// All of the cache.
#[derive(Debug, Default, Serialize)]
pub struct Inventory {
    /// Evidence, in the order of its digests.
    pub pieces: Vec<Piece>,
    /// Images, in the order of their digests.
    pub images: Vec<KnownImage>,
}

/// Lists what is in the cache.
///
/// # Errors
/// An index that cannot be read. Evidence that cannot be is in the list with its problem.
pub fn inventory(evidence: &StateDir) -> Result<Inventory, LayoutError> {
    let layout = Layout::new(evidence.as_fd());
    let entries = match layout.index() {
        Ok(entries) => entries,
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut inventory = Inventory::default();
    for entry in entries {
        if let Some(names) = entry.annotations.get(IMAGE) {
            let manifests = match layout.nested_index(&entry) {
                Ok(Index { manifests }) => manifests.into_iter().map(|child| child.digest).collect(),
                Err(_) => Vec::new(),
            };
            inventory.images.push(KnownImage {
                digest: entry.digest,
                names: names
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                manifests,
            });
        } else if oci::is_manifest(&entry.media_type) {
            inventory.pieces.extend(piece(evidence, &entry));
        }
    }
    Ok(inventory)
}

/// `None` for a manifest that is no evidence, which another tool put there.
fn piece(evidence: &StateDir, entry: &Descriptor) -> Option<Piece> {
    let layout = Layout::new(evidence.as_fd());
    let since = since(evidence, entry.digest).and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
    let mut piece = Piece {
        manifest: entry.digest,
        about: about(entry),
        contents: Vec::new(),
        size: entry.size,
        since: since.unwrap_or_default().as_secs(),
        problem: String::new(),
    };
    let manifest = match layout.manifest(entry) {
        Ok(manifest) => manifest,
        Err(error) => {
            piece.problem = error.to_string();
            return Some(piece);
        }
    };
    let layers = match Sort::of(&manifest) {
        Sort::Evidence(layers) => layers,
        Sort::Mixed(_) | Sort::Other(_) => return None,
    };
    piece.size += manifest.config.size;
    for (layer, content) in &layers {
        piece.size += layer.size;
        match layout.blob(layer, content.limit()) {
            Ok(bytes) => {
                piece.contents.push(content.look(layer, &bytes));
                if piece.about.is_empty() {
                    piece.about = content.subjects(&bytes).unwrap_or_default();
                }
            }
            Err(error) => piece.problem = error.to_string(),
        }
    }
    if piece.about.is_empty() {
        piece.about.extend(manifest.subject.map(|subject| subject.digest));
    }
    Some(piece)
}

fn about(entry: &Descriptor) -> Vec<Digest> {
    let list = entry.annotations.get(SUBJECTS).map(String::as_str).unwrap_or_default();
    list.split(',').filter_map(|digest| digest.parse().ok()).collect()
}

fn since(evidence: &StateDir, digest: Digest) -> Option<SystemTime> {
    store::modified(evidence.as_fd(), Path::new(&format!("blobs/sha256/{}", digest.hex())))
}

impl Inventory {
    /// The digests that `image` is known by: itself, what its index lists and, where it is a name or the start of a
    /// digest, what that stands for. Empty where that is nothing.
    #[must_use]
    pub fn digests(&self, image: &Wanted) -> BTreeSet<Digest> {
        let mut found: BTreeSet<Digest> = match image {
            Wanted::Digest(digest) => BTreeSet::from([*digest]),
            Wanted::Start(start) => {
                let pieces = self
                    .pieces
                    .iter()
                    .flat_map(|piece| piece.about.iter().chain([&piece.manifest]));
                let images = self
                    .images
                    .iter()
                    .flat_map(|image| image.manifests.iter().chain([&image.digest]));
                let known = pieces.chain(images).copied();
                known.filter(|digest| digest.to_string().starts_with(start)).collect()
            }
            Wanted::Name(name) => {
                let named = self.images.iter().filter(|known| known.names.contains(name));
                named.map(|known| known.digest).collect()
            }
        };
        for known in &self.images {
            if found.contains(&known.digest) {
                found.extend(&known.manifests);
            }
        }
        found
    }

    /// The evidence about `digests`, and the evidence about that: signatures of attestations.
    #[must_use]
    pub fn about(&self, digests: &BTreeSet<Digest>) -> Vec<&Piece> {
        let mut wanted = digests.clone();
        let mut found = BTreeMap::new();
        loop {
            let before = found.len();
            for piece in &self.pieces {
                if wanted.contains(&piece.manifest) || piece.about.iter().any(|digest| wanted.contains(digest)) {
                    found.insert(piece.manifest, piece);
                }
            }
            if found.len() == before {
                return found.into_values().collect();
            }
            wanted.extend(found.keys());
        }
    }
}

/// Fewest hexadecimal digits that stand for a digest.
const MIN_START: usize = 8;

/// What is asked for: an image, or a piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// By digest.
    Digest(Digest),
    /// By the start of a digest, as refusals print it.
    Start(String),
    /// By name, in its normal form.
    Name(String),
}

impl std::str::FromStr for Wanted {
    type Err = oci::InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        let is_start = |hex: &str| hex.len() >= MIN_START && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.strip_prefix("sha256:").is_some_and(is_start) {
            return Ok(Self::Start(text.to_ascii_lowercase()));
        }
        let reference: oci::Reference = text.parse()?;
        Ok(match reference.digest() {
            Some(digest) => Self::Digest(digest),
            None => Self::Name(reference.to_string()),
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "{digest}"),
            Self::Start(text) | Self::Name(text) => f.write_str(text),
        }
    }
}

/// All blobs that some entries of the index lead to, as far as they are there.
pub(super) fn reachable<'a>(
    evidence: &StateDir,
    entries: impl Iterator<Item = &'a Descriptor>,
) -> Result<BTreeSet<Digest>, ImportError> {
    let layout = Layout::new(evidence.as_fd());
    let mut found = BTreeSet::new();
    let mut waiting: Vec<Descriptor> = entries.cloned().collect();
    while let Some(next) = waiting.pop() {
        if !found.insert(next.digest) {
            continue;
        }
        if oci::is_index(&next.media_type) {
            waiting.extend(
                layout
                    .nested_index(&next)
                    .map(|index| index.manifests)
                    .unwrap_or_default(),
            );
        } else if oci::is_manifest(&next.media_type)
            && let Ok(Manifest { config, layers, .. }) = layout.manifest(&next)
        {
            found.extend(layers.iter().chain([&config]).map(|blob| blob.digest));
        }
    }
    Ok(found)
}

/// Largest blob that evidence can be made of.
pub(super) const LARGEST: u64 = if Content::LARGEST > MAX_CONFIG {
    Content::LARGEST
} else {
    MAX_CONFIG
};
