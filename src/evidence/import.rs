//! Filling the evidence cache from layouts that other tools wrote.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::content::{Content, Sort};
use super::source::{Source, SourceError};
use super::subjects::{self, Entries};
use super::{IMAGE, REF_NAME, SUBJECTS, tagged_digest};
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Layout, LayoutError, MAX_LAYOUT_INDEX, Manifest, Reference, json};
use crate::store::{self, StateDir};
use crate::verify::Problem;

/// Largest configuration blob of evidence in bytes.
pub(super) const MAX_CONFIG: u64 = 1 << 20;
/// Most digests in one [`SUBJECTS`] annotation; an entry with more gets none and is always looked at.
const MAX_ANNOTATED: usize = 16;
/// Most names of an image that are kept.
const MAX_NAMES: usize = 8;
/// Longest artifact type that is kept in the index, where every question has to read it.
const MAX_ARTIFACT_TYPE: usize = 255;

pub(super) const LAYOUT_VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
pub(super) const LOCK: &str = ".lock";
pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
const CORRUPT_INDEX: &str = "index.json.corrupt";

/// Why an import failed as a whole. What was copied before stays and does no harm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A path cannot be imported from.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The evidence cache cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The index of the evidence cache has no room.
    #[error("the evidence cache is full: its index would have {size} bytes, more than {MAX_LAYOUT_INDEX}")]
    Full {
        /// What the index would have.
        size: usize,
    },
    /// The index cannot be written as JSON.
    #[error("cannot write the index of the evidence cache: {0}")]
    Index(serde_json::Error),
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    /// Manifests that are new in the cache.
    pub imported: Vec<Item>,
    /// Manifests that were there already.
    pub present: Vec<Item>,
    /// What looked like evidence and was not taken.
    pub skipped: Vec<Skipped>,
    /// True when the cache's own index was corrupt, was set aside and was built anew from the blobs.
    pub rebuilt: bool,
}

/// A manifest with signatures or attestations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its digest.
    pub manifest: Digest,
    /// Digests that its payloads name.
    pub subjects: Vec<Digest>,
}

/// Something that was not taken.
#[derive(Debug)]
pub struct Skipped {
    /// Where it was.
    pub source: PathBuf,
    /// What it was.
    pub blob: Digest,
    /// Why.
    pub reason: SkipReason,
}

/// Why something was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// A blob is missing, corrupt or too large.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Not an acceptable manifest.
    #[error(transparent)]
    Manifest(#[from] oci::Error),
    /// A payload that cannot be read.
    #[error(transparent)]
    Payload(#[from] Problem),
    /// It is attached to an image and holds neither signatures nor attestations.
    #[error("its layers are of type '{0}', which is neither a signature nor an attestation")]
    Unsupported(String),
    /// Signatures beside something else.
    #[error("it holds layers of type '{0}' beside signatures")]
    Mixed(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rebuilt {
            writeln!(
                f,
                "rebuilt   the index of the cache was corrupt; it is kept as {CORRUPT_INDEX}"
            )?;
        }
        for (word, items) in [("imported ", &self.imported), ("present  ", &self.present)] {
            for item in items {
                let subjects: Vec<_> = item.subjects.iter().map(Digest::to_string).collect();
                writeln!(f, "{word} {} about {}", item.manifest, subjects.join(", "))?;
            }
        }
        for Skipped { source, blob, reason } in &self.skipped {
            writeln!(f, "skipped   {blob} in {}: {reason}", source.display())?;
        }
        write!(
            f,
            "{} imported, {} already present, {} skipped",
            self.imported.len(),
            self.present.len(),
            self.skipped.len()
        )
    }
}

/// Copies the signatures and attestations in the layouts at `paths` into the cache `evidence`. Of the images
/// themselves, only manifests and indexes are.
///
/// Imports may run at the same time, and a container may be judged meanwhile: blobs come first, the index last
/// and at once. Importing again changes nothing.
///
/// # Errors
/// A path that is no layout, before anything is written; or a cache that cannot be written. What is wrong with
/// single blobs is in the report instead.
pub fn import(evidence: &StateDir, paths: &[PathBuf]) -> Result<Report, ImportError> {
    let sources = paths
        .iter()
        .map(|path| Source::open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let _lock = evidence.lock(LOCK)?;
    let mut cache = Cache::open(evidence)?;
    let mut report = Report::default();
    let mut known = Entries::new();
    match cache.index()? {
        Some(entries) => known = entries,
        None => {
            report.rebuilt = true;
            scan(&Source::folder(evidence)?, &cache, &mut known, &mut report)?;
        }
    }
    for source in &sources {
        scan(source, &cache, &mut known, &mut report)?;
    }
    cache.blobs.sync()?;
    cache.write_index(&known)?;
    Ok(report)
}

pub(super) struct Cache<'a> {
    root: &'a StateDir,
    blobs: StateDir,
    /// The index as it was, with its entries.
    before: Option<(Vec<u8>, Entries)>,
}

impl<'a> Cache<'a> {
    pub(super) fn open(root: &'a StateDir) -> Result<Self, store::Error> {
        let blobs = root.subdir("blobs")?.subdir("sha256")?;
        for dir in [root, &blobs] {
            dir.remove_abandoned()?;
        }
        Ok(Self {
            root,
            blobs,
            before: None,
        })
    }

    fn layout(&self) -> Layout<BorrowedFd<'_>> {
        Layout::new(self.root.as_fd())
    }

    /// The entries so far; `None` when the index is corrupt, which is then set aside.
    pub(super) fn index(&mut self) -> Result<Option<Entries>, ImportError> {
        if self.root.read(LAYOUT, MAX_LAYOUT_INDEX)?.is_none() {
            self.root.write(LAYOUT, LAYOUT_VERSION)?;
        }
        match self.layout().index() {
            Ok(entries) => {
                let entries: Entries = entries.into_iter().map(|entry| (entry.digest, entry)).collect();
                let bytes = self.root.read(INDEX, MAX_LAYOUT_INDEX)?;
                self.before = bytes.map(|bytes| (bytes, entries.clone()));
                Ok(Some(entries))
            }
            Err(error) if error.is_missing() => Ok(Some(Entries::new())),
            Err(LayoutError::Store(error @ store::Error::Io { .. })) => Err(error.into()),
            Err(_) => {
                self.root.write(LAYOUT, LAYOUT_VERSION)?;
                self.root.rename(INDEX, CORRUPT_INDEX)?;
                Ok(None)
            }
        }
    }

    /// Copies a manifest with its configuration and layers. The inner error is the source's fault.
    fn copy(&self, layout: &Layout<&Source>, candidate: &Candidate) -> Result<Result<(), SkipReason>, store::Error> {
        let layers = candidate.layers.iter().map(|(layer, content)| (layer, content.limit()));
        for (descriptor, limit) in std::iter::once((&candidate.manifest.config, MAX_CONFIG)).chain(layers) {
            match layout.blob(descriptor, limit) {
                Ok(bytes) => self.add(descriptor.digest, &bytes)?,
                Err(error) => return Ok(Err(error.into())),
            }
        }
        self.add(candidate.digest, &candidate.bytes)?;
        Ok(Ok(()))
    }

    /// Copies a blob unless it is there and whole.
    fn add(&self, digest: Digest, bytes: &[u8]) -> Result<(), store::Error> {
        if self.layout().blob_by_digest(digest, bytes.len() as u64).is_ok() {
            return Ok(());
        }
        self.blobs.write_unsynced(&digest.hex(), bytes)
    }

    /// Takes what was just written for what was there before.
    pub(super) fn note(&mut self, entries: &Entries) -> Result<(), ImportError> {
        self.before = Some((index(entries.values())?, entries.clone()));
        Ok(())
    }

    pub(super) fn write_index(&self, entries: &Entries) -> Result<(), ImportError> {
        let bytes = index(entries.values())?;
        let in_step = subjects::in_step(self.root.as_fd());
        let unchanged = self.before.as_ref().is_some_and(|(before, _)| *before == bytes);
        if unchanged && in_step {
            return Ok(());
        }
        subjects::invalidate(self.root)?;
        if !unchanged {
            self.root.write(INDEX, &bytes)?;
        }
        let before = self.before.as_ref().filter(|_| in_step).map(|(_, entries)| entries);
        subjects::write(self.root, before, entries, &bytes)?;
        Ok(())
    }
}

pub(super) fn index<'a>(entries: impl Iterator<Item = &'a Descriptor>) -> Result<Vec<u8>, ImportError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u64,
        media_type: &'static str,
        manifests: Vec<&'a Descriptor>,
    }
    let index = Index {
        schema_version: 2,
        media_type: oci::INDEX,
        manifests: entries.collect(),
    };
    let bytes = serde_json::to_vec(&index).map_err(ImportError::Index)?;
    if bytes.len() as u64 > MAX_LAYOUT_INDEX {
        return Err(ImportError::Full { size: bytes.len() });
    }
    Ok(bytes)
}

/// Makes a folder whose blobs are there an image layout.
pub(super) fn write_layout<'a>(
    root: &StateDir,
    entries: impl Iterator<Item = &'a Descriptor>,
) -> Result<(), ImportError> {
    root.write(LAYOUT, LAYOUT_VERSION)?;
    root.write(INDEX, &index(entries)?)?;
    Ok(())
}

/// Looks at every blob of a source: what `cosign save` writes is in no index.
pub(super) fn scan(
    source: &Source,
    cache: &Cache<'_>,
    known: &mut Entries,
    report: &mut Report,
) -> Result<(), ImportError> {
    let layout = Layout::new(source);
    // A corrupt index of a source costs its hints only.
    let entries = layout.index().unwrap_or_default();
    let listed: HashMap<Digest, &str> = entries
        .iter()
        .map(|entry| (entry.digest, entry.media_type.as_str()))
        .collect();
    let mut blobs = source.blobs()?;
    blobs.extend(
        listed
            .keys()
            .filter(|digest| blobs.binary_search(digest).is_err())
            .copied()
            .collect::<Vec<_>>(),
    );
    for digest in blobs {
        let checked = candidate(&layout, digest, listed.get(&digest).copied()).and_then(|candidate| match candidate {
            Some(candidate) => Ok(Some((subjects(&layout, &candidate)?, candidate))),
            None => Ok(None),
        });
        let (subjects, candidate) = match checked {
            Ok(Some(checked)) => checked,
            Ok(None) => continue,
            Err(reason) => {
                report.skipped.push(Skipped {
                    source: source.path().to_owned(),
                    blob: digest,
                    reason,
                });
                continue;
            }
        };
        if let Err(reason) = cache.copy(&layout, &candidate)? {
            report.skipped.push(Skipped {
                source: source.path().to_owned(),
                blob: digest,
                reason,
            });
            continue;
        }
        let before = known.get(&digest);
        let entry = candidate.entry(before, &subjects);
        let list = if before == Some(&entry) {
            &mut report.present
        } else {
            &mut report.imported
        };
        list.push(Item {
            manifest: digest,
            subjects: subjects.into_iter().collect(),
        });
        known.insert(digest, entry);
    }
    for listed in &entries {
        let before = known.get(&listed.digest);
        if before.is_some_and(|before| !before.annotations.contains_key(IMAGE)) {
            continue;
        }
        if let Some(entry) = image(&layout, listed, before, cache)? {
            known.insert(listed.digest, entry);
        }
    }
    Ok(())
}

/// A manifest that carries signatures.
struct Candidate {
    digest: Digest,
    bytes: Vec<u8>,
    media_type: String,
    manifest: Manifest,
    layers: Vec<(Descriptor, Content)>,
}

impl Candidate {
    /// Its entry in the cache's index. What other tools wrote into an older entry (tags) stays.
    fn entry(&self, before: Option<&Descriptor>, subjects: &BTreeSet<Digest>) -> Descriptor {
        let mut annotations = before.map(|entry| entry.annotations.clone()).unwrap_or_default();
        if subjects.is_empty() || subjects.len() > MAX_ANNOTATED {
            annotations.remove(SUBJECTS);
        } else {
            let list: Vec<_> = subjects.iter().map(Digest::to_string).collect();
            annotations.insert(SUBJECTS.to_owned(), list.join(","));
        }
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            annotations,
            artifact_type: self
                .manifest
                .artifact_type
                .clone()
                .filter(|artifact_type| artifact_type.len() <= MAX_ARTIFACT_TYPE),
            platform: None,
        }
    }
}

/// The blob `digest` when it is a manifest that carries signatures; `None` when it is something ordinary.
/// `listed` is the media type by which the source's index lists it.
fn candidate(layout: &Layout<&Source>, digest: Digest, listed: Option<&str>) -> Result<Option<Candidate>, SkipReason> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        layers: Option<IgnoredAny>,
    }
    let listed = listed.filter(|media_type| oci::is_manifest(media_type));
    let bytes = match layout.blob_by_digest(digest, oci::MAX_DOCUMENT) {
        Ok(bytes) => bytes,
        Err(error @ LayoutError::Corrupt { .. }) => return Err(error.into()),
        Err(_) if listed.is_none() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let media_type = match listed {
        Some(media_type) => media_type.to_owned(),
        None => {
            if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
                return Ok(None);
            }
            let Ok(Typed {
                media_type,
                layers: Some(_),
            }) = json::parse(&bytes)
            else {
                return Ok(None);
            };
            match media_type {
                Some(media_type) if oci::is_manifest(&media_type) => media_type,
                Some(_) => return Ok(None),
                None => oci::MANIFEST.to_owned(),
            }
        }
    };
    let manifest = Manifest::parse(&bytes, &media_type)?;
    match Sort::of(&manifest) {
        Sort::Evidence(layers) => Ok(Some(Candidate {
            digest,
            bytes,
            media_type,
            manifest,
            layers,
        })),
        Sort::Mixed(other) => Err(SkipReason::Mixed(other)),
        Sort::Other(Some(other)) if manifest.subject.is_some() => Err(SkipReason::Unsupported(other)),
        Sort::Other(_) => Ok(None),
    }
}

/// The digests that the payloads of a manifest's layers name; where they name none that can be read here, the one
/// that the manifest says it is about.
fn subjects(layout: &Layout<&Source>, candidate: &Candidate) -> Result<BTreeSet<Digest>, SkipReason> {
    let mut subjects = BTreeSet::new();
    for (layer, content) in &candidate.layers {
        subjects.extend(content.subjects(&layout.blob(layer, content.limit())?)?);
    }
    if subjects.is_empty() {
        subjects.extend(candidate.manifest.subject.as_ref().map(|subject| subject.digest));
    }
    Ok(subjects)
}

/// Copies the manifest or index of an image that the source lists, and the manifests that an index lists, without
/// configurations and layers: the links of a chain of signatures. Its entry says that it is no evidence itself.
fn image(
    layout: &Layout<&Source>,
    listed: &Descriptor,
    before: Option<&Descriptor>,
    cache: &Cache<'_>,
) -> Result<Option<Descriptor>, ImportError> {
    let tag = listed.annotations.get(REF_NAME);
    if tag.is_some_and(|tag| tagged_digest(tag).is_some()) {
        return Ok(None);
    }
    let Ok(bytes) = layout.blob(listed, oci::MAX_DOCUMENT) else {
        return Ok(None);
    };
    if oci::is_index(&listed.media_type) {
        let Ok(index) = oci::Index::parse(&bytes, &listed.media_type) else {
            return Ok(None);
        };
        for child in index
            .manifests
            .iter()
            .filter(|child| oci::is_manifest(&child.media_type))
        {
            // What is there of it: the source may hold one platform only.
            if let Ok(bytes) = layout.blob(child, oci::MAX_DOCUMENT) {
                cache.add(child.digest, &bytes)?;
            }
        }
    } else {
        match Manifest::parse(&bytes, &listed.media_type) {
            Ok(manifest) if manifest.subject.is_none() && matches!(Sort::of(&manifest), Sort::Other(_)) => {}
            _ => return Ok(None),
        }
    }
    cache.add(listed.digest, &bytes)?;
    // Newer names first: the last ones have to go when there are too many.
    let names: Vec<&str> = [Some(listed), before]
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.annotations.get(IMAGE))
        .flat_map(|names| names.split(','))
        .filter(|name| {
            name.parse::<Reference>()
                .is_ok_and(|reference| reference.to_string() == *name)
        })
        .collect();
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| seen.insert(*name))
        .take(MAX_NAMES)
        .collect();
    let annotations = [
        (IMAGE.to_owned(), names.join(",")),
        (SUBJECTS.to_owned(), String::new()),
    ];
    Ok(Some(Descriptor {
        media_type: listed.media_type.clone(),
        digest: listed.digest,
        size: listed.size,
        annotations: annotations.into(),
        artifact_type: None,
        platform: None,
    }))
}
