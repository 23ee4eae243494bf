//! Public keys of certificates and the signature algorithms that go with them.

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Encode as _, Tag, TagNumber, Tagged as _};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::element::{Element, context};

/// Longest RSA modulus in bits; the work of a check grows with it.
pub const MAX_RSA_BITS: usize = 4096;
/// Shortest RSA modulus in bits.
pub const MIN_RSA_BITS: usize = 2048;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA1_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");
const PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA256_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SHA1_ECDSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
const SHA256_ECDSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const SHA384_ECDSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SHA512_ECDSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// A hash that signatures, certificates and timestamps may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        match oid {
            SHA256 => Some(Self::Sha256),
            SHA384 => Some(Self::Sha384),
            SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }

    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }
}

/// How the signature of a certificate, a revocation list or a timestamp was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureAlgorithm {
    Pkcs1(Hash),
    Pss(Hash),
    Ecdsa(Hash),
}

/// Why a key or a signature algorithm is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// A key that the Notary Project does not allow.
    #[error("its key is {0}; allowed are RSA with 2048 to 4096 bits and ECDSA P-256, P-384, P-521")]
    Key(String),
    /// A signature algorithm that the Notary Project does not allow.
    #[error("it is signed with {0}; allowed are RSA and ECDSA with SHA-256, SHA-384, SHA-512")]
    Signature(String),
}

impl SignatureAlgorithm {
    /// Reads an AlgorithmIdentifier. `hash` is what a timestamp names beside the algorithm `rsaEncryption`.
    pub fn parse(algorithm: &AlgorithmIdentifierOwned, hash: Option<Hash>) -> Result<Self, AlgorithmError> {
        let unusual = || AlgorithmError::Signature("unusual parameters".to_owned());
        let none = |parameters: &AnyRef<'_>| parameters.tag() == Tag::Null && parameters.value().is_empty();
        if algorithm.oid != PSS && !algorithm.parameters.as_ref().is_none_or(|any| none(&any.into())) {
            return Err(unusual());
        }
        let stated = match (algorithm.oid, hash) {
            (RSA, Some(hash)) => Self::Pkcs1(hash),
            (SHA256_RSA, _) => Self::Pkcs1(Hash::Sha256),
            (SHA384_RSA, _) => Self::Pkcs1(Hash::Sha384),
            (SHA512_RSA, _) => Self::Pkcs1(Hash::Sha512),
            (SHA256_ECDSA, _) => Self::Ecdsa(Hash::Sha256),
            (SHA384_ECDSA, _) => Self::Ecdsa(Hash::Sha384),
            (SHA512_ECDSA, _) => Self::Ecdsa(Hash::Sha512),
            (PSS, _) => Self::Pss(pss(algorithm).ok_or_else(unusual)?),
            (SHA1_RSA | SHA1_ECDSA, _) => return Err(AlgorithmError::Signature("SHA-1".to_owned())),
            (other, _) => return Err(AlgorithmError::Signature(format!("the algorithm {other}"))),
        };
        if hash.is_some_and(|hash| hash != stated.hash()) {
            return Err(AlgorithmError::Signature("two different hashes".to_owned()));
        }
        Ok(stated)
    }

    fn hash(self) -> Hash {
        match self {
            Self::Pkcs1(hash) | Self::Pss(hash) | Self::Ecdsa(hash) => hash,
        }
    }
}

/// The hash of RSASSA-PSS parameters (RFC 4055, section 3.1) with the same hash in the mask and a salt of its
/// length; the library verifies nothing else.
fn pss(algorithm: &AlgorithmIdentifierOwned) -> Option<Hash> {
    let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
    let mut fields = Element::only(&parameters, Tag::Sequence).ok()?.elements().ok()?;
    let hash_oid = |algorithm: Element<'_>| Hash::from_oid(algorithm.elements().ok()?.oid().ok()?);
    let hash = hash_oid(Element::only(fields.expect(context(TagNumber::N0)).ok()?.value, Tag::Sequence).ok()?)?;
    let mask = fields.expect(context(TagNumber::N1)).ok()?;
    let mut mask = Element::only(mask.value, Tag::Sequence).ok()?.elements().ok()?;
    let is_mgf1 = mask.oid().ok()? == MGF1;
    let mask_hash = hash_oid(mask.expect(Tag::Sequence).ok()?)?;
    let salt = fields.expect(context(TagNumber::N2)).ok()?;
    let salt: u16 = Element::only(salt.value, Tag::Integer).ok()?.decode().ok()?;
    let expected = match hash {
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    };
    (is_mgf1 && mask_hash == hash && salt == expected).then_some(hash)
}

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa { bits: usize },
    P256,
    P384,
    P521,
}

/// A public key from a certificate.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub kind: KeyKind,
    spki: Vec<u8>,
}

impl Key {
    pub fn parse(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, AlgorithmError> {
        let malformed = |_| AlgorithmError::Key("malformed".to_owned());
        let der = spki.to_der().map_err(malformed)?;
        let curve = || spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
        let kind = match spki.algorithm.oid {
            RSA => {
                let bits = PublicEncryptingKey::from_der(&der)
                    .map_err(|_| AlgorithmError::Key("not a valid RSA key, or a weak one".to_owned()))?
                    .key_size_bits();
                if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    return Err(AlgorithmError::Key(format!("RSA with {bits} bits")));
                }
                KeyKind::Rsa { bits }
            }
            EC => match curve() {
                Some(P256) => KeyKind::P256,
                Some(P384) => KeyKind::P384,
                Some(P521) => KeyKind::P521,
                Some(other) => return Err(AlgorithmError::Key(format!("on the curve {other}"))),
                None => return Err(AlgorithmError::Key("on an unnamed curve".to_owned())),
            },
            other => return Err(AlgorithmError::Key(format!("of the algorithm {other}"))),
        };
        Ok(Self { kind, spki: der })
    }

    /// Whether `signature` is this key's over `message`. A signature made by another algorithm than the key's is
    /// none.
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (algorithm, self.kind) {
            (SignatureAlgorithm::Pkcs1(Hash::Sha256), KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (SignatureAlgorithm::Pkcs1(Hash::Sha384), KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (SignatureAlgorithm::Pkcs1(Hash::Sha512), KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (SignatureAlgorithm::Pss(Hash::Sha256), KeyKind::Rsa { .. }) => &signature::RSA_PSS_2048_8192_SHA256,
            (SignatureAlgorithm::Pss(Hash::Sha384), KeyKind::Rsa { .. }) => &signature::RSA_PSS_2048_8192_SHA384,
            (SignatureAlgorithm::Pss(Hash::Sha512), KeyKind::Rsa { .. }) => &signature::RSA_PSS_2048_8192_SHA512,
            (SignatureAlgorithm::Ecdsa(Hash::Sha256), KeyKind::P256) => &signature::ECDSA_P256_SHA256_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha384), KeyKind::P256) => &signature::ECDSA_P256_SHA384_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha512), KeyKind::P256) => &signature::ECDSA_P256_SHA512_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha256), KeyKind::P384) => &signature::ECDSA_P384_SHA256_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha384), KeyKind::P384) => &signature::ECDSA_P384_SHA384_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha512), KeyKind::P384) => &signature::ECDSA_P384_SHA512_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha256), KeyKind::P521) => &signature::ECDSA_P521_SHA256_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha384), KeyKind::P521) => &signature::ECDSA_P521_SHA384_ASN1,
            (SignatureAlgorithm::Ecdsa(Hash::Sha512), KeyKind::P521) => &signature::ECDSA_P521_SHA512_ASN1,
            _ => return false,
        };
        self.verifies_with(algorithm, message, signature)
    }

    fn verifies_with(&self, algorithm: &'static dyn VerificationAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        ParsedPublicKey::new(algorithm, &self.spki).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

/// The signature algorithms of envelopes. The signing key alone says which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvelopeAlgorithm {
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
}

impl EnvelopeAlgorithm {
    /// What a key signs envelopes with; `None` for an RSA key of a size in between.
    pub fn of(key: &Key) -> Option<Self> {
        match key.kind {
            KeyKind::Rsa { bits: 2048 } => Some(Self::Ps256),
            KeyKind::Rsa { bits: 3072 } => Some(Self::Ps384),
            KeyKind::Rsa { bits: 4096 } => Some(Self::Ps512),
            KeyKind::Rsa { .. } => None,
            KeyKind::P256 => Some(Self::Es256),
            KeyKind::P384 => Some(Self::Es384),
            KeyKind::P521 => Some(Self::Es512),
        }
    }

    /// Its name in a JWS header (RFC 7518, section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }

    /// Whether `signature` is `key`'s over `message`, in the form of envelopes: ECDSA as two numbers of fixed
    /// length.
    pub fn verifies(self, key: &Key, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
        };
        key.verifies_with(algorithm, message, signature)
    }
}
