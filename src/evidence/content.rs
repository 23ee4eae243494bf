//! What evidence is made of, by the media types of a manifest's layers. What the manifest or its annotations call
//! themselves is a hint at best: registries report the artifact type of a bundle as that of an empty configuration.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::SkipReason;
use crate::attest::{COSIGN_SIGN, SimpleSigning, Statement};
use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest, json, shorten};
use crate::verify::Problem;
use crate::verify::bundle::{self, Bundle};
use crate::verify::legacy;

/// Largest statement in bytes, signed or not: BuildKit writes 40 MiB at most, and base64 needs a third more.
pub const MAX_STATEMENT: u64 = 56 << 20;
/// Largest Notation signature in bytes.
const MAX_NOTATION: u64 = 1 << 20;

const IN_TOTO: &str = "application/vnd.in-toto";
const JWS: &str = "application/jose+json";
const COSE: &str = "application/cose";
/// Where cosign's older layout keeps the certificate of a signature.
const COSIGN_CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// What lists call a signature that claims nothing more than that the image is the signer's.
const IMAGE_SIGNATURE: &str = "image signature";

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A Sigstore bundle.
    Bundle,
    /// cosign's payload; the signature is in the annotations.
    SimpleSigning,
    /// An in-toto statement in a signed envelope.
    Envelope,
    /// An in-toto statement that is signed elsewhere, if at all.
    Statement,
    /// A Notation signature in JSON.
    Jws,
    /// A Notation signature in CBOR.
    Cose,
}

/// What a manifest is, as far as evidence goes.
#[derive(Debug)]
pub(super) enum Sort {
    /// All of its layers are evidence.
    Evidence(Vec<(Descriptor, Content)>),
    /// Evidence beside layers of this other type.
    Mixed(String),
    /// Something else, with a first layer of this type.
    Other(Option<String>),
}

/// What a layer says of itself. Nobody has verified it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// How it is carried.
    pub carrier: &'static str,
    /// What it claims: a predicate type, or that it signs an image.
    pub claim: String,
    /// Whether it carries a signature itself.
    pub signed: bool,
    /// What it says about its signer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signer_hint: String,
}

impl Content {
    /// Largest blob of any kind in bytes.
    pub(super) const LARGEST: u64 = MAX_STATEMENT;

    pub(super) fn of(layer: &Descriptor) -> Option<Self> {
        let media_type = layer.media_type.as_str();
        match media_type {
            legacy::SIMPLE_SIGNING => Some(Self::SimpleSigning),
            legacy::ENVELOPE => Some(Self::Envelope),
            JWS => Some(Self::Jws),
            COSE => Some(Self::Cose),
            _ if media_type.starts_with(bundle::MEDIA_TYPE_PREFIX) => Some(Self::Bundle),
            _ => match media_type.strip_prefix(IN_TOTO)? {
                "+json" => Some(Self::Statement),
                kind if kind.starts_with('.') && kind.ends_with("+dsse") => Some(Self::Envelope),
                _ => None,
            },
        }
    }

    /// Largest blob of its kind in bytes.
    pub(super) fn limit(self) -> u64 {
        match self {
            Self::Bundle => bundle::MAX_BUNDLE,
            Self::SimpleSigning => legacy::MAX_SIMPLE_SIGNING,
            Self::Envelope | Self::Statement => MAX_STATEMENT,
            Self::Jws | Self::Cose => MAX_NOTATION,
        }
    }

    /// Whether it carries a signature itself.
    pub(super) fn is_signed(self) -> bool {
        self != Self::Statement
    }

    /// How it is called in lists.
    pub(super) fn carrier(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::SimpleSigning => "simple-signing",
            Self::Envelope => "dsse",
            Self::Statement => "in-toto",
            Self::Jws => "notation-jws",
            Self::Cose => "notation-cose",
        }
    }

    /// The digests that a payload names; none where they cannot be read here.
    ///
    /// # Errors
    /// A bundle or a simple-signing payload that is broken. Others are judged when they are asked for.
    pub(super) fn subjects(self, bytes: &[u8]) -> Result<Vec<Digest>, SkipReason> {
        match self {
            Self::Bundle => Ok(Bundle::parse(bytes.to_vec())?.subjects()?),
            Self::SimpleSigning => Ok(vec![SimpleSigning::parse(bytes).map_err(Problem::Payload)?.digest]),
            Self::Statement => Ok(statement(bytes)),
            Self::Envelope => Ok(enveloped(bytes).map(|payload| statement(&payload)).unwrap_or_default()),
            Self::Jws => Ok(target_artifact(bytes).into_iter().collect()),
            Self::Cose => Ok(Vec::new()),
        }
    }
}

impl Content {
    /// What a layer with these bytes says of itself.
    pub(super) fn look(self, layer: &Descriptor, bytes: &[u8]) -> Look {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Parts {
            dsse_envelope: Option<IgnoredAny>,
            verification_material: Material,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Material {
            public_key: Option<Hint>,
            certificate: Option<IgnoredAny>,
            x509_certificate_chain: Option<IgnoredAny>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Hint {
            hint: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wrapped {
            dsse_envelope: Envelope,
        }
        let predicate = |payload: Option<Vec<u8>>| {
            let payload = payload?;
            let statement = Statement::parse(&payload).ok()?;
            Some(shorten(&statement.predicate_type))
        };
        let certificate = || "a certificate".to_owned();
        let (claim, signer_hint) = match self {
            Self::Bundle => {
                let parts: Parts = json::parse(bytes).unwrap_or_default();
                let material = parts.verification_material;
                let signer = match material.public_key {
                    Some(Hint { hint }) if hint.is_empty() => "a key".to_owned(),
                    Some(Hint { hint }) => format!("the key with fingerprint {}", shorten(&hint)),
                    None if material.certificate.is_some() || material.x509_certificate_chain.is_some() => {
                        certificate()
                    }
                    None => String::new(),
                };
                let claim = match parts.dsse_envelope {
                    Some(_) => {
                        let wrapped: Option<Wrapped> = json::parse(bytes).ok();
                        predicate(wrapped.and_then(|Wrapped { dsse_envelope }| dsse_envelope.payload()))
                    }
                    None => Some(IMAGE_SIGNATURE.to_owned()),
                };
                let claim = claim.map(|claim| match claim.as_str() {
                    COSIGN_SIGN => IMAGE_SIGNATURE.to_owned(),
                    _ => claim,
                });
                (claim, signer)
            }
            Self::SimpleSigning => {
                let has_certificate = layer.annotations.contains_key(COSIGN_CERTIFICATE);
                let signer = if has_certificate {
                    certificate()
                } else {
                    "a key".to_owned()
                };
                (Some(IMAGE_SIGNATURE.to_owned()), signer)
            }
            Self::Envelope => {
                let has_certificate = layer.annotations.contains_key(COSIGN_CERTIFICATE);
                let signer = if has_certificate { certificate() } else { String::new() };
                (predicate(enveloped(bytes)), signer)
            }
            Self::Statement => (predicate(Some(bytes.to_vec())), String::new()),
            Self::Jws | Self::Cose => (Some(IMAGE_SIGNATURE.to_owned()), certificate()),
        };
        Look {
            carrier: self.carrier(),
            claim: claim.unwrap_or_else(|| "unreadable".to_owned()),
            signed: self.is_signed(),
            signer_hint,
        }
    }
}

impl Sort {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let mut evidence = Vec::new();
        let mut other = None;
        for layer in &manifest.layers {
            match Content::of(layer) {
                Some(content) => evidence.push((layer.clone(), content)),
                None if other.is_none() => other = Some(shorten(&layer.media_type)),
                None => {}
            }
        }
        match other {
            None if evidence.is_empty() => Self::Other(None),
            None => Self::Evidence(evidence),
            Some(other) if evidence.is_empty() => Self::Other(Some(other)),
            Some(other) => Self::Mixed(other),
        }
    }
}

fn statement(bytes: &[u8]) -> Vec<Digest> {
    Statement::parse(bytes).map_or_else(|_| Vec::new(), |statement| statement.subjects)
}

/// <https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>.
#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

impl Envelope {
    fn payload(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.payload).ok()
    }
}

fn enveloped(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope: Envelope = json::parse(bytes).ok()?;
    envelope.payload()
}

/// What a Notation signature in JSON says that it signs:
/// <https://github.com/notaryproject/specifications/blob/main/specs/signature-specification.md>.
fn target_artifact(bytes: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Jws {
        payload: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        target_artifact: Target,
    }
    #[derive(Deserialize)]
    struct Target {
        digest: Digest,
    }
    let jws: Jws = json::parse(bytes).ok()?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jws.payload).ok()?;
    let payload: Payload = json::parse(&payload).ok()?;
    Some(payload.target_artifact.digest)
}
