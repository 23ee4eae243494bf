//! Signature carriers: bytes, subject digests and keys in, facts out.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::attest::{self, Family};
use crate::digest::Digest;
use crate::oci::{LayoutError, json, shorten};
use crate::trust::Use;

pub mod attestation;
pub mod bundle;
pub mod certificate;
mod fact;
pub mod key;
mod keyring;
pub mod legacy;
mod notary;
pub mod notation;
#[cfg(test)]
#[path = "../../tests/pki/mod.rs"]
pub(crate) mod pki;
pub mod sigstore;
#[cfg(test)]
pub(crate) mod tests;

use certificate::Leaf;
pub use fact::{
    Certificate, Chain, Fact, Identity, LogEntry, NotationSigner, Proof, Signer, Span, TimeSource, TrustedTime,
};
use key::Message;
pub use keyring::Keyring;
pub use notary::NotationStore;
pub use sigstore::{By, TrustedRoot, Verify};

/// How a signature was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A Sigstore bundle that names a public key and holds neither log entry nor timestamp.
    BundleKey,
    /// A Sigstore bundle that names a public key and holds log entries or timestamps.
    BundleKeyLogged,
    /// A Sigstore bundle that holds a signing certificate.
    BundleCertificate,
    /// A simple-signing payload with its signature in an annotation (cosign's older layout).
    SimpleSigning,
    /// An envelope with what vouches for it in annotations (cosign's older layout).
    Envelope,
    /// An envelope of the Notary Project.
    Notation,
    /// A statement in an attestation manifest, which is signed in its place: see [`Chain`].
    AttestationManifest,
}

impl fmt::Display for Carrier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BundleKey => "bundle-key",
            Self::BundleKeyLogged => "bundle-key-logged",
            Self::BundleCertificate => "bundle-certificate",
            Self::SimpleSigning => "simple-signing",
            Self::Envelope => "envelope",
            Self::Notation => "notation",
            Self::AttestationManifest => "attestation-manifest",
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
    /// Attestation manifests about the image: who signed them is part of this answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Digest>,
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

/// A signature with what it claims, read but not verified. Only a [`Keyring`] and a [`TrustedRoot`] say whether it
/// counts.
#[derive(Debug, Clone)]
pub struct Unverified {
    carrier: Carrier,
    claim: Claim,
    subjects: Vec<Digest>,
    maker: Maker,
    predicate: Predicate,
    message: Message,
    signature: Vec<u8>,
    /// The bundle that it was read from, where more than the signature has to be verified.
    bundle: Option<String>,
    /// A log entry that this bundle cannot hold.
    intoto: Option<Box<legacy::Intoto>>,
    /// How much work that is at worst, in signature checks or so.
    work: usize,
}

/// Where a payload says what it claims.
#[derive(Debug, Clone)]
enum Predicate {
    /// In this part of the message, of which there need be no second copy: it may be large.
    Within(Range<usize>),
    /// Put together from the payload.
    Apart(Vec<u8>),
}

/// Who claims to have made a signature.
#[derive(Debug, Clone)]
enum Maker {
    /// The holder of a key, which may be named by its fingerprint.
    Key(Option<String>),
    /// The holder of a Sigstore certificate.
    Certificate(Box<Leaf>),
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

    /// The certificate of whoever claims to have made it, where it comes with one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Leaf> {
        match &self.maker {
            Maker::Certificate(leaf) => Some(leaf),
            Maker::Key(_) => None,
        }
    }

    /// Whether it comes with log entries or timestamps, which must verify too.
    #[must_use]
    pub fn is_witnessed(&self) -> bool {
        self.bundle.is_some()
    }

    /// Log entries that it comes with, verified or not: identifier of the log, hexadecimal, and number. They are read as
    /// they would be to verify them; what cannot be read so can never verify.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, u64)> {
        let text = self.bundle.as_deref().unwrap_or_default();
        let mut entries = sigstore::entries(text);
        entries.extend(self.intoto.iter().map(|intoto| intoto.place()));
        entries
    }

    /// How much work it is at worst to verify it under one root, in units of about a signature check.
    #[must_use]
    pub fn work(&self) -> usize {
        self.work
    }

    /// The fingerprint of the key that it names.
    fn hint(&self) -> Option<&str> {
        match &self.maker {
            Maker::Key(hint) => hint.as_deref(),
            Maker::Certificate(_) => None,
        }
    }

    /// What its payload claims, as JSON; empty where there is nothing.
    #[must_use]
    pub fn predicate(&self) -> &[u8] {
        match (&self.predicate, &self.message) {
            (Predicate::Apart(bytes), _) => bytes,
            (Predicate::Within(part), Message::Bytes(message)) => message.get(part.clone()).unwrap_or_default(),
            (Predicate::Within(_), Message::Sha256(_)) => &[],
        }
    }

    /// How many bytes of memory it takes, but for what is small in any case.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let message = match &self.message {
            Message::Bytes(bytes) => bytes.len(),
            Message::Sha256(_) => 0,
        };
        (message + self.bundle.as_ref().map_or(0, String::len)) as u64
    }
}

impl Claim {
    /// The use that a key must have for this claim to count.
    ///
    /// # Errors
    /// [`Problem::PredicateUnsupported`] for a predicate that nothing asks for.
    pub fn needs(&self) -> Result<Use, Problem> {
        match self {
            Self::ImageSignature => Ok(Family::Signature.needs()),
            Self::Attestation(predicate) => Family::of(predicate)
                .map(Family::needs)
                .ok_or_else(|| Problem::PredicateUnsupported(shorten(predicate))),
        }
    }

    /// What kind of evidence it is; `None` for a predicate that nothing asks for.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::ImageSignature => Some(Family::Signature),
            Self::Attestation(predicate) => Family::of(predicate),
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
    #[error("the evidence cache is empty")]
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
    #[error("its Sigstore bundle is of type '{0}', of which versions 0.1, 0.2 and 0.3 are verified")]
    BundleVersion(String),
    /// Neither or both kinds of content.
    #[error("its Sigstore bundle must hold either an envelope or a message signature")]
    BundleContent,
    /// More in a list of a bundle than is accepted.
    #[error("its Sigstore bundle has {count} {what}, more than the {most} that are accepted")]
    BundleTooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much of it there is.
        count: usize,
        /// How much is accepted.
        most: usize,
    },
    /// The same twice in a list of a bundle.
    #[error("its Sigstore bundle has the same twice among its {0}")]
    BundleRepeats(&'static str),
    /// More than one way to say who signed.
    #[error("its Sigstore bundle says in more than one way who signed")]
    BundleSigners,
    /// The bundle names no signer.
    #[error("its Sigstore bundle holds neither a certificate nor the name of a public key")]
    NoKey,
    /// The signing certificate is not acceptable, whoever issued it.
    #[error("its signing certificate is not acceptable: {0}")]
    Certificate(String),
    /// A certificate that is too large.
    #[error("it has a certificate of {0} bytes, more than any has")]
    CertificateTooLarge(usize),
    /// A trusted root does not accept it.
    #[error("under the root '{root}': {refusal}")]
    Sigstore {
        /// Identifier of the root.
        root: String,
        /// Why.
        refusal: sigstore::Refusal,
    },
    /// There is no root to verify it under.
    #[error("no root in trust.d has an authority that could have issued its certificate")]
    RootUnknown,
    /// There is no root to verify log entries or timestamps under.
    #[error("it holds a log entry or a timestamp, and trust.d has no root to verify them under")]
    RootMissing,
    /// The policy names no signer like this one.
    #[error("it claims to be signed by {identity} (issuer {issuer}), whom no rule names; that was not verified")]
    SignerUnlisted {
        /// The identity in its certificate.
        identity: String,
        /// The issuer in its certificate.
        issuer: String,
    },
    /// A signature of the Notary Project does not count.
    #[error("{0}")]
    Notation(notation::Fault),
    /// A signature of the Notary Project is of something else than an image.
    #[error("it signs something of type '{0}', which is no image")]
    NotationTarget(String),
    /// The signer's name is not one to compare.
    #[error("the subject of its certificate is longer than any or not printable: '{0}'")]
    NotationSubject(String),
    /// There is no trust store to verify signatures of the Notary Project under.
    #[error("it is a signature of the Notary Project, and trust.d has no [[notation]] to verify it under")]
    StoreMissing,
    /// A trust store of trust.d cannot be used.
    #[error("the trust store '{store}' in trust.d cannot be used: {error}")]
    StoreUnusable {
        /// Identifier of the store.
        store: String,
        /// Why.
        error: notation::StoreError,
    },
    /// A root of trust.d cannot be used.
    #[error("the root '{root}' in trust.d cannot be used: {reason}")]
    RootUnusable {
        /// Identifier of the root.
        root: String,
        /// Why.
        reason: String,
    },
    /// A root of trust.d was not refreshed in time.
    #[error(
        "the root '{root}' in trust.d was last known to be current longer ago than its max_age allows: it counted until \
         {until:.0}"
    )]
    RootTooOld {
        /// Identifier of the root.
        root: String,
        /// When it ceased to count.
        until: jiff::Timestamp,
    },
    /// An entry of a root of trust.d is not used.
    #[error("the root '{root}' in trust.d: {left_out}")]
    RootEntry {
        /// Identifier of the root.
        root: String,
        /// What is left out, and why.
        left_out: crate::trust::root::LeftOut,
    },
    /// The blob is no envelope.
    #[error("its envelope is malformed: {0}")]
    Envelope(json::Error),
    /// An annotation with a log entry or a timestamp cannot be read.
    #[error("the log entry or the timestamp in its annotations is malformed: {0}")]
    Annotation(json::Error),
    /// The body of a log entry cannot be read.
    #[error("the body of its log entry is malformed: {0}")]
    LogBody(json::Error),
    /// A log entry of another kind.
    #[error("it has a log entry of the kind '{0}', which this version does not verify")]
    LogEntryKind(String),
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
    /// A chain from a signature to a statement does not hold.
    #[error("{0}")]
    Attestation(attestation::Fault),
    /// The predicate is not what its type says.
    #[error("its predicate is not acceptable: {0}")]
    Predicate(attest::PredicateError),
    /// A condition of a rule does not hold.
    #[error("where = {0} does not hold for its predicate")]
    ConditionFalse(String),
    /// A condition of a rule has no answer.
    #[error("where = {cel} has no answer for its predicate: {error}")]
    Condition {
        /// The expression, shortened.
        cel: String,
        /// Why.
        error: attest::ConditionError,
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
    #[error(
        "the retired key '{key}' signed {signed}, which is not recorded as one that stays valid{}",
        window(*.ends)
    )]
    KeyRetired {
        /// Identifier of the key.
        key: String,
        /// Whether the key's window has an end, so that a time could help.
        ends: bool,
        /// What it signs.
        signed: Digest,
    },
    /// The key has a validity window.
    #[error("it is signed by the key '{0}', and no trusted time says that it was signed within the key's window")]
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

fn window(ends: bool) -> &'static str {
    if ends { ", at no trusted time in its window" } else { "" }
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
            Self::Bundle(_)
            | Self::BundleContent
            | Self::BundleTooMany { .. }
            | Self::BundleRepeats(_)
            | Self::BundleSigners
            | Self::NoKey => "bundle-malformed",
            Self::BundleVersion(_) => "bundle-version-unsupported",
            Self::Certificate(_) | Self::CertificateTooLarge(_) => "certificate-unacceptable",
            Self::Sigstore { refusal, .. } => refusal.code(),
            Self::RootUnknown => "root-unknown",
            Self::RootMissing => "root-missing",
            Self::Notation(fault) => fault.code(),
            Self::NotationTarget(_) => "notation-target",
            Self::NotationSubject(_) => "notation-subject",
            Self::StoreMissing => "store-missing",
            Self::StoreUnusable { .. } => "store-unusable",
            Self::SignerUnlisted { .. } => "signer-unlisted",
            Self::RootUnusable { .. } => "root-unusable",
            Self::RootTooOld { .. } => "root-too-old",
            Self::RootEntry { .. } => "root-entry",
            Self::Envelope(_) => "envelope-malformed",
            Self::Annotation(_) => "annotation-malformed",
            Self::LogBody(_) => "log-entry-malformed",
            Self::LogEntryKind(_) => "log-entry-unsupported",
            Self::Base64(_) => "base64-invalid",
            Self::PayloadType(_) => "payload-type-unsupported",
            Self::SignatureCount(_) => "signature-count",
            Self::MessageDigest(_) => "message-digest-unsupported",
            Self::Payload(_) => "payload-malformed",
            Self::SubjectMismatch { .. } => "subject-mismatch",
            Self::Attestation(fault) => fault.code(),
            Self::Predicate(_) => "predicate-malformed",
            Self::ConditionFalse(_) => "where-false",
            Self::Condition { .. } => "where-error",
            Self::PredicateUnsupported(_) => "predicate-unsupported",
            Self::KeyUnknown(_) => "key-unknown",
            Self::SignatureInvalid(_) => "signature-invalid",
            Self::KeyHash { .. } => "key-hash",
            Self::MessageNeeded(_) => "message-needed",
            Self::KeyUse { .. } => "key-use",
            Self::KeyDistrusted(_) => "key-distrusted",
            Self::KeyRetired { .. } => "key-retired",
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
