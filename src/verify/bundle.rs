//! Sigstore bundles: one signature with everything that is needed to verify it.
//!
//! Read here is who claims to have signed what; whether that is true is for a [`Keyring`](super::Keyring) or a
//! [`TrustedRoot`](super::TrustedRoot) to say.
//!
//! Format: <https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto> in its JSON form.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::certificate::{self, Leaf};
use super::key::Message;
use super::{Carrier, Claim, Maker, Predicate, Problem, Unverified};
use crate::attest::{COSIGN_SIGN, Statement};
use crate::digest::Digest;
use crate::oci::{json, shorten};

/// Media types of bundles, the newest first, in the order in which the specification prefers them.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    MEDIA_TYPE_V02,
    MEDIA_TYPE_V01,
];
/// Media type of version 0.2, in which a timestamp can stand alone.
pub(super) const MEDIA_TYPE_V02: &str = "application/vnd.dev.sigstore.bundle+json;version=0.2";
/// Media type of version 0.1, in which the promise of a log can stand alone.
pub(super) const MEDIA_TYPE_V01: &str = "application/vnd.dev.sigstore.bundle+json;version=0.1";
/// What the media types of all versions of the bundle start with.
pub const MEDIA_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
/// Largest bundle in bytes.
pub const MAX_BUNDLE: u64 = 16 << 20;
/// Most transparency-log entries of a bundle.
pub const MAX_ENTRIES: usize = 32;
/// Most timestamps of a bundle.
pub const MAX_TIMESTAMPS: usize = 32;
/// Most certificates of a bundle.
const MAX_CERTIFICATES: usize = 4;
/// Largest certificate in bytes.
pub(super) const MAX_CERTIFICATE: usize = 32 << 10;

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A bundle, read but not verified.
#[derive(Debug)]
pub struct Bundle {
    raw: Raw,
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Option<Hint>,
    certificate: Option<Certificate>,
    x509_certificate_chain: Option<Chain>,
    tlog_entries: Option<json::First<Box<RawValue>, MAX_ENTRIES>>,
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    raw_bytes: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    certificates: json::First<Certificate, MAX_CERTIFICATES>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    rfc3161_timestamps: Option<json::First<Timestamp, MAX_TIMESTAMPS>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamp {
    signed_timestamp: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    /// There must be one.
    signatures: json::First<Signature, 1>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    /// Names a key; the signature decides, not its name.
    #[serde(rename = "keyid")]
    _keyid: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageSignature {
    message_digest: MessageDigest,
    signature: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

/// A log entry as far as it is read here: the verifier of the Sigstore project ignores what it does not know, and what
/// nobody looks at could be taken for something that was verified.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "logIndex")]
    _log_index: Option<IgnoredAny>,
    #[serde(rename = "logId")]
    _log_id: Option<LogId>,
    #[serde(rename = "kindVersion")]
    _kind_version: Option<KindVersion>,
    #[serde(rename = "integratedTime")]
    _integrated_time: Option<IgnoredAny>,
    #[serde(rename = "inclusionPromise")]
    _inclusion_promise: Option<Promise>,
    #[serde(rename = "inclusionProof")]
    _inclusion_proof: Option<Proof>,
    #[serde(rename = "canonicalizedBody")]
    _canonicalized_body: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogId {
    #[serde(rename = "keyId")]
    _key_id: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindVersion {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    #[serde(rename = "signedEntryTimestamp")]
    _signed_entry_timestamp: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    #[serde(rename = "logIndex")]
    _log_index: Option<IgnoredAny>,
    #[serde(rename = "rootHash")]
    _root_hash: Option<IgnoredAny>,
    #[serde(rename = "treeSize")]
    _tree_size: Option<IgnoredAny>,
    #[serde(rename = "hashes")]
    _hashes: Option<IgnoredAny>,
    #[serde(rename = "checkpoint")]
    _checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    #[serde(rename = "envelope")]
    _envelope: IgnoredAny,
}

/// What a bundle says and what was signed to say it.
struct Content {
    claim: Claim,
    subjects: Vec<Digest>,
    predicate: Predicate,
    message: Message,
    signature: Vec<u8>,
}

impl Bundle {
    /// Reads a bundle of any kind.
    ///
    /// # Errors
    /// [`Problem::Bundle`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(Self {
            raw: json::parse(&bytes).map_err(Problem::Bundle)?,
            // What is JSON is UTF-8.
            text: String::from_utf8(bytes).unwrap_or_default(),
        })
    }

    /// Digests that the payload names, whoever signed it and however.
    ///
    /// # Errors
    /// A payload that cannot be read.
    pub fn subjects(self) -> Result<Vec<Digest>, Problem> {
        Ok(self.raw.content()?.subjects)
    }

    /// What is to be verified with a key, or under a trusted root.
    ///
    /// # Errors
    /// A bundle that cannot be verified, each reason with its own [`Problem`].
    pub fn unverified(self) -> Result<Unverified, Problem> {
        let (mut unverified, text) = self.read()?;
        unverified.bundle = (unverified.carrier != Carrier::BundleKey).then_some(text);
        Ok(unverified)
    }

    /// What is to be verified, and the text of the bundle, which that may need.
    pub(super) fn read(self) -> Result<(Unverified, String), Problem> {
        let Self { raw, text } = self;
        if !MEDIA_TYPES.contains(&raw.media_type.as_str()) {
            return Err(Problem::BundleVersion(shorten(&raw.media_type)));
        }
        let material = &raw.verification_material;
        let witnesses = material.witnesses()?;
        let maker = material.maker()?;
        let work = 1 + witnesses;
        let content = raw.content()?;
        let carrier = match (&maker, witnesses) {
            (Maker::Certificate(_), _) => Carrier::BundleCertificate,
            (Maker::Key(_), 0) => Carrier::BundleKey,
            (Maker::Key(_), _) => Carrier::BundleKeyLogged,
        };
        let unverified = Unverified {
            carrier,
            claim: content.claim,
            subjects: content.subjects,
            predicate: content.predicate,
            message: content.message,
            signature: content.signature,
            bundle: None,
            maker,
            intoto: None,
            work,
        };
        Ok((unverified, text))
    }
}

/// Whether a bundle says that its signature comes with a certificate. One look, cheap and at nothing else: what is no
/// bundle does not say so.
#[must_use]
pub fn is_certified(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signed {
        verification_material: By,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct By {
        certificate: Option<IgnoredAny>,
        x509_certificate_chain: Option<IgnoredAny>,
    }
    serde_json::from_slice(bytes).is_ok_and(
        |Signed {
             verification_material: by,
         }| { by.certificate.is_some() || by.x509_certificate_chain.is_some() },
    )
}

impl Raw {
    fn content(self) -> Result<Content, Problem> {
        match (self.dsse_envelope, self.message_signature) {
            (Some(envelope), None) => envelope.content(),
            (None, Some(signature)) => signature.content(),
            _ => Err(Problem::BundleContent),
        }
    }
}

impl Material {
    /// How many log entries and timestamps it has.
    fn witnesses(&self) -> Result<usize, Problem> {
        let entries = self.tlog_entries.as_ref();
        let timestamps = self
            .timestamp_verification_data
            .as_ref()
            .and_then(|data| data.rfc3161_timestamps.as_ref());
        few("log entries", entries)?;
        few("timestamps", timestamps)?;
        let entries: Vec<&str> = entries
            .iter()
            .flat_map(|entries| &entries.items)
            .map(|entry| entry.get())
            .collect();
        for entry in &entries {
            serde_json::from_str::<Entry>(entry).map_err(|error| Problem::Bundle(error.into()))?;
        }
        let timestamps: Vec<&str> = timestamps
            .iter()
            .flat_map(|timestamps| &timestamps.items)
            .map(|timestamp| timestamp.signed_timestamp.as_str())
            .collect();
        for (what, list) in [("log entries", &entries), ("timestamps", &timestamps)] {
            // They could be counted twice.
            if list.iter().collect::<HashSet<_>>().len() < list.len() {
                return Err(Problem::BundleRepeats(what));
            }
        }
        Ok(entries.len() + timestamps.len())
    }

    fn maker(&self) -> Result<Maker, Problem> {
        match (&self.public_key, &self.certificate, &self.x509_certificate_chain) {
            (Some(Hint { hint }), None, None) => Ok(Maker::Key(hint.clone().filter(|hint| !hint.is_empty()))),
            (None, Some(certificate), None) => leaf(std::slice::from_ref(certificate)),
            (None, None, Some(Chain { certificates })) => {
                few("certificates", Some(certificates))?;
                leaf(&certificates.items)
            }
            (None, None, None) => Err(Problem::NoKey),
            _ => Err(Problem::BundleSigners),
        }
    }
}

/// Refuses a list of which not all is here.
fn few<T, const MOST: usize>(what: &'static str, list: Option<&json::First<T, MOST>>) -> Result<(), Problem> {
    match list {
        Some(&json::First { count, .. }) if count > MOST => Err(Problem::BundleTooMany {
            what,
            count,
            most: MOST,
        }),
        _ => Ok(()),
    }
}

/// The first certificate is the signer's. Of the others nothing is used: which authorities are between the signer's
/// certificate and the root of trust is the trusted root's to say.
fn leaf(certificates: &[Certificate]) -> Result<Maker, Problem> {
    let mut first = None;
    for certificate in certificates {
        let der = base64("certificate", &certificate.raw_bytes)?;
        if der.len() > MAX_CERTIFICATE {
            return Err(Problem::CertificateTooLarge(der.len()));
        }
        if first.is_none() {
            first = Some(Leaf::parse(&der)?);
        } else if certificate::is_self_signed(&der)? {
            return Err(Problem::Certificate(
                "a root of trust comes with it, which no bundle may bring".to_owned(),
            ));
        }
    }
    first
        .map(|leaf| Maker::Certificate(Box::new(leaf)))
        .ok_or(Problem::NoKey)
}

impl Envelope {
    fn content(self) -> Result<Content, Problem> {
        if self.payload_type != IN_TOTO {
            return Err(Problem::PayloadType(shorten(&self.payload_type)));
        }
        let ([signature], 1) = (self.signatures.items.as_slice(), self.signatures.count) else {
            return Err(Problem::SignatureCount(self.signatures.count));
        };
        // Each of these may be large: none is kept beside the next.
        let payload = base64("payload", &self.payload)?;
        drop(self.payload);
        let message = pae(&self.payload_type, &payload);
        let start = message.len() - payload.len();
        drop(payload);
        let statement = Statement::parse(message.get(start..).unwrap_or_default()).map_err(Problem::Payload)?;
        let predicate = match statement.predicate {
            [] => 0..0,
            predicate => {
                let start = predicate.as_ptr().addr() - message.as_ptr().addr();
                start..start + predicate.len()
            }
        };
        let claim = if statement.predicate_type == COSIGN_SIGN {
            Claim::ImageSignature
        } else {
            Claim::Attestation(statement.predicate_type)
        };
        Ok(Content {
            claim,
            subjects: statement.subjects,
            predicate: Predicate::Within(predicate),
            signature: base64("signature", &signature.sig)?,
            message: Message::Bytes(message),
        })
    }
}

impl MessageSignature {
    /// A signature over a manifest's own bytes, of which the digest is all that is needed.
    fn content(self) -> Result<Content, Problem> {
        let MessageDigest { algorithm, digest } = &self.message_digest;
        if algorithm != "SHA2_256" {
            return Err(Problem::MessageDigest(shorten(algorithm)));
        }
        let digest: Digest = format!("sha256:{}", hex::encode(base64("message digest", digest)?))
            .parse()
            .map_err(|_| Problem::Base64("message digest"))?;
        Ok(Content {
            claim: Claim::ImageSignature,
            subjects: vec![digest],
            predicate: Predicate::Within(0..0),
            message: Message::Sha256(digest),
            signature: base64("signature", &self.signature)?,
        })
    }
}

/// The pre-authentication encoding of DSSE: what is signed in place of the payload alone.
pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Padded standard base64 in its one canonical form.
pub(super) fn base64(what: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    BASE64_STANDARD.decode(text).map_err(|_| Problem::Base64(what))
}
