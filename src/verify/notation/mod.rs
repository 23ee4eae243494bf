//! Signatures of the Notary Project (what `notation` makes): an envelope in JSON or CBOR, signed with a certificate
//! whose whole chain it carries. Everything is decided from bytes: no network, and the time is given.
//!
//! Specification: <https://github.com/notaryproject/specifications/tree/main/specs>. What is decided differently
//! from `notation verify` is listed in `docs/notation.md`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::oci::{Descriptor, json};

mod certificate;
mod cose;
mod countersignature;
mod element;
mod envelope;
mod jws;
mod key;
mod name;
mod revocation;
mod stores;
mod subject;
#[cfg(test)]
mod tests;

use certificate::{Certificate, Purpose, check_chain};
pub use certificate::{CertificateError, MAX_CERTIFICATE, MAX_CHAIN};
pub use cose::MEDIA_TYPE as COSE;
pub use countersignature::{MAX_TOKEN, TimestampError};
pub use envelope::{PAYLOAD_TYPE, Scheme};
pub use jws::MEDIA_TYPE as JWS;
use key::EnvelopeAlgorithm;
pub use key::{AlgorithmError, MAX_RSA_BITS, MIN_RSA_BITS};
pub use name::{DistinguishedName, InvalidName};
pub use revocation::{CrlError, MAX_CRL, Revocation};
pub use stores::{MAX_CRLS, MAX_STORE_FILE, StoreError, StoreKind, TrustStores};
pub use subject::Subject;

/// Artifact type, or media type of the configuration, of a manifest that carries a signature.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.notary.signature";
/// Largest envelope in bytes. A genuine one has about ten thousand.
pub const MAX_ENVELOPE: usize = 1 << 20;

/// A signature that verified, with everything that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What is signed. It is of an image only if media type, digest and size are all that image's.
    pub target: Descriptor,
    /// The signer: subject of the signing certificate.
    pub identity: Subject,
    /// Who vouches for the signing time.
    pub scheme: Scheme,
    /// Names of the trust stores that hold the chain's root: of kind `ca` or `signingAuthority`, as the scheme says.
    pub trust_stores: Vec<String>,
    /// When it was signed, according to the signer.
    pub signing_time: Timestamp,
    /// When it was signed, according to somebody who is trusted for that.
    pub trusted_time: Option<TrustedTime>,
    /// From when on the signer does not want it to be used.
    pub expiry: Option<Timestamp>,
    /// SHA-256 of the certificates, the signer's first, the root last.
    pub chain: Vec<Digest>,
    /// Whether one of the chain's certificates was revoked, as far as that can be known.
    pub revocation: Revocation,
    /// The time in which all of this holds.
    pub span: Span,
}

/// A time that somebody else than the signer vouches for, or a signer who is trusted to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustedTime {
    /// The signature existed then or later.
    pub earliest: Timestamp,
    /// It existed then at the latest.
    pub latest: Timestamp,
    /// The timestamp authority; `None` for a signing authority.
    pub authority: Option<TimestampAuthority>,
}

/// Who made a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimestampAuthority {
    /// Subject of its certificate.
    pub identity: Subject,
    /// Names of the trust stores of kind `tsa` that hold its root.
    pub trust_stores: Vec<String>,
    /// SHA-256 of the certificates, its own first, the root last.
    pub chain: Vec<Digest>,
    /// Whether one of them was revoked, as far as that can be known.
    pub revocation: Revocation,
}

/// The time in which a verdict holds; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First moment; `None` for no limit.
    pub not_before: Option<Timestamp>,
    /// Last moment; `None` for no limit.
    pub not_after: Option<Timestamp>,
}

impl Span {
    const UNLIMITED: Self = Self {
        not_before: None,
        not_after: None,
    };

    /// Narrows it to what it shares with this time.
    fn within(&mut self, from: Timestamp, until: Timestamp) {
        self.not_before = Some(self.not_before.map_or(from, |known| known.max(from)));
        self.not_after = Some(self.not_after.map_or(until, |known| known.min(until)));
    }

    /// Narrows it to end before `time`.
    fn ends_before(&mut self, time: Timestamp) {
        let last = time - jiff::SignedDuration::from_nanos(1);
        self.not_after = Some(self.not_after.map_or(last, |known| known.min(last)));
    }
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Larger than any genuine one.
    #[error("its envelope of {0} bytes is larger than any genuine one")]
    TooLarge(usize),
    /// Not an envelope of the Notary Project.
    #[error("its envelope is of type '{0}', expected application/jose+json or application/cose")]
    MediaType(String),
    /// Not the JSON that it should be.
    #[error("its envelope is malformed: {0}")]
    Json(json::Error),
    /// Not the CBOR that it should be.
    #[error("its envelope is malformed: not acceptable CBOR: {0}")]
    Cbor(String),
    /// Not base64 in its canonical form.
    #[error("its envelope is malformed: its {0} is not canonical base64")]
    Base64(&'static str),
    /// Attributes that are missing, malformed or contradict each other.
    #[error("its envelope is malformed: {0}")]
    Attributes(&'static str),
    /// It signs something else than an artifact.
    #[error("its content is of type '{0}', expected application/vnd.cncf.notary.payload.v1+json")]
    ContentType(String),
    /// An unknown signing scheme.
    #[error("its signing scheme is '{0}', expected notary.x509 or notary.x509.signingAuthority")]
    Scheme(String),
    /// A critical attribute that is not understood.
    #[error("it has the critical attribute '{0}', which this version does not understand")]
    CriticalUnknown(String),
    /// An attribute that has to be critical and is not.
    #[error("its attribute '{0}' is not marked as critical")]
    CriticalMissing(&'static str),
    /// It wants to be verified by a plugin.
    #[error("it asks to be verified by the plugin '{0}'; plugins are not supported")]
    Plugin(String),
    /// No certificate, or more than a chain can have.
    #[error("it carries {0} certificates, expected 1 to {MAX_CHAIN}")]
    ChainLength(usize),
    /// A certificate of the chain is refused.
    #[error("certificate {number} of its chain{subject}: {error}")]
    Certificate {
        /// Place in the chain, from 1.
        number: usize,
        /// Its subject, in parentheses, if it could be read.
        subject: String,
        /// Why.
        error: CertificateError,
    },
    /// It names another algorithm than its key signs with.
    #[error("it names the algorithm '{named}', and its key signs with {expected}")]
    Algorithm {
        /// Name in the envelope.
        named: String,
        /// What the key's type and size say.
        expected: &'static str,
    },
    /// Its key's size has no signature algorithm.
    #[error("it is signed with an RSA key that has neither 2048 nor 3072 nor 4096 bits")]
    KeySize,
    /// The signature is not the key's over this content.
    #[error("its signature is not by the key of its certificate over this content")]
    Signature,
    /// The payload is not what it should be.
    #[error("its signed payload is not acceptable: {0}")]
    Payload(json::Error),
    /// The root is not trusted.
    #[error("its certificates lead to the root {root}, which is in no {kind} trust store")]
    Untrusted {
        /// SHA-256 of the root certificate.
        root: Digest,
        /// Kind of store that its scheme asks for.
        kind: &'static str,
    },
    /// Past the time that the signer set.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// Signed in the future.
    #[error("it was signed at {0}, which is in the future")]
    Future(Timestamp),
    /// Its timestamp does not count.
    #[error("its timestamp does not count: {0}")]
    Timestamp(TimestampError),
    /// A certificate is revoked.
    #[error("the certificate of '{subject}' is revoked, says the revocation list {crl}")]
    Revoked {
        /// Whose certificate.
        subject: String,
        /// Digest of the list.
        crl: Digest,
    },
}

impl Fault {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "notation-too-large",
            Self::MediaType(_) => "notation-media-type",
            Self::Json(_) | Self::Cbor(_) | Self::Base64(_) | Self::Attributes(_) => "notation-malformed",
            Self::ContentType(_) => "notation-content-type",
            Self::Scheme(_) => "notation-scheme",
            Self::CriticalUnknown(_) => "notation-critical-unknown",
            Self::CriticalMissing(_) => "notation-critical-missing",
            Self::Plugin(_) => "notation-plugin",
            Self::ChainLength(_) => "notation-chain-length",
            Self::Certificate { error, .. } => error.code(),
            Self::Algorithm { .. } | Self::KeySize => "notation-algorithm",
            Self::Signature => "notation-signature-invalid",
            Self::Payload(_) => "notation-payload",
            Self::Untrusted { .. } => "notation-root-untrusted",
            Self::Expired(_) => "notation-expired",
            Self::Future(_) => "notation-future",
            Self::Timestamp(error) => error.code(),
            Self::Revoked { .. } => "notation-revoked",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(rename = "targetArtifact")]
    target: Descriptor,
}

/// Verifies an envelope of the type [`JWS`] or [`COSE`] at the time `now`.
///
/// What it does not decide is left to policy: whose the signature must be ([`DistinguishedName`]), which of the
/// trust stores count, whether [`Revocation::Unavailable`] is good enough, and that [`Verified::target`] is the
/// image in question.
///
/// # Errors
/// Each reason with its own [`Fault`].
pub fn verify(envelope: &[u8], media_type: &str, stores: &TrustStores, now: Timestamp) -> Result<Verified, Fault> {
    if envelope.len() > MAX_ENVELOPE {
        return Err(Fault::TooLarge(envelope.len()));
    }
    let envelope = envelope::parse(envelope, media_type)?;
    let terms = envelope.attributes.check()?;

    let chain = read_chain(&envelope.chain)?;
    let (Some(signer), Some(root)) = (chain.first(), chain.last()) else {
        return Err(Fault::ChainLength(0));
    };
    let algorithm = EnvelopeAlgorithm::of(signer.key()).ok_or(Fault::KeySize)?;
    if envelope.attributes.algorithm != algorithm.name() {
        return Err(Fault::Algorithm {
            named: crate::oci::shorten(&envelope.attributes.algorithm),
            expected: algorithm.name(),
        });
    }
    if !algorithm.verifies(signer.key(), &envelope.message, &envelope.signature) {
        return Err(Fault::Signature);
    }
    let payload: Payload = json::parse(&envelope.payload).map_err(Fault::Payload)?;

    check_chain(&chain, Purpose::CodeSigning).map_err(|(place, error)| refused(&chain, place, error))?;
    let kind = match terms.scheme {
        Scheme::X509 => StoreKind::Ca,
        Scheme::SigningAuthority => StoreKind::SigningAuthority,
    };
    let trust_stores = stores.names(kind, root.fingerprint());
    if trust_stores.is_empty() {
        return Err(Fault::Untrusted {
            root: root.fingerprint(),
            kind: kind.name(),
        });
    }

    let mut span = Span::UNLIMITED;
    if let Some(expiry) = terms.expiry {
        if now >= expiry {
            return Err(Fault::Expired(expiry));
        }
        span.ends_before(expiry);
    }
    let token = envelope.timestamp.as_deref();
    let trusted_time = trusted_time(terms, token, &envelope.signature, stores, now, &mut span)?;
    let (earliest, latest) = match &trusted_time {
        Some(time) => (time.earliest, time.latest),
        None => (now, now),
    };
    for (place, certificate) in chain.iter().enumerate() {
        certificate
            .check_time(earliest, latest)
            .map_err(|error| refused(&chain, place, error))?;
        if trusted_time.is_none() {
            let (from, until) = certificate.validity();
            span.within(from, until);
        }
    }
    let signed_until = trusted_time.as_ref().map(|time| time.latest);
    let revocation = revocation::check(&chain, stores.crls(), now, signed_until, &mut span)
        .map_err(|revoked| revoked_fault(&chain, &revoked))?;

    Ok(Verified {
        target: payload.target,
        identity: signer.subject(),
        scheme: terms.scheme,
        trust_stores,
        signing_time: terms.signing_time,
        trusted_time,
        expiry: terms.expiry,
        chain: chain.iter().map(Certificate::fingerprint).collect(),
        revocation,
        span,
    })
}

/// The time that somebody vouches for, if anybody does. A timestamp counts only where a timestamp authority is
/// trusted: where none is, it is as good as absent, since anybody could have removed it.
fn trusted_time(
    terms: envelope::Terms,
    token: Option<&[u8]>,
    signature: &[u8],
    stores: &TrustStores,
    now: Timestamp,
    span: &mut Span,
) -> Result<Option<TrustedTime>, Fault> {
    if terms.scheme == Scheme::SigningAuthority {
        if terms.signing_time > now {
            return Err(Fault::Future(terms.signing_time));
        }
        span.within(terms.signing_time, Timestamp::MAX);
        return Ok(Some(TrustedTime {
            earliest: terms.signing_time,
            latest: terms.signing_time,
            authority: None,
        }));
    }
    let Some(token) = token.filter(|_| stores.has(StoreKind::Tsa)) else {
        return Ok(None);
    };
    let stamp = countersignature::verify(token, signature, stores, now).map_err(Fault::Timestamp)?;
    span.within(stamp.earliest, Timestamp::MAX);
    let revocation = revocation::check(&stamp.chain, stores.crls(), now, None, span)
        .map_err(|revoked| revoked_fault(&stamp.chain, &revoked))?;
    Ok(Some(TrustedTime {
        earliest: stamp.earliest,
        latest: stamp.latest,
        authority: stamp.chain.first().map(|authority| TimestampAuthority {
            identity: authority.subject(),
            trust_stores: stamp.stores.clone(),
            chain: stamp.chain.iter().map(Certificate::fingerprint).collect(),
            revocation,
        }),
    }))
}

fn read_chain(chain: &[Vec<u8>]) -> Result<Vec<Certificate>, Fault> {
    chain
        .iter()
        .enumerate()
        .map(|(place, der)| {
            Certificate::parse(der).map_err(|error| Fault::Certificate {
                number: place + 1,
                subject: String::new(),
                error,
            })
        })
        .collect()
}

fn refused(chain: &[Certificate], place: usize, error: CertificateError) -> Fault {
    let subject = chain
        .get(place)
        .map(|certificate| format!(" ({})", certificate.subject()));
    Fault::Certificate {
        number: place + 1,
        subject: subject.unwrap_or_default(),
        error,
    }
}

fn revoked_fault(chain: &[Certificate], revoked: &revocation::Revoked) -> Fault {
    let subject = chain
        .get(revoked.place)
        .map(|certificate| certificate.subject().to_string());
    Fault::Revoked {
        subject: subject.unwrap_or_default(),
        crl: revoked.crl,
    }
}
