//! Sigstore bundles that are signed with a plain key, without log entry and timestamp: what cosign 3 writes with
//! a key and an empty signing configuration.
//!
//! Format: <https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto> in its JSON form.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::key::Message;
use super::{Carrier, Claim, Problem, Unverified};
use crate::attest::{COSIGN_SIGN, Statement};
use crate::digest::Digest;
use crate::oci::{json, shorten};

/// Media types of a bundle of version 0.3, in the order in which the specification prefers them.
pub const MEDIA_TYPES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];
/// What the media types of all versions of the bundle start with.
pub const MEDIA_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
/// Largest bundle in bytes.
pub const MAX_BUNDLE: u64 = 16 << 20;

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A bundle, read but not verified.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Option<Hint>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    tlog_entries: Option<Vec<IgnoredAny>>,
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    rfc3161_timestamps: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
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

/// What a bundle says and what was signed to say it.
struct Content {
    claim: Claim,
    subjects: Vec<Digest>,
    predicate: Vec<u8>,
    message: Message,
    signature: Vec<u8>,
}

impl Bundle {
    /// Reads a bundle of any kind.
    ///
    /// # Errors
    /// [`Problem::Bundle`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        json::parse(bytes).map_err(Problem::Bundle)
    }

    /// Digests that the payload names, whoever signed it and however.
    ///
    /// # Errors
    /// A payload that cannot be read.
    pub fn subjects(&self) -> Result<Vec<Digest>, Problem> {
        Ok(self.content()?.subjects)
    }

    /// What is to be verified with a key.
    ///
    /// # Errors
    /// A bundle that this carrier cannot verify, each reason with its own [`Problem`].
    pub fn unverified(self) -> Result<Unverified, Problem> {
        if !MEDIA_TYPES.contains(&self.media_type.as_str()) {
            return Err(Problem::BundleVersion(shorten(&self.media_type)));
        }
        let material = &self.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(Problem::Certificate);
        }
        let Some(Hint { hint }) = &material.public_key else {
            return Err(Problem::NoKey);
        };
        if material
            .tlog_entries
            .as_ref()
            .is_some_and(|entries| !entries.is_empty())
        {
            return Err(Problem::LogEntry);
        }
        let timestamps = material.timestamp_verification_data.as_ref();
        if timestamps
            .and_then(|data| data.rfc3161_timestamps.as_ref())
            .is_some_and(|list| !list.is_empty())
        {
            return Err(Problem::Timestamp);
        }
        let content = self.content()?;
        Ok(Unverified {
            carrier: Carrier::BundleKey,
            claim: content.claim,
            subjects: content.subjects,
            predicate: content.predicate,
            hint: hint.clone().filter(|hint| !hint.is_empty()),
            message: content.message,
            signature: content.signature,
        })
    }

    fn content(&self) -> Result<Content, Problem> {
        match (&self.dsse_envelope, &self.message_signature) {
            (Some(envelope), None) => envelope.content(),
            (None, Some(signature)) => signature.content(),
            _ => Err(Problem::BundleContent),
        }
    }
}

impl Envelope {
    fn content(&self) -> Result<Content, Problem> {
        if self.payload_type != IN_TOTO {
            return Err(Problem::PayloadType(shorten(&self.payload_type)));
        }
        let [signature] = self.signatures.as_slice() else {
            return Err(Problem::SignatureCount(self.signatures.len()));
        };
        let payload = base64("payload", &self.payload)?;
        let statement = Statement::parse(&payload).map_err(Problem::Payload)?;
        let claim = if statement.predicate_type == COSIGN_SIGN {
            Claim::ImageSignature
        } else {
            Claim::Attestation(statement.predicate_type)
        };
        Ok(Content {
            claim,
            subjects: statement.subjects,
            predicate: statement.predicate,
            message: Message::Bytes(pae(&self.payload_type, &payload)),
            signature: base64("signature", &signature.sig)?,
        })
    }
}

impl MessageSignature {
    /// A signature over a manifest's own bytes, of which the digest is all that is needed.
    fn content(&self) -> Result<Content, Problem> {
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
            predicate: Vec::new(),
            message: Message::Sha256(digest),
            signature: base64("signature", &self.signature)?,
        })
    }
}

/// The pre-authentication encoding of DSSE: what is signed in place of the payload alone.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Padded standard base64 in its one canonical form.
pub(super) fn base64(what: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    BASE64_STANDARD.decode(text).map_err(|_| Problem::Base64(what))
}
