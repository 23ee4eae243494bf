//! What evidence is made of, by the media types of a manifest's layers. What the manifest or its annotations call
//! themselves is a hint at best: registries report the artifact type of a bundle as that of an empty configuration.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::SkipReason;
use crate::attest::{SimpleSigning, Statement};
use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest, json, shorten};
use crate::verify::Problem;
use crate::verify::bundle_key::{self, Bundle};
use crate::verify::simple_signing;

/// Largest statement in bytes, signed or not: BuildKit writes 40 MiB at most, and base64 needs a third more.
pub const MAX_STATEMENT: u64 = 56 << 20;
/// Largest Notation signature in bytes.
const MAX_NOTATION: u64 = 1 << 20;

const IN_TOTO: &str = "application/vnd.in-toto";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const JWS: &str = "application/jose+json";
const COSE: &str = "application/cose";

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

impl Content {
    pub(super) fn of(layer: &Descriptor) -> Option<Self> {
        let media_type = layer.media_type.as_str();
        match media_type {
            simple_signing::MEDIA_TYPE => Some(Self::SimpleSigning),
            DSSE => Some(Self::Envelope),
            JWS => Some(Self::Jws),
            COSE => Some(Self::Cose),
            _ if media_type.starts_with(bundle_key::MEDIA_TYPE_PREFIX) => Some(Self::Bundle),
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
            Self::Bundle => bundle_key::MAX_BUNDLE,
            Self::SimpleSigning => simple_signing::MAX_PAYLOAD,
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
            Self::Statement => "in-toto (unsigned)",
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
            Self::Bundle => Ok(Bundle::parse(bytes)?.subjects()?),
            Self::SimpleSigning => Ok(vec![SimpleSigning::parse(bytes).map_err(Problem::Payload)?.digest]),
            Self::Statement => Ok(statement(bytes)),
            Self::Envelope => Ok(enveloped(bytes).map(|payload| statement(&payload)).unwrap_or_default()),
            Self::Jws => Ok(target_artifact(bytes).into_iter().collect()),
            Self::Cose => Ok(Vec::new()),
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

/// The payload of an envelope: <https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>.
fn enveloped(bytes: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Envelope {
        payload: String,
    }
    let envelope: Envelope = json::parse(bytes).ok()?;
    BASE64_STANDARD.decode(envelope.payload).ok()
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
