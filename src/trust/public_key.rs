//! PEM of a public key in, DER of its SubjectPublicKeyInfo (RFC 5280 §4.1) out, if Assay can verify with it.

use aws_lc_rs::signature::{self, ParsedPublicKey};
use ed25519_dalek::VerifyingKey;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::{ObjectIdentifier, UintRef};
use spki::der::{Decode as _, Reader as _, SliceReader, pem};

/// Largest key file: an RSA key of [`MAX_RSA_BITS`] with room for comments.
pub(super) const MAX_BYTES: u64 = 64 << 10;

/// Smallest RSA modulus that counts (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

/// Largest RSA modulus: a larger one only makes verification slow.
const MAX_RSA_BITS: usize = 8192;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Names of what people try to sign with and Assay does not verify.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.113549.1.1.10", "RSASSA-PSS"),
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
pub(super) enum Fault {
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
}

/// Reads the PEM document and checks that Assay verifies with such a key.
pub(super) fn from_pem(text: &[u8]) -> Result<Vec<u8>, Fault> {
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
    check(&der)?;
    Ok(der)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn check(der: &[u8]) -> Result<(), Fault> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| Fault::Malformed("PKIX"))?;
    let algorithm: (&'static dyn signature::VerificationAlgorithm, &'static str) = match info.algorithm.oid {
        EC => {
            let curve = info
                .algorithm
                .parameters_oid()
                .map_err(|_| Fault::Algorithm("an elliptic curve without a name".to_owned()))?;
            match curve {
                P256 => (&signature::ECDSA_P256_SHA256_ASN1, "P-256"),
                P384 => (&signature::ECDSA_P384_SHA384_ASN1, "P-384"),
                P521 => (&signature::ECDSA_P521_SHA512_ASN1, "P-521"),
                other => return Err(unsupported(&other)),
            }
        }
        RSA => {
            let bits = rsa_bits(info.subject_public_key.raw_bytes()).ok_or(Fault::Malformed("RSA"))?;
            if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                return Err(Fault::RsaSize(bits));
            }
            (&signature::RSA_PKCS1_2048_8192_SHA256, "RSA")
        }
        ED25519 => (&signature::ED25519, "Ed25519"),
        other => return Err(unsupported(&other)),
    };
    let (algorithm, name) = algorithm;
    ParsedPublicKey::new(algorithm, der).map_err(|_| Fault::Malformed(name))?;
    if info.algorithm.oid == ED25519 {
        // The library takes any 32 bytes until it verifies; half of them are no point of the curve.
        let point = info.subject_public_key.raw_bytes().try_into();
        point
            .ok()
            .and_then(|point| VerifyingKey::from_bytes(point).ok())
            .ok_or(Fault::Malformed(name))?;
    }
    Ok(())
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

    #[test]
    fn what_could_never_verify_anything_is_no_key() {
        let off_the_curve = include_bytes!("../../fuzz/corpus/public_key/ed25519-off-the-curve.pem");
        assert_eq!(from_pem(off_the_curve), Err(Fault::Malformed("Ed25519")));
        assert!(from_pem(include_bytes!("testdata/ed25519.pem")).is_ok());
    }

    #[test]
    fn every_supported_kind_of_key_is_read() {
        for text in [
            P256_PEM,
            include_str!("testdata/p384.pem"),
            include_str!("testdata/p521.pem"),
            include_str!("testdata/ed25519.pem"),
            include_str!("testdata/rsa2048.pem"),
        ] {
            let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
            assert_eq!(from_pem(text.as_bytes()), Ok(der));
        }
        // Windows line ends and a comment in front are common.
        assert!(from_pem(P256_PEM.replace('\n', "\r\n").as_bytes()).is_ok());
        assert!(from_pem(format!("release key\n{P256_PEM}").as_bytes()).is_ok());
    }

    #[test]
    fn every_other_is_refused_by_name() {
        let fault = |text: &str| from_pem(text.as_bytes()).unwrap_err();
        for (text, name) in [
            (include_str!("testdata/secp256k1.pem"), "secp256k1"),
            (include_str!("testdata/ed448.pem"), "Ed448"),
            (include_str!("testdata/rsa-pss.pem"), "RSASSA-PSS"),
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
    fn damage_is_refused() {
        assert!(matches!(from_pem(b""), Err(Fault::NotPem(_))));
        assert!(matches!(from_pem(&[0xff; 100]), Err(Fault::NotPem(_))));
        assert!(matches!(
            from_pem(format!("{P256_PEM}{P256_PEM}").as_bytes()),
            Err(Fault::NotPem(_))
        ));
        let truncated = P256_PEM.replace("MFkw", "MFkA");
        assert_eq!(from_pem(truncated.as_bytes()), Err(Fault::Malformed("PKIX")));
        // A point that is not on the curve.
        let der = from_pem(P256_PEM.as_bytes()).unwrap();
        let mut off_curve = der.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(check(&off_curve), Err(Fault::Malformed("P-256")));
        for length in 0..der.len() {
            assert!(check(&der[..length]).is_err());
        }
        let mut longer = der;
        longer.push(0);
        assert!(check(&longer).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0..91_usize, value: u8) {
            let _ = from_pem(&bytes);
            let _ = check(&bytes);
            let mut der = from_pem(P256_PEM.as_bytes()).unwrap();
            der[at] = value;
            let _ = check(&der);
        }
    }
}
