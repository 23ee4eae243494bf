//! cosign's older layout: a signature (`.sig`) is a simple-signing payload with the signature in an annotation of the
//! layer that it is, an attestation (`.att`) an envelope. Certificate, log entry and timestamp, where there are any,
//! are annotations too.
//!
//! What comes with more than a signature is said again as a bundle of version 0.1, which holds the very same things,
//! and verified as such. The one exception is an [`Intoto`] entry, which no bundle can hold.
//!
//! Formats: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>,
//! <https://github.com/sigstore/cosign/blob/main/specs/ATTESTATION_SPEC.md>, and `types` in Rekor for the entries.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sigstore_verify::crypto::Keyring;
use sigstore_verify::trust_root::{PublicKeyDetails, TrustedRoot};
use sigstore_verify::types::{
    CanonicalizedBody, DerPublicKey, InclusionPromise, KindVersion, LogId, LogIndex, LogKeyId, Sha256Hash,
    SignatureBytes, SignatureContent, SignedTimestamp, TransparencyLogEntry,
};
use sigstore_verify::{Verifier, types};
use spki::der::Document;

use super::bundle::{self, Bundle, base64};
use super::key::Message;
use super::sigstore::Refusal;
use super::{Carrier, Predicate, Problem, Unverified};
use crate::attest;
use crate::digest::Digest;
use crate::oci::{Descriptor, json, shorten};

/// Media type of a simple-signing payload.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Largest simple-signing payload in bytes.
pub const MAX_SIMPLE_SIGNING: u64 = 64 << 10;
/// Media type of an envelope.
pub const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// Largest envelope in bytes.
pub const MAX_ENVELOPE: u64 = bundle::MAX_BUNDLE;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

const PEM_CERTIFICATE: &str = "CERTIFICATE";
/// Kind and version of the entries that no bundle can hold.
const INTOTO: (&str, &str) = ("intoto", "0.0.1");
/// What such an entry costs, in units of about a signature check.
const INTOTO_WORK: usize = 4;

/// Reads a simple-signing payload, with the signature and what vouches for it in the annotations of its layer.
///
/// # Errors
/// What is not acceptable in it, or not verified by this version.
pub fn simple_signing(layer: &Descriptor, payload: Vec<u8>) -> Result<Unverified, Problem> {
    const KINDS: Kinds = &[("hashedrekord", "0.0.1")];
    let signature = annotation(layer, SIGNATURE).ok_or(Problem::SignatureCount(0))?;
    let signed = attest::SimpleSigning::parse(&payload).map_err(Problem::Payload)?;
    let digest = hex::decode(Digest::of(&payload).hex()).map_err(|_| Problem::Base64("message digest"))?;
    let content = json!({
        "messageDigest": {"algorithm": "SHA2_256", "digest": BASE64_STANDARD.encode(digest)},
        "signature": signature,
    });
    let witnesses = Witnesses::parse(layer, KINDS)?;
    let unverified = witnesses.with("messageSignature", &content.to_string())?;
    Ok(Unverified {
        carrier: Carrier::SimpleSigning,
        // As for any bundle the message is known by its digest, but here it can be read: it names the image.
        subjects: vec![signed.digest],
        predicate: Predicate::Apart(signed.optional),
        message: Message::Bytes(payload),
        ..unverified
    })
}

/// Reads an envelope, with what vouches for it in the annotations of its layer.
///
/// # Errors
/// What is not acceptable in it, or not verified by this version.
pub fn envelope(layer: &Descriptor, blob: &[u8]) -> Result<Unverified, Problem> {
    const KINDS: Kinds = &[("dsse", "0.0.1"), ("intoto", "0.0.2"), INTOTO];
    let text: &RawValue = json::parse(blob).map_err(Problem::Envelope)?;
    let mut witnesses = Witnesses::parse(layer, KINDS)?;
    let intoto = match witnesses.entry.take() {
        Some(entry) if entry.kind() == INTOTO => Some(Box::new(Intoto::new(entry, Digest::of(blob))?)),
        entry => {
            witnesses.entry = entry;
            None
        }
    };
    let mut unverified = witnesses.with("dsseEnvelope", text.get())?;
    if intoto.is_some() {
        unverified.work += INTOTO_WORK;
    }
    Ok(Unverified {
        carrier: Carrier::Envelope,
        intoto,
        ..unverified
    })
}

/// Whether a layer's signature comes with a certificate.
#[must_use]
pub fn is_certified(layer: &Descriptor) -> bool {
    annotation(layer, CERTIFICATE).is_some()
}

/// The value of an annotation. An empty one says as much as none.
fn annotation<'a>(layer: &'a Descriptor, name: &str) -> Option<&'a str> {
    layer
        .annotations
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// Kinds of log entries, each with its version.
type Kinds = &'static [(&'static str, &'static str)];

/// What the annotations of a layer say about who signed and when.
struct Witnesses {
    /// DER of the signer's certificate.
    certificate: Option<Vec<u8>>,
    entry: Option<Entry>,
    /// Base64 of a timestamp.
    timestamp: Option<String>,
    /// Whether there was a log entry.
    logged: bool,
}

impl Witnesses {
    /// The chain beside the certificate is left aside: what stands between a signer and a root of trust is listed in
    /// that root.
    fn parse(layer: &Descriptor, kinds: Kinds) -> Result<Self, Problem> {
        let entry = annotation(layer, LOG_ENTRY).map(Entry::parse).transpose()?;
        if let Some(entry) = &entry
            && !kinds.contains(&entry.kind())
        {
            let (kind, version) = entry.kind();
            return Err(Problem::LogEntryKind(shorten(&format!("{kind} {version}"))));
        }
        Ok(Self {
            certificate: annotation(layer, CERTIFICATE).map(certificate).transpose()?,
            timestamp: annotation(layer, TIMESTAMP).map(timestamp).transpose()?,
            logged: entry.is_some(),
            entry,
        })
    }

    /// The bundle that holds all of this and `content`, read as any bundle.
    fn with(&self, name: &str, content: &str) -> Result<Unverified, Problem> {
        // Only the first version takes a log's promise for enough, and only the others do without any.
        let media_type = if self.logged {
            bundle::MEDIA_TYPE_V01
        } else {
            bundle::MEDIA_TYPE_V02
        };
        let mut material = match &self.certificate {
            None => json!({"publicKey": {"hint": ""}}),
            Some(der) => json!({"x509CertificateChain": {"certificates": [{"rawBytes": BASE64_STANDARD.encode(der)}]}}),
        };
        material["tlogEntries"] = self.entry.iter().map(Entry::json).collect();
        if let Some(token) = &self.timestamp {
            material["timestampVerificationData"] = json!({"rfc3161Timestamps": [{"signedTimestamp": token}]});
        }
        let text = format!(r#"{{"mediaType":"{media_type}","verificationMaterial":{material},"{name}":{content}}}"#);
        let bundle = Bundle::parse(text.into_bytes()).map_err(|problem| match problem {
            Problem::Bundle(error) => Problem::Envelope(error),
            other => other,
        })?;
        let (mut unverified, text) = bundle.read()?;
        let has_more = self.logged || unverified.carrier != Carrier::BundleKey;
        unverified.bundle = has_more.then_some(text);
        Ok(unverified)
    }
}

/// DER of the one certificate in a PEM text.
fn certificate(pem: &str) -> Result<Vec<u8>, Problem> {
    let malformed = |reason: String| Problem::Certificate(format!("it is no certificate in PEM: {reason}"));
    if pem.len() > bundle::MAX_CERTIFICATE * 2 {
        return Err(Problem::CertificateTooLarge(pem.len()));
    }
    let (label, der) = Document::from_pem(pem).map_err(|error| malformed(error.to_string()))?;
    if label != PEM_CERTIFICATE {
        return Err(malformed(format!("it is labelled '{}'", shorten(label))));
    }
    Ok(der.as_bytes().to_owned())
}

/// Base64 of the timestamp in its annotation.
fn timestamp(text: &str) -> Result<String, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        #[serde(rename = "SignedRFC3161Timestamp")]
        token: String,
    }
    let Raw { token } = json::parse(text.as_bytes()).map_err(Problem::Annotation)?;
    base64("timestamp", &token)?;
    Ok(token)
}

/// A log entry that the log promised to take up.
#[derive(Debug, Clone)]
struct Entry {
    /// Base64 of the body, in its one canonical form: the promise is over this text.
    body: String,
    decoded: Vec<u8>,
    head: Head,
    seconds: i64,
    index: u64,
    log: Sha256Hash,
    promise: Vec<u8>,
}

/// What every body of an entry begins with.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

impl Entry {
    /// Reads the annotation that cosign calls a bundle.
    fn parse(text: &str) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "SignedEntryTimestamp")]
            promise: String,
            #[serde(rename = "Payload")]
            payload: Payload,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Payload {
            body: String,
            integrated_time: i64,
            log_index: u64,
            #[serde(rename = "logID")]
            log_id: Digest256,
        }
        let Raw { promise, payload } = json::parse(text.as_bytes()).map_err(Problem::Annotation)?;
        let decoded = base64("log entry", &payload.body)?;
        Ok(Self {
            head: json::parse(&decoded).map_err(Problem::LogBody)?,
            body: payload.body,
            decoded,
            seconds: payload.integrated_time,
            index: payload.log_index,
            log: payload.log_id.0,
            promise: base64("promise of a log", &promise)?,
        })
    }

    fn kind(&self) -> (&str, &str) {
        (&self.head.kind, &self.head.api_version)
    }

    /// An element of a bundle's `tlogEntries`.
    fn json(&self) -> Value {
        let (kind, version) = self.kind();
        json!({
            "logIndex": self.index.to_string(),
            "logId": {"keyId": self.log.to_base64()},
            "kindVersion": {"kind": kind, "version": version},
            "integratedTime": self.seconds.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": BASE64_STANDARD.encode(&self.promise)},
            "canonicalizedBody": self.body,
        })
    }

    /// What a log signs to promise that it takes up an entry with this body: JSON in its canonical form, in which
    /// nothing needs to be escaped.
    fn promised(&self, body: &str) -> Vec<u8> {
        format!(
            r#"{{"body":"{body}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
            self.seconds,
            self.log.to_hex(),
            self.index,
        )
        .into_bytes()
    }
}

/// A SHA-256 as 64 lower-case hexadecimal digits.
struct Digest256(Sha256Hash);

impl<'de> Deserialize<'de> for Digest256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match Sha256Hash::from_hex(&text) {
            Ok(hash) if lower => Ok(Self(hash)),
            _ => Err(serde::de::Error::custom("not 64 lower-case hexadecimal digits")),
        }
    }
}

/// A log entry of the kind `intoto`, version 0.0.1: it holds hashes of the envelope and of its payload and the
/// signer's certificate or key, but no signature.
///
/// Bundles cannot hold it and the verifier does not know it. So it is verified here as far as nobody else would, and
/// then restated: see [`Intoto::restate`].
#[derive(Debug, Clone)]
pub(super) struct Intoto {
    entry: Entry,
    body: IntotoBody,
    /// Digest of the envelope's bytes, as they were read.
    envelope: Digest,
}

#[derive(Debug, Clone, Deserialize)]
struct IntotoBody {
    spec: IntotoSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntotoSpec {
    content: IntotoContent,
    /// Base64 of a PEM text.
    public_key: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntotoContent {
    hash: Hash,
    payload_hash: Hash,
}

#[derive(Debug, Clone, Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

impl Hash {
    fn json(&self) -> Value {
        json!({"algorithm": self.algorithm, "value": self.value})
    }
}

impl Intoto {
    fn new(entry: Entry, envelope: Digest) -> Result<Self, Problem> {
        Ok(Self {
            body: json::parse(&entry.decoded).map_err(Problem::LogBody)?,
            entry,
            envelope,
        })
    }

    /// Identifier of its log, hexadecimal, and its number there.
    pub(super) fn place(&self) -> (String, u64) {
        (self.entry.log.to_hex(), self.entry.index)
    }

    /// Verifies the log's promise and that the entry is about this very envelope, whose signature the log had before
    /// it. Then adds it to `bundle` as an entry of the kind `dsse`, which says the same and the signature besides,
    /// and answers with a verifier to which that entry is the log's own.
    ///
    /// That verifier has one log, with the name and window of the real one but a key that was made for this, and that
    /// nobody else ever had. It still has to find out by itself that the payload, the signer and the time in the
    /// entry are those of the bundle, and all about the certificate.
    ///
    /// # Errors
    /// A log that the root does not list, a promise that is not by it, an entry about something else.
    pub(super) fn restate(
        &self,
        bundle: &mut types::Bundle,
        root: &TrustedRoot,
        logs: &Keyring,
    ) -> Result<Verifier, Refusal> {
        let Self { entry, body, envelope } = self;
        let time = Timestamp::from_second(entry.seconds)
            .map_err(|_| Refusal::LogTime(format!("{} is no time", entry.seconds)))?;
        if logs.key(&entry.log).is_none() {
            return Err(Refusal::UnknownLog(entry.log.to_hex()));
        }
        logs.key_at(&entry.log, time)
            .ok_or_else(|| Refusal::LogTime(format!("the log's key was not valid at {time}")))?
            .verify(entry.promised(&entry.body), &SignatureBytes::from_bytes(&entry.promise))
            .map_err(|_| Refusal::LogProof("its promise is not by the log that it names".to_owned()))?;
        let hash = &body.spec.content.hash;
        if hash.algorithm != "sha256" || hash.value != envelope.hex() {
            return Err(Refusal::LogMismatch("it has the hash of another envelope".to_owned()));
        }
        let SignatureContent::DsseEnvelope(content) = &bundle.content else {
            return Err(Refusal::LogMismatch("it is about an envelope".to_owned()));
        };
        let restated = json!({
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": hash.json(),
                "payloadHash": body.spec.content.payload_hash.json(),
                "signatures": [{
                    "signature": content.signature.sig.to_base64(),
                    "verifier": body.spec.public_key,
                }],
            },
        })
        .to_string();

        let unusable = |reason: String| Refusal::Bundle(reason);
        let key = Ed25519KeyPair::generate().map_err(|_| unusable("no key could be made".to_owned()))?;
        let spki: PublicKeyX509Der<'_> = key
            .public_key()
            .as_der()
            .map_err(|_| unusable("no key could be made".to_owned()))?;
        let promise = key.sign(&entry.promised(&BASE64_STANDARD.encode(&restated)));
        bundle.verification_material.tlog_entries.push(
            TransparencyLogEntry::new(
                LogIndex::new(entry.index).map_err(|error| unusable(error.to_string()))?,
                LogId::new(LogKeyId::from_bytes(entry.log.as_bytes())),
                KindVersion::DsseV001,
                CanonicalizedBody::new(restated.into_bytes()),
            )
            .with_integrated_time(time)
            .with_inclusion_promise(InclusionPromise::new(SignedTimestamp::from_bytes(promise.as_ref()))),
        );
        let mut root = root.clone();
        root.tlogs
            .retain(|log| log.log_id.key_id.as_bytes() == entry.log.as_bytes());
        for log in &mut root.tlogs {
            log.public_key.raw_bytes = DerPublicKey::from_bytes(spki.as_ref());
            log.public_key.key_details = PublicKeyDetails::new("PKIX_ED25519");
        }
        Verifier::new(&root).map_err(|error| unusable(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
