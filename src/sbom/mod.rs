//! Software bills of materials: which packages, and which files by hash, somebody says are in an image.
//!
//! Read are SPDX 2.2 and 2.3 JSON, SPDX 3.0 JSON-LD, CycloneDX 1.4 to 1.7 JSON, and syft's own JSON. What an SBOM says
//! about who depends on what, or contains what, is not looked at: which package owns which file is known better by
//! the package database in the image ([`crate::packages`]), and a relationship that is not followed cannot lead in a
//! circle.
//!
//! <https://spdx.github.io/spdx-spec/>, <https://cyclonedx.org/specification/overview/>,
//! <https://github.com/anchore/syft/tree/main/schema/json>.

mod document;
mod purl;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use purl::{Identity, InvalidPurl, MAX_PURL};

use crate::digest::Digest;

/// Largest SBOM in bytes: more than any attestation of the evidence cache holds.
pub const MAX_BYTES: usize = 64 << 20;
/// Most packages of an SBOM.
pub const MAX_PACKAGES: usize = 100_000;
/// Most files of an SBOM that have a SHA-256 digest.
pub const MAX_FILES: usize = 400_000;
/// Longest path of a file in bytes; longer ones exist on no Linux.
const MAX_PATH: usize = 4096;

/// In which format an SBOM is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// SPDX, JSON or JSON-LD.
    Spdx,
    /// CycloneDX JSON.
    Cyclonedx,
    /// What syft writes by itself.
    Syft,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spdx => "SPDX",
            Self::Cyclonedx => "CycloneDX",
            Self::Syft => "syft JSON",
        })
    }
}

/// Why bytes are not an SBOM that can be used.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "always written with its module: sbom::Error")]
pub enum Error {
    /// More than [`MAX_BYTES`].
    #[error("the SBOM has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not JSON, not of the shape that its format has, or more entries than are read.
    #[error("the SBOM cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// None of the formats.
    #[error("this is none of SPDX JSON, CycloneDX JSON and syft JSON")]
    Unknown,
    /// A whole statement instead of what it says.
    #[error("this is an in-toto statement: the SBOM is its predicate")]
    Statement,
    /// Several formats at once, which tools would read differently.
    #[error("this claims to be {0} and {1} at once")]
    Ambiguous(Format, Format),
    /// A version that is not read.
    #[error("this is {format} {found:?}; {expected} are read")]
    Version {
        /// Its format.
        format: Format,
        /// Its version, shortened.
        found: String,
        /// What is read.
        expected: &'static str,
    },
}

/// What an SBOM says, as far as files of an image can be compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// In which format it was written.
    pub format: Format,
    /// Version of the format.
    pub version: String,
    /// Its packages with a package URL, each once, sorted.
    pub packages: Vec<Identity>,
    /// Packages without a package URL, or with one that cannot be read: nothing can be compared with them.
    pub unnamed: usize,
    /// Absolute paths with the SHA-256 of their content, sorted; a path can have several.
    files: Vec<(Box<str>, [u8; 32])>,
}

impl Sbom {
    /// How many files it lists by SHA-256.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Whether it lists a file at this absolute path with any SHA-256.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        let at = self.files.partition_point(|(listed, _)| listed.as_ref() < path);
        self.files.get(at).is_some_and(|(listed, _)| listed.as_ref() == path)
    }

    /// Whether it lists a file with this content at this absolute path.
    #[must_use]
    pub fn has_file(&self, path: &str, digest: &Digest) -> bool {
        let wanted = (path, digest.bytes());
        self.files
            .binary_search_by(|(listed, content)| (listed.as_ref(), content).cmp(&wanted))
            .is_ok()
    }
}

/// Reads an SBOM, its format taken from what it says of itself: a document, or the predicate of a verified attestation.
///
/// # Errors
/// See [`Error`].
pub fn read(bytes: &[u8]) -> Result<Sbom, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    document::read(bytes)
}

#[cfg(test)]
mod tests;
