//! Signature carriers: bytes, subject digests and keys in, facts out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest;
use crate::digest::Digest;
use crate::oci::{LayoutError, json, shorten};
use crate::trust::Use;

pub mod bundle_key;
mod fact;
pub mod key;
mod keyring;
pub mod notation;
pub mod simple_signing;
#[cfg(test)]
pub(crate) mod tests;

pub use fact::{Certificate, Fact, Identity, LogEntry, NotationSigner, Proof, Signer, Span, TimeSource, TrustedTime};
use key::Message;
pub use keyring::Keyring;

/// How a signature was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A Sigstore bundle that holds a public key and neither log entry nor timestamp.
    BundleKey,
    /// A simple-signing payload with its signature in an annotation (cosign's older layout).
    SimpleSigning,
}

impl fmt::Display for Carrier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BundleKey => "bundle-key",
            Self::SimpleSigning => "simple-signing",
        })
    }
}

/// What a verified signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// This image is ours: simple signing, or the predicate `https://sigstore.dev/cosign/sign/v1`.
    ImageSignature,
    /// An attestation with this predicate type, read from the signed payload.
    Attestation(String),
}

/// Why a piece of evidence did not count; what a person reads when a container is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Manifest in the evidence layout.
    pub evidence: Option<Digest>,
    /// Stable kebab-case code, `key-unknown` or `signature-invalid`, for example.
    pub code: String,
    /// One sentence.
    pub text: String,
}

/// Facts and findings of one question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What verified.
    pub facts: Vec<Fact>,
    /// What did not.
    pub findings: Vec<Finding>,
}

impl Answer {
    /// Whether evidence was left unread, so that what is not among the facts may still exist.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        let left_unread = [Problem::WorkLimit("").code(), "evidence-cache-unusable"];
        self.findings
            .iter()
            .any(|finding| finding.evidence.is_none() && left_unread.contains(&finding.code.as_str()))
    }
}

/// A signature with what it claims, read but not verified. Only a [`Keyring`] says whether it counts.
#[derive(Debug, Clone)]
pub struct Unverified {
    carrier: Carrier,
    claim: Claim,
    subjects: Vec<Digest>,
    hint: Option<String>,
    message: Message,
    signature: Vec<u8>,
}

impl Unverified {
    /// How it was carried.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// What it claims.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Digests that its payload names.
    #[must_use]
    pub fn subjects(&self) -> &[Digest] {
        &self.subjects
    }
}

impl Claim {
    /// The use that a key must have for this claim to count.
    ///
    /// # Errors
    /// [`Problem::PredicateUnsupported`] for a predicate that nothing asks for.
    pub fn needs(&self) -> Result<Use, Problem> {
        let predicate = match self {
            Self::ImageSignature => return Ok(Use::Image),
            Self::Attestation(predicate) => predicate,
        };
        let is = |family: &str| {
            predicate
                .strip_prefix(family)
                .is_some_and(|version| version.is_empty() || version.starts_with('/'))
        };
        if is("https://slsa.dev/provenance") {
            Ok(Use::Provenance)
        } else if is("https://spdx.dev/Document") || is("https://cyclonedx.org/bom") {
            Ok(Use::Sbom)
        } else if is("https://openvex.dev/ns") {
            Ok(Use::Vex)
        } else {
            Err(Problem::PredicateUnsupported(shorten(predicate)))
        }
    }
}

/// Why a piece of evidence does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The evidence layout as a whole cannot be read.
    #[error("the evidence cache cannot be used: {0}; an import (assay evidence import PATH) rebuilds it")]
    Cache(LayoutError),
    /// The evidence layout is empty.
    #[error("the evidence cache is empty: nothing was imported yet (assay evidence import PATH)")]
    CacheEmpty,
    /// A manifest or layer cannot be read or is not what its descriptor says.
    #[error("it cannot be used: {0}")]
    Evidence(LayoutError),
    /// Evidence for the image in a form that this version does not verify.
    #[error("its layers are of type '{0}', which this version does not verify")]
    CarrierUnsupported(String),
    /// The bundle is not acceptable JSON or has unknown fields.
    #[error("its Sigstore bundle is malformed: {0}")]
    Bundle(json::Error),
    /// A bundle of another version.
    #[error("its Sigstore bundle is of type '{0}', only version 0.3 is verified with a key")]
    BundleVersion(String),
    /// Neither or both kinds of content.
    #[error("its Sigstore bundle must hold either an envelope or a message signature")]
    BundleContent,
    /// Signed with a certificate.
    #[error("it is signed with a certificate; this version verifies signatures by keys only")]
    Certificate,
    /// The bundle names no key.
    #[error("its Sigstore bundle names no public key")]
    NoKey,
    /// It has a transparency-log entry, which would have to be verified too.
    #[error("it holds a transparency-log entry, which this version cannot verify: sign without a log")]
    LogEntry,
    /// It has a timestamp, which would have to be verified too.
    #[error("it holds a timestamp, which this version cannot verify: sign without a timestamp authority")]
    Timestamp,
    /// Not base64 in its canonical form, or of the wrong length.
    #[error("its {0} is not canonical base64 of the right length")]
    Base64(&'static str),
    /// The envelope holds something else than an in-toto statement.
    #[error("its envelope holds '{0}', expected application/vnd.in-toto+json")]
    PayloadType(String),
    /// Not exactly one signature.
    #[error("it has {0} signatures, expected exactly one")]
    SignatureCount(usize),
    /// The message digest is not SHA-256.
    #[error("its message digest is '{0}', expected SHA2_256")]
    MessageDigest(String),
    /// The signed payload is not acceptable.
    #[error("its signed payload is not acceptable: {0}")]
    Payload(attest::Error),
    /// It is attached to the image and signs something else.
    #[error("it is attached to {attached}, but what it signs is {signed}")]
    SubjectMismatch {
        /// What the unsigned link names.
        attached: Digest,
        /// The first digest that the payload names.
        signed: Digest,
    },
    /// No key use covers the predicate.
    #[error("it is an attestation of type '{0}', which no key use covers")]
    PredicateUnsupported(String),
    /// No trusted key made the signature.
    #[error("no key in trust.d made its signature{}", hint(.0.as_deref()))]
    KeyUnknown(Option<String>),
    /// It names a trusted key and has another's signature.
    #[error("it names the key '{0}', but its signature is not by that key over this payload")]
    SignatureInvalid(String),
    /// The key is listed with another hash than it signs with.
    #[error("it is signed by the key '{key}' with {hash}: write hash = \"{hash}\" for this key in trust.d")]
    KeyHash {
        /// Identifier of the key.
        key: String,
        /// What it signs with.
        hash: &'static str,
    },
    /// The key cannot verify a digest.
    #[error("it names the key '{0}', which cannot verify a signature whose message is given by its SHA-256 only")]
    MessageNeeded(String),
    /// The key is not trusted for this.
    #[error("it is signed by the key '{key}', which trust.d does not list for '{needed}'")]
    KeyUse {
        /// Identifier of the key.
        key: String,
        /// Use that it lacks.
        needed: &'static str,
    },
    /// The key is distrusted.
    #[error("it is signed by the key '{0}', which is distrusted")]
    KeyDistrusted(String),
    /// The key is retired.
    #[error("it is signed by the retired key '{0}', and no trusted time says that it was signed before")]
    KeyRetired(String),
    /// The key has a validity window.
    #[error("it is signed by the key '{0}', which has a validity window, and no trusted time says when it was signed")]
    KeyWindow(String),
    /// A key of trust.d cannot be used.
    #[error("the key '{key}' in trust.d cannot be used: {reason}")]
    KeyUnusable {
        /// Identifier of the key.
        key: String,
        /// Why.
        reason: key::KeyError,
    },
    /// More evidence than one question may look at.
    #[error("there is more evidence than may be looked at for one image ({0}); remove what is not needed")]
    WorkLimit(&'static str),
    /// More findings than are listed.
    #[error("{0} more findings are not listed")]
    Omitted(usize),
}

fn hint(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| {
        format!(" (it names the key with fingerprint {hint})")
    })
}

impl Problem {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cache(_) => "evidence-cache-unusable",
            Self::CacheEmpty => "evidence-cache-empty",
            Self::Evidence(error) => match error {
                error if error.is_missing() => "evidence-missing",
                LayoutError::Corrupt { .. } | LayoutError::Size { .. } => "evidence-corrupt",
                LayoutError::TooLarge { .. } => "evidence-too-large",
                LayoutError::Document { .. } => "evidence-malformed",
                _ => "evidence-unreadable",
            },
            Self::CarrierUnsupported(_) => "carrier-unsupported",
            Self::Bundle(_) | Self::BundleContent | Self::NoKey => "bundle-malformed",
            Self::BundleVersion(_) => "bundle-version-unsupported",
            Self::Certificate => "certificate-unsupported",
            Self::LogEntry => "log-entry-unsupported",
            Self::Timestamp => "timestamp-unsupported",
            Self::Base64(_) => "base64-invalid",
            Self::PayloadType(_) => "payload-type-unsupported",
            Self::SignatureCount(_) => "signature-count",
            Self::MessageDigest(_) => "message-digest-unsupported",
            Self::Payload(_) => "payload-malformed",
            Self::SubjectMismatch { .. } => "subject-mismatch",
            Self::PredicateUnsupported(_) => "predicate-unsupported",
            Self::KeyUnknown(_) => "key-unknown",
            Self::SignatureInvalid(_) => "signature-invalid",
            Self::KeyHash { .. } => "key-hash",
            Self::MessageNeeded(_) => "message-needed",
            Self::KeyUse { .. } => "key-use",
            Self::KeyDistrusted(_) => "key-distrusted",
            Self::KeyRetired(_) => "key-retired",
            Self::KeyWindow(_) => "key-window",
            Self::KeyUnusable { .. } => "key-unusable",
            Self::WorkLimit(_) => "work-limit",
            Self::Omitted(_) => "findings-omitted",
        }
    }

    /// As a person reads it, with the manifest in the evidence layout that it is about.
    #[must_use]
    pub fn finding(&self, evidence: Option<Digest>) -> Finding {
        Finding {
            evidence,
            code: self.code().to_owned(),
            text: self.to_string(),
        }
    }
}
