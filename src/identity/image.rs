//! From names and digests to the manifests and configuration of one image.

use std::collections::{BTreeMap, BTreeSet};

use containerd_client::types::Descriptor as Target;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Fault;
use super::containerd::Containerd;
use super::fault::Blob;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, ImageConfig, Index, Manifest, Platform};

/// Most blobs that are read to find the manifests of one image.
const MAX_BLOBS: usize = 256;
/// Most manifests whose indexes are searched before it is known which manifest counts.
const MAX_SEARCHED: usize = 8;
/// Deepest nesting of indexes that is followed.
const MAX_DEPTH: usize = 3;

/// The image a container was proved to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Name as the user wrote it. It selects policy and proves nothing.
    pub name: String,
    /// Digest of the image configuration: what is mounted.
    pub config: Digest,
    /// Digests of the manifests that name this configuration.
    pub manifests: Vec<Digest>,
    /// Digests of the indexes that list one of these manifests.
    pub indexes: Vec<Digest>,
    /// Chain ID of the layers, equal to the parent of the mounted snapshot.
    pub chain_id: Digest,
}

/// A manifest that was reached, its bytes hashed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    size: u64,
    pub(super) config: Digest,
    /// Indexes on the way to it, each listing what it leads to by digest and size.
    indexes: Vec<Digest>,
}

impl Found {
    /// Its own digest, its configuration's, and those of the indexes on the way to it.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let mut digests = self.indexes.clone();
        digests.extend([self.digest, self.config]);
        digests
    }
}

/// All manifests of `target` that are in the content store: itself, or those that it lists.
///
/// Other platforms' manifests are usually missing, which is no fault; a missing or edited target is one.
pub(super) async fn manifests(containerd: &Containerd, target: &Target) -> Result<Vec<Found>, Fault> {
    let Ok(digest) = target.digest.parse::<Digest>() else {
        return Ok(Vec::new());
    };
    let bytes = containerd.blob(Blob::Manifest, digest).await?;
    let mut found = Vec::new();
    let mut next = Vec::new();
    sort(digest, &bytes, &target.media_type, &[], &mut found, &mut next)?;
    let mut read = 1;
    for _ in 0..MAX_DEPTH {
        let mut reads = JoinSet::new();
        for step in next.drain(..) {
            read += 1;
            if read > MAX_BLOBS {
                return Err(Fault::IndexTooLarge(digest));
            }
            let containerd = containerd.clone();
            reads.spawn(async move {
                let bytes = containerd.blob(Blob::Manifest, step.digest).await;
                (step, bytes)
            });
        }
        for (mut step, bytes) in reads.join_all().await {
            // An index that lies about what it lists does not list it.
            if bytes.as_ref().is_ok_and(|bytes| bytes.len() as u64 != step.size) {
                step.indexes.clear();
            }
            match bytes {
                Ok(bytes) => sort(
                    step.digest,
                    &bytes,
                    &step.media_type,
                    &step.indexes,
                    &mut found,
                    &mut next,
                )?,
                Err(Fault::ContentMissing { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
        if next.is_empty() {
            found.sort_by_key(|found| found.digest);
            return Ok(found);
        }
    }
    Err(Fault::IndexTooLarge(digest))
}

/// A descriptor that is still to be followed.
struct Step {
    digest: Digest,
    size: u64,
    media_type: String,
    indexes: Vec<Digest>,
}

fn sort(
    digest: Digest,
    bytes: &[u8],
    media_type: &str,
    indexes: &[Digest],
    found: &mut Vec<Found>,
    next: &mut Vec<Step>,
) -> Result<(), Fault> {
    let invalid = |source| Fault::ContentInvalid {
        what: Blob::Manifest,
        digest,
        source,
    };
    if oci::is_index(media_type) {
        let indexes = [indexes, &[digest]].concat();
        let listed = Index::parse(bytes, media_type).map_err(invalid)?.manifests;
        next.extend(
            listed
                .into_iter()
                .filter(|listed| oci::is_index(&listed.media_type) || oci::is_manifest(&listed.media_type))
                .map(|listed| Step {
                    digest: listed.digest,
                    size: listed.size,
                    media_type: listed.media_type,
                    indexes: indexes.clone(),
                }),
        );
    } else {
        found.push(Found {
            digest,
            size: bytes.len() as u64,
            config: Manifest::parse(bytes, media_type).map_err(invalid)?.config.digest,
            indexes: indexes.to_vec(),
        });
    }
    Ok(())
}

/// The configuration `digest`, its bytes hashed.
pub(super) async fn config(containerd: &Containerd, digest: Digest) -> Result<ImageConfig, Fault> {
    let bytes = containerd.blob(Blob::Config, digest).await?;
    ImageConfig::parse(&bytes).map_err(|source| Fault::ContentInvalid {
        what: Blob::Config,
        digest,
        source,
    })
}

/// The chain ID of a configuration's layers.
pub(super) fn chain(digest: Digest, config: &ImageConfig) -> Result<Digest, Fault> {
    config.chain_id().map_err(|source| Fault::ContentInvalid {
        what: Blob::Config,
        digest,
        source,
    })
}

/// Configurations among those of `found` that are in the content store, each read once.
///
/// What is no image configuration (an attestation's, for example) is left out: it cannot be what is mounted.
pub(super) async fn configs(containerd: &Containerd, found: &[Found]) -> Result<Vec<(Digest, ImageConfig)>, Fault> {
    let digests: BTreeSet<Digest> = found.iter().map(|found| found.config).collect();
    let mut reads = JoinSet::new();
    for digest in digests {
        let containerd = containerd.clone();
        reads.spawn(async move { (digest, config(&containerd, digest).await) });
    }
    let mut configs = Vec::new();
    for (digest, config) in reads.join_all().await {
        match config {
            Ok(config) => configs.push((digest, config)),
            Err(Fault::ContentMissing { .. } | Fault::ContentInvalid { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    configs.sort_by_key(|(digest, _)| *digest);
    Ok(configs)
}

/// What containerd's labels say about who lists what. They only propose; what counts is read and hashed.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    manifests: Vec<Digest>,
    indexes: Vec<Digest>,
    /// Manifests whose indexes were searched.
    searched: BTreeSet<Digest>,
}

/// Searches the content store for manifests of `configs`, and for indexes that list them or one of `known`; of many, the
/// first ones, since [`complete`] asks again for what it turns out to need.
pub(super) async fn search(containerd: &Containerd, configs: &[Digest], known: &[Digest]) -> Result<Proposals, Fault> {
    let known = known.get(..MAX_SEARCHED).unwrap_or(known);
    let (manifests, mut indexes) = tokio::try_join!(containerd.manifests_of(configs), containerd.indexes_of(known))?;
    let mut searched: BTreeSet<Digest> = known.iter().copied().collect();
    let more: Vec<Digest> = manifests
        .iter()
        .copied()
        .filter(|digest| searched.insert(*digest))
        .collect();
    indexes.extend(containerd.indexes_of(&more).await?);
    Ok(Proposals {
        manifests,
        indexes,
        searched,
    })
}

/// Every manifest and index in the content store that leads to the configuration `config`: of `found` and of what was
/// proposed, those that do.
pub(super) async fn complete(
    containerd: &Containerd,
    config: Digest,
    found: Vec<Found>,
    proposals: Proposals,
) -> Result<(Vec<Digest>, Vec<Digest>), Fault> {
    let mut manifests: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut indexes = BTreeSet::new();
    for found in found.into_iter().filter(|found| found.config == config) {
        manifests.insert(found.digest, found.size);
        indexes.extend(found.indexes);
    }
    let mut reads = JoinSet::new();
    for digest in proposals
        .manifests
        .into_iter()
        .filter(|digest| !manifests.contains_key(digest))
    {
        let containerd = containerd.clone();
        reads.spawn(async move { (digest, containerd.blob(Blob::Manifest, digest).await) });
    }
    for (digest, bytes) in reads.join_all().await {
        // A proposal that is gone, edited or something else does not count; it is nobody's claim about this image.
        let Ok(bytes) = bytes else { continue };
        if manifest(&bytes).is_some_and(|manifest| manifest.config.digest == config) {
            manifests.insert(digest, bytes.len() as u64);
        }
    }
    let mut proposed: BTreeSet<Digest> = proposals.indexes.into_iter().collect();
    let unsearched: Vec<Digest> = manifests
        .keys()
        .filter(|digest| !proposals.searched.contains(*digest))
        .copied()
        .collect();
    proposed.extend(containerd.indexes_of(&unsearched).await?);
    let mut reads = JoinSet::new();
    for digest in proposed.difference(&indexes).copied() {
        let containerd = containerd.clone();
        reads.spawn(async move { (digest, containerd.blob(Blob::Manifest, digest).await) });
    }
    for (digest, bytes) in reads.join_all().await {
        let Ok(bytes) = bytes else { continue };
        let is_ours = |listed: &Descriptor| manifests.get(&listed.digest) == Some(&listed.size);
        let lists = |index: Index| index.manifests.iter().any(is_ours);
        if index(&bytes).is_some_and(lists) {
            indexes.insert(digest);
        }
    }
    Ok((manifests.into_keys().collect(), indexes.into_iter().collect()))
}

/// A manifest that no descriptor led to: its own media type, where it has one, decides how it is read.
fn manifest(bytes: &[u8]) -> Option<Manifest> {
    [oci::MANIFEST, oci::DOCKER_MANIFEST]
        .iter()
        .find_map(|media_type| Manifest::parse(bytes, media_type).ok())
}

fn index(bytes: &[u8]) -> Option<Index> {
    [oci::INDEX, oci::DOCKER_INDEX]
        .iter()
        .find_map(|media_type| Index::parse(bytes, media_type).ok())
}

/// Whether `config` is for the processor and operating system of this node.
pub(super) fn is_for_this_node(config: &ImageConfig) -> bool {
    is_this_platform(&config.platform)
}

/// Whether a platform is this node's: its processor and operating system. The variant is the runtime's affair.
#[must_use]
pub fn is_this_platform(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == architecture()
}

/// This node's platform, in OCI's words.
pub(super) fn platform() -> String {
    format!("linux/{}", architecture())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
