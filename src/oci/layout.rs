//! Reading an OCI image layout.

use std::os::fd::BorrowedFd;
use std::path::Path;

use serde::Deserialize;

use super::{Descriptor, Error, Index, Manifest, json};
use crate::digest::Digest;
use crate::store;

/// Largest `index.json` in bytes: some 80,000 entries.
pub const MAX_LAYOUT_INDEX: u64 = 32 << 20;
const MAX_LAYOUT_FILE: u64 = 4096;

/// Why something in a layout cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A file could not be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Not an image layout, or of another version.
    #[error("not an OCI image layout of version 1.0.0: {reason}")]
    NotLayout {
        /// What is wrong.
        reason: String,
    },
    /// `index.json` cannot be used.
    #[error("index.json of the layout: {0}")]
    Index(Error),
    /// A blob has other bytes than its digest says.
    #[error("the blob {expected} is corrupt: its bytes have the digest {found}")]
    Corrupt {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("the blob {digest} has {found} bytes where its descriptor says {expected}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A descriptor announces more than is accepted for what it is.
    #[error("the blob {digest} announces {size} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A blob is no acceptable document of its type.
    #[error("the blob {digest}: {source}")]
    Document {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: Error,
    },
}

impl LayoutError {
    /// True when a file is not there at all.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_missing())
    }
}

/// Where the files of a layout are.
pub trait Files {
    /// The bytes of the file with this path in the layout, `limit` at most.
    ///
    /// # Errors
    /// A file that is missing, too large or not regular.
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, store::Error>;
}

/// A directory, read without leaving it and without following links.
impl Files for BorrowedFd<'_> {
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, store::Error> {
        store::read_beneath(*self, Path::new(""), Path::new(name), limit)
    }
}

/// An OCI image layout. Every file is read once and bounded, and every blob is hashed as it is read; what is
/// returned can be relied on to have the digest that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Layout<F> {
    files: F,
}

impl<F: Files> Layout<F> {
    /// The layout that is made of `files`.
    #[must_use]
    pub fn new(files: F) -> Self {
        Self { files }
    }

    /// The entries of `index.json`, after a look at the layout's version.
    ///
    /// # Errors
    /// Files that are missing, too large or not what they should be.
    pub fn index(&self) -> Result<Vec<Descriptor>, LayoutError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entries {
            schema_version: u64,
            manifests: Vec<Descriptor>,
        }
        let not_layout = |reason: String| LayoutError::NotLayout { reason };
        let bytes = self.files.read("oci-layout", MAX_LAYOUT_FILE)?;
        let version: Version = json::parse(&bytes).map_err(|e| not_layout(format!("its oci-layout is {e}")))?;
        if version.image_layout_version != "1.0.0" {
            return Err(not_layout(format!(
                "it has version '{}'",
                super::shorten(&version.image_layout_version)
            )));
        }
        let bytes = self.files.read("index.json", MAX_LAYOUT_INDEX)?;
        let entries: Entries = json::parse(&bytes).map_err(|e| LayoutError::Index(Error::Json(e)))?;
        if entries.schema_version != 2 {
            return Err(LayoutError::Index(Error::SchemaVersion(entries.schema_version)));
        }
        Ok(entries.manifests)
    }

    /// The bytes of a blob, of exactly its descriptor's size, which may be `limit` at most.
    ///
    /// # Errors
    /// A blob that is missing, of another size or of other content.
    pub fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > limit {
            return Err(LayoutError::TooLarge { digest, size, limit });
        }
        let wrong_size = |found| LayoutError::Size {
            digest,
            expected: size,
            found,
        };
        let bytes = match self.blob_by_digest(digest, size) {
            Err(LayoutError::Store(store::Error::TooLarge { size, .. })) => return Err(wrong_size(size)),
            other => other?,
        };
        if bytes.len() as u64 != size {
            return Err(wrong_size(bytes.len() as u64));
        }
        Ok(bytes)
    }

    /// The bytes of a blob, `limit` at most.
    ///
    /// # Errors
    /// A blob that is missing, too large or of other content.
    pub fn blob_by_digest(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let bytes = self.files.read(&format!("blobs/sha256/{}", digest.hex()), limit)?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(LayoutError::Corrupt {
                expected: digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// The manifest behind a descriptor.
    ///
    /// # Errors
    /// As [`Layout::blob`], and a document that is not an acceptable manifest.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, LayoutError> {
        let bytes = self.blob(descriptor, super::MAX_DOCUMENT)?;
        Manifest::parse(&bytes, &descriptor.media_type).map_err(|source| LayoutError::Document {
            digest: descriptor.digest,
            source,
        })
    }

    /// The index behind a descriptor.
    ///
    /// # Errors
    /// As [`Layout::blob`], and a document that is not an acceptable index.
    pub fn nested_index(&self, descriptor: &Descriptor) -> Result<Index, LayoutError> {
        let bytes = self.blob(descriptor, super::MAX_DOCUMENT)?;
        Index::parse(&bytes, &descriptor.media_type).map_err(|source| LayoutError::Document {
            digest: descriptor.digest,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::oci::MANIFEST;

    fn layout(index: &str) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(dir.path().join("index.json"), index).unwrap();
        let file = File::open(dir.path()).unwrap();
        (dir, file)
    }

    fn descriptor(digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: MANIFEST.to_owned(),
            digest,
            size,
            annotations: std::collections::BTreeMap::new(),
            artifact_type: None,
            platform: None,
        }
    }

    #[test]
    fn a_blob_is_what_its_descriptor_says_or_refused() {
        let (dir, fd) = layout(r#"{"schemaVersion":2,"manifests":[]}"#);
        let layout = Layout::new(fd.as_fd());
        assert!(layout.index().unwrap().is_empty());
        let digest = Digest::of(b"hello");
        let path = dir.path().join("blobs/sha256").join(digest.hex());
        assert!(layout.blob(&descriptor(digest, 5), 9).unwrap_err().is_missing());
        std::fs::write(&path, b"hello").unwrap();
        assert_eq!(layout.blob(&descriptor(digest, 5), 5).unwrap(), b"hello");
        assert!(matches!(
            layout.blob(&descriptor(digest, 5), 4),
            Err(LayoutError::TooLarge { size: 5, limit: 4, .. })
        ));
        for lie in [4, 6] {
            assert!(
                matches!(
                    layout.blob(&descriptor(digest, lie), 9),
                    Err(LayoutError::Size { found: 5, .. })
                ),
                "{lie}"
            );
        }
        std::fs::write(&path, b"hellO").unwrap();
        assert!(matches!(
            layout.blob(&descriptor(digest, 5), 9),
            Err(LayoutError::Corrupt { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(dir.path().join("elsewhere"), b"hello").unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(
            layout.blob(&descriptor(digest, 5), 9),
            Err(LayoutError::Store(store::Error::Symlink { .. }))
        ));
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let (dir, fd) = layout("{}");
        let layout = Layout::new(fd.as_fd());
        assert!(matches!(layout.index(), Err(LayoutError::Index(_))));
        std::fs::write(dir.path().join("index.json"), r#"{"schemaVersion":3,"manifests":[]}"#).unwrap();
        assert!(matches!(
            layout.index(),
            Err(LayoutError::Index(Error::SchemaVersion(3)))
        ));
        std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(matches!(layout.index(), Err(LayoutError::NotLayout { .. })));
        std::fs::remove_file(dir.path().join("oci-layout")).unwrap();
        assert!(layout.index().unwrap_err().is_missing());
    }
}
