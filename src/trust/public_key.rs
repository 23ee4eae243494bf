//! Which public keys Assay verifies with. PEM of one in, DER of its SubjectPublicKeyInfo (RFC 5280 §4.1) out.

use aws_lc_rs::signature::{self, ParsedPublicKey};
use ed25519_dalek::VerifyingKey;
use spki::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use spki::der::{Decode as _, Reader as _, SliceReader, TagMode, TagNumber, pem};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::HashAlgorithm;

/// Largest key file: an RSA key of [`MAX_RSA_BITS`] with room for comments.
pub(super) const MAX_BYTES: u64 = 64 << 10;

/// Smallest RSA modulus that counts (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

/// Largest RSA modulus: a larger one only makes verification slow.
const MAX_RSA_BITS: usize = 8192;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Hashes that the parameters of an RSASSA-PSS key may name.
const PSS_HASHES: &[(ObjectIdentifier, HashAlgorithm)] = &[
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        HashAlgorithm::Sha256,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        HashAlgorithm::Sha384,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        HashAlgorithm::Sha512,
    ),
];

/// Names of what people try to sign with and Assay does not verify.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("1.2.840.10040.4.1", "DSA"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.113", "Ed448"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.33", "P-224"),
    ("1.2.840.10045.3.1.1", "P-192"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
    ("1.2.156.10197.1.301", "SM2"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

/// Why a file does not give a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not one PEM document.
    #[error("is not a PEM file with one public key: {0}")]
    NotPem(String),
    /// It holds a private key.
    #[error("holds a private key; put only the public key on a node")]
    Private,
    /// It is PEM of something else.
    #[error("holds a `{0}`, not a `PUBLIC KEY`")]
    Label(String),
    /// The bytes inside are not a public key.
    #[error("does not hold a valid {0} public key")]
    Malformed(&'static str),
    /// An algorithm or curve that is not verified.
    #[error("holds a key of {0}, which Assay does not verify")]
    Algorithm(String),
    /// An RSA key that is too weak or too slow.
    #[error("holds an RSA key of {0} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")]
    RsaSize(usize),
    /// Parameters that ask for something that is not verified.
    #[error(
        "holds an RSASSA-PSS key whose parameters are none of SHA-256, SHA-384 and SHA-512 with the same hash in the \
         mask and a salt no longer than it"
    )]
    PssParameters,
    /// Another hash than its entry says.
    #[error("holds an RSASSA-PSS key for {} alone", .0.name())]
    PssHash(HashAlgorithm),
}

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    P256,
    P384,
    P521,
    Ed25519,
    Rsa,
    /// Signs with PSS only, and with this hash only where its parameters name one.
    RsaPss(Option<HashAlgorithm>),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "ECDSA P-256",
            Self::P384 => "ECDSA P-384",
            Self::P521 => "ECDSA P-521",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
            Self::RsaPss(_) => "RSASSA-PSS",
        }
    }
}

/// Reads the PEM document and checks that Assay verifies with such a key that signs with `hash`.
pub(super) fn from_pem(text: &[u8], hash: HashAlgorithm) -> Result<Vec<u8>, Fault> {
    // Looked for first and anywhere, because encrypted private keys have headers that are not RFC 7468.
    if contains(text, b"PRIVATE KEY-----") {
        return Err(Fault::Private);
    }
    if text.windows(11).filter(|window| window == b"-----BEGIN ").count() > 1 {
        return Err(Fault::NotPem("it holds more than one".to_owned()));
    }
    if !contains(text, b"-----BEGIN ") {
        return Err(Fault::NotPem("it has no -----BEGIN line".to_owned()));
    }
    let (label, der) = pem::decode_vec(text).map_err(|e| Fault::NotPem(e.to_string()))?;
    if label != "PUBLIC KEY" {
        return Err(Fault::Label(label.to_owned()));
    }
    check(&der, hash)?;
    Ok(der)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn check(der: &[u8], hash: HashAlgorithm) -> Result<(), Fault> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| Fault::Malformed("PKIX"))?;
    let kind = kind(&info)?;
    let (algorithm, key): (&'static dyn signature::VerificationAlgorithm, &[u8]) = match kind {
        Kind::P256 => (&signature::ECDSA_P256_SHA256_ASN1, der),
        Kind::P384 => (&signature::ECDSA_P384_SHA384_ASN1, der),
        Kind::P521 => (&signature::ECDSA_P521_SHA512_ASN1, der),
        Kind::Ed25519 => (&signature::ED25519, der),
        Kind::Rsa => (&signature::RSA_PKCS1_2048_8192_SHA256, der),
        Kind::RsaPss(Some(own)) if own != hash => return Err(Fault::PssHash(own)),
        Kind::RsaPss(_) => (
            &signature::RSA_PSS_2048_8192_SHA256,
            info.subject_public_key.raw_bytes(),
        ),
    };
    ParsedPublicKey::new(algorithm, key).map_err(|_| Fault::Malformed(kind.name()))?;
    if matches!(kind, Kind::Ed25519) {
        // The library takes any 32 bytes until it verifies; half of them are no point of the curve.
        let point = info.subject_public_key.raw_bytes().try_into();
        point
            .ok()
            .and_then(|point| VerifyingKey::from_bytes(point).ok())
            .ok_or(Fault::Malformed(kind.name()))?;
    }
    Ok(())
}

/// What kind of key a SubjectPublicKeyInfo says it holds, with the size of an RSA key checked. Whether its bytes make a
/// key is for whoever verifies with it.
pub(crate) fn kind(info: &SubjectPublicKeyInfoRef<'_>) -> Result<Kind, Fault> {
    let rsa = |kind: Kind| {
        let bits = rsa_bits(info.subject_public_key.raw_bytes()).ok_or(Fault::Malformed(kind.name()))?;
        if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            Ok(kind)
        } else {
            Err(Fault::RsaSize(bits))
        }
    };
    match info.algorithm.oid {
        EC => {
            let curve = info
                .algorithm
                .parameters_oid()
                .map_err(|_| Fault::Algorithm("an elliptic curve without a name".to_owned()))?;
            match curve {
                P256 => Ok(Kind::P256),
                P384 => Ok(Kind::P384),
                P521 => Ok(Kind::P521),
                other => Err(unsupported(&other)),
            }
        }
        RSA => rsa(Kind::Rsa),
        RSASSA_PSS => {
            let hash = info.algorithm.parameters.map(pss_hash).transpose()?;
            rsa(Kind::RsaPss(hash))
        }
        ED25519 => Ok(Kind::Ed25519),
        other => Err(unsupported(&other)),
    }
}

/// The one hash that the parameters of an RSASSA-PSS key allow (RFC 4055, sections 3.1 and 3.3). What they leave out
/// stands for SHA-1, which is not verified. The length of the salt is a least one: verified are salts as long as the
/// hash.
fn pss_hash(parameters: AnyRef<'_>) -> Result<HashAlgorithm, Fault> {
    type Fields<'a> = (
        Option<AlgorithmIdentifierRef<'a>>,
        Option<AlgorithmIdentifierRef<'a>>,
        Option<u16>,
        Option<u8>,
    );
    let fields = parameters.sequence(|fields| {
        Ok::<Fields<'_>, spki::der::Error>((
            fields.context_specific(TagNumber(0), TagMode::Explicit)?,
            fields.context_specific(TagNumber(1), TagMode::Explicit)?,
            fields.context_specific(TagNumber(2), TagMode::Explicit)?,
            fields.context_specific(TagNumber(3), TagMode::Explicit)?,
        ))
    });
    let Ok((Some(hash), Some(mask), salt, trailer)) = fields else {
        return Err(Fault::PssParameters);
    };
    let named = |algorithm: &AlgorithmIdentifierRef<'_>| {
        let known = PSS_HASHES.iter().find(|(oid, _)| *oid == algorithm.oid);
        known
            .filter(|_| algorithm.parameters.is_none_or(AnyRef::is_null))
            .map(|(_, hash)| *hash)
    };
    let mask_hash = mask
        .parameters
        .and_then(|any| any.decode_as::<AlgorithmIdentifierRef<'_>>().ok())
        .and_then(|algorithm| named(&algorithm));
    match named(&hash) {
        Some(hash)
            if mask.oid == MGF1
                && mask_hash == Some(hash)
                && salt.is_none_or(|salt| salt <= length(hash))
                && trailer.is_none_or(|trailer| trailer == 1) =>
        {
            Ok(hash)
        }
        _ => Err(Fault::PssParameters),
    }
}

/// Bytes of a digest.
fn length(hash: HashAlgorithm) -> u16 {
    match hash {
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha384 => 48,
        HashAlgorithm::Sha512 => 64,
    }
}

fn unsupported(oid: &ObjectIdentifier) -> Fault {
    let text = oid.to_string();
    let name = UNSUPPORTED.iter().find(|(known, _)| *known == text);
    Fault::Algorithm(name.map_or_else(|| format!("algorithm {text}"), |(_, name)| (*name).to_owned()))
}

/// Bits of the modulus of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    reader
        .sequence(|sequence| {
            let modulus = UintRef::decode(sequence)?;
            UintRef::decode(sequence)?;
            Ok::<_, spki::der::Error>(modulus.as_bytes())
        })
        .ok()
        .map(|modulus| {
            let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros());
            modulus.len() * 8 - usize::try_from(zeros).unwrap_or(0)
        })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    const P256_PEM: &str = include_str!("testdata/p256.pem");

    fn read(text: &[u8]) -> Result<Vec<u8>, Fault> {
        from_pem(text, HashAlgorithm::Sha256)
    }

    fn sound(der: &[u8]) -> Result<(), Fault> {
        check(der, HashAlgorithm::Sha256)
    }

    #[test]
    fn what_could_never_verify_anything_is_no_key() {
        let off_the_curve = include_bytes!("../../fuzz/corpus/public_key/ed25519-off-the-curve.pem");
        assert_eq!(
            from_pem(off_the_curve, HashAlgorithm::Sha256),
            Err(Fault::Malformed("Ed25519"))
        );
        assert!(from_pem(include_bytes!("testdata/ed25519.pem"), HashAlgorithm::Sha256).is_ok());
    }

    #[test]
    fn every_supported_kind_of_key_is_read() {
        for text in [
            P256_PEM,
            include_str!("testdata/p384.pem"),
            include_str!("testdata/p521.pem"),
            include_str!("testdata/ed25519.pem"),
            include_str!("testdata/rsa2048.pem"),
            include_str!("testdata/rsa-pss.pem"),
        ] {
            let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
            assert_eq!(read(text.as_bytes()), Ok(der));
        }
        // Windows line ends and a comment in front are common.
        assert!(read(P256_PEM.replace('\n', "\r\n").as_bytes()).is_ok());
        assert!(read(format!("release key\n{P256_PEM}").as_bytes()).is_ok());
    }

    #[test]
    fn every_other_is_refused_by_name() {
        let fault = |text: &str| read(text.as_bytes()).unwrap_err();
        for (text, name) in [
            (include_str!("testdata/secp256k1.pem"), "secp256k1"),
            (include_str!("testdata/ed448.pem"), "Ed448"),
            (
                include_str!("testdata/explicit-curve.pem"),
                "an elliptic curve without a name",
            ),
        ] {
            assert_eq!(fault(text), Fault::Algorithm(name.to_owned()));
        }
        assert_eq!(fault(include_str!("testdata/rsa1024.pem")), Fault::RsaSize(1024));
        assert_eq!(
            fault(include_str!("testdata/rsa-pkcs1.pem")),
            Fault::Label("RSA PUBLIC KEY".to_owned())
        );
        for label in [
            "PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED SIGSTORE PRIVATE KEY",
            "OPENSSH PRIVATE KEY",
        ] {
            let text = format!("-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END {label}-----\n");
            assert_eq!(fault(&text), Fault::Private, "{label}");
            // Not even behind a public one.
            assert_eq!(fault(&format!("{P256_PEM}{text}")), Fault::Private, "{label}");
        }
    }

    #[test]
    fn an_rsassa_pss_key_is_for_the_hash_of_its_parameters_only() {
        let restricted = include_str!("testdata/rsa-pss-sha384.pem");
        for (hash, expected) in [
            (HashAlgorithm::Sha384, Ok(())),
            (HashAlgorithm::Sha256, Err(Fault::PssHash(HashAlgorithm::Sha384))),
            (HashAlgorithm::Sha512, Err(Fault::PssHash(HashAlgorithm::Sha384))),
        ] {
            assert_eq!(from_pem(restricted.as_bytes(), hash).map(drop), expected);
            assert!(from_pem(include_str!("testdata/rsa-pss.pem").as_bytes(), hash).is_ok());
        }
        // SHA-1, two hashes, a salt that is longer than the hash.
        for text in [
            include_str!("testdata/rsa-pss-sha1.pem"),
            include_str!("testdata/rsa-pss-two-hashes.pem"),
            include_str!("testdata/rsa-pss-long-salt.pem"),
        ] {
            assert_eq!(read(text.as_bytes()), Err(Fault::PssParameters));
        }
        let der = from_pem(restricted.as_bytes(), HashAlgorithm::Sha384).unwrap();
        for length in 0..der.len() {
            assert!(check(&der[..length], HashAlgorithm::Sha384).is_err());
        }
    }

    #[test]
    fn damage_is_refused() {
        assert!(matches!(read(b""), Err(Fault::NotPem(_))));
        assert!(matches!(read(&[0xff; 100]), Err(Fault::NotPem(_))));
        assert!(matches!(
            read(format!("{P256_PEM}{P256_PEM}").as_bytes()),
            Err(Fault::NotPem(_))
        ));
        let truncated = P256_PEM.replace("MFkw", "MFkA");
        assert_eq!(read(truncated.as_bytes()), Err(Fault::Malformed("PKIX")));
        // A point that is not on the curve.
        let der = read(P256_PEM.as_bytes()).unwrap();
        let mut off_curve = der.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(sound(&off_curve), Err(Fault::Malformed("ECDSA P-256")));
        for length in 0..der.len() {
            assert!(sound(&der[..length]).is_err());
        }
        let mut longer = der;
        longer.push(0);
        assert!(sound(&longer).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0..91_usize, value: u8) {
            let _ = read(&bytes);
            let _ = sound(&bytes);
            let mut der = read(P256_PEM.as_bytes()).unwrap();
            der[at] = value;
            let _ = sound(&der);
        }
    }
}
