//! Trust stores of the Notary Project: which certificates its signatures and timestamps must chain to.
//!
//! What is in the files is read here once; what a certificate says is for whoever verifies with it.

use serde::{Deserialize, Serialize};
use spki::der::{Decode as _, Tag, asn1::AnyRef};

/// Largest file of certificates or of revoked certificates, in bytes.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// Most documents of one file.
const MAX_DOCUMENTS: usize = 256;

const BEGIN: &str = "-----BEGIN ";
const CERTIFICATE: &str = "CERTIFICATE";
const CRL: &str = "X509 CRL";

/// A `[[notation]]` of `trust.d`, with its files already read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustStore {
    /// Name by which policy refers to it.
    pub id: String,
    /// Roots of signing certificates, for the scheme `notary.x509`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca: Vec<Der>,
    /// Roots of signing certificates whose holders say themselves when they signed, for the scheme
    /// `notary.x509.signingAuthority`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_authority: Vec<Der>,
    /// Roots of timestamp authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tsa: Vec<Der>,
    /// Lists of revoked certificates, base and delta.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<Der>,
}

/// A document in DER, hexadecimal in JSON. Its outermost form is that of a certificate or a revocation list, no more is
/// known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Der(#[serde(with = "hex::serde")] pub Vec<u8>);

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Certificates,
    Revocations,
}

impl Content {
    fn label(self) -> &'static str {
        match self {
            Self::Certificates => CERTIFICATE,
            Self::Revocations => CRL,
        }
    }
}

/// Why a file is not what a trust store is made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Neither PEM nor DER.
    #[error("is neither PEM nor DER of a `{0}`")]
    Format(&'static str),
    /// A PEM document that is broken.
    #[error("holds a PEM document that cannot be read: {0}")]
    Pem(String),
    /// PEM of something else.
    #[error("holds a `{found}`, not a `{wanted}`")]
    Label {
        /// What it holds.
        found: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Too much.
    #[error("holds more than {MAX_DOCUMENTS} documents")]
    TooMany,
}

/// Reads PEM with one or more documents of one kind, or one document in DER.
pub(super) fn read(bytes: &[u8], content: Content) -> Result<Vec<Der>, Fault> {
    let wanted = content.label();
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(BEGIN));
    let Some(text) = text else {
        return document(bytes, wanted).map(|der| vec![der]);
    };
    let mut documents = Vec::new();
    for (start, _) in text.match_indices(BEGIN) {
        if documents.len() == MAX_DOCUMENTS {
            return Err(Fault::TooMany);
        }
        let rest = text.get(start..).unwrap_or_default();
        let end = rest
            .get(BEGIN.len()..)
            .and_then(|behind| behind.find(BEGIN))
            .map_or(rest.len(), |at| at + BEGIN.len());
        // What stands between two documents (openssl writes the names of certificates there) is no part of either.
        let one = rest.get(..end).unwrap_or_default();
        let close = one
            .find("-----END ")
            .and_then(|at| one.get(at..)?.find('\n').map(|line| at + line + 1))
            .unwrap_or(one.len());
        let (label, der) = spki::der::pem::decode_vec(one.get(..close).unwrap_or_default().as_bytes())
            .map_err(|error| Fault::Pem(error.to_string()))?;
        if label != wanted {
            return Err(Fault::Label {
                found: label.to_owned(),
                wanted,
            });
        }
        documents.push(document(&der, wanted)?);
    }
    Ok(documents)
}

/// Both kinds are a sequence that starts with a sequence.
fn document(der: &[u8], wanted: &'static str) -> Result<Der, Fault> {
    let is_sequence = |any: &AnyRef<'_>| spki::der::Tagged::tag(any) == Tag::Sequence;
    let outer = AnyRef::from_der(der).ok().filter(is_sequence);
    let starts_right = outer.is_some_and(|outer| outer.value().first() == Some(&SEQUENCE_BYTE));
    if starts_right {
        Ok(Der(der.to_vec()))
    } else {
        Err(Fault::Format(wanted))
    }
}

/// The first byte of a sequence in DER.
const SEQUENCE_BYTE: u8 = 0x30;

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("testdata/notation-ca.pem");

    #[test]
    fn certificates_are_read_from_pem_and_der() {
        let one = read(CA.as_bytes(), Content::Certificates).unwrap();
        let [Der(der)] = one.as_slice() else { panic!("{one:?}") };
        assert_eq!(read(der, Content::Certificates).unwrap(), one);
        let chain = format!("subject=CN = root\n{CA}\nsubject=CN = root\n{CA}");
        assert_eq!(read(chain.as_bytes(), Content::Certificates).unwrap().len(), 2);
    }

    #[test]
    fn anything_else_is_refused() {
        let fault = |bytes: &[u8]| read(bytes, Content::Certificates).unwrap_err().to_string();
        insta::assert_snapshot!(fault(b""), @"is neither PEM nor DER of a `CERTIFICATE`");
        insta::assert_snapshot!(fault(b"\x02\x01\x01"), @"is neither PEM nor DER of a `CERTIFICATE`");
        insta::assert_snapshot!(fault(include_bytes!("testdata/p256.pem")), @"holds a `PUBLIC KEY`, not a `CERTIFICATE`");
        let crl = read(CA.as_bytes(), Content::Revocations).unwrap_err();
        insta::assert_snapshot!(crl, @"holds a `CERTIFICATE`, not a `X509 CRL`");
        let cut = CA.replace("-----END CERTIFICATE-----", "");
        assert!(fault(cut.as_bytes()).starts_with("holds a PEM document that cannot be read"));
        let many = CA.repeat(MAX_DOCUMENTS + 1);
        insta::assert_snapshot!(fault(many.as_bytes()), @"holds more than 256 documents");
    }
}
