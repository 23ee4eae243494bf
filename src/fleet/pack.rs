//! Making the artifact: folders in, a tar with an OCI image layout out. Signing is for cosign, pushing for oras or skopeo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::{ARTIFACT, EXPIRES, File, LAYER, MAX_FILES, MAX_LAYER, VERSION};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest::Digest;
use crate::oci::{INDEX, MANIFEST};
use crate::policy::{FOLDERS, Sources, check};

const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the manifest: what is to be signed.
    pub digest: Digest,
    /// The tar with the layout.
    pub tar: Vec<u8>,
    /// Number of files.
    pub files: usize,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Policy or trust is wrong.
    #[error("{0}")]
    Sources(#[from] Diagnostics),
    /// A file is not in a folder of its own kind.
    #[error("{} cannot be packed: a policy is made of plain files in {}", .0.display(), FOLDERS.join(", "))]
    Misplaced(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No node would take it.
    #[error("it has {files} files and {bytes} bytes, more than the {MAX_FILES} and {MAX_LAYER} that nodes accept")]
    TooLarge {
        /// Number of files.
        files: usize,
        /// Bytes of the tar.
        bytes: usize,
    },
    /// It would be refused.
    #[error("{0} has passed: every node would refuse it")]
    Expired(Timestamp),
    /// A name has no room in a tar.
    #[error("the tar cannot be made: {0}")]
    Tar(#[from] io::Error),
}

/// Packs `policy.d`, `trust.d`, `closure.d` and `seccomp.d` below `folder`, once they are sound: the files that count, and
/// those that these name. The same files, version and expiry give the same bytes. Rules and deny list may name keys of
/// `trust` too, which nodes have of their own and which is not packed.
///
/// # Errors
/// See [`PackError`].
pub fn pack(folder: &Path, trust: &Path, version: u64, expires: Timestamp) -> Result<Packed, PackError> {
    if expires <= Timestamp::now() {
        return Err(PackError::Expired(expires));
    }
    let mut sources = Sources::default().and(folder);
    sources.trust.push(trust.to_owned());
    let checked = check(&sources).map_err(Diagnostics)?;
    let mut paths: BTreeSet<PathBuf> = checked
        .sources
        .iter()
        .map(|source| PathBuf::from(&source.path))
        .collect();
    paths.retain(|path| path.starts_with(folder));
    let files = paths
        .into_iter()
        .map(|path| read(folder, path))
        .collect::<Result<Vec<_>, _>>()?;
    let layer = tar(files
        .iter()
        .map(|file| (format!("{}/{}", file.folder, file.name), file.bytes.as_slice())))?;
    if files.len() > MAX_FILES || layer.len() as u64 > MAX_LAYER {
        return Err(PackError::TooLarge {
            files: files.len(),
            bytes: layer.len(),
        });
    }
    let annotations = BTreeMap::from([
        (VERSION, version.to_string()),
        (EXPIRES, expires.to_string()),
        ("org.opencontainers.image.version", version.to_string()),
    ]);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY), "size": EMPTY.len()},
        "layers": [{"mediaType": LAYER, "digest": Digest::of(&layer), "size": layer.len()}],
        "annotations": annotations,
    })
    .to_string()
    .into_bytes();
    let digest = Digest::of(&manifest);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "digest": digest,
            "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": version.to_string()},
        }],
    })
    .to_string()
    .into_bytes();
    let blobs = [EMPTY, &layer, &manifest].map(|bytes| (format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes));
    let layout = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
        ("index.json".to_owned(), &index),
    ];
    Ok(Packed {
        digest,
        tar: tar(layout.into_iter().chain(blobs))?,
        files: files.len(),
        warnings: checked.warnings,
    })
}

fn read(folder: &Path, path: PathBuf) -> Result<File, PackError> {
    let bytes = fs::read(&path).map_err(|source| PackError::Read {
        path: path.clone(),
        source,
    })?;
    path.strip_prefix(folder)
        .ok()
        .and_then(Path::to_str)
        .and_then(|path| File::at(path, bytes))
        .ok_or(PackError::Misplaced(path))
}

/// A tar of files, all of them root's and without a time.
fn tar<'a>(files: impl Iterator<Item = (String, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, name, bytes)?;
    }
    tar.into_inner()
}
