//! What an administrator trusts: keys with their use, status and validity window, Sigstore's trusted roots, builders
//! with their level, trust stores of the Notary Project.
//!
//! `schema` is what may be written in `trust.d`, `diags` what is said when it is wrong.

mod builder;
pub mod clock;
pub(crate) mod diags;
pub mod edit;
pub mod listing;
mod notation;
mod pattern;
pub(crate) mod public_key;
pub mod root;
mod schema;
pub mod update;

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::digest::Digest;

pub use builder::{Builder, BuilderSigner, InvalidRef, MAX_LEVEL, RefPattern};
pub use notation::{Der, TrustStore};
pub(crate) use pattern::Glob;
pub use pattern::{TextFault, TextPattern};
pub use root::{Builtin, Root, RootSource};
pub use schema::load;

/// What `trust.d` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Its keys, in the order in which they were written.
    pub keys: Vec<Key>,
    /// Build services, the only source of an SLSA level.
    pub builders: Vec<Builder>,
    /// Trust stores of the Notary Project.
    pub notation: Vec<TrustStore>,
    /// Its trusted roots, in the order in which they were written.
    pub roots: Vec<Root>,
    /// Every file that was read.
    pub files: Vec<SourceFile>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

/// A file that an activated policy was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Where it was.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
}

impl SourceFile {
    /// The record of a file with these bytes.
    #[must_use]
    pub fn new(path: &Path, bytes: &[u8]) -> Self {
        Self {
            path: path.display().to_string(),
            digest: Digest::of(bytes),
        }
    }
}

/// The hash a key signs with. The message never chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What a key's signatures count for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Image signatures.
    Image,
    /// Provenance attestations.
    Provenance,
    /// SBOM attestations.
    Sbom,
    /// VEX attestations.
    Vex,
    /// Policy and trust bundles.
    Policy,
    /// Break-glass grants.
    Grant,
    /// Seccomp profiles.
    Profile,
}

/// Whether a key still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It does.
    Active,
    /// Only for signatures that a trusted time puts into its window, and for the digests recorded with it.
    Retired,
    /// Never.
    Distrusted,
}

/// A `[[key]]` of `trust.d`, with its file already read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name by which policy refers to it.
    pub id: String,
    /// DER of the SubjectPublicKeyInfo, hexadecimal in JSON.
    #[serde(with = "hex::serde")]
    pub spki: Vec<u8>,
    /// Hash it signs with; ignored for Ed25519.
    pub hash: HashAlgorithm,
    /// What its signatures count for.
    pub r#use: Vec<Use>,
    /// Start of its window.
    pub from: Option<Timestamp>,
    /// End of its window, exclusive.
    pub until: Option<Timestamp>,
    /// Whether it still counts.
    pub status: Status,
    /// Digests of manifests and indexes for which its signatures count even after it was retired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Digest>,
}

/// The name that `names` gives `wanted`.
fn name_of<T: PartialEq>(names: &'static [(&'static str, T)], wanted: &T) -> &'static str {
    names
        .iter()
        .find(|(_, value)| value == wanted)
        .map_or("", |(name, _)| *name)
}

impl Use {
    /// As it is written in `trust.d`.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(schema::USES, &self)
    }

    /// Every use, with its name.
    #[must_use]
    pub fn all() -> &'static [(&'static str, Self)] {
        schema::USES
    }
}

impl HashAlgorithm {
    /// As it is written in `trust.d`.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(schema::HASHES, &self)
    }

    /// Every hash, with its name.
    #[must_use]
    pub fn all() -> &'static [(&'static str, Self)] {
        schema::HASHES
    }
}

impl Status {
    /// As it is written in `trust.d`.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(schema::STATES, &self)
    }
}
