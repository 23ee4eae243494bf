//! Signature carriers: bytes, subject digests and keys in, facts out.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// How a signature was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A Sigstore bundle that holds a public key and neither log entry nor timestamp.
    BundleKey,
    /// A simple-signing payload with its signature in an annotation (cosign's older layout).
    SimpleSigning,
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

/// A signature that verified, by a trusted key, about one of the subjects that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Manifest in the evidence layout that carries it.
    pub evidence: Digest,
    /// How it was carried.
    pub carrier: Carrier,
    /// Digest that the signed payload names.
    pub subject: Digest,
    /// Identifier of the key.
    pub key: String,
    /// What it says.
    pub claim: Claim,
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
