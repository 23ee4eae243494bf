//! Public keys and the signatures that they verify.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha512};
use spki::SubjectPublicKeyInfoRef;

use crate::digest::Digest;
use crate::trust::HashAlgorithm;
use crate::trust::public_key::{self, Kind};

/// Largest SubjectPublicKeyInfo in bytes; an 8192-bit RSA key needs about 1060.
pub const MAX_SPKI: usize = 2048;
/// Why a public key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("not a SubjectPublicKeyInfo in DER: {0}")]
    Der(String),
    /// Larger than any key that is accepted.
    #[error("{0} bytes are more than a key can have")]
    TooLarge(usize),
    /// An algorithm or curve that is not accepted.
    #[error("keys of {0} are not supported: use ECDSA P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits")]
    Unsupported(String),
    /// An RSA key that is weak, or slow.
    #[error("RSA keys of {0} bits are not supported: use one with 2048 to 8192")]
    RsaSize(usize),
    /// An RSASSA-PSS key that is for another hash.
    #[error("an RSASSA-PSS key that is for {0} alone")]
    PssHash(&'static str),
    /// The bytes do not make a valid key of the algorithm that they name.
    #[error("not a valid {0} key")]
    Invalid(&'static str),
}

/// A public key with the one signature algorithm that it is trusted for.
pub struct PublicKey {
    key: ParsedPublicKey,
    /// Whether it can verify a message of which only the SHA-256 is known.
    by_digest: bool,
    /// The same key for the other padding of RSA.
    other_padding: Option<ParsedPublicKey>,
    /// The same key for the prehashed variant of Ed25519.
    prehashed: Option<VerifyingKey>,
    fingerprint: String,
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo. `hash` is what the key signs with; Ed25519 keys have none to choose.
    ///
    /// # Errors
    /// An unknown or weak key, or malformed bytes.
    pub fn from_spki(der: &[u8], hash: HashAlgorithm) -> Result<Self, KeyError> {
        if der.len() > MAX_SPKI {
            return Err(KeyError::TooLarge(der.len()));
        }
        let spki = SubjectPublicKeyInfoRef::try_from(der).map_err(|e| KeyError::Der(e.to_string()))?;
        let kind = public_key::kind(&spki)?;
        let invalid = || KeyError::Invalid(kind.name());
        let parse = |algorithm, der| ParsedPublicKey::new(algorithm, der).map_err(|_| invalid());
        let raw = spki.subject_public_key.raw_bytes();
        let (key, other_padding) = match kind {
            Kind::Rsa => (parse(pkcs1(hash), der)?, Some(parse(pss(hash), der)?)),
            Kind::RsaPss(Some(own)) if own != hash => return Err(KeyError::PssHash(own.name())),
            // The bare key: its algorithm is known, and its parameters are read.
            Kind::RsaPss(_) => (parse(pss(hash), raw)?, None),
            Kind::Ed25519 => (parse(&signature::ED25519, der)?, None),
            Kind::P256 | Kind::P384 | Kind::P521 => (parse(ecdsa(kind, hash), der)?, None),
        };
        let prehashed = match (kind, <[u8; 32]>::try_from(raw)) {
            (Kind::Ed25519, Ok(point)) => Some(VerifyingKey::from_bytes(&point).map_err(|_| invalid())?),
            _ => None,
        };
        Ok(Self {
            key,
            other_padding,
            prehashed,
            by_digest: kind != Kind::Ed25519 && hash == HashAlgorithm::Sha256,
            fingerprint: BASE64_STANDARD.encode(digest::digest(&digest::SHA256, der)),
        })
    }

    /// The base64 of the SHA-256 of the SubjectPublicKeyInfo: what Sigstore tools write as the hint of a key.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether `signature` is this key's over `message`.
    ///
    /// An Ed25519 key signs in two ways that cannot be taken for each other (RFC 8032, section 2): plainly, or
    /// with Ed25519ph as cosign 3 does. Both count. So do both paddings of an RSA key, PKCS #1 v1.5 and PSS with a
    /// salt as long as the hash (RFC 8017, section 8): neither can be taken for the other. An RSASSA-PSS key signs
    /// with PSS only.
    #[must_use]
    pub fn verifies(&self, message: &Message, signature: &[u8]) -> bool {
        match message {
            Message::Bytes(bytes) => {
                let by_pss = |pss: &ParsedPublicKey| pss.verify_sig(bytes, signature).is_ok();
                self.key.verify_sig(bytes, signature).is_ok()
                    || self.other_padding.as_ref().is_some_and(by_pss)
                    || self.verifies_prehashed(bytes, signature)
            }
            Message::Sha256(digest) => {
                let Ok(bytes) = hex::decode(digest.hex()) else {
                    return false;
                };
                let Ok(digest) = digest::Digest::import_less_safe(&bytes, &digest::SHA256) else {
                    return false;
                };
                let mut keys = std::iter::once(&self.key).chain(&self.other_padding);
                keys.any(|key| key.verify_digest_sig(&digest, signature).is_ok())
            }
        }
    }

    fn verifies_prehashed(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Some(key), Ok(signature)) = (&self.prehashed, ed25519_dalek::Signature::from_slice(signature)) else {
            return false;
        };
        key.verify_prehashed_strict(Sha512::new_with_prefix(message), None, &signature)
            .is_ok()
    }

    /// Whether this key can verify `message` at all: a message of which only the SHA-256 is known needs a key
    /// that signs SHA-256 digests.
    #[must_use]
    pub fn can_verify(&self, message: &Message) -> bool {
        self.by_digest || matches!(message, Message::Bytes(_))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint)
    }
}

/// What a signature was made over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes with this digest.
    Sha256(Digest),
}

fn pss(hash: HashAlgorithm) -> &'static dyn VerificationAlgorithm {
    match hash {
        HashAlgorithm::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
        HashAlgorithm::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
        HashAlgorithm::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
    }
}

fn pkcs1(hash: HashAlgorithm) -> &'static dyn VerificationAlgorithm {
    match hash {
        HashAlgorithm::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        HashAlgorithm::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

/// The algorithm of a curve; P-256 is the one of what is no curve.
fn ecdsa(curve: Kind, hash: HashAlgorithm) -> &'static dyn VerificationAlgorithm {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    match (curve, hash) {
        (Kind::P384, Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (Kind::P384, Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (Kind::P384, Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Kind::P521, Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (Kind::P521, Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (Kind::P521, Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        (_, Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (_, Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (_, Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
    }
}

impl From<public_key::Fault> for KeyError {
    fn from(fault: public_key::Fault) -> Self {
        use public_key::Fault;
        match fault {
            Fault::Algorithm(name) => Self::Unsupported(name),
            Fault::RsaSize(bits) => Self::RsaSize(bits),
            Fault::Malformed(name) => Self::Invalid(name),
            Fault::PssHash(hash) => Self::PssHash(hash.name()),
            Fault::PssParameters => Self::Unsupported("RSASSA-PSS with these parameters".to_owned()),
            // Of PEM, which this is not.
            Fault::NotPem(why) | Fault::Label(why) => Self::Der(why),
            Fault::Private => Self::Der(fault.to_string()),
        }
    }
}
