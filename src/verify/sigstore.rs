//! Sigstore's own evidence, verified under one trusted root: signing certificates, transparency logs, timestamps.
//!
//! [`Verify`] is what the rest of Assay knows of it; [`TrustedRoot`] implements it with the verifier of the Sigstore
//! project. Around that one: what it verifies are the very bytes that were read here; every log and every timestamp
//! authority is known by name, so that none counts twice; an entry is believed only of the log that it names, and
//! only at a time at which that log's key was valid.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sigstore_verify::crypto::{Checkpoint, Keyring};
use sigstore_verify::error::{CertificateError, TimestampError, TransparencyLogError};
use sigstore_verify::trust_root::{TransparencyLog, TsaAuthority};
use sigstore_verify::types::bundle::{TransparencyLogEntry, VerificationMaterialContent};
use sigstore_verify::types::{
    Artifact, Bundle, DerPublicKey, KindVersion, MessageSignature, Sha256Hash, SignatureContent,
};
use sigstore_verify::{Error, PublicKeyVerificationPolicy, VerificationPolicy, Verifier, trust_root, tsa};
use x509_cert::Certificate as X509;
use x509_cert::der::{Decode as _, Encode as _};

use super::certificate::Leaf;
use super::key::Message;
use super::{LogEntry, Maker, Problem, Proof, Signer, Span, TimeSource, TrustedTime, Unverified};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::oci::shorten;
use crate::trust::root::{LeftOut, RootError};
use crate::trust::{HashAlgorithm, Key, Root, root};

/// Verification of evidence under one trusted root.
pub trait Verify {
    /// What is proved about `subject` by a signature that `by` made, or claims to have made:
    /// the certificate, the log entries and the timestamps that come with it. `now` is the node's own time.
    ///
    /// # Errors
    /// Why it does not count under this root.
    fn verify(&self, evidence: &Unverified, by: By<'_>, subject: Digest, now: Timestamp) -> Result<Proof, Problem>;
}

/// Who made the signature.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// The holder of the certificate that comes with it.
    Certificate,
    /// The holder of this key.
    Key(&'a Key),
}

/// Why the verifier of the Sigstore project refuses; the text is its own, made printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bundle's parts contradict each other, or something is missing.
    #[error("its Sigstore bundle is not sound: {0}")]
    Bundle(String),
    /// Something that is not verified by this version.
    #[error("its Sigstore bundle holds what this version does not verify: {0}")]
    Unsupported(String),
    /// What is verified is not what was read.
    #[error("its Sigstore bundle can be read in two ways: its {0} differ")]
    Ambiguous(&'static str),
    /// The signature is not by the key over the payload.
    #[error("its signature does not verify: {0}")]
    Signature(String),
    /// It is about something else.
    #[error("its Sigstore bundle is about something else: {0}")]
    Subject(String),
    /// The certificate does not lead to an authority of the root.
    #[error("its certificate is not by an authority of the root: {0}")]
    Untrusted(String),
    /// The certificate or its authority was not valid when it signed.
    #[error("its certificate was not valid when it signed: {0}")]
    Expired(String),
    /// The certificate was not entered into a log of certificates.
    #[error("its certificate has no valid entry in a log of certificates: {0}")]
    CertificateLog(String),
    /// The log is not one of the root's.
    #[error("its log entry is of a log that the root does not list: {0}")]
    UnknownLog(String),
    /// The log's proof, checkpoint or promise does not verify.
    #[error("its log entry is not proved: {0}")]
    LogProof(String),
    /// The log entry is of another signature.
    #[error("its log entry is of another signature: {0}")]
    LogMismatch(String),
    /// The log entry's time cannot be.
    #[error("its log entry's time cannot be: {0}")]
    LogTime(String),
    /// A timestamp does not verify.
    #[error("its timestamp does not verify: {0}")]
    Timestamp(String),
    /// Nobody who is trusted says when it was signed.
    #[error("nobody whom the root trusts says when it was signed: {0}")]
    NoTime(String),
    /// A trusted time is later than the node's own.
    #[error("it was signed at {0}, which is in the future by this node's clock")]
    Future(Timestamp),
    /// The key cannot be checked against a log.
    #[error("log entries and timestamps of this key's signatures are not verified: {0}")]
    Key(&'static str),
}

impl Refusal {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle-malformed",
            Self::Unsupported(_) => "bundle-unsupported",
            Self::Ambiguous(_) => "bundle-ambiguous",
            Self::Signature(_) => "signature-invalid",
            Self::Subject(_) => "subject-mismatch",
            Self::Untrusted(_) => "certificate-untrusted",
            Self::Expired(_) => "certificate-expired",
            Self::CertificateLog(_) => "certificate-unlogged",
            Self::UnknownLog(_) => "log-unknown",
            Self::LogProof(_) => "log-unproved",
            Self::LogMismatch(_) => "log-mismatch",
            Self::LogTime(_) => "log-time",
            Self::Timestamp(_) => "timestamp-invalid",
            Self::NoTime(_) => "time-missing",
            Self::Future(_) => "time-future",
            Self::Key(_) => "key-log-unsupported",
        }
    }
}

/// A trusted root, ready to verify with.
pub struct TrustedRoot {
    id: String,
    /// What the verifier was made from.
    listed: trust_root::TrustedRoot,
    verifier: Verifier,
    logs: Keyring,
    authorities: Vec<(String, TsaAuthority)>,
    /// DER of the names under which its authorities certify.
    names: Vec<Vec<u8>>,
    /// The end of the time in which it counts, exclusive.
    until: Option<Timestamp>,
    lists_logs: bool,
    lists_certificate_logs: bool,
}

impl TrustedRoot {
    /// Prepares a root; what it lists and the verifier does not support comes with it.
    ///
    /// # Errors
    /// [`Problem::RootUnusable`].
    pub fn new(root: &Root) -> Result<(Self, Vec<LeftOut>), Problem> {
        let unusable = |reason: RootError| Problem::RootUnusable {
            root: root.id.clone(),
            reason: reason.to_string(),
        };
        let other = |reason: String| Problem::RootUnusable {
            root: root.id.clone(),
            reason: printable(&reason).into_owned(),
        };
        let root::Usable {
            root: usable,
            lists_logs,
            lists_certificate_logs,
            left_out,
        } = root.usable().map_err(unusable)?;
        let names = usable
            .certificate_authorities
            .iter()
            .flat_map(|authority| &authority.cert_chain.certificates)
            .filter_map(|entry| X509::from_der(entry.raw_bytes.as_bytes()).ok())
            .filter_map(|certificate| certificate.tbs_certificate.subject.to_der().ok())
            .collect();
        // Made one by one: the library's own list leaves out names, and windows that have not started.
        let mut authorities = Vec::new();
        for authority in &usable.timestamp_authorities {
            let certificates: Vec<_> = authority
                .cert_chain
                .certificates
                .iter()
                .map(|entry| &entry.raw_bytes)
                .collect();
            let (Some(leaf), Some(anchor)) = (certificates.first(), certificates.last()) else {
                continue;
            };
            let between = certificates
                .get(1..certificates.len().saturating_sub(1))
                .unwrap_or_default();
            let name = authority
                .uri
                .clone()
                .filter(|uri| !uri.is_empty())
                .unwrap_or_else(|| Digest::of(leaf.as_bytes()).to_string());
            authorities.push((
                shorten(&name),
                TsaAuthority::new(
                    (*leaf).clone(),
                    between.iter().map(|der| (*der).clone()).collect(),
                    (*anchor).clone(),
                    authority.valid_for,
                ),
            ));
        }
        let prepared = Self {
            id: root.id.clone(),
            verifier: Verifier::new(&usable).map_err(|error| other(error.to_string()))?,
            logs: usable.rekor_keys().map_err(|error| other(error.to_string()))?,
            authorities,
            names,
            until: root.until(),
            lists_logs,
            lists_certificate_logs,
            listed: usable,
        };
        Ok((prepared, left_out))
    }

    /// Name of the root by which policy refers to it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it lists a transparency log, so that what is signed under it has an entry in one.
    #[must_use]
    pub fn lists_logs(&self) -> bool {
        self.lists_logs
    }

    /// Whether one of its authorities has the name of whoever issued the certificate. Cheap, and proves nothing.
    #[must_use]
    pub fn may_have_issued(&self, leaf: &Leaf) -> bool {
        self.names.contains(&leaf.authority)
    }

    /// Times of RFC 3161 timestamps over the signature, with who says so. All were verified by the library already;
    /// it does not tell by whom.
    fn timestamps(&self, bundle: &Bundle) -> Result<Vec<TrustedTime>, Refusal> {
        let signature = match &bundle.content {
            SignatureContent::MessageSignature(message) => &message.signature,
            SignatureContent::DsseEnvelope(envelope) => &envelope.signature.sig,
            _ => return Err(Refusal::Unsupported("another kind of content".to_owned())),
        };
        let tokens = &bundle
            .verification_material
            .timestamp_verification_data
            .rfc3161_timestamps;
        tokens
            .iter()
            .map(|token| {
                self.authorities
                    .iter()
                    .find_map(|(name, authority)| {
                        let time =
                            tsa::verify_timestamp_for_authority(&token.signed_timestamp, signature, authority).ok()?;
                        Some(TrustedTime {
                            source: TimeSource::Timestamp,
                            authority: name.clone(),
                            time,
                        })
                    })
                    .ok_or_else(|| Refusal::Timestamp("no authority of the root made it".to_owned()))
            })
            .collect()
    }

    /// What the log entries prove, beyond what the library found out: of which log each is.
    fn entries(&self, bundle: &Bundle, times: &mut Vec<TrustedTime>, now: Timestamp) -> Result<Vec<LogEntry>, Refusal> {
        let entries = &bundle.verification_material.tlog_entries;
        for entry in entries {
            if let Some(time) = promised_time(entry) {
                times.push(TrustedTime {
                    source: TimeSource::Log,
                    authority: hex::encode(entry.log_id.key_id.as_bytes()),
                    time,
                });
            }
        }
        // Each entry, not only each log: the deny list names entries.
        let mut logs: BTreeMap<(String, u64), LogEntry> = BTreeMap::new();
        for entry in entries {
            let id = Sha256Hash::try_from(entry.log_id.key_id.as_bytes())
                .map_err(|_| Refusal::LogProof("the identifier of its log is no SHA-256".to_owned()))?;
            let included = self.included(entry, &id)?;
            if !included && entry.inclusion_promise.is_none() {
                return Err(Refusal::LogProof("it has neither proof nor promise".to_owned()));
            }
            let valid = if times.is_empty() {
                // Nobody says when. A key that is valid to this day and has no end was valid then too, whenever that was
                // after its start; and it proves inclusion now.
                included && self.is_open(&id, now)
            } else {
                times.iter().any(|time| self.logs.key_at(&id, time.time).is_some())
            };
            if !valid {
                return Err(Refusal::LogTime(
                    "the log's key was not valid when it was signed".to_owned(),
                ));
            }
            let (log, index) = (id.to_hex(), entry.log_index.get());
            let known = logs.entry((log.clone(), index)).or_insert(LogEntry {
                log,
                index,
                included: false,
                unnumbered: true,
            });
            known.included |= included;
            // The proof of the second version is of the number; that of the first is of one within a part of the log.
            let is_proved = included && entry.kind_version == KindVersion::HashedRekordV002;
            known.unnumbered &= entry.inclusion_promise.is_none() && !is_proved;
        }
        Ok(logs.into_values().collect())
    }

    /// The log of this identifier, as the root lists it.
    fn listed(&self, id: &Sha256Hash) -> Option<&TransparencyLog> {
        let mut logs = self.listed.tlogs.iter();
        logs.find(|log| log.log_id.key_id.as_bytes() == id.as_bytes())
    }

    /// Whether the key of a log is valid now, and without end.
    fn is_open(&self, id: &Sha256Hash, now: Timestamp) -> bool {
        self.listed(id).is_some_and(|log| {
            log.public_key
                .valid_for
                .as_ref()
                .is_none_or(|window| window.end.is_none() && window.start <= now)
        })
    }

    /// Whether inclusion was proved, by a checkpoint of the very log that the entry names. The library accepts a
    /// checkpoint of any log of the root.
    fn included(&self, entry: &TransparencyLogEntry, id: &Sha256Hash) -> Result<bool, Refusal> {
        let Some(proof) = &entry.inclusion_proof else {
            return Ok(false);
        };
        let key = self.logs.key(id).ok_or_else(|| Refusal::UnknownLog(id.to_hex()))?;
        let checkpoint =
            Checkpoint::from_text(proof.checkpoint.envelope()).map_err(|error| Refusal::LogProof(said(&error)))?;
        let hint = id.as_bytes().get(..4);
        let url = self.listed(id).map_or("", |log| log.base_url.as_str());
        let signed = checkpoint
            .signatures()
            .iter()
            .filter(|signature| Some(signature.key_id.as_slice()) == hint)
            .filter(|signature| is_at(url, &signature.name) && is_origin(checkpoint.origin(), &signature.name))
            .any(|signature| key.verify(checkpoint.signed_data(), &signature.signature).is_ok());
        if signed {
            Ok(true)
        } else {
            Err(Refusal::LogProof(
                "its checkpoint is not by the log that it names".to_owned(),
            ))
        }
    }
}

impl Verify for TrustedRoot {
    fn verify(&self, evidence: &Unverified, by: By<'_>, subject: Digest, now: Timestamp) -> Result<Proof, Problem> {
        let refused = |refusal: Refusal| Problem::Sigstore {
            root: self.id.clone(),
            refusal,
        };
        if let Some(until) = self.until.filter(|until| *until <= now) {
            return Err(Problem::RootTooOld {
                root: self.id.clone(),
                until,
            });
        }
        let text = evidence.bundle.as_deref().unwrap_or_default();
        let mut bundle = Bundle::from_json(text).map_err(|error| refused(Refusal::Bundle(said(&error))))?;
        // The library takes every certificate of the root for an anchor, whose path length nobody looks at. So an
        // authority that comes with the signature is none: the root has to list it.
        if let VerificationMaterialContent::X509CertificateChain { certificates } =
            &mut bundle.verification_material.content
        {
            certificates.truncate(1);
        }
        same(evidence, &bundle).map_err(refused)?;
        let restated = evidence
            .intoto
            .as_ref()
            .map(|entry| entry.restate(&mut bundle, &self.listed, &self.logs))
            .transpose()
            .map_err(refused)?;
        let verifier = restated.as_ref().unwrap_or(&self.verifier);
        if is_logged_as_message(&bundle) {
            // The library looks for the subject in an envelope only, which this is for it no longer.
            if !evidence.subjects.contains(&subject) {
                return Err(refused(Refusal::Subject(
                    "its statement names other subjects".to_owned(),
                )));
            }
            state_as_message(&mut bundle);
        }
        let artifact = match (&bundle.content, &evidence.message) {
            // The message is known and names its subject, as simple signing does.
            (SignatureContent::MessageSignature(_), Message::Bytes(message)) => Artifact::from(message.as_slice()),
            _ => Artifact::from(
                Sha256Hash::from_hex(&subject.hex()).map_err(|error| refused(Refusal::Subject(said(&error))))?,
            ),
        };
        let material = &bundle.verification_material;
        let logged = !material.tlog_entries.is_empty();
        let version2 = |entry: &TransparencyLogEntry| is_version2(&entry.kind_version);
        let timeless = material.tlog_entries.iter().all(version2);
        if timeless && material.timestamp_verification_data.rfc3161_timestamps.is_empty() {
            let why = if logged {
                "the second version of the log gives no time, and there is no timestamp"
            } else {
                "there is neither a log entry nor a timestamp"
            };
            return Err(refused(Refusal::NoTime(why.to_owned())));
        }
        let signer = match (by, &evidence.maker) {
            (By::Certificate, Maker::Certificate(leaf)) => {
                let mut policy = VerificationPolicy::any_identity();
                // Whether a timestamp may stand in for a log entry is for policy to say, which sees that there is none.
                if !logged {
                    policy = policy.skip_tlog_unsafe();
                }
                if !self.lists_certificate_logs {
                    policy = policy.skip_sct();
                }
                verifier
                    .verify(artifact, &bundle, &policy)
                    .map_err(|error| refused(refusal(&error)))?;
                Signer::Certificate(Box::new(leaf.certified(&self.id)))
            }
            (By::Key(key), Maker::Key(_)) => {
                verifiable(key).map_err(refused)?;
                let mut policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(&key.spki));
                if !logged {
                    policy = policy.skip_tlog_unsafe();
                }
                verifier
                    .verify(artifact, &bundle, &policy)
                    .map_err(|error| refused(refusal(&error)))?;
                Signer::Key(key.id.clone())
            }
            (By::Certificate, Maker::Key(_)) | (By::Key(_), Maker::Certificate(_)) => return Err(Problem::NoKey),
        };
        let mut times = self.timestamps(&bundle).map_err(refused)?;
        let logs = self.entries(&bundle, &mut times, now).map_err(refused)?;
        let latest = times.iter().map(|time| time.time).max();
        if let Some(latest) = latest.filter(|latest| *latest > now) {
            return Err(refused(Refusal::Future(latest)));
        }
        Ok(Proof {
            signer,
            logs,
            times,
            // Not before it was signed, should the node's clock be turned back.
            span: Span {
                from: latest,
                until: self.until,
            },
        })
    }
}

impl std::fmt::Debug for TrustedRoot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TrustedRoot({})", self.id)
    }
}

/// The log entries that a bundle claims to have: identifier of the log, hexadecimal, and number.
pub(super) fn entries(bundle: &str) -> Vec<(String, u64)> {
    let entries = Bundle::from_json(bundle).map(|bundle| bundle.verification_material.tlog_entries);
    entries
        .iter()
        .flatten()
        .map(|entry| (hex::encode(entry.log_id.key_id.as_bytes()), entry.log_index.get()))
        .collect()
}

/// Whether a bundle is an envelope that the first version of the log took for a plain signature: one over the envelope's
/// pre-authentication encoding, which it is. Such entries are of the kind `hashedrekord`.
fn is_logged_as_message(bundle: &Bundle) -> bool {
    let entries = &bundle.verification_material.tlog_entries;
    matches!(bundle.content, SignatureContent::DsseEnvelope(_))
        && !entries.is_empty()
        && entries
            .iter()
            .all(|entry| entry.kind_version == KindVersion::HashedRekordV001)
}

/// Makes such an envelope the plain signature as which it was logged: the library knows that kind of entry with no other.
fn state_as_message(bundle: &mut Bundle) {
    if let SignatureContent::DsseEnvelope(envelope) = &bundle.content {
        bundle.content = SignatureContent::MessageSignature(MessageSignature::new(envelope.signature.sig.clone()));
    }
}

/// Whether an entry is of the second version of the log.
fn is_version2(kind: &KindVersion) -> bool {
    *kind == KindVersion::HashedRekordV002
}

/// Whether the log at this address signs by this name: that of its host, and perhaps more of the address.
fn is_at(url: &str, name: &str) -> bool {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let more = address.strip_prefix(name);
    !name.is_empty() && more.is_some_and(|more| more.is_empty() || more.starts_with([':', '/']))
}

/// Whether a checkpoint is of the log of this name. The first version of the log adds the number of its tree.
fn is_origin(origin: &str, name: &str) -> bool {
    origin
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(" - ").is_some_and(is_number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The time in a log's promise, which the library verified. Only such a promise vouches for a time: proofs of
/// inclusion do not cover it, and the second version of the log has none.
fn promised_time(entry: &TransparencyLogEntry) -> Option<Timestamp> {
    if is_version2(&entry.kind_version) || entry.inclusion_promise.is_none() {
        return None;
    }
    entry.integrated_time
}

/// That what the library is going to verify is what was read: payload, signature and certificate, byte by byte.
fn same(evidence: &Unverified, bundle: &Bundle) -> Result<(), Refusal> {
    let signature = match (&evidence.message, &bundle.content) {
        (Message::Bytes(message), SignatureContent::DsseEnvelope(envelope)) => {
            if envelope.pae() != *message {
                return Err(Refusal::Ambiguous("payloads"));
            }
            &envelope.signature.sig
        }
        (signed, SignatureContent::MessageSignature(message)) => {
            let digest = match signed {
                Message::Bytes(bytes) => Digest::of(bytes),
                Message::Sha256(digest) => *digest,
            };
            let read = message.message_digest.as_ref().map(|read| read.digest.to_hex());
            if read != Some(digest.hex()) {
                return Err(Refusal::Ambiguous("message digests"));
            }
            &message.signature
        }
        _ => return Err(Refusal::Ambiguous("contents")),
    };
    if signature.as_bytes() != evidence.signature {
        return Err(Refusal::Ambiguous("signatures"));
    }
    let certificate = bundle.signing_certificate().map(|der| der.as_bytes());
    let read = match &evidence.maker {
        Maker::Certificate(leaf) => Some(leaf.der.as_slice()),
        Maker::Key(_) => None,
    };
    if certificate != read {
        return Err(Refusal::Ambiguous("certificates"));
    }
    Ok(())
}

/// The library takes the hash of a key's signatures from the key alone.
fn verifiable(key: &Key) -> Result<(), Refusal> {
    use sigstore_verify::crypto::KeyAlgorithm;
    if root::is_p521(&key.spki) {
        return Err(Refusal::Key("its key is of ECDSA P-521"));
    }
    let algorithm = KeyAlgorithm::from_spki(&DerPublicKey::from_bytes(&key.spki))
        .map_err(|_| Refusal::Key("its key is of another algorithm than ECDSA, Ed25519 and RSA"))?;
    let hash_matters = !matches!(algorithm, KeyAlgorithm::Ed25519);
    let expected = match algorithm {
        KeyAlgorithm::EcdsaP384 => HashAlgorithm::Sha384,
        _ => HashAlgorithm::Sha256,
    };
    if hash_matters && key.hash != expected {
        return Err(Refusal::Key(
            "keys of ECDSA P-384 need hash = \"sha384\" for that, those of ECDSA P-256 and RSA hash = \"sha256\"",
        ));
    }
    Ok(())
}

fn said(error: &dyn std::fmt::Display) -> String {
    // Quotes from the bundle can be long.
    shorten(&error.to_string())
}

fn refusal(error: &Error) -> Refusal {
    let text = said(error);
    match error {
        Error::SignatureInvalid(_) => Refusal::Signature(text),
        Error::ArtifactMismatch(_) => Refusal::Subject(text),
        Error::UnsupportedArtifact(_) | Error::UnsupportedBundle(_) => Refusal::Unsupported(text),
        Error::Certificate(CertificateError::ChainInvalid(_)) => Refusal::Untrusted(text),
        Error::Certificate(
            CertificateError::NoValidAuthority { .. }
            | CertificateError::NotYetValid { .. }
            | CertificateError::Expired { .. },
        ) => Refusal::Expired(text),
        Error::Certificate(CertificateError::Sct(_)) => Refusal::CertificateLog(text),
        Error::TransparencyLog(
            TransparencyLogError::InclusionProof(_)
            | TransparencyLogError::Checkpoint(_)
            | TransparencyLogError::InclusionPromise(_),
        ) => Refusal::LogProof(text),
        Error::TransparencyLog(TransparencyLogError::UnknownLog { .. }) => Refusal::UnknownLog(text),
        Error::TransparencyLog(TransparencyLogError::EntryMismatch(_)) => Refusal::LogMismatch(text),
        Error::TransparencyLog(TransparencyLogError::IntegratedTime(_)) => Refusal::LogTime(text),
        Error::Timestamp(TimestampError::NoVerifiedTimestamp(_)) => Refusal::NoTime(text),
        Error::Timestamp(_) => Refusal::Timestamp(text),
        _ => Refusal::Bundle(text),
    }
}
